"""seq2seq_ner against bert_ner on SNIPS slots: the same encoder and texts, each with the config of this repository.

    python benchmarks/seq2seq.py --data FOLDER [--train 1000] [--epochs 6] [--seeds 0]

F1 on test by spaCy's scorer, seconds of training, and texts per second of the processor's time: of bert_ner, and of
seq2seq_ner with beams of several widths. The expected calibration error of the confidences is that of 15 bins of equal
width. FOLDER/snips is as for benchmarks/snips.py.
"""

import argparse
import statistics
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
N_DEV, N_TEST = 200, 700


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


def run(args: argparse.Namespace, data: Path, folder: Path, seed: int) -> Dict[str, Any]:
    counts = write_snips(data, folder, args.train, N_DEV, N_TEST, seed)
    result: Dict[str, Any] = {"seed": seed, "texts": counts}
    for component, config in CONFIGS.items():
        output = folder / component
        training = train_pipeline(
            config,
            folder / "train.spacy",
            folder / "dev.spacy",
            counts["train"],
            output,
            epochs=args.epochs,
            precision="fp32",
            seed=seed,
        )
        nlp = spacy.load(output / "model-best")
        if component == "bert_ner":
            result[component] = {**training, **measure(nlp, folder / "test.spacy")}
        else:
            beams = {}
            for width in BEAMS:
                nlp.get_pipe(component).beam_width = width  # type: ignore[attr-defined]
                beams[str(width)] = measure(nlp, folder / "test.spacy")
            result[component] = {**training, "beam_width": beams}
        print(component, result[component], flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser, "seq2seq.json")
    parser.add_argument("--train", type=int, default=1000, help="Texts of the train split")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    args = parser.parse_args()
    snips = data_folder(args, "snips")
    runs = []
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as name:
            runs.append(run(args, snips, Path(name), seed))
    pairs = [(one["bert_ner"]["f1"], one["seq2seq_ner"]["beam_width"]["4"]["f1"]) for one in runs]
    means = {"bert_ner": statistics.mean(a for a, _ in pairs), "seq2seq_ner": statistics.mean(b for _, b in pairs)}
    write_result(
        args.output,
        {"train": args.train, "epochs": args.epochs, "encoder": "MiniLM-L6", "mean_f1": means, "runs": runs},
    )


if __name__ == "__main__":
    main()
