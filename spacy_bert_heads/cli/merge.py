"""`bert-heads merge`: a corpus and answers in, a corpus out."""

from pathlib import Path
from typing import Annotated, List, Optional

import typer

from ..errors import BertHeadsError
from .reading_options import OFF_TOKENS, SKIP_BAD

BASES = typer.Argument(
    help="The corpus so far: annotation files, .spacy files, or a folder of train.spacy, dev.spacy and test.spacy, "
    "whose texts keep their splits. None: there are only the answers.",
    metavar="[BASE]...",
    show_default=False,
)
ANSWERS = typer.Option("--answers", "-a", help="File of answered tasks; can be repeated.", show_default=False)
OUTPUT = typer.Option(
    "--output", "-o", help="Folder for train.spacy, dev.spacy and test.spacy; may be BASE.", show_default=False
)
SPLIT = typer.Option(
    "--split", "-s", help="Shares of train, dev and test for texts that have no split yet. By default all go to train."
)
SEED = typer.Option("--seed", help="Seed of the split: another number divides the texts differently.")
LEAVE_OUT = typer.Option(
    "--leave-out", help="File or folder of texts that are never written, such as test texts; can be repeated."
)
SILVER = typer.Option(
    "--silver",
    help="File of tasks that prelabel filled in and nobody has reviewed; can be repeated. Such a text counts for less "
    "in training, and not at all once people have annotated it. None goes to dev or test.",
    show_default=False,
)
SILVER_WEIGHT = typer.Option("--silver-weight", help="How much a text of --silver counts in training, up to 1.")
LANG = typer.Option("--lang", "-l", help="Language whose tokenizer splits texts that come without tokens.")
EXCLUSIVE = typer.Option("--exclusive", help="Exactly one category applies to each text of BASE.")
SPANS_KEY = typer.Option(
    "--spans-key",
    help="Entities may overlap and are in this group of doc.spans, such as sc, in the corpus and in what is written.",
    show_default=False,
)
REPORT = typer.Option("--report", "-r", help="Also write the report here, as JSON, with every conflict.")


def merge_cli(
    output: Annotated[Path, OUTPUT],
    bases: Annotated[Optional[List[Path]], BASES] = None,
    answers: Annotated[Optional[List[Path]], ANSWERS] = None,
    split: Annotated[str, SPLIT] = "1,0,0",
    seed: Annotated[int, SEED] = 0,
    leave_out: Annotated[Optional[List[Path]], LEAVE_OUT] = None,
    silver: Annotated[Optional[List[Path]], SILVER] = None,
    silver_weight: Annotated[float, SILVER_WEIGHT] = 0.3,
    lang: Annotated[str, LANG] = "en",
    exclusive: Annotated[bool, EXCLUSIVE] = False,
    off_tokens: Annotated[str, OFF_TOKENS] = "error",
    skip_bad: Annotated[bool, SKIP_BAD] = False,
    spans_key: Annotated[Optional[str], SPANS_KEY] = None,
    report: Annotated[Optional[Path], REPORT] = None,
) -> None:
    """
    Merge answers into a corpus, text by text; the newest answer wins.

    Yes/no answers, complete annotations and categories of a text become one Doc. Answers that contradict each other
    are listed with file, line and text. Answers that are already in the corpus change nothing.
    """
    from ..annotation.merge import merge

    if not answers and not silver:
        raise BertHeadsError("H504", name="--answers", found="none", expected="a file of answers, or --silver")
    done = merge(
        bases or [],
        output,
        answers=answers or [],
        split=split,
        seed=seed,
        leave_out=leave_out or [],
        lang=lang,
        exclusive=exclusive,
        off_tokens=off_tokens,
        skip_bad=skip_bad,
        report_path=report,
        spans_key=spans_key,
        silver=silver or [],
        silver_weight=silver_weight,
    )
    typer.echo(done.to_text())
