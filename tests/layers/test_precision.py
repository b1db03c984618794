"""Which precision is chosen where, what is refused, and what the log says."""

import logging
from typing import Any

import pytest
import torch

from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.layers import precision as precision_module
from spacy_bert_heads.layers.precision import has_bf16, resolve_precision, round_linear_layers

from ..making import encoder_module, has_gradient, make_config, make_examples, make_nlp, make_texts

CPU = torch.device("cpu")


@pytest.mark.parametrize("flags, expected", [((), "fp32"), (("avx512_bf16",), "bf16"), (("amx_tile",), "bf16")])
def test_auto_is_bf16_where_the_cpu_computes_in_it(monkeypatch: pytest.MonkeyPatch, flags: Any, expected: str) -> None:
    for flag in ("avx512_bf16", "amx_tile"):
        monkeypatch.setattr(torch.cpu, f"_is_{flag}_supported", lambda flag=flag: flag in flags, raising=False)
    assert resolve_precision("auto", CPU) == expected
    assert [resolve_precision(name, CPU) for name in ("fp32", "bf16")] == ["fp32", "bf16"]


def test_auto_is_fp32_where_torch_cannot_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    for flag in ("avx512_bf16", "amx_tile"):
        monkeypatch.delattr(torch.cpu, f"_is_{flag}_supported", raising=False)
    assert not has_bf16(CPU)
    assert resolve_precision("auto", torch.device("mps")) == "fp32"


@pytest.mark.parametrize("capability, expected", [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_auto_is_bf16_on_gpus_from_ampere_on(monkeypatch: pytest.MonkeyPatch, capability: Any, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.version, "hip", None)
    assert resolve_precision("auto", torch.device("cuda")) == expected
    assert resolve_precision("fp16", torch.device("cuda")) == "fp16"


def test_fp16_is_refused_on_a_cpu_and_in_training(bert_folder: str) -> None:
    nlp = make_nlp(encoder=make_config(bert_folder, precision="fp16"))
    for run, code in ((lambda: nlp("order"), "H234"), (lambda: nlp.update(make_examples(nlp)), "H233")):
        with pytest.raises(BertHeadsError) as error:
            run()
        assert error.value.code == code
    nlp = make_nlp(encoder=make_config(bert_folder, precision="fp16", train_precision="fp32"))
    nlp.update(make_examples(nlp), sgd=False)
    assert has_gradient(encoder_module(nlp))


def test_training_has_a_precision_of_its_own(bert_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nlp = make_nlp(encoder=make_config(bert_folder, precision="bf16", train_precision="fp32"))
    seen = []
    forward = encoder_module(nlp).transformer.forward

    def record(*args: Any, **kwargs: Any) -> Any:
        seen.append(torch.is_autocast_enabled("cpu"))
        return forward(*args, **kwargs)

    monkeypatch.setattr(encoder_module(nlp).transformer, "forward", record)
    nlp("order")
    nlp.update(make_examples(nlp), sgd=False)
    assert seen == [True, False]


def test_the_log_says_it_once(
    bert_folder: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("spacy"), "propagate", True)
    precision_module._report.cache_clear()
    nlp = make_nlp(encoder=make_config(bert_folder, precision="auto"), heads=["bert_textcat"])
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            list(nlp.pipe(make_texts(4)))
    lines = [record.getMessage() for record in caplog.records if "recision" in record.getMessage()]
    assert len(lines) == 1 and "'auto'" in lines[0] and resolve_precision("auto", CPU) in lines[0]


def test_predictions_are_what_autocast_gives_also_after_weights_have_changed(bert_folder: str) -> None:
    """Weights change by an optimizer's steps, by its averages, when they are loaded, and by hand."""
    nlp = make_nlp(encoder=make_config(bert_folder, precision="bf16"), heads=["bert_textcat"])
    shim, module = nlp.get_pipe("transformer").model.shims[0], encoder_module(nlp)
    other = make_nlp(encoder=make_config(bert_folder, precision="bf16"), heads=["bert_textcat"])
    ids = torch.randint(5, 60, (3, 7), generator=torch.Generator().manual_seed(0))

    def check() -> torch.Tensor:
        found = [shim.runner(False)(ids, torch.ones_like(ids), None)["last_hidden_state"] for _ in range(2)]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            expected = module.eval()(ids, torch.ones_like(ids))["last_hidden_state"].float()
        assert torch.equal(found[0], found[1])
        torch.testing.assert_close(found[0], expected, atol=0.05, rtol=0.05)
        return found[0]

    seen = [check()]
    for optimizer in (nlp.create_optimizer(), nlp.initialize(lambda: make_examples(nlp))):
        nlp.update(make_examples(nlp), sgd=optimizer)
        seen.append(check())
    name, weight = next((n, p) for n, p in module.named_parameters() if n.endswith("dense.weight"))
    with shim.use_params({(shim.id, name): 2 * weight.detach().numpy()}):
        seen.append(check())
    assert torch.equal(check(), seen[-2])
    with torch.no_grad():
        weight.mul_(3)
    seen.append(check())
    shim.from_bytes(other.get_pipe("transformer").model.shims[0].to_bytes())
    module = encoder_module(nlp)
    assert torch.equal(check(), seen[0])
    assert all(not torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])


def test_rounding_shares_what_it_does_not_round(bert_folder: str) -> None:
    module = encoder_module(make_nlp(bert_folder, heads=[]))
    twin = round_linear_layers(module, torch.bfloat16)
    for (name, ours), (_, theirs) in zip(module.named_parameters(), twin.named_parameters()):
        rounded = ".word_embeddings." not in name and "LayerNorm" not in name and "_embeddings." not in name
        assert theirs.dtype == (torch.bfloat16 if rounded else torch.float32), name
        assert (theirs is ours) != rounded, name
        assert ours.requires_grad and ours.dtype == torch.float32, name
