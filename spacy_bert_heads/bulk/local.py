"""The engine on one machine: a process for each core or GPU, which is replaced if it dies."""

import base64
import json
import pickle
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Set, Tuple

from ..errors import BertHeadsError
from ..threads import CGROUPS, count_cpus, quiet_environment
from .predictions import Options
from .shards import Outcome, Shard

# How often a process may die before it has said on which texts it works
MAX_LOST = 2
# Memory that a process needs beside the weights of its pipeline: Python, torch and a batch. Bytes.
OWN_MEMORY = 700 << 20


@dataclass(frozen=True)
class Setup:
    """What a process needs to know to begin.

    model (str): Folder or package of the pipeline.
    options (Options): What is wanted of it.
    batch_size (Optional[int]): Texts that go through it together. None: as its config says.
    code (Optional[Path]): Python file with functions that the pipeline needs.
    folder (Optional[Path]): Where to write shards. None: records are given back.
    """

    model: str
    options: Options
    batch_size: Optional[int] = None
    code: Optional[Path] = None
    folder: Optional[Path] = None


class Worker:
    """A process that predicts, as it is seen from the one that started it.

    setup (Setup): What it needs to know.
    n_threads (int): Threads that it may use.
    gpu (Optional[int]): The GPU that it uses.
    """

    def __init__(self, setup: Setup, n_threads: int, gpu: Optional[int] = None) -> None:
        self.setup = setup
        self.n_threads = n_threads
        self.gpu = gpu
        self._process: Optional["subprocess.Popen[bytes]"] = None
        self._closed = False

    def run(self, shard: Shard, tell: Callable[[int], None] = lambda n: None) -> Outcome:
        """Have a shard predicted, however often the process dies of it. The texts of the batch that it died of go
        through the next one alone, and one that ends two of these is set aside.

        shard (Shard): The shard.
        tell (Callable[[int], None]): Called with the number of records that are done since it was last called.
        RETURNS (Outcome): What became of it.
        RAISES (BertHeadsError): H655 if processes die for no text; whatever the process cannot do.
        """
        suspects: Set[int] = set()
        deaths: "Counter[int]" = Counter()
        n_lost = n_told = 0
        while True:
            killers = {index for index, count in deaths.items() if count > 1}
            batch: Optional[Tuple[int, int]] = None
            for answer in self._talk(shard, suspects, killers):
                if "batch" in answer:
                    batch = answer["batch"]
                    if batch[0] > n_told:
                        tell(batch[0] - n_told)
                        n_told = batch[0]
                elif "result" in answer:
                    tell(shard.n_items - n_told)
                    result = answer["result"]
                    result["rejected"] = shard.rejected + result["rejected"]
                    return Outcome(shard=shard.number, n_items=shard.n_items, digest=shard.digest, **result)
            status = self._bury()
            if batch is None:
                n_lost += 1
                if n_lost >= MAX_LOST:
                    raise BertHeadsError("H655", found=status, when="before it had a text to work on")
                continue
            if batch[1] - batch[0] == 1:
                deaths[batch[0]] += 1
            suspects.update(range(*batch))

    def close(self) -> None:
        """End the process."""
        self._closed = True
        self._bury()

    def _talk(self, shard: Shard, suspects: Set[int], killers: Set[int]) -> Iterator[Dict[str, Any]]:
        """Send a shard, and yield answers until there are no more."""
        process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
        folder = None if self.setup.folder is None else str(self.setup.folder)
        task: Dict[str, Any] = {"shard": shard.number, "first": shard.first, "folder": folder}
        task.update(suspects=sorted(suspects), killers=sorted(killers))
        items = ", ".join(shard.items)
        try:
            process.stdin.write(f'{json.dumps(task)[:-1]}, "items": [{items}]}}\n'.encode("utf8"))
            process.stdin.flush()
        except OSError:
            return
        for line in process.stdout:
            answer = json.loads(line)
            if "error" in answer:
                raise pickle.loads(base64.b64decode(answer["error"]))  # from our own process
            yield answer

    def _start(self) -> "subprocess.Popen[bytes]":
        if self._closed:
            raise BertHeadsError("H655", found=0, when="because the run has ended")
        environment = quiet_environment(self.n_threads)
        if self.gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = str(self.gpu)
        command = [sys.executable, "-m", "spacy_bert_heads.bulk.worker"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, bufsize=-1
        )
        setup = asdict(self.setup)
        setup.pop("folder")
        setup.update(gpu=self.gpu, code=None if self.setup.code is None else str(self.setup.code))
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(setup).encode("utf8") + b"\n")
            self._process.stdin.flush()
        except OSError:
            pass  # it is dead, as its answers will show
        return self._process

    def _bury(self) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.kill()
        for stream in (process.stdin, process.stdout):
            try:
                if stream is not None:
                    stream.close()
            except OSError:
                pass
        return process.wait()


def run_local(
    setup: Setup,
    shards: Iterable[Shard],
    *,
    n_process: Optional[int] = None,
    gpus: Sequence[int] = (),
    threads: Optional[int] = None,
    ordered: bool = False,
    tell: Callable[[int], None] = lambda n: None,
) -> Iterator[Outcome]:
    """Predict shards in several processes. Of shards and outcomes, a few wait at a time.

    setup (Setup): What the processes need to know.
    shards (Iterable[Shard]): Read as they are needed.
    n_process (Optional[int]): How many processes. None: one for each GPU or, without, as many as can run at once and
        have the memory.
    gpus (Sequence[int]): Numbers of GPUs, of which each has a process.
    threads (Optional[int]): Threads of each process. None: one without GPUs; the cores are shared out otherwise.
    ordered (bool): Whether outcomes come in the order of the shards, and not as they are done.
    tell (Callable[[int], None]): Called, from several threads, with the number of texts that have gone through.
    YIELDS (Outcome): One for each shard.
    RAISES (BertHeadsError): As Worker.run.
    """
    if gpus:
        n_process = len(gpus)
        threads = threads or max(1, count_cpus() // n_process)
    n_process = n_process or choose_n_process(setup.model)
    workers: List[Worker] = []
    own = threading.local()
    lock = threading.Lock()

    def work(shard: Shard) -> Outcome:
        if not hasattr(own, "worker"):
            with lock:
                gpu = gpus[len(workers) % len(gpus)] if gpus else None
                own.worker = Worker(setup, threads or 1, gpu)
                workers.append(own.worker)
        outcome: Outcome = own.worker.run(shard, tell)
        return outcome

    pool = ThreadPoolExecutor(n_process, thread_name_prefix="apply")
    waiting: List["Future[Outcome]"] = []
    try:
        for shard in shards:
            waiting.append(pool.submit(work, shard))
            while len(waiting) >= 2 * n_process:
                yield _take(waiting, ordered)
        while waiting:
            yield _take(waiting, ordered)
    finally:
        for future in waiting:
            future.cancel()
        for worker in list(workers):
            worker.close()
        pool.shutdown()


def choose_n_process(model: str) -> int:
    """RETURNS (int): As many processes as can run at once, and not more than have a pipeline in memory."""
    n_process = count_cpus()
    available = _available_memory()
    folder = Path(model)
    if available is None or not folder.is_dir():
        return n_process
    weights = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return max(1, min(n_process, int(available // (OWN_MEMORY + 2 * weights))))


def _take(waiting: List["Future[Outcome]"], ordered: bool) -> Outcome:
    future = waiting[0]
    if not ordered:
        done, _ = wait(waiting, return_when=FIRST_COMPLETED)
        future = next(one for one in waiting if one in done)
    outcome = future.result()
    waiting.remove(future)
    return outcome


def _available_memory() -> Optional[int]:
    """RETURNS (Optional[int]): Bytes that the system has left, no more than the container may have. None where nobody
    says."""
    found = []
    for line in _read(Path("/proc/meminfo")).splitlines():
        if line.startswith("MemAvailable:"):
            found.append(int(line.split()[1]) << 10)
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        limit = _read(CGROUPS / name).strip()
        if limit.isdecimal():
            found.append(int(limit))
    return min(found, default=None)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf8")
    except OSError:
        return ""
