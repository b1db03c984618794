"""What each part of the recipe is worth: BiLSTM, CRF, rates of the heads, one norm for all gradients, layer decay.

    python benchmarks/recipe.py --data FOLDER [--sets snips wnut17 resume_ner] [--parts ...] [--seeds 0 1 2]

Trains the configs of this repository with one part changed at a time, chooses the checkpoint on dev, and scores test
once per seed: mean and standard deviation over the seeds, examples per second (evaluation on dev included) and peak
memory, each training in a process of its own.

snips: configs/joint.cfg, MiniLM-L6. wnut17: configs/ner.cfg, MiniLM-L6. resume_ner: configs/ner_zh.cfg, characters,
from scratch. FOLDER/snips and FOLDER/wnut17 are as for benchmarks/ner_learning.py; FOLDER/resume_ner holds
{train,dev,test}.char.bmes of jiesutd/LatticeLSTM.
"""

import argparse
import resource
import statistics
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Tuple

import snips
import spacy
from environment import add_common_arguments, data_folder, write_result
from ner_learning import WNUT_FILES, make_doc, read_wnut, write_docs
from spacy.scorer import Scorer
from spacy.tokens import Doc, DocBin, Span
from spacy.vocab import Vocab
from thinc.api import Config
from training import SPLITS, predict, train_pipeline

from spacy_bert_heads.tags import TagScheme


class DataSet(NamedTuple):
    """One data set of the table.

    config (str): File in configs/.
    epochs (int): Times over the train split.
    convert (Callable[[Path, Path], Dict[str, int]]): Writes train.spacy, dev.spacy and test.spacy and counts them.
    score (Callable[[Path, Path], Dict[str, float]]): Scores a pipeline on a corpus, in percent.
    """

    config: str
    epochs: int
    convert: Callable[[Path, Path], Dict[str, int]]
    score: Callable[[Path, Path], Dict[str, float]]


def convert_wnut(data: Path, output: Path) -> Dict[str, int]:
    """WNUT-17 as `.spacy` files."""
    vocab = Vocab()
    return {
        split: write_docs(
            (make_doc(vocab, sentence) for sentence in read_wnut(data / name)), output / f"{split}.spacy"
        )
        for split, name in WNUT_FILES.items()
    }


def convert_resume(data: Path, output: Path) -> Dict[str, int]:
    """ResumeNER as `.spacy` files, one token a character."""
    vocab = Vocab()
    sentences = {split: list(read_bmes(data / f"{split}.char.bmes")) for split in SPLITS}
    found = {tag[2:] for split in SPLITS for _, tags in sentences[split] for tag in tags if tag != "O"}
    scheme = TagScheme("bmes", sorted(found))
    for split in SPLITS:
        docs = DocBin()
        for characters, tags in sentences[split]:
            doc = Doc(vocab, words=characters, spaces=[False] * len(characters))
            # Not spaCy's reader: an M- without its B- stands in the train split
            spans = scheme.spans_from_tags(scheme.numbers(tags))
            doc.set_ents([Span(doc, *span) for span in spans], default="outside")
            docs.add(doc)
        docs.to_disk(output / f"{split}.spacy")
    return {split: len(sentences[split]) for split in SPLITS}


def read_bmes(path: Path) -> Iterator[Tuple[List[str], List[str]]]:
    """Characters and tags of each sentence."""
    for number, block in enumerate(path.read_text(encoding="utf8").split("\n\n"), start=1):
        rows = [line.split(" ") for line in block.split("\n") if line]
        if any(len(row) != 2 for row in rows):
            raise SystemExit(f"{path}, sentence {number}: expected a character and a tag on each line")
        if rows:
            yield [row[0] for row in rows], [row[1] for row in rows]


def score_entities(pipeline: Path, corpus: Path) -> Dict[str, float]:
    """Entity F1 in percent."""
    nlp = spacy.load(pipeline)
    scores = Scorer(nlp).score(predict(nlp, corpus))
    return {name: 100 * scores[name] for name in ("ents_f", "ents_p", "ents_r")}


DATA_SETS: Dict[str, DataSet] = {
    "snips": DataSet("joint.cfg", 6, snips.convert, snips.score),
    "wnut17": DataSet("ner.cfg", 9, convert_wnut, score_entities),
    "resume_ner": DataSet("ner_zh.cfg", 30, convert_resume, score_entities),
}


def change_model(**settings: Any) -> Callable[[Config], None]:
    """Sets what bert_ner's model has to say."""
    return lambda config: config["components"]["bert_ner"]["model"].update(settings)


def change_optimizer(**settings: Any) -> Callable[[Config], None]:
    """Sets what AdamW.v1 has to say."""
    return lambda config: config["training"]["optimizer"].update(settings)


def use_encoders_rate(config: Config) -> None:
    """Heads that learn as slowly as the encoder."""
    for component in config["components"].values():
        if "lr_scale" in component["model"]:
            component["model"]["lr_scale"] = 1.0


def use_thincs_adam(config: Config) -> None:
    """Gradients clipped tensor by tensor, weight decay everywhere; rates, warm-up and decay as before."""
    ours = config["training"]["optimizer"]
    rate = {
        "@schedules": "warmup_linear.v1",
        "initial_rate": ours["learn_rate"],
        "warmup_steps": round(ours["warmup"] * ours["total_steps"]),
        "total_steps": ours["total_steps"],
    }
    adam = {"@optimizers": "Adam.v1", "L2": ours["weight_decay"], "grad_clip": 1.0, "use_averages": False}
    config["training"]["optimizer"] = {**adam, "learn_rate": rate}


# What each part changes in the config
PARTS: Dict[str, Callable[[Config], None]] = {
    "whole recipe": change_optimizer(),
    "no BiLSTM": change_model(lstm_width=None),
    "no CRF": change_model(crf=None),
    "heads at the encoder's rate": use_encoders_rate,
    "thinc's Adam": use_thincs_adam,
    "no warm-up": change_optimizer(warmup=0.0),
    "cosine": change_optimizer(decay="cosine"),
    "layer decay 0.9": change_optimizer(layer_decay=0.9),
}


def run(name: str, part: str, seed: int, precision: str, corpora: Path, n_train: int, output: Path) -> Dict[str, Any]:
    """One training and its scores."""
    data_set = DATA_SETS[name]
    figures = train_pipeline(
        data_set.config,
        corpora / "train.spacy",
        corpora / "dev.spacy",
        n_train,
        output,
        epochs=data_set.epochs,
        precision=precision,
        seed=seed,
        change=PARTS[part],
    )
    # Kilobytes on Linux, bytes on macOS
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return {
        "set": name,
        "part": part,
        "seed": seed,
        **figures,
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit),
        "dev": data_set.score(output / "model-best", corpora / "dev.spacy"),
        "test": data_set.score(output / "model-best", corpora / "test.spacy"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser, "recipe.json")
    parser.add_argument("--sets", nargs="+", choices=DATA_SETS, default=list(DATA_SETS))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--precision", default="bf16")
    args = parser.parse_args()
    runs: List[Dict[str, Any]] = []
    table: List[Dict[str, Any]] = []
    for name in args.sets:
        with tempfile.TemporaryDirectory() as folder:
            counts = DATA_SETS[name].convert(data_folder(args, name), Path(folder))
            for part in args.parts:
                found = []
                for seed in args.seeds:
                    output = Path(folder) / f"{part}-{seed}"
                    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                        arguments = (name, part, seed, args.precision, Path(folder), counts["train"], output)
                        found.append(pool.submit(run, *arguments).result())
                runs += found
                table.append({"set": name, "part": part, **summarise(found)})
                print(table[-1], flush=True)
                write_result(args.output, {"precision": args.precision, "table": table, "runs": runs})


def summarise(runs: List[Dict[str, Any]]) -> Dict[str, str]:
    """Mean and standard deviation of the test scores, means of speed and memory."""
    summary = {}
    for score in runs[0]["test"]:
        values = [found["test"][score] for found in runs]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        summary[score] = f"{statistics.mean(values):.2f} ± {spread:.2f}"
    for figure in ("training_examples_per_second", "peak_memory_mb"):
        summary[figure] = f"{statistics.mean(found[figure] for found in runs):.0f}"
    return summary


if __name__ == "__main__":
    main()
