"""Pooling of wordpieces and mixes of layers, against plain Hugging Face and brute force."""

from pathlib import Path
from typing import Any, Dict, List, Set

import numpy
import pytest
import spacy
import torch
from spacy.language import Language
from transformers import AutoModel

from spacy_bert_heads.errors import BertHeadsError

from ..making import (
    TRAINING,
    assert_close,
    assert_gradients_close,
    assert_same_predictions,
    encoder_module,
    has_gradient,
    head_module,
    make_config,
    make_example,
    make_examples,
    make_nlp,
    predictions,
    randomise,
)

TEXTS = [text for text, _, _ in TRAINING]
LONG = ["order Anna " * 30, "refund", "", " ", "where is tracking, zebra? " * 5]
POOLINGS = ["cls", "mean", "max", "attention"]
every_pooling = pytest.mark.parametrize("pooling", POOLINGS)
mix_or_not = pytest.mark.parametrize("layer_mix", [False, True])


def make_pooled_nlp(folder: str, pooling: str, layer_mix: bool, **listener: Any) -> Language:
    """One text head over a pooling whose learned parts are not what they begin as."""
    tok2vec = {"pooling": pooling, "layer_mix": layer_mix, **listener}
    nlp = make_nlp(
        encoder=make_config(folder, hidden_states=True),
        heads=["bert_textcat"],
        settings={"bert_textcat": {"model": {"tok2vec": tok2vec}}},
    )
    list(nlp.pipe(TEXTS))  # how many layers are mixed shows at the first run
    for module in learned(nlp):
        randomise(module, 1)
    randomise(head_module(nlp, "bert_textcat"), 2)
    return nlp


def learned(nlp: Language, head: str = "bert_textcat") -> List[torch.nn.Module]:
    """Modules between the encoder and a head."""
    return [shim.module for node in nlp.get_pipe(head).model.get_ref("tok2vec").walk() for shim in node.shims]  # type: ignore[attr-defined]


def mix_weights(nlp: Language, head: str = "bert_textcat") -> Any:
    return next(module.weights for module in learned(nlp, head) if hasattr(module, "weights"))


def pool(pooling: str, vectors: torch.Tensor, query: Any) -> torch.Tensor:
    if pooling == "max":
        return vectors.max(dim=0).values
    shares = torch.ones(len(vectors)) / len(vectors)
    if pooling == "attention":
        shares = (vectors @ query).softmax(0)
    return shares @ vectors


def reference_logits(nlp: Language, bert: Any, pooling: str, mix: Any, query: Any) -> torch.Tensor:
    """By Hugging Face's model and tokenizer, text by text, special tokens told by the tokenizer itself."""
    tokenizer = nlp.get_pipe("transformer").model.shims[0].tokenizer  # type: ignore[attr-defined]
    linear = head_module(nlp, "bert_textcat").linear
    rows = []
    for text in TEXTS:
        inputs = tokenizer(text, return_tensors="pt", return_special_tokens_mask=True)
        special = inputs.pop("special_tokens_mask")[0].bool()
        output = bert(**inputs, output_hidden_states=True)
        last = output.last_hidden_state
        if mix is not None:
            last = sum(share * layer for share, layer in zip(mix.softmax(0), output.hidden_states))
        rows.append(last[0, 0] if pooling == "cls" else pool(pooling, last[0, ~special], query))
    return torch.stack(rows) @ linear.weight.detach().T + linear.bias.detach()


@every_pooling
@mix_or_not
def test_pooled_vectors_and_gradients_are_those_of_plain_torch(
    bert_folder: str, pooling: str, layer_mix: bool
) -> None:
    nlp = make_pooled_nlp(bert_folder, pooling, layer_mix)
    bert = AutoModel.from_pretrained(bert_folder, add_pooling_layer=True).eval()
    modules = learned(nlp)
    mix = query = None
    if layer_mix:
        mix = mix_weights(nlp).detach().clone().requires_grad_()
    if pooling == "attention":
        score = next(module.score for module in modules if hasattr(module, "score"))
        query = score.weight.detach()[0].clone().requires_grad_()
    logits = reference_logits(nlp, bert, pooling, mix, query)
    docs = list(nlp.pipe(TEXTS))
    assert_close([[doc.cats[label] for label in ("CANCEL", "TRACK")] for doc in docs], logits.softmax(1), 1e-5)
    losses = nlp.update(make_examples(nlp), sgd=False)
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor([1, 0, 1]))
    loss.backward()
    assert losses["bert_textcat"] == pytest.approx(float(loss.detach()), abs=1e-5)
    assert_gradients_close(encoder_module(nlp).transformer, bert, 2e-5)
    if mix is not None:
        assert_close(mix_weights(nlp).grad, mix.grad)
        assert mix.grad.abs().min() > 1e-6
    if query is not None:
        assert_close(score.weight.grad[0], query.grad)
        assert query.grad.abs().max() > 1e-5


@every_pooling
@mix_or_not
def test_a_text_is_pooled_as_if_alone(bert_folder: str, pooling: str, layer_mix: bool) -> None:
    nlp = make_pooled_nlp(bert_folder, pooling, layer_mix)
    texts = [*TEXTS, *LONG]
    together = predictions(nlp.pipe(texts))
    assert_same_predictions(together, predictions(nlp(text) for text in texts), 1e-5)
    nlp.update([make_example(nlp, text, cats={"TRACK": 1.0}) for text in LONG], sgd=False)


@pytest.mark.parametrize("pooling", ["mean", "max", "attention"])
def test_every_wordpiece_counts_once_across_windows(bert_folder: str, pooling: str) -> None:
    nlp = make_pooled_nlp(bert_folder, pooling, False)
    tok2vec = nlp.get_pipe("bert_textcat").model.get_ref("tok2vec")  # type: ignore[attr-defined]
    for text in LONG:
        doc = nlp(text)
        data = doc._.trf_data
        seen: Set[int] = set()
        for token in range(len(doc)):
            seen.update(data.align[token].dataXd.flatten().tolist())
        vectors = torch.tensor(data.model_output.last_hidden_state.reshape(-1, 16)[sorted(seen)])
        tokenizer = nlp.get_pipe("transformer").model.shims[0].tokenizer  # type: ignore[attr-defined]
        assert len(vectors) == len(tokenizer(text, add_special_tokens=False)["input_ids"])
        query = learned(nlp)[0].score.weight.detach()[0] if pooling == "attention" else None  # type: ignore[union-attr, index]
        expected = pool(pooling, vectors, query) if len(vectors) else torch.zeros(16)
        assert_close(tok2vec.predict([doc])[0], expected)


@mix_or_not
def test_grad_factor_0_spares_the_encoder_and_not_what_the_head_learns(bert_folder: str, layer_mix: bool) -> None:
    nlp = make_pooled_nlp(bert_folder, "attention", layer_mix, grad_factor=0.0)
    nlp.update(make_examples(nlp), sgd=False)
    assert not has_gradient(encoder_module(nlp).transformer)
    assert len(learned(nlp)) == 1 + layer_mix
    assert all(has_gradient(module) for module in learned(nlp))


def test_each_head_has_a_mix_of_its_own_which_learns_and_is_saved(bert_folder: str) -> None:
    settings: Dict[str, Any] = {
        "bert_textcat": {"model": {"tok2vec": {"pooling": "mean", "layer_mix": True}}},
        "bert_ner": {"model": {"lstm_width": 8, "tok2vec": {"layer_mix": True}}},
    }
    nlp = make_nlp(encoder=make_config(bert_folder, hidden_states=True), settings=settings)
    sgd = nlp.create_optimizer()
    sgd.learn_rate = 0.01
    for _ in range(3):
        nlp.update(make_examples(nlp), sgd=sgd)
    mixes = [mix_weights(nlp, head).detach() for head in settings]
    assert all(mix.shape == (3,) and mix.std() > 1e-3 for mix in mixes)
    assert (mixes[0] - mixes[1]).abs().max() > 1e-3
    before = predictions(nlp.pipe(TEXTS))
    loaded = spacy.blank("en").from_config(nlp.config).from_bytes(nlp.to_bytes())
    assert_same_predictions(predictions(loaded.pipe(TEXTS)), before)
    for head in settings:
        nlp.replace_listeners("transformer", head, ["model.tok2vec"])
    nlp.remove_pipe("transformer")
    assert_same_predictions(predictions(nlp.pipe(TEXTS)), before, 1e-6)
    nlp.update(make_examples(nlp), sgd=False)
    loaded = spacy.blank("en").from_config(nlp.config).from_bytes(nlp.to_bytes())
    assert_same_predictions(predictions(loaded.pipe(TEXTS)), before, 1e-6)


def test_a_token_listener_hears_the_mix(bert_folder: str) -> None:
    nlp = make_nlp(
        encoder=make_config(bert_folder, hidden_states=True),
        heads=["bert_ner"],
        settings={"bert_ner": {"model": {"lstm_width": 8, "tok2vec": {"layer_mix": True}}}},
    )
    docs = list(nlp.pipe(TEXTS))
    mix_weights(nlp, "bert_ner").data = torch.tensor([-50.0, 50.0, -50.0])
    vectors = nlp.get_pipe("bert_ner").model.get_ref("tok2vec").predict(docs)  # type: ignore[attr-defined]
    for doc, found in zip(docs, vectors):
        layer = doc._.trf_data.model_output.hidden_states[1].reshape(-1, 16)
        rows = [int(doc._.trf_data.align[i].dataXd[0, 0]) for i in range(len(doc))]
        assert_close(found, layer[rows])


@pytest.mark.parametrize("head, tok2vec", [("bert_textcat", {"pooling": "cls"}), ("bert_ner", {})])
def test_a_mix_without_hidden_states_says_what_is_missing(
    bert_folder: str, head: str, tok2vec: Dict[str, Any]
) -> None:
    settings = {head: {"model": {"tok2vec": {**tok2vec, "layer_mix": True}}}}
    nlp = make_nlp(bert_folder, [head], settings=settings)
    for use in (lambda: nlp("where"), lambda: nlp.update(make_examples(nlp), sgd=False)):
        with pytest.raises(BertHeadsError) as error:
            use()
        assert error.value.code == "H260"


@pytest.mark.parametrize("windows", ["mean", "first", "max"])
@mix_or_not
def test_cls_of_several_windows_are_put_together(bert_folder: str, windows: str, layer_mix: bool) -> None:
    nlp = make_pooled_nlp(bert_folder, "cls", layer_mix, windows=windows)
    tok2vec = nlp.get_pipe("bert_textcat").model.get_ref("tok2vec")  # type: ignore[attr-defined]
    docs = list(nlp.pipe(LONG))
    vectors, backprop = tok2vec.begin_update(docs)
    backprop(vectors)  # of outputs read off Docs, so it goes nowhere
    for doc, vector in zip(docs, vectors):
        output = doc._.trf_data.model_output
        last = torch.from_numpy(output.last_hidden_state)
        if layer_mix:
            layers = torch.stack([torch.from_numpy(layer) for layer in output.hidden_states])
            last = torch.einsum("l,lwpd->wpd", mix_weights(nlp).detach().softmax(0), layers)
        cls = last[:, 0]
        expected = {"mean": cls.mean(0), "first": cls[0], "max": cls.max(0).values}[windows]
        assert_close(vector, expected, 1e-5)
    assert max(len(doc._.trf_data.model_output.last_hidden_state) for doc in docs) > 1


@every_pooling
@mix_or_not
def test_outputs_are_released_after_every_view_has_read_them(bert_folder: str, pooling: str, layer_mix: bool) -> None:
    nlp, expected = [
        make_nlp(
            encoder=make_config(bert_folder, hidden_states=True),
            heads=["bert_regression", "bert_ner"],
            settings={
                "transformer": {"keep_outputs": keep_outputs},
                "bert_regression": {"model": {"tok2vec": {"pooling": pooling, "layer_mix": layer_mix}}},
                "bert_ner": {"model": {"lstm_width": 8, "tok2vec": {"layer_mix": layer_mix}}},
            },
        )
        for keep_outputs in (False, True)
    ]
    nlp.from_bytes(expected.to_bytes())
    texts = [*TEXTS, *LONG]
    docs, expected_docs = list(nlp.pipe(texts, batch_size=3)), list(expected.pipe(texts))
    assert all(doc._.trf_data is None for doc in docs)
    assert all(doc._.trf_data is not None for doc in expected_docs)
    assert_same_predictions(predictions(docs), predictions(expected_docs), 1e-5)


@pytest.mark.parametrize(
    "tok2vec, code",
    [({"pooling": "sum"}, "H211"), ({"pooling": "cls", "windows": "sum"}, "H237"), ({"layer_mix": True}, "H263")],
)
def test_settings_that_cannot_be(tok2vec: Dict[str, Any], code: str) -> None:
    with pytest.raises(BertHeadsError) as error:
        spacy.blank("en").add_pipe("bert_textcat", config={"model": {"tok2vec": tok2vec}})
    assert error.value.code == code


def test_several_dropouts_are_averaged_and_vary_less(bert_folder: str) -> None:
    def logits(samples: int) -> Any:
        nlp = make_nlp(
            bert_folder, ["bert_textcat"], settings={"bert_textcat": {"model": {"dropout_samples": samples}}}
        )
        randomise(head_module(nlp, "bert_textcat"), 0)
        model = nlp.get_pipe("bert_textcat").model  # type: ignore[attr-defined]
        docs = list(nlp.pipe(TEXTS))
        model.get_ref("output_layer").attrs["dropout_rate"] = 0.5
        torch.manual_seed(0)
        drawn = numpy.stack([model.begin_update(docs)[0] for _ in range(300)])
        assert_close(drawn.mean(0), model.predict(docs), 0.5)
        return drawn

    assert logits(8).std(0).mean() == pytest.approx(logits(1).std(0).mean() / 8**0.5, rel=0.1)
    with pytest.raises(BertHeadsError) as error:
        logits(0)
    assert (error.value.code, error.value.found) == ("H261", 0)


def test_several_dropouts_give_the_mean_of_their_logits(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder, ["bert_textcat"], settings={"bert_textcat": {"model": {"dropout_samples": 3}}})
    module = head_module(nlp, "bert_textcat")
    randomise(module, 0)
    module.dropout.p = 0.4
    X = torch.randn(4, 16)
    torch.manual_seed(1)
    averaged = module.train()(X)
    torch.manual_seed(1)
    expected = torch.stack([module.linear(torch.dropout(X, 0.4, True)) for _ in range(3)]).mean(0)
    assert_close(averaged, expected, 1e-5)


def test_a_head_that_standardizes_learns_from_crowded_vectors_and_is_saved(bert_folder: str, tmp_path: Path) -> None:
    """Vectors of texts nearly the same, and far from zero: only what is standardized can tell the texts apart."""
    losses = {}
    for standardize in (False, True):
        listener = {"pooling": "mean", "grad_factor": 0.0}
        settings = {"bert_textcat": {"model": {"standardize": standardize, "tok2vec": listener}}}
        nlp = make_nlp(bert_folder, ["bert_textcat"], settings=settings)
        norm = encoder_module(nlp).transformer.encoder.layer[-1].output.LayerNorm
        with torch.no_grad():
            norm.weight.fill_(0.01)
            norm.bias.fill_(1.0)
        sgd = nlp.create_optimizer()
        for _ in range(60):
            found: Dict[str, float] = {}
            nlp.update(make_examples(nlp), sgd=sgd, losses=found)
        losses[standardize] = found["bert_textcat"]
    assert losses[True] < losses[False] / 2
    nlp.to_disk(tmp_path)
    texts = [example.text for example in make_examples(nlp)]
    assert_same_predictions(predictions(spacy.load(tmp_path).pipe(texts)), predictions(nlp.pipe(texts)))
