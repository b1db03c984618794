"""The head start: heads fitted to what an encoder says before it is trained, and pairs of texts compared."""

from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import numpy
import pytest
import torch
from spacy.language import Language
from spacy.tokens import Doc, DocBin
from spacy.training import Example
from spacy.training.initialize import init_nlp
from spacy.util import registry
from thinc.api import Config

from spacy_bert_heads.training import head_start
from spacy_bert_heads.training.head_start import FREEDOM, give_head_start, no_head_start

from ..making import encoder_module, head_module, make_nlp, make_scratch_config, make_texts, weights

CLASSES = ("CANCEL", "REFUND", "TRACK")


def make_docs(nlp: Language, n: int, seed: int = 0) -> List[Doc]:
    """Texts whose first word says the class."""
    docs = []
    for number, text in enumerate(make_texts(n, seed)):
        label = CLASSES[number % 3]
        doc = nlp.make_doc(f"{label.lower()} {text}")
        doc.cats = {name: float(name == label) for name in CLASSES}
        docs.append(doc)
    return docs


def prepare(
    folder: Path,
    encoder: str,
    head: str = "bert_textcat",
    *,
    docs: Optional[List[Doc]] = None,
    settings: Optional[Dict[str, Any]] = None,
    **model: Any,
) -> Language:
    """A pipeline, initialised, whose config names a corpus and an optimizer, as of a training."""
    heads = {
        head: {"model": {"tok2vec": {"@architectures": LISTENER, "pooling": "mean"}, **model}, **(settings or {})}
    }
    nlp = make_nlp(encoder, [head], settings=heads, initialize=False)
    docs = make_docs(nlp, 30) if docs is None else docs
    DocBin(docs=docs).to_disk(folder / "train.spacy")
    nlp.config["paths"].update(train=str(folder / "train.spacy"), dev=str(folder / "train.spacy"))
    nlp.config["training"]["optimizer"] = {"@optimizers": "spacy_bert_heads.AdamW.v1", "learn_rate": 0.01}
    nlp.initialize(lambda: [Example(nlp.make_doc(doc.text), doc) for doc in docs])
    return nlp


LISTENER = "spacy_bert_heads.PooledListener.v1"


def mean_vectors(nlp: Language, docs: Sequence[Doc]) -> numpy.ndarray:
    """By Hugging Face's model, text by text: the mean of the wordpieces."""
    encoder = nlp.get_pipe("transformer").model.shims[0]  # type: ignore[attr-defined]
    rows = []
    with torch.no_grad():
        for doc in docs:
            inputs = encoder.tokenizer(doc.text, return_tensors="pt")
            output = encoder.module.transformer.eval()(inputs["input_ids"], inputs["attention_mask"])
            rows.append(output.last_hidden_state[0, 1:-1].mean(dim=0).numpy())
    return numpy.array(rows, dtype="float64")


def without_contrast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_start, "_contrast", lambda *_: None)


def scaled(vectors: numpy.ndarray) -> numpy.ndarray:
    return vectors / numpy.linalg.norm(vectors, axis=1).mean()


def gold(docs: Sequence[Doc]) -> numpy.ndarray:
    return numpy.array([[doc.cats[label] for label in CLASSES] for doc in docs])


def share_right(nlp: Language, docs: Sequence[Doc]) -> float:
    found = [nlp(doc.text).cats for doc in docs]
    return sum(
        max(cats, key=cats.__getitem__) == CLASSES[row] for cats, row in zip(found, gold(docs).argmax(axis=1))
    ) / len(docs)


def test_the_head_is_scikit_learns_logistic_regression(
    tmp_path: Path, bert_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sklearn.linear_model import LogisticRegression

    without_contrast(monkeypatch)
    nlp = prepare(tmp_path, bert_folder)
    docs = make_docs(nlp, 30)
    before = weights(encoder_module(nlp))
    X = scaled(mean_vectors(nlp, docs))
    give_head_start(nlp)
    theirs = LogisticRegression(C=FREEDOM, tol=1e-8, max_iter=5000).fit(X, gold(docs).argmax(axis=1))
    expected = theirs.predict_proba(X)
    found = numpy.array([[nlp(doc.text).cats[label] for label in CLASSES] for doc in docs])
    numpy.testing.assert_allclose(found, expected, atol=2e-3)
    # More than a constant was learned, and the encoder is what it was
    assert expected.max() > 0.6
    for name, tensor in weights(encoder_module(nlp)).items():
        assert torch.equal(tensor, before[name]), name


def test_labels_that_do_not_exclude_each_other_are_fitted_one_by_one(
    tmp_path: Path, bert_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sklearn.linear_model import LogisticRegression

    nlp = prepare(tmp_path, bert_folder, "bert_textcat_multilabel")
    docs = make_docs(nlp, 30)
    X, truths = scaled(mean_vectors(nlp, docs)), gold(docs)
    give_head_start(nlp)
    for column, label in enumerate(CLASSES):
        # Our loss is the mean over labels too
        theirs = LogisticRegression(C=FREEDOM / len(CLASSES), tol=1e-8, max_iter=5000).fit(X, truths[:, column])
        found = [nlp(doc.text).cats[label] for doc in docs]
        numpy.testing.assert_allclose(found, theirs.predict_proba(X)[:, 1], atol=2e-3)


def test_numbers_are_fitted_by_ridge_regression(tmp_path: Path, bert_folder: str) -> None:
    from sklearn.linear_model import Ridge

    blank = make_nlp(bert_folder, ["bert_regression"], initialize=False)
    docs = make_docs(blank, 30)
    generator = numpy.random.default_rng(0)
    for doc in docs:
        doc.cats = {"SCORE": float(generator.normal())}
    nlp = prepare(tmp_path, bert_folder, "bert_regression", docs=docs)
    X, y = scaled(mean_vectors(nlp, docs)), [doc.cats["SCORE"] for doc in docs]
    give_head_start(nlp)
    # Mean of squares + weights / (2 * FREEDOM * n), times n
    theirs = Ridge(alpha=1 / (2 * FREEDOM)).fit(X, y)
    numpy.testing.assert_allclose([nlp(doc.text).cats["SCORE"] for doc in docs], theirs.predict(X), atol=5e-3)


def test_vectors_that_lie_close_together_are_standardized_first(
    tmp_path: Path, bert_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_contrast(monkeypatch)
    nlp = prepare(tmp_path, bert_folder, standardize=True)
    docs = make_docs(nlp, 30)
    X = mean_vectors(nlp, docs)
    give_head_start(nlp)
    standardizer = head_module(nlp, "bert_textcat").standardizer
    numpy.testing.assert_allclose(standardizer.mean.numpy(), X.mean(axis=0), atol=1e-4)
    numpy.testing.assert_allclose(float(standardizer.variance), X.var(axis=0).mean(), rtol=1e-3)
    assert share_right(nlp, docs) > 0.6


def test_texts_of_few_classes_are_compared_first(tmp_path: Path, bert_folder: str) -> None:
    nlp = prepare(tmp_path, bert_folder)
    docs = make_docs(nlp, 30)
    same = gold(docs) @ gold(docs).T > 0

    def closeness() -> float:
        X = mean_vectors(nlp, docs)
        X = X / numpy.linalg.norm(X, axis=1, keepdims=True)
        return float((X @ X.T)[same].mean() - (X @ X.T)[~same].mean())

    before = closeness()
    give_head_start(nlp)
    assert closeness() > before + 0.05


@pytest.mark.parametrize(("few", "most", "starts"), [(9, 100, False), (10, 100, True), (9, 15, False), (10, 15, True)])
def test_with_many_texts_all_waits_for_the_training(
    tmp_path: Path, bert_folder: str, monkeypatch: pytest.MonkeyPatch, few: int, most: int, starts: bool
) -> None:
    """There are ten of each class, also where a sample of 15 texts is read."""
    monkeypatch.setattr(head_start, "FEW", few)
    monkeypatch.setattr(head_start, "MOST_TEXTS", most)
    nlp = prepare(tmp_path, bert_folder)
    before, head = weights(encoder_module(nlp)), weights(head_module(nlp, "bert_textcat"))
    give_head_start(nlp)
    learned = [not torch.equal(tensor, before[name]) for name, tensor in weights(encoder_module(nlp)).items()]
    assert any(learned) == starts
    assert torch.equal(head_module(nlp, "bert_textcat").linear.weight, head["linear.weight"]) != starts


@pytest.mark.parametrize("head", ["bert_textcat_multilabel", "bert_regression"])
def test_labels_are_counted_by_head(tmp_path: Path, bert_folder: str, head: str) -> None:
    nlp = prepare(tmp_path, bert_folder, head)
    examples = [Example(nlp.make_doc(doc.text), doc) for doc in make_docs(nlp, 30)]
    examples[0].reference.cats = {"CANCEL": 1.0}
    component: Any = nlp.get_pipe(head)
    expected = {"bert_textcat_multilabel": [10, 10, 10], "bert_regression": [30, 29, 29]}
    assert dict(zip(component.labels, component.count_labels(examples))) == dict(zip(CLASSES, expected[head]))


@pytest.mark.parametrize("most", [12, 100])
def test_of_a_large_corpus_an_even_sample_is_read(
    tmp_path: Path, bert_folder: str, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(head_start, "MOST_TEXTS", most)
    nlp = prepare(tmp_path, bert_folder, docs=make_docs(make_nlp(bert_folder, [], initialize=False), 60))
    examples, n_texts = head_start._read_corpus(nlp, 0)
    found = [eg.reference.text for eg in examples]
    assert n_texts == 60
    texts = [doc.text for doc in make_docs(nlp, 60)]
    assert len(found) == min(most, 60) and set(found) <= set(texts)
    assert len(found) == 60 or any(text in found for text in texts[30:])


def test_texts_without_annotation_for_the_head_do_not_count(
    tmp_path: Path, bert_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_contrast(monkeypatch)
    blank = make_nlp(bert_folder, [], initialize=False)
    bare = [blank.make_doc(text) for text in make_texts(10, seed=1)]
    found = []
    for name, docs in (("with", [*make_docs(blank, 30), *bare]), ("without", make_docs(blank, 30))):
        folder = tmp_path / name
        folder.mkdir()
        nlp = prepare(folder, bert_folder, docs=docs)
        give_head_start(nlp)
        found.append(weights(head_module(nlp, "bert_textcat"))["linear.weight"])
    torch.testing.assert_close(found[0], found[1], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    "case", ["paused", "no corpus", "disabled", "encoder from scratch", "another head", "one class known"]
)
def test_what_there_is_nothing_to_fit_to_stays(tmp_path: Path, bert_folder: str, case: str) -> None:
    if case == "encoder from scratch":
        nlp = make_nlp(encoder=make_scratch_config(), heads=["bert_textcat"])
    elif case == "another head":
        cnn = {"model": {"@architectures": "spacy_bert_heads.TextCNN.v1", "filters": 4, "exclusive_classes": True}}
        cnn["model"]["tok2vec"] = {"@architectures": "spacy_bert_heads.TokenListener.v1"}  # type: ignore[assignment]
        nlp = make_nlp(bert_folder, ["bert_textcat"], settings={"bert_textcat": cnn})
    elif case == "one class known":
        docs = make_docs(make_nlp(bert_folder, [], initialize=False), 3)
        nlp = prepare(tmp_path, bert_folder, docs=docs)
        for doc in docs:
            doc.cats = {}
        DocBin(docs=docs).to_disk(tmp_path / "train.spacy")
    else:
        nlp = prepare(tmp_path, bert_folder)
    if case == "no corpus":
        nlp.config["paths"]["train"] = None
    before = weights(head_module(nlp, "bert_textcat"))
    if case == "paused":
        with no_head_start():
            assert give_head_start(nlp) is nlp
    elif case == "disabled":
        with nlp.select_pipes(disable=["bert_textcat"]):
            assert give_head_start(nlp) is nlp
    else:
        assert give_head_start(nlp) is nlp
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(head_module(nlp, "bert_textcat")).items())


def test_an_encoder_that_is_disabled_stays_and_its_head_is_fitted(tmp_path: Path, bert_folder: str) -> None:
    nlp = prepare(tmp_path, bert_folder)
    before, head = weights(encoder_module(nlp)), weights(head_module(nlp, "bert_textcat"))
    with nlp.select_pipes(disable=["transformer"]):
        give_head_start(nlp)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(encoder_module(nlp)).items())
    assert not torch.equal(head_module(nlp, "bert_textcat").linear.weight, head["linear.weight"])


def test_a_config_runs_it_and_it_gives_the_same_again(tmp_path: Path, bert_folder: str) -> None:
    nlp = prepare(tmp_path, bert_folder)
    config = nlp.config.copy()
    config["initialize"]["after_init"] = {"@callbacks": "spacy_bert_heads.head_start.v1"}
    config["initialize"]["before_init"] = {"@callbacks": "spacy_bert_heads.count_steps.v1"}
    config["training"]["max_epochs"] = 2
    config["system"]["seed"] = 5
    started = [init_nlp(Config(config)) for _ in range(2)]
    docs = make_docs(nlp, 30)
    assert share_right(started[0], docs) == share_right(started[1], docs) > 0.6
    assert started[0].to_bytes() == started[1].to_bytes()
    assert registry.resolve(started[0].config.interpolate()["training"])["optimizer"].total_steps


def test_pairs_are_of_one_class_and_every_text_has_its_turn() -> None:
    import random

    groups: Dict[int, List[Any]] = {0: ["a", "b", "c"], 1: ["d"], 2: [f"e{i}" for i in range(40)]}
    batches = head_start._draw_pairs(groups, random.Random(0))
    seen = set()
    for _ in range(3):
        batch = next(batches)
        assert len(batch) == 2 * head_start.PAIRS
        for (label, first), (other, second) in zip(batch[::2], batch[1::2]):
            assert label == other and first in groups[label] and second in groups[label]
            seen |= {first, second}
    assert seen == {text for group in groups.values() for text in group}
