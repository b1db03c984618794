"""Records of more texts than fit into memory: put on disk as they come, given back text by text."""

import pickle
import sqlite3
from contextlib import contextmanager
from hashlib import blake2b
from itertools import groupby
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from ..errors import BertHeadsError
from .annotations import Annotation
from .findings import Where
from .splits import split_key

# Records are put on disk, and read back, this many at a time.
BATCH = 1000
CACHE_KB = 32_000

TABLE = "CREATE TABLE records (role INTEGER, text INTEGER, key INTEGER, body BLOB)"
# Each text has its turn when its first record came, and brings all of its records of the same role with it.
TURNS = """
CREATE INDEX by_text ON records (role, text);
CREATE INDEX by_key ON records (key, role);
CREATE TABLE turns (role, first, record, PRIMARY KEY (role, first, record)) WITHOUT ROWID;
INSERT INTO turns SELECT role, MIN(rowid) OVER (PARTITION BY role, text), rowid FROM records ORDER BY 1, 2, 3;
"""
READ = """
SELECT first, key, body FROM turns CROSS JOIN records ON records.rowid = record
WHERE turns.role = ? ORDER BY first, record
"""
FIND_KEY = "SELECT body FROM records WHERE key = ? AND role < ? ORDER BY role, rowid LIMIT 1"


class StoredText(NamedTuple):
    """All records of one text.

    records (List[Annotation]): In the order in which they came.
    elsewhere (Optional[Where]): First record with the same `split_key` in a role that comes before this one.
    """

    records: List[Annotation]
    elsewhere: Optional[Where]


class TextStore:
    """A temporary database of annotations; see open_nameless.

    n_roles (int): Annotations are kept apart by role, a number below this.
    """

    def __init__(self, n_roles: int = 1) -> None:
        self.n_roles = n_roles
        self._db = open_nameless()
        self._db.execute(TABLE)
        self._waiting: List[Tuple[int, int, int, bytes]] = []
        self._paths: Dict[Path, int] = {}
        self._is_ordered = False

    def add(self, annotation: Annotation, role: int = 0) -> None:
        """Keep a record.

        annotation (Annotation): What it says.
        role (int): What the record is for.
        RAISES (BertHeadsError): H160 if the disk is full.
        """
        key = hash_text(split_key(annotation.text))
        self._waiting.append((role, hash_text(annotation.text), key, self._pack(annotation)))
        if len(self._waiting) >= BATCH:
            self._flush()

    def texts(self, role: int = 0) -> Iterator[StoredText]:
        """Give the texts of a role back, in the order in which they first came. Nothing can be added afterwards.

        role (int): As given to `add`.
        YIELDS (StoredText): One for each text.
        RAISES (BertHeadsError): H160 if the disk is full.
        """
        self._order()
        with disk_errors():
            for _, rows in groupby(self._db.execute(READ, (role,)), key=lambda row: row[0]):
                found = [(key, self._unpack(body)) for _, key, body in rows]
                elsewhere = self._find_key(found[0][0], role) if role else None
                # Two texts of one number would be a wonder, but their records must not be mixed.
                by_text: Dict[str, List[Annotation]] = {}
                for _, annotation in found:
                    by_text.setdefault(annotation.text, []).append(annotation)
                for records in by_text.values():
                    yield StoredText(records, elsewhere)

    def count(self, role: int = 0) -> int:
        """RETURNS (int): Number of different texts of a role."""
        self._order()
        query = "SELECT COUNT(DISTINCT text) FROM records WHERE role = ?"
        return int(self._db.execute(query, (role,)).fetchone()[0])

    def close(self) -> None:
        """Give the disk space back."""
        self._db.close()

    def _find_key(self, key: int, role: int) -> Optional[Where]:
        row = self._db.execute(FIND_KEY, (key, role)).fetchone()
        return self._unpack(row[0]).where if row else None

    def _order(self) -> None:
        if not self._is_ordered:
            self._flush()
            with disk_errors():
                self._db.executescript(TURNS)
            self._is_ordered = True

    def _flush(self) -> None:
        with disk_errors():
            self._db.execute("BEGIN")
            self._db.executemany("INSERT INTO records VALUES (?, ?, ?, ?)", self._waiting)
            self._db.execute("COMMIT")
        self._waiting.clear()

    def _pack(self, annotation: Annotation) -> bytes:
        values: Dict[str, Any] = dict(vars(annotation))
        path, *place = values["where"]
        values["where"] = (self._paths.setdefault(path, len(self._paths)), *place)
        return pickle.dumps(tuple(values.values()), protocol=5)

    def _unpack(self, body: bytes) -> Annotation:
        values = dict(zip(Annotation.__dataclass_fields__, pickle.loads(body)))
        number, *place = values["where"]
        values["where"] = Where(list(self._paths)[number], *place)
        return Annotation(**values)


def open_nameless() -> sqlite3.Connection:
    """Make a temporary database.

    It has no name in the file system, so that the system removes it however the process ends. SQLite puts it where
    the environment variable SQLITE_TMPDIR or TMPDIR says, else into /var/tmp.

    RETURNS (sqlite3.Connection): In which only explicit transactions are used.
    """
    # What is stored may be read from another thread than the one that stored it.
    database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    for setting in ("journal_mode = OFF", "synchronous = OFF", "temp_store = FILE", f"cache_size = -{CACHE_KB}"):
        database.execute(f"PRAGMA {setting}")
    return database


def hash_text(text: str) -> int:
    """RETURNS (int): 64 bits that stand for a text, the same on every machine."""
    digest = blake2b(text.encode("utf8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


@contextmanager
def disk_errors() -> Iterator[None]:
    """RAISES (BertHeadsError): H160 in place of SQLite's own error, which is about a full disk."""
    try:
        yield
    except sqlite3.Error as error:
        raise BertHeadsError("H160", found=error) from error
