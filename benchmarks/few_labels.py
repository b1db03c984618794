"""A few texts of each class: what a pipeline learns from them, beside SetFit, logistic regression, and itself before.

    python benchmarks/few_labels.py --data FOLDER [--sets trec6 snips messages] [--sizes 8 16 64] [--seeds 0 1 2 3 4]
                                    [--methods ours before frozen setfit] [--setfit-python PATH] [--first]

Accuracy on test of classifiers that learned from 8, 16 or 64 texts of each class, with the encoder MiniLM:

ours: configs/textcat.cfg after `fit-config --epochs 0`, as projects train. The last checkpoint, since there is no dev.
before: the same without the head start, for 10 epochs: what this package did until it had one.
frozen: logistic regression of scikit-learn on the mean of the encoder's wordpieces.
setfit: peers/setfit_classes.py, run by --setfit-python, the interpreter of an environment with peers/setfit.txt.

no_start: ours without the head start, but for as long.

And the F1 of entities on test of ours and before with configs/ner.cfg: sets snips_slots and wnut17, where a size is
the number of all texts; and both figures of ours and no_start with configs/joint.cfg: set snips_joint.

--first: which texts to annotate first. Accuracy of `frozen` with the first texts of a loop that begins with nothing,
typical ones of 2,400 of the train split, beside as many that are drawn, and the number of classes among them. The
sizes are numbers of texts here.

trec6 and snips are as for benchmarks/text_heads.py and benchmarks/snips.py, wnut17 as for benchmarks/ner_learning.py;
messages are the generated English ones of assets/, tested on those written by hand. The texts are drawn by the seed.
What is in the result is not run again.
"""

import argparse
import json
import random
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Tuple

import numpy
import snips
import spacy
from environment import add_common_arguments, data_folder, write_result
from recipe import convert_wnut
from runs import predict, set_values
from sklearn.linear_model import LogisticRegression
from spacy.scorer import Scorer
from spacy.tokens import Doc, DocBin
from spacy.training.initialize import init_nlp
from spacy.training.loop import train
from spacy.util import load_config
from spacy.vocab import Vocab
from text_heads import read_trec6

from spacy_bert_heads.annotation.selection import choose_typical
from spacy_bert_heads.annotation.vectors import annotate_vectors, get_vector
from spacy_bert_heads.layers.encoder_module import resolve_source
from spacy_bert_heads.project.configs import DEMO_ENCODER, render_config
from spacy_bert_heads.training.fit_config import fit_config

ASSETS = Path(__file__).parent.parent / "assets"
PEER = Path(__file__).parent / "peers" / "setfit_classes.py"
EPOCHS_BEFORE = 10
# Texts to choose the first ones from
POOL = 2400
METHODS = ("ours", "before", "no_start", "frozen", "setfit")


class Corpora(NamedTuple):
    """Docs to draw from, and those to test on."""

    pool: List[Doc]
    test: List[Doc]


def make_docs(rows: Iterable[Tuple[str, Dict[str, float]]]) -> List[Doc]:
    """Docs of texts and their categories."""
    nlp, docs = spacy.blank("en"), []
    for text, cats in rows:
        doc = nlp.make_doc(text)
        doc.cats = cats
        docs.append(doc)
    return docs


def read_trec(args: argparse.Namespace) -> Corpora:
    splits = read_trec6(data_folder(args, "trec6"))
    return Corpora(make_docs(splits["train"]), make_docs(splits["test"]))


def read_converted(convert: Callable[[Path], Any]) -> Corpora:
    """What another benchmark's converter writes into a folder."""
    with tempfile.TemporaryDirectory() as name:
        convert(Path(name))
        pool, test = (
            list(DocBin().from_disk(Path(name) / f"{split}.spacy").get_docs(Vocab())) for split in ("train", "test")
        )
    return Corpora(pool, test)


def read_snips_docs(args: argparse.Namespace) -> Corpora:
    return read_converted(lambda output: snips.convert(data_folder(args, "snips"), output))


def read_messages(args: argparse.Namespace) -> Corpora:
    rows = {
        name: [json.loads(line) for line in (ASSETS / "en" / f"{name}.jsonl").read_text("utf8").splitlines()]
        for name in ("generated", "handwritten")
    }
    labels = sorted({row["accept"][0] for found in rows.values() for row in found})
    pool, test = (
        make_docs((row["text"], {label: float(label == row["accept"][0]) for label in labels}) for row in found)
        for found in rows.values()
    )
    return Corpora(pool, test)


def read_wnut_docs(args: argparse.Namespace) -> Corpora:
    return read_converted(lambda output: convert_wnut(data_folder(args, "wnut17"), output))


CLASSES: Dict[str, Callable[[argparse.Namespace], Corpora]] = {
    "trec6": read_trec,
    "snips": read_snips_docs,
    "messages": read_messages,
}
ENTITIES: Dict[str, Callable[[argparse.Namespace], Corpora]] = {
    "snips_slots": read_snips_docs,
    "wnut17": read_wnut_docs,
    "snips_joint": read_snips_docs,
}
# What is compared by default, and with which heads
USUAL = {"snips_slots": ("ours", "before"), "wnut17": ("ours", "before"), "snips_joint": ("ours", "no_start")}
HEADS = {"snips_slots": ["ner"], "wnut17": ["ner"], "snips_joint": ["textcat", "ner"]}


def class_of(doc: Doc) -> str:
    return max(doc.cats, key=lambda label: doc.cats[label])


def draw(pool: List[Doc], size: int, seed: int, by_class: bool) -> List[Doc]:
    """So many Docs, or so many of each class."""
    order = random.Random(seed).sample(pool, len(pool))
    if not by_class:
        return order[:size]
    groups: Dict[str, List[Doc]] = defaultdict(list)
    for doc in order:
        groups[class_of(doc)].append(doc)
    return [doc for label in sorted(groups) for doc in groups[label][:size]]


def run_pipeline(heads: List[str], docs: List[Doc], test: List[Doc], seed: int, method: str) -> Dict[str, Any]:
    """Train and score, in percent."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        DocBin(docs=docs, store_user_data=True).to_disk(folder / "train.spacy")
        DocBin(docs=test, store_user_data=True).to_disk(folder / "test.spacy")
        DocBin(docs=docs[:20], store_user_data=True).to_disk(folder / "dev.spacy")
        config_path = folder / "config.cfg"
        config_path.write_text(render_config("en", heads, DEMO_ENCODER), encoding="utf8")
        fit = fit_config(
            config_path,
            folder / "fitted.cfg",
            train=folder / "train.spacy",
            dev=folder / "dev.spacy",
            encoder=DEMO_ENCODER,
            epochs=EPOCHS_BEFORE if method == "before" else 0,
            seed=seed,
            evaluations=1,
        )
        config = load_config(folder / "fitted.cfg", interpolate=False)
        set_values(config, {"training.logger.progress_bar": False})
        if method != "ours":
            config["initialize"]["after_init"] = None
        start = time.process_time()
        (folder / "training").mkdir()
        nlp = init_nlp(config)
        train(nlp, folder / "training")
        seconds = time.process_time() - start
        nlp = spacy.load(folder / "training" / "model-last")
        scores = Scorer(nlp).score(predict(nlp, folder / "test.spacy"))
    figures = {"textcat": ("accuracy", "cats_acc"), "ner": ("f1", "ents_f")}
    found = {figures[head][0]: round(100 * scores[figures[head][1]], 2) for head in heads}
    return {**found, "training_cpu_seconds": round(seconds, 1), "steps": fit.steps}


def frozen_vectors(docs: List[Doc]) -> numpy.ndarray:
    """The mean of the encoder's wordpieces, of length 1. Float, (n_docs, width)."""
    nlp = spacy.blank("en")
    nlp.add_pipe("bert_encoder", config={"model": {"name": DEMO_ENCODER, "precision": "fp32"}})
    nlp.initialize()
    annotate_vectors(nlp)
    rows = []
    for doc in nlp.pipe([doc.text for doc in docs], batch_size=64):
        rows.append(get_vector(doc))
        doc._.trf_data = None
    return numpy.array(rows)


def run_frozen(docs: List[Doc], test: List[Doc]) -> Dict[str, Any]:
    start = time.process_time()
    model = LogisticRegression(max_iter=1000).fit(frozen_vectors(docs), [class_of(doc) for doc in docs])
    seconds = time.process_time() - start
    accuracy = model.score(frozen_vectors(test), [class_of(doc) for doc in test])
    return {"accuracy": round(100 * float(accuracy), 2), "training_cpu_seconds": round(seconds, 1)}


def run_first(corpora: Corpora, sizes: List[int], seeds: List[int], n_test: int) -> Dict[str, Any]:
    """Texts to begin with, typical ones and drawn ones: means over the seeds."""
    pool = random.Random(0).sample(corpora.pool, min(POOL, len(corpora.pool)))
    X, y = frozen_vectors(pool), numpy.array([class_of(doc) for doc in pool])
    test = corpora.test[:n_test]
    test_X, test_y = frozen_vectors(test), [class_of(doc) for doc in test]
    found: Dict[str, Any] = {}
    for size in sizes:
        scores: Dict[str, List[Tuple[float, int]]] = {"typical": [], "drawn": []}
        for seed in seeds:
            drawn = random.Random(seed).sample(range(len(pool)), size)
            for name, rows in (("typical", choose_typical(X, size, seed)), ("drawn", drawn)):
                model = LogisticRegression(max_iter=1000, C=10).fit(X[rows], y[rows])
                scores[name].append((100 * model.score(test_X, test_y), len(set(y[rows]))))
        found[str(size)] = {
            name: {
                "accuracy": round(statistics.mean(score for score, _ in values), 1),
                "classes": round(statistics.mean(n_classes for _, n_classes in values), 1),
            }
            for name, values in scores.items()
        }
    return found


def run_setfit(args: argparse.Namespace, docs: List[Doc], test: List[Doc], seed: int) -> Dict[str, Any]:
    if args.setfit_python is None:
        raise SystemExit(f"Pass --setfit-python, an interpreter with {PEER.with_name('setfit.txt')} installed")
    job = {
        "encoder": str(resolve_source(DEMO_ENCODER)),
        "seed": seed,
        "train": [(doc.text, class_of(doc)) for doc in docs],
        "test": [(doc.text, class_of(doc)) for doc in test],
    }
    done = subprocess.run([args.setfit_python, str(PEER)], input=json.dumps(job), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def summarise(runs: List[Dict[str, Any]]) -> Dict[str, Any]:
    """Mean and standard deviation over the seeds."""
    groups: Dict[Tuple[str, int, str], List[Dict[str, Any]]] = defaultdict(list)
    for found in runs:
        groups[found["set"], found["size"], found["method"]].append(found)
    table: Dict[str, Any] = {}
    for (name, size, method), same in sorted(groups.items()):
        parts = []
        for figure in ("accuracy", "f1"):
            values = [found[figure] for found in same if figure in found]
            if values:
                spread = statistics.stdev(values) if len(values) > 1 else 0.0
                parts.append(f"{figure} {statistics.mean(values):.1f} ± {spread:.1f}")
        seconds = statistics.mean(found["training_cpu_seconds"] for found in same)
        row = f"{', '.join(parts)} ({len(same)} seeds, {seconds:.0f} s)"
        table.setdefault(name, {}).setdefault(str(size), {})[method] = row
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser, "few_labels.json")
    parser.add_argument("--sets", nargs="+", choices=[*CLASSES, *ENTITIES], default=list(CLASSES))
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 16, 64])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="Default: those above for each set")
    parser.add_argument("--setfit-python", help="Interpreter of SetFit's environment")
    parser.add_argument("--first", action="store_true", help="Compare which texts to annotate first")
    parser.add_argument("--n-test", type=int, default=700, help="Texts to test on, at most")
    args = parser.parse_args()
    result = json.loads(args.output.read_text(encoding="utf8")) if args.output.exists() else {}
    runs: List[Dict[str, Any]] = result.get("runs", [])
    if args.first:
        for name in args.sets:
            found = run_first(CLASSES[name](args), args.sizes, args.seeds, args.n_test)
            result.setdefault("first", {})[name] = found
            print(name, found, flush=True)
            write_result(args.output, result)
        return
    for name in args.sets:
        is_text = name in CLASSES
        corpora = (CLASSES if is_text else ENTITIES)[name](args)
        test = corpora.test[: args.n_test]
        for size in args.sizes:
            for seed in args.seeds:
                docs = draw(corpora.pool, size, seed, is_text)
                for method in args.methods or USUAL.get(name, ("ours", "before", "frozen", "setfit")):
                    job = {"set": name, "size": size, "seed": seed, "method": method, "n_test": len(test)}
                    if any(job.items() <= found.items() for found in runs):
                        continue
                    if method == "frozen":
                        found = run_frozen(docs, test)
                    elif method == "setfit":
                        found = run_setfit(args, docs, test, seed)
                    else:
                        found = run_pipeline(HEADS.get(name, ["textcat"]), docs, test, seed, method)
                    runs.append({**job, **found})
                    print(json.dumps(runs[-1]), flush=True)
                    write_result(args.output, {**result, "table": summarise(runs), "runs": runs})


if __name__ == "__main__":
    main()
