"""`bert-heads fit-config`: a training config in, a copy that is ready for one corpus out."""

from pathlib import Path
from typing import Annotated, Optional

import typer

CONFIG = typer.Argument(help="Training config, such as configs/joint.cfg.", show_default=False)
OUTPUT = typer.Argument(help="Where to write the fitted copy.", show_default=False)
TRAIN = typer.Option("--train", help="Train split; its size decides the number of steps.", show_default=False)
DEV = typer.Option("--dev", help="Dev split.", show_default="as in the config")
ENCODER = typer.Option(
    "--encoder",
    help='Hub id, folder, package:IMPORT_NAME/FOLDER, "scratch", or "multilingual" for the one in --fetched.',
    show_default="as in the config",
)
FETCHED = typer.Option(
    "--fetched",
    help='Folder that fetch-encoder was to write. Without an encoder in it, "multilingual" is "scratch".',
    show_default=False,
)
EPOCHS = typer.Option(
    "--epochs",
    help="Passes over the train split; 0: as many as suit encoder and split.",
    show_default="as in the config",
)
SEED = typer.Option("--seed", help="Seed of first weights and training order.", show_default="as in the config")
EVALUATIONS = typer.Option("--evaluations", help="How often to evaluate on the dev split.", min=1)


def fit_config_cli(
    config: Annotated[Path, CONFIG],
    output: Annotated[Path, OUTPUT],
    train: Annotated[Path, TRAIN],
    dev: Annotated[Optional[Path], DEV] = None,
    encoder: Annotated[Optional[str], ENCODER] = None,
    fetched: Annotated[Optional[Path], FETCHED] = None,
    epochs: Annotated[Optional[int], EPOCHS] = None,
    seed: Annotated[Optional[int], SEED] = None,
    evaluations: Annotated[int, EVALUATIONS] = 10,
) -> None:
    """
    Fit a training config to a corpus.

    The learning rate then falls to 0 in the last epoch, and the last evaluation is at the end. If --encoder differs
    from the config's encoder, the learning rates that suit it are set too. An encoder in a folder or package is also
    looked at: text heads read the mean of the wordpieces if it has no trained pooler, and standardize it if vectors
    of texts lie close together; a narrow encoder new to the config learns faster, and large embeddings are frozen.
    Nothing else changes.
    """
    from ..training.fit_config import fit_config

    fit = fit_config(
        config,
        output,
        train=train,
        dev=dev,
        encoder=encoder,
        epochs=epochs,
        seed=seed,
        evaluations=evaluations,
        fetched=fetched,
    )
    typer.echo(f"Encoder {fit.encoder}; {fit.docs} texts, {fit.steps} steps, an evaluation every {fit.eval_frequency}")
    for note in fit.notes:
        typer.echo(f"Set {note}")
    typer.echo(f"Wrote {output}")
