"""From files to files: splits, bad records, writing, the report."""

import os
from pathlib import Path

import pytest
import srsly

from spacy_bert_heads.corpus import convert as convert_module
from spacy_bert_heads.corpus.findings import KINDS
from spacy_bert_heads.corpus.readers.formats import CONVERTERS, find_converter
from spacy_bert_heads.corpus.splits import SPLITS, split_key
from spacy_bert_heads.errors import MESSAGES, BertHeadsError

from .helpers import ALL_TRAIN, PARIS, convert_records, get_spans, load_docs, make_choice, make_span, run, write_jsonl

GOOD = {"text": PARIS, "spans": [make_span(0, 5)]}
TOKEN = {"text": "Apple", "start": 0, "end": 5, "ws": True}
REST = {"text": "opened in Paris.", "start": 6, "end": 22}

# One broken record for each error code. The reason is what `found` must hold.
BAD_RECORDS = [
    ("H104", b'{"text": "caf\xe9", "spans": []}', "0xE9"),
    ("H105", '{"text": "a", "spans": [}', "column"),
    ("H106", '["text"]', "list"),
    ("H107", {"spans": []}, "no such key"),
    ("H107", {"text": "", "spans": []}, "''"),
    ("H107", {"text": 5, "spans": []}, "5"),
    ("H108", {"text": PARIS, "spans": {"start": 0}}, "start"),
    ("H108", {"text": PARIS, "spans": [make_span(0, "5")]}, "'5'"),
    ("H108", {"text": PARIS, "spans": [make_span(0, 5.0)]}, "5.0"),
    ("H108", {"text": PARIS, "spans": [make_span(False, 5)]}, "False"),
    ("H108", {"text": PARIS, "spans": [{"start": 0, "label": "ORG"}]}, "None"),
    ("H109", {"text": PARIS, "spans": [make_span(5, 5)]}, "5-5"),
    ("H109", {"text": PARIS, "spans": [make_span(5, 0)]}, "5-0"),
    ("H110", {"text": PARIS, "spans": [make_span(16, 23)]}, "16-23"),
    ("H110", {"text": PARIS, "spans": [make_span(-5, 5)]}, "-5-5"),
    ("H111", {"text": PARIS, "spans": [make_span(1, 5)]}, "'pple' 1-5"),
    ("H112", {"text": PARIS, "spans": [make_span(0, 5, None)]}, "None"),
    ("H112", {"text": PARIS, "spans": [make_span(0, 5, 7)]}, "7"),
    ("H112", {"text": PARIS, "label": ["A"]}, "['A']"),
    ("H113", {"text": PARIS, "spans": [make_span(0, 5), make_span(0, 12, "X")]}, "ORG 0-5 and X 0-12"),
    ("H114", {**GOOD, "answer": "yes"}, "'yes'"),
    ("H114", {"text": PARIS, "spans": [make_span(0, 5, answer="no")]}, "'no'"),
    ("H115", make_choice("OTHER"), "'OTHER'"),
    ("H116", {**GOOD, "tokens": [{**TOKEN, "text": "Pear"}, REST]}, "Pear"),
    ("H116", {**GOOD, "tokens": [{**TOKEN, "ws": False}, REST]}, "Apple"),
    ("H116", {**GOOD, "tokens": [TOKEN]}, "opened in Paris."),
    ("H116", {**GOOD, "tokens": ["Apple"]}, "Apple"),
    ("H122", {**make_choice("POS"), "options": ["POS"]}, "options"),
    ("H122", {**make_choice("POS"), "options": [{"text": "POS"}]}, "id"),
    ("H122", {**make_choice("POS"), "options": [{"id": "POS"}, {"id": "POS"}]}, "options"),
    ("H122", {**make_choice(), "accept": "POS"}, "'POS'"),
    ("H122", make_choice("POS", "NEG"), "single"),
]


@pytest.mark.parametrize("code, record, found", BAD_RECORDS)
def test_bad_record_stops_with_its_code_and_line_and_writes_nothing(tmp_path: Path, code, record, found):
    path = write_jsonl(tmp_path / "in.jsonl", GOOD, "", record, GOOD)
    with pytest.raises(BertHeadsError) as info:
        run(path, tmp_path / "out")
    assert (info.value.code, info.value.path, info.value.line) == (code, path, 3)
    assert found in str(info.value.found)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("code, record, found", BAD_RECORDS)
def test_bad_record_is_skipped_counted_and_named_when_asked(tmp_path: Path, code, record, found):
    path = write_jsonl(tmp_path / "in.jsonl", GOOD, "", record, {**GOOD, "text": "Other text here."})
    report = run(path, tmp_path / "out", split=ALL_TRAIN, skip_bad=True)
    assert report.splits["train"].docs == 2
    assert report.findings.counts[code] == 1
    (skipped,) = report.to_dict()["skipped"]
    assert (skipped["kind"], skipped["cases"][0]["line"]) == (code, 3)
    assert f"{path}:3: [{code}] " in report.to_text()


def test_every_error_of_a_prodigy_record_has_a_broken_record():
    about_files = {"H101", "H102", "H103", "H117", "H118", "H119", "H120", "H121", "H123", "H124", "H125"}
    assert {code for code in MESSAGES if code < "H126"} - about_files == {code for code, _, _ in BAD_RECORDS}


@pytest.mark.parametrize(
    "records",
    [[], ["", " "], [{"text": PARIS}], [{**GOOD, "answer": "ignore"}, {**GOOD, "answer": "reject"}]],
)
def test_file_with_no_usable_task_is_refused(tmp_path: Path, records):
    path = write_jsonl(tmp_path / "in.jsonl", *records)
    for settings in ({}, {"format": "prodigy"}):
        with pytest.raises(BertHeadsError) as info:
            run(path, tmp_path / "out", **settings)
        assert (info.value.code, info.value.path) == ("H117", path)


def test_missing_file_folder_and_unknown_formats_are_refused(tmp_path: Path):
    other = write_jsonl(tmp_path / "in.txt", "just words")
    good = write_jsonl(tmp_path / "good.jsonl", GOOD)
    empty = tmp_path / "empty"
    empty.mkdir()
    cases = [
        ("H101", tmp_path / "none.jsonl", {}),
        ("H129", empty, {}),
        ("H118", good, {"format": "klingon"}),
        ("H119", good, {"lang": "klingon"}),
        ("H120", good, {"split": "0.5,0.5"}),
        ("H121", good, {"split": "0,0.5,0.5"}),
        ("H125", other, {}),
    ]
    for code, path, settings in cases:
        with pytest.raises(BertHeadsError) as info:
            run(path, tmp_path / "out", **settings)
        assert info.value.code == code
        assert not (tmp_path / "out").exists()


def test_empty_train_split_is_refused(tmp_path: Path):
    path = write_jsonl(tmp_path / "in.jsonl", GOOD)
    same = write_jsonl(tmp_path / "same.jsonl", GOOD)
    with pytest.raises(BertHeadsError) as info:
        run(path, tmp_path / "out", test=same)
    assert info.value.code == "H121"
    assert not (tmp_path / "out").exists()


def make_file(path: Path, texts) -> Path:
    return write_jsonl(path, *({"text": text, "label": "A"} for text in texts))


def get_places(folder: Path):
    """Text -> split."""
    return {doc.text: name for name in SPLITS for doc in load_docs(folder / f"{name}.spacy")}


def test_texts_stay_in_their_split_when_data_is_added(tmp_path: Path):
    old, new = [f"old {i}" for i in range(60)], [f"new {i}" for i in range(60)]
    run(make_file(tmp_path / "a.jsonl", old), tmp_path / "one")
    run([make_file(tmp_path / "b.jsonl", new), tmp_path / "a.jsonl"], tmp_path / "two")
    before, after = get_places(tmp_path / "one"), get_places(tmp_path / "two")
    assert set(before.values()) == set(SPLITS)
    assert len(after) == 120
    assert before == {text: after[text] for text in before}


def test_same_text_is_never_on_two_sides(tmp_path: Path):
    texts = [form for i in range(60) for form in (f"Text {i} é", f"text  {i} e\u0301", f" TEXT {i}\né")]
    run(make_file(tmp_path / "a.jsonl", texts), tmp_path / "out")
    places = get_places(tmp_path / "out")
    assert len(places) == 180
    sides = {}
    for text, name in places.items():
        sides.setdefault(split_key(text), set()).add(name)
    assert all(len(names) == 1 for names in sides.values())


def test_given_files_are_whole_splits_and_their_texts_are_left_out_of_train(tmp_path: Path):
    main = make_file(tmp_path / "main.jsonl", ["Same  text", "in dev", *(f"text {i}" for i in range(40))])
    test = make_file(tmp_path / "test.jsonl", ["same text", "test only", "both"])
    dev = make_file(tmp_path / "dev.jsonl", ["IN DEV", "dev only", "Both"])
    report = run(main, tmp_path / "out", test=test, dev=dev)
    places = get_places(tmp_path / "out")
    assert {text for text, name in places.items() if name == "test"} == {"same text", "test only", "both"}
    assert {text for text, name in places.items() if name == "dev"} == {"IN DEV", "dev only"}
    assert report.splits["train"].docs == 40
    assert report.findings.counts == {"left_out_of_main": 2, "in_dev_and_test": 1}
    assert [case.where.line for case in report.findings.cases["left_out_of_main"]] == [1, 2]


def test_given_test_file_leaves_train_and_dev_for_the_main_input(tmp_path: Path):
    main = make_file(tmp_path / "main.jsonl", [f"text {i}" for i in range(200)])
    test = make_file(tmp_path / "test.jsonl", ["by hand"])
    report = run(main, tmp_path / "out", test=test)
    assert report.splits["test"].docs == 1
    assert report.splits["train"].docs + report.splits["dev"].docs == 200
    assert 10 < report.splits["dev"].docs < 40


def test_records_of_one_text_in_several_files_become_one_doc(tmp_path: Path):
    one = write_jsonl(tmp_path / "ner.jsonl", {"text": PARIS, "spans": [make_span(0, 5)]})
    two = write_jsonl(tmp_path / "cat.jsonl", {"text": PARIS, "label": "NEWS"})
    report = run([one, two], tmp_path / "out", split=ALL_TRAIN)
    (doc,) = load_docs(tmp_path / "out" / "train.spacy")
    assert get_spans(doc.ents) == [(0, 5, "ORG")]
    assert doc.cats == {"NEWS": 1.0}
    assert report.findings.cases["merged"][0].where[:2] == (two, 1)


def test_twice_in_a_row_gives_the_same_bytes(tmp_path: Path):
    records = [make_choice("POS", text=f"Apple {i}", spans=[make_span(0, 5, f"L{i % 7}")]) for i in range(50)]
    path = write_jsonl(tmp_path / "in.jsonl.gz", *records)
    for name in ("one", "two"):
        run(path, tmp_path / name, report_path=tmp_path / name / "report.json")
    for name in SPLITS:
        one, two = ((tmp_path / folder / f"{name}.spacy").read_bytes() for folder in ("one", "two"))
        assert one == two and one


def test_next_line_character_and_carriage_returns_stay_in_their_text(tmp_path: Path):
    text = "one\u0085two\u2028three\r\nfour"
    (doc,) = convert_records(tmp_path, '\ufeff{"text": "%s", "label": "A"}\r' % text.replace("\r\n", "\\r\\n"))
    assert doc.text == text


@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_interrupted_write_leaves_whole_files(tmp_path: Path, monkeypatch, fails_at: int):
    old = make_file(tmp_path / "old.jsonl", [f"old {i}" for i in range(40)])
    new = make_file(tmp_path / "new.jsonl", [f"new {i}" for i in range(40)])
    out = tmp_path / "out"
    run(old, out)
    calls = []

    def replace(source, target, os_replace=os.replace):
        calls.append(target)
        if len(calls) == fails_at:
            raise KeyboardInterrupt
        os_replace(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        run(new, out)
    assert sorted(path.name for path in out.iterdir()) == ["dev.spacy", "test.spacy", "train.spacy"]
    for number, name in enumerate(SPLITS, 1):
        texts = {doc.text[:3] for doc in load_docs(out / f"{name}.spacy")}
        assert texts == {"new" if number < fails_at else "old"}


def test_disk_that_takes_no_more_leaves_the_old_files_and_no_others(tmp_path: Path, monkeypatch):
    path = make_file(tmp_path / "a.jsonl", [f"text {i}" for i in range(40)])
    out = tmp_path / "out"
    run(path, out)
    before = {file.name: file.read_bytes() for file in out.iterdir()}

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    # Where a system that writes late says that there was no space
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(BertHeadsError) as info:
        run(path, out, seed=1)
    assert info.value.code == "H123"
    assert before == {file.name: file.read_bytes() for file in out.iterdir()}


def test_output_folder_that_is_a_file_is_refused(tmp_path: Path):
    path = write_jsonl(tmp_path / "in.jsonl", GOOD)
    (tmp_path / "out").write_text("here", encoding="utf8")
    with pytest.raises(BertHeadsError) as info:
        run(path, tmp_path / "out", split=ALL_TRAIN)
    assert info.value.code == "H123"


def test_report_counts_what_the_docs_hold(tmp_path: Path):
    records = [
        {"text": PARIS, "spans": [make_span(0, 5), make_span(16, 21, "GPE")], "label": "NEWS"},
        {"text": "Pear fell.", "spans": [make_span(0, 4)], "_is_binary": True, "answer": "reject"},
        {"text": "Nothing.", "label": "NEWS", "answer": "reject"},
        {"text": "Gone.", "label": "NEWS", "answer": "ignore"},
    ]
    path = write_jsonl(tmp_path / "in.jsonl", *records)
    report = run(path, tmp_path / "out", split=ALL_TRAIN, report_path=tmp_path / "report.json")
    saved = srsly.read_json(tmp_path / "report.json")
    assert saved == report.to_dict()
    train = saved["splits"]["train"]
    assert train["spans"] == {"GPE": 1, "ORG": 1} and train["rejected"] == {"ORG": 1}
    assert train["cats"] == {"NEWS": 1} and train["cats_not"] == {"NEWS": 1}
    counts = (train["docs"], train["ents_complete"], train["ents_partial"], train["with_cats"])
    assert counts == (3, 1, 1, 2)
    assert saved["inputs"] == [{"path": str(path), "role": "main", "format": "prodigy", "records": 4, "used": 3}]
    (finding,) = saved["findings"]
    assert (finding["kind"], finding["count"], finding["cases"][0]["line"]) == ("ignored", 1, 4)
    last = report.to_text().splitlines()[-1]
    assert last.startswith("Wrote train.spacy (3 docs), dev.spacy (0 docs), test.spacy (0 docs)")


def test_many_labels_and_cases_keep_the_text_report_short(tmp_path: Path):
    records = [{"text": f"text {i}", "label": f"L{i}"} for i in range(100)]
    records += [{"text": f"gone {i}", "label": "A", "answer": "ignore"} for i in range(100)]
    report = run(write_jsonl(tmp_path / "in.jsonl", *records), tmp_path / "out")
    assert len(report.to_text().splitlines()) < 50
    assert "and 80 more labels" in report.to_text()
    assert "and 95 more" in report.to_text()


def test_new_format_plugs_into_the_table(tmp_path: Path, monkeypatch):
    class Lines:
        name = "lines"
        suffixes = (".txt",)

        def sniff(self, path, head):
            return head.startswith(b"#lines\n")

        def read(self, path, findings, options):
            for where, line in convert_module_lines(path, findings):
                if where.line > 1:
                    yield Annotation(line, where, cats={"A": 1.0})

    from spacy_bert_heads.corpus.annotations import Annotation
    from spacy_bert_heads.corpus.readers.lines import read_lines as convert_module_lines

    monkeypatch.setitem(CONVERTERS, "lines", Lines())
    path = write_jsonl(tmp_path / "in.data", "#lines", "one", "two")
    assert find_converter(path, "auto").name == "lines"
    assert run(path, tmp_path / "out", split=ALL_TRAIN).splits["train"].docs == 2


def test_corpus_modules_import_no_torch_of_their_own():
    folder = Path(convert_module.__file__).parent
    for path in folder.glob("*.py"):
        assert "import torch" not in path.read_text(encoding="utf8")


def test_kinds_of_findings_are_no_error_codes():
    assert not set(KINDS) & set(MESSAGES)
