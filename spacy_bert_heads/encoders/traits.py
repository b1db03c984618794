"""What the settings of a training should know about an encoder, found by looking at it, not by its name."""

import json
from pathlib import Path
from typing import Dict, Iterable, List, NamedTuple, Optional

import torch
from transformers import AutoTokenizer

from ..errors import BertHeadsError
from ..layers.encoder_module import load_pretrained, max_positions, resolve_source
from .scripts import scripts_of_text

# Enough for a standard deviation, few enough to wait for
N_TEXTS = 64
N_PIECES = 64
# The tokenizer alone is fast
N_READ = 1000
# Whose characters are no letters of an alphabet: a piece for each is as it should be
SYLLABLES = {"CJK", "HIRAGANA", "KATAKANA", "HANGUL", "ETHIOPIC"}


# In the settings of sentence-transformers
POOLING_FLAGS = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}


class Traits(NamedTuple):
    """What was found.

    pooling (str): Of the settings of a PooledListener, the one its vectors of texts were trained with: "mean" or "cls"
        where a file of sentence-transformers in the folder says so, otherwise "pooler" if it comes with weights of
        one, else "mean". A new pooler starts at random, and learns slowly.
    deviation (float): Standard deviation of the vectors of texts, each the mean of its wordpieces, per dimension.
    embeddings (float): The share of its weights that are vectors of wordpieces.
    width (int): Of its vectors.
    """

    pooling: str
    deviation: float
    embeddings: float
    width: int


def find_traits(name: str, texts: Iterable[str]) -> Optional[Traits]:
    """Load an encoder and have it read some texts.

    name (str): As BertEncoder.v1 takes it.
    texts (Iterable[str]): Such as those it will be trained on. The first ones that differ are read.
    RETURNS (Optional[Traits]): None for an id on the hub, which is not downloaded for this.
    RAISES (BertHeadsError): H202, H203, H205 or H401 if there is no such encoder.
    """
    source = resolve_source(name)
    if not isinstance(source, Path):
        return None
    encoder = load_pretrained(name, {}, {})
    encoder.module.eval()
    most = min(N_PIECES, max_positions(encoder))
    vectors = []
    with torch.no_grad():
        for text in _first_different(texts, N_TEXTS):
            inputs = encoder.tokenizer(text, return_tensors="pt", truncation=True, max_length=most)
            output = encoder.module(inputs["input_ids"], inputs["attention_mask"])
            vectors.append(output["last_hidden_state"][0].mean(dim=0))
    deviation = float(torch.stack(vectors).std(dim=0).mean()) if len(vectors) > 1 else float("nan")
    pooling = _declared_pooling(source) or ("pooler" if encoder.has_trained_pooler else "mean")
    transformer = encoder.module.transformer
    n_weights = sum(parameter.numel() for parameter in transformer.parameters())
    embeddings = transformer.get_input_embeddings().weight.numel() / n_weights
    return Traits(pooling, deviation, embeddings, transformer.config.hidden_size)


def spelled_share(name: str, texts: Iterable[str]) -> float:
    """How much of texts an encoder does not know, or reads letter by letter.

    name (str): As BertEncoder.v1 takes it.
    texts (Iterable[str]): The first ones that differ are read.
    RETURNS (float): The share of wordpieces that are unknown, or one letter of a longer word. 0 for an id on the hub,
        which is not downloaded for this, and for a tokenizer that does not say where its wordpieces are.
    RAISES (BertHeadsError): H202, H203 or H401 if there is no such encoder.
    """
    source = resolve_source(name)
    if not isinstance(source, Path):
        return 0.0
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, use_fast=True)
    except Exception as error:  # each file can fail in a way of its own
        raise BertHeadsError("H203", found=name, reason=str(error).strip().split("\n")[0]) from error
    if not tokenizer.is_fast:
        return 0.0
    total = spelled = 0
    for text in _first_different(texts, N_READ):
        encoding = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
        total += len(encoding.ids)
        for number, (start, stop) in zip(encoding.ids, encoding.offsets):
            spelled += number == tokenizer.unk_token_id or _is_letter_of_word(text, start, stop)
    return spelled / total if total else 0.0


def _declared_pooling(folder: Path) -> Optional[str]:
    """What sentence-transformers, which trains no pooler, says about the vectors of texts. None: it does not."""
    try:
        settings = json.loads((folder / "1_Pooling" / "config.json").read_text(encoding="utf8"))
        chosen = [name for name, flag in POOLING_FLAGS.items() if settings.get(flag) is True]
    except (OSError, ValueError, AttributeError):
        return None
    return chosen[0] if len(chosen) == 1 else None


def _first_different(texts: Iterable[str], most: int) -> List[str]:
    seen: Dict[str, None] = {}
    for text in texts:
        seen[text] = None
        if len(seen) == most:
            break
    return list(seen)


def _is_letter_of_word(text: str, start: int, stop: int) -> bool:
    piece = text[start:stop]
    if len(piece) != 1 or not piece.isalpha() or scripts_of_text(piece) & SYLLABLES:
        return False
    return text[max(0, start - 1) : start].isalpha() or text[stop : stop + 1].isalpha()
