"""How often teacher, student and people agree: a large language model, the pipeline, and those who corrected both."""

from dataclasses import replace
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Sequence

from spacy.tokens import Doc

from ..corpus.annotations import Annotation, CharSpan
from ..corpus.findings import Findings, Where
from ..corpus.readers.lines import read_json_objects
from ..corpus.readers.options import ReadOptions
from ..corpus.readers.prodigy import TEACHER, read_record
from ..corpus.readers.spacy_files import DocBinConverter
from ..corpus.writers.exported import THRESHOLD
from ..errors import BertHeadsError
from .agreement import Agreement
from .heads import Heads
from .merge import list_spacy_files
from .tasks import BINARY_VIEWS

TEACHER_NAME, STUDENT_NAME, PERSON_NAME = "teacher", "student", "person"


def compare(tasks: Sequence[Path], corpora: Sequence[Path], predicted: Iterable[Doc], heads: Heads) -> Agreement:
    """Compare what was filled in with what people made of it.

    A task says what the teacher, or a pipeline that had not learned from it, thought of its text. On texts that are
    held out, the present student is asked too. A pipeline is asked about those texts first that it knows least
    about, so that its tasks show it at its worst.

    tasks (Sequence[Path]): Tasks of all rounds, as they were written. Those that ask yes or no are passed over.
    corpora (Sequence[Path]): `.spacy` files of what people answered.
    predicted (Iterable[Doc]): Of these texts, predictions of the present round by pipelines that have not learned from
        them.
    heads (Heads): The heads of the present pipeline.
    RETURNS (Agreement): Of "teacher", "student" and "person".
    """
    said: Dict[str, List[Annotation]] = {}
    for path in corpora:
        for annotation in _read_corpus(path):
            said.setdefault(annotation.text, []).append(replace(annotation, annotator=PERSON_NAME))
    for doc in predicted:
        said[doc.text].append(_annotate(doc, heads))
    for path in tasks:
        for annotation in _read_tasks(path):
            known = said.get(annotation.text, [])
            if known and annotation.annotator not in [one.annotator for one in known]:
                known.append(annotation)
    agreement = Agreement()
    for versions in said.values():
        agreement.add(versions)
    return agreement


def _read_corpus(path: Path) -> Iterator[Annotation]:
    for file in list_spacy_files(path):
        yield from DocBinConverter().read(file, Findings(skip_bad=True), ReadOptions())


def _read_tasks(path: Path) -> Iterator[Annotation]:
    findings = Findings(skip_bad=True)
    for where, record in read_json_objects(path, findings, progress=False):
        if record.get("_view_id") in BINARY_VIEWS:
            continue
        name = TEACHER_NAME if TEACHER in record else STUDENT_NAME
        try:
            found = read_record({**record, "_annotator_id": name}, where, findings)
        except BertHeadsError:
            continue
        if not found.is_empty:
            yield found


def _annotate(doc: Doc, heads: Heads) -> Annotation:
    """What a pipeline predicts."""
    cats: Dict[str, float] = {}
    if heads.textcat is not None:
        labels = heads.textcat.labels
        best = max(labels, key=lambda label: doc.cats[label])
        holding = [best] if heads.textcat.exclusive else [one for one in labels if doc.cats[one] >= THRESHOLD]
        cats = {label: float(label in holding) for label in labels}
    return Annotation(
        doc.text,
        Where(Path(), 0),
        ents=[CharSpan(ent.start_char, ent.end_char, ent.label_) for ent in doc.ents],
        complete=heads.ner is not None,
        cats=cats,
        exclusive=heads.textcat is not None and heads.textcat.exclusive,
        annotator=STUDENT_NAME,
    )
