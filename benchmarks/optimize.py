"""Exported pipelines beside the ones they were made from: agreement, scores, size, and the encoder's speed.

    python benchmarks/optimize.py --data FOLDER [--snips PIPELINE] [--wnut17 PIPELINE] [--only openvino:bf16 ...]

Each PIPELINE is what `python -m spacy train` wrote, and scored on its test set: FOLDER/snips as in the JointBERT
repository, FOLDER/wnut17 with emerging.test.annotated.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import numpy
import spacy
import torch
from environment import add_common_arguments, data_folder, write_result
from runs import read_snips
from spacy.language import Language
from spacy.scorer import Scorer
from spacy.tokens import Doc
from spacy.training import Example, iob_utils

from spacy_bert_heads.backends.optimize import find_encoders, optimize
from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.layers.runtimes import BACKENDS

Rectangle = Tuple[numpy.ndarray, numpy.ndarray]
# Docs that are sorted by length together, and rows of a rectangle
BUFFER, ROWS = 128, 64


def read_snips_examples(nlp: Language, data: Path) -> List[Example]:
    """SNIPS test."""
    examples = []
    for words, tags, intent in read_snips(data / "test"):
        gold = _make_doc(nlp, words, tags)
        gold.cats = {label: float(label == intent) for label in nlp.get_pipe("bert_textcat").labels}  # type: ignore[attr-defined]
        examples.append(Example(Doc(nlp.vocab, words=words), gold))
    return examples


def read_wnut17_examples(nlp: Language, data: Path) -> List[Example]:
    """WNUT-17 test: a word and its tag on a line, with a tab between them; an empty line after each sentence."""
    examples, words, tags = [], [], []
    for line in [*(data / "emerging.test.annotated").read_text(encoding="utf8").split("\n"), ""]:
        if line.strip():
            word, _, tag = line.rpartition("\t")
            words.append(word)
            tags.append(tag.strip())
        elif words:
            examples.append(Example(Doc(nlp.vocab, words=words), _make_doc(nlp, words, tags)))
            words, tags = [], []
    return examples


READERS: Dict[str, Callable[[Language, Path], List[Example]]] = {
    "snips": read_snips_examples,
    "wnut17": read_wnut17_examples,
}


def _make_doc(nlp: Language, words: List[str], tags: List[str]) -> Doc:
    doc = Doc(nlp.vocab, words=words)
    doc.set_ents(iob_utils.biluo_tags_to_spans(doc, iob_utils.iob_to_biluo(tags)), default="outside")
    return doc


def predict(pipeline: Path, name: str, data: Path) -> Tuple[Language, List[Example]]:
    """A pipeline's answers to a test set."""
    nlp = spacy.load(pipeline)
    examples = READERS[name](nlp, data)
    for example, doc in zip(examples, nlp.pipe([example.predicted for example in examples])):
        example.predicted = doc
    return nlp, examples


def score(nlp: Language, examples: List[Example]) -> Dict[str, float]:
    """In percent."""
    scores = Scorer(nlp).score(examples)
    return {name: 100 * scores[name] for name in ("cats_acc", "ents_f") if scores.get(name) is not None}


def compare(examples: List[Example], originals: List[Example]) -> Dict[str, float]:
    """How far two pipelines agree.

    RETURNS (Dict[str, float]): Percent of Docs with the same best category, of tokens with the same entity tag, and
        of Docs with the same entities; the largest difference of a category's probability.
    """
    pairs = [(example.predicted, original.predicted) for example, original in zip(examples, originals)]
    tags = [(_tags(doc), _tags(other)) for doc, other in pairs]
    tokens = [tag == other for found, expected in tags for tag, other in zip(found, expected)]
    agreement = {
        "same_entity_tag": 100 * statistics.mean(tokens),
        "same_entities": 100 * statistics.mean(found == expected for found, expected in tags),
    }
    if pairs[0][1].cats:
        agreement["same_best_category"] = 100 * statistics.mean(_best(doc) == _best(other) for doc, other in pairs)
        agreement["largest_category_difference"] = max(
            abs(doc.cats[label] - other.cats[label]) for doc, other in pairs for label in other.cats
        )
    return agreement


def _tags(doc: Doc) -> List[str]:
    return [f"{token.ent_iob_}-{token.ent_type_}" for token in doc]


def _best(doc: Doc) -> str:
    return max(doc.cats, key=lambda label: doc.cats[label])


def rectangles(nlp: Language, texts: List[str]) -> List[Rectangle]:
    """Ids and mask of the texts in length-sorted batches, made by the encoder's own tokenizer."""
    tokenizer = next(find_encoders(nlp))[1].tokenizer
    found = []
    for start in range(0, len(texts), BUFFER):
        ids = sorted(tokenizer(texts[start : start + BUFFER], truncation=True)["input_ids"], key=len)
        for first in range(0, len(ids), ROWS):
            padded = tokenizer.pad({"input_ids": ids[first : first + ROWS]}, return_tensors="np")
            found.append((padded["input_ids"].astype("int64"), padded["attention_mask"].astype("int64")))
    return found


def runs(nlp: Language) -> Iterator[Tuple[str, Callable[[Rectangle], Any]]]:
    """The bare torch encoder of a pipeline in fp32, and under autocast to bf16, inside an open torch.no_grad."""
    module = next(find_encoders(nlp))[1].module.eval()
    for precision in ("fp32", "bf16"):

        def run(rectangle: Rectangle, bf16: bool = precision == "bf16") -> Any:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                outputs = module(*map(torch.from_numpy, rectangle))
            return [output.float().numpy() for output in outputs.values()]

        yield f"bare torch {precision}", run


def measure(rivals: Dict[str, Callable[[Rectangle], Any]], batches: List[Rectangle], rounds: int) -> Dict[str, Any]:
    """Docs per second of encoders that take turns, round by round, so that all see the same machine.

    RETURNS (Dict[str, Any]): For each, the median, all rounds, and the first pass apart, which meets every shape for
        the first time.
    """
    n_docs = sum(len(ids) for ids, _ in batches)
    rates: Dict[str, List[float]] = {name: [] for name in rivals}
    for _ in range(rounds + 1):
        for name, run in rivals.items():
            start = time.perf_counter()
            with torch.no_grad():
                for batch in batches:
                    run(batch)
            rates[name].append(round(n_docs / (time.perf_counter() - start), 1))
    figures: Dict[str, Any] = {}
    for name, (first, *rest) in rates.items():
        figures[name] = {"docs_per_second": statistics.median(rest), "first_pass": first, "rounds": rest}
    for figure in figures.values():
        # Round by round, since whatever else the machine does changes all of a round
        ratios = [ours / bf16 for ours, bf16 in zip(figure["rounds"], figures["bare torch bf16"]["rounds"])]
        figure["times_bare_torch_bf16"] = round(statistics.median(ratios), 3)
    return figures


def run_data_set(name: str, pipeline: Path, args: argparse.Namespace, combinations: List[Tuple[str, str]]) -> Any:
    """Everything about one pipeline."""
    data = data_folder(args, name)
    nlp, originals = predict(pipeline, name, data)
    batches = rectangles(nlp, [example.reference.text for example in originals])
    rivals = dict(runs(nlp))
    result: Dict[str, Any] = {
        "docs": len(originals),
        "shapes": len({ids.shape for ids, _ in batches}),
        "original": score(nlp, originals),
        "exported": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        for backend, precision in combinations:
            output = Path(folder) / f"{backend}-{precision}"
            try:
                done = optimize(str(pipeline), output, backend=backend, precision=precision, force=True)
            except BertHeadsError as error:
                if error.code != "H402":
                    raise
                print(error)
                continue
            exported, examples = predict(output, name, data)
            scores = score(exported, examples)
            figures = {
                **{name: round(value, 3) for name, value in compare(examples, originals).items()},
                **{f"{name}_difference": round(scores[name] - result["original"][name], 3) for name in scores},
                "vector_difference": round(done.difference, 5),
                "megabytes": round(done.megabytes_after, 1),
                "megabytes_original": round(done.megabytes_before, 1),
            }
            print(name, backend, precision, figures, flush=True)
            result["exported"][f"{backend} {precision}"] = figures
            runtime = next(find_encoders(exported))[1].runtime
            rivals[f"{backend} {precision}"] = lambda rectangle, runtime=runtime: runtime.run(*rectangle)
        result["encoder"] = measure(rivals, batches, args.rounds)
    for rival, figure in result["encoder"].items():
        print(f"{rival:20} {figure['docs_per_second']:8.0f} docs/s  {figure['times_bare_torch_bf16']:.2f} x bare bf16")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser, "optimize.json")
    for name in READERS:
        parser.add_argument(f"--{name}", type=Path, help=f"Trained pipeline to score on {name}'s test set")
    parser.add_argument("--only", nargs="+", metavar="BACKEND:PRECISION", help="Default: all there are")
    parser.add_argument("--rounds", type=int, default=5, help="Timed passes over the texts, after one that is not")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="Of torch and of the backends")
    args = parser.parse_args()
    pipelines = {name: getattr(args, name) for name in READERS if getattr(args, name)}
    if not pipelines:
        raise SystemExit("Give at least one trained pipeline: " + " or ".join(f"--{name}" for name in READERS))
    combinations = [(backend, precision) for backend, known in BACKENDS.items() for precision in known.precisions]
    if args.only:
        combinations = [pair for pair in combinations if ":".join(pair) in args.only]
    torch.set_num_threads(args.threads)
    results = {name: run_data_set(name, path, args, combinations) for name, path in pipelines.items()}
    write_result(args.output, {"rounds": args.rounds, "threads": args.threads, **results})


if __name__ == "__main__":
    main()
