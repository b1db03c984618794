"""`bert-heads label-studio-push` and `label-studio-pull`: tasks to Label Studio, answers back."""

from pathlib import Path
from typing import Annotated, Optional

import typer

TOKEN_VARIABLE = "LABEL_STUDIO_API_KEY"

TASKS = typer.Argument(help="Tasks, as suggest writes them.", metavar="TASKS.jsonl", show_default=False)
URL = typer.Option("--url", help="Address of Label Studio, such as http://127.0.0.1:8080.", show_default=False)
PROJECT = typer.Option("--project", help="Number or title of the project.", show_default=False)
PUSH_PROJECT = typer.Option(
    "--project",
    help="Number or title of the project. One of this title is created if there is none.",
    show_default=False,
)
MODEL = typer.Option("--model", "-m", help="The pipeline that made the suggestions.", show_default=False)
MODEL_VERSION = typer.Option(
    "--model-version",
    help="Name of this version of its predictions. Default: its name, version and a digest.",
    show_default=False,
)
OUTPUT = typer.Option("--output", "-o", help="JSON file to write, for merge or convert.", show_default=False)
TOKEN_FILE = typer.Option(
    "--token-file", help=f"File with the access token. Default: the variable {TOKEN_VARIABLE}.", show_default=False
)
TIMEOUT = typer.Option("--timeout", help="Seconds to wait for a response.", min=1.0)


def label_studio_push_cli(
    tasks: Annotated[Path, TASKS],
    url: Annotated[str, URL],
    project: Annotated[str, PUSH_PROJECT],
    model: Annotated[str, MODEL],
    model_version: Annotated[Optional[str], MODEL_VERSION] = None,
    token_file: Annotated[Optional[Path], TOKEN_FILE] = None,
    timeout: Annotated[float, TIMEOUT] = 120.0,
) -> None:
    """
    Send chosen texts to the annotators of a Label Studio project, with a pipeline's suggestions filled in.

    Texts that are already there are not created again, but also get the predictions of this pipeline. The server then
    shows these predictions, and first the texts about which the pipeline is least certain.
    """
    from ..annotation.label_studio.client import LabelStudio
    from ..annotation.label_studio.exchange import push

    server = LabelStudio(url, _token(token_file), read_seconds=timeout)
    report = push(server, tasks, project=project, model=model, model_version=model_version)
    if report.created:
        typer.echo(f"Created project {report.project.id}, {report.project.title!r}")
    typer.echo(f"{report.n_tasks} new tasks")
    if report.n_predictions or report.n_unchanged:
        typer.echo(f"{report.n_predictions} tasks with new predictions, {report.n_unchanged} unchanged")
    typer.echo(f"Annotate at {server.url}/projects/{report.project.id}, suggestions by {report.model_version}")


def label_studio_pull_cli(
    url: Annotated[str, URL],
    project: Annotated[str, PROJECT],
    output: Annotated[Path, OUTPUT],
    token_file: Annotated[Optional[Path], TOKEN_FILE] = None,
    timeout: Annotated[float, TIMEOUT] = 120.0,
) -> None:
    """
    Fetch the annotations of a Label Studio project as a file for merge or convert.
    """
    from ..annotation.label_studio.client import LabelStudio
    from ..annotation.label_studio.exchange import pull

    server = LabelStudio(url, _token(token_file), read_seconds=timeout)
    report = pull(server, output, project=project)
    typer.echo(f"Wrote {report.n_annotations} annotations of {report.n_tasks} texts to {output}")
    if report.n_skipped:
        typer.echo(f"{report.n_skipped} of them only say that the text was skipped, and are not used")


def _token(path: Optional[Path]) -> str:
    from ..annotation.label_studio.client import read_token

    return read_token(path, TOKEN_VARIABLE)
