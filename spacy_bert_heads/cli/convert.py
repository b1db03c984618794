"""`bert-heads convert`: annotation files in, train, dev and test `.spacy` files out."""

from pathlib import Path
from typing import Annotated, List, Optional

import typer

from ..corpus.splits import DEFAULT_SPLIT
from .reading_options import (
    DELIMITER,
    FLATTEN,
    FORMAT,
    HEADER,
    KIND,
    LABEL_COLUMN,
    LABEL_SEPARATOR,
    LABELS,
    OFF_TOKENS,
    PAIR_SEPARATOR,
    SCHEME,
    SKIP_BAD,
    SPANS_KEY,
    TEXT_COLUMN,
)

INPUTS = typer.Argument(help="Annotation files, plain or gzipped, or folders of them.", metavar="INPUT...")
OUTPUT_DIR = typer.Argument(help="Folder for train.spacy, dev.spacy and test.spacy.", metavar="OUTPUT_DIR")
LANG = typer.Option("--lang", "-l", help="Language whose tokenizer splits texts that come without tokens.")
SPLIT = typer.Option("--split", "-s", help="Shares of train, dev and test. A text keeps its split when data is added.")
DEV = typer.Option("--dev", help="File of the dev split, its texts left out of train; can be repeated.")
TEST = typer.Option("--test", help="File of the test split, its texts left out of the others; can be repeated.")
SEED = typer.Option("--seed", help="Seed of the split: another number divides the texts differently.")
ENCODER = typer.Option("--encoder", help="Also report lengths in wordpieces of this encoder.")
IGNORE = typer.Option("--ignore", help="File in a folder of INPUT that is not read; can be repeated.")
SAMPLE = typer.Option("--sample", help="File of sample records, used only while INPUT holds no other file.")
REPORT = typer.Option("--report", "-r", help="Also write the report here, as JSON.")


def convert_cli(
    inputs: Annotated[List[Path], INPUTS],
    output_dir: Annotated[Path, OUTPUT_DIR],
    format: Annotated[str, FORMAT] = "auto",
    lang: Annotated[str, LANG] = "en",
    split: Annotated[str, SPLIT] = DEFAULT_SPLIT,
    dev: Annotated[Optional[List[Path]], DEV] = None,
    test: Annotated[Optional[List[Path]], TEST] = None,
    seed: Annotated[int, SEED] = 0,
    skip_bad: Annotated[bool, SKIP_BAD] = False,
    off_tokens: Annotated[str, OFF_TOKENS] = "error",
    encoder: Annotated[Optional[str], ENCODER] = None,
    report: Annotated[Optional[Path], REPORT] = None,
    ignore: Annotated[Optional[List[Path]], IGNORE] = None,
    sample: Annotated[Optional[Path], SAMPLE] = None,
    labels: Annotated[Optional[Path], LABELS] = None,
    text_column: Annotated[Optional[str], TEXT_COLUMN] = None,
    label_column: Annotated[Optional[str], LABEL_COLUMN] = None,
    kind: Annotated[str, KIND] = "auto",
    label_separator: Annotated[str, LABEL_SEPARATOR] = ",",
    delimiter: Annotated[Optional[str], DELIMITER] = None,
    header: Annotated[Optional[bool], HEADER] = None,
    scheme: Annotated[str, SCHEME] = "auto",
    pair_separator: Annotated[str, PAIR_SEPARATOR] = " ",
    spans_key: Annotated[Optional[str], SPANS_KEY] = None,
    flatten: Annotated[Optional[str], FLATTEN] = None,
) -> None:
    """
    Convert annotation files to spaCy's binary format, split into train, dev and test.

    All records of a text become one Doc. The same text is never in two splits.
    Everything left out, merged or decided is reported with file and line.
    """
    from ..corpus.convert import convert
    from ..corpus.readers.formats import ReadOptions

    options = ReadOptions(
        lang=lang,
        labels=labels,
        text_column=text_column,
        label_column=label_column,
        kind=kind,
        label_separator=label_separator,
        delimiter=delimiter,
        header=header,
        scheme=scheme,
        pair_separator=pair_separator,
        spans_key=spans_key,
        flatten=flatten,
    )
    done = convert(
        inputs,
        output_dir,
        format=format,
        split=split,
        seed=seed,
        dev=dev or [],
        test=test or [],
        options=options,
        off_tokens=off_tokens,
        skip_bad=skip_bad,
        encoder=encoder,
        report_path=report,
        ignore=ignore or [],
        sample=sample,
    )
    typer.echo(done.to_text())
