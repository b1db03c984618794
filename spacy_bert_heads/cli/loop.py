"""`bert-heads loop`: raw texts and a training config in, a better pipeline after each round of answers out."""

from pathlib import Path
from typing import Annotated, List, Optional

import typer

from ..errors import BertHeadsError
from .prelabel import confirmation
from .thread_option import THREADS

START = "What to start from"
TASKS = "What to ask"
TRAINING = "How to train"
NOTHING_PANEL = "If nothing is annotated yet"
TEACHER_PANEL = "A large language model for the first round"

FOLDER = typer.Argument(help="Folder of the loop, which holds its whole state.", show_default=False)
CONFIG = typer.Option("--config", "-c", help="Training config, such as configs/joint.cfg.", show_default=False)
RAW = typer.Option(
    "--raw", help='Raw texts: .jsonl whose lines have a "text", or .txt, one text per line.', show_default=False
)
DEV = typer.Option(
    "--dev",
    help="Annotated texts that choose the best checkpoint, a .spacy file. Needed with --model only.",
    show_default="cross-validation; from 300 texts on, a fifth of them",
)
TEST = typer.Option(
    "--test", help="Annotated texts that score each round, a .spacy file.", show_default="those of --dev"
)
BASE = typer.Option(
    "--base",
    "-b",
    help="Annotated texts in any format that merge reads; can be repeated.",
    rich_help_panel=START,
    show_default=False,
)
MODEL = typer.Option(
    "--model", "-m", help="Trained pipeline.", rich_help_panel=START, show_default="trained on --base"
)
VIEW = typer.Option(
    "--view",
    "-v",
    help="How annotators are asked: ner_manual, spans_manual, choice, blocks (both), ner, spans or classification "
    "(yes or no).",
    rich_help_panel=TASKS,
    show_default="everything the heads predict, filled in",
)
STRATEGY = typer.Option(
    "--strategy", "-s", help="Which texts come first, as in suggest.", rich_help_panel=TASKS, show_default=False
)
LIMIT = typer.Option("--limit", "-n", help="Texts per round.", rich_help_panel=TASKS)
DIVERSE = typer.Option("--diverse", help="Choose texts that differ from each other.", rich_help_panel=TASKS)
RANDOM_SHARE = typer.Option(
    "--random-share", help="Share of --limit to draw at random, such as 0.1.", rich_help_panel=TASKS
)
EPOCHS = typer.Option(
    "--epochs",
    help="Passes over all annotated texts.",
    rich_help_panel=TRAINING,
    show_default="from the start as many as suit the texts, later as in the config",
)
OFF_TOKENS = typer.Option(
    "--off-tokens",
    help="Spans not at token boundaries: error, drop, expand to whole tokens, or split the tokens.",
    rich_help_panel=TRAINING,
)
SKIP_BAD = typer.Option(
    "--skip-bad", help="Skip bad records, counted and named, instead of stopping.", rich_help_panel=TRAINING
)
TEACHER = typer.Option(
    "--teacher",
    help="Endpoint of a large language model, as in prelabel, that fills in the first round: for a start with no "
    "annotation at all.",
    rich_help_panel=TEACHER_PANEL,
    show_default=False,
)
TEACHER_MODEL = typer.Option(
    "--teacher-model", help="Name of the model there.", rich_help_panel=TEACHER_PANEL, show_default=False
)
LABELS = typer.Option(
    "--labels", help="Entity labels, separated by commas.", rich_help_panel=NOTHING_PANEL, show_default=False
)
CATEGORIES = typer.Option(
    "--categories", help="Categories, separated by commas.", rich_help_panel=NOTHING_PANEL, show_default=False
)
DESCRIPTIONS = typer.Option(
    "--descriptions",
    help="File that says what labels and categories mean, as in prelabel.",
    rich_help_panel=TEACHER_PANEL,
    show_default=False,
)
YES = typer.Option("--yes", "-y", help="Send the texts there without asking.", rich_help_panel=TEACHER_PANEL)
GPU = typer.Option("--gpu-id", "-g", help="Number of the GPU to use; -1: none.", rich_help_panel=TRAINING)


def loop_cli(
    folder: Annotated[Path, FOLDER],
    config: Annotated[Path, CONFIG],
    raw: Annotated[Path, RAW],
    dev: Annotated[Optional[Path], DEV] = None,
    test: Annotated[Optional[Path], TEST] = None,
    base: Annotated[Optional[List[Path]], BASE] = None,
    model: Annotated[Optional[str], MODEL] = None,
    view: Annotated[Optional[str], VIEW] = None,
    strategy: Annotated[Optional[str], STRATEGY] = None,
    limit: Annotated[int, LIMIT] = 100,
    diverse: Annotated[bool, DIVERSE] = False,
    random_share: Annotated[float, RANDOM_SHARE] = 0.0,
    epochs: Annotated[Optional[int], EPOCHS] = None,
    off_tokens: Annotated[str, OFF_TOKENS] = "error",
    skip_bad: Annotated[bool, SKIP_BAD] = False,
    gpu: Annotated[int, GPU] = -1,
    teacher: Annotated[Optional[str], TEACHER] = None,
    teacher_model: Annotated[Optional[str], TEACHER_MODEL] = None,
    labels: Annotated[Optional[str], LABELS] = None,
    categories: Annotated[Optional[str], CATEGORIES] = None,
    descriptions: Annotated[Optional[Path], DESCRIPTIONS] = None,
    yes: Annotated[bool, YES] = False,
    threads: Annotated[str, THREADS] = "auto",
) -> None:
    """
    Choose texts, wait for answers, train on them and score, round by round.

    Writes FOLDER/round-01/tasks.jsonl and exits. If nothing is annotated yet, give --labels and --categories: the
    first texts are then typical of many others. Annotate the tasks, save the answers next to them in any format, and
    run the same command again: it merges all answers, continues training from the last pipeline, shows the scores of
    all rounds and writes the next tasks. It can be interrupted at any moment.
    """
    from ..threads import settle

    settle(threads)
    from spacy.cli._util import setup_gpu

    from ..annotation.loop import chooses_one, run_loop
    from ..annotation.prelabel.teacher import Teacher
    from ..annotation.rounds import LoopSettings
    from ..annotation.tasks import split_names

    setup_gpu(gpu)
    first = None
    if teacher is not None:
        if teacher_model is None:
            raise BertHeadsError("H504", name="--teacher-model", found="none", expected="the name of the model there")
        first = Teacher(
            teacher,
            teacher_model,
            labels=split_names(labels),
            categories=split_names(categories),
            multiple=not chooses_one(config),
            descriptions=descriptions,
        )
    settings = LoopSettings(
        config=config,
        raw=raw,
        dev=dev,
        test=test,
        bases=tuple(base or []),
        model=model,
        view=view,
        strategy=strategy,
        limit=limit,
        diverse=diverse,
        random_share=random_share,
        epochs=epochs,
        off_tokens=off_tokens,
        skip_bad=skip_bad,
        gpu=gpu,
        labels=tuple(split_names(labels) or ()),
        categories=tuple(split_names(categories) or ()),
        teacher=first,
        confirm=confirmation(yes),
    )
    typer.echo(run_loop(folder, settings, say=typer.echo))
