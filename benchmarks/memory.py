"""Whether memory stays bounded: loading, a soak of Docs that the caller keeps, texts of up to 1,000,000 characters.

    python benchmarks/memory.py PIPELINE --data FOLDER [--docs 20000] [--characters 100000 1000000]

1. A pipeline is loaded and saved again, in a process that has imported everything. "files_mib" is the size of its
   files; the peaks are what was taken on the way, on top of what was taken before.
2. The texts of SNIPS, repeated, go through `nlp.pipe` and all Docs are kept. What a process grows by in the
   meantime is set beside what a second one grows by, in which the same Docs come from the tokenizer and get the same
   entities, categories and user data by hand: the Docs' own size. "over_docs_alone" is the difference. What is done
   with the first texts is not counted: it fills caches and the encoder's buffers.
3. One text of each length goes through `nlp`: seconds per 100,000 characters, which stay the same if cost is linear,
   and the most memory that the process has taken by then.

PIPELINE is a folder that `python -m spacy train` wrote. Sizes are resident memory in MiB. FOLDER/snips is as for
benchmarks/snips.py.
"""

import argparse
import ctypes
import gc
import itertools
import json
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List

import spacy
from environment import add_common_arguments, data_folder, write_result
from runs import SPLITS, read_snips
from spacy.tokens import Doc, Span

WARM_UP = 2000
MIB = 2**20


def resident() -> float:
    """MiB this process holds now, after everything that nobody uses was given back to the system."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)  # glibc keeps freed memory otherwise
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (AttributeError, OSError) as error:
        raise SystemExit("This benchmark reads /proc/self/statm and needs Linux with glibc.") from error
    return pages * resource.getpagesize() / MIB


def peak() -> float:
    """MiB this process held at most, since its start or since `begin_peak`."""
    lines = Path("/proc/self/status").read_text().split("\n")
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def begin_peak() -> None:
    """Begin the peak anew."""
    Path("/proc/self/clear_refs").write_text("5")


def loading(args: argparse.Namespace) -> Dict[str, Any]:
    """What loading takes in all, what stays, and what saving takes."""
    import spacy_transformers.pipeline_component  # noqa: F401

    import spacy_bert_heads.pipeline.factories  # noqa: F401

    before = resident()
    begin_peak()
    start = time.perf_counter()
    nlp = spacy.load(args.pipeline)
    seconds, top = time.perf_counter() - start, peak()
    after = resident()
    with tempfile.TemporaryDirectory() as folder:
        begin_peak()
        nlp.to_disk(folder)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        saving = peak() - after
    return {
        "files_mib": round(size / MIB, 1),
        "seconds": round(seconds, 2),
        "grown_mib": round(after - before, 1),
        "peak_mib": round(top - before, 1),
        "saving_peak_mib": round(saving, 1),
    }


def soak(args: argparse.Namespace) -> Dict[str, Any]:
    """Run the pipeline, keep all Docs, write their annotations for `docs_alone`."""
    nlp = spacy.load(args.pipeline)
    for _ in nlp.pipe(_texts(args, min(WARM_UP, args.docs))):
        pass
    before = resident()
    start = time.perf_counter()
    docs = list(nlp.pipe(_texts(args, args.docs)))
    seconds = time.perf_counter() - start
    after = resident()
    with args.annotations.open("wb") as file:
        for doc in docs:
            pickle.dump(_annotations(doc), file)
    outputs = sum(doc._.trf_data is not None for doc in docs)
    return {
        "docs": len(docs),
        "grown_mib": round(after - before, 1),
        "peak_mib": round(peak(), 1),
        "docs_with_encoder_output": outputs,
        "docs_per_second": round(len(docs) / seconds, 1),
    }


def docs_alone(args: argparse.Namespace) -> Dict[str, Any]:
    """The same Docs without the pipeline's components, which are loaded but not run."""
    nlp = spacy.load(args.pipeline)
    for text in _texts(args, min(WARM_UP, args.docs)):
        nlp.make_doc(text)
    before = resident()
    with args.annotations.open("rb") as file:
        docs = [_annotated(nlp.make_doc(text), pickle.load(file)) for text in _texts(args, args.docs)]
    return {"docs": len(docs), "grown_mib": round(resident() - before, 1)}


def long_texts(args: argparse.Namespace) -> Dict[str, Any]:
    """One text after another, from the shortest on, so that the peak is that of the longest so far."""
    nlp = spacy.load(args.pipeline)
    nlp.max_length = max(nlp.max_length, *args.characters)
    for _ in nlp.pipe(_texts(args, 100)):
        pass
    result: Dict[str, Any] = {"before_mib": round(resident(), 1)}
    for size in sorted(args.characters):
        text = _text_of(args, size)
        start = time.perf_counter()
        doc = nlp(text)
        seconds = time.perf_counter() - start
        result[str(size)] = {
            "tokens": len(doc),
            "seconds": round(seconds, 2),
            "seconds_per_100k": round(seconds * 1e5 / size, 3),
            "peak_mib": round(peak(), 1),
        }
        del doc
    return result


PARTS = {"loading": loading, "soak": soak, "docs_alone": docs_alone, "long_texts": long_texts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline", type=Path, help="Folder of a trained pipeline")
    add_common_arguments(parser, "memory.json")
    parser.add_argument("--docs", type=int, default=20000)
    parser.add_argument("--characters", type=int, nargs="+", default=[100_000, 300_000, 1_000_000])
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)  # each part is a process of its own
    parser.add_argument("--annotations", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    data_folder(args, "snips")
    if args.part:
        print(json.dumps(PARTS[args.part](args)))
        return
    result: Dict[str, Any] = {"pipeline": str(args.pipeline.name)}
    with tempfile.TemporaryDirectory() as folder:
        for part in PARTS:
            options = ["--part", part, "--annotations", str(Path(folder) / "annotations.pickle")]
            done = subprocess.run([sys.executable, *sys.argv, *options], stdout=subprocess.PIPE, text=True)
            if done.returncode:
                raise SystemExit(done.returncode)
            result[part] = json.loads(done.stdout.strip().split("\n")[-1])
            print(part, json.dumps(result[part], indent=2), flush=True)
    grown, alone = result["soak"]["grown_mib"], result["docs_alone"]["grown_mib"]
    result["over_docs_alone_mib"] = round(grown - alone, 1)
    print(f"{args.docs} Docs: grown by {grown} MiB, of which {alone} MiB are the Docs themselves")
    write_result(args.output, result)


def _texts(args: argparse.Namespace, number: int) -> Iterator[str]:
    folder = data_folder(args, "snips")
    utterances = [" ".join(words) for split in SPLITS for words, _, _ in read_snips(folder / split)]
    return itertools.islice(itertools.cycle(utterances), number)


def _text_of(args: argparse.Namespace, characters: int) -> str:
    parts: List[str] = []
    length = 0
    for text in _texts(args, characters):
        parts.append(text)
        length += len(text) + 2
        if length >= characters:
            break
    return ". ".join(parts)[:characters]


def _annotations(doc: Doc) -> Dict[str, Any]:
    user_data = {
        key: value for key, value in doc.user_data.items() if not (isinstance(key, tuple) and "trf_data" in key)
    }
    ents = [(ent.start, ent.end, ent.label_) for ent in doc.ents]
    return {"ents": ents, "cats": dict(doc.cats), "user_data": user_data}


def _annotated(doc: Doc, annotations: Dict[str, Any]) -> Doc:
    doc.set_ents([Span(doc, start, end, label=label) for start, end, label in annotations["ents"]])
    doc.cats = {sys.intern(label): score for label, score in annotations["cats"].items()}
    for key, value in annotations["user_data"].items():  # names are shared between the Docs of a pipeline as well
        doc.user_data[_interned(key)] = _interned(value)
    return doc


def _interned(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_interned(part) for part in value)
    return sys.intern(value) if isinstance(value, str) else value


if __name__ == "__main__":
    main()
