"""When to ask a pipeline which texts to annotate: as far as its doubts find more mistakes than are everywhere anyway.

A pipeline that is wrong in nearly every text learns from any of them, and most from typical ones, which stand for many
others. The fewer its mistakes are, the more has to be annotated to meet one by chance, and the more its doubts help,
if they find them.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional, Sequence, Tuple

import numpy
from spacy.tokens import Doc
from spacy.training import Example

from ..corpus.readers.formats import AUTO
from ..corpus.readers.options import ReadOptions
from ..errors import BertHeadsError
from ..evaluation.category_scores import average_precision, roc_auc
from ..evaluation.evaluate import judge_texts, read_examples
from .strategies import Scorer

# Of typical texts, where nothing is known about the pipeline's mistakes
UNKNOWN_SHARE = 0.5
# One-sided, 99 %: a wrong adviser costs more than one that comes late
Z = 2.326


@dataclass
class Trust:
    """How good a pipeline's doubts are.

    n_texts, n_wrong (int): Annotated texts that it did not learn from, and those in which it makes a mistake.
    auc (Optional[float]): The probability that it is less sure of a text with a mistake than of one without. None if
        not both are there.
    precision (Optional[float]): The share of texts with a mistake among those of which it is least sure: average
        precision, the mean over all depths of the list at which there is one. None without a mistake.
    """

    n_texts: int = 0
    n_wrong: int = 0
    auc: Optional[float] = None
    precision: Optional[float] = None

    @property
    def typical_share(self) -> float:
        """RETURNS (float): Which share of the texts to annotate had better be typical ones: one in k, if its doubts
        find k times as many mistakes as there are in as many texts anyway. So nearly all, if these are nearly
        everywhere; all, too, if its doubts are not surely better than chance; half if nobody knows.
        """
        if self.auc is None or self.precision is None:
            return 1.0 if self.n_wrong else UNKNOWN_SHARE
        if lower_auc(self.auc, self.n_wrong, self.n_texts - self.n_wrong) <= 0.5:
            return 1.0
        return min(1.0, self.n_wrong / self.n_texts / self.precision)

    def to_text(self) -> str:
        """RETURNS (str): The reason for the share, for a report."""
        if not self.n_texts:
            return "no --dev says how far to trust its doubts"
        found = f"it is wrong in {self.n_wrong} of {self.n_texts} held-out texts"
        if self.auc is None or self.precision is None:
            return found
        return f"{found}, and in {self.precision:.0%} of those of which it is least sure (AUC {self.auc:.2f})"


def lower_auc(auc: float, n_wrong: int, n_right: int) -> float:
    """The lower end of the interval of an area under the ROC curve, one-sided, 99 %.

    auc (float): 0 to 1. One pair more, half right, keeps it from being sure after two or three texts.
    n_wrong, n_right (int): Texts of both kinds, at least 1.
    RETURNS (float): At most 1; it can be below 0.

    SOURCE: Hanley and McNeil (1982), The Meaning and Use of the Area under a Receiver Operating Characteristic Curve.
    """
    n_pairs = n_wrong * n_right
    auc = (auc * n_pairs + 0.5) / (n_pairs + 1)
    both_wrong, both_right = auc / (2.0 - auc), 2.0 * auc**2 / (1.0 + auc)
    variance = auc * (1.0 - auc) + (n_wrong - 1) * (both_wrong - auc**2) + (n_right - 1) * (both_right - auc**2)
    return auc - Z * math.sqrt(max(variance, 0.0) / n_pairs)


def rate_doubts(wrong: Sequence[Optional[bool]], doubts: Sequence[float]) -> Trust:
    """Compare doubts with mistakes.

    wrong (Sequence[Optional[bool]]): Whether a pipeline makes a mistake in each text. None if nothing is known of it.
    doubts (Sequence[float]): How unsure it is of it.
    """
    known = [(mistaken, doubt) for mistaken, doubt in zip(wrong, doubts) if mistaken is not None]
    mistakes = numpy.array([mistaken for mistaken, _ in known], dtype=bool)
    unsure = numpy.array([doubt for _, doubt in known], dtype="float64")
    precision = average_precision(mistakes, unsure)
    return Trust(len(known), int(mistakes.sum()), roc_auc(mistakes, unsure), precision)


def measure_trust(scorer: Scorer, dev: Path, components: Sequence[str], spans_key: Optional[str] = None) -> Trust:
    """See how well a pipeline's doubts find its mistakes in annotated texts.

    scorer (Scorer): The pipeline, and how its doubts are measured.
    dev (Path): Annotated texts that it did not learn from, as for `evaluate`.
    components (Sequence[str]): The heads whose mistakes count.
    spans_key (Optional[str]): Where spans that may overlap are in the Docs of a corpus.
    RETURNS (Trust): What was found, in the texts in which something is annotated for these heads.
    RAISES (BertHeadsError): H1xx or H315 if the data cannot be read.
    """
    nlp, options = scorer.nlp, ReadOptions(spans_key=spans_key)
    try:
        examples = list(read_examples(nlp, dev, AUTO, options, "expand", skip_bad=True))
    except BertHeadsError as error:
        if error.code not in ("H117", "H162"):
            raise
        examples = []  # no text in it
    _, wrong, doubts = find_mistakes(scorer, examples, components)
    return rate_doubts(wrong, doubts)


def find_mistakes(
    scorer: Scorer, examples: Sequence[Example], components: Sequence[str]
) -> Tuple[List[Doc], List[Optional[bool]], List[float]]:
    """Predict annotated texts.

    scorer (Scorer): The pipeline, and how its doubts are measured.
    examples (Sequence[Example]): The texts, not predicted yet, and their annotation.
    components (Sequence[str]): The heads whose mistakes count.
    RETURNS (Tuple[List[Doc], List[Optional[bool]], List[float]]): Of each text what the pipeline predicts, whether
        that is wrong, None if nothing is known of it, and how unsure it is of it.
    """
    done, doubts = [], []
    for doc, doubt, eg in scorer.pipe(((eg.predicted, eg) for eg in examples), as_tuples=True):
        done.append(Example(doc, eg.reference))
        doubts.append(doubt)
    rights = judge_texts(scorer.nlp, done, components)
    return [eg.predicted for eg in done], [None if right is None else not right for right in rights], doubts
