"""Which number format encoders and LSTMs compute in, on this machine."""

import copy
import logging
from functools import lru_cache
from typing import List

import torch

from ..errors import BertHeadsError

logger = logging.getLogger("spacy")

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
AUTOCAST_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def check_precision(precision: str, *, training: bool) -> None:
    """RAISES (BertHeadsError): H209 for an unknown precision, H233 for training in fp16."""
    if precision not in PRECISIONS:
        raise BertHeadsError("H209", found=precision, expected=", ".join(PRECISIONS))
    if training and precision == "fp16":
        raise BertHeadsError("H233")


def resolve_precision(precision: str, device: torch.device) -> str:
    """The precision used on a device.

    precision (str): "fp32", "bf16", "fp16", or "auto": bf16 where the device computes in it by itself, else fp32.
    RETURNS (str): "fp32", "bf16" or "fp16".
    RAISES (BertHeadsError): H234 for fp16 without a GPU, where it is slower than fp32.
    """
    if precision == "fp16" and device.type != "cuda":
        raise BertHeadsError("H234", found=device.type)
    resolved = precision
    if precision == "auto":
        resolved = "bf16" if has_bf16(device) else "fp32"
    _report(precision, resolved, device.type)
    return resolved


def has_bf16(device: torch.device) -> bool:
    """Whether bf16 is in the hardware, and not emulated, which would be slower than fp32.

    RETURNS (bool): True for CPUs with AVX512-BF16 or AMX and for GPUs from Ampere on.
    """
    if device.type == "cpu":
        # torch has no public name for them; where it has none at all, it is too old to use them well
        flags = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, flag, bool)() for flag in flags)
    if device.type == "cuda":
        major, _ = torch.cuda.get_device_capability(device)
        return torch.version.hip is not None or major >= 8
    return False


def cpu_kind() -> str:
    """RETURNS (str): What this CPU computes with, as far as speed and rounding depend on it, such as "AVX2" or
    "AVX512, VNNI, bf16".
    """
    named = {"VNNI": "_is_vnni_supported", "bf16": "_is_avx512_bf16_supported", "AMX": "_is_amx_tile_supported"}
    found = [name for name, flag in named.items() if getattr(torch.cpu, flag, bool)()]
    return ", ".join([torch.backends.cpu.get_cpu_capability(), *found])


def copy_modules(module: torch.nn.Module) -> torch.nn.Module:
    """RETURNS (torch.nn.Module): A copy that shares all weights."""
    return copy.deepcopy(module, {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())})


def linear_layers(module: torch.nn.Module) -> List[torch.nn.Linear]:
    """RETURNS (List[torch.nn.Linear]): Each of them once."""
    return [layer for layer in module.modules() if isinstance(layer, torch.nn.Linear)]


def round_linear_layers(module: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """A twin of a module that computes under autocast what the module does: the weights of its linear layers are
    rounded, all others are the module's own.
    """
    twin = copy_modules(module)
    for layer in linear_layers(twin):
        for name, weight in layer.named_parameters():
            setattr(layer, name, torch.nn.Parameter(weight.detach().to(dtype), requires_grad=False))
    return twin


@lru_cache(maxsize=None)
def _report(precision: str, resolved: str, device: str) -> None:
    """Once for each combination, and not for each batch."""
    logger.info("Precision '%s': computing in %s on the %s", precision, resolved, device)
