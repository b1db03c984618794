"""`bert-heads evaluate`: a trained pipeline and annotated texts in, all scores out."""

from pathlib import Path
from typing import Annotated

import typer

MODEL = typer.Argument(help="Folder or package of the trained pipeline.", show_default=False)
DATA = typer.Argument(help="Annotated texts, a .spacy file or a folder of them.", show_default=False)
OUTPUT = typer.Option("--output", "-o", help="Where to write all scores, as JSON.", show_default=False)
GPU = typer.Option("--gpu-id", "-g", help="Number of the GPU to use; -1: none.")


def evaluate_cli(
    model: Annotated[str, MODEL],
    data: Annotated[Path, DATA],
    output: Annotated[Path, OUTPUT],
    gpu: Annotated[int, GPU] = -1,
) -> None:
    """
    Score a trained pipeline on annotated texts.

    Like `spacy evaluate`, but keeps every score, such as the accuracy of exclusive categories.
    """
    from spacy.cli._util import setup_gpu

    from ..evaluation.evaluate import evaluate, to_text

    setup_gpu(gpu)
    scores = evaluate(model, data, output)
    typer.echo(to_text(scores))
    typer.echo(f"Wrote the scores on {scores['docs']} texts to {output}")
