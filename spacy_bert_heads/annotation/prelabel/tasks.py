"""What a large language model said about a text -> a task in which people correct it."""

from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from spacy.tokens import Doc, Span

from ...corpus.annotations import CharSpan
from ...corpus.findings import Where
from ...corpus.readers.prodigy import TEACHER, UNSURE, UNSURE_CATEGORIES
from ...corpus.writers.exported import Contents, Exported
from ...corpus.writers.prodigy import write_options, write_spans, write_tokens
from ...extensions import get_ents_confidence, set_confidence
from ..hashes import set_hashes
from ..heads import Heads
from ..tasks import ANSWER_KEYS, blocks
from .answers import Aligned
from .questions import Question

Record = Dict[str, Any]


class Opinion(NamedTuple):
    """What one answer, or two, say about a text.

    ents (List[CharSpan]): Entities to be filled in, without overlap.
    cats (Dict[str, float]): Categories; empty if there is no answer to that.
    unsure (List[CharSpan]): Stretches about which two answers disagree, entities of `ents` among them.
    unsure_cats (List[str]): Categories about which they do.
    agreement (Optional[float]): Share of what they say that both say, 0 to 1. None of one answer alone.
    """

    ents: List[CharSpan]
    cats: Dict[str, float]
    unsure: List[CharSpan] = []
    unsure_cats: List[str] = []
    agreement: Optional[float] = None


def join(answers: Sequence[Aligned], *, exclusive: bool) -> Opinion:
    """Make one opinion of one answer or of two to the same question.

    Where two differ, both are filled in as far as they do not overlap, the first one first: to remove an entity is
    less work than to find one.

    answers (Sequence[Aligned]): One or two.
    exclusive (bool): Whether exactly one category holds for a text.
    RETURNS (Opinion): What they say together.
    """
    if len(answers) == 1:
        return Opinion(answers[0].ents, answers[0].cats)
    first, second = answers
    agreed = [ent for ent in first.ents if ent in second.ents]
    single = [ent for ent in (*first.ents, *second.ents) if ent not in agreed]
    ents = list(agreed)
    for ent in single:
        if not any(ent.start < other.end and other.start < ent.end for other in ents):
            ents.append(ent)
    differing = [name for name in first.cats if first.cats[name] != second.cats.get(name)]
    differing += [name for name in second.cats if name not in first.cats]
    unsure_cats = sorted({*first.cats, *second.cats}) if exclusive and differing else sorted(set(differing))
    chosen = [{name for name, value in one.cats.items() if value} for one in answers]
    n_both = len(agreed) + len(chosen[0] & chosen[1])
    n_said = sum(len(one.ents) for one in answers) + sum(map(len, chosen))
    return Opinion(
        sorted(ents), first.cats or second.cats, sorted(single), unsure_cats, 2 * n_both / n_said if n_said else 1.0
    )


def build_doc(doc: Doc, opinion: Opinion) -> Doc:
    """Put an opinion on a Doc.

    doc (Doc): Of the text, with its tokens alone.
    opinion (Opinion): What is said about it.
    RETURNS (Doc): The same Doc. Entities have a confidence where two answers were asked for: 1 or 0.5.
    """
    ents: List[Span] = []
    for start, end, label in opinion.ents:
        span = doc.char_span(start, end, label=label)
        assert span is not None  # `align` looked at these tokens
        ents.append(span)
    doc.set_ents(ents, default="outside")
    doc.cats = dict(opinion.cats)
    if opinion.agreement is not None:
        for ent, place in zip(ents, opinion.ents):
            set_confidence(ent, 0.5 if place in opinion.unsure else 1.0)
    return doc


def make_task(doc: Doc, record: Record, question: Question, opinion: Opinion, provenance: Dict[str, str]) -> Record:
    """Make a task in Prodigy's format.

    doc (Doc): What build_doc returns.
    record (Dict[str, Any]): The source of the text. Its other keys are kept, but for what an earlier answer said.
    question (Question): What was asked.
    opinion (Opinion): What was answered.
    provenance (Dict[str, str]): Who answered to what: "model" and "prompt".
    RETURNS (Dict[str, Any]): The task. "teacher" tells an answer that nobody has reviewed from one of a person.
    """
    task = begin_task(doc, record, question, provenance["model"])
    shown = {"teacher": provenance["model"], "prompt": provenance["prompt"]}
    if opinion.agreement is not None:
        shown["agreement"] = round(opinion.agreement, 2)  # type: ignore[assignment]
    task["meta"].update(shown)
    task[TEACHER] = dict(provenance)
    if opinion.unsure:
        task[TEACHER][UNSURE] = [[start, end] for start, end, _ in opinion.unsure]
    if opinion.unsure_cats:
        task[TEACHER][UNSURE_CATEGORIES] = opinion.unsure_cats
    return task


def begin_task(doc: Doc, record: Record, question: Question, model: Optional[str] = None) -> Record:
    """Make a task of what is on a Doc, without a word about where it is from.

    doc (Doc): The text, its entities and categories filled in, if somebody has said anything about them.
    record (Dict[str, Any]): The source of the text; see make_task.
    question (Question): What is asked about it.
    model (Optional[str]): Who found the entities.
    RETURNS (Dict[str, Any]): The task.
    """
    task: Record = {**keep_keys(record), "text": doc.text}
    if question.labels:
        task["spans"] = write_spans(doc.ents, get_ents_confidence(doc), model)
    task = set_hashes(task)
    config: Dict[str, Any] = {}
    if question.labels:
        task["tokens"] = write_tokens(doc)
    if question.categories:
        task["options"] = write_options(doc, question.categories, None)
        task["accept"] = [name for name in question.categories if doc.cats.get(name)]
        config["choice_style"] = "single" if question.exclusive else "multiple"
    if question.view == "blocks":
        config["blocks"] = blocks(Heads(ner=None, textcat=None))
    if config:
        task["config"] = config
    meta = record.get("meta")
    task["meta"] = dict(meta) if isinstance(meta, dict) else {}
    task["_view_id"] = question.view
    return task


def keep_keys(record: Record) -> Record:
    """RETURNS (Dict[str, Any]): The keys of a source that a task keeps."""
    return {key: value for key, value in record.items() if key not in (*ANSWER_KEYS, "text")}


def export_doc(doc: Doc, record: Record, where: Where, contents: Contents, provenance: Dict[str, str]) -> Exported:
    """RETURNS (Exported): A Doc with its opinion and where that is from, for the writers of other formats."""
    others = {**keep_keys(record), TEACHER: provenance["model"], "prompt": provenance["prompt"]}
    return Exported.from_doc(doc, where, contents, others)


def contents_of(question: Question, model: Optional[str]) -> Contents:
    """RETURNS (Contents): What all texts have in common, for the writers of other formats."""
    exclusive: Tuple[Any, ...] = (frozenset(question.categories),) if question.exclusive else ()
    return Contents(
        has_ents=bool(question.labels),
        has_cats=bool(question.categories),
        scores=frozenset(),
        model=model,
        exclusive=exclusive if question.categories else (),
    )
