"""Annotated texts -> tasks for the annotations that are probably wrong, the worst first."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy
import srsly
from spacy.tokens import Doc
from spacy.util import get_lang_class
from thinc.api import Config

from ..corpus.findings import Where
from ..corpus.readers.formats import AUTO, ReadOptions
from ..corpus.readers.labelling_config import LabellingConfig
from ..corpus.writers.exported import Contents, Exported
from ..corpus.writers.prodigy import UNKNOWN_LABEL, write_options, write_span, write_spans, write_tokens
from ..errors import BertHeadsError, printable
from ..evaluation.evaluate import read_examples
from ..evaluation.tables import Table
from ..extensions import get_ents_confidence
from ..files import check_not_read, check_writable, write_files
from ..training.fit_config import read_config
from .confident_learning import find_suspicions
from .folds import EXCLUSIVE, FoldSettings, Outcome, OutOfFold, ScoredSpan, predict_out_of_fold
from .hashes import set_hashes
from .label_studio.tasks import Suggested
from .tasks import Task

PRODIGY, LABEL_STUDIO = "prodigy", "label-studio"
FORMATS = (PRODIGY, LABEL_STUDIO)
# Prodigy shows one interface at a time, so there is a file for each that is needed
TASKS = {PRODIGY: ("ner_manual.jsonl", "choice.jsonl", "ner.jsonl"), LABEL_STUDIO: ("tasks.json",)}
INTERFACE, SUMMARY, FOLDS = "labeling_interface.xml", "label_errors.md", "folds"
# What keeps a ratio of two tiny probabilities from counting
TINY = 1e-3
# Reasons that a task names, and rows of a terminal and of the summary
MAX_REASONS, FEW_ROWS, MAX_ROWS = 5, 15, 50


class Suspicion(NamedTuple):
    """An annotation that may be wrong.

    text (int): Which text, counted from 0.
    head (str): The component; "" for entities.
    given (str): The label that it has; "" for no entity.
    suggested (str): The label that it should perhaps have; "" for no entity.
    reason (str): Why, for people to read.
    score (float): How suspicious it is. -1 to 1.
    is_suspect (bool): Whether confident learning counts it as an error.
    place (Tuple[int, int]): First character and the one behind the last; all 0 for categories.
    """

    text: int
    head: str
    given: str
    suggested: str
    reason: str
    score: float
    is_suspect: bool
    place: Tuple[int, int] = (0, 0)


@dataclass
class LabelErrors:
    """What was found.

    docs (List[Doc]): The annotated texts.
    found (OutOfFold): What pipelines say that did not learn from them.
    suspicions (List[Suspicion]): Annotations that may be wrong, the worst first.
    n_judged (Dict[str, int]): By head, annotations that could be judged.
    notes (List[str]): What could not be judged.
    files (List[Path]): Where the tasks are.
    """

    docs: List[Doc]
    found: OutOfFold
    suspicions: List[Suspicion]
    n_judged: Dict[str, int] = field(default_factory=dict)
    notes: List[str] = field(default_factory=list)
    files: List[Path] = field(default_factory=list)

    def chosen(self, limit: Optional[int]) -> List[Tuple[int, str, List[Suspicion]]]:
        """What people should look at.

        limit (Optional[int]): How many texts; None: all that confident learning counts as errors.
        RETURNS (List[Tuple[int, str, List[Suspicion]]]): Text, head and what is suspicious there, the worst first.
        """
        groups: Dict[Tuple[int, str], List[Suspicion]] = {}
        texts: Dict[int, None] = {}
        for one in self.suspicions:
            is_next = one.text not in texts and limit is not None and len(texts) < limit
            if is_next or (one.is_suspect and (limit is None or one.text in texts)):
                texts[one.text] = None
                groups.setdefault((one.text, one.head), []).append(one)
        return [(text, head, found) for (text, head), found in groups.items()]


def find_label_errors(
    config: Path,
    train: Path,
    output: Path,
    *,
    dev: Optional[Path] = None,
    folds: int = 5,
    epochs: Optional[int] = None,
    seed: int = 0,
    gpu: int = -1,
    n: Optional[int] = None,
    format: str = PRODIGY,
    say: Callable[[str], Any] = lambda text: None,
) -> LabelErrors:
    """Train on parts of a corpus, predict the others, and write tasks for the annotations that are probably wrong.

    config (Path): Training config.
    train (Path): Annotated texts: a `.spacy` file, a folder of them, or a file of any format that `convert` reads.
    output (Path): Folder for TASKS, SUMMARY and FOLDS, where finished folds are kept. Of TASKS, what has no task is
        not there.
    dev (Optional[Path]): Annotated texts that choose the best checkpoint of each training. None: those of the config.
    folds (int): How many parts.
    epochs (Optional[int]): Times over the texts in each training. None: as in the config.
    seed (int): Decides which text is in which fold.
    gpu (int): Number of the GPU, -1 for none.
    n (Optional[int]): How many texts; None: all that confident learning counts as errors.
    format (str): One of FORMATS.
    say (Callable[[str], Any]): Takes what is to be shown meanwhile.
    RETURNS (LabelErrors): What was found.
    RAISES (BertHeadsError): H101 if a file is missing; H118 for an unknown format; H123 if the folder cannot be
        written to; H633 if there is no text; H634 for an `n` below 1; H635 if there are no dev texts; whatever
        reading, predict_out_of_fold and training find wrong.
    """
    if format not in FORMATS:
        raise BertHeadsError("H118", found=repr(format), expected=", ".join(FORMATS))
    if n is not None and n < 1:
        raise BertHeadsError("H634", found=n)
    for name in (*TASKS[format], SUMMARY, INTERFACE):
        check_not_read(output / name, [config, train])
    check_writable(output)
    read = read_config(config)
    if dev is None:
        given = read.interpolate()["paths"].get("dev")
        dev = Path(given) if given else None
    if dev is None or not dev.exists():
        raise BertHeadsError("H635", path=config, found=dev)
    if not train.exists():
        raise BertHeadsError("H101", path=train)
    docs = _read_docs(read, train)
    if not docs:
        raise BertHeadsError("H633", path=train)
    settings = FoldSettings(config, dev, folds=folds, epochs=epochs, seed=seed, gpu=gpu)
    errors = rank(docs, predict_out_of_fold(docs, output / FOLDS, settings, say=say))
    contents = write_tasks(errors, n, format)
    errors.files = [output / name for name in contents]
    contents[SUMMARY] = to_markdown(errors)
    if format == LABEL_STUDIO:
        contents[INTERFACE] = _interface(errors).to_xml(words=True) + "\n"
    write_files({output / name: content.encode("utf8", "surrogatepass") for name, content in contents.items()})
    for name in TASKS[format]:
        if name not in contents:
            (output / name).unlink(missing_ok=True)
    return errors


def rank(docs: Sequence[Doc], found: OutOfFold) -> LabelErrors:
    """Order annotations by how probably they are wrong.

    Categories by confident learning, of labels that do not exclude each other each by itself. Entities by the same
    idea on spans: the classes are the labels and "no entity", the probabilities those of exactly this span under the
    CRF. Beside an annotated entity stands the most probable predicted one that overlaps it, or if there is none, "no
    entity"; beside a predicted entity that overlaps no annotated one, "no entity" is what is annotated. The score is
    that of their ratio, so it is high if what is predicted is many times as probable as what is annotated.

    docs (Sequence[Doc]): Annotated texts.
    found (OutOfFold): Predictions of pipelines that did not learn from them.
    RETURNS (LabelErrors): The ranking.
    """
    errors = LabelErrors(list(docs), found, [])
    for head, (kind, labels) in found.heads.items():
        judge = _judge_exclusive if kind == EXCLUSIVE else _judge_multilabel
        judge(errors, head, labels)
    if found.ner_labels is not None:
        _judge_entities(errors)
    errors.suspicions.sort(key=lambda one: (not one.is_suspect, -one.score, one.text))
    return errors


def _judge_exclusive(errors: LabelErrors, head: str, labels: Sequence[str]) -> None:
    numbers = {label: i for i, label in enumerate(labels)}
    texts, given = [], []
    n_unknown = 0
    for text, doc in enumerate(errors.docs):
        cats = {label: value for label, value in doc.cats.items() if value > 0}
        best = max(cats, key=lambda label: cats[label], default=None)
        if best in numbers and best in errors.found.outcomes[text].cats:
            texts.append(text)
            given.append(numbers[best])
        else:
            n_unknown += best is not None
    errors.n_judged[head] = len(texts)
    if n_unknown:
        errors.notes.append(
            f"{n_unknown} texts have a label of '{head}' that is in one fold alone, and are not judged."
        )
    if not texts:
        return
    table = [[errors.found.outcomes[text].cats.get(label, 0.0) for label in labels] for text in texts]
    probabilities = numpy.array(table)
    suspicions = find_suspicions(numpy.array(given), probabilities)
    for i, text in enumerate(texts):
        label, other = labels[given[i]], labels[int(suspicions.suggested[i])]
        value = probabilities[i, suspicions.suggested[i]]
        reason = f"labelled {label}, out-of-fold {value:.2f} for {other}"
        score, is_suspect = float(suspicions.scores[i]), bool(suspicions.is_suspect[i])
        errors.suspicions.append(Suspicion(text, head, label, other, reason, score, is_suspect))


def _judge_multilabel(errors: LabelErrors, head: str, labels: Sequence[str]) -> None:
    errors.n_judged[head] = 0
    for label in labels:
        texts = [
            text
            for text, doc in enumerate(errors.docs)
            if label in doc.cats and label in errors.found.outcomes[text].cats
        ]
        errors.n_judged[head] += len(texts)
        if not texts:
            continue
        values = numpy.array([errors.found.outcomes[text].cats[label] for text in texts])
        given = numpy.array([int(errors.docs[text].cats[label] > 0) for text in texts])
        suspicions = find_suspicions(given, numpy.stack([1 - values, values], axis=1))
        for i, text in enumerate(texts):
            holds = bool(given[i])
            reason = f"{'labelled' if holds else 'not labelled'} {label}, out-of-fold {values[i]:.2f} for {label}"
            score, is_suspect = float(suspicions.scores[i]), bool(suspicions.is_suspect[i])
            sides = (label, "") if holds else ("", label)
            errors.suspicions.append(Suspicion(text, head, *sides, reason, score, is_suspect))


def _judge_entities(errors: LabelErrors) -> None:
    outcomes = errors.found.outcomes
    thresholds = _entity_thresholds(outcomes)
    n_unknown = 0
    for text, outcome in enumerate(outcomes):
        words = errors.docs[text].text
        n_unknown += sum(span.probability is None for span in outcome.gold)
        for suspicion in _judge_spans(text, words, outcome, thresholds):
            errors.suspicions.append(suspicion)
    errors.n_judged[""] = sum(span.probability is not None for outcome in outcomes for span in outcome.gold)
    if n_unknown:
        errors.notes.append(f"{n_unknown} entities have a label that is in one fold alone; they are not judged.")


def _entity_thresholds(outcomes: Sequence[Outcome]) -> Dict[str, float]:
    """For each label, and "" for no entity, the mean probability where it is annotated."""
    sums: "Counter[str]" = Counter()
    counts: "Counter[str]" = Counter()
    for outcome in outcomes:
        for span in outcome.gold:
            if span.probability is not None:
                sums[span.label] += span.probability  # type: ignore[assignment]
                counts[span.label] += 1
        sums[""] += outcome.outside[0]  # type: ignore[assignment]
        counts[""] += outcome.outside[1]
    return {label: sums[label] / count for label, count in counts.items() if count}


def _judge_spans(text: int, words: str, outcome: Outcome, thresholds: Dict[str, float]) -> Iterator[Suspicion]:
    annotated = {(span.start, span.end, span.label) for span in outcome.gold}
    others = [span for span in outcome.predicted if (span.start, span.end, span.label) not in annotated]

    def suspicion(span: ScoredSpan, given: str, suggested: str, reason: str, own: float, value: float) -> Suspicion:
        score = (value - own) / (value + own + 2 * TINY)
        is_suspect = value >= thresholds.get(suggested, numpy.inf) and value > own
        return Suspicion(text, "", given, suggested, reason, score, is_suspect, (span.start, span.end))

    for span in outcome.gold:
        if span.probability is None:
            continue
        rivals = [other for other in others if _overlap(span, other) and other.probability is not None]
        shown = f'"{words[span.start : span.end]}" labelled {span.label}'
        if rivals:
            rival = max(rivals, key=lambda other: other.probability or 0.0)
            value = rival.probability or 0.0
            is_same = (rival.start, rival.end) == (span.start, span.end)
            place = "" if is_same else f' "{words[rival.start : rival.end]}"'
            reason = f"{shown}, out-of-fold {value:.2f} for {rival.label}{place}"
            yield suspicion(span, span.label, rival.label, reason, span.probability, value)
        else:
            reason = f"{shown}, out-of-fold {span.outside:.2f} for no entity"
            yield suspicion(span, span.label, "", reason, span.probability, span.outside)
    for span in others:
        is_free = not any(_overlap(span, other) for other in outcome.gold)
        is_known = not any(start < span.end and span.start < end for start, end in outcome.unknown)
        if span.probability is not None and is_free and is_known:
            reason = f'"{words[span.start : span.end]}" not labelled, '
            reason += f"out-of-fold {span.probability:.2f} for {span.label}"
            yield suspicion(span, "", span.label, reason, span.outside, span.probability)


def _overlap(one: ScoredSpan, other: ScoredSpan) -> bool:
    return one.start < other.end and other.start < one.end


def write_tasks(errors: LabelErrors, limit: Optional[int], format: str) -> Dict[str, str]:
    """Write what people should look at, with the annotation as it is filled in.

    errors (LabelErrors): What was found.
    limit (Optional[int]): How many texts; None: all that confident learning counts as errors.
    format (str): PRODIGY: a task for each text and head that is suspicious, which asks about that head alone.
        LABEL_STUDIO: a task for each text, for an interface with all heads.
    RETURNS (Dict[str, str]): Content of TASKS, of those that have any.
    """
    if format == LABEL_STUDIO:
        return {TASKS[LABEL_STUDIO][0]: "".join(_label_studio_tasks(errors, limit))}
    files: Dict[str, List[str]] = {name: [] for name in TASKS[PRODIGY]}
    for text, head, found in errors.chosen(limit):
        for task in _make_tasks(errors, text, head, found):
            files[f"{task['_view_id']}.jsonl"].append(srsly.json_dumps(task) + "\n")
    return {name: "".join(lines) for name, lines in files.items() if lines}


def _label_studio_tasks(errors: LabelErrors, limit: Optional[int]) -> Iterator[str]:
    config = _interface(errors)
    reasons: Dict[int, List[Suspicion]] = {}
    for text, _, found in errors.chosen(limit):
        reasons.setdefault(text, []).extend(found)
    yield "["
    for number, (text, found) in enumerate(reasons.items(), 1):
        suggested = Suggested(errors.docs[text].text, Where(Path("annotation"), number))
        for head in [*errors.found.heads, *([""] if errors.found.ner_labels is not None else [])]:
            for task in _make_tasks(errors, text, head, []):
                if task["_view_id"] != "ner":  # Label Studio has only whole answers
                    suggested.add(task, suggested.where)
        suggested.confidence = (1.0 - max(one.score for one in found)) / 2
        meta = _describe(found)
        task = {
            "data": {**suggested.data(config), "reason": meta["reason"]},
            "meta": meta,
            "predictions": [suggested.prediction(config, "annotation")],
        }
        yield ("," if number > 1 else "") + "\n" + srsly.json_dumps(task)
    yield "\n]\n"


def to_markdown(errors: LabelErrors) -> str:
    """RETURNS (str): What was found, as tables."""
    lines = ["# Annotations that are probably wrong", "", *(f"- {note}" for note in errors.notes)]
    for table in make_tables(errors, MAX_ROWS):
        lines += ["", table.to_markdown()]
    return "\n".join(lines) + "\n"


def make_tables(errors: LabelErrors, limit: int) -> List[Table]:
    """RETURNS (List[Table]): How many there are by head, which labels, and the first of them; `limit` rows at most."""
    suspects = [one for one in errors.suspicions if one.is_suspect]
    by_head = Counter(one.head for one in suspects)
    shares = [
        (head or "entities", f"{by_head[head]:,}", f"{n:,}", f"{100 * by_head[head] / n:.1f} %" if n else "-")
        for head, n in errors.n_judged.items()
    ]
    pairs = Counter((one.head, one.given, one.suggested) for one in suspects)
    rows = [
        (_show_pair(given, suggested) + (f" ({head})" if head else ""), f"{count:,}")
        for (head, given, suggested), count in pairs.most_common(limit)
    ]
    worst = [(_shorten(errors.docs[one.text].text), one.reason, f"{one.score:.2f}") for one in suspects[:limit]]
    tables = [
        Table("Annotations", ("", "probably wrong", "judged", "share"), shares),
        Table("Labels", ("annotated → perhaps", "count"), rows),
        Table("The most suspicious ones", ("text", "reason", "score"), worst, is_detail=True),
    ]
    return [table for table in tables if table.rows]


def to_text(errors: LabelErrors) -> str:
    """RETURNS (str): What was found, for a terminal."""
    lines = [printable(f"Note: {note}") for note in errors.notes]
    for table in make_tables(errors, FEW_ROWS):
        if not table.is_detail:
            lines += [table.to_text(), ""]
    return "\n".join(lines).rstrip("\n")


def _show_pair(given: str, suggested: str) -> str:
    if given == suggested:
        return f"{given}, other boundaries"
    return f"{given or 'none'} → {suggested or 'none'}"


def _read_docs(config: Config, path: Path) -> List[Doc]:
    """Annotated texts, by the tokenizer of the pipeline that is to be trained."""
    settings = config.interpolate()["nlp"]
    part = {name: settings[name] for name in ("lang", "tokenizer") if name in settings}
    nlp = get_lang_class(settings["lang"]).from_config({"nlp": part}, auto_fill=True)
    return [eg.reference for eg in read_examples(nlp, path, AUTO, ReadOptions(), "error", False) if len(eg.reference)]


def _make_tasks(errors: LabelErrors, text: int, head: str, found: Sequence[Suspicion]) -> List[Task]:
    """Tasks about one head. Of entities of which somebody judged single ones, those are asked about one by one."""
    doc = errors.docs[text]
    base: Task = {"text": doc.text, **({"meta": _describe(found)} if found else {})}
    if head:
        kind, labels = errors.found.heads[head]
        known = list(labels) if kind == EXCLUSIVE else [label for label in labels if label in doc.cats]
        task = {**set_hashes(base), "options": write_options(doc, known, None)}
        task["accept"] = [label for label in known if doc.cats.get(label, 0.0) > 0]
        # Where a text has other categories too, `merge` would take a single choice for one among all of them
        is_single = kind == EXCLUSIVE and set(doc.cats) <= set(known)
        task["config"] = {"choice_style": "single" if is_single else "multiple"}
        return [{**task, "_view_id": "choice"}] if known else []
    exported = Exported.from_doc(doc, Where(Path("annotation"), text + 1), Contents(True, False, frozenset()))
    if not exported.asks_ents:
        return []
    if not exported.complete:
        places = {one.place for one in found}
        spans = [write_span(ent) for ent in doc.ents if (ent.start_char, ent.end_char) in places]
        return [
            {
                **set_hashes({**base, "spans": [one]}),
                "tokens": write_tokens(doc),
                "_is_binary": True,
                "_view_id": "ner",
            }
            for one in spans
        ]
    spans = write_spans(doc.ents, get_ents_confidence(doc), None)
    for start, end, *_ in exported.unknown:
        spans.append({**write_span(doc[start:end]), "label": UNKNOWN_LABEL, "answer": "ignore"})
    return [{**set_hashes({**base, "spans": spans}), "tokens": write_tokens(doc), "_view_id": "ner_manual"}]


def _describe(found: Sequence[Suspicion]) -> Dict[str, Any]:
    reasons = [one.reason for one in found[:MAX_REASONS]]
    return {"reason": "; ".join(reasons), "suspicion": round(max(one.score for one in found), 4)}


def _interface(errors: LabelErrors) -> LabellingConfig:
    """Of several heads that classify texts, the first one."""
    kind, labels = next(iter(errors.found.heads.values()), (EXCLUSIVE, ()))
    return LabellingConfig.from_labels(errors.found.ner_labels or (), labels, exclusive=kind == EXCLUSIVE)


def _shorten(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:99]}…"
