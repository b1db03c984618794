"""How often teacher, student and people agree: a large language model, the pipeline, and those who corrected both."""

from pathlib import Path
from typing import Dict, Iterator, List, Optional, Sequence

from spacy.language import Language
from spacy.tokens import Doc

from ..corpus.annotations import Annotation, CharSpan
from ..corpus.doc_bins import read_doc_bins
from ..corpus.findings import Findings, Where
from ..corpus.readers.lines import read_json_objects
from ..corpus.readers.prodigy import TEACHER, read_record
from ..corpus.writers.exported import THRESHOLD
from ..errors import BertHeadsError
from .agreement import Agreement
from .heads import Heads, find_heads
from .tasks import BINARY_VIEWS

TEACHER_NAME, STUDENT_NAME, PERSON_NAME = "teacher", "student", "person"


def compare(tasks: Sequence[Path], corpora: Sequence[Path], held_out: Optional[Path], nlp: Language) -> Agreement:
    """Compare what was filled in with what people made of it.

    A task says what the teacher, or a pipeline that had not learned from it, thought of its text. On texts that nobody
    learns from, the present pipeline is asked too. A pipeline is asked about those texts first that it knows least
    about, so that its tasks show it at its worst.

    tasks (Sequence[Path]): Tasks of all rounds, as they were written. Those that ask yes or no are passed over.
    corpora (Sequence[Path]): `.spacy` files of what people answered.
    held_out (Optional[Path]): That of them from which no pipeline has learned.
    nlp (Language): The present pipeline.
    RETURNS (Agreement): Of "teacher", "student" and "person".
    """
    said: Dict[str, List[Annotation]] = {}
    for path in corpora:
        for doc in _read_docs(path, nlp):
            complete = doc.has_annotation("ENT_IOB")
            said.setdefault(doc.text, []).append(_annotate(doc, path, PERSON_NAME, complete, doc.cats))
    if held_out is not None:
        heads = find_heads(nlp)
        golds = list(_read_docs(held_out, nlp))
        for gold, doc in zip(golds, nlp.pipe(doc.text for doc in golds)):
            cats = _chosen(doc, heads)
            said[gold.text].append(_annotate(doc, held_out, STUDENT_NAME, heads.ner is not None, cats))
    for path in tasks:
        for annotation in _read_tasks(path):
            known = said.get(annotation.text, [])
            if known and annotation.annotator not in [one.annotator for one in known]:
                known.append(annotation)
    agreement = Agreement()
    for versions in said.values():
        agreement.add(versions)
    return agreement


def _read_docs(path: Path, nlp: Language) -> Iterator[Doc]:
    for doc_bin in read_doc_bins(path):
        yield from doc_bin.get_docs(nlp.vocab)


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


def _annotate(doc: Doc, path: Path, name: str, complete: bool, cats: Dict[str, float]) -> Annotation:
    ents = [CharSpan(ent.start_char, ent.end_char, ent.label_) for ent in doc.ents]
    exclusive = len(cats) > 1 and sorted(cats.values())[-2:] == [0.0, 1.0]
    return Annotation(
        doc.text, Where(path, 0), ents=ents, complete=complete, cats=dict(cats), exclusive=exclusive, annotator=name
    )


def _chosen(doc: Doc, heads: Heads) -> Dict[str, float]:
    if heads.textcat is None:
        return {}
    if not heads.textcat.exclusive:
        return {label: float(doc.cats[label] >= THRESHOLD) for label in heads.textcat.labels}
    best = max(heads.textcat.labels, key=lambda label: doc.cats[label])
    return {label: float(label == best) for label in heads.textcat.labels}
