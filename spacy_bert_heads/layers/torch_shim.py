"""PyTorch modules inside thinc models: built late, saved without pickle, with a learning rate of their own."""

import copy
import os
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Optional, Set, cast

import srsly
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import load_file as load_safetensors_file
from safetensors.torch import save as save_safetensors
from safetensors.torch import save_file as save_safetensors_file
from thinc.api import Model, Optimizer, PyTorchShim, get_torch_default_device
from thinc.shims import Shim
from thinc.types import ArgsKwargs, FloatsXd
from thinc.util import torch2xp, xp2torch

from ..errors import BertHeadsError

# What parameters belong to; each has its own learning rate
ENCODER_ROLE, HEAD_ROLE, CRF_ROLE = "encoder", "head", "crf"
# Kernels that oneDNN keeps. A batch needs some 30, which its layers share, and neither predictions nor training were
# slower than with 512
KEPT_KERNELS = "128"


@lru_cache(maxsize=None)
def prepare_process() -> None:
    """Settle for this process and its children how forks compute, and how many kernels are kept. Called when a module
    of ours is there to be run, and not on import.

    A process that is forked from this one, as by `nlp.pipe(n_process=2)`, has torch's thread pool without its threads,
    and would wait for them for ever: it computes in one thread.

    oneDNN compiles kernels for each number of wordpieces, of which a training has ever new ones, and would keep the
    last 1,024, some 0.4 MiB each. It reads the variable when it makes the first one, so what has run before
    in this process decides.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_use_one_thread)
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", KEPT_KERNELS)


def _use_one_thread() -> None:
    torch.set_num_threads(1)


class CollectingOptimizer(Optimizer):
    """An optimizer that takes the gradients of all modules before it steps with them; see training/optimizer.py.

    thinc's optimizers step each parameter as soon as they are given its gradient.
    """

    def collect(self, shim: "TorchShim") -> None:
        """Take the gradients of a shim's module, and note that in `shim.pending_in`."""
        raise NotImplementedError

    def wait_for(self, finish: Callable[[], None]) -> None:
        """Remember what hands in the gradients of a component that some heads may never answer.

        finish (Callable[[], None]): Called at the next `step_pending`. Does nothing if there is nothing to hand in.
        """
        raise NotImplementedError

    def step_pending(self) -> None:
        """Step with all gradients, those that components still hold back included. Not in the middle of an update."""
        raise NotImplementedError

    def step_collected(self) -> None:
        """Step with the gradients collected so far."""
        raise NotImplementedError

    def check(self) -> None:
        """RAISES (BertHeadsError): If it will not be able to step."""
        raise NotImplementedError


class TorchShim(PyTorchShim):
    """thinc's PyTorchShim for a module whose size is known only at initialisation.

    An optimizer may hold gradients of the module and not have stepped yet. It steps before the module runs, for
    training or prediction, and before it is saved, copied, loaded, moved or given other weights for a while. To read
    an attribute never changes a weight.

    build_module (Callable[..., torch.nn.Module]): Makes the module from keyword arguments; those are saved with
        the weights, so that a loaded pipeline can build the module before it fills it.
    lr_scale (float): Multiplies the optimizer's learning rate for this module's parameters.
    role (Optional[str]): What our optimizer takes the parameters for: "encoder", "head" or "crf". None: an encoder if
        there is no `build_module`, otherwise a head.
    """

    def __init__(
        self,
        build_module: Optional[Callable[..., torch.nn.Module]] = None,
        lr_scale: float = 1.0,
        role: Optional[str] = None,
    ) -> None:
        # The optimizer that has our gradients and has not stepped yet
        self.pending_in: Optional[CollectingOptimizer] = None
        # Training passes since the last step, and parameters for which the optimizer switched gradients off
        self.n_updates = 0
        self.frozen: Set[str] = set()
        super().__init__(None)
        self._build_module = build_module
        self.lr_scale = lr_scale
        self.role = role or (ENCODER_ROLE if build_module is None else HEAD_ROLE)

    @property
    def module(self) -> Any:
        """RETURNS (Optional[torch.nn.Module]): The wrapped module, None before it is built."""
        return self._model

    def step_pending(self) -> None:
        """If an optimizer holds gradients of this module, let it step with all that it holds."""
        if self.pending_in is not None:
            self.pending_in.step_collected()

    def build(self, **cfg: Any) -> None:
        """Make the module and remember how. cfg: the keyword arguments of `build_module`."""
        assert self._build_module is not None
        prepare_process()
        self.cfg: Dict[str, Any] = cfg
        self._model = self._build_module(**cfg).to(get_torch_default_device())

    def predict(self, inputs: ArgsKwargs) -> Any:
        """Run the module for prediction and leave it so, for other threads may be predicting too."""
        self.step_pending()
        self._model.eval()
        with torch.no_grad():
            return self._model(*inputs.args, **inputs.kwargs)

    def begin_update(self, inputs: ArgsKwargs) -> Any:
        """Run the module for training; see PyTorchShim."""
        self.step_pending()
        self.n_updates += 1
        return super().begin_update(inputs)

    def finish_update(self, optimizer: Optimizer) -> None:
        """Step every parameter that has a gradient, then clear the gradients.

        optimizer (Optimizer): thinc's, or ours, which collects the gradients of all components and steps later. A
            plain callable of three arguments, as in `nlp.rehearse`, is stepped without the module's learning rate
            scale.
        """
        if self._model is None:
            return
        if isinstance(optimizer, CollectingOptimizer):
            optimizer.collect(self)
            return
        self.step_pending()
        self.n_updates = 0
        extra = {"lr_scale": self.lr_scale} if isinstance(optimizer, Optimizer) else {}
        for name, parameter in self._model.named_parameters():
            if parameter.grad is None:
                continue
            weights, _ = optimizer(
                (self.id, name),
                cast(FloatsXd, torch2xp(parameter.data)),
                cast(FloatsXd, torch2xp(parameter.grad)),
                **extra,
            )
            # thinc's optimizers work in place. To write the result back all the same, as thinc's own shim does, chains
            # every step's arrays to the next one's, and none is ever freed.
            updated = xp2torch(weights, device=parameter.device)
            if updated.data_ptr() != parameter.data_ptr():
                parameter.data.copy_(updated)
            parameter.grad = None

    @contextmanager
    def use_params(self, params: Dict[Any, Any]) -> Iterator[None]:
        """Put other weights in place for a while, such as an optimizer's averages.

        params (Dict[Any, Any]): Weights by the keys `finish_update` gives the optimizer. thinc's own shim looks for
            another kind of key, and so never finds its averages.
        """
        self.step_pending()
        parameters = {} if self._model is None else dict(self._model.named_parameters())
        replaced = {name: p for name, p in parameters.items() if (self.id, name) in params}
        backup = {name: p.data for name, p in replaced.items()}
        for name, parameter in replaced.items():
            parameter.data = xp2torch(params[(self.id, name)], device=parameter.device)
        try:
            yield
        finally:
            for name, parameter in replaced.items():
                parameter.data = backup[name]

    def copy(self) -> "TorchShim":
        """A deep copy under an id of its own: optimizers tell parameters apart by the shim's id."""
        self.step_pending()
        copied = copy.deepcopy(self)
        with Shim.global_id_lock:
            Shim.global_id += 1
            copied.id = Shim.global_id
        return copied

    def __getstate__(self) -> Dict[str, Any]:
        """For pickle, as other processes get it, and deepcopy: without an optimizer."""
        self.step_pending()
        return self.__dict__

    def to_device(self, device_type: str, device_id: int) -> None:
        """Move the module; see PyTorchShim."""
        self.step_pending()
        super().to_device(device_type, device_id)

    def to_bytes(self) -> bytes:
        self.step_pending()
        return srsly.msgpack_dumps({"config": self.cfg, "state": dump_weights(self._model)})

    def from_bytes(self, bytes_data: bytes) -> "TorchShim":
        self.step_pending()
        msg = srsly.msgpack_loads(bytes_data)
        if msg["state"] is not None:
            self.build(**msg["config"])
            load_weights(self._model, msg["state"])
        return self


def step_pending(model: Model) -> None:
    """If an optimizer holds gradients of one of a model's torch modules, let it step with all that it holds."""
    for node in model.walk():
        for shim in node.shims:
            if isinstance(shim, TorchShim):
                shim.step_pending()


def dump_weights(module: Optional[torch.nn.Module]) -> Optional[bytes]:
    """A module's weights in the safetensors format, which holds numbers and nothing that could run."""
    return None if module is None else save_safetensors(_contiguous(module))


def load_weights(module: torch.nn.Module, state: bytes) -> None:
    """Fill a module; every weight must be there and none too many (RuntimeError otherwise)."""
    module.load_state_dict(load_safetensors(state))


def write_weights(module: torch.nn.Module, path: Path) -> None:
    """Write a module's weights to a safetensors file. What is there is overwritten.

    RAISES (OSError): If they cannot be written. safetensors has an error of its own for a full disk.
    """
    try:
        save_safetensors_file(_contiguous(module), path)
    except SafetensorError as error:
        raise OSError(str(error)) from error


def read_weights(module: torch.nn.Module, path: Path) -> None:
    """Fill a module from a safetensors file, which is mapped and not read into memory beforehand.

    RAISES (BertHeadsError): H291 if there is none; H292 if it cannot be read, or has other weights than the module.
    """
    if not path.is_file():
        raise BertHeadsError("H291", path=path)
    try:
        module.load_state_dict(load_safetensors_file(path))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise BertHeadsError("H292", path=path, found=" ".join(str(error).split())[:200]) from error


def _contiguous(module: torch.nn.Module) -> Dict[str, torch.Tensor]:
    return {name: tensor.cpu().contiguous() for name, tensor in module.state_dict().items()}
