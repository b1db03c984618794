"""Docs -> Label Studio tasks, as docs/reference/formats.md has them."""

from typing import Any, Callable, Dict, Iterable, Iterator, List

import srsly
from spacy.tokens import Doc

from ..findings import Findings
from .exported import Exported, InferredByFile

# Names that the labelling config of the project must have, beside a text "text" with value "$text".
LABELS_NAME, CHOICES_NAME, TEXT_NAME = "ner", "cat", "text"


class LabelStudioWriter:
    """Writes a JSON array of tasks, with annotations of people or predictions of a model.

    tokenize (Callable[[str], Doc]): Makes the tokens that a reader will make of a text.
    first (int): Number of the first task.
    """

    name = "label-studio"

    def __init__(self, tokenize: Callable[[str], Doc], first: int = 1) -> None:
        self._tokenize = tokenize
        self._first = first

    def lines(self, docs: Iterable[Exported], findings: Findings) -> Iterator[str]:
        """Write a file.

        docs (Iterable[Exported]): What to write, read once.
        findings (Findings): Takes what the format cannot hold.
        YIELDS (str): Lines of the file, with their ends.
        """
        inferred = InferredByFile(empty_choice=True, tokenize=self._tokenize)
        before = "[\n"
        for number, exported in enumerate(docs, self._first):
            choices = exported.choices()
            if exported.asks_ents or exported.doc.cats:
                inferred.add(exported, choices, findings)
            else:
                findings.note("bare", exported.where)
            yield before + srsly.json_dumps(_task(exported, choices, number))
            before = ",\n"
        yield "[]\n" if before == "[\n" else "\n]\n"
        inferred.note(findings)


def _task(exported: Exported, choices: Dict[str, bool], number: int) -> Dict[str, Any]:
    task: Dict[str, Any] = {"id": number, "data": {**exported.others, "text": exported.doc.text}}
    results = _spans(exported) + _categories(exported, choices)
    for index, result in enumerate(results):
        result.update(id=f"r{index}", to_name=TEXT_NAME)
    if exported.contents.model is not None:
        prediction: Dict[str, Any] = {"model_version": exported.contents.model, "result": results}
        scores = [result["score"] for result in results if "score" in result]
        if scores:
            # The lowest, so that "Uncertainty sampling" serves what the model is least sure of first.
            prediction["score"] = min(scores)
        task["predictions"] = [prediction]
    elif exported.asks_ents or exported.doc.cats:
        task["annotations"] = [{"was_cancelled": False, "result": results}]
    return task


def _spans(exported: Exported) -> List[Dict[str, Any]]:
    results: List[Dict[str, Any]] = []
    for ent, confidence in zip(exported.spans, exported.confidences()):
        value = {"start": ent.start_char, "end": ent.end_char, "text": ent.text, "labels": [ent.label_]}
        results.append({"from_name": LABELS_NAME, "type": "labels", "value": value})
        if confidence is not None:
            results[-1]["score"] = confidence
    return results


def _categories(exported: Exported, choices: Dict[str, bool]) -> List[Dict[str, Any]]:
    results: List[Dict[str, Any]] = []
    if choices:
        held = [label for label, holds in choices.items() if holds]
        results.append({"from_name": CHOICES_NAME, "type": "choices", "value": {"choices": held}})
        if exported.contents.model is not None and held:
            results[-1]["score"] = min(exported.doc.cats[label] for label in held)
    for label, number in exported.scores().items():
        results.append({"from_name": label, "type": "number", "value": {"number": number}})
    return results
