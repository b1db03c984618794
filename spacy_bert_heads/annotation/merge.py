"""Answers joined to a corpus, text by text: what is new, what is changed, and where people disagree."""

import os
from collections import Counter, deque
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

from spacy.language import Language
from spacy.tokens import Doc
from tqdm import tqdm
from wasabi import table

from ..corpus.annotations import Annotation, CharSpan
from ..corpus.annotations import merge as merge_records
from ..corpus.convert import commit
from ..corpus.doc_bins import DocWriter
from ..corpus.docs import INCORRECT_SPANS_KEY, build_doc, load_tokenizer
from ..corpus.findings import Findings, Where
from ..corpus.readers.formats import AUTO, CONVERTERS, ReadOptions
from ..corpus.readers.lines import iter_lines, read_head
from ..corpus.readers.prodigy import SILVER_WEIGHT, find_labels
from ..corpus.reading import in_memory_zones, read_files
from ..corpus.report import ConvertReport
from ..corpus.splits import SPLITS, assign_split, parse_split, split_key
from ..corpus.store import StoredText, TextStore
from ..errors import BertHeadsError, BrokenLineError, NothingAnnotatedError, printable
from ..files import Staging, check_not_read, check_writable, clean_up, lock
from .agreement import Agreement
from .hashes import input_hash

# Answers are there to be learned from, as in the loop: a dev split that grew by them would be another yardstick.
DEFAULT_SPLIT = "1,0,0"
# What a file is for. The place of a text is that of the first of these in which it is.
LEAVE_OUT, TEST, DEV, TRAIN, RECORDS = range(5)
SPLIT_OF: Dict[Optional[int], str] = {TEST: "test", DEV: "dev", TRAIN: "train"}
# Findings that say that answers about a text contradict each other.
CONFLICTS = ("entity_conflict", "binary_conflict", "binary_against_manual", "binary_overlap", "category_conflict")
UNANSWERED = "not answered"
# What of a corpus would be lost, and the error that says so
LOST = (("other_groups", "H581"), ("ents_beside_group", "H590"))
# How many conflicts and new labels the text report names. The JSON report names all.
MAX_SHOWN = 20
EXCERPT = 32


class Conflict(NamedTuple):
    """Answers about a text that contradict each other.

    where (Where): Place of the answer that lost.
    kind (str): One of CONFLICTS.
    detail (str): What it is about, and where the answer is that won.
    text (str): The text.
    kept (str): What the answers that won say where they differ.
    lost (str): What the answer that lost says there.
    """

    where: Where
    kind: str
    detail: str
    text: str
    kept: str
    lost: str


@dataclass
class MergeReport(ConvertReport):
    """What `merge` read, decided and wrote.

    texts (Counter[str]): Texts by what the answers did to them: "new", "changed", "unchanged" (answered as the corpus
        has it), "not answered", "left out".
    conflicts (List[Conflict]): All of them.
    new_labels (Dict[Tuple[str, str], Where]): Kind and name of labels that the corpus did not have, with an answer
        that has each. None are listed where there was no corpus.
    agreement (Agreement): Of annotators whom the answers name.
    """

    # The loop shows a report in each round, and `inspect` the labels of a corpus
    shows_labels: ClassVar[bool] = False
    shown_elsewhere: ClassVar[Sequence[str]] = CONFLICTS
    texts: "Counter[str]" = field(default_factory=Counter)
    conflicts: List[Conflict] = field(default_factory=list)
    new_labels: Dict[Tuple[str, str], Where] = field(default_factory=dict)
    agreement: Agreement = field(default_factory=Agreement)

    def to_dict(self) -> Dict[str, Any]:
        """RETURNS (Dict[str, Any]): The report, ready for JSON."""
        conflicts = [
            {
                "path": str(conflict.where.path),
                "line": conflict.where.line,
                "record": conflict.where.record,
                "kind": conflict.kind,
                "detail": conflict.detail,
                "text": conflict.text,
                "kept": conflict.kept,
                "not_used": conflict.lost,
            }
            for conflict in self.conflicts
        ]
        labels = [
            {"kind": kind, "label": label, "path": str(where.path), "line": where.line}
            for (kind, label), where in sorted(self.new_labels.items())
        ]
        return {
            **super().to_dict(),
            "texts": dict(self.texts),
            "conflicts": conflicts,
            "agreement": self.agreement.to_list(),
            "new_labels": labels,
        }

    def to_text(self) -> str:
        """RETURNS (str): The report, ready for a terminal. Its last line says what was written."""
        *lines, written = super().to_text().split("\n")
        if self.conflicts:
            lines += [f"Conflicts ({len(self.conflicts)}), the newest answer kept:", render_conflicts(self.conflicts)]
        if len(self.conflicts) > MAX_SHOWN:
            lines.append(f"  and {len(self.conflicts) - MAX_SHOWN} more, which --report lists")
        lines += filter(None, [self.agreement.to_text()])
        for (kind, label), where in sorted(self.new_labels.items())[:MAX_SHOWN]:
            at = printable(where)
            lines.append(f"Warning: the corpus had no {kind} label {label!r}, first at {at}. Is it new, or a typo?")
        counts = ", ".join(f"{self.texts[name]} {name}" for name in ("new", "changed", "unchanged", "left out"))
        lines.append(f"Answered texts: {counts}")
        return "\n".join([*lines, written])


def render_conflicts(conflicts: Sequence[Conflict]) -> str:
    """RETURNS (str): The first ones as a table for a terminal: what was kept, what was not used, and where that is."""
    rows = [
        (_shorten(one.text), _shorten(one.kept), _shorten(one.lost), printable(one.where))
        for one in conflicts[:MAX_SHOWN]
    ]
    return str(table(rows, header=("text", "kept", "not used", "at"), divider=True, max_col=EXCERPT)).strip("\n")


def merge(
    bases: Sequence[Path],
    output: Path,
    *,
    answers: Sequence[Path],
    split: str = DEFAULT_SPLIT,
    seed: int = 0,
    leave_out: Sequence[Path] = (),
    lang: str = "en",
    exclusive: bool = False,
    off_tokens: str = "error",
    skip_bad: bool = False,
    report_path: Optional[Path] = None,
    merged_before: Sequence[Path] = (),
    spans_key: Optional[str] = None,
    silver: Sequence[Path] = (),
    silver_weight: float = SILVER_WEIGHT,
) -> MergeReport:
    """Join answers to a corpus: all that is known about a text becomes one Doc, by the rules of
    `corpus.annotations.merge`.

    An answer wins over what the corpus says, unless the corpus knows of a newer one. A Doc keeps the time of the
    newest answer in it, so what comes out can be a corpus to merge with again, and answers that are in it already
    change nothing, byte for byte. Texts stay in the split in which they are. Split for split, what is written is the
    old file or the new one.

    bases (Sequence[Path]): The corpus: annotation files of any known format, `.spacy` files, or folders of
        train.spacy, dev.spacy and test.spacy, whose texts stay where they are. It may be the output, or empty.
    output (Path): Folder for train.spacy, dev.spacy and test.spacy; the latter two if anything belongs there.
    answers (Sequence[Path]): Answered tasks in any known format. A file that is given twice is read once.
    split (str): Shares of train, dev and test among texts that are in no split yet, decided by the text alone.
    seed (int): Another seed divides otherwise.
    leave_out (Sequence[Path]): Files or folders whose texts, whatever is said about them, are not written, such as
        those on which the pipeline is scored.
    lang (str): Language whose tokenizer splits texts that come without tokens.
    exclusive (bool): Whether exactly one category holds for a text of the corpus. Files that say so themselves need
        this not.
    off_tokens (str): What to do with spans not at token boundaries: "error", "drop", "expand" or "split".
    skip_bad (bool): Whether bad records are counted and left out. Otherwise the first one stops everything.
    report_path (Optional[Path]): Where to write the report as JSON.
    merged_before (Sequence[Path]): Those of `answers` whose texts were counted as new before, such as in an earlier
        round, and are not again.
    spans_key (Optional[str]): Key of `doc.spans` where entities are and are put, which may then overlap. None: they
        are in `doc.ents`.
    silver (Sequence[Path]): Files of answers of a large language model, such as `prelabel` writes, that nobody has
        reviewed. They say what no person says: a text that people have annotated is theirs alone, and only texts of
        the train split are taken.
    silver_weight (float): How much such a text counts in training, above 0 and at most 1.
    RETURNS (MergeReport): What was read, decided and written.
    RAISES (BertHeadsError): H1xx for anything wrong with files or settings, H504 for a weight that is none, H520 for a
        file of answers whose last line is cut off, H581 for a corpus with groups of spans that would be lost, H590
        for one with entities beside the group that is merged. Nothing is written then.
    """
    shares = parse_split(split)
    if not 0.0 < silver_weight <= 1.0:
        raise BertHeadsError("H504", name="--silver-weight", found=silver_weight, expected="above 0, at most 1")
    for folder in (output, *([report_path.parent] if report_path else [])):
        check_writable(folder)
    files = _list_files(bases, leave_out)
    if report_path is not None:
        check_not_read(report_path, [*bases, *leave_out, *files, *answers, *silver])
    counted = set(map(os.path.realpath, merged_before))
    known_as = set(map(os.path.realpath, files))
    answer_files = list(
        {os.path.realpath(path): path for path in answers if os.path.realpath(path) not in known_as}.values()
    )
    old_files = {path for path in answer_files if os.path.realpath(path) in counted}
    nlp = load_tokenizer(lang)
    report = MergeReport({"lang": lang, "seed": seed, "split": shares}, Findings(skip_bad=skip_bad))
    with lock(output), closing(_MergeStore()) as store:
        options = ReadOptions(lang=lang, spans_key=spans_key)
        for path, role in files.items():
            _read(path, store, nlp, role, options, off_tokens, report)
            for kind, code in LOST:
                if role != LEAVE_OUT and report.findings.counts[kind]:
                    raise BertHeadsError(code, path=path, found=report.findings.counts[kind], key=spans_key)
        taken = {*known_as, *map(os.path.realpath, answer_files)}
        for path in {os.path.realpath(path): path for path in silver if os.path.realpath(path) not in taken}.values():
            store.silver = silver_weight
            _read(path, store, nlp, RECORDS, options, off_tokens, report)
        store.silver = None
        known_labels = set(store.labels)
        other_labels = {label for kind, label in known_labels if kind == "entity"} | _labels_in_use(answer_files)
        options = replace(options, only_answered=True, other_labels=frozenset(other_labels))
        for path in answer_files:
            with _cut_off_told(path):
                _read(path, store, nlp, RECORDS, options, off_tokens, report)
        if known_labels:
            report.new_labels = {key: where for key, where in store.labels.items() if key not in known_labels}
        placed = {SPLIT_OF.get(role) for role in files.values()}
        names = [
            name
            for name in SPLITS
            if name == "train" or shares[name] or name in placed or (output / f"{name}.spacy").exists()
        ]
        report.splits = {name: report.splits[name] for name in names}
        with Staging() as staging:
            writers = {name: DocWriter(staging, output / f"{name}.spacy") for name in names}
            groups = {spans_key, INCORRECT_SPANS_KEY}
            for stored in _stored_texts(store, nlp):
                annotation, effect = _merge_text(
                    stored, set(answer_files), old_files, exclusive, report, options.overlaps
                )
                place = None if stored.elsewhere is None else files[stored.elsewhere.path]
                doc = _build_doc(nlp, annotation, report.findings, spans_key)
                if place == LEAVE_OUT:
                    report.findings.note("left_out_of_main", annotation.where, f"same text as {stored.elsewhere}")
                elif not (doc.cats or doc.has_annotation("ENT_IOB") or groups & {*doc.spans}):
                    report.findings.note("no_annotation", annotation.where, "none of its answers is left")
                else:
                    name = SPLIT_OF.get(place) or assign_split(split_key(annotation.text), shares, seed)
                    if annotation.silver is not None:
                        report.findings.note("silver" if name == "train" else "silver_not_train", annotation.where)
                        if name != "train":
                            continue
                    report.texts[effect] += 1
                    report.splits[name].add(doc, spans_key=spans_key)
                    writers[name].add(doc)
                    continue
                report.texts["left out"] += effect != UNANSWERED
            if not report.splits["train"].docs:
                raise BertHeadsError("H121", found=f"{store.count(RECORDS)} texts, none of them for train")
            commit(staging, writers, report, report_path)
    return report


class _MergeStore(TextStore):
    """Keeps all records together, and of those in a split, or to be left out, a mark in its own role.

    labels (Dict[Tuple[str, str], Where]): Kind and name of all labels, and where each was first.
    silver (Optional[float]): Weight of what is added now, if that is what a large language model says.
    """

    def __init__(self) -> None:
        super().__init__(RECORDS + 1)
        self.silver: Optional[float] = None
        self.labels: Dict[Tuple[str, str], Where] = {}

    def add(self, annotation: Annotation, role: int = RECORDS) -> None:
        if self.silver is not None:
            annotation = replace(annotation, silver=self.silver)
        if role != RECORDS:
            super().add(Annotation(annotation.text, annotation.where), role)
        if role != LEAVE_OUT:
            super().add(annotation, RECORDS)
        for span in annotation.ents + annotation.rejected:
            self.labels.setdefault(("entity", span.label), annotation.where)
        for label in annotation.cats:
            self.labels.setdefault(("category", label), annotation.where)


def _list_files(bases: Sequence[Path], leave_out: Sequence[Path]) -> Dict[Path, int]:
    """What each file of the corpus is for. One that is given twice is there once, by the name given first."""
    given = [(file, LEAVE_OUT) for path in leave_out for file in list_spacy_files(path)]
    for path in bases:
        if path.is_dir():
            # Before it is looked which files of splits there are, they are put back into their places.
            clean_up(path)
        splits = [(path / f"{name}.spacy", role) for role, name in SPLIT_OF.items() if role is not None]
        found = [(split, role) for split, role in splits if split.exists()] or [(path, RECORDS)]
        given += [(file, role) for split, role in found for file in list_spacy_files(split)]
    files: Dict[str, Tuple[Path, int]] = {}
    for file, role in given:
        files.setdefault(os.path.realpath(file), (file, role))
    return dict(files.values())


def list_spacy_files(path: Path) -> List[Path]:
    """RETURNS (List[Path]): The file, or all `.spacy` files of a folder, if it has any."""
    return (sorted(path.rglob("*.spacy")) if path.is_dir() else []) or [path]


def _read(
    path: Path,
    store: TextStore,
    nlp: Language,
    role: int,
    options: ReadOptions,
    off_tokens: str,
    report: MergeReport,
) -> None:
    findings = report.findings
    try:
        (entry,) = read_files(
            store, nlp, [path], role=role, format=AUTO, options=options, off_tokens=off_tokens, findings=findings
        )
    except NothingAnnotatedError:
        if role in SPLIT_OF:
            return  # Such as a dev.spacy to which no text belongs yet
        raise
    purpose = "leaving out" if role == LEAVE_OUT else "main"
    report.inputs.append({"path": entry.pop("path"), "role": purpose, "answers": options.only_answered, **entry})


def _stored_texts(store: TextStore, nlp: Language) -> Iterator[StoredText]:
    total = store.count(RECORDS)
    texts = tqdm(store.texts(RECORDS), "merge", total, unit=" texts", leave=False, delay=1.0, disable=None)
    return in_memory_zones(nlp, texts)


def _labels_in_use(paths: Sequence[Path]) -> Set[str]:
    """Entity labels in files of answers, if some records name the labels that were shown."""
    records = [path for path in paths if path.is_file() and CONVERTERS["prodigy"].sniff(path, read_head(path))]
    if not any(b'"labels"' in read_head(path) for path in records):
        return set()
    return set().union(*map(find_labels, records))


@contextmanager
def _cut_off_told(path: Path) -> Iterator[None]:
    """Tell a broken line from one that is not all there yet. Its file would be read in part, so it waits, as after any
    bad record; with `skip_bad` the complete lines are taken, and the same file when it is complete adds the rest."""
    try:
        yield
    except BrokenLineError as error:
        number, raw = deque(iter_lines(path, progress=False), maxlen=1)[0]
        if number == error.line and not raw.endswith(b"\n"):
            raise BertHeadsError("H520", path=path, line=number, found=raw[-40:]) from error
        raise


def _merge_text(
    stored: StoredText,
    answer_files: Set[Path],
    old_files: Set[Path],
    exclusive: bool,
    report: MergeReport,
    overlaps: bool,
) -> Tuple[Annotation, str]:
    """Merge all records of a text, and find what the answers among them did: a key of MergeReport.texts."""
    answers = [record for record in stored.records if record.where.path in answer_files]
    known = [record for record in stored.records if record.where.path not in answer_files]
    for answer in answers:
        if answer.input_hash not in (None, input_hash(answer.text)):
            report.findings.note("edited_text", answer.where)
    if exclusive:
        known = [replace(record, exclusive=record.exclusive or _is_choice(record.cats)) for record in known]
    findings = Findings(skip_bad=True)
    records = _in_order(known, answers)
    merged = merge_records(records, findings, overlaps=overlaps)
    report.findings.add(findings)
    for kind in CONFLICTS:
        for case in findings.cases.get(kind, []):
            # The place may be that of either of the two: the one that lost is the one that differs
            ordered = [*(record for record in records if record.where == case.where), *reversed(records)]
            lost = next((record for record in ordered if _differs(kind, merged, record)), ordered[0])
            said = _describe_conflict(kind, merged, lost)
            report.conflicts.append(Conflict(lost.where, kind, case.detail, merged.text, *said))
    report.agreement.add(answers)
    old = [answer for answer in answers if answer.where.path in old_files]
    if len(old) == len(answers):
        return merged, UNANSWERED
    if not known and not old:
        return merged, "new"
    before = merge_records(_in_order(known, old), Findings(skip_bad=True), overlaps=overlaps)
    same = _statement(before, overlaps) == _statement(merged, overlaps)
    return merged, "unchanged" if same else "changed"


def _describe_conflict(kind: str, merged: Annotation, lost: Annotation) -> Tuple[str, str]:
    """What the merged answers and the one that lost say where they differ."""
    if kind == "category_conflict":
        labels = _differing_labels(merged, lost)
        return _show_cats(merged.cats, labels), _show_cats(lost.cats, labels)
    spans = _differing_spans(merged, lost)
    return _show_spans(merged, spans), _show_spans(lost, spans)


def _differs(kind: str, merged: Annotation, other: Annotation) -> bool:
    return bool(_differing_labels(merged, other) if kind == "category_conflict" else _differing_spans(merged, other))


def _differing_labels(merged: Annotation, other: Annotation) -> List[str]:
    return [label for label, value in other.cats.items() if merged.cats.get(label) != value]


def _differing_spans(merged: Annotation, other: Annotation) -> List[CharSpan]:
    """Spans about which the other one says something else than the merged answers."""
    spans = sorted({*merged.ents, *merged.rejected, *other.ents, *other.rejected})
    said = [(span, _verdict(other, span)) for span in spans]
    return [span for span, verdict in said if verdict is not None and verdict != _verdict(merged, span)]


def _verdict(annotation: Annotation, span: CharSpan) -> Optional[bool]:
    """Whether an annotation says that a span is an entity; None if it does not say."""
    if span in annotation.ents:
        return True
    return False if annotation.complete or span in annotation.rejected else None


def _show_spans(annotation: Annotation, spans: Sequence[CharSpan]) -> str:
    shown = []
    for span in spans:
        verdict = _verdict(annotation, span)
        found = f'{span.label} "{annotation.text[span.start : span.end]}"'
        if verdict or not annotation.complete:
            shown.append({True: found, False: f"not {found}", None: f"{found}?"}[verdict])
    return ", ".join(shown) or "no entity"


def _show_cats(cats: Dict[str, float], labels: Sequence[str]) -> str:
    """Labels that hold; if none does, those that do not. Numbers that are neither 1 nor 0 are shown as they are."""
    numbers = [f"{label} {cats[label]:g}" for label in labels if cats.get(label, 0.0) not in (0.0, 1.0)]
    holding = [label for label in labels if cats.get(label) == 1.0]
    return ", ".join(numbers + holding) or ", ".join(f"not {label}" for label in labels if label in cats)


def _shorten(text: str) -> str:
    """One line of a table. Control characters are shown as escapes."""
    shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    return shown if len(shown) <= EXCERPT else f"{shown[: EXCERPT - 3]}..."


def _in_order(known: List[Annotation], answers: List[Annotation]) -> List[Annotation]:
    """What the corpus says and what was answered, as `merge_records` takes them."""
    if not answers or not all(answer.timestamp is not None for answer in answers):
        return [*known, *answers]
    # What the corpus says without a time is older than any answer; at the same time, it came of that answer.
    records = [*answers, *(replace(record, timestamp=record.timestamp or 0.0) for record in known)]
    return sorted(records, key=lambda record: record.timestamp or 0.0)


def _build_doc(nlp: Language, annotation: Annotation, findings: Findings, spans_key: Optional[str]) -> Doc:
    """By way of the words, as the next merge reads them: what else the tokenizer knows would be other bytes."""
    if annotation.tokens is None:
        tokens = [(token.idx, token.idx + len(token)) for token in nlp.make_doc(annotation.text)]
        annotation = replace(annotation, tokens=tokens)
    return build_doc(nlp, annotation, findings, spans_key=spans_key)


def _is_choice(cats: Dict[str, float]) -> bool:
    return len(cats) > 1 and sorted(cats.values())[-2:] == [0.0, 1.0]


def _statement(annotation: Annotation, overlaps: bool) -> Any:
    """What an annotation says, however its text is tokenized and wherever it is from."""
    unknown = [(span.start, span.end, span.label if overlaps else "") for span in annotation.unknown]
    return annotation.ents, annotation.complete, unknown, annotation.rejected, annotation.cats
