"""A comparison as text for a terminal, as Markdown, JSON and one HTML page."""

from pathlib import Path
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

import srsly

from ..errors import printable
from ..files import check_not_read, check_writable, write_files
from .category_scores import ExclusiveScorer
from .compare import ChangedText, Changes, Comparison, Difference, ScoreRow
from .report import render_page
from .saved_reports import ENTITIES, SPAN_KINDS, SPANS, Verdict
from .tables import INTERVAL, Table, limits
from .tables import markdown as escape

NAMES = ("compare.html", "compare.json", "compare.md")
TEMPLATE = "compare.html.jinja"
# Labels and texts of each kind that a terminal shows, and those that the files show
FEW, MANY = 20, 200
N_EXAMPLES = 5
# From here on a difference is coloured
SIGNIFICANT = 0.05


class Piece(NamedTuple):
    """A part of a text.

    text (str): The words.
    label (str): Label of the entity that it is; "" for none.
    is_wrong (bool): Whether the gold annotation has no such entity.
    """

    text: str
    label: str = ""
    is_wrong: bool = False


class Line(NamedTuple):
    """What one side says about a text.

    name (str): "gold", or the name of the pipeline.
    pieces (List[Piece]): The text with its entities; empty if none are compared.
    labels (List[Tuple[str, bool]]): Categories, and whether each is wrong.
    """

    name: str
    pieces: List[Piece]
    labels: List[Tuple[str, bool]]


def check_output(output: Path, inputs: Iterable[str]) -> None:
    """Refuse a folder that cannot be written to before time is spent.

    RAISES (BertHeadsError): H123 if it cannot, or something that is read would be replaced.
    """
    for name in NAMES:
        check_not_read(output / name, map(Path, inputs))
    check_writable(output)


def write_comparison(comparison: Comparison, output: Path) -> None:
    """Write a comparison.

    comparison (Comparison): What was found.
    output (Path): Folder for NAMES.
    RAISES (BertHeadsError): H123 if a file cannot be written.
    """
    data = srsly.json_dumps(to_dict(comparison), indent=2) + "\n"
    contents = (to_html(comparison), data, to_markdown(comparison))
    write_files({output / name: text.encode("utf8") for name, text in zip(NAMES, contents)})


def to_text(comparison: Comparison) -> str:
    """RETURNS (str): The comparison for a terminal."""
    lines = [
        printable(f"{name}: {report.source} ({report.model})")
        for name, report in zip(comparison.names, comparison.reports)
    ]
    lines.append(f"{comparison.n_texts:,} texts")
    lines += [printable(f"Note: {note}") for note in comparison.notes]
    for table in make_tables(comparison, FEW):
        lines += ["", table.to_text()]
    for name, changes in zip(comparison.names, comparison.changes):
        for what, texts in (("broken", changes.broken), ("mended", changes.mended)) if changes else ():
            if texts:
                shown = texts[:N_EXAMPLES]
                more = f", the first {len(shown)}" if len(texts) > len(shown) else ""
                lines += ["", f"Texts {what} in {name} ({len(texts):,}{more}):"]
                lines += [printable(line) for text in shown for line in _example_lines(comparison, text)]
    return "\n".join(lines)


def to_markdown(comparison: Comparison) -> str:
    """RETURNS (str): The comparison as Markdown."""
    lines = ["# Comparison", ""]
    for name, report in zip(comparison.names, comparison.reports):
        lines.append(f"- {name}: {escape(report.source)} ({escape(_describe_run(report.model, report.run))})")
    lines += [f"- {comparison.n_texts:,} texts of {escape(comparison.reports[0].corpus)}. Scores are times 100."]
    lines += [f"- {escape(note)}" for note in comparison.notes]
    for table in make_tables(comparison, MANY):
        lines += ["", table.to_markdown()]
    for name, changes in zip(comparison.names, comparison.changes):
        for what, texts in (("broken", changes.broken), ("mended", changes.mended)) if changes else ():
            if texts:
                lines += ["", f"## Texts {what} in {name}", ""]
                for text in texts[:MANY]:
                    first, *others = _example_lines(comparison, text)
                    lines += [
                        f"- {escape(first)}",
                        *(f"    - {escape(line.strip())}" for line in others),
                    ]
    return "\n".join(lines) + "\n"


def to_html(comparison: Comparison) -> str:
    """RETURNS (str): A page that needs no other file."""
    sections = []
    for name, changes in zip(comparison.names, comparison.changes):
        for what, texts in (("broken", changes.broken), ("mended", changes.mended)) if changes else ():
            shown = [(text.number, _lines(comparison, text)) for text in texts[:MANY]]
            sections.append({"name": name, "what": what, "n": len(texts), "texts": shown})
    return render_page(
        TEMPLATE,
        comparison=comparison,
        runs=[_describe_run(report.model, report.run) for report in comparison.reports],
        scores=[_cells(row) for row in comparison.scores],
        labels=[_cells(row) for row in _by_difference(comparison.labels)[:MANY]],
        n_labels=len(comparison.labels),
        changes=[(name, changes) for name, changes in zip(comparison.names, comparison.changes) if changes],
        sections=sections,
        has_labels=bool(comparison.labels),
        interval=INTERVAL,
    )


def to_dict(comparison: Comparison) -> Dict[str, Any]:
    """RETURNS (Dict[str, Any]): Everything, for JSON. Texts by their numbers, and of MANY what was said."""
    systems = [
        {"name": name, "source": report.source, "model": report.model, "corpus": report.corpus, "run": report.run}
        for name, report in zip(comparison.names, comparison.reports)
    ]
    return {
        "systems": systems,
        "texts": comparison.n_texts,
        "notes": comparison.notes,
        "scores": [_row_dict(row) for row in comparison.scores],
        "labels": [_row_dict(row) for row in comparison.labels],
        "changes": [None if changes is None else _changes_dict(comparison, changes) for changes in comparison.changes],
    }


def make_tables(comparison: Comparison, limit: int) -> List[Table]:
    """The tables of a comparison.

    comparison (Comparison): What was found.
    limit (int): Labels at most, those that differ most.
    RETURNS (List[Table]): Without those that would be empty.
    """
    names = comparison.names
    against = [column for name in names[1:] for column in (f"{name} - A", INTERVAL, "p")]
    scores = [(f"{row.head}, {row.name}", *_row_cells(row)) for row in comparison.scores]
    tables = [Table("Scores", ("", *names, *against), scores)]
    chosen = _by_difference(comparison.labels)[:limit]
    title = "F1 of labels"
    if len(chosen) < len(comparison.labels):
        title += f", the {limit} that differ most of {len(comparison.labels):,}"
    several = len({row.head for row in comparison.labels}) > 1
    rows = [
        (f"{row.name} ({row.head})" if several else row.name, *_row_cells(row), f"{row.support:,}") for row in chosen
    ]
    tables.append(Table(title, ("label", *names, *against, "support"), rows))
    changed = [
        (
            f"{name} against A",
            *(f"{n:,}" for n in (len(found.mended), len(found.broken), found.n_right, found.n_wrong)),
        )
        for name, found in zip(names, comparison.changes)
        if found is not None and comparison.scores
    ]
    tables.append(Table("Whole texts", ("", "mended", "broken", "right in both", "wrong in both"), changed))
    return [table for table in tables if table.rows]


def _by_difference(rows: Sequence[ScoreRow]) -> List[ScoreRow]:
    def largest(row: ScoreRow) -> float:
        return max((abs(found.value) for found in row.differences if found is not None), default=-1.0)

    return sorted(rows, key=lambda row: -largest(row))


def _row_cells(row: ScoreRow) -> List[str]:
    cells = [_show(value, row) for value in row.values]
    for found in row.differences[1:]:
        cells += ["-", "-", "-"] if found is None else [_show(found.value, row, "+"), _limits(found, row), _p(found)]
    return cells


def _cells(row: ScoreRow) -> Dict[str, Any]:
    """A row for the page, which colours what is more than chance."""
    colours = []
    for found in row.differences[1:]:
        is_shown = found is not None and found.p_value < SIGNIFICANT and found.value != 0
        colours.append(("good" if (found.value > 0) != row.is_error else "bad") if found and is_shown else "")
    groups = [
        ("-", "-", "-") if found is None else (_show(found.value, row, "+"), _limits(found, row), _p(found))
        for found in row.differences[1:]
    ]
    return {"row": row, "values": [_show(value, row) for value in row.values], "groups": list(zip(groups, colours))}


def _show(value: Optional[float], row: ScoreRow, sign: str = "") -> str:
    if value is None:
        return "-"
    return f"{value:{sign}.3f}" if row.is_error else f"{100 * value:{sign}.1f}"


def _limits(found: Difference, row: ScoreRow) -> str:
    return limits(found.interval, 1.0, 3) if row.is_error else limits(found.interval)


def _p(found: Difference) -> str:
    return "< 0.001" if found.p_value < 0.001 else f"{found.p_value:.3f}"


def _row_dict(row: ScoreRow) -> Dict[str, Any]:
    differences = [None if found is None else found._asdict() for found in row.differences]
    made = {"head": row.head, "name": row.name, "values": row.values, "differences": differences}
    return {**made, "support": row.support} if row.support is not None else made


def _changes_dict(comparison: Comparison, changes: Changes) -> Dict[str, Any]:
    made: Dict[str, Any] = {"right_in_both": changes.n_right, "wrong_in_both": changes.n_wrong}
    for what, texts in (("mended", changes.mended), ("broken", changes.broken)):
        made[what] = len(texts)
        made[f"{what}_texts"] = [text.number for text in texts]
        made[f"{what}_examples"] = [
            {"number": text.number, "text": text.text, **_said(comparison, text)} for text in texts[:MANY]
        ]
    return made


def _said(comparison: Comparison, text: ChangedText) -> Dict[str, Any]:
    """By head, what is gold and what each pipeline said."""

    def plain(value: Any) -> Any:
        return sorted(value) if isinstance(value, frozenset) else value

    return {
        head: {"gold": plain(found[0].gold), **{n: plain(v.predicted) for n, v in zip(comparison.names, found)}}
        for head, found in text.verdicts.items()
    }


def _example_lines(comparison: Comparison, changed: ChangedText) -> List[str]:
    """A text on one line, and what is said about it where that differs."""
    text = changed.text if len(changed.text) <= 100 else f"{changed.text[:99]}…"
    lines = [f"#{changed.number} {text}"]
    for head, verdicts in changed.verdicts.items():
        kind = comparison.kinds[head]
        if all(verdict.predicted == verdict.gold for verdict in verdicts) or isinstance(verdicts[0].gold, dict):
            continue
        said = [
            ("gold", verdicts[0].gold),
            *((n, verdict.predicted) for n, verdict in zip(comparison.names, verdicts)),
        ]
        lines += [f"    {name}: {_describe(kind, value, changed.text)}" for name, value in said]
    return lines


def _describe(kind: str, value: Any, text: str) -> str:
    if kind in SPAN_KINDS:
        shown = [f"{text[start:end] or '…'} ({label})" for start, end, label in sorted(value)]
        return ", ".join(shown) or "no entity"
    if kind == ExclusiveScorer.kind:
        return value or "none"
    return ", ".join(sorted(value)) or "none"


def _lines(comparison: Comparison, changed: ChangedText) -> List[Line]:
    found = []
    sides = [("gold", lambda verdict: verdict.gold, 0)]
    sides += [(name, lambda verdict: verdict.predicted, i) for i, name in enumerate(comparison.names)]
    for name, read, i in sides:
        pieces: List[Piece] = []
        labels: List[Tuple[str, bool]] = []
        for head, verdicts in changed.verdicts.items():
            verdict: Verdict = verdicts[i]
            value, kind = read(verdict), comparison.kinds[head]
            if isinstance(value, dict):
                continue
            if kind == ENTITIES:
                pieces = _pieces(changed.text, value, verdict.gold)
            elif kind == SPANS:
                labels += [
                    (_describe(kind, [span], changed.text), span not in verdict.gold) for span in sorted(value)
                ] or [("none", bool(verdict.gold))]
            elif kind == ExclusiveScorer.kind:
                labels.append((value or "none", value != verdict.gold))
            else:
                labels += [(label, label not in verdict.gold) for label in sorted(value)] or [
                    ("none", bool(verdict.gold))
                ]
        found.append(Line(name, pieces or ([Piece(changed.text)] if name == "gold" else []), labels))
    return found


def _pieces(text: str, spans: Any, gold: Any) -> List[Piece]:
    pieces, place = [], 0
    for start, end, label in sorted(spans):
        if start < place or end > len(text):
            continue
        if start > place:
            pieces.append(Piece(text[place:start]))
        pieces.append(Piece(text[start:end], label, (start, end, label) not in gold))
        place = end
    return [*pieces, Piece(text[place:])] if place < len(text) else pieces


def _describe_run(model: str, run: Dict[str, str]) -> str:
    parts = [model, *(run[name] for name in ("date",) if name in run)]
    parts += [f"{name} {run[name]}" for name in ("commit", "config") if name in run]
    return ", ".join(parts)
