"""How many texts have to be annotated: the default of `suggest` and `loop` against random choice, gold answers as the
annotator.

    python benchmarks/active_learning.py --data FOLDER [--sets ...] [--strategies ...] [--seeds 0 1 2] [--rounds ...]

A curve begins with nothing, as `loop --labels` does: its first texts are chosen by `choose_first_texts`, or drawn. A
pipeline is trained on them, it chooses the next ones by `suggest`, they are answered, another pipeline is trained from
the pretrained encoder on all that is answered so far, and so on. The number of texts doubles each round. `suggest` has
DEV texts of the train split as `--dev`, which all curves share, which do not count, and which choose no checkpoint.

random: drawn. default: what `suggest` does when no strategy is named. The name of a strategy: that alone, from the
second round on.

snips: configs/joint.cfg, mean of intent accuracy and slot F1. wnut17: configs/ner.cfg, entity F1. resume_ner:
configs/ner_zh.cfg, entity F1 by characters, from scratch (the vocabulary, not the labels, is learned from all texts),
so that nothing compares the first texts, and these are drawn. trec6: configs/textcat.cfg, accuracy.

To be cheap, so that scores are lower than after a whole training: the embeddings and the lower three of MiniLM's six
layers stay as they are; steps of 16 texts, their number by `n_steps`; candidates are an even sample of the texts that
are left, POOL of them or five times as many as are chosen, whichever is more. The whole test split is scored. Targets
are 90, 95 and 99 % of the score after a training of the same kind on all training texts, at which every curve ends.
What it takes is interpolated on the mean curve of the seeds, linearly over the logarithm of the number of texts, and
tokens likewise.

Every finished curve is in the JSON file, and a curve that is there is not run again; PNG and table are made anew. A
curve that was broken off is run again from its beginning. One thread is used, and seconds are those of the processor.
"""

import argparse
import json
import math
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import snips
import torch
from environment import add_common_arguments, data_folder, write_result
from recipe import convert_resume, convert_wnut
from runs import CONFIGS
from spacy.language import Language
from spacy.scorer import Scorer as SpacyScorer
from spacy.tokens import Doc, DocBin
from spacy.training import Example
from spacy.util import fix_random_seed, load_config, load_model_from_config
from spacy.vocab import Vocab
from text_heads import read_trec6
from text_heads import write_split as write_rows

from spacy_bert_heads.annotation.cold_start import choose_first_texts
from spacy_bert_heads.annotation.prelabel.questions import Question
from spacy_bert_heads.annotation.strategies import RANDOM, STRATEGIES
from spacy_bert_heads.annotation.suggest import suggest

BATCH_SIZE = 16
POOL = 1000
DEV = 100
TARGETS = (0.90, 0.95, 0.99)
# The one that is drawn
TARGET = 0.95
FROZEN = {"freeze_embeddings": True, "freeze_layers": 3}
DEFAULT = "default"


class DataSet(NamedTuple):
    """One data set.

    config (str): File in configs/.
    convert (Callable[[Path, Path], Any]): Writes train.spacy and test.spacy.
    scores (Tuple[str, ...]): Of spaCy's Scorer; their mean is the score.
    rounds (Tuple[int, ...]): Texts answered after each round.
    effort (float): Steps of training, as a multiple.
    """

    config: str
    convert: Callable[[Path, Path], Any]
    scores: Tuple[str, ...]
    rounds: Tuple[int, ...]
    effort: float = 1.0


def convert_trec(data: Path, output: Path) -> None:
    """TREC-6 as `.spacy` files, all training questions together."""
    splits = read_trec6(data)
    nlp = load_model_from_config(load_config(CONFIGS / "textcat.cfg", interpolate=False), auto_fill=True)
    write_rows(nlp, splits["train"] + splits["dev"], output / "train.spacy")
    write_rows(nlp, splits["test"], output / "test.spacy")


DATA_SETS: Dict[str, DataSet] = {
    "trec6": DataSet("textcat.cfg", convert_trec, ("cats_acc",), (50, 100, 200, 400)),
    "snips": DataSet("joint.cfg", snips.convert, ("cats_acc", "ents_f"), (50, 100, 200, 400)),
    "resume_ner": DataSet("ner_zh.cfg", convert_resume, ("ents_f",), (50, 100, 200, 400), 1.5),
    "wnut17": DataSet("ner.cfg", convert_wnut, ("ents_f",), (100, 200, 400)),
}


def n_steps(n_texts: int, effort: float) -> int:
    """Steps of a training: they grow with the root of the number of texts, but go over them three times at least."""
    return round(effort * max(8.5 * math.sqrt(n_texts), 3 * n_texts / BATCH_SIZE))


class Experiment:
    """A data set, and what is done with it whatever the strategy.

    name (str): Key of DATA_SETS.
    data (Path): Folder of its files.
    precision (str): The encoder's.
    limit (Optional[int]): Texts of each split at most.
    """

    def __init__(self, name: str, data: Path, precision: str, limit: Optional[int]) -> None:
        self.data_set = DATA_SETS[name]
        self.precision = precision
        self.vocab = Vocab()
        with tempfile.TemporaryDirectory() as folder:
            self.data_set.convert(data, Path(folder))
            docs = {split: list(self._read(Path(folder) / f"{split}.spacy"))[:limit] for split in ("train", "test")}
        train_docs = list({doc.text: doc for doc in docs["train"] if len(doc)}.values())
        self._first = self._initial_docs(train_docs)
        random.Random(0).shuffle(train_docs)
        self.dev_docs, self.train_docs = train_docs[:DEV], train_docs[DEV:]
        self.test_docs = docs["test"]

    @property
    def _is_from_scratch(self) -> bool:
        return "paths.encoder" not in (CONFIGS / self.data_set.config).read_text(encoding="utf8")

    def _read(self, path: Path) -> Iterator[Doc]:
        return DocBin().from_disk(path).get_docs(self.vocab)

    def _initial_docs(self, docs: List[Doc]) -> List[Doc]:
        """Docs from which a pipeline reads its labels, which annotators know; from scratch also the vocabulary."""
        if self._is_from_scratch:
            return docs
        seen: set = set()
        needed = []
        for doc in docs:
            labels = {ent.label_ for ent in doc.ents} | {f"cat {label}" for label, value in doc.cats.items() if value}
            if labels - seen:
                needed.append(doc)
                seen |= labels
        return needed

    def blank(self, doc: Doc) -> Doc:
        """RETURNS (Doc): The tokens of a Doc."""
        return Doc(self.vocab, words=[t.text for t in doc], spaces=[bool(t.whitespace_) for t in doc])

    def train(self, docs: Sequence[Doc], seed: int) -> Language:
        """RETURNS (Language): A pipeline trained on annotated Docs, from the pretrained encoder."""
        steps = n_steps(len(docs), self.data_set.effort)
        config = load_config(CONFIGS / self.data_set.config, interpolate=False)
        config["system"]["seed"] = seed
        config["components"]["transformer"]["model"]["precision"] = self.precision
        config["training"]["optimizer"]["total_steps"] = steps
        if not self._is_from_scratch:
            config["training"]["optimizer"].update(FROZEN)
        fix_random_seed(seed)
        with tempfile.TemporaryDirectory() as folder:
            # Where the head start of text heads looks for texts
            config["paths"]["train"] = str(write_docs(docs, Path(folder) / "train.spacy"))
            nlp = load_model_from_config(config, vocab=self.vocab, auto_fill=True)
            optimizer = nlp.initialize(lambda: [Example(self.blank(doc), doc) for doc in self._first])
        batches = self._batches(docs, random.Random(seed))
        for _ in range(steps):
            nlp.update(
                [Example(self.blank(doc), doc) for doc in next(batches)], drop=config["training"]["dropout"], sgd=False
            )
            for _, pipe in nlp.pipeline:
                if hasattr(pipe, "finish_update"):
                    pipe.finish_update(optimizer)
            optimizer.step_schedules()
        return nlp

    @staticmethod
    def _batches(docs: Sequence[Doc], chooser: random.Random) -> Iterator[List[Doc]]:
        waiting: List[Doc] = []
        while True:
            while len(waiting) < BATCH_SIZE:
                waiting += chooser.sample(list(docs), len(docs))
            yield waiting[:BATCH_SIZE]
            del waiting[:BATCH_SIZE]

    def score(self, nlp: Language) -> Dict[str, float]:
        """RETURNS (Dict[str, float]): Scores on test, in percent, "score" being their mean."""
        predicted = nlp.pipe([self.blank(doc) for doc in self.test_docs])
        found = SpacyScorer(nlp).score([Example(doc, gold) for doc, gold in zip(predicted, self.test_docs)])
        scores = {name: round(100 * (found[name] or 0.0), 2) for name in self.data_set.scores}
        return {**scores, "score": round(statistics.mean(scores.values()), 2)}

    def choose_first(self, numbers: Sequence[int], n: int, seed: int) -> List[int]:
        """RETURNS (List[int]): The texts of an even sample with which `loop` begins."""
        with tempfile.TemporaryDirectory() as name:
            raw, tasks = self._write_raw(numbers, Path(name)), Path(name) / "tasks.jsonl"
            config = CONFIGS / self.data_set.config
            choose_first_texts(raw, tasks, Question(("ANY",)), config=config, limit=n, seed=seed)
            return read_numbers(tasks)

    def choose(
        self, nlp: Language, strategy: str, docs: Sequence[Doc], numbers: Sequence[int], n: int, seed: int
    ) -> Tuple[List[int], Dict[str, Any]]:
        """RETURNS (Tuple[List[int], Dict[str, Any]]): The next texts of an even sample, and why: how many as typical
        ones, the share of dev texts with a mistake, and how well doubts find them.
        """
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            nlp.to_disk(folder / "model")
            report = suggest(
                str(folder / "model"),
                self._write_raw(numbers, folder),
                folder / "tasks.jsonl",
                strategy=None if strategy == DEFAULT else strategy,
                limit=n,
                exclude=[write_docs(docs, folder / "answered.spacy")],
                dev=write_docs(self.dev_docs, folder / "dev.spacy"),
                seed=seed,
            )
            trust, told = report.trust, {}
            if trust is not None and trust.precision is not None:
                found = {"wrong": trust.n_wrong / trust.n_texts, "auc": trust.auc, "precision": trust.precision}
                told = {name: None if value is None else round(value, 3) for name, value in found.items()}
            return read_numbers(folder / "tasks.jsonl"), {"typical": report.n_typical, **told}

    def _write_raw(self, numbers: Sequence[int], folder: Path) -> Path:
        rows = ({"text": self.train_docs[number].text, "meta": {"number": number}} for number in numbers)
        path = folder / "raw.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf8")
        return path


def write_docs(docs: Sequence[Doc], path: Path) -> Path:
    """RETURNS (Path): The file."""
    DocBin(docs=docs, store_user_data=True).to_disk(path)
    return path


def read_numbers(tasks: Path) -> List[int]:
    """RETURNS (List[int]): Of the texts that tasks are about."""
    return [json.loads(line)["meta"]["number"] for line in tasks.read_text(encoding="utf8").splitlines()]


def run_curve(experiment: Experiment, strategy: str, rounds: Sequence[int], seed: int) -> List[Dict[str, Any]]:
    """One curve. RETURNS (List[Dict[str, Any]]): A row for each round."""
    left = list(range(len(experiment.train_docs)))
    rows: List[Dict[str, Any]] = []
    docs: List[Doc] = []
    nlp: Optional[Language] = None
    for n_texts in rounds:
        began, told = time.process_time(), {}
        n = n_texts - len(docs)
        # Another even sample of what is left as the next candidates
        random.Random(seed + len(docs)).shuffle(left)
        sample = left[: max(POOL, 5 * n)]
        if strategy == RANDOM:
            # Nobody looks at the predictions
            chosen = left[:n]
        elif nlp is None:
            chosen = experiment.choose_first(sample, n, seed)
        else:
            chosen, told = experiment.choose(nlp, strategy, docs, sample, n, seed)
        gone = set(chosen)
        left = [number for number in left if number not in gone]
        docs += [experiment.train_docs[number] for number in chosen]
        nlp = experiment.train(docs, seed)
        rows.append({**make_row(experiment, docs, nlp, began), **told})
        print(strategy, rows[-1], flush=True)
    return rows


def make_row(experiment: Experiment, docs: Sequence[Doc], nlp: Language, began: float) -> Dict[str, Any]:
    counts = {"texts": len(docs), "tokens": sum(len(doc) for doc in docs)}
    return {**counts, **experiment.score(nlp), "seconds": round(time.process_time() - began, 1)}


def texts_needed(curve: Sequence[Dict[str, float]], target: float) -> Optional[Dict[str, float]]:
    """Texts and tokens at which a curve first reaches a score; None if it never does."""
    for before, after in zip([*curve[:1], *curve], curve):
        if after["score"] >= target:
            gain = after["score"] - before["score"]
            share = (target - before["score"]) / gain if gain > 0 else 1.0
            return {
                name: round(math.exp(math.log(before[name]) * (1 - share) + math.log(after[name]) * share))
                for name in ("texts", "tokens")
            }
    return None


def mean_curve(runs: Sequence[Sequence[Dict[str, float]]]) -> List[Dict[str, float]]:
    """Means over seeds round by round, and the standard deviation of the score."""
    curve = []
    for rows in zip(*runs):
        row = {name: statistics.mean(r[name] for r in rows) for name in ("texts", "tokens", "score")}
        scores = [r["score"] for r in rows]
        curve.append({**row, "deviation": statistics.stdev(scores) if len(scores) > 1 else 0.0})
    return curve


def summarise(results: Dict[str, Any]) -> List[Dict[str, Any]]:
    """For each data set and strategy: what the targets take, how much of what random takes, and the lead over random
    at each point, with its standard error, seed by seed."""
    table: List[Dict[str, Any]] = []
    for name, full in results["full"].items():
        found = _by_strategy(results, name)
        drawn = found.get(RANDOM, {})
        base = mean_curve(list(drawn.values()))
        for strategy, runs in found.items():
            curve = mean_curve(list(runs.values()))
            row: Dict[str, Any] = {"set": name, "strategy": strategy, "seeds": len(runs)}
            row["scores"] = {str(round(point["texts"])): round(point["score"], 2) for point in curve}
            if strategy != RANDOM:
                row["lead"] = _leads(runs, drawn)
            for share in TARGETS:
                cost = texts_needed([*curve, full], share * full["score"])
                random_cost = texts_needed([*base, full], share * full["score"])
                ratios = {
                    f"{unit}_of_random": round(cost[unit] / random_cost[unit], 2)
                    for unit in ("texts", "tokens")
                    if cost and random_cost
                }
                row[f"{share:.0%}"] = {"score": round(share * full["score"], 2), **(cost or {}), **ratios}
            table.append(row)
    return table


def _leads(runs: Dict[str, List[Dict[str, float]]], drawn: Dict[str, List[Dict[str, float]]]) -> Dict[str, Any]:
    """For each number of texts the mean lead over random and its standard error."""
    pairs = [zip(rows, drawn[seed]) for seed, rows in runs.items() if seed in drawn]
    found = {}
    for points in zip(*pairs):
        gains = [ours["score"] - other["score"] for ours, other in points]
        error = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else None
        found[str(points[0][0]["texts"])] = {
            "points": round(statistics.mean(gains), 2),
            "error": None if error is None else round(error, 2),
        }
    return found


def _by_strategy(results: Dict[str, Any], name: str) -> Dict[str, Dict[str, List[Dict[str, float]]]]:
    """Curves of a data set, by strategy and seed."""
    found: Dict[str, Dict[str, List[Dict[str, float]]]] = {}
    for key, rows in results["curves"].items():
        data_set, strategy, seed = key.split("/")
        if data_set == name:
            found.setdefault(strategy, {})[seed] = rows
    return found


def draw(results: Dict[str, Any], path: Path) -> None:
    """Write the curves, mean and deviation over the seeds, if matplotlib is installed."""
    try:
        from matplotlib import pyplot, ticker
    except ImportError:
        print("matplotlib is not installed: no picture")
        return
    panels = [name for name in results["full"] if _by_strategy(results, name)]
    if not panels:
        return
    figure, axes = pyplot.subplots(1, len(panels), figsize=(4.6 * len(panels), 4.2), squeeze=False)
    for axis, name in zip(axes[0], panels):
        axis.axhline(TARGET * results["full"][name]["score"], color="grey", linestyle="--", linewidth=1)
        for strategy, runs in sorted(_by_strategy(results, name).items()):
            curve = mean_curve(list(runs.values()))
            texts, scores = [row["texts"] for row in curve], [row["score"] for row in curve]
            (line,) = axis.plot(
                texts, scores, marker="o", markersize=3, label=strategy, color="grey" if strategy == RANDOM else None
            )
            low = [row["score"] - row["deviation"] for row in curve]
            high = [row["score"] + row["deviation"] for row in curve]
            axis.fill_between(texts, low, high, alpha=0.15, color=line.get_color())
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(ticker.ScalarFormatter())
        axis.set(title=name, xlabel="annotated texts", ylabel="score on test")
        axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
    print(f"Wrote {path}")


def run_set(args: argparse.Namespace, name: str, results: Dict[str, Any]) -> None:
    """All curves of a data set that are not there yet."""
    data_set = DATA_SETS[name]
    wanted = [(seed, strategy) for seed in args.seeds for strategy in args.strategies]
    waiting = [(s, c) for s, c in wanted if f"{name}/{c}/{s}" not in results["curves"]]
    if name in results["full"] and not waiting:
        return
    experiment = Experiment(name, data_folder(args, name), args.precision, args.limit)
    for seed, strategy in waiting:
        print(name, "seed", seed, flush=True)
        rows = run_curve(experiment, strategy, args.rounds or data_set.rounds, seed)
        results["curves"][f"{name}/{strategy}/{seed}"] = rows
        save(args, results)
    if name not in results["full"]:
        began = time.process_time()
        nlp = experiment.train(experiment.train_docs, 0)
        results["full"][name] = make_row(experiment, experiment.train_docs, nlp, began)
        print(name, "all texts", results["full"][name], flush=True)
        save(args, results)


def save(args: argparse.Namespace, results: Dict[str, Any]) -> None:
    write_result(args.output, {**results, "table": summarise(results)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser, "active_learning.json")
    parser.add_argument("--sets", nargs="+", choices=DATA_SETS, default=list(DATA_SETS))
    parser.add_argument(
        "--strategies",
        nargs="+",
        choices=(RANDOM, DEFAULT, *STRATEGIES),
        default=[RANDOM, DEFAULT],
        help="%(default)s",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, nargs="+", help="Texts answered after each round")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--limit", type=int, help="Texts of each split at most, to try the script")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results: Dict[str, Any] = {"precision": args.precision, "full": {}, "curves": {}}
    if args.output.is_file():
        before = json.loads(args.output.read_text(encoding="utf8"))
        results.update({name: before[name] for name in ("full", "curves")})
    for name in args.sets:
        run_set(args, name, results)
    for row in summarise(results):
        print(row)
    draw(results, args.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
