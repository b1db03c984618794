"""`configs/text_heads`: rendered, valid, complete, and able to learn."""

from pathlib import Path
from typing import Any, Dict, List

import pytest
import spacy
from spacy.cli.debug_config import debug_config
from spacy.cli.init_config import fill_config
from spacy.language import Language
from spacy.training import Example
from spacy.util import load_config, load_model_from_config

from spacy_bert_heads.text_configs import CONFIGS, FOLDER, LITERATURE, MARKERS, PAGE, literature_table, text_configs
from spacy_bert_heads.training.optimizer import build_adamw_v1

from .making import assert_same_predictions, make_bert_folder, make_example, predictions

ROOT = Path(__file__).parents[1]
PATHS = sorted(path.name for path in (ROOT / FOLDER).glob("*.cfg"))
HOW = "run `python -m spacy_bert_heads.project` in the repository"
NAMES = "TextCNN TextRNN TextRNNAttention TextRCNN DPCNN BagOfNgrams NgramEmbed TextEnsemble".split()
NAMES += ["PooledClassifier", "BiLSTMCRF"]


def test_files_and_table_are_what_is_rendered() -> None:
    rendered = text_configs()
    assert PATHS == sorted(Path(path).name for path in rendered)
    for path, content in rendered.items():
        assert (ROOT / path).read_text(encoding="utf8") == content, f"{path} is out of date: {HOW}"
    shown = (ROOT / PAGE).read_text(encoding="utf8").split(MARKERS[0])[1].split(MARKERS[1])[0]
    assert shown == literature_table(), HOW


def test_every_row_of_the_table_leads_to_a_config_and_every_config_is_in_a_row() -> None:
    named = {config for _, configs, _ in LITERATURE for config in configs.split(", ")}
    assert {name for name in named if not name.endswith(".cfg")} == set(CONFIGS)
    for name in named - set(CONFIGS):
        assert (ROOT / name).is_file()


def test_every_architecture_of_a_text_head_is_in_some_config() -> None:
    text = "".join((ROOT / FOLDER / name).read_text(encoding="utf8") for name in PATHS)
    assert {name for name in NAMES if f'"spacy_bert_heads.{name}.v1"' in text} == set(NAMES)


@pytest.mark.parametrize("name", PATHS)
def test_configs_are_valid_and_complete(name: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = ROOT / FOLDER / name
    debug_config(path)
    assert "Config is valid" in capsys.readouterr().out
    before, filled = fill_config(tmp_path / name, path, silent=True)
    assert filled == before
    assert load_config(tmp_path / name) == load_config(path)


def examples_for(nlp: Language, name: str) -> List[Example]:
    texts = ["我的订单", "请取消退款", "北京"] if nlp.lang == "zh" else ["where is it", "cancel my order", "new york"]
    annotation: List[Dict[str, Any]]
    if name == "token_classification.cfg":
        annotation = [{"entities": [(0, 5, "X")]}, {"entities": []}, {"entities": [(0, 3, "Y")]}]
    else:
        annotation = [{"cats": {"A": float(i == 0), "B": float(i > 0)}} for i in range(3)]
    return [make_example(nlp, text, **values) for text, values in zip(texts, annotation)]


@pytest.mark.parametrize("name", PATHS)
def test_what_a_config_says_learns_and_is_loaded_again(name: str, tmp_path: Path) -> None:
    config = load_config(ROOT / FOLDER / name)
    if "encoder" in config["paths"]:
        config["paths"]["encoder"] = make_bert_folder(tmp_path / "bert")
    nlp = load_model_from_config(config, auto_fill=True)
    examples = examples_for(nlp, name)
    nlp.initialize(lambda: examples)
    sgd = build_adamw_v1(learn_rate=0.001, warmup=0, decay="constant")
    (head,) = (name for name in nlp.pipe_names if name.startswith("bert_"))
    losses = [nlp.update(examples, sgd=sgd)[head] for _ in range(12)]
    assert min(losses[-3:]) < losses[0]
    nlp.to_disk(tmp_path / "nlp")
    loaded = spacy.load(tmp_path / "nlp")
    texts = [eg.text for eg in examples]
    assert_same_predictions(predictions(loaded.pipe(texts)), predictions(nlp.pipe(texts)))
