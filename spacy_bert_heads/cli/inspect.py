"""`bert-heads inspect`: `.spacy` files in, what they hold out."""

from pathlib import Path
from typing import Annotated, List, Optional

import typer

CORPORA = typer.Argument(
    help="Annotated texts: .spacy files, or a folder of them.", metavar="CORPUS...", show_default=False
)
HTML = typer.Option("--html", help="Write a page with figures and examples here.", show_default=False)
ENCODER = typer.Option("--encoder", help="Also count wordpieces of this encoder.", show_default=False)
REPORT = typer.Option("--report", "-r", help="Also write the counts here, as JSON.", show_default=False)
SPANS_KEY = typer.Option(
    "--spans-key", help="Show the spans of this key of doc.spans, which may overlap.", show_default="entities"
)


def inspect_cli(
    corpora: Annotated[List[Path], CORPORA],
    html: Annotated[Optional[Path], HTML] = None,
    encoder: Annotated[Optional[str], ENCODER] = None,
    report: Annotated[Optional[Path], REPORT] = None,
    spans_key: Annotated[Optional[str], SPANS_KEY] = None,
) -> None:
    """
    Show what annotated texts hold: labels, lengths, texts that occur twice.

    Given a folder written by `convert`, it shows each split as a column.
    """
    from ..corpus.inspection import inspect_corpora

    inspection = inspect_corpora(corpora, encoder=encoder, html=html, report_path=report, spans_key=spans_key)
    typer.echo(inspection.to_text())
    n_docs = sum(counts.docs for counts in inspection.counts.values())
    written = [str(path) for path in (html, report) if path]
    typer.echo(f"Read {n_docs} texts" + (f"; wrote {' and '.join(written)}" if written else ""))
