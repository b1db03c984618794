"""What the Docs of an Example say about entities, in terms of the predicted Doc's tokens.

What cannot be expressed in these tokens is counted and left unannotated: nothing in the data stops training.
"""

from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy
from spacy.attrs import ENT_IOB, ENT_TYPE, ORTH
from spacy.tokens import Doc
from spacy.tokens import Span as DocSpan
from spacy.training import Example
from spacy.util import logger

from ..errors import BertHeadsError
from ..tags import Span, TagScheme
from ..types import TagIds

EXCERPT = 40  # Characters of a text that a message shows

# Reasons to skip an annotation: keys of errors.MESSAGES
ENT_UNALIGNED = "H340"
UNREADABLE = "H342"
ENT_LABEL_UNKNOWN = "H343"
REJECTED_UNALIGNED = "H344"
REJECTED_LABEL_UNKNOWN = "H345"
REJECTED_IS_ENT = "H346"
NO_PATH = "H347"
REJECTED_IS_CERTAIN = "H348"
REJECTED_IGNORED = "H349"


class Skipped:
    """Annotations that a component could not learn from: counted by reason, the first of each kept and logged once.

    component (str): Its name.
    """

    def __init__(self, component: str) -> None:
        self.component = component
        self.counts: Dict[str, int] = {}
        self.first: Dict[str, str] = {}
        self._logged: Dict[str, None] = {}

    def add(self, code: str, doc: Doc, span: Optional[DocSpan] = None, *, count: int = 1) -> None:
        """Count a case.

        code (str): The reason, a key of errors.MESSAGES.
        doc (Doc): Where it is.
        span (Optional[DocSpan]): What it is.
        count (int): How many of these there are.
        """
        self.counts[code] = self.counts.get(code, 0) + count
        if code not in self.first:
            text = doc.text if len(doc.text) <= EXCERPT else doc.text[:EXCERPT] + "..."
            self.first[code] = repr(text) if span is None else f"{span.text!r} ({span.label_}) in {text!r}"

    def log(self) -> None:
        """Log each reason that has not been logged before, with its count so far, as a warning of spaCy's logger."""
        for code in self.counts:
            if code not in self._logged:
                self._logged[code] = None
                count, first = self.counts[code], self.first[code]
                logger.warning(BertHeadsError(code, found=count, component=self.component, first=first).text)


class EntityAnnotation(NamedTuple):
    """The entity annotation of one Doc.

    ents (List[Span]): Entities, in order, without overlap.
    missing (numpy.ndarray): True where it is not known whether there is an entity. Bool, (n_tokens,).
    rejected (List[Span]): Entities that somebody rejected. They may overlap.
    """

    ents: List[Span]
    missing: numpy.ndarray
    rejected: List[Span]


def read_annotation(example: Example, rejected_key: Optional[str], skipped: Skipped) -> EntityAnnotation:
    """Read an Example, whatever the labels.

    example (Example): Predicted and reference Doc, whose tokens may differ.
    rejected_key (Optional[str]): Key of `reference.spans` for rejected entities, None for nowhere.
    skipped (Skipped): Counts H340 entities and H344 rejected ones that do not align with the tokens, H342 Docs
        whose annotation is no sequence of entities, H346 rejected ones that are entities.
    RETURNS (EntityAnnotation): On the predicted Doc's tokens.
    """
    reference = example.reference
    same = same_tokens(example)
    n_tokens = len(example.predicted)
    missing = numpy.ones(n_tokens, dtype=bool)
    given: Sequence[DocSpan] = []
    try:
        given = reference.ents
    except ValueError:  # E093: inside an entity that never began
        skipped.add(UNREADABLE, reference)
    else:
        if same:
            missing = reference.to_array(ENT_IOB) == 0
        elif reference.has_annotation("ENT_IOB"):
            given = _align_ents(example, given, skipped)
            missing = numpy.array([tag in (None, "-") for tag in example.get_aligned_ner()], dtype=bool)
    # Neither a Doc's entities nor aligned ones ever overlap
    ents: List[Span] = [(ent.start, ent.end, ent.label_) for ent in given]
    rejected = []
    for span in reference.spans[rejected_key] if rejected_key in reference.spans else ():
        found = [span] if same else example.get_aligned_spans_y2x([span], allow_overlap=True)
        here = (found[0].start, found[0].end, span.label_) if found else (0, 0, "")
        if here[0] >= here[1]:
            skipped.add(REJECTED_UNALIGNED, reference, span)
        elif here in ents:
            skipped.add(REJECTED_IS_ENT, reference, span)
        else:
            rejected.append(here)
    return EntityAnnotation(ents, missing, rejected)


def known_labels(
    annotation: EntityAnnotation, labels: Sequence[str], example: Example, skipped: Skipped
) -> EntityAnnotation:
    """Leave out labels that a component does not have; the tokens of such entities become missing.

    annotation (EntityAnnotation): What read_annotation gave.
    labels (Sequence[str]): The component's labels.
    example (Example): Where it is from.
    skipped (Skipped): Counts H343 such entities and H345 rejected ones.
    RETURNS (EntityAnnotation): Of these labels only.
    """
    doc = example.predicted
    missing = annotation.missing.copy()
    kept: Dict[str, List[Span]] = {ENT_LABEL_UNKNOWN: [], REJECTED_LABEL_UNKNOWN: []}
    for code, spans in ((ENT_LABEL_UNKNOWN, annotation.ents), (REJECTED_LABEL_UNKNOWN, annotation.rejected)):
        for start, end, label in spans:
            if label in labels:
                kept[code].append((start, end, label))
            else:
                skipped.add(code, doc, DocSpan(doc, start, end, label=label))
                if code == ENT_LABEL_UNKNOWN:
                    missing[start:end] = True
    return EntityAnnotation(kept[ENT_LABEL_UNKNOWN], missing, kept[REJECTED_LABEL_UNKNOWN])


def to_tags(annotation: EntityAnnotation, scheme: TagScheme) -> TagIds:
    """RETURNS (TagIds): The annotation of a Doc as tags. The scheme has all of its labels."""
    tags = scheme.tags_from_spans(len(annotation.missing), annotation.ents, annotation.missing.tolist())
    return numpy.array(tags, dtype="int64")


def find_preset(doc: Doc) -> Tuple[List[DocSpan], List[DocSpan]]:
    """Entities that are on a Doc, and tokens that `doc.set_ents(blocked=...)` closed to them."""
    if not doc.has_annotation("ENT_IOB"):
        return [], []
    begins, types = doc.to_array([ENT_IOB, ENT_TYPE]).reshape(-1, 2).T
    return list(doc.ents), [doc[i : i + 1] for i in numpy.flatnonzero((begins == 3) & (types == 0)).tolist()]


def _align_ents(example: Example, ents: Sequence[DocSpan], skipped: Skipped) -> List[DocSpan]:
    aligned = example.get_aligned_spans_y2x(ents, allow_overlap=False)
    if len(aligned) < len(ents):
        lost = (ent for ent in ents if not example.get_aligned_spans_y2x([ent], allow_overlap=False))
        skipped.add(ENT_UNALIGNED, example.reference, next(lost, None), count=len(ents) - len(aligned))
    return aligned


def same_tokens(example: Example) -> bool:
    """Aligning is the slow part of reading gold tags, and seldom needed.

    RETURNS (bool): Whether predicted and reference Doc have the same tokens.
    """
    return len(example.predicted) == len(example.reference) and _equal(example.predicted, example.reference)


def _equal(doc: Doc, other: Doc) -> bool:
    words: Any = doc.to_array(ORTH) == other.to_array(ORTH)
    return bool(words.all())
