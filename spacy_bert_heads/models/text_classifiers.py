"""Text classifiers: over the pooled [CLS], and over token vectors of any origin: BERT's, a tok2vec of spaCy's, plain
embeddings.

The same network is "bert_CNN" on a TokenListener and "TextCNN" on spacy.MultiHashEmbed.v2.
"""

from typing import Any, List, Optional, cast

from spacy.tokens import Doc
from thinc.api import Model
from thinc.types import Floats2d

from ..defaults import HEAD_LR_SCALE
from ..layers.head_layers import classifier
from ..layers.text_layers import text_head
from .encoder import is_encoder
from .head_on_vectors import forward, forward_tokens, init
from .listeners import pooled_vectors, replace_listener, token_vectors


def build_pooled_classifier_v1(
    tok2vec: Model[List[Doc], Floats2d],
    exclusive_classes: bool,
    dropout_samples: int = 1,
    standardize: bool = False,
    lr_scale: float = HEAD_LR_SCALE,
    nO: Optional[int] = None,
) -> Model[List[Doc], Floats2d]:
    """Dropout and linear over one vector per Doc. Registered as spacy_bert_heads.PooledClassifier.v1.

    tok2vec (Model): spacy_bert_heads.PooledListener.v1, or an encoder of the head's own: an encoder architecture, or
        spacy_bert_heads.PooledVectors.v1 around one.
    exclusive_classes (bool): Whether exactly one label is true. The component then uses softmax, otherwise sigmoid.
    dropout_samples (int): Dropouts of the same vector in training, whose logits are averaged (multi-sample dropout).
    standardize (bool): Whether to centre and scale the vectors by running figures of the training texts. It helps with
        an encoder whose vectors of texts lie close together, such as multilingual-e5-small.
    lr_scale (float): Multiplies the learning rate of this head; BERT's own rate is too low for new weights.
    nO (Optional[int]): Number of labels, if known.
    RETURNS (Model): Docs to logits, float (n_docs, nO).
    RAISES (BertHeadsError): H261 for fewer than one dropout sample.
    """
    if is_encoder(tok2vec):
        tok2vec = pooled_vectors(replace_listener(cast(Model, tok2vec)), windows="mean", grad_factor=1.0)
    head = classifier(nO, lr_scale, dropout_samples, standardize)
    model: Model = Model("pooled_classifier", forward, init=init, layers=[tok2vec, head], dims={"nO": nO})
    model.set_ref("tok2vec", tok2vec)
    model.set_ref("output_layer", head)
    model.attrs["multi_label"] = not exclusive_classes
    return model


def build_text_cnn_v1(
    tok2vec: Model[List[Doc], List[Floats2d]],
    exclusive_classes: bool,
    kernels: List[int] = [2, 3, 4],  # noqa: B006 (never changed; a tuple does not survive a config file)
    filters: int = 256,
    lr_scale: float = HEAD_LR_SCALE,
    nO: Optional[int] = None,
) -> Model[List[Doc], Floats2d]:
    """Convolutions and the largest value of each filter. Registered as spacy_bert_heads.TextCNN.v1.

    tok2vec (Model): Token vectors: spacy_bert_heads.TokenListener.v1, any tok2vec of spaCy's, or an encoder of the
        head's own: an encoder architecture, or spacy_bert_heads.TokenVectors.v1 around one.
    exclusive_classes (bool): Whether exactly one label is true. The component then uses softmax, otherwise sigmoid.
    kernels (List[int]): Tokens each kernel spans.
    filters (int): Filters of each kernel.
    lr_scale (float): Multiplies the learning rate of this head, for which BERT's rate is too low. Use 1 over
        embeddings.
    nO (Optional[int]): Number of labels, if known.
    RETURNS (Model): Docs to logits, float (n_docs, nO). A text shorter than a kernel is followed by zeros.
    RAISES (BertHeadsError): H261 for a size below 1.
    """
    return _text_model(tok2vec, "cnn", exclusive_classes, nO, lr_scale, kernels=kernels, filters=filters)


def build_text_rnn_v1(
    tok2vec: Model[List[Doc], List[Floats2d]],
    exclusive_classes: bool,
    lstm_width: int = 256,
    lstm_depth: int = 2,
    lr_scale: float = HEAD_LR_SCALE,
    nO: Optional[int] = None,
) -> Model[List[Doc], Floats2d]:
    """The last states of a BiLSTM. Registered as spacy_bert_heads.TextRNN.v1.

    lstm_width (int): Width of the BiLSTM's output, both directions together: an even number.
    lstm_depth (int): Layers of the BiLSTM.
    tok2vec, exclusive_classes, lr_scale, nO: see build_text_cnn_v1.
    RAISES (BertHeadsError): H214 for an odd width, H261 for a size below 1.
    """
    sizes = {"lstm_width": lstm_width, "lstm_depth": lstm_depth}
    return _text_model(tok2vec, "rnn", exclusive_classes, nO, lr_scale, **sizes)


def build_text_rnn_attention_v1(
    tok2vec: Model[List[Doc], List[Floats2d]],
    exclusive_classes: bool,
    lstm_width: int = 256,
    lstm_depth: int = 2,
    lr_scale: float = HEAD_LR_SCALE,
    nO: Optional[int] = None,
) -> Model[List[Doc], Floats2d]:
    """The mean of a BiLSTM's states, weighted by attention. Registered as spacy_bert_heads.TextRNNAttention.v1.

    Settings: see build_text_rnn_v1.
    """
    sizes = {"lstm_width": lstm_width, "lstm_depth": lstm_depth}
    return _text_model(tok2vec, "rnn_attention", exclusive_classes, nO, lr_scale, **sizes)


def build_text_rcnn_v1(
    tok2vec: Model[List[Doc], List[Floats2d]],
    exclusive_classes: bool,
    lstm_width: int = 512,
    lstm_depth: int = 1,
    hidden_width: int = 256,
    lr_scale: float = HEAD_LR_SCALE,
    nO: Optional[int] = None,
) -> Model[List[Doc], Floats2d]:
    """A BiLSTM's states beside its input, a dense layer, and the maximum of each unit over the text. Registered as
    spacy_bert_heads.TextRCNN.v1.

    hidden_width (int): Width of the dense layer.

    Other settings: see build_text_rnn_v1.
    """
    sizes = {"lstm_width": lstm_width, "lstm_depth": lstm_depth, "hidden_width": hidden_width}
    return _text_model(tok2vec, "rcnn", exclusive_classes, nO, lr_scale, **sizes)


def build_dpcnn_v1(
    tok2vec: Model[List[Doc], List[Floats2d]],
    exclusive_classes: bool,
    filters: int = 250,
    depth: int = 4,
    lr_scale: float = HEAD_LR_SCALE,
    nO: Optional[int] = None,
) -> Model[List[Doc], Floats2d]:
    """A pyramid of convolutions, each level of which halves the text. Registered as spacy_bert_heads.DPCNN.v1.

    filters (int): Filters of every convolution.
    depth (int): Number of levels.
    tok2vec, exclusive_classes, lr_scale, nO: see build_text_cnn_v1.
    RAISES (BertHeadsError): H261 for no filters or a negative depth.
    """
    return _text_model(tok2vec, "dpcnn", exclusive_classes, nO, lr_scale, filters=filters, depth=depth)


def _text_model(
    tok2vec: Model, body: str, exclusive_classes: bool, nO: Optional[int], lr_scale: float, **sizes: Any
) -> Model[List[Doc], Floats2d]:
    if is_encoder(tok2vec):
        tok2vec = token_vectors(replace_listener(tok2vec), pooling="first", grad_factor=1.0)
    head = text_head(body, nO, lr_scale, **sizes)
    model: Model = Model(f"text_{body}", forward_tokens, init=init, layers=[tok2vec, head], dims={"nO": nO})
    model.set_ref("tok2vec", tok2vec)
    model.set_ref("output_layer", head)
    model.attrs["multi_label"] = not exclusive_classes
    return model
