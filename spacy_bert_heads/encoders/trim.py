"""Fewer pieces in a vocabulary: those of some scripts, and those that some texts are read as.

A text that was read while the pieces were chosen is read as the same pieces afterwards. For Unigram that holds because
its best path stays there and no path is new; for WordPiece because the longest match does; for BPE because every merge
on the way to a kept piece stays.
"""

import json
from itertools import islice
from typing import Any, Dict, FrozenSet, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

from tokenizers import Tokenizer
from transformers.models.gpt2.tokenization_gpt2 import bytes_to_unicode

from ..errors import BertHeadsError
from .scripts import COMMON, scripts_of_text

BATCH = 1000
SPACE = "\u2581"


class Trimmed(NamedTuple):
    """A smaller tokenizer.

    content (Dict[str, Any]): Of its tokenizer.json.
    rows (List[int]): Old ids of its pieces in the order of the new ones.
    """

    content: Dict[str, Any]
    rows: List[int]


class Vocabulary:
    """The pieces of a tokenizer, and those of them that are to stay.

    tokenizer (Tokenizer): Of the kind Unigram, WordPiece or BPE.
    name (str): Of its encoder, for messages.
    RAISES (BertHeadsError): H282 if it cannot be trimmed.
    """

    def __init__(self, tokenizer: Tokenizer, name: str) -> None:
        self.tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.name = name
        self.content: Dict[str, Any] = json.loads(self.tokenizer.to_str())
        self.model = self.content["model"]
        self.kind = self.model.get("type")
        if self.kind == "Unigram":
            self.ids = {piece: number for number, (piece, _) in enumerate(self.model["vocab"])}
        elif self.kind in ("WordPiece", "BPE"):
            self.ids = dict(self.model["vocab"])
        else:
            raise self.error(f"it is of the kind {self.kind}")
        self.added = {token["content"]: token["id"] for token in self.content["added_tokens"]}
        self.byte_level = '"ByteLevel"' in json.dumps([self.content["pre_tokenizer"], self.content["decoder"]])
        self.kept: Set[int] = set(self.added.values()) | self._always()

    def __len__(self) -> int:
        return len({*self.ids.values(), *self.added.values()})

    def error(self, reason: str) -> BertHeadsError:
        return BertHeadsError("H282", found=self.name, reason=reason)

    def keep_texts(self, texts: Iterable[str]) -> int:
        """Keep the pieces that texts are read as.

        RETURNS (int): How many texts there were.
        """
        count = 0
        unknown = self.ids.get(self.model.get("unk_token") or "")
        iterator = iter(texts)
        while batch := list(islice(iterator, BATCH)):
            count += len(batch)
            for text, encoding in zip(batch, self.tokenizer.encode_batch(batch, add_special_tokens=False)):
                self.kept.update(encoding.ids)
                if self.kind == "WordPiece" and unknown in encoding.ids:
                    self._keep_parts(text)
        return count

    def keep_scripts(self, scripts: FrozenSet[str], most: Optional[int]) -> None:
        """Keep the most frequent pieces of scripts, and of what has no letters.

        scripts (FrozenSet[str]): As scripts.scripts_of_languages gives them.
        most (Optional[int]): How many of each script at most, besides those that stay already. None: all.
        """
        counts: Dict[FrozenSet[str], int] = {}
        for piece in self._by_frequency():
            if self.ids[piece] in self.kept:
                continue
            found = scripts_of_text(self._plain(piece))
            if found <= scripts | {COMMON} and (most is None or counts.get(found, 0) < most):
                counts[found] = counts.get(found, 0) + 1
                self.kept.add(self.ids[piece])

    def trim(self) -> Trimmed:
        """RETURNS (Trimmed): The tokenizer with the pieces that are to stay."""
        if self.kind == "BPE":
            self._keep_merges()
        in_model = sorted(number for number in self.ids.values() if number in self.kept)
        # Tokens that only were added get their ids behind the model's, as the library gives them
        rows = in_model + sorted(set(self.added.values()) - set(in_model))
        new = {old: number for number, old in enumerate(rows)}
        content = json.loads(json.dumps(self.content))
        model = content["model"]
        if self.kind == "Unigram":
            model["vocab"] = [model["vocab"][number] for number in in_model]
            model["unk_id"] = None if model["unk_id"] is None else new[model["unk_id"]]
        else:
            model["vocab"] = {piece: new[number] for piece, number in self.ids.items() if number in new}
        if self.kind == "BPE":
            pieces = model["vocab"]
            merges = ((merge, {self._merged(merge), *_parts(merge)}) for merge in model["merges"])
            model["merges"] = [merge for merge, needed in merges if needed <= pieces.keys()]
        for token in content["added_tokens"]:
            token["id"] = new[token["id"]]
        self._renumber(content["post_processor"], new)
        return Trimmed(content, rows)

    def _always(self) -> Set[int]:
        """Whatever a text may need: single characters and bytes, the unknown piece, and what scores depend on."""
        kept = {number for piece, number in self.ids.items() if len(self._stripped(piece)) <= 1 or _is_byte(piece)}
        unknown = self.ids.get(self.model.get("unk_token") or "")
        kept |= set() if unknown is None else {unknown}
        if self.kind == "Unigram":
            scores = [score for _, score in self.model["vocab"]]
            # An unknown character scores a little less than the least likely piece
            kept.add(scores.index(min(scores)))
            kept |= set() if self.model["unk_id"] is None else {self.model["unk_id"]}
        return kept

    def _stripped(self, piece: str) -> str:
        prefix = self.model.get("continuing_subword_prefix") or ""
        suffix = self.model.get("end_of_word_suffix") or ""
        piece = piece[len(prefix) :] if prefix and piece.startswith(prefix) else piece
        piece = piece[: -len(suffix)] if suffix and piece.endswith(suffix) else piece
        return piece.replace(SPACE, "")

    def _plain(self, piece: str) -> str:
        """A piece as text; for bytes, what they are in UTF-8."""
        if not self.byte_level:
            return self._stripped(piece)
        return bytes(BYTES[c] for c in piece if c in BYTES).decode("utf8", errors="ignore")

    def _by_frequency(self) -> Iterator[str]:
        if self.kind == "Unigram":
            scored: List[Tuple[str, float]] = self.model["vocab"]
            yield from (piece for piece, _ in sorted(scored, key=lambda entry: -entry[1]))
        else:
            # The trainers of both add the frequent ones first
            yield from sorted(self.ids, key=self.ids.__getitem__)

    def _keep_parts(self, text: str) -> None:
        """Keep all pieces that could be found in a text with an unknown word: fewer might make it known."""
        prefix = self.model.get("continuing_subword_prefix") or ""
        normalizer, pre_tokenizer = self.tokenizer.normalizer, self.tokenizer.pre_tokenizer
        text = normalizer.normalize_str(text) if normalizer else text
        words = [word for word, _ in pre_tokenizer.pre_tokenize_str(text)] if pre_tokenizer else [text]
        for word in words:
            if len(word) > self.model.get("max_input_chars_per_word", 100):
                continue
            for start in range(len(word)):
                for stop in range(start + 1, len(word) + 1):
                    number = self.ids.get((prefix if start else "") + word[start:stop])
                    if number is not None:
                        self.kept.add(number)

    def _keep_merges(self) -> None:
        """Keep the parts of all pieces, and their parts, and what no merge makes."""
        parts: Dict[str, List[str]] = {}
        for merge in self.model["merges"]:
            parts.setdefault(self._merged(merge), []).extend(_parts(merge))
        self.kept |= {number for piece, number in self.ids.items() if piece not in parts}
        waiting = [piece for piece, number in self.ids.items() if number in self.kept]
        while waiting:
            for part in parts.get(waiting.pop(), ()):
                if part in self.ids and self.ids[part] not in self.kept:
                    self.kept.add(self.ids[part])
                    waiting.append(part)

    def _merged(self, merge: Any) -> str:
        first, second = _parts(merge)
        return first + second[len(self.model.get("continuing_subword_prefix") or "") :]

    def _renumber(self, processor: Optional[Dict[str, Any]], new: Dict[int, int]) -> None:
        """Give the special tokens in a post-processor their new ids."""
        kind = None if processor is None else processor["type"]
        if processor is None or kind == "ByteLevel":
            return
        if kind == "Sequence":
            for one in processor["processors"]:
                self._renumber(one, new)
        elif kind == "TemplateProcessing":
            for token in processor["special_tokens"].values():
                token["ids"] = [new[number] for number in token["ids"]]
        elif kind in ("BertProcessing", "RobertaProcessing"):
            for name in ("sep", "cls"):
                processor[name][1] = new[processor[name][1]]
        else:
            raise self.error(f"its post-processor is of the kind {kind}")


BYTES: Dict[str, int] = {character: byte for byte, character in bytes_to_unicode().items()}


def _parts(merge: Any) -> Sequence[str]:
    return merge.split(" ") if isinstance(merge, str) else merge


def _is_byte(piece: str) -> bool:
    """Of SentencePiece's fallback for what is in no piece."""
    return len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")
