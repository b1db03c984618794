"""Text heads beside each other: trains configs of this repository, chooses on dev, scores test once per seed.

    python benchmarks/text_heads.py --data FOLDER thucnews|trec6|goemotions|stsb|cost [--rows NAME ...] [--seeds 0 1 2]

thucnews: titles in Chinese, networks with no BERT, a BERT from scratch, and scikit-learn's TF-IDF with a linear SVM.
trec6: questions, heads over MiniLM; a tenth of the train split is dev. goemotions: several labels, thresholds tuned on
dev, beside Hugging Face's Trainer with the same encoder. stsb: similarity of two sentences, regression; scored on dev,
which here is held out: the best checkpoint is chosen on a tenth of train. cost: what each head adds to the pooled one.
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
from typing import Any, Callable, Dict, List, Sequence, Tuple

import numpy
import spacy
from environment import add_common_arguments, data_folder, write_result
from runs import BATCH_SIZE, CONFIGS
from sklearn.metrics import accuracy_score, f1_score
from spacy.language import Language
from spacy.tokens import Doc, DocBin
from spacy.training import Example
from spacy.training.initialize import init_nlp
from spacy.training.loop import train
from spacy.util import load_config, load_model_from_config
from thinc.api import Config

from spacy_bert_heads.project import DEMO_ENCODER

Row = Tuple[str, Dict[str, float]]
Splits = Dict[str, List[Row]]
# The tokenizers of BERT read it as the token it is
SEPARATOR = " [SEP] "
SCRATCH_SIZES = {"components.transformer.model.vocab_size": 6000}


def over_minilm(name: str, sizes: Dict[str, Any]) -> Dict[str, Any]:
    """Overrides of configs/textcat.cfg: a network over token vectors in place of the pooled head."""
    listener = {"@architectures": "spacy_bert_heads.TokenListener.v1"}
    model = {"@architectures": f"spacy_bert_heads.{name}.v1", "exclusive_classes": True, "tok2vec": listener, **sizes}
    return {"components.bert_textcat.model": model}


def pooled(pooling: str, **settings: Any) -> Dict[str, Any]:
    return {"components.bert_textcat.model.tok2vec.pooling": pooling, **settings}


LAYERS = {"components.transformer.model.hidden_states": True, "components.bert_textcat.model.tok2vec.layer_mix": True}
HEADS: Dict[str, Dict[str, Any]] = {
    "pooler": {},
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
        "transformer": ("textcat_zh.cfg", SCRATCH_SIZES),
    },
    "trec6": {name: ("textcat.cfg", overrides) for name, overrides in HEADS.items()},
    "goemotions": {"pooler": ("textcat_multilabel.cfg", {})},
    "stsb": {"pooler": ("text_heads/regression.cfg", {})},
}
EPOCHS = {"thucnews": 10, "trec6": 10, "goemotions": 4, "stsb": 6}


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
    n_train, output = len(splits["train"]), folder / "training"
    steps = -(-n_train // BATCH_SIZE)
    settings = {
        "system.seed": seed,
        "training.max_epochs": args.epochs or EPOCHS[args.dataset],
        "training.patience": 0,
        "training.max_steps": 0,
        "training.eval_frequency": steps,
        "training.batcher.size": BATCH_SIZE,
    }
    loaded = load_config(CONFIGS / config, interpolate=False)
    for split in ("train", "dev"):
        loaded["paths"][split] = str(folder / f"{split}.spacy")
    if "encoder" in loaded["paths"]:
        settings["components.transformer.model.precision"] = args.precision
    override(loaded, {**settings, **overrides})
    blank = load_model_from_config(loaded, auto_fill=True)
    for split in ("train", "dev"):
        write_split(blank, splits[split], folder / f"{split}.spacy")
    nlp = init_nlp(loaded)
    output.mkdir()
    start = time.perf_counter()
    train(nlp, output)
    seconds = time.perf_counter() - start
    return spacy.load(output / "model-best"), seconds


def override(config: Config, settings: Dict[str, Any]) -> None:
    """Set values by their names with dots, whole blocks among them."""
    for name, value in settings.items():
        *path, key = name.split(".")
        block: Any = config
        for part in path:
            block = block[part]
        block[key] = value


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
    """Figures of the test split; dev serves to tune thresholds. In percent."""
    truth = gold(splits["test"])
    if dataset == "stsb":
        pearson = float(numpy.corrcoef(found["test"][:, 0], truth[:, 0])[0, 1])
        return {"pearson": 100 * pearson}
    if dataset == "goemotions":
        thresholds = tuned_thresholds(found["dev"], gold(splits["dev"]))
        macro = {"tuned": thresholds, "0.5": 0.5}
        return {
            f"macro_f1_{name}": 100 * float(f1_score(truth, found["test"] >= t, average="macro", zero_division=0))
            for name, t in macro.items()
        }
    predicted, true = found["test"].argmax(1), truth.argmax(1)
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
        for node in component.model.walk():  # type: ignore[attr-defined]
            total += sum(node.get_param(name).size for name in node.param_names if node.has_param(name))
            total += sum(p.numel() for shim in node.shims for p in shim.module.parameters())
    return total


def run_dataset(args: argparse.Namespace) -> Dict[str, Any]:
    splits = READERS[args.dataset](data_folder(args, args.dataset))
    if args.limit:
        splits = {split: rows[: args.limit] for split, rows in splits.items()}
    results: Dict[str, Any] = {}
    for name, (config, overrides) in ROWS[args.dataset].items():
        if args.rows and name not in args.rows:
            continue
        runs = []
        for seed in args.seeds:
            with tempfile.TemporaryDirectory() as folder:
                nlp, seconds = train_row(config, overrides, splits, Path(folder), args, seed)
                found = {split: predict(nlp, splits[split]) for split in ("dev", "test")}
            figures = score(args.dataset, {split: numbers for split, (numbers, _) in found.items()}, splits)
            speed = {"training_seconds": seconds, "docs_per_second": found["test"][1]}
            runs.append({"seed": seed, **figures, **speed, "parameters": count_parameters(nlp)})
            print(name, runs[-1])
        mean = {key: round(statistics.mean(run[key] for run in runs), 2) for key in runs[0] if key != "seed"}
        results[name] = {"config": config, "overrides": overrides, "mean": mean, "runs": runs}
    if args.dataset == "thucnews":
        results["TF-IDF, linear SVM"] = linear_svm(splits)
    if args.dataset == "goemotions":
        results["Hugging Face Trainer"] = [hugging_face(splits, args, seed) for seed in args.seeds]
    return results


def linear_svm(splits: Splits) -> Dict[str, float]:
    """scikit-learn's, on n-grams of 1 to 3 characters."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    model = make_pipeline(TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True), LinearSVC(C=0.5))
    start = time.perf_counter()
    model.fit([text for text, _ in splits["train"]], gold(splits["train"]).argmax(1))
    seconds = time.perf_counter() - start
    accuracy = model.score([text for text, _ in splits["test"]], gold(splits["test"]).argmax(1))
    return {"accuracy": 100 * float(accuracy), "training_seconds": seconds}


def hugging_face(splits: Splits, args: argparse.Namespace, seed: int) -> Dict[str, Any]:
    """Trainer and AutoModelForSequenceClassification, same encoder, epochs and batches. Needs accelerate."""
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
        split: [
            {**tokenizer(text, truncation=True), "labels": torch.tensor(list(cats.values()))} for text, cats in rows
        ]
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
    return {"seed": seed, **score("goemotions", found, splits), "training_seconds": seconds}


def run_cost(args: argparse.Namespace) -> Dict[str, Any]:
    """Docs a second and parameters of every head over MiniLM, untrained, on the questions of TREC."""
    rows = read_trec6(data_folder(args, "trec6"))["train"][: args.limit or 2000]
    results = {}
    for name, overrides in HEADS.items():
        loaded = load_config(CONFIGS / "textcat.cfg", interpolate=False)
        override(loaded, {"components.transformer.model.precision": args.precision, **overrides})
        nlp = load_model_from_config(loaded, auto_fill=True)
        examples = [Example(nlp.make_doc(text), make_doc(nlp, text, cats)) for text, cats in rows[:50]]
        nlp.initialize(lambda examples=examples: examples)
        predict(nlp, rows[:200])
        speeds = [predict(nlp, rows)[1] for _ in range(3)]
        results[name] = {"docs_per_second": round(max(speeds), 1), "parameters": count_parameters(nlp)}
        print(name, results[name])
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=(*READERS, "cost"))
    add_common_arguments(parser, "text_heads.json")
    parser.add_argument("--rows", nargs="+", help="Names of rows; default: all")
    parser.add_argument("--epochs", type=int, help=f"Default: {EPOCHS}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--limit", type=int, help="Texts of each split at most, to try the script")
    args = parser.parse_args()
    results = run_cost(args) if args.dataset == "cost" else run_dataset(args)
    before = json.loads(args.output.read_text(encoding="utf8")) if args.output.is_file() else {}
    before.pop("environment", None)
    write_result(args.output, {**before, args.dataset: {**before.get(args.dataset, {}), **results}})


if __name__ == "__main__":
    main()
