"""Gradients of batches that are too large for one graph, against those of the same rectangles with their graphs."""

from contextlib import nullcontext
from typing import Any, Dict, List

import numpy
import pytest
import torch
from spacy_transformers.data_classes import TransformerData
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.file_utils import ModelOutput

from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.models import gradient_cache as passes
from spacy_bert_heads.models.batches import WindowBatch
from spacy_bert_heads.models.windows import make_windowed_doc, tokenize

from ..making import (
    assert_close,
    assert_gradients_close,
    encoder_module,
    gradients,
    has_gradient,
    make_bert_folder,
    make_config,
    make_example,
    make_examples,
    make_nlp,
    make_texts,
    record_rectangles,
)

DROPOUT = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3}


def make_batch(nlp: Any, texts: List[str]) -> Any:
    shim = nlp.get_pipe("transformer").model.shims[0]
    pieces = tokenize(shim.tokenizer, [nlp.make_doc(text) for text in texts])
    return shim, WindowBatch([make_windowed_doc(p, shim.special, 32, 8) for p in pieces], shim.special)


def make_gradients(outputs: passes.Rows) -> passes.Rows:
    generator = torch.Generator().manual_seed(1)

    def like(value: Any) -> Any:
        return [like(v) for v in value] if isinstance(value, list) else torch.randn(value.shape, generator=generator)

    return {name: like(value) for name, value in outputs.items()}


def pairs(named: Dict[str, Any], sent: passes.Rows, rectangle: Any) -> Any:
    """Outputs of a rectangle, and their gradients window by window."""
    for name, value in sent.items():
        for output, gradient in zip(*([v] if isinstance(v, torch.Tensor) else v for v in (named[name], value))):
            if output.ndim == 2:
                yield output, gradient[rectangle.windows]
            else:
                padded = torch.zeros(output.shape)
                padded.view(-1, output.shape[2])[rectangle.cells] = gradient[rectangle.rows]
                yield output, padded


@pytest.mark.parametrize("settings", [{"transformer_config": DROPOUT}, {"word_dropout": 0.4}])
def test_rectangles_without_a_graph_give_the_gradient_of_those_with_one_under_dropout(
    bert_folder: str, settings: Dict[str, Any]
) -> None:
    nlp = make_nlp(encoder=make_config(bert_folder, hidden_states=True, **settings), heads=[])
    shim, batch = make_batch(nlp, [*make_texts(9), "order cancel " * 40])
    rectangles = batch.rectangles(96, passes.RECTANGLE_COST["cpu"])
    assert len(rectangles) > 3
    # By hand: the same rectangles in the same order from the same seed, each with its graph
    torch.manual_seed(5)
    run = shim.runner(True)
    expected = [run(torch.from_numpy(r.ids), torch.from_numpy(r.mask), None) for r in rectangles]
    after = torch.rand(3)
    torch.manual_seed(5)
    outputs, backprop = passes.run_batch(shim, batch, 96, True)
    assert torch.equal(torch.rand(3), after)
    sent = make_gradients(outputs)
    for named, rectangle in zip(expected, rectangles):
        rows = outputs["last_hidden_state"][torch.from_numpy(rectangle.rows)]
        assert_close(rows, named["last_hidden_state"].flatten(0, 1)[torch.from_numpy(rectangle.cells)], 0)
        assert_close(outputs["pooler_output"][torch.from_numpy(rectangle.windows)], named["pooler_output"], 0)
        for output, gradient in pairs(named, sent, rectangle):
            with shim.backward():
                output.backward(gradient, retain_graph=True)
    reference = gradients(shim.module)
    shim.module.zero_grad()
    state = torch.get_rng_state()
    backprop(sent)
    assert torch.equal(torch.get_rng_state(), state)
    found = gradients(shim.module)
    assert set(found) == set(reference)
    for name, gradient in reference.items():
        assert_close(found[name], gradient, 1e-5 * max(1.0, float(gradient.abs().max())))


@pytest.mark.parametrize("max_batch_items", [40, 200])
def test_small_rectangles_give_the_gradient_of_one_large_one(bert_folder: str, max_batch_items: int) -> None:
    found = {}
    for budget in (max_batch_items, 100000):
        nlp = make_nlp(bert_folder, max_batch_items=budget)
        long = make_example(nlp, "cancel order Anna " * 60, cats={"TRACK": 1.0, "CANCEL": 0.0}, entities=[])
        nlp.update([*make_examples(nlp), long, make_example(nlp, "")], sgd=False)
        found[budget] = encoder_module(nlp)
    assert_gradients_close(found[max_batch_items], found[100000])


def test_only_batches_over_the_budget_are_run_twice(bert_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nlp = make_nlp(bert_folder, max_batch_items=100)
    rectangles = record_rectangles(nlp, monkeypatch)
    nlp.update(make_examples(nlp)[:1], sgd=False)
    once = len(rectangles)
    nlp.update([make_example(nlp, "order " * 200, cats={"TRACK": 1.0, "CANCEL": 0.0})], sgd=False)
    again = rectangles[once:]
    assert once == 1 and len(again) % 2 == 0 and again[: len(again) // 2] == again[len(again) // 2 :]
    assert all(rows * columns <= 100 for rows, columns, _ in rectangles)
    rectangles.clear()
    nlp.update([make_example(nlp, "order " * 200)], sgd=False, exclude=["bert_textcat", "bert_ner"])
    nlp.get_pipe("transformer").finish_update(nlp.create_optimizer())
    assert len(rectangles) == len(again) // 2  # nobody sent a gradient


class CountedCasts(TorchDispatchMode):
    """Counts how often a parameter of this shape is cast."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.shape = shape
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._to_copy.default and args[0].shape == self.shape
        return func(*args, **(kwargs or {}))


def test_all_rectangles_of_a_batch_share_one_cast_of_the_weights(
    bert_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(passes.RECTANGLE_COST, "cpu", 0)
    nlp = make_nlp(encoder=make_config(bert_folder, train_precision="bf16"), heads=[])
    shim, batch = make_batch(nlp, make_texts(9))
    weights = [layer.intermediate.dense.weight for layer in shim.module.transformer.encoder.layer]
    n_rectangles = len(batch.rectangles(400, 0))
    assert n_rectangles > 1 and len({weight.shape for weight in weights}) == 1
    found = {}
    for shared in (True, False):
        for parameter in shim.module.parameters():
            parameter.grad = None
        if not shared:
            monkeypatch.setattr(type(shim), "casts_once", lambda self: nullcontext())
        with CountedCasts(weights[0].shape) as casts:
            outputs, backprop = passes.run_batch(shim, batch, 400, True)
        assert casts.count == len(weights) * (1 if shared else n_rectangles)
        backprop(make_gradients(outputs))
        found[shared] = {name: p.grad for name, p in shim.module.named_parameters() if p.grad is not None}
    assert found[True].keys() == found[False].keys()
    for name, gradient in found[True].items():
        # Of several rectangles they are added up in bf16, with its 8 bits
        scale = float(found[False][name].abs().max())
        assert_close(gradient, found[False][name], 0.02 * scale)


def test_graphs_in_memory_do_not_grow_with_the_text(bert_folder: str) -> None:
    """What autograd keeps for the backward pass, at its most, in a text and in one of eight times its length."""
    most = []
    for n_words in (400, 3200):
        nlp = make_nlp(bert_folder, ["bert_textcat"], max_batch_items=128)
        held = {"now": 0, "most": 0}

        class Kept:
            def __init__(self, tensor: torch.Tensor, held: Dict[str, int] = held) -> None:
                self.tensor, self.held = tensor, held
                held["now"] += tensor.numel()
                held["most"] = max(held.values())

            def __del__(self) -> None:
                self.held["now"] -= self.tensor.numel()

        with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
            nlp.update([make_example(nlp, "order " * n_words, cats={"TRACK": 1.0, "CANCEL": 0.0})], sgd=False)
        assert has_gradient(encoder_module(nlp))
        most.append(held["most"])
    assert most[1] < 1.2 * most[0]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradient_checkpointing_gives_the_same_gradient(bert_folder: str, precision: str) -> None:
    modules = []
    for checkpointing in (False, True):
        nlp = make_nlp(encoder=make_config(bert_folder, precision=precision, gradient_checkpointing=checkpointing))
        nlp.update(make_examples(nlp), sgd=False)
        modules.append(encoder_module(nlp))
        assert modules[-1].transformer.is_gradient_checkpointing == checkpointing
        loaded = make_nlp(encoder=make_config(bert_folder, gradient_checkpointing=checkpointing), initialize=False)
        loaded.from_bytes(nlp.to_bytes())
        assert encoder_module(loaded).transformer.is_gradient_checkpointing == checkpointing
    assert_gradients_close(modules[1], modules[0])


@pytest.mark.parametrize("checkpointing", [False, True])
def test_attention_weights_are_dropped_in_short_windows_alone(tmp_path: Any, checkpointing: bool) -> None:
    folder = make_bert_folder(tmp_path, max_length=128, attention_probs_dropout_prob=0.5)
    nlp = make_nlp(encoder=make_config(folder, gradient_checkpointing=checkpointing), heads=[])
    model, module = nlp.get_pipe("transformer").model, encoder_module(nlp)  # type: ignore[attr-defined]
    for text, drops in (("order " * 20, True), ("order " * 100, False)):
        doc, found = nlp.make_doc(text), []
        for _ in range(2):
            batch, backprop = model.begin_update([doc])
            data = batch.doc_data[0]
            backprop(
                [TransformerData(data.wordpieces, ModelOutput(last_hidden_state=data.tensors[0] ** 2), data.align)]
            )
            found.append((data.tensors[0], *gradients(module).values()))
            module.zero_grad()
        differences = [float(abs(torch.as_tensor(a) - torch.as_tensor(b)).max()) for a, b in zip(*found)]
        assert max(differences) > 0.01 if drops else max(differences) == 0


def test_an_encoder_that_cannot_checkpoint_says_so(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_bert_folder(tmp_path)
    nlp = make_nlp(encoder=make_config(folder), heads=[])
    monkeypatch.setattr(type(encoder_module(nlp).transformer), "supports_gradient_checkpointing", False)
    with pytest.raises(BertHeadsError) as error:
        make_nlp(encoder=make_config(folder, gradient_checkpointing=True), heads=[])
    assert (error.value.code, error.value.found) == ("H236", "bert")


@pytest.mark.parametrize("windows", ["mean", "first", "max"])
def test_pooled_vectors_of_long_docs_and_their_gradients(bert_folder: str, windows: str) -> None:
    """Against torch over the pooled vectors of all windows."""
    tok2vec = {"@architectures": "spacy_bert_heads.PooledListener.v1", "windows": windows, "grad_factor": 2.0}
    nlp = make_nlp(bert_folder, ["bert_textcat"], settings={"bert_textcat": {"model": {"tok2vec": tok2vec}}})
    listener = nlp.get_pipe("bert_textcat").model.get_ref("tok2vec")
    docs = list(
        nlp.get_pipe("transformer").pipe(map(nlp.make_doc, ["order " * 100, "", "x", " ".join(make_texts(20))]))
    )
    pooled = [torch.tensor(doc._.trf_data.model_output["pooler_output"], requires_grad=True) for doc in docs]
    combine = {"mean": lambda p: p.mean(0), "first": lambda p: p[0], "max": lambda p: p.max(0).values}[windows]
    expected = torch.stack([combine(p) for p in pooled])
    vectors = listener.predict(docs)
    assert max(len(p) for p in pooled) > 2
    assert_close(vectors, expected)
    sent: List[Any] = []
    source = listener.layers[0]
    source.receive(source.get_batch_id(docs), [doc._.trf_data for doc in docs], sent.extend)
    _, backprop = listener.begin_update(docs)
    weight = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0))
    expected.backward(weight * 2.0)
    backprop(weight.numpy())
    for data, tensor in zip(sent, pooled):
        assert_close(data.model_output["pooler_output"], tensor.grad)
        assert numpy.isfinite(data.model_output["pooler_output"]).all()


def test_gradients_of_embeddings_are_those_of_dense_ones_from_step_to_step(bert_folder: str) -> None:
    """The matrix for them serves every step: nothing of one may be left in the next, and updates may add up in it."""
    nlp = make_nlp(bert_folder, heads=["bert_textcat"])
    module, examples = encoder_module(nlp), make_examples(nlp)
    shim = nlp.get_pipe("transformer").model.shims[0]  # type: ignore[attr-defined]
    seen = []
    module.transformer.get_input_embeddings().register_forward_hook(lambda layer, *_: seen.append(layer.sparse))

    def collect(batches: Any) -> Any:
        for batch in batches:
            nlp.update(batch, sgd=False, drop=0.0)
            nlp.get_pipe("transformer")._finish_pending()  # type: ignore[attr-defined]
        found = gradients(module)
        module.zero_grad()
        return found

    parts = [[examples[:1]], [examples[1:2]], [examples[:2], examples[2:]], [examples[2:]], [examples]]
    found = [collect(part) for part in parts]
    assert len(seen) == 6 and all(seen) and not module.transformer.get_input_embeddings().sparse
    shim._embeddings = None
    for ours, part in zip(found, parts):
        theirs = collect(part)
        assert not seen[-1]
        assert set(ours) == set(theirs)
        for name, gradient in theirs.items():
            assert not ours[name].is_sparse
            assert_close(ours[name], gradient, 1e-6 * max(1.0, float(gradient.abs().max())))
    rows = [
        set(one["transformer.embeddings.word_embeddings.weight"].abs().sum(1).nonzero().flatten().tolist())
        for one in found
    ]
    assert rows[0] - rows[1] and rows[0] - rows[3] and rows[4] == rows[0] | rows[1] | rows[3]
