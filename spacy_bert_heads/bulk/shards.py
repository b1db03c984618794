"""Items -> shards, the unit of work: what a worker takes at once and writes as one file."""

import json
import re
from hashlib import blake2b
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional

from ..errors import BertHeadsError
from .items import Item, plain

# A shard of long texts ends before it has all its records. Characters of JSON.
MAX_CHARACTERS = 4_000_000
SKIP_BAD = re.compile(r",? or pass --skip-bad[^.]*(?=\.)")

Rejected = Dict[str, Any]


class Shard(NamedTuple):
    """Some records of the input, in order.

    number (int): Its place among the shards, from 0.
    first (int): Number of its first item in the input, from 0.
    n_items (int): Records, good and bad.
    items (List[str]): Good ones as JSON: `at` is the place, `record` the keys, `words` and `spaces` a Doc's tokens.
    rejected (List[Rejected]): Bad ones, as they are written to rejected.jsonl.
    digest (str): A hash of the content of all of them, whatever their files are called.
    """

    number: int
    first: int
    n_items: int
    items: List[str]
    rejected: List[Rejected]
    digest: str


class Outcome(NamedTuple):
    """What became of a shard.

    shard (int): Its number.
    n_items (int): Records that it had.
    n_written (int): Of these, with predictions.
    rejected (List[Rejected]): The others.
    digest (str): As the shard has it.
    lost (Dict[str, int]): What the format cannot hold: keys of findings.KINDS, and how often.
    temporary (Optional[str]): The file of predictions, to be moved into its place.
    n_bytes (int): Its size.
    records (List[Dict[str, Any]]): The predictions themselves, where no file was asked for.
    """

    shard: int
    n_items: int
    n_written: int
    rejected: List[Rejected]
    digest: str
    lost: Dict[str, int]
    temporary: Optional[str] = None
    n_bytes: int = 0
    records: List[Dict[str, Any]] = []


def cut(items: Iterable[Item], size: int) -> Iterator[Shard]:
    """Cut a stream into shards. The same stream is cut in the same way.

    items (Iterable[Item]): The records, good and bad.
    size (int): Records of a shard, fewer if they are long.
    YIELDS (Shard): All shards. Memory holds one.
    """
    number = first = n_items = n_characters = 0
    good: List[str] = []
    rejected: List[Rejected] = []
    digest = blake2b(digest_size=16)
    for item in items:
        if item.error is not None:
            content = f"bad {item.error.code}"
            rejected.append(describe_rejected(item.where, item.error))
        else:
            content = _encode(item)
            at = [str(item.where.path), item.where.line, item.where.record]
            good.append(f'{{"at": {json.dumps(at)}, {content[1:]}')
        digest.update(content.encode("utf8") + b"\n")
        n_items += 1
        n_characters += len(content)
        if n_items >= size or n_characters >= MAX_CHARACTERS:
            yield Shard(number, first, n_items, good, rejected, digest.hexdigest())
            number, first, n_items, n_characters = number + 1, first + n_items, 0, 0
            good, rejected, digest = [], [], blake2b(digest_size=16)
    if n_items:
        yield Shard(number, first, n_items, good, rejected, digest.hexdigest())


def describe_rejected(where: Any, error: BertHeadsError) -> Rejected:
    """A line of rejected.jsonl.

    where (Where): Place of the record.
    error (BertHeadsError): What is wrong with it.
    RETURNS (Rejected): Its file, line, code and reason.
    """
    place = {"file": str(where.path), "line": where.line}
    if where.record:
        place["record"] = where.record
    # Without the place, and without advice for commands that stop at bad records. It may show bytes of the text
    reason = SKIP_BAD.sub("", str(error).split(f"[{error.code}] ", 1)[-1])
    reason = reason.encode("utf8", "backslashreplace").decode("utf8")
    return {**place, "code": error.code, "reason": reason}


def _encode(item: Item) -> str:
    content: Dict[str, Any] = {"record": item.record}
    if item.words is not None:
        content.update(words=item.words, spaces=item.spaces)
    try:
        return json.dumps(content, ensure_ascii=False, allow_nan=False)
    except ValueError:
        return json.dumps(plain(content), ensure_ascii=False)
