"""Files -> lines -> JSON values: streamed, plain or packed, with the line named when something is wrong."""

import codecs
import gzip
import json
import re
import zlib
from functools import lru_cache
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, Callable, Dict, Iterator, List, Sequence, Tuple, cast

from tqdm import tqdm

from ...errors import BertHeadsError, BrokenLineError
from ..findings import Findings, Where
from .pipes import find_file

# All bytes but those that are controls, which no text has many of.
NO_CONTROLS = bytes(range(32, 256)) + b"\t\n\v\f\r"
GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
UTF8_BOM = b"\xef\xbb\xbf"
# Enough to see what format a file has.
HEAD_BYTES = 1 << 20
# JSON values at the beginning of a file that are looked at.
N_HEAD_VALUES = 50
# How much of a JSON file is read at once.
CHUNK_BYTES = 1 << 16
# A longer line, or JSON value, is no record of a text. It bounds the memory that a broken file can take.
MAX_LINE_BYTES = 1 << 28


def read_head(path: Path) -> bytes:
    """The first bytes of a file, unpacked and without a byte order mark.

    path (Path): A plain or gzipped file.
    RETURNS (bytes): At most HEAD_BYTES.
    RAISES (BertHeadsError): H101 if there is no such file; H102 if it is a folder; H103 if it cannot be read; H140
        if it is UTF-16 or UTF-32.
    """
    with open_file(path) as stream:
        try:
            return _without_bom(path, stream.read(HEAD_BYTES))
        except (OSError, EOFError, zlib.error) as error:
            raise BertHeadsError("H103", path=path, found=error) from error


def head_lines(head: bytes) -> List[bytes]:
    r"""The complete lines in the beginning of a file.

    head (bytes): What `read_head` gives.
    RETURNS (List[bytes]): Lines without "\n"; a last line that is cut off is left out.
    """
    lines = head.split(b"\n")
    return lines if len(head) < HEAD_BYTES else lines[:-1]


def is_text(head: bytes) -> bool:
    """Tell text from compressed and other binary files.

    head (bytes): What `read_head` gives.
    RETURNS (bool): Whether there are hardly any control characters in it.
    """
    return len(head[:4096].translate(None, NO_CONTROLS)) <= max(2, len(head[:4096]) // 100)


@lru_cache(maxsize=2)
def head_values(head: bytes) -> List[Any]:
    """The first JSON values of a file: of its lines, some of which may be broken, or of the array that it is.

    head (bytes): What `read_head` gives.
    RETURNS (List[Any]): At most N_HEAD_VALUES; none if it is no such file.
    """
    values: List[Any] = []
    lines = [line for line in head_lines(head)[:N_HEAD_VALUES] if line.strip()]
    for line in lines:
        try:
            values.append(json.loads(line))
        except (ValueError, RecursionError):
            continue
    if len(lines) > 1 and 2 * len(values) > len(lines):
        return values
    text = head.decode("utf8", "replace")
    values = []
    position = re.match(r"\s*\[(?=\s*[\[{])|", text).end()  # type: ignore[union-attr]
    while len(values) < N_HEAD_VALUES:
        position = re.compile(r"[\s,]*").match(text, position).end()  # type: ignore[union-attr]
        try:
            value, position = json.JSONDecoder().raw_decode(text, position)
        except (ValueError, RecursionError):
            break
        values.append(value)
    return values


def most(values: Sequence[Any], test: Callable[[Any], bool]) -> bool:
    """RETURNS (bool): Whether at least half of the values pass a test, and one at all."""
    return 2 * sum(map(test, values)) >= max(1, len(values))


def iter_lines(path: Path, *, progress: bool = True) -> Iterator[Tuple[int, bytes]]:
    r"""Stream all lines of a file with their ends and their numbers, with a progress bar on a terminal.

    Lines end at "\n" and nowhere else: U+0085 or U+2028 within a line is text.

    path (Path): A plain or gzipped file, with or without a byte order mark.
    progress (bool): Whether to show the bar.
    YIELDS (Tuple[int, bytes]): Number of the line, counted from 1, and the line.
    RAISES (BertHeadsError): H101, H102, H103 or H140 as in `read_head`; H139 for a line of over MAX_LINE_BYTES; H155
        for a file whose lines end in carriage returns, which would be one line.
    """
    with open_file(path) as stream:
        # A delay, so that short files show no bar; `disable=None` shows none where stderr is not a terminal.
        hidden = None if progress else True
        with tqdm(desc=path.name, unit=" lines", leave=False, delay=1.0, disable=hidden) as bar:
            number = 0
            while True:
                try:
                    raw = stream.readline(MAX_LINE_BYTES)
                except (OSError, EOFError, zlib.error) as error:
                    raise BertHeadsError("H103", path=path, found=error) from error
                if not raw:
                    return
                number += 1
                if number == 1:
                    raw = _without_bom(path, raw)
                    if not raw.endswith(b"\n") and b"\r" in raw.rstrip(b"\r"):
                        raise BertHeadsError("H155", path=path)
                if len(raw) == MAX_LINE_BYTES:
                    found = f"a line of {MAX_LINE_BYTES:,} bytes or more"
                    raise BertHeadsError("H139", path=path, line=number, found=found)
                if not number % 1024:
                    bar.update(1024)
                yield number, raw


def read_text(path: Path) -> str:
    """A file that is one text.

    path (Path): A UTF-8 file, with or without a byte order mark.
    RETURNS (str): The text, line ends as they are.
    RAISES (BertHeadsError): As in `read_head` and `decode`; H139 for a file of MAX_LINE_BYTES or more.
    """
    with open_file(path) as stream:
        try:
            raw = _without_bom(path, stream.read(MAX_LINE_BYTES))
        except (OSError, EOFError, zlib.error) as error:
            raise BertHeadsError("H103", path=path, found=error) from error
    if len(raw) >= MAX_LINE_BYTES:
        raise BertHeadsError("H139", path=path, found=f"a text of {MAX_LINE_BYTES:,} bytes or more")
    # `decode` takes the end of a line off
    return decode(raw + b"|", Where(path, 0))[:-1]


def decode(raw: bytes, where: Where) -> str:
    r"""Make text of a line.

    raw (bytes): The line.
    where (Where): Its place.
    RETURNS (str): The line without its end, "\n" or "\r\n".
    RAISES (BertHeadsError): H104 for bytes that are not UTF-8; H139 for a NUL.
    """
    try:
        text = raw.decode("utf8")
    except UnicodeDecodeError as error:
        found, position = f"0x{raw[error.start]:02X}", error.start + 1
        raise where.error("H104", found, error_class=BrokenLineError, position=position) from error
    if "\0" in text:
        raise where.error("H139", f"a NUL as character {text.index(chr(0)) + 1}")
    return text.rstrip("\r\n")


def read_lines(path: Path, findings: Findings, *, progress: bool = True) -> Iterator[Tuple[Where, str]]:
    r"""Stream the lines of a file that are not blank, with a progress bar on a terminal.

    path (Path): A plain or gzipped UTF-8 file, with or without a byte order mark.
    findings (Findings): Takes lines that are not UTF-8 and counts the records.
    progress (bool): Whether to show the bar.
    YIELDS (Tuple[Where, str]): Place of the line, and the line without its end.
    RAISES (BertHeadsError): As in `iter_lines` and `decode`.
    """
    for number, raw in iter_lines(path, progress=progress):
        if not raw.strip():
            continue
        findings.n_records[path] += 1
        where = Where(path, number)
        try:
            line = decode(raw, where)
        except BertHeadsError as error:
            findings.bad(error)
            continue
        yield where, line


def read_json_lines(path: Path, findings: Findings, *, progress: bool = True) -> Iterator[Tuple[Where, Any]]:
    """Stream a file of one JSON value per line.

    path (Path): A file as for `read_lines`.
    findings (Findings): Takes lines that hold no JSON.
    progress (bool): Whether to show the bar.
    YIELDS (Tuple[Where, Any]): Place of the value, and the value.
    RAISES (BertHeadsError): As in `read_lines`; H105 for broken JSON.
    """
    for where, line in read_lines(path, findings, progress=progress):
        try:
            value = _load_json(line, where)
        except BertHeadsError as error:
            findings.bad(error)
            continue
        yield where, value


def read_json_objects(
    path: Path, findings: Findings, *, progress: bool = True, arrays: bool = False
) -> Iterator[Tuple[Where, Dict[str, Any]]]:
    """Stream a file of one JSON object per line.

    path (Path): A file as for `read_lines`.
    findings (Findings): Takes lines that hold no JSON object.
    progress (bool): Whether to show the bar.
    arrays (bool): Whether the file may also be one JSON array of objects.
    YIELDS (Tuple[Where, Dict[str, Any]]): Place of the object, and the object.
    RAISES (BertHeadsError): As in `read_json_lines` or `read_json_records`; H106 for JSON that is no object.
    """
    read = read_json_records if arrays else read_json_lines
    for where, value in read(path, findings, progress=progress):
        if isinstance(value, dict):
            yield where, value
        else:
            findings.bad(where.error("H106", type(value).__name__))


def read_json_records(path: Path, findings: Findings, *, progress: bool = True) -> Iterator[Tuple[Where, Any]]:
    """Stream the values of a JSON array of objects or lists, or of a file of one JSON value per line.

    path (Path): A plain or gzipped UTF-8 file.
    findings (Findings): Takes what is no JSON, and counts the records.
    progress (bool): Whether to show the bar.
    YIELDS (Tuple[Where, Any]): Place of the value, and the value.
    RAISES (BertHeadsError): As in `read_json_values` or `read_json_lines`.
    """
    is_array = re.match(rb"\s*\[\s*[\[{]", read_head(path)) is not None
    return (read_json_values if is_array else read_json_lines)(path, findings, progress=progress)


def read_json_values(path: Path, findings: Findings, *, progress: bool = True) -> Iterator[Tuple[Where, Any]]:
    """Stream the values of a JSON array, or JSON values one after the other, each over any number of lines.

    Memory holds one value at a time. What is broken is passed over up to the end of its line if bad records are.
    Of an array in one line nothing can be read behind that, so this is an error in any case.

    path (Path): A plain or gzipped UTF-8 file.
    findings (Findings): Takes broken values, and counts the records.
    progress (bool): Whether to show the bar.
    YIELDS (Tuple[Where, Any]): Place where the value begins, and the value.
    RAISES (BertHeadsError): As in `iter_lines`; H146 for broken JSON and bytes that are not UTF-8.
    """
    source = _JsonSource(path, progress)
    is_array = source.take("[")
    yield from _take_values(source, is_array, findings)
    if is_array and not source.take("]"):
        raise source.where.error("H146", "the end of the file inside an array")
    if source.peek():
        raise source.where.error("H146", f"{source.peek()!r} after the last value")


def read_json_member(
    path: Path, key: str, findings: Findings, *, progress: bool = True
) -> Iterator[Tuple[Where, Any]]:
    """Stream the values of an array that is one member of a JSON object, the only value of its file.

    Memory holds one value at a time, or another member.

    path (Path): A plain or gzipped UTF-8 file.
    key (str): The name of the member.
    findings (Findings): Takes broken values, and counts the records.
    progress (bool): Whether to show the bar.
    YIELDS (Tuple[Where, Any]): Place where the value begins, and the value.
    RAISES (BertHeadsError): As in `read_json_values`.
    """
    source = _JsonSource(path, progress)
    if not source.take("{"):
        raise source.where.error("H146", f"{source.peek()!r} where an object belongs")
    while source.peek() == '"':
        name = source.take_value()
        if not source.take(":"):
            raise source.where.error("H146", f"{source.peek()!r} where a colon belongs")
        if name == key and source.take("["):
            yield from _take_values(source, True, findings)
            if not source.take("]"):
                raise source.where.error("H146", "the end of the file inside an array")
        else:
            source.take_value()
        source.take(",")
    if not source.take("}") or source.peek():
        raise source.where.error("H146", f"{source.peek()!r} where the object should end")


def _take_values(source: "_JsonSource", is_array: bool, findings: Findings) -> Iterator[Tuple[Where, Any]]:
    n_values = 0
    while source.peek() not in ("", "]"):
        where = source.where
        findings.n_records[source.path] += 1
        n_values += 1
        try:
            value = source.take_value()
        except BertHeadsError as error:
            if source.is_lost or error.code != "H146":
                raise
            findings.bad(error)
            source.skip_line(where.line)
        else:
            yield where._replace(record=n_values), value
        if not source.take(",") and is_array and source.peek() not in ("", "]"):
            findings.bad(source.where.error("H146", f"{source.peek()!r} where a comma or ']' belongs"))
            source.skip_line(source.line)


def _iter_chunks(path: Path, progress: bool) -> Iterator[bytes]:
    hidden = None if progress else True
    with open_file(path) as stream:
        with tqdm(desc=path.name, unit="B", unit_scale=True, leave=False, delay=1.0, disable=hidden) as bar:
            is_first = True
            while True:
                try:
                    raw = stream.read(CHUNK_BYTES)
                except (OSError, EOFError, zlib.error) as error:
                    raise BertHeadsError("H103", path=path, found=error) from error
                if not raw:
                    return
                bar.update(len(raw))
                yield _without_bom(path, raw) if is_first else raw
                is_first = False


class _JsonSource:
    """Text of a file of which values are taken one after the other. A tool may write its export as one line."""

    def __init__(self, path: Path, progress: bool) -> None:
        self.path = path
        self.chunks = _iter_chunks(path, progress)
        self.decoder = codecs.getincrementaldecoder("utf8")()
        self.text = ""
        self.position = 0
        self.line = 1
        self.at_end = False
        # After bytes that are no text it is not known where anything begins.
        self.is_lost = False

    @property
    def where(self) -> Where:
        """RETURNS (Where): The line that the next character is on."""
        return Where(self.path, self.line)

    def peek(self) -> str:
        """RETURNS (str): The next character that is no white space, or "" at the end of the file."""
        while True:
            rest = self.text[self.position : self.position + 64]
            stripped = rest.lstrip(" \t\r\n")
            self._advance(len(rest) - len(stripped))
            if stripped:
                return stripped[0]
            if self.position >= len(self.text) and not self._fill(1):
                return ""

    def take(self, character: str) -> bool:
        """RETURNS (bool): Whether the next character is this one; if so it is passed."""
        if self.peek() != character:
            return False
        self._advance(1)
        return True

    def take_value(self) -> Any:
        """RETURNS (Any): The next value."""
        self.peek()
        wanted = 1 << 16
        while True:
            # A value that ends where the text ends so far may go on: 12 of 123.
            try:
                value, end = _DECODER.raw_decode(self.text, self.position)
                if end < len(self.text) or self.at_end:
                    break
            except (ValueError, RecursionError) as error:
                if self.at_end or not isinstance(error, json.JSONDecodeError):
                    raise self._broken(error) from error
            if len(self.text) - self.position > MAX_LINE_BYTES:
                raise self.where.error("H139", f"a JSON value of over {MAX_LINE_BYTES:,} characters")
            self._fill(wanted)
            wanted *= 2
        where, start = self.where, self.position
        self._advance(end - start)
        _check_surrogates(self.text[start:end], value, where, "H146")
        return value

    def skip_line(self, number: int) -> None:
        """Pass over the rest of a line, unless the text behind it has been reached.

        number (int): The line, counted from 1.
        """
        while self.line == number and (self.position < len(self.text) or self._fill(1)):
            end = self.text.find("\n", self.position)
            self._advance((len(self.text) if end < 0 else end + 1) - self.position)

    def _advance(self, length: int) -> None:
        self.line += self.text.count("\n", self.position, self.position + length)
        self.position += length

    def _fill(self, wanted: int) -> bool:
        parts = [self.text[self.position :]]
        self.position = 0
        while sum(map(len, parts[1:])) < wanted and not self.at_end:
            raw = next(self.chunks, b"")
            self.at_end = not raw
            try:
                parts.append(self.decoder.decode(raw, self.at_end))
            except UnicodeDecodeError as error:
                self.is_lost = True
                before = error.object[: error.start].count(b"\n") + sum(part.count("\n") for part in parts)
                found = f"byte 0x{error.object[error.start]:02X}, which is not UTF-8"
                raise Where(self.path, self.line + before).error("H146", found) from error
        self.text = "".join(parts)
        return self.position < len(self.text)

    def _broken(self, error: Exception) -> BertHeadsError:
        if isinstance(error, json.JSONDecodeError):
            line = self.line + self.text.count("\n", self.position, error.pos)
            return Where(self.path, line).error("H146", error.msg)
        return self.where.error("H146", error)


def _load_json(line: str, where: Where) -> Any:
    try:
        value = _DECODER.decode(line)
    except json.JSONDecodeError as error:
        raise where.error("H105", f"{error.msg} at column {error.colno}", error_class=BrokenLineError) from error
    except (ValueError, RecursionError) as error:
        raise where.error("H105", error, error_class=BrokenLineError) from error
    _check_surrogates(line, value, where, "H105")
    return value


def _check_surrogates(source: str, value: Any, where: Where, code: str) -> None:
    # An escaped half of a surrogate pair is legal JSON, but no text.
    if "\\ud" in source or "\\uD" in source:
        try:
            json.dumps(value, ensure_ascii=False).encode("utf8")
        except UnicodeEncodeError as error:
            raise where.error(code, "half of a surrogate pair, such as '\\ud83d' alone") from error


def _without_repeated_keys(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} twice in one object")
    return record


_DECODER = json.JSONDecoder(object_pairs_hook=_without_repeated_keys)


def open_file(path: Path) -> IO[bytes]:
    """Open a file for reading, unpacked if it was packed by gzip or zstd. A pipe is copied to a file the first time.

    path (Path): The file.
    RETURNS (IO[bytes]): Its bytes.
    RAISES (BertHeadsError): H101 if there is no such file; H102 if it is a folder; H103 if it cannot be read; H151 to
        H153 as in `pipes.find_file`; H410 if the package that unpacks zstd is missing.
    """
    try:
        file = find_file(path)
        with file.open("rb") as stream:
            magic = stream.read(4)
        if magic == ZSTD_MAGIC:
            return _open_zstd(file)
        return cast(IO[bytes], gzip.open(file, "rb") if magic.startswith(GZIP_MAGIC) else file.open("rb"))
    except BertHeadsError:
        raise
    except FileNotFoundError as error:
        raise BertHeadsError("H101", path=path, found=path) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise BertHeadsError("H103", path=path, found=getattr(error, "strerror", None) or error) from error


def _open_zstd(file: Path) -> IO[bytes]:
    try:
        # Unlike the package zstandard, it tells a file that ends too early
        import pyarrow
    except ImportError as error:
        raise BertHeadsError("H410", path=file, found="pyarrow", extra="arrow") from error
    stream: Any = pyarrow.CompressedInputStream(pyarrow.OSFile(str(file)), "zstd")
    return BufferedReader(stream)


def _without_bom(path: Path, raw: bytes) -> bytes:
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)):
        raise BertHeadsError("H140", path=path, found=f"0x{raw[:2].hex().upper()}")
    return raw[len(UTF8_BOM) :] if raw.startswith(UTF8_BOM) else raw
