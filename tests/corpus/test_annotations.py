"""Merging the records of one text, rule by rule."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_bert_heads.corpus import annotations
from spacy_bert_heads.corpus.annotations import Annotation, CharSpan, merge, overlapping
from spacy_bert_heads.corpus.findings import Findings, Where

TEXT = "Apple opened in Paris."
ORG, PERSON, GPE = CharSpan(0, 5, "ORG"), CharSpan(0, 5, "PERSON"), CharSpan(16, 21, "GPE")


def make(line: int, **keys) -> Annotation:
    return Annotation(TEXT, Where(Path("a.jsonl"), line), **keys)


def merge_all(*versions: Annotation):
    findings = Findings(skip_bad=False)
    return merge(versions, findings), findings


def test_entities_and_categories_of_two_records_come_together():
    merged, findings = merge_all(make(1, ents=[ORG], complete=True), make(2, cats={"NEWS": 1.0}))
    assert (merged.ents, merged.complete, merged.cats) == ([ORG], True, {"NEWS": 1.0})
    assert merged.where.line == 1
    assert findings.counts == {"merged": 1}


def test_complete_annotation_wins_over_binary_and_contradictions_are_reported():
    versions = [make(1, ents=[GPE]), make(2, ents=[ORG], complete=True), make(3, rejected=[ORG, PERSON])]
    merged, findings = merge_all(*versions)
    assert (merged.ents, merged.rejected, merged.complete) == ([ORG], [], True)
    assert findings.counts["binary_against_manual"] == 2
    assert [case.where.line for case in findings.cases["binary_against_manual"]] == [1, 3]


def test_same_complete_annotation_twice_is_no_conflict():
    merged, findings = merge_all(make(1, ents=[ORG, GPE], complete=True), make(2, ents=[GPE, ORG], complete=True))
    assert merged.ents == [ORG, GPE]
    assert findings.counts == {"merged": 1}


def test_newest_of_two_complete_annotations_wins_when_both_have_a_time():
    versions = [
        make(1, ents=[ORG], complete=True, timestamp=9.0),
        make(2, ents=[], complete=True, timestamp=3.0),
    ]
    merged, findings = merge_all(*versions)
    assert merged.ents == [ORG]
    assert [case.where.line for case in findings.cases["entity_conflict"]] == [2]


@pytest.mark.parametrize("times", [(None, None), (9.0, None), (3.0, 3.0)])
def test_last_of_two_complete_annotations_wins_without_two_different_times(times):
    versions = [
        make(line, ents=[span], complete=True, timestamp=time) for line, span, time in zip((1, 2), (ORG, GPE), times)
    ]
    merged, findings = merge_all(*versions)
    assert merged.ents == [GPE]
    assert findings.counts["entity_conflict"] == 1


def test_binary_answers_add_up():
    merged, findings = merge_all(make(1, ents=[GPE]), make(2, rejected=[PERSON]), make(3, ents=[ORG]))
    assert (merged.ents, merged.rejected, merged.complete) == ([ORG, GPE], [PERSON], False)
    assert findings.counts == {"merged": 2}


def test_yes_and_no_to_the_same_span_keep_the_newest():
    merged, findings = merge_all(make(1, ents=[ORG], timestamp=2.0), make(2, rejected=[ORG], timestamp=1.0))
    assert (merged.ents, merged.rejected) == ([ORG], [])
    assert findings.counts["binary_conflict"] == 1


def test_overlapping_accepts_are_both_unknown():
    longer = CharSpan(0, 12, "ORG")
    merged, findings = merge_all(make(1, ents=[ORG]), make(2, ents=[longer]), make(3, ents=[GPE]))
    assert merged.ents == [GPE]
    assert findings.counts["binary_overlap"] == 1


def test_overlapping_accepts_within_one_record_are_unknown_too():
    merged, findings = merge_all(make(1, ents=[ORG, PERSON]))
    assert merged.is_empty
    assert findings.counts == {"binary_overlap": 1}


def test_categories_of_several_questions_add_up():
    merged, findings = merge_all(make(1, cats={"A": 1.0, "B": 0.0}), make(2, cats={"C": 0.0}))
    assert merged.cats == {"A": 1.0, "B": 0.0, "C": 0.0}
    assert "category_conflict" not in findings.counts


def test_newest_answer_to_a_category_wins():
    merged, findings = merge_all(make(1, cats={"A": 1.0, "B": 1.0}), make(2, cats={"A": 0.0}))
    assert merged.cats == {"A": 0.0, "B": 1.0}
    assert [case.where.line for case in findings.cases["category_conflict"]] == [1]


def test_exclusive_choices_are_replaced_as_a_whole():
    older = make(1, cats={"A": 1.0, "B": 0.0, "D": 0.0}, exclusive=True)
    newer = make(2, cats={"B": 0.0, "C": 1.0}, exclusive=True)
    merged, findings = merge_all(older, newer)
    assert merged.cats == {"B": 0.0, "C": 1.0}
    assert merged.exclusive
    assert findings.counts["category_conflict"] == 1


def test_exclusive_choices_about_different_options_stand_side_by_side():
    versions = [
        make(1, cats={"A": 1.0, "B": 0.0}, exclusive=True),
        make(2, cats={"X": 0.0, "Y": 1.0}, exclusive=True),
    ]
    merged, findings = merge_all(*versions)
    assert merged.cats == {"A": 1.0, "B": 0.0, "X": 0.0, "Y": 1.0}
    assert not merged.exclusive
    assert "category_conflict" not in findings.counts


def test_yes_to_a_label_of_an_exclusive_choice_is_a_no_to_the_others():
    merged, findings = merge_all(make(1, cats={"A": 1.0, "B": 0.0}, exclusive=True), make(2, cats={"B": 1.0}))
    assert merged.cats == {"A": 0.0, "B": 1.0}
    assert findings.counts["category_conflict"] == 1


def test_same_answer_a_thousand_times_is_compared_once(monkeypatch: pytest.MonkeyPatch):
    n_compared = []
    clash = annotations._cats_clash
    monkeypatch.setattr(annotations, "_cats_clash", lambda *pair: n_compared.append(pair) or clash(*pair))
    no = make(500, cats={"NEWS": 0.0, "SPORT": 1.0}, exclusive=True)
    yes = [make(line, cats={"NEWS": 1.0, "SPORT": 0.0}, exclusive=True) for line in range(1, 1001) if line != 500]
    merged, findings = merge_all(*yes[:499], no, *yes[499:])
    assert merged.cats == {"NEWS": 1.0, "SPORT": 0.0}
    assert findings.counts == {"merged": 999, "category_conflict": 1}
    assert len(n_compared) < 3000


def test_tokens_come_from_the_record_that_wins():
    tokens = [(0, 5), (6, 22)]
    merged, _ = merge_all(
        make(1, ents=[], complete=True, tokens=[(0, 22)]), make(2, ents=[ORG], complete=True, tokens=tokens)
    )
    assert merged.tokens == tokens
    merged, _ = merge_all(make(1, ents=[ORG], complete=True), make(2, cats={"A": 1.0}, tokens=[(0, 22)]))
    assert merged.tokens is None
    merged, _ = merge_all(make(1, cats={"A": 1.0}, tokens=tokens), make(2, cats={"B": 1.0}))
    assert merged.tokens == tokens


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5)), max_size=6))
def test_every_overlapping_span_is_in_a_pair(pieces):
    spans = [CharSpan(start, start + length, str(i)) for i, (start, length) in enumerate(pieces)]
    found = {span for pair in overlapping(spans) for span in pair}
    expected = set()
    for one, other in itertools.combinations(spans, 2):
        if one.start < other.end and other.start < one.end:
            expected |= {one, other}
    assert found == expected
