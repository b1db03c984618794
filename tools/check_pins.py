"""Check that what constraints.txt pins can be installed with every Python that pyproject.toml declares.

uv resolves, because pip cannot for another Python: with `--python-version` it chooses other wheels, but it still
evaluates `python_version < "3.11"` and other markers for the Python it runs on. uv reads metadata alone, so it
downloads no wheel.

    python tools/check_pins.py
"""

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Dict, List, Optional, Set, Tuple

import typer
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import NormalizedName, canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
CONSTRAINTS = typer.Option("--constraints", "-c", help="The pins.", exists=True, dir_okay=False)
LINUX = "x86_64-manylinux_2_28"
# Where else torch has wheels, which need macOS 14 on Apple silicon: the lowest and the highest Python, as in ci.yml
OTHERS = ("aarch64-apple-darwin", "x86_64-pc-windows-msvc")
MACOS = {"MACOSX_DEPLOYMENT_TARGET": "14.0"}
# What each is called in a marker; without these, packaging evaluates it for the machine that runs the check
MARKERS = {
    LINUX: {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"},
    OTHERS[0]: {"sys_platform": "darwin", "platform_system": "Darwin", "os_name": "posix"},
    OTHERS[1]: {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt"},
}
# As pip does: behind a company's wall an index may be signed by the company alone. The older and the newer name
SYSTEM_CERTIFICATES = {"UV_NATIVE_TLS": "true", "UV_SYSTEM_CERTS": "true"}
ONLY_LINUX = {"cuda12x", "cuda13x"}
# Pure Python that its authors publish as source alone
NO_WHEELS = ("seqeval",)
AT_A_TIME = 8  # nearly all of the time is the index's
TIMEOUT = 300


def main(constraints: Annotated[Path, CONSTRAINTS] = ROOT / "constraints.txt") -> None:
    """Resolve the pins with every extra, for each Python and platform. Exit status 1 if one of them fails."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]
    uv = shutil.which("uv")
    if uv is None:
        sys.exit('uv is missing: pip install -c constraints.txt ".[dev]"')
    pins = read_pins(constraints)
    versions = declared_versions(project)
    targets = [(version, LINUX) for version in versions]
    targets += [(version, platform) for platform in OTHERS for version in (versions[0], versions[-1])]

    def check(target: Tuple[str, str]) -> Optional[str]:
        return find_problem(uv, constraints, pins, list(project["optional-dependencies"]), *target)

    n_failed = 0
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        for (version, platform), problem in zip(targets, pool.map(check, targets)):
            print(f"Python {version:<5} {platform:<23} {'resolves' if problem is None else 'FAILS'}", flush=True)
            if problem is not None:
                n_failed += 1
                print(re.sub("^", "    ", problem, flags=re.M), flush=True)
    if n_failed:
        sys.exit(f"{n_failed} of {len(targets)} failed with {constraints.name}")


def declared_versions(project: Dict[str, Any]) -> List[str]:
    """Read the Python versions of the classifiers, which have to be those that requires-python allows.

    project (Dict[str, Any]): The table [project] of pyproject.toml.
    RETURNS (List[str]): Versions such as "3.10", the oldest first.
    """
    found = [re.fullmatch(r"Programming Language :: Python :: 3\.(\d+)", line) for line in project["classifiers"]]
    classified = sorted(int(match[1]) for match in found if match)
    requires = SpecifierSet(project["requires-python"])
    allowed = [minor for minor in range(100) if requires.contains(f"3.{minor}.0")]
    if not allowed or classified != allowed:
        sys.exit(f"pyproject.toml: the classifiers name Python 3.{classified}, requires-python allows 3.{allowed}")
    return [f"3.{minor}" for minor in allowed]


def read_pins(constraints: Path) -> List[Requirement]:
    """RETURNS (List[Requirement]): The lines of a constraints file, without comments."""
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in constraints.read_text(encoding="utf8").splitlines())
    return [Requirement(line) for line in lines if line]


def find_problem(
    uv: str, constraints: Path, pins: List[Requirement], extras: List[str], version: str, platform: str
) -> Optional[str]:
    """Resolve the package with its extras for one Python on one platform.

    uv (str): Path of the program.
    constraints (Path): The pins as a file.
    pins (List[Requirement]): The same, read.
    extras (List[str]): Extras of the package.
    version (str): A Python version such as "3.10".
    platform (str): A platform as uv calls it.
    RETURNS (Optional[str]): What is wrong, or None.
    """
    command = [uv, "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python-version", version]
    command += ["--python-platform", platform, "--constraints", str(constraints), "--only-binary", ":all:"]
    for name in NO_WHEELS:
        command += ["--no-binary", name]
    for extra in extras:
        if platform == LINUX or extra not in ONLY_LINUX:
            command += ["--extra", extra]
    try:
        done = subprocess.run(
            [*command, str(ROOT / "pyproject.toml")],
            env={**SYSTEM_CERTIFICATES, **os.environ, **MACOS},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf8",
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {TIMEOUT} s: is the package index within reach?"
    if done.returncode:
        return done.stderr.strip() or f"uv ended with status {done.returncode} and said nothing"
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    return unused_pins(pins, {canonicalize_name(Requirement(line).name) for line in lines}, version, platform)


def unused_pins(pins: List[Requirement], resolved: Set[NormalizedName], version: str, platform: str) -> Optional[str]:
    """A pin that constrains nothing is a misspelt name, or one that nothing needs any more.

    pins (List[Requirement]): The pins.
    resolved (Set[NormalizedName]): Normalized names of what would be installed.
    version (str): The Python version.
    platform (str): The platform as uv calls it.
    RETURNS (Optional[str]): What is wrong, or None.
    """
    environment = {"python_version": version, "python_full_version": f"{version}.0", **MARKERS[platform]}
    for pin in pins:
        applies = pin.marker is None or pin.marker.evaluate(environment)
        if applies and canonicalize_name(pin.name) not in resolved:
            return f"the pin {str(pin)!r} constrains nothing: no requirement leads to {pin.name}"
    return None


if __name__ == "__main__":
    typer.run(main)
