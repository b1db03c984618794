"""Text heads beside each other: trains configs of this repository, chooses on dev, scores test once per seed.

    python benchmarks/text_heads.py --data FOLDER thucnews|trec6|goemotions|stsb|cost [--rows NAME ...]

Each run is written down when it is done, with its dev scores beside those of test, and the next call goes on with what
is missing. `--set training.dropout=0.3` tries another setting, which becomes a row of its own.

thucnews: titles in Chinese, networks with no BERT, a BERT from scratch, and scikit-learn's TF-IDF with a linear SVM.
trec6: questions, heads over MiniLM; a tenth of the train split is dev. goemotions: several labels, thresholds tuned on
dev, beside Hugging Face's Trainer with the same encoder, which needs `pip install accelerate`. stsb: similarity of two
sentences, regression; scored on dev, which here is held out: the best checkpoint is chosen on a tenth of train. cost:
what each head adds to the pooled one.
"""

import argparse
import csv
import gzip
import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy
import spacy
from environment import add_common_arguments, data_folder, write_result
from runs import BATCH_SIZE, CONFIGS, parse_setting, set_values
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score
from spacy.language import Language
from spacy.tokens import Doc, DocBin
from spacy.training import Example
from spacy.training.initialize import init_nlp
from spacy.training.loop import train
from spacy.util import load_config, load_model_from_config

from spacy_bert_heads.project.configs import DEMO_ENCODER

Row = Tuple[str, Dict[str, float]]
Splits = Dict[str, List[Row]]
SEPARATOR = "\t"
SCRATCH_SETTINGS = {"components.transformer.model.vocab_size": 6000, "training.max_epochs": 10}


def over_minilm(name: str, sizes: Dict[str, Any]) -> Dict[str, Any]:
    """Overrides of configs/textcat.cfg: a network over token vectors in place of the pooled head."""
    listener = {"@architectures": "spacy_bert_heads.TokenListener.v1"}
    model = {"@architectures": f"spacy_bert_heads.{name}.v1", "exclusive_classes": True, "tok2vec": listener, **sizes}
    return {"components.bert_textcat.model": model}


def pooled(pooling: str, head: str = "bert_textcat", **settings: Any) -> Dict[str, Any]:
    return {f"components.{head}.model.tok2vec.pooling": pooling, **settings}


PAIRS = {
    "components.transformer.model.pair_separator": SEPARATOR,
    "components.transformer.model.window": None,
}
LAYERS = {"components.transformer.model.hidden_states": True, "components.bert_textcat.model.tok2vec.layer_mix": True}
HEADS: Dict[str, Dict[str, Any]] = {
    "pooler": pooled("pooler"),
    "cls": pooled("cls"),
    "mean": pooled("mean"),
    "max": pooled("max"),
    "attention": pooled("attention"),
    "layer mix": pooled("mean", **LAYERS),
    "layer mix, 5 dropouts": pooled("mean", **LAYERS, **{"components.bert_textcat.model.dropout_samples": 5}),
    "TextCNN": over_minilm("TextCNN", {}),
    "TextRNN": over_minilm("TextRNN", {}),
    "TextRNNAttention": over_minilm("TextRNNAttention", {}),
    "TextRCNN": over_minilm("TextRCNN", {}),
    "DPCNN": over_minilm("DPCNN", {}),
}
# Data set: for each row its config and what is other in it
ROWS: Dict[str, Dict[str, Tuple[str, Dict[str, Any]]]] = {
    "thucnews": {
        **{
            name: (f"text_heads/{name}_zh.cfg", {})
            for name in ("textcnn", "textrnn", "textrnn_att", "textrcnn", "dpcnn", "fasttext")
        },
        "transformer": ("textcat_zh.cfg", SCRATCH_SETTINGS),
    },
    "trec6": {name: ("textcat.cfg", overrides) for name, overrides in HEADS.items()},
    "goemotions": {"pooler": ("textcat_multilabel.cfg", pooled("pooler", "bert_textcat_multilabel"))},
    "stsb": {"pooler": ("regression.cfg", {**pooled("pooler", "bert_regression"), **PAIRS})},
}
SEEDS = (0, 1, 2)
# Seconds of training from which on one seed is enough
LONG = 300
COST_ROUNDS = 5
PUBLISHED = {
    "thucnews": "TextCNN 91.22, FastText 92.23, bert 94.83 (649453932's repositories) used the full train set of "
    "180,000 lines, and TextCNN and bert pretrained vectors and weights; here it is the first 33,590 lines, with "
    "nothing pretrained.",
    "trec6": "BERT-base 96.6 (26hzhang/bert_classification); CNN 92.8 (Kim).",
    "goemotions": "bert-base-cased macro F1 50.3 (monologg/GoEmotions-pytorch).",
    "stsb": "bert-base-cased Pearson 88.64 on dev (transformers/examples).",
}
# Those of thucnews are in the configs
EPOCHS = {"trec6": 4, "goemotions": 4, "stsb": 6}


def one_hot(label: str, labels: Sequence[str]) -> Dict[str, float]:
    return {other: float(other == label) for other in labels}


def read_thucnews(folder: Path) -> Splits:
    names = (folder / "class.txt").read_text(encoding="utf8").split()
    train = gzip.decompress((folder / "train_part_33590.txt.gz").read_bytes()).decode("utf8")
    texts = {"train": train, **{s: (folder / f"{s}.txt").read_text(encoding="utf8") for s in ("dev", "test")}}

    def read(text: str) -> List[Row]:
        rows = (line.rsplit("\t", 1) for line in text.split("\n") if line.strip())
        return [(title, one_hot(names[int(index)], names)) for title, index in rows]

    return {split: read(text) for split, text in texts.items()}


def read_trec6(folder: Path) -> Splits:
    def read(name: str) -> List[Row]:
        lines = (folder / f"TREC.{name}.all").read_text(encoding="utf8").splitlines()
        return [(text, one_hot(index, "012345")) for index, _, text in (line.partition(" ") for line in lines)]

    return {**hold_out(read("train")), "test": read("test")}


def read_goemotions(folder: Path) -> Splits:
    names = (folder / "labels.txt").read_text(encoding="utf8").split()

    def read(path: Path) -> List[Row]:
        with path.open(encoding="utf8", newline="") as file:
            rows = list(csv.reader(file, delimiter="\t"))
        return [(r[0], {n: float(str(i) in r[1].split(",")) for i, n in enumerate(names)}) for r in rows]

    return {split: read(folder / f"{split}.tsv") for split in ("train", "dev", "test")}


def read_stsb(folder: Path) -> Splits:
    def read(split: str) -> List[Row]:
        with (folder / f"stsb-en-{split}.csv").open(encoding="utf8", newline="") as file:
            return [(f"{a}{SEPARATOR}{b}", {"SIMILARITY": float(score)}) for a, b, score in csv.reader(file)]

    return {**hold_out(read("train")), "test": read("dev")}


READERS: Dict[str, Callable[[Path], Splits]] = {
    "thucnews": read_thucnews,
    "trec6": read_trec6,
    "goemotions": read_goemotions,
    "stsb": read_stsb,
}


def hold_out(rows: List[Row]) -> Splits:
    """A tenth of a train split as dev, always the same."""
    rows = list(rows)
    random.Random(0).shuffle(rows)
    return {"dev": rows[: len(rows) // 10], "train": rows[len(rows) // 10 :]}


def train_row(
    config: str, overrides: Dict[str, Any], splits: Splits, folder: Path, args: argparse.Namespace, seed: int
) -> Tuple[Language, float]:
    """Train one row and load its best model. RETURNS (Tuple[Language, float]): That and the seconds of training."""
    output = folder / "training"
    loaded = load_config(CONFIGS / config, interpolate=False)
    set_values(loaded, overrides)
    settings = {
        "system.seed": seed,
        "training.patience": 0,
        "training.max_steps": 0,
        "training.eval_frequency": -(-len(splits["train"]) // loaded["training"]["batcher"]["size"]),
    }
    epochs = args.epochs or EPOCHS.get(args.dataset)
    if epochs:
        settings["training.max_epochs"] = epochs
    for split in ("train", "dev"):
        loaded["paths"][split] = str(folder / f"{split}.spacy")
    if "encoder" in loaded["paths"]:
        settings["components.transformer.model.precision"] = args.precision
    set_values(loaded, settings)
    blank = load_model_from_config(loaded, auto_fill=True)
    for split in ("train", "dev"):
        write_split(blank, splits[split], folder / f"{split}.spacy")
    nlp = init_nlp(loaded)
    output.mkdir()
    start = time.perf_counter()
    train(nlp, output)
    seconds = time.perf_counter() - start
    return spacy.load(output / "model-best"), seconds


def make_doc(nlp: Language, text: str, cats: Dict[str, float]) -> Doc:
    doc = nlp.make_doc(text)
    doc.cats = cats
    return doc


def write_split(nlp: Language, rows: List[Row], path: Path) -> None:
    DocBin(docs=[make_doc(nlp, text, cats) for text, cats in rows]).to_disk(path)


def predict(nlp: Language, rows: List[Row]) -> Tuple[numpy.ndarray, float]:
    """Numbers of every label, in the order of the rows' own, and Docs a second."""
    labels = list(rows[0][1])
    start = time.perf_counter()
    docs = list(nlp.pipe([text for text, _ in rows], batch_size=128))
    seconds = time.perf_counter() - start
    return numpy.array([[doc.cats[label] for label in labels] for doc in docs]), len(rows) / seconds


def gold(rows: List[Row]) -> numpy.ndarray:
    return numpy.array([list(cats.values()) for _, cats in rows])


def score(dataset: str, found: Dict[str, numpy.ndarray], splits: Splits) -> Dict[str, float]:
    """Figures of the test split, and as dev_... those of the dev split, where choices are made. In percent."""
    truth = {split: gold(splits[split]) for split in found}
    thresholds = tuned_thresholds(found["dev"], truth["dev"]) if dataset == "goemotions" else None
    dev, test = (score_split(dataset, found[split], truth[split], thresholds) for split in ("dev", "test"))
    return {**test, **{f"dev_{name}": value for name, value in dev.items()}}


def score_split(
    dataset: str, found: numpy.ndarray, truth: numpy.ndarray, thresholds: Optional[numpy.ndarray]
) -> Dict[str, float]:
    if dataset == "stsb":
        pairs = {"pearson": pearsonr, "spearman": spearmanr}
        return {name: 100 * float(correlate(found[:, 0], truth[:, 0])[0]) for name, correlate in pairs.items()}
    if dataset == "goemotions":
        return {
            f"macro_f1_{name}": 100 * float(f1_score(truth, found >= t, average="macro", zero_division=0))
            for name, t in (("tuned", thresholds), ("0.5", 0.5))
        }
    predicted, true = found.argmax(1), truth.argmax(1)
    return {
        "accuracy": 100 * float(accuracy_score(true, predicted)),
        "macro_f1": 100 * float(f1_score(true, predicted, average="macro")),
    }


def tuned_thresholds(probabilities: numpy.ndarray, truth: numpy.ndarray) -> numpy.ndarray:
    """For each label the threshold, in steps of 0.01, with the best F1 on dev."""
    grid = numpy.arange(0.01, 1.0, 0.01)
    columns = zip(probabilities.T, truth.T)
    return numpy.array([grid[numpy.argmax([f1_score(y, p >= t, zero_division=0) for t in grid])] for p, y in columns])


def count_parameters(nlp: Language) -> int:
    total = 0
    for _, component in nlp.pipeline:
        for node in component.model.walk() if hasattr(component, "model") else ():
            total += sum(node.get_param(name).size for name in node.param_names if node.has_param(name))
            total += sum(p.numel() for shim in node.shims for p in shim.module.parameters())
    return total


def run_row(
    name: str, config: str, overrides: Dict[str, Any], splits: Splits, args: argparse.Namespace, seed: int
) -> Dict[str, Any]:
    """Train, then predict dev and test. RETURNS (Dict[str, Any]): Figures, seconds, speed and parameters."""
    with tempfile.TemporaryDirectory() as folder:
        nlp, seconds = train_row(config, overrides, splits, Path(folder), args, seed)
        found = {split: predict(nlp, splits[split]) for split in ("dev", "test")}
    figures = score(args.dataset, {split: numbers for split, (numbers, _) in found.items()}, splits)
    speed = {"training_seconds": seconds, "docs_per_second": found["test"][1]}
    return {"seed": seed, **figures, **speed, "parameters": count_parameters(nlp)}


def run_dataset(args: argparse.Namespace, results: Dict[str, Any], save: Callable[[], None]) -> None:
    """Every row with every seed that is not in the results; each run is saved when it is done."""
    splits = READERS[args.dataset](data_folder(args, args.dataset))
    if args.limit:
        splits = {split: rows[: args.limit] for split, rows in splits.items()}
    given = {**({"epochs": args.epochs} if args.epochs else {}), **({"limit": args.limit} if args.limit else {})}
    given.update(args.set)
    others = OTHERS.get(args.dataset, {})
    for row in args.rows or [*ROWS[args.dataset], *others]:
        # Trials with other settings stand beside the row, not in its place
        name = ", ".join([row, *(f"{key}={value}" for key, value in given.items())])
        config, overrides = ROWS[args.dataset].get(row, ("", {}))
        entry = results.setdefault(name, {"config": config, "overrides": {**overrides, **args.set}, "runs": []})
        for seed in args.seeds or SEEDS:
            if any(run["seed"] == seed for run in entry["runs"]):
                continue
            if row in others:
                run = others[row](splits, args, seed)
            else:
                run = run_row(row, config, entry["overrides"], splits, args, seed)
            entry["runs"].append(run)
            numbers = [key for key in run if key != "seed" and all(key in other for other in entry["runs"])]
            entry["mean"] = {key: round(statistics.mean(run[key] for run in entry["runs"]), 2) for key in numbers}
            print(name, run)
            save()
            if not args.seeds and run["training_seconds"] > LONG:
                break


def linear_svm(splits: Splits, args: argparse.Namespace, seed: int) -> Dict[str, Any]:
    """scikit-learn's, on n-grams of 1 and 2 characters; like C, dev chose that."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    features = TfidfVectorizer(analyzer="char", ngram_range=(1, 2), sublinear_tf=True)
    model = make_pipeline(features, LinearSVC(C=1.0, random_state=seed))
    start = time.perf_counter()
    model.fit([text for text, _ in splits["train"]], gold(splits["train"]).argmax(1))
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    found = {split: model.decision_function([text for text, _ in splits[split]]) for split in ("dev", "test")}
    speed = (len(splits["dev"]) + len(splits["test"])) / (time.perf_counter() - start)
    figures = score("thucnews", found, splits)
    return {"seed": seed, **figures, "training_seconds": seconds, "docs_per_second": speed}


def hugging_face(splits: Splits, args: argparse.Namespace, seed: int) -> Dict[str, Any]:
    """Trainer and AutoModelForSequenceClassification, same encoder, epochs and batches."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments, set_seed

    from spacy_bert_heads.layers.encoder_module import resolve_source

    set_seed(seed)
    source = resolve_source(DEMO_ENCODER)
    tokenizer = AutoTokenizer.from_pretrained(source)
    labels = list(splits["train"][0][1])
    model = AutoModelForSequenceClassification.from_pretrained(
        source, num_labels=len(labels), problem_type="multi_label_classification"
    )
    data = {
        split: [{**tokenizer(text, truncation=True), "labels": list(cats.values())} for text, cats in rows]
        for split, rows in splits.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=args.epochs or EPOCHS["goemotions"],
            per_device_train_batch_size=BATCH_SIZE,
            learning_rate=1e-4,
            warmup_ratio=0.1,
            weight_decay=0.01,
            bf16=args.precision == "bf16",
            use_cpu=not torch.cuda.is_available(),
            save_strategy="no",
            report_to=[],
            seed=seed,
        )
        trainer = Trainer(model, arguments, train_dataset=data["train"], processing_class=tokenizer)
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
        logits = {split: torch.tensor(trainer.predict(data[split]).predictions) for split in ("dev", "test")}
    found = {split: numbers.sigmoid().numpy() for split, numbers in logits.items()}
    parameters = sum(p.numel() for p in model.parameters())
    return {"seed": seed, **score("goemotions", found, splits), "training_seconds": seconds, "parameters": parameters}


def run_cost(args: argparse.Namespace, results: Dict[str, Any], save: Callable[[], None]) -> None:
    """Docs a second and parameters of every head over MiniLM, untrained, on the questions of TREC: medians of rounds
    in which all have their turn, and of each round's ratio to the plain pooled head.
    """
    rows = read_trec6(data_folder(args, "trec6"))["train"][: args.limit or 2000]
    pipelines = {}
    for name, overrides in HEADS.items():
        if name not in ("pooler", *(args.rows or HEADS)):
            continue
        loaded = load_config(CONFIGS / "textcat.cfg", interpolate=False)
        set_values(loaded, {"components.transformer.model.precision": args.precision, **overrides})
        nlp = load_model_from_config(loaded, auto_fill=True)
        examples = [Example(nlp.make_doc(text), make_doc(nlp, text, cats)) for text, cats in rows[:50]]
        nlp.initialize(lambda examples=examples: examples)
        predict(nlp, rows[:200])
        pipelines[name] = nlp
    speeds = [{name: predict(nlp, rows)[1] for name, nlp in pipelines.items()} for _ in range(COST_ROUNDS)]
    for name, nlp in pipelines.items():
        results[name] = {
            "docs_per_second": round(statistics.median(each[name] for each in speeds), 1),
            "of_pooler": round(statistics.median(each[name] / each["pooler"] for each in speeds), 3),
            "parameters": count_parameters(nlp),
        }
        print(name, results[name])
    save()


# What is no config of ours, by data set
OTHERS: Dict[str, Dict[str, Callable[[Splits, argparse.Namespace, int], Dict[str, Any]]]] = {
    "thucnews": {"TF-IDF, linear SVM": linear_svm},
    "goemotions": {"Hugging Face Trainer": hugging_face},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=(*READERS, "cost"))
    add_common_arguments(parser, "text_heads.json")
    parser.add_argument("--rows", nargs="+", help="Names of rows; default: all")
    parser.add_argument("--epochs", type=int, help=f"Default: {EPOCHS}")
    parser.add_argument(
        "--seeds", type=int, nargs="+", help=f"Default: {SEEDS}, but the first alone if it took over {LONG} seconds"
    )
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--limit", type=int, help="Texts of each split at most, to try the script")
    parser.add_argument(
        "--set", type=parse_setting, nargs="+", default=[], help="Settings, such as training.dropout=0.3"
    )
    args = parser.parse_args()
    args.set = dict(args.set)
    known = [*ROWS.get(args.dataset, {}), *OTHERS.get(args.dataset, {})] if args.dataset != "cost" else [*HEADS]
    unknown = [row for row in args.rows or () if row not in known]
    if unknown:
        raise SystemExit(f"No row {unknown[0]!r}; there are {', '.join(known)}")
    contents = json.loads(args.output.read_text(encoding="utf8")) if args.output.is_file() else {}
    contents.pop("environment", None)
    results = contents.setdefault(args.dataset, {})
    contents["published"] = PUBLISHED

    def save() -> None:
        write_result(args.output, contents)

    if args.dataset == "cost":
        run_cost(args, results, save)
    else:
        run_dataset(args, results, save)


if __name__ == "__main__":
    main()
