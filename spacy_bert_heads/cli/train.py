"""`bert-heads train`: a training config in, a trained pipeline out, however often it is interrupted."""

import os
from pathlib import Path
from typing import Annotated, Optional

import typer

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
VERBOSE = typer.Option("--verbose", "-V", help="Show more about what happens.")
GPU = typer.Option("--gpu-id", "-g", help="Number of the GPU to use; -1: none.")
RESUME = typer.Option("--resume", "-r", help="Go on where a training in this folder was interrupted.")
OR_RESTART = typer.Option(
    "--or-restart", help="With --resume: if it has ended, or is of another config or corpus, begin anew."
)


def train_cli(
    ctx: typer.Context,
    config: Annotated[Path, CONFIG],
    output: Annotated[Path, OUTPUT],
    code: Annotated[Optional[Path], CODE] = None,
    encoder: Annotated[Optional[str], ENCODER] = None,
    verbose: Annotated[bool, VERBOSE] = False,
    gpu: Annotated[int, GPU] = -1,
    resume: Annotated[bool, RESUME] = False,
    or_restart: Annotated[bool, OR_RESTART] = False,
) -> None:
    """
    Train a pipeline as `spacy train` does, and never lose a run.

    At each evaluation a checkpoint is written. With --resume an interrupted training goes on from the last one, to
    the same weights and scores as if nothing had happened; where there is none it begins, and where it has ended
    nothing is done. (For project files, which know by themselves whether anything is to be done, --or-restart trains
    anew where going on makes no sense.) Any setting of the config can be given as an option, such as --paths.train.

    Several processes share each batch, and make the steps that one would make; on GPUs, process N takes GPU N:
    torchrun --standalone --nproc-per-node 2 -m spacy bert-heads train CONFIG --output OUT
    """
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
