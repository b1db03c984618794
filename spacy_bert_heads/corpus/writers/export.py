"""Annotated Docs -> a file for an annotation tool, with a report of what its format cannot hold."""

import math
from numbers import Real
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Set, Tuple

from spacy.language import Language
from spacy.tokens import Doc
from spacy.vocab import Vocab
from tqdm import tqdm

from ...errors import BertHeadsError
from ...extensions import get_silver
from ...files import Staging, check_not_read, check_writable
from ...tags import SCHEMES
from ..annotations import INCORRECT_SPANS_KEY, UNKNOWN_SPANS_KEY
from ..doc_bins import read_doc_bins
from ..docs import SECOND_START, check_words, load_tokenizer
from ..findings import Findings, Where
from .conll import ConllWriter
from .doccano import DoccanoWriter
from .exported import Contents, Exported, Writer
from .label_studio import LabelStudioWriter
from .prodigy import ProdigyWriter

FORMATS = (ProdigyWriter.name, LabelStudioWriter.name, DoccanoWriter.name, ConllWriter.name)
# Digits of a number that somebody wrote, and by how much the probabilities of exclusive categories may miss 1.
DIGITS = 4
TOLERANCE = 1e-3


def export(
    source: Path,
    output: Path,
    *,
    format: str,
    scheme: str = "bio",
    lang: str = "en",
    separate: bool = False,
    spans_key: Optional[str] = None,
) -> Tuple[int, Findings]:
    """Write Docs in the format of an annotation tool.

    source (Path): A `.spacy` file or a folder of them.
    output (Path): The file to be written.
    format (str): One of FORMATS.
    scheme (str): Tag scheme for "conll", one of tags.SCHEMES.
    lang (str): Language of the texts: in some, no spaces part the words of "conll"; and formats without tokens lose
        those that its tokenizer does not make.
    separate (bool): For "prodigy": write a record for the entities of a text and another for its categories, as two
        interfaces need them, instead of one for both.
    spans_key (Optional[str]): Key of `doc.spans` whose spans, which may overlap, are written in place of entities.
    RETURNS (Tuple[int, Findings]): How many texts were written, and what the format could not hold.
    RAISES (BertHeadsError): H101 to H107 or H315 for a bad file; H119 for an unknown language; H123 if the output
        cannot be written or is the source; H165 for another kind of file; H167 or H331 for an unknown format or
        scheme; H191 for a spans_key with "conll".
    """
    if format not in FORMATS:
        raise BertHeadsError("H167", found=repr(format), expected=", ".join(FORMATS))
    if scheme not in SCHEMES:
        raise BertHeadsError("H331", found=scheme, expected=", ".join(SCHEMES))
    if spans_key is not None and format == ConllWriter.name:
        others = ", ".join(name for name in FORMATS if name != format)
        raise BertHeadsError("H191", format=repr(format), expected=others)
    check_writable(output.parent)
    check_not_read(output, [source])
    writer = make_writer(format, scheme, load_tokenizer(lang), separate=separate)
    findings = Findings(skip_bad=False)
    docs = _Counted(_read(source, findings, spans_key))
    with Staging() as staging:
        with staging.open(output) as stream:
            for line in writer.lines(docs, findings):
                stream.write(line)
        if not docs.count:
            raise BertHeadsError("H310", path=source)
        staging.commit()
    return docs.count, findings


class _Counted:
    def __init__(self, docs: Iterator[Exported]) -> None:
        self.docs = docs
        self.count = 0

    def __iter__(self) -> Iterator[Exported]:
        for doc in tqdm(self.docs, desc="export", unit=" texts", leave=False, delay=1.0, disable=None):
            self.count += 1
            yield doc


def make_writer(format: str, scheme: str, nlp: Language, *, separate: bool = False, first: int = 1) -> Writer:
    """The writer of a format.

    format (str): One of FORMATS.
    scheme (str): For "conll", one of tags.SCHEMES.
    nlp (Language): Whose tokenizer a reader will use.
    separate (bool): For "prodigy": see ProdigyWriter.
    first (int): For "label-studio": number of the first task.
    RETURNS (Writer): It writes any number of texts.
    """

    def tokenize(text: str) -> Doc:
        try:
            check_words(nlp, text)
        except BertHeadsError:
            return Doc(nlp.vocab, words=[text])
        return nlp.make_doc(text)

    writers: List[Writer] = [
        ProdigyWriter(separate=separate),
        LabelStudioWriter(tokenize, first),
        DoccanoWriter(tokenize),
        ConllWriter(scheme, str(nlp.lang)),
    ]
    return next(writer for writer in writers if writer.name == format)


def _read(source: Path, findings: Findings, spans_key: Optional[str]) -> Iterator[Exported]:
    if source.is_file() and source.suffix != ".spacy":
        raise BertHeadsError("H165", path=source)
    contents = _look_through(source, spans_key)
    for doc, where in _read_docs(source):
        if len(doc):
            note_layers(doc, where, findings, spans_key)
            if contents.from_classifier and doc.cats:
                findings.note("probabilities", where)
            yield Exported.from_doc(doc, where, contents)
        else:
            findings.note("lost_blank", where)


def note_layers(doc: Doc, where: Where, findings: Findings, spans_key: Optional[str] = None) -> None:
    """Tell, and take out, what is lost in every format of an annotation tool.

    doc (Doc): Loses categories whose value is no number.
    where (Where): Its place.
    findings (Findings): Takes what is lost.
    spans_key (Optional[str]): Key of the spans that are written in place of entities.
    """
    for label in [label for label, value in doc.cats.items() if not _is_number(value)]:
        findings.note("lost_number", where, f"{label} is {doc.cats.pop(label)}")
    if get_silver(doc) is not None:
        findings.note("lost_silver", where)
    if SECOND_START in doc.user_data:
        findings.note("lost_pair", where)
    for name, group in doc.spans.items():
        used = (INCORRECT_SPANS_KEY, *(() if spans_key is None else (spans_key, UNKNOWN_SPANS_KEY)))
        if name not in used and len(group):
            findings.note("lost_groups", where, f"spans[{name!r}]", count=len(group))


def _look_through(source: Path, spans_key: Optional[str]) -> Contents:
    """What annotated Docs hold. A category that has a value between yes and no anywhere is a number, unless the values
    look like the probabilities of a text classifier, as `spacy apply` leaves them.
    """
    has_ents = False
    values = _CategoryValues()
    for doc, _ in _read_docs(source):
        if spans_key is None:
            has_ents = has_ents or bool(doc.ents) or doc.has_annotation("ENT_IOB")
        has_ents = has_ents or spans_key in doc.spans or INCORRECT_SPANS_KEY in doc.spans
        values.add(doc.cats)
    exclusive = (frozenset(values.labels),) if values.are_probabilities and values.sum_to_one else ()
    scores = frozenset() if values.are_probabilities else frozenset(values.fractional)
    return Contents(
        has_ents=has_ents,
        has_cats=len(values.labels) > len(scores),
        scores=scores,
        exclusive=exclusive,
        from_classifier=values.are_probabilities,
        spans_key=spans_key,
    )


class _CategoryValues:
    """The categories of all Docs.

    labels (Set[str]): All of them.
    fractional (Set[str]): Those that have a value other than 0 and 1.
    sum_to_one (bool): Whether the values of each Doc do, as those of exclusive categories.
    """

    def __init__(self) -> None:
        self.labels: Set[str] = set()
        self.fractional: Set[str] = set()
        self.sum_to_one = True
        self._outside = False
        self._computed = False

    def add(self, cats: Dict[str, float]) -> None:
        """Look at the categories of a Doc."""
        cats = {label: value for label, value in cats.items() if _is_number(value)}
        self.labels |= cats.keys()
        self.fractional |= {label for label, value in cats.items() if value not in (0.0, 1.0)}
        self._outside = self._outside or not all(0.0 <= value <= 1.0 for value in cats.values())
        self._computed = self._computed or any(round(value, DIGITS) != value for value in cats.values())
        if cats:
            self.sum_to_one = self.sum_to_one and len(cats) > 1 and abs(sum(cats.values()) - 1.0) < TOLERANCE

    @property
    def are_probabilities(self) -> bool:
        """RETURNS (bool): Whether a classifier wrote them. Numbers to be predicted go beyond 0 and 1, or have the few
        digits that people write."""
        return bool(self.fractional) and not self._outside and (self.sum_to_one or self._computed)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


def _read_docs(source: Path) -> Iterator[Tuple[Doc, Where]]:
    number = 0
    for doc_bin in read_doc_bins(source):
        for doc in doc_bin.get_docs(Vocab()):
            number += 1
            yield doc, Where(source, number)
