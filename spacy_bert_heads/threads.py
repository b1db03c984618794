"""How many threads a process may run at once, and the environment in which they do not stand in each other's way.

Threads of GNU OpenMP, on which torch runs, wait for each other by spinning. With more runnable threads than free
cores every parallel region then waits for a time slice, which made training seven times slower on a busy machine.
OpenMP reads its settings when it is loaded, before any code of ours runs, so only a new process can be told.
"""

import math
import os
import sys
from pathlib import Path
from typing import Dict, List, Optional

from .errors import BertHeadsError

AUTO = "auto"
# Waiting threads sleep instead of spinning. Either variable alone means that the user has decided.
QUIET = {"GOMP_SPINCOUNT": "0", "OMP_WAIT_POLICY": "PASSIVE"}
# Number of threads of the libraries that may be under torch and numpy
COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
CGROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc/self/cgroup")


def count_cpus() -> int:
    """RETURNS (int): How many threads can run at once: as many cores as this process may use, and no more than the
    CPU quota of its container allows, rounded down. At least 1."""
    if hasattr(os, "sched_getaffinity"):
        n_cores = len(os.sched_getaffinity(0))
    else:
        n_cores = os.cpu_count() or 1
    quota = read_quota()
    return max(1, n_cores if quota is None else min(n_cores, math.floor(quota + 1e-6)))


def read_quota(cgroups: Path = CGROUPS, proc: Path = PROC) -> Optional[float]:
    """The CPU quota of the control groups that this process is in, of version 1 or 2.

    cgroups (Path): Where they are mounted.
    proc (Path): The file that names those of this process.
    RETURNS (Optional[float]): The least of all in which it is, in cores. None if there is none.
    """
    found: List[float] = []
    for folder in _own_groups(cgroups, proc):
        # Version 2 has one file, "max 100000" or "150000 100000"; version 1 has two, and -1 for none
        words = _read(folder / "cpu.max").split()
        if not words:
            words = [_read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip()]
        try:
            quota, period = float(words[0]), float(words[1])
        except (ValueError, IndexError):
            continue
        if quota > 0 and period > 0:
            found.append(quota / period)
    return min(found, default=None)


def parse_threads(threads: str) -> int:
    """RETURNS (int): What `--threads` says: "auto", which is `count_cpus`, or a number of at least 1.
    RAISES (BertHeadsError): H641 for anything else."""
    if threads == AUTO:
        return count_cpus()
    if not threads.isdecimal() or int(threads) < 1:
        raise BertHeadsError("H641", found=repr(threads))
    return int(threads)


def quiet_environment(n_threads: int) -> Dict[str, str]:
    """The environment of a new process that shares the machine with others.

    n_threads (int): How many threads torch and numpy may use in it.
    RETURNS (Dict[str, str]): This process's environment, with that number, and with threads that do not spin unless
        it says how they wait.
    """
    environment = {**os.environ, **dict.fromkeys(COUNTS, str(n_threads)), "TOKENIZERS_PARALLELISM": "false"}
    if not any(name in environment for name in QUIET):
        environment.update(QUIET)
    return environment


def settle(threads: str = AUTO) -> None:
    """Give the command that is running its number of threads, none of which spins. Commands call this, a library
    never does: it changes the whole process.

    On Linux the process is started anew, once, if its environment does not say how threads wait. Elsewhere torch does
    not run on GNU OpenMP.

    threads (str): "auto" or a number.
    RAISES (BertHeadsError): H641 for a number that is none.
    """
    n_threads = parse_threads(threads)
    if sys.platform == "linux" and _is_command() and not any(name in os.environ for name in QUIET):
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **QUIET})
    import torch

    if threads != AUTO or n_threads < torch.get_num_threads():
        torch.set_num_threads(n_threads)


def _is_command() -> bool:
    """Whether this process is `python -m spacy bert-heads ...`, and not a program that calls a verb."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return getattr(spec, "name", None) == "spacy.__main__" and "bert-heads" in sys.orig_argv


def _own_groups(cgroups: Path, proc: Path) -> List[Path]:
    """Folders of the groups and of those around them. Within a container the names may be those of the host, and the
    mounted folder is the group itself."""
    roots = {cgroups, cgroups / "cpu", cgroups / "cpu,cpuacct", cgroups / "unified"}
    folders = [root for root in roots if root.is_dir()]
    for line in _read(proc).splitlines():
        number, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if number != "0" and "cpu" not in controllers.split(","):
            continue
        for root in roots:
            folder = root / name.lstrip("/")
            while folder != root and root in folder.parents:
                folders.append(folder)
                folder = folder.parent
    return folders


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf8")
    except OSError:
        return ""
