"""`bert-heads check-data`: what would go wrong in training is said before it."""

import re
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import pytest
import spacy
import srsly
from spacy.tokens import Doc, DocBin, Span
from typer.testing import CliRunner

from spacy_bert_heads.cli.app import app
from spacy_bert_heads.project.configs import SCRATCH, render_config
from spacy_bert_heads.training import head_start

from ..making import make_bert_folder, make_nlp

Entity = Tuple[int, int, str]

BLANK = spacy.blank("en")


def run(*arguments: str) -> "tuple[int, str]":
    result = CliRunner().invoke(app, ["check-data", *arguments])
    return result.exit_code, result.output


def make_doc(text: str, ents: Optional[List[Entity]] = None, cats: Optional[Dict[str, float]] = None) -> Doc:
    doc = BLANK.make_doc(text)
    if ents is not None:
        doc.set_ents([doc.char_span(start, end, label=label) for start, end, label in ents], default="outside")
    doc.cats = cats or {}
    return doc


def make_docs(start: int, n: int) -> List[Doc]:
    return [
        make_doc(f"Order {i} is late", [(0, 5, "THING")], {"A": i % 2, "B": 1 - i % 2})
        for i in range(start, start + n)
    ]


def make_project(
    folder: Path, train: List[Doc], dev: List[Doc], *, heads: Tuple[str, ...] = ("textcat", "ner"), config: str = ""
) -> List[str]:
    for name, docs in (("train", train), ("dev", dev)):
        DocBin(docs=docs, store_user_data=True).to_disk(folder / f"{name}.spacy")
    text = render_config("en", heads, SCRATCH) + config
    (folder / "config.cfg").write_text(text)
    paths = [f"--paths.{name}={folder / name}.spacy" for name in ("train", "dev")]
    return [str(folder / "config.cfg"), *paths, "--output", str(folder / "report.json")]


def read_report(folder: Path) -> Dict[str, Any]:
    return dict(srsly.read_json(folder / "report.json"))


def codes(report: Dict[str, Any]) -> List[str]:
    return [error["code"] for error in report["errors"]]


@pytest.mark.slow
def test_spacys_own_checks_run_in_the_same_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # They initialise the pipeline, and nobody wants to wait for a head that is thrown away
    monkeypatch.setattr(head_start, "_read_corpus", lambda *_: pytest.fail("a head start"))
    monkeypatch.setattr(head_start, "_can_be_fitted", lambda *_: True)
    arguments = make_project(tmp_path, make_docs(0, 120), make_docs(200, 4))
    status, shown = run(*arguments, "--debug-data")
    assert status == 0, shown
    assert shown.index("Data file validation") < shown.index("124 texts fit the config")
    assert read_report(tmp_path)["errors"] == []
    # What spaCy finds wrong ends it: far too few texts
    status, shown = run(*make_project(tmp_path, make_docs(0, 5), make_docs(200, 4)), "--debug-data")
    assert status == 1 and "fit the config" not in shown


def test_good_data_pass_and_are_counted(tmp_path: Path) -> None:
    status, shown = run(*make_project(tmp_path, make_docs(0, 30), make_docs(100, 4)))
    assert status == 0, shown
    report = read_report(tmp_path)
    assert report["errors"] == report["warnings"] == []
    assert report["splits"]["train"]["docs"] == 30
    assert report["splits"]["train"]["ents"] == {"THING": 30}
    assert report["splits"]["train"]["cats"] == {"A": 15, "B": 15}
    assert report["splits"]["dev"]["tokens"] == {"sum": 16, "middle": 4, "longest": 4}
    assert "34 texts fit the config, 0 warnings" in shown


def test_one_warning_is_counted_as_one(tmp_path: Path) -> None:
    # A text of which is only said what does not apply
    docs = [*make_docs(0, 30), make_doc("neither", [], {"A": 0.0, "B": 0.0})]
    status, shown = run(*make_project(tmp_path, docs, make_docs(100, 4)))
    assert status == 0 and len(read_report(tmp_path)["warnings"]) == 1
    assert "35 texts fit the config, 1 warning;" in shown


def test_one_error_is_not_told_as_that_of_every_text(tmp_path: Path) -> None:
    status, shown = run(*make_project(tmp_path, make_docs(0, 30), []))
    assert status == 1 and "fit the config" not in shown
    assert codes(read_report(tmp_path)) == ["H310"]
    assert "The config and these 30 texts do not fit: 1 error, " in shown


def test_a_label_that_the_config_lacks_is_an_error_with_its_name(tmp_path: Path) -> None:
    srsly.write_json(tmp_path / "labels.json", ["PLACE"])
    reader = f'@readers = "spacy.read_labels.v1"\npath = "{tmp_path / "labels.json"}"\n'
    config = f"\n[initialize.components.bert_ner]\n\n[initialize.components.bert_ner.labels]\n{reader}"
    config += '\n[initialize.components.bert_textcat]\nlabels = ["A", "B"]\n'
    status, shown = run(*make_project(tmp_path, make_docs(0, 30), make_docs(100, 4), config=config))
    assert status == 1
    assert codes(read_report(tmp_path)) == ["H311"]
    assert "'THING' of 'bert_ner' is in the data (34 times)" in shown
    assert read_report(tmp_path)["heads"] == {"bert_textcat": ["A", "B"], "bert_ner": ["PLACE"]}


@pytest.mark.parametrize(("heads", "missing"), [(("ner",), "an entity"), (("textcat_multilabel",), "a true category")])
def test_a_head_without_annotation_is_an_error(tmp_path: Path, heads: Tuple[str, ...], missing: str) -> None:
    docs = [make_doc(f"text {i}", [], {}) for i in range(20)]
    status, shown = run(*make_project(tmp_path, docs, make_docs(100, 4), heads=heads))
    assert status == 1
    assert codes(read_report(tmp_path)) == ["H312"]
    assert f"'bert_{heads[0]}' has nothing to learn from: no text has {missing}" in shown


def test_two_true_categories_are_an_error_for_the_exclusive_head_only(tmp_path: Path) -> None:
    docs = [*make_docs(0, 30), make_doc("both of them", [], {"A": 1.0, "B": 1.0})]
    status, shown = run(*make_project(tmp_path, docs, make_docs(100, 4), heads=("textcat",)))
    assert status == 1
    assert codes(read_report(tmp_path)) == ["H313"]
    assert "'both of them'" in shown and "A, B" in shown
    assert run(*make_project(tmp_path, docs, make_docs(100, 4), heads=("textcat_multilabel",)))[0] == 0


def test_what_is_only_worth_a_look_warns(tmp_path: Path) -> None:
    train = [*make_docs(0, 30), make_doc("nothing known"), make_doc("not A", [], {"A": 0.0})]
    dev = [*make_docs(29, 4), make_doc("New place", [(4, 9, "PLACE")], {"A": 1.0})]
    status, shown = run(*make_project(tmp_path, train, dev))
    assert status == 0, shown
    report = read_report(tmp_path)
    assert report["splits"]["train"]["without_annotation"] == 1
    assert report["splits"]["train"]["no_true_category"] == 1
    assert report["same_text"] == {"train and dev": 1}
    for claim in (
        "1 texts are in both train and dev",
        "1 texts in train have no annotation",
        "'PLACE' is not in the train",
    ):
        assert any(claim in warning for warning in report["warnings"]), (claim, report["warnings"])


def test_entities_off_the_tokenizers_borders_are_counted_and_shown(tmp_path: Path) -> None:
    vocab = spacy.blank("en").vocab
    split = Doc(vocab, words=["Order", "BK", "12", "now"], spaces=[True, False, True, False])
    split.set_ents([split.char_span(8, 10, label="NUMBER")], default="outside")
    status, shown = run(*make_project(tmp_path, [*make_docs(0, 30), split], make_docs(100, 4)))
    assert status == 0, shown
    cases = read_report(tmp_path)["splits"]["train"]["off_token_borders"]
    assert cases == {"count": 1, "cases": [{"text": "12", "label": "NUMBER", "context": "Order BK12 now"}]}
    assert "[H316]" in shown and "1 of 31 entities" in shown
    status, shown = run(*make_project(tmp_path, [split], make_docs(100, 4), heads=("ner",)))
    assert status == 1 and codes(read_report(tmp_path)) == ["H316"], shown


def test_test_split_is_checked_too(tmp_path: Path) -> None:
    arguments = make_project(tmp_path, make_docs(0, 30), make_docs(100, 4))
    status, shown = run(*arguments, "--test", str(tmp_path / "dev.spacy"))
    assert status == 0
    assert read_report(tmp_path)["same_text"]["dev and test"] == 4


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("train.spacy", None, "H101"),
        ("train.spacy", b"not a DocBin", "H315"),
        ("config.cfg", None, "H101"),
        ("config.cfg", b"[nlp\nno config", "H221"),
        ("config.cfg", b"[nlp]\nlang = 'en'\n", "H221"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, name: str, content: Optional[bytes], code: str) -> None:
    arguments = make_project(tmp_path, make_docs(0, 30), make_docs(100, 4))
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    status, shown = run(*arguments)
    assert status == 1 and f"[{code}]" in shown, shown
    assert not (tmp_path / "report.json").exists()


def test_an_empty_split_is_an_error(tmp_path: Path) -> None:
    status, shown = run(*make_project(tmp_path, make_docs(0, 30), []))
    assert status == 1 and "[H310]" in shown


def test_numbers_to_be_predicted_are_counted_with_their_range(tmp_path: Path) -> None:
    numbers = [make_doc(f"text {i}", cats={"URGENCY": float(i), "LENGTH": i / 2}) for i in range(20)]
    arguments = make_project(tmp_path, numbers[:15], numbers[15:], heads=("regression",))
    status, shown = run(*arguments)
    report = read_report(tmp_path)
    assert status == 0 and report["errors"] == report["warnings"] == [], shown
    assert "15 (0 to 14)" in shown and "5 (7.5 to 9.5)" in shown
    assert report["splits"]["train"]["scores"]["URGENCY"] == {"n": 15, "mean": 7.0, "lowest": 0.0, "highest": 14.0}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "high"])
def test_what_is_no_number_is_an_error(tmp_path: Path, value: Any) -> None:
    docs = [make_doc(f"text {i}", cats={"URGENCY": float(i)}) for i in range(20)]
    docs[3].cats["URGENCY"] = value
    status, shown = run(*make_project(tmp_path, docs, make_docs(100, 4), heads=("regression",)))
    assert status == 1 and codes(read_report(tmp_path)) == ["H317"]
    assert repr(value) in shown and "'text 3'" in shown and "no annotation" not in shown


def test_a_target_that_teaches_or_scores_nothing_warns(tmp_path: Path) -> None:
    train = [make_doc(f"text {i}", cats={"SAME": 2.0, "GONE": float(i)}) for i in range(20)]
    dev = [make_doc(f"dev {i}", cats={"SAME": 2.0, "NEW": 1.0}) for i in range(3)]
    status, shown = run(*make_project(tmp_path, train, dev, heads=("regression",)))
    assert status == 0, shown
    for claim in (
        "'SAME' in train are 2: nothing to learn",
        "'SAME' in dev are 2: no correlation",
        "no text in dev has a number for 'GONE'",
        "'NEW' is not in the train split",
    ):
        assert claim in shown


def test_numbers_are_nothing_for_a_classifier_and_one_label_is_not_enough(tmp_path: Path) -> None:
    numbers = [make_doc(f"text {i}", cats={"A": i / 10, "B": 1.0}) for i in range(20)]
    status, shown = run(*make_project(tmp_path, numbers, numbers, heads=("textcat_multilabel",)))
    assert status == 1 and codes(read_report(tmp_path)) == ["H318"] and "from 0 to 1.9" in shown
    one = [make_doc(f"text {i}", cats={"A": 1.0}) for i in range(20)]
    status, shown = run(*make_project(tmp_path, one, one, heads=("textcat",)))
    assert status == 1 and codes(read_report(tmp_path)) == ["H303"], shown


def make_sourced_project(folder: Path, names: Tuple[str, ...], extra: str = "") -> List[str]:
    """A trained pipeline and a config that takes components from it; one of five texts has labels that are new."""
    nlp = make_nlp(make_bert_folder(folder / "bert"))
    nlp.to_disk(folder / "trained")
    old = [make_doc(f"Anna and order {i}", [(0, 4, "PERSON")]) for i in range(16)]
    new = [make_doc(f"Order {i} in Rome", [(0, 5, "NEW_ENT")]) for i in range(4)]
    for i, doc in enumerate([*old, *new]):
        labels = ("NEW", "TRACK", "CANCEL")
        doc.cats = {label: float(label == labels[min(i // 4, 2)]) for label in labels}
    arguments = make_project(folder, [*old, *new], [*old[:3], *new[:3]])
    components = "".join(f'[components.{name}]\nsource = "{folder / "trained"}"\n{extra}\n' for name in names)
    text = f"""
[paths]
train = null
dev = null

[nlp]
lang = "en"
pipeline = {srsly.json_dumps(list(names))}

[components]

{components}
[training]
frozen_components = []

[initialize]
"""
    (folder / "config.cfg").write_text(text)
    return arguments


def test_labels_that_a_sourced_head_does_not_know_are_warned_of(tmp_path: Path) -> None:
    status, shown = run(*make_sourced_project(tmp_path, ("transformer", "bert_textcat", "bert_ner")))
    assert status == 0, shown
    warnings = [warning for warning in read_report(tmp_path)["warnings"] if "[H319]" in warning]
    pattern = r"'(\w+)' is in the data \((\d+) times\), but '(\w+)'"
    found = [re.findall(pattern, warning) for warning in warnings]
    assert found == [[("NEW", "7", "bert_textcat")], [("NEW_ENT", "7", "bert_ner")]]
    assert read_report(tmp_path)["heads"] == {"bert_textcat": ["CANCEL", "TRACK"], "bert_ner": ["CITY", "PERSON"]}


def test_a_head_that_is_frozen_is_not_asked_what_it_knows(tmp_path: Path) -> None:
    arguments = make_sourced_project(tmp_path, ("transformer", "bert_textcat", "bert_ner"))
    path = Path(arguments[0])
    path.write_text(path.read_text().replace("frozen_components = []", 'frozen_components = ["bert_ner"]'))
    assert run(*arguments)[0] == 0
    assert list(read_report(tmp_path)["heads"]) == ["bert_textcat"]


@pytest.mark.parametrize(("extra", "status"), [("", 1), ('replace_listeners = ["model.tok2vec"]', 0)])
def test_a_sourced_head_needs_its_encoder_or_one_of_its_own(tmp_path: Path, extra: str, status: int) -> None:
    found, shown = run(*make_sourced_project(tmp_path, ("bert_ner",), extra))
    assert found == status, shown
    assert ("[H249] 'bert_ner'" in shown) == bool(status)


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    arguments = make_sourced_project(tmp_path, ("transformer", "bert_ner"))
    (tmp_path / "trained").rename(tmp_path / "elsewhere")
    status, shown = run(*arguments)
    assert status == 1 and "[H227]" in shown and "trained" in shown


def test_texts_of_another_language_and_long_ones_are_warned_of(tmp_path: Path) -> None:
    train = [make_doc(f"我的订单在哪里请帮我查一下退款{i}", cats={"A": i % 2, "B": 1 - i % 2}) for i in range(30)]
    dev = [*make_docs(100, 4), make_doc("word " * 2500, cats={"A": 1.0, "B": 0.0})]
    run(*make_project(tmp_path, train, dev, heads=("textcat",)))
    warnings = read_report(tmp_path)["warnings"]
    assert any(warning.startswith("in train, most letters are Chinese") for warning in warnings)
    assert any(warning.startswith("in dev, 1 texts have 2,500 to 2,500 tokens") for warning in warnings)


def make_spans_docs(start: int, n: int, *more: Entity) -> List[Doc]:
    docs = []
    for i in range(start, start + n):
        doc = make_doc(f"Order {i} of Anna is late")
        spans = [(0, 2, "ORDER"), (0, 4, "ORDER"), (3, 4, "PERSON"), *more]
        doc.spans["sc"] = [Span(doc, *span) for span in spans]
        docs.append(doc)
    return docs


def test_spans_that_overlap_are_counted(tmp_path: Path) -> None:
    status, shown = run(*make_project(tmp_path, make_spans_docs(0, 30), make_spans_docs(100, 4), heads=("spans",)))
    assert status == 0, shown
    report = read_report(tmp_path)
    assert report["errors"] == report["warnings"] == []
    train = report["splits"]["train"]
    assert train["without_annotation"] == 0
    assert train["spans"]["sc"] == {
        "docs": 30,
        "labels": {"ORDER": 60, "PERSON": 30},
        "overlapping": 90,
        "longest": 4,
        "off_token_borders": 0,
    }
    assert re.search(r"bert_spans ORDER +60 +8", shown) and re.search(r"tokens of the longest +4 +4", shown)


def test_spans_that_cannot_be_learned_or_found_are_told(tmp_path: Path) -> None:
    dev = make_spans_docs(100, 4, (0, 6, "ORDER"), (1, 2, "NEW"), (2, 3, ""))
    status, shown = run(*make_project(tmp_path, make_spans_docs(0, 30), dev, heads=("spans",)))
    assert status == 0, shown
    warnings = " ".join(read_report(tmp_path)["warnings"])
    assert "4 spans in dev have no label" in warnings and "label 'NEW' is not in the train split" in warnings
    assert "4 spans in dev have more than the 4 tokens that 'bert_spans' can find; the longest has 6" in warnings
    text = (tmp_path / "config.cfg").read_text().replace("max_width = null", "max_width = 2")
    (tmp_path / "config.cfg").write_text(text)
    arguments = [str(tmp_path / "config.cfg"), *(f"--paths.{n}={tmp_path / n}.spacy" for n in ("train", "dev"))]
    assert "30 spans in train have more than the 2 tokens" in run(*arguments)[1]


def test_a_spans_head_without_its_group_has_nothing_to_learn_from(tmp_path: Path) -> None:
    status, shown = run(*make_project(tmp_path, make_docs(0, 30), make_docs(100, 4), heads=("spans",)))
    assert status == 1 and codes(read_report(tmp_path)) == ["H312"]
    assert "a span in doc.spans['sc']" in shown
