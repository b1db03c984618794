"""`bert-heads optimize`: a trained pipeline in, a copy for prediction on CPUs out."""

from pathlib import Path
from typing import Annotated

import typer

MODEL = typer.Argument(help="Folder or package of the trained pipeline.", show_default=False)
OUTPUT = typer.Argument(help="Folder to write; an existing pipeline there is replaced.", show_default=False)
BACKEND = typer.Option("--backend", "-b", help="What runs the encoder: openvino, onnxruntime or torch.")
PRECISION = typer.Option("--precision", "-p", help="Precision of the encoder: bf16, int8 or fp32.")


def optimize_cli(
    model: Annotated[str, MODEL],
    output: Annotated[Path, OUTPUT],
    backend: Annotated[str, BACKEND] = "openvino",
    precision: Annotated[str, PRECISION] = "bf16",
) -> None:
    """
    Make a pipeline faster on CPUs: a copy whose encoder runs in OpenVINO, ONNX Runtime or lean torch.

    The copy loads with spacy.load like any other, gives the same answers up to rounding, and cannot be trained.
    """
    from ..backends.optimize import optimize

    done = optimize(model, output, backend=backend, precision=precision)
    typer.echo(f"Exported the encoder of {', '.join(done.encoders)} to {backend} in {precision}")
    typer.echo(f"Token vectors differ by {done.difference:.1%} of their length from the original's, on random text")
    typer.echo(f"Wrote {done.megabytes_after:.0f} MB to {output}; the original has {done.megabytes_before:.0f} MB")
