"""`bert-heads train`: a training config in, a trained pipeline out, however often it is interrupted."""

import os
from pathlib import Path
from typing import Annotated, Optional

import typer

from .thread_option import THREADS

CONFIG = typer.Argument(help="Training config.", show_default=False)
OUTPUT = typer.Option(
    "--output", "--output-path", "-o", help="Folder for the trained pipeline and the checkpoints.", show_default=False
)
CODE = typer.Option("--code", "-c", help="Python file with registered functions to import.", show_default=False)
ENCODER = typer.Option(
    "--encoder",
    help='Hub id, folder, package:IMPORT_NAME/FOLDER, or "scratch"; brings the learning rates that suit it.',
    show_default="as in the config",
)
VERBOSE = typer.Option("--verbose", "-V", help="Show more details.")
GPU = typer.Option("--gpu-id", "-g", help="Number of the GPU to use; -1: none.")
RESUME = typer.Option("--resume", "-r", help="Resume an interrupted training run in this folder.")
OR_RESTART = typer.Option(
    "--or-restart", help="Resume, but restart if the run has finished, or had another config or corpus."
)


def train_cli(
    ctx: typer.Context,
    config: Annotated[Path, CONFIG],
    output: Annotated[Path, OUTPUT],
    code: Annotated[Optional[Path], CODE] = None,
    encoder: Annotated[Optional[str], ENCODER] = None,
    verbose: Annotated[bool, VERBOSE] = False,
    gpu: Annotated[int, GPU] = -1,
    threads: Annotated[str, THREADS] = "auto",
    resume: Annotated[bool, RESUME] = False,
    or_restart: Annotated[bool, OR_RESTART] = False,
) -> None:
    """
    Train a pipeline as `spacy train` does, and never lose a run.

    A checkpoint is written at each evaluation. With --resume, an interrupted run continues from the last checkpoint,
    to the same weights and scores as if it had never been interrupted; without a checkpoint it starts, and if it has
    finished, nothing is done. (For project files, where spaCy decides whether anything has to be done, --or-restart
    trains again if resuming makes no sense.) Any setting of the config can be an option, such as --paths.train.

    Several processes share each batch and take the same steps as one process; on GPUs, process N uses GPU N:
    torchrun --standalone --nproc-per-node 2 -m spacy bert-heads train CONFIG --output OUT
    """
    from ..threads import settle

    settle(threads)
    from spacy.cli._util import import_code, parse_config_overrides, setup_gpu

    from ..training.run import run

    if gpu >= 0:
        gpu = int(os.environ.get("LOCAL_RANK", gpu))
    overrides = parse_config_overrides(ctx.args)
    import_code(code)
    setup_gpu(gpu)
    result = run(
        config,
        output,
        overrides=overrides,
        use_gpu=gpu,
        resume=resume,
        or_restart=or_restart,
        verbose=verbose,
        encoder=encoder,
    )
    typer.echo(result)
