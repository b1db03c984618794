"""`bert-heads apply`: a trained pipeline and any number of texts in, files of its predictions out."""

from pathlib import Path
from typing import Annotated, List, Optional

import typer

from .thread_option import THREADS

READING = "How to read the texts"
RUNNING = "Where to run"

MODEL = typer.Argument(help="Trained pipeline: a folder or an installed package.", show_default=False)
INPUTS = typer.Argument(
    help="Texts, and at the end the folder to write. Files: .jsonl, .csv, .tsv, .parquet, .arrow, .txt (a text a "
    "line), .spacy; plain, .gz or .zst. Folders, quoted patterns, or - for stdin.",
    metavar="INPUT... OUT",
    show_default=False,
)
FORMAT = typer.Option(
    "--format", "-f", help="What to write: jsonl, parquet, spacy, prodigy, doccano, label-studio or conll."
)
SELECT = typer.Option(
    "--select",
    "-s",
    help="Predict and write only ents, cats or spans, or several with commas between them. Other heads do not run.",
    show_default="all",
)
MIN_CONFIDENCE = typer.Option(
    "--min-confidence", help="Leave out entities, spans and categories that are less probable."
)
DROP_TEXT = typer.Option("--drop-text", help="jsonl, parquet: write records without their text.")
SCHEME = typer.Option("--scheme", help="Tag scheme of conll: bio, biluo, bioes or bmes.")
LIMIT = typer.Option("--limit", "-n", help="Read only so many records.", show_default=False)
SHARD_SIZE = typer.Option("--shard-size", help="Records of a file: what a kill can cost each process.")
INPUT_FORMAT = typer.Option(
    "--input-format",
    help="jsonl, csv, tsv, parquet, arrow, text or spacy; auto goes by the ending of each file.",
    rich_help_panel=READING,
)
TEXT_COLUMN = typer.Option(
    "--text-column", help="Key or column of the text.", rich_help_panel=READING, show_default="text"
)
ENGINE = typer.Option(
    "--engine", help="local (processes of this machine) or ray (a cluster).", rich_help_panel=RUNNING
)
ADDRESS = typer.Option(
    "--address", help="ray: address of the cluster to join, or auto.", rich_help_panel=RUNNING, show_default=False
)
N_PROCESS = typer.Option(
    "--n-process",
    "-j",
    help="Number of processes; auto: one for each core that this process may use, as memory allows.",
    rich_help_panel=RUNNING,
)
GPU = typer.Option(
    "--gpu-id",
    "-g",
    help="Numbers of GPUs such as 0,1; a process for each.",
    rich_help_panel=RUNNING,
    show_default=False,
)
BATCH_SIZE = typer.Option(
    "--batch-size",
    "-b",
    help="Texts that go through the pipeline together.",
    rich_help_panel=RUNNING,
    show_default="as in its config",
)
CODE = typer.Option(
    "--code",
    "-c",
    help="Python file with registered functions to import.",
    rich_help_panel=RUNNING,
    show_default=False,
)


def apply_cli(
    model: Annotated[str, MODEL],
    inputs: Annotated[List[str], INPUTS],
    format: Annotated[str, FORMAT] = "jsonl",
    select: Annotated[Optional[str], SELECT] = None,
    min_confidence: Annotated[float, MIN_CONFIDENCE] = 0.0,
    drop_text: Annotated[bool, DROP_TEXT] = False,
    scheme: Annotated[str, SCHEME] = "bio",
    limit: Annotated[Optional[int], LIMIT] = None,
    shard_size: Annotated[int, SHARD_SIZE] = 1000,
    input_format: Annotated[str, INPUT_FORMAT] = "auto",
    text_column: Annotated[Optional[str], TEXT_COLUMN] = None,
    engine: Annotated[str, ENGINE] = "local",
    address: Annotated[Optional[str], ADDRESS] = None,
    n_process: Annotated[str, N_PROCESS] = "auto",
    gpu: Annotated[Optional[str], GPU] = None,
    threads: Annotated[str, THREADS] = "auto",
    batch_size: Annotated[Optional[int], BATCH_SIZE] = None,
    code: Annotated[Optional[Path], CODE] = None,
) -> None:
    """
    Apply a trained pipeline to any number of texts.

    Writes a folder of files, part-000000.jsonl and so on, in the order of the texts; their ids, meta and other keys
    are kept. Bad records go to rejected.jsonl, with file, line and reason. Run the same command again to continue a
    run that was killed: nothing is lost, and nothing is written twice.
    """
    from ..bulk.options import parse_gpus, parse_n_process
    from ..bulk.predictions import LAYERS, Options
    from ..bulk.run import apply_to_files
    from ..errors import BertHeadsError
    from ..threads import AUTO, parse_threads

    if len(inputs) < 2:
        raise BertHeadsError("H650", option="INPUT... OUT", found=repr(inputs[0]), expected="texts and then a folder")
    layers = tuple(LAYERS) if select is None else tuple(name.strip() for name in select.split(","))
    report = apply_to_files(
        model,
        inputs[:-1],
        Path(inputs[-1]),
        options=Options(
            format=format, select=layers, min_confidence=min_confidence, drop_text=drop_text, scheme=scheme
        ),
        engine=engine,
        address=address,
        n_process=parse_n_process(n_process),
        gpus=parse_gpus(gpu),
        threads=None if threads == AUTO else parse_threads(threads),
        batch_size=batch_size,
        shard_size=shard_size,
        input_format=input_format,
        text_column=text_column,
        limit=limit,
        code=code,
    )
    typer.echo(report.to_text())
