"""Scores of spans that may overlap: borders and label must be right."""

from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

from spacy.tokens import Span
from spacy.training import Example

from ..extensions import get_confidence_in
from .entity_scores import INVENTED, MISSED
from .label_scores import CORRECT, GOLD, PREDICTED, Mistake, count_cells, score_labels
from .scorers import known_spans

# First character, character after the last, label
Place = Tuple[int, int, str]


class SpanScorer:
    """Counts what a component says about spans, text by text.

    name (str): The component.
    labels (Sequence[str]): Its labels.
    spans_key (str): Key of `doc.spans`.
    unknown_key (Optional[str]): Key of what nobody has annotated; see pipeline.span_annotations.
    incorrect_key (Optional[str]): Key of spans that were rejected.
    """

    def __init__(
        self,
        name: str,
        labels: Sequence[str],
        spans_key: str,
        unknown_key: Optional[str] = None,
        incorrect_key: Optional[str] = None,
    ) -> None:
        self.name = name
        self.labels = list(labels)
        self.spans_key = spans_key
        self.unknown_key = unknown_key
        self.incorrect_key = incorrect_key
        self.n_texts = 0
        self.n_unknown = 0
        self.n_ignored = 0
        self.n_gold = 0
        self.n_nested = 0
        self.n_nested_found = 0
        self._cells: List[Tuple[int, str, int]] = []

    def add(self, example: Example) -> Tuple[Optional[bool], List[Mistake]]:
        """Count one text.

        example (Example): Its prediction and gold annotation.
        RETURNS (Tuple[Optional[bool], List[Mistake]]): Whether all that is known is right, None if nothing is known;
            and the mistakes.
        """
        reference, key = example.reference, self.spans_key
        if key not in reference.spans:
            self.n_unknown += 1
            return None, []
        gold, predicted = self.read(example)
        self.n_ignored += len(_by_place(example.predicted.spans.get(key, ()))) - len(predicted)
        for column, places in ((GOLD, gold.keys()), (PREDICTED, predicted.keys())):
            self._cells += [(self.n_texts, label, column) for _, _, label in places]
        self._cells += [(self.n_texts, label, CORRECT) for _, _, label in gold.keys() & predicted.keys()]
        nested = overlapping(sorted(gold))
        self.n_gold += len(gold)
        self.n_nested += len(nested)
        self.n_nested_found += len([place for place in nested if place in predicted])
        self.n_texts += 1
        mistakes = [
            Mistake(MISSED, place[2], None, gold[place].text) for place in sorted(gold.keys() - predicted.keys())
        ]
        for place in sorted(predicted.keys() - gold.keys()):
            confidence = get_confidence_in(predicted[place], key)
            mistakes.append(Mistake(INVENTED, None, place[2], predicted[place].text, confidence))
        return not mistakes, mistakes

    def read(self, example: Example) -> Tuple[Dict[Place, Span], Dict[Place, Span]]:
        """RETURNS (Tuple[Dict[Place, Span], Dict[Place, Span]]): Gold spans, and predicted ones where gold says
        something, of a text that has gold spans."""
        known = known_spans(example, self.spans_key, self.unknown_key, self.incorrect_key)
        return _by_place(example.reference.spans[self.spans_key]), _by_place(known)

    def to_dict(self) -> Dict[str, Any]:
        """RETURNS (Dict[str, Any]): All scores, for JSON."""
        used = sorted({label for _, label, _ in self._cells} - set(self.labels))
        labels = [*self.labels, *used]
        numbers = {label: i for i, label in enumerate(labels)}
        cells = [(text, numbers[label], column) for text, label, column in self._cells]
        return {
            "component": self.name,
            "spans_key": self.spans_key,
            "labels": self.labels,
            "texts": self.n_texts,
            "texts_without_gold": self.n_unknown,
            "predictions_ignored": self.n_ignored,
            "overlapping": {
                "support": self.n_nested,
                "recall": self.n_nested_found / self.n_nested if self.n_nested else None,
            },
            **score_labels(labels, count_cells(self.n_texts, len(labels), cells)),
        }


def _by_place(spans: Iterable[Span]) -> Dict[Place, Span]:
    return {(span.start_char, span.end_char, span.label_): span for span in spans}


def overlapping(places: Sequence[Place]) -> List[Place]:
    """RETURNS (List[Place]): Those that share characters with another one. `places` is in order."""
    found: Dict[Place, None] = {}
    furthest: Optional[Place] = None
    for place in places:
        if furthest is not None and place[0] < furthest[1]:
            found[furthest] = found[place] = None
        if furthest is None or place[1] > furthest[1]:
            furthest = place
    return sorted(found)
