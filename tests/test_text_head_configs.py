"""`configs/text_heads`: valid, complete, and able to learn."""

import re
from pathlib import Path
from typing import Any, Dict, List

import pytest
import spacy
from spacy.cli.debug_config import debug_config
from spacy.cli.init_config import fill_config
from spacy.language import Language
from spacy.training import Example
from spacy.util import load_config, load_model_from_config

from spacy_bert_heads.training.optimizer import build_adamw_v1

from .making import assert_same_predictions, make_bert_folder, make_example, predictions

FOLDER = Path(__file__).parents[1] / "configs" / "text_heads"
PATHS = sorted(path.name for path in (FOLDER).glob("*.cfg"))
NAMES = "TextCNN TextRNN TextRNNAttention TextRCNN DPCNN BagOfNgrams NgramEmbed".split()
NAMES += ["PooledClassifier", "BiLSTMCRF"]


def test_the_docs_link_to_every_config() -> None:
    page = (FOLDER.parents[1] / "docs" / "text-heads.md").read_text(encoding="utf8")
    assert set(re.findall(r"\(\.\./configs/text_heads/(\w+\.cfg)\)", page)) == set(PATHS)


def test_every_architecture_of_a_text_head_is_in_some_config() -> None:
    text = "".join((FOLDER / name).read_text(encoding="utf8") for name in PATHS)
    assert {name for name in NAMES if f'"spacy_bert_heads.{name}.v1"' in text} == set(NAMES)


@pytest.mark.parametrize("name", PATHS)
def test_configs_are_valid_and_complete(name: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = FOLDER / name
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
    config = load_config(FOLDER / name)
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
