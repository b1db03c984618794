"""Annotation files of any known format -> train, dev and test `.spacy` files, with a report."""

import os
from contextlib import closing
from pathlib import Path
from typing import Dict, Optional, Sequence

import srsly
from spacy.language import Language
from tqdm import tqdm

from ..errors import BertHeadsError
from ..files import Staging, check_not_read, check_writable, lock
from .annotations import merge
from .counts import Wordpieces
from .doc_bins import DocWriter
from .docs import build_doc, load_tokenizer
from .findings import Findings
from .inputs import drop_sample, list_inputs
from .readers.formats import AUTO, ReadOptions
from .reading import in_memory_zones, read_files
from .report import ConvertReport
from .splits import DEFAULT_SPLIT, SPLITS, assign_split, parse_split, renormalise, split_key
from .store import TextStore

DEFAULT_OPTIONS = ReadOptions()
# What a file is for. A text that occurs in several keeps its place in the first of these.
ROLES = ("test", "dev", "main")
# What is noted when a text is left out of this role.
LEFT_OUT = {"dev": "in_dev_and_test", "main": "left_out_of_main"}


def convert(
    inputs: Sequence[Path],
    output_dir: Path,
    *,
    format: str = AUTO,
    split: str = DEFAULT_SPLIT,
    seed: int = 0,
    dev: Sequence[Path] = (),
    test: Sequence[Path] = (),
    options: ReadOptions = DEFAULT_OPTIONS,
    off_tokens: str = "error",
    skip_bad: bool = False,
    encoder: Optional[str] = None,
    report_path: Optional[Path] = None,
    ignore: Sequence[Path] = (),
    sample: Optional[Path] = None,
) -> ConvertReport:
    """Make `train.spacy`, `dev.spacy` and `test.spacy` out of annotation files.

    All records of one text become one Doc. The same text is never in two splits, whatever its case and white
    space, and stays in its split when data is added. The same call writes the same bytes. Records wait on disk, so
    files may be larger than memory; a split of very many Docs is a folder of files.

    inputs (Sequence[Path]): Files to be divided into the splits, and folders of such files.
    output_dir (Path): Folder for the three files. It is made if it is missing; older files are replaced.
    format (str): Key of CONVERTERS, or "auto" to find it for each file.
    split (str): Shares of train, dev and test, such as "0.8,0.1,0.1".
    seed (int): Another seed divides otherwise.
    dev (Sequence[Path]): Files that are the dev split. Its share goes to the other splits.
    test (Sequence[Path]): Files that are the test split. Its share goes to the other splits.
    options (ReadOptions): What the files do not say about themselves, such as their language.
    off_tokens (str): What to do with spans not at token boundaries: "error", "drop", "expand" or "split".
    skip_bad (bool): Whether bad records are counted and left out. Otherwise the first one stops everything.
    encoder (Optional[str]): Name of an encoder, to report the lengths of texts in its wordpieces too.
    report_path (Optional[Path]): Where to write the report as JSON.
    ignore (Sequence[Path]): Files in folders of `inputs` that are not read.
    sample (Optional[Path]): File of sample records: used, with a warning, only as long as `inputs` hold no other.
    RETURNS (ConvertReport): What was read, decided and written.
    RAISES (BertHeadsError): H1xx for anything wrong with files or settings. Nothing is written then.
    """
    found = list_inputs(inputs, ignore=ignore)
    inputs = drop_sample(found, sample)
    files: Dict[str, Sequence[Path]] = {"main": inputs, "dev": list_inputs(dev), "test": list_inputs(test)}
    shares = renormalise(parse_split(split), [name for name in SPLITS if files.get(name)])
    _check_files(files)
    for path in (output_dir, *([report_path.parent] if report_path else [])):
        check_writable(path)
    for path in (*(output_dir / f"{name}.spacy" for name in SPLITS), *([report_path] if report_path else [])):
        check_not_read(path, [path for paths in files.values() for path in paths])
    nlp = load_tokenizer(options.lang)
    wordpieces = Wordpieces(encoder) if encoder else None
    findings = Findings(skip_bad=skip_bad)
    report = ConvertReport({"lang": options.lang, "seed": seed, "split": shares}, findings)
    if sample is not None and len(inputs) < len(found):
        report.notes.append(f"{sample} is not used: it is a sample, and there are other files.")
    elif sample is not None and sample in inputs:
        report.notes.append(
            f"{sample} is a sample, enough to see every step run but far too little to learn from. "
            f"Put your own annotation files into {sample.parent}; the sample is then left out."
        )
    if wordpieces is not None:
        report.settings["encoder"], report.limit = encoder, wordpieces.limit
    with lock(output_dir), closing(TextStore(len(ROLES))) as store:
        for role in ("main", "dev", "test"):
            entries = read_files(
                store,
                nlp,
                files[role],
                role=ROLES.index(role),
                format=format,
                options=options,
                off_tokens=off_tokens,
                findings=findings,
            )
            report.inputs += [{"path": entry.pop("path"), "role": role, **entry} for entry in entries]
        with Staging() as staging:
            writers = {name: DocWriter(staging, output_dir / f"{name}.spacy") for name in SPLITS}
            _write_texts(store, nlp, writers, shares, seed, report, wordpieces, options)
            if not report.splits["train"].docs:
                n_texts = store.count(ROLES.index("main"))
                raise BertHeadsError("H121", found=f"{n_texts} texts, none of them for train")
            commit(staging, writers, report, report_path)
    return report


def commit(
    staging: Staging, writers: Dict[str, DocWriter], report: ConvertReport, report_path: Optional[Path]
) -> None:
    """Move the splits to their final places, with the report if one is wanted.

    staging (Staging): Where everything has been written so far.
    writers (Dict[str, DocWriter]): Of each split.
    report (ConvertReport): Gets the names of the files.
    report_path (Optional[Path]): Where to write it as JSON.
    """
    for name, writer in writers.items():
        writer.close()
        report.files.append(writer.path)
        if writer.n_shards:
            report.shards[name] = writer.n_shards
    if report_path is not None:
        staging.write(report_path, (srsly.json_dumps(report.to_dict(), indent=2) + "\n").encode("utf8"))
    staging.commit()


def _check_files(files: Dict[str, Sequence[Path]]) -> None:
    """Refuse a file that is given twice: each of its texts would be in two splits, or merged with itself."""
    seen: Dict[str, str] = {}
    for role, paths in files.items():
        for path in paths:
            known_as = os.path.realpath(path)
            if known_as in seen:
                found = role if role == seen[known_as] else f"{seen[known_as]} and as {role}"
                raise BertHeadsError("H161", path=path, found=found)
            seen[known_as] = role


def _write_texts(
    store: TextStore,
    nlp: Language,
    writers: Dict[str, DocWriter],
    shares: Dict[str, float],
    seed: int,
    report: ConvertReport,
    wordpieces: Optional[Wordpieces],
    options: ReadOptions,
) -> None:
    """Merge the records of each text and give it its split: in given files as they are, the others by their hash."""
    for number, role in enumerate(ROLES):
        total = store.count(number)
        texts = tqdm(store.texts(number), role, total, unit=" texts", leave=False, delay=1.0, disable=None)
        for stored in in_memory_zones(nlp, texts):
            annotation = merge(stored.records, report.findings, overlaps=options.overlaps)
            if stored.elsewhere is not None:
                report.findings.note(LEFT_OUT[role], annotation.where, f"same text as {stored.elsewhere}")
                continue
            name = assign_split(split_key(annotation.text), shares, seed) if role == "main" else role
            if annotation.silver is not None:
                report.findings.note("silver" if name == "train" else "silver_not_train", annotation.where)
                if name != "train":
                    continue
            doc = build_doc(nlp, annotation, report.findings, spans_key=options.spans_key, how=options.flatten)
            report.splits[name].add(doc, wordpieces, options.spans_key)
            report.scripts.add(doc)
            writers[name].add(doc)
