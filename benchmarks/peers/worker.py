"""What all peers share: one process per peer, in the peer's own environment, that trains, then predicts on request.

    python PEER.py prepare JOB.json       trains on a few texts, writes a model
    python PEER.py measure JOB.json       loads it and answers one JSON line per JSON line on stdin
    python PEER.py learn JOB.json         trains in earnest, says how well it did
    python PEER.py race JOB.json          trains for some steps per line on stdin, says how long they took

Only the standard library is imported here, and torch where a function needs it.
"""

import importlib.metadata
import json
import os
import platform
import random
import resource
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Set, TextIO, Tuple

Utterance = Dict[str, Any]  # "words" and "tags" (BIO), as many of each, and "intent", None where there are none
Spans = Set[Tuple[int, int, str]]  # Entities by their characters in the words with blanks between them
Predicted = Tuple[Spans, Optional[str]]

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


class Learner:
    """A model that learns batch by batch.

    choices (Dict[str, str]): Parts that are chosen by themselves, and by which score; see `scores`.
    """

    choices = {"all": "choice"}

    def step(self, batch: List[Utterance]) -> None:
        """Learn from a batch."""
        raise NotImplementedError

    def predict(self, utterances: List[Utterance]) -> List[Predicted]:
        """Read the words of each utterance, and not its tags or intent."""
        raise NotImplementedError

    def save(self, part: str, folder: Path) -> None:
        """Write a part as it is now."""
        raise NotImplementedError

    def restore(self, part: str, folder: Path) -> None:
        """Bring it back."""
        raise NotImplementedError


class Peer:
    """A way to train and to predict.

    packages (Tuple[str, ...]): Distributions whose versions belong into the result.
    """

    def prepare(self, train: List[Utterance], job: Dict[str, Any], output: Path) -> None:
        """Train on a few texts and write all that `rows` needs. Peers that learn nothing leave it as it is."""

    def rows(self, model: Path, job: Dict[str, Any]) -> Iterator[Tuple[str, Callable[[], Row]]]:
        """Names of rows and what makes them: one that fails is reported, and the others are measured."""
        raise NotImplementedError

    def learner(self, train: List[Utterance], job: Dict[str, Any]) -> Learner:
        """A model that has learned nothing. job: "rates" of encoder and heads, "total_steps", "model": a folder."""
        raise NotImplementedError


def computes_in_bf16() -> bool:
    """RETURNS (bool): Whether this CPU does: torch imitates it on others, many times slower than float32."""
    import torch

    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def run(peer: Peer) -> None:
    """The program of every peer."""
    channel = _take_stdout()
    verb, job = sys.argv[1], json.loads(Path(sys.argv[2]).read_text(encoding="utf8"))
    random.seed(job["seed"])
    set_threads(job["threads"], job["seed"])
    if verb == "prepare":
        train = json.loads(Path(job["train"]).read_text(encoding="utf8"))
        peer.prepare(train, job, Path(job["model"]))
    else:
        {"measure": measure, "learn": learn, "race": race}[verb](peer, job, channel)


def measure(peer: Peer, job: Dict[str, Any], channel: TextIO) -> None:
    """Load, warm up, choose batch sizes, say "ready"; then one timed round for each line on stdin.

    A round is as many passes over the texts as `job["seconds"]` take, and at least one.
    """
    texts: Dict[str, List[str]] = json.loads(Path(job["texts"]).read_text(encoding="utf8"))
    intents: List[str] = json.loads(Path(job["intents"]).read_text(encoding="utf8"))
    rows: Dict[str, Row] = {}
    report: Dict[str, Any] = {"rows": {}, "skipped": {}}
    for name, make in peer.rows(Path(job["model"]), job):
        if "bf16" in name and not computes_in_bf16():
            report["skipped"][name] = "this CPU does not compute in bf16"
            continue
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
    versions["torch"] = torch.__version__  # which names the build
    return {"python": platform.python_version(), "torch_threads": torch.get_num_threads(), "versions": versions}


def learn(peer: Peer, job: Dict[str, Any], channel: TextIO) -> None:
    """Train, score dev after each epoch, score test once with what was best on dev. Says all of it in one line."""
    splits = {name: json.loads(Path(job[name]).read_text(encoding="utf8")) for name in ("train", "dev", "test")}
    learner = peer.learner(splits["train"], job)
    order, chooser, folder = list(splits["train"]), random.Random(job["seed"]), Path(job["model"])
    history: List[Dict[str, float]] = []
    seconds = 0.0
    for epoch in range(job["epochs"]):
        chooser.shuffle(order)
        start = time.perf_counter()
        for first in range(0, len(order), TRAIN_BATCH):
            learner.step(order[first : first + TRAIN_BATCH])
        seconds += time.perf_counter() - start
        found = scores(splits["dev"], learner.predict(splits["dev"]))
        for part, name in learner.choices.items():
            if all(found[name] > before[name] for before in history):
                learner.save(part, folder)
        history.append(found)
        print(f"epoch {epoch}, {seconds:.0f} s: {found}", file=sys.stderr, flush=True)
    for part in learner.choices:
        learner.restore(part, folder)
    report = {
        "training_examples_per_second": round(len(order) * job["epochs"] / seconds, 1),
        "dev": scores(splits["dev"], learner.predict(splits["dev"])),
        "test": scores(splits["test"], learner.predict(splits["test"])),
        "dev_of_epochs": history,
    }
    _say(channel, {**report, **describe()})


def race(peer: Peer, job: Dict[str, Any], channel: TextIO) -> None:
    """Train for the steps in `job["steps"]`, the same ones for every line on stdin and for all peers."""
    train = json.loads(Path(job["train"]).read_text(encoding="utf8"))
    learner = peer.learner(train, job)
    chosen = random.Random(job["seed"]).sample(train, min(len(train), TRAIN_BATCH * job["steps"]))
    batches = [chosen[first : first + TRAIN_BATCH] for first in range(0, len(chosen), TRAIN_BATCH)]
    for batch in batches[:5]:
        learner.step(batch)
    _say(channel, describe())
    for _ in sys.stdin:
        start, cpu = time.perf_counter(), time.process_time()
        for batch in batches:
            learner.step(batch)
        figures = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
        # Kilobytes on Linux, bytes on macOS
        unit = 2**20 if sys.platform == "darwin" else 2**10
        peak = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)
        _say(channel, {**figures, "docs": len(chosen), "peak_memory_mb": peak})


def tag_spans(words: Sequence[str], tags: Sequence[str]) -> Spans:
    """The entities that BIO tags spell. An I- that nothing of its label precedes begins one, as conlleval has it."""
    spans, start, inside, place = set(), 0, "O", 0
    for word, tag in zip([*words, ""], [*tags, "O"]):
        if inside != "O" and tag != f"I-{inside}":
            spans.add((start, place - 1, inside))
            inside = "O"
        if inside == "O" and tag != "O":
            start, inside = place, tag[2:]
        place += len(word) + 1
    return spans


def scores(gold: Sequence[Utterance], predicted: Sequence[Predicted]) -> Dict[str, float]:
    """In percent: slot F1 and, where there are intents, how many are right, and how many utterances in all they say.
    "choice" is what a checkpoint is chosen by: F1, or the mean of F1 and intents.
    """
    expected = [tag_spans(utterance["words"], utterance["tags"]) for utterance in gold]
    right = sum(len(spans & found) for spans, (found, _) in zip(expected, predicted))
    total = sum(map(len, expected)) + sum(len(found) for found, _ in predicted)
    slot_f1 = 200 * right / max(1, total)
    if gold[0]["intent"] is None:
        return {"slot_f1": slot_f1, "choice": slot_f1}
    intents = [utterance["intent"] == intent for utterance, (_, intent) in zip(gold, predicted)]
    whole = [ok and spans == found for ok, spans, (found, _) in zip(intents, expected, predicted)]
    accuracy = 100 * sum(intents) / len(intents)
    return {
        "intent_accuracy": accuracy,
        "slot_f1": slot_f1,
        "sentence_accuracy": 100 * sum(whole) / len(whole),
        "choice": (accuracy + slot_f1) / 2,
    }


def set_threads(threads: int, seed: int) -> None:
    """Seed torch as well, since both need it imported."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(seed)


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


class TorchSteps:
    """How peers made of torch modules learn: AdamW, a rate for the encoder and one for the rest, which rise for a
    tenth of the steps and fall to 0 with the last, gradients clipped to a norm of 1 together.

    encoder_part (str): In the names of the encoder's parameters and of no others.
    job (Dict[str, Any]): "rates", "total_steps".
    """

    def __init__(self, named_parameters: Iterable[Tuple[str, Any]], encoder_part: str, job: Dict[str, Any]) -> None:
        import torch
        from transformers import get_linear_schedule_with_warmup

        groups: Tuple[List[Any], List[Any]] = ([], [])
        for name, parameter in named_parameters:
            groups[encoder_part not in name].append(parameter)
        self.parameters = [*groups[0], *groups[1]]
        self.optimizer = torch.optim.AdamW(
            [{"params": group, "lr": rate} for group, rate in zip(groups, job["rates"])], weight_decay=0.01
        )
        total = job["total_steps"]
        self.schedule = get_linear_schedule_with_warmup(self.optimizer, round(0.1 * total), total)

    def step(self, loss: Any) -> None:
        """Backward pass and step."""
        import torch

        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()


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
