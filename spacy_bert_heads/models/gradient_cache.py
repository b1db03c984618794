"""A batch of windows through the encoder and back, in rectangles, with memory bounded by their size."""

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import numpy
import torch
from torch import Tensor

from ..layers.encoder_shim import EncoderShim
from .batches import RECTANGLE_COST, Rectangle, WindowBatch

# Outputs or gradients of a whole batch, by name. Vectors of wordpieces lie in rows, (n_rows, width), in the order of
# WindowBatch; pooled ones are (n_windows, width); "hidden_states" is a list. "attentions", of predictions only, has a
# list of layers for each window, (n_heads, n_pieces, n_pieces)
Rows = Dict[str, Any]
ATTENTIONS = "attentions"


@dataclass
class Step:
    """One rectangle on its way.

    ids, mask, windows, cells, rows, types (Tensor): As in Rectangle, on the encoder's device.
    graph (Dict[str, Any]): Outputs with the graph of the forward pass, where it is kept.
    random_state (List[Tensor]): State of the random numbers before the forward pass, where it is not.
    """

    ids: Tensor
    mask: Tensor
    windows: Tensor
    cells: Tensor
    rows: Tensor
    types: Tensor
    graph: Dict[str, Any]
    random_state: List[Tensor]


def run_batch(
    shim: EncoderShim, batch: WindowBatch, max_pieces: int, is_train: bool
) -> Tuple[Rows, Callable[[Rows], None]]:
    """Encode a batch.

    max_pieces (int): Most wordpieces of a rectangle, padding included. In training, a batch of at most that size keeps
        its graph. A larger batch runs without one; for the gradient, each rectangle runs again with the random state
        it had before, so that dropout hits the same places, and only one rectangle's graph is in memory at a time.
    RETURNS: The outputs, and a callback that takes gradients for some of them and adds up those of the parameters.

    SOURCE: Gao et al. (2021), gradient caching.
    """
    device = shim.device
    rectangles = batch.rectangles(max_pieces, RECTANGLE_COST.get(device.type, 0))
    keep_graph = is_train and sum(rectangle.ids.size for rectangle in rectangles) <= max_pieces
    steps = _to_device(rectangles, device)
    outputs: Dict[str, Any] = {}
    run = shim.runner(is_train)
    with torch.set_grad_enabled(keep_graph), shim.casts_once() if is_train else nullcontext():
        for step in steps:
            step.random_state = _random_state(device) if is_train and not keep_graph else []
            named = run(step.ids, step.mask, step.types)
            step.graph = named if keep_graph else {}
            for name, value in named.items():
                if name == ATTENTIONS:
                    of_windows = outputs.setdefault(name, [None] * len(batch.lengths))
                    for row, window in enumerate(step.windows.tolist()):
                        length = int(batch.lengths[window])
                        of_windows[window] = [layer[row, :, :length, :length] for layer in value]
                elif isinstance(value, Tensor):
                    outputs[name] = _scatter(value.detach(), step, batch, outputs.get(name))
                else:
                    targets = outputs.get(name, [None] * len(value))
                    pairs = zip(value, targets)
                    outputs[name] = [_scatter(layer.detach(), step, batch, target) for layer, target in pairs]

    def backprop(gradients: Rows) -> None:
        if gradients:
            with shim.backward():
                add_up(gradients)

    def add_up(gradients: Rows) -> None:
        tensors: List[Tensor] = []
        arrived: List[Tensor] = []
        for step in steps:
            named = step.graph
            if not keep_graph:
                with _replayed(step.random_state, device):
                    named = run(step.ids, step.mask, step.types)
            for name, value in gradients.items():
                for output, gradient in zip(_as_list(named[name]), _as_list(value)):
                    tensors.append(output)
                    arrived.append(_gather(gradient, step, output))
            if not keep_graph:
                torch.autograd.backward(tensors, arrived)
                tensors, arrived = [], []
        if keep_graph:
            torch.autograd.backward(tensors, arrived)

    return outputs, backprop


def _as_list(value: Any) -> List[Tensor]:
    return [value] if isinstance(value, Tensor) else list(value)


def _scatter(value: Tensor, step: Step, batch: WindowBatch, target: Optional[Tensor]) -> Tensor:
    """Copy a rectangle's output to its rows, or windows if it is pooled. target: None for the first rectangle."""
    pooled = value.ndim == 2
    if target is None:
        n = len(batch.lengths) if pooled else batch.n_rows
        target = value.new_zeros((n, value.shape[-1]))
    if pooled:
        return target.index_copy_(0, step.windows, value)
    cells = value.flatten(0, 1)
    if len(step.cells) < len(cells):
        cells = cells.index_select(0, step.cells)
    return target.index_copy_(0, step.rows, cells)


def _gather(gradient: Tensor, step: Step, output: Tensor) -> Tensor:
    """The gradient for a rectangle's output; zeros for padding."""
    if output.ndim == 2:
        return gradient.index_select(0, step.windows)
    cells = torch.zeros_like(output).flatten(0, 1)
    return cells.index_copy_(0, step.cells, gradient.index_select(0, step.rows)).view_as(output)


def _to_device(rectangles: List[Rectangle], device: torch.device) -> List[Step]:
    """All the whole numbers of a batch in one transfer."""
    arrays = [array for r in rectangles for array in (r.ids, r.mask, r.windows, r.cells, r.rows, r.types)]
    if device.type == "cpu":
        tensors = [torch.from_numpy(array) for array in arrays]
    else:
        flat = torch.from_numpy(numpy.concatenate([a.ravel() for a in arrays] or [numpy.zeros(0, "int64")]))
        parts = flat.to(device).split([array.size for array in arrays])
        tensors = [part.view(array.shape) for part, array in zip(parts, arrays)]
    sixes = zip(*(iter(tensors),) * 6)
    return [Step(ids, mask, windows, cells, rows, types, {}, []) for ids, mask, windows, cells, rows, types in sixes]


def _random_state(device: torch.device) -> List[Tensor]:
    """The state of the random numbers that dropout draws from."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


@contextmanager
def _replayed(states: List[Tensor], device: torch.device) -> Iterator[None]:
    """Draw the same random numbers as in an earlier state, and restore the present state afterwards."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.set_rng_state(states[0])
        if device.type == "cuda":
            torch.cuda.set_rng_state(states[1], device)
        yield
