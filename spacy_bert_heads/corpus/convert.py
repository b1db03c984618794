"""Annotation files of any known format -> train, dev and test `.spacy` files, with a report."""

from pathlib import Path
from typing import Dict, Iterator, List, Optional, Protocol, Sequence, Tuple

import srsly
from spacy.language import Language
from spacy.tokens import DocBin
from tqdm import tqdm

from ..errors import BertHeadsError
from .annotations import Annotation, merge
from .docs import build_doc, check_annotation, load_tokenizer
from .findings import Findings, Where
from .lines import read_head
from .prodigy import ProdigyConverter
from .report import ConvertReport
from .splits import SPLITS, assign_split, parse_split, renormalise, split_key
from .writing import write_files

AUTO = "auto"


class Converter(Protocol):
    """Reads the files of one format.

    name (str): What the format is called in `--format`.
    suffixes (Tuple[str, ...]): Endings of its file names, for files whose content shows no format.
    """

    name: str
    suffixes: Tuple[str, ...]

    def sniff(self, head: bytes) -> bool:
        """Recognise the format by its content.

        head (bytes): The beginning of a file, unpacked, without a byte order mark.
        RETURNS (bool): Whether this is a file of the format.
        """
        ...

    def read(self, path: Path, findings: Findings) -> Iterator[Annotation]:
        """Stream the annotations of a file.

        path (Path): The file.
        findings (Findings): Takes bad records, the number of all records, and decisions about good ones.
        YIELDS (Annotation): One for each record that says something about a text, with its place.
        """
        ...


# Every format there is. `auto` asks them in this order, so the ones with the narrowest `sniff` come first.
CONVERTERS: Dict[str, Converter] = {converter.name: converter for converter in (ProdigyConverter(),)}


def convert(
    inputs: Sequence[Path],
    output_dir: Path,
    *,
    format: str,
    lang: str,
    split: str,
    seed: int,
    dev: Optional[Path] = None,
    test: Optional[Path] = None,
    skip_bad: bool = False,
    report_path: Optional[Path] = None,
) -> ConvertReport:
    """Make `train.spacy`, `dev.spacy` and `test.spacy` out of annotation files.

    All records of one text become one Doc. The same text is never in two splits, whatever its case and white
    space, and stays in its split when data is added. The same call writes the same bytes.

    inputs (Sequence[Path]): Files to be divided into the splits.
    output_dir (Path): Folder for the three files. It is made if it is missing; older files are replaced.
    format (str): Key of CONVERTERS, or "auto" to find it for each file.
    lang (str): Language of the tokenizer for texts that come without tokens.
    split (str): Shares of train, dev and test, such as "0.8,0.1,0.1".
    seed (int): Another seed divides otherwise.
    dev (Optional[Path]): A file that is the dev split. Its share goes to the other splits.
    test (Optional[Path]): A file that is the test split. Its share goes to the other splits.
    skip_bad (bool): Whether bad records are counted and left out. Otherwise the first one stops everything.
    report_path (Optional[Path]): Where to write the report as JSON.
    RETURNS (ConvertReport): What was read, decided and written.
    RAISES (BertHeadsError): H1xx for anything wrong with files or settings. Nothing is written then.
    """
    given = {name: path for name, path in (("dev", dev), ("test", test)) if path is not None}
    shares = renormalise(parse_split(split), list(given))
    nlp = load_tokenizer(lang)
    findings = Findings(skip_bad=skip_bad)
    report = ConvertReport({"lang": lang, "seed": seed, "split": shares}, findings)
    main = _read_texts(nlp, inputs, "main", format, report)
    whole = {name: _read_texts(nlp, [path], name, format, report) for name, path in given.items()}
    splits = _divide(main, whole, shares, seed, findings)
    contents = {}
    for name in SPLITS:
        path = output_dir / f"{name}.spacy"
        contents[path] = _to_bytes(nlp, splits[name], name, report)
        report.files.append(path)
    if not report.splits["train"].docs:
        raise BertHeadsError("H121", found=f"{len(main)} texts, none of them for train")
    if report_path is not None:
        contents[report_path] = (srsly.json_dumps(report.to_dict(), indent=2) + "\n").encode("utf8")
    write_files(contents)
    return report


def find_converter(path: Path, format: str) -> Converter:
    """Choose the reader of a file.

    path (Path): The file.
    format (str): Key of CONVERTERS, or "auto" to look at the content, then at the name.
    RETURNS (Converter): The reader.
    RAISES (BertHeadsError): H101 to H103 if the file cannot be read; H118 for an unknown format; H125 if no
        format fits.
    """
    if format != AUTO and format not in CONVERTERS:
        raise BertHeadsError("H118", found=repr(format), expected=", ".join([AUTO, *CONVERTERS]))
    head = read_head(path)
    if format != AUTO:
        return CONVERTERS[format]
    for converter in CONVERTERS.values():
        if converter.sniff(head):
            return converter
    # A broken or empty file shows no format; the reader that its name stands for says what is wrong with it.
    for converter in CONVERTERS.values():
        if path.name.lower().endswith(converter.suffixes):
            return converter
    raise BertHeadsError("H125", path=path, found=head[:40], expected=", ".join(CONVERTERS))


def _read_texts(
    nlp: Language, paths: Sequence[Path], role: str, format: str, report: ConvertReport
) -> List[Annotation]:
    """Read files and merge the records of each text, in the order in which the texts come first."""
    findings = report.findings
    versions: Dict[str, List[Annotation]] = {}
    for path in paths:
        converter = find_converter(path, format)
        n_before, n_used = findings.n_records[path], 0
        for annotation in converter.read(path, findings):
            try:
                check_annotation(nlp, annotation)
            except BertHeadsError as error:
                findings.bad(error)
                continue
            versions.setdefault(annotation.text, []).append(annotation)
            n_used += 1
        n_records = findings.n_records[path] - n_before
        if not n_used:
            found = findings.describe(path)
            findings.bad(BertHeadsError("H117", path=path, found=found, n_records=n_records))
        entry = {"path": str(path), "role": role, "format": converter.name}
        report.inputs.append({**entry, "records": n_records, "used": n_used})
    return [merge(records, findings) for records in versions.values()]


def _divide(
    main: Sequence[Annotation],
    whole: Dict[str, List[Annotation]],
    shares: Dict[str, float],
    seed: int,
    findings: Findings,
) -> Dict[str, List[Annotation]]:
    """Give every text its split: those of the given files as they are, the others by their hash."""
    splits: Dict[str, List[Annotation]] = {name: [] for name in SPLITS}
    taken: Dict[str, Where] = {}
    # The test file keeps all of its texts, the dev file all that are not in the test file.
    for name in ("test", "dev"):
        before = dict(taken)
        for annotation in whole.get(name, []):
            key = split_key(annotation.text)
            if key in before:
                findings.note("in_dev_and_test", annotation.where, f"same text as {before[key]}")
                continue
            taken[key] = annotation.where
            splits[name].append(annotation)
    for annotation in main:
        key = split_key(annotation.text)
        if key in taken:
            findings.note("left_out_of_main", annotation.where, f"same text as {taken[key]}")
        else:
            splits[assign_split(key, shares, seed)].append(annotation)
    return splits


def _to_bytes(nlp: Language, annotations: Sequence[Annotation], name: str, report: ConvertReport) -> bytes:
    doc_bin = DocBin(store_user_data=True)
    for annotation in tqdm(annotations, desc=name, unit=" docs", leave=False, delay=1.0, disable=None):
        doc = build_doc(nlp, annotation, report.findings)
        report.splits[name].add(doc)
        doc_bin.add(doc)
    return doc_bin.to_bytes()
