"""How fast `bert-heads apply` is, what kills do to it, what memory it takes, and what threads cost on a busy machine.

    python benchmarks/apply.py speed --data FOLDER     # against nlp.pipe, `spacy apply` and the bare encoder, on SNIPS
    python benchmarks/apply.py kills                   # SIGKILLs at random moments; nothing is lost, nothing twice
    python benchmarks/apply.py memory                  # over many short texts
    python benchmarks/apply.py ray                     # what the engine ray takes more than local
    python benchmarks/apply.py threads --data FOLDER   # training and prediction beside busy loops
    python benchmarks/apply.py server --data FOLDER    # examples/server.py with 1, 8 and 32 clients, beside nlp(text)

Pipelines are not trained: speed does not depend on what they know. Figures of one run are comparable with each other,
not with those of another: other programs on the machine count. Loads are those of the last minute.
"""

import argparse
import http.client
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import spacy
from environment import add_common_arguments, data_folder, write_result
from runs import read_snips
from spacy.tokens import Doc
from spacy.training import Example, iob_utils

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-m", "spacy", "bert-heads"]
QUIET = {"GOMP_SPINCOUNT": "0", "OMP_WAIT_POLICY": "PASSIVE"}


def make_big(data: Path, folder: Path) -> List[str]:
    """A joint pipeline on MiniLM, and the texts of SNIPS."""
    nlp = spacy.util.load_model_from_config(
        spacy.util.load_config(ROOT / "configs" / "joint.cfg", interpolate=False), auto_fill=True
    )
    examples, texts = [], []
    for split in ("train", "dev", "test"):
        for words, tags, intent in read_snips(data / split):
            texts.append(" ".join(words))
            if len(examples) < 500:
                doc = Doc(nlp.vocab, words=words)
                doc.set_ents(iob_utils.biluo_tags_to_spans(doc, iob_utils.iob_to_biluo(tags)), default="outside")
                doc.cats = {intent: 1.0}
                examples.append(Example(nlp.make_doc(doc.text), doc))
    labels = {label for example in examples for label in example.reference.cats}
    for example in examples:
        example.reference.cats = {label: float(label in example.reference.cats) for label in sorted(labels)}
    nlp.config["initialize"]["before_init"] = None
    nlp.config["training"]["optimizer"]["total_steps"] = 1000  # which before_init would have counted
    nlp.initialize(lambda: examples)
    nlp.to_disk(folder)
    return texts


def make_small(folder: Path) -> List[str]:
    """A pipeline of one bag of n-grams, as configs/text_heads/fasttext_zh.cfg, and texts for it."""
    nlp = spacy.util.load_model_from_config(
        spacy.util.load_config(ROOT / "configs" / "text_heads" / "fasttext_zh.cfg", interpolate=False), auto_fill=True
    )
    lines = (ROOT / "assets" / "zh" / "generated.jsonl").read_text(encoding="utf8").splitlines()
    records = [json.loads(line) for line in lines]
    labels = sorted({label for record in records for label in record["accept"]})
    examples = []
    for record in records:
        cats = {label: float(label in record["accept"]) for label in labels}
        examples.append(Example.from_dict(nlp.make_doc(record["text"]), {"cats": cats}))
    nlp.config["initialize"]["before_init"] = None
    nlp.initialize(lambda: examples)
    nlp.to_disk(folder)
    return [record["text"] for record in records]


def write_texts(path: Path, texts: List[str], n: int) -> Path:
    with path.open("w", encoding="utf8") as stream:
        for number in range(n):
            text = f"{texts[number % len(texts)]} {number}"
            stream.write(json.dumps({"id": number, "text": text, "meta": {"n": number}}, ensure_ascii=False) + "\n")
    return path


def read_ids(folder: Path) -> List[int]:
    """The ids of all shards, in their order."""
    parts = sorted(folder.glob("part-*.jsonl"))
    return [json.loads(line)["id"] for part in parts for line in part.read_text(encoding="utf8").splitlines()]


def default_environment() -> Dict[str, str]:
    """The environment of somebody who has set nothing about threads."""
    return {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", *QUIET)}


def load() -> float:
    return round(os.getloadavg()[0], 1)


def measure_speed(args: argparse.Namespace, folder: Path) -> Dict[str, Any]:
    texts = make_big(data_folder(args, "snips"), folder / "model")
    texts = (texts * (args.n // len(texts) + 1))[: args.n]
    source = write_texts(folder / "in.jsonl", texts, args.n)
    rates: Dict[str, List[float]] = {}
    loads = [load()]
    for _ in range(args.repeats):
        for name in args.only or SPEEDS:
            rates.setdefault(name, []).append(round(SPEEDS[name](folder, source), 1))
            loads.append(load())
            print(name, rates[name], "load", loads[-1], flush=True)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    ratios = {name: round(medians["local"] / value, 3) for name, value in medians.items() if "local" in medians}
    return {"docs_per_second": rates, "local_over": ratios, "loads": loads, "n_texts": args.n}


def time_local(folder: Path, source: Path) -> float:
    """Docs a second of two processes, from the first batch to the last, without their start."""
    from spacy_bert_heads.bulk.items import find_sources, read_items
    from spacy_bert_heads.bulk.local import Setup, run_local
    from spacy_bert_heads.bulk.predictions import Options
    from spacy_bert_heads.bulk.shards import cut

    times: List[float] = []
    counts: List[int] = []

    def tell(n: int) -> None:
        times.append(time.perf_counter())
        counts.append(n)

    output = folder / "speed"
    output.mkdir(exist_ok=True)
    setup = Setup(str(folder / "model"), Options(), folder=output)
    shards = cut(read_items(find_sources([source])), 500)
    for outcome in run_local(setup, shards, n_process=2, tell=tell):
        os.replace(str(outcome.temporary), output / "part.jsonl")
    # Both processes have begun with the second batch of the later one; what is before that is left out
    skip = len(counts) // 8
    return sum(counts[skip + 1 :]) / (times[-1] - times[skip])


def time_pipe(n_threads: int, quiet: bool) -> Callable[[Path, Path], float]:
    """Docs a second of nlp.pipe in a process of its own, in whose environment threads spin or not."""
    script = """
import json, sys, time, torch, spacy
torch.set_num_threads(int(sys.argv[3]))
nlp = spacy.load(sys.argv[1])
texts = [json.loads(line)["text"] for line in open(sys.argv[2], encoding="utf8")]
list(nlp.pipe(texts[:256]))
began = time.perf_counter()
n = sum(len(doc.ents) >= 0 for doc in nlp.pipe(texts))
print(n / (time.perf_counter() - began))
"""
    environment = {
        name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS" and name not in QUIET
    }

    def measure(folder: Path, source: Path) -> float:
        command = [sys.executable, "-c", script, str(folder / "model"), str(source), str(n_threads)]
        chosen = {**environment, **(QUIET if quiet else {})}
        return float(subprocess.run(command, env=chosen, capture_output=True, text=True, check=True).stdout)

    return measure


def time_spacy_apply(folder: Path, source: Path) -> float:
    """Docs a second of `spacy apply`, without loading the pipeline, which it does itself."""
    script = """
import sys, time, spacy
from pathlib import Path
from spacy.cli.apply import apply
spacy.load(sys.argv[1])  # imports, which only the first load waits for
began = time.perf_counter()
spacy.load(sys.argv[1])
loading = time.perf_counter() - began
began = time.perf_counter()
apply(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[1], "text", 256, 1)
print("SECONDS", time.perf_counter() - began - loading)
"""
    environment = default_environment()
    target = folder / "spacy_apply.spacy"
    target.unlink(missing_ok=True)
    command = [sys.executable, "-c", script, str(folder / "model"), str(source), str(target)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr[-2000:])
        return float("nan")
    seconds = float(done.stdout.split("SECONDS")[1])
    return len(source.read_text(encoding="utf8").splitlines()) / seconds


def time_bare(folder: Path, source: Path) -> float:
    """Docs a second of the encoder alone: Hugging Face's tokenizer and model, two threads, sorted by length."""
    script = """
import json, sys, time, torch, spacy
torch.set_num_threads(2)
nlp = spacy.load(sys.argv[1])
shim = nlp.get_pipe("transformer").model.shims[0]
texts = sorted((json.loads(line)["text"] for line in open(sys.argv[2], encoding="utf8")), key=len)
began = time.perf_counter()
with torch.inference_mode():
    for start in range(0, len(texts), 64):
        batch = shim.tokenizer(texts[start : start + 64], padding=True, return_tensors="pt")
        shim.module.transformer(**batch)
print(len(texts) / (time.perf_counter() - began))
"""
    environment = default_environment()
    command = [sys.executable, "-c", script, str(folder / "model"), str(source)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


SPEEDS: Dict[str, Callable[[Path, Path], float]] = {
    "local": time_local,
    "nlp.pipe, 1 thread": time_pipe(1, False),
    "nlp.pipe, 2 threads": time_pipe(2, False),
    "nlp.pipe, 2 threads, not spinning": time_pipe(2, True),
    "spacy apply": time_spacy_apply,
    "bare encoder, 2 threads": time_bare,
}


def measure_kills(args: argparse.Namespace, folder: Path) -> Dict[str, Any]:
    source = write_texts(folder / "in.jsonl", make_small(folder / "model"), args.n)
    command = [*COMMAND, "apply", str(folder / "model"), str(source), str(folder / "out"), "--shard-size", "200"]
    chooser = random.Random(0)
    progress: List[int] = []
    began = time.perf_counter()
    manifest = folder / "out" / "manifest.jsonl"
    while len(progress) < args.kills:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = _n_lines(manifest)
        # A moment after the first new shard, so that kills fall into the work and not all into the start
        while process.poll() is None and _n_lines(manifest) <= before:
            time.sleep(0.02)
        time.sleep(chooser.random() * 0.5)
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        progress.append(_n_lines(manifest))
    done = subprocess.run(command, capture_output=True, text=True)
    ids = read_ids(folder / "out")
    counts = Counter(ids)
    return {
        "n_texts": args.n,
        "kills": len(progress),
        "shards_after_each_kill": progress,
        "status": done.returncode,
        "last_line": done.stdout.strip().split("\n")[-1].replace(str(folder), ""),
        "lost": args.n - len(counts),
        "twice": sum(count > 1 for count in counts.values()),
        "in_order": ids == sorted(ids),
        "leftovers": sorted(path.name for path in (folder / "out").glob(".*")),
        "seconds": round(time.perf_counter() - began, 1),
        "load": load(),
    }


def _n_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def measure_memory(args: argparse.Namespace, folder: Path) -> Dict[str, Any]:
    source = write_texts(folder / "in.jsonl", make_small(folder / "model"), args.n)
    command = [*COMMAND, "apply", str(folder / "model"), str(source), str(folder / "out"), "--n-process", "2"]
    samples: List[Dict[str, float]] = []
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        sizes = [_resident(pid) for pid in [process.pid, *_children(process.pid)]]
        done = 1000 * max(0, _n_lines(folder / "out" / "manifest.jsonl") - 1)
        samples.append({"texts": done, "parent": sizes[0], "workers": max(sizes[1:], default=0.0)})
        time.sleep(1.0)
    seconds = time.perf_counter() - began
    # Ten equal parts of the run, without its start
    running = [sample for sample in samples if sample["texts"] > 0]
    parts = [running[len(running) * i // 10 : len(running) * (i + 1) // 10] for i in range(10)]
    return {
        "n_texts": args.n,
        "megabytes_parent": [round(max(one["parent"] for one in part), 1) for part in parts if part],
        "megabytes_largest_worker": [round(max(one["workers"] for one in part), 1) for part in parts if part],
        "seconds": round(seconds, 1),
        "texts_per_second": round(args.n / seconds, 1),
        "complete": read_ids(folder / "out") == list(range(args.n)),
        "load": load(),
    }


def _resident(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


def _children(pid: int) -> List[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []


def measure_ray(args: argparse.Namespace, folder: Path) -> Dict[str, Any]:
    source = write_texts(folder / "in.jsonl", make_small(folder / "model"), args.n)
    seconds: Dict[str, List[float]] = {"local": [], "ray": []}
    for number in range(args.repeats):
        for engine in seconds:
            output = folder / f"{engine}{number}"
            command = [*COMMAND, "apply", str(folder / "model"), str(source), str(output)]
            began = time.perf_counter()
            subprocess.run([*command, "-j", "2", "--engine", engine], check=True, capture_output=True)
            seconds[engine].append(round(time.perf_counter() - began, 1))
            print(engine, seconds[engine], "load", load(), flush=True)
            assert read_ids(output) == list(range(args.n))
    same = (folder / "local0" / "part-000000.jsonl").read_bytes() == (
        folder / "ray0" / "part-000000.jsonl"
    ).read_bytes()
    return {"n_texts": args.n, "seconds": seconds, "same_bytes": same, "load": load()}


LEARN = """
import sys, time, torch, spacy, json
from spacy.training import Example
torch.set_num_threads(int(sys.argv[3]))
nlp = spacy.load(sys.argv[1])
texts = [json.loads(line)["text"] for line in open(sys.argv[2], encoding="utf8")][:int(sys.argv[4])]
docs = list(nlp.pipe(texts))
examples = []
for doc in docs:
    best = max(doc.cats, key=doc.cats.get)
    doc.cats = {label: float(label == best) for label in doc.cats}
    examples.append(Example(nlp.make_doc(doc.text), doc))
sgd = nlp.create_optimizer()
nlp.update(examples[:16], sgd=sgd)
began = time.perf_counter()
for start in range(0, len(examples), 16):
    nlp.update(examples[start : start + 16], sgd=sgd)
learn = len(examples) / (time.perf_counter() - began)
began = time.perf_counter()
list(nlp.pipe(texts * 4))
print(json.dumps({"train": round(learn, 2), "predict": round(4 * len(texts) / (time.perf_counter() - began), 1)}))
"""


def measure_threads(args: argparse.Namespace, folder: Path) -> Dict[str, Any]:
    """Training and prediction with each way of using threads, alone and beside a busy loop on each core."""
    texts = make_big(data_folder(args, "snips"), folder / "model")
    source = write_texts(folder / "in.jsonl", texts, args.n)
    n_cores = len(os.sched_getaffinity(0))
    base = default_environment()
    ways = {
        "1 thread": (1, {}),
        f"{n_cores} threads, torch's default": (n_cores, {}),
        f"{n_cores} threads, GOMP_SPINCOUNT=0": (n_cores, {"GOMP_SPINCOUNT": "0"}),
        f"{n_cores} threads, OMP_WAIT_POLICY=PASSIVE": (n_cores, {"OMP_WAIT_POLICY": "PASSIVE"}),
        f"{n_cores} threads, both (--threads auto)": (n_cores, QUIET),
    }
    found: Dict[str, Any] = {}
    for busy in (False, True):
        rows = found.setdefault("beside a busy loop on each core" if busy else "alone", {})
        for _ in range(args.repeats):
            for name, (n_threads, environment) in ways.items():
                command = [
                    sys.executable,
                    "-c",
                    LEARN,
                    str(folder / "model"),
                    str(source),
                    str(n_threads),
                    str(args.n),
                ]
                with busy_loops(n_cores if busy else 0):
                    done = subprocess.run(command, env={**base, **environment}, capture_output=True, text=True)
                if done.returncode:
                    raise SystemExit(done.stderr)
                rows.setdefault(name, []).append({**json.loads(done.stdout), "load": load()})
                print("busy" if busy else "alone", name, rows[name][-1], flush=True)
    return {"n_texts": args.n, "per_second": found}


def measure_server(args: argparse.Namespace, folder: Path) -> Dict[str, Any]:
    """Latency and throughput of examples/server.py on loopback, beside one `nlp(text)` after another."""
    texts = make_big(data_folder(args, "snips"), folder / "model")[: args.n]
    nlp = spacy.load(folder / "model")
    for text in texts[:20]:
        nlp(text)
    found = {"one by one, nlp(text)": one_by_one(nlp, texts)}
    del nlp
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**default_environment(), **QUIET, "MODEL": str(folder / "model")}
    command = [sys.executable, "-m", "uvicorn", "server:app", "--port", str(port), "--log-level", "warning"]
    server = subprocess.Popen(command, cwd=ROOT / "examples", env=environment)
    try:
        wait_for(port, server)
        for n_clients in CLIENTS:
            began = time.perf_counter()
            with ThreadPoolExecutor(n_clients) as pool:
                shares = [texts[client::n_clients] for client in range(n_clients)]
                seconds = sum(pool.map(partial(ask, port), shares), [])
            found[f"server, {n_clients} clients"] = summarise(seconds, len(texts) / (time.perf_counter() - began))
            found[f"server, {n_clients} clients"]["megabytes"] = round(_resident(server.pid))
            print(n_clients, found[f"server, {n_clients} clients"], "load", load(), flush=True)
    finally:
        server.terminate()
        server.wait()
    return {"n_texts": len(texts), "milliseconds": found, "load": load()}


def one_by_one(nlp: Any, texts: List[str]) -> Dict[str, float]:
    seconds = [timed(nlp, text) for text in texts]
    return summarise(seconds, len(texts) / sum(seconds))


def timed(do: Callable[[str], Any], text: str) -> float:
    began = time.perf_counter()
    do(text)
    return time.perf_counter() - began


def summarise(seconds: List[float], rate: float) -> Dict[str, float]:
    """Milliseconds, and texts a second."""
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
    return {
        "p50": round(1000 * statistics.median(ordered), 1),
        "p99": round(1000 * p99, 1),
        "texts_per_second": round(rate, 1),
    }


def ask(port: int, texts: List[str]) -> List[float]:
    """One client on one connection: seconds of each request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def request(text: str) -> None:
        connection.request("POST", "/predict", json.dumps({"text": text}), {"Content-Type": "application/json"})
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise SystemExit(f"status {response.status}: {body!r}")

    return [timed(request, text) for text in texts]


def wait_for(port: int, server: "subprocess.Popen[bytes]") -> None:
    while server.poll() is None:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.2)
    raise SystemExit("the server did not start: pip install fastapi uvicorn")


@contextmanager
def busy_loops(n: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


MEASURES: Dict[str, Callable[[argparse.Namespace, Path], Dict[str, Any]]] = {
    "speed": measure_speed,
    "kills": measure_kills,
    "memory": measure_memory,
    "ray": measure_ray,
    "threads": measure_threads,
    "server": measure_server,
}
N_TEXTS = {"speed": 4000, "kills": 20_000, "memory": 300_000, "ray": 50_000, "threads": 256, "server": 640}
CLIENTS = (1, 8, 32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measure", choices=MEASURES)
    parser.add_argument("--n", type=int, help="Texts. Default: enough for the question")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=SPEEDS, help="What `speed` measures. Default: all")
    add_common_arguments(parser, "apply.json")
    args = parser.parse_args()
    args.n = args.n or N_TEXTS[args.measure]
    with tempfile.TemporaryDirectory() as name:
        result = MEASURES[args.measure](args, Path(name))
    print(json.dumps(result, indent=2))
    known: Dict[str, Any] = json.loads(args.output.read_text(encoding="utf8")) if args.output.exists() else {}
    write_result(args.output, {**known, args.measure: result})


if __name__ == "__main__":
    main()
