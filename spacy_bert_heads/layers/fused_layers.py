"""BERT's layers for prediction on a CPU: fewer kernels, and weights laid out once the way those kernels read them.

torch computes a layer in some thirty kernels, and its float32 products come from MKL, which on AMD takes no more than
AVX2. Here a layer is four products of oneDNN, which take bias and GELU along, attention, and two LayerNorms.
"""

from functools import lru_cache
from typing import Any, Optional, Tuple

import torch
from torch import Tensor
from torch.nn import functional
from transformers.activations import GELUActivation

from .attention import attend
from .length_groups import filled_up
from .precision import copy_modules, round_linear_layers

LAYERS: Tuple[type, ...] = ()
ATTENTIONS: Tuple[type, ...] = ()
try:
    from transformers.models.bert.modeling_bert import BertLayer, BertSdpaSelfAttention
    from transformers.models.roberta.modeling_roberta import RobertaLayer, RobertaSdpaSelfAttention
    from transformers.models.xlm_roberta.modeling_xlm_roberta import XLMRobertaLayer, XLMRobertaSdpaSelfAttention
except ImportError:  # layers of transformers 5 are called in another way: they stay as they are
    pass
else:
    LAYERS = (BertLayer, RobertaLayer, XLMRobertaLayer)
    ATTENTIONS = (BertSdpaSelfAttention, RobertaSdpaSelfAttention, XLMRobertaSdpaSelfAttention)
# (up to so many rows, they are filled up to a multiple of): oneDNN compiles a kernel for each number of rows, and
# keeps it, see prepare_process. Few rows are those of a single text, of which each one counts
ROW_STEPS = ((32, 4), (256, 16), (2048, 64), (1 << 62, 256))


def prediction_twin(module: torch.nn.Module, dtype: Optional[torch.dtype]) -> torch.nn.Module:
    """A twin of an encoder that predicts the same, faster.

    module (torch.nn.Module): The encoder, on a CPU or GPU. It is not changed, and shares with its twin all weights but
        those of linear layers in another type and those of fused layers.
    dtype (Optional[torch.dtype]): The type that autocast will compute in. None: no autocast.
    RETURNS (torch.nn.Module): To be run under that autocast, without a graph. The module itself if nothing is to gain.
    """
    on_cpu = all(parameter.device.type == "cpu" for parameter in module.parameters())
    fused_type = dtype or torch.float32
    fuses = on_cpu and has_fused_products(fused_type) and any(map(is_plain_layer, module.modules()))
    if dtype is None and not fuses:
        return module
    twin = copy_modules(module) if dtype is None else round_linear_layers(module, dtype)
    if fuses:
        for parent in list(twin.modules()):
            for name, layer in list(parent.named_children()):
                if is_plain_layer(layer):
                    setattr(parent, name, FusedLayer(layer, fused_type))
    return twin


def is_plain_layer(module: torch.nn.Module) -> bool:
    """RETURNS (bool): Whether it is a layer of BERT, RoBERTa or XLM-R as they were published, that attends to its own
    input alone, and in which nobody has put anything, such as hooks or LoRA.
    """
    if not isinstance(module, LAYERS):
        return False
    layer: Any = module
    attention = layer.attention.self
    linear = (attention.query, attention.key, attention.value, layer.attention.output.dense)
    return (
        type(attention) in ATTENTIONS
        and attention.position_embedding_type == "absolute"
        and not layer.is_decoder
        and not layer.add_cross_attention
        and not layer.chunk_size_feed_forward
        and all(type(part) is torch.nn.Linear for part in (*linear, layer.intermediate.dense, layer.output.dense))
        and not any(part._forward_hooks or part._forward_pre_hooks for part in layer.modules())
    )


@lru_cache(maxsize=None)
def has_fused_products(dtype: torch.dtype) -> bool:
    """Whether torch has oneDNN's products for this type and CPU, as torch.compile uses them, and they are right.

    RETURNS (bool): False for builds of torch without oneDNN, and for bf16 on CPUs that do not compute in it.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    inputs, weight = (torch.randn(16, 16, generator=generator).to(dtype) for _ in range(2))
    try:
        found = FusedLinear(weight, None)(inputs)
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    return torch.allclose(found.float(), functional.linear(inputs, weight).float(), rtol=0.05, atol=0.05)


class FusedLinear:
    """One linear layer, and what follows it.

    weight (Tensor): Float, (n_out, n_in). Copied, into oneDNN's own layout.
    bias (Optional[Tensor]): Of the same type. Float, (n_out,).
    """

    def __init__(self, weight: Tensor, bias: Optional[Tensor]) -> None:
        with torch.no_grad():
            self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous())
        self.bias = bias

    def __call__(self, rows: Tensor, after: str = "none") -> Tensor:
        """rows (Tensor): Float, (n_rows, n_in). after (str): "none" or "gelu". RETURNS (Tensor): (n_rows, n_out)."""
        approximation = "none" if after == "gelu" else ""
        product = torch.ops.mkldnn._linear_pointwise.default
        found: Tensor = product(rows, self.weight, self.bias, after, [], approximation)
        return found


class FusedLayer(torch.nn.Module):
    """A layer of BERT in the place of Hugging Face's, for prediction.

    layer (torch.nn.Module): One that is_plain_layer. The weights of its linear layers are copied.
    dtype (torch.dtype): What products are computed in, float32 or bfloat16. All else is in float32, but see attend.
    """

    def __init__(self, layer: Any, dtype: torch.dtype) -> None:
        super().__init__()
        attention, between = layer.attention, layer.intermediate
        query, key, value = attention.self.query, attention.self.key, attention.self.value
        self.dtype = dtype
        self.n_heads: int = attention.self.num_attention_heads
        scale = attention.self.attention_head_size**-0.5
        self.project = FusedLinear(
            torch.cat([scale * query.weight, key.weight, value.weight]).to(dtype),
            torch.cat([scale * query.bias, key.bias, value.bias]).detach().to(dtype),
        )
        self.attended = _fused(attention.output.dense, dtype)
        self.attended_norm = attention.output.LayerNorm
        self.widen = _fused(between.dense, dtype)
        # Another activation than GELU comes after the product
        self.activation = (
            None if isinstance(between.intermediate_act_fn, GELUActivation) else between.intermediate_act_fn
        )
        self.narrow = _fused(layer.output.dense, dtype)
        self.norm = layer.output.LayerNorm

    def forward(
        self, hidden_states: Tensor, attention_mask: Optional[Tensor] = None, *_: Any, **__: Any
    ) -> Tuple[Tensor]:
        """As Hugging Face's encoders call their layers, with what only decoders need left aside.

        hidden_states (Tensor): Float, (n_windows, n_pieces, width).
        attention_mask (Optional[Tensor]): What is added to the scores of the wordpieces attended to, the same for all
            that attend. Float, (n_windows, 1, n_pieces, n_pieces). None: nothing.
        RETURNS (Tuple[Tensor]): Float32, (n_windows, n_pieces, width).
        """
        n_windows, n_pieces, width = hidden_states.shape
        n_rows = n_windows * n_pieces
        with torch.autocast("cpu", enabled=False):
            residual = _empty_rows(hidden_states, n_rows, width, torch.float32)
            residual[:n_rows] = hidden_states.reshape(n_rows, width)
            split = self.project(residual.to(self.dtype))[:n_rows]
            query, key, value = split.view(n_windows, n_pieces, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
            mask = None if attention_mask is None else attention_mask[:, :, :1].float()
            context = _empty_rows(residual, n_rows, split.shape[1] // 3, self.dtype)
            of_heads = context[:n_rows].view(n_windows, n_pieces, self.n_heads, -1)
            of_heads.copy_(attend(query, key, value, mask).transpose(1, 2))
            residual = self.attended_norm(residual.add_(self.attended(context)))
            rows = residual.to(self.dtype)
            wide = self.widen(rows, "gelu") if self.activation is None else self.activation(self.widen(rows))
            residual = self.norm(residual.add_(self.narrow(wide)))
        return (residual[:n_rows].view(n_windows, n_pieces, width),)


def _fused(linear: torch.nn.Linear, dtype: torch.dtype) -> FusedLinear:
    return FusedLinear(linear.weight.to(dtype), linear.bias.detach().to(dtype))


def _empty_rows(like: Tensor, n_rows: int, width: int, dtype: torch.dtype) -> Tensor:
    """RETURNS (Tensor): Rows to be written, and after them those that fill them up, which are zeros: numbers that
    happen to be there may be ones that slow products down."""
    rows = like.new_empty((filled_up(n_rows, ROW_STEPS), width), dtype=dtype)
    rows[n_rows:] = 0.0
    return rows
