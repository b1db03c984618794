"""`bert_ner`: named entities by BERT, BiLSTM and CRF."""

from pathlib import Path as FilePath
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy
from spacy.language import Language
from spacy.pipeline import TrainablePipe
from spacy.tokens import Doc, Span
from spacy.training import Example, validate_get_examples
from spacy.util import minibatch
from spacy.vocab import Vocab
from thinc.api import Model
from thinc.types import Floats2d

from ..errors import BertHeadsError
from ..extensions import ENTS_SET_NAME, forget_confidence, set_confidence
from ..layers.crf.layer import CrfLoss, crf_loss, decoder, learns_from_rejected, softmax_loss
from ..layers.crf.paths import NumberedSpan, TagPaths, Uncertainty
from ..models.bilstm_crf import get_crf
from ..tags import Span as EntitySpan
from ..tags import TagScheme
from ..types import TagIds
from .base import SCORED_AT_ONCE, TokenHead, example_weights
from .entity_annotations import (
    NO_PATH,
    REJECTED_IGNORED,
    REJECTED_IS_CERTAIN,
    REJECTED_LABEL_UNKNOWN,
    Skipped,
    find_preset,
    known_labels,
    read_annotation,
    to_tags,
)
from .fitted import FITTED, THRESHOLDS

# Tokens. Of longer entities, a long Doc would have too many to look at each
LONGEST_CANDIDATE = 50


class Prediction(NamedTuple):
    """What `predict` gives for one Doc.

    tags (TagIds): The best path. Int, (n_tokens,).
    ents (List[Tuple[EntitySpan, float]]): Its entities and their probabilities.
    uncertainty (Optional[Uncertainty]): How sure the head is, where it was asked to say so.
    candidates (Optional[List[Tuple[EntitySpan, float]]]): The entities that may be there, likeliest first, where there
        are to be sets.
    """

    tags: TagIds
    ents: List[Tuple[EntitySpan, float]]
    uncertainty: Optional[Uncertainty] = None
    candidates: Optional[List[Tuple[EntitySpan, float]]] = None


class RankedEntities(NamedTuple):
    """One of the best paths of a Doc.

    ents (List[EntitySpan]): Its entities as (start, end, label).
    log_probability (float): Of the path among all paths. Nats, at most 0.
    """

    ents: List[EntitySpan]
    log_probability: float


class BertEntityRecognizer(TokenHead, TrainablePipe):
    """Sets `doc.ents` from tag scores per token, decoded by the model's CRF or token by token.

    Entities that are on a Doc already stay, and nothing is predicted over them or over blocked tokens.

    `span._.confidence` of a predicted entity is its exact probability under the CRF: that of all tag paths that have
    this entity with these boundaries, given the entities already on the Doc. It is as well calibrated as training
    leaves it, unless `bert-heads calibrate` has given the head a temperature, which divides all scores of the CRF.
    With crf = "pytorch-crf" or null, which allow illegal paths, it is the probability of the tags with which the
    scheme spells the entity; an entity read from an illegal path has a low one.

    vocab (Vocab): The shared vocabulary.
    model (Model): Docs to emissions, such as spacy_bert_heads.BiLSTMCRF.v1.
    name (str): The component's name.
    min_confidence (float): Predicted entities of lower confidence are dropped; 0 keeps all. `bert-heads
        set-thresholds` adds a minimum for each label, which is in the component's `cfg`.
    incorrect_spans_key (Optional[str]): Key of `doc.spans` under which training finds entities that an annotator
        rejected. None: nowhere.
    loss_weight (float): Weight of this head's loss beside those of the other heads.
    scorer (Optional[Callable]): The scoring method.
    RAISES (BertHeadsError): H273 for a loss_weight below 0.
    """

    # Whether each prediction also leaves `doc._.ents_uncertainty`. It is no setting, but for those who ask: it takes
    # a second pass over the tag scores, none over the Doc.
    annotates_uncertainty = False

    def __init__(
        self,
        vocab: Vocab,
        model: Model,
        name: str,
        *,
        min_confidence: float,
        incorrect_spans_key: Optional[str],
        loss_weight: float,
        scorer: Optional[Callable],
    ) -> None:
        if loss_weight < 0:
            raise BertHeadsError("H273", name="loss_weight", found=loss_weight, expected="0 or more")
        self.vocab = vocab
        self.model = model
        self.name = name
        self.min_confidence = min_confidence
        self.incorrect_spans_key = incorrect_spans_key
        self.loss_weight = loss_weight
        self.scorer = scorer
        self.skipped = Skipped(name)
        self.cfg: Dict[str, Any] = {"labels": [], **dict.fromkeys(FITTED)}
        self._cached_scheme: Optional[TagScheme] = None

    @property
    def tags(self) -> List[str]:
        """RETURNS (List[str]): The tags the model scores, in the order of its output."""
        return self._scheme.tags

    @property
    def _scheme(self) -> TagScheme:
        if self._cached_scheme is None or tuple(self._cached_scheme.labels) != self.labels:
            self._cached_scheme = TagScheme(self.model.attrs.get("scheme", "bio"), self.labels)
        return self._cached_scheme

    @property
    def thresholds(self) -> Dict[str, float]:
        """RETURNS (Dict[str, float]): For each label the confidence below which its entities are dropped: the fitted
        one, or min_confidence where that is higher."""
        fitted = self.cfg.get(THRESHOLDS) or {}
        return {label: max(self.min_confidence, fitted.get(label, 0.0)) for label in self.labels}

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
        labels (Optional[Iterable[str]]): Entity labels, as from `spacy init labels`; None reads them off the corpus,
            rejected spans included.
        vocab (Optional[Union[str, FilePath]]): For a private encoder from scratch; see BertEncoder.initialize.
        RAISES (BertHeadsError): H301 if the corpus has labels that are not among the given ones, H302 if there is
            no label at all.
        """
        validate_get_examples(get_examples, "BertEntityRecognizer.initialize")
        self.forget_fitted()
        self.skipped = Skipped(self.name)
        seen: Dict[str, None] = {}
        rejected: Dict[str, List[Any]] = {}  # label -> how many, the first
        sample: List[Doc] = []
        for eg in get_examples():
            annotation = read_annotation(eg, self.incorrect_spans_key, self.skipped)
            seen.update((label, None) for label in _reference_labels(eg))
            for start, end, label in annotation.rejected:
                found = rejected.setdefault(label, [0, Span(eg.predicted, start, end, label=label)])
                found[0] += 1
            if len(sample) < 10:
                sample.append(eg.reference)
        self.take_labels(seen, rejected, labels)
        if not self.labels:
            raise BertHeadsError("H302", component=self.name)
        for label in set(rejected) - set(self.labels):
            count, first = rejected[label]
            self.skipped.add(REJECTED_LABEL_UNKNOWN, first.doc, first, count=count)
        self.skipped.log()
        self.learn_vocabulary(get_examples, vocab)
        if self.model.has_dim("nO") is None:
            self.model.set_dim("nO", len(self.tags))
        self.model.initialize(X=sample)

    def predict(self, docs: Iterable[Doc]) -> List[Prediction]:
        """The best tags of each Doc, their entities and the entities' probabilities.

        docs (Iterable[Doc]): The Docs; entities on them stay as they are.
        RETURNS (List[Prediction]): One for each Doc.
        """
        docs = list(docs)
        if not docs:
            return []
        scored = self._score(docs, keep_preset=True)
        if self.observer is not None:
            self.observer(docs, scored)
        paths = scored.best()
        ents = self.read_entities(docs, paths)
        probabilities = iter(self.entity_probabilities(scored, docs, ents))
        uncertainty = scored.uncertainty(paths) if self.annotates_uncertainty else [None] * len(docs)
        coverage = self.coverage
        candidates = [None] * len(docs) if coverage is None else self.candidates(scored, docs, coverage.threshold)
        return [
            Prediction(tags, [(ent, next(probabilities)) for ent in found], unsure, others)
            for tags, found, unsure, others in zip(paths, ents, uncertainty, candidates)
        ]

    def set_annotations(self, docs: Iterable[Doc], scores: List[Prediction]) -> None:
        """Write the entities and their confidence.

        docs (Iterable[Doc]): The Docs.
        scores (List[Prediction]): What `predict` gave for them.
        """
        docs = list(docs)
        limits = self.thresholds
        for doc, prediction in zip(docs, scores):
            preset, blocked = find_preset(doc)
            taken = {i for span in [*preset, *blocked] for i in range(span.start, span.end)}
            ents, confidence = [], []
            for (start, end, label), probability in prediction.ents:
                if probability >= limits.get(label, self.min_confidence) and taken.isdisjoint(range(start, end)):
                    ents.append(Span(doc, start, end, label=label))
                    confidence.append(probability)
            doc.set_ents(preset + ents, blocked=blocked, default="outside")
            forget_confidence(doc, keep=preset)
            for ent, probability in zip(ents, confidence):
                set_confidence(ent, probability)
            if prediction.uncertainty is not None:
                doc._.ents_uncertainty = prediction.uncertainty
            if prediction.candidates is not None:
                doc._.set(ENTS_SET_NAME, [(*ent, probability) for ent, probability in prediction.candidates])
        self.release(docs)

    def nbest(self, docs: Iterable[Doc], n: int, *, keep_preset: bool = False) -> List[List[RankedEntities]]:
        """The n most probable readings of each Doc, best first; fewer where there are no more paths.

        Each is one path of tags. Two paths have the same entities only where they differ in white space around an
        entity, or, without the tag scheme's constraints, in how they spell one.

        docs (Iterable[Doc]): Docs of this pipeline. The encoder reads them again where its outputs are not on them.
        n (int): How many.
        keep_preset (bool): Take entities on the Docs as given, with those predicted before. If not, they are ignored.
        RETURNS (List[List[RankedEntities]]): Entities and log-probability of the path, for each Doc.
        """
        ranked = []
        for batch in minibatch(docs, SCORED_AT_ONCE):
            with self.encoded(batch):
                found = self._score(batch, keep_preset).nbest(n)
            ranked += [
                [RankedEntities(self._read_entities(doc, tags), log_probability) for tags, log_probability in paths]
                for doc, paths in zip(batch, found)
            ]
        return ranked

    def uncertainty(self, docs: Iterable[Doc], *, keep_preset: bool = False) -> List[Uncertainty]:
        """How sure the head is of each Doc, for choosing what to annotate next.

        docs (Iterable[Doc]): Docs of this pipeline. The encoder reads them again where its outputs are not on them.
        keep_preset (bool): Take entities on the Docs as given.
        RETURNS (List[Uncertainty]): One for each Doc.
        """
        unsure: List[Uncertainty] = []
        for batch in minibatch(docs, SCORED_AT_ONCE):
            with self.encoded(batch):
                scored = self._score(batch, keep_preset)
            unsure += scored.uncertainty(scored.best())
        return unsure

    def span_probabilities(self, docs: Iterable[Doc], spans: Sequence[Sequence[EntitySpan]]) -> List[List[float]]:
        """How probable given entities are, whether or not they are predicted: exactly these boundaries and this label,
        as `span._.confidence` has it of predicted ones. Entities on the Docs are ignored.

        docs (Iterable[Doc]): Docs that the encoder has read.
        spans (Sequence[Sequence[EntitySpan]]): Of each Doc, entities as (start, end, label). They may overlap.
        RETURNS (List[List[float]]): Their probabilities, 0 to 1; 0 for a label that the component does not have.
        """
        docs = list(docs)
        known = [[span for span in found if span[2] in self.labels] for found in spans]
        if not any(known):
            return [[0.0] * len(found) for found in spans]
        values = iter(self.entity_probabilities(self._score(docs, keep_preset=False), docs, known))
        return [[next(values) if label in self.labels else 0.0 for _, _, label in found] for found in spans]

    def outside_probabilities(self, docs: Iterable[Doc]) -> List[numpy.ndarray]:
        """How probable each token is to be in no entity. Entities on the Docs are ignored.

        docs (Iterable[Doc]): Docs that the encoder has read.
        RETURNS (List[numpy.ndarray]): Of each Doc. Float, (n_tokens,).
        """
        docs = list(docs)
        tables = self._score(docs, keep_preset=False).marginals() if docs else []
        return [table[:, 0] if len(table) else numpy.zeros(0, dtype="float32") for table in tables]

    def get_loss(self, examples: Iterable[Example], scores: List[Floats2d]) -> Tuple[float, List[Floats2d]]:
        """The loss of a batch and its gradient; see layers.crf. What cannot be learned from is in `self.skipped`.

        examples (Iterable[Example]): The batch. Of a Doc with `doc._.silver` only this share of its loss counts.
        scores (List[Floats2d]): The model's emissions. Float, (n_tokens, n_tags) per Doc.
        RETURNS (Tuple[float, List[Floats2d]]): The loss in nats, a mean over Docs, and its gradient times loss_weight.
        """
        examples = list(examples)
        scheme, crf = self._scheme, get_crf(self.model)
        targets: List[TagIds] = []
        rejected: List[List[NumberedSpan]] = []
        for eg in examples:
            annotation = read_annotation(eg, self.incorrect_spans_key, self.skipped)
            annotation = known_labels(annotation, scheme.labels, eg, self.skipped)
            targets.append(to_tags(annotation, scheme))
            if annotation.rejected and not learns_from_rejected(crf):
                self.skipped.add(REJECTED_IGNORED, eg.reference)
                annotation.rejected.clear()
            rejected.append([(start, end, scheme.labels.index(label)) for start, end, label in annotation.rejected])
        shares = example_weights(examples)
        if crf is None:
            loss, d_scores = softmax_loss(scores, targets, weight=self.loss_weight, shares=shares)
        else:
            result = crf_loss(crf, scores, targets, rejected, weight=self.loss_weight, shares=shares)
            loss, d_scores = result.loss, result.d_emissions
            self._count_left_out(result, examples)
        self.skipped.log()
        return loss, d_scores

    def _count_left_out(self, result: CrfLoss, examples: List[Example]) -> None:
        for i in result.impossible:
            self.skipped.add(NO_PATH, examples[i].reference)
        for i, (start, end, label) in result.certain:
            doc = examples[i].predicted
            self.skipped.add(REJECTED_IS_CERTAIN, doc, Span(doc, start, end, label=self.labels[label]))

    def _score(self, docs: List[Doc], keep_preset: bool) -> TagPaths:
        forbidden = [_forbidden_by_preset(doc, self._scheme) for doc in docs] if keep_preset else None
        crf = get_crf(self.model)
        emissions = self.run_model(docs)
        temperature: Any = self.temperature
        module = None if crf is None else decoder(crf)
        return TagPaths(module, emissions, self._scheme.scheme, forbidden, temperature or 1.0)

    def read_entities(self, docs: Sequence[Doc], paths: Sequence[TagIds]) -> List[List[EntitySpan]]:
        """RETURNS (List[List[EntitySpan]]): The entities of a path of each Doc, those that are on it included."""
        return [self._read_entities(doc, tags) for doc, tags in zip(docs, paths)]

    def _read_entities(self, doc: Doc, tags: TagIds) -> List[EntitySpan]:
        """Entities of a path. As in spaCy's own `ner`, none begins or ends on white space."""
        ents = []
        for start, end, label in self._scheme.spans_from_tags(tags.tolist()):
            words = [i for i in range(start, end) if not doc[i].is_space]
            if words:
                ents.append((words[0], words[-1] + 1, label))
        return ents

    def entity_probabilities(
        self, scored: TagPaths, docs: Sequence[Doc], ents: Sequence[Sequence[EntitySpan]]
    ) -> List[float]:
        """Exact probabilities of entities, whether predicted or not, with or without white space at their ends.

        scored (TagPaths): Tag scores of the Docs.
        docs (Sequence[Doc]): The Docs.
        ents (Sequence[Sequence[EntitySpan]]): Entities of each Doc, by tokens, with labels that the head has.
        RETURNS (List[float]): 0 to 1, Doc after Doc.
        """
        numbers = {label: number for number, label in enumerate(self.labels)}
        spans: List[Tuple[int, NumberedSpan]] = []
        owners: List[int] = []
        n_ents = 0
        for i, (doc, found) in enumerate(zip(docs, ents)):
            for start, end, label in found:
                starts, ends = [start], [end]
                while starts[-1] > 0 and doc[starts[-1] - 1].is_space:
                    starts.append(starts[-1] - 1)
                while ends[-1] < len(doc) and doc[ends[-1]].is_space:
                    ends.append(ends[-1] + 1)
                variants = [(i, (first, last, numbers[label])) for first in starts for last in ends]
                spans += variants
                owners += [n_ents] * len(variants)
                n_ents += 1
        probabilities = numpy.zeros(n_ents)
        numpy.add.at(probabilities, owners, numpy.exp(scored.span_log_probabilities(spans).astype("float64")))
        return [float(value) for value in probabilities.clip(0.0, 1.0)]

    def candidates(
        self, scored: TagPaths, docs: Sequence[Doc], threshold: float
    ) -> List[List[Tuple[EntitySpan, float]]]:
        """All entities of at least some probability and at most LONGEST_CANDIDATE tokens. They may overlap.

        scored (TagPaths): Tag scores of the Docs.
        docs (Sequence[Doc]): The Docs.
        threshold (float): The probability, above 0. The lower, the more entities have to be looked at.
        RETURNS (List[List[Tuple[EntitySpan, float]]]): For each Doc entities and their probabilities, likeliest first.
        """
        possible = [
            self._possible_entities(doc, marginals, threshold) for doc, marginals in zip(docs, scored.marginals())
        ]
        probabilities = iter(self.entity_probabilities(scored, docs, possible))
        found = []
        for ents in possible:
            rated = [(ent, probability) for ent, probability in zip(ents, probabilities) if probability >= threshold]
            found.append(sorted(rated, key=lambda pair: (-pair[1], pair[0])))
        return found

    def _possible_entities(self, doc: Doc, marginals: numpy.ndarray, threshold: float) -> List[EntitySpan]:
        """Entities that can have a probability: no entity is likelier than that any of its tokens is in one of its
        label, nor than that its first token begins one, if no white space can begin it.

        marginals (numpy.ndarray): Probability of each tag on each token. Float, (n_tokens, n_tags).
        """
        if not len(doc):
            return []
        threshold -= 1e-6  # sums of marginals are rounded
        space = numpy.array([token.is_space for token in doc], dtype=bool)
        ents = []
        for label, (first, inside, last, single) in zip(self.labels, self._scheme.span_tags):
            within = marginals[:, sorted({first, inside, last, single})].sum(1) >= threshold
            begins = marginals[:, sorted({first, single})].sum(1) >= threshold
            begins[1:] |= space[:-1]
            for start in numpy.flatnonzero(within & begins & ~space).tolist():
                for end in range(start + 1, min(start + LONGEST_CANDIDATE, len(doc)) + 1):
                    if not within[end - 1]:
                        break
                    if not space[end - 1]:
                        ents.append((start, end, label))
        return ents


def _reference_labels(example: Example) -> List[str]:
    """Labels of all entities, also of those that do not align with the tokens."""
    try:
        return [ent.label_ for ent in example.reference.ents]
    except ValueError:  # E093; read_annotation counts it
        return []


def _forbidden_by_preset(doc: Doc, scheme: TagScheme) -> Optional[numpy.ndarray]:
    """Tags that would change the entities on a Doc, or put one over blocked tokens. None if there are neither.

    The tags of a preset entity are forced, so that the path around it is the best one that has this entity; of one
    with a label the model does not know, every token is outside. Bool, (n_tokens, n_tags).
    """
    ents, blocked = find_preset(doc)
    if not ents and not blocked:
        return None
    known = [(ent.start, ent.end, ent.label_) for ent in ents if ent.label_ in scheme.labels]
    tags = scheme.tags_from_spans(len(doc), known)
    forbidden = numpy.zeros((len(doc), len(scheme.tags)), dtype=bool)
    for span in [*ents, *blocked]:
        forbidden[span.start : span.end] = True
    fixed = forbidden[:, 0].nonzero()[0]
    forbidden[fixed, numpy.array(tags)[fixed]] = False
    for _, end, _ in known:
        if end < len(doc):
            forbidden[end] |= scheme.extends_from(tags[end - 1])
    return forbidden
