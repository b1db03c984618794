"""Entities: strict and lenient scores, what kind of mistakes there are, and which labels are taken for which."""

from bisect import bisect_left, bisect_right
from collections import Counter
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy
from spacy.attrs import ENT_IOB, IDX, LENGTH
from spacy.tokens import Doc
from spacy.training import Example

from .calibration import calibration_report, log_loss
from .label_scores import CORRECT, GOLD, PREDICTED, Mistake, count_cells, nest, score_labels

STRICT = "correct"
WRONG_LABEL = "wrong label"
WRONG_BOUNDARY = "wrong boundary"
WRONG_BOTH = "wrong boundary and label"
MISSED = "missed"
INVENTED = "invented"
KINDS = (WRONG_LABEL, WRONG_BOUNDARY, WRONG_BOTH, MISSED, INVENTED)
# In the confusion of labels: no entity on the other side
NONE = ""
OUTSIDE = "O"


class Entity(NamedTuple):
    """An entity, in characters, so that gold and prediction can have different tokens.

    start (int): Its first character.
    end (int): The character after its last one.
    label (str): Its label.
    confidence (Optional[float]): Its probability, if the head gives one.
    """

    start: int
    end: int
    label: str
    confidence: Optional[float] = None


class TextEntities(NamedTuple):
    """The entities of one text.

    gold (List[Entity]): Gold entities.
    predicted (List[Entity]): Predicted ones, but for those in `ignored`.
    ignored (List[Entity]): Predicted entities that touch what nobody annotated: neither right nor wrong.
    unknown (List[Tuple[int, int]]): Stretches of characters that nobody annotated.
    is_readable (bool): False if the gold annotation is no sequence of entities.
    """

    gold: List[Entity]
    predicted: List[Entity]
    ignored: List[Entity]
    unknown: List[Tuple[int, int]]
    is_readable: bool


class Match(NamedTuple):
    """A gold entity beside the predicted one, None where there is none.

    kind (str): STRICT or one of KINDS.
    gold (Optional[Entity]): The gold entity.
    predicted (Optional[Entity]): The predicted entity.
    """

    kind: str
    gold: Optional[Entity]
    predicted: Optional[Entity]


def read_entities(example: Example) -> Optional[TextEntities]:
    """RETURNS (Optional[TextEntities]): The entities of a text; None if nothing is known about them."""
    reference = example.reference
    codes = reference.to_array(ENT_IOB)
    known = codes != 0
    if not known.any():
        return None
    try:
        gold = [Entity(ent.start_char, ent.end_char, ent.label_) for ent in reference.ents]
    except ValueError:  # spaCy's E093: inside an entity that never began
        return TextEntities([], [], [], [(0, len(reference.text))], False)
    unknown = [] if known.all() else _stretches(reference, ~known)
    predicted: List[Entity] = []
    ignored: List[Entity] = []
    for ent in example.predicted.ents:
        entity = Entity(ent.start_char, ent.end_char, ent.label_, ent._.confidence)
        touches = any(start < entity.end and entity.start < end for start, end in unknown)
        (ignored if touches else predicted).append(entity)
    return TextEntities(gold, predicted, ignored, unknown, True)


def match_entities(gold: Sequence[Entity], predicted: Sequence[Entity]) -> List[Match]:
    """Put gold and predicted entities side by side, each at most once: first those with the same boundaries, then
    those that overlap and have the same label, then any others that overlap.

    gold (Sequence[Entity]): In order, without overlap.
    predicted (Sequence[Entity]): Likewise.
    RETURNS (List[Match]): In the order of the text.
    """
    places = {(ent.start, ent.end): ent for ent in predicted}
    matches = []
    for ent in gold:
        other = places.get((ent.start, ent.end))
        if other is not None:
            matches.append(Match(STRICT if other.label == ent.label else WRONG_LABEL, ent, other))
    rest_gold, rest = _without(gold, predicted, matches)
    if rest_gold and rest:
        pairs = overlapping_pairs(rest_gold, rest, lambda one, other: one.label == other.label)
        matches += [Match(WRONG_BOUNDARY, *pair) for pair in pairs]
        rest_gold, rest = _without(gold, predicted, matches)
        pairs = overlapping_pairs(rest_gold, rest, lambda one, other: True)
        matches += [Match(WRONG_BOTH, *pair) for pair in pairs]
        rest_gold, rest = _without(gold, predicted, matches)
    matches += [Match(MISSED, ent, None) for ent in rest_gold]
    matches += [Match(INVENTED, None, ent) for ent in rest]
    return sorted(matches, key=lambda match: (match.gold or match.predicted or (0,))[0])


def overlapping_pairs(
    gold: Sequence[Entity], predicted: Sequence[Entity], fits: Callable[[Entity, Entity], bool]
) -> List[Tuple[Entity, Entity]]:
    """As many pairs of entities that overlap as there can be.

    Within each side nothing overlaps, so in the order of the text one end of every pair is in no later pair: taking
    each pair that is still free gives the most.

    gold (Sequence[Entity]): In order, without overlap.
    predicted (Sequence[Entity]): Likewise.
    fits (Callable[[Entity, Entity], bool]): Whether two may be a pair.
    RETURNS (List[Tuple[Entity, Entity]]): Gold and predicted entity of each pair.
    """
    pairs = []
    i = j = 0
    taken_gold = taken = False
    while i < len(gold) and j < len(predicted):
        one, other = gold[i], predicted[j]
        if one.start < other.end and other.start < one.end and not taken_gold and not taken and fits(one, other):
            pairs.append((one, other))
            taken_gold = taken = True
        if one.end <= other.end:
            i, taken_gold = i + 1, False
        else:
            j, taken = j + 1, False
    return pairs


class EntityScorer:
    """Counts what a pipeline says about entities, text by text.

    name (str): The component that finds them.
    labels (Sequence[str]): Its labels.
    """

    def __init__(self, name: str, labels: Sequence[str]) -> None:
        self.name = name
        self.labels = list(labels)
        self.n_texts = 0
        self.n_unknown = 0
        self.n_partial = 0
        self.n_ignored = 0
        self.n_unreadable = 0
        self.n_without = 0
        self.errors: "Counter[Tuple[str, str]]" = Counter()
        self.confusion: "Counter[Tuple[str, str]]" = Counter()
        self.tokens: "Counter[Tuple[str, str]]" = Counter()
        self._confidences: List[Tuple[float, bool, int]] = []
        self._cells: List[Tuple[int, str, int]] = []
        self._lenient: List[Tuple[float, float, float, int, int]] = []

    def add(self, example: Example) -> Tuple[Optional[bool], List[Mistake]]:
        """Count one text.

        example (Example): Its prediction and gold annotation.
        RETURNS (Tuple[Optional[bool], List[Mistake]]): Whether all that is known is right, None if nothing is known;
            and the mistakes.
        """
        found = read_entities(example)
        if found is None or not found.is_readable:
            self.n_unknown += 1
            self.n_unreadable += found is not None
            return None, []
        self.n_partial += bool(found.unknown)
        self.n_ignored += len(found.ignored)
        self.n_without += not found.gold
        matches = match_entities(found.gold, found.predicted)
        self._count(matches, found)
        self._count_tokens(example.predicted, found)
        self.n_texts += 1
        mistakes = [_mistake(match, example) for match in matches if match.kind != STRICT]
        return not mistakes, mistakes

    def to_dict(self) -> Dict[str, Any]:
        """RETURNS (Dict[str, Any]): All scores, for JSON."""
        used = sorted({label for _, label, _ in self._cells} - set(self.labels))
        labels = [*self.labels, *used]
        numbers = {label: i for i, label in enumerate(labels)}
        cells = [(text, numbers[label], column) for text, label, column in self._cells]
        lenient = numpy.array(self._lenient, dtype="float32").reshape(-1, 5)
        strict = score_labels(labels, count_cells(self.n_texts, len(labels), cells))
        modes = {"strict": strict["micro"]}
        for i, mode in enumerate(("boundaries", "label", "partial")):
            modes[mode] = score_labels([""], lenient[:, [i, 3, 4]][:, None])["micro"]
        return {
            "component": self.name,
            "labels": self.labels,
            "texts": self.n_texts,
            "texts_without_gold": self.n_unknown,
            "texts_partly_annotated": self.n_partial,
            "texts_without_entities": self.n_without,
            "predictions_ignored": self.n_ignored,
            **strict,
            "modes": modes,
            "errors": {label: {kind: self.errors[label, kind] for kind in (STRICT, *KINDS)} for label in labels},
            "confusion": nest(self.confusion),
            # None if the component gives no confidence
            "calibration": self._calibration(),
            "tokens": {"per_tag": _tag_scores(self.tokens), "confusion": nest(self.tokens)},
        }

    def _calibration(self) -> Optional[Dict[str, Any]]:
        if not self._confidences:
            return None
        confidences, correct, texts = zip(*self._confidences)
        report = calibration_report(confidences, correct, texts=texts)
        return {**report, "nll": log_loss(numpy.array(confidences), numpy.array(correct))}

    def _count(self, matches: Sequence[Match], found: TextEntities) -> None:
        for kind, gold, predicted in matches:
            side = gold or predicted
            assert side is not None
            self.errors[side.label, kind] += 1
            self.confusion[gold.label if gold else NONE, predicted.label if predicted else NONE] += 1
            if gold:
                self._cells.append((self.n_texts, gold.label, GOLD))
            if predicted:
                self._cells.append((self.n_texts, predicted.label, PREDICTED))
                if predicted.confidence is not None:
                    self._confidences.append((predicted.confidence, kind == STRICT, self.n_texts))
            if kind == STRICT:
                self._cells.append((self.n_texts, side.label, CORRECT))
        kinds = Counter(match.kind for match in matches)
        same_boundaries = kinds[STRICT] + kinds[WRONG_LABEL]
        overlapping = 0
        if len(matches) > same_boundaries:
            exact = [match for match in matches if match.kind in (STRICT, WRONG_LABEL)]
            rest = _without(found.gold, found.predicted, exact)
            overlapping = len(overlapping_pairs(*rest, lambda one, other: True))
        self._lenient.append(
            (
                same_boundaries,
                kinds[STRICT] + kinds[WRONG_BOUNDARY],
                same_boundaries + 0.5 * overlapping,
                len(found.predicted),
                len(found.gold),
            )
        )

    def _count_tokens(self, doc: Doc, found: TextEntities) -> None:
        """Tags on the tokens of the prediction. Those that nobody annotated are left out."""
        starts, lengths = doc.to_array([IDX, LENGTH]).reshape(-1, 2).astype("int64").T.tolist()
        ends = [start + length for start, length in zip(starts, lengths)]
        if not found.gold and not found.predicted and not found.ignored and not found.unknown:
            self.tokens[OUTSIDE, OUTSIDE] += len(starts)
            return
        gold = _tags(found.gold, starts, ends)
        predicted = _tags(sorted(found.predicted + found.ignored), starts, ends)
        known = [True] * len(starts)
        for start, end in found.unknown:
            for i in range(bisect_right(ends, start), bisect_left(starts, end)):
                known[i] = False
        self.tokens.update(pair for pair, is_known in zip(zip(gold, predicted), known) if is_known)


def _tags(entities: Sequence[Entity], starts: List[int], ends: List[int]) -> List[str]:
    """BIO tags of tokens. A token is in an entity if any of its characters are."""
    tags = [OUTSIDE] * len(starts)
    for ent in entities:
        first, last = bisect_right(ends, ent.start), bisect_left(starts, ent.end)
        for i in range(first, last):
            tags[i] = f"I-{ent.label}" if i > first else f"B-{ent.label}"
    return tags


def _tag_scores(tokens: "Counter[Tuple[str, str]]") -> Dict[str, Dict[str, Any]]:
    tags = sorted({tag for pair in tokens for tag in pair}, key=lambda tag: (tag[2:], tag))
    scores = {}
    for tag in tags:
        correct = tokens[tag, tag]
        gold = sum(n for (one, _), n in tokens.items() if one == tag)
        predicted = sum(n for (_, other), n in tokens.items() if other == tag)
        scores[tag] = {
            "precision": correct / predicted if predicted else 0.0,
            "recall": correct / gold if gold else 0.0,
            "f1": 2 * correct / (predicted + gold) if predicted + gold else 0.0,
            "support": gold,
        }
    return scores


def _mistake(match: Match, example: Example) -> Mistake:
    kind, gold, predicted = match
    text = example.reference.text
    place = gold or predicted
    assert place is not None
    confidence = predicted.confidence if predicted else _certainty(example.predicted, place)
    return Mistake(
        kind,
        gold.label if gold else None,
        predicted.label if predicted else None,
        text[place.start : place.end],
        confidence,
    )


def _certainty(doc: Doc, place: Entity) -> Optional[float]:
    """How sure the head is of a stretch in which it found nothing: its least sure token."""
    uncertainty = doc._.ents_uncertainty
    if uncertainty is None:
        return None
    inside = [
        float(best)
        for token, best in zip(doc, uncertainty.best_marginals)
        if token.idx < place.end and token.idx + len(token) > place.start
    ]
    return min(inside, default=None)


def _without(
    gold: Sequence[Entity], predicted: Sequence[Entity], matches: Sequence[Match]
) -> Tuple[List[Entity], List[Entity]]:
    """What is in no match yet."""
    starts = {match.gold.start for match in matches if match.gold}
    others = {match.predicted.start for match in matches if match.predicted}
    return [ent for ent in gold if ent.start not in starts], [ent for ent in predicted if ent.start not in others]


def _stretches(doc: Doc, chosen: numpy.ndarray) -> List[Tuple[int, int]]:
    """Characters of chosen tokens; neighbours are one stretch."""
    found: List[Tuple[int, int]] = []
    previous = -2
    for i in numpy.flatnonzero(chosen).tolist():
        token = doc[i]
        end = token.idx + len(token)
        if i == previous + 1:
            found[-1] = found[-1][0], end
        else:
            found.append((token.idx, end))
        previous = i
    return found
