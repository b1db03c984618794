"""Annotation -> spaCy Doc, and the checks that make it possible."""

import math
import re
import unicodedata
from dataclasses import replace
from typing import Dict, Iterable, Iterator, List, Optional, Sequence, Set, Tuple

import spacy
from spacy.language import Language
from spacy.tokenizer import Tokenizer
from spacy.tokens import Doc, Span

from ..character_tokenizer import CharacterTokenizer, words_and_spaces
from ..errors import BertHeadsError
from ..extensions import SILVER
from .annotations import INCORRECT_SPANS_KEY, UNKNOWN_SPANS_KEY, Annotation, CharSpan, flatten, overlapping
from .findings import Findings, Where

# What can be done about a span that is not at token boundaries.
OFF_TOKENS = ("error", "drop", "expand", "split")
# Where `doc.user_data` says at which character the second sentence of a pair begins; that exactly one category holds;
# and when the newest answer about the text was given, as Unix time.
SECOND_START = "second_start"
EXCLUSIVE = "exclusive"
TIMESTAMP = "timestamp"


# spaCy's tokenizer takes prefixes and suffixes off a word one by one and looks at all of it each time, and at all that
# is behind each colon for an address. So its work on a word is about length x marks, where a mark is punctuation or a
# symbol near an end; a colon anywhere costs a tenth. A text may cost MAX_WORK, about a second, and WORK_PER_CHARACTER
# more: about 3,000 marks in a row are too many, and words of letters, numbers, base64 or Chinese may be of any length.
WORD = re.compile(r"\S{100,}")
MAX_WORK = 10_000_000
WORK_PER_CHARACTER = 100
# Letters that an affix may have beside its marks, as in 's; behind more than these nothing more is taken off.
LONGEST_AFFIX = 4


def load_tokenizer(lang: str) -> Language:
    """The blank pipeline whose tokenizer splits texts that come without tokens. Chinese is split into characters,
    as our configs for it do.

    lang (str): spaCy's code of a language, such as "en" or "zh".
    RETURNS (Language): The blank pipeline.
    RAISES (BertHeadsError): H119 if spaCy has no such language or a package that it needs is missing.
    """
    try:
        nlp = spacy.blank(lang)
    except (ImportError, ValueError) as error:
        raise BertHeadsError("H119", found=repr(lang), reason=str(error).split(". ")[0]) from error
    if lang == "zh":
        nlp.tokenizer = CharacterTokenizer(nlp.vocab)
    return nlp


def check_annotation(
    nlp: Language, annotation: Annotation, findings: Findings, off_tokens: str = "error", *, overlaps: bool = False
) -> Annotation:
    """Make sure that the text, tokens and spans of one record fit together.

    nlp (Language): Tokenizes the text if it comes without tokens.
    annotation (Annotation): What one record says.
    findings (Findings): Takes note of misaligned spans about which something is done.
    off_tokens (str): One of OFF_TOKENS, what to do about misaligned spans: refuse the record, leave their
        tokens unknown, expand them to whole tokens, or split the tokens at their boundaries.
    overlaps (bool): Whether entities may overlap.
    RETURNS (Annotation): The annotation, with all spans at token boundaries.
    RAISES (BertHeadsError): H109 for an empty span; H110 for a span outside the text; H111 for a span not at
        token boundaries; H113 for overlapping entities; H116 for tokens that do not match the text; H135 for a
        category that is no finite number; H138 for a text longer than spaCy takes; H147 for one that its tokenizer
        would take minutes for.
    """
    text, where = annotation.text, annotation.where
    if len(text) > nlp.max_length:
        raise where.error("H138", f"{len(text):,}", limit=nlp.max_length)
    check_words(nlp, text, where)
    if annotation.tokens is not None:
        _check_tokens(annotation, annotation.tokens)
    for label, value in annotation.cats.items():
        if not math.isfinite(value):
            raise where.error("H135", value, label=label)
    if not (annotation.ents or annotation.unknown or annotation.rejected):
        return annotation
    for start, end, label in annotation.ents + annotation.unknown + annotation.rejected:
        if start >= end:
            raise where.error("H109", f"{start}-{end}", label=label)
        if start < 0 or end > len(text):
            raise where.error("H110", f"{start}-{end}", label=label, length=len(text))
    annotation = _settle_borders(nlp, annotation, findings, off_tokens, overlaps)
    if annotation.complete and not overlaps:
        for one, other in overlapping(sorted({*annotation.ents, *annotation.unknown})):
            shown = f"{one.label} {one.start}-{one.end} and {other.label} {other.start}-{other.end}"
            raise where.error("H113", shown)
    return annotation


def build_doc(
    nlp: Language,
    annotation: Annotation,
    findings: Findings,
    *,
    spans_key: Optional[str] = None,
    how: Optional[str] = None,
) -> Doc:
    """Make the Doc that holds what is known about a text.

    Tokens that are in no entity are outside if the annotation is complete, otherwise missing.

    With a spans_key, entities are in `doc.spans[spans_key]` and may overlap. The group is there if anything is known
    about them. What is not known is in `doc.spans["unknown_spans"]`, as pipeline.span_annotations has it: the whole
    text if the annotation is not complete.

    nlp (Language): Gives the vocabulary, and tokenizes the text if it comes without tokens.
    annotation (Annotation): Checked by `check_annotation` before it was merged with others.
    findings (Findings): Takes spans that do not fit the tokens of another record of the same text, and those that
        flattening leaves out.
    spans_key (Optional[str]): Key of `doc.spans` for entities. None: they are in `doc.ents`.
    how (Optional[str]): How those are chosen that are in `doc.ents`, see flatten. None: all, or with a spans_key none.
    RETURNS (Doc): With entities, `spans["incorrect_spans"]` if there are any, and categories.
        The start of a second sentence, whether exactly one category holds, when that was said and how much it counts
        where nobody has reviewed it are under "second_start", "exclusive", "timestamp" and "silver" in `user_data`,
        if there is such a thing.
    """
    if annotation.tokens is None:
        doc = nlp.make_doc(annotation.text)
    else:
        words, spaces = words_and_spaces(annotation.text, annotation.tokens)
        doc = Doc(nlp.vocab, words=words, spaces=spaces)
    if spans_key is not None and (annotation.complete or annotation.ents or annotation.rejected):
        doc.spans[spans_key] = _to_spans(doc, annotation, annotation.ents, findings)
        gaps = _to_spans(doc, annotation, annotation.unknown, findings) if annotation.complete else []
        if len(doc) and not annotation.complete:
            gaps = [Span(doc, 0, len(doc))]
        if gaps:
            doc.spans[UNKNOWN_SPANS_KEY] = gaps
    if spans_key is None or how is not None:
        flat = annotation if how is None else _flatten(annotation, how, findings)
        ents = _to_spans(doc, annotation, flat.ents, findings)
        unknown = _to_spans(doc, annotation, flat.unknown, findings)
        doc.set_ents(ents, missing=unknown, default="outside" if annotation.complete else "missing")
    rejected = _to_spans(doc, annotation, annotation.rejected, findings)
    if rejected:
        doc.spans[INCORRECT_SPANS_KEY] = rejected
    doc.cats = dict(annotation.cats)
    if annotation.second_start is not None:
        doc.user_data[SECOND_START] = annotation.second_start
    if annotation.exclusive:
        doc.user_data[EXCLUSIVE] = True
    if annotation.silver is not None:
        doc.user_data[SILVER] = annotation.silver
    if annotation.timestamp is not None:
        doc.user_data[TIMESTAMP] = annotation.timestamp
    return doc


def _flatten(annotation: Annotation, how: str, findings: Findings) -> Annotation:
    ents = flatten(annotation.ents, how)
    n_lost = len(set(annotation.ents)) - len(ents)
    if n_lost:
        findings.note("flattened", annotation.where, count=n_lost)
    # Where entities exclude each other, what is in one is known
    unknown = [piece for gap in annotation.unknown for piece in _outside(gap, ents, annotation.text)]
    return replace(annotation, ents=ents, unknown=_join(unknown, ents))


def _outside(gap: CharSpan, ents: Sequence[CharSpan], text: str) -> Iterator[CharSpan]:
    """The parts of a stretch between entities, without white space around them."""
    borders = [gap.start, *(border for ent in ents for border in ent[:2]), gap.end]
    for start, end in zip(borders[::2], borders[1::2]):
        start, end = max(start, gap.start), min(end, gap.end)
        words = text[start:end].strip()
        if start < end and words:
            start = text.index(words, start)
            yield CharSpan(start, start + len(words), gap.label)


def check_words(nlp: Language, text: str, where: Optional[Where] = None) -> None:
    """Refuse a text that would hold the tokenizer for minutes. Done to every text from outside before it is tokenized.

    nlp (Language): Whose tokenizer is to read the text. Only spaCy's own can take long.
    text (str): Any text.
    where (Optional[Where]): Its place, if it has one.
    RAISES (BertHeadsError): H147 if it would.
    """
    if not isinstance(nlp.tokenizer, Tokenizer):
        return
    work, most, worst = 0, 0, ""
    for match in WORD.finditer(text):
        word = match[0]
        cost = len(word) * (_count_marks(word) + word.count(":") // 10)
        work += cost
        if cost > most:
            most, worst = cost, word
    if work > MAX_WORK + WORK_PER_CHARACTER * len(text):
        place = {} if where is None else where._asdict()
        raise BertHeadsError("H147", found=f"{worst[:40]!r}...", length=len(worst), **place)


def _count_marks(word: str) -> int:
    """Marks at both ends, up to where more characters than an affix has are none."""
    total = 0
    for characters in (word, reversed(word)):
        gap, n_seen = 0, 0
        for character in characters:
            n_seen += 1
            if unicodedata.category(character)[0] in "PS":
                total, gap = total + 1, 0
            else:
                gap += 1
                if gap > LONGEST_AFFIX:
                    break
        if n_seen == len(word):
            break
    return total


def _to_spans(doc: Doc, annotation: Annotation, spans: Iterable[CharSpan], findings: Findings) -> List[Span]:
    found = []
    for start, end, label in spans:
        span: Optional[Span] = doc.char_span(start, end, label=label)
        if span is None:
            findings.note("off_tokens", annotation.where, f"{label} {start}-{end}")
        else:
            found.append(span)
    return found


def _settle_borders(
    nlp: Language, annotation: Annotation, findings: Findings, off_tokens: str, overlaps: bool
) -> Annotation:
    text, tokens = annotation.text, annotation.tokens
    if tokens is None:
        tokens = [(token.idx, token.idx + len(token)) for token in nlp.make_doc(text)]
    borders = {start for start, _ in tokens}, {end for _, end in tokens}
    if not _off_borders(annotation, borders):
        return annotation
    annotation = _trim_spans(annotation, borders, findings)
    off = _off_borders(annotation, borders)
    if not off:
        return annotation
    moved = {span: span if off_tokens == "split" else _expand(tokens, span) for span in off}
    for span in off:
        if off_tokens == "error" or not text[span.start : span.end].strip():
            shown = f"{text[span.start : span.end]!r} {span.start}-{span.end}"
            raise annotation.where.error("H111", shown, label=span.label, nearby=_nearby(text, tokens, span))
    kind = {"drop": "spans_dropped", "expand": "spans_expanded", "split": "tokens_split"}[off_tokens]
    for span in off:
        detail = f"{span.label} {span.start}-{span.end}: {text[span.start : span.end]!r}"
        findings.note(kind, annotation.where, detail)
    ents, unknown, rejected = (
        [moved.get(span, span) for span in group if off_tokens != "drop" or span not in moved]
        for group in (annotation.ents, annotation.unknown, annotation.rejected)
    )
    if off_tokens == "split":
        annotation = replace(annotation, tokens=_cut(tokens, {border for span in off for border in span[:2]}))
    elif off_tokens == "drop" and annotation.complete:
        # Not known to be an entity, nor to be none.
        lost = [moved[span] for span in annotation.ents + annotation.unknown if span in moved]
        unknown = [*unknown, *lost] if overlaps else _join([*unknown, *lost], ents)
    return replace(annotation, ents=ents, unknown=unknown, rejected=rejected)


def _off_borders(annotation: Annotation, borders: Tuple[Set[int], Set[int]]) -> List[CharSpan]:
    starts, ends = borders
    spans = dict.fromkeys(annotation.ents + annotation.unknown + annotation.rejected)
    return [span for span in spans if span.start not in starts or span.end not in ends]


def _trim_spans(annotation: Annotation, borders: Tuple[Set[int], Set[int]], findings: Findings) -> Annotation:
    """Take white space off the ends of misaligned spans, where people mark it with the mouse."""
    text = annotation.text
    moved: Dict[CharSpan, CharSpan] = {}
    for span in _off_borders(annotation, borders):
        covered = text[span.start : span.end]
        start = span.start + len(covered) - len(covered.lstrip())
        trimmed = CharSpan(start, start + len(covered.strip()), span.label)
        if covered.strip() and trimmed != span:
            moved[span] = trimmed
            findings.note("spans_trimmed", annotation.where, f"{span.label} {span.start}-{span.end}: {covered!r}")
    ents, unknown, rejected = (
        [moved.get(span, span) for span in group]
        for group in (annotation.ents, annotation.unknown, annotation.rejected)
    )
    return replace(annotation, ents=ents, unknown=unknown, rejected=rejected)


def _expand(tokens: Sequence[Tuple[int, int]], span: CharSpan) -> CharSpan:
    touched = [(start, end) for start, end in tokens if start < span.end and end > span.start]
    return CharSpan(touched[0][0], touched[-1][1], span.label) if touched else span


def _cut(tokens: Sequence[Tuple[int, int]], cuts: Set[int]) -> List[Tuple[int, int]]:
    pieces = []
    for start, end in tokens:
        borders = [start, *sorted(cut for cut in cuts if start < cut < end), end]
        pieces += list(zip(borders, borders[1:]))
    return pieces


def _join(unknown: Sequence[CharSpan], ents: Sequence[CharSpan]) -> List[CharSpan]:
    """Make unknown stretches that overlap one, and leave out those that overlap an entity that is known."""
    joined: List[CharSpan] = []
    for span in sorted(unknown):
        if any(span.start < ent.end and ent.start < span.end for ent in ents):
            continue
        if joined and span.start < joined[-1].end:
            span = CharSpan(joined[-1].start, max(span.end, joined[-1].end), joined.pop().label)
        joined.append(span)
    return joined


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


def _nearby(text: str, tokens: Sequence[Tuple[int, int]], span: CharSpan) -> str:
    touching = [(start, end) for start, end in tokens if start <= span.end and end >= span.start]
    shown = [f"{text[start:end]!r} {start}-{end}" for start, end in touching]
    return ", ".join(shown if len(shown) <= 4 else [*shown[:2], "...", *shown[-2:]])
