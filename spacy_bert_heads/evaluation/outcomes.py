"""What the heads of a pipeline make of annotated texts, beside what is true: all there is to fit to them."""

from dataclasses import dataclass, field
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple, Union

import numpy
import torch
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example

from ..layers.crf.paths import TagPaths
from ..layers.global_pointer import FoundSpans, find_spans
from ..pipeline.ner import LONGEST_CANDIDATE, BertEntityRecognizer
from ..pipeline.span_annotations import find_blank
from ..pipeline.spans import BertSpanCategorizer, log_odds, probabilities_of
from ..pipeline.textcat import BertMultiLabelTextCategorizer, BertTextCategorizer
from ..tags import Span as EntitySpan
from .entity_scores import Entity, TextEntities, read_entities
from .scorers import known_spans

# Of less probable spans there are too many to look at
CANDIDATE = 0.01


@dataclass
class TextOutcomes:
    """A text head's logits beside the gold categories, of the texts of which it can be said whether it is right.

    name (str): The component.
    head (Any): It.
    is_exclusive (bool): Whether exactly one label is true.
    texts (numpy.ndarray): Which texts of the corpus these are. Int, (n_texts,).
    logits (numpy.ndarray): What its model gives. Float, (n_texts, n_labels).
    truths (numpy.ndarray): Whether each label is true. Bool, (n_texts, n_labels).
    known (numpy.ndarray): Where that is known: everywhere, if labels exclude each other. Bool, (n_texts, n_labels).
    n_unknown (int): Texts that were left out: without gold annotation, or with a true label that the head lacks.
    """

    name: str
    head: Any
    is_exclusive: bool
    texts: numpy.ndarray
    logits: numpy.ndarray
    truths: numpy.ndarray
    known: numpy.ndarray
    n_unknown: int

    @property
    def labels(self) -> List[str]:
        """RETURNS (List[str]): The head's labels."""
        return list(self.head.labels)

    @property
    def kind(self) -> str:
        """RETURNS (str): "exclusive" or "multilabel"."""
        return "exclusive" if self.is_exclusive else "multilabel"

    def probabilities(self) -> numpy.ndarray:
        """RETURNS (numpy.ndarray): What the head makes of the logits as it is now. Float, (n_texts, n_labels)."""
        found = self.head.to_probabilities(torch.from_numpy(self.logits))
        return numpy.asarray(found, dtype="float64").reshape(self.logits.shape)

    def select(self, chosen: numpy.ndarray) -> "TextOutcomes":
        """RETURNS (TextOutcomes): Only some texts. chosen: True for their numbers. Bool, (n_texts_of_corpus,)."""
        rows = chosen[self.texts]
        parts = (self.texts[rows], self.logits[rows], self.truths[rows], self.known[rows])
        return TextOutcomes(self.name, self.head, self.is_exclusive, *parts, n_unknown=self.n_unknown)


class ScoredBatch(NamedTuple):
    """Tag scores of some Docs.

    texts (List[int]): Which texts of the corpus they are.
    docs (List[Doc]): The Docs.
    scored (TagPaths): The scores.
    ents (List[List[EntitySpan]]): The entities that the head predicts, whatever their confidence.
    """

    texts: List[int]
    docs: List[Doc]
    scored: TagPaths
    ents: List[List[EntitySpan]]


class GoldText(NamedTuple):
    """Gold entities of a text.

    ents (List[Entity]): The entities, by characters.
    unknown (List[Tuple[int, int]]): Stretches of characters that nobody annotated.
    """

    ents: List[Entity]
    unknown: List[Tuple[int, int]]


class RatedEntities(NamedTuple):
    """Predicted entities that are known to be right or wrong.

    texts (numpy.ndarray): The text of each. Int, (n_ents,).
    labels (List[str]): Their labels.
    confidences (numpy.ndarray): 0 to 1. Float, (n_ents,).
    correct (numpy.ndarray): Whether they are right: borders and label. Bool, (n_ents,).
    """

    texts: numpy.ndarray
    labels: List[str]
    confidences: numpy.ndarray
    correct: numpy.ndarray


@dataclass
class EntityOutcomes:
    """An entity recognizer's tag scores beside the gold entities.

    name (str): The component.
    head (BertEntityRecognizer): It.
    batches (List[ScoredBatch]): All texts, in order.
    gold (Dict[int, GoldText]): Gold entities of the texts that have an annotation.
    """

    kind = "entities"
    name: str
    head: BertEntityRecognizer
    batches: List[ScoredBatch] = field(default_factory=list)
    gold: Dict[int, GoldText] = field(default_factory=dict)

    def rate(self, chosen: Optional[numpy.ndarray] = None) -> RatedEntities:
        """Rate the predicted entities, at the temperature that the head has now. Those that touch what nobody
        annotated are left out.

        chosen (Optional[numpy.ndarray]): True for the texts to look at; None: all. Bool, (n_texts_of_corpus,).
        """
        texts: List[int] = []
        labels: List[str] = []
        confidences: List[float] = []
        correct: List[bool] = []
        for batch in self._at_temperature():
            ents: List[List[EntitySpan]] = []
            for number, doc, found in zip(batch.texts, batch.docs, batch.ents):
                gold = self.gold.get(number)
                if gold is None or (chosen is not None and not chosen[number]):
                    ents.append([])
                    continue
                right = {(ent.start, ent.end, ent.label) for ent in gold.ents}
                ents.append([])
                for ent in found:
                    start, end = characters(doc, ent)
                    if not any(first < end and start < last for first, last in gold.unknown):
                        ents[-1].append(ent)
                        texts.append(number)
                        labels.append(ent[2])
                        correct.append((start, end, ent[2]) in right)
            confidences += self.head.entity_probabilities(batch.scored, batch.docs, ents)
        return RatedEntities(
            numpy.array(texts, dtype="int64"),
            labels,
            numpy.array(confidences, dtype="float64"),
            numpy.array(correct, dtype=bool),
        )

    def gold_probabilities(self, chosen: Optional[numpy.ndarray] = None) -> Dict[int, List[float]]:
        """The probability that the head gives to each gold entity, at the temperature that it has now.

        chosen (Optional[numpy.ndarray]): True for the texts to look at; None: all. Bool, (n_texts_of_corpus,).
        RETURNS (Dict[int, List[float]]): For each annotated text, the probability of each of its entities: 0 where no
            tokens have its borders, the head does not have its label, or it is too long to be in a set.
        """
        found: Dict[int, List[float]] = {}
        for batch in self._at_temperature():
            ents: List[List[EntitySpan]] = []
            for number, doc in zip(batch.texts, batch.docs):
                ents.append([])
                gold = self.gold.get(number)
                if gold is None or (chosen is not None and not chosen[number]):
                    continue
                found[number] = []
                for ent in gold.ents:
                    span = doc.char_span(ent.start, ent.end)
                    if span is None or ent.label not in self.head.labels or len(span) > LONGEST_CANDIDATE:
                        found[number].append(0.0)
                    else:
                        ents[-1].append((span.start, span.end, ent.label))
            probabilities = iter(self.head.entity_probabilities(batch.scored, batch.docs, ents))
            for number, there in zip(batch.texts, ents):
                if there:
                    found[number] += [next(probabilities) for _ in there]
        return found

    def sets(self, threshold: float) -> Dict[int, List[Tuple[EntitySpan, float]]]:
        """RETURNS (Dict[int, List[Tuple[EntitySpan, float]]]): Entities of at least a probability, by text."""
        found: Dict[int, List[Tuple[EntitySpan, float]]] = {}
        for batch in self._at_temperature():
            found.update(zip(batch.texts, self.head.candidates(batch.scored, batch.docs, threshold)))
        return found

    def _at_temperature(self) -> Iterator[ScoredBatch]:
        temperature: Any = self.head.temperature
        for batch in self.batches:
            batch.scored.temperature = temperature or 1.0
            yield batch


@dataclass
class SpanOutcomes:
    """Candidates of a head for spans that may overlap, beside the gold spans: all spans that its scores make at least
    CANDIDATE probable, of the texts that are annotated, but for those of which nobody knows whether they are there.

    name (str): The component.
    head (BertSpanCategorizer): It.
    texts (numpy.ndarray): The text of each candidate. Int, (n,).
    labels (numpy.ndarray): Number of its label. Int, (n,).
    scores (numpy.ndarray): Its log-odds, before anything fitted is applied. Float, (n,).
    correct (numpy.ndarray): Whether it is right: borders and label. Bool, (n,).
    gold (Dict[int, List[str]]): Labels of the gold spans of each annotated text.
    """

    kind = "spans"
    name: str
    head: BertSpanCategorizer
    texts: numpy.ndarray
    labels: numpy.ndarray
    scores: numpy.ndarray
    correct: numpy.ndarray
    gold: Dict[int, List[str]]

    def rate(self, chosen: Optional[numpy.ndarray] = None) -> RatedEntities:
        """Rate the candidates, at the temperature that the head has now.

        chosen (Optional[numpy.ndarray]): True for the texts to look at; None: all. Bool, (n_texts_of_corpus,).
        """
        here = numpy.ones(len(self.texts), dtype=bool) if chosen is None else chosen[self.texts]
        scores, labels, tempering = self.scores[here], self.labels[here], self.head.tempering
        tempered = scores if tempering is None else tempering(scores, labels)
        names = [self.head.labels[label] for label in labels.tolist()]
        return RatedEntities(self.texts[here], names, probabilities_of(tempered).astype("float64"), self.correct[here])

    def found(self, rated: RatedEntities) -> numpy.ndarray:
        """RETURNS (numpy.ndarray): Which rated candidates reach the threshold of their label. Bool, (n,)."""
        limits = dict(zip(self.head.labels, self.head.thresholds))
        return rated.confidences >= numpy.array([limits[label] for label in rated.labels]) - 1e-7


Outcomes = Union[TextOutcomes, EntityOutcomes, SpanOutcomes]


def characters(doc: Doc, ent: EntitySpan) -> Tuple[int, int]:
    """RETURNS (Tuple[int, int]): First character of an entity, and the one after its last."""
    return doc[ent[0]].idx, doc[ent[1] - 1].idx + len(doc[ent[1] - 1])


def observe(nlp: Language, examples: Sequence[Example]) -> List[Outcomes]:
    """Let a pipeline predict, and keep what its heads make of each text.

    nlp (Language): The pipeline, of which the heads of this package are looked at.
    examples (Sequence[Example]): Gold annotation and Docs without any; these get the predictions.
    RETURNS (List[Outcomes]): One for each text head, entity recognizer and head for spans, in the order of the
        pipeline.
    """
    kinds = (BertTextCategorizer, BertMultiLabelTextCategorizer, BertEntityRecognizer, BertSpanCategorizer)
    heads: Dict[str, Any] = {name: pipe for name, pipe in nlp.pipeline if isinstance(pipe, kinds)}
    logits: Dict[str, List[numpy.ndarray]] = {name: [] for name in heads}
    entities = {
        name: EntityOutcomes(name, head) for name, head in heads.items() if isinstance(head, BertEntityRecognizer)
    }
    candidates: Dict[str, List[FoundSpans]] = {
        name: [] for name, head in heads.items() if isinstance(head, BertSpanCategorizer)
    }
    try:
        for name, head in heads.items():
            if name in entities:
                head.observer = _entity_observer(entities[name])
            elif name in candidates:
                head.observer = _span_observer(head, candidates[name])
            else:
                head.observer = _text_observer(logits[name])
        for eg, doc in zip(examples, nlp.pipe([eg.predicted for eg in examples])):
            eg.predicted = doc
    finally:
        for head in heads.values():
            head.observer = None
    claimed = {label for _, pipe in nlp.pipeline for label in getattr(pipe, "labels", ())}
    found: List[Outcomes] = []
    for name, head in heads.items():
        if name in entities:
            entities[name].gold = _gold_entities(examples)
            found.append(entities[name])
        elif name in candidates:
            found.append(_span_outcomes(name, head, examples, candidates[name]))
        else:
            found.append(_text_outcomes(name, head, examples, logits[name], claimed))
    return found


def _text_observer(kept: List[numpy.ndarray]) -> Any:
    def keep(docs: List[Doc], logits: numpy.ndarray) -> None:
        kept.append(logits)

    return keep


def _entity_observer(outcomes: EntityOutcomes) -> Any:
    def keep(docs: List[Doc], scored: TagPaths) -> None:
        first = sum(len(batch.docs) for batch in outcomes.batches)
        ents = []
        for doc, found in zip(docs, outcomes.head.read_entities(docs, scored.best())):
            # What is on the Doc already is not predicted
            taken = {i for ent in doc.ents for i in range(ent.start, ent.end)}
            ents.append([ent for ent in found if taken.isdisjoint(range(ent[0], ent[1]))])
        outcomes.batches.append(ScoredBatch(list(range(first, first + len(docs))), docs, scored, ents))

    return keep


def _span_observer(head: BertSpanCategorizer, kept: List[FoundSpans]) -> Any:
    limits = log_odds([CANDIDATE] * len(head.labels))

    def keep(docs: List[Doc], parts: Any) -> None:
        kept.extend(find_spans(parts, [find_blank(doc) for doc in docs], head.max_width, limits))

    return keep


def _span_outcomes(
    name: str, head: BertSpanCategorizer, examples: Sequence[Example], candidates: Sequence[FoundSpans]
) -> SpanOutcomes:
    key, numbers = head.spans_key, {label: number for number, label in enumerate(head.labels)}
    gold: Dict[int, List[str]] = {}
    rows: List[Tuple[int, int, float, bool]] = []
    for number, (eg, found) in enumerate(zip(examples, candidates)):
        if key not in eg.reference.spans:
            continue
        right = {(span.start_char, span.end_char, span.label_) for span in eg.reference.spans[key]}
        gold[number] = [label for _, _, label in right]
        spans = [Span(eg.predicted, first, last, head.labels[label]) for first, last, label in found.spans.tolist()]
        scores = {(span.start, span.end, span.label_): score for span, score in zip(spans, found.scores.tolist())}
        for span in known_spans(eg, key, head.unknown_spans_key, head.incorrect_spans_key, spans):
            correct = (span.start_char, span.end_char, span.label_) in right
            rows.append((number, numbers[span.label_], scores[span.start, span.end, span.label_], correct))
    texts, labels, values, correct_ones = zip(*rows) if rows else ((), (), (), ())
    return SpanOutcomes(
        name,
        head,
        numpy.array(texts, dtype="int64"),
        numpy.array(labels, dtype="int64"),
        numpy.array(values, dtype="float32"),
        numpy.array(correct_ones, dtype=bool),
        gold,
    )


def _gold_entities(examples: Sequence[Example]) -> Dict[int, GoldText]:
    gold = {}
    for number, eg in enumerate(examples):
        found: Optional[TextEntities] = read_entities(eg)
        if found is not None and found.is_readable:
            gold[number] = GoldText(found.gold, found.unknown)
    return gold


def _text_outcomes(
    name: str, head: Any, examples: Sequence[Example], logits: List[numpy.ndarray], claimed: Set[str]
) -> TextOutcomes:
    """claimed: Labels of any head; of the others nobody knows whose they are, so they may be this one's."""
    labels = list(head.labels)
    is_exclusive = isinstance(head, BertTextCategorizer)
    values = numpy.array(
        [[eg.reference.cats.get(label, numpy.nan) for label in labels] for eg in examples], dtype="float64"
    ).reshape(len(examples), len(labels))
    known, truths = ~numpy.isnan(values), values > 0
    if is_exclusive:
        others = [max((v for c, v in eg.reference.cats.items() if c not in claimed), default=0.0) for eg in examples]
        best = numpy.where(known, values, -numpy.inf).argmax(1) if len(examples) else numpy.zeros(0, dtype=int)
        used = truths.any(1) & (numpy.array(others, dtype="float64") <= 0)
        truths = (numpy.arange(len(labels)) == best[:, None]) & truths
        known = numpy.ones_like(truths)
    else:
        used = known.any(1)
    scores = numpy.concatenate(logits) if logits else numpy.zeros(values.shape, dtype="float32")
    texts = numpy.flatnonzero(used)
    parts = (texts, scores[texts], truths[texts], known[texts])
    return TextOutcomes(name, head, is_exclusive, *parts, n_unknown=len(examples) - len(texts))
