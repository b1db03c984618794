"""seq2seq_ner against bert_ner on SNIPS slots: the same encoder and texts, each with the config of this repository.

    python benchmarks/seq2seq.py HEAD --data FOLDER [--train 1000] [--epochs 10] [--seed 0]

Each head, bert_ner and seq2seq_ner, and each seed adds its figures to the JSON file: F1 on test by spaCy's scorer,
seconds of training, and texts per second of the processor's time, of seq2seq_ner with beams of several widths. The
expected calibration error of the confidences is that of bins of equal width. FOLDER/snips is as for
benchmarks/snips.py.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List

import spacy
from environment import add_common_arguments, data_folder, write_result
from runs import predict, train_pipeline
from spacy.scorer import Scorer
from spacy.training import Example
from spans import write_snips

from spacy_bert_heads.evaluation.calibration import calibration_report

CONFIGS = {"bert_ner": "ner.cfg", "seq2seq_ner": "seq2seq.cfg"}
BEAMS = (1, 2, 4, 8)


def measure(nlp: Any, corpus: Path) -> Dict[str, Any]:
    """F1, texts per second of the processor's time, and how far confidences are off."""
    predict(nlp, corpus)  # what is slow only once
    start = time.process_time()
    examples = predict(nlp, corpus)
    seconds = time.process_time() - start
    scores = Scorer(nlp).score(examples)
    return {
        "f1": round(100 * scores["ents_f"], 2),
        "precision": round(100 * scores["ents_p"], 2),
        "recall": round(100 * scores["ents_r"], 2),
        "texts_per_second": round(len(examples) / seconds, 1),
        "expected_calibration_error": calibration(examples),
    }


def calibration(examples: List[Example]) -> float:
    """Expected calibration error of the entities' confidences."""
    confidences, correct = [], []
    for eg in examples:
        gold = {(ent.start_char, ent.end_char, ent.label_) for ent in eg.reference.ents}
        for ent in eg.predicted.ents:
            confidences.append(ent._.confidence)
            correct.append((ent.start_char, ent.end_char, ent.label_) in gold)
    return float(calibration_report(confidences, correct)["expected_calibration_error"])


def run(args: argparse.Namespace, data: Path, folder: Path) -> Dict[str, Any]:
    """Train one head and measure it."""
    counts = write_snips(data, folder, args.train, args.dev, args.test, args.seed)
    output = folder / args.head
    training = train_pipeline(
        CONFIGS[args.head],
        folder / "train.spacy",
        folder / "dev.spacy",
        counts["train"],
        output,
        epochs=args.epochs,
        precision="fp32",
        seed=args.seed,
    )
    nlp = spacy.load(output / "model-best")
    result: Dict[str, Any] = {"texts": counts, "epochs": args.epochs, **training}
    if args.head == "bert_ner":
        return {**result, **measure(nlp, folder / "test.spacy")}
    for width in BEAMS:
        nlp.get_pipe(args.head).beam_width = width  # type: ignore[attr-defined]
        result[f"beam_width {width}"] = measure(nlp, folder / "test.spacy")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("head", choices=list(CONFIGS))
    add_common_arguments(parser, "seq2seq.json")
    parser.add_argument("--train", type=int, default=1000, help="Texts of the train split")
    parser.add_argument("--dev", type=int, default=100, help="Texts that choose the checkpoint")
    parser.add_argument("--test", type=int, default=700, help="Texts of the test split")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    snips = data_folder(args, "snips")
    with tempfile.TemporaryDirectory() as name:
        found = run(args, snips, Path(name))
    result = json.loads(args.output.read_text(encoding="utf8")) if args.output.is_file() else {}
    result.pop("environment", None)
    result.setdefault(f"seed {args.seed}", {})[args.head] = found
    print(found)
    write_result(args.output, result)


if __name__ == "__main__":
    main()
