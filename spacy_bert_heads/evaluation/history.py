"""Evaluations over time: each one kept in a folder, a table and a curve over all of them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import srsly

from ..errors import BertHeadsError
from ..files import check_not_read, check_writable, lock, write_files
from .bootstrap import Interval
from .evaluate import Evaluation
from .report import render_page, to_json
from .tables import INTERVAL, Table, limits, main_scores, percent

NAMES = ("history.html", "history.json", "history.md")
TEMPLATE = "history.html.jinja"
# Within the folder of a project's metrics
FOLDER = "history"
WIDTH, HEIGHT = 640, 150


@dataclass
class Run:
    """An evaluation that was kept.

    path (Path): Its file.
    date (str): Day and time in UTC.
    model (str): Language, name and version of the pipeline.
    corpus (str): The annotated texts.
    docs (int): How many there are.
    commit (str): Of the repository; "-" if there was none.
    config (str): Eight digits that depend on the pipeline's config.
    scores (Dict[str, Tuple[float, Optional[Interval]]]): The main scores and their intervals.
    """

    path: Path
    date: str
    model: str
    corpus: str
    docs: int
    commit: str
    config: str
    scores: Dict[str, Tuple[float, Optional[Interval]]]


@dataclass
class History:
    """All evaluations of a folder.

    folder (Path): Where they are.
    runs (List[Run]): The oldest first.
    notes (List[str]): Files that cannot be read.
    """

    folder: Path
    runs: List[Run]
    notes: List[str] = field(default_factory=list)

    @property
    def names(self) -> List[str]:
        """RETURNS (List[str]): Names of all scores."""
        return list(dict.fromkeys(name for run in self.runs for name in run.scores))


class Curve(NamedTuple):
    """A score over all evaluations, as the page draws it.

    name (str): The score.
    low (float): Score at the lower end of the plot, times 100.
    high (float): Score at its upper end.
    points (List[Tuple[float, float, float, float, str]]): Across, down, upper and lower end of the interval, and
        words.
    """

    name: str
    low: float
    high: float
    points: List[Tuple[float, float, float, float, str]]


def keep(evaluation: Evaluation, folder: Path) -> Path:
    """Keep an evaluation beside those before it.

    evaluation (Evaluation): What was found.
    folder (Path): Where they are kept.
    RETURNS (Path): The file: date and config in its name.
    RAISES (BertHeadsError): H123 if it cannot be written; H187 if another process writes there.
    """
    run = evaluation.run
    stem = f"{run['date'][:19].replace(':', '-')}-{run['config']}"
    with lock(folder):
        number, path = 1, folder / f"{stem}.json"
        while path.exists():
            number += 1
            path = folder / f"{stem}-{number}.json"
        write_files({path: to_json(evaluation).encode("utf8")})
    return path


def read_history(folder: Path) -> History:
    """Read what was kept.

    folder (Path): Where, or the folder of metrics in which that is.
    RETURNS (History): All evaluations. What is no report is named in its notes.
    RAISES (BertHeadsError): H101 if there is no such folder, H626 if there is no evaluation in it.
    """
    if not folder.is_dir():
        raise BertHeadsError("H101", path=folder)
    folder = _find_folder(folder)
    runs, notes = [], []
    for path in sorted(folder.glob("*.json")):
        try:
            runs.append(_read_run(path))
        except (ValueError, OSError, KeyError, TypeError, AttributeError, RecursionError) as error:
            notes.append(f"{path.name} is left out: it is no report of evaluate ({type(error).__name__} {error}).")
    if not runs:
        raise BertHeadsError("H626", path=folder)
    return History(folder, sorted(runs, key=lambda run: (run.date, run.path.name)), notes)


def check_output(output: Path, folder: Path) -> None:
    """RAISES (BertHeadsError): H123 if the pages cannot be written there, or would lie among what was kept."""
    kept = _find_folder(folder)
    for name in NAMES:
        check_not_read(output / name, [kept / name])
    check_writable(output)


def write_history(history: History, output: Path) -> None:
    """Write table and curve.

    history (History): What was kept.
    output (Path): Folder for NAMES.
    RAISES (BertHeadsError): H123 if a file cannot be written.
    """
    table = make_table(history)
    curves = [_draw(name, history) for name in history.names]
    page = render_page(TEMPLATE, history=history, table=table, curves=curves, width=WIDTH, height=HEIGHT)
    rows = [
        {**{name: value for name, value in vars(run).items() if name != "path"}, "path": str(run.path)}
        for run in history.runs
    ]
    contents = (page, srsly.json_dumps(rows, indent=2) + "\n", table.to_markdown() + "\n")
    write_files({output / name: text.encode("utf8") for name, text in zip(NAMES, contents)})


def make_table(history: History) -> Table:
    """RETURNS (Table): A row for each evaluation."""
    rows = [
        (
            run.date.replace("T", " ")[:19],
            run.model,
            run.corpus,
            f"{run.docs:,}",
            run.commit,
            run.config,
            *(percent(run.scores[name][0]) if name in run.scores else "-" for name in history.names),
        )
        for run in history.runs
    ]
    return Table("History", ("date", "pipeline", "corpus", "texts", "commit", "config", *history.names), rows)


def _find_folder(folder: Path) -> Path:
    return folder / FOLDER if (folder / FOLDER).is_dir() else folder


def _read_run(path: Path) -> Run:
    content: Any = srsly.read_json(path)
    run = content["run"]
    evaluation = Evaluation(
        model=content["model"],
        corpus=content["corpus"],
        docs=int(content["docs"]),
        scores={},
        entities=content["entities"],
        spans=content.get("spans", []),
        categories=content["categories"],
        texts=content["texts"],
    )
    scores = {name: (float(value), interval) for name, value, interval in main_scores(evaluation)}
    for name, (_, interval) in list(scores.items()):
        if interval is not None:
            low, high = map(float, interval)
            scores[name] = scores[name][0], (low, high)
    return Run(
        path=path,
        date=str(run["date"]),
        model=str(evaluation.model),
        corpus=str(evaluation.corpus),
        docs=evaluation.docs,
        commit=str(run.get("commit") or "-"),
        config=str(run["config"]),
        scores=scores,
    )


def _draw(name: str, history: History) -> Curve:
    found = [(i, run, *run.scores[name]) for i, run in enumerate(history.runs) if name in run.scores]
    ends = [border for _, _, value, interval in found for border in (interval or (value, value))]
    low, high = min(ends), max(ends)
    margin = 0.05 * (high - low) or 0.01
    low, high = low - margin, high + margin

    def down(value: float) -> float:
        return round(HEIGHT * (high - value) / (high - low), 1)

    points = []
    for i, run, value, interval in found:
        across = round(WIDTH * (i + 0.5) / len(history.runs), 1)
        bottom, top = interval or (value, value)
        words = f"{run.date} {run.model} {percent(value)} ({INTERVAL}: {limits(interval)}), commit {run.commit}"
        points.append((across, down(value), down(top), down(bottom), words))
    return Curve(name, 100 * low, 100 * high, points)
