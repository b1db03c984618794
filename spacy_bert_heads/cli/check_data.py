"""`bert-heads check-data`: a config and its data in, a report and an exit status out."""

from pathlib import Path
from typing import Annotated, Optional, Sized

import typer

CONFIG = typer.Argument(help="Training config.", show_default=False)
TRAIN = typer.Option("--train", "--paths.train", help="Train split.", show_default="as in the config")
DEV = typer.Option("--dev", "--paths.dev", help="Dev split.", show_default="as in the config")
TEST = typer.Option("--test", help="Test split, if there is one.", show_default=False)
DEBUG_DATA = typer.Option(
    "--debug-data", help="First run `spacy debug data`, in the same process: importing spaCy again takes seconds."
)
OUTPUT = typer.Option("--output", "-o", help="Also write the report here, as JSON.", show_default=False)


def check_data_cli(
    config: Annotated[Path, CONFIG],
    train: Annotated[Optional[Path], TRAIN] = None,
    dev: Annotated[Optional[Path], DEV] = None,
    test: Annotated[Optional[Path], TEST] = None,
    output: Annotated[Optional[Path], OUTPUT] = None,
    debug_data: Annotated[bool, DEBUG_DATA] = False,
) -> None:
    """
    Check that annotated texts fit a training config.

    Looks at labels, token boundaries, exclusive categories and texts in two splits, which `spacy debug data` does
    not do for the heads of this package. Exit status 1 if training would fail or learn the wrong thing.
    """
    if debug_data:
        from spacy.cli.debug_data import debug_data as run_debug_data

        from ..training.head_start import no_head_start

        paths = {"paths.train": train, "paths.dev": dev}
        overrides = {name: str(path) for name, path in paths.items() if path is not None}
        with no_head_start():
            run_debug_data(config, config_overrides=overrides, no_format=False, silent=False)
    from ..evaluation.check_data import check_data

    report = check_data(config, train=train, dev=dev, test=test, output=output)
    typer.echo(report.to_text())
    for error in report.errors:
        typer.echo(str(error), err=True)
    docs = sum(split.counts.docs for split in report.splits.values())
    written = f"; report in {output}" if output else ""
    errors, warnings = _count(report.errors, "error"), _count(report.warnings, "warning")
    if report.errors:
        typer.echo(f"The config and these {docs} texts do not fit: {errors}, {warnings}{written}")
        raise typer.Exit(1)
    typer.echo(f"{docs} texts fit the config, {warnings}{written}")


def _count(things: Sized, name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"
