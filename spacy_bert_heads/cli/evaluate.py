"""`bert-heads evaluate`: a trained pipeline and annotated texts in, all scores and a report out."""

from pathlib import Path
from typing import Annotated, Any, Dict, Optional

import typer

from .reading_options import with_reading_options
from .thread_option import THREADS

MODEL = typer.Argument(help="Folder or package of the trained pipeline.", show_default=False)
CORPUS = typer.Argument(
    help="Annotated texts: a .spacy file, a folder of them, or a file of any format that convert reads.",
    show_default=False,
)
OUTPUT = typer.Option(
    "--output",
    "-o",
    help="Where to write: NAME.json for all scores in one file; otherwise a folder for report.html, report.json and "
    "report.md.",
    show_default=False,
)
HISTORY = typer.Option(
    "--history",
    help="Folder that keeps this evaluation beside earlier ones; compare --history shows them.",
    show_default=False,
)
TRAIN = typer.Option(
    "--train",
    help="What the pipeline was trained on, to warn of texts that are also in CORPUS.",
    show_default="paths.train of its config, if that file is there",
)
GPU = typer.Option("--gpu-id", "-g", help="Number of the GPU to use; -1: none.")


@with_reading_options
def evaluate_cli(
    model: Annotated[str, MODEL],
    corpus: Annotated[Path, CORPUS],
    output: Annotated[Optional[Path], OUTPUT] = None,
    history: Annotated[Optional[Path], HISTORY] = None,
    train: Annotated[Optional[Path], TRAIN] = None,
    gpu: Annotated[int, GPU] = -1,
    threads: Annotated[str, THREADS] = "auto",
    *,
    reading: Dict[str, Any],
) -> None:
    """
    Score a trained pipeline on annotated texts, and show its mistakes.

    Every score comes with its support and a 95 % interval. The report's page shows the texts that are wrong, the worst
    first, and the gold annotations that look wrong.
    """
    from ..threads import settle

    settle(threads)
    from spacy.cli._util import setup_gpu

    from ..evaluation.evaluate import evaluate
    from ..evaluation.history import keep
    from ..evaluation.report import NAMES, check_report, is_one_file, to_text, write_report
    from ..files import check_writable

    if output is not None:
        check_report(output, corpus)
    if history is not None:
        check_writable(history)
    setup_gpu(gpu)
    evaluation = evaluate(
        model,
        corpus,
        **reading,
        train=train,
        with_uncertainty=output is not None and not is_one_file(output),
    )
    typer.echo(to_text(evaluation))
    if history is not None:
        typer.echo(f"Kept as {keep(evaluation, history)}")
    if output is None:
        return
    write_report(evaluation, output)
    if is_one_file(output):
        typer.echo(f"Wrote the scores on {evaluation.docs} texts to {output}")
    else:
        typer.echo(f"Wrote the report on {evaluation.docs} texts to {output}: {', '.join(NAMES)}")
