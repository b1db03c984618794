"""`bert-heads set-thresholds`: a trained pipeline in, one that abstains or drops where it is not sure out."""

from pathlib import Path
from typing import Annotated, Any, Dict, Optional

import typer

from .calibrate import DEV, GPU, MODEL, OUTPUT, REPORT
from .reading_options import with_reading_options

METRIC = typer.Option(
    "--metric",
    "-m",
    help="What to choose by: f1 or fbeta=BETA (the highest), precision=SHARE (the lowest threshold that precise), "
    "recall=SHARE (the highest threshold with that recall).",
)
PLOT = typer.Option(
    "--plot", help="Picture (.png) of precision and recall at every threshold. Needs matplotlib.", show_default=False
)


@with_reading_options
def set_thresholds_cli(
    model: Annotated[str, MODEL],
    dev: Annotated[Path, DEV],
    output: Annotated[Path, OUTPUT],
    metric: Annotated[str, METRIC] = "f1",
    report: Annotated[Optional[Path], REPORT] = None,
    plot: Annotated[Optional[Path], PLOT] = None,
    gpu: Annotated[int, GPU] = -1,
    *,
    reading: Dict[str, Any],
) -> None:
    """
    Make a copy of a pipeline with thresholds, chosen on annotated texts.

    Labels that do not exclude each other get one each; exclusive ones one for all, below which the head abstains;
    entity labels a minimum confidence. The chosen labels of a text are in doc._.cats_chosen. Calibrate first.
    """
    from spacy.cli._util import setup_gpu

    from ..evaluation.calibrate import write_json
    from ..evaluation.dev_data import read_dev
    from ..evaluation.thresholds import draw_curves, parse_metric, set_thresholds, to_text
    from ..files import check_not_read
    from ..pictures import new_figure
    from ..pipeline_io import check_output, load_pipeline, write_pipeline

    parse_metric(metric)
    for path in (report, plot):
        if path is not None:
            check_not_read(path, [dev])
    if plot is not None:
        new_figure(1, 1)  # says now if matplotlib is missing
    setup_gpu(gpu)
    nlp = load_pipeline(model)
    check_output(nlp.path, output)
    examples = read_dev(nlp, dev, **reading)
    done = set_thresholds(nlp, examples, metric)
    typer.echo(to_text(done))
    write_pipeline(nlp, output)
    if report is not None:
        write_json(done.to_dict(), report)
    if plot is not None:
        draw_curves(done, plot)
        typer.echo(f"Drew the curves into {plot}")
    n_fitted = sum(fit.curve is not None for fit in done.fits)
    typer.echo(f"Wrote the pipeline with {n_fitted} {'threshold' if n_fitted == 1 else 'thresholds'} to {output}")
