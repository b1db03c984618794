"""`bert-heads vocab`: a corpus in, a WordPiece vocabulary for an encoder from scratch out."""

from pathlib import Path
from typing import Annotated

import typer

CORPUS = typer.Argument(help="Texts: .spacy, .jsonl with 'text', or .txt; a file or a folder.", show_default=False)
OUTPUT = typer.Argument(help="Where to write the vocabulary, a tokenizer.json.", show_default=False)
SIZE = typer.Option("--size", "-n", help="Maximum number of entries.", min=6)
CASED = typer.Option("--cased", help="Keep upper case and accents; for `lowercase = false`.")


def vocab_cli(
    corpus: Annotated[Path, CORPUS],
    output: Annotated[Path, OUTPUT],
    size: Annotated[int, SIZE] = 8000,
    cased: Annotated[bool, CASED] = False,
) -> None:
    """
    Learn a WordPiece vocabulary from a whole corpus, file by file.

    For an encoder from scratch whose corpus is streamed (max_epochs = -1): name the file as `vocab` in
    the block initialize.components.transformer.
    """
    from ..training.vocabulary import learn_vocabulary

    learned = learn_vocabulary(corpus, output, size=size, lowercase=not cased)
    typer.echo(f"Wrote {learned.entries} wordpieces learned from {learned.texts} texts to {output}")
