"""Which gradients reach the encoder, from whom, whatever else is frozen, disabled or listed first."""

from itertools import permutations
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy
import pytest
import spacy
import torch
from spacy.language import Language
from spacy.training import Example
from spacy_transformers.data_classes import TransformerData
from thinc.api import SGD
from transformers.file_utils import ModelOutput

from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.models.listeners import EncoderListener

from ..making import (
    TRAINING,
    assert_close,
    assert_gradients_close,
    encoder_module,
    gradients,
    has_gradient,
    head_module,
    hf_inputs,
    initialize_nlp,
    make_config,
    make_example,
    make_examples,
    make_nlp,
    weights,
)

TEXTS = [text for text, _, _ in TRAINING]
Grads = Dict[str, numpy.ndarray]


def collect(
    nlp: Language, exclude: Sequence[str] = (), batches: Optional[List[List[Example]]] = None
) -> Tuple[Grads, Dict[str, float]]:
    """The encoder's gradients as an optimizer sees them when `spacy train` steps, and the losses."""
    found: Grads = {}
    names = {p.data_ptr(): name for name, p in encoder_module(nlp).named_parameters()}

    def record(key: Tuple[int, str], weight: Any, gradient: Any) -> Tuple[Any, Any]:
        found[key[1]] = gradient.copy()
        return weight, gradient

    losses: Dict[str, float] = {}
    for batch in batches or [make_examples(nlp)]:
        nlp.update(batch, sgd=False, exclude=exclude, losses=losses)
    for name, component in reversed(nlp.pipeline):  # the encoder last, so that `found` holds its gradients
        if name not in exclude:
            found.clear()
            component.finish_update(record)  # type: ignore[attr-defined]
    assert set(found) <= set(names.values())
    return found, losses


def assert_sum(total: Grads, parts: Sequence[Grads], tolerance: float = 1e-5) -> None:
    assert max(float(numpy.abs(gradient).max()) for gradient in total.values()) > 1e-3
    for name in {name for grads in [total, *parts] for name in grads}:
        expected = sum(grads.get(name, numpy.zeros(1)) for grads in parts)
        actual = total.get(name, numpy.zeros(1))
        numpy.testing.assert_allclose(*numpy.broadcast_arrays(actual, expected), rtol=1e-4, atol=tolerance)


@pytest.mark.parametrize(
    "names",
    [["last_hidden_state"], ["pooler_output"], ["hidden_states"], ["hidden_states", "pooler_output"]],
    ids="+".join,
)
def test_gradients_travel_by_name(bert_folder: str, names: List[str]) -> None:
    nlp = make_nlp(heads=[], encoder=make_config(bert_folder, hidden_states=True))
    encoder, listener = nlp.get_pipe("transformer"), EncoderListener("*")
    encoder.add_listener(listener, "probe")
    examples = make_examples(nlp)
    encoder.update(examples)
    data, backprop = listener([eg.predicted for eg in examples], True)

    inputs, generator = hf_inputs(nlp, TEXTS), torch.Generator().manual_seed(0)
    reference = make_nlp(bert_folder, []).get_pipe("transformer").model.shims[0].module.transformer.eval()
    output = reference(**inputs, output_hidden_states=True)
    sent: List[Dict[str, Any]] = [{} for _ in data]
    loss = torch.zeros(())
    for name in names:
        tensors = output[name] if name == "hidden_states" else [output[name]]
        for tensor in tensors:
            weight = torch.randn(tensor.shape, generator=generator)
            loss = loss + (tensor * weight * (inputs["attention_mask"].unsqueeze(2) if tensor.ndim == 3 else 1)).sum()
            for i, n_pieces in enumerate(inputs["attention_mask"].sum(1).tolist()):
                gradient = weight[i : i + 1, :n_pieces] if tensor.ndim == 3 else weight[i : i + 1]
                if name == "hidden_states":
                    sent[i].setdefault(name, []).append(gradient.numpy())
                else:
                    sent[i][name] = gradient.numpy()
    loss.backward()
    backprop([TransformerData(d.wordpieces, ModelOutput(s), d.align) for d, s in zip(data, sent)])
    assert_gradients_close(encoder_module(nlp).transformer, reference, 1e-4)


@pytest.mark.parametrize("head", ["bert_textcat", "bert_ner", "bert_spans", "seq2seq_ner"])
def test_grad_factor_scales_what_a_head_sends_to_the_encoder(bert_folder: str, head: str) -> None:
    found = {}
    for factor in (0.0, 1.0, 2.0):
        nlp = make_nlp(bert_folder, [head], settings={head: {"model": {"tok2vec": {"grad_factor": factor}}}})
        found[factor], _ = collect(nlp)
    assert all(not gradient.any() for gradient in found[0.0].values())
    assert_sum(found[2.0], [found[1.0], found[1.0]])


@pytest.mark.parametrize("order", list(permutations(["bert_textcat", "tagger", "bert_ner"])), ids=",".join)
def test_the_encoder_gets_the_sum_of_all_heads_gradients_in_any_order(bert_folder: str, order: List[str]) -> None:
    nlp = make_nlp(bert_folder, [*order, "textcat", "bert_spans"])
    total, losses = collect(nlp)
    heads = nlp.pipe_names[1:]
    parts = [collect(nlp, exclude=[name for name in heads if name != head])[0] for head in heads]
    assert_sum(total, parts)
    assert losses["transformer"] > 0
    pooler = "transformer.pooler.dense.weight"
    assert numpy.abs(total[pooler]).max() > 1e-4
    assert_close(total[pooler], parts[heads.index("bert_textcat")][pooler])


@pytest.mark.parametrize(
    "order",
    [("tagger", "bert_spans", "bert_textcat", "bert_ner"), ("bert_ner", "bert_textcat", "tagger", "bert_spans")],
)
@pytest.mark.parametrize("absent", ["tagger", "bert_textcat", "bert_ner", "bert_spans"])
def test_the_encoder_learns_from_the_others_when_a_head_is_frozen_or_disabled(
    bert_folder: str, order: Tuple[str, ...], absent: str
) -> None:
    nlp = make_nlp(bert_folder, order)
    parts = {h: collect(nlp, exclude=[o for o in order if o != h])[0] for h in order if h != absent}
    frozen, _ = collect(nlp, exclude=[absent])
    assert_sum(frozen, list(parts.values()))
    with nlp.select_pipes(disable=[absent]):
        disabled, _ = collect(nlp)
    assert_sum(disabled, list(parts.values()))


def test_no_step_is_lost_when_a_frozen_head_never_answers(bert_folder: str) -> None:
    frozen, alone = make_nlp(bert_folder), make_nlp(bert_folder, ["bert_textcat"])
    head_module(frozen, "bert_textcat").load_state_dict(head_module(alone, "bert_textcat").state_dict())
    for nlp in (frozen, alone):
        sgd = SGD(0.01, L2=0.0, grad_clip=0.0)
        for _ in range(3):
            nlp.update(make_examples(nlp), sgd=sgd, exclude=["bert_ner"])
        nlp.get_pipe("transformer").finish_update(sgd)  # with a frozen head the last step waits for this
    expected = weights(encoder_module(alone))
    for name, tensor in weights(encoder_module(frozen)).items():
        assert_close(tensor, expected[name])


@pytest.mark.parametrize("head", ["bert_textcat", "bert_ner", "bert_spans", "seq2seq_ner", "tagger"])
def test_an_empty_doc_amid_a_batch_does_not_shift_the_others_gradients(bert_folder: str, head: str) -> None:
    nlp = make_nlp(bert_folder, [head])
    examples = make_examples(nlp)
    mixed = [examples[0], make_example(nlp, ""), *examples[1:], make_example(nlp, "")]
    assert_sum(collect(nlp, batches=[mixed])[0], [collect(nlp)[0]])


def test_gradients_accumulate_over_batches_until_the_step(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder, ["tagger", "bert_textcat", "bert_ner"])
    one, two, three = ([eg] for eg in make_examples(nlp))
    parts = [collect(nlp, batches=[batch])[0] for batch in (one, two, three)]
    assert_sum(collect(nlp, batches=[one, two, three])[0], parts)
    frozen = [collect(nlp, ["bert_ner"], batches=[batch])[0] for batch in (one, two, three)]
    assert_sum(collect(nlp, ["bert_ner"], batches=[one, two, three])[0], frozen)


def test_dropout_changes_the_heads_gradients_but_not_predictions(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder)
    before = nlp.get_pipe("bert_textcat").predict(list(nlp.pipe(TEXTS)))
    nlp.update(make_examples(nlp), sgd=False, drop=0.5)
    dropped = gradients(head_module(nlp, "bert_textcat"))
    assert_close(nlp.get_pipe("bert_textcat").predict(list(nlp.pipe(TEXTS))), before)
    for head in ("bert_textcat", "bert_ner"):
        head_module(nlp, head).zero_grad()
    nlp.update(make_examples(nlp), sgd=False, drop=0.0)
    assert not torch.allclose(dropped["linear.weight"], gradients(head_module(nlp, "bert_textcat"))["linear.weight"])


def test_heads_learn_over_a_frozen_annotating_encoder_which_does_not(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder)
    nlp.update(make_examples(nlp), sgd=False)
    expected = {head: gradients(head_module(nlp, head)) for head in nlp.pipe_names[1:]}
    fresh = make_nlp(bert_folder)
    fresh.update(make_examples(fresh), sgd=False, exclude=["transformer"], annotates=["transformer"])
    assert not has_gradient(encoder_module(fresh))
    for head, grads in expected.items():
        for name, gradient in gradients(head_module(fresh, head)).items():
            assert_close(gradient, grads[name])


def test_freezing_the_encoder_later_does_not_meet_a_batch_that_a_head_never_took(bert_folder: str) -> None:
    nlp, twin = make_nlp(bert_folder), make_nlp(bert_folder)
    for pipeline in (nlp, twin):
        pipeline.update(make_examples(pipeline), exclude=["bert_ner"])
    other = [make_example(nlp, "refund Anna", cats={"TRACK": 0.0, "CANCEL": 1.0}, entities=[(7, 11, "PERSON")])]
    losses = nlp.update(other, exclude=["transformer"], annotates=["transformer"])
    assert losses["bert_ner"] > 0
    # It has learned from the first batch, before it read the second, and from nothing else
    before = weights(encoder_module(twin))
    twin.get_pipe("transformer").to_bytes()  # type: ignore[attr-defined]
    expected = weights(encoder_module(twin))
    assert any(not torch.equal(tensor, before[name]) for name, tensor in expected.items())
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(encoder_module(nlp)).items())


def test_heads_without_their_encoder_say_so(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder)
    with pytest.raises(BertHeadsError) as error:
        nlp.update(make_examples(nlp), exclude=["transformer"])
    assert error.value.code == "H213"
    with nlp.select_pipes(disable=["transformer"]):
        with pytest.raises(BertHeadsError) as error:
            nlp("where")
        assert error.value.code == "H213"
        with pytest.raises(BertHeadsError) as error:
            list(nlp.pipe(["where", "is"]))
        assert error.value.code == "H213"
    nlp.remove_pipe("transformer")
    with pytest.raises(BertHeadsError) as error:
        nlp("where")
    assert error.value.code == "H213"


@pytest.mark.parametrize("head", ["bert_textcat", "bert_textcat_multilabel", "bert_ner", "bert_spans", "seq2seq_ner"])
def test_a_head_alone_or_ahead_of_the_encoder_cannot_be_initialised(bert_folder: str, head: str) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe(head)
    with pytest.raises(BertHeadsError) as error:
        initialize_nlp(nlp)
    assert error.value.code == "H212"
    nlp.add_pipe("bert_encoder", name="transformer", config={"model": make_config(bert_folder)})
    with pytest.raises(BertHeadsError) as error:
        initialize_nlp(nlp)
    assert error.value.code == "H212"


def test_an_uninitialised_pipeline_says_so(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder, initialize=False)
    with pytest.raises(BertHeadsError) as error:
        nlp("where")
    assert error.value.code == "H210"
    late = make_nlp(bert_folder, ["bert_textcat"])
    late.add_pipe("bert_ner")
    with pytest.raises(BertHeadsError) as error:
        late("where")
    assert error.value.code == "H215"


def test_stock_tagger_and_textcat_learn_beside_our_heads(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder, ["tagger", "bert_textcat", "textcat", "bert_ner"])
    sgd = nlp.create_optimizer()
    sgd.learn_rate = 0.005
    for _ in range(40):
        losses = nlp.update(make_examples(nlp), sgd=sgd)
    scores = nlp.evaluate(make_examples(nlp))
    assert scores["tag_acc"] == scores["cats_macro_f"] == scores["ents_f"] == 1.0, losses
