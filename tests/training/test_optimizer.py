"""AdamW.v1 against torch's AdamW, clip_grad_norm_ and transformers' schedules in a plain loop."""

import pickle
import re
from copy import deepcopy
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import pytest
import spacy
import torch
from spacy.language import Language
from spacy.training import Example
from spacy.util import registry
from thinc.api import Adam, Optimizer
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.layers.torch_shim import TorchShim
from spacy_bert_heads.training.optimizer import AdamW, build_adamw_v1

from ..making import crf_module, encoder_module, head_module, make_bert_folder, make_config, make_examples, make_nlp
from ..pipeline.test_text_heads import architecture, embedding, examples_of, make_alone

RATE, STEPS = 2e-3, 6
# Large, so that a gradient which is 0 but for rounding, as that of attention's key.bias, moves nothing
EPS = 1e-4
NO_DECAY = re.compile(r"bias|LayerNorm|start_transitions|end_transitions")


def make_optimizer(**settings: Any) -> AdamW:
    values = {"learn_rate": RATE, "total_steps": STEPS, "warmup": 0.3, "eps": EPS, **settings}
    optimizer = build_adamw_v1(**values)
    assert isinstance(optimizer, AdamW)
    return optimizer


def modules(nlp: Language) -> Dict[str, torch.nn.Module]:
    found = {"encoder": encoder_module(nlp), "textcat": head_module(nlp, "bert_textcat")}
    return {**found, "tagger": head_module(nlp, "bert_ner"), "crf": crf_module(nlp)}


def parameters(nlp: Language) -> Dict[str, torch.nn.Parameter]:
    return {
        f"{part}.{name}": parameter
        for part, module in modules(nlp).items()
        for name, parameter in module.named_parameters()
    }


def values(nlp: Language) -> Dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in parameters(nlp).items()}


def batches(nlp: Language) -> List[List[Example]]:
    examples = make_examples(nlp)
    return [[examples[i % 3], examples[(i + 1) % 3]] for i in range(STEPS)]


def as_spacy_train(nlp: Language, batch: List[Example], optimizer: Optimizer, parts: int = 1) -> None:
    for i in range(parts):
        nlp.update(batch[i::parts], sgd=False)
    for _, component in nlp.pipeline:
        component.finish_update(optimizer)  # type: ignore[attr-defined]
    optimizer.step_schedules()


def as_nlp_update(nlp: Language, batch: List[Example], optimizer: Optimizer) -> None:
    nlp.update(batch, sgd=optimizer)


def train_with_torch(
    nlp: Language,
    rate_of: Callable[[str], float],
    *,
    weight_decay: float = 0.01,
    schedule: Callable[..., Any] = get_linear_schedule_with_warmup,
    frozen: Tuple[str, ...] = (),
) -> None:
    """A plain loop: gradients from our pipeline, which other tests compare with Hugging Face's, all else torch's."""
    named = {name: p for name, p in parameters(nlp).items() if not any(part in name for part in frozen)}
    groups = [
        {"params": [p], "lr": rate_of(name), "weight_decay": 0.0 if NO_DECAY.search(name) else weight_decay}
        for name, p in named.items()
    ]
    adamw = torch.optim.AdamW(groups, eps=EPS)
    scheduler = schedule(adamw, num_warmup_steps=2, num_training_steps=STEPS)
    for batch in batches(nlp):
        nlp.update(batch, sgd=False)
        # `update` leaves the encoder's gradients with its component until it is asked to finish
        nlp.get_pipe("transformer")._finish_pending()  # type: ignore[attr-defined]
        torch.nn.utils.clip_grad_norm_(named.values(), 1.0)
        adamw.step()
        scheduler.step()
        for p in parameters(nlp).values():
            p.grad = None


def assert_same(ours: Language, theirs: Language) -> None:
    expected = values(theirs)
    for name, value in values(ours).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}")


def head_or_encoder(name: str) -> float:
    return RATE if name.startswith("encoder.") else RATE * 20


@pytest.mark.parametrize("update", [as_spacy_train, as_nlp_update])
@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_weights_are_those_of_a_plain_torch_loop(bert_folder: str, update: Callable, decay: str) -> None:
    ours, theirs = make_nlp(bert_folder), make_nlp(bert_folder)
    before = values(ours)
    optimizer = make_optimizer(decay=decay)
    for batch in batches(ours):
        update(ours, batch, optimizer)
    optimizer.step_pending()
    schedule = {"linear": get_linear_schedule_with_warmup, "cosine": get_cosine_schedule_with_warmup}[decay]
    train_with_torch(theirs, head_or_encoder, schedule=schedule)
    assert_same(ours, theirs)
    assert optimizer.step == STEPS
    moved = {name for name, value in values(ours).items() if float((before[name] - value).abs().max()) > 1e-4}
    assert {name for name in before if "key.bias" not in name} <= moved


def test_each_part_has_its_rate(bert_folder: str) -> None:
    ours, theirs = make_nlp(bert_folder), make_nlp(bert_folder)
    optimizer = make_optimizer(head_rate=0.03, crf_rate=0.05, layer_decay=0.5, weight_decay=0.3)
    for batch in batches(ours):
        as_spacy_train(ours, batch, optimizer)

    def rate_of(name: str) -> float:
        if not name.startswith("encoder."):
            return 0.05 if name.startswith("crf.") else 0.03
        # Two layers: the upper one, and the pooler, at the full rate
        return RATE * (0.25 if "embeddings" in name else 0.5 if "layer.0" in name else 1.0)

    train_with_torch(theirs, rate_of, weight_decay=0.3)
    assert_same(ours, theirs)


@pytest.mark.parametrize("update", [as_spacy_train, as_nlp_update])
def test_frozen_parts_stay_and_count_for_nothing(bert_folder: str, update: Callable) -> None:
    ours, theirs = make_nlp(bert_folder), make_nlp(bert_folder)
    before = values(ours)
    optimizer = make_optimizer(freeze_embeddings=True, freeze_layers=1)
    for batch in batches(ours):
        update(ours, batch, optimizer)
    optimizer.step_pending()
    train_with_torch(theirs, head_or_encoder, frozen=("embeddings", "layer.0"))
    assert_same(ours, theirs)
    for name, value in values(ours).items():
        assert torch.equal(value, before[name]) == ("embeddings" in name or "layer.0" in name)
    # Torch is spared their gradients from the second step on; another optimizer asks for them again
    frozen = {name for name, p in encoder_module(ours).named_parameters() if not p.requires_grad}
    assert frozen == {n for n, _ in encoder_module(ours).named_parameters() if "embeddings" in n or "layer.0" in n}
    other = make_optimizer()
    for batch in batches(ours)[:2]:
        as_spacy_train(ours, batch, other)
    assert all(p.requires_grad for p in encoder_module(ours).parameters())


def test_layers_are_found_in_any_encoder(tmp_path: Any) -> None:
    for model_type in ("roberta", "electra", "albert", "distilbert"):
        folder = make_bert_folder(tmp_path / model_type, model_type)
        nlp = make_nlp(folder, ["bert_textcat"])
        before = values_of(encoder_module(nlp))
        optimizer = make_optimizer(freeze_embeddings=True, freeze_layers=1, warmup=0.0, eps=1e-8)
        for batch in batches(nlp)[:3]:
            as_spacy_train(nlp, batch, optimizer)
        after = values_of(encoder_module(nlp))
        same = {name for name in after if torch.equal(before[name], after[name])}
        embeddings = {name for name in after if "embed" in name}
        # All of ALBERT's layers are one
        first = {name for name in after if "layer.0." in name or "albert_layers" in name}
        assert embeddings and first and same == embeddings | first, model_type


def values_of(module: torch.nn.Module) -> Dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def test_a_batch_in_parts_gives_the_step_of_the_batch_in_one(bert_folder: str) -> None:
    whole, parts = make_nlp(bert_folder), make_nlp(bert_folder)
    # A norm far from the limit would hide that sums are twice the mean
    one, other = make_optimizer(grad_clip=100.0, eps=1e-2), make_optimizer(grad_clip=100.0, eps=1e-2)
    for batch, same in zip(batches(whole), batches(parts)):
        as_spacy_train(whole, batch, one)
        as_spacy_train(parts, same, other, 2)
    assert_same(whole, parts)


def shims(nlp: Language) -> List[TorchShim]:
    found = [shim for _, component in nlp.pipeline for node in component.model.walk() for shim in node.shims]  # type: ignore
    assert len(found) == 4
    return found


def updated_and_stepped(folder: str, heads: Tuple[str, ...] = ("bert_textcat", "bert_ner")) -> Tuple[Language, ...]:
    """A pipeline after an update, whose step is still due; and the same one after the step."""
    pair = make_nlp(folder, heads), make_nlp(folder, heads)
    optimizers = [make_optimizer(warmup=0.0) for _ in pair]
    for nlp, optimizer in zip(pair, optimizers):
        nlp.update(make_examples(nlp), sgd=optimizer)
    before = values(pair[0]) if len(heads) == 2 else {}
    optimizers[1].step_pending()
    assert [optimizer.step for optimizer in optimizers] == [0, 1]
    assert all(not torch.equal(value, before[name]) for name, value in values(pair[1]).items() if before)
    return pair


def test_reading_attributes_leaves_weights_alone(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder)
    optimizer = make_optimizer(warmup=0.0)
    before = values(nlp)
    nlp.update(make_examples(nlp), sgd=optimizer)
    for _ in range(2):
        for shim in shims(nlp):
            assert shim.module is shim._model
            assert shim.device and shim.pending_in is optimizer
        assert all(torch.equal(value, before[name]) for name, value in values(nlp).items())
    assert optimizer.step == 0
    optimizer.step_pending()
    assert optimizer.step == 1 and all(shim.pending_in is None for shim in shims(nlp))
    assert all(not torch.equal(value, before[name]) for name, value in values(nlp).items())
    optimizer.step_pending()
    assert optimizer.step == 1


def test_a_prediction_steps_first(bert_folder: str) -> None:
    pending, stepped = updated_and_stepped(bert_folder)
    before = make_nlp(bert_folder)("cancel my order").cats
    assert pending("cancel my order").cats == stepped("cancel my order").cats != before
    assert_same(pending, stepped)


@pytest.mark.parametrize("save", [Language.to_bytes, Language.to_disk])
def test_a_saved_pipeline_has_stepped(bert_folder: str, tmp_path: Path, save: Callable) -> None:
    pending, stepped = updated_and_stepped(bert_folder)
    if save is Language.to_bytes:
        loaded = [spacy.blank("en").from_config(nlp.config).from_bytes(nlp.to_bytes()) for nlp in (pending, stepped)]
    else:
        for name, nlp in (("pending", pending), ("stepped", stepped)):
            nlp.to_disk(tmp_path / name)
        loaded = [spacy.load(tmp_path / name) for name in ("pending", "stepped")]
    expected = values(loaded[1])
    assert all(torch.equal(value, expected[name]) for name, value in values(loaded[0]).items())


def test_copies_and_averages_have_stepped(bert_folder: str) -> None:
    pending, stepped = updated_and_stepped(bert_folder)
    for copy, expected in zip(*([shim.copy() for shim in shims(nlp)] for nlp in (pending, stepped))):
        assert copy.pending_in is None
        for one, other in zip(copy.module.parameters(), expected.module.parameters()):
            assert torch.equal(one, other)
    pending, stepped = updated_and_stepped(bert_folder)
    with pending.use_params({(0, "of no parameter"): 0.0}):
        assert_same(pending, stepped)


def test_an_encoder_that_waits_for_a_disabled_head_learns_before_it_is_used(bert_folder: str) -> None:
    before = values_of(encoder_module(make_nlp(bert_folder)))
    for use in (lambda nlp: nlp("cancel my order"), lambda nlp: nlp.to_bytes()):
        nlp, optimizer = make_nlp(bert_folder), make_optimizer(warmup=0.0)
        nlp.update(make_examples(nlp), sgd=optimizer, exclude=["bert_ner"])
        other, theirs = make_nlp(bert_folder), make_optimizer(warmup=0.0)
        other.update(make_examples(other), sgd=False, exclude=["bert_ner"])
        for name in ("transformer", "bert_textcat"):
            other.get_pipe(name).finish_update(theirs)  # type: ignore[attr-defined]
        theirs.step_schedules()
        use(nlp)
        assert optimizer.step == 1
        assert_same(nlp, other)
        assert any(not torch.equal(value, before[n]) for n, value in values_of(encoder_module(nlp)).items())


def test_a_step_counts_once_where_a_head_takes_no_part(bert_folder: str) -> None:
    ours, theirs = make_nlp(bert_folder), make_nlp(bert_folder)
    optimizer, reference = make_optimizer(), make_optimizer()
    for batch, same in zip(batches(ours), batches(theirs)):
        ours.update(batch, sgd=optimizer, exclude=["bert_ner"])
        optimizer.step_pending()
        theirs.update(same, sgd=False, exclude=["bert_ner"])
        for name in ("transformer", "bert_textcat"):
            theirs.get_pipe(name).finish_update(reference)  # type: ignore[attr-defined]
        reference.step_schedules()
    assert optimizer.step == reference.step == STEPS
    assert_same(ours, theirs)


@pytest.mark.parametrize("duplicate", [deepcopy, lambda nlp: pickle.loads(ForkingPickler.dumps(nlp))])
def test_pickled_and_deeply_copied_pipelines_have_stepped(bert_folder: str, duplicate: Callable) -> None:
    for excluded in ([], ["bert_ner"]):
        nlp, optimizer = make_nlp(bert_folder), make_optimizer(warmup=0.0)
        before = values(nlp)
        nlp.update(make_examples(nlp), sgd=optimizer, exclude=excluded)
        other = duplicate(nlp)
        assert optimizer.step == 1
        assert all(shim.pending_in is None for shim in shims(other))
        assert any(not torch.equal(value, before[name]) for name, value in values(nlp).items())
        other("cancel my order")
        assert_same(other, nlp)


def test_spacys_own_heads_learn_too(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder, ["tagger", "textcat", "bert_ner"])
    optimizer = make_optimizer(head_rate=0.02, total_steps=60)
    losses: List[Dict[str, float]] = []
    for _ in range(40):
        losses.append(nlp.update(make_examples(nlp), sgd=optimizer))
    for name in ("tagger", "textcat", "bert_ner"):
        assert losses[-1][name] < 0.5 * losses[0][name]


@pytest.mark.parametrize("update", [as_spacy_train, as_nlp_update])
def test_state_goes_on_where_it_was(bert_folder: str, update: Callable) -> None:
    unbroken, broken = (make_nlp(bert_folder, ["bert_textcat", "bert_ner", "tagger"]) for _ in range(2))
    optimizer = make_optimizer(use_averages=True)
    for batch in batches(unbroken):
        update(unbroken, batch, optimizer)
    first = make_optimizer(use_averages=True)
    for batch in batches(broken)[:3]:
        update(broken, batch, first)
    state = first.state_dict()
    second = make_optimizer(use_averages=True)
    second.load_state_dict(state)
    for batch in batches(broken)[3:]:
        update(broken, batch, second)
    optimizer.step_pending(), second.step_pending()
    for name, value in values(unbroken).items():
        assert torch.equal(value, values(broken)[name])
    assert unbroken.get_pipe("tagger").model.to_bytes() == broken.get_pipe("tagger").model.to_bytes()  # type: ignore
    averages = [list(o.state_dict()["averages"].values()) for o in (optimizer, second)]
    assert averages[0] and all(torch.equal(a, b) and n == m == STEPS for (a, n), (b, m) in zip(*averages))


def test_a_reloaded_module_inherits_the_state_of_the_one_it_replaces(bert_folder: str) -> None:
    one, other = make_nlp(bert_folder), make_nlp(bert_folder)
    optimizers = make_optimizer(), make_optimizer()
    for step in range(4):
        for nlp, optimizer in zip((one, other), optimizers):
            as_spacy_train(nlp, batches(nlp)[step], optimizer)
        other.from_bytes(other.to_bytes())
    assert_same(one, other)


def test_averages_are_those_of_thincs_optimizer(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder)
    optimizer, thincs = make_optimizer(use_averages=True), Adam(0.0, L2=0.0, use_averages=True)
    for batch in batches(nlp):
        as_spacy_train(nlp, batch, optimizer)
        for name, p in parameters(nlp).items():
            thincs((0, name), p.detach().numpy().copy(), p.detach().numpy() * 0)
    found = {id(p): name for name, p in parameters(nlp).items()}
    assert optimizer.averages is not None and len(optimizer.averages) == len(found)
    for key, average in optimizer.averages.items():
        assert thincs.averages is not None
        expected = thincs.averages[(0, found[id(optimizer._parameters[key])])]
        torch.testing.assert_close(torch.tensor(average), torch.tensor(expected), rtol=1e-5, atol=1e-6)
    live = values(nlp)
    with nlp.use_params(optimizer.averages):
        assert all(not torch.equal(value, live[name]) for name, value in values(nlp).items())
    assert all(torch.equal(value, live[name]) for name, value in values(nlp).items())


def test_gradients_that_are_not_finite_are_thrown_away(bert_folder: str, caplog: pytest.LogCaptureFixture) -> None:
    nlp = make_nlp(bert_folder)
    optimizer = make_optimizer(warmup=0.0, eps=1e-8)
    before = values(nlp)
    nlp.update(make_examples(nlp), sgd=False)
    next(head_module(nlp, "bert_textcat").parameters()).grad.fill_(float("nan"))
    for _, component in nlp.pipeline:
        component.finish_update(optimizer)  # type: ignore[attr-defined]
    optimizer.step_schedules()
    assert "not finite" in caplog.text
    assert all(torch.equal(value, before[name]) for name, value in values(nlp).items())
    as_spacy_train(nlp, make_examples(nlp), optimizer)
    after = values(nlp)
    assert all(not torch.equal(value, before[name]) and bool(value.isfinite().all()) for name, value in after.items())


@pytest.mark.parametrize(
    ("settings", "code"),
    [({"learn_rate": 0.0}, "H270"), ({"layer_decay": 1.5}, "H270"), ({"decay": "steps"}, "H270")]
    + [({"freeze_layers": -1}, "H270"), ({"total_steps": 0}, "H270"), ({"head_rate": -1.0}, "H270")],
)
def test_settings_that_make_no_sense_are_named(settings: Dict[str, Any], code: str) -> None:
    with pytest.raises(BertHeadsError, match=code):
        make_optimizer(**settings)


def test_a_schedule_without_an_end_is_named(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder)
    with pytest.raises(BertHeadsError, match="H271"):
        as_spacy_train(nlp, make_examples(nlp), make_optimizer(total_steps=None))
    # At the update, and never again
    for heads, listeners in ((["bert_textcat", "bert_ner"], 2), (["tagger"], 1)):
        fresh = make_nlp(bert_folder, heads)
        before = [component.model.to_bytes() for _, component in fresh.pipeline]  # type: ignore[attr-defined]
        with pytest.raises(BertHeadsError, match="H271"):
            fresh.update(make_examples(fresh), sgd=make_optimizer(total_steps=None))
        assert len(list(fresh.pipe(["hello", "cancel my order"]))) == 2
        assert [component.model.to_bytes() for _, component in fresh.pipeline] == before  # type: ignore[attr-defined]
        assert len(fresh.get_pipe("transformer").listeners) == listeners  # type: ignore[attr-defined]
    as_spacy_train(nlp, make_examples(nlp), make_optimizer(total_steps=None, warmup=2, decay="constant"))


def test_it_is_registered() -> None:
    settings = {"@optimizers": "spacy_bert_heads.AdamW.v1", "warmup": 0.1, "learn_rate": 1e-4}
    optimizer = registry.resolve({"optimizer": settings})["optimizer"]
    assert isinstance(optimizer, AdamW) and optimizer.warmup == 0.1


def test_config_for_bf16_takes_the_same_steps_and_keeps_weights_in_full_precision(bert_folder: str) -> None:
    nlp = make_nlp(encoder=make_config(bert_folder, precision="bf16"))
    for batch in batches(nlp):
        as_spacy_train(nlp, batch, make_optimizer())
    assert {p.dtype for p in parameters(nlp).values()} == {torch.float32}


def test_layers_of_thincs_own_below_a_head_step_before_they_run() -> None:
    model = architecture("TextCNN.v1", "bert_textcat", embedding())
    by_hand, as_spacy = (make_alone("bert_textcat", model) for _ in range(2))
    optimizers = [make_optimizer(warmup=0.0) for _ in range(2)]
    examples = examples_of(by_hand, "bert_textcat")
    for step in range(STEPS):
        as_nlp_update(by_hand, examples[step % 2 :], optimizers[0])
        as_spacy_train(as_spacy, examples[step % 2 :], optimizers[1])
    assert by_hand("track my order").cats == as_spacy("track my order").cats
    heads = [nlp.get_pipe("bert_textcat").model.to_bytes() for nlp in (by_hand, as_spacy)]  # type: ignore[attr-defined]
    assert heads[0] == heads[1] and optimizers[0].step == STEPS
