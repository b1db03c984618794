"""Exported encoders beside the torch modules they were made from."""

import pickle
from functools import lru_cache
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import numpy
import pytest
import torch

from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.layers import runtimes
from spacy_bert_heads.layers.encoder_module import EncoderModule, load_pretrained
from spacy_bert_heads.layers.precision import has_bf16
from spacy_bert_heads.layers.runtimes import BACKENDS, Runtime, check_backend, export_module, load_runtime

from ..making import make_bert_folder
from .making import COMBINATIONS, need

# Windows and pieces: one text, two pieces (special tokens alone), what was recorded, and sides swapped
SHAPES = [(1, 2), (1, 3), (2, 7), (7, 2), (5, 1), (40, 9), (1, 32)]
# Each export takes its time, so the rest of the kinds are for the slow tests
KINDS = [
    "bert",
    "roberta",
    *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("albert", "electra", "distilbert")),
]
# Of the outputs, which are about 1 in size. bf16 has 8 bits; int8 has 7 and a scale for each row
TOLERANCES = {"fp32": 1e-5, "bf16": 0.1, "int8": 0.4}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> EncoderModule:
    return load_module(tmp_path_factory.mktemp("bert"), "bert")


@pytest.fixture(scope="module")
def exported(bert: EncoderModule) -> Callable[[str], Runtime]:
    """The same BERT in a backend, exported once for all tests that ask for it."""

    @lru_cache(maxsize=None)
    def export(backend: str) -> Runtime:
        need(backend)
        return export_module(bert, backend, "fp32", hidden_states=False)

    return export


def load_module(folder: Path, kind: str) -> EncoderModule:
    return load_pretrained(make_bert_folder(folder, kind), {}, {}).module.eval()


def rectangles() -> List[Tuple[numpy.ndarray, numpy.ndarray]]:
    """Random ids, with padding in every second row where there is room."""
    random_state = numpy.random.RandomState(0)
    found = []
    for shape in SHAPES:
        mask = numpy.ones(shape, dtype="int64")
        mask[1::2, max(2, shape[1] // 2) :] = 0
        found.append((random_state.randint(4, 100, shape), mask))
    return found


def run_torch(module: EncoderModule, ids: numpy.ndarray, mask: numpy.ndarray, hidden: bool) -> Dict[str, Any]:
    with torch.no_grad():
        return module(torch.from_numpy(ids), torch.from_numpy(mask), hidden)


def flatten(named: Dict[str, Any]) -> List[numpy.ndarray]:
    parts = [named["last_hidden_state"], named["pooler_output"], *named.get("hidden_states", ())]
    return [numpy.asarray(part) for part in parts]


def largest_difference(module: EncoderModule, runtime: Runtime, hidden: bool) -> float:
    """Over all outputs and shapes, at wordpieces: what stands at padding is nobody's business."""
    worst = 0.0
    for ids, mask in rectangles():
        found, expected = runtime.run(ids, mask), run_torch(module, ids, mask, hidden)
        assert set(found) == set(expected)
        assert len(flatten(found)) == len(flatten(expected))
        for ours, theirs in zip(flatten(found), flatten(expected)):
            assert ours.shape == theirs.shape
            assert ours.dtype == numpy.float32
            where = mask.astype(bool) if ours.ndim == 3 else slice(None)
            worst = max(worst, float(numpy.abs(ours - theirs)[where].max()))
    return worst


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_kind_of_encoder_gives_torchs_outputs_in_rectangles_of_any_shape(
    tmp_path: Path, backend: str, kind: str
) -> None:
    need(backend)
    module = load_module(tmp_path, kind)
    runtime = export_module(module, backend, "fp32", hidden_states=True)
    assert largest_difference(module, runtime, hidden=True) < TOLERANCES["fp32"]


@pytest.mark.parametrize("backend,precision", [pair for pair in COMBINATIONS if pair[1] != "fp32"])
def test_lower_precisions_stay_near_are_not_fp32_in_disguise_and_leave_the_module_as_it_was(
    bert: EncoderModule, backend: str, precision: str
) -> None:
    need(backend, precision)
    before = {name: tensor.clone() for name, tensor in bert.state_dict().items()}
    runtime = export_module(bert, backend, precision, hidden_states=False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in bert.state_dict().items())
    difference = largest_difference(bert, runtime, hidden=False)
    assert difference < TOLERANCES[precision]
    if precision == "int8" or has_bf16(torch.device("cpu")):
        assert difference > 10 * TOLERANCES["fp32"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_runtime_can_be_saved_and_pickled(exported: Callable[[str], Runtime], backend: str) -> None:
    runtime = exported(backend)
    ids, mask = rectangles()[2]
    expected = flatten(runtime.run(ids, mask))
    for other in (
        load_runtime(runtime.backend, runtime.precision, runtime.to_bytes()),
        pickle.loads(pickle.dumps(runtime)),
    ):
        assert all(map(numpy.array_equal, flatten(other.run(ids, mask)), expected))


@pytest.mark.parametrize("backend", BACKENDS)
def test_arrays_of_one_call_are_not_overwritten_by_the_next(exported: Callable[[str], Runtime], backend: str) -> None:
    runtime = exported(backend)
    ids, mask = rectangles()[2]
    first = runtime.run(ids, mask)["last_hidden_state"]
    kept = first.copy()
    runtime.run(ids[::-1].copy(), mask[::-1].copy())
    assert numpy.array_equal(first, kept)


@pytest.mark.parametrize(
    "backend,precision,code",
    [
        ("tflite", "fp32", "H240"),
        ("onnxruntime", "bf16", "H241"),
        ("torch", "fp16", "H241"),
        ("torch", "int8", "H241"),
    ],
)
def test_what_cannot_be_done_is_said_with_what_can(backend: str, precision: str, code: str) -> None:
    for call in (lambda: check_backend(backend, precision), lambda: load_runtime(backend, precision, b"")):
        with pytest.raises(BertHeadsError) as error:
            call()
        assert error.value.code == code
        expected = BACKENDS if code == "H240" else BACKENDS[backend].precisions
        assert all(name in str(error.value) for name in expected)


@pytest.mark.parametrize("backend,extra", [("openvino", "openvino"), ("onnxruntime", "onnx")])
def test_a_backend_that_is_not_installed_names_its_extra(
    monkeypatch: pytest.MonkeyPatch, backend: str, extra: str
) -> None:
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None)
    for call in (lambda: check_backend(backend, "fp32"), lambda: load_runtime(backend, "fp32", b"")):
        with pytest.raises(BertHeadsError) as error:
            call()
        assert error.value.code == "H402"
        assert f"spacy-bert-heads[{extra}]" in str(error.value)


@pytest.mark.parametrize("backend", BACKENDS)
def test_data_that_is_cut_off_is_an_error_of_ours(exported: Callable[[str], Runtime], backend: str) -> None:
    data = exported(backend).to_bytes()
    for broken in (b"", data[: len(data) // 2]):
        with pytest.raises(BertHeadsError) as error:
            load_runtime(backend, "fp32", broken)
        assert error.value.code == "H242"
