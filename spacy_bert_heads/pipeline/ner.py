"""`bert_ner`: named entities by BERT, BiLSTM and CRF."""

from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple, Union

import numpy
from spacy.attrs import ENT_IOB, ORTH
from spacy.errors import Errors
from spacy.language import Language
from spacy.pipeline import TrainablePipe
from spacy.tokens import Doc, Span
from spacy.training import Example, validate_get_examples
from spacy.vocab import Vocab
from thinc.api import Model, Optimizer
from thinc.types import Floats2d

from ..errors import BertHeadsError
from ..layers.crf import crf_loss, softmax_decode, softmax_loss
from ..models.encoder import initialize_encoders
from ..models.heads import get_crf
from ..tags import TagScheme
from ..types import TagIds
from .update import update_head

# Lowers the scores of tags that do not fit the entities on a Doc; finite, since it takes part in sums
FORBIDDEN = -1e4


class BertEntityRecognizer(TrainablePipe):
    """Sets `doc.ents` from tag scores per token, decoded by the model's CRF or token by token.

    Entities that are on a Doc already stay, and nothing is predicted over them or over blocked tokens.

    vocab (Vocab): The shared vocabulary.
    model (Model): Docs to emissions, such as spacy_bert_heads.BiLSTMCRF.v1.
    name (str): The component's name.
    scorer (Optional[Callable]): The scoring method.
    """

    def __init__(self, vocab: Vocab, model: Model, name: str, *, scorer: Optional[Callable]) -> None:
        self.vocab = vocab
        self.model = model
        self.name = name
        self.scorer = scorer
        self.cfg: Dict[str, Any] = {"labels": []}
        self._cached_scheme: Optional[TagScheme] = None

    @property
    def labels(self) -> Tuple[str, ...]:
        """RETURNS (Tuple[str, ...]): The entity labels."""
        return tuple(self.cfg["labels"])

    @property
    def label_data(self) -> List[str]:
        """RETURNS (List[str]): The labels in the form `spacy init labels` saves."""
        return list(self.labels)

    @property
    def tags(self) -> List[str]:
        """RETURNS (List[str]): The tags the model scores, in the order of its output."""
        return self._scheme.tags

    @property
    def _scheme(self) -> TagScheme:
        if self._cached_scheme is None or tuple(self._cached_scheme.labels) != self.labels:
            self._cached_scheme = TagScheme(self.model.attrs.get("scheme", "bio"), self.labels)
        return self._cached_scheme

    def add_label(self, label: str) -> int:
        """Add an entity label; possible until the model is initialised.

        RETURNS (int): 1 if the label is new, 0 if not.
        """
        if not isinstance(label, str):
            raise ValueError(Errors.E187)
        if label in self.labels:
            return 0
        if self.model.has_dim("nO"):
            raise ValueError(Errors.E922.format(name=self.name, nO=self.model.get_dim("nO")))
        self.cfg["labels"].append(label)
        self.vocab.strings.add(label)
        return 1

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Optional[Language] = None,
        labels: Optional[Iterable[str]] = None,
        vocab: Optional[Union[str, Path]] = None,
    ) -> None:
        """Learn the labels and build the model.

        get_examples (Callable[[], Iterable[Example]]): The training corpus.
        nlp (Optional[Language]): The pipeline.
        labels (Optional[Iterable[str]]): Entity labels, as from `spacy init labels`; None reads them off the corpus.
        vocab (Optional[Union[str, Path]]): For a private encoder from scratch; see BertEncoder.initialize.
        RAISES (BertHeadsError): H301 if the corpus has labels that are not among the given ones, H302 if there is
            no label at all.
        """
        validate_get_examples(get_examples, "BertEntityRecognizer.initialize")
        seen: Dict[str, None] = {}
        sample: List[Doc] = []
        for eg in get_examples():
            seen.update((ent.label_, None) for ent in eg.reference.ents)
            if len(sample) < 10:
                sample.append(eg.reference)
        given = list(seen) if labels is None else list(labels)
        unknown = set(seen) - set(given) - set(self.labels)
        if unknown:
            raise BertHeadsError("H301", found=", ".join(sorted(unknown)), component=self.name)
        for label in given:
            self.add_label(label)
        if not self.labels:
            raise BertHeadsError("H302", component=self.name)
        docs = (eg.reference for eg in get_examples())
        initialize_encoders(self.model, docs, None if vocab is None else Path(vocab))
        if self.model.has_dim("nO") is None:
            self.model.set_dim("nO", len(self.tags))
        self.model.initialize(X=sample)

    def predict(self, docs: Iterable[Doc]) -> List[TagIds]:
        """The best tags of each Doc. Int, (n_tokens,) per Doc."""
        docs = list(docs)
        if not docs:
            return []
        emissions = [_keep_preset(doc, scores, self._scheme) for doc, scores in zip(docs, self.model.predict(docs))]
        crf = get_crf(self.model)
        return softmax_decode(emissions) if crf is None else crf.predict(emissions)

    def set_annotations(self, docs: Iterable[Doc], scores: List[TagIds]) -> None:
        """Write the entities that tags stand for.

        docs (Iterable[Doc]): The Docs.
        scores (List[TagIds]): What `predict` gave for them.
        """
        scheme = self._scheme
        for doc, tag_ids in zip(docs, scores):
            preset, blocked = list(doc.ents), _blocked(doc)
            taken = {i for span in [*preset, *blocked] for i in range(span.start, span.end)}
            ents = []
            for start, stop, label in scheme.spans_from_tags(tag_ids.tolist()):
                # As in spaCy's own `ner`, no entity begins or ends on white space
                words = [i for i in range(start, stop) if not doc[i].is_space]
                if words and taken.isdisjoint(words):
                    ents.append(Span(doc, words[0], words[-1] + 1, label=label))
            doc.set_ents(preset + ents, blocked=blocked, default="outside")

    def update(
        self,
        examples: Iterable[Example],
        *,
        drop: float = 0.0,
        sgd: Optional[Optimizer] = None,
        losses: Optional[Dict[str, float]] = None,
    ) -> Dict[str, float]:
        """Learn from a batch.

        examples (Iterable[Example]): The batch. Docs without entity annotation neither help nor hurt.
        drop (float): The head's dropout.
        sgd (Optional[Optimizer]): Steps the head at once.
        losses (Optional[Dict[str, float]]): Gets the loss under the component's name.
        RETURNS (Dict[str, float]): The losses.
        """
        return update_head(self, examples, drop=drop, sgd=sgd, losses=losses)

    def get_loss(self, examples: Iterable[Example], scores: List[Floats2d]) -> Tuple[float, List[Floats2d]]:
        """The loss of a batch and its gradient; see layers.crf.

        scores (List[Floats2d]): The model's emissions. Float, (n_tokens, n_tags) per Doc.
        """
        targets = [gold_tags(eg, self._scheme) for eg in examples]
        crf = get_crf(self.model)
        return softmax_loss(scores, targets) if crf is None else crf_loss(crf, scores, targets)


def gold_tags(example: Example, scheme: TagScheme) -> TagIds:
    """Gold tags for the tokens of the predicted Doc.

    example (Example): Predicted and reference Doc, whose tokens may differ.
    scheme (TagScheme): Labels and how their entities become tags.
    RETURNS (TagIds): UNKNOWN where there is no annotation, where the tokens cannot be aligned, and for labels that
        the scheme does not have.
    """
    if _same_tokens(example):
        ents = example.reference.ents
        missing = example.reference.to_array(ENT_IOB) == 0
    else:
        ents, tags = example.get_aligned_ents_and_ner()
        missing = numpy.array([tag in (None, "-") for tag in tags], dtype=bool)
    spans = []
    for ent in ents:
        if ent.label_ in scheme.labels:
            spans.append((ent.start, ent.end, ent.label_))
        else:
            missing[ent.start : ent.end] = True
    return numpy.array(scheme.tags_from_spans(len(example.predicted), spans, missing), dtype="int64")


def _same_tokens(example: Example) -> bool:
    """Aligning is the slow part of reading gold tags, and seldom needed."""
    return len(example.predicted) == len(example.reference) and bool(
        (example.predicted.to_array(ORTH) == example.reference.to_array(ORTH)).all()
    )


def _blocked(doc: Doc) -> List[Span]:
    """Tokens that `doc.set_ents(blocked=...)` closed to entities."""
    return [doc[token.i : token.i + 1] for token in doc if token.ent_iob == 3 and token.ent_type == 0]


def _keep_preset(doc: Doc, emissions: Floats2d, scheme: TagScheme) -> Floats2d:
    """Emissions that leave the entities on a Doc as they are, and blocked tokens outside.

    The tags of a preset entity are forced, so that the path around it is the best one that has this entity; of one
    with a label the model does not know, every token is outside.
    """
    ents, blocked = list(doc.ents), _blocked(doc)
    if not ents and not blocked:
        return emissions
    known = [(ent.start, ent.end, ent.label_) for ent in ents if ent.label_ in scheme.labels]
    tags = scheme.tags_from_spans(len(doc), known)
    wanted = numpy.zeros(emissions.shape, dtype=bool)
    fixed = numpy.zeros(len(doc), dtype=bool)
    for span in [*ents, *blocked]:
        fixed[span.start : span.end] = True
    wanted[numpy.arange(len(doc)), tags] = True
    forbidden = fixed[:, None] & ~wanted
    for _, end, _ in known:
        if end < len(doc):
            forbidden[end] |= scheme.extends_from(tags[end - 1])
    lowered: Any = emissions.copy()
    lowered[forbidden] += FORBIDDEN
    return lowered
