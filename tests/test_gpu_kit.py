"""The benchmark for GPUs as far as it goes without one, and what takes it to one."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, Dict

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


@pytest.fixture
def kit(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "tools")
    import gpu_kit

    return gpu_kit


def test_the_kit_has_what_we_need_and_leaves_torch_to_the_machine(kit: Any) -> None:
    versions = kit.needed()
    assert {"spacy", "spacy-transformers", "transformers", "tokenizers", "pytorch-crf", "numpy", "pytest"} <= set(
        versions
    )
    assert not {"torch", "setuptools", "sympy", "triton", "cupy", "hypothesis", "onnx"} & set(versions)
    assert not any(name.startswith("nvidia") for name in versions)
    assert versions["thinc"] == version("thinc")
    # Whatever one of them requires is there too
    for name in ("spacy", "thinc", "pydantic"):
        for line in kit.distribution(name).requires:
            requirement = Requirement(line)
            if requirement.marker is None and requirement.name not in kit.THERE:
                assert canonicalize_name(requirement.name) in versions


def test_an_extra_brings_what_it_needs(kit: Any) -> None:
    assert "hypothesis" in kit.needed(("spacy-bert-heads[test]",))


def test_what_is_needed_and_not_installed_is_named(kit: Any) -> None:
    with pytest.raises(SystemExit, match="no-such-distribution"):
        kit.needed(("no-such-distribution",))


@pytest.mark.parametrize("limit, n_parts", [(100, 1), (60, 2), (50, 2), (40, 3)])
def test_parts_are_few_and_none_is_over_the_limit(kit: Any, limit: int, n_parts: int) -> None:
    sizes = {"a": 40, "b": 20, "c": 15, "d": 15, "e": 10}
    parts = kit.share_out(sizes, limit)
    assert len(parts) == n_parts
    assert sorted(name for part in parts for name in part) == sorted(sizes)
    assert all(sum(sizes[name] for name in part) <= limit for part in parts)


def test_a_file_larger_than_a_part_is_named(kit: Any) -> None:
    with pytest.raises(SystemExit, match="spacy.whl"):
        kit.share_out({"spacy.whl": 11, "thinc.whl": 1}, 10)


def test_a_kit_that_is_not_there_and_a_folder_in_use_are_named(kit: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no wheels"):
        kit.run(tmp_path, [])
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="not empty"):
        kit.pack(tmp_path, 2**20)


@pytest.mark.skipif(os.name == "nt", reason="the kit is for Linux")
def test_its_environment_sees_the_torch_of_this_one(kit: Any, tmp_path: Path) -> None:
    python = kit.make_environment(tmp_path / "environment")
    code = "import importlib.util, sys; print(importlib.util.find_spec('torch').origin); print(sys.prefix)"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)
    origin, prefix = done.stdout.splitlines()
    assert origin == kit.importlib.util.find_spec("torch").origin and Path(prefix) == tmp_path / "environment"


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the peers of the benchmarks are for Linux and macOS")
def test_the_benchmark_is_rehearsed_on_a_cpu(tmp_path: Path) -> None:
    output = tmp_path / "rehearsal.json"
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "gpu.py"),
        "--device",
        "cpu",
        "--skip-tests",
        "--repeats",
        "1",
    ]
    done = subprocess.run([*command, "--output", str(output)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result: Dict[str, Any] = json.loads(output.read_text())
    assert result["rehearsal"] and result["device"] == "cpu" and result["environment"]["versions"]["spacy"]
    assert result["training"]["examples_per_second"].keys() == {"ours", "bare"}
    assert result["training"]["peak_memory_mib"] == {"ours": None, "bare": None}
    for name in ("short", "long"):
        found = result[f"prediction_{name}"]
        speeds = {found["docs_per_second"][row] for row in found["fastest"].values()}
        assert len(found["profile"]) == 20 and len(speeds) == 2 and found["entities"] >= 0
    assert [goal["what"].split()[0] for goal in result["goals"]] == ["nlp.pipe", "nlp.pipe", "CRF", "tests"]
    for goal in result["goals"][:3]:
        assert goal["found"] > 0 and goal["passed"] == (goal["found"] >= goal["goal"])
    assert result["goals"][3]["found"] is None and not result["goals"][3]["passed"]  # left out is not passed
