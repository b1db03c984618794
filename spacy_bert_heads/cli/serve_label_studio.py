"""`bert-heads serve-label-studio`: a pipeline that a Label Studio server asks for predictions."""

from pathlib import Path
from typing import Annotated, Optional

import typer

TOKEN_VARIABLE = "SPACY_BERT_HEADS_TOKEN"

MODEL = typer.Argument(help="Trained pipeline: a folder or an installed package.", show_default=False)
HOST = typer.Option("--host", help="Address to listen on.")
PORT = typer.Option("--port", help="Port to listen on.", min=1, max=65535)
ANSWERS = typer.Option(
    "--answers", help="File for annotations that arrive by webhook at /webhook, for merge.", show_default=False
)
TOKEN_FILE = typer.Option(
    "--token-file",
    help=f"File with the password of Label Studio's basic authentication. Default: the variable {TOKEN_VARIABLE}.",
    show_default=False,
)


def serve_label_studio_cli(
    model: Annotated[str, MODEL],
    host: Annotated[str, HOST] = "127.0.0.1",
    port: Annotated[int, PORT] = 9090,
    answers: Annotated[Optional[Path], ANSWERS] = None,
    token_file: Annotated[Optional[Path], TOKEN_FILE] = None,
) -> None:
    """
    Serve a pipeline as an ML backend of Label Studio.

    Connect it under Settings, Model, by its address; if it has a password, use basic authentication and any user name.
    """
    import logging

    from ..annotation.label_studio.client import read_token
    from ..errors import BertHeadsError

    try:
        from ..annotation.label_studio.server import serve
    except ImportError as error:
        raise BertHeadsError("H410", found=error.name, extra="label-studio") from error

    logging.basicConfig(format="%(asctime)s %(message)s")
    logging.getLogger("spacy_bert_heads").setLevel(logging.INFO)
    serve(model, host=host, port=port, answers=answers, token=read_token(token_file, TOKEN_VARIABLE))
