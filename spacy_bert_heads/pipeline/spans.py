"""`bert_spans`: spans that may overlap, by BERT and GlobalPointer."""

from pathlib import Path as FilePath
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Tuple, Union

import numpy
from spacy.language import Language
from spacy.pipeline import TrainablePipe
from spacy.tokens import Doc, Span, SpanGroup
from spacy.training import Example, validate_get_examples
from spacy.vocab import Vocab
from thinc.api import Model
from thinc.types import Floats2d

from ..errors import BertHeadsError
from ..extensions import forget_confidence, set_confidence, set_group_confidence
from ..layers.global_pointer import (
    FoundSpans,
    Tempering,
    best_without_overlap,
    find_spans,
    span_loss,
    span_uncertainty,
)
from ..models.global_pointer import get_max_width, set_max_width
from .base import TokenHead, check_places, check_spans_keys, example_weights
from .entity_annotations import Skipped, find_preset
from .fitted import AROUND, FITTED, THRESHOLDS
from .span_annotations import SpanKeys, find_blank, read_spans, to_targets


class BertSpanCategorizer(TokenHead, TrainablePipe):
    """Sets `doc.spans[spans_key]` to all spans whose probability reaches the threshold of their label, in place of
    what was there. They may overlap, and lie within each other, with the same label or another one. A span of several
    labels is there once for each.

    `span._.confidence` of each is its probability, and `doc.spans[spans_key].attrs["scores"]` holds all of them in the
    order of the group, as spaCy's `spancat` has it. The probability of each span and label is by itself: those of
    spans that overlap may add up to more than 1. It is as well calibrated as training leaves it, unless
    `bert-heads calibrate` has given the head a temperature, which divides the log-odds, measured from the threshold.

    No span begins or ends with white space or is longer than the model's max_width.

    vocab (Vocab): The shared vocabulary.
    model (Model): Docs to parts of span scores, such as spacy_bert_heads.GlobalPointer.v1.
    name (str): The component's name.
    spans_key (str): Key of `doc.spans` where spans are learned from, and written.
    threshold (float): Probability from which on a span is found, above 0 and below 1.
    label_thresholds (Dict[str, float]): The same for single labels. `bert-heads set-thresholds` puts others in their
        place, which are in the component's `cfg`.
    annotate_ents (bool): Whether `doc.ents` is set as well, to the most probable choice of spans that do not overlap,
        each taken by itself. Entities and blocked tokens that are on a Doc already stay, and nothing is chosen over
        them. `spans_key` has all spans all the same.
    incorrect_spans_key (Optional[str]): Key under which training finds spans that somebody rejected. None: nowhere.
    unknown_spans_key (Optional[str]): Key under which training finds what nobody has annotated; see
        pipeline.span_annotations. None: nowhere.
    loss_weight (float): Weight of this head's loss beside those of the other heads.
    scorer (Optional[Callable]): The scoring method.
    RAISES (BertHeadsError): H273 for a loss_weight below 0, a threshold that is none, or keys that are the same.
    """

    # Whether each prediction also leaves `doc._.spans_uncertainty`. It is no setting, but for those who ask: it looks
    # at every span and label
    annotates_uncertainty = False

    def __init__(
        self,
        vocab: Vocab,
        model: Model,
        name: str,
        *,
        spans_key: str,
        threshold: float,
        label_thresholds: Dict[str, float],
        annotate_ents: bool,
        incorrect_spans_key: Optional[str],
        unknown_spans_key: Optional[str],
        loss_weight: float,
        scorer: Optional[Callable],
    ) -> None:
        if loss_weight < 0:
            raise BertHeadsError("H273", name="loss_weight", found=loss_weight, expected="0 or more")
        for value in (threshold, *label_thresholds.values()):
            if not 0 < value < 1:
                raise BertHeadsError("H273", name="threshold", found=value, expected="above 0 and below 1")
        check_spans_keys(spans_key, incorrect_spans_key, unknown_spans_key)
        self.vocab = vocab
        self.model = model
        self.name = name
        self.spans_key = spans_key
        self.threshold = threshold
        self.label_thresholds = dict(label_thresholds)
        self.annotate_ents = annotate_ents
        self.incorrect_spans_key = incorrect_spans_key
        self.unknown_spans_key = unknown_spans_key
        self.loss_weight = loss_weight
        self.scorer = scorer
        self.skipped = Skipped(name)
        self.cfg: Dict[str, Any] = {"labels": [], **dict.fromkeys(FITTED)}

    @property
    def max_width(self) -> int:
        """RETURNS (int): Tokens of the longest span that can be found."""
        width = get_max_width(self.model)
        if width is None:
            raise BertHeadsError("H215", found=self.name)
        return width

    @property
    def thresholds(self) -> List[float]:
        """RETURNS (List[float]): Probability from which on a span is found, for each label."""
        chosen = {**self.label_thresholds, **(self.cfg.get(THRESHOLDS) or {})}
        return [chosen.get(label, self.threshold) for label in self.labels]

    @property
    def tempering(self) -> Optional[Tempering]:
        """RETURNS (Optional[Tempering]): What scores go through before they become probabilities. None: nothing."""
        temperature: Any = self.temperature
        return None if temperature is None else Tempering(temperature, log_odds(self.cfg[AROUND]))

    @property
    def _keys(self) -> SpanKeys:
        return SpanKeys(self.spans_key, self.incorrect_spans_key, self.unknown_spans_key)

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Optional[Language] = None,
        labels: Optional[Iterable[str]] = None,
        vocab: Optional[Union[str, FilePath]] = None,
    ) -> None:
        """Learn the labels and the longest span, and build the model. What training will have to leave out is logged
        here.

        get_examples (Callable[[], Iterable[Example]]): The training corpus.
        nlp (Optional[Language]): The pipeline.
        labels (Optional[Iterable[str]]): Span labels, as from `spacy init labels`; None reads them off the corpus,
            rejected spans included.
        vocab (Optional[Union[str, FilePath]]): For a private encoder from scratch; see BertEncoder.initialize.
        RAISES (BertHeadsError): H301 if the corpus has labels that are not among the given ones, H360 if there is
            no label at all, H365 if another component writes to the same place, H367 for thresholds of labels that
            there are not.
        """
        validate_get_examples(get_examples, "BertSpanCategorizer.initialize")
        if nlp is not None:
            check_places(self, nlp, spans_key=self.spans_key, writes_ents=self.annotate_ents)
        self.skipped = Skipped(self.name)
        seen: Dict[str, None] = {}
        rejected: Dict[str, None] = {}
        sample: List[Doc] = []
        longest = 0
        for eg in get_examples():
            annotation = read_spans(eg, self._keys, Skipped(self.name))
            seen.update((label, None) for _, _, label in annotation.spans)
            rejected.update((label, None) for _, _, label in annotation.rejected if label)
            longest = max([longest, *(end - start for start, end, _ in annotation.spans)])
            if len(sample) < 10:
                sample.append(eg.reference)
        self.take_labels(seen, rejected, labels)
        if not self.labels:
            raise BertHeadsError("H360", component=self.name, found=repr(self.spans_key))
        strange = set(self.label_thresholds) - set(self.labels)
        if strange:
            raise BertHeadsError("H367", component=self.name, found=", ".join(sorted(strange)))
        self.learn_vocabulary(get_examples, vocab)
        set_max_width(self.model, longest)
        for eg in get_examples():
            to_targets(read_spans(eg, self._keys, self.skipped), self.labels, self.max_width, eg, self.skipped)
        self.skipped.log()
        if self.model.has_dim("nO") is None:
            self.model.set_dim("nO", len(self.labels))
        self.model.initialize(X=sample)

    def predict(self, docs: Iterable[Doc]) -> List[FoundSpans]:
        """The spans of each Doc that reach the threshold of their label.

        docs (Iterable[Doc]): The Docs.
        RETURNS (List[FoundSpans]): One for each Doc; labels are numbers in `self.labels`.
        """
        docs = list(docs)
        if not docs:
            return []
        parts, blank, tempering = self.run_model(docs), [find_blank(doc) for doc in docs], self.tempering
        if self.observer is not None:
            self.observer(docs, parts)
        limits = log_odds(self.thresholds)
        found = find_spans(parts, blank, self.max_width, limits if tempering is None else tempering.undo(limits))
        if tempering is not None:
            found = [FoundSpans(spans, tempering(scores, spans[:, 2])) for spans, scores, _ in found]
        if self.annotates_uncertainty:
            unsure = span_uncertainty(parts, blank, self.max_width, tempering)
            found = [one._replace(uncertainty=uncertainty) for one, uncertainty in zip(found, unsure)]
        return found

    def set_annotations(self, docs: Iterable[Doc], scores: List[FoundSpans]) -> None:
        """Write the spans and their confidence, and the entities if wanted.

        docs (Iterable[Doc]): The Docs.
        scores (List[FoundSpans]): What `predict` gave for them.
        """
        docs, labels = list(docs), self.labels
        for doc, found in zip(docs, scores):
            spans = [Span(doc, start, end, label=labels[label]) for start, end, label in found.spans.tolist()]
            probabilities = probabilities_of(found.scores)
            attrs = {"scores": probabilities}
            doc.spans[self.spans_key] = SpanGroup(doc, name=self.spans_key, spans=spans, attrs=attrs)
            set_group_confidence(doc, self.spans_key, spans, probabilities.tolist())
            if found.uncertainty is not None:
                doc._.spans_uncertainty = found.uncertainty
            if self.annotate_ents:
                self._set_ents(doc, spans, found, probabilities)
        self.release(docs)

    def _set_ents(self, doc: Doc, spans: List[Span], found: FoundSpans, probabilities: numpy.ndarray) -> None:
        preset, blocked = find_preset(doc)
        taken = numpy.zeros(len(doc), dtype=bool)
        for span in (*preset, *blocked):
            taken[span.start : span.end] = True
        free = [n for n, (start, end, _) in enumerate(found.spans.tolist()) if not taken[start:end].any()]
        limits = log_odds(self.thresholds)
        # By how much each is more probable than not, as far as its label's threshold says so; the most probable choice
        # where spans are independent and the threshold is 0.5
        weights = numpy.maximum(found.scores - limits[found.spans[:, 2]], 0.0)
        chosen = best_without_overlap([found.spans[n].tolist() for n in free], [float(weights[n]) for n in free])
        numbers = [free[n] for n in chosen]
        doc.set_ents([*preset, *(spans[n] for n in numbers)], blocked=blocked, default="outside")
        forget_confidence(doc, keep=preset)
        for n in numbers:
            set_confidence(spans[n], float(probabilities[n]))

    def get_loss(self, examples: Iterable[Example], scores: List[Floats2d]) -> Tuple[float, List[Floats2d]]:
        """The loss of a batch and its gradient; see layers.global_pointer. What cannot be learned from is in
        `self.skipped`.

        examples (Iterable[Example]): The batch.
        scores (List[Floats2d]): The model's output. Float, (n_tokens, max_width + 2 * n_labels) per Doc.
        RETURNS (Tuple[float, List[Floats2d]]): The loss in nats, a mean over Docs, and its gradient times loss_weight.
        """
        examples = list(examples)
        targets = [
            to_targets(read_spans(eg, self._keys, self.skipped), self.labels, self.max_width, eg, self.skipped)
            for eg in examples
        ]
        self.skipped.log()
        shares = example_weights(examples)
        return span_loss(scores, targets, self.max_width, weight=self.loss_weight, shares=shares)

    def score(self, examples: Iterable[Example], **kwargs: Any) -> Dict[str, Any]:
        """Score predicted Docs.

        examples (Iterable[Example]): Predicted and gold Docs.
        **kwargs (Any): For the scorer, in place of this component's own settings.
        RETURNS (Dict[str, Any]): The scores; see evaluation.scorers.score_spans.
        """
        if self.scorer is None:
            return {}
        settings = {
            "labels": self.labels,
            "spans_key": self.spans_key,
            "unknown_spans_key": self.unknown_spans_key,
            "incorrect_spans_key": self.incorrect_spans_key,
            "annotate_ents": self.annotate_ents,
        }
        return self.scorer(examples, **{**settings, **kwargs})


def log_odds(probabilities: Sequence[float]) -> numpy.ndarray:
    """RETURNS (numpy.ndarray): Of probabilities; those of 0 and 1 are finite. Float32, (n,)."""
    clipped = numpy.clip(numpy.asarray(probabilities, dtype="float64"), 1e-16, 1 - 2.0**-53)
    return (numpy.log(clipped) - numpy.log1p(-clipped)).astype("float32")


def probabilities_of(scores: numpy.ndarray) -> numpy.ndarray:
    """RETURNS (numpy.ndarray): Probabilities of log-odds, as float32."""
    with numpy.errstate(over="ignore"):
        return (1.0 / (1.0 + numpy.exp(-scores.astype("float64")))).astype("float32")
