"""ONNX Runtime: the module exported by torch's own exporter."""

import tempfile
from pathlib import Path
from typing import Any, List

import torch
from numpy import ndarray

from ..layers.runtimes import Infer
from .flat import Flat, example_inputs, quiet


def export(module: Any, precision: str, hidden_states: bool) -> bytes:
    """See runtimes.Backend."""
    sides = {0: torch.export.Dim("windows"), 1: torch.export.Dim("pieces")}
    with quiet(), torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            Flat(module, hidden_states),
            example_inputs(),
            path,
            input_names=["input_ids", "attention_mask"],
            dynamic_shapes=(sides, sides),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        if precision == "int8":
            from onnxruntime.quantization import QuantType, quantize_dynamic

            # Products alone: an embedding in int8 saves no time and is read by every layer. Weights of 7 bits: sums of
            # 8-bit products saturate on CPUs without VNNI, and a pipeline may come to run on one
            quantize_dynamic(
                path,
                path,
                op_types_to_quantize=["MatMul", "Gemm"],
                per_channel=True,
                reduce_range=True,
                weight_type=QuantType.QInt8,
            )
        return path.read_bytes()


def load(precision: str, data: bytes) -> Infer:
    """See runtimes.Backend."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that spin while they wait would take the cores from the heads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def infer(input_ids: ndarray, attention_mask: ndarray) -> List[ndarray]:
        return session.run(None, {"input_ids": input_ids, "attention_mask": attention_mask})

    return infer
