"""`bert-heads check-package`: a pipeline's wheel in, proof that it works in a fresh environment out."""

from pathlib import Path
from typing import Annotated, List, Optional

import typer

WHEEL = typer.Argument(help="Wheel built by `spacy package --build wheel`.", show_default=False)
TEXT = typer.Option("--text", "-t", help="Text to try it on; can be repeated.", show_default=False)
OUTPUT = typer.Option("--output", "-o", help="Also write the result here, as JSON.", show_default=False)
CONSTRAINTS = typer.Option(
    "--constraints", "-c", help="Constraints file for pip, as in `pip install -c`.", show_default=False
)


def check_package_cli(
    wheel: Annotated[Path, WHEEL],
    text: Annotated[List[str], TEXT],
    output: Annotated[Optional[Path], OUTPUT] = None,
    constraints: Annotated[Optional[Path], CONSTRAINTS] = None,
) -> None:
    """
    Install a packaged pipeline in a fresh virtual environment and try it there, without access to a model hub.

    Takes as much time and disk space as pip needs for torch and spaCy; the environment is removed afterwards.
    """
    from ..packaging.check_package import check_package, to_text

    result = check_package(wheel, text, output=output, constraints=constraints)
    typer.echo(to_text(result))
    if output:
        typer.echo(f"Wrote {len(result['results'])} annotated texts to {output}")
