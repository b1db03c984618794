"""The heads' architectures: whatever gives vectors at `model.tok2vec`, and a head on top."""

from typing import Any, Callable, List, Optional, Tuple, cast

from spacy.tokens import Doc
from thinc.api import Model, concatenate
from thinc.types import Floats2d

from ..errors import BertHeadsError
from ..layers.crf import KINDS
from ..layers.crf import crf as crf_layer
from ..layers.heads import classifier, sequence_tagger
from ..tags import TagScheme
from .encoder import is_encoder
from .listeners import pooled_vectors, replace_listener, token_vectors


def build_pooled_classifier_v1(
    tok2vec: Model[List[Doc], Floats2d],
    exclusive_classes: bool,
    dropout_samples: int = 1,
    lr_scale: float = 20.0,
    nO: Optional[int] = None,
) -> Model[List[Doc], Floats2d]:
    """Dropout and linear over one vector per Doc. Registered as spacy_bert_heads.PooledClassifier.v1.

    tok2vec (Model): spacy_bert_heads.PooledListener.v1, or an encoder of the head's own: an encoder architecture, or
        spacy_bert_heads.PooledVectors.v1 around one.
    exclusive_classes (bool): Whether exactly one label is true. The component reads it: softmax or sigmoid.
    dropout_samples (int): Dropouts of the same vector in training, whose logits are averaged (multi-sample dropout).
    lr_scale (float): Multiplies the learning rate for this head; BERT's own rate is too low for new weights.
    nO (Optional[int]): Number of labels, if known.
    RETURNS (Model): Docs to logits, float (n_docs, nO).
    RAISES (BertHeadsError): H261 for fewer than one dropout sample.
    """
    if is_encoder(tok2vec):
        tok2vec = pooled_vectors(replace_listener(cast(Model, tok2vec)), windows="mean", grad_factor=1.0)
    head = classifier(nO, lr_scale, dropout_samples)
    model: Model = Model("pooled_classifier", forward, init=init, layers=[tok2vec, head], dims={"nO": nO})
    model.set_ref("tok2vec", tok2vec)
    model.set_ref("output_layer", head)
    model.attrs["multi_label"] = not exclusive_classes
    return model


def build_bilstm_crf_v1(
    tok2vec: Model[List[Doc], List[Floats2d]],
    lstm_width: Optional[int] = 256,
    lstm_depth: int = 1,
    crf: Optional[str] = "constrained",
    scheme: str = "bio",
    lr_scale: float = 20.0,
    precision: str = "auto",
    features: Optional[Model[List[Doc], List[Floats2d]]] = None,
    nO: Optional[int] = None,
) -> Model[List[Doc], List[Floats2d]]:
    """Token vectors, BiLSTM, linear, CRF. Registered as spacy_bert_heads.BiLSTMCRF.v1.

    tok2vec (Model): spacy_bert_heads.TokenListener.v1, any other tok2vec of spaCy's, or an encoder of the head's own:
        an encoder architecture, or spacy_bert_heads.TokenVectors.v1 around one.
    lstm_width (Optional[int]): Width of the BiLSTM's output, both directions together, so even. None: no BiLSTM.
    lstm_depth (int): Layers of the BiLSTM.
    crf (Optional[str]): "constrained": a CRF in which paths the tag scheme forbids have no probability, and which
        learns from Docs that are annotated in part. "pytorch-crf": that library's, which does neither. None: no CRF,
        each token is decided by itself.
    scheme (str): How entities become tags: "bio", "biluo", "bioes" or "bmes".
    lr_scale (float): Multiplies the learning rate for BiLSTM, linear layer and CRF; at BERT's own rate a CRF
        stays almost untrained.
    precision (str): What the BiLSTM computes in when it predicts, by the names of the encoder's precisions. The
        linear layer, the CRF and all training are in fp32.
    features (Optional[Model]): More vectors of each token, put beside those of tok2vec, such as
        spacy.MultiHashEmbed.v2's of its shape: an encoder that lowercases its input has seen no capital letters.
    nO (Optional[int]): Number of tags, if known.
    RETURNS (Model): Docs to emissions, float (n_tokens, nO) per Doc; for its CRF see get_crf.
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


def forward(model: Model, docs: List[Doc], is_train: bool) -> Tuple[Any, Callable[[Any], Any]]:
    """tok2vec and head; a CRF takes part through loss and decoding only, which belong to the component."""
    tok2vec, head = model.layers[:2]
    X, bp_tok2vec = tok2vec(docs, is_train)
    Y, bp_head = head(X, is_train)
    return Y, lambda dY: bp_tok2vec(bp_head(dY))


def forward_tokens(model: Model, docs: List[Doc], is_train: bool) -> Tuple[Any, Callable[[Any], Any]]:
    """As forward, for token vectors, which spaCy's own tok2vecs cannot make of Docs that are all empty."""
    if any(len(doc) for doc in docs):
        return forward(model, docs, is_train)
    head = model.layers[1]
    return head([model.ops.alloc2f(0, head.get_dim("nI")) for _ in docs], is_train)


def init(model: Model, X: Optional[List[Doc]] = None, Y: Any = None) -> None:
    """Sizes from below (the vectors' width) and above (the labels)."""
    set_n_labels(model, Y)
    tok2vec, head = model.layers[:2]
    tok2vec.initialize(X)
    head.set_dim("nI", tok2vec.get_dim("nO"))
    for layer in model.layers[1:]:
        layer.set_dim("nO", model.get_dim("nO"))
        layer.initialize()


def set_n_labels(model: Model, Y: Any) -> None:
    """Dim nO, unless the component has set it, as seen in Y."""
    if model.has_dim("nO") is None and Y is not None:
        model.set_dim("nO", Y.shape[1])
