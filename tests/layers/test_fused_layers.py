"""Fused layers against Hugging Face's own, and which layers they replace."""

import copy
import pickle
from pathlib import Path
from typing import Any, Optional

import pytest
import torch
from transformers import AutoConfig, AutoModel

from spacy_bert_heads.layers import fused_layers
from spacy_bert_heads.layers.encoder_module import EncoderModule, use_eager
from spacy_bert_heads.layers.fused_layers import ROW_STEPS, FusedLayer, has_fused_products, prediction_twin
from spacy_bert_heads.layers.length_groups import filled_up
from spacy_bert_heads.layers.precision import has_bf16

from ..making import SIZES, encoder_module, make_config, make_nlp

needs_fused = pytest.mark.skipif(not has_fused_products(torch.float32), reason="torch has no fused products here")
needs_bf16 = pytest.mark.skipif(not has_bf16(torch.device("cpu")), reason="the CPU does not compute in bf16")


def make_module(model_type: str = "bert", **config: Any) -> EncoderModule:
    torch.manual_seed(0)
    settings = {**SIZES.get(model_type, SIZES["bert"]), "vocab_size": 100, "max_position_embeddings": 60, **config}
    module = EncoderModule(AutoModel.from_config(AutoConfig.for_model(model_type, **settings))).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)  # biases and LayerNorms are 0 and 1 otherwise
    return module


def make_inputs(*lengths: int) -> Any:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 100, (len(lengths), max(lengths)), generator=generator)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    # RoBERTa counts positions by what is not padding, which is number 1
    return ids.masked_fill(mask == 0, 1), mask


def n_fused(module: torch.nn.Module) -> int:
    return sum(isinstance(layer, FusedLayer) for layer in module.modules())


def predict(module: torch.nn.Module, ids: Any, mask: Any, dtype: Optional[torch.dtype] = None, **more: Any) -> Any:
    with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype is not None):
        return module(ids, mask, **more)


@needs_fused
@pytest.mark.parametrize("lengths", [(1,), (2, 3), (5, 9, 4), (17,) * 20, (50, 1)])
@pytest.mark.parametrize(
    "model_type, config",
    [
        ("bert", {}),
        ("roberta", {}),
        ("xlm-roberta", {}),
        ("bert", {"hidden_act": "relu"}),
        ("bert", {"hidden_act": "gelu_new"}),
        ("bert", {"layer_norm_eps": 0.1, "num_attention_heads": 4}),
    ],
)
def test_fused_layers_compute_what_hugging_faces_do(model_type: str, config: Any, lengths: Any) -> None:
    module, (ids, mask) = make_module(model_type, **config), make_inputs(*lengths)
    twin = prediction_twin(module, None)
    assert n_fused(twin) == 2 and n_fused(module) == 0
    types = None if model_type != "bert" else (ids > 50).long()
    expected = predict(module, ids, mask, hidden_states=True, token_types=types)
    found = predict(twin, ids, mask, hidden_states=True, token_types=types)
    torch.testing.assert_close(found["pooler_output"], expected["pooler_output"], atol=1e-5, rtol=1e-4)
    assert len(found["hidden_states"]) == 3
    for ours, theirs in zip(
        (found["last_hidden_state"], *found["hidden_states"]),
        (expected["last_hidden_state"], *expected["hidden_states"]),
    ):
        torch.testing.assert_close(ours[mask == 1], theirs[mask == 1], atol=1e-5, rtol=1e-4)


@needs_fused
@needs_bf16
def test_in_bf16_they_are_as_far_from_the_truth_as_autocast() -> None:
    sizes = {"hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 256, "num_hidden_layers": 4}
    module, (ids, mask) = make_module(**sizes), make_inputs(50, 40, 30, 20)
    twin = prediction_twin(module, torch.bfloat16)
    assert n_fused(twin) == 4
    truth = predict(module, ids, mask)["last_hidden_state"][mask == 1]
    errors = [
        (predict(model, ids, mask, torch.bfloat16)["last_hidden_state"][mask == 1] - truth).square().mean().sqrt()
        for model in (module, twin)
    ]
    assert 0 < errors[1] < 1.2 * errors[0]


@pytest.mark.parametrize(
    "model_type, config",
    [
        ("electra", {}),
        ("albert", {}),
        ("bert", {"position_embedding_type": "relative_key"}),
        ("bert", {"chunk_size_feed_forward": 4}),
    ],
)
def test_layers_of_another_form_stay_as_they_are(model_type: str, config: Any) -> None:
    module = make_module(model_type, **config)
    assert prediction_twin(module, None) is module


def test_layers_that_are_to_give_their_attention_stay_as_they_are() -> None:
    module = make_module()
    use_eager(module)
    assert prediction_twin(module, None) is module


def test_layers_that_somebody_has_changed_stay_as_they_are() -> None:
    """A hook is called, and what adapters such as LoRA put in the place of a linear layer is used."""

    class Adapted(torch.nn.Linear):
        def forward(self, X: torch.Tensor) -> torch.Tensor:
            return super().forward(X) + 1.0

    module, (ids, mask) = make_module(), make_inputs(5)
    seen = []
    module.transformer.encoder.layer[0].output.dense.register_forward_hook(lambda *_: seen.append(1))
    part = module.transformer.encoder.layer[1].attention.self
    adapted = Adapted(16, 16)
    adapted.load_state_dict(part.value.state_dict())
    part.value = adapted
    expected = predict(module, ids, mask)["pooler_output"]
    assert torch.equal(predict(prediction_twin(module, None), ids, mask)["pooler_output"], expected)
    assert len(seen) == 2


@needs_fused
def test_fused_layers_may_have_fewer_heads() -> None:
    module, (ids, mask) = make_module(num_attention_heads=4), make_inputs(7, 3)
    module.transformer._prune_heads({0: [1], 1: [0, 3]})
    twin = prediction_twin(module, None)
    assert n_fused(twin) == 2
    found, expected = (predict(one, ids, mask)["last_hidden_state"][mask == 1] for one in (twin, module))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_without_onednn_nothing_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    module = make_module()
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    has_fused_products.cache_clear()
    try:
        assert prediction_twin(module, None) is module
        assert n_fused(prediction_twin(module, torch.bfloat16)) == 0
    finally:
        has_fused_products.cache_clear()


def test_without_the_products_nothing_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.ops are not public: a later torch may have them no more, or others."""

    def raise_error(*_: Any) -> None:
        raise AttributeError

    module = make_module()
    has_fused_products.cache_clear()
    monkeypatch.setattr(fused_layers, "FusedLinear", raise_error)
    try:
        assert prediction_twin(module, None) is module
    finally:
        has_fused_products.cache_clear()


def test_rows_are_filled_up_to_few_numbers() -> None:
    found = [filled_up(n, ROW_STEPS) for n in range(1, 4097)]
    assert all(n <= filled <= max(n + 15, 1.25 * n) for n, filled in enumerate(found, 1))
    assert len(set(found)) < 60 and found == sorted(found)


@needs_fused
def test_every_weight_of_the_twin_follows_the_modules(bert_folder: str) -> None:
    nlp = make_nlp(encoder=make_config(bert_folder, precision="fp32"), heads=["bert_textcat"])
    shim, module = nlp.get_pipe("transformer").model.shims[0], encoder_module(nlp)
    ids, mask = make_inputs(9, 4)

    def found() -> Any:
        return shim.runner(False)(ids, mask, None)["last_hidden_state"][mask == 1]

    before = found()
    for name, parameter in module.transformer.encoder.named_parameters():
        with torch.no_grad():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
        after = found()
        expected = predict(module.eval(), ids, mask)["last_hidden_state"][mask == 1]
        torch.testing.assert_close(after, expected, atol=1e-5, rtol=1e-4)
        # A key's bias moves all scores of a row alike
        assert name.endswith("key.bias") or not torch.allclose(before, after, atol=1e-6), name
        before = after


def test_a_pipeline_that_has_predicted_can_be_copied_pickled_and_saved(bert_folder: str, tmp_path: Path) -> None:
    nlp = make_nlp(encoder=make_config(bert_folder), heads=["bert_textcat"])
    expected = nlp("cancel my order").cats
    shim = nlp.get_pipe("transformer").model.shims[0]
    ids, mask = make_inputs(9, 4)
    outputs = [
        one.runner(False)(ids, mask, None)["pooler_output"]
        for one in (shim, copy.deepcopy(shim), shim.copy(), pickle.loads(pickle.dumps(shim)))
    ]
    assert all(torch.equal(outputs[0], output) for output in outputs[1:])
    nlp.to_disk(tmp_path / "pipeline")
    assert nlp("cancel my order").cats == expected
