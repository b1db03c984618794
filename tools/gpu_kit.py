"""Takes benchmarks/gpu.py to a machine with a GPU and no network: wheels, in folders small enough to be carried there.

    python tools/gpu_kit.py pack KIT              where there is a network, with this package and pytest installed
    python tools/gpu_kit.py run KIT [OPTIONS]     there, in a checkout; OPTIONS are those of benchmarks/gpu.py

What has to be there: Linux on x86-64, Python 3.12 with pip, torch built for CUDA, and cupy built for the same CUDA,
through which alone thinc uses a GPU (a wheel of it, with 66 MiB, may also lie in a folder of the kit). All else comes
in the versions that are installed where the kit is packed; install those of constraints.txt first. `run` puts it into
a virtual environment, ahead of the versions that the machine has.
"""

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Dict, List, Set, Tuple

ROOT = Path(__file__).resolve().parents[1]
PYTHON = "3.12"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
ROOTS = ("spacy-bert-heads", "pytest")
# Not in the kit: torch with what it needs for itself, setuptools among it, of which it takes no version above its own
THERE = {"torch", "setuptools"}
MARKERS = {
    "python_version": PYTHON,
    "python_full_version": f"{PYTHON}.0",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "os_name": "posix",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
}


def needed(roots: Tuple[str, ...] = ROOTS) -> Dict[str, str]:
    """What has to be installed there, by the metadata of what is installed here.

    roots (Tuple[str, ...]): Distributions, extras in brackets.
    RETURNS (Dict[str, str]): Versions by name, those of the roots among them and nothing of THERE.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    versions: Dict[str, str] = {}
    seen: Set[Tuple[str, str]] = set()
    waiting = [Requirement(root) for root in roots]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        extras = sorted(wanted.extras) or [""]
        if name in THERE or (name, str(extras)) in seen:
            continue
        seen.add((name, str(extras)))
        try:
            found = distribution(name)
        except PackageNotFoundError:
            raise SystemExit(f"{name} is needed there and not installed here. Install it and pack again.") from None
        versions[name] = found.version
        for requirement in map(Requirement, found.requires or ()):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({**MARKERS, "extra": extra}) for extra in extras):
                waiting.append(requirement)
    return versions


def share_out(sizes: Dict[str, int], limit: int) -> List[List[str]]:
    """Files in as few parts as they fit into, the largest file first, each into the part with the most room.

    sizes (Dict[str, int]): Bytes by name.
    limit (int): Bytes of a part.
    RETURNS (List[List[str]]): Names.
    """
    largest_first = sorted(sizes, key=lambda name: (-sizes[name], name))
    if largest_first and sizes[largest_first[0]] > limit:
        raise SystemExit(f"{largest_first[0]} alone is larger than a part: {mib(sizes[largest_first[0]])}")
    for n_parts in range(1, len(sizes) + 1):
        parts: List[List[str]] = [[] for _ in range(n_parts)]
        filled = [0] * n_parts
        for name in largest_first:
            emptiest = filled.index(min(filled))
            parts[emptiest].append(name)
            filled[emptiest] += sizes[name]
        if max(filled) <= limit:
            return parts
    return []


def pack(kit: Path, limit: int) -> None:
    """Write KIT/part-1, KIT/part-2 ... limit: bytes of each."""
    if kit.exists() and any(kit.iterdir()):
        raise SystemExit(f"{kit} is not empty. Name another folder, or delete it.")
    versions = needed()
    del versions["spacy-bert-heads"]
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip"]
        subprocess.run([*pip, "wheel", "-q", "--no-deps", "-w", folder, str(ROOT)], check=True)
        target = ["--python-version", PYTHON, "--implementation", "cp", "--only-binary=:all:"]
        for platform in PLATFORMS:
            target += ["--platform", platform]
        wanted = [f"{name}=={version}" for name, version in sorted(versions.items())]
        subprocess.run([*pip, "download", "-q", "--no-deps", "-d", folder, *target, *wanted], check=True)
        sizes = {path.name: path.stat().st_size for path in Path(folder).iterdir()}
        for number, names in enumerate(share_out(sizes, limit), start=1):
            part = kit / f"part-{number}"
            part.mkdir(parents=True)
            for name in names:
                shutil.move(str(Path(folder) / name), str(part / name))
            print(f"Wrote {part}: {len(names)} wheels, {mib(sum(sizes[name] for name in names))}")


def run(kit: Path, options: List[str]) -> int:
    """Install all wheels of KIT/*/ beside this Python's torch, then measure.

    options (List[str]): Of benchmarks/gpu.py.
    RETURNS (int): Its exit status.
    """
    wheels = sorted(str(path) for path in kit.glob("*/*.whl"))
    if not wheels:
        raise SystemExit(f"There are no wheels in the folders of {kit}. Copy all parts there.")
    if importlib.util.find_spec("torch") is None:
        raise SystemExit(f"{sys.executable} has no torch. Use the Python that has it.")
    python = make_environment(kit / "environment")
    install = [sys.executable, "-m", "pip", "--isolated", "--python", str(python), "install", "-q"]
    # With their requirements, so that whatever is missing is named here and not by an import later
    subprocess.run([*install, "--no-index", "--no-compile", "--no-cache-dir", *wheels], check=True)
    # This checkout's code, which the wheel may be older than
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    return subprocess.run([str(python), str(ROOT / "benchmarks" / "gpu.py"), *options], env=variables).returncode


def make_environment(folder: Path) -> Path:
    """A fresh virtual environment that sees what this Python sees. RETURNS (Path): Its Python.

    `venv --system-site-packages` would show it what the system's Python has. That is not the same where this Python is
    that of a virtual environment itself.
    """
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder)], check=True)
    seen = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    lines = [f"import site; site.addsitedir({path!r})\n" for path in seen]
    packages = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    (packages / "this_python.pth").write_text("".join(lines), encoding="utf8")
    return folder / "bin" / "python"


def mib(size: int) -> str:
    """RETURNS (str): Bytes, to be read."""
    return f"{size / 2**20:.1f} MiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    packing = verbs.add_parser("pack", help="Download the wheels")
    packing.add_argument("kit", type=Path, help="Folder to write")
    packing.add_argument(
        "--part-size", type=int, default=60, help="Most MiB in one folder of it. Default: %(default)s"
    )
    running = verbs.add_parser("run", help="Install them and measure", add_help=False)
    running.add_argument("kit", type=Path, help="That folder; the environment is made in it")
    args, options = parser.parse_known_args()
    if args.verb == "run":
        sys.exit(run(args.kit.resolve(), options))
    if options:
        parser.error(f"unknown arguments: {' '.join(options)}")
    pack(args.kit, args.part_size * 2**20)


if __name__ == "__main__":
    main()
