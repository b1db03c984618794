"""A run from texts to files: exact, resumable, in every format; and what is refused."""

import errno
import json
import os
from pathlib import Path
from typing import Any, Dict, List

import pytest
import spacy
from spacy.language import Language
from spacy.pipeline import SpanCategorizer
from spacy.tokens import Doc, DocBin, Span
from typer.testing import CliRunner

import spacy_bert_heads
from spacy_bert_heads.bulk import local, run
from spacy_bert_heads.bulk.items import read_items
from spacy_bert_heads.bulk.layout import MANIFEST, REJECTED
from spacy_bert_heads.bulk.predictions import FORMATS, Options
from spacy_bert_heads.bulk.run import apply_to_files
from spacy_bert_heads.cli.app import app
from spacy_bert_heads.corpus.findings import Findings, Where
from spacy_bert_heads.corpus.readers.formats import CONVERTERS, ReadOptions, find_converter
from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.files import lock

from ..corpus.helpers import get_spans, write_jsonl
from ..making import make_nlp, make_texts
from .inline import Died, InlineWorker

pytestmark = pytest.mark.usefixtures("inline")
KILL, FAIL = "killer", "failing"


@Language.component("test_apply_trouble")
def make_trouble(doc: Doc) -> Doc:
    if KILL in doc.text:
        raise Died
    if FAIL in doc.text:
        raise ValueError(f"cannot read {doc.text[:10]}")
    return doc


@Language.component("test_apply_spans", assigns=["doc.spans"])
def set_spans(doc: Doc) -> Doc:
    doc.spans["sc"] = [Span(doc, 0, 1, "A"), Span(doc, 0, len(doc), "B")] if len(doc) else []
    doc.spans["sc"].attrs["scores"] = [0.75, 0.25] if len(doc) else []
    return doc


@pytest.fixture
def trouble(tmp_path: Path) -> str:
    nlp = spacy.blank("en")
    nlp.add_pipe("test_apply_trouble")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "ORG", "pattern": "Apple"}])
    nlp.to_disk(tmp_path / "trouble")
    return str(tmp_path / "trouble")


def make_records(n: int) -> List[Dict[str, Any]]:
    return [{"id": f"n{number}", "text": text, "meta": {"n": number}} for number, text in enumerate(make_texts(n))]


def go(model: str, source: Any, output: Path, **settings: Any) -> run.Report:
    options = Options(**{name: settings.pop(name) for name in list(settings) if name in Options.__annotations__})
    return apply_to_files(model, [source], output, options=options, n_process=1, **settings)


def read_shards(output: Path) -> List[Dict[str, Any]]:
    parts = sorted(output.glob("part-*.jsonl"))
    return [json.loads(line) for part in parts for line in part.read_text(encoding="utf8").splitlines()]


def read_rejected(output: Path) -> List[Dict[str, Any]]:
    path = output / REJECTED
    return [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()] if path.exists() else []


def refused(code: str, *arguments: Any, **settings: Any) -> str:
    with pytest.raises(BertHeadsError) as info:
        go(*arguments, **settings)
    assert info.value.code == code, info.value
    return str(info.value)


def test_records_say_what_the_pipeline_says_of_each_text(model: str, nlp: Language, tmp_path: Path) -> None:
    records = make_records(50)
    source = write_jsonl(tmp_path / "in.jsonl", *records)
    report = go(model, source, tmp_path / "out", shard_size=16)
    assert (report.n_items, report.n_rejected, report.n_shards) == (50, 0, 4)
    found = read_shards(tmp_path / "out")
    assert len(found) == 50
    n_ents = 0
    for record, mine in zip(records, found):
        doc = nlp(record["text"])
        n_ents += len(doc.ents)
        assert {key: mine[key] for key in record} == record
        assert [(e["start"], e["end"], e["label"]) for e in mine["ents"]] == [
            (e.start_char, e.end_char, e.label_) for e in doc.ents
        ]
        expected = [e._.confidence for e in doc.ents]
        assert [e["confidence"] for e in mine["ents"]] == pytest.approx(expected, abs=1e-5)
        assert mine["cats"] == pytest.approx(doc.cats, abs=1e-5)
        assert "spans" not in mine
    assert n_ents > 20
    # What convert and the others read
    (annotation, *_) = CONVERTERS["spacy-json"].read(
        tmp_path / "out" / "part-000000.jsonl", Findings(skip_bad=False), ReadOptions()
    )
    assert annotation.text == records[0]["text"] and len(annotation.ents) == len(found[0]["ents"])


def test_a_run_that_is_finished_is_read_again_and_nothing_is_done(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", *make_records(9), '{"id": 9}')
    go(model, source, tmp_path / "out", shard_size=4)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    monkeypatch.setattr(InlineWorker, "_talk", None)
    report = go(model, source, tmp_path / "out", shard_size=4)
    assert (report.n_items, report.n_before, report.n_rejected) == (10, 10, 1)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


@pytest.mark.parametrize("stop", range(1, 8))
def test_whatever_step_a_run_ends_at_it_goes_on_and_holds_each_record_once(
    trouble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    """Each write, sync and move of the run is where it stops once, as if it were killed there."""
    records: List[Any] = make_records(10)
    records[3:3] = ['{"id": "bad"}']
    records[8:8] = ['{"id": "worse'.encode()]
    source = write_jsonl(tmp_path / "in.jsonl", *records)
    steps = 0

    def step(function: Any) -> Any:
        def wrapped(*arguments: Any, **settings: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == 2 * stop:
                raise KeyboardInterrupt
            return function(*arguments, **settings)

        return wrapped

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", step(os.fsync))
        patch.setattr(os, "replace", step(os.replace))
        with pytest.raises(KeyboardInterrupt):
            go(trouble, source, tmp_path / "out", shard_size=3)
    # A line that was being written
    with (tmp_path / "out" / MANIFEST).open("ab") as stream:
        stream.write(b'{"shard": 3, "fi')
    with (tmp_path / "out" / REJECTED).open("ab") as stream:
        stream.write(b'{"file": "in.js')
    report = go(trouble, source, tmp_path / "out", shard_size=3)
    assert (report.n_items, report.n_rejected) == (12, 2)
    ids = [record["id"] for record in read_shards(tmp_path / "out")]
    assert ids == [f"n{number}" for number in range(10)]
    assert sorted(bad["line"] for bad in read_rejected(tmp_path / "out")) == [4, 9]


def test_a_shard_that_is_gone_is_written_again_and_its_rejects_stay_once(trouble: str, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", *make_records(4), '{"id": 4}', *make_records(4))
    go(trouble, source, tmp_path / "out", shard_size=3)
    (tmp_path / "out" / "part-000001.jsonl").write_bytes(b"")
    go(trouble, source, tmp_path / "out", shard_size=3)
    assert len(read_shards(tmp_path / "out")) == 8 and len(read_rejected(tmp_path / "out")) == 1


def test_another_model_and_other_options_are_refused_with_the_reason(model: str, trouble: str, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", *make_records(5))
    out = tmp_path / "out"
    go(trouble, source, out)
    assert "the model" in refused("H645", model, source, out)
    assert '--format: "jsonl" then, "conll" now' in refused("H645", trouble, source, out, format="conll")
    assert "--shard-size: 1000 then, 2 now" in refused("H645", trouble, source, out, shard_size=2)
    # The same path, other weights
    nlp = spacy.load(trouble)
    nlp.get_pipe("entity_ruler").add_patterns([{"label": "ORG", "pattern": "Pear"}])  # type: ignore[attr-defined]
    nlp.to_disk(trouble)
    assert "the model" in refused("H645", trouble, source, out)


def test_input_that_has_changed_is_refused(trouble: str, tmp_path: Path) -> None:
    records = make_records(10)
    source = write_jsonl(tmp_path / "in.jsonl", *records)
    out = tmp_path / "out"
    go(trouble, source, out, shard_size=4)
    before = read_shards(out)
    write_jsonl(source, *records[:5], {**records[5], "text": "other"}, *records[6:])
    assert "its records 5 to 8" in refused("H648", trouble, source, out, shard_size=4)
    write_jsonl(source, *records[:8])
    assert "it makes 2 shards, and 3" in refused("H649", trouble, source, out, shard_size=4)
    write_jsonl(source, *records, *records)
    refused("H648", trouble, source, out, shard_size=4)
    assert read_shards(out) == before
    # Under another name it is the same input
    moved = write_jsonl(tmp_path / "moved.jsonl", *records)
    assert go(trouble, moved, out, shard_size=4).n_before == 10


def test_a_folder_of_something_else_and_one_in_use_are_refused(trouble: str, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", *make_records(5))
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    assert "thesis.txt" in refused("H646", trouble, source, out)
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]
    (out / "thesis.txt").unlink()
    (out / MANIFEST).write_text("not ours\n")
    refused("H647", trouble, source, out)
    (tmp_path / "file").write_text("")
    refused("H123", trouble, source, tmp_path / "file")
    refused("H101", trouble, tmp_path / "none.jsonl", tmp_path / "new")
    refused("H227", str(tmp_path / "no_model"), source, tmp_path / "new")
    refused("H657", trouble, source, tmp_path / "new", engine="spark")
    refused("H658", trouble, source, tmp_path / "new", address="auto")
    refused("H650", trouble, source, tmp_path / "new", shard_size=0)
    (tmp_path / "empty.jsonl").write_text("")
    refused("H660", trouble, tmp_path / "empty.jsonl", tmp_path / "new")
    script = f"""
import sys, pathlib
from spacy_bert_heads.files import lock
with lock(pathlib.Path({str(tmp_path / "busy")!r})):
    print("locked", flush=True)
    sys.stdin.read()
"""
    import subprocess
    import sys

    holder = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline() == b"locked\n"
    refused("H187", trouble, source, tmp_path / "busy")
    holder.communicate()
    go(trouble, source, tmp_path / "busy")


def test_a_text_that_ends_its_process_twice_is_set_aside_and_no_other(trouble: str, tmp_path: Path) -> None:
    records = make_records(20)
    for number in (4, 13):
        records[number]["text"] += f" {KILL}"
    source = write_jsonl(tmp_path / "in.jsonl", *records)
    report = go(trouble, source, tmp_path / "out", shard_size=10, batch_size=4)
    assert report.n_rejected == 2
    # Together with others, then twice alone: each time there is a new process for what is left
    assert InlineWorker.n_started == 1 + 2 * 3
    rejected = read_rejected(tmp_path / "out")
    assert [(bad["line"], bad["code"]) for bad in rejected] == [(5, "H653"), (14, "H653")]
    ids = [record["id"] for record in read_shards(tmp_path / "out")]
    assert ids == [record["id"] for number, record in enumerate(records) if number not in (4, 13)]


def test_a_text_on_which_the_pipeline_fails_is_rejected_with_its_reason(trouble: str, tmp_path: Path) -> None:
    records = [*make_records(6), {"id": "f", "text": FAIL}, {"id": "long", "text": "x" * 1_000_001}]
    source = write_jsonl(tmp_path / "in.jsonl", *records, {"id": "marks", "text": "!" * 9000}, {"id": "", "text": ""})
    go(trouble, source, tmp_path / "out", batch_size=5)
    rejected = {bad["line"]: bad for bad in read_rejected(tmp_path / "out")}
    assert {line: bad["code"] for line, bad in rejected.items()} == {7: "H654", 8: "H138", 9: "H147"}
    assert "ValueError: cannot read failing" in rejected[7]["reason"]
    assert "--skip-bad" not in "".join(bad["reason"] for bad in rejected.values())
    assert [record["id"] for record in read_shards(tmp_path / "out")] == [f"n{n}" for n in range(6)] + [""]


def test_keys_that_a_spacy_file_cannot_hold_are_rejected_with_their_reason(model: str, tmp_path: Path) -> None:
    deep: Any = "bottom"
    for _ in range(511):
        deep = [deep]
    records = [*make_records(2), {"text": "deep", "meta": deep}, {"text": "large", "meta": 2**64}, {"text": "last"}]
    source = write_jsonl(tmp_path / "in.jsonl", *records)
    go(model, source, tmp_path / "out", format="spacy")
    assert [(bad["line"], bad["code"]) for bad in read_rejected(tmp_path / "out")] == [(3, "H661"), (4, "H661")]
    found = DocBin().from_disk(tmp_path / "out" / "part-000000.spacy").get_docs(spacy.blank("en").vocab)
    assert [doc.text for doc in found] == [records[0]["text"], records[1]["text"], "last"]


def test_a_pipeline_that_fails_on_everything_is_an_error(trouble: str, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", *({"text": f"{FAIL} {n}"} for n in range(20)))
    assert "cannot read" in refused("H651", trouble, source, tmp_path / "out")


def test_a_full_disk_stops_the_run_and_it_goes_on(
    trouble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", *make_records(20))
    n_synced = 0

    def fail(descriptor: int) -> None:
        nonlocal n_synced
        n_synced += 1
        if n_synced > 5:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        assert "No space left" in refused("H123", trouble, source, tmp_path / "out", shard_size=4)
    assert not list((tmp_path / "out").glob(".part*"))
    assert go(trouble, source, tmp_path / "out", shard_size=4).n_before in (4, 8)
    assert [record["id"] for record in read_shards(tmp_path / "out")] == [f"n{n}" for n in range(20)]


def test_limit_select_confidence_and_text(model: str, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", *make_records(12))
    go(model, source, tmp_path / "all")
    everything = read_shards(tmp_path / "all")
    go(model, source, tmp_path / "some", limit=7, select=("cats",), drop_text=True)
    some = read_shards(tmp_path / "some")
    assert [set(record) for record in some] == [{"id", "meta", "cats", "cats_chosen"}] * 7
    for mine, whole in zip(some, everything):
        assert mine["cats"] == pytest.approx(whole["cats"], abs=1e-5)
    least = sorted(ent["confidence"] for record in everything for ent in record["ents"])[10] + 1e-4
    go(model, source, tmp_path / "sure", min_confidence=least, select=("ents",))
    for mine, whole in zip(read_shards(tmp_path / "sure"), everything):
        kept = [ent for ent in whole["ents"] if ent["confidence"] >= least]
        assert [(e["start"], e["end"]) for e in mine["ents"]] == [(e["start"], e["end"]) for e in kept]
        assert "cats" not in mine


def test_what_is_not_selected_does_not_run(model: str) -> None:
    from spacy_bert_heads.bulk.predictions import Predictor

    assert Predictor(model, Options(select=("cats",))).nlp.pipe_names == ["transformer", "bert_textcat"]
    assert Predictor(model, Options(select=("ents",))).nlp.pipe_names == ["transformer", "bert_ner"]


def test_groups_of_spans_are_written_with_what_is_known_of_them(tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("test_apply_spans")
    nlp.to_disk(tmp_path / "model")
    source = write_jsonl(tmp_path / "in.jsonl", {"text": "one two"}, {"text": ""})
    go(str(tmp_path / "model"), source, tmp_path / "out")
    first, second = read_shards(tmp_path / "out")
    spans = [
        {"start": 0, "end": 3, "label": "A", "confidence": 0.75},
        {"start": 0, "end": 7, "label": "B", "confidence": 0.25},
    ]
    assert first == {"text": "one two", "spans": {"sc": spans}}
    assert second == {"text": "", "spans": {"sc": []}}
    go(str(tmp_path / "model"), source, tmp_path / "sure", min_confidence=0.5)
    assert read_shards(tmp_path / "sure")[0]["spans"] == {"sc": spans[:1]}


def test_two_heads_say_their_own_confidence(model: str) -> None:
    from spacy_bert_heads.bulk.predictions import _with_confidence
    from spacy_bert_heads.extensions import set_confidence

    doc = Doc(spacy.blank("en").vocab, ["one", "two"])
    doc.ents = [Span(doc, 0, 1, "A")]
    doc.spans["sc"] = [Span(doc, 0, 1, "A")]
    set_confidence(doc.ents[0], 0.25)
    set_confidence(doc.spans["sc"][0], 0.75, "sc")
    assert [value for _, value in _with_confidence("sc", doc.spans["sc"])] == [0.75]


@pytest.mark.parametrize("format", ["prodigy", "doccano", "label-studio"])
def test_spans_are_written_where_nothing_sets_entities(tmp_path: Path, format: str) -> None:
    nlp = spacy.blank("en")
    spans = nlp.add_pipe("spancat", config={"threshold": 0.0})
    assert isinstance(spans, SpanCategorizer)
    spans.add_label("A")
    nlp.initialize()
    nlp.to_disk(tmp_path / "model")
    source = write_jsonl(tmp_path / "in.jsonl", {"id": 7, "text": "one two three"})
    report = go(str(tmp_path / "model"), source, tmp_path / "out", format=format)
    assert "lost_groups" not in report.lost
    (part,) = (tmp_path / "out").glob("part-*")
    (record,) = json.loads(part.read_text()) if format == "label-studio" else read_shards(tmp_path / "out")
    found = {
        "prodigy": lambda: [(span["start"], span["end"]) for span in record["spans"]],
        "doccano": lambda: [tuple(span[:2]) for span in record["label"]],
        "label-studio": lambda: [
            (result["value"]["start"], result["value"]["end"]) for result in record["predictions"][0]["result"]
        ],
    }[format]()
    doc = spacy.load(tmp_path / "model")("one two three")
    predicted = doc.spans["sc"]
    assert len(predicted) > 3 and sorted(found) == sorted((s.start_char, s.end_char) for s in predicted)
    assert record["id"] == (1 if format == "label-studio" else 7)
    with pytest.raises(BertHeadsError, match="H191"):
        go(str(tmp_path / "model"), source, tmp_path / "conll", format="conll")


def test_chosen_labels_and_sets_are_written(model: str, tmp_path: Path) -> None:
    from spacy_bert_heads.bulk.predictions import Predicted, Predictor

    predictor = Predictor(model, Options())
    doc = predictor.nlp("track Smith")
    doc._.cats_set = list(doc.cats)
    doc._.ents_set = [(0, 2, "X", 0.5)]
    record = predictor._record(Predicted(Where(tmp_path, 1), {"text": doc.text, "cats_chosen": 1}, doc))
    assert record["cats_chosen"] == doc._.cats_chosen and len(record["cats_chosen"]) == 1
    assert record["cats_set"] == list(doc.cats)
    assert record["ents_set"] == [{"start": 0, "end": 11, "label": "X", "confidence": 0.5}]
    assert record["_input"] == {"cats_chosen": 1}


def test_keys_that_predictions_need_are_kept_apart(model: str, tmp_path: Path) -> None:
    given = {"text": "track Smith", "ents": "mine", "cats": 3, "answer": "accept", "spans": [], "label": "L"}
    source = write_jsonl(tmp_path / "in.jsonl", given)
    go(model, source, tmp_path / "out")
    (record,) = read_shards(tmp_path / "out")
    assert record["_input"] == {"ents": "mine", "cats": 3, "spans": []} and record["answer"] == "accept"
    # Read again, nothing of it is lost
    go(model, tmp_path / "out", tmp_path / "again")
    (again,) = read_shards(tmp_path / "again")
    assert again["ents"] == record["ents"]
    assert again["_input"]["ents"] == record["ents"] and again["_input"]["_input"] == record["_input"]
    go(model, source, tmp_path / "prodigy", format="prodigy")
    (task,) = read_shards(tmp_path / "prodigy")
    assert "answer" not in task and task["_input"]["answer"] == "accept" and task["_view_id"] == "blocks"


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_holds_each_text_once_with_its_keys(
    model: str, nlp: Language, tmp_path: Path, format: str
) -> None:
    records = make_records(7)
    source = write_jsonl(tmp_path / "in.jsonl", *records, {"id": "blank", "text": " ", "meta": 0})
    report = go(model, source, tmp_path / "out", format=format, shard_size=3)
    parts = sorted((tmp_path / "out").glob(f"part-*{FORMATS[format]}"))
    assert len(parts) == 3
    docs = [nlp(record["text"]) for record in records]
    ents = [[(ent.start_char, ent.end_char, ent.label_) for ent in doc.ents] for doc in docs]
    assert report.n_rejected == (1 if format == "conll" else 0)
    if format == "parquet":
        from pyarrow import parquet

        rows = [row for part in parts for row in parquet.read_table(part).to_pylist()][:7]
        others = [{"id": r["id"], "meta": r["meta"], "cats_chosen": d._.cats_chosen} for r, d in zip(records, docs)]
        assert [json.loads(row["record"]) for row in rows] == others
        assert [[(e["start"], e["end"], e["label"]) for e in row["ents"]] for row in rows] == ents
        assert [dict(row["cats"]) for row in rows] == [pytest.approx(doc.cats, abs=1e-5) for doc in docs]
    elif format == "spacy":
        bins = [DocBin().from_disk(part) for part in parts]
        found = [doc for one in bins for doc in one.get_docs(nlp.vocab)][:7]
        assert [[(e.start_char, e.end_char, e.label_) for e in doc.ents] for doc in found] == ents
        assert [doc.user_data["record"]["id"] for doc in found] == [record["id"] for record in records]
        for mine, doc in zip(found, docs):
            assert mine._.ents_confidence == pytest.approx(doc._.ents_confidence, abs=1e-5)
        # And they can be read again
        again = [item.record["id"] for item in read_items(run.find_sources([tmp_path / "out"]))]
        assert again == [record["id"] for record in [*records, {"id": "blank"}]]
    else:
        contents = [part.read_text(encoding="utf8") for part in parts]
        if format == "conll":
            assert sum(content.count("\n\n") for content in contents) == 7
        elif format == "label-studio":
            tasks = [task for content in contents for task in json.loads(content)]
            assert [task["id"] for task in tasks] == list(range(1, 9))
            assert [task["data"]["id"] for task in tasks][:7] == [record["id"] for record in records]
        else:
            lines = [json.loads(line) for content in contents for line in content.splitlines()]
            assert [line["id"] for line in lines][:7] == [record["id"] for record in records]
            assert [line["meta"] for line in lines][:7] == [record["meta"] for record in records]
            key = {"prodigy": "spans", "doccano": "entities", "jsonl": "ents"}[format]
            shown = [[tuple(e.values()) if isinstance(e, dict) else tuple(e) for e in line[key]] for line in lines]
            assert [[(s[0], s[1]) for s in spans] for spans in shown][:7] == [[e[:2] for e in one] for one in ents]
        if format in ("doccano", "conll"):
            assert report.lost["lost_confidence"] > 0 and "probabilities" in report.to_text()


def test_records_in_python_come_in_order(model: str, tmp_path: Path) -> None:
    records = make_records(30)
    source = write_jsonl(tmp_path / "in.jsonl", *records, '{"id": "bad"}')
    rejected: List[Dict[str, Any]] = []
    found = list(spacy_bert_heads.apply(model, source, n_process=1, rejected=rejected.append))
    assert [record["id"] for record in found] == [record["id"] for record in records]
    assert [bad["line"] for bad in rejected] == [31]
    texts = [record["text"] for record in records]
    for inputs in (texts, ({"text": text, "n": 1} for text in texts), [Path(source)]):
        again = list(spacy_bert_heads.apply(model, inputs, n_process=1, limit=30))
        assert [r["cats"] for r in again] == [pytest.approx(r["cats"], abs=1e-5) for r in found]
    with pytest.raises(BertHeadsError) as info:
        list(spacy_bert_heads.apply(model, ["good", "half \ud83d"], n_process=1))
    assert info.value.code == "H659"
    assert list(spacy_bert_heads.apply(model, [])) == []


def test_the_command_says_what_it_wrote_and_rejects_alone_are_no_failure(
    trouble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", {"text": "Apple opened"}, '{"id": 2}')

    def call(*arguments: Any) -> Any:
        return CliRunner().invoke(app, ["apply", *map(str, arguments)])

    result = call(trouble, source, tmp_path / "out", "-j", "1")
    assert result.exit_code == 0, result.output
    last = result.stdout.splitlines()[-1]
    assert last.startswith(f"Wrote 1 records in 1 files to {tmp_path / 'out'}; 1 were rejected, see ")
    for arguments in (["--select", "ents,tags"], ["--format", "xml"]):
        result = call(trouble, source, tmp_path / "new", *arguments)
        assert result.exit_code == 1 and "[H145]" in result.stderr
    for arguments in (["-j", "0"], ["--gpu-id", "a"], ["--gpu-id", "0,0"], ["--min-confidence", "2"]):
        result = call(trouble, source, tmp_path / "new", *arguments)
        assert result.exit_code == 1 and "[H650]" in result.stderr
    assert "[H650]" in call(trouble, source).stderr
    assert "[H641]" in call(trouble, source, tmp_path / "new", "--threads", "many").stderr
    result = call(trouble, source, tmp_path / "new", "--gpu-id", "97")
    assert result.exit_code == 0 or "[H656]" in result.stderr  # inline workers look at no environment
    exported = CliRunner().invoke(app, ["export", str(source), "x", "--format", "conll", "--model", trouble])
    assert exported.exit_code == 1 and "bert-heads apply MODEL INPUT OUT --format conll" in exported.stderr


def test_processes_are_as_many_as_there_are_cores_and_memory(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "count_cpus", lambda: 64)
    monkeypatch.setattr(local, "_available_memory", lambda: None)
    assert local.choose_n_process(model) == 64
    monkeypatch.setattr(local, "_available_memory", lambda: 3 << 30)
    assert 3 <= local.choose_n_process(model) <= 4
    monkeypatch.setattr(local, "_available_memory", lambda: 1)
    assert local.choose_n_process(model) == 1


def test_a_lock_is_given_back(trouble: str, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", *make_records(3))
    go(trouble, source, tmp_path / "out")
    with lock(tmp_path / "out"):
        pass


@Language.component("test_apply_cats", assigns=["doc.cats"])
def set_cats(doc: Doc) -> Doc:
    doc.cats = {"POS": 0.7, "LONG": 0.5, "NEG": 0.2}
    return doc


@pytest.mark.parametrize("format", ["prodigy", "label-studio", "doccano"])
def test_predicted_categories_as_tools_have_them(tmp_path: Path, format: str) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("test_apply_cats")
    nlp.to_disk(tmp_path / "model")
    source = tmp_path / "in.txt"
    source.write_text("Apple opened.\n", encoding="utf8")
    go(str(tmp_path / "model"), source, tmp_path / "out", format=format)
    record = json.loads((tmp_path / "out" / f"part-000000{FORMATS[format]}").read_text(encoding="utf8"))
    if format == "prodigy":
        assert "answer" not in record and "spans" not in record
        assert record["accept"] == ["POS", "LONG"]
        shown = {option["id"]: option["meta"] for option in record["options"]}
        assert shown == {"POS": "0.70", "LONG": "0.50", "NEG": "0.20"}
    elif format == "doccano":
        assert record == {"text": "Apple opened.", "label": ["POS", "LONG"]}
    else:
        (prediction,) = record[0]["predictions"]
        (result,) = prediction["result"]
        assert "annotations" not in record[0] and result["value"] == {"choices": ["POS", "LONG"]}
        assert prediction["score"] == result["score"] == 0.5


@pytest.mark.parametrize("heads", [["bert_ner"], ["bert_textcat"], ["bert_textcat_multilabel", "bert_ner"]])
def test_doccano_takes_the_predictions_of_the_heads_and_gives_them_back(
    tmp_path: Path, bert_folder: str, heads: List[str]
) -> None:
    """One head makes a project of one kind, both one for intents and slots."""
    nlp = make_nlp(bert_folder, heads)
    nlp.to_disk(tmp_path / "model")
    texts = ["Anna wants a refund 😀 now", "track Smith in 北京", "where is New York?"]
    source = tmp_path / "in.txt"
    source.write_text("\n".join(texts), encoding="utf8")
    report = go(str(tmp_path / "model"), source, tmp_path / "out", format="doccano")
    docs = list(nlp.pipe(texts))
    n_ents = sum(len(doc.ents) for doc in docs)
    assert ("bert_ner" in heads) == (n_ents > 0)
    assert report.lost["lost_confidence"] == n_ents + sum(len(doc.cats) for doc in docs)
    records = read_shards(tmp_path / "out")
    assert {tuple(record)[1:] for record in records} == {("entities", "cats") if len(heads) > 1 else ("label",)}
    # As doccano gives them out again
    for number, record in enumerate(records):
        record.update(id=number, Comments=[])
        if "cats" in record:
            record["cats"] = sorted(record["cats"])
    path = write_jsonl(tmp_path / "back.jsonl", *records)
    assert find_converter(path, "auto").name == "doccano"
    back = {found.text: found for found in CONVERTERS["doccano"].read(path, Findings(skip_bad=False), ReadOptions())}
    held = {label for record in records for label in record.get("cats", record["label"] if n_ents == 0 else [])}
    for doc in docs:
        # Without an entity or a label, a record says nothing, if the file has no others of the kind
        if doc.text in back:
            found = back[doc.text]
            assert [tuple(span) for span in found.ents] == get_spans(doc.ents)
            assert found.complete == ("bert_ner" in heads)
            best = max(doc.cats, key=lambda label: doc.cats[label]) if heads == ["bert_textcat"] else None
            chosen = {label for label, value in doc.cats.items() if (label == best if best else value >= 0.5)}
            assert found.cats == ({label: float(label in chosen) for label in held} if chosen else {})
    assert len(back) == len(docs) or not n_ents


def test_predictions_keep_the_tokens_of_a_corpus_and_not_its_annotation(trouble: str, tmp_path: Path) -> None:
    doc = Doc(spacy.blank("en").vocab, words=["Apple", "op", "ened"], spaces=[True, False, False])
    doc.set_ents([Span(doc, 1, 2, "WRONG")], default="outside")
    doc.cats = {"POS": 1.0}
    DocBin(docs=[doc]).to_disk(tmp_path / "in.spacy")
    go(trouble, tmp_path / "in.spacy", tmp_path / "out", format="conll")
    assert (tmp_path / "out" / "part-000000.conll").read_text(encoding="utf8") == "Apple\tB-ORG\nop\tO\nened\tO\n\n"
