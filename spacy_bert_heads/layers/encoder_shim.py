"""The encoder's thinc shim: tokenizer and module together, saved so that a pipeline needs nothing else to load."""

from typing import Any, Dict, Optional

import srsly
import torch
from thinc.api import get_torch_default_device
from torch import Tensor

from .encoder_module import Encoder, dump_tokenizer, max_positions, rebuild
from .torch_shim import TorchShim, dump_weights, load_weights


class EncoderShim(TorchShim):
    """Holds an encoder once there is one, runs it, and saves it with its tokenizer.

    hidden_states (bool): Whether to return the output of every layer too.
    precision (str): "fp32", or "bf16" for autocast to bfloat16. Outputs are float32 either way.
    """

    def __init__(self, *, hidden_states: bool, precision: str) -> None:
        super().__init__()
        self.hidden_states = hidden_states
        self.precision = precision
        self.tokenizer: Any = None
        self.max_positions = 0

    def set_encoder(self, encoder: Encoder) -> None:
        """Take an encoder and move it to the current device."""
        self.tokenizer = encoder.tokenizer
        self._model = encoder.module.to(get_torch_default_device())
        # Found by a walk over all modules, so once and not for every batch
        self.max_positions = max_positions(encoder)

    @property
    def encoder(self) -> Optional[Encoder]:
        """RETURNS (Optional[Encoder]): Tokenizer and module, None before they are loaded."""
        return None if self._model is None else Encoder(self.tokenizer, self._model)

    def run(self, input_ids: Tensor, attention_mask: Tensor, is_train: bool) -> Dict[str, Any]:
        """Run the encoder on one rectangle of windows; see EncoderModule.forward. Keeps the graph if is_train."""
        device = self.device
        self._model.train(is_train)
        with torch.set_grad_enabled(is_train):
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
                named = self._model(input_ids.to(device), attention_mask.to(device), self.hidden_states)
            return {
                name: output.float() if isinstance(output, Tensor) else tuple(layer.float() for layer in output)
                for name, output in named.items()
            }

    def to_bytes(self) -> bytes:
        if self._model is None:
            return srsly.msgpack_dumps({"config": None, "tokenizer": None, "state": None})
        return srsly.msgpack_dumps(
            {
                "config": self._model.transformer.config.to_dict(),
                "tokenizer": dump_tokenizer(self.tokenizer),
                "state": dump_weights(self._model),
            }
        )

    def from_bytes(self, bytes_data: bytes) -> "EncoderShim":
        msg = srsly.msgpack_loads(bytes_data)
        if msg["state"] is not None:
            encoder = rebuild(msg["config"], msg["tokenizer"])
            load_weights(encoder.module, msg["state"])
            self.set_encoder(encoder)
        return self
