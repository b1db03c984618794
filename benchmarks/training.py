"""Training beside other libraries with the same encoder: how well they learn, how fast, in how much memory.

    python benchmarks/training.py --data FOLDER [--data-sets snips wnut17] [--peers ours plain-torch] [--seeds 0 1 2]
    python benchmarks/training.py --data FOLDER --speed [--steps 20] [--repeats 5]

Each peer (benchmarks/peers/) has an environment of its own, as in benchmarks/inference.py, and learns in a process of
its own: the same batches of 32 in the same order, 6 times over SNIPS train (intents and slots) or 9 times over WNUT-17
train (entities alone). Dev is scored after each epoch and chooses the weights that test is scored with, once.
MiniLM-L6 is everybody's encoder. All rates rise for a tenth of the steps and fall to 0. Of encoder and heads they are

    ours                1e-4, 2e-3  configs/joint.cfg or ner.cfg
    spacy-transformers  2e-4, one   the pipeline of spaCy's quickstart for GPUs, built-in `textcat` and `ner`
    flair               5e-5, 1e-3  SequenceTagger with BiLSTM and CRF, and TextClassifier, an encoder each
    plain-torch         5e-5, 1e-3  pooled [CLS], first wordpiece, BiLSTM 2x128, pytorch-crf, the encoder in bf16

unless --rates says otherwise. What a step does is in peers/; that of spaCy's pipelines does what `spacy train` does.
A training that is in the result already is not done again, so a run that was interrupted goes on.

--speed trains all peers in one run, some steps each in turn, the same batches for all: examples per second (medians
over the rounds), how many times faster ours is (medians of the rounds' ratios, by the wall clock and by processor
time), and the most memory each process has taken.

FOLDER/snips and FOLDER/wnut17 are as for benchmarks/ner_learning.py.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Tuple

from environment import add_common_arguments, add_environments_argument, data_folder, write_result
from inference import ENCODER, PEERS, PeerError, Worker, environment_python
from ner_learning import WNUT_FILES, read_wnut
from runs import BATCH_SIZE, SPLITS, read_snips

from spacy_bert_heads.layers.encoder_module import resolve_source

Utterance = Dict[str, Any]  # as in peers/worker.py

# Peer -> rates of its encoder and of its heads
RATES = {
    "ours": (1e-4, 2e-3),
    "spacy-transformers": (2e-4, 2e-4),
    "flair": (5e-5, 1e-3),
    "plain-torch": (5e-5, 1e-3),
}


class DataSet(NamedTuple):
    """Texts to learn from, to choose by, to score with; and how many times over."""

    splits: Dict[str, List[Utterance]]
    epochs: int


def read_data_set(name: str, folder: Path, args: argparse.Namespace) -> DataSet:
    """A data set, cut to --limit texts of each split."""
    rows: Dict[str, Any]
    if name == "snips":
        rows, epochs = {split: read_snips(folder / split) for split in SPLITS}, 6
    else:
        read = {split: read_wnut(folder / file) for split, file in WNUT_FILES.items()}
        rows, epochs = {split: ((*row, None) for row in found) for split, found in read.items()}, 9
    splits = {
        split: [{"words": words, "tags": tags, "intent": intent} for words, tags, intent in found][: args.limit]
        for split, found in rows.items()
    }
    return DataSet(splits, args.epochs or epochs)


def make_worker(peer: str, data_set: DataSet, seed: int, folder: Path, args: argparse.Namespace) -> Worker:
    """A peer's process, not started yet, whose files go to a folder of their own.

    RAISES (PeerError): If its environment cannot be made.
    """
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "model").mkdir(parents=True)
    files = {split: folder / f"{split}.json" for split in SPLITS}
    for split, path in files.items():
        path.write_text(json.dumps(data_set.splits[split]), encoding="utf8")
    job = {
        **{split: str(path) for split, path in files.items()},
        "model": str(folder / "model"),
        "encoder": str(resolve_source(ENCODER)),
        "threads": args.threads,
        "seed": seed,
        "epochs": data_set.epochs,
        "rates": args.rates or RATES[peer],
        "total_steps": math.ceil(len(data_set.splits["train"]) / BATCH_SIZE) * data_set.epochs,
        "steps": args.steps,
    }
    python = environment_python(PEERS[peer][1], args.environments)
    return Worker(peer, python, job, args.environments / f"{peer}-training.log")


def learn(name: str, data_set: DataSet, args: argparse.Namespace, result: Dict[str, Any]) -> None:
    """All trainings on a data set that are not in the result yet; each is written as soon as it is done."""
    docs = {split: len(texts) for split, texts in data_set.splits.items()}
    for seed in args.seeds:
        for peer in args.peers:
            row = {"data_set": name, "peer": peer, "seed": seed, "epochs": data_set.epochs, "docs": docs}
            row["rates"] = list(args.rates or RATES[peer])
            if any(row.items() <= found.items() for found in result["trainings"]):
                continue
            with tempfile.TemporaryDirectory() as folder:
                try:
                    worker = make_worker(peer, data_set, seed, Path(folder) / peer, args)
                    worker.start("learn")
                except PeerError as error:
                    print(f"Skipped {peer}: {error} (all of it: {args.environments / peer}-training.log)", flush=True)
                    continue
                worker.stop()
            result["trainings"].append({**row, **worker.report})
            result["table"] = summarise(result["trainings"])
            print(json.dumps(next(row for row in result["table"] if len(result["trainings"]) - 1 in row["trainings"])))
            write_result(args.output, result)


def summarise(trainings: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """For each peer and rates: mean and standard deviation over the seeds. "trainings": which ones they are."""
    groups: Dict[str, List[int]] = {}
    for number, found in enumerate(trainings):
        key = json.dumps([found[name] for name in ("data_set", "peer", "rates", "epochs", "docs")])
        groups.setdefault(key, []).append(number)
    table = []
    for numbers in groups.values():
        same = [trainings[number] for number in numbers]
        row: Dict[str, Any] = {name: same[0][name] for name in ("data_set", "peer", "rates", "epochs")}
        for split in ("dev", "test"):
            for score in same[0][split]:
                values = [found[split][score] for found in same]
                spread = statistics.stdev(values) if len(values) > 1 else 0.0
                row[f"{split} {score}"] = f"{statistics.mean(values):.2f} ± {spread:.2f}"
        table.append({**row, "trainings": numbers})
    return table


def race(data_set: DataSet, args: argparse.Namespace, folder: Path) -> Dict[str, Any]:
    """All peers in turn; see peers/worker.py."""
    workers: Dict[str, Worker] = {}
    skipped: Dict[str, str] = {}
    for peer in args.peers:
        try:
            worker = make_worker(peer, data_set, args.seeds[0], folder / peer, args)
            worker.start("race")
            workers[peer] = worker
        except PeerError as error:
            skipped[peer] = str(error)
            print(f"Skipped {peer}: {error} (all of it: {args.environments / peer}-training.log)", flush=True)
    rounds: Dict[str, List[Dict[str, Any]]] = {peer: [] for peer in workers}
    for number in range(args.repeats):
        for peer, worker in workers.items():
            rounds[peer].append(worker.ask({}))
        print(f"Round {number + 1} of {args.repeats} done", flush=True)
    for worker in workers.values():
        worker.stop()
    return {
        "steps": args.steps,
        "threads": args.threads,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "peers": {peer: speed(found, rounds.get("ours")) for peer, found in rounds.items()},
        "versions": {peer: worker.report for peer, worker in workers.items()},
        "skipped": skipped,
    }


def speed(rounds: List[Dict[str, Any]], ours: Any) -> Dict[str, Any]:
    """Medians of a peer's rounds, and how many times faster ours was in the same rounds."""
    figures: Dict[str, Any] = {"peak_memory_mb": rounds[-1]["peak_memory_mb"]}
    for clock in ("seconds", "cpu_seconds"):
        name = "examples_per_second" if clock == "seconds" else "examples_per_cpu_second"
        figures[name] = round(statistics.median(found["docs"] / found[clock] for found in rounds), 1)
        if ours is not None:
            pairs: List[Tuple[Dict[str, Any], Dict[str, Any]]] = list(zip(rounds, ours))
            figures[f"ours_over_it_{clock}"] = round(statistics.median(a[clock] / b[clock] for a, b in pairs), 2)
    return {**figures, "rounds": rounds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser, "training.json")
    parser.add_argument("--data-sets", nargs="+", choices=("snips", "wnut17"), default=["snips", "wnut17"])
    parser.add_argument("--peers", nargs="+", choices=RATES, default=list(RATES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="Default: 6 for snips, 9 for wnut17")
    parser.add_argument("--rates", type=float, nargs=2, metavar=("ENCODER", "HEADS"), help="For all peers named")
    parser.add_argument("--threads", type=int, default=2, help="Threads of each process")
    parser.add_argument("--limit", type=int, help="Texts of each split, to try the script")
    parser.add_argument("--speed", action="store_true", help="Time some steps instead")
    parser.add_argument("--steps", type=int, default=20, help="Of each peer and round, with --speed")
    parser.add_argument("--repeats", type=int, default=5, help="Rounds, with --speed")
    add_environments_argument(parser)
    args = parser.parse_args()
    args.environments = args.environments.expanduser().resolve()
    args.environments.mkdir(parents=True, exist_ok=True)
    result: Dict[str, Any] = {"encoder": ENCODER, "table": [], "speed": {}, "trainings": []}
    if args.output.exists():
        result.update(json.loads(args.output.read_text(encoding="utf8")))
    for name in args.data_sets:
        data_set = read_data_set(name, data_folder(args, name), args)
        if args.speed:
            with tempfile.TemporaryDirectory() as folder:
                result["speed"][name] = race(data_set, args, Path(folder))
            for peer, figures in result["speed"][name]["peers"].items():
                print(name, peer, json.dumps({key: value for key, value in figures.items() if key != "rounds"}))
            write_result(args.output, result)
        else:
            learn(name, data_set, args, result)


if __name__ == "__main__":
    main()
