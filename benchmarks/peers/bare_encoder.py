"""The encoder with nothing around it: fast tokenizer, batches of 64 sorted by length, the forward pass, no heads.

Rows: "bf16" (autocast, fp32 weights, as in "plain-torch"), "bf16 weights" (all of it in bf16, layer norms too: faster,
and less exact) and "fp32". Longer texts are cut into windows of 512 wordpieces that do not overlap, so that
no way to read all of a text does less work; as many windows as texts are asked for go through at once.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModel, AutoTokenizer
from worker import Peer, Row, run, sort_by_length


@dataclass
class Windows:
    """Texts cut into what the encoder can read at once.

    ids (List[torch.Tensor]): Wordpieces of each window, special ones included.
    texts (List[int]): The text that each window is part of.
    n_texts (int): Number of texts.
    first_pieces (List[List[Tuple[int, int]]]): For each text and word the window and the place in it where the
        word's first wordpiece is. Only if asked for.
    """

    ids: List[torch.Tensor]
    texts: List[int]
    n_texts: int
    first_pieces: List[List[Tuple[int, int]]] = field(default_factory=list)


class Bare(Peer):
    def rows(self, model: Path, job: Dict[str, Any]) -> Iterator[Tuple[str, Callable[[], Row]]]:
        yield "bf16", partial(make_row, job["encoder"], torch.bfloat16)
        yield "bf16 weights", partial(make_row, job["encoder"], None, torch.bfloat16)
        yield "fp32", partial(make_row, job["encoder"], None)


def make_row(source: str, dtype: Optional[torch.dtype], weights: torch.dtype = torch.float32) -> Row:
    """The pretrained encoder in one precision."""
    tokenizer = AutoTokenizer.from_pretrained(source)
    encoder = AutoModel.from_pretrained(source).to(weights).eval()

    def predict(texts: List[str], size: int) -> int:
        n_pieces = 0
        _, texts = sort_by_length(texts)
        with torch.inference_mode(), autocast(dtype):
            for start in range(0, len(texts), size):
                ids = sorted(encode_texts(tokenizer, texts[start : start + size]).ids, key=len)
                for first in range(0, len(ids), size):
                    n_pieces += encoder(**pad(ids[first : first + size])).last_hidden_state.shape[1]
        return n_pieces

    return Row(predict, lambda _: ([], []), batch_sizes={"short": (64,), "long": (1, 4, 16)})


def encode_texts(tokenizer: Any, texts: List[str], words: bool = False) -> Windows:
    """Wordpieces by the fast tokenizer.

    words (bool): Whether the first wordpiece of each word, split at white space, is wanted too.
    """
    encoded = tokenizer(
        [text.split() for text in texts] if words else texts,
        is_split_into_words=words,
        truncation=True,
        return_overflowing_tokens=True,
        return_attention_mask=False,
        return_token_type_ids=False,
    )
    owners = encoded["overflow_to_sample_mapping"]
    windows = Windows([torch.tensor(ids) for ids in encoded["input_ids"]], owners, len(texts))
    if words:
        windows.first_pieces = [[] for _ in texts]
        for row, owner in enumerate(owners):
            found = windows.first_pieces[owner]
            for column, word in enumerate(encoded.word_ids(row)):
                if word is not None and word >= len(found):
                    # A word that is nothing to the tokenizer, such as an accent by itself, shares the one behind it
                    found += [(row, column)] * (word + 1 - len(found))
        for text, found in zip(texts, windows.first_pieces):
            found += found[-1:] * (len(text.split()) - len(found))
    return windows


def pad(ids: List[torch.Tensor]) -> Dict[str, torch.Tensor]:
    """A rectangle of wordpieces and the mask of what is none."""
    lengths = torch.tensor([len(window) for window in ids])
    rectangle = pad_sequence(ids, batch_first=True)
    return {"input_ids": rectangle, "attention_mask": (torch.arange(rectangle.shape[1]) < lengths[:, None]).long()}


def autocast(dtype: Optional[torch.dtype]) -> "AbstractContextManager[Any]":
    """Autocast to a type, or nothing."""
    return nullcontext() if dtype is None else torch.autocast("cpu", dtype=dtype)


if __name__ == "__main__":
    run(Bare())
