"""Answers of a large language model in a corpus: marked, for training alone, and gone when a person has answered."""

from pathlib import Path
from typing import Any, Dict, Optional

import pytest
from typer.testing import CliRunner

from spacy_bert_heads.annotation.merge import merge
from spacy_bert_heads.cli.app import app
from spacy_bert_heads.corpus.readers.prodigy import SILVER_WEIGHT
from spacy_bert_heads.corpus.writers.export import export
from spacy_bert_heads.errors import BertHeadsError

from ..corpus.helpers import convert_records, get_iob, get_spans, load_docs, make_span, read_one, run, write_jsonl

TEXT = "Anna Smith met Bob in Paris"
SPANS = [make_span(0, 10, "PER"), make_span(15, 18, "PER"), make_span(22, 27, "LOC")]


def make_task(text: str = TEXT, **keys: Any) -> Dict[str, Any]:
    """As `prelabel` writes it."""
    spans = [span for span in SPANS if span["end"] <= len(text)]
    options = [{"id": name, "text": name} for name in ("A", "B")]
    task = {"text": text, "spans": spans, "options": options, "accept": ["A"], "config": {"choice_style": "single"}}
    return {**task, "teacher": {"model": "m", "prompt": "p"}, "_view_id": "blocks", **keys}


def weights(path: Path) -> Dict[str, Optional[float]]:
    return {doc.text: doc._.silver for doc in load_docs(path)}


def test_a_task_that_nobody_answered_is_silver_and_one_of_a_person_is_not() -> None:
    silver, _ = read_one(make_task())
    answered, _ = read_one(make_task(answer="accept"))
    assert (silver.silver, answered.silver) == (SILVER_WEIGHT, None) and silver.ents == answered.ents
    # What other tools write without an answer stays what it was
    assert read_one({key: value for key, value in make_task().items() if key != "teacher"})[0].silver is None


def test_what_two_answers_do_not_agree_on_is_missing(tmp_path: Path) -> None:
    teacher = {"model": "m", "prompt": "p", "unsure": [[0, 4], [0, 10], [15, 18]], "unsure_categories": ["A", "B"]}
    [doc] = convert_records(tmp_path, make_task(teacher=teacher))
    assert get_iob(doc) == ["", "", "O", "", "O", "B"] and get_spans(doc.ents) == [(22, 27, "LOC")]
    assert doc.cats == {} and doc._.silver == SILVER_WEIGHT
    several = make_task(teacher={**teacher, "unsure_categories": ["B"]}, config={"choice_style": "multiple"})
    assert convert_records(tmp_path / "2", several)[0].cats == {"A": 1.0}
    # Once a person has looked at it, all of it counts
    [doc] = convert_records(tmp_path / "3", make_task(teacher=teacher, answer="accept"))
    assert get_iob(doc) == ["B", "I", "O", "B", "O", "B"] and doc.cats == {"A": 1.0, "B": 0.0}


@pytest.mark.parametrize("unsure", [3, [[1]], [["a", "b"]], [[5, 2]], [[0, 999]], [[-1, 2]], "x"])
def test_broken_provenance_is_a_bad_record(unsure: Any) -> None:
    for key in ("unsure", "unsure_categories"):
        if isinstance(unsure, list) and key == "unsure_categories":
            continue
        with pytest.raises(BertHeadsError) as error:
            read_one(make_task(teacher={key: unsure}))
        assert error.value.code in ("H108", "H110", "H122") and error.value.line == 1


def test_people_are_never_outranked(tmp_path: Path) -> None:
    """Whatever the order and the times: in the corpus, in answers, and in a later merge."""
    texts = [f"{TEXT} {number}" for number in range(4)]
    silver = write_jsonl(tmp_path / "silver.jsonl", *map(make_task, texts))
    base = write_jsonl(tmp_path / "base.jsonl", {"text": texts[0], "spans": [], "answer": "accept"})
    answers = write_jsonl(
        tmp_path / "answers.jsonl", {"text": texts[1], "spans": [], "answer": "accept", "_timestamp": 1}
    )
    report = merge([base], tmp_path / "out", answers=[answers], silver=[silver], silver_weight=0.5)
    assert weights(tmp_path / "out" / "train.spacy") == {texts[0]: None, texts[1]: None, texts[2]: 0.5, texts[3]: 0.5}
    docs = {doc.text: doc for doc in load_docs(tmp_path / "out" / "train.spacy")}
    assert not docs[texts[0]].ents and not docs[texts[1]].ents and len(docs[texts[2]].ents) == 3
    assert report.findings.counts["silver"] == 2 and report.findings.counts["silver_replaced"] == 2
    assert not report.conflicts
    # The corpus keeps the mark, and an answer to it takes its place
    later = write_jsonl(tmp_path / "later.jsonl", {"text": texts[2], "spans": [], "answer": "accept"})
    merge([tmp_path / "out"], tmp_path / "out", answers=[later], silver=[silver])
    assert weights(tmp_path / "out" / "train.spacy") == {**dict.fromkeys(texts[:3]), texts[3]: SILVER_WEIGHT}
    before = (tmp_path / "out" / "train.spacy").read_bytes()
    merge([tmp_path / "out"], tmp_path / "out", answers=[later], silver=[silver, silver])
    assert (tmp_path / "out" / "train.spacy").read_bytes() == before


def test_only_texts_of_the_train_split_are_taken(tmp_path: Path) -> None:
    texts = [f"{TEXT} {number}" for number in range(60)]
    silver = write_jsonl(tmp_path / "silver.jsonl", *map(make_task, texts[:50]))
    gold = write_jsonl(
        tmp_path / "gold.jsonl", *({"text": text, "spans": [], "answer": "accept"} for text in texts[40:])
    )
    merge([gold], tmp_path / "merged", answers=[], silver=[silver], split="0.5,0.3,0.2")
    report = run([silver, gold], tmp_path / "converted", split="0.5,0.3,0.2")
    for folder in ("merged", "converted"):
        marks = {name: weights(tmp_path / folder / f"{name}.spacy") for name in ("train", "dev", "test")}
        assert not any(marks["dev"].values()) and not any(marks["test"].values())
        assert sum(value is not None for value in marks["train"].values()) > 10
        # Where a text belongs does not depend on who annotated it
        assert all(text in texts[40:] for name in ("dev", "test") for text in marks[name])
    assert report.findings.counts["silver"] + report.findings.counts["silver_not_train"] == 40
    dev = write_jsonl(
        tmp_path / "dev.jsonl", *map(make_task, texts[:5]), {"text": "x", "spans": [], "answer": "accept"}
    )
    run(gold, tmp_path / "given", dev=dev)
    assert set(weights(tmp_path / "given" / "dev.spacy")) == {"x"}


def test_the_command_takes_them_without_answers_and_refuses_nonsense(tmp_path: Path) -> None:
    silver = write_jsonl(tmp_path / "silver.jsonl", make_task())
    output = ["--output", str(tmp_path / "out")]
    result = CliRunner().invoke(app, ["merge", "--silver", str(silver), *output])
    assert result.exit_code == 0 and "nobody has reviewed" in result.output, result.output
    assert list(weights(tmp_path / "out" / "train.spacy").values()) == [SILVER_WEIGHT]
    for wrong in (
        ["--silver", str(silver), "--silver-weight", "0"],
        ["--silver", str(silver), "--silver-weight", "2"],
        [],
    ):
        result = CliRunner().invoke(app, ["merge", *wrong, *output])
        assert result.exit_code == 1 and "H504" in result.output


def test_an_export_says_that_it_makes_them_answers_of_people(tmp_path: Path) -> None:
    silver = write_jsonl(tmp_path / "silver.jsonl", make_task())
    merge([], tmp_path / "out", answers=[], silver=[silver])
    for format in ("prodigy", "label-studio", "doccano", "conll"):
        _, findings = export(tmp_path / "out" / "train.spacy", tmp_path / "exported", format=format)
        assert findings.counts["lost_silver"] == 1
