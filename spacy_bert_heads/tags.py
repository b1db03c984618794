"""Tags of entity schemes and the spans they stand for. Plain Python."""

from typing import List, Sequence, Tuple

OUTSIDE = "O"
# First token, one past the last, label
TagSpan = Tuple[int, int, str]


def make_tags(labels: Sequence[str]) -> List[str]:
    """The BIO tags of entity labels: O, then B- and I- of each label in order."""
    return [OUTSIDE, *(f"{prefix}-{label}" for label in labels for prefix in "BI")]


def tags_to_spans(tags: Sequence[str]) -> List[TagSpan]:
    """Entities of a row of BIO tags. An I- that continues nothing begins an entity, as in conlleval.

    SOURCE: Tjong Kim Sang and De Meulder (2003), conlleval.
    """
    spans: List[TagSpan] = []
    start, label = 0, ""
    for i, tag in enumerate([*tags, OUTSIDE]):
        prefix, _, tag_label = tag.partition("-")
        if label and (prefix != "I" or tag_label != label):
            spans.append((start, i, label))
            label = ""
        if tag != OUTSIDE and not label:
            start, label = i, tag_label
    return spans


def biluo_to_bio(tag: str) -> str:
    """A BILUO tag, as spaCy aligns them, in BIO."""
    return {"L": "I", "U": "B"}.get(tag[0], tag[0]) + tag[1:]
