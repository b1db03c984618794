"""`bert-heads compare`: pipelines or reports in, what differs out."""

from pathlib import Path
from typing import Annotated, Any, Dict, List, Optional

import typer

from .reading_options import with_reading_options

INPUTS = typer.Argument(
    help="Trained pipelines, and reports of evaluate (report.json or its folder): two or more. Behind pipelines, the "
    "annotated texts.",
    metavar="A B [C]... [CORPUS]",
    show_default=False,
)
OUTPUT = typer.Option(
    "--output",
    "-o",
    help="Folder for compare.html, compare.json and compare.md; or with --history for history.html and so on.",
    show_default=False,
)
HISTORY = typer.Option(
    "--history",
    help="Show all evaluations that evaluate --history kept in this folder, such as metrics/en.",
    show_default=False,
)
GPU = typer.Option("--gpu-id", "-g", help="Number of the GPU to use; -1: none.")


@with_reading_options
def compare_cli(
    inputs: Annotated[Optional[List[str]], INPUTS] = None,
    output: Annotated[Optional[Path], OUTPUT] = None,
    history: Annotated[Optional[Path], HISTORY] = None,
    gpu: Annotated[int, GPU] = -1,
    *,
    reading: Dict[str, Any],
) -> None:
    """
    Compare pipelines on the same texts: scores with a significance test, labels, and texts mended and broken.

    All are compared with the first one. Reports may be of different corpora and label schemes: what they have in
    common is compared, and the rest is named.
    """
    from spacy.cli._util import setup_gpu

    from ..evaluation.compare import compare, open_inputs
    from ..evaluation.compare_report import NAMES, check_output, to_text, write_comparison

    given = inputs or []
    if history is not None:
        _show_history(history, given, output)
        return
    if output is not None:
        check_output(output, given)
    if gpu >= 0:
        setup_gpu(gpu)
    reports = open_inputs(given, **reading, say=typer.echo)
    comparison = compare(reports)
    typer.echo(to_text(comparison))
    if output is not None:
        write_comparison(comparison, output)
        typer.echo(f"Wrote the comparison on {comparison.n_texts} texts to {output}: {', '.join(NAMES)}")


def _show_history(folder: Path, inputs: List[str], output: Optional[Path]) -> None:
    from ..errors import BertHeadsError, printable
    from ..evaluation.history import NAMES, check_output, make_table, read_history, write_history

    if inputs:
        raise BertHeadsError("H627", found=", ".join(inputs))
    if output is not None:
        check_output(output, folder)
    found = read_history(folder)
    for note in found.notes:
        typer.echo(printable(f"Note: {note}"))
    typer.echo(make_table(found).to_text())
    if output is not None:
        write_history(found, output)
        typer.echo(f"Wrote the history of {len(found.runs)} evaluations to {output}: {', '.join(NAMES)}")
