"""What all heads share: learning from a batch, and letting go of the encoder's outputs."""

from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Tuple, Union

from spacy.tokens import Doc
from spacy.training import Example, validate_examples
from spacy_transformers.layers import TransformerListener
from thinc.api import Model, Optimizer, set_dropout_rate

from ..errors import BertHeadsError
from ..layers.torch_shim import step_pending
from ..models.encoder import initialize_encoders
from ..models.ngrams import learn_ngrams
from ..models.outputs import release_outputs


class NotRehearsed:
    """A component that refuses `nlp.rehearse`, in which spaCy passes over those that cannot, or runs its own heads'
    on a loss that is not ours.
    """

    name: str

    def rehearse(self, examples: Iterable[Example], **kwargs: Any) -> Dict[str, float]:
        """RAISES (BertHeadsError): H274, which says what to do instead."""
        raise BertHeadsError("H274", component=self.name)


class Head(NotRehearsed):
    """A component over an encoder's outputs. Its other base class is one of spaCy's trainable components.

    Subclasses give the loss, and call `release` when they have annotated Docs: the encoder counts on it where it is
    told not to keep its outputs.
    """

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
