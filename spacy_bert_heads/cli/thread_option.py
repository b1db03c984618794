"""The option of every command that trains or predicts: its threads."""

import typer

THREADS = typer.Option(
    "--threads",
    help="Threads of torch; auto: as many as there are cores to use, and no more than a container's quota allows.",
)
