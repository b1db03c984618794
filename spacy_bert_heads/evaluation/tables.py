"""The tables of an evaluation, made once for the terminal, Markdown and the page."""

from typing import TYPE_CHECKING, Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from ..errors import printable
from .bootstrap import LEVEL, Interval
from .entity_scores import KINDS, NONE, STRICT

if TYPE_CHECKING:
    from .evaluate import Evaluation

MODES = {
    "strict": "boundaries and label",
    "boundaries": "boundaries, any label",
    "label": "label, overlapping",
    "partial": "overlapping, half a point",
}
MISTAKES = "Mistakes in entities"
# Confused pairs that are listed, and labels; report.json has all
N_PAIRS = 20
MAX_LABELS = 200
INTERVAL = f"{LEVEL} % interval"


class Bar(NamedTuple):
    """A score to be drawn, all from 0 to 1.

    value (float): The score.
    low (float): Low border of its interval.
    high (float): High border.
    """

    value: float
    low: float
    high: float


class Table(NamedTuple):
    """Rows of text under a header. The first column is text, the others are numbers.

    title (str): What it shows.
    header (Tuple[str, ...]): Names of the columns.
    rows (Sequence[Tuple[str, ...]]): The rows.
    bars (Sequence[Optional[Bar]]): What to draw beside each row; empty for nothing.
    n_sums (int): How many of the last rows are sums or averages.
    is_detail (bool): Whether a terminal leaves it out.
    """

    title: str
    header: Tuple[str, ...]
    rows: Sequence[Tuple[str, ...]]
    bars: Sequence[Optional[Bar]] = ()
    n_sums: int = 0
    is_detail: bool = False

    def to_text(self) -> str:
        """RETURNS (str): The table for a terminal, its title above it."""
        from wasabi import table

        rows = [tuple(map(printable, row)) for row in self.rows]
        aligns: Any = ("l", *("r" for _ in self.header[1:]))
        header = tuple(map(printable, self.header))
        shown = str(table(rows, header=header, divider=True, aligns=aligns, max_col=60)).strip("\n")
        return f"{printable(self.title)}\n{shown}" if self.title else shown

    def to_markdown(self) -> str:
        """RETURNS (str): The table as Markdown, its title above it."""
        return f"## {escape_markdown(self.title)}\n\n{table_to_markdown(self)}"


def make_tables(evaluation: "Evaluation") -> List[Table]:
    """RETURNS (List[Table]): All tables of an evaluation, without those that would be empty."""
    tables = []
    for scores in evaluation.categories:
        if scores["kind"] == "numbers":
            tables.append(_number_table(scores))
        elif scores["texts"]:
            tables.append(_label_table(f"Categories ({scores['component']})", scores))
            if "confusion" in scores:
                tables.append(_pair_table(f"Confused categories ({scores['component']})", scores["confusion"]))
    found = evaluation.entities
    if found and found["texts"]:
        tables.append(_label_table(f"Entities ({found['component']})", found))
        tables.append(_mode_table(found["modes"]))
        tables.append(_error_table(found["errors"]))
        tables.append(_pair_table("Confused entity labels", found["confusion"]))
        tables.append(_tag_table(found["tokens"]["per_tag"]))
    return [table for table in tables if table.rows]


def headlines(evaluation: "Evaluation") -> List[Tuple[str, str, str]]:
    """RETURNS (List[Tuple[str, str, str]]): The few scores to look at first: name, value, interval."""
    return [(name, percent(value), limits(interval)) for name, value, interval in main_scores(evaluation)]


def main_scores(evaluation: "Evaluation") -> List[Tuple[str, float, Optional[Interval]]]:
    """RETURNS (List[Tuple[str, float, Optional[Interval]]]): The same as numbers from 0 to 1."""
    lines: List[Tuple[str, float, Optional[Interval]]] = []
    for scores in evaluation.categories:
        name = scores["component"]
        if scores["kind"] == "numbers":
            for label, row in scores["per_label"].items():
                if row["pearson"] is not None:
                    lines.append((f"{name} {label}, Pearson", row["pearson"], row["pearson_interval"]))
        elif scores["texts"]:
            exact = "accuracy" if scores["kind"] == "exclusive" else "all categories right"
            macro = scores["macro"]
            lines.append((f"{name}, {exact}", scores["accuracy"], scores["accuracy_interval"]))
            lines.append((f"{name}, macro F1", macro["f1"], macro["f1_interval"]))
    found = evaluation.entities
    if found and found["texts"]:
        micro = found["micro"]
        lines.append((f"{found['component']}, F1 of entities", micro["f1"], micro["f1_interval"]))
    texts = evaluation.texts
    if texts["scored"]:
        lines.append(("whole texts, everything right", texts["accuracy"], texts["accuracy_interval"]))
    return lines


def escape_markdown(text: str) -> str:
    """RETURNS (str): A text, none of which Markdown takes for markup, on one line."""
    for character in "\\`*_[]|<>#":
        text = text.replace(character, f"\\{character}" if character not in "<>" else f"&#{ord(character)};")
    return printable(text)


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(escape_markdown, cells))} |"


def table_to_markdown(table: Table) -> str:
    """RETURNS (str): The table without its title."""
    rule = "|---" + "|--:" * (len(table.header) - 1) + "|"
    return "\n".join([_markdown_row(table.header), rule, *map(_markdown_row, table.rows)])


def headlines_table(evaluation: "Evaluation") -> Table:
    """RETURNS (Table): The headlines."""
    return Table("Summary", ("score", "value", INTERVAL), headlines(evaluation))


def percent(value: Optional[float]) -> str:
    """RETURNS (str): A score, times 100."""
    return "-" if value is None else f"{100 * value:.1f}"


def limits(interval: Optional[Interval], scale: float = 100.0, digits: int = 1) -> str:
    """RETURNS (str): The borders of an interval."""
    return "-" if interval is None else " to ".join(f"{scale * value:.{digits}f}" for value in interval)


def _label_table(title: str, scores: Dict[str, Any]) -> Table:
    extra = {"roc_auc": "ROC AUC", "average_precision": "AP"} if scores.get("kind") == "multilabel" else {}
    header = ("label", "precision", "recall", "F1", INTERVAL, *extra.values(), "support")
    rows, bars = [], []
    per_label, title = _most(scores["per_label"], title, lambda row: row["support"] + row["predicted"])
    found = [*per_label.items(), ("micro average", scores["micro"]), ("macro average", scores["macro"])]
    for label, row in found:
        shown = (percent(row["precision"]), percent(row["recall"]), percent(row["f1"]), limits(row["f1_interval"]))
        rows.append((label, *shown, *(percent(row.get(key)) for key in extra), f"{row['support']:,}"))
        bars.append(_bar(row))
    return Table(title, header, rows, bars, n_sums=2)


def _most(
    rows: Dict[str, Dict[str, Any]], title: str, count: Callable[[Dict[str, Any]], float]
) -> Tuple[Dict[str, Dict[str, Any]], str]:
    """RETURNS (Tuple[Dict[str, Dict[str, Any]], str]): The rows with the highest counts, in their order, and the title
    of their table, which says so where rows are left out."""
    if len(rows) <= MAX_LABELS:
        return rows, title
    chosen = set(sorted(rows, key=lambda label: -count(rows[label]))[:MAX_LABELS])
    shown = {label: row for label, row in rows.items() if label in chosen}
    return shown, f"{title}, the {MAX_LABELS} most frequent of {len(rows):,}"


def _bar(row: Dict[str, Any]) -> Optional[Bar]:
    return Bar(row["f1"], *row["f1_interval"]) if row["f1_interval"] else None


def _mode_table(modes: Dict[str, Dict[str, Any]]) -> Table:
    header = ("what counts as a match", "precision", "recall", "F1", INTERVAL)
    rows = []
    for mode, title in MODES.items():
        row = modes[mode]
        shown = (percent(row["precision"]), percent(row["recall"]), percent(row["f1"]))
        rows.append((title, *shown, limits(row["f1_interval"])))
    return Table("Matches of entities", header, rows, [_bar(modes[mode]) for mode in MODES])


def _error_table(errors: Dict[str, Dict[str, int]]) -> Table:
    kinds = (STRICT, *KINDS)
    shown, title = _most(errors, MISTAKES, lambda counts: sum(counts.values()))
    rows = [(label, *(f"{counts[kind]:,}" for kind in kinds)) for label, counts in shown.items()]
    total = tuple(f"{sum(counts[kind] for counts in errors.values()):,}" for kind in kinds)
    # Gold entities by their own label, invented ones by the predicted one
    return Table(title, ("label", *kinds), [*rows, ("all", *total)] if rows else [], n_sums=1)


def _pair_table(title: str, confusion: Dict[str, Dict[str, int]]) -> Table:
    pairs = [
        (n, gold, predicted)
        for gold, row in confusion.items()
        for predicted, n in row.items()
        if gold != predicted and NONE not in (gold, predicted)
    ]
    pairs.sort(key=lambda pair: (-pair[0], *pair[1:]))
    rows = [(f"{gold} → {predicted}", f"{n:,}") for n, gold, predicted in pairs[:N_PAIRS]]
    return Table(title, ("gold → predicted", "count"), rows, is_detail=True)


def _tag_table(tags: Dict[str, Dict[str, Any]]) -> Table:
    shown, title = _most(tags, "Tags of tokens", lambda row: row["support"])
    rows = [
        (tag, percent(row["precision"]), percent(row["recall"]), percent(row["f1"]), f"{row['support']:,}")
        for tag, row in shown.items()
    ]
    return Table(title, ("tag", "precision", "recall", "F1", "support"), rows, is_detail=True)


def _number_table(scores: Dict[str, Any]) -> Table:
    header = ("number", "Pearson", INTERVAL, "Spearman", "RMSE", f"{INTERVAL} of RMSE", "support")
    rows = []
    for label, row in scores["per_label"].items():
        rmse = "-" if row["rmse"] is None else f"{row['rmse']:.3f}"
        rows.append(
            (
                label,
                percent(row["pearson"]),
                limits(row["pearson_interval"]),
                percent(row["spearman"]),
                rmse,
                limits(row["rmse_interval"], 1.0, 3),
                f"{row['support']:,}",
            )
        )
    return Table(f"Numbers ({scores['component']})", header, rows)


def confusion_matrix(
    labels: Sequence[str], confusion: Dict[str, Dict[str, int]], limit: int
) -> Tuple[List[str], List[List[int]]]:
    """The confusion of the labels with the most mistakes.

    labels (Sequence[str]): All labels, of either side.
    confusion (Dict[str, Dict[str, int]]): Counts of predicted labels by gold label.
    limit (int): How many labels to show.
    RETURNS (Tuple[List[str], List[List[int]]]): The labels, and a row of counts for each gold label.
    """
    mistakes = dict.fromkeys(labels, 0)
    for gold, row in confusion.items():
        for predicted, n in row.items():
            if gold != predicted:
                for label in (gold, predicted):
                    if label in mistakes:
                        mistakes[label] += n
    worst = set(sorted(labels, key=lambda label: -mistakes[label])[:limit])
    shown = [label for label in labels if label in worst]
    return shown, [[confusion.get(gold, {}).get(predicted, 0) for predicted in shown] for gold in shown]
