"""seq2seq_ner against bert_ner on SNIPS slots: the same encoder and texts, each with the config of this repository.

    python benchmarks/seq2seq.py PART --data FOLDER [--n-train 1000] [--epochs 10] [--seed 0] [--models FOLDER]

Each part and each seed adds its figures to the JSON file: F1 on test by spaCy's scorer, seconds of training, and texts
per second of the processor's time, of seq2seq_ner with beams of several widths. The expected calibration error of the
confidences is that of bins of equal width. FOLDER/snips is as for benchmarks/snips.py. What --models holds already is
not trained again; benchmarks/spans.py puts its bert_ner there, too.

bert_ner, seq2seq_ner: the head with its encoder, trained as its config says.
frozen: both heads alone, which is quick: over token vectors of the encoder that are stored and not trained, with Adam
    at 0.001 that falls to 0. Texts per second are those of the heads without the encoder.
"""

import argparse
import json
import random
import time
from functools import partial
from pathlib import Path
from typing import Any, Dict, List

import spacy
from environment import add_common_arguments, write_result
from runs import BATCH_SIZE, predict
from spacy.scorer import Scorer
from spacy.tokens import Doc, DocBin
from spacy.training import Example
from spacy.util import fix_random_seed, minibatch
from spacy.vocab import Vocab
from spans import run, snips, store_vectors
from thinc.api import Adam

from spacy_bert_heads.evaluation.calibration import calibration_report
from spacy_bert_heads.models.generation import name_words

CONFIGS = {"bert_ner": "ner.cfg", "seq2seq_ner": "seq2seq.cfg"}
BEAMS = (1, 4)
RATE = 0.001


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


def run_trained(args: argparse.Namespace) -> Dict[str, Any]:
    """Train one head and measure it."""
    folder, n_train = snips(args)
    name = {"bert_ner": "ner-snips", "seq2seq_ner": "seq2seq-snips"}[args.part]
    figures = run(args, name, CONFIGS[args.part], folder, n_train)
    nlp = spacy.load(args.models / name / "model-best")
    result = {"n_train": n_train, "epochs": args.epochs, "training_seconds": figures["training_seconds"]}
    if args.part == "bert_ner":
        return {**result, **measure(nlp, folder / "test.spacy")}
    for width in BEAMS:
        nlp.get_pipe(args.part).beam_width = width  # type: ignore[attr-defined]
        result[f"beam_width {width}"] = measure(nlp, folder / "test.spacy")
    return result


def run_frozen(args: argparse.Namespace) -> Dict[str, Any]:
    """Both heads over token vectors of the encoder that are stored and not trained."""
    folder, n_train = snips(args)
    vocab = Vocab()
    docs = list(DocBin().from_disk(folder / "train.spacy").get_docs(vocab))
    labels = sorted({ent.label_ for doc in docs for ent in doc.ents})
    # The names of labels are read too
    store_vectors(folder, [Doc(vocab, words=name_words(label)) for label in labels])
    result: Dict[str, Any] = {"n_train": n_train, "epochs": args.epochs}
    for head in CONFIGS:
        nlp = spacy.blank("en")
        model = {"tok2vec": {"@architectures": "benchmarks.StoredVectors.v1"}, "lr_scale": 1.0}
        component: Any = nlp.add_pipe(head, config={"model": model})
        docs = list(DocBin().from_disk(folder / "train.spacy").get_docs(nlp.vocab))
        examples = [Example(Doc(nlp.vocab, words=[token.text for token in doc]), doc) for doc in docs]
        fix_random_seed(args.seed)
        component.initialize(partial(iter, examples), nlp=nlp)
        sgd, chooser, start = Adam(RATE, L2=0.0), random.Random(args.seed), time.process_time()
        n_steps, step = args.epochs * -(-len(examples) // BATCH_SIZE), 0
        for _ in range(args.epochs):
            chooser.shuffle(examples)
            for batch in minibatch(examples, BATCH_SIZE):
                step += 1
                sgd.learn_rate = RATE * min(1.0, 10 * step / n_steps) * (1 - (step - 1) / n_steps)
                component.update(batch, sgd=sgd, drop=0.1)
        found: Dict[str, Any] = {"training_cpu_seconds": round(time.process_time() - start, 1)}
        for width in BEAMS if head == "seq2seq_ner" else (0,):
            component.beam_width = width
            found[f"beam_width {width}" if width else "crf"] = measure(nlp, folder / "test.spacy")
        result[head] = found
        print(head, found, flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=[*CONFIGS, "frozen"])
    add_common_arguments(parser, "seq2seq.json")
    parser.add_argument(
        "--models", type=Path, default=Path("spans-models"), help="Where corpora and pipelines are kept"
    )
    parser.add_argument("--n-train", type=int, default=1000, help="Texts to learn from")
    parser.add_argument("--n-dev", type=int, default=350, help="Texts that choose the checkpoint")
    parser.add_argument("--n-test", type=int, default=0, help="Texts to test on; 0: all")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    found = run_frozen(args) if args.part == "frozen" else run_trained(args)
    result = json.loads(args.output.read_text(encoding="utf8")) if args.output.is_file() else {}
    result.pop("environment", None)
    result.setdefault(f"seed {args.seed}", {})[args.part] = found
    print(found)
    write_result(args.output, result)


if __name__ == "__main__":
    main()
