"""The encoder in the form exporters take: arrays in, a tuple of arrays out, nothing named, nothing optional."""

import logging
import warnings
from contextlib import contextmanager
from typing import Iterator, Tuple

import torch
from torch import Tensor

from ..layers.encoder_module import EncoderModule


class Flat(torch.nn.Module):
    """An encoder with its outputs in one tuple: last_hidden_state, pooler_output and, if asked, each hidden state.

    module (EncoderModule): The encoder.
    hidden_states (bool): Whether to return the output of every layer too.
    """

    def __init__(self, module: EncoderModule, hidden_states: bool) -> None:
        super().__init__()
        self.module = module
        self.hidden_states = hidden_states
        self.eval()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tuple[Tensor, ...]:
        """See EncoderModule.forward."""
        named = self.module(input_ids, attention_mask, self.hidden_states)
        return (named["last_hidden_state"], named["pooler_output"], *named.get("hidden_states", ()))


def example_inputs() -> Tuple[Tensor, Tensor]:
    """Ids and mask to record the module's steps with. No side is 1 or like the other, and some of it is padding, so
    that nothing looks constant which is not.
    """
    mask = torch.ones((2, 7), dtype=torch.int64)
    mask[1, 4:] = 0
    return torch.arange(14).reshape(2, 7), mask


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what exporters say to developers of models: nothing in it is for those who use them."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
