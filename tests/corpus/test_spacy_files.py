"""spaCy's own files: DocBin and JSON."""

import json
from pathlib import Path

import pytest
import spacy
from hypothesis import given, settings
from spacy.tokens import Doc, DocBin

from spacy_bert_heads.corpus.annotations import Annotation
from spacy_bert_heads.corpus.docs import INCORRECT_SPANS_KEY, build_doc
from spacy_bert_heads.corpus.findings import Findings
from spacy_bert_heads.corpus.readers.formats import find_converter
from spacy_bert_heads.errors import BertHeadsError

from .helpers import PARIS, get_iob, get_spans, write_jsonl
from .reading import covered, read, words, write
from .test_docs import NLP, annotations


def write_docs(path: Path, *docs: Doc) -> Path:
    DocBin(docs=docs, store_user_data=True).to_disk(path)
    return path


@given(annotations())
@settings(deadline=None)
def test_docs_come_back_as_they_were(tmp_path_factory, annotation: Annotation):
    doc = build_doc(NLP, annotation, Findings(skip_bad=False))
    path = write_docs(tmp_path_factory.mktemp("bin") / "a.spacy", doc)
    assert find_converter(path, "auto").name == "spacy"
    found, findings = read(path)
    if annotation.is_empty:
        assert not found and findings.counts == {"no_annotation": 1}
        return
    again = build_doc(NLP, found[0], Findings(skip_bad=False))
    assert [(t.text, t.whitespace_) for t in again] == [(t.text, t.whitespace_) for t in doc]
    assert get_spans(again.ents) == get_spans(doc.ents)
    assert get_iob(again) == get_iob(doc)
    assert get_spans(again.spans.get(INCORRECT_SPANS_KEY, [])) == get_spans(doc.spans.get(INCORRECT_SPANS_KEY, []))
    assert again.cats == doc.cats


def test_what_is_not_used_of_a_doc_is_said(tmp_path: Path):
    doc = spacy.blank("en")(PARIS)
    doc.cats = {"A": 0.25}
    doc.spans["sc"] = [doc[0:2]]
    doc[0].tag_ = "NNP"
    (annotation,), findings = read(write_docs(tmp_path / "a.spacy", doc))
    assert annotation.cats == {"A": 0.25}
    assert findings.counts == {"other_layers": 1, "other_groups": 1}
    assert findings.cases["other_layers"][0].detail == "TAG"
    assert findings.cases["other_groups"][0].detail == "spans['sc']"


def test_broken_and_empty_docbins_are_refused(tmp_path: Path):
    good = write_docs(tmp_path / "a.spacy", spacy.blank("en")(PARIS)).read_bytes()
    for content in (good[:-9], good[:20], b"", b"x" * 50):
        with pytest.raises(BertHeadsError) as info:
            read(write(tmp_path / "b.spacy", content), "spacy")
        assert info.value.code == "H144"


@pytest.mark.parametrize("as_array", [True, False])
@pytest.mark.parametrize(
    "value",
    [
        {"text": PARIS, "entities": [[0, 5, "ORG"]]},
        {"text": PARIS, "ents": [{"start": 0, "end": 5, "label": "ORG"}], "cats": {}},
        [PARIS, {"entities": [[0, 5, "ORG"]]}],
    ],
)
def test_entities_of_every_shape(tmp_path: Path, as_array: bool, value):
    content = json.dumps([value, value]) if as_array else json.dumps(value) + "\n"
    found, findings = read(write(tmp_path / "a.json", content))
    assert len(found) == 1 + as_array and not findings.counts
    assert covered(found[0]) == [("Apple", "ORG")] and found[0].complete


def test_what_doc_to_json_writes(tmp_path: Path):
    nlp = spacy.blank("en")
    doc = nlp(PARIS)
    doc.set_ents([doc.char_span(0, 5, label="ORG")])
    doc.cats = {"A": 1.0, "B": 0.0}
    doc.spans[INCORRECT_SPANS_KEY] = [doc.char_span(16, 21, label="ORG")]
    (annotation,), findings = read(write_jsonl(tmp_path / "a.jsonl", doc.to_json()))
    assert covered(annotation) == [("Apple", "ORG")]
    assert covered(annotation, "rejected") == [("Paris", "ORG")]
    assert annotation.cats == doc.cats
    assert words(annotation) == [token.text for token in doc]
    assert not findings.counts


def test_categories_alone_say_nothing_of_entities(tmp_path: Path):
    path = write_jsonl(tmp_path / "a.jsonl", {"text": PARIS, "cats": {"A": True, "B": 0.5}}, {"text": "b", "cats": {}})
    (annotation,), findings = read(path)
    assert (annotation.cats, annotation.complete) == ({"A": 1.0, "B": 0.5}, False)
    assert findings.counts == {"no_annotation": 1}


@pytest.mark.parametrize(
    "record, code",
    [
        ({"text": PARIS, "entities": [[0, 5]]}, "H108"),
        ({"text": PARIS, "entities": [["0", 5, "A"]]}, "H108"),
        ({"text": PARIS, "entities": [[0, 5, ""]]}, "H112"),
        ({"text": PARIS, "cats": {"A": float("nan")}}, "H135"),
        ({"text": PARIS, "cats": {"A": "1"}}, "H135"),
        ({"text": "", "cats": {"A": 1}}, "H107"),
        ({"text": PARIS, "tokens": [{"start": 0}], "cats": {"A": 1}}, "H116"),
    ],
)
def test_broken_records_are_named(tmp_path: Path, record, code: str):
    path = write_jsonl(tmp_path / "a.jsonl", {"text": "b", "cats": {"A": 1}}, record)
    with pytest.raises(BertHeadsError) as info:
        read(path, "spacy-json")
    assert (info.value.code, info.value.line) == (code, 2)
