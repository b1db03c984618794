"""Temperature, thresholds and sets of a head: against sums over every path, and what becomes of them when a pipeline
is saved, taken apart and trained on.
"""

import logging
import pickle
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy
import pytest
import spacy
import torch
from spacy.cli.find_threshold import find_threshold
from spacy.cli.package import package
from spacy.language import Language
from spacy.tokens import DocBin

from spacy_bert_heads.backends.optimize import optimize
from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.pipeline.fitted import AROUND, Coverage, label_thresholds

from ..making import head_module, make_examples, make_nlp, make_texts
from .test_confidence import DECODERS, every_path, make_unsure, scheme_of, spelled, triples

TEXT_HEADS = ("bert_textcat", "bert_textcat_multilabel")
TEXTS = [*make_texts(40, seed=3, longest=6), "", " \n"]


def make_heads(folder: str, *heads: str) -> Language:
    """Text heads with logits of some size."""
    nlp = make_nlp(folder, heads or TEXT_HEADS)
    for number, head in enumerate(heads or TEXT_HEADS):
        torch.manual_seed(number)
        torch.nn.init.normal_(head_module(nlp, head).linear.weight, std=3.0)
    return nlp


def heat(nlp: Language, temperature: float) -> None:
    """Set temperatures as `calibrate` does."""
    for name, head in nlp.pipeline:
        cfg: Dict[str, Any] = getattr(head, "cfg", {})
        if name == "bert_textcat_multilabel":
            labels: List[str] = list(head.labels)  # type: ignore[attr-defined]
            cfg["temperature"] = {label: temperature * (1 + i) for i, label in enumerate(labels)}
            cfg[AROUND] = cfg["threshold"]
        elif name in ("bert_textcat", "bert_ner"):
            cfg["temperature"] = temperature


def cats(nlp: Language, head: str) -> numpy.ndarray:
    """Predicted by one head alone. Float, (n_texts, n_labels)."""
    others = [name for name in nlp.pipe_names if name not in ("transformer", head)]
    return numpy.array([list(doc.cats.values()) for doc in nlp.pipe(TEXTS, disable=others)])


@pytest.mark.parametrize("temperature", [0.3, 4.0])
def test_categories_at_a_temperature(bert_folder: str, temperature: float) -> None:
    nlp = make_heads(bert_folder)
    nlp.get_pipe("bert_textcat_multilabel").cfg["threshold"] = 0.3  # type: ignore[attr-defined]
    before = {head: cats(nlp, head) for head in TEXT_HEADS}
    heat(nlp, temperature)
    after = {head: cats(nlp, head) for head in TEXT_HEADS}
    # softmax(z / T) is proportional to softmax(z) ** (1 / T)
    power = before["bert_textcat"] ** (1 / temperature)
    numpy.testing.assert_allclose(after["bert_textcat"], power / power.sum(1, keepdims=True), atol=1e-4)
    assert (before["bert_textcat"].argmax(1) == after["bert_textcat"].argmax(1)).all()
    # The logit's distance from the threshold's is divided
    old, new = before["bert_textcat_multilabel"], after["bert_textcat_multilabel"]
    assert ((old >= 0.3) == (new >= 0.3)).all() and (old >= 0.3).any() and (old < 0.3).any()
    middle = numpy.log(0.3 / 0.7)
    logits = numpy.log(old / (1 - old))
    expected = 1 / (1 + numpy.exp(-(middle + (logits - middle) / (temperature * numpy.array([1, 2])))))
    numpy.testing.assert_allclose(new, expected, atol=1e-3)


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_a_threshold_at_the_border_does_no_harm(bert_folder: str, threshold: float) -> None:
    nlp = make_heads(bert_folder, "bert_textcat_multilabel")
    nlp.get_pipe("bert_textcat_multilabel").cfg["threshold"] = threshold  # type: ignore[attr-defined]
    heat(nlp, 2.0)
    found = cats(nlp, "bert_textcat_multilabel")
    assert numpy.isfinite(found).all() and 0 < found.min() < found.max() < 1


@pytest.mark.parametrize(
    ("decoder", "temperature"),
    [(DECODERS[0], 0.4), (DECODERS[-2], 3.0), (DECODERS[-1], 0.4)],
    ids=str,
)
def test_the_crf_at_a_temperature_is_every_path_at_that_temperature(
    bert_folder: str, decoder: Dict[str, Any], temperature: float
) -> None:
    nlp = make_unsure(bert_folder, **decoder)
    texts = ["Anna in New York", "", "Smith", "london york"]
    before = [triples(doc) for doc in nlp.pipe(texts)]
    heat(nlp, temperature)
    ner: Any = nlp.get_pipe("bert_ner")
    ner.annotates_uncertainty = True
    docs, scheme = list(nlp.pipe(texts)), scheme_of(nlp)
    assert [triples(doc) for doc in docs] == before
    for doc, readings in zip(docs, ner.nbest(docs, 5)):
        if not len(doc):
            continue
        paths, p = zip(*every_path(nlp, doc))
        powers = numpy.array(p) ** (1 / temperature)
        powers /= powers.sum()
        for ent, confidence in zip(triples(doc), doc._.ents_confidence):
            expected = sum(q for path, q in zip(paths, powers) if ent in spelled(scheme, path))
            assert confidence == pytest.approx(expected, abs=1e-5)
        ranked = sorted(powers, reverse=True)[: len(readings)]
        assert [reading.log_probability for reading in readings] == pytest.approx(numpy.log(ranked), abs=1e-4)
        unsure = doc._.ents_uncertainty
        assert unsure.path_log_probability == pytest.approx(numpy.log(powers.max()), abs=1e-4)
        marginals = numpy.zeros((len(doc), len(scheme.tags)))
        for path, q in zip(paths, powers):
            marginals[numpy.arange(len(doc)), path] += q
        assert unsure.best_marginals == pytest.approx(marginals.max(1), abs=1e-4)


@pytest.mark.parametrize(
    ("decoder", "threshold"), [(DECODERS[0], 0.02), (DECODERS[1], 0.1), (DECODERS[-1], 0.02)], ids=str
)
def test_a_set_has_every_entity_of_the_probability_and_no_other(
    bert_folder: str, decoder: Dict[str, Any], threshold: float
) -> None:
    nlp = make_unsure(bert_folder, **decoder)
    heat(nlp, 1.5)
    ner: Any = nlp.get_pipe("bert_ner")
    ner.set_coverage(Coverage(0.9, threshold))
    scheme, n_found = scheme_of(nlp), 0
    for doc in nlp.pipe(["Anna in New York", "", "london york smith"]):
        paths = list(every_path(nlp, doc)) if len(doc) else []
        powers = numpy.array([p for _, p in paths]) ** (1 / 1.5)
        expected: Dict[Tuple[int, int, str], float] = {}
        for (path, _), q in zip(paths, powers / powers.sum() if len(paths) else []):
            for ent in spelled(scheme, path):
                expected[ent] = expected.get(ent, 0.0) + q
        likely = {ent: q for ent, q in expected.items() if q >= threshold}
        found = {ent[:3]: ent[3] for ent in doc._.ents_set}
        assert found == pytest.approx(likely, abs=1e-4)
        assert [q for *_, q in doc._.ents_set] == sorted(found.values(), reverse=True)
        n_found += len(found)
    assert n_found >= 4


def test_the_set_of_an_empty_text_alone_is_empty(bert_folder: str) -> None:
    nlp = make_unsure(bert_folder)
    nlp.get_pipe("bert_ner").set_coverage(Coverage(0.9, 0.01))  # type: ignore[attr-defined]
    assert nlp("")._.ents_set == []


def test_white_space_around_an_entity_of_a_set_counts_as_for_predicted_ones(bert_folder: str) -> None:
    nlp = make_unsure(bert_folder)
    nlp.get_pipe("bert_ner").set_coverage(Coverage(0.9, 0.01))  # type: ignore[attr-defined]
    checked = 0
    for doc in nlp.pipe(["Anna \n in  New  York \n", " london \n york smith", "\n"]):
        found = {ent[:3]: ent[3] for ent in doc._.ents_set}
        assert not any(doc[start].is_space or doc[end - 1].is_space for start, end, _ in found)
        for ent, confidence in zip(triples(doc), doc._.ents_confidence):
            assert found.get(ent, 0.0) == pytest.approx(confidence if confidence >= 0.01 else 0.0, abs=1e-5)
            checked += 1
    assert checked


def test_chosen_labels_and_those_that_may_be_true(bert_folder: str) -> None:
    nlp = make_heads(bert_folder)
    assert nlp.make_doc("x")._.cats_chosen is None and nlp.make_doc("x")._.cats_set is None
    # The two heads of make_heads have the same labels: look at one after the other
    for doc in nlp.pipe(TEXTS, disable=["bert_textcat_multilabel"]):
        assert doc._.cats_chosen == [max(doc.cats, key=lambda label: doc.cats[label])]
        assert doc._.cats_set is None
    for doc in nlp.pipe(TEXTS, disable=["bert_textcat"]):
        ranked = sorted(doc.cats, key=lambda label: -doc.cats[label])
        assert doc._.cats_chosen == [label for label in ranked if doc.cats[label] >= 0.5]
    single, multi = (nlp.get_pipe(head) for head in TEXT_HEADS)
    limit = float(numpy.median(cats(nlp, "bert_textcat").max(1)))
    single.set_thresholds({"CANCEL": limit, "TRACK": limit})  # type: ignore[attr-defined]
    single.set_coverage(Coverage(0.9, 0.2))  # type: ignore[attr-defined]
    multi.set_thresholds({"CANCEL": 0.1})  # type: ignore[attr-defined]
    n_empty = 0
    for doc in nlp.pipe(TEXTS, disable=["bert_textcat_multilabel"]):
        assert doc._.cats_chosen == [label for label, p in doc.cats.items() if p >= max(limit, 0.5)]
        assert sorted(doc._.cats_set) == [label for label, p in sorted(doc.cats.items()) if p >= 0.2]
        n_empty += not doc._.cats_chosen
    assert 0 < n_empty < len(TEXTS)
    # A label without a threshold of its own keeps the one of the config
    for doc in nlp.pipe(TEXTS, disable=["bert_textcat"]):
        assert set(doc._.cats_chosen) == {c for c, t in (("CANCEL", 0.1), ("TRACK", 0.5)) if doc.cats[c] >= t}


def test_chosen_labels_and_sets_outlive_their_pipeline(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder, ["bert_textcat", "bert_ner"])
    for name in ("bert_textcat", "bert_ner"):
        nlp.get_pipe(name).set_coverage(Coverage(0.9, 0.01))  # type: ignore[attr-defined]
    doc = nlp("track Smith in London")
    (again,) = DocBin(docs=[doc], store_user_data=True).get_docs(nlp.vocab)
    copies = [again, type(doc)(nlp.vocab).from_bytes(doc.to_bytes()), pickle.loads(pickle.dumps(doc))]
    for copy in copies:
        for name in ("cats_chosen", "cats_set", "ents_set"):
            assert doc._.get(name) and copy._.get(name) == doc._.get(name)
            assert isinstance(copy._.get(name), list)


def test_labels_of_another_head_stay_chosen(bert_folder: str) -> None:
    nlp = make_heads(bert_folder, "bert_textcat")
    doc = nlp.make_doc(TEXTS[0])
    doc._.cats_chosen = ["URGENT", "CANCEL"]
    doc = nlp(doc)
    assert doc._.cats_chosen == ["URGENT", max(doc.cats, key=lambda label: doc.cats[label])]
    numbers = make_nlp(bert_folder, ["bert_regression"])
    assert numbers(TEXTS[0])._.cats_chosen is None


def test_entities_below_the_threshold_of_their_label_are_dropped(bert_folder: str) -> None:
    nlp = make_unsure(bert_folder)
    every = [(ent, p) for doc in nlp.pipe(TEXTS) for ent, p in zip(triples(doc), doc._.ents_confidence)]
    (_, _, most), _ = every[0]
    limit = float(numpy.median([p for (_, _, label), p in every if label == most]))
    ner: Any = nlp.get_pipe("bert_ner")
    ner.set_thresholds({most: limit})
    kept = [(ent, p) for doc in nlp.pipe(TEXTS) for ent, p in zip(triples(doc), doc._.ents_confidence)]
    assert kept == [(ent, p) for ent, p in every if ent[2] != most or p >= limit] and len(kept) < len(every)
    # The setting of the config holds as well
    ner.min_confidence = 0.999
    assert ner.thresholds == {"CITY": 0.999, "PERSON": 0.999}
    assert ner.forget_fitted() == ["thresholds"] and ner.forget_fitted() == []


def fit_all(nlp: Language) -> None:
    heat(nlp, 2.5)
    for name in nlp.pipe_names[1:]:
        head: Any = nlp.get_pipe(name)
        head.set_thresholds(dict.fromkeys(head.labels, 0.6))
        head.set_coverage(Coverage(0.9, 0.05))


def seen(nlp: Language) -> List[Any]:
    names = ("cats_chosen", "cats_set", "ents_set", "ents_confidence")
    return [(dict(doc.cats), triples(doc), *(doc._.get(name) for name in names)) for doc in nlp.pipe(TEXTS[:8])]


def copy_by_bytes(nlp: Language, folder: Path) -> Language:
    return spacy.blank("en").from_config(nlp.config).from_bytes(nlp.to_bytes())


def copy_by_disk(nlp: Language, folder: Path) -> Language:
    nlp.to_disk(folder)
    return spacy.load(folder)


def copy_by_source(nlp: Language, folder: Path) -> Language:
    copy = Language(nlp.vocab)
    for name in nlp.pipe_names:
        copy.add_pipe(name, source=nlp)
    return copy


def copy_by_package(nlp: Language, folder: Path) -> Language:
    nlp.meta["name"] = "fitted"
    nlp.to_disk(folder / "model")
    (folder / "packages").mkdir()
    package(folder / "model", folder / "packages", create_sdist=False, create_wheel=False, silent=True)
    return spacy.load(next(folder.glob("packages/*/*/*/config.cfg")).parent)


def copy_for_cpus(nlp: Language, folder: Path) -> Language:
    nlp.to_disk(folder / "model")
    optimize(str(folder / "model"), folder / "fast", backend="torch", precision="fp32")
    return spacy.load(folder / "fast")


@pytest.mark.parametrize("copy", [copy_by_bytes, copy_by_disk, copy_by_source, copy_by_package, copy_for_cpus])
def test_what_was_fitted_goes_where_the_pipeline_goes(bert_folder: str, tmp_path: Path, copy: Any) -> None:
    nlp = make_nlp(bert_folder, ["bert_textcat", "bert_ner"])
    plain = seen(nlp)
    fit_all(nlp)
    expected = seen(nlp)
    assert [found for found, *_ in expected] != [cats for cats, *_ in plain] and expected[0][3] is not None
    found = seen(copy(nlp, tmp_path))
    if copy is copy_for_cpus:  # which rounds differently
        assert [doc[1:3] for doc in found] == [doc[1:3] for doc in expected]
        for (cats, *_), (other, *_) in zip(found, expected):
            assert cats == pytest.approx(other, abs=1e-4)
    else:
        assert found == expected


def test_a_pipeline_that_is_read_over_a_fitted_one_is_as_it_was_written(bert_folder: str) -> None:
    nlp, fitted = (make_nlp(bert_folder, ["bert_textcat", "bert_textcat_multilabel", "bert_ner"]) for _ in range(2))
    fit_all(fitted)
    fitted.from_bytes(nlp.to_bytes())
    plain, again = ([doc[:2] for doc in seen(one)] for one in (nlp, fitted))
    assert plain == again


def test_training_takes_what_was_fitted_and_says_so(
    bert_folder: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    nlp = make_nlp(bert_folder, ["bert_textcat", "bert_textcat_multilabel", "bert_ner"])
    fit_all(nlp)
    multi: Any = nlp.get_pipe("bert_textcat_multilabel")
    assert multi.cfg["threshold"] is None
    monkeypatch.setattr(logging.getLogger("spacy"), "propagate", True)
    with caplog.at_level(logging.WARNING, logger="spacy"):
        with nlp.select_pipes(disable=["bert_textcat"]):
            nlp.update(make_examples(nlp))
        nlp.update([])
    assert [name for name in ("bert_textcat_multilabel", "bert_ner") if f"'{name}' learns" in caplog.text]
    assert multi.temperature is None and multi.coverage is None and multi.cfg["threshold"] == 0.5
    ner: Any = nlp.get_pipe("bert_ner")
    assert ner.temperature is None and ner.thresholds == {"CITY": 0.0, "PERSON": 0.0}
    # This one did not learn
    frozen: Any = nlp.get_pipe("bert_textcat")
    assert frozen.temperature == 2.5 and frozen.coverage == Coverage(0.9, 0.05)
    nlp.initialize(lambda: make_examples(nlp))
    assert frozen.temperature is None and frozen.cfg["threshold"] == 0.0


def test_losses_and_gradients_know_no_temperature(bert_folder: str) -> None:
    results = []
    for temperature in (None, 3.0):
        nlp = make_nlp(bert_folder, ["bert_textcat", "bert_ner"])
        if temperature is not None:
            heat(nlp, temperature)
        results.append(nlp.update(make_examples(nlp), sgd=False))
    assert results[0] == results[1]


def test_scores_of_spacy_follow_the_thresholds(bert_folder: str, tmp_path: Path) -> None:
    nlp = make_heads(bert_folder, "bert_textcat_multilabel")
    examples = make_examples(nlp)
    head: Any = nlp.get_pipe("bert_textcat_multilabel")
    before = nlp.evaluate(examples)
    low = dict.fromkeys(head.labels, 1e-09)
    head.set_thresholds(low)
    fitted = nlp.evaluate(examples)
    assert fitted["cats_f_per_type"]["TRACK"]["r"] == 1.0 == fitted["cats_micro_r"]
    assert fitted["cats_micro_p"] == pytest.approx(0.5)
    assert fitted["cats_macro_auc"] == before["cats_macro_auc"]
    head.set_thresholds({"CANCEL": 1e-9, "TRACK": 1.0})
    mixed = nlp.evaluate(examples)["cats_f_per_type"]
    assert mixed["CANCEL"]["r"] == 1.0 and mixed["TRACK"]["r"] == 0.0
    # spaCy's search sets one threshold for all labels, and is not in the way of the fitted ones nor they in its way
    nlp.to_disk(tmp_path / "fitted")
    docs = [eg.reference for eg in examples]
    DocBin(docs=docs).to_disk(tmp_path / "dev.spacy")
    model, dev = str(tmp_path / "fitted"), tmp_path / "dev.spacy"
    _, _, scores = find_threshold(model, dev, head.name, "threshold", "cats_micro_f", n_trials=3)
    head.forget_fitted()
    for threshold, score in scores.items():
        head.cfg["threshold"] = threshold
        assert nlp.evaluate(examples)["cats_micro_f"] == pytest.approx(score)
    assert len(set(scores.values())) > 1


@pytest.mark.slow
def test_find_threshold_looks_for_min_confidence(bert_folder: str, tmp_path: Path) -> None:
    nlp = make_unsure(bert_folder)
    examples = make_examples(nlp)
    nlp.to_disk(tmp_path / "model")
    DocBin(docs=[eg.reference for eg in examples]).to_disk(tmp_path / "dev.spacy")
    _, _, scores = find_threshold(
        str(tmp_path / "model"), tmp_path / "dev.spacy", "bert_ner", "min_confidence", "ents_p", n_trials=3
    )
    for threshold, score in scores.items():
        nlp.get_pipe("bert_ner").min_confidence = threshold  # type: ignore[attr-defined]
        assert nlp.evaluate(examples)["ents_p"] == pytest.approx(score)


def test_a_single_threshold_wins_over_fitted_ones() -> None:
    cfg = {"threshold": None, "thresholds": {"A": 0.2}, "single_threshold": 0.5}
    assert label_thresholds(cfg, ["A", "B"]).tolist() == [0.2, 0.5]
    assert label_thresholds({**cfg, "threshold": 0.7}, ["A", "B"]).tolist() == [0.7, 0.7]


def test_the_warning_names_what_is_gone() -> None:
    text = BertHeadsError("H600", component="bert_ner", found="temperature").text
    assert "temperature" in text and "calibrate" in text
