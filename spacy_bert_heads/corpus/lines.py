"""Files -> lines -> JSON objects: streamed, gzip or plain, with the line named when something is wrong."""

import gzip
import json
import zlib
from pathlib import Path
from typing import IO, Any, Dict, Iterator, Tuple, cast

from tqdm import tqdm

from ..errors import BertHeadsError
from .findings import Findings, Where

GZIP_MAGIC = b"\x1f\x8b"
UTF8_BOM = b"\xef\xbb\xbf"
# Enough to see what format a file has.
HEAD_BYTES = 1 << 20


def read_head(path: Path) -> bytes:
    """The first bytes of a file, unpacked and without a byte order mark.

    path (Path): A plain or gzipped file.
    RETURNS (bytes): At most HEAD_BYTES.
    RAISES (BertHeadsError): H101 if there is no such file; H102 if it is a folder; H103 if it cannot be read.
    """
    with _open(path) as stream:
        try:
            return _without_bom(stream.read(HEAD_BYTES))
        except (OSError, EOFError, zlib.error) as error:
            raise BertHeadsError("H103", path=path, found=error) from error


def read_lines(path: Path, findings: Findings) -> Iterator[Tuple[Where, str]]:
    r"""Stream the lines of a file that are not blank, with a progress bar on a terminal.

    Lines end at "\n" or "\r\n" and nowhere else: U+0085 or U+2028 within a line is text.

    path (Path): A plain or gzipped UTF-8 file, with or without a byte order mark.
    findings (Findings): Takes lines that are not UTF-8 and counts the records.
    YIELDS (Tuple[Where, str]): Place of the line, and the line without its end.
    RAISES (BertHeadsError): H101, H102 or H103 as in `read_head`; H104 for a line that is not UTF-8.
    """
    with _open(path) as stream:
        # A delay, so that short files show no bar; `disable=None` shows none where stderr is not a terminal.
        lines = enumerate(tqdm(stream, desc=path.name, unit=" lines", leave=False, delay=1.0, disable=None), 1)
        while True:
            try:
                number, raw = next(lines)
            except StopIteration:
                return
            except (OSError, EOFError, zlib.error) as error:
                raise BertHeadsError("H103", path=path, found=error) from error
            if number == 1:
                raw = _without_bom(raw)
            if not raw.strip():
                continue
            findings.n_records[path] += 1
            where = Where(path, number)
            try:
                text = raw.decode("utf8")
            except UnicodeDecodeError as error:
                bad_byte = f"0x{raw[error.start]:02X}"
                findings.bad(where.error("H104", bad_byte, position=error.start + 1))
                continue
            yield where, text.rstrip("\r\n")


def read_json_objects(path: Path, findings: Findings) -> Iterator[Tuple[Where, Dict[str, Any]]]:
    """Stream a file of one JSON object per line.

    path (Path): A file as for `read_lines`.
    findings (Findings): Takes lines that hold no JSON object.
    YIELDS (Tuple[Where, Dict[str, Any]]): Place of the object, and the object.
    RAISES (BertHeadsError): As in `read_lines`; H105 for broken JSON; H106 for JSON that is no object.
    """
    for where, line in read_lines(path, findings):
        try:
            value = json.loads(line)
            if "\\ud" in line.lower():
                # An escaped half of a surrogate pair is legal JSON, but no text.
                json.dumps(value, ensure_ascii=False).encode("utf8")
        except UnicodeEncodeError:
            findings.bad(where.error("H105", "half of a surrogate pair, such as '\\ud83d' alone"))
        except json.JSONDecodeError as error:
            findings.bad(where.error("H105", f"{error.msg} at column {error.colno}"))
        except (ValueError, RecursionError) as error:
            findings.bad(where.error("H105", error))
        else:
            if isinstance(value, dict):
                yield where, value
            else:
                findings.bad(where.error("H106", type(value).__name__))


def _open(path: Path) -> IO[bytes]:
    try:
        if path.is_dir():
            raise BertHeadsError("H102", path=path, found=path)
        with path.open("rb") as stream:
            is_gzip = stream.read(2) == GZIP_MAGIC
        return cast(IO[bytes], gzip.open(path, "rb") if is_gzip else path.open("rb"))
    except FileNotFoundError as error:
        raise BertHeadsError("H101", path=path, found=path) from error
    except OSError as error:
        raise BertHeadsError("H103", path=path, found=error) from error


def _without_bom(raw: bytes) -> bytes:
    return raw[len(UTF8_BOM) :] if raw.startswith(UTF8_BOM) else raw
