"""`bert-heads export`: `.spacy` files in, a file for an annotation tool out."""

from pathlib import Path
from typing import Annotated, Optional

import typer

SOURCE = typer.Argument(
    help="Annotated texts: a .spacy file or a folder of them.",
    metavar="CORPUS",
    show_default=False,
)
OUTPUT = typer.Argument(help="File to write.", show_default=False)
FORMAT = typer.Option("--format", "-f", help="prodigy, label-studio, doccano or conll.", show_default=False)
MODEL = typer.Option("--model", "-m", hidden=True)
SCHEME = typer.Option("--scheme", help="Tag scheme of conll: bio, biluo, bioes or bmes.")
LANG = typer.Option(
    "--lang",
    "-l",
    help="Language of the texts; decides the spaces in conll and the tokens elsewhere.",
)
SEPARATE = typer.Option(
    "--separate", help="prodigy: entities and categories of a text on two lines, for two interfaces."
)
SPANS_KEY = typer.Option(
    "--spans-key", help="Write the spans of this key of doc.spans, which may overlap.", show_default="entities"
)


def export_cli(
    source: Annotated[Path, SOURCE],
    output: Annotated[Path, OUTPUT],
    format: Annotated[str, FORMAT],
    model: Annotated[Optional[str], MODEL] = None,
    scheme: Annotated[str, SCHEME] = "bio",
    lang: Annotated[str, LANG] = "en",
    separate: Annotated[bool, SEPARATE] = False,
    spans_key: Annotated[Optional[str], SPANS_KEY] = None,
) -> None:
    """
    Export annotated texts to Prodigy, Label Studio, doccano or CoNLL columns.

    What the format cannot hold is counted and named. A pipeline's predictions are written by apply.
    """
    from ..corpus.report import render_findings
    from ..corpus.writers.export import export
    from ..errors import BertHeadsError

    if model is not None:
        raise BertHeadsError("H640", found=model, format=format)
    count, findings = export(
        source, output, format=format, scheme=scheme, lang=lang, separate=separate, spans_key=spans_key
    )
    for line in render_findings(findings):
        typer.echo(line)
    typer.echo(f"Wrote {count} texts as {format} to {output}")
