"""Answers joined to a corpus: against merging all records at once, and against `convert`."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List

import pytest
import spacy
from spacy.tokens import DocBin
from typer.testing import CliRunner

from spacy_bert_heads.annotation.hashes import input_hash
from spacy_bert_heads.annotation.merge import merge
from spacy_bert_heads.cli.app import app
from spacy_bert_heads.errors import BertHeadsError

from ..corpus.helpers import ALL_TRAIN, PARIS, get_iob, get_spans, load_docs, make_choice, make_span, run, write_jsonl

WORDS = "Anna didn't go to Paris with Bob, Kim and cos in May".split()
LABELS = ("PER", "LOC")
# Two files are written
INTO_BOTH = "0.8,0.2,0"


def manual(text: str, *spans: Dict[str, Any], **keys: Any) -> Dict[str, Any]:
    return {"text": text, "spans": list(spans), "_view_id": "ner_manual", "answer": "accept", **keys}


def binary(text: str, span: Dict[str, Any], answer: str, **keys: Any) -> Dict[str, Any]:
    return {"text": text, "spans": [span], "_view_id": "ner", "answer": answer, **keys}


def question(text: str, label: str, answer: str, **keys: Any) -> Dict[str, Any]:
    return {"text": text, "label": label, "_view_id": "classification", "answer": answer, **keys}


def choice(*accepted: str, **keys: Any) -> Dict[str, Any]:
    return {**make_choice(*accepted, **keys), "answer": "accept"}


YES = binary(PARIS, make_span(0, 5), "accept")


def read_folder(folder: Path) -> Dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*.spacy"))}


def describe(folder: Path) -> Dict[str, Any]:
    """All that a corpus says, by text."""
    found = {}
    for path in folder.rglob("*.spacy"):
        for doc in load_docs(path):
            assert doc.text not in found
            rejected = get_spans(doc.spans.get("incorrect_spans", ()))
            found[doc.text] = (get_spans(doc.ents), get_iob(doc), rejected, doc.cats, path.name)
    return found


def make_texts(n: int) -> List[str]:
    chooser = random.Random(0)
    return list(dict.fromkeys(" ".join(chooser.choices(WORDS, k=6)) for _ in range(n)))


def make_answers(texts: List[str], n: int, seed: int, timed: bool = True) -> List[Dict[str, Any]]:
    """Answers of all kinds, some of them contradicting others, each at its own time."""
    chooser = random.Random(seed)
    records = []
    for number in range(n):
        text = chooser.choice(texts)
        words = text.split()
        borders = [(text.index(word), text.index(word) + len(word)) for word in sorted(set(words))]
        spans = [make_span(*one, chooser.choice(LABELS)) for one in chooser.sample(borders, 2)]
        time = {"_timestamp": 1000 * seed + number} if timed else {}
        records.append(
            chooser.choice(
                [
                    manual(text, *spans, **time),
                    binary(text, spans[0], "accept", **time),
                    binary(text, spans[0], "reject", **time),
                    binary(text, spans[1], "ignore", **time),
                    choice(chooser.choice(["POS", "NEG"]), text=text, **time),
                    question(text, chooser.choice(["POS", "NEG"]), chooser.choice(["accept", "reject"]), **time),
                ]
            )
        )
    return records


@pytest.mark.parametrize("timed", [True, False])
def test_round_by_round_gives_what_all_answers_at_once_give(tmp_path: Path, timed: bool) -> None:
    texts = make_texts(40)
    base = write_jsonl(tmp_path / "base.jsonl", *(manual(text) for text in texts[:10]))
    rounds = [
        write_jsonl(tmp_path / f"{number}.jsonl", *make_answers(texts, 60, number, timed)) for number in (1, 2, 3)
    ]
    for number, answers in enumerate(rounds):
        before = [tmp_path / "corpus"] if number else [base]
        merge(before, tmp_path / "corpus", answers=[answers], split=INTO_BOTH)
    merge([base], tmp_path / "at_once", answers=rounds, split=INTO_BOTH)
    stepwise, at_once = describe(tmp_path / "corpus"), describe(tmp_path / "at_once")
    assert stepwise.keys() == at_once.keys() and len(at_once) > 30
    assert {place for *_, place in at_once.values()} == {"train.spacy", "dev.spacy"}
    # An accepted span that overlaps another becomes unknown, and a label of an exclusive choice answered no leaves the
    # choice open: what was decided so is not decided anew. Everything else is the same.
    same = sum(stepwise[text] == at_once[text] for text in at_once)
    assert same >= 0.9 * len(at_once)


@pytest.mark.parametrize("timed", [True, False])
def test_answers_that_are_in_the_corpus_change_nothing(tmp_path: Path, timed: bool) -> None:
    texts = make_texts(40)
    base = write_jsonl(tmp_path / "base.jsonl", *(manual(text, make_span(0, len(text.split()[0]))) for text in texts))
    answers = write_jsonl(tmp_path / "new.jsonl", *make_answers([*texts, *make_texts(90)], 150, 1, timed))
    first = merge([base], tmp_path / "corpus", answers=[answers])
    before = read_folder(tmp_path / "corpus")
    assert first.texts["changed"] and first.texts["new"]
    again = merge([tmp_path / "corpus"], tmp_path / "corpus", answers=[answers])
    assert read_folder(tmp_path / "corpus") == before
    assert again.texts["new"] == again.texts["changed"] == 0
    assert again.texts["unchanged"] == first.texts["changed"] + first.texts["new"] + first.texts["unchanged"]
    # A file given twice, under two names too, is read once; a copy of it changes nothing either.
    (tmp_path / "link.jsonl").symlink_to(answers)
    (tmp_path / "copy.jsonl").write_bytes(answers.read_bytes())
    given = [answers, tmp_path / "link.jsonl", answers]
    assert len(merge([base], tmp_path / "twice", answers=given).inputs) == 2
    assert read_folder(tmp_path / "twice") == before
    merge([base], tmp_path / "copied", answers=[answers, tmp_path / "copy.jsonl"])
    assert read_folder(tmp_path / "copied") == before


def test_a_text_of_which_nothing_is_left_is_not_written(tmp_path: Path) -> None:
    """Two accepted spans that overlap, and one off the tokens that another record brings."""
    tokens = [{"text": "Apple opened", "start": 0, "end": 12, "id": 0}, {"text": ".", "start": 12, "end": 13, "id": 1}]
    answers = write_jsonl(
        tmp_path / "new.jsonl",
        binary(PARIS, make_span(0, 5), "accept"),
        binary(PARIS, make_span(0, 5, "FRUIT"), "accept"),
        binary("Apple opened.", make_span(0, 5), "accept"),
        binary("Apple opened.", make_span(0, 12), "ignore", tokens=tokens),
        question("Apple opened.", "NEWS", "ignore"),
        binary("Good.", make_span(0, 4), "reject"),
        manual("Empty."),
    )
    report = merge([], tmp_path / "out", answers=[answers], split=ALL_TRAIN)
    assert report.findings.counts["no_annotation"] == 1
    assert report.texts == {"new": 3, "left out": 1}
    before = read_folder(tmp_path / "out")
    assert describe(tmp_path / "out").keys() == {"Apple opened.", "Good.", "Empty."}
    merge([tmp_path / "out"], tmp_path / "out", answers=[answers], split=ALL_TRAIN)
    assert read_folder(tmp_path / "out") == before


def test_the_order_of_files_is_of_no_account_where_answers_have_times(tmp_path: Path) -> None:
    texts = make_texts(20)
    files = [write_jsonl(tmp_path / f"{n}.jsonl", *make_answers(texts, 60, n)) for n in (1, 2, 3)]
    found = []
    for number, order in enumerate(itertools.permutations(files)):
        merge([], tmp_path / str(number), answers=order)
        found.append(describe(tmp_path / str(number)))
    assert all(other == found[0] for other in found)


def test_without_a_corpus_it_is_convert(tmp_path: Path) -> None:
    answers = write_jsonl(tmp_path / "new.jsonl", *make_answers(make_texts(60), 120, 1))
    merge([], tmp_path / "merged", answers=[answers], split="0.7,0.2,0.1", seed=3)
    run(answers, tmp_path / "converted", split="0.7,0.2,0.1", seed=3)
    # But for texts of which the answers leave nothing
    converted = describe(tmp_path / "converted")
    kept = {text: found for text, found in converted.items() if found[3] or found[2] or any(found[1])}
    assert describe(tmp_path / "merged") == kept and len(kept) > 30


def test_an_older_answer_loses_against_the_corpus_and_a_newer_one_wins(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    for number, (label, when, winner) in enumerate(
        [
            ("ORG", {"_timestamp": 100}, "ORG"),
            ("PER", {"_timestamp": 50}, "ORG"),
            ("LOC", {"_timestamp": 150}, "LOC"),
            ("FRUIT", {}, "FRUIT"),
            ("LOC", {"_timestamp": 150}, "FRUIT"),
            ("LOC", {"_timestamp": 151}, "LOC"),
        ]
    ):
        answers = write_jsonl(tmp_path / "new.jsonl", manual(PARIS, make_span(0, 5, label), **when))
        report = merge([corpus] if number else [], corpus, answers=[answers], split=ALL_TRAIN)
        assert [found for _, _, found in describe(corpus)[PARIS][0]] == [winner]
        assert bool(report.conflicts) == bool(number)


def test_every_kind_of_answer_becomes_what_the_rules_say(tmp_path: Path) -> None:
    """As docs/reference/formats.md says, for texts of the corpus and for new ones."""
    org, city = make_span(0, 5), make_span(16, 21, "CITY")
    base = write_jsonl(tmp_path / "base.jsonl", choice("POS", text="Good."), manual("Apple grows."), manual("So so."))
    answers = write_jsonl(
        tmp_path / "new.jsonl",
        binary(PARIS, org, "accept"),
        binary(PARIS, city, "reject"),
        question(PARIS, "NEWS", "reject"),
        question("Good.", "NEG", "accept"),
        manual("Apple grows.", org),
        binary("So so.", make_span(0, 2), "reject"),
        {**manual("Not this one.", org), "answer": "ignore"},
        {**manual("Nor this one.", org), "answer": "reject"},
    )
    report = merge([base], tmp_path / "out", answers=[answers], split=ALL_TRAIN)
    found = describe(tmp_path / "out")
    train = "train.spacy"
    assert found == {
        "Good.": ([], ["", ""], [], {"MIX": 0.0, "NEG": 1.0, "POS": 0.0}, train),
        "Apple grows.": ([(0, 5, "ORG")], ["B", "O", "O"], [], {}, train),
        "So so.": ([], ["O", "O", "O"], [], {}, train),
        PARIS: ([(0, 5, "ORG")], ["B", "", "", "", ""], [(16, 21, "CITY")], {"NEWS": 0.0}, train),
    }
    assert report.texts == {"changed": 2, "new": 1, "unchanged": 1}
    assert sorted(report.new_labels) == [("category", "NEWS"), ("entity", "CITY"), ("entity", "ORG")]
    assert "had no category label 'NEWS', first at" in report.to_text()


def test_a_choice_made_in_an_earlier_round_stays_exclusive(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    merge([], corpus, answers=[write_jsonl(tmp_path / "1.jsonl", choice("POS"))], split=ALL_TRAIN)
    merge([corpus], corpus, answers=[write_jsonl(tmp_path / "2.jsonl", question("Great.", "NEG", "accept"))])
    assert describe(corpus)["Great."][3] == {"MIX": 0.0, "NEG": 1.0, "POS": 0.0}
    # A corpus from elsewhere does not say that categories are exclusive; then the user does.
    (doc,) = load_docs(corpus / "train.spacy")
    doc.user_data.clear()
    DocBin(docs=[doc]).to_disk(tmp_path / "theirs.spacy")
    answers = write_jsonl(tmp_path / "3.jsonl", question("Great.", "POS", "accept"))
    for exclusive, expected in ((True, {"POS"}), (False, {"POS", "NEG"})):
        merge([tmp_path / "theirs.spacy"], tmp_path / "out", answers=[answers], exclusive=exclusive, split=ALL_TRAIN)
        cats = describe(tmp_path / "out")["Great."][3]
        assert {label for label, value in cats.items() if value} == expected


def test_texts_stay_in_their_split_and_answers_reach_them_there(tmp_path: Path) -> None:
    texts = make_texts(60)
    main, dev, test = texts[:20], texts[20:30], texts[30:40]
    files = {
        name: write_jsonl(tmp_path / f"{name}.jsonl", *map(manual, group))
        for name, group in (("main", main), ("dev", dev), ("test", test))
    }
    run(files["main"], tmp_path / "corpus", dev=files["dev"], test=files["test"])
    answers = write_jsonl(
        tmp_path / "new.jsonl",
        *(manual(text, make_span(0, len(text.split()[0]))) for text in texts),
        manual(dev[0].upper()),
    )
    merge([tmp_path / "corpus"], tmp_path / "corpus", answers=[answers])
    found = describe(tmp_path / "corpus")
    places = {text: found[text][-1] for text in texts}
    assert {places[text] for text in main} == {"train.spacy"}
    assert {places[text] for text in dev} == {"dev.spacy"}
    assert found[dev[0].upper()][-1] == "dev.spacy"
    assert {places[text] for text in test} == {"test.spacy"}
    assert {places[text] for text in texts[40:]} == {"train.spacy"}
    assert all(len(found[text][0]) == 1 for text in texts)
    # Left out altogether, they are in no file.
    leave_out = [tmp_path / "corpus" / "dev.spacy", tmp_path / "corpus" / "test.spacy"]
    report = merge([files["main"]], tmp_path / "fixed", answers=[answers], leave_out=leave_out, split=ALL_TRAIN)
    kept = {text for text in texts if places[text] == "train.spacy"}
    assert describe(tmp_path / "fixed").keys() == kept and report.texts["left out"] == len(texts) - len(kept) + 1


@pytest.mark.slow
def test_real_answers_merged_again_change_nothing(shared_data: Path, tmp_path: Path) -> None:
    """1,800 yes/no answers, of a tokenizer that cuts some words otherwise."""
    answers = [shared_data / "prodigy" / "ner_teach_binary__reddit_PRODUCT.jsonl"]
    first = merge([], tmp_path / "out", answers=answers, off_tokens="drop")
    before = read_folder(tmp_path / "out")
    again = merge([tmp_path / "out"], tmp_path / "out", answers=answers, off_tokens="drop")
    assert read_folder(tmp_path / "out") == before
    assert again.texts["unchanged"] == first.texts["new"] > 1000 and not again.texts["new"] + again.texts["changed"]


def test_texts_are_new_once(tmp_path: Path) -> None:
    """As in the second round of a loop, which merges the answers of both, the first ones among them changed later."""
    texts = make_texts(40)
    base = write_jsonl(tmp_path / "base.jsonl", *map(manual, texts[:5]))
    first = write_jsonl(tmp_path / "first.jsonl", *(manual(text, _timestamp=1) for text in texts[5:20]))
    changed = manual(texts[6], make_span(0, len(texts[6].split()[0])), _timestamp=2)
    again = manual(texts[7], _timestamp=2)
    second = write_jsonl(
        tmp_path / "second.jsonl", changed, again, *(manual(text, _timestamp=2) for text in texts[20:])
    )
    report = merge([base], tmp_path / "out", answers=[first, second], merged_before=[first], split=ALL_TRAIN)
    assert "Answered texts: 20 new, 1 changed, 1 unchanged, 0 left out" in report.to_text()
    # Labels are for `convert` and `inspect` to list
    assert "span" not in report.to_text()
    all_new = merge([base], tmp_path / "other", answers=[first, second], split=ALL_TRAIN)
    assert all_new.texts["new"] == 35 and read_folder(tmp_path / "other") == read_folder(tmp_path / "out")


def test_conflicts_are_all_listed_with_place_and_text(tmp_path: Path) -> None:
    """Two annotators who disagree about every text."""
    texts = make_texts(40)
    one, other = (
        write_jsonl(
            tmp_path / f"{name}.jsonl",
            *(manual(text, make_span(0, len(text.split()[0]), label), _timestamp=time) for text in texts),
        )
        for name, label, time in (("anna", "PER", 2), ("bob", "LOC", 1))
    )
    path = tmp_path / "report.json"
    report = merge([], tmp_path / "out", answers=[one, other], report_path=path)
    assert all(ents[0][2] == "PER" for ents, *_ in describe(tmp_path / "out").values())
    written = json.loads(path.read_text(encoding="utf8"))["conflicts"]
    assert [(Path(entry["path"]).name, entry["line"]) for entry in written] == [
        ("bob.jsonl", line) for line in range(1, len(texts) + 1)
    ]
    assert [entry["text"] for entry in written] == texts
    assert all(entry["kept"].startswith('PER "') and entry["not_used"].startswith('LOC "') for entry in written)
    # One table, in which every conflict has one line with both answers
    shown = report.to_text().splitlines()
    assert "Conflicts (40), the newest answer kept:" in shown
    assert not any("complete annotations" in row for row in shown)
    first = texts[0].split()[0]
    [row] = [row for row in shown if row.endswith(f" {other}:1")]
    assert f'PER "{first}"' in row and f'LOC "{first}"' in row and row.startswith(texts[0][:20])
    assert f"and {len(texts) - 20} more" in report.to_text()


@pytest.mark.parametrize(
    ("older", "newer", "kept", "lost"),
    [
        (manual(PARIS, make_span(0, 5)), manual(PARIS), "no entity", 'ORG "Apple"'),
        (YES, {**YES, "answer": "reject"}, 'not ORG "Apple"', 'ORG "Apple"'),
        (binary(PARIS, make_span(0, 5), "reject"), manual(PARIS, make_span(0, 5)), 'ORG "Apple"', 'not ORG "Apple"'),
        (choice("POS", text=PARIS), choice("NEG", text=PARIS), "NEG", "POS"),
        (question(PARIS, "NEWS", "accept"), question(PARIS, "NEWS", "reject"), "not NEWS", "NEWS"),
    ],
)
def test_a_conflict_shows_both_answers(
    tmp_path: Path, older: Dict[str, Any], newer: Dict[str, Any], kept: str, lost: str
) -> None:
    records = [{**older, "_timestamp": 1}, {**newer, "_timestamp": 2}]
    report = merge([], tmp_path / "out", answers=[write_jsonl(tmp_path / "a.jsonl", *records)])
    assert {(one.kept, one.lost) for one in report.conflicts} == {(kept, lost)}


def test_bad_records_stop_it_with_place_and_reason_and_nothing_is_written(tmp_path: Path) -> None:
    base = write_jsonl(tmp_path / "base.jsonl", manual(PARIS))
    out = tmp_path / "out"
    good = manual("Good.")
    tokens = [{"text": "Apple", "start": 0, "end": 5, "id": 0}]
    for bad, code in (
        (manual(PARIS, make_span(0, 99)), "H110"),
        (manual("Another text.", make_span(0, 5), tokens=tokens), "H116"),
        (manual(PARIS, make_span(0, 3)), "H111"),
        ({**good, "answer": "perhaps"}, "H114"),
        ('{"text": "Broken', "H105"),
    ):
        answers = write_jsonl(tmp_path / "new.jsonl", good, bad, good)
        with pytest.raises(BertHeadsError, match=rf"new.jsonl:2: \[{code}\]"):
            merge([base], out, answers=[answers])
        assert not out.exists()
        report = merge([base], out, answers=[answers], skip_bad=True, split=ALL_TRAIN)
        assert report.findings.counts[code] == 1 and describe(out).keys() == {PARIS, "Good."}
        for path in out.iterdir():
            path.unlink()
        out.rmdir()


def test_a_file_that_is_still_being_written_is_told_from_a_broken_one(tmp_path: Path) -> None:
    records = [manual(text) for text in make_texts(20)]
    whole = write_jsonl(tmp_path / "whole.jsonl", *records)
    lines = whole.read_bytes()
    merge([], tmp_path / "whole", answers=[whole])
    cut = tmp_path / "cut.jsonl"
    # Cut within a line, within a character, and where the last line has no end but is whole
    for content, code in ((lines[:-30], "H520"), (lines + '{"text": "é'.encode()[:-1], "H520"), (lines[:-1], None)):
        cut.write_bytes(content)
        if code is None:
            merge([], tmp_path / "cut", answers=[cut])
            assert read_folder(tmp_path / "cut") == read_folder(tmp_path / "whole")
        else:
            with pytest.raises(BertHeadsError, match=rf"cut.jsonl:\d+: \[{code}\] the last line is incomplete"):
                merge([], tmp_path / "cut", answers=[cut])
            assert not (tmp_path / "cut").exists()
    # The complete lines now, and the others when they are there
    cut.write_bytes(lines[: len(lines) // 2])
    merge([], tmp_path / "cut", answers=[cut], skip_bad=True)
    assert len(describe(tmp_path / "cut")) < len(records)
    cut.write_bytes(lines)
    merge([tmp_path / "cut"], tmp_path / "cut", answers=[cut])
    assert read_folder(tmp_path / "cut") == read_folder(tmp_path / "whole")


def test_tasks_that_nobody_answered_are_no_answers(tmp_path: Path) -> None:
    task = manual(PARIS, make_span(0, 5, score=0.9, source="m"))
    del task["answer"]
    answers = write_jsonl(tmp_path / "new.jsonl", task, manual("Good."))
    report = merge([], tmp_path / "out", answers=[answers], split=ALL_TRAIN)
    assert report.findings.counts["unanswered"] == 1 and describe(tmp_path / "out").keys() == {"Good."}
    # A task that was filled in by hand in an editor: the message names the key that is missing
    with pytest.raises(BertHeadsError, match=r'\[H117\].*nobody has answered yet \(no "answer": "accept"\)'):
        merge([], tmp_path / "out", answers=[write_jsonl(tmp_path / "none.jsonl", task)])


def test_a_corpus_with_overlapping_spans_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    doc = spacy.blank("en")(PARIS)
    doc.spans["sc"] = [doc[0:2], doc[0:1]]
    DocBin(docs=[doc], store_user_data=True).to_disk(tmp_path / "train.spacy")
    before = read_folder(tmp_path)
    answers = write_jsonl(tmp_path.parent / f"{tmp_path.name}.jsonl", {**choice("A"), "text": "Another text"})
    with pytest.raises(BertHeadsError) as error:
        merge([tmp_path], tmp_path, answers=[answers])
    assert error.value.code == "H581" and read_folder(tmp_path) == before


def test_an_edited_text_counts_for_what_it_is_and_is_reported(tmp_path: Path) -> None:
    old = input_hash("Aple opened.")
    answers = write_jsonl(
        tmp_path / "new.jsonl",
        manual("Apple opened.", make_span(0, 5), _input_hash=old),
        manual("Aple opened.", _input_hash=old),
        manual("An image.", _input_hash=7, image="a.png"),
    )
    report = merge([], tmp_path / "out", answers=[answers], split=ALL_TRAIN)
    assert describe(tmp_path / "out").keys() == {"Apple opened.", "Aple opened.", "An image."}
    (case,) = report.findings.cases["edited_text"]
    assert case.where.line == 1 and report.findings.counts["edited_text"] == 1


def test_tasks_of_another_tokenizer_are_counted_and_placed_by_characters(tmp_path: Path) -> None:
    text = "Apple's here"
    tokens = [{"text": "Apple's", "start": 0, "end": 7, "id": 0}, {"text": "here", "start": 8, "end": 12, "id": 1}]
    nlp = spacy.blank("en")
    base = nlp(text)
    base.set_ents([base.char_span(0, 5, label="ORG")], default="outside")
    DocBin(docs=[base]).to_disk(tmp_path / "base.spacy")
    assert len(base) == 3
    answers = write_jsonl(tmp_path / "new.jsonl", manual(text, make_span(8, 12, "LOC"), tokens=tokens))
    report = merge([tmp_path / "base.spacy"], tmp_path / "out", answers=[answers], split=ALL_TRAIN)
    (doc,) = load_docs(tmp_path / "out" / "train.spacy")
    assert [token.text for token in doc] == ["Apple's", "here"] and get_spans(doc.ents) == [(8, 12, "LOC")]
    assert report.findings.counts["other_tokens"] == 1
    # A yes/no answer leaves the tokens of a complete annotation alone.
    answers = write_jsonl(tmp_path / "new.jsonl", binary(text, make_span(8, 12, "LOC"), "reject", tokens=tokens))
    merge([tmp_path / "base.spacy"], tmp_path / "out", answers=[answers], split=ALL_TRAIN)
    (doc,) = load_docs(tmp_path / "out" / "train.spacy")
    assert len(doc) == 3 and get_spans(doc.ents) == [(0, 5, "ORG")]


def test_tasks_that_show_some_labels_leave_the_others_of_the_corpus_open(tmp_path: Path) -> None:
    base = write_jsonl(tmp_path / "base.jsonl", manual("Anna went.", make_span(0, 4, "PER")))
    shown = {"config": {"labels": ["ORG"]}}
    answers = write_jsonl(
        tmp_path / "new.jsonl", manual(PARIS, make_span(0, 5), **shown), manual("Anna went.", **shown)
    )
    merge([base], tmp_path / "out", answers=[answers], split=ALL_TRAIN)
    found = describe(tmp_path / "out")
    assert found[PARIS][1] == ["B", "", "", "", ""] and found["Anna went."][0] == [(0, 4, "PER")]
    # With no other label anywhere they are complete; another file of answers can bring one.
    merge([], tmp_path / "alone", answers=[answers], split=ALL_TRAIN)
    assert describe(tmp_path / "alone")[PARIS][1] == ["B", "O", "O", "O", "O"]
    for order in ([answers, base], [base, answers]):
        merge([], tmp_path / "both", answers=order, split=ALL_TRAIN)
        assert describe(tmp_path / "both")[PARIS][1] == ["B", "", "", "", ""]


def test_label_studio_exports_are_answers_too(tmp_path: Path) -> None:
    result = [
        {
            "id": "a",
            "from_name": "ner",
            "to_name": "text",
            "type": "labels",
            "value": {"start": 0, "end": 5, "text": "Apple", "labels": ["ORG"]},
        }
    ]
    tasks = [
        {"id": 1, "data": {"text": PARIS}, "annotations": [{"id": 1, "result": result, "was_cancelled": False}]},
        {"id": 2, "data": {"text": "Skipped."}, "annotations": [{"id": 2, "result": [], "was_cancelled": True}]},
    ]
    path = tmp_path / "answers.json"
    path.write_text(json.dumps(tasks), encoding="utf8")
    merge([], tmp_path / "out", answers=[path], split=ALL_TRAIN)
    assert describe(tmp_path / "out")[PARIS][0] == [(0, 5, "ORG")] and len(describe(tmp_path / "out")) == 1


@pytest.mark.parametrize("n_moved", [0, 1])
def test_whenever_it_ends_files_are_the_old_ones_or_the_new_ones(
    n_moved: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = make_texts(60)
    base = write_jsonl(tmp_path / "base.jsonl", *map(manual, texts[:40]))
    answers = write_jsonl(tmp_path / "new.jsonl", *make_answers(texts, 80, 1))
    corpus = tmp_path / "corpus"
    merge([], corpus, answers=[base], split=INTO_BOTH)
    old = read_folder(corpus)
    merge([corpus], tmp_path / "new", answers=[answers], split=INTO_BOTH)
    new = read_folder(tmp_path / "new")
    replace, moved = os.replace, []

    def stop(source: Any, target: Any) -> None:
        if len(moved) == n_moved:
            raise KeyboardInterrupt
        moved.append(target)
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            merge([corpus], corpus, answers=[answers], split=INTO_BOTH)
    assert read_folder(corpus) == {
        "dev.spacy": old["dev.spacy"],
        "train.spacy": (new if n_moved else old)["train.spacy"],
    }
    merge([corpus], corpus, answers=[answers], split=INTO_BOTH)
    assert read_folder(corpus) == new


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_killed_at_any_moment_it_leaves_the_old_corpus_or_the_new_one(tmp_path: Path) -> None:
    texts = make_texts(400)
    base = write_jsonl(tmp_path / "base.jsonl", *map(manual, texts[:200]))
    answers = write_jsonl(tmp_path / "new.jsonl", *make_answers(texts, 400, 1))
    corpus = tmp_path / "corpus"
    merge([base], tmp_path / "new", answers=[answers], split=INTO_BOTH)
    options = ["-a", str(answers), "-o", str(corpus), "--split", INTO_BOTH]
    call = [sys.executable, "-m", "spacy", "bert-heads", "merge", str(base), *options]
    merge([], corpus, answers=[base], split=INTO_BOTH)
    old, new = read_folder(corpus), read_folder(tmp_path / "new")
    began = time.monotonic()
    subprocess.run(call, check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - began
    for share in (0.85, 0.95):
        for name, content in old.items():
            (corpus / name).write_bytes(content)
        process = subprocess.Popen(call, stdout=subprocess.DEVNULL)
        time.sleep(share * seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for name, content in read_folder(corpus).items():
            assert content in (old.get(name), new.get(name)) or name.startswith(".")
    merge([base], corpus, answers=[answers], split=INTO_BOTH)
    assert read_folder(corpus) == new and {path.name for path in corpus.iterdir()} == set(new)


def test_the_verb_takes_a_corpus_answers_and_an_output(tmp_path: Path) -> None:
    base = write_jsonl(tmp_path / "base.jsonl", manual(PARIS))
    answers = [write_jsonl(tmp_path / f"{n}.jsonl", manual(f"Text {n}.")) for n in (1, 2)]
    out, report = tmp_path / "out", tmp_path / "metrics" / "merge.json"
    options = [arg for path in answers for arg in ("--answers", str(path))]
    done = CliRunner().invoke(
        app, ["merge", str(base), *options, "-o", str(out), "--split", ALL_TRAIN, "--report", str(report)]
    )
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == f"Wrote train.spacy (3 docs) in {out}"
    assert json.loads(report.read_text(encoding="utf8"))["texts"] == {"not answered": 1, "new": 2}
    done = CliRunner().invoke(app, ["merge", str(base), "--answers", str(tmp_path / "none.jsonl"), "-o", str(out)])
    assert done.exit_code == 1 and "[H101]" in done.stderr
