"""Docs from a shipped config's pipeline can still do what spaCy's can."""

from pathlib import Path

import numpy
import pytest
import spacy
from spacy.util import load_config

CONFIGS = Path(__file__).parents[1] / "configs"
PATHS = sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.cfg"))


@pytest.mark.parametrize("name", PATHS)
def test_docs_have_vectors_and_parts_behind_the_doc_cleaner(name: str) -> None:
    plain, nlp = spacy.blank("en"), spacy.blank("en")
    settings = load_config(CONFIGS / name)["components"].get("doc_cleaner")
    if settings is not None:
        nlp.add_pipe(settings.pop("factory"), config=settings)
    text = "Anna lives in Oslo now."
    doc, expected = nlp(text), plain(text)
    assert doc[1:3].as_doc().text == expected[1:3].as_doc().text == "lives in "
    for part, other in ((doc, expected), (doc[1:3], expected[1:3]), (doc[0], expected[0])):
        assert part.has_vector is other.has_vector is False
        assert numpy.array_equal(part.vector, other.vector)
    with pytest.warns(UserWarning, match="no word vectors|empty vectors"):
        assert doc.similarity(nlp("Bob too.")) == doc[:2].similarity(doc[3:]) == 0.0
    assert doc.copy().tensor.shape == expected.tensor.shape
    assert numpy.array_equal(spacy.tokens.Doc(nlp.vocab).from_bytes(doc.to_bytes()).tensor, expected.tensor)
