"""The shared encoder as a thinc model: Docs in, named outputs per Doc out, gradients back by the same names."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Tuple, cast

import torch
from spacy.attrs import LENGTH
from spacy.tokens import Doc
from spacy.util import SimpleFrozenDict
from spacy_transformers.data_classes import FullTransformerBatch, TransformerData, WordpieceBatch
from thinc.api import Model
from thinc.util import torch2xp, xp2torch
from transformers.file_utils import ModelOutput

from ..errors import BertHeadsError
from ..layers.encoder_module import Encoder, build_from_scratch, load_pretrained
from ..layers.encoder_shim import EncoderShim
from ..layers.precision import check_precision
from ..types import NamedArrays
from .batches import WindowBatch
from .gradient_cache import ATTENTIONS, Rows, run_batch
from .listeners import replace_listener, replace_listener_cfg
from .outputs import EncoderOutputs, Wordpieces
from .sentence_pairs import PairTokens, has_token_types
from .windows import make_windowed_doc, tokenize


@dataclass
class EncoderSettings:
    """How texts are cut and put together. Not saved with the weights: the config decides.

    window (Optional[int]): Most wordpieces in a window, special tokens included. None: all that the encoder can read.
    overlap (int): Wordpieces that neighbouring windows share.
    max_batch_pieces (int): Wordpieces, padding counted, that go through the encoder at once.
    pair_separator (Optional[str]): What separates the two sentences of a text. None: texts are not pairs.
    """

    window: Optional[int]
    overlap: int
    max_batch_pieces: int = 4096
    pair_separator: Optional[str] = None


def build_bert_encoder_v1(
    name: str,
    hidden_states: bool = False,
    attentions: bool = False,
    precision: str = "auto",
    train_precision: Optional[str] = None,
    gradient_checkpointing: bool = False,
    word_dropout: float = 0.0,
    window: Optional[int] = None,
    overlap: int = 64,
    pair_separator: Optional[str] = None,
    tokenizer_config: Dict[str, Any] = SimpleFrozenDict(),
    transformer_config: Dict[str, Any] = SimpleFrozenDict(),
) -> Model[List[Doc], FullTransformerBatch]:
    """A pretrained encoder, loaded when the model is initialised. Registered as spacy_bert_heads.BertEncoder.v1.

    name (str): Folder, `package:IMPORT_NAME/SUBFOLDER`, or an id on the Hugging Face hub.
    hidden_states (bool): Whether to expose the output of every layer too.
    attentions (bool): Whether predictions expose the attention weights of every layer too: `attentions`, a list of
        arrays, (n_windows, n_heads, n_pieces, n_pieces). It takes more time, and memory that grows with the square of
        the length of a window.
    precision (str): What predictions compute in: "fp32", "bf16", "fp16" (GPU only), or "auto": bf16 where the device
        computes in it natively, otherwise fp32. Weights, outputs and the heads' losses are fp32 in any case.
    train_precision (Optional[str]): What training computes in; not "fp16". None: as `precision`.
    gradient_checkpointing (bool): Whether to save memory in training at the cost of time: only the input of each layer
        is kept, and the rest is computed again.
    word_dropout (float): Share of wordpieces that training replaces with the unknown token.
    window (Optional[int]): Most wordpieces in a window, special tokens included. None: all that the encoder can read.
    overlap (int): Wordpieces that neighbouring windows of a long Doc share.
    pair_separator (Optional[str]): What separates the two sentences of a text, such as a tab. The encoder reads them
        as it was trained to read pairs: [CLS] first [SEP] second [SEP], with token types if it has them. A
        pair longer than `window` is read in several. None: texts are not pairs.
    tokenizer_config (Dict[str, Any]): Arguments for `AutoTokenizer.from_pretrained`.
    transformer_config (Dict[str, Any]): Settings that replace those of the encoder's own config, such as
        `hidden_dropout_prob`.
    RAISES (BertHeadsError): H209 for an unknown precision, H233 for training in fp16, H264 for an empty separator,
        H273 for a word_dropout below 0, of 1 or more.
    """

    # A partial, not a closure: pipelines are pickled for other processes
    load = partial(
        _load_pretrained,
        name=name,
        tokenizer_config=dict(tokenizer_config),
        transformer_config=dict(transformer_config),
    )
    return _encoder_model(
        load,
        EncoderSettings(window, overlap, pair_separator=pair_separator),
        hidden_states=hidden_states,
        attentions=attentions,
        precision=precision,
        train_precision=train_precision,
        gradient_checkpointing=gradient_checkpointing,
        word_dropout=word_dropout,
    )


def build_bert_from_scratch_v1(
    width: int = 256,
    depth: int = 4,
    heads: int = 4,
    feed_forward_width: int = 1024,
    max_length: int = 512,
    vocab_size: int = 8000,
    lowercase: bool = True,
    dropout: float = 0.1,
    hidden_states: bool = False,
    attentions: bool = False,
    precision: str = "auto",
    train_precision: Optional[str] = None,
    gradient_checkpointing: bool = False,
    word_dropout: float = 0.0,
    overlap: int = 64,
    pair_separator: Optional[str] = None,
) -> Model[List[Doc], FullTransformerBatch]:
    """A BERT with random weights, whose WordPiece vocabulary is learned from the training texts when the model is
    initialised. Registered as spacy_bert_heads.BertFromScratch.v1.

    width (int): Width of the hidden states; divisible by `heads`.
    depth (int): Number of layers.
    heads (int): Attention heads in each layer.
    feed_forward_width (int): Width inside each layer's feed-forward part.
    max_length (int): Most wordpieces in a window, special tokens included.
    vocab_size (int): Most entries in the vocabulary.
    lowercase (bool): Whether to lower-case and strip accents.
    dropout (float): BERT's own dropout, in hidden states and attention.
    hidden_states, attentions, precision, train_precision, gradient_checkpointing, word_dropout, overlap,
        pair_separator: see build_bert_encoder_v1.
    """

    load = partial(
        build_from_scratch,
        width=width,
        depth=depth,
        heads=heads,
        feed_forward_width=feed_forward_width,
        max_length=max_length,
        vocab_size=vocab_size,
        lowercase=lowercase,
        dropout=dropout,
    )
    return _encoder_model(
        load,
        EncoderSettings(None, overlap, pair_separator=pair_separator),
        hidden_states=hidden_states,
        attentions=attentions,
        precision=precision,
        train_precision=train_precision,
        gradient_checkpointing=gradient_checkpointing,
        word_dropout=word_dropout,
    )


def initialize_encoders(model: Model, docs: Iterable[Doc], vocab: Optional[Path] = None) -> None:
    """Give every encoder inside a model its weights and vocabulary; those that have them keep them.

    A head with a private encoder calls this before its own initialisation, to which spaCy passes only ten Docs.

    model (Model): The encoder itself, or a head that may hold one.
    docs (Iterable[Doc]): The whole training corpus.
    vocab (Optional[Path]): A vocabulary file to use instead of learning one; see layers.wordpiece.
    """
    for node in model.walk():
        if is_encoder(node):
            _initialize(node, docs, vocab)


def check_word_dropout(share: float) -> None:
    """RAISES (BertHeadsError): H273 for a share below 0, of 1 or more."""
    if not 0 <= share < 1:
        raise BertHeadsError("H273", name="word_dropout", found=share, expected="at least 0 and less than 1")


def is_encoder(model: Model) -> bool:
    """RETURNS (bool): Whether a model is one of this module's encoders."""
    return bool(model.shims) and isinstance(model.shims[0], EncoderShim)


def _load_pretrained(
    texts: Iterable[str],
    vocab: Optional[Path],
    *,
    name: str,
    tokenizer_config: Dict[str, Any],
    transformer_config: Dict[str, Any],
) -> Encoder:
    """A pretrained encoder brings its vocabulary along: texts and vocab are not used."""
    return load_pretrained(name, tokenizer_config, transformer_config)


def _encoder_model(
    load: Callable[..., Encoder],
    settings: EncoderSettings,
    *,
    hidden_states: bool,
    attentions: bool,
    precision: str,
    train_precision: Optional[str],
    gradient_checkpointing: bool,
    word_dropout: float,
) -> Model[List[Doc], FullTransformerBatch]:
    if settings.pair_separator == "":
        raise BertHeadsError("H264")
    check_word_dropout(word_dropout)
    check_precision(precision, training=False)
    check_precision(train_precision or precision, training=train_precision is not None)
    return Model(
        "bert_encoder",
        forward,
        init=init,
        dims={"nO": None},
        shims=[
            EncoderShim(
                hidden_states=hidden_states,
                attentions=attentions,
                precision=precision,
                train_precision=train_precision or precision,
                gradient_checkpointing=gradient_checkpointing,
                word_dropout=word_dropout,
            )
        ],
        attrs={
            "load": load,
            "settings": settings,
            "replace_listener": replace_listener,
            "replace_listener_cfg": replace_listener_cfg,
        },
    )


def init(model: Model, X: Optional[Iterable[Doc]] = None, Y: Any = None) -> None:
    """thinc's hook: load the encoder, unless it is there already. X: the Docs a vocabulary is learned from."""
    _initialize(model, X or [], None)


def _initialize(model: Model, docs: Iterable[Doc], vocab: Optional[Path]) -> None:
    shim = cast(EncoderShim, model.shims[0])
    shim.check_weights()
    if not shim.is_ready:
        shim.set_encoder(model.attrs["load"]((doc.text for doc in docs), vocab=vocab))
        model.set_dim("nO", shim.module.transformer.config.hidden_size)


def forward(
    model: Model, docs: Sequence[Doc], is_train: bool
) -> Tuple[FullTransformerBatch, Callable[[List[TransformerData]], List[Doc]]]:
    """Encode Docs.

    docs (Sequence[Doc]): The Docs. Empty ones get one window of special tokens only.
    is_train (bool): Whether gradients will follow. Windows of like length go through together in any case, at most
        `max_batch_pieces` wordpieces at once, whatever the length of the texts; see gradient_cache.run_batch.
    RETURNS: The outputs, split by Doc in `doc_data`, and a callback that takes named gradients, one TransformerData
        per Doc, and adds up the gradients of the encoder's parameters.
    RAISES (BertHeadsError): H210 if the encoder has not been initialised.
    """
    docs = list(docs)
    shim = cast(EncoderShim, model.shims[0])
    shim.check_weights()
    if not shim.is_ready:
        raise BertHeadsError("H210")
    special, longest = shim.special, shim.max_positions
    settings: EncoderSettings = model.attrs["settings"]
    window = longest if settings.window is None else min(longest, settings.window)
    separator = settings.pair_separator
    pair = None if separator is None else PairTokens.of(shim.tokenizer)
    # Of a tokenizer that adds nothing to a text, a pair has nothing either
    pair = pair if pair is not None and len(pair) else None
    overlap = _fitting_overlap(settings.overlap, window - max(len(special), len(pair or ())))
    windowed = [
        make_windowed_doc(pieces, special, window, overlap, pair)
        for pieces in tokenize(shim.tokenizer, docs, separator)
    ]
    batch = WindowBatch(windowed, special, token_types=has_token_types(shim.config))
    rows, bp_rows = run_batch(shim, batch, settings.max_batch_pieces, is_train)
    doc_data = [
        EncoderOutputs(Wordpieces(doc, special, shim.tokenizer), ModelOutput(named), doc.align)
        for doc, named in zip(windowed, _split(rows, batch))
    ]
    for doc, data in zip(docs, doc_data):
        data.token_lengths = doc.to_array([LENGTH])

    def backprop(d_doc_data: List[TransformerData]) -> List[Doc]:
        bp_rows(_join([data.model_output for data in d_doc_data], rows, batch, model.ops))
        return docs

    batch_data = FullTransformerBatch(
        spans=[[doc[:]] for doc in docs],
        wordpieces=WordpieceBatch.empty(),
        model_output=ModelOutput(),
        align=TransformerData.empty().align,
        cached_doc_data=cast(List[TransformerData], doc_data),
    )
    return batch_data, backprop


def _fitting_overlap(overlap: int, capacity: int) -> int:
    """The overlap asked for, but never over half a window, so that tiny encoders work with the default."""
    return min(overlap, capacity // 2)


def _split(rows: Rows, batch: WindowBatch) -> List[NamedArrays]:
    """Each Doc's part of the outputs, not copied."""
    split: List[NamedArrays] = [{} for _ in batch.docs]
    for name, value in rows.items():
        if name == ATTENTIONS:
            for i, doc in enumerate(batch.docs):
                windows = value[batch.doc_windows[i] : batch.doc_windows[i + 1]]
                split[i][name] = [torch2xp(_stack(layer, doc.width)) for layer in zip(*windows)]
            continue
        arrays: List[Any] = [torch2xp(tensor) for tensor in (value if isinstance(value, list) else [value])]
        for i, doc in enumerate(batch.docs):
            if name == "pooler_output":
                parts = [array[batch.doc_windows[i] : batch.doc_windows[i + 1]] for array in arrays]
            else:
                shape = (len(doc.windows), doc.width, -1)
                parts = [array[batch.doc_rows[i] : batch.doc_rows[i + 1]].reshape(shape) for array in arrays]
            split[i][name] = parts if isinstance(value, list) else parts[0]
    return split


def _stack(windows: Sequence[torch.Tensor], width: int) -> torch.Tensor:
    """One layer's attention within each window of a Doc, zeros where a window is shorter than the longest."""
    stacked = windows[0].new_zeros((len(windows), len(windows[0]), width, width))
    for window, weights in zip(stacked, windows):
        window[:, : weights.shape[1], : weights.shape[2]] = weights
    return stacked


def _join(per_doc: List[Dict[str, Any]], rows: Rows, batch: WindowBatch, ops: Any) -> Rows:
    """Gradients for the outputs that some head sent one for; zeros for Docs it sent none for."""
    joined: Rows = {}
    for name, output in rows.items():
        values = [named.get(name) for named in per_doc]
        if all(value is None for value in values):
            continue
        layers = output if isinstance(output, list) else [output]
        ends = batch.doc_windows if name == "pooler_output" else batch.doc_rows
        gradients = []
        for number, tensor in enumerate(layers):
            width = tensor.shape[-1]
            gradient = ops.alloc2f(len(tensor), width)
            for i, value in enumerate(values):
                part = value[number] if isinstance(output, list) and value is not None else value
                if part is not None:
                    gradient[ends[i] : ends[i + 1]] = part.reshape(-1, width)
            gradients.append(xp2torch(gradient, device=tensor.device))
        joined[name] = gradients if isinstance(output, list) else gradients[0]
    return joined
