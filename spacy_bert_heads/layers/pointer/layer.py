"""thinc layers around the pointing decoder: arrays in; losses, probabilities and readings out."""

from typing import Iterator, List, NamedTuple, Optional, Sequence, Tuple, cast

import numpy
import torch
from thinc.api import Model
from thinc.types import Floats2d
from thinc.util import torch2xp, xp2torch
from torch import Tensor

from ..head_layers import forward_rows, head_layer, prepare
from ..length_groups import group_by_length
from ..readings import MOST_PER_TOKEN, Generated, NumberedSpan, Reading, TokenWindow, combine, cut, in_order
from ..torch_shim import TorchShim
from .automaton import Rules, read, teach
from .module import Memory, PointerDecoder, PointerMemory, log_probabilities, search

# Tokens, padding counted, that the decoder reads together
MAX_TOKENS = 4096
# What a group of windows costs beyond its tokens, in tokens
GROUP_COST = 400


class PointerText(NamedTuple):
    """What is known of a Doc before it is read.

    free (numpy.ndarray): True for tokens where a span may begin and end: no white space. Bool, (n_tokens,).
    closed (numpy.ndarray): True for tokens that no span may have. Bool, (n_tokens,).
    """

    free: numpy.ndarray
    closed: numpy.ndarray


class PointerSettings(NamedTuple):
    """How long texts are cut, and how spans lie.

    window (int): Tokens that the decoder reads at once, at most.
    overlap (int): Tokens that neighbouring windows share, less than half of the window.
    nested (bool): Whether spans may overlap.
    """

    window: int
    overlap: int
    nested: bool


def pointer_memory(width: int, lr_scale: float) -> Model[List[Floats2d], List[Floats2d]]:
    """Token vectors, (n_tokens, nI) per Doc, to what the decoder reads, (n_tokens, width) per Doc."""
    return head_layer("pointer_memory", _forward_memory, TorchShim(PointerMemory, lr_scale), width, {})


def pointer_decoder(
    nO: Optional[int], *, width: int, depth: int, heads: int, lr_scale: float
) -> Model[List[Floats2d], List[Floats2d]]:
    """The decoder. Its layer is called by `pointer_loss` and `pointer_readings` alone, as a CRF's is.

    nO (Optional[int]): Number of labels.
    width, depth, heads: See PointerDecoder.
    lr_scale (float): See TorchShim.
    """
    return Model(
        "pointer_decoder",
        _pass_on,
        init=_init_decoder,
        dims={"nO": nO},
        shims=[TorchShim(PointerDecoder, lr_scale)],
        attrs={"dropout_rate": 0.0, "settings": {"width": width, "depth": depth, "heads": heads}},
    )


def name_labels(model: Model, vectors: Sequence[Optional[Floats2d]]) -> None:
    """Have label vectors begin as what the labels' names mean.

    model (Model): What `pointer_decoder` returns, initialised.
    vectors (Sequence[Optional[Floats2d]]): Of each label, what `pointer_memory` gives for the tokens of its name;
        None: it keeps its random vector. Float, (n_tokens, width).
    """
    decoder = cast(PointerDecoder, cast(TorchShim, model.shims[0]).module)
    for number, found in enumerate(vectors):
        if found is not None and len(found):
            decoder.labels.data[number] = xp2torch(found).mean(0).to(decoder.labels)


def pointer_loss(
    model: Model,
    memory: List[Floats2d],
    texts: Sequence[PointerText],
    spans: Sequence[Optional[Sequence[NumberedSpan]]],
    settings: PointerSettings,
    *,
    weight: float,
    shares: Optional[numpy.ndarray] = None,
) -> Tuple[float, List[Floats2d]]:
    """Negative log-likelihood of the spans of each Doc, and the mean of that over the Docs whose spans are known.

    model (Model): What `pointer_decoder` returns. The gradient of its parameters is added up in it.
    memory (List[Floats2d]): What `pointer_memory` gave. Float, (n_tokens, width) per Doc.
    texts (Sequence[PointerText]): The Docs.
    spans (Sequence[Optional[Sequence[NumberedSpan]]]): All spans of each; None: not known.
    weight (float): Multiplies the gradients, but not the loss.
    shares (Optional[numpy.ndarray]): Of each Doc's loss, what counts. None: all of it. Float, (n_docs,).
    RETURNS (Tuple[float, List[Floats2d]]): Nats, and the gradient for `memory`.
    """
    shim = prepare(model, True)
    shim.step_pending()
    module = cast(PointerDecoder, shim.module)
    module.train()
    d_memory = [model.ops.alloc2f(*vectors.shape) for vectors in memory]
    known = [i for i, found in enumerate(spans) if found is not None and len(memory[i])]
    total = 0.0
    with torch.enable_grad():
        vectors = {i: xp2torch(memory[i], device=shim.device).requires_grad_(True) for i in known}
        for batch in _batches(memory, known, settings):
            targets = [_within(cast(Sequence[NumberedSpan], spans[i]), window) for i, window in batch]
            scores = _score(module, [vectors[i] for i, _ in batch], batch, texts, targets, settings)
            if shares is not None:
                scores = scores * scores.new_tensor([shares[i] for i, _ in batch])
            (-scores.sum() * (weight / len(known))).backward()
            total -= float(scores.detach().sum())
    for i in known:
        if vectors[i].grad is not None:
            d_memory[i] = cast(Floats2d, torch2xp(cast(Tensor, vectors[i].grad)))
    return total / max(1, len(known)), d_memory


def pointer_log_probabilities(
    model: Model,
    memory: List[Floats2d],
    texts: Sequence[PointerText],
    spans: Sequence[Sequence[NumberedSpan]],
    settings: PointerSettings,
) -> List[float]:
    """Of exactly these spans.

    Arguments: See pointer_loss.
    RETURNS (List[float]): Nats; minus infinity where they are not legal. Of a Doc of several windows the sum over
        these, each with the spans that lie within it.
    """
    module = _for_prediction(model)
    found = [0.0] * len(memory)
    with torch.no_grad():
        for batch in _batches(memory, range(len(memory)), settings):
            targets = [_within(spans[i], window) for i, window in batch]
            vectors = [xp2torch(memory[i], device=module.begin.device) for i, _ in batch]
            scores = _score(module, vectors, batch, texts, targets, settings)
            for (i, _), score in zip(batch, scores.tolist()):
                found[i] += score
    return found


def pointer_readings(
    model: Model, memory: List[Floats2d], texts: Sequence[PointerText], n: int, settings: PointerSettings
) -> List[Generated]:
    """The best readings of each Doc that a beam of width n finds. Other arguments: see pointer_loss."""
    module = _for_prediction(model)
    n_labels = len(module.labels)
    found: List[List[Tuple[TokenWindow, List[Reading]]]] = [[] for _ in memory]
    with torch.no_grad():
        for batch in _batches(memory, range(len(memory)), settings):
            vectors = [xp2torch(memory[i], device=module.begin.device) for i, _ in batch]
            read_memory = _read(module, vectors, batch, texts, settings)
            n_tokens = read_memory.vectors.shape[1]
            symbols, totals = search(module, read_memory, n)
            for (i, window), sequences, values in zip(batch, symbols.tolist(), totals.tolist()):
                readings = [
                    Reading(read(sequence, n_tokens, n_labels), value)
                    for sequence, value in zip(sequences, values)
                    if value > -numpy.inf
                ]
                found[i].append((window, readings))
    return [combine(sorted(windows, key=lambda pair: pair[0].start), n, settings.nested) for windows in found]


def too_many(n_tokens: int, spans: Sequence[NumberedSpan]) -> bool:
    """RETURNS (bool): Whether spans of a Doc are more than the decoder ever generates."""
    return len(spans) > MOST_PER_TOKEN * n_tokens


Batch = List[Tuple[int, TokenWindow]]


def _batches(memory: List[Floats2d], docs: Sequence[int], settings: PointerSettings) -> Iterator[Batch]:
    """Windows of like length, with the Docs that they are of."""
    windows = [(i, window) for i in docs for window in cut(len(memory[i]), settings.window, settings.overlap)]
    if windows:
        lengths = numpy.array([window.stop - window.start for _, window in windows], dtype="int64")
        for group in group_by_length(lengths, MAX_TOKENS, GROUP_COST):
            yield [windows[number] for number in group]


def _within(spans: Sequence[NumberedSpan], window: TokenWindow) -> List[NumberedSpan]:
    return [
        (start - window.start, end - window.start, label)
        for start, end, label in in_order(spans)
        if window.start <= start and end <= window.stop
    ]


def _read(
    module: PointerDecoder,
    vectors: Sequence[Tensor],
    batch: Batch,
    texts: Sequence[PointerText],
    settings: PointerSettings,
) -> Memory:
    parts = [rows[window.start : window.stop] for rows, (_, window) in zip(vectors, batch)]
    padded = torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)
    lengths = torch.tensor([len(part) for part in parts], device=padded.device)
    is_token = torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]
    rules = Rules.of(
        [texts[i].free[window.start : window.stop] for i, window in batch],
        [texts[i].closed[window.start : window.stop] for i, window in batch],
        len(module.labels),
        settings.nested,
    )
    return module.read(padded, is_token, rules.to(padded.device))


def _score(
    module: PointerDecoder,
    vectors: Sequence[Tensor],
    batch: Batch,
    texts: Sequence[PointerText],
    targets: Sequence[Sequence[NumberedSpan]],
    settings: PointerSettings,
) -> Tensor:
    """Log-probability of each window's spans. (n_windows,)."""
    memory = _read(module, vectors, batch, texts, settings)
    lesson = teach(targets, memory.vectors.shape[1], len(module.labels)).to(memory.vectors.device)
    return log_probabilities(module, memory, lesson.symbols, lesson.steps, lesson.known)


def _for_prediction(model: Model) -> PointerDecoder:
    shim = prepare(model, False)
    shim.step_pending()
    shim.module.eval()
    return shim.module


def _forward_memory(model: Model, X: List[Floats2d], is_train: bool) -> Tuple[List[Floats2d], object]:
    return forward_rows(model, X, is_train, precision="fp32")


def _pass_on(model: Model, X: List[Floats2d], is_train: bool) -> Tuple[List[Floats2d], object]:
    return X, lambda dY: dY


def _init_decoder(model: Model, X: object = None, Y: object = None) -> None:
    shim = cast(TorchShim, model.shims[0])
    if shim.module is None:
        shim.build(nO=model.get_dim("nO"), **model.attrs["settings"])
