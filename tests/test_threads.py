"""How many threads a process may run, and what tells a new one not to spin."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Optional

import pytest

from spacy_bert_heads import threads
from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.threads import count_cpus, parse_threads, quiet_environment, read_quota


def make_groups(folder: Path, proc: str, **files: str) -> Optional[float]:
    """The quota in a tree of control groups: `files` are their files, with __ for /."""
    for name, content in files.items():
        path = folder / "groups" / name.replace("__", "/").replace("cpu_", "cpu.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (folder / "groups").mkdir(exist_ok=True)
    (folder / "proc").write_text(proc)
    return read_quota(folder / "groups", folder / "proc")


def test_a_quota_of_version_2(tmp_path: Path) -> None:
    assert make_groups(tmp_path / "a", "0::/\n", cpu_max="150000 100000\n") == 1.5
    assert make_groups(tmp_path / "b", "0::/\n", cpu_max="max 100000\n") is None
    # The least of a group and those around it
    files = {"pods__cpu_max": "400000 100000\n", "pods__one__cpu_max": "max 100000\n"}
    assert make_groups(tmp_path / "c", "0::/pods/one\n", **files) == 4.0
    files["pods__one__cpu_max"] = "50000 100000\n"
    assert make_groups(tmp_path / "d", "0::/pods/one\n", **files) == 0.5
    # Of another group
    assert make_groups(tmp_path / "e", "0::/\n", **files) is None


def test_a_quota_of_version_1(tmp_path: Path) -> None:
    proc = "4:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n0::/\n"
    files = {"cpu__cpu_cfs_quota_us": "-1\n", "cpu__cpu_cfs_period_us": "100000\n"}
    assert make_groups(tmp_path / "a", proc, **files) is None
    files["cpu__cpu_cfs_quota_us"] = "250000\n"
    assert make_groups(tmp_path / "b", proc, **files) == 2.5
    files = {"cpu,cpuacct__docker__x__cpu_cfs_quota_us": "100000\n"}
    files["cpu,cpuacct__docker__x__cpu_cfs_period_us"] = "100000\n"
    assert make_groups(tmp_path / "c", proc, **files) == 1.0


def test_files_of_no_sense_are_no_quota(tmp_path: Path) -> None:
    assert make_groups(tmp_path / "a", "", cpu_max="a b\n") is None
    assert make_groups(tmp_path / "b", "nonsense", cpu_max="") is None
    assert read_quota(tmp_path / "none", tmp_path / "none") is None


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs an affinity")
def test_no_more_threads_than_affinity_and_quota_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 3, 5, 7})
    for quota, expected in ((None, 4), (2.5, 2), (0.5, 1), (16.0, 4)):
        monkeypatch.setattr(threads, "read_quota", lambda quota=quota: quota)
        assert count_cpus() == expected == parse_threads("auto")
    assert parse_threads("3") == 3
    for wrong in ("0", "-1", "many", "1.5", ""):
        with pytest.raises(BertHeadsError) as info:
            parse_threads(wrong)
        assert info.value.code == "H641"


def test_a_new_process_does_not_spin_unless_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in threads.QUIET:
        monkeypatch.delenv(name, raising=False)
    found = quiet_environment(3)
    assert (found["OMP_NUM_THREADS"], found["GOMP_SPINCOUNT"], found["OMP_WAIT_POLICY"]) == ("3", "0", "PASSIVE")
    assert "GOMP_SPINCOUNT" not in os.environ
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    found = quiet_environment(3)
    assert found["OMP_WAIT_POLICY"] == "ACTIVE" and "GOMP_SPINCOUNT" not in found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch does not run on GNU OpenMP")
def test_a_command_is_started_anew_once_and_a_call_never(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in threads.QUIET:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        f"with open({str(tmp_path / 'starts')!r}, 'a') as stream:\n"
        "    stream.write(os.environ.get('GOMP_SPINCOUNT', 'unset') + '\\n')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "spacy", "bert-heads", "evaluate", str(tmp_path / "no model"), "none.spacy"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "[H" in done.stderr
    assert (tmp_path / "starts").read_text().split() == ["unset", "0"]
    (tmp_path / "starts").unlink()
    subprocess.run([*command[:3], "--help"], env=environment, capture_output=True)
    script = (
        "from spacy_bert_heads.threads import settle\nsettle()\nimport os\nassert 'GOMP_SPINCOUNT' not in os.environ"
    )
    subprocess.run([sys.executable, "-c", script, "bert-heads"], env=environment, check=True)
    assert (tmp_path / "starts").read_text().split() == ["unset", "unset"]
