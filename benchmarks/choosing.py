"""Which texts to annotate next: what logistic regression learns from them, over vectors of an encoder that stays as
it is. So a curve takes seconds, and there are enough of them to compare strategies.

    python benchmarks/choosing.py --data FOLDER [--sets trec6 snips messages] [--strategies ...] [--seeds 0 1 2 3 4]

Each curve begins with 20 typical texts and goes on to 50, 100, 200 and 400, of 3,000 that are drawn once. Accuracy on
test, of which 1,000 texts are drawn at most. The sets are those of benchmarks/few_labels.py, as are the vectors.

random: drawn. typical: as the first ones, of clusters without annotated texts. breaking-ties, entropy: those of which
the model is least sure. half: half typical ones, half by breaking ties. default: as `suggest` mixes the two; the
mistakes by which it does so are those of a five-fold cross-validation of the annotated texts, since there is no dev.

Every finished curve is in the JSON file, and a curve that is there is not run again. One thread is used.
"""

import argparse
import json
import random
import statistics
import time
from typing import Any, Dict, List, NamedTuple

import numpy
from environment import add_common_arguments, write_result
from few_labels import CLASSES, class_of, frozen_vectors
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold

from spacy_bert_heads.annotation.handover import rate_doubts
from spacy_bert_heads.annotation.selection import choose_typical

SIZES = (20, 50, 100, 200, 400)
POOL, TEST = 3000, 1000
FOLDS = 5
STRATEGIES = ("random", "typical", "breaking-ties", "half", "default", "entropy")


class Texts(NamedTuple):
    """Vectors, float, (n_texts, width), and classes, (n_texts,): of texts to choose from, and of those to test on."""

    pool: numpy.ndarray
    classes: numpy.ndarray
    test: numpy.ndarray
    test_classes: numpy.ndarray


def read(name: str, args: argparse.Namespace) -> Texts:
    corpora = CLASSES[name](args)
    parts: List[numpy.ndarray] = []
    for docs, most in ((corpora.pool, POOL), (corpora.test, TEST)):
        chosen = random.Random(0).sample(docs, min(most, len(docs)))
        parts += [frozen_vectors(chosen), numpy.array([class_of(doc) for doc in chosen])]
    return Texts(*parts)


def fit(X: numpy.ndarray, y: numpy.ndarray) -> LogisticRegression:
    return LogisticRegression(max_iter=200, C=10).fit(X, y)


def breaking_ties(probabilities: numpy.ndarray) -> numpy.ndarray:
    ordered = numpy.sort(probabilities, axis=1)
    return 1.0 - (ordered[:, -1] - ordered[:, -2])


def entropy(probabilities: numpy.ndarray) -> numpy.ndarray:
    return -(probabilities * numpy.log(probabilities.clip(min=1e-12))).sum(axis=1)


def typical_share(texts: Texts, rows: List[int], seed: int) -> float:
    """As `suggest` finds it, with a cross-validation in place of dev."""
    X, y = texts.pool[rows], texts.classes[rows]
    wrong, doubts = numpy.zeros(len(rows), dtype=bool), numpy.zeros(len(rows))
    for train, held_out in KFold(FOLDS, shuffle=True, random_state=seed).split(X):
        if len(set(y[train])) < 2:
            return 1.0
        model = fit(X[train], y[train])
        found = model.predict_proba(X[held_out])
        wrong[held_out] = model.classes_[found.argmax(axis=1)] != y[held_out]
        doubts[held_out] = breaking_ties(found)
    return rate_doubts(wrong.tolist(), doubts.tolist()).typical_share


def choose(
    strategy: str, texts: Texts, model: LogisticRegression, rows: List[int], left: List[int], n: int, seed: int
) -> List[int]:
    """RETURNS (List[int]): n of the rows that are left."""
    if strategy == "random":
        return left[:n]
    shares = {"typical": 1.0, "half": 0.5}
    share = typical_share(texts, rows, seed) if strategy == "default" else shares.get(strategy, 0.0)
    n_typical = round(n * share)
    chosen: List[int] = []
    if n_typical:
        found = choose_typical(texts.pool[left], n_typical, seed, texts.pool[rows])
        chosen = [left[number] for number in found]
    measure = entropy if strategy == "entropy" else breaking_ties
    order = numpy.argsort(-measure(model.predict_proba(texts.pool[left])), kind="stable")
    taken = set(chosen)
    return chosen + [left[number] for number in order if left[number] not in taken][: n - n_typical]


def run_curve(strategy: str, texts: Texts, seed: int) -> List[Dict[str, Any]]:
    """RETURNS (List[Dict[str, Any]]): Texts and accuracy in percent, for each size."""
    order = list(range(len(texts.pool)))
    random.Random(seed).shuffle(order)
    rows = choose_typical(texts.pool, SIZES[0], seed)
    curve = []
    for size, following in zip(SIZES, [*SIZES[1:], None]):
        model = fit(texts.pool[rows], texts.classes[rows])
        accuracy = float(model.score(texts.test, texts.test_classes))
        curve.append({"texts": size, "accuracy": round(100 * accuracy, 2)})
        if following is not None:
            known = set(rows)
            left = [row for row in order if row not in known]
            rows = rows + choose(strategy, texts, model, rows, left, following - size, seed)
    return curve


def summarise(curves: Dict[str, List[Dict[str, Any]]]) -> Dict[str, Any]:
    """Means over the seeds, and the difference from random with its standard error, seed by seed."""
    table: Dict[str, Any] = {}
    for key in curves:
        name, strategy, _ = key.split("/")
        table.setdefault(name, {}).setdefault(strategy, {})
    for name, strategies in table.items():
        for strategy, row in strategies.items():
            seeds = [key.split("/")[2] for key in curves if key.startswith(f"{name}/{strategy}/")]
            for number, size in enumerate(SIZES):
                found = {seed: curves[f"{name}/{strategy}/{seed}"][number]["accuracy"] for seed in seeds}
                row[str(size)] = {"accuracy": round(statistics.mean(found.values()), 1), "seeds": len(seeds)}
                base = {seed: curves.get(f"{name}/random/{seed}") for seed in seeds}
                gains = [found[seed] - rows[number]["accuracy"] for seed, rows in base.items() if rows]
                if strategy != "random" and len(gains) > 1:
                    error = statistics.stdev(gains) / len(gains) ** 0.5
                    row[str(size)].update(over_random=round(statistics.mean(gains), 1), error=round(error, 1))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser, "choosing.json")
    parser.add_argument("--sets", nargs="+", choices=CLASSES, default=list(CLASSES))
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=list(STRATEGIES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    args = parser.parse_args()
    result = json.loads(args.output.read_text(encoding="utf8")) if args.output.exists() else {}
    curves: Dict[str, List[Dict[str, Any]]] = result.get("curves", {})
    seconds = result.get("cpu_seconds", 0.0)
    for name in args.sets:
        wanted = [(strategy, seed) for strategy in args.strategies for seed in args.seeds]
        wanted = [(strategy, seed) for strategy, seed in wanted if f"{name}/{strategy}/{seed}" not in curves]
        if not wanted:
            continue
        texts = read(name, args)
        for strategy, seed in wanted:
            start = time.process_time()
            curves[f"{name}/{strategy}/{seed}"] = run_curve(strategy, texts, seed)
            seconds += time.process_time() - start
            print(name, strategy, seed, [row["accuracy"] for row in curves[f"{name}/{strategy}/{seed}"]], flush=True)
            write_result(args.output, {"table": summarise(curves), "cpu_seconds": round(seconds, 1), "curves": curves})


if __name__ == "__main__":
    main()
