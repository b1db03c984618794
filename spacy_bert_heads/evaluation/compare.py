"""Pipelines side by side on the same texts: differences of scores with a paired test, and the texts that changed."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

import numpy

from ..corpus.readers.formats import AUTO, ReadOptions
from ..errors import BertHeadsError
from .bootstrap import Interval, intervals, resample_cells, resample_sums
from .category_scores import ExclusiveScorer, NumberScorer, number_draws
from .evaluate import evaluate
from .label_scores import CORRECT, GOLD, PREDICTED, count_cells, f1, mean_of_known, precision, recall
from .saved_reports import SPAN_KINDS, HeadInfo, SavedReport, TextKey, Verdict, find_report, parse_report, read_report

# More than for intervals, so that small p-values can be told apart
N_SAMPLES = 2000
# Files of a trained pipeline
PIPELINE_FILES = ("meta.json", "config.cfg")
WHOLE_TEXTS = "whole texts"


class Difference(NamedTuple):
    """How a score differs from that of the first pipeline.

    value (float): The difference.
    interval (Optional[Interval]): The middle 95 % of the draws; None if no draw has it.
    p_value (float): How often chance alone makes a difference as large as this one; see paired_test.
    """

    value: float
    interval: Optional[Interval]
    p_value: float


@dataclass
class ScoreRow:
    """A score of all pipelines.

    head (str): What is scored.
    name (str): Name of the score, or the label.
    values (List[Optional[float]]): Of each pipeline, None where it has none.
    differences (List[Optional[Difference]]): To the first pipeline; None for that one, and where there is no score.
    support (Optional[int]): Gold annotations of a label.
    is_error (bool): Whether less is better, and the number has the unit of what is predicted, rather than 0 to 1.
    """

    head: str
    name: str
    values: List[Optional[float]]
    differences: List[Optional[Difference]]
    support: Optional[int] = None
    is_error: bool = False


class ChangedText(NamedTuple):
    """A text that one pipeline has right, in all that is compared, and the other one has not.

    number (int): Which one it is in the corpus of the first report.
    text (str): The text, or its beginning.
    verdicts (Dict[str, List[Verdict]]): By head, what each of all pipelines said.
    """

    number: int
    text: str
    verdicts: Dict[str, List[Verdict]]


@dataclass
class Changes:
    """What became of the texts from the first pipeline to another.

    mended (List[ChangedText]): Wrong before, right now.
    broken (List[ChangedText]): Right before, wrong now.
    n_right (int): Right in both.
    n_wrong (int): Wrong in both.
    """

    mended: List[ChangedText] = field(default_factory=list)
    broken: List[ChangedText] = field(default_factory=list)
    n_right: int = 0
    n_wrong: int = 0


@dataclass
class Comparison:
    """What a comparison found.

    reports (List[SavedReport]): What is compared; the first one is what the others are compared to.
    names (List[str]): Short names of these: A, B, C.
    n_texts (int): Texts that all have.
    notes (List[str]): What is not compared, and why.
    scores (List[ScoreRow]): The main scores.
    labels (List[ScoreRow]): F1 of each label.
    changes (List[Optional[Changes]]): Of each pipeline; None for the first one.
    kinds (Dict[str, str]): Kind of each head.
    """

    reports: List[SavedReport]
    names: List[str]
    n_texts: int
    notes: List[str]
    scores: List[ScoreRow] = field(default_factory=list)
    labels: List[ScoreRow] = field(default_factory=list)
    changes: List[Optional[Changes]] = field(default_factory=list)
    kinds: Dict[str, str] = field(default_factory=dict)


class _Head(NamedTuple):
    """A head that all pipelines have.

    name (str): What it is called in the first one.
    kind (str): Its kind.
    names (List[str]): What it is called in each.
    labels (List[str]): What is compared: labels that all know, or none.
    """

    name: str
    kind: str
    names: List[str]
    labels: List[str]


def open_inputs(
    inputs: Sequence[str],
    *,
    format: str = AUTO,
    options: Optional[ReadOptions] = None,
    off_tokens: str = "error",
    skip_bad: bool = False,
    say: Callable[[str], Any] = lambda text: None,
) -> List[SavedReport]:
    """Read reports, and let pipelines predict.

    inputs (Sequence[str]): Reports as files or folders, and folders or packages of pipelines; a corpus comes last
        where there are pipelines.
    format, options, off_tokens, skip_bad: How to read the corpus; as for `evaluate`.
    say (Callable[[str], Any]): Takes what is to be shown meanwhile.
    RETURNS (List[SavedReport]): What is to be compared.
    RAISES (BertHeadsError): H620 if there are pipelines and no corpus; H621 for a corpus without pipelines; H622 for
        fewer than two to compare; H623 or H624 for what is no report; H101 if there is no such file; whatever
        `evaluate` finds wrong.
    """
    kinds = [_find_kind(name) for name in inputs]
    for name, kind in zip(inputs[:-1], kinds):
        if kind == "corpus":
            raise BertHeadsError("H623", path=name, found="no report and no trained pipeline")
    corpus = Path(inputs[-1]) if kinds and kinds[-1] == "corpus" else None
    systems = list(zip(inputs, kinds))[: len(inputs) - (corpus is not None)]
    if len(systems) < 2:
        raise BertHeadsError("H622", found=len(systems))
    has_pipelines = any(kind == "pipeline" for _, kind in systems)
    if has_pipelines and corpus is None:
        raise BertHeadsError("H620")
    if corpus is not None and not has_pipelines:
        raise BertHeadsError("H621", path=corpus)
    found = []
    for name, kind in systems:
        path = find_report(Path(name)) if kind == "report" else None
        if path is not None:
            found.append(read_report(path))
            continue
        assert corpus is not None
        say(f"Predicting {corpus} with {name}")
        evaluation = evaluate(name, corpus, format=format, options=options, off_tokens=off_tokens, skip_bad=skip_bad)
        found.append(parse_report(evaluation.to_dict(), name))
    return found


def _find_kind(name: str) -> str:
    """What an argument is: "report", "pipeline" or "corpus"."""
    path = Path(name)
    if not path.exists():
        # The name of a package; anything that looks like a path is a mistake
        if path.suffix or len(path.parts) > 1:
            raise BertHeadsError("H101", path=name)
        return "pipeline"
    if path.is_dir() and all((path / file).is_file() for file in PIPELINE_FILES):
        return "pipeline"
    report = find_report(path)
    if report is not None and (path.is_dir() or _is_report(report)):
        return "report"
    return "corpus"


def _is_report(path: Path) -> bool:
    """A corpus can be a JSON file too."""
    try:
        read_report(path)
    except BertHeadsError as error:
        return error.code == "H624"
    return True


def compare(reports: Sequence[SavedReport]) -> Comparison:
    """Compare on what all have in common: texts, heads and labels.

    reports (Sequence[SavedReport]): At least two.
    RETURNS (Comparison): What was found. All are scored on the gold annotation of the first one.
    RAISES (BertHeadsError): H625 if there is no text that all have.
    """
    keys = _common_texts(reports)
    names = [chr(ord("A") + i) if i < 26 else str(i + 1) for i in range(len(reports))]
    comparison = Comparison(list(reports), names, len(keys), [])
    heads = _match_heads(comparison)
    _note_corpora(comparison, keys, heads)
    rights: List[numpy.ndarray] = []
    for head in heads:
        comparison.kinds[head.name] = head.kind
        verdicts = [_verdicts(reports, head, key) for key in keys]
        if head.kind == NumberScorer.kind:
            _compare_numbers(comparison, head, verdicts)
        else:
            rights.append(_compare_labels(comparison, head, verdicts))
    _compare_texts(comparison, heads, keys, rights)
    return comparison


def paired_test(value: float, draws: numpy.ndarray) -> Difference:
    """Whether a difference of two pipelines is more than chance.

    Texts are drawn with replacement, the same ones for both pipelines, and the difference is computed anew each time.
    The draws scatter around the difference that was observed; around 0 they would scatter alike if there were none.
    So the p-value is the share of draws that are at least as far from the observed difference as that is from 0,
    counted on both sides, with 1 added to both counts, for it is never 0.

    value (float): The difference that was observed.
    draws (numpy.ndarray): The same in each draw, NaN where there is none. Float, (n_draws,).
    RETURNS (Difference): With the interval of the draws.

    SOURCE: Berg-Kirkpatrick, Burkett and Klein (2012), An Empirical Investigation of Statistical Significance in NLP,
    algorithm 1, which counts one side.
    """
    there = draws[~numpy.isnan(draws)]
    # What is equal but for rounding is equal
    n_beyond = int((numpy.abs(there - value) >= abs(value) - 1e-9).sum())
    return Difference(value, intervals(draws[:, None])[0], (n_beyond + 1) / (len(there) + 1))


def _common_texts(reports: Sequence[SavedReport]) -> List[TextKey]:
    keys = [key for key in reports[0].records if all(key in report.records for report in reports)]
    if not keys:
        corpora = ", ".join(
            dict.fromkeys(f"{report.corpus or report.source} ({len(report.records)} texts)" for report in reports)
        )
        raise BertHeadsError("H625", found=corpora)
    return keys


def _match_heads(comparison: Comparison) -> List[_Head]:
    """Heads of the same kind: of the same name, or else the only ones of their kind."""
    first, *others = comparison.reports
    found = []
    for head in first.heads:
        matches = [head]
        for name, report in zip(comparison.names[1:], others):
            same = [other for other in report.heads if other.kind == head.kind]
            match = next((other for other in same if other.name == head.name), None)
            if match is None and len(same) == 1 == sum(other.kind == head.kind for other in first.heads):
                match = same[0]
            if match is None:
                comparison.notes.append(f"{name} has no head like '{head.name}' ({head.kind}), which is left out.")
                break
            matches.append(match)
        else:
            labels = _common_labels(comparison, head, matches)
            found.append(_Head(head.name, head.kind, [match.name for match in matches], labels))
    for i, (name, report) in enumerate(zip(comparison.names[1:], others), 1):
        matched = {head.names[i] for head in found}
        for other in report.heads:
            if other.name not in matched and not any(one.kind == other.kind for one in first.heads):
                comparison.notes.append(
                    f"A has no head like '{other.name}' ({other.kind}) of {name}, which is left out."
                )
    if not found:
        comparison.notes.append("The pipelines have no head in common, so there is nothing to compare.")
    return found


def _common_labels(comparison: Comparison, head: HeadInfo, matches: Sequence[HeadInfo]) -> List[str]:
    """Labels of the gold annotation that no pipeline knows count too: all miss them."""
    known = [set(match.labels) for match in matches]
    some = {label for labels in known for label in labels if not all(label in other for other in known)}
    for name, labels in zip(comparison.names, known):
        lacking = sorted(some - labels)
        if lacking:
            shown = ", ".join(lacking[:10]) + (f" and {len(lacking) - 10} more" if len(lacking) > 10 else "")
            comparison.notes.append(
                f"{name} does not know these labels of '{head.name}', which are left out: {shown}."
            )
    gold = {
        label
        for record in comparison.reports[0].records.values()
        for label in _labels_of(head.kind, record.verdicts.get(head.name))
    }
    common = [label for label in head.labels if label not in some]
    return [*common, *sorted(gold - some - set(common))]


def _labels_of(kind: str, verdict: Optional[Verdict]) -> Set[str]:
    if verdict is None:
        return set()
    if kind in SPAN_KINDS:
        return {label for _, _, label in verdict.gold}
    return {verdict.gold} if kind == ExclusiveScorer.kind else set(verdict.gold)


def _note_corpora(comparison: Comparison, keys: Sequence[TextKey], heads: Sequence[_Head]) -> None:
    """Say where reports are of other texts, or of other gold annotation."""
    sizes = [len(report.records) for report in comparison.reports]
    if any(size > len(keys) for size in sizes):
        shown = ", ".join(
            f"{name} has {size:,} texts ({report.corpus})"
            for name, size, report in zip(comparison.names, sizes, comparison.reports)
        )
        comparison.notes.append(
            f"The reports are of different texts: {shown}. {len(keys):,} texts are in all of them."
        )
    for i, report in enumerate(comparison.reports[1:], 1):
        differing = 0
        for key in keys:
            one, other = comparison.reports[0].records[key], report.records[key]
            for head in heads:
                mine, theirs = one.verdicts.get(head.names[0]), other.verdicts.get(head.names[i])
                if (mine is None) != (theirs is None) or (mine and theirs and mine.gold != theirs.gold):
                    differing += 1
                    break
        if differing:
            name = comparison.names[i]
            comparison.notes.append(
                f"{differing:,} texts have another gold annotation in {name} than in A; that of A is used."
            )


def _verdicts(reports: Sequence[SavedReport], head: _Head, key: TextKey) -> Optional[List[Verdict]]:
    """What the pipelines say about a text, with the gold annotation of the first; None where one says nothing."""
    found = [report.records[key].verdicts.get(name) for report, name in zip(reports, head.names)]
    if any(verdict is None for verdict in found):
        return None
    gold = found[0].gold  # type: ignore[union-attr]
    labels = set(head.labels)
    if head.kind == NumberScorer.kind:
        return [Verdict(gold, verdict.predicted) for verdict in found]  # type: ignore[union-attr]
    if head.kind == ExclusiveScorer.kind:
        if gold not in labels:
            return None
        return [Verdict(gold, verdict.predicted) for verdict in found]  # type: ignore[union-attr]

    def keep(side: Any) -> frozenset:
        return frozenset(one for one in side if (one[2] if head.kind in SPAN_KINDS else one) in labels)

    return [Verdict(keep(gold), keep(verdict.predicted)) for verdict in found]  # type: ignore[union-attr]


def _compare_labels(comparison: Comparison, head: _Head, verdicts: Sequence[Optional[List[Verdict]]]) -> numpy.ndarray:
    """RETURNS (numpy.ndarray): 1 where a text is right, 0 where it is wrong, NaN where it is not known. Float,
    (n_texts, n_pipelines)."""
    n_systems = len(comparison.reports)
    rights = numpy.full((len(verdicts), n_systems), numpy.nan)
    known = [i for i, found in enumerate(verdicts) if found is not None]
    if not known:
        comparison.notes.append(f"'{head.name}' is not compared: no text has what all need.")
        return rights
    if len(known) < len(verdicts):
        comparison.notes.append(
            f"{len(verdicts) - len(known):,} texts are left out for '{head.name}': they have no gold annotation, at "
            "least in one report, or a label that is left out."
        )
    numbers = {label: i for i, label in enumerate(head.labels)}
    cells: List[List[Tuple[int, int, int]]] = [[] for _ in range(n_systems)]
    for text, i in enumerate(known):
        for system, verdict in enumerate(verdicts[i] or ()):
            rights[i, system] = verdict.gold == verdict.predicted
            gold, predicted = _as_set(head.kind, verdict.gold), _as_set(head.kind, verdict.predicted)
            for side, column in ((gold, GOLD), (predicted, PREDICTED), (gold & predicted, CORRECT)):
                found = ((text, numbers[label], column) for label in _label_list(head.kind, side) if label in numbers)
                cells[system] += found
    counts = [count_cells(len(known), len(head.labels), found) for found in cells]
    sums = numpy.stack([found.total().reshape(-1, 3) for found in counts])
    draws = [resample_cells(found, N_SAMPLES).reshape(N_SAMPLES, -1, 3) for found in counts]
    there = (sums[..., GOLD] + sums[..., PREDICTED]) > 0

    def macro(system: int) -> Tuple[Optional[float], numpy.ndarray]:
        used = there[system]
        # What is nowhere correct is 0, and the mean is over what the report's is over
        scores = numpy.nan_to_num(f1(sums[system][used]))
        return float(scores.mean()) if used.any() else None, mean_of_known(f1(draws[system][:, used]))

    def micro(
        score: Callable[[numpy.ndarray], numpy.ndarray],
    ) -> Callable[[int], Tuple[Optional[float], numpy.ndarray]]:
        def compute(system: int) -> Tuple[Optional[float], numpy.ndarray]:
            value = float(score(sums[system].sum(0)))
            # No prediction at all has a precision of 0 in reports
            return 0.0 if value != value else value, score(draws[system].sum(1, dtype="float64"))

        return compute

    def accuracy(system: int) -> Tuple[Optional[float], numpy.ndarray]:
        column = rights[known, system]
        return float(column.mean()), resample_sums(column, N_SAMPLES) / len(column)

    shown: Dict[str, Callable[[int], Tuple[Optional[float], numpy.ndarray]]]
    if head.kind in SPAN_KINDS:
        shown = {"F1": micro(f1), "precision": micro(precision), "recall": micro(recall), "macro F1": macro}
    elif head.kind == ExclusiveScorer.kind:
        shown = {"accuracy": accuracy, "macro F1": macro}
    else:
        shown = {"micro F1": micro(f1), "macro F1": macro, "all categories right": accuracy}
    for name, score in shown.items():
        comparison.scores.append(_score_row(head.name, name, [score(system) for system in range(n_systems)]))
    label_draws = [f1(found) for found in draws]
    for label, i in numbers.items():
        if there[:, i].any():
            scored = [
                (float(numpy.nan_to_num(f1(sums[system, i]))) if there[system, i] else None, label_draws[system][:, i])
                for system in range(n_systems)
            ]
            comparison.labels.append(_score_row(head.name, label, scored, int(sums[0, i, GOLD])))
    return rights


def _as_set(kind: str, value: Any) -> frozenset:
    return value if kind != ExclusiveScorer.kind else frozenset([value] if value is not None else [])


def _label_list(kind: str, side: frozenset) -> List[str]:
    return [span[2] for span in side] if kind in SPAN_KINDS else list(side)


def _compare_numbers(comparison: Comparison, head: _Head, verdicts: Sequence[Optional[List[Verdict]]]) -> None:
    for label in head.labels:
        rows = [
            [found[0].gold[label], *(verdict.predicted.get(label, numpy.nan) for verdict in found)]
            for found in verdicts
            if found is not None and label in found[0].gold
        ]
        table = numpy.array(rows, dtype="float64").reshape(-1, 1 + len(comparison.reports))
        table = table[numpy.isfinite(table).all(1)]
        if not len(table):
            comparison.notes.append(f"'{label}' of '{head.name}' is not compared: no text has what all need.")
            continue
        scored = [number_draws(table[:, 0], column, N_SAMPLES) for column in table[:, 1:].T]
        for name in ("Pearson", "RMSE"):
            row = _score_row(head.name, f"{label}, {name}", [found[name] for found in scored])
            row.is_error = name == "RMSE"
            comparison.scores.append(row)


def _score_row(
    head: str, name: str, scored: Sequence[Tuple[Optional[float], numpy.ndarray]], support: Optional[int] = None
) -> ScoreRow:
    first, first_draws = scored[0]
    differences: List[Optional[Difference]] = [None]
    for value, draws in scored[1:]:
        there = value is not None and first is not None
        differences.append(paired_test(value - first, draws - first_draws) if there else None)  # type: ignore[operator]
    return ScoreRow(head, name, [value for value, _ in scored], differences, support)


def _compare_texts(
    comparison: Comparison, heads: Sequence[_Head], keys: Sequence[TextKey], rights: Sequence[numpy.ndarray]
) -> None:
    """Texts that are right in all that is known of them."""
    n_systems = len(comparison.reports)
    comparison.changes = [None, *(Changes() for _ in range(n_systems - 1))]
    if not rights:
        return
    table = numpy.stack(rights)
    known = ~numpy.isnan(table[:, :, 0]).all(0)
    is_right: numpy.ndarray = (numpy.isnan(table) | (table > 0)).all(axis=0)
    whole = is_right[known].astype("float64")
    if not len(whole):
        return
    scored = [(float(column.mean()), resample_sums(column, N_SAMPLES) / len(column)) for column in whole.T]
    comparison.scores.append(_score_row(WHOLE_TEXTS, "everything right", scored))
    chosen = [key for key, is_known in zip(keys, known) if is_known]
    for system in range(1, n_systems):
        changes = comparison.changes[system]
        assert changes is not None
        for key, row in zip(chosen, whole.astype(bool).tolist()):
            before, after = row[0], row[system]
            if before == after:
                changes.n_right += before
                changes.n_wrong += not before
                continue
            record = comparison.reports[0].records[key]
            found = {head.name: _verdicts(comparison.reports, head, key) for head in heads}
            verdicts = {name: verdict for name, verdict in found.items() if verdict is not None}
            changed = ChangedText(record.number, record.text, verdicts)
            (changes.mended if after else changes.broken).append(changed)
