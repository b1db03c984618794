"""Can the probabilities of a shipped pipeline be believed, before and after `calibrate`?

    python benchmarks/calibration.py --data FOLDER [--seeds 1] [--runs FOLDER]

For SNIPS (intents and entities), WNUT-17 (entities) and the texts of GoEmotions that have one emotion:

1. Trains a pipeline from a config of this repository, on so many texts as TASKS says. With --runs the pipelines are
   kept there, and a later run trains none again.
2. Fits the temperatures to the dev split, as `bert-heads calibrate` does, and looks at the test split before and
   after: expected calibration error with its bootstrap interval (Guo et al. 2017), the classwise one, negative
   log-likelihood, area under the curve of risk against coverage, and from which confidence on 95 % are right.
3. Draws 100 splits of dev and test together into two halves. On one half a threshold is chosen for sets that hold all
   that is true of 90 % of texts (split conformal prediction); on the other half it is counted how many do.

FOLDER/snips is as for benchmarks/snips.py, FOLDER/wnut17 as for benchmarks/ner_learning.py; FOLDER/goemotions holds
train.tsv, dev.tsv, test.tsv and labels.txt. Beside the JSON a picture is written, if matplotlib is installed.
"""

import argparse
import csv
import json
import random
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional

import numpy
import snips
import spacy
from environment import add_common_arguments, data_folder, write_result
from ner_learning import WNUT_FILES, make_doc, read_wnut, write_docs
from runs import SPLITS, train_pipeline
from spacy.tokens import Doc, DocBin
from spacy.training import Corpus
from spacy.vocab import Vocab

from spacy_bert_heads.evaluation.conformal import LOWEST_THRESHOLD, conformal_threshold, least_likely
from spacy_bert_heads.evaluation.outcomes import EntityOutcomes, observe
from spacy_bert_heads.evaluation.temperature import describe, fit_temperature

SHARE = 0.9
N_SPLITS = 100


class Task(NamedTuple):
    """What is trained.

    config (str): File in configs/.
    n_train (Optional[int]): Texts, drawn at random; None: all.
    epochs (int): Times over them.
    """

    config: str
    n_train: Optional[int]
    epochs: int


TASKS = {
    "snips": Task("joint.cfg", 4000, 3),
    "wnut17": Task("ner.cfg", None, 2),
    "goemotions": Task("textcat.cfg", 3000, 2),
}


def read_emotions(folder: Path, split: str, vocab: Vocab) -> Iterator[Doc]:
    """Docs of the texts that have one emotion."""
    labels = (folder / "labels.txt").read_text(encoding="utf8").split()
    tokenizer = spacy.blank("en").tokenizer
    with (folder / f"{split}.tsv").open(encoding="utf8", newline="") as file:
        for text, numbers, _ in csv.reader(file, delimiter="\t"):
            if "," not in numbers:
                doc = tokenizer(text)
                doc.cats = {label: float(i == int(numbers)) for i, label in enumerate(labels)}
                yield doc


def write_corpus(name: str, data: Path, folder: Path, n_train: Optional[int], seed: int) -> int:
    """Write train.spacy, dev.spacy and test.spacy; RETURNS the number of Docs in the first."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab = Vocab()
    if name == "snips":
        snips.convert(data, folder)
    else:
        for split in SPLITS:
            if name == "wnut17":
                docs: Any = (make_doc(vocab, sentence) for sentence in read_wnut(data / WNUT_FILES[split]))
            else:
                docs = read_emotions(data, split, vocab)
            write_docs(docs, folder / f"{split}.spacy")
    docs = list(DocBin().from_disk(folder / "train.spacy").get_docs(vocab))
    random.Random(seed).shuffle(docs)
    return write_docs(docs[:n_train], folder / "train.spacy")


def get_pipeline(name: str, args: argparse.Namespace, folder: Path, seed: int) -> Dict[str, Any]:
    """Train, unless it has been done. RETURNS (Dict[str, Any]): What the training says of itself."""
    record = folder / "training.json"
    if record.is_file():
        return json.loads(record.read_text(encoding="utf8"))
    task = TASKS[name]
    n_train = write_corpus(name, data_folder(args, name), folder / "corpus", task.n_train, seed)
    figures: Dict[str, Any] = {"n_train": n_train, "epochs": task.epochs, "config": task.config}
    train, dev = (folder / "corpus" / f"{split}.spacy" for split in ("train", "dev"))
    figures.update(
        train_pipeline(
            task.config,
            train,
            dev,
            n_train,
            folder / "pipeline",
            epochs=task.epochs,
            precision=args.precision,
            seed=seed,
        )
    )
    record.write_text(json.dumps(figures), encoding="utf8")
    return figures


def cover(lowest: List[float]) -> Dict[str, Any]:
    """Coverage of sets over random splits of texts."""
    values = numpy.array(lowest)
    random_state = numpy.random.default_rng(0)
    covered, thresholds = [], []
    for _ in range(N_SPLITS):
        order = random_state.permutation(len(values))
        half = len(values) // 2
        threshold = conformal_threshold(values[order[:half]].tolist(), SHARE)
        if threshold is not None:
            covered.append(float((values[order[half:]] >= threshold).mean()))
            thresholds.append(threshold)
    return {
        "texts": len(values),
        "asked": SHARE,
        "mean": float(numpy.mean(covered)) if covered else None,
        "standard_deviation": float(numpy.std(covered)) if covered else None,
        "mean_threshold": float(numpy.mean(thresholds)) if thresholds else None,
        # Below this `calibrate` gives no sets of entities
        "is_offered": bool(thresholds) and float(numpy.mean(thresholds)) >= LOWEST_THRESHOLD,
    }


def run(name: str, folder: Path) -> Dict[str, Any]:
    """Calibration of every head of one pipeline."""
    nlp = spacy.load(folder / "pipeline" / "model-best")
    dev, test = (list(Corpus(folder / "corpus" / f"{split}.spacy")(nlp)) for split in ("dev", "test"))
    is_dev = numpy.arange(len(dev) + len(test)) < len(dev)
    found: Dict[str, Any] = {}
    for outcomes in observe(nlp, dev + test):
        before = describe(outcomes, ~is_dev)
        fit = fit_temperature(outcomes, is_dev)
        after = describe(outcomes, ~is_dev)
        key = "entities" if isinstance(outcomes, EntityOutcomes) else "categories"
        found[key] = {
            "temperature": fit.temperature,
            "reason": fit.reason,
            "before": before,
            "after": after,
            "coverage": cover(list(least_likely(outcomes).values())),
        }
        show(f"{name} {key}", found[key])
    return found


def show(title: str, result: Dict[str, Any]) -> None:
    print(f"{title}: temperature {result['temperature']}")
    for when in ("before", "after"):
        row = result[when]
        low, high = row["expected_calibration_error_interval"]
        classwise = row.get("classwise_calibration_error")
        right = next(one for one in row["selective"]["right"] if one["accuracy"] == 0.95)
        print(
            f"  {when:6} ECE {row['expected_calibration_error']:.4f} ({low:.4f} to {high:.4f})"
            + ("" if classwise is None else f", classwise {classwise:.4f}")
            + f", NLL {row['nll']:.4f}, AURC {row['selective']['aurc']:.4f}, {row['predictions']} predictions, "
            f"{row['accuracy']:.1%} right; 95 % right from {right['confidence']} on, "
            f"which leaves {right['coverage']:.1%}"
        )
    coverage = result["coverage"]
    print(f"  sets: {coverage['mean']} of {coverage['texts']} texts covered, {coverage['asked']} asked for")


def draw(results: Dict[str, Any], path: Path) -> None:
    """Write reliability diagrams before and after, if matplotlib is installed."""
    try:
        from matplotlib import pyplot
    except ImportError:
        print("matplotlib is not installed: no picture")
        return
    figure, axes = pyplot.subplots(2, len(results), figsize=(3.6 * len(results), 7), squeeze=False)
    for column, (title, result) in zip(axes.T, results.items()):
        for axis, when in zip(column, ("before", "after")):
            row = result[when]
            axis.plot([0, 1], [0, 1], linestyle="--", color="grey")
            most = max(b["predictions"] for b in row["bins"])
            for b in row["bins"]:
                shade = 0.3 + 0.7 * b["predictions"] / most
                width = b["high"] - b["low"]
                axis.bar(b["low"], b["accuracy"], width, align="edge", edgecolor="white", color="#4878a8", alpha=shade)
            axis.set_title(f"{title}, {when}: ECE {row['expected_calibration_error']:.3f}", fontsize=9)
            axis.set(xlabel="confidence", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    print(f"Wrote {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser, "calibration.json")
    parser.add_argument("--seeds", type=int, default=1, help="Trainings of each pipeline")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--runs", type=Path, default=None, help="Where to keep the pipelines, or to find them")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    args = parser.parse_args()
    results: Dict[str, Any] = {}
    pictures: Dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name in args.tasks:
            results[name] = []
            for seed in range(args.seeds):
                folder = Path(args.runs or temporary) / f"{name}-{seed}"
                figures = get_pipeline(name, args, folder, seed)
                results[name].append({"seed": seed, "training": figures, **run(name, folder)})
            for key in ("categories", "entities"):
                if key in results[name][0]:
                    pictures[f"{name} {key}"] = results[name][0][key]
    write_result(args.output, {"seeds": args.seeds, "precision": args.precision, "results": results})
    draw(pictures, args.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
