"""`bert-heads package`: a trained pipeline in, a wheel with a model card out."""

from pathlib import Path
from typing import Annotated, Optional

import typer

MODEL = typer.Argument(help="Folder of the trained pipeline.", show_default=False)
OUTPUT = typer.Argument(
    help="Folder for the package. An older build of the same name is replaced.", show_default=False
)
NAME = typer.Option("--name", "-n", help="Name of the package, without the language. Default: the pipeline's.")
VERSION = typer.Option("--version", "-v", help="Version of the package. Default: the pipeline's.")
REPORT = typer.Option(
    "--report", "-r", help="Report that evaluate wrote on this pipeline; its scores go into the model card."
)


def package_cli(
    model: Annotated[Path, MODEL],
    output: Annotated[Path, OUTPUT],
    name: Annotated[Optional[str], NAME] = None,
    version: Annotated[Optional[str], VERSION] = None,
    report: Annotated[Optional[Path], REPORT] = None,
) -> None:
    """
    Build a wheel of a trained pipeline, with a model card as its README.

    It is the package that `spacy package` makes. The card says what the pipeline predicts, from which encoder and data
    it was made, how well it does on the test texts, and where that ends.
    """
    from ..packaging.package import package

    wheel = package(model, output, name=name, version=version, report=report)
    typer.echo(f"Built {wheel}")
