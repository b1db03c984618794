"""Annotated or predicted Docs -> a file for an annotation tool, with a report of what its format cannot hold."""

import math
from numbers import Real
from pathlib import Path
from typing import Any, Dict, FrozenSet, Iterable, Iterator, List, Optional, Set, Tuple

from spacy.language import Language
from spacy.tokens import Doc
from spacy.vocab import Vocab
from tqdm import tqdm

from ...errors import BertHeadsError
from ...factory_names import EXCLUSIVE_FACTORIES, SCORE_FACTORY
from ...files import Staging, check_not_read, check_writable
from ...pipeline_io import load_pipeline, model_name
from ...tags import SCHEMES
from ..annotations import INCORRECT_SPANS_KEY, UNKNOWN_SPANS_KEY
from ..doc_bins import read_doc_bins
from ..docs import SECOND_START, check_words, load_tokenizer
from ..findings import Findings, Where
from ..readers.lines import read_json_objects, read_lines
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
    model: Optional[str] = None,
    scheme: str = "bio",
    lang: str = "en",
    separate: bool = False,
    spans_key: Optional[str] = None,
) -> Tuple[int, Findings]:
    """Write Docs in the format of an annotation tool.

    source (Path): A `.spacy` file or a folder of them; with a model also a `.jsonl` file whose lines have a "text", or
        a `.txt` file of one text a line.
    output (Path): The file to be written.
    format (str): One of FORMATS.
    model (Optional[str]): Pipeline whose predictions are written, instead of what is in the file.
    scheme (str): Tag scheme for "conll", one of tags.SCHEMES.
    lang (str): Language of the texts: in some, no spaces part the words of "conll"; and formats without tokens lose
        those that its tokenizer does not make. A model knows its own.
    separate (bool): For "prodigy": write a record for the entities of a text and another for its categories, as two
        interfaces need them, instead of one for both.
    spans_key (Optional[str]): Key of `doc.spans` whose spans, which may overlap, are written in place of entities.
    RETURNS (Tuple[int, Findings]): How many texts were written, and what the format could not hold.
    RAISES (BertHeadsError): H101 to H107 or H315 for a bad file; H119 for an unknown language; H123 if the output
        cannot be written or is the source; H165 or H166 for a file of no known kind; H167 or H331 for an unknown
        format or scheme; H191 for a spans_key with "conll"; H227 if the model cannot be loaded.
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
    nlp = load_pipeline(model) if model is not None else None
    writer = _make_writer(format, scheme, nlp or load_tokenizer(lang), separate)
    findings = Findings(skip_bad=False)
    docs = _Counted(_read(source, nlp, findings, spans_key))
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


def _make_writer(format: str, scheme: str, nlp: Language, separate: bool) -> Writer:

    def tokenize(text: str) -> Doc:
        try:
            check_words(nlp, text)
        except BertHeadsError:
            return Doc(nlp.vocab, words=[text])
        return nlp.make_doc(text)

    writers: List[Writer] = [
        ProdigyWriter(separate=separate),
        LabelStudioWriter(tokenize),
        DoccanoWriter(tokenize),
        ConllWriter(scheme, str(nlp.lang)),
    ]
    return next(writer for writer in writers if writer.name == format)


def _read(source: Path, nlp: Optional[Language], findings: Findings, spans_key: Optional[str]) -> Iterator[Exported]:
    docs: Iterable[Tuple[Doc, Where]]
    if nlp is not None:
        contents = _promised(nlp, spans_key)
        docs = nlp.pipe(_read_texts(source, nlp, findings), as_tuples=True)
    else:
        if source.is_file() and source.suffix != ".spacy":
            raise BertHeadsError("H165", path=source)
        contents = _look_through(source, spans_key)
        docs = _read_docs(source, None)
    for doc, where in docs:
        if len(doc):
            _note_layers(doc, where, findings, spans_key)
            if contents.from_classifier and doc.cats:
                findings.note("probabilities", where)
            yield Exported.from_doc(doc, where, contents)
        else:
            findings.note("lost_blank", where)


def _note_layers(doc: Doc, where: Where, findings: Findings, spans_key: Optional[str]) -> None:
    """Tell, and take out, what is lost in every format."""
    for label in [label for label, value in doc.cats.items() if not _is_number(value)]:
        findings.note("lost_number", where, f"{label} is {doc.cats.pop(label)}")
    if SECOND_START in doc.user_data:
        findings.note("lost_pair", where)
    for name, group in doc.spans.items():
        used = (INCORRECT_SPANS_KEY, *(() if spans_key is None else (spans_key, UNKNOWN_SPANS_KEY)))
        if name not in used and len(group):
            findings.note("lost_groups", where, f"spans[{name!r}]", count=len(group))


def _promised(nlp: Language, spans_key: Optional[str]) -> Contents:
    """What the components of a pipeline annotate."""
    assigns: Set[str] = set()
    scores: Set[str] = set()
    exclusive: List[FrozenSet[str]] = []
    for name, pipe in nlp.pipeline:
        meta = nlp.get_pipe_meta(name)
        labels = frozenset(getattr(pipe, "labels", ()))
        assigns.update(meta.assigns)
        if getattr(pipe, "annotate_ents", False):
            assigns.add("doc.ents")
        if meta.factory in EXCLUSIVE_FACTORIES:
            exclusive.append(labels)
        elif meta.factory == SCORE_FACTORY:
            scores |= labels
    return Contents(
        has_ents=("doc.ents" if spans_key is None else "doc.spans") in assigns,
        has_cats="doc.cats" in assigns,
        scores=frozenset(scores),
        model=model_name(nlp),
        exclusive=tuple(exclusive),
        spans_key=spans_key,
    )


def _look_through(source: Path, spans_key: Optional[str]) -> Contents:
    """What annotated Docs hold. A category that has a value between yes and no anywhere is a number, unless the values
    look like the probabilities of a text classifier, as `spacy apply` leaves them.
    """
    has_ents = False
    values = _CategoryValues()
    for doc, _ in _read_docs(source, None):
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


def _read_docs(source: Path, vocab: Optional[Vocab]) -> Iterator[Tuple[Doc, Where]]:
    number = 0
    for doc_bin in read_doc_bins(source):
        for doc in doc_bin.get_docs(vocab or Vocab()):
            number += 1
            yield doc, Where(source, number)


def _read_texts(source: Path, nlp: Language, findings: Findings) -> Iterator[Tuple[Any, Where]]:
    """Texts to be annotated; Docs keep their tokens and lose their annotation."""
    if source.is_dir() or source.suffix == ".spacy":
        for doc, where in _read_docs(source, nlp.vocab):
            words = [token.text for token in doc]
            yield Doc(nlp.vocab, words=words, spaces=[bool(token.whitespace_) for token in doc]), where
    elif source.name.endswith((".jsonl", ".jsonl.gz")):
        for where, record in read_json_objects(source, findings):
            text = record.get("text")
            if not isinstance(text, str):
                raise where.error("H107", repr(text))
            check_words(nlp, text, where)
            yield text, where
    elif source.name.endswith((".txt", ".txt.gz")) or not source.exists():
        for where, line in read_lines(source, findings):
            check_words(nlp, line, where)
            yield line, where
    else:
        raise BertHeadsError("H166", path=source, found=source.suffix or "no ending")
