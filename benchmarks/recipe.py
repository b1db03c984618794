"""What each part of the recipe is worth: BiLSTM, CRF, rates of the heads, one norm for all gradients, layer decay.

    python benchmarks/recipe.py --data FOLDER [--sets snips wnut17 resume_ner] [--parts ...] [--seeds 0 1 2]
                                [--set components.bert_ner.model.scheme=bmes ...] [--limit N]

Trains the configs of this repository with one part changed at a time, chooses the checkpoint on dev, and scores test
once per seed: mean and standard deviation over the seeds, examples per second (evaluation on dev included) and peak
memory, each training in a process of its own. --set changes any setting of the config beside the part. What is in the
result already is not trained again, so a run that was interrupted goes on.

snips: configs/joint.cfg, MiniLM-L6. wnut17: configs/ner.cfg, MiniLM-L6. resume_ner: configs/ner_zh.cfg, characters,
from scratch. FOLDER/snips and FOLDER/wnut17 are as for benchmarks/ner_learning.py; FOLDER/resume_ner holds
{train,dev,test}.char.bmes of jiesutd/LatticeLSTM.
"""

import argparse
import json
import resource
import statistics
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

import snips
import spacy
from environment import add_common_arguments, data_folder, write_result
from ner_learning import WNUT_FILES, make_doc, read_wnut, write_docs
from runs import SPLITS, parse_setting, predict, set_values, train_pipeline
from spacy.scorer import Scorer
from spacy.tokens import Doc, DocBin, Span
from spacy.vocab import Vocab
from thinc.api import Config

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
    "resume_ner": DataSet("ner_zh.cfg", 15, convert_resume, score_entities),
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
        if "lr_scale" in component.get("model", {}):
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


def add_word_shapes(config: Config) -> None:
    """MiniLM reads everything in lower case; what that loses, beside its vectors."""
    config["components"]["bert_ner"]["model"]["features"] = {
        "@architectures": "spacy.MultiHashEmbed.v2",
        "width": 64,
        "attrs": ["SHAPE", "SUFFIX", "PREFIX"],
        "rows": [2000, 2000, 1000],
        "include_static_vectors": False,
    }
    config["training"]["optimizer"]["head_rate"] = 2e-3


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
    "word shapes": add_word_shapes,
}


def cut(corpus: Path, limit: Optional[int]) -> int:
    """Keep the first Docs of a corpus. RETURNS (int): How many there are."""
    docs = list(islice(DocBin().from_disk(corpus).get_docs(Vocab()), limit))
    DocBin(docs=docs).to_disk(corpus)
    return len(docs)


def run(job: Dict[str, Any], precision: str, corpora: Path, n_train: int, output: Path) -> Dict[str, Any]:
    """One training and its scores. job: "set", "part", "settings", "seed", "epochs"; see main."""
    data_set = DATA_SETS[job["set"]]

    def change(config: Config) -> None:
        PARTS[job["part"]](config)
        set_values(config, job["settings"])

    figures = train_pipeline(
        data_set.config,
        corpora / "train.spacy",
        corpora / "dev.spacy",
        n_train,
        output,
        epochs=job["epochs"],
        precision=precision,
        seed=job["seed"],
        change=change,
    )
    # Kilobytes on Linux, bytes on macOS
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return {
        **job,
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
    parser.add_argument("--set", nargs="+", type=parse_setting, default=[], metavar="NAME=VALUE", dest="settings")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="Default: 6 for snips, 9 for wnut17, 15 for resume_ner")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--limit", type=int, help="Texts of each split, to try the script")
    args = parser.parse_args()
    runs = read_runs(args.output, args.precision)
    for name in args.sets:
        with tempfile.TemporaryDirectory() as folder:
            corpora = Path(folder)
            counts = DATA_SETS[name].convert(data_folder(args, name), corpora)
            counts = {split: cut(corpora / f"{split}.spacy", args.limit) for split in counts}
            for number, job in enumerate(jobs(name, counts, args)):
                if any(job.items() <= found.items() for found in runs):
                    continue
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                    arguments = (job, args.precision, corpora, counts["train"], corpora / f"pipeline-{number}")
                    runs.append(pool.submit(run, *arguments).result())
                table = summarise(runs)
                print(json.dumps(next(row for row in table if row["runs"][-1] == len(runs) - 1)), flush=True)
                write_result(args.output, {"precision": args.precision, "table": table, "runs": runs})


def jobs(name: str, counts: Dict[str, int], args: argparse.Namespace) -> List[Dict[str, Any]]:
    """What is to be trained on one data set."""
    epochs = args.epochs or DATA_SETS[name].epochs
    common = {"set": name, "docs": counts, "settings": dict(args.settings), "epochs": epochs}
    return [{**common, "part": part, "seed": seed} for part in args.parts for seed in args.seeds]


def read_runs(path: Path, precision: str) -> List[Dict[str, Any]]:
    """What an earlier run has finished."""
    if not path.exists():
        return []
    result = json.loads(path.read_text(encoding="utf8"))
    if result["precision"] != precision:
        raise SystemExit(f"{path} has figures in {result['precision']}. Name another file with --output.")
    found: List[Dict[str, Any]] = result["runs"]
    return found


def summarise(runs: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """For all that differs only in the seed: mean and standard deviation of the test scores, the mean of the dev score
    that chose the checkpoint, means of speed and memory, and which runs they are.
    """
    groups: Dict[str, List[int]] = {}
    for number, found in enumerate(runs):
        key = json.dumps([found[name] for name in ("set", "part", "settings", "epochs", "docs")])
        groups.setdefault(key, []).append(number)
    table = []
    for numbers in groups.values():
        same = [runs[number] for number in numbers]
        row: Dict[str, Any] = {name: same[0][name] for name in ("set", "part", "settings", "epochs")}
        for split in ("dev", "test"):
            for score in same[0][split]:
                row[f"{split} {score}"] = mean_and_deviation([found[split][score] for found in same])
        for figure in ("training_examples_per_second", "peak_memory_mb"):
            row[figure] = round(statistics.mean(found[figure] for found in same))
        table.append({**row, "runs": numbers})
    return table


def mean_and_deviation(values: List[float]) -> str:
    """For a table."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.2f} ± {spread:.2f}"


if __name__ == "__main__":
    main()
