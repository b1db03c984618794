"""Answers that were paid for, on disk from the moment they arrive: whatever ends a run, none is asked for again."""

import json
import sqlite3
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any, Iterator, NamedTuple, Optional

from ...errors import BertHeadsError
from ...files import lock_file

TABLE = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, content TEXT NOT NULL, tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL,
    estimated INTEGER NOT NULL, cost REAL NOT NULL
) WITHOUT ROWID
"""


class Reply(NamedTuple):
    """What came back for a prompt.

    content (str): What the model wrote.
    tokens_in (int): Tokens of the prompt.
    tokens_out (int): Tokens of the answer.
    estimated (bool): Whether the endpoint did not count them, so that they are estimated from the number of bytes.
    """

    content: str
    tokens_in: int
    tokens_out: int
    estimated: bool


class AnswerCache:
    """A SQLite file of replies. One process works with it at a time.

    It holds what the model wrote, which quotes the texts, and no prompt, text, address or key.

    path (Path): The file. It is made if it is missing.
    RAISES (BertHeadsError): H749 if it is another kind of file or cannot be written; every method does.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._errors():
            self._database = sqlite3.connect(path, isolation_level=None)
            self._database.execute(TABLE)

    def get(self, key: str) -> Optional[Reply]:
        """RETURNS (Optional[Reply]): The reply to a prompt, None if there is none yet."""
        query = "SELECT content, tokens_in, tokens_out, estimated FROM answers WHERE key = ?"
        with self._errors():
            row = self._database.execute(query, (key,)).fetchone()
        return None if row is None else Reply(row[0], row[1], row[2], bool(row[3]))

    def put(self, key: str, reply: Reply, cost: float) -> None:
        """Keep a reply. When this returns, it is on disk.

        key (str): Of its prompt.
        reply (Reply): The reply.
        cost (float): What it cost.
        """
        with self._errors():
            self._database.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?)", (key, *reply, cost))

    def spent(self) -> float:
        """RETURNS (float): What all replies in the file cost."""
        with self._errors():
            return float(self._database.execute("SELECT TOTAL(cost) FROM answers").fetchone()[0])

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise BertHeadsError("H749", path=self.path, found=error) from error


@contextmanager
def open_cache(path: Path) -> Iterator[AnswerCache]:
    """Open a file of replies, for this process alone.

    path (Path): The file.
    YIELDS (AnswerCache): What is in it.
    RAISES (BertHeadsError): H187 if another process works with it; H749 if it is another kind of file.
    """
    with lock_file(path.with_name(f".{path.name}.lock"), wait=False):
        cache = AnswerCache(path)
        try:
            yield cache
        finally:
            cache.close()


def prompt_key(*parts: Any) -> str:
    """RETURNS (str): A hash of everything that an answer depends on."""
    content = json.dumps(parts, ensure_ascii=False, sort_keys=True).encode("utf8", "surrogatepass")
    return blake2b(content, digest_size=16).hexdigest()
