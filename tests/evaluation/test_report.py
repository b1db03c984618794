"""The report's page: small, self-contained, nothing of a corpus becomes markup, and a browser shows it."""

import json
import re
import shutil
import subprocess
import time
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy
import pytest
import spacy
from spacy.tokens import Span
from spacy.training import Example

from spacy_bert_heads.evaluation import evaluate as evaluation_module
from spacy_bert_heads.evaluation import report
from spacy_bert_heads.evaluation.category_scores import ExclusiveScorer, MultilabelScorer, NumberScorer
from spacy_bert_heads.evaluation.entity_scores import EntityScorer
from spacy_bert_heads.evaluation.evaluate import Evaluation, evaluate_examples
from spacy_bert_heads.evaluation.report import choose_texts, to_html, to_markdown, to_text
from spacy_bert_heads.evaluation.span_scores import SpanScorer
from spacy_bert_heads.extensions import set_confidence
from spacy_bert_heads.layers.crf.paths import Uncertainty

from .perturb import make_example, make_examples, perturb_cats

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&amp;\u2028|`\x1b[31m"
LABELS = ("ORG", "PER", HOSTILE)
CATS = ("news", "sport", HOSTILE + "2")


def make_evaluation(monkeypatch: pytest.MonkeyPatch, examples: List[Example]) -> Evaluation:
    """Every head there is, over predictions that no pipeline made."""
    heads = [
        ExclusiveScorer("textcat", CATS),
        MultilabelScorer("topics", ["x", "y"], 0.5),
        NumberScorer("regression", ["number"]),
    ]
    monkeypatch.setattr(evaluation_module, "_find_entity_scorer", lambda nlp: EntityScorer("ner", LABELS))
    monkeypatch.setattr(evaluation_module, "_find_category_scorers", lambda nlp, gold: heads)
    evaluation = evaluate_examples(spacy.blank("en"), examples)
    evaluation.corpus = "a/path/<b>.spacy"
    return evaluation


def add_cats(examples: List[Example], seed: int = 0) -> List[Example]:
    random_state = numpy.random.RandomState(seed)
    for eg in examples:
        gold = str(random_state.choice(CATS))
        x, y, number = random_state.rand(3)
        eg.reference.cats = {gold: 1.0, "x": float(x > 0.5), "y": float(y > 0.2), "number": number}
        near = {"x": (x + random_state.rand()) / 2, "y": random_state.rand(), "number": number + random_state.rand()}
        eg.predicted.cats = {**perturb_cats(CATS, gold, random_state), **near}
        best = (1 - random_state.rand(len(eg.predicted)) ** 4).astype("float32")
        eg.predicted._.ents_uncertainty = Uncertainty(best, best, 0.0)
    return examples


def make_hostile(n: int = 60) -> List[Example]:
    examples = add_cats(make_examples(n, LABELS, longest=30))
    words = [HOSTILE, "😀😀", "Anna", "<b>", "</textarea>"]
    hostile = make_example(words, [(2, 3, "PER")], [(2, 3, HOSTILE), (3, 5, "ORG")])
    hostile.reference.cats, hostile.predicted.cats = {HOSTILE + "2": 1.0}, {"news": 1.0}
    return [hostile, make_example(["empty"]), *examples]


def read_data(page: str) -> Dict[str, Any]:
    return json.loads(page.split('id="data">')[1].split("</script>")[0])


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: List[Tuple[str, Dict[str, Any]]] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found.append((tag, dict(attrs)))


def test_nothing_of_a_corpus_becomes_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = make_evaluation(monkeypatch, make_hostile())
    page = to_html(evaluation)
    tags = Tags()
    tags.feed(page)
    names = [name for name, _ in tags.found]
    assert names.count("script") == 2 and not {"img", "textarea", "b>"} & set(names)
    assert not [attrs for _, attrs in tags.found for name in attrs if name.startswith("on")]
    # No address is fetched from anywhere
    values = [str(value) for _, attrs in tags.found for name, value in attrs.items() if name in ("src", "href")]
    assert all(value.startswith(("#", "data:,")) for value in values)
    assert not re.search(r"https?://|url\(|@import", page.replace(json.dumps(HOSTILE), ""))
    examples = read_data(page)["examples"]
    assert any(HOSTILE in example["text"] for example in examples)
    markdown, text = to_markdown(evaluation), to_text(evaluation)
    assert "\x1b" not in text and "\x1b" not in markdown and "<" not in markdown


def test_spans_that_overlap_are_drawn_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    example = make_example(["Anna", HOSTILE, "York"])
    for doc, spans in (
        (example.reference, [(0, 3, "PER"), (1, 3, HOSTILE)]),
        (example.predicted, [(0, 3, "PER"), (0, 2, "PER"), (1, 2, "NEW")]),
    ):
        doc.spans["sc"] = [Span(doc, *span) for span in spans]
    set_confidence(example.predicted.spans["sc"][0], 0.83, "sc")
    monkeypatch.setattr(
        evaluation_module, "_find_span_scorers", lambda nlp: [SpanScorer("bert_spans", ["PER", HOSTILE], "sc")]
    )
    page = to_html(evaluate_examples(spacy.blank("en"), [example]))
    [made] = read_data(page)["examples"]
    [[gold, predicted]] = made["spans"]
    assert "gold" not in made  # no head for entities
    tags = Tags()
    for html, labels in ((gold, {"PER", f"{HOSTILE} ✗"}), (predicted, {"PER 83 %", "PER ✗", "NEW ✗"})):
        tags.feed(html)
        text = unescape(re.sub(r"<[^>]*>", "\n", html))
        shown = {line.strip() for line in text.split("\n") if line.strip()}
        assert labels - {f"{HOSTILE} ✗"} <= shown and ("\u2028" in text) and "Anna" in shown
    assert {name for name, _ in tags.found} <= {"div", "span"}
    assert not [name for _, attrs in tags.found for name in attrs if name.startswith("on")]


def test_examples_say_what_is_wrong_the_worst_first(monkeypatch: pytest.MonkeyPatch) -> None:
    examples = make_hostile(40)
    evaluation = make_evaluation(monkeypatch, examples)
    data = read_data(to_html(evaluation))["examples"]
    weights = [example["w"] for example in data]
    assert weights == sorted(weights, reverse=True) and len(data) == len(evaluation.wrong) > 30
    for example in data:
        eg = examples[example["n"] - 1]
        assert example["text"] == eg.reference.text
        for (start, end, label), ent in zip(example["gold"], eg.reference.ents):
            assert (example["text"][start:end], label) == (ent.text, ent.label_)
        found = [(start, end, label) for start, end, label, _ in example["predicted"]]
        assert found == [(ent.start_char, ent.end_char, ent.label_) for ent in eg.predicted.ents]
        kinds = {kind for kind, *_ in example["mistakes"]}
        entity_kinds = {"missed", "invented", "wrong label", "wrong boundary", "wrong boundary and label"}
        assert bool(kinds & entity_kinds) == (sorted(map(tuple, example["gold"])) != found)


def test_long_texts_are_cut_around_their_first_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [f"word{i:04}" for i in range(800)]
    eg = make_example(words, [(5, 6, "PER"), (600, 602, "PER")], [(5, 6, "PER"), (600, 601, "PER")])
    [example] = read_data(to_html(make_evaluation(monkeypatch, [eg])))["examples"]
    assert len(example["text"]) == report.MAX_CHARACTERS and example["cut"] == [True, True]
    [[start, end, label]] = example["gold"]
    assert (example["text"][start:end], label) == ("word0600 word0601", "PER")
    assert start == report.N_BEFORE


def test_a_page_of_many_texts_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MAX_JSON", 60_000)
    evaluation = make_evaluation(monkeypatch, add_cats(make_examples(400, LABELS, longest=60)))
    page = to_html(evaluation)
    shown = read_data(page)["examples"]
    assert 10 < len(shown) < len(evaluation.wrong)
    assert len(json.dumps(shown)) < 60_000 + 2_000 and len(page) < 600_000
    # Characters that need more space in a script than in the text
    wrong = [make_example(["<" * 1000, "x"], [(1, 2, "PER")]) for _ in range(50)]
    assert len(read_data(to_html(make_evaluation(monkeypatch, wrong)))["examples"]) == 9


@pytest.mark.slow
def test_ten_thousand_texts_take_less_than_a_minute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    examples = add_cats(make_examples(10_000, LABELS, longest=40))
    started = time.perf_counter()
    evaluation = make_evaluation(monkeypatch, examples)
    report.write_report(evaluation, tmp_path)
    assert time.perf_counter() - started < 60
    assert (tmp_path / "report.html").stat().st_size < 5_000_000


def test_rare_mistakes_are_shown_beside_the_worst(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "N_WORST", 10)
    monkeypatch.setattr(report, "N_OF_EACH", 1)
    evaluation = make_evaluation(monkeypatch, add_cats(make_examples(300, LABELS)))
    chosen = choose_texts(evaluation.wrong, {evaluation.wrong[-1].number})
    assert chosen[:10] == evaluation.wrong[:10] and chosen[-1] is evaluation.wrong[-1]

    def kinds(texts: Any) -> Any:
        return {(one.kind, label) for text in texts for one in text.mistakes for label in (one.gold, one.predicted)}

    assert kinds(chosen) == kinds(evaluation.wrong) and len(chosen) < 100


def test_suspicious_gold_is_what_the_pipeline_is_surest_of(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = make_evaluation(monkeypatch, make_hostile())
    found = report.find_suspicious(evaluation.wrong)
    sure = [mistake.confidence for _, mistake, _ in found]
    assert sure == sorted(sure, reverse=True) and min(sure) >= report.SURE
    everything = [m.confidence for text in evaluation.wrong for m in text.mistakes if m.confidence is not None]
    assert sure[0] == max(everything) and len(found) <= report.N_SUSPICIOUS


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [1200, 400])
def test_a_browser_shows_the_page_without_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, width: int
) -> None:
    evaluation = make_evaluation(monkeypatch, make_hostile())
    path = tmp_path / "report.html"
    # What a reader does: sort each column, search, filter, ask for more, follow a suspicious annotation
    script = """<script>
    for (const head of document.querySelectorAll("table.sortable th")) if (head.onclick) head.onclick();
    const get = id => document.getElementById(id), shown = () => document.querySelectorAll(".example").length;
    const seen = [shown()];
    get("more").onclick(); seen.push(shown());
    get("search").value = "😀😀"; get("search").oninput(); seen.push(shown());
    get("search").value = ""; get("kind").value = "=missed"; get("kind").oninput();
    seen.push(get("count").textContent);
    document.querySelector("button.show").onclick(); seen.push(shown());
    seen.push(document.documentElement.scrollWidth <= window.innerWidth);
    const box = Object.assign(document.createElement("pre"), {id: "seen", textContent: JSON.stringify(seen)});
    document.body.append(box);
    </script>"""
    path.write_text(to_html(evaluation) + script, "utf8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--dump-dom"]
    profile = [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900", "--enable-logging=stderr"]
    command = [str(CHROMIUM), *options, *profile, "--virtual-time-budget=2000", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in done.stderr, done.stderr
    seen = json.loads(re.search(r'<pre id="seen">(.*?)</pre>', done.stdout).group(1))
    missed = sum(any(one.kind == "missed" for one in text.mistakes) for text in evaluation.wrong)
    n_wrong = len(evaluation.wrong)
    assert seen == [25, min(50, n_wrong), 1, f"{missed} texts", 1, True]
