"""Intel's OpenVINO: the module traced, converted and compiled for the CPU at hand."""

import tempfile
from pathlib import Path
from threading import Lock
from typing import Any, List

import srsly
import torch
from numpy import ndarray

from ..layers.runtimes import Infer
from .flat import Flat, example_inputs, quiet

# OpenVINO's names for what to compute in. With int8 weights, activations are quantized on the way into each product
HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}


def export(module: Any, precision: str, hidden_states: bool) -> bytes:
    """See runtimes.Backend."""
    import openvino

    ids, mask = example_inputs()
    with quiet(), torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        model = openvino.convert_model(
            Flat(module, hidden_states), example_input={"input_ids": ids, "attention_mask": mask}
        )
        if precision == "int8":
            import nncf

            model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
        path = Path(folder) / "model.xml"
        # fp16 has more bits than bf16 to round from, and half the size of fp32
        openvino.save_model(model, path, compress_to_fp16=precision != "fp32")
        return srsly.msgpack_dumps({"model": path.read_bytes(), "weights": path.with_suffix(".bin").read_bytes()})


def load(precision: str, data: bytes) -> Infer:
    """See runtimes.Backend."""
    import openvino

    msg = srsly.msgpack_loads(data)
    core = openvino.Core()
    model = core.read_model(model=msg["model"], weights=msg["weights"])
    settings = {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    lock = Lock()

    def infer(input_ids: ndarray, attention_mask: ndarray) -> List[ndarray]:
        # A request holds the arrays of one call
        with lock:
            results = request.infer([input_ids, attention_mask])
        return list(results.values())

    return infer
