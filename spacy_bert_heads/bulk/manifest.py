"""What a run is and what is done of it: a file of JSON lines that only grows, which no kill can damage."""

import json
import os
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any, Dict, List, NamedTuple, Optional

from spacy.util import get_package_path, is_package

from ..errors import BertHeadsError
from ..files import LOCK, clean_up, write_errors
from .layout import KEY, MANIFEST, REJECTED, shard_path
from .shards import Outcome

VERSION = 1


class Done(NamedTuple):
    """A shard that is written.

    n_items (int): Records that it had.
    n_rejected (int): Of these, without predictions.
    digest (str): A hash of their content.
    """

    n_items: int
    n_rejected: int
    digest: str


class Manifest:
    """The state of a run in its folder, which is locked.

    It is read at the start: a last line that is not whole is taken away, and so is what rejected.jsonl has beyond the
    last shard that is done. A shard is done if its line and its file are there, and those of all lines before it.

    folder (Path): Folder of the run.
    ending (str): Of the names of its shards.
    header (Dict[str, Any]): What the run is: the model and its hash, and the options that results depend on.
    RAISES (BertHeadsError): H645 if the folder holds a run with another model or other options, H646 if it holds
        something else, H647 if its manifest is damaged, H123 if it cannot be written.
    """

    def __init__(self, folder: Path, ending: str, header: Dict[str, Any]) -> None:
        self.folder = folder
        self.ending = ending
        self.header = header
        self.done: Dict[int, Done] = {}
        self.lost: Dict[str, int] = {}
        self._rejected_end = 0
        path = folder / MANIFEST
        clean_up(folder)
        lines = _read_lines(path)
        if lines:
            self.header = _check_header(path, lines[0], header)
            for number, line in enumerate(lines[1:], 1):
                # After a power failure a file may be gone, or empty, whose line is there
                if not self._take(path, number + 1, line):
                    del lines[number:]
                    break
        else:
            strange = [entry.name for entry in folder.iterdir() if entry.name not in (LOCK, MANIFEST)]
            if strange:
                raise BertHeadsError("H646", path=folder, found=sorted(strange)[0])
        with write_errors(path):
            self._rejected = _open_at(folder / REJECTED, self._rejected_end)
            self._manifest = _open_at(path, sum(map(len, lines)))
            if not lines:
                self._begin()

    def __enter__(self) -> "Manifest":
        return self

    def __exit__(self, *error: Any) -> None:
        for stream in (self._manifest, self._rejected):
            with suppress(OSError):
                stream.close()
        rejected = self.folder / REJECTED
        if rejected.exists() and not rejected.stat().st_size:
            rejected.unlink()
        # A run that stops has killed its workers, and leaves what they wrote in the meantime
        with suppress(OSError):
            clean_up(self.folder)

    @property
    def n_items(self) -> int:
        """RETURNS (int): Records of the shards that are done."""
        return sum(done.n_items for done in self.done.values())

    @property
    def n_rejected(self) -> int:
        """RETURNS (int): Of these, without predictions."""
        return sum(done.n_rejected for done in self.done.values())

    def commit(self, outcome: Outcome) -> None:
        """Put a shard into its place, then say that it is done.

        outcome (Outcome): With the temporary file, which is moved.
        RAISES (BertHeadsError): H123 if it cannot be written.
        """
        assert outcome.temporary is not None
        path = shard_path(self.folder, outcome.shard, self.ending)
        with write_errors(path):
            os.replace(outcome.temporary, path)
        with write_errors(self.folder / REJECTED):
            for rejected in outcome.rejected:
                self._rejected.write((json.dumps(rejected, ensure_ascii=False) + "\n").encode("utf8"))
            if outcome.rejected:
                _flush(self._rejected)
        entry = {
            "shard": outcome.shard,
            "file": path.name,
            "bytes": outcome.n_bytes,
            "items": outcome.n_items,
            "rejected": len(outcome.rejected),
            "rejected_end": self._rejected.tell(),
            "digest": outcome.digest,
        }
        if outcome.lost:
            entry["lost"] = outcome.lost
        with write_errors(self.folder / MANIFEST):
            self._append(entry)
        self._note(entry)

    def _begin(self) -> None:
        try:
            self._append({KEY: VERSION, **self.header})
        except OSError:
            # Half of a first line is no run
            for stream, name in ((self._manifest, MANIFEST), (self._rejected, REJECTED)):
                with suppress(OSError):
                    stream.close()
                (self.folder / name).unlink(missing_ok=True)
            raise

    def _append(self, entry: Dict[str, Any]) -> None:
        self._manifest.write((json.dumps(entry, ensure_ascii=False) + "\n").encode("utf8"))
        _flush(self._manifest)

    def _note(self, entry: Dict[str, Any]) -> None:
        self.done[int(entry["shard"])] = Done(int(entry["items"]), int(entry["rejected"]), str(entry["digest"]))
        for kind, count in entry.get("lost", {}).items():
            self.lost[kind] = self.lost.get(kind, 0) + count

    def _take(self, path: Path, number: int, line: bytes) -> bool:
        try:
            entry = json.loads(line)
            file = shard_path(self.folder, int(entry["shard"]), self.ending)
            if not file.is_file() or file.stat().st_size != entry["bytes"]:
                return False
            self._note(entry)
            self._rejected_end = int(entry["rejected_end"])
        except (ValueError, KeyError, TypeError) as error:
            raise BertHeadsError("H647", path=path, line=number, found=error) from error
        return True


def hash_model(model: str, code: Optional[Path] = None) -> str:
    """A hash of all that a pipeline is: its config, its weights, its vocabulary and whatever else is in its folder.

    model (str): Folder of the pipeline, or the name of its package.
    code (Optional[Path]): Python file with functions that it needs.
    RETURNS (str): Hexadecimal.
    RAISES (BertHeadsError): H227 if there is no such pipeline.
    """
    folder = Path(model)
    if not folder.exists() and is_package(model):
        folder = get_package_path(model)
    digest = blake2b(digest_size=16)
    try:
        files = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        if not files:
            raise BertHeadsError("H227", found=model, reason="no such folder or package")
        for path in [*files, *([code] if code is not None else [])]:
            name = path.relative_to(folder).as_posix() if path != code else "code"
            digest.update(f"{name}\0{path.stat().st_size}\0".encode("utf8", "surrogateescape"))
            with path.open("rb") as stream:
                while chunk := stream.read(1 << 20):
                    digest.update(chunk)
    except OSError as error:
        raise BertHeadsError("H227", found=model, reason=error.strerror or error) from error
    return digest.hexdigest()


def _check_header(path: Path, line: bytes, header: Dict[str, Any]) -> Dict[str, Any]:
    try:
        begun = json.loads(line)
        if begun.pop(KEY) != VERSION:
            raise ValueError("it is of another version of bert-heads")
        then, now = {"model": begun["model"], **begun["options"]}, {"model": header["model"], **header["options"]}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BertHeadsError("H647", path=path, line=1, found=error) from error
    differing = []
    if begun.get("hash") != header["hash"]:
        named = "" if then["model"] == now["model"] else f": {then['model']} then, {now['model']} now"
        differing.append(f"the model{named}")
    for name in sorted({*then, *now} - {"model"}):
        if then.get(name) != now.get(name):
            option = "--" + name.replace("_", "-")
            differing.append(f"{option}: {json.dumps(then.get(name))} then, {json.dumps(now.get(name))} now")
    if differing:
        raise BertHeadsError("H645", path=path.parent, found="; ".join(differing))
    return dict(begun)


def _read_lines(path: Path) -> List[bytes]:
    """Lines with their ends. What follows the last line end was being written when the run was killed."""
    try:
        with path.open("rb") as stream:
            return [line for line in stream if line.endswith(b"\n")]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BertHeadsError("H103", path=path, found=error.strerror or error) from error


def _open_at(path: Path, size: int) -> IO[bytes]:
    """A file that is written on from a position, and ends there."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    stream = open(os.open(path, flags, 0o666), "r+b")
    stream.truncate(size)
    stream.seek(size)
    return stream


def _flush(stream: IO[bytes]) -> None:
    stream.flush()
    os.fsync(stream.fileno())
