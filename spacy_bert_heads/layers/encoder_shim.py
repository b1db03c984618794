"""The encoder's thinc shim: tokenizer and module together, saved so that a pipeline needs nothing else to load."""

from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple, cast

import srsly
import torch
from thinc.api import Optimizer, get_torch_default_device
from torch import Tensor

from ..errors import BertHeadsError
from ..files import Staging, create
from .attention import TrainingAttention
from .encoder_module import (
    Encoder,
    dump_tokenizer,
    enable_checkpointing,
    max_positions,
    rebuild,
    rebuild_config,
    rebuild_tokenizer,
    use_eager,
)
from .fused_layers import prediction_twin
from .precision import AUTOCAST_TYPES, check_precision, resolve_precision
from .runtimes import load_runtime
from .special_tokens import SpecialTokens
from .torch_shim import TorchShim, dump_weights, load_weights, prepare_process, read_weights, write_weights


class EncoderShim(TorchShim):
    """Holds an encoder once there is one, runs it, and saves it with its tokenizer.

    hidden_states (bool): Whether to return the output of every layer too.
    attentions (bool): Whether predictions return the attention weights too.
    precision (str): Of predictions; see resolve_precision. Outputs are float32 in any case.
    train_precision (str): Of training.
    gradient_checkpointing (bool): Whether training keeps each layer's input only, and computes the rest again.
    word_dropout (float): Share of wordpieces that training hides; see hide_pieces.

    An exported encoder can take the torch module's place: `runtime` then runs every prediction, there is nothing to
    train, and it is saved instead of the weights. It has

        backend, precision, cpu (str): Saved with it; they and the bytes go to `runtimes.load_runtime`.
        to_bytes() -> bytes
        run(input_ids, attention_mask) -> Dict[str, numpy arrays or a list of them]: Int64 arrays, (n_windows,
            n_pieces), to what EncoderModule.forward returns.
    """

    def __init__(
        self,
        *,
        hidden_states: bool,
        attentions: bool,
        precision: str,
        train_precision: str,
        gradient_checkpointing: bool,
        word_dropout: float,
    ) -> None:
        super().__init__()
        self.hidden_states = hidden_states
        self.attentions = attentions
        self.precision = precision
        self.train_precision = train_precision
        self.gradient_checkpointing = gradient_checkpointing
        self.word_dropout = word_dropout
        self.tokenizer: Any = None
        self.runtime: Optional[Any] = None
        # The module's weights; its twin for predictions, and what the weights were when it was made
        self._weights: List[Tensor] = []
        self._twin: Optional[Tuple[Any, torch.nn.Module]] = None
        # The vocabulary's embeddings, if their gradients are sparse on the way; a matrix for those, and its rows that
        # are not 0
        self._embeddings: Optional[torch.nn.Embedding] = None
        self._gradient: Optional[Tuple[Tensor, Tensor]] = None
        # Whether to_bytes leaves the weights out, and what from_bytes has made of bytes without them
        self._weights_apart = False
        self._without_weights: Optional[Encoder] = None
        self.special = SpecialTokens([], [], 0)
        # Hugging Face's
        self.config: Any = None
        self.max_positions = 0

    def set_encoder(self, encoder: Encoder) -> None:
        """Take an encoder and move it to the current device.

        RAISES (BertHeadsError): H236 if it cannot do the gradient checkpointing that is asked for, H239 if its
            vocabulary has nothing to put in place of the wordpieces that word dropout hides.
        """
        if self.word_dropout and encoder.tokenizer.unk_token_id is None:
            raise BertHeadsError("H239", found=encoder.module.transformer.config.model_type)
        if self.attentions:
            use_eager(encoder.module)
        # from_pretrained leaves the transformer in the mode for predictions, and the module around it is in the other
        self._model = encoder.module.to(get_torch_default_device()).eval()
        embeddings = encoder.module.transformer.get_input_embeddings()
        self._embeddings, self._gradient = None, None
        if self.device.type == "cpu" and type(embeddings) is torch.nn.Embedding:
            self._embeddings = embeddings
        self._weights = list(encoder.module.parameters())
        if self.gradient_checkpointing:
            enable_checkpointing(encoder.module)
        # Found by a walk over all modules, so once and not for every batch
        self._describe(encoder.module.transformer.config, encoder.tokenizer, max_positions(encoder))

    def _describe(self, config: Any, tokenizer: Any, longest: int) -> None:
        """Remember what is needed beside the module or runtime. config: Hugging Face's."""
        prepare_process()
        self.config = config
        self.tokenizer = tokenizer
        self.special = SpecialTokens.of(tokenizer)
        self.max_positions = longest

    @property
    def is_ready(self) -> bool:
        """RETURNS (bool): Whether there is an encoder to run."""
        return self._model is not None or self.runtime is not None

    @property
    def device(self) -> torch.device:
        """RETURNS (torch.device): Where the module is; exported encoders take and give arrays of the CPU."""
        return torch.device("cpu") if self._model is None else next(self._model.parameters()).device

    def runner(self, is_train: bool) -> Callable[[Tensor, Tensor, Optional[Tensor]], Dict[str, Any]]:
        """The encoder, ready to run the rectangles of one batch.

        is_train (bool): Puts dropout into it, word dropout too, and keeps the graph, unless torch.no_grad() is in
            force.
        RETURNS (Callable): Takes input_ids, attention_mask and token_types as EncoderModule.forward does; an empty
            tensor of types says as None that all are 0. Gives the named outputs, in float32.
        RAISES (BertHeadsError): H233 for training in fp16, H234 for fp16 without a GPU, H235 for training an exported
            encoder, H288 for attentions of one; when it runs, H248 for token types that it cannot be told, H287 for
            a model that gives no attentions.
        """
        self.step_pending()
        if self.runtime is not None:
            if is_train:
                raise BertHeadsError("H235", found=self.runtime.backend)
            if self.attentions:
                raise BertHeadsError("H288")
            return self._run_exported
        precision = self.train_precision if is_train else self.precision
        check_precision(precision, training=is_train)
        dtype = AUTOCAST_TYPES.get(resolve_precision(precision, self.device))
        if self._model.training != is_train:
            self._model.train(is_train)
        return partial(self._run_torch, self._model if is_train else self._to_predict_with(dtype), dtype, is_train)

    def _run_torch(
        self,
        module: Any,
        dtype: Optional[torch.dtype],
        is_train: bool,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_types: Optional[Tensor],
    ) -> Dict[str, Any]:
        if token_types is not None and not token_types.numel():
            token_types = None
        if is_train and self.word_dropout:
            input_ids = hide_pieces(input_ids, self.word_dropout, self.tokenizer)
        with torch.set_grad_enabled(is_train and torch.is_grad_enabled()):
            with torch.autocast(input_ids.device.type, dtype=dtype, enabled=dtype is not None):
                attentions = self.attentions and not is_train
                with self._in_training() if is_train else nullcontext():
                    named = module(input_ids, attention_mask, self.hidden_states, token_types, attentions)
            return {
                name: output.float() if isinstance(output, Tensor) else tuple(layer.float() for layer in output)
                for name, output in named.items()
            }

    @contextmanager
    def casts_once(self) -> Iterator[None]:
        """Around the passes of a training batch, but not those that `backward` runs again, one by one. Weights that
        learn are cast to what training computes in for the first pass alone; elsewhere, for each."""
        dtype = AUTOCAST_TYPES.get(resolve_precision(self.train_precision, self.device))
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
            yield

    @contextmanager
    def _in_training(self) -> Iterator[None]:
        """Around a forward pass that `backward` belongs to. Elsewhere the module is as Hugging Face made it."""
        if self._embeddings is not None:
            self._embeddings.sparse = True
        try:
            with TrainingAttention() if self.device.type == "cpu" else nullcontext():
                yield
        finally:
            if self._embeddings is not None:
                self._embeddings.sparse = False

    @contextmanager
    def backward(self) -> Iterator[None]:
        """Around a backward pass: what comes in for the vocabulary's embeddings is sparse there, of the wordpieces of
        the batch alone, and is then added to a matrix that serves every step. torch would make one of zeros for each
        rectangle of a batch, which is an eighth of the time of a step.
        """
        if self._embeddings is None:
            yield
            return
        weight = self._embeddings.weight
        before, weight.grad = weight.grad, None
        yield
        if weight.grad is None or not weight.grad.is_sparse:
            weight.grad = before if weight.grad is None else weight.grad.add_(0 if before is None else before)
            return
        sparse, rows = weight.grad, weight.grad._indices()[0]
        if before is None:
            if self._gradient is None:
                before = torch.zeros_like(weight, requires_grad=False)
            else:
                before = self._gradient[0].index_fill_(0, self._gradient[1], 0.0)
            self._gradient = before, rows
        elif self._gradient is not None and before is self._gradient[0]:
            self._gradient = before, torch.cat((self._gradient[1], rows))
        weight.grad = before.index_add_(0, rows, sparse._values())

    def _run_exported(
        self, input_ids: Tensor, attention_mask: Tensor, token_types: Optional[Tensor]
    ) -> Dict[str, Any]:
        if token_types is not None and token_types.numel():
            raise BertHeadsError("H248")
        return _to_tensors(cast(Any, self.runtime).run(input_ids.numpy(), attention_mask.numpy()))

    def _to_predict_with(self, dtype: Optional[torch.dtype]) -> torch.nn.Module:
        """The module's twin for predictions, see prediction_twin; made anew when weights have changed."""
        version = [dtype, *((weight.data_ptr(), weight._version) for weight in self._weights)]
        if self._twin is None or self._twin[0] != version:
            self._twin = version, prediction_twin(self._model, dtype)
        return self._twin[1]

    def finish_update(self, optimizer: Optimizer) -> None:
        """See TorchShim. thinc's optimizers change weights where torch does not see it."""
        super().finish_update(optimizer)
        self._twin = None

    def __getstate__(self) -> Dict[str, Any]:
        """See TorchShim. Without the twin, whose weights are in a layout of this process alone."""
        return {**super().__getstate__(), "_twin": None, "_gradient": None}

    def to_bytes(self) -> bytes:
        self.step_pending()
        self.check_weights()
        msg: Dict[str, Any] = {"config": None, "tokenizer": None, "state": None}
        if self.is_ready:
            msg["config"] = self.config.to_dict()
            msg["tokenizer"] = dump_tokenizer(self.tokenizer)
        if self.runtime is not None:
            msg["max_positions"] = self.max_positions
            msg["runtime"] = {
                "backend": self.runtime.backend,
                "precision": self.runtime.precision,
                "cpu": self.runtime.cpu,
                "data": self.runtime.to_bytes(),
            }
        elif not self._weights_apart:
            msg["state"] = dump_weights(self._model)
        return srsly.msgpack_dumps(msg)

    @contextmanager
    def weights_apart(self, path: Path) -> Iterator[None]:
        """Within it `to_bytes` leaves the weights out: they are written to a file, which takes less memory.

        Killed at any time, this leaves the old weights, none, or the new ones, and never those of another model.

        path (Path): Of the file, a sibling of the one that the bytes go to. An encoder that has none, being exported
            or not initialised, leaves none there.
        RAISES (OSError): If it cannot be written, as for the files of spaCy beside it.
        RAISES (BertHeadsError): H123 if something else has its name.
        """
        self.step_pending()
        with Staging() as staging:
            if self.runtime is None and self._model is not None:
                temporary = staging.reserve(path)
                create(temporary, path).close()
                mode = temporary.stat().st_mode
                write_weights(self._model, temporary)
                temporary.chmod(mode)  # safetensors' own is for the owner alone
            path.resolve().unlink(missing_ok=True)
            self._weights_apart = True
            try:
                yield
            finally:
                self._weights_apart = False
            staging.commit()

    def read_weights(self, path: Path) -> None:
        """Take from a file what the bytes that were loaded last have left out, and let both take effect. If the bytes
        were complete, do nothing.

        RAISES (BertHeadsError): H291 if there is no such file, H292 if it is not one of this encoder.
        """
        encoder, self._without_weights = self._without_weights, None
        if encoder is not None:
            read_weights(encoder.module, path)
            self.runtime = None
            self.set_encoder(encoder)

    def check_weights(self) -> None:
        """RAISES (BertHeadsError): H291 if bytes were loaded that have left the weights out, and nothing else."""
        if self._without_weights is not None:
            raise BertHeadsError("H291")

    def from_bytes(self, bytes_data: bytes) -> "EncoderShim":
        self.step_pending()
        msg = srsly.msgpack_loads(bytes_data)
        self._without_weights = None
        if msg.get("runtime"):
            self._model, self._weights, self._twin = None, [], None
            self._embeddings, self._gradient = None, None
            config = rebuild_config(msg["config"])
            self._describe(config, rebuild_tokenizer(config, msg["tokenizer"]), msg["max_positions"])
            self.runtime = load_runtime(**msg["runtime"])
        elif msg["config"] is not None:
            encoder = rebuild(msg["config"], msg["tokenizer"])
            if msg["state"] is None:
                self._without_weights = encoder
            else:
                load_weights(encoder.module, msg["state"])
                self.runtime = None
                self.set_encoder(encoder)
        return self


def hide_pieces(input_ids: Tensor, share: float, tokenizer: Any) -> Tensor:
    """Put the unknown wordpiece in the place of some, drawn anew each time, so that the encoder learns to read what it
    has never seen off the words around it.

    input_ids (Tensor): Int64, (n_windows, n_pieces).
    share (float): Of the wordpieces, special ones not counted, which stay as they are.
    RETURNS (Tensor): Int64, (n_windows, n_pieces).

    SOURCE: Iyyer et al. (2015), who leave the words out.
    """
    special = torch.tensor(tokenizer.all_special_ids, device=input_ids.device)
    hidden = torch.rand(input_ids.shape, device=input_ids.device) < share
    return input_ids.masked_fill(hidden & ~torch.isin(input_ids, special), tokenizer.unk_token_id)


def _to_tensors(named: Dict[str, Any]) -> Dict[str, Any]:
    return {
        name: tuple(map(torch.from_numpy, output)) if isinstance(output, (list, tuple)) else torch.from_numpy(output)
        for name, output in named.items()
    }
