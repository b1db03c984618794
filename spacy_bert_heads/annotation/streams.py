"""Texts -> tasks in the order in which they are worth an answer, while texts still come in."""

import heapq
import logging
from typing import Any, Dict, Iterable, Iterator, List, Optional, Tuple

from spacy.language import Language

from ..corpus.docs import check_words
from ..errors import BertHeadsError
from .strategies import make_scorer
from .tasks import BINARY_VIEWS, Task, TaskMaker

logger = logging.getLogger("spacy")

# Tasks that are looked at before one is chosen.
LOOKAHEAD = 128


def stream_tasks(
    nlp: Language,
    maker: TaskMaker,
    records: Iterable[Dict[str, Any]],
    *,
    strategy: Optional[str] = None,
    lookahead: int = LOOKAHEAD,
) -> Iterator[Task]:
    """Make tasks and let the ones that are worth most overtake others. None is lost, and few are in memory.

    What the pipeline has learned meanwhile shows in the tasks that have not been looked at yet.

    nlp (Language): Predicts.
    maker (TaskMaker): Makes the tasks.
    records (Iterable[Dict[str, Any]]): Sources with a "text". Those of no words are left out.
    strategy (Optional[str]): As for strategies.make_scorer. In views that ask yes or no it is not needed: questions
        whose probability is nearest to 0.5 come first.
    lookahead (int): How many tasks wait to be overtaken. 0 keeps their order.
    YIELDS (Dict[str, Any]): The tasks.
    RAISES (BertHeadsError): H500 to H502 for a strategy that does not fit the pipeline.
    """
    if maker.view in BINARY_VIEWS:
        # What matters is how sure the pipeline is of what is asked, not of the whole text
        scored = _score_questions(nlp, maker, records)
    else:
        scored = _score_texts(nlp, maker, records, strategy)
    waiting: List[Tuple[float, int, Task]] = []
    for number, (score, task) in enumerate(scored):
        heapq.heappush(waiting, (-score, number, task))
        if len(waiting) > lookahead:
            yield heapq.heappop(waiting)[2]
    while waiting:
        yield heapq.heappop(waiting)[2]


def _score_questions(
    nlp: Language, maker: TaskMaker, records: Iterable[Dict[str, Any]]
) -> Iterator[Tuple[float, Task]]:
    for doc, record in nlp.pipe(_contexts(nlp, records), as_tuples=True):
        for task in maker.make(doc, record=record) if len(doc) else ():
            # spaCy's own `ner` does not say how sure it is
            probability = task["meta"]["score"] if "score" in task.get("meta", {}) else 0.5
            yield 1.0 - abs(2.0 * probability - 1.0), task


def _score_texts(
    nlp: Language, maker: TaskMaker, records: Iterable[Dict[str, Any]], strategy: Optional[str]
) -> Iterator[Tuple[float, Task]]:
    scorer = make_scorer(nlp, strategy, maker.heads)
    for doc, score, record in scorer.pipe(_contexts(nlp, records), as_tuples=True):
        for task in maker.make(doc, meta={"score": score}, record=record) if len(doc) else ():
            yield score, task


def _contexts(nlp: Language, records: Iterable[Dict[str, Any]]) -> Iterator[Tuple[str, Dict[str, Any]]]:
    for record in records:
        try:
            check_words(nlp, record["text"])
        except BertHeadsError as error:
            logger.warning("A text is left out: %s", error)
        else:
            yield record["text"], record
