"""Annotations into Docs and back out of a DocBin."""

from pathlib import Path

import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc, DocBin

from spacy_bert_heads.corpus.annotations import Annotation, CharSpan
from spacy_bert_heads.corpus.docs import INCORRECT_SPANS_KEY, build_doc, check_annotation, load_tokenizer
from spacy_bert_heads.corpus.findings import Findings, Where
from spacy_bert_heads.errors import BertHeadsError

from .helpers import get_iob, get_spans

WHERE = Where(Path("a.jsonl"), 3)
NLP = spacy.blank("en")
OTHER_VOCAB = spacy.blank("en").vocab


def make_doc(**keys) -> Doc:
    findings = Findings(skip_bad=False)
    return build_doc(NLP, check_annotation(NLP, Annotation(where=WHERE, **keys), findings), findings)


def settle(off_tokens: str, text: str = "Great stuff, man.", **keys):
    """What becomes of an annotation with spans off token borders, its Doc, and what was found."""
    findings = Findings(skip_bad=False)
    annotation = check_annotation(NLP, Annotation(text, WHERE, **keys), findings, off_tokens)
    return reload(build_doc(NLP, annotation, findings)), findings.counts


def reload(doc: Doc) -> Doc:
    data = DocBin(docs=[doc], store_user_data=True).to_bytes()
    (loaded,) = DocBin().from_bytes(data).get_docs(OTHER_VOCAB)
    return loaded


@st.composite
def annotations(draw) -> Annotation:
    """Any words with any white space between them, and spans of whole words that do not overlap."""
    word = st.text(st.characters(blacklist_categories=("Cs", "Z", "Cc")), min_size=1, max_size=4)
    words = draw(st.lists(word.filter(lambda text: text.strip() == text), min_size=1, max_size=8))
    gap = st.sampled_from(["", " ", "  ", "\n", " \n\t", "\u3000"])
    text, tokens = draw(gap), []
    for piece in words:
        tokens.append((len(text), len(text) + len(piece)))
        text += piece + draw(gap)
    cuts = draw(st.lists(st.integers(0, len(words)), unique=True, max_size=6).map(sorted))
    kinds = draw(st.lists(st.sampled_from(["ents", "rejected", "unknown", ""]), min_size=6, max_size=6))
    spans = {"ents": [], "rejected": [], "unknown": [], "": []}
    for first, last, kind in zip(cuts, cuts[1:], kinds):
        spans[kind].append(CharSpan(tokens[first][0], tokens[last - 1][1], draw(st.sampled_from("AB"))))
    complete = draw(st.booleans())
    return Annotation(
        text=text,
        where=WHERE,
        tokens=tokens,
        ents=spans["ents"],
        complete=complete,
        unknown=spans["unknown"] if complete else [],
        rejected=spans["rejected"],
        cats=draw(st.dictionaries(st.sampled_from("XYZ"), st.sampled_from([0.0, 1.0]))),
    )


@given(annotations())
@settings(deadline=None)
def test_spans_tokens_and_categories_survive_doc_and_docbin(annotation: Annotation):
    findings = Findings(skip_bad=False)
    assert check_annotation(NLP, annotation, findings) == annotation
    doc = reload(build_doc(NLP, annotation, findings))
    assert doc.text == annotation.text
    borders = [(token.idx, token.idx + len(token)) for token in doc if not token.is_space]
    assert set(annotation.tokens) >= set(borders)
    assert get_spans(doc.ents) == [tuple(span) for span in annotation.ents]
    assert get_spans(doc.spans.get(INCORRECT_SPANS_KEY, [])) == [tuple(span) for span in annotation.rejected]
    assert doc.cats == annotation.cats
    for token in doc:
        in_span = [span for span in annotation.ents if span.start <= token.idx < span.end]
        in_unknown = [span for span in annotation.unknown if span.start <= token.idx < span.end]
        default = "O" if annotation.complete and not in_unknown else ""
        assert token.ent_iob_ in (("B", "I") if in_span else (default,))
    assert not findings.counts


def test_text_with_categories_only_has_missing_entities_after_reloading():
    doc = reload(make_doc(text="Great stuff.", cats={"POS": 1.0}))
    assert get_iob(doc) == ["", "", ""]
    assert not doc.has_annotation("ENT_IOB")
    assert doc.cats == {"POS": 1.0}


def test_text_without_entities_has_outside_tokens_after_reloading():
    doc = reload(make_doc(text="Great stuff.", complete=True))
    assert get_iob(doc) == ["O", "O", "O"]
    assert INCORRECT_SPANS_KEY not in doc.spans


def test_rejected_spans_may_overlap_each_other_and_entities():
    rejected = [CharSpan(0, 5, "B"), CharSpan(0, 11, "A")]
    doc = reload(make_doc(text="Great stuff.", ents=[CharSpan(0, 5, "A")], rejected=rejected))
    assert get_spans(doc.spans[INCORRECT_SPANS_KEY]) == [tuple(span) for span in rejected]


def test_span_off_the_tokens_of_another_record_is_reported():
    annotation = Annotation("Great stuff.", WHERE, tokens=[(0, 12)], ents=[CharSpan(0, 5, "A")])
    findings = Findings(skip_bad=False)
    assert not build_doc(NLP, annotation, findings).ents
    assert findings.counts == {"off_tokens": 1}


def test_error_off_token_borders_names_the_tokens_nearby():
    with pytest.raises(BertHeadsError, match="'Great' 0-5, 'stuff' 6-11"):
        make_doc(text="Great stuff.", ents=[CharSpan(2, 8, "A")])


@pytest.mark.parametrize(
    "tokens",
    [
        [(0, 5)],
        [(0, 5), (5, 5), (6, 12)],
        [(0, 6), (5, 12)],
        [(0, 5), (6, 13)],
        [(6, 12), (0, 5)],
        [(-1, 12)],
    ],
)
def test_tokens_that_do_not_cover_the_text_in_order_are_refused(tokens):
    with pytest.raises(BertHeadsError) as info:
        make_doc(text="Great stuff.", tokens=tokens, cats={"A": 1.0})
    assert (info.value.code, info.value.line) == ("H116", 3)


def test_unknown_language_is_refused():
    with pytest.raises(BertHeadsError) as info:
        load_tokenizer("klingon")
    assert (info.value.code, info.value.found) == ("H119", "'klingon'")


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_text_longer_than_spacy_takes_is_refused(lang: str):
    nlp = load_tokenizer(lang)
    annotation = Annotation("x" * (nlp.max_length + 1), WHERE, cats={"A": 1.0})
    with pytest.raises(BertHeadsError) as info:
        check_annotation(nlp, annotation, Findings(skip_bad=False))
    assert (info.value.code, info.value.line) == ("H138", 3)


def test_category_that_is_no_finite_number_is_refused():
    with pytest.raises(BertHeadsError) as info:
        make_doc(text="Great stuff.", cats={"A": float("nan")})
    assert info.value.code == "H135"


def test_second_sentence_is_remembered():
    doc = reload(make_doc(text="One. Two.", cats={"score": 2.5}, second_start=5))
    assert doc.text[doc.user_data["second_start"] :] == "Two."
    assert doc.cats == {"score": 2.5}


def test_spans_off_token_borders_are_left_unknown():
    spans = [CharSpan(2, 8, "A"), CharSpan(13, 16, "B")]
    doc, counts = settle("drop", ents=spans, complete=True)
    assert get_spans(doc.ents) == [(13, 16, "B")]
    assert get_iob(doc) == ["", "", "O", "B", "O"]
    assert counts == {"spans_dropped": 1}
    doc, _ = settle("drop", ents=spans[:1], rejected=[CharSpan(13, 15, "B")])
    assert get_iob(doc) == [""] * 5 and INCORRECT_SPANS_KEY not in doc.spans


def test_spans_off_token_borders_are_expanded_to_whole_tokens():
    doc, counts = settle("expand", ents=[CharSpan(2, 8, "A")], rejected=[CharSpan(14, 15, "B")])
    assert get_spans(doc.ents) == [(0, 11, "A")]
    assert get_spans(doc.spans[INCORRECT_SPANS_KEY]) == [(13, 16, "B")]
    assert counts == {"spans_expanded": 2}
    with pytest.raises(BertHeadsError) as info:
        settle("expand", ents=[CharSpan(0, 2, "A"), CharSpan(2, 5, "B")], complete=True)
    assert info.value.code == "H113"


def test_tokens_are_split_at_the_borders_of_spans():
    doc, counts = settle("split", ents=[CharSpan(2, 8, "A"), CharSpan(8, 12, "B")], complete=True)
    assert [token.text for token in doc] == ["Gr", "eat", "st", "uff", ",", "man", "."]
    assert get_spans(doc.ents) == [(2, 8, "A"), (8, 12, "B")]
    assert get_iob(doc) == ["O", "B", "I", "B", "I", "O", "O"]
    assert counts == {"tokens_split": 2}
    assert doc.text == "Great stuff, man."


@pytest.mark.parametrize("off_tokens", ["error", "drop", "expand", "split"])
def test_white_space_around_a_span_is_no_part_of_it(off_tokens: str):
    doc, counts = settle(off_tokens, ents=[CharSpan(5, 11, "A")])
    assert get_spans(doc.ents) == [(6, 11, "A")]
    assert counts == {"spans_trimmed": 1}
    with pytest.raises(BertHeadsError) as info:
        settle(off_tokens, text="a  b", tokens=[(0, 1), (3, 4)], ents=[CharSpan(1, 2, "A")])
    assert info.value.code == "H111"


@given(annotations(), st.data())
@settings(deadline=None)
def test_splitting_keeps_any_span_and_expanding_covers_it(annotation: Annotation, data):
    length = len(annotation.text)
    start = data.draw(st.integers(0, max(length - 1, 0)))
    end = data.draw(st.integers(start + 1, max(length, start + 1)))
    covered = annotation.text[start:end].strip()
    if not covered or end > length:
        return
    plain = Annotation(annotation.text, WHERE, tokens=annotation.tokens, ents=[CharSpan(start, end, "A")])
    (split,) = check_annotation(NLP, plain, Findings(skip_bad=False), "split").ents
    assert annotation.text[split.start : split.end] == covered
    (whole,) = check_annotation(NLP, plain, Findings(skip_bad=False), "expand").ents
    assert whole.start <= split.start and split.end <= whole.end
    for off_tokens in ("split", "expand", "drop"):
        findings = Findings(skip_bad=False)
        build_doc(NLP, check_annotation(NLP, plain, findings, off_tokens), findings)
        assert not findings.counts["off_tokens"]
