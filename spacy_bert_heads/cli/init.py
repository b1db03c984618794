"""`bert-heads init`: a folder in, a project that runs out."""

from pathlib import Path
from typing import Annotated, List, Optional

import typer

READING = "How to read the files"

DIRECTORY = typer.Argument(help="Folder for the project; the package gets its name.", show_default=False)
DATA = typer.Option(
    "--data",
    "-d",
    help="Annotation file or folder of them, copied into the project; can be repeated. Heads and language are "
    "those of the data.",
    show_default="a few samples",
)
LANG = typer.Option("--lang", "-l", help="spaCy's language code.", show_default="that of the data, or en")
HEADS = typer.Option(
    "--heads",
    help="One text head (textcat, textcat_multilabel or regression), ner (entities), spans (entities that overlap), "
    "seq2seq (entities that are generated), or several separated by commas: textcat,ner.",
    show_default="what the data teaches, or textcat,ner",
)
ENCODER = typer.Option(
    "--encoder",
    help='Hub id, folder, package:IMPORT_NAME/FOLDER, "multilingual" (fetched from a package by the project; scratch '
    'where it is not installed), or "scratch".',
    show_default="for English the demo encoder, otherwise multilingual",
)
FORMAT = typer.Option("--format", "-f", help="Format of --data, as for convert.", rich_help_panel=READING)
TEXT_COLUMN = typer.Option("--text-column", help="Column of texts, as for convert.", rich_help_panel=READING)
LABEL_COLUMN = typer.Option("--label-column", help="Column of labels, as for convert.", rich_help_panel=READING)
KIND = typer.Option("--kind", help="What the label column holds, as for convert.", rich_help_panel=READING)
FORCE = typer.Option("--force", "-F", help="Write into a folder that is not empty.")


def init_cli(
    directory: Annotated[Path, DIRECTORY],
    data: Annotated[Optional[List[Path]], DATA] = None,
    lang: Annotated[Optional[str], LANG] = None,
    heads: Annotated[Optional[str], HEADS] = None,
    encoder: Annotated[Optional[str], ENCODER] = None,
    force: Annotated[bool, FORCE] = False,
    format: Annotated[Optional[str], FORMAT] = None,
    text_column: Annotated[Optional[str], TEXT_COLUMN] = None,
    label_column: Annotated[Optional[str], LABEL_COLUMN] = None,
    kind: Annotated[Optional[str], KIND] = None,
) -> None:
    """
    Write a project: project.yml, a commented training config, and your annotations or a few samples.

    `python -m spacy project run all DIRECTORY` then runs every step up to an installable package. It reads every
    annotation file in DIRECTORY/assets.
    """
    from ..project.init import write_project

    given = {"format": format, "text_column": text_column, "label_column": label_column, "kind": kind}
    written = write_project(
        directory,
        lang=lang,
        heads=heads,
        encoder=encoder,
        data=data or [],
        reading={name: value for name, value in given.items() if value is not None},
        force=force,
    )
    for path in written.files:
        typer.echo(f"  {path}")
    for note in written.notes:
        typer.echo(note)
    typer.echo(f"Wrote {len(written.files)} files in {directory}. Next: python -m spacy project run all {directory}")
