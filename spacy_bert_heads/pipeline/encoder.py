"""`bert_encoder`: one forward pass shared by every head, gradients collected by name, one backward pass."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any, Callable, ContextManager, Dict, Iterable, List, Optional, Set, Union, cast

from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example, validate_examples, validate_get_examples
from spacy.util import SimpleFrozenList
from spacy.vocab import Vocab
from spacy_transformers.data_classes import FullTransformerBatch, TransformerData
from spacy_transformers.layers import TransformerListener
from spacy_transformers.pipeline_component import Transformer, install_extensions
from thinc.api import Model, Optimizer, set_dropout_rate
from transformers.file_utils import ModelOutput

from ..errors import BertHeadsError
from ..layers.encoder_shim import EncoderShim
from ..layers.torch_shim import CollectingOptimizer
from ..models.encoder import initialize_encoders, is_encoder
from ..models.outputs import EncoderOutputs, own_memory
from .base import Head, NotRehearsed

# Beside spaCy's "model" and "cfg" in the component's folder
WEIGHTS_FILE = "weights.safetensors"


class PendingBatch:
    """A forward pass whose heads have not all sent their gradients yet.

    docs (List[Doc]): The batch.
    waiting_for (Set[int]): Ids of the listeners that have not answered.
    """

    def __init__(
        self,
        docs: List[Doc],
        doc_data: List[TransformerData],
        backprop: Callable[[List[TransformerData]], Any],
        waiting_for: Set[int],
    ) -> None:
        self.docs = docs
        self.doc_data = doc_data
        self.backprop = backprop
        self.waiting_for = waiting_for
        self.gradients: List[Dict[str, Any]] = [{} for _ in doc_data]
        self.sgd: Optional[Optimizer] = None

    @property
    def has_gradients(self) -> bool:
        """RETURNS (bool): Whether any listener has sent a gradient."""
        return any(self.gradients)

    def add(self, d_doc_data: List[TransformerData]) -> float:
        """Add one listener's gradients, name by name.

        d_doc_data (List[TransformerData]): One for each Doc.
        RETURNS (float): Sum of the squared gradients.
        """
        total = 0.0
        assert len(d_doc_data) == len(self.gradients)
        for gradients, d_data in zip(self.gradients, d_doc_data):
            for name, array in d_data.model_output.items():
                for part in array if isinstance(array, list) else [array]:
                    total += 0.0 if part is None else float((part**2).sum())
                gradients[name] = _add(gradients.get(name), array)
        return total

    def run_backward(self) -> None:
        """Send the gradients collected so far into the encoder."""
        self.backprop(
            [
                TransformerData(model_output=ModelOutput(gradients), wordpieces=data.wordpieces, align=data.align)
                for gradients, data in zip(self.gradients, self.doc_data)
            ]
        )


class BertEncoder(NotRehearsed, Transformer):
    """Runs a BERT once over each Doc and leaves its outputs on `doc._.trf_data` for the heads behind it.

    Gradients are collected by output name from whichever heads take part in an update, so a frozen or disabled head
    keeps nothing from the others. spaCy's own listeners are served too.

    vocab (Vocab): The shared vocabulary.
    model (Model): spacy_bert_heads.BertEncoder.v1 or spacy_bert_heads.BertFromScratch.v1.
    set_extra_annotations (Callable): Called with the Docs and the outputs after each prediction.
    name (str): The component's name.
    max_batch_items (int): Most wordpieces, padding included, that go through the encoder at once, also in training.
    keep_outputs (bool): Whether outputs stay on the Docs. If not, they are removed once every head of this package
        that listens has annotated the Docs. If another component listens too, or a head is disabled, they stay.
    RAISES (BertHeadsError): H251 for a model of another architecture.
    """

    def __init__(
        self,
        vocab: Vocab,
        model: Model[List[Doc], FullTransformerBatch],
        set_extra_annotations: Callable,
        *,
        name: str,
        max_batch_items: int,
        keep_outputs: bool,
    ) -> None:
        if not is_encoder(model):
            raise BertHeadsError("H251")
        super().__init__(vocab, model, set_extra_annotations, name=name, max_batch_items=max_batch_items)
        model.attrs["settings"].max_batch_pieces = max_batch_items
        self.keep_outputs = keep_outputs
        # Ids of all listeners ever found, and whether their components release outputs: listener_map forgets those
        # that are disabled while a pipeline is loaded, and they may be enabled later
        self._readers: Dict[int, bool] = {}
        self._pending: Optional[PendingBatch] = None

    def find_listeners(self, component: Any) -> None:
        """Find listeners as spacy-transformers does, and remember which of them will read the outputs. Heads of ours
        learn whom they listen to."""
        super().find_listeners(component)
        if isinstance(component, Head) and component.name in self.listener_map:
            component.encoder = self
        for listener in self.listener_map.get(getattr(component, "name", ""), []):
            self._readers[listener.id] = isinstance(component, Head)

    def remove_listener(self, listener: TransformerListener, component_name: str) -> bool:
        self._readers.pop(listener.id, None)
        return super().remove_listener(listener, component_name)

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Optional[Language] = None,
        vocab: Optional[Union[str, Path]] = None,
    ) -> None:
        """Load the encoder, or build it from scratch, and find the heads that listen to it.

        get_examples (Callable[[], Iterable[Example]]): The training corpus, from whose reference texts an encoder
            from scratch learns its vocabulary.
        nlp (Optional[Language]): The pipeline.
        vocab (Optional[Union[str, Path]]): For an encoder from scratch: a `vocab.txt` or `tokenizer.json` to use
            instead. Needed where the corpus is streamed (`max_epochs = -1`), of which spaCy passes 100 texts here.
        """
        validate_get_examples(get_examples, "BertEncoder.initialize")
        initialize_encoders(self.model, (eg.reference for eg in get_examples()), _as_path(vocab))
        if nlp is not None:
            names = nlp.pipe_names
            for _, component in nlp.pipeline[names.index(self.name) :] if self.name in names else ():
                self.find_listeners(component)

    def predict(self, docs: Iterable[Doc]) -> FullTransformerBatch:
        """Encode Docs without changing them. Empty Docs are encoded too: their [CLS] can be classified.

        docs (Iterable[Doc]): The Docs. If they are not those of an update still under way, that update ends first:
            heads that did not take part in it must not meet it later, and the encoder learns from the others.
        RETURNS (FullTransformerBatch): The outputs.
        """
        docs = list(docs)
        if self._pending is not None:
            batch = {id(doc) for doc in self._pending.docs}
            if any(id(doc) not in batch for doc in docs):
                self._finish_pending()
        return self.model.predict(docs)

    def set_annotations(self, docs: Iterable[Doc], predictions: FullTransformerBatch) -> None:
        """Leave the outputs on the Docs, for the heads behind and for whoever reads `doc._.trf_data`.

        docs (Iterable[Doc]): The Docs.
        predictions (FullTransformerBatch): What `predict` gave for them.
        """
        docs = list(docs)
        releases = not self.keep_outputs and bool(self._readers) and all(self._readers.values())
        for outputs in predictions.doc_data:
            if releases:
                cast(EncoderOutputs, outputs).waiting_for = set(self._readers)
            elif len(docs) > 1:
                own_memory(outputs)
        super().set_annotations(docs, predictions)

    def pipe(self, stream: Iterable[Doc], *, batch_size: int = 128) -> Any:
        """Encode a stream, `batch_size` Docs at a time; within those the model sorts by length.

        YIELDS (Doc): The Docs in order.
        """
        install_extensions()
        # TrainablePipe's, which unlike Transformer's keeps to spaCy's error handlers
        return super(Transformer, self).pipe(stream, batch_size=batch_size)

    def update(
        self,
        examples: Iterable[Example],
        *,
        drop: float = 0.0,
        sgd: Optional[Optimizer] = None,
        losses: Optional[Dict[str, float]] = None,
    ) -> Dict[str, float]:
        """Encode a batch for the heads to learn from. The encoder learns when the last of them has answered.

        If one of them never does, being frozen or disabled, the encoder learns from the others in `finish_update`, or
        when it is next used: for an update, to predict, or to be saved.

        examples (Iterable[Example]): The batch, of which only the predicted Docs are used.
        drop (float): Unused: BERT's dropout is set in its own config.
        sgd (Optional[Optimizer]): Steps the encoder as soon as its gradients are there.
        losses (Optional[Dict[str, float]]): Gets the sum of squared gradients under the component's name.
        RETURNS (Dict[str, float]): The losses.
        """
        examples = list(examples)
        validate_examples(examples, "BertEncoder.update")
        losses = {} if losses is None else losses
        losses.setdefault(self.name, 0.0)
        self._finish_pending()
        if not examples or not self.listeners:
            return losses
        docs = [eg.predicted for eg in examples]
        set_dropout_rate(self.model, drop)
        batch, backprop = self.model.begin_update(docs)
        pending = PendingBatch(docs, batch.doc_data, cast(Any, backprop), {listener.id for listener in self.listeners})
        self._pending = pending
        if sgd:
            self._step_later(pending, sgd)

        def receive_from(listener: TransformerListener) -> Callable[[List[TransformerData]], List[Doc]]:
            def receive(d_doc_data: List[TransformerData]) -> List[Doc]:
                losses[self.name] += pending.add(d_doc_data)
                pending.waiting_for.discard(listener.id)
                if not pending.waiting_for and pending is self._pending:
                    self._finish_pending()
                return docs

            return receive

        batch_id = TransformerListener.get_batch_id(docs)
        for listener in self.listeners:
            listener.receive(batch_id, batch.doc_data, receive_from(listener))
        return losses

    def finish_update(self, sgd: Optimizer) -> None:
        """Step the encoder.

        `nlp.update` with an optimizer calls this before any head has answered; the step then waits for them.
        """
        if self._pending is not None and not self._pending.has_gradients:
            self._step_later(self._pending, sgd)
            return
        self._finish_pending()
        super().finish_update(sgd)

    def _step_later(self, pending: PendingBatch, sgd: Optimizer) -> None:
        """Step the encoder when the gradients are there. What is wrong with the optimizer shows now."""
        if isinstance(sgd, CollectingOptimizer):
            sgd.check()
            sgd.wait_for(self._finish_pending)
        pending.sgd = sgd

    def to_bytes(self, *, exclude: Iterable[str] = SimpleFrozenList()) -> bytes:
        """See spaCy's `TrainablePipe.to_bytes`. An update still under way ends first."""
        self._finish_pending()
        return super().to_bytes(exclude=exclude)

    def to_disk(self, path: Union[str, Path], *, exclude: Iterable[str] = SimpleFrozenList()) -> None:
        """See spaCy's `TrainablePipe.to_disk`. An update still under way ends first.

        The weights are in a file of their own, WEIGHTS_FILE, which takes a fraction of the memory to write and load.
        """
        self._finish_pending()
        exclude = list(exclude)
        apart: ContextManager[None] = nullcontext()
        if "model" not in exclude:
            apart = self._shim.weights_apart(Path(path) / WEIGHTS_FILE)
        with apart:
            super().to_disk(path, exclude=exclude)

    def from_disk(self, path: Union[str, Path], *, exclude: Iterable[str] = SimpleFrozenList()) -> "BertEncoder":
        """See spaCy's `TrainablePipe.from_disk`.

        RAISES (BertHeadsError): H291 if the file with the weights is gone, H292 if it is damaged. The encoder is then
            what it was before.
        """
        exclude = list(exclude)
        super().from_disk(path, exclude=exclude)
        if "model" not in exclude:
            self._shim.read_weights(Path(path) / WEIGHTS_FILE)
        return self

    @property
    def _shim(self) -> EncoderShim:
        return cast(EncoderShim, self.model.shims[0])

    def __reduce__(self) -> Any:
        """For pickle, as other processes get it, and deepcopy. An update still under way ends first."""
        self._finish_pending()
        return super().__reduce__()

    def _finish_pending(self) -> None:
        """Run the backward pass of the last batch with what the heads have sent, and the step that waits for it."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        self._release_waiting(pending)
        if not pending.has_gradients:
            return
        pending.run_backward()
        if pending.sgd is not None:
            super().finish_update(pending.sgd)

    def _release_waiting(self, pending: PendingBatch) -> None:
        """Take the batch back from the heads that have not answered."""
        for listener in self.listeners:
            if listener.id in pending.waiting_for:
                listener.receive(None, None, None)


def _add(total: Any, array: Any) -> Any:
    """Sum of two gradients of one name; lists, as of hidden_states, layer by layer. None counts as zero."""
    if total is None:
        return array
    if array is None:
        return total
    if isinstance(array, list):
        return [_add(a, b) for a, b in zip(total, array)]
    return total + array


def _as_path(path: Optional[Union[str, Path]]) -> Optional[Path]:
    return None if path is None else Path(path)
