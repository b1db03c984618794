"""`seq2seq_ner`: entities generated one after the other, flat or nested."""

from pathlib import Path as FilePath
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy
from spacy.attrs import ENT_IOB
from spacy.language import Language
from spacy.pipeline import TrainablePipe
from spacy.tokens import Doc, Span, SpanGroup
from spacy.training import Example, validate_get_examples
from spacy.util import minibatch
from spacy.vocab import Vocab
from spacy_transformers.layers import TransformerListener
from thinc.api import Model

from ..errors import BertHeadsError
from ..extensions import forget_confidence, set_confidence, set_group_confidence
from ..layers.readings import Generated, NumberedSpan, in_order
from ..models.generation import Generator, Text, get_generator, name_words
from ..tags import Span as EntitySpan
from .base import SCORED_AT_ONCE, TokenHead, check_places, check_spans_keys, example_weights
from .entity_annotations import ENT_UNALIGNED, EXCERPT, UNREADABLE, Skipped, find_preset, read_annotation
from .span_annotations import SPAN_UNALIGNED, SPAN_WITHOUT_LABEL, SpanKeys, find_blank, read_spans

# Reasons to leave out a whole text: keys of errors.MESSAGES
TEXT_UNALIGNED = "H712"
TEXT_LABEL_UNKNOWN = "H713"
TEXT_UNSAYABLE = "H714"


class RankedSpans(NamedTuple):
    """One of the best readings of a Doc.

    spans (List[EntitySpan]): Its spans as (start, end, label).
    log_probability (float): Of exactly these spans, among all that are legal. Nats, at most 0.
    """

    spans: List[EntitySpan]
    log_probability: float


class GenerativeEntityRecognizer(TokenHead, TrainablePipe):
    """Generates the spans of a text one after the other: where each begins, where it ends, its label.

    Without a spans_key they go to `doc.ents` and do not overlap; entities that are on a Doc already stay, and nothing
    is generated over them or over blocked tokens. With a spans_key they go to `doc.spans[spans_key]`, in place of what
    was there, and may overlap.

    The probability of a whole reading is exact; see `nbest`. `span._.confidence` of each span is the summed
    probability of those readings that the beam found and that have the span: an approximation that is never too high,
    and the closer the wider the beam is. With beam_width = 1 it is the probability of the whole reading.

    It learns from complete annotation alone: a sequence cannot have gaps.

    vocab (Vocab): The shared vocabulary.
    model (Model): spacy_bert_heads.PointerGenerator.v1 or spacy_bert_heads.TextToText.v1.
    name (str): The component's name.
    spans_key (Optional[str]): Key of `doc.spans` where spans are learned from, and written. None: `doc.ents`.
    beam_width (int): Readings that are followed at the same time. 1: the likeliest symbol each time, which is fastest.
    incorrect_spans_key (Optional[str]): Key of `doc.spans` under which rejected spans are: texts with these alone are
        refused. None: nowhere.
    unknown_spans_key (Optional[str]): Key of `doc.spans` that marks gaps in the annotation of spans: such texts are
        refused. None: nowhere.
    loss_weight (float): Weight of this head's loss beside those of the other heads.
    scorer (Optional[Callable]): The scoring method; None: that of entities or of spans, as spans_key says.
    RAISES (BertHeadsError): H273 for a loss_weight below 0, a beam_width below 1, or keys that are the same.
    """

    def __init__(
        self,
        vocab: Vocab,
        model: Model,
        name: str,
        *,
        spans_key: Optional[str],
        beam_width: int,
        incorrect_spans_key: Optional[str],
        unknown_spans_key: Optional[str],
        loss_weight: float,
        scorer: Optional[Callable],
    ) -> None:
        if loss_weight < 0:
            raise BertHeadsError("H273", name="loss_weight", found=loss_weight, expected="0 or more")
        if beam_width < 1:
            raise BertHeadsError("H273", name="beam_width", found=beam_width, expected="1 or more")
        check_spans_keys(spans_key, incorrect_spans_key, unknown_spans_key)
        self.vocab = vocab
        self.model = model
        self.name = name
        self.spans_key = spans_key
        self.beam_width = beam_width
        self.incorrect_spans_key = incorrect_spans_key
        self.unknown_spans_key = unknown_spans_key
        self.loss_weight = loss_weight
        self.scorer = scorer
        self.skipped = Skipped(name)
        self.cfg: Dict[str, Any] = {"labels": []}

    @property
    def is_nested(self) -> bool:
        """RETURNS (bool): Whether spans may overlap: whether they go to `doc.spans`."""
        return self.spans_key is not None

    @property
    def generator(self) -> Generator:
        """RETURNS (Generator): What works on the model's output."""
        return get_generator(self.model)

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Optional[Language] = None,
        labels: Optional[Iterable[str]] = None,
        vocab: Optional[Union[str, FilePath]] = None,
    ) -> None:
        """Learn the labels and build the model. What training will have to leave out is logged here.

        get_examples (Callable[[], Iterable[Example]]): The training corpus.
        nlp (Optional[Language]): The pipeline.
        labels (Optional[Iterable[str]]): Labels, as from `spacy init labels`; None reads them off the corpus.
        vocab (Optional[Union[str, FilePath]]): For a private encoder from scratch; see BertEncoder.initialize.
        RAISES (BertHeadsError): H301 if the corpus has labels that are not among the given ones, H365 if another
            component writes to the same place, H710 if a text is annotated in part, H711 if there is no label at all.
        """
        validate_get_examples(get_examples, "GenerativeEntityRecognizer.initialize")
        if nlp is not None:
            check_places(self, nlp, spans_key=self.spans_key, writes_ents=self.spans_key is None)
        self.forget_fitted()
        self.skipped = Skipped(self.name)
        seen: Dict[str, None] = {}
        sample: List[Doc] = []
        for eg in get_examples():
            found = self._read(eg, Skipped(self.name))
            seen.update((label, None) for _, _, label in found or ())
            if len(sample) < 10:
                sample.append(eg.reference)
        self.take_labels(seen, (), labels)
        if not self.labels:
            place = "doc.ents" if self.spans_key is None else f"doc.spans[{self.spans_key!r}]"
            raise BertHeadsError("H711", component=self.name, found=place)
        self.learn_vocabulary(get_examples, vocab)
        if self.model.has_dim("nO") is None:
            self.model.set_dim("nO", len(self.labels))
        self.model.initialize(X=sample)
        self.generator.learn_labels(self.model, self.labels, self._vectors_of)
        for eg in get_examples():
            self._target(eg)
        self.skipped.log()

    def predict(self, docs: Iterable[Doc]) -> List[Generated]:
        """The best readings of each Doc, and how sure the head is of the spans of the best one.

        docs (Iterable[Doc]): The Docs; entities on them stay as they are.
        RETURNS (List[Generated]): One for each Doc; labels are numbers in `self.labels`.
        """
        docs = list(docs)
        return self._generate(docs, self.beam_width, keep_preset=True) if docs else []

    def set_annotations(self, docs: Iterable[Doc], scores: List[Generated]) -> None:
        """Write the spans and their confidence.

        docs (Iterable[Doc]): The Docs.
        scores (List[Generated]): What `predict` gave for them.
        """
        docs, labels = list(docs), self.labels
        for doc, generated in zip(docs, scores):
            spans = [Span(doc, start, end, label=labels[label]) for start, end, label in generated.readings[0].spans]
            if self.spans_key is None:
                preset, blocked = find_preset(doc)
                doc.set_ents([*preset, *spans], blocked=blocked, default="outside")
                forget_confidence(doc, keep=preset)
                for span, value in zip(spans, generated.confidences):
                    set_confidence(span, value)
            else:
                attrs = {"scores": numpy.array(generated.confidences, dtype="float32")}
                doc.spans[self.spans_key] = SpanGroup(doc, name=self.spans_key, spans=spans, attrs=attrs)
                set_group_confidence(doc, self.spans_key, spans, generated.confidences)
        self.release(docs)

    def nbest(self, docs: Iterable[Doc], n: int, *, keep_preset: bool = False) -> List[List[RankedSpans]]:
        """The best readings of each Doc that a beam of width n finds, best first; fewer where there are no more.

        docs (Iterable[Doc]): Docs of this pipeline. The encoder reads them again where its outputs are not on them.
        n (int): How many.
        keep_preset (bool): Generate nothing over entities on the Docs. If not, they are ignored.
        RETURNS (List[List[RankedSpans]]): Spans and log-probability of each reading, for each Doc.
        """
        labels, ranked = self.labels, []
        for batch in minibatch(docs, SCORED_AT_ONCE):
            with self.encoded(batch):
                found = self._generate(batch, n, keep_preset=keep_preset)
            ranked += [
                [
                    RankedSpans([(start, end, labels[label]) for start, end, label in spans], log_probability)
                    for spans, log_probability in generated.readings
                ]
                for generated in found
            ]
        return ranked

    def log_probabilities(self, docs: Iterable[Doc], spans: Sequence[Sequence[EntitySpan]]) -> List[float]:
        """How probable it is that a text has exactly these spans. Entities on the Docs are ignored.

        docs (Iterable[Doc]): Docs of this pipeline. The encoder reads them again where its outputs are not on them.
        spans (Sequence[Sequence[EntitySpan]]): Of each Doc, spans as (start, end, label).
        RETURNS (List[float]): Nats; minus infinity where they are not legal. Of a Doc that is cut into windows, the
            sum over these.
        """
        docs = list(docs)
        numbers = {label: number for number, label in enumerate(self.labels)}
        sayable = [all(label in numbers for _, _, label in found) for found in spans]
        numbered = [
            [(start, end, numbers[label]) for start, end, label in found] if known else []
            for found, known in zip(spans, sayable)
        ]
        with self.encoded(docs):
            texts = [self._text(doc, keep_preset=False) for doc in docs]
            outputs = self.run_model(docs)
            found = self.generator.log_probabilities(self.model, texts, outputs, numbered, self.is_nested)
        return [value if known else -numpy.inf for value, known in zip(found, sayable)]

    def get_loss(self, examples: Iterable[Example], scores: Any) -> Tuple[float, Any]:
        """The loss of a batch and its gradient for the model's output. What cannot be learned from is in
        `self.skipped`.

        examples (Iterable[Example]): The batch. Of a Doc with `doc._.silver` only this share of its loss counts.
        scores (Any): The model's output.
        RETURNS (Tuple[float, Any]): The loss in nats, a mean over Docs, and its gradient times loss_weight.
        RAISES (BertHeadsError): H710 if a text is annotated in part.
        """
        examples = list(examples)
        targets = [self._target(eg) for eg in examples]
        self.skipped.log()
        texts = [self._text(eg.predicted, keep_preset=False) for eg in examples]
        shares = example_weights(examples)
        return self.generator.loss(self.model, texts, scores, targets, self.is_nested, self.loss_weight, shares)

    def score(self, examples: Iterable[Example], **kwargs: Any) -> Dict[str, Any]:
        """Score predicted Docs.

        examples (Iterable[Example]): Predicted and gold Docs.
        **kwargs (Any): For the scorer, in place of this component's own settings.
        RETURNS (Dict[str, Any]): The scores; see evaluation.scorers.score_generated.
        """
        if self.scorer is None:
            return {}
        settings = {
            "labels": self.labels,
            "spans_key": self.spans_key,
            "unknown_spans_key": self.unknown_spans_key,
            "incorrect_spans_key": self.incorrect_spans_key,
        }
        return self.scorer(examples, **{**settings, **kwargs})

    def _generate(self, docs: List[Doc], n: int, keep_preset: bool) -> List[Generated]:
        texts = [self._text(doc, keep_preset) for doc in docs]
        return self.generator.readings(self.model, texts, self.run_model(docs), n, self.is_nested)

    def _text(self, doc: Doc, keep_preset: bool) -> Text:
        closed = numpy.zeros(len(doc), dtype=bool)
        if keep_preset and not self.is_nested:
            for found in find_preset(doc):
                for span in found:
                    closed[span.start : span.end] = True
        return Text(doc, ~find_blank(doc), closed)

    def _target(self, example: Example) -> Optional[List[NumberedSpan]]:
        """The spans of an Example, None if it is not annotated, or there is nothing to learn from it."""
        found = self._read(example, self.skipped)
        if found is None:
            return None
        doc, numbers = example.predicted, {label: number for number, label in enumerate(self.labels)}
        for start, end, label in found:
            if label not in numbers:
                self.skipped.add(TEXT_LABEL_UNKNOWN, doc, Span(doc, start, end, label=label))
                return None
        spans = in_order([(start, end, numbers[label]) for start, end, label in found])
        if not self.generator.can_say(self.model, self._text(doc, False), spans, self.is_nested):
            self.skipped.add(TEXT_UNSAYABLE, doc)
            return None
        return spans

    def _read(self, example: Example, skipped: Skipped) -> Optional[List[EntitySpan]]:
        """The spans of an Example, whatever their labels. None if it is not annotated, or tokens do not fit."""
        reference, inner = example.reference, Skipped(self.name)
        rejected = reference.spans.get(self.incorrect_spans_key or "", ())
        if self.spans_key is not None:
            gaps = reference.spans.get(self.unknown_spans_key or "", ())
            is_there = self.spans_key in reference.spans
            if len(gaps) or (len(rejected) and not is_there):
                self._refuse(reference)
            if not is_there:
                return None
            keys = SpanKeys(self.spans_key, None, None)
            spans = read_spans(example, keys, inner).spans
        else:
            missing = reference.to_array(ENT_IOB) == 0
            if missing.any() and (not missing.all() or len(rejected)):
                self._refuse(reference)
            if missing.all():
                return None
            spans = _trim(example.predicted, read_annotation(example, None, inner).ents)
        for code in (ENT_UNALIGNED, UNREADABLE, SPAN_UNALIGNED, SPAN_WITHOUT_LABEL):
            if code in inner.counts:
                skipped.add(TEXT_UNALIGNED, reference)
                return None
        return spans

    def _refuse(self, doc: Doc) -> None:
        text = doc.text if len(doc.text) <= EXCERPT else doc.text[:EXCERPT] + "..."
        raise BertHeadsError("H710", component=self.name, found=repr(text))

    def _vectors_of(self, label: str) -> Any:
        """Token vectors of a label's name, (n_tokens, width). None where no encoder reads it."""
        listens = any(isinstance(node, TransformerListener) for node in self.model.walk())
        if listens and self.encoder is None:
            return None
        doc = Doc(self.vocab, words=name_words(label))
        with self.encoded([doc]):
            return self.model.layers[0].predict([doc])[0]


def _trim(doc: Doc, ents: Sequence[EntitySpan]) -> List[EntitySpan]:
    """Entities without white space at their ends; those that are nothing else are left out."""
    blank, trimmed = find_blank(doc), []
    for start, end, label in ents:
        words = numpy.flatnonzero(~blank[start:end])
        if len(words):
            trimmed.append((start + int(words[0]), start + int(words[-1]) + 1, label))
    return trimmed
