"""Spans that may overlap: token vectors, a BiLSTM, and a score for each span and label."""

from typing import Any, List, Optional, cast

from spacy.tokens import Doc
from thinc.api import Model, concatenate
from thinc.types import Floats2d

from ..defaults import MAX_SPAN_WIDTH, SPANS_LR_SCALE
from ..layers.global_pointer import global_pointer
from . import head_on_vectors
from .encoder import is_encoder
from .head_on_vectors import forward_tokens
from .listeners import replace_listener, token_vectors


def build_global_pointer_v1(
    tok2vec: Model[List[Doc], List[Floats2d]],
    max_width: Optional[int] = None,
    key_width: int = 64,
    lstm_width: Optional[int] = 256,
    lstm_depth: int = 1,
    lr_scale: float = SPANS_LR_SCALE,
    precision: str = "auto",
    features: Optional[Model[List[Doc], List[Floats2d]]] = None,
    nO: Optional[int] = None,
) -> Model[List[Doc], List[Floats2d]]:
    """Efficient GlobalPointer over token vectors, with scores of the tokens inside. Registered as
    spacy_bert_heads.GlobalPointer.v1.

    tok2vec (Model): spacy_bert_heads.TokenListener.v1, any other tok2vec of spaCy's, or an encoder of the head's own:
        an encoder architecture, or spacy_bert_heads.TokenVectors.v1 around one.
    max_width (Optional[int]): Tokens of the longest span that can be found. Time and memory grow with it. None: those
        of the longest one in the training data, 64 at most.
    key_width (int): Width of the queries and keys that all labels share: an even number.
    lstm_width (Optional[int]): Width of the BiLSTM's output, both directions together: an even number. None: no
        BiLSTM.
    lstm_depth (int): Layers of the BiLSTM.
    lr_scale (float): Multiplies the learning rate of all layers here.
    precision (str): What the BiLSTM computes in when it predicts, by the names of the encoder's precisions.
    features (Optional[Model]): More vectors for each token, concatenated with those of tok2vec.
    nO (Optional[int]): Number of labels, if known.
    RETURNS (Model): Docs to the parts of span scores (layers.global_pointer), float (n_tokens, max_width + 2 * nO) per
        Doc.
    RAISES (BertHeadsError): H209 for an unknown precision, H214 for a BiLSTM of odd width, H261 for a max_width below
        1, H273 for an odd key_width.

    SOURCE: Su et al. (2022), arXiv 2208.03054.
    """
    if is_encoder(tok2vec):
        tok2vec = token_vectors(replace_listener(cast(Model, tok2vec)), pooling="first", grad_factor=1.0)
    vectors = tok2vec if features is None else concatenate(tok2vec, features)
    head = global_pointer(
        nO,
        max_width=max_width,
        key_width=key_width,
        lstm_width=lstm_width,
        lstm_depth=lstm_depth,
        lr_scale=lr_scale,
        precision=precision,
    )
    model: Model = Model("span_pointer", forward_tokens, init=_init, layers=[vectors, head], dims={"nO": nO})
    model.set_ref("tok2vec", tok2vec)
    model.set_ref("output_layer", head)
    return model


def get_max_width(model: Model) -> Optional[int]:
    """RETURNS (Optional[int]): Tokens of the longest span that a model scores; None if that is not known yet."""
    return model.get_ref("output_layer").attrs["settings"]["max_width"]


def set_max_width(model: Model, longest: int) -> None:
    """Choose the longest span that a model scores, unless that is known.

    model (Model): Not initialised yet.
    longest (int): Tokens of the longest span in the data; 0 if there is none.
    """
    settings = model.get_ref("output_layer").attrs["settings"]
    if settings["max_width"] is None:
        settings["max_width"] = min(longest or MAX_SPAN_WIDTH, MAX_SPAN_WIDTH)


def _init(model: Model, X: Optional[List[Doc]] = None, Y: Any = None) -> None:
    set_max_width(model, 0)
    head_on_vectors.init(model, X, Y)
