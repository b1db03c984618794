"""Docs -> the formats of annotation tools -> Docs: what comes back, and what was said to be lost."""

import json
import tempfile
from collections import Counter
from pathlib import Path

import pytest
import spacy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc, DocBin, Span

from spacy_bert_heads.corpus.annotations import merge
from spacy_bert_heads.corpus.docs import INCORRECT_SPANS_KEY, build_doc, check_annotation
from spacy_bert_heads.corpus.findings import Findings
from spacy_bert_heads.corpus.readers.formats import CONVERTERS, ReadOptions
from spacy_bert_heads.corpus.readers.labelling_config import LabellingConfig
from spacy_bert_heads.corpus.writers.export import FORMATS, export
from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.extensions import set_confidence
from spacy_bert_heads.tags import SCHEMES

from ..making import make_nlp
from .helpers import ALL_TRAIN, get_iob, get_spans, load_docs, run

NLP = spacy.blank("xx")
WORDS = ["Apple", "in", "Paris", ".", "New York", "中国", "👍", "é", "B-ORG", "x<y>&", '"', "it's"]
LABELS = ["ORG", "GPE", "Application area"]
CLASSES = ["POS", "NEG", "über/sub, 1"]
PROPERTY = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@st.composite
def make_doc(draw, number: int) -> Doc:
    """Any mix of entities, rejected spans, tokens of which nothing is known, and categories."""
    # The number makes texts different, so that none are merged.
    words = [*draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=6)), f"n{number}"]
    spaces = [*draw(st.lists(st.booleans(), min_size=len(words) - 1, max_size=len(words) - 1)), False]
    doc = Doc(NLP.vocab, words=words, spaces=spaces)
    borders = sorted(draw(st.sets(st.integers(0, len(words)), max_size=6)))
    pieces = [(start, end, draw(st.sampled_from(LABELS))) for start, end in zip(borders, borders[1:])]
    roles = [draw(st.sampled_from(["ent", "unknown", "rejected", "nothing"])) for _ in pieces]
    spans = [Span(doc, start, end, label) for start, end, label in pieces]
    chosen = {role: [span for span, known in zip(spans, roles) if known == role] for role in roles}
    default = draw(st.sampled_from(["outside", "missing"]))
    doc.set_ents(chosen.get("ent", []), missing=chosen.get("unknown", []), default=default)
    if chosen.get("rejected"):
        doc.spans[INCORRECT_SPANS_KEY] = chosen["rejected"]
    doc.cats = draw(st.dictionaries(st.sampled_from(CLASSES), st.sampled_from([0.0, 1.0]), max_size=3))
    return doc


@st.composite
def make_docs(draw):
    return [draw(make_doc(number)) for number in range(draw(st.integers(1, 4)))]


def send(docs, format: str, **options):
    """The Docs that come back, by text, and the counts of what was said to be lost."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        DocBin(docs=docs, store_user_data=True).to_disk(folder / "in.spacy")
        count, findings = export(folder / "in.spacy", folder / "out.txt", format=format, lang="xx", **options)
        assert count == len(docs)
        records = {}
        passed = Findings(skip_bad=False)
        for annotation in CONVERTERS[format].read(folder / "out.txt", passed, ReadOptions(lang="xx")):
            checked = check_annotation(NLP, annotation, passed, "split")
            records.setdefault(annotation.text, []).append(checked)
    back = [build_doc(NLP, merge(versions, passed), passed) for versions in records.values()]
    return {doc.text: doc for doc in back}, findings.counts


def get_rejected(doc):
    return sorted(get_spans(doc.spans.get(INCORRECT_SPANS_KEY, ())))


def asks_ents(doc) -> bool:
    return doc.has_annotation("ENT_IOB") or INCORRECT_SPANS_KEY in doc.spans


def is_complete(doc) -> bool:
    return "O" in get_iob(doc) or "" not in get_iob(doc)


def count(values):
    """As the findings count: without the kinds that did not occur."""
    return Counter({kind: n for kind, n in values.items() if n})


@given(make_docs())
@PROPERTY
def test_prodigy_holds_everything_but_rejected_spans_of_complete_texts(docs):
    back, lost = send(docs, "prodigy")
    bare = [doc for doc in docs if not asks_ents(doc) and not doc.cats]
    implied = sum(len(get_rejected(doc)) for doc in docs if asks_ents(doc) and is_complete(doc))
    assert lost == count({"bare": len(bare), "lost_implied": implied})
    assert len(back) == len(docs) - len(bare)
    for doc in docs:
        if doc in bare:
            continue
        other = back[doc.text]
        assert [token.text for token in other] == [token.text for token in doc]
        assert get_iob(other) == get_iob(doc)
        assert get_spans(other.ents) == get_spans(doc.ents)
        assert get_rejected(other) == ([] if is_complete(doc) else get_rejected(doc))
        assert other.cats == doc.cats


@given(make_docs(), st.sampled_from(sorted(SCHEMES)))
@PROPERTY
def test_conll_holds_tokens_and_what_is_known_of_them(docs, scheme):
    back, lost = send(docs, "conll", scheme=scheme)
    joined = {doc: " ".join(token.text for token in doc) for doc in docs}
    expected = {
        "lost_rejected": sum(len(get_rejected(doc)) for doc in docs),
        "lost_cats": sum(len(doc.cats) for doc in docs),
        "lost_spacing": sum(text != doc.text for doc, text in joined.items()),
    }
    assert lost == count(expected)
    for doc, text in joined.items():
        other = back[text]
        assert [token.text for token in other] == [token.text for token in doc]
        assert get_iob(other) == get_iob(doc)
        assert [(ent.start, ent.end, ent.label_) for ent in other.ents] == [
            (ent.start, ent.end, ent.label_) for ent in doc.ents
        ]
        assert not other.cats and not get_rejected(other)


@pytest.mark.parametrize("format", ["label-studio", "doccano"])
@given(docs=make_docs())
@PROPERTY
def test_platforms_hold_entities_and_labels_chosen_and_the_rest_is_said(format, docs):
    back, lost = send(docs, format)
    has_spans = any(doc.ents for doc in docs)
    # Both name labels that hold; only Label Studio can say that none of them does.
    chosen = [doc for doc in docs if any(doc.cats.values()) or (doc.cats and format == "label-studio")]
    held = {label for doc in docs for label, value in doc.cats.items() if value}
    cats = {
        doc.text: {label: float(doc.cats.get(label, 0.0)) for label in held} if doc in chosen else {} for doc in docs
    }
    written = [doc for doc in docs if format == "doccano" or asks_ents(doc) or doc.cats]
    known = {(doc.text, label) for doc in docs for label in doc.cats}
    read = {(text, label) for text, labels in cats.items() for label in labels}
    expected = {
        "bare": len(docs) - len(written),
        "lost_rejected": sum(len(get_rejected(doc)) for doc in docs),
        "lost_tokens": sum([*map(str, NLP.make_doc(doc.text))] != [*map(str, doc)] for doc in written),
        "lost_unknown": sum(asks_ents(doc) and "" in get_iob(doc) for doc in docs) if has_spans else 0,
        "lost_unasked": sum(not asks_ents(doc) for doc in written) if has_spans else 0,
        "lost_outside": 0 if has_spans else sum(asks_ents(doc) for doc in docs),
        "lost_negative": len(known - read),
        "lost_unknown_cats": len(read - known),
    }
    assert lost == count(expected)
    for doc in docs:
        if doc.text not in back:
            assert doc not in written or (not has_spans and not cats[doc.text])
            continue
        other = back[doc.text]
        assert get_spans(other.ents) == get_spans(doc.ents)
        assert other.has_annotation("ENT_IOB", require_complete=True) == has_spans
        assert other.cats == cats[doc.text]


def write_docs(path: Path, *docs: Doc) -> Path:
    DocBin(docs=docs, store_user_data=True).to_disk(path)
    return path


def make_scored(text: str, **cats: float) -> Doc:
    doc = NLP.make_doc(text)
    doc.cats = cats
    return doc


@pytest.mark.parametrize("format", FORMATS)
def test_white_space_tokens_and_line_ends_do_not_break_a_file(tmp_path: Path, format: str):
    doc = spacy.blank("en").make_doc("Apple \n\n opened\t in\u00a0Paris.\r\n")
    doc.set_ents([Span(doc, 0, 1, "ORG")], default="outside")
    source = write_docs(tmp_path / "in.spacy", doc, spacy.blank("en")("  "), spacy.blank("en")(""))
    written, findings = export(source, tmp_path / "out", format=format)
    run(tmp_path / "out", tmp_path, format=format, split=ALL_TRAIN, off_tokens="split")
    back = load_docs(tmp_path / "train.spacy")
    assert get_spans(back[0].ents) == [(0, 5, "ORG")]
    assert "".join(back[0].text.split()) == "".join(doc.text.split())
    assert (back[0].text == doc.text) == (format != "conll")
    assert findings.counts["lost_blank"] == (2 if format == "conll" else 1)


def test_what_no_format_holds_is_said(tmp_path: Path):
    doc = NLP.make_doc("It rains. It is wet.")
    doc.set_ents([], default="outside")
    doc.user_data["second_start"] = 10
    doc.spans["sc"] = [Span(doc, 0, 1, "A"), Span(doc, 0, 2, "B")]
    doc.spans["empty"] = []
    source = write_docs(tmp_path / "in.spacy", doc)
    for format in FORMATS:
        _, findings = export(source, tmp_path / "out", format=format, lang="xx")
        assert (findings.counts["lost_pair"], findings.counts["lost_groups"]) == (1, 2)
        assert "spans['sc']" in findings.cases["lost_groups"][0].detail


def test_scores_survive_in_label_studio_and_are_said_to_be_lost_elsewhere(tmp_path: Path):
    docs = [make_scored("one", quality=1.0, POS=1.0), make_scored("two", quality=2.5, POS=0.0)]
    source = write_docs(tmp_path / "in.spacy", *docs)
    for format in ("prodigy", "doccano"):
        _, findings = export(source, tmp_path / "out", format=format)
        assert findings.counts["lost_scores"] == 2
        assert "quality" not in (tmp_path / "out").read_text(encoding="utf8")
    export(source, tmp_path / "out", format="label-studio")
    run(tmp_path / "out", tmp_path, format="label-studio", split=ALL_TRAIN)
    back = load_docs(tmp_path / "train.spacy")
    assert [doc.cats for doc in back] == [doc.cats for doc in docs]


def make_joint(text: str, **cats: float) -> Doc:
    doc = make_scored(text, **cats)
    doc.set_ents([Span(doc, 0, 1, "ORG")], default="outside")
    return doc


def read_lines(path: Path):
    return [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()]


def test_prodigy_has_one_line_a_text_unless_two_interfaces_are_asked_for(tmp_path: Path):
    docs = [make_joint("Apple one", POS=1.0, NEG=0.0), make_joint("Apple two", POS=0.0, NEG=1.0)]
    source = write_docs(tmp_path / "in.spacy", *docs)
    export(source, tmp_path / "out", format="prodigy")
    records = read_lines(tmp_path / "out")
    assert [record["text"] for record in records] == ["Apple one", "Apple two"]
    assert {record["_view_id"] for record in records} == {"blocks"}
    assert [block["view_id"] for block in records[0]["config"]["blocks"]] == ["ner_manual", "choice"]
    assert records[0]["accept"] == ["POS"] and records[0]["spans"][0]["label"] == "ORG"
    export(source, tmp_path / "separate", format="prodigy", separate=True)
    views = [(record["text"], record["_view_id"]) for record in read_lines(tmp_path / "separate")]
    assert views == [(text, view) for text in ("Apple one", "Apple two") for view in ("ner_manual", "choice")]
    for path in ("out", "separate"):
        run(tmp_path / path, tmp_path, format="prodigy", split=ALL_TRAIN)
        back = load_docs(tmp_path / "train.spacy")
        assert [(doc.text, doc.cats, get_spans(doc.ents)) for doc in back] == [
            (doc.text, doc.cats, get_spans(doc.ents)) for doc in docs
        ]


@pytest.mark.parametrize("format", ["prodigy", "label-studio", "doccano"])
@pytest.mark.parametrize("head", ["bert_textcat", "bert_textcat_multilabel"])
def test_categories_survive_spacy_apply(tmp_path: Path, bert_folder: str, head: str, format: str):
    nlp = make_nlp(bert_folder, [head])
    texts = ["Anna wants a refund", "track Smith", "where is New York?", "cancel"]
    docs = list(nlp.pipe(texts))
    held = {doc.text: {label for label, value in doc.cats.items() if value >= 0.5} for doc in docs}
    if head == "bert_textcat":
        held = {doc.text: {max(doc.cats, key=doc.cats.get)} for doc in docs}
    # What `spacy apply` writes
    source = write_docs(tmp_path / "applied.spacy", *docs)
    _, findings = export(source, tmp_path / "out", format=format)
    assert findings.counts["probabilities"] == 4 and not findings.counts["lost_scores"]
    run(tmp_path / "out", tmp_path, format=format, split=ALL_TRAIN)
    back = load_docs(tmp_path / "train.spacy")
    assert {doc.text: {label for label, value in doc.cats.items() if value} for doc in back}.items() <= held.items()
    assert len(back) == sum(map(bool, held.values())) or format != "doccano"


def test_numbers_that_people_wrote_stay_numbers(tmp_path: Path):
    for values in ((0.25, 0.75), (0.5, 3.0), (0.123456789, -1.5)):
        source = write_docs(tmp_path / "in.spacy", *(make_scored(f"text {value}", quality=value) for value in values))
        export(source, tmp_path / "out", format="label-studio")
        run(tmp_path / "out", tmp_path, format="label-studio", split=ALL_TRAIN)
        assert [doc.cats["quality"] for doc in load_docs(tmp_path / "train.spacy")] == list(values)


def test_confidence_is_said_to_be_lost_in_columns(tmp_path: Path):
    doc = NLP.make_doc("Apple in Paris")
    doc.set_ents([Span(doc, 0, 1, "ORG"), Span(doc, 2, 3, "GPE")], default="outside")
    set_confidence(doc.ents[0], 0.5)
    source = write_docs(tmp_path / "in.spacy", doc)
    counts = {format: export(source, tmp_path / "out", format=format)[1].counts for format in FORMATS}
    assert {format: found["lost_confidence"] for format, found in counts.items() if found["lost_confidence"]} == {
        "conll": 1,
        "doccano": 1,
    }


def test_what_cannot_be_exported_is_refused_and_nothing_is_written(tmp_path: Path):
    source = write_docs(tmp_path / "in.spacy", make_scored("one", POS=1.0))
    empty = write_docs(tmp_path / "empty.spacy")
    text = tmp_path / "a.txt"
    text.write_text("one\n", encoding="utf8")
    broken = tmp_path / "broken.spacy"
    broken.write_bytes(b"no docs")
    cases = [
        ("H101", tmp_path / "none.spacy", {}),
        ("H165", text, {}),
        ("H167", source, {"format": "xml"}),
        ("H310", empty, {}),
        ("H315", broken, {}),
        ("H331", source, {"scheme": "bilou", "format": "conll"}),
    ]
    for code, path, options in cases:
        with pytest.raises(BertHeadsError) as info:
            export(path, tmp_path / "new" / "out", **{"format": "prodigy", **options})
        assert info.value.code == code
        assert not (tmp_path / "new").exists()


def clean(label: str) -> str:
    """What columns can hold of a label, found without regular expressions."""
    ends = "\t\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
    parts = [part for part in "".join("\n" if c in ends else c for c in label.strip()).split("\n") if part]
    return " ".join(parts).strip()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.text("AB-_ \t\n\r\x85\u2028\x0b.1é", min_size=1, max_size=5), st.sampled_from(sorted(SCHEMES)))
def test_columns_hold_any_label_or_say_what_becomes_of_it(label: str, scheme: str) -> None:
    doc = Doc(NLP.vocab, words=["Oslo", "and", "Bergen", "rain"])
    doc.set_ents([Span(doc, 0, 1, label=label), Span(doc, 2, 3, label="X")])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        DocBin(docs=[doc]).to_disk(folder / "a.spacy")
        _, findings = export(folder / "a.spacy", folder / "a.conll", format="conll", scheme=scheme, lang="xx")
        lines = (folder / "a.conll").read_text(encoding="utf8").split("\n")
        assert len(lines) == 6 and all(len(line.split("\t")) == 2 for line in lines[:4])
        options = ReadOptions(lang="xx", scheme=scheme)
        (read,) = CONVERTERS["conll"].read(folder / "a.conll", Findings(skip_bad=False), options)
    kept = clean(label)
    assert findings.counts["lost_label"] == (kept != label)
    assert [ent.label for ent in read.ents] == ([kept, "X"] if kept else ["X"])
    assert kept or [read.text[span.start : span.end] for span in read.unknown] == ["Oslo"]


@pytest.mark.parametrize("format", FORMATS)
def test_other_formats_hold_any_label_and_no_value_is_written_that_json_has_not(tmp_path: Path, format: str) -> None:
    label = "A\tB\nC \x1b,"
    docs = [Doc(NLP.vocab, words=["Oslo", "rains", str(number)]) for number in range(3)]
    for doc, value in zip(docs, (float("nan"), float("-inf"), 1.0)):
        doc.set_ents([Span(doc, 0, 1, label=label)])
        doc.cats = {"N": value, "Y": 1.0}
    DocBin(docs=docs, store_user_data=True).to_disk(tmp_path / "a.spacy")
    _, findings = export(tmp_path / "a.spacy", tmp_path / "o", format=format, lang="xx")
    assert findings.counts["lost_number"] == 2
    assert findings.counts["lost_label"] == (3 if format == "conll" else 0)
    text = (tmp_path / "o").read_text(encoding="utf8")
    if format != "conll":
        rows = json.loads(text) if format == "label-studio" else [json.loads(line) for line in text.splitlines()]
        assert "NaN" not in text and "Infinity" not in text
        assert json.dumps(label)[1:-1] in json.dumps(rows)


def test_an_interface_of_labels_that_xml_cannot_hold_is_refused() -> None:
    for label in ("A\tB\nC", "<&>\"'", "é 中"):
        config = LabellingConfig.from_labels([label], [label], True)
        assert LabellingConfig.from_xml(config.to_xml(words=True)) == config
    with pytest.raises(BertHeadsError, match="H551"):
        LabellingConfig.from_labels(["A\x1bB"], [], False).to_xml(words=True)
