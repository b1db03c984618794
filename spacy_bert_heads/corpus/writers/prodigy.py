"""Docs -> Prodigy JSONL, as docs/reference/formats.md has it."""

from typing import Any, Dict, Iterable, Iterator, List, Optional

import srsly
from spacy.tokens import Doc, Span

from ..findings import Findings
from .exported import Exported

# Label of stretches about which nothing is known; the answer to them is `ignore`.
UNKNOWN_LABEL = "UNKNOWN"


# The interfaces of `blocks`, which asks for entities and categories at once; the text need not be shown twice.
CHOICE_BLOCK = {"view_id": "choice", "text": None}


class ProdigyWriter:
    """Writes one record for each text: of the view `blocks` where it has both entities and categories. Predictions
    carry no answer.

    separate (bool): Whether to write two records there instead, one for each interface.
    """

    name = "prodigy"

    def __init__(self, *, separate: bool = False) -> None:
        self._separate = separate

    def lines(self, docs: Iterable[Exported], findings: Findings) -> Iterator[str]:
        """Write a file.

        docs (Iterable[Exported]): What to write, read once.
        findings (Findings): Takes what the format cannot hold.
        YIELDS (str): Lines of the file, with their ends.
        """
        for exported in docs:
            records = list(_records(exported, findings))
            if len(records) > 1 and not self._separate:
                records = [_join(*records)]
            if not records:
                findings.note("bare", exported.where)
                records = [_task(exported)]
            for record in records:
                yield srsly.json_dumps({**exported.others, **record}) + "\n"


def _records(exported: Exported, findings: Findings) -> Iterator[Dict[str, Any]]:
    answer = {} if exported.contents.model else {"answer": "accept"}
    if exported.asks_ents:
        spans = write_spans(exported.spans, exported.confidences(), exported.contents.model)
        if exported.complete:
            spans += _unknown(exported)
            if exported.rejected:
                findings.note("lost_implied", exported.where, count=len(exported.rejected))
        else:
            if not exported.contents.model:
                spans = [{**span, "answer": "accept"} for span in spans]
            spans += [{**write_span(span), "answer": "reject"} for span in exported.rejected]
        manual, binary = ("ner_manual", "ner") if exported.contents.spans_key is None else ("spans_manual", "spans")
        view = manual if exported.complete else binary
        yield {**_task(exported), "spans": spans, "_is_binary": not exported.complete, "_view_id": view, **answer}
    scores, choices = exported.scores(), exported.choices()
    if scores:
        findings.note("lost_scores", exported.where, ", ".join(sorted(scores)), count=len(scores))
    if choices:
        yield {
            **_task(exported),
            "options": write_options(exported.doc, choices, exported.contents.model),
            "accept": [label for label, holds in choices.items() if holds],
            "config": {"choice_style": "multiple"},
            "_view_id": "choice",
            **answer,
        }


def _join(ents: Dict[str, Any], choice: Dict[str, Any]) -> Dict[str, Any]:
    config = {**choice["config"], "blocks": [{"view_id": ents["_view_id"]}, CHOICE_BLOCK]}
    return {**ents, **choice, "config": config, "_view_id": "blocks"}


def _task(exported: Exported) -> Dict[str, Any]:
    return {"text": exported.doc.text, "tokens": write_tokens(exported.doc)}


def write_tokens(doc: Doc) -> List[Dict[str, Any]]:
    """RETURNS (List[Dict[str, Any]]): The `tokens` of a record."""
    return [
        {
            "text": token.text,
            "start": token.idx,
            "end": token.idx + len(token),
            "id": token.i,
            "ws": bool(token.whitespace_),
        }
        for token in doc
    ]


def write_span(span: Span) -> Dict[str, Any]:
    """RETURNS (Dict[str, Any]): One of the `spans` of a record: where it is, and its label."""
    # `token_end` is the last token, `end` the character behind it.
    borders = {"start": span.start_char, "end": span.end_char, "token_start": span.start, "token_end": span.end - 1}
    return {**borders, "label": span.label_}


def write_spans(
    spans: Iterable[Span], confidences: Iterable[Optional[float]], model: Optional[str]
) -> List[Dict[str, Any]]:
    """Write entities, or spans that may overlap.

    spans (Iterable[Span]): The spans.
    confidences (Iterable[Optional[float]]): Their probabilities, as far as these are known.
    model (Optional[str]): Name of the pipeline that predicted them, if one did.
    RETURNS (List[Dict[str, Any]]): `spans`, with `score` where the pipeline says how sure it is, and `source`.
    """
    written = []
    for one, confidence in zip(spans, confidences):
        span = write_span(one)
        if confidence is not None:
            span["score"] = confidence
        if model is not None:
            span["source"] = model
        written.append(span)
    return written


def write_options(doc: Doc, labels: Iterable[str], model: Optional[str]) -> List[Dict[str, Any]]:
    """Write labels to choose from.

    doc (Doc): With the categories.
    labels (Iterable[str]): The labels.
    model (Optional[str]): Name of the pipeline that predicted them, if one did.
    RETURNS (List[Dict[str, Any]]): `options`. The probability of predicted ones is shown, as `textcat.correct` does.
    """
    options: List[Dict[str, Any]] = [{"id": label, "text": label} for label in labels]
    for option in options if model is not None else ():
        option["meta"] = f"{doc.cats[option['id']]:.2f}"
    return options


def _unknown(exported: Exported) -> List[Dict[str, Any]]:
    spans = [Span(exported.doc, start, end, label=label or UNKNOWN_LABEL) for start, end, label in exported.unknown]
    return [{**write_span(span), "answer": "ignore"} for span in spans]
