"""`bert-heads convert`: annotation files in, train, dev and test `.spacy` files out."""

from pathlib import Path
from typing import Annotated, List, Optional

import typer

from ..corpus.splits import DEFAULT_SPLIT

INPUTS = typer.Argument(help="Annotation files, plain or gzipped.", metavar="INPUT...")
OUTPUT_DIR = typer.Argument(help="Folder for train.spacy, dev.spacy and test.spacy.", metavar="OUTPUT_DIR")
FORMAT = typer.Option("--format", "-f", help="Format of the files: auto (look at the content) or prodigy.")
LANG = typer.Option("--lang", "-l", help="Language whose tokenizer splits texts that come without tokens.")
SPLIT = typer.Option("--split", "-s", help="Shares of train, dev and test. A text stays put when data is added.")
DEV = typer.Option("--dev", help="File that is the dev split; its texts are left out of train.")
TEST = typer.Option("--test", help="File that is the test split; its texts are left out of train and dev.")
SEED = typer.Option("--seed", help="Another number divides the texts otherwise.")
SKIP_BAD = typer.Option("--skip-bad", help="Leave bad records out, counted and named, instead of stopping.")
REPORT = typer.Option("--report", "-r", help="Write the report here too, as JSON.")


def convert_cli(
    inputs: Annotated[List[Path], INPUTS],
    output_dir: Annotated[Path, OUTPUT_DIR],
    format: Annotated[str, FORMAT] = "auto",
    lang: Annotated[str, LANG] = "en",
    split: Annotated[str, SPLIT] = DEFAULT_SPLIT,
    dev: Annotated[Optional[Path], DEV] = None,
    test: Annotated[Optional[Path], TEST] = None,
    seed: Annotated[int, SEED] = 0,
    skip_bad: Annotated[bool, SKIP_BAD] = False,
    report: Annotated[Optional[Path], REPORT] = None,
) -> None:
    """
    Convert annotation files to spaCy's binary format, split into train, dev and test.

    All records of a text become one Doc. The same text is never in two splits.
    Everything left out, merged or decided is reported with file and line.
    """
    from ..corpus.convert import convert

    done = convert(
        inputs,
        output_dir,
        format=format,
        lang=lang,
        split=split,
        seed=seed,
        dev=dev,
        test=test,
        skip_bad=skip_bad,
        report_path=report,
    )
    typer.echo(done.to_text())
