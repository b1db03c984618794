"""What lies on the Docs: the encoder's outputs in spacy-transformers' form, wordpieces as text only when asked for."""

from functools import cached_property
from typing import Any, List, Optional, Set, Tuple

import numpy
from spacy.tokens import Doc
from spacy_transformers.data_classes import TransformerData, WordpieceBatch
from spacy_transformers.layers import TransformerListener
from thinc.api import Model

from ..layers.special_tokens import SpecialTokens
from ..types import Ints
from .windows import WindowedDoc


class Wordpieces(WordpieceBatch):
    """The wordpieces of one Doc, put into arrays and strings when somebody reads them. Pickled as plain ones.

    doc (WindowedDoc): The Doc's windows.
    special (SpecialTokens): What is around each window.
    tokenizer (Any): Hugging Face's.
    """

    token_type_ids = None

    def __init__(self, doc: WindowedDoc, special: SpecialTokens, tokenizer: Any) -> None:
        self._doc = doc
        self._special = special
        self._tokenizer = tokenizer

    def __len__(self) -> int:
        return len(self._doc.windows)

    def __reduce__(self) -> Tuple[Any, ...]:
        return WordpieceBatch, (self.strings, self.input_ids, self.attention_mask, self.lengths, None)

    @cached_property
    def lengths(self) -> List[int]:  # type: ignore[override]
        return [len(window) for window in self._window_ids()]

    @cached_property
    def input_ids(self) -> Any:  # type: ignore[override]
        ids = numpy.full((len(self), max(self.lengths)), self._special.pad, dtype="int64")
        for row, window in enumerate(self._window_ids()):
            ids[row, : len(window)] = window
        return ids

    @cached_property
    def attention_mask(self) -> Any:  # type: ignore[override]
        columns = numpy.arange(max(self.lengths))
        return (columns < numpy.array(self.lengths)[:, None]).astype("float32")

    @cached_property
    def strings(self) -> List[List[str]]:  # type: ignore[override]
        return [self._tokenizer.convert_ids_to_tokens(window) for window in self._window_ids()]

    def _window_ids(self) -> List[List[int]]:
        return [self._doc.inputs(window)[0] for window in self._doc.windows]


class EncoderOutputs(TransformerData):
    """Outputs for one Doc that know who is still to read them.

    waiting_for (Optional[Set[int]]): Ids of listeners that have not; when the last has, the outputs go. None: they
        stay.
    token_lengths (Optional[Ints]): Characters of each token that was read, so that heads see when tokens have changed.
        Int, (n_tokens,).
    """

    waiting_for: Optional[Set[int]] = None
    token_lengths: Optional[Ints] = None


def own_memory(outputs: TransformerData) -> None:
    """Copy the arrays of one Doc, which are parts of its batch's and would keep all of that in memory."""
    named = outputs.model_output
    for name, value in list(named.items()):
        named[name] = [array.copy() for array in value] if isinstance(value, list) else value.copy()


def release_outputs(model: Model, docs: List[Doc]) -> None:
    """Called by a head when it has annotated Docs: outputs that nobody else waits for are taken off them.

    model (Model): The head's, with its listener.
    docs (List[Doc]): The Docs.
    """
    listeners = {node.id for node in model.walk() if isinstance(node, TransformerListener)}
    for doc in docs:
        outputs = doc._.trf_data if listeners else None
        if isinstance(outputs, EncoderOutputs) and outputs.waiting_for is not None:
            outputs.waiting_for -= listeners
            if not outputs.waiting_for:
                doc._.trf_data = None
