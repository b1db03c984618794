"""`bert-heads find-label-errors`: annotated texts in, tasks for the annotations that are probably wrong out."""

from pathlib import Path
from typing import Annotated, Optional

import typer

CONFIG = typer.Argument(help="Training config.", show_default=False)
TRAIN = typer.Argument(
    help="Annotated texts: a .spacy file, a folder of them, or a file of any format that convert reads.",
    show_default=False,
)
OUT = typer.Argument(
    help="Folder for the tasks, a summary, and what is finished of the trainings. Run again, it continues there.",
    metavar="OUT",
    show_default=False,
)
DEV = typer.Option(
    "--dev",
    help="Annotated texts that choose the best checkpoint of each training.",
    show_default="paths.dev of the config",
)
FOLDS = typer.Option("--folds", help="Parts of the texts, and so trainings: each part is predicted by the others.")
N = typer.Option(
    "--n", help="How many texts to look at, the most suspicious ones.", show_default="all that are probably wrong"
)
EPOCHS = typer.Option("--epochs", help="Passes over the texts in each training.", show_default="as in the config")
SEED = typer.Option("--seed", help="Decides which text is in which part.")
FORMAT = typer.Option("--format", "-f", help="Format of the tasks: prodigy or label-studio.")
GPU = typer.Option("--gpu-id", "-g", help="Number of the GPU to use; -1: none.")


def find_label_errors_cli(
    config: Annotated[Path, CONFIG],
    train: Annotated[Path, TRAIN],
    out: Annotated[Path, OUT],
    dev: Annotated[Optional[Path], DEV] = None,
    folds: Annotated[int, FOLDS] = 5,
    n: Annotated[Optional[int], N] = None,
    format: Annotated[str, FORMAT] = "prodigy",
    epochs: Annotated[Optional[int], EPOCHS] = None,
    seed: Annotated[int, SEED] = 0,
    gpu: Annotated[int, GPU] = -1,
) -> None:
    """
    Find annotations that are probably wrong, and write them as tasks, the worst first.

    The texts are divided into parts. Each part is predicted by a pipeline trained on the others, and confident
    learning finds the annotations that contradict it. Correct the tasks, and merge the answers into the corpus.
    """
    from spacy.cli._util import setup_gpu

    from ..annotation.label_errors import find_label_errors, to_text

    setup_gpu(gpu)
    errors = find_label_errors(
        config,
        train,
        out,
        dev=dev,
        folds=folds,
        epochs=epochs,
        seed=seed,
        gpu=gpu,
        n=n,
        format=format,
        say=typer.echo,
    )
    typer.echo(to_text(errors))
    n_texts = len({text for text, _, _ in errors.chosen(n)})
    written = ", ".join(map(str, errors.files)) or "no file"
    typer.echo(f"Wrote tasks for {n_texts} of {len(errors.docs)} texts to {written}")
