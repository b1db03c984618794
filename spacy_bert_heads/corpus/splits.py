"""Which split a text belongs to: decided by the text and a seed alone, so that it never moves."""

import math
import unicodedata
from hashlib import blake2b
from typing import Dict, Sequence

from ..errors import BertHeadsError

SPLITS = ("train", "dev", "test")
DEFAULT_SPLIT = "0.8,0.1,0.1"


def parse_split(value: str) -> Dict[str, float]:
    """Read the shares of the three splits.

    value (str): Three numbers with commas between them, such as "0.8,0.1,0.1".
    RETURNS (Dict[str, float]): Share of each of SPLITS; they sum to 1.
    RAISES (BertHeadsError): H120 if these are not three numbers from 0 to 1 that sum to 1.
    """
    try:
        shares = [float(part) for part in value.split(",")]
    except ValueError:
        shares = []
    sound = len(shares) == len(SPLITS) and all(math.isfinite(share) and share >= 0.0 for share in shares)
    if not sound or not math.isclose(sum(shares), 1.0, abs_tol=1e-6):
        raise BertHeadsError("H120", found=repr(value))
    return dict(zip(SPLITS, shares))


def renormalise(shares: Dict[str, float], given: Sequence[str]) -> Dict[str, float]:
    """Share the main input out among the splits that no file of their own was given for.

    shares (Dict[str, float]): Share of each split.
    given (Sequence[str]): Splits that come from files of their own.
    RETURNS (Dict[str, float]): The same ratios among the other splits; they sum to 1.
    RAISES (BertHeadsError): H121 if nothing is left for the train split.
    """
    rest = {name: share for name, share in shares.items() if name not in given}
    total = sum(rest.values())
    if rest["train"] <= 0.0 or total <= 0.0:
        raise BertHeadsError("H121", found="a share of 0 for train")
    return {name: share / total for name, share in rest.items()}


def split_key(text: str) -> str:
    """The form in which texts are compared: same key, same split.

    text (str): Any text.
    RETURNS (str): The text in NFC, lower case, each run of white space one space.
    """
    folded = unicodedata.normalize("NFC", text).casefold()
    return " ".join(unicodedata.normalize("NFC", folded).split())


def assign_split(key: str, shares: Dict[str, float], seed: int) -> str:
    """Choose the split of a text. What other texts there are makes no difference.

    key (str): The text as `split_key` makes it.
    shares (Dict[str, float]): Share of each split that is open; they sum to 1.
    seed (int): Another seed gives another division.
    RETURNS (str): One of the keys of `shares`.
    """
    digest = blake2b(f"{seed}\n{key}".encode("utf8"), digest_size=8).digest()
    position = int.from_bytes(digest, "big") / 2**64
    for name, share in shares.items():
        position -= share
        if position < 0.0:
            return name
    return max(shares, key=lambda name: shares[name])
