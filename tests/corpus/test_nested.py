"""Entities that overlap: formats that hold them, what convert makes of them, and the way out and back in."""

import gzip
import itertools
import json
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest
import spacy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc, DocBin, Span

from spacy_bert_heads.corpus.annotations import CharSpan, flatten
from spacy_bert_heads.corpus.training_corpus import build_corpus_v1
from spacy_bert_heads.corpus.writers.export import export
from spacy_bert_heads.errors import BertHeadsError

from .helpers import ALL_TRAIN, PARIS, get_iob, get_spans, load_docs, make_span, run, write_jsonl
from .reading import covered, read, write

NESTED = "Anna of the New York Times laughs"
SPANS = [(12, 26, "ORG"), (12, 20, "CITY"), (0, 26, "PERSON"), (12, 20, "NAME")]


def convert(path: Path, **options: Any) -> List[Doc]:
    out = path.parent / "out"
    run(path, out, split=ALL_TRAIN, **options)
    return load_docs(out / "train.spacy", options.get("lang", "en"))


def prodigy_record(**keys: Any) -> Dict[str, Any]:
    spans = [make_span(*span) for span in SPANS]
    return {"text": NESTED, "spans": spans, "_view_id": "spans_manual", "answer": "accept", **keys}


def label_studio_task() -> Dict[str, Any]:
    results = [
        {"from_name": "ner", "to_name": "text", "type": "labels", "value": {"start": i, "end": j, "labels": [label]}}
        for i, j, label in SPANS
    ]
    return {"id": 1, "data": {"text": NESTED}, "annotations": [{"result": results}]}


# The same annotation in each format that holds it
FILES: Dict[str, Tuple[str, str]] = {
    "prodigy": ("a.jsonl", json.dumps(prodigy_record())),
    "doccano": ("a.jsonl", json.dumps({"text": NESTED, "label": [list(span) for span in SPANS]})),
    "label-studio": ("a.json", json.dumps([label_studio_task()])),
    "brat": ("a.ann", "".join(f"T{n}\t{s[2]} {s[0]} {s[1]}\t{NESTED[s[0] : s[1]]}\n" for n, s in enumerate(SPANS))),
    "conll": (
        "a.conll",
        "Anna\tO\tO\tO\tB-PERSON\nof\tO\tO\tO\tI-PERSON\nthe\tO\tO\tO\tI-PERSON\n"
        "New\tB-ORG\tB-CITY\tB-NAME\tI-PERSON\nYork\tI-ORG\tI-CITY\tI-NAME\tI-PERSON\n"
        "Times\tI-ORG\tO\tO\tI-PERSON\nlaughs\tO\tO\tO\tO\n\n",
    ),
    "token-spans": (
        "a.jsonl",
        json.dumps(
            {
                "tokens": NESTED.split(),
                "entities": [
                    {"start": 3, "end": 6, "type": "ORG"},
                    {"start": 3, "end": 5, "type": "CITY"},
                    {"start": 0, "end": 6, "type": "PERSON"},
                    {"start": 3, "end": 5, "label": "NAME"},
                ],
            }
        ),
    ),
    "cmeee": (
        "a.json",
        json.dumps(
            [
                {
                    "text": NESTED,
                    "entities": [
                        {"start_idx": i, "end_idx": j - 1, "type": label, "entity": NESTED[i:j]}
                        for i, j, label in SPANS
                    ],
                }
            ]
        ),
    ),
    "spacy-json": ("a.json", json.dumps([{"text": NESTED, "spans": {"sc": [list(span) for span in SPANS]}}])),
}


def write_file(folder: Path, format: str) -> Path:
    name, content = FILES[format]
    if format == "brat":
        write(folder / "a.txt", NESTED)
    return write(folder / name, content)


@pytest.mark.parametrize("format", FILES)
def test_every_format_keeps_overlapping_spans_for_a_spans_key(tmp_path: Path, format: str) -> None:
    (doc,) = convert(write_file(tmp_path, format), spans_key="sc")
    assert sorted(get_spans(doc.spans["sc"])) == sorted(SPANS)
    assert "unknown_spans" not in doc.spans and not doc.has_annotation("ENT_IOB")


@pytest.mark.parametrize("format", [name for name in FILES if name not in ("conll", "spacy-json")])
def test_without_a_spans_key_they_are_refused_and_the_way_out_is_named(tmp_path: Path, format: str) -> None:
    with pytest.raises(BertHeadsError, match=r"\[H113\].*--spans-key sc.*bert_spans.*--flatten"):
        convert(write_file(tmp_path, format))


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("outer", [(0, 26, "PERSON")]),
        ("inner", [(12, 20, "CITY")]),
        ("longest", [(0, 26, "PERSON")]),
    ],
)
def test_flattening_chooses_entities_and_counts_the_others(tmp_path: Path, how: str, expected: List[Any]) -> None:
    path = write_file(tmp_path, "doccano")
    report = run(path, tmp_path / "out", split=ALL_TRAIN, flatten=how)
    (doc,) = load_docs(tmp_path / "out" / "train.spacy")
    assert get_spans(doc.ents) == expected and "sc" not in doc.spans and "" not in get_iob(doc)
    assert report.findings.counts["flattened"] == 3
    (both,) = convert(path, flatten=how, spans_key="mine")
    assert get_spans(both.ents) == expected and sorted(get_spans(both.spans["mine"])) == sorted(SPANS)


SPAN = st.tuples(st.integers(0, 9), st.integers(1, 5), st.sampled_from("AB"))
CHAR_SPANS = st.lists(SPAN.map(lambda drawn: CharSpan(drawn[0], drawn[0] + drawn[1], drawn[2])), max_size=8)


@given(CHAR_SPANS, st.sampled_from(["outer", "inner", "longest"]))
def test_flat_spans_do_not_overlap_and_no_more_would_fit(spans: List[CharSpan], how: str) -> None:
    chosen = flatten(spans, how)
    assert chosen == sorted(chosen) and all(one.end <= two.start for one, two in zip(chosen, chosen[1:]))
    for span in set(spans) - set(chosen):
        assert any(span.start < other.end and other.start < span.end for other in chosen)
    if how == "longest" and spans:
        assert max(end - start for start, end, _ in chosen) == max(end - start for start, end, _ in spans)
    pairs = itertools.permutations(set(spans), 2)
    nested = [(a, b) for a, b in pairs if a.start <= b.start and b.end <= a.end and a[:2] != b[:2]]
    if how == "inner" and len(spans) == 2 and nested:
        assert chosen == [nested[0][1]]
    if how == "outer" and len(spans) == 2 and nested:
        assert chosen == [nested[0][0]]


def test_yes_and_no_answers_about_spans_leave_the_rest_unknown(tmp_path: Path) -> None:
    answers = [
        {**make_span(12, 26), "answer": "accept"},
        {**make_span(12, 20, "CITY"), "answer": "accept"},
        {**make_span(0, 4, "CITY"), "answer": "reject"},
    ]
    record = {"text": NESTED, "spans": answers, "_is_binary": True, "answer": "accept"}
    (doc,) = convert(write_jsonl(tmp_path / "a.jsonl", record), spans_key="sc")
    assert sorted(get_spans(doc.spans["sc"])) == [(12, 20, "CITY"), (12, 26, "ORG")]
    assert get_spans(doc.spans["incorrect_spans"]) == [(0, 4, "CITY")]
    assert get_spans(doc.spans["unknown_spans"]) == [(0, len(NESTED), "")]


def test_labels_that_were_not_shown_are_unknown_and_the_others_complete(tmp_path: Path) -> None:
    records = [prodigy_record(), {"text": PARIS, "spans": [make_span(0, 5)], "_view_id": "spans_manual"}]
    records[1]["config"] = {"labels": ["ORG", "CITY"]}
    _, doc = convert(write_jsonl(tmp_path / "a.jsonl", *records), spans_key="sc")
    assert get_spans(doc.spans["sc"]) == [(0, 5, "ORG")]
    assert get_spans(doc.spans["unknown_spans"]) == [(0, len(PARIS), "NAME"), (0, len(PARIS), "PERSON")]


def test_flat_entities_leave_unknown_what_spans_leave_unknown(tmp_path: Path) -> None:
    first = {"text": PARIS, "spans": [make_span(0, 5)], "_view_id": "spans_manual", "config": {"labels": ["ORG"]}}
    other = {"text": "Anna left", "spans": [make_span(0, 4, "PERSON")], "_view_id": "spans_manual"}
    doc, complete = convert(write_jsonl(tmp_path / "a.jsonl", first, other), flatten="outer")
    assert get_iob(doc) == ["B", "", "", "", ""] and get_iob(complete) == ["B", "O"]
    write(tmp_path / "b.txt", NESTED)
    (doc,) = convert(
        write(tmp_path / "b.ann", "T1\tORG 12 26\tNew York Times\nT2\tNAME 0 4;21 26\tAnna Times\n"), flatten="outer"
    )
    assert get_iob(doc) == ["", "", "", "B", "I", "I", "O"]


def test_categories_alone_say_nothing_about_spans(tmp_path: Path) -> None:
    (doc,) = convert(write(tmp_path / "a.txt", "__label__POS great\n"), spans_key="sc")
    assert dict(doc.spans) == {} and doc.cats


def test_misaligned_spans_are_dropped_and_their_label_is_unknown_there(tmp_path: Path) -> None:
    record = {"text": NESTED, "label": [[0, 26, "PERSON"], [13, 20, "CITY"]]}
    (doc,) = convert(write_jsonl(tmp_path / "a.jsonl", record), spans_key="sc", off_tokens="drop")
    assert get_spans(doc.spans["sc"]) == [(0, 26, "PERSON")]
    assert get_spans(doc.spans["unknown_spans"]) == [(12, 20, "CITY")]


def test_conll_columns_can_be_chosen_and_one_is_taken_otherwise(tmp_path: Path) -> None:
    path = write_file(tmp_path, "conll")
    (one,), findings = read(path)
    assert covered(one) == [("Anna of the New York Times", "PERSON")] and findings.counts["tag_columns"] == 1
    (two,), _ = read(path, spans_key="sc", label_column="2,3")
    assert covered(two) == [("New York Times", "ORG"), ("New York", "CITY")]
    with pytest.raises(BertHeadsError, match="H145"):
        read(path, spans_key="sc", label_column="2,9")


def test_a_sentence_that_is_bad_in_one_column_is_left_out_of_all(tmp_path: Path) -> None:
    good = "Anna\tB-PER\tB-X\nlaughs\tO\tO\n\n"
    path = write(tmp_path / "a.conll", good * 30 + "Bob\tB-PER\tX-X\nleft\tO\tO\n\n" + good)
    with pytest.raises(BertHeadsError, match="H132"):
        read(path, spans_key="sc")
    annotations, findings = read(path, spans_key="sc", skip_bad=True)
    assert len(annotations) == 31 and findings.counts["H132"] == 1 and findings.n_records[path] == 32


def test_a_column_without_entities_at_the_beginning_is_read_too(tmp_path: Path) -> None:
    late = "New\tB-ORG\tB-CITY\nTimes\tI-ORG\tO\n\n"
    path = write(tmp_path / "a.conll", "Anna\tB-PER\tO\nlaughs\tO\tO\n\n" * 1500 + late)
    *_, last = read(path, spans_key="sc")[0]
    assert covered(last) == [("New Times", "ORG"), ("New", "CITY")]


BRAT = (
    "T1\tPERSON 0 4\tAnna\n"
    "R1\tKnows Arg1:T1 Arg2:T2\n"
    "T2\tNAME 0 4;21 26\tAnna Times\n"
    "A1\tNegation T1\n"
    "#1\tAnnotatorNotes T1\tsure\n"
    "T3\tORG 12 20;21 26\tNew York Times\n"
)


def test_brat_reports_spans_in_pieces_and_joins_those_that_touch(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", NESTED)
    (annotation,), findings = read(write(tmp_path / "a.ann", BRAT), spans_key="sc")
    assert covered(annotation) == [("Anna", "PERSON"), ("New York Times", "ORG")] and annotation.complete
    assert covered(annotation, "unknown") == [("Anna of the New York Times", "NAME")]
    assert findings.counts == {"discontinuous": 1, "relations": 1, "unused_results": 2}
    (flat,), _ = read(tmp_path / "a.ann")
    assert flat.unknown == []


def test_a_folder_of_brat_is_its_annotations_and_empty_ones_are_complete(tmp_path: Path) -> None:
    folder = tmp_path / "brat"
    for name, spans in (("a", BRAT), ("b", "")):
        write(folder / f"{name}.txt", f"{NESTED} {name}")
        write(folder / f"{name}.ann", spans)
    write(folder / "annotation.conf", "[entities]\nPERSON\n")
    run(folder, tmp_path / "out", split=ALL_TRAIN, spans_key="sc")
    docs = {doc[-1].text: doc for doc in load_docs(tmp_path / "out" / "train.spacy")}
    assert len(docs["a"].spans["sc"]) == 2 and list(docs["b"].spans["sc"]) == []


@pytest.mark.parametrize(
    ("content", "code"),
    [("T1\tPERSON 0 4\tBobX\n", "H150"), ("T1\tPERSON 0\tAnna\n", "H136"), ("nonsense\n", "H136"), ("T1\n", "H136")],
)
def test_brat_lines_that_cannot_be_right(tmp_path: Path, content: str, code: str) -> None:
    write(tmp_path / "a.txt", NESTED)
    path = write(tmp_path / "a.ann", "T0\tORG 12 26\tNew York Times\n" + content)
    with pytest.raises(BertHeadsError) as error:
        read(path)
    assert (error.value.code, error.value.line) == (code, 2)
    (annotation,), findings = read(path, skip_bad=True)
    assert covered(annotation) == [("New York Times", "ORG")] and findings.counts[code] == 1


def test_brat_without_its_text(tmp_path: Path) -> None:
    with pytest.raises(BertHeadsError, match=r"\[H189\].*a.txt"):
        read(write(tmp_path / "a.ann", BRAT), "brat")


@pytest.mark.parametrize(
    ("entity", "code"),
    [
        ({"start": 3, "end": 9, "type": "X"}, "H190"),
        ({"start": 3, "end": 3, "type": "X"}, "H190"),
        ({"start": -1, "end": 2, "type": "X"}, "H190"),
        ({"start": "1", "end": 2, "type": "X"}, "H108"),
        ({"start": 0, "end": 2, "type": ""}, "H112"),
    ],
)
def test_token_spans_that_cannot_be_right(tmp_path: Path, entity: Dict[str, Any], code: str) -> None:
    good = {"tokens": NESTED.split(), "entities": [{"start": 0, "end": 1, "type": "PERSON"}]}
    path = write_jsonl(tmp_path / "a.jsonl", good, {**good, "entities": [entity]})
    with pytest.raises(BertHeadsError) as error:
        read(path)
    assert (error.value.code, error.value.line) == (code, 2)


def test_inclusive_ends_are_checked_against_the_stored_text(tmp_path: Path) -> None:
    entity = {"start_idx": 0, "end_idx": 4, "type": "PERSON", "entity": "Bob"}
    with pytest.raises(BertHeadsError, match="H150"):
        read(write(tmp_path / "a.json", json.dumps([{"text": NESTED, "entities": [entity]}])))
    chinese = {"text": "房室结消融", "entities": [{"start_idx": 0, "end_idx": 2, "type": "bod", "entity": "房室结"}]}
    chinese["entities"].append({"start_idx": 0, "end_idx": 4, "type": "pro", "entity": "房室结消融"})
    (doc,) = convert(write(tmp_path / "b.json", json.dumps([chinese])), spans_key="sc", lang="zh")
    assert sorted((span.text, span.label_) for span in doc.spans["sc"]) == [("房室结", "bod"), ("房室结消融", "pro")]


@pytest.mark.parametrize("options", [{"flatten": "middle"}, {"spans_key": "incorrect_spans"}, {"spans_key": ""}])
def test_options_that_make_no_sense(tmp_path: Path, options: Dict[str, str]) -> None:
    with pytest.raises(BertHeadsError, match="H145"):
        read(write_file(tmp_path, "doccano"), **options)


def test_a_corpus_of_annotation_files_holds_spans(tmp_path: Path) -> None:
    corpus = build_corpus_v1(str(write_file(tmp_path, "prodigy")), spans_key="sc", flatten="outer")
    (example,) = corpus(spacy.blank("en"))
    assert sorted(get_spans(example.reference.spans["sc"])) == sorted(SPANS)
    assert get_spans(example.reference.ents) == [(0, 26, "PERSON")]


# Out and back in

WORDS = st.lists(st.sampled_from(["Anna", "of", "the", "New", "York", "x1", "laughs"]), min_size=1, max_size=8)


@st.composite
def docs(draw: Any) -> Doc:
    doc = spacy.blank("en")(" ".join(draw(WORDS)))
    borders = st.tuples(st.integers(0, len(doc) - 1), st.integers(1, len(doc))).filter(lambda pair: pair[0] < pair[1])
    spans = draw(st.lists(st.tuples(borders, st.sampled_from(["A", "B C", "é"])), max_size=6, unique=True))
    doc.spans["sc"] = [Span(doc, *pair, label) for pair, label in spans]
    return doc


@pytest.mark.parametrize("format", ["prodigy", "doccano", "label-studio"])
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(found=st.lists(docs(), min_size=1, max_size=3, unique_by=lambda doc: doc.text.lower()))
def test_spans_come_back_from_annotation_tools(format: str, found: List[Doc]) -> None:
    if format != "prodigy" and not any(len(doc.spans["sc"]) for doc in found):
        return  # nothing in the file says that spans were asked for
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        DocBin(docs=found).to_disk(folder / "in.spacy")
        path = folder / ("a.json" if format == "label-studio" else "a.jsonl")
        count, _ = export(folder / "in.spacy", path, format=format, spans_key="sc")
        assert count == len(found)
        back = {doc.text: doc for doc in convert(path, spans_key="sc", format=format)}
    for doc in found:
        assert set(get_spans(back[doc.text].spans["sc"])) == set(get_spans(doc.spans["sc"]))
        assert "unknown_spans" not in back[doc.text].spans


def test_gaps_and_rejected_spans_come_back_from_prodigy_and_spacy_files(tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    binary, partly = nlp("Anna laughs"), nlp("Bob of New York")
    binary.spans["sc"] = [Span(binary, 0, 1, "PERSON")]
    binary.spans["incorrect_spans"] = [Span(binary, 1, 2, "PERSON")]
    binary.spans["unknown_spans"] = [Span(binary, 0, 2)]
    partly.spans["sc"] = [Span(partly, 0, 4, "PERSON"), Span(partly, 0, 1, "NAME")]
    partly.spans["unknown_spans"] = [Span(partly, 2, 4, "CITY")]
    DocBin(docs=[binary, partly]).to_disk(tmp_path / "in.spacy")
    export(tmp_path / "in.spacy", tmp_path / "a.jsonl", format="prodigy", spans_key="sc")
    records = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [record["_view_id"] for record in records] == ["spans", "spans_manual"]
    for path in (tmp_path / "a.jsonl", tmp_path / "in.spacy"):
        for doc, other in zip((binary, partly), convert(path, spans_key="sc")):
            for key in ("sc", "unknown_spans", "incorrect_spans"):
                assert sorted(get_spans(other.spans.get(key, ()))) == sorted(get_spans(doc.spans.get(key, ())))


def test_columns_cannot_hold_spans_that_overlap(tmp_path: Path) -> None:
    doc = spacy.blank("en")("Anna laughs")
    doc.spans["sc"] = []
    DocBin(docs=[doc]).to_disk(tmp_path / "in.spacy")
    with pytest.raises(BertHeadsError, match=r"\[H191\].*prodigy, label-studio, doccano"):
        export(tmp_path / "in.spacy", tmp_path / "out.conll", format="conll", spans_key="sc")


# Real files


@pytest.mark.parametrize(
    ("name", "n_sentences", "labels"),
    [("germeval2014/germ.dev.iob2.gz", 2200, 12), ("genia/genia.dev.iob2.gz", 1600, 5)],
)
def test_real_files_with_several_columns(shared_data: Path, name: str, n_sentences: int, labels: int) -> None:
    path = shared_data / "nested" / name
    if not path.exists():
        pytest.skip("needs the public data files")
    annotations, findings = read(path, spans_key="sc")
    assert len(annotations) >= n_sentences and not any(kind.startswith("H") for kind in findings.counts)
    with gzip.open(path, "rt", encoding="utf8") as stream:
        cells = [line.rstrip("\n").split("\t") for line in stream if line.strip()]
    n_begun = sum(cell.startswith("B-") for line in cells for cell in line[1:])
    n_doubled = n_begun - sum(len(annotation.ents) for annotation in annotations)
    assert 0 <= n_doubled <= n_begun / 50  # the same span with the same label in two columns
    assert len({ent.label for annotation in annotations for ent in annotation.ents}) >= labels
