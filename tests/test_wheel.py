"""What pip puts on a user's disk."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Set
from zipfile import ZipFile

import pytest

from spacy_bert_heads import __version__
from spacy_bert_heads.packaging.check_package import run_command

ROOT = Path(__file__).parents[1]
PACKAGE = "spacy_bert_heads"


def tracked_files() -> Set[str]:
    """Paths of the files that are in git, or would be with the next `git add`."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, encoding="utf8")
    if done.returncode:
        pytest.skip("needs the git repository")
    return {name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()}


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    files = tracked_files()
    assert any(name.startswith("tests/") for name in files) and any(name.startswith("tools/") for name in files)
    source = tmp_path / "source"
    for name in files:  # a copy: a build leaves folders behind, and takes in what an earlier one left
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", str(tmp_path), str(source)]
    run_command(build, dict(os.environ), "")
    (path,) = tmp_path.glob("*.whl")
    with ZipFile(path) as wheel:
        found = {name for name in wheel.namelist() if not name.endswith("/")}
    about = f"{PACKAGE}-{__version__}.dist-info"
    assert {name.split("/")[0] for name in found} == {PACKAGE, about}
    assert {name for name in found if name.startswith(f"{PACKAGE}/")} == {
        name for name in files if name.startswith(f"{PACKAGE}/")
    }
    assert f"{about}/licenses/LICENSE" in found
