"""Prodigy records, one interface after the other."""

from pathlib import Path

import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_bert_heads.corpus.annotations import CharSpan
from spacy_bert_heads.corpus.docs import build_doc, check_annotation
from spacy_bert_heads.corpus.findings import Findings
from spacy_bert_heads.corpus.readers.options import ReadOptions
from spacy_bert_heads.corpus.readers.prodigy import ProdigyConverter
from spacy_bert_heads.errors import BertHeadsError

from .helpers import PARIS, convert_records, get_iob, get_spans, make_choice, make_span, read_one, write_jsonl

NLP = spacy.blank("xx")


def test_manual_spans_leave_the_other_tokens_outside(tmp_path: Path):
    (doc,) = convert_records(tmp_path, {"text": PARIS, "spans": [make_span(0, 5)], "answer": "accept"})
    assert get_spans(doc.ents) == [(0, 5, "ORG")]
    assert get_iob(doc) == ["B", "O", "O", "O", "O"]
    assert doc.cats == {}


def test_missing_answer_counts_as_accept(tmp_path: Path):
    (doc,) = convert_records(tmp_path, {"text": PARIS, "spans": [make_span(0, 5)]})
    assert get_spans(doc.ents) == [(0, 5, "ORG")]


def test_accepted_manual_record_without_spans_says_no_entities(tmp_path: Path):
    (doc,) = convert_records(tmp_path, {"text": PARIS, "spans": [], "_view_id": "ner_manual"})
    assert get_iob(doc) == ["O"] * 5


@pytest.mark.parametrize("answer, kind", [("reject", "rejected"), ("ignore", "ignored")])
def test_manual_reject_and_ignore_are_dropped_and_counted(answer: str, kind: str):
    annotation, findings = read_one({"text": PARIS, "spans": [make_span(0, 5)], "answer": answer})
    assert annotation.is_empty
    assert findings.counts == {kind: 1}


def test_ignored_record_is_not_checked_further():
    annotation, _ = read_one({"text": PARIS, "spans": "broken", "answer": "ignore"})
    assert annotation.is_empty


def test_binary_accept_leaves_the_other_tokens_missing(tmp_path: Path):
    record = {"text": PARIS, "spans": [make_span(16, 21, "GPE")], "_is_binary": True, "answer": "accept"}
    (doc,) = convert_records(tmp_path, record)
    assert get_spans(doc.ents) == [(16, 21, "GPE")]
    assert get_iob(doc) == ["", "", "", "B", ""]


@pytest.mark.parametrize("keys", [{"_is_binary": True}, {"_view_id": "ner"}, {"_view_id": "review", "view_id": "ner"}])
def test_binary_reject_becomes_an_incorrect_span(tmp_path: Path, keys):
    record = {"text": PARIS, "spans": [make_span(16, 21)], "answer": "reject", **keys}
    (doc,) = convert_records(tmp_path, record)
    assert get_spans(doc.spans["incorrect_spans"]) == [(16, 21, "ORG")]
    assert get_iob(doc) == [""] * 5


def test_answer_of_a_span_goes_before_that_of_its_record():
    spans = [make_span(0, 5, answer="accept"), make_span(16, 21, answer="reject")]
    annotation, findings = read_one(
        {"text": PARIS, "spans": [*spans, make_span(6, 12, answer="ignore")], "answer": "reject"}
    )
    assert annotation.ents == [CharSpan(0, 5, "ORG")]
    assert annotation.rejected == [CharSpan(16, 21, "ORG")]
    assert not annotation.complete
    assert findings.counts == {"span_ignored": 1}


def test_ignored_span_of_a_complete_record_stays_unknown(tmp_path: Path):
    spans = [make_span(0, 5), make_span(16, 21, answer="ignore")]
    (doc,) = convert_records(tmp_path, {"text": PARIS, "spans": spans, "_is_binary": False})
    assert get_iob(doc) == ["B", "O", "O", "", "O"]


@pytest.mark.parametrize("answer, value", [("accept", 1.0), ("reject", 0.0), (None, 1.0)])
def test_classification_sets_one_category_and_no_entities(tmp_path: Path, answer, value: float):
    (doc,) = convert_records(tmp_path, {"text": PARIS, "label": "NEWS", "answer": answer})
    assert doc.cats == {"NEWS": value}
    assert get_iob(doc) == [""] * 5


def test_label_and_answer_count_in_a_choice_view_without_options():
    annotation, _ = read_one({"text": "a", "label": "DOC", "_view_id": "choice", "answer": "reject"})
    assert annotation.cats == {"DOC": 0.0}


def test_choice_sets_chosen_to_one_and_all_others_to_zero():
    assert read_one(make_choice("POS"))[0].cats == {"POS": 1.0, "NEG": 0.0, "MIX": 0.0}
    assert read_one(make_choice("POS", "MIX", style="multiple"))[0].cats == {
        "POS": 1.0,
        "NEG": 0.0,
        "MIX": 1.0,
    }


def test_nothing_chosen_is_all_zero_in_a_multiple_choice_only():
    assert read_one(make_choice(style="multiple"))[0].cats == {"POS": 0.0, "NEG": 0.0, "MIX": 0.0}
    annotation, findings = read_one(make_choice())
    assert annotation.is_empty
    assert findings.counts == {"nothing_chosen": 1}


def test_rejected_choice_is_dropped():
    annotation, findings = read_one(make_choice("POS", answer="reject"))
    assert annotation.is_empty
    assert findings.counts == {"rejected": 1}


def test_options_without_an_accept_list_are_not_an_answer():
    record = make_choice()
    del record["accept"]
    annotation, findings = read_one(record)
    assert annotation.is_empty
    assert findings.counts == {"unanswered_choice": 1}


def test_accept_without_options_says_only_what_was_chosen():
    assert read_one({"text": "a", "accept": ["POS"]})[0].cats == {"POS": 1.0}


def test_numbered_options_take_their_texts_as_labels():
    options = [{"id": 0, "text": "LSD"}, {"id": 1, "text": "MDMA"}, {"id": 2}]
    annotation, findings = read_one({"text": "a", "options": options, "accept": [1]})
    assert annotation.cats == {"LSD": 0.0, "MDMA": 1.0, "2": 0.0}
    assert findings.counts == {"numbered_options": 1}


def test_spans_and_choice_in_one_record_give_entities_and_categories(tmp_path: Path):
    record = {**make_choice("POS", text=PARIS, _view_id="blocks"), "spans": [make_span(0, 5)]}
    (doc,) = convert_records(tmp_path, record)
    assert get_iob(doc) == ["B", "O", "O", "O", "O"]
    assert doc.cats == {"POS": 1.0, "NEG": 0.0, "MIX": 0.0}


def test_spans_and_label_in_one_record_give_entities_and_a_category():
    annotation, _ = read_one({"text": PARIS, "spans": [make_span(0, 5)], "label": "NEWS"})
    assert annotation.ents == [CharSpan(0, 5, "ORG")]
    assert annotation.cats == {"NEWS": 1.0}


def test_rejected_record_with_spans_and_label_keeps_the_no_to_the_label():
    annotation, findings = read_one({"text": PARIS, "spans": [make_span(0, 5)], "label": "NEWS", "answer": "reject"})
    assert annotation.cats == {"NEWS": 0.0}
    assert not annotation.complete
    assert findings.counts == {"rejected": 1}


def test_label_beside_a_yes_or_no_about_a_span_is_no_category():
    record = {"text": PARIS, "spans": [make_span(0, 5)], "label": "ORG", "_is_binary": True}
    annotation, findings = read_one(record)
    assert annotation.cats == {}
    assert findings.counts == {"unused_label": 1}


@pytest.mark.parametrize("keys", [{"_view_id": "classification"}, {}])
def test_spans_shown_beside_a_question_about_the_text_are_no_entities(keys):
    record = {"text": PARIS, "spans": [make_span(0, 5, pattern=1)], "label": "NEWS", **keys}
    annotation, findings = read_one(record)
    assert annotation.cats == {"NEWS": 1.0}
    assert not annotation.complete and not annotation.ents
    assert findings.counts == {"highlights": 1}


def test_pattern_hits_without_label_are_counted_and_say_nothing():
    hits = [make_span(0, 5, None, pattern=7), {"start": 16, "end": 21, "pattern": 8}]
    annotation, findings = read_one({"text": PARIS, "spans": hits})
    assert annotation.is_empty
    assert findings.counts == {"pattern_hits": 2}
    annotation, _ = read_one({"text": PARIS, "spans": [*hits, make_span(6, 12)]})
    assert annotation.ents == [CharSpan(6, 12, "ORG")] and annotation.complete


def test_final_spans_of_a_review_are_used_and_its_versions_are_not():
    versions = [{"text": PARIS, "spans": [make_span(16, 21)]}]
    record = {
        "text": PARIS,
        "spans": [make_span(0, 5)],
        "versions": versions,
        "_view_id": "review",
        "view_id": "ner_manual",
    }
    assert read_one(record)[0].ents == [CharSpan(0, 5, "ORG")]


def test_text_alone_is_no_task():
    annotation, findings = read_one({"text": PARIS, "answer": "accept"})
    assert annotation.is_empty
    assert findings.counts == {"no_task": 1}


def test_given_tokens_are_kept_with_their_white_space(tmp_path: Path):
    text = "ab c\n\td"
    tokens = [(0, 1, False), (1, 2, True), (3, 4, False), (4, 6, False), (6, 7, False)]
    given = [{"text": text[s:e], "start": s, "end": e, "id": i, "ws": ws} for i, (s, e, ws) in enumerate(tokens)]
    (doc,) = convert_records(tmp_path, {"text": text, "tokens": given, "spans": []})
    assert [token.text for token in doc] == ["a", "b", "c", "\n\t", "d"]
    assert [bool(token.whitespace_) for token in doc] == [ws for _, _, ws in tokens]
    assert doc.text == text


def test_white_space_is_derived_from_offsets_where_ws_is_absent(tmp_path: Path):
    text = " ab  c\n"
    given = [{"text": text[s:e], "start": s, "end": e, "id": i} for i, (s, e) in enumerate([(1, 2), (2, 3), (5, 6)])]
    (doc,) = convert_records(tmp_path, {"text": text, "tokens": given, "spans": [make_span(1, 3)]})
    assert doc.text == text
    assert [token.text for token in doc] == [" ", "a", "b", " ", "c", "\n"]
    assert get_spans(doc.ents) == [(1, 3, "ORG")]


def test_offsets_count_code_points(tmp_path: Path):
    text = "👩‍👩‍👧 und 𝒳 Zürich 😀."
    start = text.index("Zürich")
    (doc,) = convert_records(tmp_path, {"text": text, "spans": [make_span(start, start + 6, "GPE")]})
    assert [ent.text for ent in doc.ents] == ["Zürich"]


def test_chinese_text_is_split_by_the_tokenizer_of_its_language(tmp_path: Path):
    text = "我要退货，订单号是123。"
    spans = [make_span(9, 12, "订单号")]
    (doc,) = convert_records(tmp_path, {"text": text, "spans": spans, "label": "退货"}, lang="zh")
    assert get_spans(doc.ents) == [(9, 12, "订单号")]
    assert [token.text for token in doc] == [*"我要退货，订单号是", "123", "。"]
    assert doc.cats == {"退货": 1.0}


@pytest.mark.parametrize(
    "head, is_prodigy",
    [
        (b'{"text": "a", "spans": []}\n', True),
        (b'\n{"text": "a", "label": "B"}\n', True),
        (b'{"text": "a", "answer": "accept"}', True),
        (b'broken\n{"text": "a", "accept": ["B"]}\n', True),
        (b'{"text": "a", "label": [[0, 1, "B"]]}\n', False),
        (b'{"text": "a"}\n', False),
        (b'[{"text": "a", "spans": []}]', False),
        (b"a\tB\n", False),
        (b"", False),
    ],
)
def test_format_is_recognised_by_content(head: bytes, is_prodigy: bool):
    assert ProdigyConverter().sniff(Path("a.jsonl"), head) is is_prodigy


def make_json_values():
    text = st.text(st.characters(blacklist_categories=("Cs",)), max_size=6)
    plain = st.one_of(
        st.none(), st.booleans(), st.integers(-3, 9), st.floats(), text, st.sampled_from(["a b", "accept"])
    )
    keys = st.sampled_from(["id", "text", "start", "end", "label", "answer", "ws", "pattern", "choice_style"])
    return st.recursive(
        plain,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=5),
        max_leaves=12,
    )


RECORD_KEYS = [
    "text",
    "spans",
    "tokens",
    "label",
    "options",
    "accept",
    "answer",
    "config",
    "_view_id",
    "_is_binary",
]


@given(st.dictionaries(st.sampled_from(RECORD_KEYS), make_json_values()), st.booleans())
@settings(deadline=None, max_examples=300)
def test_any_json_object_is_read_or_refused_without_a_crash(record, has_text):
    if has_text:
        record["text"] = "a b"
    try:
        annotation, findings = read_one(record)
        annotation = check_annotation(NLP, annotation, findings)
    except BertHeadsError as error:
        assert error.line == 1
    else:
        assert build_doc(NLP, annotation, findings).text == annotation.text


def test_tokens_are_unknown_where_only_some_labels_of_the_file_were_shown(tmp_path: Path):
    span, config = make_span(0, 5), {"labels": ["ORG"]}
    one = {"text": PARIS, "spans": [span], "config": config}
    all_ = {"text": "In Paris.", "spans": [make_span(3, 8, "GPE")], "config": {"labels": ["ORG", "GPE"]}}
    path = write_jsonl(tmp_path / "in.jsonl", one, all_, {"text": "Said nothing.", "spans": []})
    findings = Findings(skip_bad=False)
    annotations = list(ProdigyConverter().read(path, findings, ReadOptions()))
    assert [annotation.complete for annotation in annotations] == [False, True, True]
    assert annotations[0].ents == [(0, 5, "ORG")]
    assert [(case.where.line, case.detail) for case in findings.cases["some_labels"]] == [(1, "without GPE")]
    alone = write_jsonl(tmp_path / "alone.jsonl", one)
    assert [found.complete for found in ProdigyConverter().read(alone, findings, ReadOptions())] == [True]
