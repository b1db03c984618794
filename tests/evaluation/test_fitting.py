"""Temperatures, thresholds and sets fitted to annotated texts: on outcomes drawn from known probabilities, and against
scipy and scikit-learn.
"""

import math
from typing import Any, Callable, List, Tuple

import numpy
import pytest
import spacy
import torch
from scipy.optimize import minimize_scalar
from sklearn.metrics import f1_score, log_loss, precision_recall_curve
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example

from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.evaluation.calibrate import calibrate, to_text
from spacy_bert_heads.evaluation.conformal import conformal_threshold, fit_coverage, least_likely
from spacy_bert_heads.evaluation.evaluate import evaluate_examples
from spacy_bert_heads.evaluation.outcomes import EntityOutcomes, SpanOutcomes, TextOutcomes, observe
from spacy_bert_heads.evaluation.report import to_html
from spacy_bert_heads.evaluation.temperature import fit_temperature, minimise
from spacy_bert_heads.evaluation.thresholds import (
    Metric,
    choose,
    draw_curves,
    make_curve,
    parse_metric,
    set_thresholds,
)
from spacy_bert_heads.evaluation.thresholds import to_text as thresholds_text

from ..making import head_module, make_examples, make_nlp, make_texts
from ..pipeline.test_confidence import make_unsure, triples
from ..pipeline.test_spans import make_unsure as make_unsure_spans
from ..pipeline.test_spans import triples as span_triples

LABELS = ("CANCEL", "TRACK")


def make_outcomes(folder: str, head: str, temperature: Any, n: int = 3000) -> TextOutcomes:
    """Logits, and truths drawn from what they say at a temperature."""
    component: Any = make_nlp(folder, [head]).get_pipe(head)
    random_state = numpy.random.default_rng(0)
    logits = random_state.normal(scale=3.0, size=(n, 2)).astype("float32")
    if head == "bert_textcat":
        first = 1 / (1 + numpy.exp((logits[:, 1] - logits[:, 0]) / temperature))
        is_first = random_state.random(n) < first
        truths = numpy.stack([is_first, ~is_first], axis=1)
    else:
        truths = random_state.random((n, 2)) < 1 / (1 + numpy.exp(-logits / numpy.array(temperature)))
    known = numpy.ones_like(truths)
    return TextOutcomes(head, component, head == "bert_textcat", numpy.arange(n), logits, truths, known, 0)


@pytest.mark.parametrize(("at", "found"), [(0.35, 0.35), (1.0, 1.0), (7.0, 7.0), (0.001, 0.1), (99.0, 10.0)])
def test_the_lowest_point_is_found(at: float, found: float) -> None:
    assert minimise(lambda t: (math.log(t) - math.log(at)) ** 2) == pytest.approx(found, rel=0.01)


@pytest.mark.parametrize("temperature", [0.6, 2.5])
def test_a_temperature_is_the_one_of_the_likelihood(bert_folder: str, temperature: float) -> None:
    outcomes = make_outcomes(bert_folder, "bert_textcat", temperature)
    before = outcomes.probabilities()
    fit = fit_temperature(outcomes)
    logits, gold = outcomes.logits.astype("float64"), outcomes.truths.argmax(1)

    def nll(t: float) -> float:
        shares = numpy.exp(logits / t - (logits / t).max(1, keepdims=True))
        return log_loss(gold, shares / shares.sum(1, keepdims=True))

    best = minimize_scalar(nll, bounds=(0.1, 10), method="bounded").x
    assert fit.temperature == pytest.approx(best, rel=0.01) and fit.temperature == pytest.approx(temperature, rel=0.1)
    assert fit.after["expected_calibration_error"] < 0.03 < fit.before["expected_calibration_error"]
    assert fit.after["classwise_calibration_error"] < fit.before["classwise_calibration_error"]
    assert fit.after["nll"] == pytest.approx(nll(fit.temperature), abs=1e-4) and fit.after["nll"] < fit.before["nll"]
    assert (outcomes.probabilities().argmax(1) == before.argmax(1)).all()


def test_each_label_has_its_temperature_around_the_threshold(bert_folder: str) -> None:
    outcomes = make_outcomes(bert_folder, "bert_textcat_multilabel", [0.5, 3.0])
    before = outcomes.probabilities()
    fit = fit_temperature(outcomes)
    assert fit.temperature == pytest.approx({"CANCEL": 0.5, "TRACK": 3.0}, rel=0.15)
    assert ((outcomes.probabilities() >= 0.5) == (before >= 0.5)).all()
    assert fit.after["expected_calibration_error"] < 0.02 < fit.before["expected_calibration_error"]
    # A label that is never wrong stays as it is, and so does one of which nothing is known
    outcomes.truths[:, 0] = outcomes.logits[:, 0] > 0
    outcomes.known[:, 1] = False
    fit = fit_temperature(outcomes)
    assert fit.temperature is None and "CANCEL, TRACK" in fit.reason and outcomes.head.temperature is None


def test_nothing_is_fitted_to_a_head_that_is_always_right_or_wrong(bert_folder: str) -> None:
    outcomes = make_outcomes(bert_folder, "bert_textcat", 1.0, n=50)
    right = numpy.eye(2, dtype=bool)[outcomes.logits.argmax(1)]
    for truths, reason in ((right, "are right"), (~right, "are wrong"), (outcomes.truths, "only 20 texts")):
        outcomes.truths = truths
        if reason == "only 20 texts":
            outcomes = outcomes.select(numpy.arange(50) < 20)
        fit = fit_temperature(outcomes)
        assert fit.temperature is None and reason in fit.reason and fit.before == fit.after


def draw_gold(nlp: Language, temperature: float, n: int = 300) -> List[Example]:
    """Texts whose gold entities are the predicted ones, each with its probability at a temperature."""
    ner: Any = nlp.get_pipe("bert_ner")
    ner.cfg["temperature"] = temperature
    random_state = numpy.random.default_rng(1)
    examples = []
    for doc in nlp.pipe(make_texts(n, seed=5, longest=6)):
        gold = nlp.make_doc(doc.text)
        kept = [ent for ent, p in zip(triples(doc), doc._.ents_confidence) if random_state.random() < p]
        gold.set_ents([Span(gold, *ent) for ent in kept], default="outside")
        examples.append(Example(nlp.make_doc(doc.text), gold))
    ner.forget_fitted()
    return examples


@pytest.fixture(scope="module")
def unsure(bert_folder: str) -> Tuple[Language, List[Example]]:
    nlp = make_unsure(bert_folder)
    return nlp, draw_gold(nlp, 2.5)


def fresh(nlp: Language, examples: List[Example]) -> List[Example]:
    return [Example(nlp.make_doc(eg.reference.text), eg.reference) for eg in examples]


def test_the_temperature_of_entities_is_found_again(unsure: Tuple[Language, List[Example]]) -> None:
    nlp, examples = unsure
    before = [triples(doc) for doc in nlp.pipe([eg.reference.text for eg in examples])]
    done = calibrate(nlp, fresh(nlp, examples))
    [fit] = done.temperatures
    assert fit.temperature == pytest.approx(2.5, rel=0.25) and fit.n > 200
    assert fit.after["expected_calibration_error"] < 0.06 < fit.before["expected_calibration_error"]
    assert fit.after["nll"] < fit.before["nll"]
    assert [triples(doc) for doc in nlp.pipe([eg.reference.text for eg in examples])] == before
    # Once more: it starts from the scores as they are, and says that there was one before
    again = calibrate(nlp, fresh(nlp, examples))
    assert again.temperatures[0].temperature == fit.temperature
    assert again.notes == ["'bert_ner': dropped an older temperature."]
    nlp.get_pipe("bert_ner").forget_fitted()  # type: ignore[attr-defined]


def test_what_the_report_says_is_what_calibrate_says(unsure: Tuple[Language, List[Example]]) -> None:
    nlp, examples = unsure
    [fit] = calibrate(nlp, fresh(nlp, examples)).temperatures
    predicted = fresh(nlp, examples)
    for eg, doc in zip(predicted, nlp.pipe([eg.predicted for eg in predicted])):
        eg.predicted = doc
    evaluation = evaluate_examples(nlp, predicted)
    assert evaluation.entities is not None
    found = evaluation.entities["calibration"]
    assert found["predictions"] == fit.n
    assert found["expected_calibration_error"] == pytest.approx(fit.after["expected_calibration_error"], abs=1e-6)
    assert found["expected_calibration_error_interval"] == pytest.approx(
        fit.after["expected_calibration_error_interval"], abs=1e-6
    )
    page = to_html(evaluation)
    assert "Reliability of bert_ner" in page and "Risk against coverage of bert_ner" in page
    nlp.get_pipe("bert_ner").forget_fitted()  # type: ignore[attr-defined]


@pytest.mark.parametrize("n", [1, 9, 10, 99, 100])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_the_conformal_threshold_is_the_quantile_of_its_definition(n: int, share: float) -> None:
    values = numpy.random.default_rng(n).random(n)
    found = conformal_threshold(values.tolist(), share)
    rank = math.ceil(round((n + 1) * share, 9))
    if rank > n:
        assert found is None
    else:
        assert found is not None and (values >= found).sum() == rank


@pytest.mark.parametrize("share", [0.8, 0.9, 0.95])
def test_coverage_is_the_one_asked_for(bert_folder: str, share: float) -> None:
    lowest = numpy.array(list(least_likely(make_outcomes(bert_folder, "bert_textcat", 1.7)).values()))
    random_state = numpy.random.default_rng(2)
    covered = []
    for _ in range(100):
        order = random_state.permutation(len(lowest))
        threshold = conformal_threshold(lowest[order[:1000]].tolist(), share)
        covered.append((lowest[order[1000:]] >= threshold).mean())
    assert numpy.mean(covered) == pytest.approx(share, abs=0.01)


def test_sets_of_texts_hold_what_is_true_of_them(unsure: Tuple[Language, List[Example]]) -> None:
    nlp, examples = unsure
    done = calibrate(nlp, fresh(nlp, examples), coverage=0.8)
    [sets] = done.coverages
    assert sets.coverage is not None and sets.coverage.share == 0.8 and sets.size is not None
    head: Any = nlp.get_pipe("bert_ner")
    assert head.coverage == sets.coverage
    docs = nlp.pipe([eg.reference.text for eg in examples])
    texts = [(doc, set(triples(eg.reference))) for doc, eg in zip(docs, examples)]
    covered = [gold <= {ent[:3] for ent in doc._.ents_set} for doc, gold in texts if gold]
    # Of all texts, half of which it was fitted to
    assert numpy.mean(covered) == pytest.approx(0.8, abs=0.06)
    assert "for a coverage of 0.8" in to_text(done)
    head.forget_fitted()


def test_a_coverage_that_cannot_be_had_is_said(bert_folder: str, unsure: Tuple[Language, List[Example]]) -> None:
    outcomes = make_outcomes(bert_folder, "bert_textcat", 1.0, n=50)
    fit = fit_coverage(outcomes, 0.99, numpy.ones(50, dtype=bool))
    assert fit.coverage is None and fit.reason == "50 texts are too few to say so much: it takes 99."
    nlp, examples = unsure
    examples = [Example(nlp.make_doc("anna and smith"), doc) for doc in make_impossible(nlp, 40)]
    done = calibrate(nlp, examples, coverage=0.5)
    assert done.coverages[0].coverage is None and any("almost impossible" in note for note in done.notes)
    with pytest.raises(BertHeadsError, match="H605"):
        calibrate(nlp, examples, coverage=1.0)


def make_impossible(nlp: Language, n: int) -> List[Doc]:
    """Gold entities whose label the head does not have, or that are half a token."""
    docs = []
    for i in range(n):
        doc = nlp.make_doc("anna and smith") if i % 2 else Doc(nlp.vocab, ["an", "na", "and", "smith"], [0, 1, 1, 0])
        doc.set_ents([Span(doc, 0, 1, "NEW" if i % 2 else "PERSON")])
        docs.append(doc)
    return docs


METRICS = ["f1", "fbeta=0.5", "fbeta=2", "precision=0.9", "precision=1", "recall=0.9", "recall=1"]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("rounded", [False, True])
def test_thresholds_are_the_best_of_all_that_there_are(metric: str, rounded: bool) -> None:
    random_state = numpy.random.default_rng(3)
    scores = random_state.random(300)
    correct = random_state.random(300) < scores
    scores = scores.round(1) if rounded else scores
    support = int(correct.sum()) + 7  # some are not predicted at all
    curve, wanted = make_curve(scores.tolist(), correct.tolist(), support), parse_metric(metric)
    threshold = curve.thresholds[choose(curve, wanted)]

    def at(t: float) -> Tuple[float, float, float]:
        kept = scores >= t
        right = int(correct[kept].sum())
        precision, recall = right / max(int(kept.sum()), 1), right / support
        beta = wanted.value if wanted.name == "fbeta" else 1.0
        total = beta**2 * precision + recall
        return precision, recall, (1 + beta**2) * precision * recall / total if total else 0.0

    every = [at(t) for t in [0.0, *scores]]
    precision, recall, f = at(threshold)
    if wanted.name == "fbeta":
        assert f == pytest.approx(max(row[2] for row in every))
    elif wanted.name == "precision":
        fits = [row[1] for row in every if row[0] >= wanted.value]
        assert (precision >= wanted.value and recall == max(fits)) if fits else precision == max(r[0] for r in every)
    else:
        fits = [row[0] for row in every if row[1] >= wanted.value]
        assert recall >= wanted.value if fits else recall == max(row[1] for row in every)
        # The highest of them
        assert not fits or at(scores[scores > threshold].min())[1] == recall
        higher = numpy.unique(scores)[numpy.unique(scores) > threshold]
        assert not fits or len(higher) < 2 or at(higher[1])[1] < wanted.value
    theirs = precision_recall_curve(correct, scores)
    assert len(theirs[2]) == len(set(scores)) == len(curve.thresholds) - 1
    numpy.testing.assert_allclose(curve.precision[1:][::-1], theirs[0][:-1])
    numpy.testing.assert_allclose((curve.recall[1:] * support / correct.sum())[::-1], theirs[1][:-1])


@pytest.mark.parametrize("text", ["", "f2", "fbeta", "fbeta=0", "precision", "precision=1.5", "recall=x", "f1=1"])
def test_other_metrics_are_refused(text: str) -> None:
    with pytest.raises(BertHeadsError, match="H604"):
        parse_metric(text)
    assert parse_metric(" Precision=0.95 ") == Metric("precision", 0.95)


def test_a_probability_that_is_next_to_another_is_kept_or_not_as_the_curve_says() -> None:
    low = 0.3
    high = float(numpy.nextafter(low, 1.0))
    curve = make_curve([high, low], [True, False], 1)
    for threshold, kept in zip(curve.thresholds, curve.kept):
        assert sum(score >= threshold for score in (high, low)) == kept
    assert make_curve([1.0, 1.0], [True, True], 2).thresholds[0] > 1.0
    assert len(make_curve([], [], 0).thresholds) == 1


def make_tasks(nlp: Language, n: int = 60) -> List[Example]:
    """Texts whose categories are right in most cases, but not in all."""
    random_state = numpy.random.default_rng(4)
    examples = []
    for doc in nlp.pipe(make_texts(n, seed=6, longest=6)):
        gold = nlp.make_doc(doc.text)
        gold.cats = {label: float(random_state.random() < p) for label, p in doc.cats.items()}
        if "bert_textcat" in nlp.pipe_names:
            best = max(doc.cats, key=lambda label: doc.cats[label])
            is_best = random_state.random() < doc.cats[best]
            gold.cats = {label: float((label == best) == is_best) for label in LABELS}
        examples.append(Example(nlp.make_doc(doc.text), gold))
    return examples


def test_a_head_abstains_where_it_is_not_sure(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder, ["bert_textcat"])
    torch.nn.init.normal_(head_module(nlp, "bert_textcat").linear.weight, std=0.7)
    examples = make_tasks(nlp, 150)
    [plain] = set_thresholds(nlp, fresh(nlp, examples), "recall=1").fits
    assert plain.threshold == 0.0 and plain.reason and plain.after == plain.before
    # Half way from what it is to perfect
    wanted = round((1 + plain.before["precision"]) / 2, 3)
    [fit] = set_thresholds(nlp, fresh(nlp, examples), f"precision={wanted}").fits
    head: Any = nlp.get_pipe("bert_textcat")
    assert fit.label == "all labels" and head.cfg["thresholds"] == dict.fromkeys(LABELS, fit.threshold)
    predicted = fresh(nlp, examples)
    for eg, doc in zip(predicted, nlp.pipe([eg.predicted for eg in predicted])):
        eg.predicted = doc
    answers = [(eg.predicted._.cats_chosen, eg.reference.cats) for eg in predicted]
    right = [cats[chosen[0]] for chosen, cats in answers if chosen]
    assert 0 < len(right) < len(answers) and numpy.mean(right) >= wanted
    assert fit.after["precision"] == pytest.approx(numpy.mean(right))
    assert fit.after["recall"] == pytest.approx(sum(right) / len(answers))
    # The report counts them, and its accuracy is that of the best category
    evaluation = evaluate_examples(nlp, predicted)
    [scores] = evaluation.categories
    assert scores["abstentions"] == len(answers) - len(right)
    assert scores["accuracy_of_answers"] == pytest.approx(numpy.mean(right))
    assert any("abstains from" in note for note in evaluation.notes)
    # Calibrating drops it and says so
    notes = calibrate(nlp, fresh(nlp, examples)).notes
    assert notes[0] == "'bert_textcat': dropped thresholds, which were chosen for other probabilities."
    assert head.cfg["threshold"] == 0.0 and nlp(examples[0].reference.text)._.cats_chosen


def test_labels_that_do_not_exclude_each_other_have_one_each(bert_folder: str, tmp_path: Any) -> None:
    nlp = make_nlp(bert_folder, ["bert_textcat_multilabel"])
    torch.nn.init.normal_(head_module(nlp, "bert_textcat_multilabel").linear.weight, std=2.0)
    examples = make_tasks(nlp, 150)
    for eg in examples[::3]:
        del eg.reference.cats["TRACK"]  # unknown
    done = set_thresholds(nlp, fresh(nlp, examples), "f1")
    head: Any = nlp.get_pipe("bert_textcat_multilabel")
    assert {fit.label: fit.threshold for fit in done.fits} == head.cfg["thresholds"] and head.cfg["threshold"] is None
    predicted = fresh(nlp, examples)
    for eg, doc in zip(predicted, nlp.pipe([eg.predicted for eg in predicted])):
        eg.predicted = doc
    for fit in done.fits:
        known = [eg for eg in predicted if fit.label in eg.reference.cats]
        gold = [eg.reference.cats[fit.label] > 0 for eg in known]
        chosen = [fit.label in eg.predicted._.cats_chosen for eg in known]
        assert f1_score(gold, chosen) == pytest.approx(fit.after["f1"])
        best = max(
            f1_score(gold, [eg.predicted.cats[fit.label] >= t for eg in known], zero_division=0.0)
            for t in numpy.unique([eg.predicted.cats[fit.label] for eg in known])
        )
        assert fit.after["f1"] == pytest.approx(best) and fit.after["f1"] >= fit.before["f1"]
    # spaCy's scorer and the report use them too
    [scores] = evaluate_examples(nlp, predicted).categories
    theirs = nlp.evaluate(fresh(nlp, examples))
    for fit in done.fits:
        assert scores["per_label"][fit.label]["f1"] == pytest.approx(fit.after["f1"])
        assert theirs["cats_f_per_type"][fit.label]["f"] == pytest.approx(fit.after["f1"])
        assert scores["thresholds"][fit.label] == fit.threshold
    pytest.importorskip("matplotlib")
    draw_curves(done, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_entities_get_a_minimum_for_each_label(unsure: Tuple[Language, List[Example]]) -> None:
    nlp, examples = unsure
    done = set_thresholds(nlp, fresh(nlp, examples), "precision=0.8")
    head: Any = nlp.get_pipe("bert_ner")
    pairs = list(zip(nlp.pipe([eg.reference.text for eg in examples]), [eg.reference for eg in examples]))
    for fit in done.fits:
        if fit.curve is None:
            assert fit.support < 10 and fit.label not in head.cfg["thresholds"]
            continue
        assert head.thresholds[fit.label] == fit.threshold
        kept = [ent in triples(gold) for doc, gold in pairs for ent in triples(doc) if ent[2] == fit.label]
        assert numpy.mean(kept) == pytest.approx(fit.after["precision"])
        assert fit.after["precision"] >= 0.8 or "this is the highest" in fit.reason
    assert any(fit.curve is not None for fit in done.fits)
    assert "precision" in thresholds_text(done)
    head.forget_fitted()


def test_heads_without_gold_and_others_are_left_alone(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder, ["bert_textcat", "bert_regression", "bert_ner"])
    examples = make_examples(nlp)
    for eg in examples:
        eg.reference.cats = {}
    done = calibrate(nlp, fresh(nlp, examples))
    assert "'bert_regression' is left alone: it predicts numbers, not probabilities." in done.notes
    assert "'bert_textcat' is left alone. It has no texts with gold annotation." in done.notes
    set_thresholds(nlp, fresh(nlp, examples), "f1")
    nothing = [Example(nlp.make_doc("x"), nlp.make_doc("x"))]
    for function in (lambda: calibrate(nlp, nothing), lambda: set_thresholds(nlp, nothing, "f1")):
        with pytest.raises(BertHeadsError, match="H602"):
            function()
    blank = spacy.blank("en")
    blank.add_pipe("sentencizer")
    with pytest.raises(BertHeadsError, match="H603.*sentencizer"):
        calibrate(blank, nothing)


def test_a_true_label_that_the_head_lacks_says_nothing_of_the_others(bert_folder: str) -> None:
    nlp = make_nlp(bert_folder, ["bert_textcat"])
    cats = [{"CANCEL": 1.0, "TRACK": 0.0}, {"NEW": 1.0, "CANCEL": 0.0}, {"TRACK": 0.0}, {}]
    docs = []
    for values in cats:
        docs.append(nlp.make_doc("cancel"))
        docs[-1].cats = values
    [outcomes] = observe(nlp, [Example(nlp.make_doc("cancel"), doc) for doc in docs])
    assert isinstance(outcomes, TextOutcomes)
    assert outcomes.texts.tolist() == [0] and outcomes.truths.tolist() == [[True, False]] and outcomes.n_unknown == 3


@pytest.mark.parametrize("function", [calibrate, lambda nlp, examples: set_thresholds(nlp, examples, "f1")])
def test_entities_that_are_on_a_text_already_are_not_predicted(bert_folder: str, function: Callable[..., Any]) -> None:
    nlp = make_unsure(bert_folder)
    ruler: Any = nlp.add_pipe("entity_ruler", before="bert_ner")
    ruler.add_patterns([{"label": "PERSON", "pattern": "anna"}])
    examples = []
    for text in make_texts(60, seed=8, longest=6):
        gold = nlp.make_doc(text)
        gold.set_ents([], default="outside")
        examples.append(Example(nlp.make_doc(text), gold))
    [seen] = observe(nlp, fresh(nlp, examples))
    assert isinstance(seen, EntityOutcomes)
    pairs = [pair for batch in seen.batches for pair in zip(batch.docs, batch.ents)]
    found = {(doc[start:end].text, label) for doc, ents in pairs for start, end, label in ents}
    assert found and ("anna", "PERSON") not in found
    function(nlp, fresh(nlp, examples))


def draw_spans(nlp: Language, temperature: float, n: int = 300) -> List[Example]:
    """Texts whose gold spans are drawn from the probabilities of all spans at a temperature."""
    head: Any = nlp.get_pipe("bert_spans")
    head.cfg.update(temperature=temperature, temperature_around=[0.5] * len(head.labels))
    head.threshold = 1e-9
    random_state = numpy.random.default_rng(1)
    examples = []
    for doc in nlp.pipe(make_texts(n, seed=5, longest=6)):
        gold = nlp.make_doc(doc.text)
        kept = [span for span in doc.spans["sc"] if random_state.random() < span._.confidence]
        gold.spans["sc"] = [Span(gold, span.start, span.end, span.label_) for span in kept]
        examples.append(Example(nlp.make_doc(doc.text), gold))
    head.threshold = 0.5
    head.forget_fitted()
    return examples


@pytest.fixture(scope="module")
def unsure_spans(bert_folder: str) -> Tuple[Language, List[Example]]:
    nlp = make_unsure_spans(bert_folder, model={"max_width": 3})
    return nlp, draw_spans(nlp, 2.0)


def test_the_temperature_of_spans_is_found_again(unsure_spans: Tuple[Language, List[Example]]) -> None:
    nlp, examples = unsure_spans
    before = [span_triples(doc) for doc in nlp.pipe([eg.reference.text for eg in examples])]
    [outcomes] = observe(nlp, fresh(nlp, examples))
    assert isinstance(outcomes, SpanOutcomes)
    # Raw scores of a second way: what the observer kept, against scikit-learn and scipy
    scores, correct = outcomes.scores.astype("float64"), outcomes.correct

    def nll(t: float) -> float:
        return log_loss(correct, 1 / (1 + numpy.exp(-scores / t)))

    best = minimize_scalar(nll, bounds=(0.1, 10), method="bounded").x
    [fit] = calibrate(nlp, fresh(nlp, examples)).temperatures
    assert fit.kind == "spans" and fit.n == len(correct) > 500
    assert fit.temperature == pytest.approx(best, rel=0.01) and fit.temperature == pytest.approx(2.0, rel=0.25)
    assert fit.after["nll"] == pytest.approx(nll(fit.temperature), abs=1e-4) and fit.after["nll"] < fit.before["nll"]
    assert fit.after["expected_calibration_error"] < 0.06 < fit.before["expected_calibration_error"]
    assert [span_triples(doc) for doc in nlp.pipe([eg.reference.text for eg in examples])] == before
    assert "possible spans" in to_text(calibrate(nlp, fresh(nlp, examples)))
    nlp.get_pipe("bert_spans").forget_fitted()  # type: ignore[attr-defined]


def test_thresholds_of_spans_are_those_of_scikit_learn(unsure_spans: Tuple[Language, List[Example]]) -> None:
    nlp, examples = unsure_spans
    calibrate(nlp, fresh(nlp, examples))
    done = set_thresholds(nlp, fresh(nlp, examples), "f1")
    head: Any = nlp.get_pipe("bert_spans")
    [outcomes] = observe(nlp, fresh(nlp, examples))
    assert isinstance(outcomes, SpanOutcomes)
    rated = outcomes.rate()
    for fit in done.fits:
        here = numpy.array(rated.labels) == fit.label
        support = sum(labels.count(fit.label) for labels in outcomes.gold.values())
        precision, found, _ = precision_recall_curve(rated.correct[here], rated.confidences[here])
        recall = found * rated.correct[here].sum() / support
        best = (2 * precision * recall / numpy.maximum(precision + recall, 1e-12)).max()
        assert fit.after["f1"] == pytest.approx(best, abs=1e-6) and fit.after["f1"] >= fit.before["f1"]
    # What is found now is what the thresholds say, and the scores are those that were promised
    n_right = {fit.label: [0, 0, 0] for fit in done.fits}
    for eg, doc in zip(examples, nlp.pipe([eg.reference.text for eg in examples])):
        gold, spans = set(span_triples(eg.reference)), set(span_triples(doc))
        for label, counts in n_right.items():
            for i, side in enumerate((gold & spans, gold, spans)):
                counts[i] += sum(span[2] == label for span in side)
    for fit in done.fits:
        right, n_gold, n_found = n_right[fit.label]
        assert 2 * right / (n_gold + n_found) == pytest.approx(fit.after["f1"], abs=1e-6)
    assert dict(zip(head.labels, head.thresholds)) == pytest.approx({fit.label: fit.threshold for fit in done.fits})
    head.forget_fitted()


def test_gaps_are_no_part_of_what_is_fitted_to(unsure_spans: Tuple[Language, List[Example]]) -> None:
    nlp, examples = unsure_spans
    examples = fresh(nlp, examples[:20])
    for number, eg in enumerate(examples):
        eg.reference = eg.reference.copy()
        if number % 2:
            eg.reference.spans["unknown_spans"] = [Span(eg.reference, 0, 1, "CITY")]
        elif number % 4:
            del eg.reference.spans["sc"]
    [outcomes] = observe(nlp, examples)
    assert isinstance(outcomes, SpanOutcomes) and set(outcomes.gold) == {n for n in range(20) if n % 2 or not n % 4}
    assert set(outcomes.texts.tolist()) <= set(outcomes.gold)
    # Of texts of one token with a gap, only what is annotated is left of the label
    for number, eg in enumerate(examples):
        if len(eg.predicted) == 1 and "unknown_spans" in eg.reference.spans:
            is_city = (outcomes.texts == number) & (outcomes.labels == outcomes.head.labels.index("CITY"))
            assert outcomes.correct[is_city].all()
    sets = fit_coverage(outcomes, 0.9, numpy.ones(20, dtype=bool))
    assert sets.coverage is None and "overlap" in sets.reason
