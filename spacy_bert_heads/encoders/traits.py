"""What the settings of a training should know about an encoder, found by looking at it, not by its name."""

from itertools import islice
from pathlib import Path
from typing import Iterable, NamedTuple, Optional

import torch

from ..layers.encoder_module import load_pretrained, resolve_source

# Enough for a standard deviation, few enough to wait for
N_TEXTS = 64
N_PIECES = 64


class Traits(NamedTuple):
    """What was found.

    has_pooler (bool): Whether it comes with weights of a pooler. A new one starts at random, and learns slowly.
    deviation (float): Standard deviation of the vectors of texts, each the mean of its wordpieces, per dimension.
    """

    has_pooler: bool
    deviation: float


def find_traits(name: str, texts: Iterable[str]) -> Optional[Traits]:
    """Load an encoder and have it read some texts.

    name (str): As BertEncoder.v1 takes it.
    texts (Iterable[str]): Such as those it will be trained on. The first ones that differ are read.
    RETURNS (Optional[Traits]): None for an id on the hub, which is not downloaded for this.
    RAISES (BertHeadsError): H202, H203, H205 or H401 if there is no such encoder.
    """
    if not isinstance(resolve_source(name), Path):
        return None
    encoder = load_pretrained(name, {}, {})
    encoder.module.eval()
    seen = list(islice(dict.fromkeys(texts), N_TEXTS))
    vectors = []
    with torch.no_grad():
        for text in seen:
            inputs = encoder.tokenizer(text, return_tensors="pt", truncation=True, max_length=N_PIECES)
            output = encoder.module(inputs["input_ids"], inputs["attention_mask"])
            vectors.append(output["last_hidden_state"][0].mean(dim=0))
    deviation = float(torch.stack(vectors).std(dim=0).mean()) if len(vectors) > 1 else float("nan")
    return Traits(encoder.has_trained_pooler, deviation)
