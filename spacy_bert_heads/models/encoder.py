"""The shared encoder as a thinc model: Docs in, named outputs per Doc out, gradients back by the same names."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Tuple, cast

import torch
from spacy.tokens import Doc
from spacy.util import SimpleFrozenDict
from spacy_transformers.data_classes import FullTransformerBatch, TransformerData, WordpieceBatch
from thinc.api import Model
from thinc.util import torch2xp, xp2torch
from torch import Tensor
from transformers.file_utils import ModelOutput

from ..errors import BertHeadsError
from ..layers.encoder_module import Encoder, build_from_scratch, load_pretrained
from ..layers.encoder_shim import EncoderShim
from ..types import NamedArrays
from .listeners import replace_listener, replace_listener_cfg
from .windows import SpecialTokens, WindowedDoc, make_windowed_doc, pad_windows, tokenize

PRECISIONS = ("fp32", "bf16")
# One window: its Doc, its number within the Doc, and its ids
Row = Tuple[int, int, List[int]]


@dataclass
class EncoderSettings:
    """How texts are cut and put together. Not saved with the weights: the config decides.

    window (Optional[int]): Wordpieces of a window at most, special tokens counted. None: all the encoder can read.
    overlap (int): Wordpieces that neighbouring windows share.
    max_batch_pieces (int): Wordpieces, padding counted, that a prediction sends through the encoder at once.
    """

    window: Optional[int]
    overlap: int
    max_batch_pieces: int = 4096


def build_bert_encoder_v1(
    name: str,
    hidden_states: bool = False,
    precision: str = "fp32",
    window: Optional[int] = None,
    overlap: int = 64,
    tokenizer_config: Dict[str, Any] = SimpleFrozenDict(),
    transformer_config: Dict[str, Any] = SimpleFrozenDict(),
) -> Model[List[Doc], FullTransformerBatch]:
    """A pretrained encoder, loaded when the model is initialised. Registered as spacy_bert_heads.BertEncoder.v1.

    name (str): Folder, `package:IMPORT_NAME/SUBFOLDER`, or an id on the Hugging Face hub.
    hidden_states (bool): Whether to expose the output of every layer too.
    precision (str): "fp32", or "bf16" for autocast to bfloat16, in training and prediction.
    window (Optional[int]): Wordpieces of a window at most, special tokens counted. None: all the encoder can read.
    overlap (int): Wordpieces that neighbouring windows of a long Doc share.
    tokenizer_config (Dict[str, Any]): Arguments for `AutoTokenizer.from_pretrained`.
    transformer_config (Dict[str, Any]): Settings that replace those of the encoder's own config, such as
        `hidden_dropout_prob`.
    RAISES (BertHeadsError): H209 for an unknown precision.
    """

    # A partial, not a closure: pipelines are pickled for other processes
    load = partial(
        _load_pretrained,
        name=name,
        tokenizer_config=dict(tokenizer_config),
        transformer_config=dict(transformer_config),
    )
    return _encoder_model(load, hidden_states, precision, window, overlap)


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
    precision: str = "fp32",
    overlap: int = 64,
) -> Model[List[Doc], FullTransformerBatch]:
    """A BERT with random weights, whose WordPiece vocabulary is learned from the training texts when the model is
    initialised. Registered as spacy_bert_heads.BertFromScratch.v1.

    width (int): Width of the hidden states; divisible by `heads`.
    depth (int): Number of layers.
    heads (int): Attention heads in each layer.
    feed_forward_width (int): Width inside each layer's feed-forward part.
    max_length (int): Wordpieces of a window at most, special tokens counted.
    vocab_size (int): Vocabulary entries at most.
    lowercase (bool): Whether to lower-case and strip accents.
    dropout (float): BERT's own dropout, in hidden states and attention.
    hidden_states, precision, overlap: see build_bert_encoder_v1.
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
    return _encoder_model(load, hidden_states, precision, None, overlap)


def initialize_encoders(model: Model, docs: Iterable[Doc], vocab: Optional[Path] = None) -> None:
    """Give every encoder inside a model its weights and vocabulary; those that have them keep them.

    A head with a private encoder calls this before its own initialisation, for which spaCy hands on ten Docs only.

    model (Model): The encoder itself, or a head that may hold one.
    docs (Iterable[Doc]): The whole training corpus.
    vocab (Optional[Path]): A vocabulary file to use instead of learning one; see layers.wordpiece.
    """
    for node in model.walk():
        if is_encoder(node):
            _initialize(node, docs, vocab)


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
    hidden_states: bool,
    precision: str,
    window: Optional[int],
    overlap: int,
) -> Model[List[Doc], FullTransformerBatch]:
    if precision not in PRECISIONS:
        raise BertHeadsError("H209", found=precision, expected=", ".join(PRECISIONS))
    return Model(
        "bert_encoder",
        forward,
        init=init,
        dims={"nO": None},
        shims=[EncoderShim(hidden_states=hidden_states, precision=precision)],
        attrs={
            "load": load,
            "settings": EncoderSettings(window, overlap),
            "replace_listener": replace_listener,
            "replace_listener_cfg": replace_listener_cfg,
        },
    )


def init(model: Model, X: Optional[Iterable[Doc]] = None, Y: Any = None) -> None:
    """thinc's hook: load the encoder, unless it is there already. X: the Docs a vocabulary is learned from."""
    _initialize(model, X or [], None)


def _initialize(model: Model, docs: Iterable[Doc], vocab: Optional[Path]) -> None:
    shim = cast(EncoderShim, model.shims[0])
    if shim.encoder is None:
        shim.set_encoder(model.attrs["load"]((doc.text for doc in docs), vocab=vocab))
        model.set_dim("nO", shim.module.transformer.config.hidden_size)


def forward(
    model: Model, docs: Sequence[Doc], is_train: bool
) -> Tuple[FullTransformerBatch, Callable[[List[TransformerData]], List[Doc]]]:
    """Encode Docs.

    docs (Sequence[Doc]): The Docs. Empty ones get one window of special tokens only.
    is_train (bool): Keeps the graph and reads all windows in one rectangle. For prediction windows of like length
        go through in rectangles of at most `max_batch_pieces` wordpieces, whatever the length of the texts.
    RETURNS: The outputs, split by Doc in `doc_data`, and a callback that takes named gradients, one TransformerData
        per Doc, and adds up the gradients of the encoder's parameters.
    RAISES (BertHeadsError): H210 if the encoder has not been initialised.
    """
    docs = list(docs)
    shim = cast(EncoderShim, model.shims[0])
    encoder = shim.encoder
    if encoder is None:
        raise BertHeadsError("H210")
    special = SpecialTokens.of(encoder.tokenizer)
    longest = shim.max_positions
    settings: EncoderSettings = model.attrs["settings"]
    window = longest if settings.window is None else min(longest, settings.window)
    windowed = [
        make_windowed_doc(pieces, special, window, _fitting_overlap(settings.overlap, window - len(special)))
        for pieces in tokenize(encoder.tokenizer, docs)
    ]
    rows: List[Row] = [
        (i, number, [*special.prefix, *doc.pieces.ids[start:stop].tolist(), *special.suffix])
        for i, doc in enumerate(windowed)
        for number, (start, stop) in enumerate(doc.windows)
    ]
    outputs = [_empty_outputs(model, doc, shim.hidden_states) for doc in windowed]
    graph: Dict[str, Any] = {}
    for batch in [rows] if is_train else _batch_by_length(rows, settings.max_batch_pieces):
        ids, mask = pad_windows([row[2] for row in batch], special.pad)
        named = shim.run(torch.from_numpy(ids), torch.from_numpy(mask), is_train)
        _scatter(named, batch, outputs)
        graph = named if is_train else {}
    doc_data = [
        TransformerData(_wordpiece_batch(doc, special, encoder.tokenizer), ModelOutput(output), doc.align)
        for doc, output in zip(windowed, outputs)
    ]

    def backprop(d_doc_data: List[TransformerData]) -> List[Doc]:
        tensors, gradients = _gather_gradients(model, graph, rows, d_doc_data)
        if tensors:
            torch.autograd.backward(tensors, gradients)
        return docs

    batch_data = FullTransformerBatch(
        spans=[[doc[:]] for doc in docs],
        wordpieces=WordpieceBatch.empty(),
        model_output=ModelOutput(),
        align=TransformerData.empty().align,
        cached_doc_data=doc_data,
    )
    return batch_data, backprop


def _fitting_overlap(overlap: int, capacity: int) -> int:
    """The overlap asked for, but never over half a window, so that tiny encoders work with the default."""
    return min(overlap, capacity // 2)


def _batch_by_length(rows: List[Row], max_pieces: int) -> List[List[Row]]:
    """Windows of like length together, longest first, at most max_pieces padded wordpieces in a batch."""
    batches: List[List[Row]] = []
    for row in sorted(rows, key=lambda row: -len(row[2])):
        if batches and len(batches[-1][0][2]) * (len(batches[-1]) + 1) <= max_pieces:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def _empty_outputs(model: Model, doc: WindowedDoc, hidden_states: bool) -> NamedArrays:
    n_windows, width = len(doc.windows), model.get_dim("nO")
    named: NamedArrays = {
        "last_hidden_state": model.ops.alloc3f(n_windows, doc.width, width),
        "pooler_output": model.ops.alloc2f(n_windows, width),
    }
    if hidden_states:
        n_layers = model.shims[0].module.transformer.config.num_hidden_layers  # type: ignore[attr-defined]
        named["hidden_states"] = [model.ops.alloc3f(n_windows, doc.width, width) for _ in range(n_layers + 1)]
    return named


def _scatter(named: Dict[str, Any], batch: List[Row], outputs: List[NamedArrays]) -> None:
    """Copy a batch of windows into the arrays of their Docs, which so own their memory."""
    pooled: Any = torch2xp(named["pooler_output"].detach())
    last: Any = torch2xp(named["last_hidden_state"].detach())
    hidden: List[Any] = [torch2xp(layer.detach()) for layer in named.get("hidden_states", ())]
    for row, (i, number, ids) in enumerate(batch):
        output: Any = outputs[i]
        length = len(ids)
        output["pooler_output"][number] = pooled[row]
        output["last_hidden_state"][number, :length] = last[row, :length]
        for target, source in zip(output.get("hidden_states", ()), hidden):
            target[number, :length] = source[row, :length]


def _gather_gradients(
    model: Model, graph: Dict[str, Any], rows: List[Row], d_doc_data: List[TransformerData]
) -> Tuple[List[Tensor], List[Tensor]]:
    """Outputs in the graph that some head sent a gradient for, and those gradients, in the layout of the graph."""
    tensors: List[Tensor] = []
    gradients: List[Tensor] = []

    def add(output: Tensor, per_doc: List[Any]) -> None:
        if all(array is None for array in per_doc):
            return
        gradient: Any = model.ops.alloc(tuple(output.shape))
        for row, (i, number, ids) in enumerate(rows):
            if per_doc[i] is None:
                continue
            if gradient.ndim == 2:
                gradient[row] = per_doc[i][number]
            else:
                gradient[row, : len(ids)] = per_doc[i][number, : len(ids)]
        tensors.append(output)
        gradients.append(xp2torch(gradient, device=output.device))

    for name, output in graph.items():
        per_doc = [d_data.model_output.get(name) for d_data in d_doc_data]
        if isinstance(output, Tensor):
            add(output, per_doc)
        else:
            for layer, layer_output in enumerate(output):
                add(layer_output, [None if arrays is None else arrays[layer] for arrays in per_doc])
    return tensors, gradients


def _wordpiece_batch(doc: WindowedDoc, special: SpecialTokens, tokenizer: Any) -> WordpieceBatch:
    """The Doc's wordpieces in the form spacy-transformers users know."""
    prefix = tokenizer.convert_ids_to_tokens(special.prefix)
    suffix = tokenizer.convert_ids_to_tokens(special.suffix)
    ids = [[*special.prefix, *doc.pieces.ids[a:b].tolist(), *special.suffix] for a, b in doc.windows]
    input_ids, mask = pad_windows(ids, special.pad)
    return WordpieceBatch(
        strings=[[*prefix, *doc.pieces.strings[a:b], *suffix] for a, b in doc.windows],
        input_ids=cast(Any, input_ids),
        attention_mask=cast(Any, mask.astype("float32")),
        lengths=[len(window) for window in ids],
        token_type_ids=None,
    )
