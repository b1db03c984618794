"""A picture of a training: losses and scores over the steps."""

from pathlib import Path
from typing import Any, Dict, List

from ..pictures import new_figure, write_picture


def draw_curve(rows: List[Dict[str, Any]], loss_names: List[str], score_names: List[str], path: Path) -> None:
    """Draw the losses above, the scores below.

    rows (List[Dict[str, Any]]): The evaluations; see console.to_row.
    loss_names (List[str]): Which losses to draw.
    score_names (List[str]): Which scores to draw beside the weighted one.
    path (Path): Where to write it, as PNG.
    RAISES (BertHeadsError): H123 if it cannot be written, H410 if matplotlib is not installed.
    """
    steps = [row["step"] for row in rows]
    figure = new_figure(8, 7)
    losses, scores = figure.subplots(2, 1, sharex=True)
    for name in loss_names:
        losses.plot(steps, [row["losses"].get(name) for row in rows], label=name, marker=".")
    losses.set_ylabel("mean loss per step")
    losses.set_yscale("symlog", linthresh=0.01)
    for name in score_names:
        scores.plot(steps, [100 * row["scores"].get(name, 0.0) for row in rows], label=name, marker=".")
    scores.plot(steps, [100 * row["score"] for row in rows], label="score", color="black", linewidth=2)
    if rows:
        best = max(rows, key=lambda row: (row["score"], -row["step"]))
        scores.axvline(best["step"], color="grey", linestyle=":", label=f"best: {100 * best['score']:.2f}")
    scores.set_xlabel("step")
    scores.set_ylabel("dev score, %")
    for axes in (losses, scores):
        axes.grid(alpha=0.3)
        axes.legend()
    write_picture(figure, path)
