"""`bert-heads optimize`: a trained pipeline in, a copy for prediction on CPUs out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from ..backends.measure import Measured

MODEL = typer.Argument(help="Folder or package of the trained pipeline.", show_default=False)
OUTPUT = typer.Argument(help="Folder to write; an existing pipeline there is replaced.", show_default=False)
BACKEND = typer.Option(
    "--backend",
    "-b",
    help="What runs the encoder: openvino, onnxruntime or torch; auto measures all that are installed and takes the "
    "fastest that keeps the answers of 99.5 % of the texts.",
)
PRECISION = typer.Option(
    "--precision", "-p", help="Precision of the encoder: bf16, int8 or fp32. Default: each is measured."
)
TEXTS = typer.Option(
    "--texts",
    "-t",
    help="Texts such as yours to measure with, the first 2,000: .jsonl, .txt (one on each line) or .spacy. Default: "
    "spaCy's example sentences.",
)
FORCE = typer.Option("--force", help="Write what --backend and --precision name even if it keeps less than 99 %.")


def optimize_cli(
    model: Annotated[str, MODEL],
    output: Annotated[Path, OUTPUT],
    backend: Annotated[str, BACKEND] = "auto",
    precision: Annotated[Optional[str], PRECISION] = None,
    texts: Annotated[Optional[Path], TEXTS] = None,
    force: Annotated[bool, FORCE] = False,
) -> None:
    """
    Make a pipeline faster on CPUs: a copy whose encoder runs in OpenVINO, ONNX Runtime or lean torch.

    What the export changes is measured with the whole pipeline on this machine: how many texts keep the same
    categories, entities and spans, and how much faster they get them. The copy loads with spacy.load like any other
    and cannot be trained.
    """
    import os
    from itertools import islice

    # Said explicitly, or tokenizers warns each time that a backend starts its compiler
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    from ..backends.measure import MOST_TEXTS
    from ..backends.optimize import optimize
    from ..errors import BertHeadsError
    from ..training.vocabulary import read_texts

    found = list(islice(read_texts(texts), MOST_TEXTS)) if texts else []
    if texts and not found:
        raise BertHeadsError("H256", path=texts)
    done = optimize(model, output, backend=backend, precision=precision, texts=found, force=force, tell=_tell)
    chosen = done.measured
    typer.echo(f"Exported the encoder of {', '.join(done.encoders)} to {chosen.backend} in {chosen.precision}")
    if done.neutral:
        typer.echo("Measured on spaCy's example sentences: pass --texts with texts such as yours to know more")
    typer.echo(f"Token vectors differ by {done.difference:.1%} of their length from the original's, on random text")
    typer.echo(f"Wrote {done.megabytes_after:.0f} MB to {output}; the original has {done.megabytes_before:.0f} MB")


def _tell(measured: "Measured") -> None:
    typer.echo(
        f"{measured.backend:<12} {measured.precision}: the same answers for {measured.agreement:.1%} of "
        f"{measured.n_texts} texts, {measured.speed:.2f} times as fast"
    )
