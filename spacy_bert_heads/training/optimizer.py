"""AdamW as BERT is fine-tuned with it: one learning rate for each part, one norm for all gradients, a warm-up."""

import logging
import math
import re
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Tuple, cast

import torch
from thinc.api import Optimizer, get_current_ops
from thinc.backends import get_array_ops
from thinc.types import FloatsXd
from thinc.util import torch2xp, xp2torch

from ..errors import BertHeadsError
from ..layers.encoder_shim import EncoderShim
from ..layers.torch_shim import CRF_ROLE, ENCODER_ROLE, HEAD_ROLE, CollectingOptimizer, TorchShim
from .distributed import Key, Ranks

logger = logging.getLogger("spacy")

LINEAR, COSINE, CONSTANT = "linear", "cosine", "constant"
DECAYS = (LINEAR, COSINE, CONSTANT)
# `encoder.layer.3.attention...`: layers are counted by the first number in a parameter's name
LAYER_NUMBER = re.compile(r"\.(\d+)\.")
# Below the first layer: `embeddings.word_embeddings.weight`, `encoder.embedding_hidden_mapping_in.weight`, ...
EMBEDDINGS = re.compile("embed")


class Place(NamedTuple):
    """Where a parameter is in the pipeline; all of one place share learning rate and weight decay.

    role (str): Of its shim, see TorchShim.
    lr_scale (float): Of its shim.
    below_top (int): Layers of the encoder above it.
    decays (bool): Whether it has weight decay: matrices do, biases and LayerNorm do not.
    """

    role: str
    lr_scale: float
    below_top: int
    decays: bool


class AdamW(CollectingOptimizer):
    """torch's AdamW behind thinc's interface. Registered as spacy_bert_heads.AdamW.v1.

    thinc's optimizers are called for one parameter after another and step at once, which leaves no room for a norm
    over all gradients. This one collects gradients, and steps with all of them together

    - in `step_schedules`, which `spacy train` calls after each batch;
    - in `step_pending`, for training loops of one's own;
    - before a module of ours whose gradients it holds runs again, in training or prediction, is saved or copied (see
      TorchShim), and before it takes a second gradient of one parameter.

    So a loop of `nlp.update(..., sgd=optimizer)` always learns. Layers of thinc's own cannot tell that they are about
    to run: after such a loop over a pipeline of nothing else, call `step_pending` before you use or save it.

    Settings: see build_adamw_v1.

    step (int): Steps so far.
    ranks (Optional[Ranks]): The processes that train together. None: there is one.
    """

    def __init__(
        self,
        learn_rate: float,
        *,
        head_rate: Optional[float],
        crf_rate: Optional[float],
        layer_decay: float,
        weight_decay: float,
        grad_clip: float,
        warmup: float,
        decay: str,
        total_steps: Optional[int],
        freeze_embeddings: bool,
        freeze_layers: int,
        beta1: float,
        beta2: float,
        eps: float,
        use_averages: bool,
    ) -> None:
        super().__init__(
            learn_rate,
            L2=weight_decay,
            beta1=beta1,
            beta2=beta2,
            eps=eps,
            grad_clip=grad_clip,
            use_averages=use_averages,
            L2_is_weight_decay=True,
        )
        self.head_rate = head_rate
        self.crf_rate = crf_rate
        self.layer_decay = layer_decay
        self.warmup = warmup
        self.decay = decay
        self.total_steps = total_steps
        self.freeze_embeddings = freeze_embeddings
        self.freeze_layers = freeze_layers
        self.step = 0
        self.ranks: Optional[Ranks] = None
        self._torch: Optional[torch.optim.AdamW] = None
        self._groups: Dict[Place, Dict[str, Any]] = {}
        self._places: Dict[Key, Place] = {}
        self._parameters: Dict[Key, torch.nn.Parameter] = {}
        # Gradients to step with (None: another process may have one), the shims they are from, and by how many batches
        # they were added up
        self._pending: Dict[Key, Optional[torch.Tensor]] = {}
        self._shims: List[TorchShim] = []
        self._n_batches = 1
        # A dict for its order
        self._waiting: Dict[Callable[[], None], None] = {}
        # State of parameters that were not seen again since it was loaded
        self._loaded: Dict[Key, Dict[str, torch.Tensor]] = {}

    def __call__(
        self, key: Key, weights: FloatsXd, gradient: FloatsXd, *, lr_scale: float = 1.0
    ) -> Tuple[FloatsXd, FloatsXd]:
        """Take the gradient of one array, for layers that are not ours.

        key (Key): Id of node or shim, and name of the parameter.
        weights (FloatsXd): Changed in place, later.
        gradient (FloatsXd): Set to zero.
        lr_scale (float): Multiplies the learning rate, if there is no `head_rate`.
        RETURNS (Tuple[FloatsXd, FloatsXd]): Both arrays.
        RAISES (BertHeadsError): H271 if the length of the training is needed and unknown.
        """
        self.check()
        if not gradient.size:
            return weights, gradient
        if key in self._pending:
            self.step_collected()
        device = None if _on_gpu(weights) else torch.device("cpu")
        tensor = xp2torch(weights, device=device)
        known = self._parameters.get(key)
        if known is None or known.data_ptr() != tensor.data_ptr():
            role = ENCODER_ROLE if LAYER_NUMBER.search(key[1]) or EMBEDDINGS.search(key[1]) else HEAD_ROLE
            self._register(key, torch.nn.Parameter(tensor), Place(role, lr_scale, 0, tensor.ndim > 1))
        self._pending[key] = xp2torch(gradient, device=device).clone()
        gradient *= 0
        return weights, gradient

    def collect(self, shim: TorchShim) -> None:
        """Take the gradients of a shim's module, without a copy.

        shim (TorchShim): Its module's parameters are left without gradients.
        RAISES (BertHeadsError): H271 if the length of the training is needed and unknown.
        """
        self.check()
        parameters = dict(shim.module.named_parameters())
        if any((shim.id, name) in self._pending for name, p in parameters.items() if p.grad is not None):
            self.step_collected()
        is_encoder = shim.role == ENCODER_ROLE
        heights, top = _heights(parameters) if is_encoder else (dict.fromkeys(parameters, 0), 0)
        frozen = {name for name, height in heights.items() if is_encoder and self._is_frozen(height)}
        self._set_frozen(shim, parameters, frozen, top)
        for name, parameter in parameters.items():
            gradient, parameter.grad = parameter.grad, None
            if name in frozen or (gradient is None and not self._is_shared):
                continue
            key = (shim.id, name)
            if self._parameters.get(key) is not parameter:
                place = Place(shim.role, shim.lr_scale, max(0, top - heights[name]), parameter.ndim > 1)
                self._register(key, parameter, place)
            self._pending[key] = gradient
        if not is_encoder:
            self._n_batches = max(self._n_batches, shim.n_updates)
        shim.n_updates = 0
        shim.pending_in = self
        self._shims.append(shim)

    def wait_for(self, finish: Callable[[], None]) -> None:
        """See CollectingOptimizer."""
        self._waiting[finish] = None

    def step_pending(self) -> None:
        """Step with all gradients, also those of an encoder that waits for a head that took no part.

        Call it between updates. Without any gradients, nothing happens.
        """
        waiting, self._waiting = self._waiting, {}
        for finish in waiting:
            finish()
        self.step_collected()

    def step_collected(self) -> None:
        """Step with the gradients collected so far; without any, do nothing.

        They are divided by the number of batches they are the sum of (`accumulate_gradient`), since our losses are
        means, and then clipped together. Gradients that are not finite are thrown away.
        """
        shims, self._shims = self._shims, []
        for shim in shims:
            shim.pending_in = None
        pending, self._pending = self._pending, {}
        n_batches, self._n_batches = self._n_batches, 1
        if self.ranks is not None and self._is_shared:
            gradients, n_batches = self.ranks.add_up(pending, self._parameters, n_batches)
        else:
            gradients = cast(Dict[Key, torch.Tensor], pending)
        if not gradients:
            return
        factor = self.factor(self.step)
        self.step += 1
        parameters = [self._parameters[key] for key in gradients]
        for parameter, gradient in zip(parameters, gradients.values()):
            parameter.grad = gradient if n_batches == 1 else gradient.div_(n_batches)
        if not self.grad_clip or self._clip(parameters):
            for place, group in self._groups.items():
                group["lr"] = self._rate(place) * factor
            cast(torch.optim.AdamW, self._torch).step()
            self._update_averages(gradients)
        for parameter in parameters:
            parameter.grad = None

    def check(self) -> None:
        """Called at every update, not when the optimizer is made: count_steps.v1 fills in `total_steps` later.

        RAISES (BertHeadsError): H271 if the length of the training is needed and unknown.
        """
        if self.total_steps is None and (0 < self.warmup < 1 or self.decay != CONSTANT):
            raise BertHeadsError("H271")

    def step_schedules(self) -> None:
        """Step. `spacy train` calls this when all components have handed in their gradients."""
        self.step_pending()

    def state_dict(self) -> Dict[str, Any]:
        """All that is needed to resume later, after the step that is due.

        RETURNS (Dict[str, Any]): "step"; "parameters", tensors by key and name; "averages", for each key a tensor
            and in how many steps it was made.
        """
        self.step_pending()
        state = {} if self._torch is None else self._torch.state
        parameters = {key: dict(state[p]) for key, p in self._parameters.items() if p in state}
        averages = {key: (xp2torch(array), self.nr_update[key]) for key, array in (self.averages or {}).items()}
        return {"step": self.step, "parameters": {**self._loaded, **parameters}, "averages": averages}

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """Resume from what `state_dict` returned.

        state (Dict[str, Any]): With the keys that the parameters have in this process.
        """
        self.step = state["step"]
        self._loaded = dict(state["parameters"])
        if self.averages is not None:
            for key, (tensor, n_steps) in state["averages"].items():
                self.averages[key] = cast(FloatsXd, get_current_ops().asarray(tensor.cpu().numpy().copy()))
                self.nr_update[key] = n_steps
        for key in [key for key in self._parameters if key in self._loaded]:
            self._load_parameter(key)

    @property
    def _is_shared(self) -> bool:
        """Whether other processes train with this one."""
        return self.ranks is not None and self.ranks.size > 1

    def _is_frozen(self, height: int) -> bool:
        return height <= self.freeze_layers if height > 0 else self.freeze_embeddings

    def _set_frozen(
        self, shim: TorchShim, parameters: Dict[str, torch.nn.Parameter], frozen: Iterable[str], top: int
    ) -> None:
        """Spare torch the gradients of frozen parameters, where that leaves every output its own."""
        if (isinstance(shim, EncoderShim) and shim.hidden_states) or self.freeze_layers >= top:
            frozen = ()
        for name in shim.frozen.symmetric_difference(frozen):
            parameters[name].requires_grad_(name not in frozen)
        shim.frozen = set(frozen)

    def _register(self, key: Key, parameter: torch.nn.Parameter, place: Place) -> None:
        """Take a parameter into its group. One that replaces another, as after `from_disk`, inherits its state."""
        known = self._parameters.get(key)
        self._parameters[key] = parameter
        if known is not None and self._torch is not None:
            members = self._groups[self._places[key]]["params"]
            members[next(i for i, member in enumerate(members) if member is known)] = parameter
            if known in self._torch.state:
                self._torch.state[parameter] = self._torch.state.pop(known)
        else:
            self._places[key] = place
            self._add_to_group(parameter, place)
        self._load_parameter(key)

    def _add_to_group(self, parameter: torch.nn.Parameter, place: Place) -> None:
        if place in self._groups:
            self._groups[place]["params"].append(parameter)
            return
        group = {"params": [parameter], "weight_decay": self.L2 if place.decays else 0.0}
        if self._torch is None:
            betas = (self.b1, self.b2)
            self._torch = torch.optim.AdamW([group], lr=self.learn_rate, betas=betas, eps=self.eps, fused=True)
        else:
            self._torch.add_param_group(group)
        self._groups[place] = self._torch.param_groups[-1]

    def _load_parameter(self, key: Key) -> None:
        loaded = self._loaded.pop(key, None)
        if loaded is not None:
            parameter = self._parameters[key]
            # On the parameter's device the count of steps too: torch's fused kernel wants it there
            state = {name: tensor.to(parameter.device, copy=True) for name, tensor in loaded.items()}
            cast(torch.optim.AdamW, self._torch).state[parameter] = state

    def _clip(self, parameters: List[torch.nn.Parameter]) -> bool:
        """Scale the gradients to a norm of `grad_clip` at most. RETURNS (bool): Whether they are finite."""
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.grad_clip)
        if bool(norm.isfinite()):
            return True
        for parameter in parameters:
            # Matrices that are used again, see EncoderShim.backward, would stay NaN where nothing else is added
            cast(torch.Tensor, parameter.grad).zero_()
        logger.warning("Step %d is skipped: its gradients are not finite.", self.step - 1)
        return False

    def _rate(self, place: Place) -> float:
        """The learning rate at its highest."""
        if place.role == ENCODER_ROLE:
            return float(self.learn_rate * place.lr_scale * self.layer_decay**place.below_top)
        rate = self.head_rate
        if place.role == CRF_ROLE and self.crf_rate is not None:
            rate = self.crf_rate
        return float(self.learn_rate * place.lr_scale if rate is None else rate)

    def factor(self, step: int) -> float:
        """Share of the highest rate for a step, counted from 0; as transformers' schedules have it."""
        total = self.total_steps
        warmup = self.warmup if self.warmup >= 1 else math.ceil(self.warmup * (total or 0))
        if step < warmup:
            return step / max(1.0, warmup)
        if total is None or self.decay == CONSTANT:
            return 1.0
        if self.decay == LINEAR:
            return max(0.0, (total - step) / max(1.0, total - warmup))
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1.0, total - warmup))))

    def _update_averages(self, keys: Iterable[Key]) -> None:
        if self.averages is None:
            return
        for key in keys:
            weights = torch2xp(self._parameters[key].data)
            ops = get_array_ops(weights)
            self.nr_update[key] += 1
            if key not in self.averages:
                self.averages[key] = cast(FloatsXd, ops.alloc(weights.shape, dtype="float32"))
            ops.update_averages(self.averages[key], weights, self.nr_update[key])


def build_adamw_v1(
    learn_rate: float = 5e-5,
    head_rate: Optional[float] = None,
    crf_rate: Optional[float] = None,
    layer_decay: float = 1.0,
    weight_decay: float = 0.01,
    grad_clip: float = 1.0,
    warmup: float = 0.1,
    decay: str = LINEAR,
    total_steps: Optional[int] = None,
    freeze_embeddings: bool = False,
    freeze_layers: int = 0,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    use_averages: bool = False,
) -> Optimizer:
    """torch's AdamW with a learning rate for each part of the pipeline. Registered as spacy_bert_heads.AdamW.v1.

    learn_rate (float): Peak learning rate of the encoder.
    head_rate (Optional[float]): Peak learning rate of the heads. None: learn_rate times each head's own `lr_scale`,
        which is 1 for spaCy's heads.
    crf_rate (Optional[float]): Peak learning rate of the CRF. None: as the rest of its head.
    layer_decay (float): Learning-rate factor between one layer and the one above, such as 0.9. The embeddings count as
        the layer below the first. 1: all layers learn alike.
    weight_decay (float): Weight decay of matrices; biases and LayerNorm have none.
    grad_clip (float): Greatest norm of all gradients together. 0: no clipping.
    warmup (float): Steps in which the rate rises from 0; below 1, a share of total_steps.
    decay (str): How the rate then falls to 0 at total_steps: "linear" or "cosine". "constant": it does not fall.
    total_steps (Optional[int]): Steps of the training. None: counted by spacy_bert_heads.count_steps.v1 under
        [initialize.before_init].
    freeze_embeddings (bool): Whether to freeze the encoder's embeddings.
    freeze_layers (int): Number of lowest layers to freeze.
    beta1 (float): Adam's decay rate of the mean of the gradients.
    beta2 (float): Adam's decay rate of the mean of their squares.
    eps (float): Adam's constant against division by 0.
    use_averages (bool): Whether evaluations and the saved pipeline use averages of the weights, as thinc makes them.
    RETURNS (Optimizer): The optimizer.
    RAISES (BertHeadsError): H270 for a value out of range.
    """
    positive = {"learn_rate": learn_rate, "head_rate": head_rate, "crf_rate": crf_rate, "total_steps": total_steps}
    for name, value in positive.items():
        if value is not None and value <= 0:
            raise BertHeadsError("H270", name=name, found=value, expected="more than 0")
    at_least_0 = {
        "weight_decay": weight_decay,
        "grad_clip": grad_clip,
        "warmup": warmup,
        "freeze_layers": freeze_layers,
    }
    for name, value in at_least_0.items():
        if value < 0:
            raise BertHeadsError("H270", name=name, found=value, expected="0 or more")
    if not 0 < layer_decay <= 1:
        raise BertHeadsError("H270", name="layer_decay", found=layer_decay, expected="more than 0 and at most 1")
    if decay not in DECAYS:
        raise BertHeadsError("H270", name="decay", found=repr(decay), expected=f"one of {', '.join(DECAYS)}")
    return AdamW(
        learn_rate,
        head_rate=head_rate,
        crf_rate=crf_rate,
        layer_decay=layer_decay,
        weight_decay=weight_decay,
        grad_clip=grad_clip,
        warmup=warmup,
        decay=decay,
        total_steps=total_steps,
        freeze_embeddings=freeze_embeddings,
        freeze_layers=freeze_layers,
        beta1=beta1,
        beta2=beta2,
        eps=eps,
        use_averages=use_averages,
    )


def _heights(parameters: Iterable[str]) -> Tuple[Dict[str, int], int]:
    """Layer of each parameter of an encoder: 0 for embeddings, 1 for the first layer; a pooler is above the last.

    RETURNS (Tuple[Dict[str, int], int]): That, and the number of layers.
    """
    numbers = {name: LAYER_NUMBER.search(name) for name in parameters}
    top = max((int(found.group(1)) + 1 for found in numbers.values() if found), default=0)
    heights = {
        name: int(found.group(1)) + 1 if found else 0 if EMBEDDINGS.search(name) else top + 1
        for name, found in numbers.items()
    }
    return heights, top


def _on_gpu(array: Any) -> bool:
    return type(array).__module__.partition(".")[0] == "cupy"
