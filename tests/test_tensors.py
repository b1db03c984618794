"""Docs from the shipped configs' pipelines can do what spaCy's can: none has its `doc.tensor` set to None."""

from pathlib import Path

import numpy
import pytest
import spacy
from spacy.tokens import Doc
from spacy.util import load_config

from .making import make_nlp

CONFIGS = Path(__file__).parents[1] / "configs"
PATHS = sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.cfg"))
TEXT = "Anna lives in Oslo now."


def assert_like_spacys(doc: Doc, other: Doc) -> None:
    expected = spacy.blank("en")(TEXT)
    assert doc[1:3].as_doc().text == expected[1:3].as_doc().text == "lives in "
    for part, blank in ((doc, expected), (doc[1:3], expected[1:3]), (doc[0], expected[0])):
        assert part.has_vector is blank.has_vector is False
        assert numpy.array_equal(part.vector, blank.vector)
    with pytest.warns(UserWarning, match="no word vectors|empty vectors"):
        assert doc.similarity(other) == doc[:2].similarity(other[:2]) == 0.0
    assert doc.copy().tensor.shape == expected.tensor.shape
    assert numpy.array_equal(Doc(doc.vocab).from_bytes(doc.to_bytes()).tensor, expected.tensor)


@pytest.mark.parametrize("name", PATHS)
def test_components_that_are_not_ours_leave_docs_whole(name: str) -> None:
    nlp = spacy.blank("en")
    config = load_config(CONFIGS / name)
    for component in config["nlp"]["pipeline"]:
        settings = config["components"][component]
        if not settings["factory"].startswith(("bert_", "seq2seq_")):
            nlp.add_pipe(settings.pop("factory"), component, config=settings)
    assert_like_spacys(nlp(TEXT), nlp("Bob too."))


@pytest.mark.parametrize("keep_outputs", [True, False])
def test_our_components_leave_docs_whole(bert_folder: str, keep_outputs: bool) -> None:
    nlp = make_nlp(bert_folder, settings={"transformer": {"keep_outputs": keep_outputs}})
    doc = nlp(TEXT)
    assert (doc._.trf_data is not None) == keep_outputs
    assert_like_spacys(doc, nlp("Bob too."))
