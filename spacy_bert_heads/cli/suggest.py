"""`bert-heads suggest`: raw texts in, tasks for annotators out, those worth most first."""

from pathlib import Path
from typing import Annotated, List, Optional

import typer

from .reading_options import SKIP_BAD
from .thread_option import THREADS

MODEL = typer.Argument(help="Trained pipeline: a folder or an installed package.", show_default=False)
SOURCE = typer.Argument(
    help='Raw texts: .jsonl whose lines have a "text" (other keys are kept), or .txt, one text per line.',
    metavar="RAW",
    show_default=False,
)
OUTPUT = typer.Argument(help="Task file to write, in Prodigy's format.", metavar="TASKS", show_default=False)
VIEW = typer.Option(
    "--view",
    "-v",
    help="How annotators are asked: ner_manual, spans_manual or choice (correct what is filled in), blocks (both at "
    "once), ner, spans or classification (yes or no).",
    show_default="everything the heads predict, filled in",
)
STRATEGY = typer.Option(
    "--strategy",
    "-s",
    help="Which texts come first. Entities and spans: mnlp; texts: breaking-ties; both: joint; or random. By default "
    "the one that fits the view, and with --limit typical texts beside it, as many as --dev advises.",
    show_default=False,
)
LIMIT = typer.Option("--limit", "-n", help="How many texts to choose. By default all, in order.", show_default=False)
LABELS = typer.Option("--labels", help="Labels to ask about, separated by commas.", show_default=False)
COMPONENT = typer.Option(
    "--component", "-c", help="Head to use if there are several of a kind; can be given twice.", show_default=False
)
EXCLUDE = typer.Option(
    "--exclude",
    "-e",
    help="File of texts that are already annotated, in any format that convert reads; can be repeated.",
    show_default=False,
)
DEV = typer.Option(
    "--dev",
    help="Annotated texts that the pipeline did not learn from: the better its doubts find its mistakes there, the "
    "fewer texts are chosen as typical ones. They are excluded, too.",
    show_default=False,
)
DIVERSE = typer.Option("--diverse", help="Choose texts that differ from each other (needs scikit-learn and --limit).")
RANDOM_SHARE = typer.Option("--random-share", help="Share of --limit to draw at random, such as 0.1.")
SEED = typer.Option("--seed", help="Seed of random choices: another number draws other texts.")


def suggest_cli(
    model: Annotated[str, MODEL],
    source: Annotated[Path, SOURCE],
    output: Annotated[Path, OUTPUT],
    view: Annotated[Optional[str], VIEW] = None,
    strategy: Annotated[Optional[str], STRATEGY] = None,
    limit: Annotated[Optional[int], LIMIT] = None,
    labels: Annotated[Optional[str], LABELS] = None,
    component: Annotated[Optional[List[str]], COMPONENT] = None,
    exclude: Annotated[Optional[List[Path]], EXCLUDE] = None,
    dev: Annotated[Optional[Path], DEV] = None,
    diverse: Annotated[bool, DIVERSE] = False,
    random_share: Annotated[float, RANDOM_SHARE] = 0.0,
    seed: Annotated[int, SEED] = 0,
    skip_bad: Annotated[bool, SKIP_BAD] = False,
    threads: Annotated[str, THREADS] = "auto",
) -> None:
    """
    Choose the texts that are most worth annotating, and fill in what the pipeline predicts.

    Texts are read one at a time, so there can be millions of them. Duplicates are written once.
    """
    from ..threads import settle

    settle(threads)
    from ..annotation.suggest import suggest
    from ..annotation.tasks import split_names

    report = suggest(
        model,
        source,
        output,
        view=view,
        strategy=strategy,
        limit=limit,
        labels=None if labels is None else split_names(labels),
        components=component or [],
        exclude=exclude or [],
        dev=dev,
        diverse=diverse,
        random_share=random_share,
        seed=seed,
        skip_bad=skip_bad,
    )
    typer.echo(f"{report.to_text()} to {output}")
