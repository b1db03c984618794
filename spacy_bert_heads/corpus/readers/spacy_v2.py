"""Training records of spaCy 2, with paragraphs of sentences of tokens -> annotations."""

import math
from typing import Any, Dict, Iterator, List, Optional, Tuple

from ...errors import BertHeadsError
from ...tags import SCHEMES
from ..annotations import Annotation, CharSpan
from ..findings import Findings, Where
from .offsets import show
from .tag_spans import MISSING, is_tag, join_words, read_tags

SCHEME = "biluo"
LAYERS = ("tag", "pos", "dep", "lemma", "morph")


def is_training_record(value: Any) -> bool:
    """RETURNS (bool): Whether a JSON value is an object with paragraphs, as spaCy 2 learns from."""
    return isinstance(value, dict) and isinstance(value.get("paragraphs"), list)


def read_paragraphs(record: Dict[str, Any], where: Where, findings: Findings) -> Iterator[Annotation]:
    """Read one training record.

    record (Dict[str, Any]): The record.
    where (Where): Its place.
    findings (Findings): Takes bad paragraphs, and what is not used of good ones. Paragraphs are its records.
    YIELDS (Annotation): One for each paragraph.
    """
    findings.n_records[where.path] += len(record["paragraphs"]) - 1
    for paragraph in record["paragraphs"]:
        try:
            yield _read_paragraph(paragraph, where, findings)
        except BertHeadsError as error:
            findings.bad(error)


def _read_paragraph(paragraph: Any, where: Where, findings: Findings) -> Annotation:
    if not isinstance(paragraph, dict):
        raise where.error("H106", type(paragraph).__name__)
    sentences = paragraph.get("sentences")
    if not isinstance(sentences, list) or not all(isinstance(sentence, dict) for sentence in sentences):
        raise where.error("H136", show(sentences), expected="'sentences' as a list of objects")
    groups = [sentence.get("tokens") for sentence in sentences]
    if not all(isinstance(group, list) and all(isinstance(token, dict) for token in group) for group in groups):
        raise where.error("H116", show(groups))
    tokens = [token for group in groups for token in group]
    words = [token.get("orth") for token in tokens]
    if not words or not all(isinstance(word, str) and word for word in words):
        raise where.error("H116", show(words))
    tags = [MISSING if token.get("ner") is None else token["ner"] for token in tokens]
    wrong = next((tag for tag in tags if not isinstance(tag, str) or not is_tag(tag, SCHEME)), None)
    if wrong is not None:
        letters = ", ".join(f"{letter}-LABEL" for letter in SCHEMES[SCHEME])
        raise where.error("H136", show(wrong), expected=f"'ner' to be {letters}, O or -")
    if any(token.get(layer) for token in tokens for layer in LAYERS):
        findings.note("other_layers", where)
    text, borders = _place(paragraph.get("raw"), words, where)
    found = read_tags(tags, SCHEME)
    for start, end, label in found.broken:
        findings.note("broken_tags", where, f"{label}, tokens {start + 1} to {end} of the paragraph")
    ents, unknown = (
        [CharSpan(borders[start][0], borders[end - 1][1], label) for start, end, label in spans]
        for spans in (found.ents, found.unknown)
    )
    complete = any(tag != MISSING for tag in tags)
    cats = _read_cats(paragraph.get("cats"), where)
    return Annotation(
        text, where, tokens=borders, ents=ents, complete=complete, unknown=unknown if complete else [], cats=cats
    )


def _place(raw: Any, words: List[str], where: Where) -> Tuple[str, List[Tuple[int, int]]]:
    """The text, and where each word is in it."""
    if raw is None:
        return join_words(words, with_spaces=True)
    if not isinstance(raw, str):
        raise where.error("H107", show(raw))
    borders: List[Tuple[int, int]] = []
    position = 0
    for word in words:
        start = raw.find(word, position)
        if start < 0 or raw[position:start].strip():
            raise where.error("H116", f"{show(word)} where 'raw' has {show(raw[position : position + 20])}")
        position = start + len(word)
        borders.append((start, position))
    return raw, borders


def _read_cats(cats: Optional[Any], where: Where) -> Dict[str, float]:
    found: Dict[str, float] = {}
    for cat in cats if isinstance(cats, list) else []:
        label, value = (cat.get("label"), cat.get("value")) if isinstance(cat, dict) else (None, None)
        if not isinstance(label, str) or not label:
            raise where.error("H112", show(cat))
        if not isinstance(value, (bool, int, float)) or not math.isfinite(value):
            raise where.error("H135", show(value), label=label)
        found[label] = float(value)
    return found
