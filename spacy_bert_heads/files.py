"""Files that are either the old ones or the new ones, never half of either."""

import errno
import os
import re
import secrets
import shutil
import stat
import sys
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Callable, Dict, Iterable, Iterator, List, Optional, Set, Type

from .errors import BertHeadsError, NotWrittenError

SHARD_NAME = re.compile(r"\d{3,}\.spacy")
PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,198}[A-Za-z0-9_+-]|[A-Za-z0-9_]")
# Windows takes these for devices, whatever the ending
DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
LOCK = ".lock"
# Folders that this process has locked
_LOCKED: Set[str] = set()
UNFINISHED = re.compile(r"\.(?P<name>.+)\.(?P<pid>\d+)\.[0-9a-f]{12}\.(?P<ending>tmp|old)")


class Staging:
    """Files and folders under temporary names beside their own, put into place one after the other when all are
    complete.

    Leaving the `with` block before `commit` removes them and the folders made for them. A killed process leaves
    `.NAME.PID.RANDOM.tmp` behind, which the next one to write into the folder removes. What is replaced passes its
    permissions on, and a symbolic link stays: what it leads to is replaced.
    """

    def __init__(self) -> None:
        self._staged: Dict[Path, Path] = {}
        self._replaced: Dict[Path, Path] = {}
        self._made: List[Path] = []

    def __enter__(self) -> "Staging":
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        for temporary in self._staged.values():
            _remove(temporary)
        for path, old in self._replaced.items():
            _settle_old(old, path)
        for folder in reversed(self._made):
            try:
                folder.rmdir()
            except OSError:
                break

    def reserve(self, path: Path, *, folder: bool = False) -> Path:
        """Choose the temporary name of a file, or of a folder of `.spacy` files.

        path (Path): Where it is to be in the end. Folders that are missing are made.
        folder (bool): Whether it is to be a folder, which may replace any other.
        RETURNS (Path): Where to write it, with `create` or `make_folder`. Nothing is there yet.
        RAISES (BertHeadsError): H123 if its folder cannot be made, it would replace a folder of something else, or
            another output has this name.
        """
        with write_errors(path):
            target = Path(os.path.realpath(path)) if path.is_symlink() else path
            self._make_folder(target.parent)
            clean_up(target.parent)
            if not folder and target.is_dir() and not is_shards(target):
                raise NotWrittenError("H123", path=path, found="there is a folder of this name")
            if target.exists() and not target.is_dir() and not target.is_file():
                raise NotWrittenError("H123", path=path, found="it is a device or a pipe")
            if os.path.realpath(target) in map(os.path.realpath, self._staged):
                raise NotWrittenError("H123", path=path, found="two outputs have this name")
        self._staged[target] = temporary_name(target, "tmp")
        return self._staged[target]

    def write(self, path: Path, content: bytes) -> None:
        """Write a file under a temporary name.

        path (Path): Where it is to be in the end.
        content (bytes): What is to be in it.
        RAISES (BertHeadsError): H123 if it cannot be written.
        """
        write_new(self.reserve(path), content, path)

    @contextmanager
    def open(self, path: Path) -> Iterator[IO[str]]:
        """Write a text file under a temporary name, line by line.

        path (Path): Where it is to be in the end.
        YIELDS (IO[str]): Takes what is to be in it.
        RAISES (BertHeadsError): H123 if it cannot be written.
        """
        temporary = self.reserve(path)
        with write_errors(path), create(temporary, path) as raw:
            with TextIOWrapper(raw, encoding="utf8", newline="\n") as stream:
                yield stream
                stream.flush()
                os.fsync(raw.fileno())

    def write_folder(self, path: Path, write: Callable[[Path], Any]) -> None:
        """Write a folder under a temporary name.

        path (Path): Where it is to be in the end. A folder that is there is replaced as a whole.
        write (Callable[[Path], Any]): Writes into a folder of another name, which is there and empty.
        RAISES (BertHeadsError): H123 if it cannot be written.
        """
        temporary = self.reserve(path, folder=True)
        with write_errors(path):
            make_folder(temporary, path)
            write(temporary)
            for file in temporary.rglob("*"):
                if file.is_file() and not file.is_symlink():
                    _sync(file)

    def commit(self) -> None:
        """Put all files into place.

        A file is replaced in one step. Where a folder is replaced, or replaces a file, there is a moment in which
        neither is there.

        RAISES (BertHeadsError): H123 if one cannot be moved.
        """
        for path, temporary in self._staged.items():
            with write_errors(path):
                mode = _mode(path)
                if temporary.is_dir() and mode is not None:
                    # Who may read a file may enter the folder in its place
                    temporary.chmod(mode | (mode & 0o444) >> 2)
                if path.exists() and (path.is_dir() or temporary.is_dir()):
                    self._replaced[path] = temporary_name(path, "old")
                    os.replace(path, self._replaced[path])
                os.replace(temporary, path)
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


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Keep a folder for this process: what one reads and writes there step by step must not change under its feet.

    A process may lock a folder again that it has locked.

    folder (Path): It is made if it is missing, and removed if nothing came of it.
    RAISES (BertHeadsError): H187 if another process has it; H123 if it cannot be written into.
    """
    known_as = os.path.realpath(folder)
    if known_as in _LOCKED:
        yield
        return
    with write_errors(folder):
        made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with lock_file(folder / LOCK, wait=False):
            _LOCKED.add(known_as)
            try:
                yield
            finally:
                _LOCKED.discard(known_as)
    finally:
        for empty in made:
            try:
                empty.rmdir()
            except OSError:
                break


@contextmanager
def lock_file(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold a file of which each process holds one at a time. The system gives it back however the process ends: if it
    is killed the file stays, and means nothing. Where the file system has no locks, there is none.

    path (Path): The file, which is made, holds the number of this process, and is removed.
    wait (bool): Whether to wait for another process that has it.
    RAISES (BertHeadsError): H187 if another process has it and this one does not wait; H123 if it cannot be written.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    while True:
        with write_errors(path):
            descriptor = os.open(path, flags, 0o666)
        try:
            if not _take(descriptor, wait):
                owner = os.read(descriptor, 20).decode("ascii", "replace").strip()
                raise BertHeadsError("H187", path=path.parent, found=owner or "of unknown number")
            # Whoever had it before may have removed it since it was opened
            if os.name == "nt" or _is_at(descriptor, path):
                break
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    try:
        with write_errors(path):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode("ascii"))
        yield
    finally:
        if os.name != "nt":
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _take(descriptor: int, wait: bool) -> bool:
    """RETURNS (bool): Whether this process has the lock of an open file, which closing it gives back."""
    try:
        if sys.platform == "win32":
            import msvcrt

            # Far behind the number, which others read
            os.lseek(descriptor, 1 << 20, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
            os.lseek(descriptor, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


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
        raise NotWrittenError("H123", path=folder, found=f"{nearest} is a file")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise NotWrittenError("H123", path=folder, found=f"no permission to write into {nearest}")


def check_not_read(path: Path, inputs: Iterable[Path]) -> None:
    """Refuse to write over what is read.

    path (Path): What is to be written.
    inputs (Iterable[Path]): What is to be read.
    RAISES (BertHeadsError): H123 if it is among them.
    """
    if os.path.realpath(path) in map(os.path.realpath, inputs):
        raise NotWrittenError("H123", path=path, found="it is one of the files to be read")


def create(temporary: Path, path: Path) -> IO[bytes]:
    """Open a file under its temporary name, which nothing has yet, not even a link.

    temporary (Path): Where to write, as Staging chose it.
    path (Path): Its name in the end: who may read what is there may read this.
    RETURNS (IO[bytes]): The file.
    """
    mode = _mode(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(temporary, flags, 0o666 if mode is None else 0o600)
    if mode is not None and os.name == "posix":
        os.fchmod(descriptor, mode & 0o666 if path.is_dir() else mode)
    return open(descriptor, "wb")


def make_folder(temporary: Path, path: Path) -> None:
    """Make a folder under its temporary name, closed to others as long as it is not known who may enter it.

    temporary (Path): Where, as Staging chose it. It may be there already.
    path (Path): Its name in the end.
    """
    temporary.mkdir(mode=0o777 if _mode(path) is None else 0o700, exist_ok=True)


def write_new(temporary: Path, content: bytes, path: Path) -> None:
    """Write a file under its temporary name.

    temporary (Path): Where to write: a name that Staging chose, or one in a folder of such a name.
    content (bytes): What to write.
    path (Path): The name in the end, for messages and permissions.
    RAISES (BertHeadsError): H123 if it cannot be written.
    """
    with write_errors(path):
        with create(temporary, path) as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())


def replace_folder(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a folder that is there as a whole or not at all.

    path (Path): Where to. What is there is replaced; killed while the two are swapped, `clean_up` puts it back.
    write (Callable[[Path], Any]): Writes into a folder of another name, which is there and empty.
    RAISES (BertHeadsError): H123 if it cannot be written.
    """
    with Staging() as staging:
        staging.write_folder(path, write)
        staging.commit()


def remove_folder(path: Path) -> None:
    """Remove a folder, which is gone at once: half of it is never seen under its name."""
    leftover = temporary_name(path, "tmp")
    os.replace(path, leftover)
    _remove(leftover)


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """RAISES (BertHeadsError): H123 for this path, in place of what the system says."""
    try:
        yield
    except OSError as error:
        raise NotWrittenError("H123", path=path, found=error.strerror or error) from error


def temporary_name(path: Path, ending: str) -> Path:
    """RETURNS (Path): A name beside a path that nobody can guess, by which `clean_up` knows what it was for."""
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(6)}.{ending}")


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


def _mode(path: Path) -> Optional[int]:
    """RETURNS (Optional[int]): Permissions of what is there. None: nothing is."""
    try:
        return stat.S_IMODE(path.stat().st_mode) & 0o777
    except (FileNotFoundError, NotADirectoryError):
        return None


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDWR | getattr(os, "O_BINARY", 0))
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _settle_old(old: Path, path: Path) -> None:
    """Remove what was replaced, or put it back if nothing came in its place."""
    if os.path.lexists(old):
        if not os.path.lexists(path):
            os.replace(old, path)
        elif old.is_dir() and not old.is_symlink():
            # Killed meanwhile, half of it is not put back
            remove_folder(old)
        else:
            _remove(old)


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
