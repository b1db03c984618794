"""What all peers share: one process per peer, in the peer's own environment, that trains, then predicts on request.

    python PEER.py prepare JOB.json       trains on a few texts, writes a model
    python PEER.py measure JOB.json       loads it and answers one JSON line per JSON line on stdin

Only the standard library is imported here, and torch where a function needs it.
"""

import importlib.metadata
import json
import os
import platform
import random
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Sequence, TextIO, Tuple

Utterance = Dict[str, Any]  # "words" and "tags" (BIO), as many of each, and "intent"

PACKAGES = (
    "torch", "transformers", "tokenizers", "spacy", "spacy-transformers", "spacy-bert-heads", "thinc", "flair",
    "edsnlp", "pytorch-crf", "openvino", "onnxruntime", "numpy",
)  # fmt: skip
BATCH_SIZES = {"short": (32, 64, 128, 256), "long": (1, 4, 16)}
TRAIN_BATCH = 32


@dataclass
class Row:
    """One way to predict.

    predict (Callable): Texts and a batch size -> anything.
    read (Callable): What `predict` gave -> the number of entities of each text and the intents, in order of the
        texts; either is an empty list where there are none.
    batch_sizes (Dict[str, Sequence[int]]): For each set of texts, those to try. The fastest is measured.
    sets (Sequence[str]): Sets of texts to measure.
    note (str): Goes into the result.
    """

    predict: Callable[[List[str], int], Any]
    read: Callable[[Any], Tuple[List[int], List[str]]]
    batch_sizes: Dict[str, Sequence[int]] = field(default_factory=lambda: dict(BATCH_SIZES))
    sets: Sequence[str] = ("short", "long")
    note: str = ""


class Peer:
    """A way to train and to predict.

    packages (Tuple[str, ...]): Distributions whose versions belong into the result.
    """

    def prepare(self, train: List[Utterance], job: Dict[str, Any], output: Path) -> None:
        """Train on a few texts and write all that `rows` needs. Peers that learn nothing leave it as it is."""

    def rows(self, model: Path, job: Dict[str, Any]) -> Iterator[Tuple[str, Callable[[], Row]]]:
        """Names of rows and what makes them: one that fails is reported, and the others are measured."""
        raise NotImplementedError


def run(peer: Peer) -> None:
    """The program of every peer."""
    channel = _take_stdout()
    verb, job = sys.argv[1], json.loads(Path(sys.argv[2]).read_text(encoding="utf8"))
    random.seed(job["seed"])
    set_threads(job["threads"])
    if verb == "prepare":
        train = json.loads(Path(job["train"]).read_text(encoding="utf8"))
        peer.prepare(train, job, Path(job["model"]))
    else:
        measure(peer, job, channel)


def measure(peer: Peer, job: Dict[str, Any], channel: TextIO) -> None:
    """Load, warm up, choose batch sizes, say "ready"; then one timed round for each line on stdin.

    A round is as many passes over the texts as `job["seconds"]` take, and at least one.
    """
    texts: Dict[str, List[str]] = json.loads(Path(job["texts"]).read_text(encoding="utf8"))
    intents: List[str] = json.loads(Path(job["intents"]).read_text(encoding="utf8"))
    rows: Dict[str, Row] = {}
    report: Dict[str, Any] = {"rows": {}, "skipped": {}}
    for name, make in peer.rows(Path(job["model"]), job):
        try:
            row = make()
            report["rows"][name] = {"note": row.note, "sets": warm_up(row, texts, intents)}
        except Exception as error:  # whatever it is, the benchmark says so and goes on with the rest
            traceback.print_exc()
            report["skipped"][name] = f"{type(error).__name__}: {str(error).strip()}".split("\n")[0]
        else:
            rows[name] = row
    _say(channel, {**report, **describe()})
    for line in sys.stdin:
        request = json.loads(line)
        row = rows[request["row"]]
        chosen = report["rows"][request["row"]]["sets"][request["set"]]["batch_size"]
        docs, passes, start = texts[request["set"]], 0, time.perf_counter()
        while passes == 0 or time.perf_counter() - start < job["seconds"]:
            row.predict(docs, chosen)
            passes += 1
        _say(channel, {"seconds": time.perf_counter() - start, "docs": passes * len(docs)})


def warm_up(row: Row, texts: Dict[str, List[str]], intents: List[str]) -> Dict[str, Any]:
    """For each set of texts the fastest batch size, and what is predicted with it."""
    chosen = {}
    for name in row.sets:
        row.predict(texts[name][: 2 * max(row.batch_sizes[name])], min(row.batch_sizes[name]))
        seconds = {}
        for size in row.batch_sizes[name]:
            start = time.perf_counter()
            predicted = row.predict(texts[name], size)
            seconds[size] = time.perf_counter() - start
        best = min(seconds, key=lambda size: seconds[size])
        entities, found = row.read(predicted)
        chosen[name] = {"batch_size": best, "tried_seconds": {size: round(s, 3) for size, s in seconds.items()}}
        for predictions in (entities, found):
            if predictions and len(predictions) != len(texts[name]):
                raise ValueError(f"{len(predictions)} predictions for {len(texts[name])} texts")
        if entities:
            chosen[name]["entities"] = sum(entities)
        if found and name == "short":
            right = sum(guess == intents[i % len(intents)] for i, guess in enumerate(found))
            chosen[name]["intents_right"] = round(right / len(found), 3)
    return chosen


def describe() -> Dict[str, Any]:
    """Versions and threads of this process."""
    import torch

    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"python": platform.python_version(), "torch_threads": torch.get_num_threads(), "versions": versions}


def set_threads(threads: int) -> None:
    """Seed torch as well, since both need it imported."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)


def train_torch(
    named_parameters: Iterable[Tuple[str, Any]],
    data: Sequence[Any],
    loss: Callable[[List[Any]], Any],
    encoder_part: str,
    job: Dict[str, Any],
) -> None:
    """A plain training loop for peers made of torch modules: AdamW, the heads 20 times faster than the encoder.

    encoder_part (str): In the names of the encoder's parameters and of no others.
    """
    import torch

    parameters = list(named_parameters)
    groups = [
        {"params": [p for name, p in parameters if encoder_part in name], "lr": 1e-4},
        {"params": [p for name, p in parameters if encoder_part not in name], "lr": 2e-3},
    ]
    optimizer = torch.optim.AdamW(groups)
    order = list(data)
    for _ in range(job["epochs"]):
        random.shuffle(order)
        for start in range(0, len(order), TRAIN_BATCH):
            optimizer.zero_grad()
            value = loss(order[start : start + TRAIN_BATCH])
            value.backward()
            torch.nn.utils.clip_grad_norm_([p for _, p in parameters], 1.0)
            optimizer.step()
        print(f"loss {float(value.detach()):.3f}", file=sys.stderr)


def sort_by_length(texts: List[str]) -> Tuple[List[int], List[str]]:
    """Positions in order of length, and the texts in that order."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    return order, [texts[i] for i in order]


def unsort(order: List[int], values: Sequence[Any]) -> List[Any]:
    """Undo `sort_by_length`."""
    result: List[Any] = [None] * len(order)
    for position, value in zip(order, values):
        result[position] = value
    return result


def _take_stdout() -> TextIO:
    """Libraries print; stdout is kept for answers and everything else goes to stderr."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf8")
    os.dup2(2, 1)
    return channel


def _say(channel: TextIO, answer: Dict[str, Any]) -> None:
    channel.write(json.dumps(answer) + "\n")
    channel.flush()
