"""`bert-heads calibrate`: a trained pipeline in, one whose probabilities say how often it is right out."""

from pathlib import Path
from typing import Annotated, Any, Dict, Optional

import typer

from .reading_options import with_reading_options

MODEL = typer.Argument(help="Folder or package of the trained pipeline.", show_default=False)
DEV = typer.Argument(
    help="Annotated texts to fit to, such as the dev split: a .spacy file, a folder of them, or a file of any format "
    "that convert reads. Not the test data.",
    show_default=False,
)
OUTPUT = typer.Argument(help="Folder to write; an existing pipeline there is replaced.", show_default=False)
COVERAGE = typer.Option(
    "--coverage",
    help="Share of texts, such as 0.9, whose sets (doc._.cats_set, doc._.ents_set) hold all that is true of them. "
    "Half of DEV is then for the sets.",
    show_default="no sets",
)
REPORT = typer.Option("--report", help="JSON file for all figures.", show_default=False)
GPU = typer.Option("--gpu-id", "-g", help="Number of the GPU to use; -1: none.")


@with_reading_options
def calibrate_cli(
    model: Annotated[str, MODEL],
    dev: Annotated[Path, DEV],
    output: Annotated[Path, OUTPUT],
    coverage: Annotated[Optional[float], COVERAGE] = None,
    report: Annotated[Optional[Path], REPORT] = None,
    gpu: Annotated[int, GPU] = -1,
    *,
    reading: Dict[str, Any],
) -> None:
    """
    Make a copy of a pipeline whose probabilities say how often it is right.

    Each head gets a temperature, fitted to annotated texts. No prediction changes. Thresholds from before are dropped.
    """
    from spacy.cli._util import setup_gpu

    from ..evaluation.calibrate import calibrate, check_coverage, to_text, write_json
    from ..evaluation.dev_data import read_dev
    from ..files import check_not_read
    from ..pipeline_io import check_output, load_pipeline, write_pipeline

    check_coverage(coverage)
    if report is not None:
        check_not_read(report, [dev])
    setup_gpu(gpu)
    nlp = load_pipeline(model)
    check_output(nlp.path, output)
    examples = read_dev(nlp, dev, **reading)
    done = calibrate(nlp, examples, coverage=coverage)
    typer.echo(to_text(done))
    write_pipeline(nlp, output)
    if report is not None:
        write_json(done.to_dict(), report)
    n_fitted = sum(fit.temperature is not None for fit in done.temperatures)
    typer.echo(f"Wrote the pipeline with {n_fitted} calibrated {'head' if n_fitted == 1 else 'heads'} to {output}")
