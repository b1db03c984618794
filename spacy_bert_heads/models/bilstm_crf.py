"""Entities: token vectors, a BiLSTM, a linear layer and a CRF."""

from typing import List, Optional, cast

from spacy.tokens import Doc
from thinc.api import Model, concatenate
from thinc.types import Floats2d

from ..defaults import HEAD_LR_SCALE
from ..errors import BertHeadsError
from ..layers.crf.layer import KINDS
from ..layers.crf.layer import crf as crf_layer
from ..layers.head_layers import sequence_tagger
from ..tags import TagScheme
from .encoder import is_encoder
from .head_on_vectors import forward_tokens, init
from .listeners import replace_listener, token_vectors


def build_bilstm_crf_v1(
    tok2vec: Model[List[Doc], List[Floats2d]],
    lstm_width: Optional[int] = 256,
    lstm_depth: int = 1,
    crf: Optional[str] = "constrained",
    scheme: str = "bio",
    lr_scale: float = HEAD_LR_SCALE,
    precision: str = "auto",
    features: Optional[Model[List[Doc], List[Floats2d]]] = None,
    nO: Optional[int] = None,
) -> Model[List[Doc], List[Floats2d]]:
    """Token vectors, BiLSTM, linear layer, CRF. Registered as spacy_bert_heads.BiLSTMCRF.v1.

    tok2vec (Model): spacy_bert_heads.TokenListener.v1, any other tok2vec of spaCy's, or an encoder of the head's own:
        an encoder architecture, or spacy_bert_heads.TokenVectors.v1 around one.
    lstm_width (Optional[int]): Width of the BiLSTM's output, both directions together: an even number. None: no
        BiLSTM.
    lstm_depth (int): Layers of the BiLSTM.
    crf (Optional[str]): "constrained": a CRF that gives paths the tag scheme forbids no probability, and learns from
        partly annotated Docs. "pytorch-crf": that library's CRF, which does neither. None: no CRF; each token is
        decided on its own.
    scheme (str): How entities become tags: "bio", "biluo", "bioes" or "bmes".
    lr_scale (float): Multiplies the learning rate of BiLSTM, linear layer and CRF; at BERT's own rate a CRF
        stays almost untrained.
    precision (str): What the BiLSTM computes in when it predicts, by the names of the encoder's precisions. The
        linear layer, the CRF and all training are in fp32.
    features (Optional[Model]): More vectors for each token, concatenated with those of tok2vec, such as
        spacy.MultiHashEmbed.v2 over its shape: an encoder that lowercases its input sees no capital letters.
    nO (Optional[int]): Number of tags, if known.
    RETURNS (Model): Docs to emissions, float (n_tokens, nO) per Doc.
    RAISES (BertHeadsError): H214 for an odd width, H216 for an unknown CRF, H331 for an unknown scheme,
        H209 for an unknown precision.
    """
    if crf is not None and crf not in KINDS:
        raise BertHeadsError("H216", found=crf, expected=", ".join(KINDS))
    TagScheme(scheme, [])
    if is_encoder(tok2vec):
        tok2vec = token_vectors(replace_listener(cast(Model, tok2vec)), pooling="first", grad_factor=1.0)
    vectors = tok2vec if features is None else concatenate(tok2vec, features)
    head = sequence_tagger(nO, lstm_width=lstm_width, lstm_depth=lstm_depth, lr_scale=lr_scale, precision=precision)
    decoder = None if crf is None else crf_layer(nO, kind=crf, scheme=scheme, lr_scale=lr_scale)
    layers: List[Model] = [vectors, head] if decoder is None else [vectors, head, decoder]
    model: Model = Model(
        "bilstm_crf", forward_tokens, init=init, layers=layers, dims={"nO": nO}, attrs={"scheme": scheme}
    )
    model.set_ref("tok2vec", tok2vec)
    model.set_ref("output_layer", head)
    return model


def get_crf(model: Model) -> Optional[Model]:
    """RETURNS (Optional[Model]): The CRF of a BiLSTM-CRF model, None if it has none."""
    return next((layer for layer in model.layers if layer.name == "crf"), None)
