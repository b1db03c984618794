"""What bert_ner learns from gaps, and whether its confidence can be believed.

    python benchmarks/ner_learning.py --data FOLDER [--epochs 6] [--precision fp32] [--seed 0]

1. SNIPS slots, three trainings of configs/ner.cfg: all labels; half of the tokens turned to missing at random, which
   the constrained CRF takes as partial labels; the same half taken as `O`. F1 on test, the best epoch chosen on dev.
2. Calibration of span._.confidence on the test splits of SNIPS (the pipeline with all labels) and of WNUT-17 (trained
   here as well): reliability in ten bins of equal width, and the expected calibration error
       ECE = sum over bins of (predictions in the bin / all predictions) * |accuracy - mean confidence|
   (Guo et al. 2017, On Calibration of Modern Neural Networks, equation 3). An entity counts as right if its borders
   and its label are.

FOLDER/snips is as for benchmarks/snips.py; FOLDER/wnut17 holds the three files of leondz/emerging_entities_17.
Beside the JSON a reliability diagram is written, if matplotlib is installed.
"""

import argparse
import random
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Sequence, Tuple

import spacy
from environment import add_common_arguments, data_folder, write_result
from runs import SPLITS, predict, read_snips, train_pipeline
from spacy.scorer import Scorer
from spacy.tokens import Doc, DocBin, Span
from spacy.training import iob_utils
from spacy.vocab import Vocab

from spacy_bert_heads.evaluation.calibration import calibration_report, entity_outcomes

Sentence = Tuple[List[str], List[str]]  # words, BIO tags

WNUT_FILES = {"train": "wnut17train.conll", "dev": "emerging.dev.conll", "test": "emerging.test.annotated"}
MISSING = 0.5


def read_wnut(path: Path) -> Iterator[Sentence]:
    """Words and tags of each sentence. A line between sentences is empty or holds a tab."""
    words: List[str] = []
    tags: List[str] = []
    for number, line in enumerate([*path.read_text(encoding="utf8").split("\n"), ""], start=1):
        if not line.strip("\t\r"):
            if words:
                yield words, tags
            words, tags = [], []
            continue
        fields = line.rstrip("\r").split("\t")
        if len(fields) != 2:
            raise SystemExit(f"{path}, line {number}: expected 2 columns, found {len(fields)}: {line!r}")
        words.append(fields[0])
        tags.append(fields[1])


def make_doc(vocab: Vocab, sentence: Sentence) -> Doc:
    """A Doc with all of its entities."""
    words, tags = sentence
    doc = Doc(vocab, words=words)
    doc.set_ents(iob_utils.biluo_tags_to_spans(doc, iob_utils.iob_to_biluo(tags)), default="outside")
    return doc


def choose_missing(doc: Doc, chooser: random.Random) -> List[Span]:
    """Spans to turn to missing: each entity as a whole, and each token outside, with the same chance, which makes
    half of the tokens. (A Doc cannot hold half an entity.)
    """
    outside = [doc[token.i : token.i + 1] for token in doc if token.ent_iob_ == "O"]
    return [span for span in [*doc.ents, *outside] if chooser.random() < MISSING]


def without(doc: Doc, chosen: Sequence[Span], *, as_outside: bool) -> Doc:
    """A copy of a Doc in which nobody annotated some spans, or somebody annotated them as `O`."""
    gone = {(span.start, span.end) for span in chosen}
    copy = doc.copy()
    kept = [ent for ent in doc.ents if (ent.start, ent.end) not in gone]
    ents = [Span(copy, ent.start, ent.end, label=ent.label) for ent in kept]
    missing = [] if as_outside else [copy[start:end] for start, end in gone]
    copy.set_ents(ents, missing=missing, default="outside")
    return copy


def write_docs(docs: Iterable[Doc], path: Path) -> int:
    """RETURNS (int): The number of Docs written."""
    docbin = DocBin(docs=docs)
    docbin.to_disk(path)
    return len(docbin)


def evaluate(pipeline: Path, corpus: Path) -> Dict[str, Any]:
    """Scores and calibration of a pipeline on one split."""
    nlp = spacy.load(pipeline)
    examples = predict(nlp, corpus)
    scores = Scorer(nlp).score(examples)
    return {
        **{name: round(100 * scores[name], 2) for name in ("ents_p", "ents_r", "ents_f")},
        "calibration": calibration_report(*entity_outcomes(examples)),
    }


def train_and_score(args: argparse.Namespace, folder: Path, name: str, train: Path, n_train: int) -> Dict[str, Any]:
    """One training on the dev and test split in `folder`."""
    output = folder / f"pipeline-{name}"
    figures = train_pipeline(
        "ner.cfg",
        train,
        folder / "dev.spacy",
        n_train,
        output,
        epochs=args.epochs,
        precision=args.precision,
        seed=args.seed,
    )
    test = evaluate(output / "model-best", folder / "test.spacy")
    print(name, {key: value for key, value in test.items() if key != "calibration"}, figures)
    return {**figures, "test": test}


def run_snips(args: argparse.Namespace, data: Path, folder: Path) -> Dict[str, Any]:
    """Three trainings on SNIPS slots."""
    folder.mkdir()
    vocab = Vocab()
    sentences = {
        split: [(words, tags) for words, tags, _ in read_snips(data / split)][: args.limit] for split in SPLITS
    }
    for split in ("dev", "test"):
        write_docs((make_doc(vocab, sentence) for sentence in sentences[split]), folder / f"{split}.spacy")
    docs = [make_doc(vocab, sentence) for sentence in sentences["train"]]
    chooser = random.Random(args.seed)
    chosen = [choose_missing(doc, chooser) for doc in docs]
    versions = {
        "full labels": docs,
        "missing as partial labels": [without(doc, gone, as_outside=False) for doc, gone in zip(docs, chosen)],
        "missing as O": [without(doc, gone, as_outside=True) for doc, gone in zip(docs, chosen)],
    }
    n_missing = sum(len(span) for spans in chosen for span in spans)
    result: Dict[str, Any] = {"docs": {split: len(found) for split, found in sentences.items()}}
    result["missing_tokens"] = round(n_missing / sum(len(doc) for doc in docs), 4)
    for name, version in versions.items():
        path = folder / f"{name.replace(' ', '-')}.spacy"
        result[name] = train_and_score(args, folder, path.stem, path, write_docs(version, path))
    full = result["full labels"]["test"]["ents_f"]
    result["lost_f1"] = {name: round(full - result[name]["test"]["ents_f"], 2) for name in list(versions)[1:]}
    print("F1 lost against full labels:", result["lost_f1"])
    return result


def run_wnut(args: argparse.Namespace, data: Path, folder: Path) -> Dict[str, Any]:
    """One training on WNUT-17."""
    folder.mkdir()
    vocab, counts = Vocab(), {}
    for split, name in WNUT_FILES.items():
        sentences = list(read_wnut(data / name))[: args.limit]
        counts[split] = write_docs((make_doc(vocab, sentence) for sentence in sentences), folder / f"{split}.spacy")
    return {"docs": counts, **train_and_score(args, folder, "wnut17", folder / "train.spacy", counts["train"])}


def draw(reports: Dict[str, Dict[str, Any]], path: Path) -> None:
    """Write a reliability diagram, if matplotlib is installed."""
    try:
        from matplotlib import pyplot
    except ImportError:
        print("matplotlib is not installed: no reliability diagram")
        return
    figure, axes = pyplot.subplots(1, len(reports), figsize=(4.5 * len(reports), 4.2), squeeze=False)
    for axis, (name, report) in zip(axes[0], reports.items()):
        axis.plot([0, 1], [0, 1], linestyle="--", color="grey")
        for b in report["bins"]:
            axis.bar(b["low"], b["accuracy"], b["high"] - b["low"], align="edge", edgecolor="white", color="#4878a8")
            axis.annotate(str(b["predictions"]), (b["low"] + 0.01, 0.02), fontsize=7, color="white")
        error = report["expected_calibration_error"]
        axis.set_title(f"{name}: ECE {'-' if error is None else f'{error:.3f}'}, {report['predictions']} entities")
        axis.set(xlabel="span._.confidence", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    print(f"Wrote {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser, "ner_learning.json")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, default=None, help="Sentences of each split, to try the script")
    args = parser.parse_args()
    snips, wnut = data_folder(args, "snips"), data_folder(args, "wnut17")
    with tempfile.TemporaryDirectory() as name:
        result = {
            "snips": run_snips(args, snips, Path(name) / "snips"),
            "wnut17": run_wnut(args, wnut, Path(name) / "wnut17"),
        }
    reports = {
        "SNIPS test": result["snips"]["full labels"]["test"]["calibration"],
        "WNUT-17 test": result["wnut17"]["test"]["calibration"],
    }
    for title, report in reports.items():
        print(f"{title}: expected calibration error {report['expected_calibration_error']}")
        line = "  {low:.1f}-{high:.1f}  {predictions:5d} entities  confidence {confidence:.3f}  right {accuracy:.3f}"
        for b in report["bins"]:
            print(line.format(**b))
    settings = {"epochs": args.epochs, "precision": args.precision, "seed": args.seed, "limit": args.limit}
    write_result(args.output, {**settings, **result})
    draw(reports, args.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
