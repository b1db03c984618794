"""doccano, CLUENER and Label Studio: what each of their records becomes."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_bert_heads.corpus.readers.offsets import UNITS, recount
from spacy_bert_heads.errors import BertHeadsError

from .helpers import PARIS, write_jsonl
from .reading import chosen, covered, read, write


def make_task(*results, text: str = PARIS, **keys):
    return {"id": 1, "data": {"id": 7, "text": text}, "annotations": [{"result": list(results), **keys}]}


def make_result(kind: str, name: str = "q", **value):
    return {"from_name": name, "to_name": "text", "type": kind, "value": value}


def make_labels(start: int, end: int, text: str, *labels: str):
    return make_result("labels", "ner", start=start, end=end, text=text, labels=list(labels) or ["ORG"])


def write_json(path: Path, *values) -> Path:
    return write(path, json.dumps(list(values), ensure_ascii=False))


@pytest.mark.parametrize(
    "record",
    [
        {"text": PARIS, "label": [[0, 5, "ORG"]]},
        {"data": PARIS, "label": [[0, 5, "ORG"]]},
        {"text": PARIS, "labels": [[0, 5, "ORG"]], "meta": {}},
        {"text": PARIS, "annotations": [{"label": "ORG", "start_offset": 0, "end_offset": 5, "user": 1}]},
        {"text": PARIS, "entities": [{"id": 0, "start_offset": 0, "end_offset": 5, "label": "ORG"}], "relations": []},
        {"text": PARIS, "entities": [[0, 5, "ORG"]], "cats": []},
    ],
)
def test_doccano_spans_of_every_export(tmp_path: Path, record):
    (annotation,), findings = read(write_jsonl(tmp_path / "a.jsonl", record), "auto")
    assert covered(annotation) == [("Apple", "ORG")] and annotation.complete
    assert not findings.counts


def test_doccano_classes_spans_and_both(tmp_path: Path):
    path = write_jsonl(
        tmp_path / "a.jsonl",
        {"text": "a", "label": ["POS"]},
        {"text": "b", "label": ["NEG", "X"]},
        {"text": "c", "label": []},
    )
    (one, two), findings = read(path)
    assert one.cats == {"NEG": 0.0, "POS": 1.0, "X": 0.0} and not one.complete
    assert sorted(chosen(two)) == ["NEG", "X"]
    assert findings.counts == {"no_annotation": 1}
    both = {"text": PARIS, "entities": [[0, 5, "ORG"]], "cats": ["flight"]}
    (annotation,), _ = read(write_jsonl(tmp_path / "b.jsonl", both))
    assert (covered(annotation), annotation.cats) == ([("Apple", "ORG")], {"flight": 1.0})


def test_doccano_texts_without_spans_are_counted(tmp_path: Path):
    path = write_jsonl(tmp_path / "a.jsonl", {"text": "a b", "label": [[0, 1, "X"]]}, {"text": "b", "label": []})
    (_, empty), findings = read(path)
    assert empty.complete and not empty.ents
    assert findings.counts == {"empty_annotation": 1}


def test_doccano_users_are_kept_apart_and_numbers_named(tmp_path: Path):
    spans = [{"label": 12, "start_offset": 0, "end_offset": 5, "user": user} for user in (1, 2, 2)]
    spans[2].update(start_offset=16, end_offset=21, label=13)
    path = write_jsonl(tmp_path / "a.jsonl", {"text": PARIS, "annotations": spans})
    (one, two), findings = read(path)
    assert (covered(one), covered(two)) == ([("Apple", "12")], [("Apple", "12"), ("Paris", "13")])
    assert findings.counts == {"numbered_labels": 3}
    labels = write(tmp_path / "labels.txt", "12\tORG\n13\tLOC\n")
    assert covered(read(path, labels=labels)[0][1]) == [("Apple", "ORG"), ("Paris", "LOC")]


def test_cluener_offsets_are_inclusive(tmp_path: Path):
    record = {
        "text": "彭小军在台湾，台湾",
        "label": {"name": {"彭小军": [[0, 2]]}, "address": {"台湾": [[4, 5], [7, 8]]}},
    }
    (annotation,), findings = read(write_jsonl(tmp_path / "a.json", record))
    assert covered(annotation) == [("彭小军", "name"), ("台湾", "address"), ("台湾", "address")]
    assert not findings.counts


def test_cluener_records_without_labels_are_left_out_and_counted(tmp_path: Path):
    annotations, findings = read(write_jsonl(tmp_path / "a.json", {"id": 0, "text": "四川"}))
    assert not annotations and findings.counts == {"no_annotation": 1}


@pytest.mark.parametrize(
    "label, code",
    [
        ({"name": {"彭": [["0", "0"]]}}, "H108"),
        ({"name": {"彭": [[0]]}}, "H108"),
        ({"name": ["彭"]}, "H136"),
        ("name", "H136"),
        ({"": {"彭": [[0, 0]]}}, "H112"),
    ],
)
def test_broken_cluener_labels_are_refused(tmp_path: Path, label, code: str):
    path = write_jsonl(tmp_path / "a.json", {"text": "彭小军", "label": {}}, {"text": "彭小军", "label": label})
    with pytest.raises(BertHeadsError) as info:
        read(path, "cluener")
    assert (info.value.code, info.value.line) == (code, 2)


@pytest.mark.parametrize("as_lines", [True, False])
def test_label_studio_labels(tmp_path: Path, as_lines: bool):
    tasks = [make_task(make_labels(0, 5, "Apple")), make_task(text="Nothing here.")]
    path = tmp_path / "a.json"
    (write_jsonl if as_lines else write_json)(path, *tasks)
    (one, other), findings = read(path)
    assert covered(one) == [("Apple", "ORG")] and one.complete
    # Submitted with nothing marked: no entities.
    assert other.complete and not other.ents
    assert not findings.counts and findings.n_records[path] == 2


def test_label_studio_choices_taxonomy_and_numbers(tmp_path: Path):
    one = make_task(make_result("choices", choices=["POS"]), make_result("rating", "stars", rating=4))
    other = make_task(make_result("choices", choices=["NEG", "MIX"]), text="b")
    path = write_json(tmp_path / "a.json", one, other)
    (first, second), _ = read(path)
    assert first.cats == {"MIX": 0.0, "NEG": 0.0, "POS": 1.0, "stars": 4.0} and not first.exclusive
    assert chosen(second) == ["MIX", "NEG"]
    paths = make_task(make_result("taxonomy", taxonomy=[["Tech", "AI"], ["Sports"]]))
    assert chosen(read(write_json(tmp_path / "b.json", paths))[0][0]) == ["Sports", "Tech/AI"]
    single = write_json(tmp_path / "c.json", one)
    assert read(single)[0][0].exclusive and not read(single, kind="multi")[0][0].exclusive


def test_label_studio_question_that_was_not_answered_stays_unknown(tmp_path: Path):
    path = write_json(
        tmp_path / "a.json",
        make_task(make_result("choices", "a", choices=["x"])),
        make_task(make_result("choices", "b", choices=["y"]), text="b"),
    )
    (one, other), _ = read(path)
    assert (one.cats, other.cats) == ({"x": 1.0}, {"y": 1.0})


def test_label_studio_leaves_out_what_nobody_submitted(tmp_path: Path):
    cancelled = make_task(make_labels(0, 5, "Apple"), was_cancelled=True)
    predicted = {
        "data": {"text": PARIS},
        "annotations": [],
        "drafts": [{}, {}],
        "predictions": [{"result": [make_labels(0, 5, "Apple")]}],
    }
    relation = make_task(
        make_labels(0, 5, "Apple"),
        {"type": "relation", "from_id": "a", "to_id": "b"},
        make_result("textarea", text=["x"]),
    )
    annotations, findings = read(write_json(tmp_path / "a.json", cancelled, predicted, relation))
    assert len(annotations) == 1
    assert findings.counts == {
        "cancelled": 1,
        "no_annotation": 2,
        "drafts": 2,
        "predictions": 1,
        "relations": 1,
        "unused_results": 1,
    }


def test_label_studio_annotators_are_kept_apart_with_their_times(tmp_path: Path):
    task = make_task(make_labels(0, 5, "Apple"), updated_at="2025-11-13T00:00:01Z")
    task["annotations"].append({"result": [], "updated_at": "2025-11-13T00:00:02.500000+00:00"})
    (one, other), _ = read(write_json(tmp_path / "a.json", task))
    assert other.timestamp - one.timestamp == 1.5


def test_label_studio_min(tmp_path: Path):
    known = {
        "annotator": 1,
        "annotation_id": 2,
        "created_at": "2025-11-13T00:00:01Z",
        "updated_at": "2025-11-13T00:00:01Z",
        "lead_time": 3.5,
    }
    spans = [{"start": 0, "end": 5, "text": "Apple", "labels": ["ORG"]}]
    tasks = [
        {"text": PARIS, "source": "news", "id": 3, "ner": spans, "cat": "POS", **known},
        {
            "text": "b",
            "source": "web",
            "id": 4,
            "cat": {"choices": ["NEG", "MIX"]},
            "topic": [["Tech", "AI"]],
            "score": 2,
            **known,
        },
    ]
    (one, other), _ = read(write_json(tmp_path / "a.json", *tasks))
    assert (covered(one), one.complete, one.timestamp is not None) == ([("Apple", "ORG")], True, True)
    assert one.cats == {"MIX": 0.0, "NEG": 0.0, "POS": 1.0}
    assert sorted(chosen(other)) == ["MIX", "NEG", "Tech/AI", "score"] and other.cats["score"] == 2.0


@pytest.mark.parametrize("text", ["🍿🎓 Apple opened.", "Apple opened.", "é Apple 🍿"])
def test_offsets_in_utf16_units_are_recounted(tmp_path: Path, text: str):
    start = text.index("Apple")
    units = len(text[:start].encode("utf-16-le")) // 2
    for path in (
        write_json(tmp_path / "a.json", make_task(make_labels(units, units + 5, "Apple"), text=text)),
        write_jsonl(
            tmp_path / "b.jsonl",
            {"text": text, "spans": [{"start": units, "end": units + 5, "label": "ORG", "text": "Apple"}]},
        ),
    ):
        (annotation,), findings = read(path)
        assert covered(annotation) == [("Apple", "ORG")]
        assert findings.counts == ({"utf16_offsets": 1} if units != start else {})


BREAKS = "Hi 🍿\r\n\r\n\r\nwe at Bo here é with\r\nOslo"


@pytest.mark.parametrize("word", ["Bo", "Oslo"])
@pytest.mark.parametrize(
    "count, kind",
    [
        (lambda before: before.encode("utf-16-le").decode("latin1")[::2], "utf16_offsets"),
        (lambda before: before.encode("utf8"), "recounted_offsets"),
        (lambda before: before.replace("\r\n", "\n"), "recounted_offsets"),
        (lambda before: before.replace("\r\n", "\n").encode("utf-16-le").decode("latin1")[::2], "recounted_offsets"),
    ],
)
def test_offsets_in_other_units_are_recounted_in_every_format_that_stores_texts(tmp_path: Path, word, count, kind):
    start = len(count(BREAKS[: BREAKS.index(word)]))
    end = start + len(word)
    span = {"start": start, "end": end, "label": "ORG", "text": word}
    for path in (
        write_json(tmp_path / "a.json", make_task(make_labels(start, end, word), text=BREAKS)),
        write_jsonl(tmp_path / "b.jsonl", {"text": BREAKS, "spans": [span]}),
        write_jsonl(tmp_path / "c.jsonl", {"text": BREAKS, "entities": [span]}),
        write_jsonl(tmp_path / "d.jsonl", {"text": BREAKS, "label": {"ORG": {word: [[start, end - 1]]}}}),
    ):
        (annotation,), findings = read(path)
        assert covered(annotation) == [(word, "ORG")]
        assert findings.counts == {kind: 1}


def test_stored_text_that_is_once_nearby_is_where_the_span_is_moved(tmp_path: Path):
    (annotation,), findings = read(write_json(tmp_path / "a.json", make_task(make_labels(2, 7, "Apple"))))
    assert covered(annotation) == [("Apple", "ORG")] and findings.counts == {"moved_spans": 1}


@pytest.mark.parametrize(
    "text, stored", [("Apple opened.", "Appel"), ("xy Mozartova hudba", "Mozar"), ("or Bo met Bo again", "Bo")]
)
def test_span_of_another_text_than_stored_is_bad(tmp_path: Path, text: str, stored: str):
    path = write_json(tmp_path / "a.json", make_task(make_labels(0, 5, stored), text=text), make_task(text="x y"))
    with pytest.raises(BertHeadsError) as info:
        read(path)
    assert info.value.code == "H150"
    _, findings = read(path, skip_bad=True)
    assert findings.counts["H150"] == 1


@pytest.mark.parametrize("stored", ["a\\nb", "a b", "ab", "a\nb", "a \r\n b"])
def test_white_space_of_a_stored_text_does_not_count(tmp_path: Path, stored: str):
    task = make_task(make_labels(0, 4, stored), text="a\r\nb c")
    (annotation,), findings = read(write_json(tmp_path / "a.json", task))
    assert covered(annotation) == [("a\r\nb", "ORG")] and not findings.counts


@given(st.text(), st.data(), st.sampled_from(sorted(UNITS)))
@settings(deadline=None)
def test_recounting_finds_every_span_of_characters(text: str, data, unit: str):
    start, end = sorted((data.draw(st.integers(0, len(text))), data.draw(st.integers(0, len(text)))))
    around = list(zip("\0" + text[:-1], text, text[1:] + "\0"))
    counted = [sum(UNITS[unit](*three) for three in around[:border]) for border in (start, end)]
    found = recount(text, *counted, unit)
    if text[start:end].replace("\r", ""):
        assert found is not None
        assert text[slice(*found)].replace("\r", "") == text[start:end].replace("\r", "")


@pytest.mark.parametrize(
    "task, code",
    [
        (make_task(make_labels("0", "5", "Apple")), "H108"),
        (make_task(make_result("labels", start=0, end=5)), "H112"),
        (make_task(make_result("choices", choices="x")), "H136"),
        (make_task(make_result("number", number=float("nan"))), "H135"),
        (make_task({"type": "labels"}), "H136"),
        (make_task(text=""), "H107"),
        ({"data": {"a": "x", "b": "y"}, "annotations": [{"result": []}]}, "H107"),
        (3, "H106"),
    ],
)
def test_broken_tasks_are_refused_with_their_line(tmp_path: Path, task, code: str):
    path = write(
        tmp_path / "a.json",
        "[\n" + json.dumps(make_task(make_labels(0, 5, "Apple"))) + ",\n\n" + json.dumps(task) + "]",
    )
    with pytest.raises(BertHeadsError) as info:
        read(path, "label-studio")
    assert (info.value.code, info.value.line) == (code, 4)
    annotations, findings = read(path, "label-studio", skip_bad=True)
    assert len(annotations) == 1 and findings.counts == {code: 1}


@pytest.mark.parametrize("tail", ["", ",", "}", ", {", "] x", '{"a": 1}]', ", {'a': 1}]"])
def test_array_that_is_cut_off_or_broken_is_never_passed_over(tmp_path: Path, tail: str):
    path = write(tmp_path / "a.json", "[" + json.dumps(make_task(make_labels(0, 5, "Apple"))) + tail)
    for skip_bad in (False, True):
        with pytest.raises(BertHeadsError) as info:
            read(path, skip_bad=skip_bad)
        assert info.value.code == "H146"
