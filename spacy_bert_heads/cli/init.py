"""`bert-heads init`: a folder in, a project that runs out."""

from pathlib import Path
from typing import Annotated, Optional

import typer

DIRECTORY = typer.Argument(help="Folder for the project.", show_default=False)
LANG = typer.Option("--lang", "-l", help="spaCy's language code.")
HEADS = typer.Option(
    "--heads", help="ner, or one of textcat, textcat_multilabel and regression, or both, separated by a comma."
)
ENCODER = typer.Option(
    "--encoder",
    help='Hub id, folder, package:IMPORT_NAME/FOLDER, or "scratch".',
    show_default="for English the demo encoder, otherwise scratch",
)
FORCE = typer.Option("--force", "-F", help="Write into a folder that is not empty.")


def init_cli(
    directory: Annotated[Path, DIRECTORY],
    lang: Annotated[str, LANG] = "en",
    heads: Annotated[str, HEADS] = "textcat,ner",
    encoder: Annotated[Optional[str], ENCODER] = None,
    force: Annotated[bool, FORCE] = False,
) -> None:
    """
    Write a project: project.yml, a commented training config and a few sample annotations.

    `python -m spacy project run all DIRECTORY` then runs every step up to an installable package.
    """
    from ..project.configs import parse_heads
    from ..project.init import write_project

    written = write_project(directory, lang=lang, heads=parse_heads(heads), encoder=encoder, force=force)
    for path in written:
        typer.echo(f"  {path}")
    typer.echo(f"Wrote {len(written)} files in {directory}. Next: python -m spacy project run all {directory}")
