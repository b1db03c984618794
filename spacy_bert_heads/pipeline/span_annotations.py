"""What the Docs of an Example say about spans that may overlap, in terms of the predicted Doc's tokens.

What annotation means:

- `doc.spans[key]` is not there: nobody has annotated the Doc, and nothing is learned but what was rejected.
- It is there: it is complete, and every other span of up to max_width tokens is none. An empty group says that there
  are no spans.
- `doc.spans[unknown_key]` marks gaps in that. Of every span that touches the tokens of one of its members it is not
  known whether it is there, unless it is in one of the other two groups. A member with a label is about this label
  alone, one without about all. Yes/no answers are a gap as long as the Doc; an annotation in which some labels were
  shown has such a gap for each of the other labels.
- `doc.spans[incorrect_key]` holds spans that somebody rejected.

Span groups are kept by `to_bytes`, DocBin and copies. What cannot be expressed in the predicted tokens is counted and
becomes a gap.
"""

from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy
from spacy.attrs import IS_SPACE
from spacy.tokens import Doc
from spacy.tokens import Span as DocSpan
from spacy.training import Example

from ..layers.global_pointer import SpanTargets
from ..tags import Span
from .entity_annotations import REJECTED_IS_ENT, REJECTED_LABEL_UNKNOWN, REJECTED_UNALIGNED, Skipped, same_tokens

# Reasons to skip an annotation: keys of errors.MESSAGES
SPAN_UNALIGNED = "H361"
SPAN_TOO_LONG = "H362"
SPAN_WITHOUT_LABEL = "H363"
SPAN_LABEL_UNKNOWN = "H364"


class SpanKeys(NamedTuple):
    """Keys of `doc.spans`.

    spans (str): Where spans are.
    incorrect (Optional[str]): Where those are that somebody rejected. None: nowhere.
    unknown (Optional[str]): Where gaps in the annotation are. None: nowhere.
    """

    spans: str
    incorrect: Optional[str]
    unknown: Optional[str]


class SpanAnnotation(NamedTuple):
    """The annotation of one Doc.

    spans (List[Span]): Spans that are there, without white space around them.
    rejected (List[Span]): Spans that somebody rejected.
    unknown (numpy.ndarray): True at tokens of which it is not known whether any span touches them. Bool, (n_tokens,).
    unknown_labels (Dict[str, numpy.ndarray]): The same for single labels.
    blank (numpy.ndarray): True for white space. Bool, (n_tokens,).
    """

    spans: List[Span]
    rejected: List[Span]
    unknown: numpy.ndarray
    unknown_labels: Dict[str, numpy.ndarray]
    blank: numpy.ndarray


def find_blank(doc: Doc) -> numpy.ndarray:
    """RETURNS (numpy.ndarray): True for tokens that are white space. Bool, (n_tokens,)."""
    return doc.to_array(IS_SPACE).astype(bool)


def read_spans(example: Example, keys: SpanKeys, skipped: Skipped) -> SpanAnnotation:
    """Read an Example, whatever the labels.

    example (Example): Predicted and reference Doc, whose tokens may differ.
    keys (SpanKeys): Where the annotation is.
    skipped (Skipped): Counts H361 spans and H344 rejected ones that do not align with the tokens, H363 spans without a
        label, H346 rejected ones that are spans.
    RETURNS (SpanAnnotation): On the predicted Doc's tokens.
    """
    reference, blank = example.reference, find_blank(example.predicted)
    place = _Places(example, blank)
    unknown = numpy.full(len(blank), keys.spans not in reference.spans)
    unknown_labels: Dict[str, numpy.ndarray] = {}
    spans: Dict[Span, None] = {}
    rejected: Dict[Span, None] = {}
    for gap in _group(reference, keys.unknown):
        start, end = place.touched(gap)
        if gap.label_:
            unknown_labels.setdefault(gap.label_, numpy.zeros(len(blank), dtype=bool))[start:end] = True
        else:
            unknown[start:end] = True
    for span in _group(reference, keys.spans):
        found = place.find(span)
        if found is None or not span.label_:
            skipped.add(SPAN_UNALIGNED if found is None else SPAN_WITHOUT_LABEL, reference, span)
            start, end = place.touched(span)
            unknown[start:end] = True
        else:
            spans[found] = None
    for span in _group(reference, keys.incorrect):
        found = place.find(span)
        if found is None:
            skipped.add(REJECTED_UNALIGNED, reference, span)
        elif found in spans:
            skipped.add(REJECTED_IS_ENT, reference, span)
        else:
            rejected[found] = None
    return SpanAnnotation(list(spans), list(rejected), unknown, unknown_labels, blank)


def to_targets(
    annotation: SpanAnnotation, labels: Sequence[str], max_width: int, example: Example, skipped: Skipped
) -> SpanTargets:
    """What there is to learn from an annotation.

    annotation (SpanAnnotation): What read_spans gave.
    labels (Sequence[str]): The component's labels. Spans of others say nothing about these, and are left out.
    max_width (int): Tokens of the longest span that can be found.
    example (Example): Where it is from.
    skipped (Skipped): Counts H364 spans and H345 rejected ones of other labels, and H362 spans that are too long.
    RETURNS (SpanTargets): For the loss.
    """
    doc, numbers = example.predicted, {label: number for number, label in enumerate(labels)}
    kept: List[List[Tuple[int, int, int]]] = []
    for code, spans in ((SPAN_LABEL_UNKNOWN, annotation.spans), (REJECTED_LABEL_UNKNOWN, annotation.rejected)):
        kept.append([])
        for start, end, label in spans:
            if label not in numbers:
                skipped.add(code, doc, DocSpan(doc, start, end, label=label))
            elif end - start <= max_width:
                kept[-1].append((start, end, numbers[label]))
            elif code == SPAN_LABEL_UNKNOWN:
                skipped.add(SPAN_TOO_LONG, doc, DocSpan(doc, start, end, label=label))
    unknown = annotation.unknown[:, None]
    gaps = {numbers[label]: gap for label, gap in annotation.unknown_labels.items() if label in numbers}
    if gaps:
        unknown = numpy.repeat(unknown, len(labels), axis=1)
        for number, gap in gaps.items():
            unknown[:, number] |= gap
    return SpanTargets(kept[0], kept[1], unknown, annotation.blank)


class _Places:
    """Where spans of the reference Doc are in the predicted one."""

    def __init__(self, example: Example, blank: numpy.ndarray) -> None:
        self.example = example
        self.blank = blank
        self.same = same_tokens(example)

    def find(self, span: DocSpan) -> Optional[Span]:
        """RETURNS (Optional[Span]): It, without white space at the ends. None if it does not begin and end with
        tokens, or is nothing but white space."""
        found = [span] if self.same else self.example.get_aligned_spans_y2x([span], allow_overlap=True)
        if not found:
            return None
        start, words = found[0].start, numpy.flatnonzero(~self.blank[found[0].start : found[0].end])
        return (start + int(words[0]), start + int(words[-1]) + 1, span.label_) if len(words) else None

    def touched(self, span: DocSpan) -> Tuple[int, int]:
        """RETURNS (Tuple[int, int]): First of the tokens with characters of the span, and the one after the last."""
        if self.same:
            return span.start, span.end
        found = self.example.alignment.y2x[span.start : span.end]
        return (int(found[0]), int(found[-1]) + 1) if len(found) else (0, 0)


def _group(doc: Doc, key: Optional[str]) -> Sequence[DocSpan]:
    return list(doc.spans[key]) if key in doc.spans else []
