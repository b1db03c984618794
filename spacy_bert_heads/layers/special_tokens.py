"""The wordpieces a tokenizer puts around a text."""

from dataclasses import dataclass
from typing import Any, List


@dataclass(frozen=True)
class SpecialTokens:
    """The wordpieces a tokenizer puts around a text, such as [CLS] and [SEP].

    prefix (List[int]): Ids in front of the text.
    suffix (List[int]): Ids behind it.
    pad (int): Id that fills a batch up to a rectangle.
    """

    prefix: List[int]
    suffix: List[int]
    pad: int

    @classmethod
    def of(cls, tokenizer: Any) -> "SpecialTokens":
        """Read them off a Hugging Face tokenizer by letting it wrap a text."""
        if tokenizer.is_fast:
            encoded = tokenizer("a")
            ids, of_text = encoded["input_ids"], [part is not None for part in encoded.sequence_ids(0)]
        else:
            mark = -1
            ids = tokenizer.build_inputs_with_special_tokens([mark])
            of_text = [piece == mark for piece in ids]
        start, stop = of_text.index(True), len(of_text) - of_text[::-1].index(True)
        pad = 0 if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        prefix, suffix = ids[:start], ids[stop:]
        if not prefix and not suffix:
            # A tokenizer that adds nothing: something must stand in the window of an empty text
            prefix = [pad if tokenizer.cls_token_id is None else tokenizer.cls_token_id]
        return cls(prefix, suffix, pad)

    def __len__(self) -> int:
        return len(self.prefix) + len(self.suffix)
