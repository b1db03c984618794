"""Docs -> Prodigy JSONL, as ANNOTATION_FORMATS, section 1, has it."""

from typing import Any, Dict, Iterable, Iterator, List

import srsly

from ..findings import Findings
from .exported import Exported

# Label of stretches about which nothing is known; the answer to them is `ignore`.
UNKNOWN_LABEL = "UNKNOWN"


class ProdigyWriter:
    """Writes one record for the entities of a text and one for its categories. Predictions carry no answer."""

    name = "prodigy"

    def lines(self, docs: Iterable[Exported], findings: Findings) -> Iterator[str]:
        """Write a file.

        docs (Iterable[Exported]): What to write, read once.
        findings (Findings): Takes what the format cannot hold.
        YIELDS (str): Lines of the file, with their ends.
        """
        for exported in docs:
            records = list(_records(exported, findings))
            if not records:
                findings.note("bare", exported.where)
                records = [_task(exported)]
            for record in records:
                yield srsly.json_dumps(record) + "\n"


def _records(exported: Exported, findings: Findings) -> Iterator[Dict[str, Any]]:
    answer = {} if exported.contents.model else {"answer": "accept"}
    if exported.asks_ents:
        spans = _ents(exported)
        if exported.complete:
            spans += _unknown(exported)
            if exported.rejected:
                findings.note("lost_implied", exported.where, count=len(exported.rejected))
        else:
            spans += [
                {**_span(exported, span.start, span.end, span.label_), "answer": "reject"}
                for span in exported.rejected
            ]
        view = "ner_manual" if exported.complete else "ner"
        yield {**_task(exported), "spans": spans, "_is_binary": not exported.complete, "_view_id": view, **answer}
    scores, choices = exported.scores(), exported.choices()
    if scores:
        findings.note("lost_scores", exported.where, ", ".join(sorted(scores)), count=len(scores))
    if choices:
        yield {
            **_task(exported),
            "options": [{"id": label, "text": label} for label in choices],
            "accept": [label for label, holds in choices.items() if holds],
            "config": {"choice_style": "multiple"},
            "_view_id": "choice",
            **answer,
        }


def _task(exported: Exported) -> Dict[str, Any]:
    doc = exported.doc
    tokens = [
        {
            "text": token.text,
            "start": token.idx,
            "end": token.idx + len(token),
            "id": token.i,
            "ws": bool(token.whitespace_),
        }
        for token in doc
    ]
    return {"text": doc.text, "tokens": tokens}


def _ents(exported: Exported) -> List[Dict[str, Any]]:
    spans = []
    for ent, confidence in zip(exported.doc.ents, exported.confidences()):
        span = _span(exported, ent.start, ent.end, ent.label_)
        if confidence is not None:
            span["score"] = confidence
        if exported.contents.model is not None:
            span["source"] = exported.contents.model
        elif not exported.complete:
            span["answer"] = "accept"
        spans.append(span)
    return spans


def _unknown(exported: Exported) -> List[Dict[str, Any]]:
    return [{**_span(exported, start, end, UNKNOWN_LABEL), "answer": "ignore"} for start, end in exported.unknown]


def _span(exported: Exported, start: int, end: int, label: str) -> Dict[str, Any]:
    span = exported.doc[start:end]
    # `token_end` is the last token, `end` the character behind it.
    borders = {"start": span.start_char, "end": span.end_char, "token_start": start, "token_end": end - 1}
    return {**borders, "label": label}
