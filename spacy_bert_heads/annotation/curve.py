"""A table and a picture of the rounds: scores against what was annotated for them."""

from pathlib import Path
from typing import Any, Dict, List, Sequence

from ..errors import printable
from ..pictures import new_figure, write_picture


def render_rounds(rows: Sequence[Dict[str, Any]]) -> str:
    """Make a table for a terminal.

    rows (Sequence[Dict[str, Any]]): The rounds: "round", "texts" and "tokens" annotated up to then, "scores" by name
        and the weighted "score", from 0 to 1, and whether these are "cross_validated".
    RETURNS (str): The table. Cross-validated scores have a star.
    """
    from wasabi import table

    names = _score_names(rows)
    cells = [
        [row["round"], f"{row['texts']:,}", f"{row['tokens']:,}"]
        + ["-" if row["scores"].get(name) is None else f"{100 * row['scores'][name]:.1f}" for name in names]
        + [f"{100 * row['score']:.1f}" + "*" * row["cross_validated"]]
        for row in rows
    ]
    header = ("round", "texts", "tokens", *map(printable, names), "score")
    aligns: Any = ["r"] * len(header)
    stars = any(row["cross_validated"] for row in rows)
    note = "* cross-validated, by pipelines that learned from fewer texts\n" if stars else ""
    return str(table(cells, header=header, divider=True, aligns=aligns)) + note


def draw_rounds(rows: Sequence[Dict[str, Any]], path: Path) -> None:
    """Draw the scores against the number of annotated texts, and against that of their tokens.

    rows (Sequence[Dict[str, Any]]): As for `render_rounds`.
    path (Path): Where to write it, as PNG.
    RAISES (BertHeadsError): H123 if it cannot be written, H410 if matplotlib is not installed.
    """
    figure = new_figure(10, 4.5)
    for axes, kind in zip(figure.subplots(1, 2, sharey=True), ("texts", "tokens")):
        numbers = [row[kind] for row in rows]
        for name in _score_names(rows):
            scores = [row["scores"].get(name) for row in rows]
            axes.plot(numbers, [None if score is None else 100 * score for score in scores], label=name, marker=".")
        axes.plot(numbers, [100 * row["score"] for row in rows], label="score", color="black", marker="o")
        for row in rows:
            at = (row[kind], 100 * row["score"])
            axes.annotate(str(row["round"]), at, textcoords="offset points", xytext=(0, 6), ha="center")
        axes.set_xlabel(f"annotated {kind}")
        for before, after in zip(rows, rows[1:]):
            if before["cross_validated"] and not after["cross_validated"]:
                border = (before[kind] + after[kind]) / 2
                axes.axvline(border, color="gray", linestyle=":", label="cross-validated | dev")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("score, %")
    figure.axes[0].legend()
    write_picture(figure, path)


def _score_names(rows: Sequence[Dict[str, Any]]) -> List[str]:
    return list(dict.fromkeys(name for row in rows for name in row["scores"]))
