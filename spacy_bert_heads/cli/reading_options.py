"""Options of every command that reads annotation files: what the files do not say themselves."""

import inspect
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Callable, Dict, Optional

import typer

READING = "How to read the files"

FORMAT = typer.Option(
    "--format",
    "-f",
    help="Format of the files: auto (look at the content), prodigy, doccano, label-studio, cluener, spacy-json, "
    "spacy, hf-datasets, conll, token-lines, token-spans, brat, cmeee, triples, fasttext, opennlp, labelled-lines, "
    "csv or tsv.",
)
SKIP_BAD = typer.Option("--skip-bad", help="Skip bad records, counted and named, instead of stopping.")
OFF_TOKENS = typer.Option(
    "--off-tokens",
    help="Spans not at token boundaries: error (a bad record), drop, expand to whole tokens, or split the tokens.",
)
LABELS = typer.Option("--labels", help="File of all labels, one per line: names for numbers.", rich_help_panel=READING)
TEXT_COLUMN = typer.Option(
    "--text-column",
    help="Name or number (1: first, -1: last) of the column of texts or words; A,B: a pair of sentences.",
    rich_help_panel=READING,
)
LABEL_COLUMN = typer.Option(
    "--label-column",
    help="Name or number of the column of labels or tags; A,B,C: a column for each label.",
    rich_help_panel=READING,
)
KIND = typer.Option(
    "--kind", help="What the label column holds: auto, single, multi or score.", rich_help_panel=READING
)
LABEL_SEPARATOR = typer.Option(
    "--label-separator", help="What separates several labels of a text.", rich_help_panel=READING
)
DELIMITER = typer.Option("--delimiter", help="What separates the columns; also: tab, space.", rich_help_panel=READING)
HEADER = typer.Option(
    "--header/--no-header", help="Whether the first line names the columns.", rich_help_panel=READING
)
SCHEME = typer.Option("--scheme", help="Tag scheme: auto, bio, iob1, biluo, bioes or bmes.", rich_help_panel=READING)
PAIR_SEPARATOR = typer.Option(
    "--pair-separator", help="What to put between the two sentences of a pair.", rich_help_panel=READING
)
SPANS_KEY = typer.Option(
    "--spans-key",
    help="Put entities, which may then overlap, into doc.spans under this key, for bert_spans: sc.",
    show_default="into doc.ents, where they may not overlap",
    rich_help_panel=READING,
)
FLATTEN = typer.Option(
    "--flatten",
    help="Of entities that overlap, put these into doc.ents: outer, inner or longest.",
    show_default="none may overlap",
    rich_help_panel=READING,
)


def _read_as(
    format: Annotated[str, FORMAT] = "auto",
    skip_bad: Annotated[bool, SKIP_BAD] = False,
    off_tokens: Annotated[str, OFF_TOKENS] = "error",
    labels: Annotated[Optional[Path], LABELS] = None,
    text_column: Annotated[Optional[str], TEXT_COLUMN] = None,
    label_column: Annotated[Optional[str], LABEL_COLUMN] = None,
    kind: Annotated[str, KIND] = "auto",
    label_separator: Annotated[str, LABEL_SEPARATOR] = ",",
    delimiter: Annotated[Optional[str], DELIMITER] = None,
    header: Annotated[Optional[bool], HEADER] = None,
    scheme: Annotated[str, SCHEME] = "auto",
    pair_separator: Annotated[str, PAIR_SEPARATOR] = " ",
) -> Dict[str, Any]:
    """RETURNS (Dict[str, Any]): How files are to be read: arguments of evaluation.evaluate.evaluate."""
    from ..corpus.readers.formats import ReadOptions

    options = ReadOptions(
        labels=labels,
        text_column=text_column,
        label_column=label_column,
        kind=kind,
        label_separator=label_separator,
        delimiter=delimiter,
        header=header,
        scheme=scheme,
        pair_separator=pair_separator,
    )
    return {"format": format, "options": options, "off_tokens": off_tokens, "skip_bad": skip_bad}


def with_reading_options(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb that scores a pipeline the options of reading, behind its own.

    verb (Callable[..., None]): Takes what they come to as `reading`, its last argument: arguments of
        evaluation.evaluate.evaluate.
    RETURNS (Callable[..., None]): The verb, with the options in its signature for typer.
    """
    added = inspect.signature(_read_as).parameters
    own = [parameter for parameter in inspect.signature(verb).parameters.values() if parameter.name != "reading"]

    @wraps(verb)
    def wrapper(**given: Any) -> None:
        reading = _read_as(**{name: given.pop(name) for name in list(given) if name in added})
        verb(**given, reading=reading)

    wrapper.__signature__ = inspect.Signature([*own, *added.values()])  # type: ignore[attr-defined]
    return wrapper
