"""`bert-heads merge`: a corpus and answers in, a corpus out."""

from pathlib import Path
from typing import Annotated, List, Optional

import typer

BASES = typer.Argument(
    help="The corpus so far: annotation files, .spacy files, or a folder of train.spacy, dev.spacy and test.spacy, "
    "whose texts stay where they are. None: the answers are all there is.",
    metavar="[BASE]...",
    show_default=False,
)
ANSWERS = typer.Option(
    "--answers", "-a", help="File of answered tasks; may be given several times.", show_default=False
)
OUTPUT = typer.Option(
    "--output", "-o", help="Folder for train.spacy, dev.spacy and test.spacy; may be BASE.", show_default=False
)
SPLIT = typer.Option("--split", "-s", help="Shares of train, dev and test among texts that are in none of them yet.")
SEED = typer.Option("--seed", help="Another number divides the texts otherwise.")
LEAVE_OUT = typer.Option(
    "--leave-out", help="File or folder whose texts are never written, such as those for scoring; also several."
)
LANG = typer.Option("--lang", "-l", help="Language whose tokenizer splits texts that come without tokens.")
EXCLUSIVE = typer.Option("--exclusive", help="Exactly one category holds for each text of BASE.")
OFF_TOKENS = typer.Option(
    "--off-tokens",
    help="Spans off token borders: error (a bad record), drop, expand to whole tokens, or split the tokens.",
)
SKIP_BAD = typer.Option("--skip-bad", help="Leave bad records out, counted and named, instead of stopping.")
REPORT = typer.Option("--report", "-r", help="Write the report here too, as JSON, with every conflict.")


def merge_cli(
    answers: Annotated[List[Path], ANSWERS],
    output: Annotated[Path, OUTPUT],
    bases: Annotated[Optional[List[Path]], BASES] = None,
    split: Annotated[str, SPLIT] = "0.8,0.2,0",
    seed: Annotated[int, SEED] = 0,
    leave_out: Annotated[Optional[List[Path]], LEAVE_OUT] = None,
    lang: Annotated[str, LANG] = "en",
    exclusive: Annotated[bool, EXCLUSIVE] = False,
    off_tokens: Annotated[str, OFF_TOKENS] = "error",
    skip_bad: Annotated[bool, SKIP_BAD] = False,
    report: Annotated[Optional[Path], REPORT] = None,
) -> None:
    """
    Merge answers into a corpus, text by text; the newest answer wins.

    Yes/no answers, complete ones and categories of a text become one Doc. Answers that contradict each other are
    listed with file, line and text. Answers that are in the corpus already change nothing.
    """
    from ..annotation.merge import merge

    done = merge(
        bases or [],
        output,
        answers=answers,
        split=split,
        seed=seed,
        leave_out=leave_out or [],
        lang=lang,
        exclusive=exclusive,
        off_tokens=off_tokens,
        skip_bad=skip_bad,
        report_path=report,
    )
    typer.echo(done.to_text())
