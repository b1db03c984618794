"""Spans generated one after the other by a decoder that points at tokens."""

from typing import Any, Callable, List, Optional, Sequence, Tuple, cast

import numpy
from spacy.tokens import Doc
from thinc.api import Model, concatenate
from thinc.types import Floats2d

from ..defaults import HEAD_LR_SCALE
from ..errors import BertHeadsError
from ..layers.head_layers import check_sizes
from ..layers.pointer.layer import (
    PointerSettings,
    PointerText,
    name_labels,
    pointer_decoder,
    pointer_log_probabilities,
    pointer_loss,
    pointer_memory,
    pointer_readings,
    too_many,
)
from ..layers.readings import Generated, NumberedSpan
from .encoder import is_encoder
from .generation import GENERATOR, Generator, Target, Text
from .head_on_vectors import forward_tokens, set_n_labels
from .listeners import replace_listener, token_vectors


def build_pointer_generator_v1(
    tok2vec: Model[List[Doc], List[Floats2d]],
    width: int = 256,
    depth: int = 2,
    heads: int = 4,
    window: int = 192,
    overlap: int = 64,
    lr_scale: float = HEAD_LR_SCALE,
    features: Optional[Model[List[Doc], List[Floats2d]]] = None,
    nO: Optional[int] = None,
) -> Model[List[Doc], List[Floats2d]]:
    """A transformer decoder that points at tokens. Registered as spacy_bert_heads.PointerGenerator.v1.

    tok2vec (Model): spacy_bert_heads.TokenListener.v1, any other tok2vec of spaCy's, or an encoder of the head's own:
        an encoder architecture, or spacy_bert_heads.TokenVectors.v1 around one.
    width (int): Width of the decoder; divisible by `heads`.
    depth (int): Layers of the decoder.
    heads (int): Attention heads of each layer.
    window (int): Tokens that the decoder reads at once. Longer Docs are cut, and their parts are decoded together.
    overlap (int): Tokens that neighbouring windows share. Spans longer than half of it may be lost where they cross
        the end of a window.
    lr_scale (float): Multiplies the learning rate of the decoder.
    features (Optional[Model]): More vectors for each token, concatenated with those of tok2vec.
    nO (Optional[int]): Number of labels, if known.
    RETURNS (Model): Docs to what the decoder reads, float (n_tokens, width) per Doc. What it makes of that comes from
        the model's Generator.
    RAISES (BertHeadsError): H206 for a width that the heads cannot share, H261 for sizes below 1, H273 for an overlap
        of more than half a window.

    SOURCE: Yan et al. (2021), arXiv 2106.01223.
    """
    check_sizes(width=width, layers=depth, heads=heads, window=window)
    if width % heads:
        raise BertHeadsError("H206", found=width, heads=heads)
    if not 0 <= overlap <= window // 2:
        raise BertHeadsError("H273", name="overlap", found=overlap, expected=f"0 to {window // 2}, half a window")
    if is_encoder(tok2vec):
        tok2vec = token_vectors(replace_listener(cast(Model, tok2vec)), pooling="first", grad_factor=1.0)
    vectors = tok2vec if features is None else concatenate(tok2vec, features)
    memory = pointer_memory(width, lr_scale)
    decoder = pointer_decoder(nO, width=width, depth=depth, heads=heads, lr_scale=lr_scale)
    model: Model = Model(
        "pointer_generator",
        forward_tokens,
        init=_init,
        layers=[vectors, memory, decoder],
        dims={"nO": nO},
        attrs={GENERATOR: PointerGenerator(window, overlap)},
    )
    model.set_ref("tok2vec", tok2vec)
    model.set_ref("output_layer", memory)
    return model


class PointerGenerator(Generator):
    """See Generator.

    window, overlap (int): See build_pointer_generator_v1.
    """

    def __init__(self, window: int, overlap: int) -> None:
        self.window = window
        self.overlap = overlap

    def learn_labels(self, model: Model, labels: Sequence[str], read: Callable[[str], Any]) -> None:
        vectors, memory, decoder = model.layers
        found = [read(label) for label in labels]
        name_labels(decoder, [None if rows is None else memory.predict([rows])[0] for rows in found])

    def can_say(self, model: Model, text: Text, spans: Sequence[NumberedSpan], nested: bool) -> bool:
        return not too_many(int((text.free & ~text.closed).sum()), spans)

    def loss(
        self,
        model: Model,
        texts: Sequence[Text],
        outputs: Any,
        spans: Sequence[Target],
        nested: bool,
        weight: float,
        shares: Optional[numpy.ndarray] = None,
    ) -> Tuple[float, Any]:
        settings = self._settings(nested)
        return pointer_loss(*self._given(model, texts, outputs), spans, settings, weight=weight, shares=shares)

    def log_probabilities(
        self, model: Model, texts: Sequence[Text], outputs: Any, spans: Sequence[Sequence[NumberedSpan]], nested: bool
    ) -> List[float]:
        return pointer_log_probabilities(*self._given(model, texts, outputs), spans, self._settings(nested))

    def readings(self, model: Model, texts: Sequence[Text], outputs: Any, n: int, nested: bool) -> List[Generated]:
        return pointer_readings(*self._given(model, texts, outputs), n, self._settings(nested))

    def _given(self, model: Model, texts: Sequence[Text], outputs: Any) -> Tuple[Model, Any, List[PointerText]]:
        return model.layers[2], outputs, [PointerText(text.free, text.closed) for text in texts]

    def _settings(self, nested: bool) -> PointerSettings:
        return PointerSettings(self.window, self.overlap, nested)


def _init(model: Model, X: Optional[List[Doc]] = None, Y: Any = None) -> None:
    set_n_labels(model, Y)
    vectors, memory, decoder = model.layers
    vectors.initialize(X)
    memory.set_dim("nI", vectors.get_dim("nO"))
    memory.initialize()
    decoder.set_dim("nO", model.get_dim("nO"))
    decoder.initialize()
