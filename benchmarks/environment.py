"""What every benchmark writes beside its figures: the machine, the versions, where the data lies."""

import argparse
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any, Dict

DATA_VARIABLE = "SPACY_BERT_HEADS_DATA"
PACKAGES = (
    "spacy-bert-heads",
    "spacy",
    "spacy-transformers",
    "thinc",
    "torch",
    "transformers",
    "pytorch-crf",
    "numpy",
)


def add_common_arguments(parser: argparse.ArgumentParser, output: str) -> None:
    """Options all benchmarks share: where the data is and where the result goes."""
    parser.add_argument(
        "--data",
        type=Path,
        default=os.environ.get(DATA_VARIABLE),
        help=f"Folder of data sets, one subfolder each. Default: the environment variable {DATA_VARIABLE}",
    )
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / output, help="JSON file to write")


def add_environments_argument(parser: argparse.ArgumentParser) -> None:
    """Option of the benchmarks that run peers."""
    parser.add_argument(
        "--environments",
        type=Path,
        default=Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "spacy-bert-heads-benchmarks",
        help="Where peers are installed and their models kept. Default: %(default)s",
    )


def data_folder(args: argparse.Namespace, name: str) -> Path:
    """The subfolder of one data set, or the end of the program with what to do."""
    if args.data is None or not (Path(args.data) / name).is_dir():
        raise SystemExit(f"No folder '{name}' under '{args.data}'. Pass --data FOLDER or set {DATA_VARIABLE}.")
    return Path(args.data) / name


def describe() -> Dict[str, Any]:
    """Processor, cores and package versions."""
    import torch

    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        # torch's own, which names the build: one for CUDA takes 300 MB more than one for CPUs
        "versions": {**{name: importlib.metadata.version(name) for name in PACKAGES}, "torch": torch.__version__},
    }


def write_result(path: Path, result: Dict[str, Any]) -> None:
    """Write figures and environment to a temporary name, then move it."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({**result, "environment": describe()}, indent=2) + "\n", encoding="utf8")
    temporary.replace(path)
    print(f"Wrote {path}")


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n")
    except OSError:
        return platform.processor()
    fields: Dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    there = fields.get("flags", "").split()
    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in there]
    # One name stands for several generations of EPYC, which family and model tell apart
    generation = [f"{name} {fields[name]}" for name in ("cpu family", "model") if name in fields]
    return f"{fields.get('model name', platform.machine())} ({', '.join([*generation, *flags])})"
