"""The order of tasks, against a brute-force search for the best one that waits."""

from typing import Any, Dict, Iterator, List

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, Span

from spacy_bert_heads.annotation.streams import stream_tasks
from spacy_bert_heads.annotation.tasks import TaskMaker
from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.extensions import set_confidence

from ..making import make_nlp, make_texts


def make_pipeline() -> Language:
    """Finds a THING in each word, as sure as the number that follows it says."""

    @Language.component("numbers")
    def numbers(doc: Doc) -> Doc:
        doc.ents = [Span(doc, token.i, token.i + 1, "THING") for token in doc if token.is_alpha]
        for ent in doc.ents:
            if ent.end < len(doc):
                set_confidence(ent, float(doc[ent.end].text))
        return doc

    nlp = spacy.blank("en")
    ner: Any = nlp.add_pipe("ner")
    ner.add_label("THING")
    nlp.initialize()
    nlp.add_pipe("numbers")
    return nlp


def wait_and_choose(scores: List[float], lookahead: int) -> Iterator[int]:
    """Numbers of the scores, the best one first of those that wait."""
    waiting: List[int] = []
    for number in range(len(scores)):
        waiting.append(number)
        if len(waiting) > lookahead:
            yield waiting.pop(waiting.index(min(waiting, key=lambda n: (-scores[n], n))))
    yield from sorted(waiting, key=lambda n: (-scores[n], n))


@pytest.mark.parametrize("lookahead", [0, 1, 3, 100])
def test_doubtful_questions_overtake_others(lookahead: int) -> None:
    nlp = make_pipeline()
    texts = ["a 0.9", "b 0.1 c 0.5", "  ", "", "d 0.4 e 0.99", "no 0.5", "f"]
    confidence = [("a", 0.9), ("b", 0.1), ("c", 0.5), ("d", 0.4), ("e", 0.99), ("no", 0.5), ("f", 0.5)]
    records = [{"text": text, "id": number} for number, text in enumerate(texts)]
    found = stream_tasks(nlp, TaskMaker(nlp, "ner"), records, lookahead=lookahead)
    expected = wait_and_choose([-abs(value - 0.5) for _, value in confidence], lookahead)
    assert [task["spans"][0]["text"] for task in found] == [confidence[number][0] for number in expected]


@pytest.mark.parametrize("view", ["ner_manual", "choice", "blocks"])
def test_texts_come_by_their_scores_and_none_is_lost(bert_folder: str, view: str) -> None:
    nlp = make_nlp(bert_folder)
    records: List[Dict[str, Any]] = [{"text": text, "id": n} for n, text in enumerate(make_texts(30))]
    tasks = list(stream_tasks(nlp, TaskMaker(nlp, view), records, lookahead=100))
    scores = [task["meta"]["score"] for task in tasks]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) > 10
    assert sorted(task["id"] for task in tasks) == list(range(30))
    drawn = [task["id"] for task in stream_tasks(nlp, TaskMaker(nlp, view), records, strategy="random")]
    assert sorted(drawn) == list(range(30)) and drawn != list(range(30))


def test_a_strategy_that_does_not_fit_is_told() -> None:
    nlp = make_pipeline()
    with pytest.raises(BertHeadsError) as caught:
        next(stream_tasks(nlp, TaskMaker(nlp, "ner_manual"), [{"text": "a"}], strategy="mnlp"))
    assert caught.value.code == "H501"
