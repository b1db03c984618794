"""Annotation -> spaCy Doc, and the checks that make it possible."""

from typing import Iterable, List, Optional, Sequence, Tuple

import spacy
from spacy.language import Language
from spacy.tokens import Doc, Span

from ..errors import BertHeadsError
from .annotations import Annotation, CharSpan, overlapping
from .findings import Findings

# Where spaCy's own `ner` looks for spans that are known to be wrong (its `incorrect_spans_key`).
INCORRECT_SPANS_KEY = "incorrect_spans"


def load_tokenizer(lang: str) -> Language:
    """The blank pipeline whose tokenizer splits texts that come without tokens.

    lang (str): spaCy's code of a language, such as "en" or "zh".
    RETURNS (Language): The blank pipeline.
    RAISES (BertHeadsError): H119 if spaCy has no such language or a package that it needs is missing.
    """
    try:
        return spacy.blank(lang)
    except (ImportError, ValueError) as error:
        raise BertHeadsError("H119", found=repr(lang), reason=str(error).split(". ")[0]) from error


def check_annotation(nlp: Language, annotation: Annotation) -> None:
    """Make sure that the text, tokens and spans of one record fit together.

    nlp (Language): Tokenizes the text if it comes without tokens.
    annotation (Annotation): What one record says.
    RAISES (BertHeadsError): H109 for an empty span; H110 for a span outside the text; H111 for a span off
        token borders; H113 for overlapping entities; H116 for tokens that do not match the text.
    """
    text, where = annotation.text, annotation.where
    if annotation.tokens is not None:
        _check_tokens(annotation, annotation.tokens)
    spans = annotation.ents + annotation.unknown + annotation.rejected
    if not spans:
        return
    for start, end, label in spans:
        if start >= end:
            raise where.error("H109", f"{start}-{end}", label=label)
        if start < 0 or end > len(text):
            raise where.error("H110", f"{start}-{end}", label=label, length=len(text))
    tokens = annotation.tokens
    if tokens is None:
        tokens = [(token.idx, token.idx + len(token)) for token in nlp.make_doc(text)]
    starts, ends = {start for start, _ in tokens}, {end for _, end in tokens}
    for span in spans:
        if span.start not in starts or span.end not in ends:
            shown = f"{text[span.start : span.end]!r} {span.start}-{span.end}"
            raise where.error("H111", shown, label=span.label, nearby=_nearby(text, tokens, span))
    if annotation.complete:
        for one, other in overlapping(sorted({*annotation.ents, *annotation.unknown})):
            shown = f"{one.label} {one.start}-{one.end} and {other.label} {other.start}-{other.end}"
            raise where.error("H113", shown)


def build_doc(nlp: Language, annotation: Annotation, findings: Findings) -> Doc:
    """Make the Doc that holds what is known about a text.

    Tokens that are in no entity are outside if the annotation is complete, otherwise missing.

    nlp (Language): Gives the vocabulary, and tokenizes the text if it comes without tokens.
    annotation (Annotation): Checked by `check_annotation` before it was merged with others.
    findings (Findings): Takes spans that do not fit the tokens of another record of the same text.
    RETURNS (Doc): With entities, `spans["incorrect_spans"]` if there are any, and categories.
    """
    if annotation.tokens is None:
        doc = nlp.make_doc(annotation.text)
    else:
        words, spaces = _words_and_spaces(annotation.text, annotation.tokens)
        doc = Doc(nlp.vocab, words=words, spaces=spaces)
    ents = _to_spans(doc, annotation, annotation.ents, findings)
    unknown = _to_spans(doc, annotation, annotation.unknown, findings)
    doc.set_ents(ents, missing=unknown, default="outside" if annotation.complete else "missing")
    rejected = _to_spans(doc, annotation, annotation.rejected, findings)
    if rejected:
        doc.spans[INCORRECT_SPANS_KEY] = rejected
    doc.cats = dict(annotation.cats)
    return doc


def _to_spans(doc: Doc, annotation: Annotation, spans: Iterable[CharSpan], findings: Findings) -> List[Span]:
    found = []
    for start, end, label in spans:
        span: Optional[Span] = doc.char_span(start, end, label=label)
        if span is None:
            findings.note("off_tokens", annotation.where, f"{label} {start}-{end}")
        else:
            found.append(span)
    return found


def _check_tokens(annotation: Annotation, tokens: Sequence[Tuple[int, int]]) -> None:
    text, position = annotation.text, 0
    for index, (start, end) in enumerate([*tokens, (len(text), len(text))]):
        is_token = index < len(tokens)
        if start < position or end > len(text) or (is_token and start >= end):
            found = f"token {index} at {start}-{end}, after one that ends at {position}"
            raise annotation.where.error("H116", found)
        if text[position:start].strip():
            raise annotation.where.error("H116", f"{text[position:start].strip()!r} in no token")
        position = end


def _words_and_spaces(text: str, tokens: Sequence[Tuple[int, int]]) -> Tuple[List[str], List[bool]]:
    words: List[str] = []
    spaces: List[bool] = []
    position = 0
    for start, end in [*tokens, (len(text), len(text))]:
        gap = text[position:start]
        if gap.startswith(" ") and words:
            spaces[-1] = True
            gap = gap[1:]
        # As in spaCy, white space beyond one space after a word is a token of its own.
        for word in (gap, text[start:end]):
            if word:
                words.append(word)
                spaces.append(False)
        position = end
    return words, spaces


def _nearby(text: str, tokens: Sequence[Tuple[int, int]], span: CharSpan) -> str:
    touching = [(start, end) for start, end in tokens if start <= span.end and end >= span.start]
    shown = [f"{text[start:end]!r} {start}-{end}" for start, end in touching]
    return ", ".join(shown if len(shown) <= 4 else [*shown[:2], "...", *shown[-2:]])
