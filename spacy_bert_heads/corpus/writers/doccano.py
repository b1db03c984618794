"""Docs -> doccano JSONL, for the kind of project that the texts need (docs/reference/formats.md)."""

from typing import Any, Callable, Dict, Iterable, Iterator

import srsly
from spacy.tokens import Doc

from ..findings import Findings
from .exported import Exported, InferredByFile


class DoccanoWriter:
    """Writes `label` with spans for sequence labelling, `label` with names for classification, or both kinds of
    annotation, as `entities` and `cats`, for intent detection with slots.

    tokenize (Callable[[str], Doc]): Makes the tokens that a reader will make of a text.
    """

    name = "doccano"

    def __init__(self, tokenize: Callable[[str], Doc]) -> None:
        self._tokenize = tokenize

    def lines(self, docs: Iterable[Exported], findings: Findings) -> Iterator[str]:
        """Write a file.

        docs (Iterable[Exported]): What to write, read once.
        findings (Findings): Takes what the format cannot hold.
        YIELDS (str): Lines of the file, with their ends.
        """
        inferred = InferredByFile(empty_choice=False, tokenize=self._tokenize)
        for exported in docs:
            choices, scores = exported.choices(), exported.scores()
            if scores:
                findings.note("lost_scores", exported.where, ", ".join(sorted(scores)), count=len(scores))
            if exported.n_probabilities():
                findings.note("lost_confidence", exported.where, count=exported.n_probabilities())
            inferred.add(exported, choices, findings)
            yield srsly.json_dumps({**exported.others, **_record(exported, choices)}) + "\n"
        inferred.note(findings)


def _record(exported: Exported, choices: Dict[str, bool]) -> Dict[str, Any]:
    doc, contents = exported.doc, exported.contents
    spans = [[ent.start_char, ent.end_char, ent.label_] for ent in exported.spans]
    classes = [label for label, holds in choices.items() if holds]
    if contents.has_ents and contents.has_cats:
        return {"text": doc.text, "entities": spans, "cats": classes}
    return {"text": doc.text, "label": spans if contents.has_ents else classes}
