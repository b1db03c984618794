"""Encoders outside torch's training: what each backend can do, and an exported encoder as the shim runs it."""

import logging
import os
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Callable, Dict, List, Tuple, cast

from numpy import ndarray

from ..errors import BertHeadsError
from .precision import cpu_kind

logger = logging.getLogger("spacy")

# Ids and mask in, the outputs of `Flat` out, as float32 arrays that nobody else writes to
Infer = Callable[[ndarray, ndarray], List[ndarray]]


@dataclass(frozen=True)
class Backend:
    """What can run an encoder.

    module (str): Ours, with `export(module, precision, hidden_states) -> bytes` and `load(precision, data) -> Infer`.
    precisions (Tuple[str, ...]): Those it computes in on a CPU.
    extra (str): The extra of this package that installs what it needs. "" for nothing.
    packages (Dict[str, Tuple[str, ...]]): What has to be importable beyond this package's own requirements, to export
        in a precision; under "load": to run what was exported.
    """

    module: str
    precisions: Tuple[str, ...]
    extra: str
    packages: Dict[str, Tuple[str, ...]]

    @property
    def requirements(self) -> Tuple[str, ...]:
        """RETURNS (Tuple[str, ...]): Distributions that a pipeline exported to it needs."""
        return self.packages.get("load", ())


ONNX_TOOLS = ("onnxruntime", "onnx", "onnxscript")
BACKENDS: Dict[str, Backend] = {
    "openvino": Backend(
        module="spacy_bert_heads.backends.openvino_backend",
        precisions=("bf16", "fp32", "int8"),
        extra="openvino",
        packages={
            "load": ("openvino",),
            "bf16": ("openvino",),
            "fp32": ("openvino",),
            "int8": ("openvino", "nncf"),
        },
    ),
    "onnxruntime": Backend(
        module="spacy_bert_heads.backends.onnx_backend",
        precisions=("fp32", "int8"),
        extra="onnx",
        packages={"load": ("onnxruntime",), "fp32": ONNX_TOOLS, "int8": ONNX_TOOLS},
    ),
    "torch": Backend(
        module="spacy_bert_heads.backends.torch_backend", precisions=("bf16", "fp32"), extra="", packages={}
    ),
}


class Runtime:
    """An exported encoder, ready to predict.

    backend (str): Key of BACKENDS.
    precision (str): One of that backend's.
    data (bytes): What its `export` made.
    cpu (str): The kind of CPU that it was exported on, as precision.cpu_kind names it. "" if that is not known.
    """

    def __init__(self, backend: str, precision: str, data: bytes, cpu: str = "") -> None:
        self.backend = backend
        self.precision = precision
        self.cpu = cpu
        self._data = data
        self._load()

    def _load(self) -> None:
        self._infer: Infer = _module(self.backend).load(self.precision, self._data)
        self._process = os.getpid()

    def run(self, input_ids: ndarray, attention_mask: ndarray) -> Dict[str, Any]:
        """Run the encoder on one rectangle of windows.

        input_ids (ndarray): Vocabulary ids. Int64, (n_windows, n_pieces).
        attention_mask (ndarray): 1 for wordpieces, 0 for padding. Int64, (n_windows, n_pieces).
        RETURNS (Dict[str, Any]): As EncoderModule.forward, in float32 arrays; "hidden_states" if they were exported.
        """
        if self._process != os.getpid():
            # The threads of a compiled model do not come along into a forked process. It would wait for them
            # when taken apart, so it is kept.
            self._inherited = self._infer
            self._load()
        last, pooled, *hidden = self._infer(input_ids, attention_mask)
        named: Dict[str, Any] = {"last_hidden_state": last, "pooler_output": pooled}
        if hidden:
            named["hidden_states"] = hidden
        return named

    def to_bytes(self) -> bytes:
        """RETURNS (bytes): What `load_runtime` takes, beside backend and precision."""
        return self._data

    def __getstate__(self) -> Dict[str, Any]:
        """Compiled models cannot be pickled; another process compiles its own."""
        return {"backend": self.backend, "precision": self.precision, "data": self._data, "cpu": self.cpu}

    def __setstate__(self, state: Dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def load_runtime(backend: str, precision: str, data: bytes, cpu: str = "") -> Runtime:
    """An encoder that was exported. On another kind of CPU than it was exported on, a warning says so once (H255).

    backend (str): Key of BACKENDS.
    precision (str): What it was exported for.
    data (bytes): What Runtime.to_bytes gave.
    cpu (str): Where it was exported; see Runtime.
    RAISES (BertHeadsError): H240 for an unknown backend, H241 for a precision that it does not compute in, H402 if it
        is not installed, H242 if it cannot read the data.
    """
    _check_precision(backend, precision)
    _check_installed(backend, "load")
    if cpu and cpu != cpu_kind():
        _warn_of_cpu(backend, precision, cpu)
    try:
        return Runtime(backend, precision, data, cpu)
    except Exception as error:  # each backend fails in a way of its own
        raise BertHeadsError("H242", found=backend, reason=_first_line(error)) from error


def export_module(module: Any, backend: str, precision: str, *, hidden_states: bool) -> Runtime:
    """Export an encoder's torch module, which is left as it is.

    module (EncoderModule): The encoder.
    backend (str): Key of BACKENDS.
    precision (str): What to compute in.
    hidden_states (bool): Whether to return the output of every layer too.
    RAISES (BertHeadsError): As check_backend, and H243 for an encoder that the backend cannot take.
    """
    check_backend(backend, precision)
    try:
        data = _module(backend).export(module, precision, hidden_states)
    except Exception as error:  # as above
        raise BertHeadsError("H243", found=backend, reason=_first_line(error)) from error
    return load_runtime(backend, precision, data, cpu_kind())


def check_backend(backend: str, precision: str) -> None:
    """RAISES (BertHeadsError): H240 for an unknown backend, H241 for a precision that it does not compute in, H402 if
    it is not installed.
    """
    _check_precision(backend, precision)
    _check_installed(backend, precision)


def get_backend(backend: str) -> Backend:
    """RAISES (BertHeadsError): H240 if there is no such backend."""
    if backend not in BACKENDS:
        raise BertHeadsError("H240", found=backend, expected=", ".join(BACKENDS))
    return BACKENDS[backend]


def is_installed(backend: str, precision: str) -> bool:
    """RETURNS (bool): Whether what a backend needs to export in a precision is there."""
    return all(find_spec(package) for package in get_backend(backend).packages.get(precision, ()))


@lru_cache(maxsize=None)
def _warn_of_cpu(backend: str, precision: str, cpu: str) -> None:
    """Once a process, and not for each encoder."""
    here = cpu_kind()
    logger.warning(BertHeadsError("H255", backend=backend, precision=precision, found=cpu, expected=here).text)


def _check_precision(backend: str, precision: str) -> None:
    precisions = get_backend(backend).precisions
    if precision not in precisions:
        raise BertHeadsError("H241", found=precision, backend=backend, expected=", ".join(precisions))


def _check_installed(backend: str, purpose: str) -> None:
    known = get_backend(backend)
    missing = [package for package in known.packages.get(purpose, ()) if find_spec(package) is None]
    if missing:
        raise BertHeadsError("H402", found=", ".join(missing), backend=backend, extra=known.extra)


def _module(backend: str) -> Any:
    return cast(Any, import_module(get_backend(backend).module))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0]
