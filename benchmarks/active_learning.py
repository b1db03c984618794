"""How many texts have to be annotated: strategies of `suggest` against random choice, gold answers as the annotator.

    python benchmarks/active_learning.py --data FOLDER [--sets ...] [--strategies ...] [--seeds 0 1 2] [--rounds ...]

Each curve begins with the same texts for all strategies of a seed, drawn at random. A pipeline is trained on them, it
chooses the next ones, they are answered, another pipeline is trained from the pretrained encoder on all that is
answered so far, and so on. The number of texts doubles each round. Answers are complete; or, with --answers binary,
after the first round only yes or no to what the pipeline suggests (entities, likeliest label).

snips: configs/joint.cfg, mean of intent accuracy and slot F1. wnut17: configs/ner.cfg, entity F1. resume_ner:
configs/ner_zh.cfg, entity F1 by characters, from scratch (the vocabulary, not the labels, is learned from all texts).
trec6: configs/textcat.cfg, accuracy.

To be cheap, so that scores are lower than after a whole training: the embeddings and the lower three of MiniLM's six
layers stay as they are; no dev split chooses a checkpoint; steps of 16 texts, their number by `n_steps`; candidates
are an even sample of the texts that are left, POOL of them or five times as many as are chosen, whichever is more.
The whole test split is scored. Targets are 90, 95 and 99 % of the score after a training of the same kind on all
training texts, at which every curve ends. What it takes is interpolated on the mean curve of the seeds, linearly over
the logarithm of the number of texts, and tokens likewise.

Every finished curve is in the JSON file, and a curve that is there is not run again; PNG and table are made anew. A
curve that was broken off is run again from its beginning. One thread is used.
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
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Example
from spacy.util import fix_random_seed, load_config, load_model_from_config
from spacy.vocab import Vocab
from text_heads import read_trec6
from text_heads import write_split as write_rows

from spacy_bert_heads.annotation.heads import Heads, find_heads
from spacy_bert_heads.annotation.selection import choose_diverse
from spacy_bert_heads.annotation.strategies import RANDOM, make_scorer
from spacy_bert_heads.annotation.vectors import annotate_vectors, get_vector
from spacy_bert_heads.corpus.docs import INCORRECT_SPANS_KEY

BATCH_SIZE = 16
POOL = 2000
OVERSELECT = 10
TARGETS = (0.90, 0.95, 0.99)
# The one that is drawn
TARGET = 0.95
FROZEN = {"freeze_embeddings": True, "freeze_layers": 3}
DIVERSE = "+diverse"
COMPLETE, BINARY = "complete", "binary"


class DataSet(NamedTuple):
    """One data set.

    config (str): File in configs/.
    convert (Callable[[Path, Path], Any]): Writes train.spacy and test.spacy.
    scores (Tuple[str, ...]): Of spaCy's Scorer; their mean is the score.
    strategy (str): The one to be compared with random choice.
    rounds (Tuple[int, ...]): Texts answered after each round.
    effort (float): Steps of training, as a multiple.
    """

    config: str
    convert: Callable[[Path, Path], Any]
    scores: Tuple[str, ...]
    strategy: str
    rounds: Tuple[int, ...]
    effort: float = 1.0


def convert_trec(data: Path, output: Path) -> None:
    """TREC-6 as `.spacy` files, all training questions together."""
    splits = read_trec6(data)
    nlp = load_model_from_config(load_config(CONFIGS / "textcat.cfg", interpolate=False), auto_fill=True)
    write_rows(nlp, splits["train"] + splits["dev"], output / "train.spacy")
    write_rows(nlp, splits["test"], output / "test.spacy")


DATA_SETS: Dict[str, DataSet] = {
    "trec6": DataSet("textcat.cfg", convert_trec, ("cats_acc",), "breaking-ties", (50, 100, 200, 400, 800)),
    "snips": DataSet("joint.cfg", snips.convert, ("cats_acc", "ents_f"), "joint", (50, 100, 200, 400, 800, 1600)),
    "resume_ner": DataSet("ner_zh.cfg", convert_resume, ("ents_f",), "mnlp", (50, 100, 200, 400, 800, 1600), 1.5),
    "wnut17": DataSet("ner.cfg", convert_wnut, ("ents_f",), "mnlp", (100, 200, 400, 800, 1600)),
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
        self.train_docs = list({doc.text: doc for doc in docs["train"] if len(doc)}.values())
        self.test_docs = docs["test"]
        self._first = self._initial_docs()

    @property
    def _is_from_scratch(self) -> bool:
        return "paths.encoder" not in (CONFIGS / self.data_set.config).read_text(encoding="utf8")

    def _read(self, path: Path) -> Iterator[Doc]:
        return DocBin().from_disk(path).get_docs(self.vocab)

    def _initial_docs(self) -> List[Doc]:
        """Docs from which a pipeline reads its labels, which annotators know; from scratch also the vocabulary."""
        if self._is_from_scratch:
            return self.train_docs
        seen: set = set()
        needed = []
        for doc in self.train_docs:
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

    def choose(
        self, nlp: Language, strategy: str, left: List[int], n: int, binary: bool, seed: int
    ) -> List[Tuple[int, Doc]]:
        """The next texts and what the pipeline predicts for them. `left` is in random order."""
        random_choice = strategy == RANDOM
        pool = left[: n if random_choice and not binary else max(POOL, 5 * n)]
        if random_choice and not binary:
            # Nobody looks at the predictions
            return [(number, self.train_docs[number]) for number in pool]
        heads = find_heads(nlp)
        name, _, diverse = strategy.partition("+")
        if diverse:
            annotate_vectors(nlp)
        scorer = make_scorer(nlp, name, heads)
        docs = ((self.blank(self.train_docs[number]), number) for number in pool)
        scored = [(score, number, doc) for doc, score, number in scorer.pipe(docs, as_tuples=True)]
        if binary:
            scored = [row for row in scored if row[2].ents or row[2].cats]
        if not random_choice:
            scored.sort(key=lambda row: row[0], reverse=True)
        if diverse and len(scored) > n:
            import numpy

            scored = scored[: OVERSELECT * n]
            rows = choose_diverse(numpy.stack([get_vector(doc) for _, _, doc in scored]), n, seed)
            scored = [scored[row] for row in rows]
        return [(number, doc) for _, number, doc in scored[:n]]

    def answer(self, gold: Doc, predicted: Doc, heads: Heads) -> Tuple[Doc, int]:
        """Yes or no to each predicted entity and to the likeliest label, as `spacy_bert_heads` reads such answers.

        RETURNS (Tuple[Doc, int]): What is known, and how many questions it took.
        """
        doc, n_questions = self.blank(gold), 0
        if heads.ner is not None:
            true = {(ent.start, ent.end, ent.label_) for ent in gold.ents}
            asked = [(ent.start, ent.end, ent.label_) for ent in predicted.ents]
            doc.set_ents([Span(doc, *ent) for ent in asked if ent in true], default="missing")
            doc.spans[INCORRECT_SPANS_KEY] = [Span(doc, *ent) for ent in asked if ent not in true]
            n_questions += len(asked)
        if heads.textcat is not None:
            likeliest = max(predicted.cats, key=lambda label: predicted.cats[label])
            doc.cats = dict(gold.cats) if gold.cats[likeliest] else {likeliest: 0.0}
            n_questions += 1
        return doc, n_questions


class Start(NamedTuple):
    """The first round, which all strategies of a seed share.

    left (List[int]): Texts that are not answered yet, in random order.
    docs (List[Doc]): Those that are.
    nlp (Language): The pipeline trained on them.
    row (Dict[str, Any]): What is told about it.
    """

    left: List[int]
    docs: List[Doc]
    nlp: Language
    row: Dict[str, Any]


def make_start(experiment: Experiment, n_texts: int, seed: int) -> Start:
    """Draw the first texts and train on them."""
    start = time.perf_counter()
    order = list(range(len(experiment.train_docs)))
    random.Random(seed).shuffle(order)
    docs = [experiment.train_docs[number] for number in order[:n_texts]]
    nlp = experiment.train(docs, seed)
    return Start(order[n_texts:], docs, nlp, make_row(experiment, docs, 0, nlp, start))


def make_row(
    experiment: Experiment, docs: Sequence[Doc], n_questions: int, nlp: Language, start: float
) -> Dict[str, Any]:
    scores = experiment.score(nlp)
    counts = {"texts": len(docs), "tokens": sum(len(doc) for doc in docs), "questions": n_questions}
    return {**counts, **scores, "seconds": round(time.perf_counter() - start, 1)}


def run_curve(
    experiment: Experiment, start: Start, strategy: str, rounds: Sequence[int], seed: int, binary: bool
) -> List[Dict[str, Any]]:
    """One curve. RETURNS (List[Dict[str, Any]]): A row for each round."""
    docs, left, nlp = list(start.docs), list(start.left), start.nlp
    rows, n_questions = [start.row], 0
    for n_texts in rounds[1:]:
        began = time.perf_counter()
        chosen = experiment.choose(nlp, strategy, left, n_texts - len(docs), binary, seed)
        if not chosen:
            break
        gone = {number for number, _ in chosen}
        left = [number for number in left if number not in gone]
        # Another even sample of what is left as the next candidates
        random.Random(seed + n_texts).shuffle(left)
        for number, predicted in chosen:
            gold = experiment.train_docs[number]
            if binary:
                gold, n_asked = experiment.answer(gold, predicted, find_heads(nlp))
                n_questions += n_asked
            docs.append(gold)
        nlp = experiment.train(docs, seed)
        rows.append(make_row(experiment, docs, n_questions, nlp, began))
        print(strategy, rows[-1], flush=True)
    return rows


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
        row = {name: statistics.mean(r[name] for r in rows) for name in ("texts", "tokens", "questions", "score")}
        scores = [r["score"] for r in rows]
        curve.append({**row, "deviation": statistics.stdev(scores) if len(scores) > 1 else 0.0})
    return curve


def summarise(results: Dict[str, Any]) -> List[Dict[str, Any]]:
    """For each data set, kind of answers and strategy: what the targets take, and how much of what random takes."""
    table: List[Dict[str, Any]] = []
    for name, full in results["full"].items():
        for answers in (COMPLETE, BINARY):
            curves = {strategy: mean_curve(runs) for strategy, runs in _by_strategy(results, name, answers).items()}
            n_seeds = {strategy: len(runs) for strategy, runs in _by_strategy(results, name, answers).items()}
            for strategy, curve in curves.items():
                row = {"set": name, "answers": answers, "strategy": strategy, "seeds": n_seeds[strategy]}
                for share in TARGETS:
                    # Yes and no to all texts is less than all is known about them
                    ends = [full] if answers == COMPLETE else []
                    cost = texts_needed([*curve, *ends], share * full["score"])
                    base = texts_needed([*curves.get(RANDOM, []), *ends], share * full["score"])
                    ratios = {
                        f"{unit}_of_random": round(cost[unit] / base[unit], 2)
                        for unit in ("texts", "tokens")
                        if cost and base
                    }
                    row[f"{share:.0%}"] = {"score": round(share * full["score"], 2), **(cost or {}), **ratios}
                table.append({**row, "last_score": round(curve[-1]["score"], 2)})
    return table


def _by_strategy(results: Dict[str, Any], name: str, answers: str) -> Dict[str, List[List[Dict[str, float]]]]:
    found: Dict[str, List[List[Dict[str, float]]]] = {}
    for key, rows in results["curves"].items():
        data_set, kind, strategy, _ = key.split("/")
        if (data_set, kind) == (name, answers):
            found.setdefault(strategy, []).append(rows)
    return found


def draw(results: Dict[str, Any], path: Path) -> None:
    """Write the curves, mean and deviation over the seeds, if matplotlib is installed."""
    try:
        from matplotlib import pyplot, ticker
    except ImportError:
        print("matplotlib is not installed: no picture")
        return
    panels = [(n, a) for n in results["full"] for a in (COMPLETE, BINARY) if _by_strategy(results, n, a)]
    if not panels:
        return
    figure, axes = pyplot.subplots(1, len(panels), figsize=(4.6 * len(panels), 4.2), squeeze=False)
    for axis, (name, answers) in zip(axes[0], panels):
        axis.axhline(TARGET * results["full"][name]["score"], color="grey", linestyle="--", linewidth=1)
        for strategy, runs in sorted(_by_strategy(results, name, answers).items()):
            curve = mean_curve(runs)
            texts, scores = [row["texts"] for row in curve], [row["score"] for row in curve]
            (line,) = axis.plot(
                texts, scores, marker="o", markersize=3, label=strategy, color="grey" if strategy == RANDOM else None
            )
            low = [row["score"] - row["deviation"] for row in curve]
            high = [row["score"] + row["deviation"] for row in curve]
            axis.fill_between(texts, low, high, alpha=0.15, color=line.get_color())
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(ticker.ScalarFormatter())
        axis.set(title=f"{name}, {answers} answers", xlabel="annotated texts", ylabel="score on test")
        axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
    print(f"Wrote {path}")


def run_set(args: argparse.Namespace, name: str, results: Dict[str, Any]) -> None:
    """All curves of a data set that are not there yet."""
    data_set = DATA_SETS[name]
    rounds = args.rounds or data_set.rounds
    strategies = args.strategies or (RANDOM, data_set.strategy)
    binary = args.answers == BINARY
    wanted = [(seed, strategy) for seed in args.seeds for strategy in strategies]
    waiting = [(s, c) for s, c in wanted if f"{name}/{args.answers}/{c}/{s}" not in results["curves"]]
    if name in results["full"] and not waiting:
        return
    experiment = Experiment(name, data_folder(args, name), args.precision, args.limit)
    for seed in dict.fromkeys(seed for seed, _ in waiting):
        start = make_start(experiment, rounds[0], seed)
        print(name, "seed", seed, start.row, flush=True)
        for strategy in [c for s, c in waiting if s == seed]:
            rows = run_curve(experiment, start, strategy, rounds, seed, binary)
            results["curves"][f"{name}/{args.answers}/{strategy}/{seed}"] = rows
            save(args, results)
    if name not in results["full"]:
        began = time.perf_counter()
        nlp = experiment.train(experiment.train_docs, 0)
        results["full"][name] = make_row(experiment, experiment.train_docs, 0, nlp, began)
        print(name, "all texts", results["full"][name], flush=True)
        save(args, results)


def save(args: argparse.Namespace, results: Dict[str, Any]) -> None:
    write_result(args.output, {**results, "table": summarise(results)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser, "active_learning.json")
    parser.add_argument("--sets", nargs="+", choices=DATA_SETS, default=list(DATA_SETS))
    parser.add_argument("--strategies", nargs="+", help=f"Also with {DIVERSE} behind. Default: random, the set's own")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, nargs="+", help="Texts answered after each round")
    parser.add_argument("--answers", choices=(COMPLETE, BINARY), default=COMPLETE)
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
