"""`bert-heads prelabel`: raw texts in, tasks filled in by a large language model out."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Callable, List, Optional

import typer

from .reading_options import SKIP_BAD
from .suggest import SOURCE

if TYPE_CHECKING:
    from ..annotation.prelabel.teacher import Plan

MODEL_PANEL = "Whom to ask"
QUESTION = "What to ask"
COST = "What it may cost"

OUTPUT = typer.Argument(help="Task file to write.", metavar="TASKS", show_default=False)
ENDPOINT = typer.Option(
    "--endpoint",
    "-u",
    help="Address that speaks OpenAI's chat completions, such as http://127.0.0.1:8000/v1. A key is read from the "
    "environment variable SPACY_BERT_HEADS_API_KEY.",
    show_default=False,
    rich_help_panel=MODEL_PANEL,
)
MODEL = typer.Option("--model", "-m", help="Name of the model there.", show_default=False, rich_help_panel=MODEL_PANEL)
TIMEOUT = typer.Option("--timeout", help="Seconds in which an answer must be complete.", rich_help_panel=MODEL_PANEL)
CONCURRENCY = typer.Option("--concurrency", help="How many answers to wait for at once.", rich_help_panel=MODEL_PANEL)
LABELS = typer.Option(
    "--labels",
    help="Entity labels, separated by commas.",
    show_default="those of --examples",
    rich_help_panel=QUESTION,
)
CATEGORIES = typer.Option(
    "--categories",
    help="Categories of texts, separated by commas; exactly one holds for a text.",
    show_default="those of --examples",
    rich_help_panel=QUESTION,
)
MULTIPLE = typer.Option(
    "--multiple", help="Several categories may hold for a text, or none.", rich_help_panel=QUESTION
)
DESCRIPTIONS = typer.Option(
    "--descriptions",
    help="File that says what labels and categories mean, in lines such as `LOC: countries and cities`.",
    show_default=False,
    rich_help_panel=QUESTION,
)
EXAMPLES = typer.Option(
    "--examples",
    help="Annotated texts in any format that convert reads, of which the most similar ones are shown with each text "
    "(needs scikit-learn); can be repeated.",
    show_default=False,
    rich_help_panel=QUESTION,
)
SHOTS = typer.Option("--shots", help="How many examples to show with each text.", rich_help_panel=QUESTION)
TWICE = typer.Option(
    "--twice",
    help="Ask twice, with labels and examples in another order, and mark what only one answer says as unsure.",
    rich_help_panel=QUESTION,
)
FORMAT = typer.Option("--format", "-f", help="Format of the tasks: prodigy, label-studio or doccano.")
LANG = typer.Option("--lang", "-l", help="Language whose tokenizer splits the texts.")
LIMIT = typer.Option(
    "--limit", "-n", help="How many texts, drawn at random; a higher limit draws others besides.", show_default="all"
)
EXCLUDE = typer.Option(
    "--exclude",
    "-e",
    help="File of texts that are not to be asked about, in any format that convert reads; can be repeated.",
    show_default=False,
)
CACHE = typer.Option(
    "--cache", help="File in which answers are kept, so that none is paid for twice.", show_default="TASKS.answers"
)
FORCE = typer.Option("--force", help="Replace a task file that is there, unless somebody has answered some tasks.")
MAX_TOKENS = typer.Option("--max-tokens", help="The most tokens of an answer.", rich_help_panel=COST)
PRICE_IN = typer.Option("--price-in", help="Price of a million tokens of prompts.", rich_help_panel=COST)
PRICE_OUT = typer.Option("--price-out", help="Price of a million tokens of answers.", rich_help_panel=COST)
BUDGET = typer.Option(
    "--budget",
    help="The most that all answers in the cache may cost. When no further prompt fits, the tasks are written.",
    show_default="no limit",
    rich_help_panel=COST,
)
YES = typer.Option(
    "--yes", "-y", help="Send the texts without asking. To an endpoint on this machine, that is never asked."
)


def prelabel_cli(
    source: Annotated[Path, SOURCE],
    output: Annotated[Path, OUTPUT],
    endpoint: Annotated[str, ENDPOINT],
    model: Annotated[str, MODEL],
    labels: Annotated[Optional[str], LABELS] = None,
    categories: Annotated[Optional[str], CATEGORIES] = None,
    multiple: Annotated[bool, MULTIPLE] = False,
    descriptions: Annotated[Optional[Path], DESCRIPTIONS] = None,
    examples: Annotated[Optional[List[Path]], EXAMPLES] = None,
    shots: Annotated[int, SHOTS] = 5,
    twice: Annotated[bool, TWICE] = False,
    format: Annotated[str, FORMAT] = "prodigy",
    lang: Annotated[str, LANG] = "en",
    limit: Annotated[Optional[int], LIMIT] = None,
    exclude: Annotated[Optional[List[Path]], EXCLUDE] = None,
    cache: Annotated[Optional[Path], CACHE] = None,
    timeout: Annotated[float, TIMEOUT] = 120.0,
    concurrency: Annotated[int, CONCURRENCY] = 4,
    max_tokens: Annotated[int, MAX_TOKENS] = 2048,
    price_in: Annotated[float, PRICE_IN] = 0.0,
    price_out: Annotated[float, PRICE_OUT] = 0.0,
    budget: Annotated[Optional[float], BUDGET] = None,
    yes: Annotated[bool, YES] = False,
    force: Annotated[bool, FORCE] = False,
    skip_bad: Annotated[bool, SKIP_BAD] = False,
) -> None:
    """
    Have a large language model annotate texts, and write its answers as tasks for people to correct.

    The model names words, and offsets are found here. Words that are not in the text are left out and counted. Each
    answer is kept when it comes: after an interruption the same command goes on where it was.
    """
    from ..annotation.prelabel.prelabel import prelabel
    from ..annotation.prelabel.teacher import Teacher
    from ..annotation.tasks import split_names

    teacher = Teacher(
        endpoint=endpoint,
        model=model,
        labels=split_names(labels),
        categories=split_names(categories),
        multiple=multiple,
        descriptions=descriptions,
        examples=examples or [],
        shots=shots,
        twice=twice,
        max_tokens=max_tokens,
        timeout=timeout,
        concurrency=concurrency,
        price_in=price_in,
        price_out=price_out,
        budget=budget,
    )
    report = prelabel(
        source,
        output,
        teacher,
        confirm=confirmation(yes),
        format=format,
        lang=lang,
        limit=limit,
        exclude=exclude or [],
        cache=cache,
        force=force,
        skip_bad=skip_bad,
    )
    typer.echo(f"{report.to_text()} to {output}")


def confirmation(yes: bool) -> Callable[["Plan"], bool]:
    """RETURNS (Callable[[Plan], bool]): Asks at a terminal whether texts may be sent; elsewhere --yes must say so."""

    def confirm(plan: "Plan") -> bool:
        if yes:
            return True
        return sys.stdin.isatty() and typer.confirm(f"{plan.to_text()}. Send them?")

    return confirm
