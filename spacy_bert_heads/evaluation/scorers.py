"""Scorers for the text heads: spaCy's own over the Docs that have categories at all."""

from typing import Any, Callable, Dict, Iterable, Optional

from spacy.scorer import Scorer
from spacy.training import Example


def make_textcat_scorer() -> Callable[..., Dict[str, Any]]:
    """Registered as spacy_bert_heads.textcat_scorer.v1."""
    return score_textcat


def make_textcat_multilabel_scorer() -> Callable[..., Dict[str, Any]]:
    """Registered as spacy_bert_heads.textcat_multilabel_scorer.v1."""
    return score_textcat_multilabel


def score_textcat(examples: Iterable[Example], **kwargs: Any) -> Dict[str, Any]:
    """Scores of exclusive classes.

    examples (Iterable[Example]): Predicted and gold Docs. Those without a gold category that is true are left out;
        spaCy's own scorer counts them as wrong, or takes a rejected label for the gold one.
    **kwargs (Any): `labels` and `positive_label`, as the component passes them on.
    RETURNS (Dict[str, Any]): Scorer.score_cats', and "cats_acc", the share of Docs whose best label is the gold one.
        None for the overall scores if no Doc has categories.
    """
    examples = [eg for eg in examples if any(value > 0 for value in eg.reference.cats.values())]
    scores = Scorer.score_cats(examples, "cats", multi_label=False, **kwargs)
    labels = kwargs.get("labels", ())
    right = 0
    for eg in examples:
        predicted = {label: score for label, score in eg.predicted.cats.items() if label in labels}
        right += _best(predicted) == _best(eg.reference.cats)
    scores["cats_acc"] = right / max(len(examples), 1)
    return scores if examples else _without_overall(scores)


def score_textcat_multilabel(examples: Iterable[Example], **kwargs: Any) -> Dict[str, Any]:
    """Scores of classes that do not exclude each other, over the Docs that have categories.

    Arguments and result as for score_textcat, without "cats_acc".
    """
    examples = [eg for eg in examples if eg.reference.cats]
    scores = Scorer.score_cats(examples, "cats", multi_label=True, **kwargs)
    return scores if examples else _without_overall(scores)


def _best(cats: Dict[str, float]) -> Optional[str]:
    return max(cats, key=lambda label: cats[label], default=None)


def _without_overall(scores: Dict[str, Any]) -> Dict[str, Any]:
    return {key: value if isinstance(value, dict) else None for key, value in scores.items()}
