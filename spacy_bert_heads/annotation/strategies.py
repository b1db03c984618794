"""Which text to annotate next: scores of predicted Docs, higher ones first.

Scoring takes no second look at a Doc. The encoder's outputs are gone when the last head has read them, so `bert_ner`
says how sure it is while it predicts, on `doc._.ents_uncertainty`, and `bert_spans` on `doc._.spans_uncertainty`; text
heads say it in `doc.cats`. To `bert_spans` each possible span is a question by itself.
"""

from hashlib import blake2b
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

import numpy
from spacy.language import Language
from spacy.tokens import Doc

from ..errors import BertHeadsError
from ..layers.crf.paths import Uncertainty
from .heads import Head, Heads

RANDOM, TYPICAL = "random", "typical"


def score_mnlp(doc: Doc, heads: Heads) -> float:
    """How improbable the most probable entities are: -log P(best path of tags), per token. At least 0.

    SOURCE: Shen et al. (2018), Deep Active Learning for Named Entity Recognition, maximum normalized log-probability.
    """
    return -_uncertainty(doc, heads).mean_log_probability


def score_breaking_ties(doc: Doc, heads: Heads) -> float:
    """How close the two most probable labels of a text are: 1 - their difference. 0 to 1.

    Where any number of labels may hold, each is in a tie with its absence, and the closest of these ties counts.

    SOURCE: Luo et al. (2005), Active Learning to Recognize Multiple Types of Plankton; for several labels Brinker
    (2006), On Active Learning in Multi-label Classification.
    """
    probabilities, exclusive = _probabilities(doc, heads)
    if exclusive:
        second, first = sorted(probabilities)[-2:]
        return 1.0 - float(first - second)
    return 1.0 - float(abs(2.0 * probabilities - 1.0).min())


def score_joint(doc: Doc, heads: Heads) -> float:
    """How improbable the whole answer of both heads is: mnlp with the label of the text as one more token.

    So one number says how much of the annotator's work is still to be done on a text: where the entities are as good
    as known, the texts with unsure labels come first, and otherwise those with unsure entities, which cost most of
    the work.
    """
    entities = _uncertainty(doc, heads)
    probabilities, exclusive = _probabilities(doc, heads)
    best = probabilities.max() if exclusive else numpy.maximum(probabilities, 1.0 - probabilities)
    label = float(numpy.log(best.clip(min=numpy.finfo("float32").tiny)).sum())
    return -(entities.path_log_probability + label) / (len(entities.entropies) + 1)


class Strategy(NamedTuple):
    """A way to score predicted Docs.

    needs (Tuple[str, ...]): Fields of Heads that it reads.
    score (Callable[[Doc, Heads], float]): Higher for texts to be annotated earlier.
    """

    needs: Tuple[str, ...]
    score: Callable[[Doc, Heads], float]


STRATEGIES: Dict[str, Strategy] = {
    "mnlp": Strategy(("finder",), score_mnlp),
    "breaking-ties": Strategy(("textcat",), score_breaking_ties),
    "joint": Strategy(("finder", "textcat"), score_joint),
}
NEEDS = {"finder": "a bert_ner or bert_spans", "textcat": "a text head with a label to choose"}


class Scorer:
    """Predicts texts and says how much each is worth annotating.

    From now on the pipeline's `bert_ner` or `bert_spans` also leaves its uncertainty on each Doc, if the strategy
    reads it.

    nlp (Language): The pipeline.
    strategy (str): Key of STRATEGIES, or "random".
    heads (Heads): Its heads.
    seed (int): For "random".
    RAISES (BertHeadsError): H500 for an unknown strategy, H501 if the pipeline has not what it needs.
    """

    def __init__(self, nlp: Language, strategy: str, heads: Heads, seed: int = 0) -> None:
        if strategy != RANDOM and strategy not in STRATEGIES:
            raise BertHeadsError("H500", found=strategy, expected=", ".join([*STRATEGIES, RANDOM]))
        self.nlp = nlp
        self.strategy = strategy
        self.heads = heads
        self.seed = seed
        needs = STRATEGIES[strategy].needs if strategy != RANDOM else ()
        for need in needs:
            if not _can_be_unsure(heads, need):
                raise BertHeadsError("H501", found=strategy, expected=NEEDS[need])
        if "finder" in needs:
            nlp.get_pipe(heads.finder.name).annotates_uncertainty = True  # type: ignore[attr-defined,union-attr]

    def score(self, doc: Doc) -> float:
        """Score a Doc.

        doc (Doc): As it came out of the pipeline.
        RETURNS (float): Higher for a Doc to be annotated earlier.
        """
        if self.strategy == RANDOM:
            return random_number(doc.text, self.seed)
        return STRATEGIES[self.strategy].score(doc, self.heads)

    def pipe(
        self, texts: Iterable[Any], *, as_tuples: bool = False, batch_size: Optional[int] = None
    ) -> Iterator[Any]:
        """Predict and score a stream.

        texts (Iterable[Any]): Texts or Docs, with `as_tuples` each with something to come out beside it.
        as_tuples (bool): As in `nlp.pipe`.
        batch_size (Optional[int]): Docs at a time; None takes the pipeline's own number.
        YIELDS (Tuple): The Doc and its score, with `as_tuples` also what came with it.
        """
        if as_tuples:
            for doc, context in self.nlp.pipe(texts, as_tuples=True, batch_size=batch_size):
                yield doc, self.score(doc), context
        else:
            for doc in self.nlp.pipe(texts, batch_size=batch_size):
                yield doc, self.score(doc)


def make_scorer(nlp: Language, strategy: Optional[str], heads: Heads, *, seed: int = 0) -> Scorer:
    """Make the scorer of a pipeline.

    nlp (Language): The pipeline.
    strategy (Optional[str]): Key of STRATEGIES, "random", or None for the one that fits the heads.
    heads (Heads): The heads that somebody is to be asked about.
    seed (int): For "random".
    RETURNS (Scorer): To be called with texts.
    RAISES (BertHeadsError): As Scorer; H502 if none was given and no head can be unsure.
    """
    return Scorer(nlp, default_strategy(heads) if strategy is None else strategy, heads, seed)


def default_strategy(heads: Heads) -> str:
    """The strategy for some heads; benchmarks/active_learning.py compares them.

    heads (Heads): Those that somebody is to be asked about.
    RETURNS (str): Key of STRATEGIES: "joint" for both heads, "mnlp" for entities or spans, "breaking-ties" for texts.
    RAISES (BertHeadsError): H502 if no head can be unsure.
    """
    if not can_be_unsure(heads):
        raise BertHeadsError("H502")
    finder, textcat = (_can_be_unsure(heads, need) for need in NEEDS)
    return "joint" if finder and textcat else "mnlp" if finder else "breaking-ties"


def can_be_unsure(heads: Heads) -> bool:
    """RETURNS (bool): Whether one of the heads says how sure it is, so that there is a default strategy."""
    return any(_can_be_unsure(heads, need) for need in NEEDS)


def random_number(text: str, seed: int) -> float:
    """A number for a text that is the same wherever the text comes in a stream.

    text (str): The text.
    seed (int): Another one gives other numbers.
    RETURNS (float): From 0 to 1, evenly.
    """
    digest = blake2b(text.encode("utf8", "surrogatepass"), digest_size=7, key=str(seed).encode("ascii")).digest()
    # 53 bits, as many as a float holds
    return (int.from_bytes(digest, "big") >> 3) / 2.0**53


def _can_be_unsure(heads: Heads, need: str) -> bool:
    if need == "finder":
        return heads.finder is not None and heads.finder.scored
    # A single exclusive label is always right
    return heads.textcat is not None and len(heads.textcat.labels) > int(heads.textcat.exclusive)


def _uncertainty(doc: Doc, heads: Heads) -> Uncertainty:
    return Uncertainty(*(doc._.spans_uncertainty if heads.ner is None else doc._.ents_uncertainty))


def _probabilities(doc: Doc, heads: Heads) -> Tuple[numpy.ndarray, bool]:
    """Of the labels of a text, and whether exactly one holds. Float, (n_labels,)."""
    head: Head = heads.textcat  # type: ignore[assignment]
    values: List[float] = [doc.cats[label] for label in head.labels]
    return numpy.array(values, dtype="float64").clip(0.0, 1.0), head.exclusive
