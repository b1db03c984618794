"""An evaluation as text for a terminal, as Markdown, JSON and one HTML page."""

from collections import Counter
from pathlib import Path
from typing import Any, Collection, Dict, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

import numpy
import srsly
from spacy.tokens import Doc
from spacy.training import Example

from ..corpus.inspection import COLOURS, draw_spans
from ..errors import BertHeadsError, printable
from ..extensions import get_confidence_in
from ..files import check_not_read, check_writable, write_files
from .category_scores import ExclusiveScorer, MultilabelScorer
from .entity_scores import NONE, read_entities
from .evaluate import Evaluation, WrongText
from .label_scores import Mistake
from .span_scores import Place
from .tables import calibrations, confusion_matrix, headlines, headlines_table, make_tables, markdown

TEMPLATE = "report.html.jinja"
NAMES = ("report.html", "report.json", "report.md")
# Texts that the page shows: the worst ones, and so many of each label and kind of mistake
N_WORST = 1000
N_OF_EACH = 20
# Characters of their JSON, so that the page stays small
MAX_JSON = 3_000_000
# What is shown of a long text, and how much of it before its first mistake
MAX_CHARACTERS = 1200
N_BEFORE = 200
# The mistakes that the pipeline is surest of
N_SUSPICIOUS = 100
SURE = 0.5
# Tokens of at least this probability need no colour
CERTAIN = 0.98
MAX_MATRIX = 30
MAX_POINTS = 1000
# Categories that are shown of a text: the best ones that are not less likely than this
MAX_CATEGORIES = 5
UNLIKELY = 0.01


class Point(NamedTuple):
    """Gold and predicted number in a plot of 100 by 100.

    x (float): Gold.
    y (float): Predicted.
    """

    x: float
    y: float


def write_report(evaluation: Evaluation, output: Path) -> None:
    """Write all scores to a JSON file, or a report into a folder.

    evaluation (Evaluation): What was found.
    output (Path): A path that ends in ".json", or a folder, which gets NAMES.
    RAISES (BertHeadsError): H123 if a file cannot be written.
    """
    content = to_json(evaluation).encode("utf8")
    if is_one_file(output):
        write_files({output: content})
        return
    page, table = to_html(evaluation).encode("utf8"), to_markdown(evaluation).encode("utf8")
    write_files({output / name: data for name, data in zip(NAMES, (page, content, table))})


def to_json(evaluation: Evaluation) -> str:
    """RETURNS (str): All scores and texts as JSON, a line for each text."""
    content = evaluation.to_dict()
    records = ",\n".join(f"    {srsly.json_dumps(record)}" for record in content.pop("records"))
    scores = srsly.json_dumps(content, indent=2).rstrip("}").rstrip()
    return f'{scores},\n  "records": [\n{records}\n  ]\n}}\n'


def is_one_file(output: Path) -> bool:
    """RETURNS (bool): Whether the scores go into one JSON file and not into a folder."""
    return output.suffix.lower() == ".json"


def check_report(output: Path, corpus: Path) -> None:
    """Refuse a place that cannot be written to before time is spent.

    output (Path): As for write_report.
    corpus (Path): The texts that are to be read.
    RAISES (BertHeadsError): H123 if it cannot be written to, or the corpus would be replaced.
    """
    for path in (output, *(output / name for name in NAMES)):
        check_not_read(path, [corpus])
    check_writable(output.parent if is_one_file(output) else output)
    if is_one_file(output) and output.is_dir():
        raise BertHeadsError("H123", path=output, found="there is a folder of this name")


def to_text(evaluation: Evaluation) -> str:
    """RETURNS (str): The scores as tables for a terminal."""
    lines = [printable(f"Note: {note}") for note in evaluation.notes]
    for table in make_tables(evaluation):
        if not table.is_detail:
            lines += ["", table.to_text()]
    summary = headlines_table(evaluation)._replace(title="")
    if summary.rows:
        lines += ["", summary.to_text()]
    return "\n".join(lines)


def to_markdown(evaluation: Evaluation) -> str:
    """RETURNS (str): The scores as Markdown."""
    lines = [f"# {markdown(evaluation.model)}", ""]
    lines += [f"{evaluation.docs:,} texts of {markdown(evaluation.corpus)}. Scores are times 100.", ""]
    lines += [f"- {markdown(note)}" for note in evaluation.notes]
    for table in (headlines_table(evaluation), *make_tables(evaluation)):
        lines += ["", table.to_markdown()]
    return "\n".join(lines) + "\n"


def to_html(evaluation: Evaluation) -> str:
    """RETURNS (str): A page that needs no other file."""
    from markupsafe import Markup

    suspicious = find_suspicious(evaluation.wrong)
    colours = {label: COLOURS[i % len(COLOURS)] for i, label in enumerate(_labels(evaluation))}
    shown = choose_texts(evaluation.wrong, {number for number, _, _ in suspicious})
    examples, size = [], 0
    for text in shown:
        made = _make_example(text, evaluation, colours)
        size += len(_script_json(made))
        if size > MAX_JSON:
            break
        examples.append(made)
    data = {"examples": examples, "labels": list(colours), "colours": COLOURS}
    return render_page(
        TEMPLATE,
        evaluation=evaluation,
        headlines=headlines(evaluation),
        tables=make_tables(evaluation),
        matrices=_matrices(evaluation),
        plots=_plots(evaluation),
        confidences=[(title, found, _selective_path(found)) for title, found in calibrations(evaluation)],
        suspicious=suspicious,
        n_shown=len(examples),
        data=Markup(_script_json(data)),
    )


def render_page(template: str, **values: Any) -> str:
    """Fill a template in.

    template (str): Its name in this folder.
    **values (Any): What it shows, escaped unless it is Markup.
    RETURNS (str): The page.
    """
    from jinja2 import Environment, FileSystemLoader

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(template).render(**values)


def find_suspicious(wrong: Sequence[WrongText]) -> List[Tuple[int, Mistake, str]]:
    """The mistakes of which the pipeline is surest: there the gold annotation may be wrong.

    wrong (Sequence[WrongText]): Texts with mistakes.
    RETURNS (List[Tuple[int, Mistake, str]]): Number of the text, the mistake, and the text's beginning; surest first.
    """
    found = [
        (text.number, mistake, _shorten(text.example.reference.text, 120))
        for text in wrong
        for mistake in text.mistakes
        if mistake.confidence is not None and mistake.confidence >= SURE
    ]
    found.sort(key=lambda case: (-(case[1].confidence or 0.0), case[0]))
    return found[:N_SUSPICIOUS]


def choose_texts(wrong: Sequence[WrongText], wanted: "set[int]") -> List[WrongText]:
    """The texts that the page shows, the worst first.

    wrong (Sequence[WrongText]): Texts with mistakes, the worst first.
    wanted (set[int]): Numbers of texts that it shows in any case.
    RETURNS (List[WrongText]): The N_WORST worst texts, those that are wanted, and N_OF_EACH for every label and kind
        of mistake, as far as there are so many.
    """
    seen: "Counter[Tuple[str, Optional[str]]]" = Counter()
    chosen: List[WrongText] = []
    for text in wrong:
        keys = {(mistake.kind, label) for mistake in text.mistakes for label in (mistake.gold, mistake.predicted)}
        if len(chosen) < N_WORST or text.number in wanted or any(seen[key] < N_OF_EACH for key in keys):
            chosen.append(text)
            seen.update(keys)
    return chosen


def _labels(evaluation: Evaluation) -> List[str]:
    """All labels, in the order in which they get their colours."""
    entities = [evaluation.entities] if evaluation.entities else []
    kinds = (*entities, *evaluation.spans, *evaluation.categories)
    return list(dict.fromkeys(label for scores in kinds for label in scores["per_label"]))


def _make_example(wrong: WrongText, evaluation: Evaluation, colours: Dict[str, str]) -> Dict[str, Any]:
    """What the page's script needs to know about a text."""
    eg = wrong.example
    text = eg.reference.text
    found = read_entities(eg) if evaluation.entities else None
    gold = {(ent.start, ent.end, ent.label) for ent in found.gold} if found else set()
    ents = eg.predicted.ents if evaluation.entities else ()
    predicted = {(ent.start_char, ent.end_char, ent.label_): ent._.confidence for ent in ents}
    groups = {scores["spans_key"]: _spans_of(eg, scores["spans_key"]) for scores in evaluation.spans}
    differing = [gold ^ predicted.keys(), *(one ^ other.keys() for one, other in groups.values())]
    first = min((span[0] for spans in differing for span in spans), default=0)
    start = max(0, first - N_BEFORE) if len(text) > MAX_CHARACTERS else 0
    end = start + MAX_CHARACTERS

    def inside(a: int, b: int) -> bool:
        return start <= a and b <= end

    made: Dict[str, Any] = {
        "n": wrong.number,
        "w": round(wrong.weight, 3),
        "text": text[start:end],
        "cut": [start > 0, len(text) > end],
        "mistakes": [_mistake_row(mistake) for mistake in wrong.mistakes],
    }
    if evaluation.entities:
        made["gold"] = [[a - start, b - start, label] for a, b, label in sorted(gold) if inside(a, b)]
        made["predicted"] = [
            [a - start, b - start, label, _round(value)]
            for (a, b, label), value in sorted(predicted.items())
            if inside(a, b)
        ]
        made["unknown"] = [
            [max(a, start) - start, min(b, end) - start]
            for a, b in (found.unknown if found else [(0, len(text))])
            if a < end and b > start
        ]
        uncertainty = eg.predicted._.ents_uncertainty
        if uncertainty is not None:
            made["tokens"] = [
                [token.idx - start, token.idx + len(token) - start, _round(best)]
                for token, best in zip(eg.predicted, uncertainty.best_marginals.tolist())
                if best < CERTAIN and inside(token.idx, token.idx + len(token))
            ]
    if groups:
        made["spans"] = [
            [
                _draw_side(eg.reference, dict.fromkeys(right), found.keys(), start, end, colours),
                _draw_side(eg.predicted, found, right, start, end, colours),
            ]
            for right, found in groups.values()
        ]
    made["cats"] = [_category_rows(eg.reference.cats, eg.predicted.cats, scores) for scores in evaluation.categories]
    return made


def _spans_of(example: Example, key: str) -> Tuple[Set[Place], Dict[Place, Optional[float]]]:
    """Gold spans of a group, and predicted ones with their confidence."""
    gold = {(span.start_char, span.end_char, span.label_) for span in example.reference.spans.get(key, ())}
    predicted = {
        (span.start_char, span.end_char, span.label_): get_confidence_in(span, key)
        for span in example.predicted.spans.get(key, ())
    }
    return gold, predicted


def _draw_side(
    doc: Doc,
    spans: Mapping[Place, Optional[float]],
    others: Collection[Place],
    start: int,
    end: int,
    colours: Dict[str, str],
) -> str:
    """HTML of spans that may overlap, between two characters. Those that the other side does not have are marked."""
    tokens = [token for token in doc if start <= token.idx and token.idx + len(token) <= end]
    starts = {token.idx: i for i, token in enumerate(tokens)}
    ends = {token.idx + len(token): i + 1 for i, token in enumerate(tokens)}
    drawn, own_colours = [], {}
    for place, value in sorted(spans.items(), key=lambda item: item[0]):
        first, last, label = place
        if first in starts and last in ends:
            shown = " ".join(filter(None, (label, _percent(value), "" if place in others else "✗")))
            own_colours[shown] = colours.get(label, COLOURS[0])
            drawn.append({"start_token": starts[first], "end_token": ends[last], "label": shown})
    return draw_spans({"text": doc.text, "tokens": [token.text for token in tokens], "spans": drawn}, own_colours)


def _percent(value: Optional[float]) -> str:
    return "" if value is None else f"{100 * value:.0f} %"


def _category_rows(gold: Dict[str, float], predicted: Dict[str, float], scores: Dict[str, Any]) -> Dict[str, Any]:
    """Gold and predicted values of one head."""
    kind, labels = scores["kind"], scores["labels"]
    best = sorted((label for label in labels if label in predicted), key=lambda label: -predicted[label])
    if kind == ExclusiveScorer.kind:
        right = max(gold, key=lambda label: gold[label], default="")
        shares = [label for label in best[:MAX_CATEGORIES] if predicted[label] >= UNLIKELY]
        best = [label for label in best if label in (*best[:1], *shares, right)]
    elif kind == MultilabelScorer.kind:
        best = [label for label in best[:MAX_CATEGORIES] if predicted[label] >= UNLIKELY]
    known = [label for label in scores.get("per_label", {}) if label in gold]
    shown = [label for label in known if gold[label] > 0 or kind == "numbers"]
    return {
        "name": scores["component"],
        "kind": kind,
        "gold": [[label, _round(gold[label])] for label in shown],
        "known": bool(known),
        "predicted": [[label, _round(predicted[label])] for label in best],
        "thresholds": scores.get("thresholds"),
    }


def _mistake_row(mistake: Mistake) -> List[Any]:
    return [mistake.kind, mistake.gold, mistake.predicted, _shorten(mistake.words, 80), _round(mistake.confidence)]


def _matrices(evaluation: Evaluation) -> List[Dict[str, Any]]:
    found = []
    for scores in evaluation.categories:
        if scores["kind"] == ExclusiveScorer.kind and scores["texts"]:
            found.append((f"Categories ({scores['component']})", list(scores["per_label"]), scores["confusion"]))
    entities = evaluation.entities
    if entities and entities["texts"]:
        found.append(("Entity labels", [*entities["per_label"], NONE], entities["confusion"]))
    matrices = []
    for title, labels, confusion in found:
        shown, counts = confusion_matrix(labels, confusion, MAX_MATRIX)
        rows = [
            {
                "label": gold or "no entity",
                "cells": [(n, n / max(sum(row), 1), gold == predicted) for predicted, n in zip(shown, row)],
                "sum": sum(confusion.get(gold, {}).values()),
            }
            for gold, row in zip(shown, counts)
        ]
        names = [label or "no entity" for label in shown]
        matrices.append({"title": title, "labels": names, "rows": rows, "n_labels": len(labels)})
    return matrices


def _plots(evaluation: Evaluation) -> List[Dict[str, Any]]:
    """Gold numbers against predicted ones."""
    plots = []
    for scorer in evaluation.numbers:
        for label, pairs in scorer.values.items():
            values = numpy.array(pairs, dtype="float64").reshape(-1, 2)
            values = values[numpy.isfinite(values).all(1)]
            if not len(values):
                continue
            low, high = float(values.min()), float(values.max())
            scale = 100 / ((high - low) or 1.0)
            chosen = numpy.random.default_rng(0).permutation(len(values))[:MAX_POINTS]
            points = [Point(*point) for point in ((values[chosen] - low) * scale).round(1).tolist()]
            title = f"{label} ({scorer.name})"
            plots.append({"title": title, "points": points, "low": low, "high": high, "n": len(values)})
    return plots


def _selective_path(calibration: Dict[str, Any]) -> Tuple[str, float]:
    """Risk against coverage in a plot of 100 by 100, and the risk at its top."""
    curve = calibration["selective"]["curve"]
    top = max(max((risk for _, risk in curve), default=0.0), 0.01)
    points = [f"{100 * coverage:.1f} {100 - 100 * risk / top:.1f}" for coverage, risk in curve]
    return "M" + "L".join(points), top


def _script_json(data: Any) -> str:
    """JSON that can stand in a script element: nothing in it ends the element or begins a comment."""
    text = srsly.json_dumps(data)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _round(value: Optional[float]) -> Optional[float]:
    return None if value is None or value != value else round(float(value), 3)


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
