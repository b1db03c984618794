"""torch itself, without what training needs: weights in bf16 once and for all."""

from typing import Any, Dict, List

import numpy
import srsly
import torch
from numpy import ndarray
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from ..layers.encoder_module import EncoderModule, build_transformer, rebuild_config
from ..layers.fused_layers import prediction_twin
from ..layers.runtimes import Infer
from .flat import Flat

# What weights are saved in
SAVED_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def export(module: EncoderModule, precision: str, hidden_states: bool) -> bytes:
    """See runtimes.Backend."""
    dtype = SAVED_TYPES[precision]
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    config: Dict[str, Any] = module.transformer.config.to_dict()
    weights = save_safetensors({name: t.to(dtype) if t.is_floating_point() else t for name, t in state.items()})
    return srsly.msgpack_dumps({"config": config, "hidden_states": hidden_states, "state": weights})


def load(precision: str, data: bytes) -> Infer:
    """See runtimes.Backend. In bf16 it computes what autocast does."""
    msg = srsly.msgpack_loads(data)
    module = EncoderModule(build_transformer(rebuild_config(msg["config"])))
    module.load_state_dict(load_safetensors(msg["state"]))
    dtype = torch.bfloat16 if precision == "bf16" else None
    flat = prediction_twin(Flat(module, msg["hidden_states"]), dtype)

    def infer(input_ids: ndarray, attention_mask: ndarray) -> List[ndarray]:
        with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype is not None):
            outputs = flat(torch.from_numpy(input_ids), torch.from_numpy(attention_mask))
        return [numpy.asarray(output.float()) for output in outputs]

    return infer
