"""One training in several processes, which torchrun starts: each learns from a share of every batch."""

import os
from datetime import timedelta
from typing import Any, Dict, List, Optional, Sequence, Tuple, TypeVar

import torch
from spacy.language import Language
from thinc.api import Model
from torch import Tensor
from torch import distributed as dist

from ..errors import BertHeadsError
from ..layers.torch_shim import CollectingOptimizer, TorchShim

Key = Tuple[int, str]
Value = TypeVar("Value")


class Ranks:
    """The processes of a training, and this one's place among them; usually there is one.

    All read the same batches. Before a step they add up their gradients, weighted by the sizes of their shares, so
    that each makes the step that one process would make with the whole batch.

    rank (int): Number of this process.
    size (int): How many there are.
    """

    def __init__(self) -> None:
        self.rank = int(os.environ.get("RANK", 0))
        self.size = int(os.environ.get("WORLD_SIZE", 1))
        # Texts since the last step: of this process and of all
        self._mine = self._all = 0
        self._group: Any = None
        if self.size > 1:
            if not dist.is_initialized():
                dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
            # While the first process evaluates, the others wait
            self._group = dist.new_group(timeout=timedelta(days=1))

    @property
    def is_first(self) -> bool:
        """RETURNS (bool): Whether this process evaluates, writes and prints."""
        return self.rank == 0

    def check(self, nlp: Language, optimizer: Any, frozen: Sequence[str]) -> None:
        """Several processes cannot train everything that one can.

        RAISES (BertHeadsError): H184 for an optimizer that cannot add up gradients, H185 for a component that learns
            by other means than the modules of this package.
        """
        if self.size == 1:
            return
        if not isinstance(optimizer, CollectingOptimizer):
            raise BertHeadsError("H184", found=type(optimizer).__name__)
        for name, component in nlp.pipeline:
            if name not in frozen and any(not _is_ours(node) for node in _nodes(component)):
                raise BertHeadsError("H185", found=name)

    def begin(self, nlp: Language) -> None:
        """Give all processes the first one's weights, and each dropout of its own."""
        if self.size == 1:
            return
        for _, component in nlp.pipeline:
            for node in _nodes(component):
                for shim in node.shims:
                    if isinstance(shim, TorchShim) and shim.module is not None:
                        for parameter in shim.module.parameters():
                            dist.broadcast(parameter.data, 0, group=self._group)
        torch.manual_seed(torch.initial_seed() + self.rank)

    def share(self, batch: List[Value]) -> List[Value]:
        """RETURNS (List[Value]): What this process has to learn from. May be empty."""
        share = batch[self.rank :: self.size]
        self._mine += len(share)
        self._all += len(batch)
        return share

    def add_up(
        self, gradients: Dict[Key, Optional[Tensor]], parameters: Dict[Key, torch.nn.Parameter], n_batches: int
    ) -> Tuple[Dict[Key, Tensor], int]:
        """The gradients that one process would have.

        gradients (Dict[Key, Optional[Tensor]]): Of all that this process could learn; None: its share had none.
        parameters (Dict[Key, torch.nn.Parameter]): Whose they are. As many, and made in the same order, everywhere.
        n_batches (int): Batches that this process's gradients are the sum of.
        RETURNS (Tuple[Dict[Key, Tensor], int]): Those that any process had, and the batches.
        """
        weight = self._mine / max(1, self._all)
        self._mine = self._all = 0
        if not gradients:
            return {}, n_batches
        keys = sorted(gradients)
        parts = []
        for key in keys:
            gradient = gradients[key]
            parts.append((torch.zeros_like(parameters[key]) if gradient is None else gradient * weight).flatten())
        there = parts[0].new_tensor([gradients[key] is not None for key in keys])
        flat = torch.cat([*parts, there]).detach()
        dist.all_reduce(flat, group=self._group)
        batches = flat.new_tensor(n_batches)
        dist.all_reduce(batches, dist.ReduceOp.MAX, group=self._group)
        *sums, there = flat.split([len(part) for part in (*parts, there)])
        found = {key: part.view_as(parameters[key]) for key, part, n in zip(keys, sums, there.tolist()) if n}
        return found, int(batches)

    def broadcast(self, value: Value) -> Value:
        """RETURNS (Value): What the first process has. The others' is not looked at."""
        values = [value]
        if self.size > 1:
            dist.broadcast_object_list(values, 0, group=self._group)
        return values[0]

    def gather(self, value: Value) -> List[Value]:
        """RETURNS (List[Value]): What each process has."""
        values: List[Any] = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value, group=self._group)
        return values


def _nodes(component: Any) -> List[Model]:
    model = getattr(component, "model", None)
    return list(model.walk()) if isinstance(model, Model) else []


def _is_ours(node: Model) -> bool:
    return not node.param_names and all(isinstance(shim, TorchShim) for shim in node.shims)
