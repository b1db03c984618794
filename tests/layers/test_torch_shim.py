"""Torch modules inside thinc: stepped in place, under ids of their own."""

import os
from pathlib import Path
from typing import Optional

import numpy
import pytest
import torch
from thinc.api import Adam

from spacy_bert_heads.layers.torch_shim import KEPT_KERNELS, TorchShim, prepare_process, write_weights


def make_shim(lr_scale: float = 1.0) -> TorchShim:
    torch.manual_seed(0)
    shim = TorchShim(torch.nn.Linear, lr_scale)
    shim.build(in_features=3, out_features=2)
    return shim


def set_gradients(shim: TorchShim) -> None:
    for parameter in shim.module.parameters():
        parameter.grad = torch.ones_like(parameter)


def test_steps_leave_weights_where_they_are_in_memory() -> None:
    # Written back each time, the arrays of all steps stay alive: the size of the model for each step
    shim, optimizer = make_shim(), Adam(0.1)
    before = {name: (p.data_ptr(), p.detach().clone()) for name, p in shim.module.named_parameters()}
    for _ in range(3):
        set_gradients(shim)
        shim.finish_update(optimizer)
    for name, parameter in shim.module.named_parameters():
        pointer, weights = before[name]
        assert parameter.data_ptr() == pointer
        assert not torch.equal(parameter, weights)
        assert parameter.grad is None


def test_weights_of_an_optimizer_that_makes_new_arrays_arrive() -> None:
    shim = make_shim()
    set_gradients(shim)
    shim.finish_update(lambda key, weights, gradient: (weights * 0 + 7, gradient))  # type: ignore[arg-type, return-value]
    assert all(bool((parameter == 7).all()) for parameter in shim.module.parameters())


@pytest.mark.parametrize("lr_scale", [1.0, 20.0])
def test_the_learning_rate_is_scaled(lr_scale: float) -> None:
    shim = make_shim(lr_scale)
    before = shim.module.bias.detach().numpy().copy()
    set_gradients(shim)
    shim.finish_update(Adam(0.001, L2=0.0))
    # Adam's first step has the size of the learning rate
    numpy.testing.assert_allclose(before - shim.module.bias.detach().numpy(), 0.001 * lr_scale, rtol=1e-3)


def test_a_copy_has_an_id_and_weights_of_its_own() -> None:
    shim = make_shim()
    copied = shim.copy()
    assert copied.id != shim.id
    copied.module.bias.data += 1
    assert not torch.equal(copied.module.bias, shim.module.bias)


@pytest.mark.parametrize("name", ["nowhere/weights", "."])
def test_weights_that_cannot_be_written_are_an_error_of_the_system(tmp_path: Path, name: str) -> None:
    with pytest.raises(OSError):
        write_weights(torch.nn.Linear(3, 2), tmp_path / name)


@pytest.mark.parametrize("given, kept", [(None, KEPT_KERNELS), ("7", "7")])
def test_few_kernels_are_kept_unless_the_user_says_how_many(
    monkeypatch: pytest.MonkeyPatch, given: Optional[str], kept: str
) -> None:
    variable = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
    monkeypatch.setenv(variable, "before")  # so that what was there comes back
    monkeypatch.delenv(variable)
    if given is not None:
        monkeypatch.setenv(variable, given)
    prepare_process.__wrapped__()
    assert os.environ[variable] == kept
