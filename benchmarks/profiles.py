"""Where each millisecond goes: short texts, one long document, one step of training.

    python benchmarks/profiles.py PIPELINE --data FOLDER [--threads 1] [--precision auto]

PIPELINE is a folder that `python -m spacy train` wrote, with an encoder and heads. Three cases, each after a warm-up,
medians of --repeats: 256 texts of SNIPS test through `nlp.pipe`; one document of 2,000 words; one step with 32 texts
of SNIPS train and the entities and categories that the pipeline predicts for them. torch's profiler says how long each
kernel took itself; "python" is what remains of the wall clock without the profiler: spaCy, tokenizers, numpy, and
Python between the kernels. FOLDER/snips is as for benchmarks/snips.py.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any, Callable, Dict, List

import spacy
import torch
from environment import add_common_arguments, data_folder, write_result
from runs import BATCH_SIZE, read_snips
from spacy.training import Example
from torch.profiler import ProfilerActivity, profile

from spacy_bert_heads.training.optimizer import build_adamw_v1

LONG_WORDS, STEPS = 2000, 4
# What a kernel is for, by its name; the first that fits
KINDS = {
    "products": ("addmm", "aten::mm", "mkldnn_linear", "linear_pointwise"),
    "attention": ("attention", "bmm", "baddbmm", "softmax"),
    "lstm": ("rnn", "lstm"),
    "optimizer": ("adamw", "linalg_vector_norm", "optimizer.step"),
    "dropout": ("bernoulli", "dropout"),
    "zeros": ("fill_", "zero_"),
    "copies and casts": ("copy_", "aten::cat", "index", "to_copy"),
    "gelu, norms, sums": ("gelu", "norm", "add", "mul", "tanh", "sum"),
}


def kind_of(kernel: str) -> str:
    """RETURNS (str): One of KINDS, or "other kernels"."""
    name = kernel.lower()
    return next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), "other kernels")


def measure(run: Callable[[], Any], repeats: int) -> Dict[str, float]:
    """Milliseconds of one run, as a whole and by kinds of kernels."""
    run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    total = 1e3 * statistics.median(seconds)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        run()
    found: Dict[str, float] = {}
    for event in profiled.key_averages():
        kind = kind_of(event.key)
        found[kind] = found.get(kind, 0.0) + event.self_cpu_time_total / 1e3
    by_size = sorted(found.items(), key=lambda item: -item[1])
    kinds = {kind: round(value, 1) for kind, value in by_size if value >= 0.005 * total}
    return {"total": round(total, 1), **kinds, "python": round(max(0.0, total - sum(found.values())), 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline", type=Path, help="Folder of a trained pipeline")
    add_common_arguments(parser, "profiles.json")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="auto", help="Of prediction and training (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    folder = data_folder(args, "snips")
    texts = [" ".join(words) for words, _, _ in read_snips(folder / "test")]
    long = " ".join(" ".join(texts).split()[:LONG_WORDS])
    nlp = spacy.load(args.pipeline)
    shim: Any = nlp.get_pipe("transformer").model.shims[0]  # type: ignore[attr-defined]
    shim.precision = shim.train_precision = args.precision
    cases = {
        "256 short texts": measure(lambda: list(nlp.pipe(texts[:256])), args.repeats),
        f"a document of {LONG_WORDS} words": measure(lambda: nlp(long), args.repeats),
    }
    learned = [" ".join(words) for words, _, _ in read_snips(folder / "train")][: BATCH_SIZE * STEPS]
    examples: List[Example] = []
    for doc in nlp.pipe(learned):
        best = max(doc.cats, key=doc.cats.__getitem__)
        doc.cats = {label: float(label == best) for label in doc.cats}
        examples.append(Example(nlp.make_doc(doc.text), doc))
    optimizer = build_adamw_v1(1e-6, decay="constant", warmup=0)

    def train() -> None:
        for first in range(0, len(examples), BATCH_SIZE):
            nlp.update(examples[first : first + BATCH_SIZE], sgd=optimizer)
            optimizer.step_schedules()

    steps = measure(train, args.repeats)
    cases[f"a step with {BATCH_SIZE} texts"] = {kind: round(value / STEPS, 1) for kind, value in steps.items()}
    for name, case in cases.items():
        print(name, case)
    write_result(args.output, {"precision": args.precision, "milliseconds": cases})


if __name__ == "__main__":
    main()
