"""Pipes as files: what comes through one can be read once, and readers look at a file several times."""

import os
import select
import stat
import sys
import tempfile
from pathlib import Path
from typing import IO, Dict, Tuple

from ...errors import BertHeadsError

# Pipes that belong to this process. Somebody has them open for writing, or did.
OWN_PIPES = ("/dev/", "/proc/")
# A named pipe that nobody opens for writing would be waited for without end. Seconds.
MAX_WAIT = 10
# From when on a wait is told. Seconds.
QUIET_WAIT = 2
CHUNK_BYTES = 1 << 20

# Copies by device and number of the pipe. Their files go when they are forgotten, and at the end of the process.
_COPIES: Dict[Tuple[int, int], IO[bytes]] = {}


def find_file(path: Path) -> Path:
    """Find a file that can be read more than once.

    path (Path): A file, or a pipe such as /dev/stdin or the shell's `<(zcat a.gz)`.
    RETURNS (Path): The file itself, or a copy of all that comes through the pipe.
    RAISES (OSError): If there is no such file.
    RAISES (BertHeadsError): H102 for a folder; H151 for a terminal or another device; H152 for a pipe that nobody
        writes to; H153 if the copy cannot be kept.
    """
    status = path.stat()
    if stat.S_ISREG(status.st_mode):
        return path
    if stat.S_ISDIR(status.st_mode):
        raise BertHeadsError("H102", path=path, found=path)
    if not stat.S_ISFIFO(status.st_mode):
        raise BertHeadsError("H151", path=path, found="a terminal or another device")
    key = status.st_dev, status.st_ino
    if key not in _COPIES:
        _COPIES[key] = _copy(path)
    return Path(_COPIES[key].name)


def forget_pipe(path: Path) -> None:
    """Remove the copy of a pipe. One that is named again after this is read again.

    path (Path): Any path; nothing happens if it is no pipe.
    """
    try:
        status = path.stat()
    except (OSError, ValueError):
        return
    copy = _COPIES.pop((status.st_dev, status.st_ino), None)
    if copy is not None:
        copy.close()


def _copy(path: Path) -> IO[bytes]:
    # Opened without waiting: otherwise `open` waits for somebody who opens the other end.
    source = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        _wait(source, path)
        os.set_blocking(source, True)
        copy = tempfile.NamedTemporaryFile(prefix="bert-heads-")
        try:
            while True:
                chunk = os.read(source, CHUNK_BYTES)
                if not chunk:
                    break
                copy.write(chunk)
            copy.flush()
        except BaseException:
            _discard(copy)
            raise
        return copy
    except OSError as error:
        raise BertHeadsError("H153", path=path, found=error.strerror or error) from error
    finally:
        os.close(source)


def _discard(copy: IO[bytes]) -> None:
    """Close a copy whose last bytes may not fit on the disk either."""
    try:
        copy.close()
    except OSError:
        pass


def _wait(source: int, path: Path) -> None:
    """Wait for the first bytes, and say so if it takes long."""
    poll = select.poll()
    poll.register(source, select.POLLIN | select.POLLHUP)
    if poll.poll(QUIET_WAIT * 1000):
        return
    print(f"Waiting for the program that writes to {path} ...", file=sys.stderr, flush=True)
    if str(path.absolute()).startswith(OWN_PIPES):
        poll.poll()
    elif not poll.poll((MAX_WAIT - QUIET_WAIT) * 1000):
        raise BertHeadsError("H152", path=path, found=path, seconds=MAX_WAIT)
