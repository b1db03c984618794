"""Files that are either the old ones or the new ones, never half of either."""

import os
import re
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, Dict, Iterable, List, Optional, Type

from .errors import BertHeadsError

SHARD_NAME = re.compile(r"\d{3,}\.spacy")
PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,198}[A-Za-z0-9_+-]|[A-Za-z0-9_]")
# Windows takes these for devices, whatever the ending
DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
UNFINISHED = re.compile(r"\.(?P<name>.+)\.(?P<pid>\d+)\.(?P<ending>tmp|old)")


class Staging:
    """Files under temporary names beside their own, put into place one after the other when all are complete.

    Leaving the `with` block before `commit` removes them and the folders made for them. A killed process leaves
    `.NAME.PID.tmp` behind, which the next one to write into the folder removes.
    """

    def __init__(self) -> None:
        self._staged: Dict[Path, Path] = {}
        self._made: List[Path] = []

    def __enter__(self) -> "Staging":
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        for path, temporary in self._staged.items():
            _remove(temporary)
            _settle_old(_temporary_name(path, "old"), path)
        for folder in reversed(self._made):
            try:
                folder.rmdir()
            except OSError:
                break

    def reserve(self, path: Path) -> Path:
        """Choose the temporary name of a file, or of a folder of `.spacy` files.

        path (Path): Where it is to be in the end. Folders that are missing are made.
        RETURNS (Path): Where to write it. Nothing is there yet.
        RAISES (BertHeadsError): H123 if its folder cannot be made or it would replace a folder of something else.
        """
        try:
            self._make_folder(path.parent)
            clean_up(path.parent)
            if path.is_dir() and not is_shards(path):
                raise BertHeadsError("H123", path=path, found="there is a folder of this name")
        except OSError as error:
            raise BertHeadsError("H123", path=path, found=error.strerror or error) from error
        self._staged[path] = _temporary_name(path, "tmp")
        return self._staged[path]

    def write(self, path: Path, content: bytes) -> None:
        """Write a file under a temporary name.

        path (Path): Where it is to be in the end.
        content (bytes): What is to be in it.
        RAISES (BertHeadsError): H123 if it cannot be written.
        """
        write_bytes(self.reserve(path), content, path)

    def commit(self) -> None:
        """Put all files into place.

        A file is replaced in one step. Where a folder is replaced, or replaces a file, there is a moment in which
        neither is there.

        RAISES (BertHeadsError): H123 if one cannot be moved.
        """
        path = Path()
        try:
            for path, temporary in self._staged.items():
                if path.exists() and (path.is_dir() or temporary.is_dir()):
                    os.replace(path, _temporary_name(path, "old"))
                os.replace(temporary, path)
        except OSError as error:
            raise BertHeadsError("H123", path=path, found=error.strerror or error) from error
        self._made.clear()

    def _make_folder(self, folder: Path) -> None:
        missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        self._made += reversed(missing)


def write_files(contents: Dict[Path, bytes]) -> None:
    """Write all files under temporary names beside their own, then put them into place one after the other.

    contents (Dict[Path, bytes]): What to write where. Folders that are missing are made.
    RAISES (BertHeadsError): H123 if a file cannot be written. Temporary files are removed.
    """
    with Staging() as staging:
        for path, content in contents.items():
            staging.write(path, content)
        staging.commit()


def is_shards(folder: Path) -> bool:
    """RETURNS (bool): Whether a folder is one that a DocWriter made: numbered `.spacy` files and nothing else."""
    names = [entry.name for entry in folder.iterdir()]
    return folder.suffix == ".spacy" and bool(names) and all(SHARD_NAME.fullmatch(name) for name in names)


def is_plain_name(name: Any) -> bool:
    """Whether a name that comes with data may become the name of a file.

    name (Any): What is to be a name.
    RETURNS (bool): Whether it is a string of ASCII letters, digits and `_.+-` that neither begins with a dot or a dash
        nor ends with a dot, of at most 200 characters, and no device of Windows: on every system it is then the name
        of a file in the folder that it is joined to, and of nothing else.
    """
    return isinstance(name, str) and bool(PLAIN_NAME.fullmatch(name)) and not DEVICES.fullmatch(name)


def check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be written into, before time is spent on what is to be written.

    folder (Path): It need not exist yet.
    RAISES (BertHeadsError): H123 if it is a file, or is or would be in a folder that takes no files.
    """
    nearest = next((parent for parent in (folder, *folder.parents) if os.path.lexists(parent)), Path())
    if not nearest.is_dir():
        raise BertHeadsError("H123", path=folder, found=f"{nearest} is a file")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise BertHeadsError("H123", path=folder, found=f"no permission to write into {nearest}")


def check_not_read(path: Path, inputs: Iterable[Path]) -> None:
    """Refuse to write over what is read.

    path (Path): What is to be written.
    inputs (Iterable[Path]): What is to be read.
    RAISES (BertHeadsError): H123 if it is among them.
    """
    if os.path.realpath(path) in map(os.path.realpath, inputs):
        raise BertHeadsError("H123", path=path, found="it is a file that is to be read")


def write_bytes(temporary: Path, content: bytes, path: Path) -> None:
    """Write a file under its temporary name.

    temporary (Path): Where to write. Its folder is made.
    content (bytes): What to write.
    path (Path): Its name in the end, for messages.
    RAISES (BertHeadsError): H123 if it cannot be written.
    """
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
    except OSError as error:
        raise BertHeadsError("H123", path=path, found=error.strerror or error) from error


def _temporary_name(path: Path, ending: str) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.{ending}")


def clean_up(folder: Path) -> None:
    """Remove what killed processes left, and put back what one was about to replace.

    folder (Path): In which they wrote. Windows cannot be asked whether a process lives, so there it stays as it is.
    """
    if os.name != "posix":
        return
    for entry in folder.iterdir():
        match = UNFINISHED.fullmatch(entry.name)
        if match and not _is_alive(int(match["pid"])):
            if match["ending"] == "old":
                _settle_old(entry, folder / match["name"])
            else:
                _remove(entry)


def _settle_old(old: Path, path: Path) -> None:
    """Remove what was replaced, or put it back if nothing came in its place."""
    if os.path.lexists(old):
        if path.exists():
            _remove(old)
        else:
            os.replace(old, path)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
