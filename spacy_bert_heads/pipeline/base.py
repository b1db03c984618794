"""What all heads share: learning from a batch, and letting go of the encoder's outputs."""

from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Tuple, Union

import numpy
from spacy.errors import Errors
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example, validate_examples
from spacy.util import logger
from spacy.vocab import Vocab
from spacy_transformers.layers import TransformerListener
from thinc.api import Model, Optimizer, set_dropout_rate

from ..errors import BertHeadsError
from ..extensions import get_silver
from ..factory_names import finds_entities
from ..layers.torch_shim import step_pending
from ..models.encoder import initialize_encoders
from ..models.ngrams import learn_ngrams
from ..models.outputs import release_outputs
from .fitted import Fitted

# Docs whose encoder outputs are in memory together where a head is asked about Docs outside of a pipeline
SCORED_AT_ONCE = 128


class NotRehearsed:
    """A component that refuses `nlp.rehearse`, in which spaCy passes over those that cannot, or runs its own heads'
    on a loss that is not ours.
    """

    name: str

    def rehearse(self, examples: Iterable[Example], **kwargs: Any) -> Dict[str, float]:
        """RAISES (BertHeadsError): H274, which says what to do instead."""
        raise BertHeadsError("H274", component=self.name)


def example_weights(examples: Iterable[Example]) -> Optional[numpy.ndarray]:
    """How much each Example counts in a loss: `doc._.silver` of its reference, 1 where people have annotated it.

    examples (Iterable[Example]): The batch.
    RETURNS (Optional[numpy.ndarray]): Float, (n_examples,). None if all count alike.
    """
    found = [get_silver(eg.reference) for eg in examples]
    if all(weight is None for weight in found):
        return None
    return numpy.array([1.0 if weight is None else weight for weight in found], dtype="float32")


def check_spans_keys(*keys: Optional[str]) -> None:
    """RAISES (BertHeadsError): H273 if two of a component's keys of `doc.spans` are the same. The first is where it
    writes; None is none.
    """
    given = [key for key in keys if key is not None]
    if len(set(given)) < len(given):
        raise BertHeadsError("H273", name="spans_key", found=repr(keys[0]), expected="three different keys")


def check_places(component: Any, nlp: Language, *, spans_key: Optional[str], writes_ents: bool) -> None:
    """See that no other component of a pipeline writes where this one does.

    component (Any): It is about to be initialised.
    nlp (Language): Its pipeline.
    spans_key (Optional[str]): Key of `doc.spans` that it writes. None: none.
    writes_ents (bool): Whether it writes `doc.ents`.
    RAISES (BertHeadsError): H365 if another one does.
    """
    for name, other in nlp.pipeline:
        if other is component or name == component.name:
            continue
        # Ours, spaCy's trainable ones, and its ruler
        config = getattr(other, "cfg", None) or {}
        keys = getattr(other, "spans_key", None), config.get("spans_key"), getattr(other, "key", None)
        if spans_key is not None and spans_key in keys:
            raise BertHeadsError("H365", component=component.name, found=name, place=f"doc.spans[{spans_key!r}]")
        factory = nlp.get_pipe_meta(name).factory
        if writes_ents and (getattr(other, "annotate_ents", False) or finds_entities(factory, other)):
            raise BertHeadsError("H365", component=component.name, found=name, place="doc.ents")


class Head(NotRehearsed, Fitted):
    """A component over an encoder's outputs. Its other base class is one of spaCy's trainable components.

    Subclasses give the loss, and call `release` when they have annotated Docs: the encoder counts on it where it is
    told not to keep its outputs.
    """

    # Called with the Docs and what the model makes of them, before anything fitted is applied, at each prediction.
    # It is no setting, but for those who fit
    observer: Optional[Callable[[List[Doc], Any], None]] = None

    # From spaCy's TrainablePipe
    model: Model
    finish_update: Callable[[Optimizer], None]
    # The last encoder before it in the pipeline that it can listen to, which the encoder itself puts here
    encoder: Optional[Any] = None

    def get_loss(self, examples: Iterable[Example], scores: Any) -> Tuple[float, Any]:
        """The loss of a batch in nats, and its gradient for the model's scores."""
        raise NotImplementedError

    def update(
        self,
        examples: Iterable[Example],
        *,
        drop: float = 0.0,
        sgd: Optional[Optimizer] = None,
        losses: Optional[Dict[str, float]] = None,
    ) -> Dict[str, float]:
        """Learn from a batch. As spaCy's components do it, but a batch of empty Docs counts as well.

        Temperature, thresholds and sets that were fitted to the weights go; a warning says so.

        examples (Iterable[Example]): The batch. Docs without annotation for this head neither help nor hurt.
        drop (float): The head's dropout.
        sgd (Optional[Optimizer]): Gets the gradients at once, to step with them.
        losses (Optional[Dict[str, float]]): Gets the loss under the component's name.
        RETURNS (Dict[str, float]): The losses.
        """
        examples = list(examples)
        validate_examples(examples, f"{type(self).__name__}.update")
        losses = {} if losses is None else losses
        losses.setdefault(self.name, 0.0)
        if not examples:
            return losses
        gone = self.forget_fitted()
        if gone:
            logger.warning(BertHeadsError("H600", component=self.name, found=", ".join(gone)).text)
        # Here, not only in each of our modules: layers of thinc's own may come first
        step_pending(self.model)
        set_dropout_rate(self.model, drop)
        scores, backprop = self.model.begin_update([eg.predicted for eg in examples])
        loss, d_scores = self.get_loss(examples, scores)
        backprop(d_scores)
        if sgd not in (None, False):
            self.finish_update(sgd)
        losses[self.name] += loss
        return losses

    def run_model(self, docs: List[Doc]) -> Any:
        """RETURNS (Any): The model's output for Docs, in prediction."""
        step_pending(self.model)
        return self.model.predict(docs)

    @contextmanager
    def encoded(self, docs: List[Doc]) -> Iterator[None]:
        """Within it the Docs have the encoder's outputs: where they are gone, as in a pipeline with
        keep_outputs = false, the encoder reads the Docs again, and afterwards they go again.

        docs (List[Doc]): Docs of this pipeline. Their text counts, not what is annotated on them.
        """
        listens = any(isinstance(node, TransformerListener) for node in self.model.walk())
        bare = [doc for doc in docs if doc._.trf_data is None] if listens else []
        if bare and self.encoder is not None:
            for doc, outputs in zip(bare, self.encoder.predict(bare).doc_data):
                doc._.trf_data = outputs
        try:
            yield
        finally:
            for doc in bare:
                doc._.trf_data = None

    def release(self, docs: List[Doc]) -> None:
        """Called when this head has annotated Docs. Outputs of the encoder that nobody else waits for go."""
        release_outputs(self.model, docs)

    def learn_vocabulary(
        self, get_examples: Callable[[], Iterable[Example]], vocab: Optional[Union[str, Path]]
    ) -> None:
        """Show the whole corpus to what learns from it before the model is initialised, for which ten Docs do: a
        private encoder from scratch, n-grams.

        get_examples (Callable[[], Iterable[Example]]): The training corpus.
        vocab (Optional[Union[str, Path]]): A vocabulary file to use instead of learning one; see
            BertEncoder.initialize.
        """
        docs = (eg.reference for eg in get_examples())
        initialize_encoders(self.model, docs, None if vocab is None else Path(vocab))
        learn_ngrams(self.model, (eg.predicted for eg in get_examples()))


class TokenHead(Head):
    """A head over token vectors, whose labels are in its `cfg` and stay as they are once the model is initialised."""

    name: str
    vocab: Vocab

    @property
    def labels(self) -> Tuple[str, ...]:
        """RETURNS (Tuple[str, ...]): The labels."""
        return tuple(self.cfg["labels"])

    @property
    def label_data(self) -> List[str]:
        """RETURNS (List[str]): The labels in the form `spacy init labels` saves."""
        return list(self.labels)

    def add_label(self, label: str) -> int:
        """Add a label; possible until the model is initialised.

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

    def take_labels(self, seen: Iterable[str], rejected: Iterable[str], labels: Optional[Iterable[str]]) -> None:
        """Add the labels to be learned.

        seen (Iterable[str]): Those of the training corpus.
        rejected (Iterable[str]): Those of its rejected spans, "" for any.
        labels (Optional[Iterable[str]]): Those that were given. None: those of the corpus, rejected ones last.
        RAISES (BertHeadsError): H301 if the corpus has labels that are not among the given ones.
        """
        given = list(dict.fromkeys([*seen, *filter(None, rejected)])) if labels is None else list(labels)
        unknown = set(seen) - set(given) - set(self.labels)
        if unknown:
            raise BertHeadsError("H301", found=", ".join(sorted(unknown)), component=self.name)
        for label in given:
            self.add_label(label)
