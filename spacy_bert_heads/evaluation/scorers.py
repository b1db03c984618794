"""Scorers for the heads: spaCy's own over what is annotated at all, and those of regression."""

from functools import partial
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence

import numpy
from spacy.scorer import Scorer, get_ner_prf
from spacy.tokens import Doc, Span
from spacy.training import Example

MIDDLE = 0.5
BELOW_MIDDLE = float(numpy.nextafter(MIDDLE, 0.0))


def make_textcat_scorer() -> Callable[..., Dict[str, Any]]:
    """Registered as spacy_bert_heads.textcat_scorer.v1."""
    return score_textcat


def make_textcat_multilabel_scorer() -> Callable[..., Dict[str, Any]]:
    """Registered as spacy_bert_heads.textcat_multilabel_scorer.v1."""
    return score_textcat_multilabel


def make_regression_scorer() -> Callable[..., Dict[str, Any]]:
    """Registered as spacy_bert_heads.regression_scorer.v1."""
    return score_regression


def make_spans_scorer() -> Callable[..., Dict[str, Any]]:
    """Registered as spacy_bert_heads.spans_scorer.v1."""
    return score_spans


def make_generation_scorer() -> Callable[..., Dict[str, Any]]:
    """Registered as spacy_bert_heads.generation_scorer.v1."""
    return score_generated


def score_textcat(examples: Iterable[Example], **kwargs: Any) -> Dict[str, Any]:
    """Scores of exclusive classes.

    examples (Iterable[Example]): Predicted and gold Docs. Those without a gold category that is true are left out;
        spaCy's own scorer counts them as wrong, or takes a rejected label for the gold one.
    **kwargs (Any): `labels` and `positive_label`, as the component passes them on.
    RETURNS (Dict[str, Any]): The scores of spaCy's own scorer of categories; "cats_acc", the share of Docs whose best
        label is the gold one; and "cats_support", the number of Docs of which each label is true. Labels that only
        the gold Docs have count as missed, and macro averages include them, and labels that no Doc has. None for the
        overall scores if no Doc has categories.
    """
    examples = [eg for eg in examples if any(value > 0 for value in eg.reference.cats.values())]
    support = _support(examples, kwargs.get("labels", ()))
    scores = Scorer.score_cats(examples, "cats", multi_label=False, **{**kwargs, "labels": list(support)})
    scores["cats_support"] = support
    labels = kwargs.get("labels", ())
    right = 0
    for eg in examples:
        predicted = {label: score for label, score in eg.predicted.cats.items() if label in labels}
        right += _best(predicted) == _best(eg.reference.cats)
    scores["cats_acc"] = right / max(len(examples), 1)
    return scores if examples else _without_overall(scores)


def score_textcat_multilabel(examples: Iterable[Example], **kwargs: Any) -> Dict[str, Any]:
    """Scores of classes that do not exclude each other, over the Docs that have categories.

    examples (Iterable[Example]), **kwargs (Any): As for score_textcat. Where `threshold` is None, `thresholds` has the
        probability from which each label counts, and `single_threshold` that of all others.
    RETURNS (Dict[str, Any]): The scores of spaCy's own scorer of categories, and "cats_support", the number of Docs of
        which each label is true. None for the overall scores if no Doc has categories.
    """
    examples = [eg for eg in examples if eg.reference.cats]
    support = _support(examples, kwargs.get("labels", ()))
    if kwargs.get("threshold") is None and kwargs.get("thresholds"):
        fitted = dict.fromkeys(support, kwargs.get("single_threshold", MIDDLE)) | kwargs["thresholds"]
        kwargs = {**kwargs, "threshold": MIDDLE, "getter": partial(_measure_from, fitted)}
    scores = Scorer.score_cats(examples, "cats", multi_label=True, **{**kwargs, "labels": list(support)})
    scores["cats_support"] = support
    return scores if examples else _without_overall(scores)


def _measure_from(thresholds: Dict[str, float], doc: Doc, attr: str) -> Dict[str, float]:
    """Categories, moved so that each label's threshold is in the middle: spaCy's scorer knows one for all labels. The
    order stays, and so do 0 and 1, the values of gold categories.
    """
    moved = {}
    for label, value in getattr(doc, attr).items():
        threshold = thresholds.get(label, MIDDLE)
        if value >= threshold:
            moved[label] = 1.0 - MIDDLE * (1.0 - value) / (1.0 - threshold) if threshold < 1.0 else 1.0
        else:
            moved[label] = min(MIDDLE * value / threshold, BELOW_MIDDLE)
    return moved


def score_regression(examples: Iterable[Example], *, labels: Iterable[str], **kwargs: Any) -> Dict[str, Any]:
    """How well numbers are predicted.

    examples (Iterable[Example]): Predicted and gold Docs. A target counts where the gold Doc has it.
    labels (Iterable[str]): The targets.
    RETURNS (Dict[str, Any]): "cats_pearson" and "cats_spearman", correlations, and "cats_rmse", root mean squared
        error: means over the targets that have them. "cats_per_target" has the three of each target and its "support",
        the number of Docs. A correlation is 0 where all predictions are alike, and None where there are fewer than two
        Docs or all gold values are alike.
    """
    examples = list(examples)
    per_target: Dict[str, Dict[str, Any]] = {}
    for label in labels:
        pairs = [(eg.predicted.cats[label], eg.reference.cats[label]) for eg in examples if label in eg.reference.cats]
        predicted, gold = numpy.array(pairs, dtype="float64").reshape(-1, 2).T
        per_target[label] = {
            "pearson": correlation(predicted, gold),
            "spearman": correlation(ranks(predicted), ranks(gold)),
            "rmse": float(numpy.sqrt(((predicted - gold) ** 2).mean())) if pairs else None,
            "support": len(pairs),
        }
    scores: Dict[str, Any] = {"cats_per_target": per_target}
    for name in ("pearson", "spearman", "rmse"):
        found: List[float] = [target[name] for target in per_target.values() if target[name] is not None]
        scores[f"cats_{name}"] = sum(found) / len(found) if found else None
    return scores


def score_spans(
    examples: Iterable[Example],
    *,
    spans_key: str,
    unknown_spans_key: Optional[str] = None,
    incorrect_spans_key: Optional[str] = None,
    annotate_ents: bool = False,
    **kwargs: Any,
) -> Dict[str, Any]:
    """How well spans are found that may overlap. Borders and label must be right.

    examples (Iterable[Example]): Predicted and gold Docs. Gold Docs without the group are left out, and so are
        predicted spans of which the gold Doc does not know whether they are there; see pipeline.span_annotations.
    spans_key (str): Key of the group in `doc.spans`.
    unknown_spans_key (Optional[str]): Key of the group that marks what nobody has annotated.
    incorrect_spans_key (Optional[str]): Key of the group of rejected spans, which are known to be wrong.
    annotate_ents (bool): Whether `doc.ents` is scored too.
    **kwargs (Any): Passed over.
    RETURNS (Dict[str, Any]): The scores of spaCy's own scorer of spans, under its names: "spans_sc_p", "_r", "_f" and
        "_per_type" for the key "sc", and those of entities. None where no gold Doc is annotated.
    """
    examples = list(examples)
    attr = f"spans_{spans_key}"
    known = {id(eg.predicted): known_spans(eg, spans_key, unknown_spans_key, incorrect_spans_key) for eg in examples}

    def get_spans(doc: Doc, _: str) -> List[Span]:
        return known[id(doc)] if id(doc) in known else list(doc.spans.get(spans_key, ()))

    scores = Scorer.score_spans(
        examples, attr, getter=get_spans, has_annotation=lambda doc: spans_key in doc.spans, allow_overlap=True
    )
    return {**scores, **get_ner_prf(examples)} if annotate_ents else scores


def score_generated(examples: Iterable[Example], *, spans_key: Optional[str] = None, **kwargs: Any) -> Dict[str, Any]:
    """How well entities are generated.

    examples (Iterable[Example]): Predicted and gold Docs.
    spans_key (Optional[str]): Key of the group in `doc.spans`. None: they are in `doc.ents`.
    **kwargs (Any): For score_spans.
    RETURNS (Dict[str, Any]): The scores of spaCy's own scorer of entities, or those of score_spans.
    """
    return get_ner_prf(examples) if spans_key is None else score_spans(examples, spans_key=spans_key, **kwargs)


def known_spans(
    example: Example,
    key: str,
    unknown_key: Optional[str],
    incorrect_key: Optional[str],
    spans: Optional[Sequence[Span]] = None,
) -> List[Span]:
    """Predicted spans of which the gold Doc knows whether they are right.

    example (Example): Prediction and gold annotation.
    key (str): Key of `doc.spans`.
    unknown_key (Optional[str]): Key of the group that marks what nobody has annotated.
    incorrect_key (Optional[str]): Key of the group of rejected spans.
    spans (Optional[Sequence[Span]]): Spans of the predicted Doc to look at. None: those under `key`.
    RETURNS (List[Span]): In the order of the group.
    """
    spans = list(example.predicted.spans.get(key, ()) if spans is None else spans)
    gold = example.reference.spans
    gaps = [(gap.start_char, gap.end_char, gap.label_) for gap in gold.get(unknown_key or "", ())]
    if not gaps:
        return spans
    told = {
        (span.start_char, span.end_char, span.label_)
        for group in (key, incorrect_key or "")
        for span in gold.get(group, ())
    }

    def is_gap(span: Span) -> bool:
        touched = (label for start, end, label in gaps if span.start_char < end and start < span.end_char)
        return any(label in ("", span.label_) for label in touched)

    return [span for span in spans if (span.start_char, span.end_char, span.label_) in told or not is_gap(span)]


def _support(examples: Iterable[Example], labels: Iterable[str]) -> Dict[str, int]:
    """Docs of which each label is true; labels that are only in the Docs come last."""
    support = dict.fromkeys(labels, 0)
    for eg in examples:
        for label, value in eg.reference.cats.items():
            if value > 0:
                support[label] = support.get(label, 0) + 1
    return support


def correlation(x: numpy.ndarray, y: numpy.ndarray) -> Optional[float]:
    """RETURNS (Optional[float]): Pearson's; see score_regression for where it is not defined."""
    if len(y) < 2 or (y == y[0]).all():
        return None
    if (x == x[0]).all():
        return 0.0
    x, y = x - x.mean(), y - y.mean()
    return float((x @ y) / numpy.sqrt((x @ x) * (y @ y)))


def ranks(values: numpy.ndarray) -> numpy.ndarray:
    """RETURNS (numpy.ndarray): Ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = numpy.unique(values, return_inverse=True, return_counts=True)
    return (numpy.cumsum(counts) - (counts - 1) / 2)[inverse]


def _best(cats: Dict[str, float]) -> Optional[str]:
    return max(cats, key=lambda label: cats[label], default=None)


def _without_overall(scores: Dict[str, Any]) -> Dict[str, Any]:
    return {key: value if isinstance(value, dict) else None for key, value in scores.items()}
