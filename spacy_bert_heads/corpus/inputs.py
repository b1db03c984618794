"""Which files a folder of annotations stands for."""

import os
from pathlib import Path
from typing import Iterator, List, Optional, Sequence, Set

from ..errors import BertHeadsError
from .readers.formats import CONVERTERS

# Endings of files that are not complete yet.
UNFINISHED = ("~", ".tmp", ".part", ".crdownload")
# What people put beside annotations to explain them.
ABOUT = ("readme", "license", "licence")


def list_inputs(paths: Sequence[Path], *, ignore: Sequence[Path] = ()) -> List[Path]:
    """Replace folders by the annotation files in them.

    A folder that a reader takes as a whole, such as a Hugging Face dataset, stays as it is. Hidden files, unfinished
    files, and READMEs and licences are passed over; links to folders are not followed.

    paths (Sequence[Path]): Files and folders.
    ignore (Sequence[Path]): Files in these folders that are not read.
    RETURNS (List[Path]): Files, and folders that are read as a whole; those of a folder in the order of their names.
    RAISES (BertHeadsError): H129 for a folder without annotation files, H103 for one that cannot be listed.
    """
    left_out = {os.path.realpath(path) for path in ignore}
    found: List[Path] = []
    for path in paths:
        if not _is_folder_of_files(path):
            found.append(path)
            continue
        try:
            inside = list(_list_folder(path, left_out))
        except OSError as error:
            raise BertHeadsError("H103", path=error.filename or path, found=error.strerror or error) from error
        if not inside:
            raise BertHeadsError("H129", path=path)
        found += inside
    return found


def drop_sample(paths: Sequence[Path], sample: Optional[Path]) -> List[Path]:
    """Leave sample records out where there is anything else.

    paths (Sequence[Path]): As `list_inputs` returns them.
    sample (Optional[Path]): The file of sample records, which need not exist.
    RETURNS (List[Path]): The paths without it, or it alone.
    """
    if sample is None:
        return list(paths)
    others = [path for path in paths if os.path.realpath(path) != os.path.realpath(sample)]
    return others or list(paths)


def _is_folder_of_files(path: Path) -> bool:
    return path.is_dir() and not any(converter.sniff(path, b"") for converter in CONVERTERS.values())


def _list_folder(folder: Path, left_out: Set[str]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        name = path.name.lower()
        # brat keeps its settings, and each text, beside the spans
        if name.endswith(".conf") or (name.endswith(".txt") and path.with_suffix(".ann").is_file()):
            continue
        if name.startswith((".", *ABOUT)) or name.endswith((*UNFINISHED, ".md")) or os.path.realpath(path) in left_out:
            continue
        if _is_folder_of_files(path):
            if not path.is_symlink():
                yield from _list_folder(path, left_out)
        elif path.is_file() or path.is_dir():
            yield path
