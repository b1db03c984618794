"""`bert-heads train`: what is given on the command line is used, or refused."""

from pathlib import Path
from typing import Any, Dict, List

import spacy
from spacy.tokens import DocBin
from typer.testing import CliRunner

from spacy_bert_heads.cli.app import app
from spacy_bert_heads.project.configs import SCRATCH, render_config

from ..making import make_bert_folder, make_examples


def make_config(folder: Path, encoder: str = SCRATCH, heads: Any = ("textcat",)) -> List[str]:
    DocBin(docs=[eg.reference for eg in make_examples(spacy.blank("en"))]).to_disk(folder / "corpus.spacy")
    text = render_config("en", heads, encoder)
    for split in ("train", "dev"):
        text = text.replace(f'{split} = "corpus/{split}.spacy"', f'{split} = "{folder / "corpus.spacy"}"')
    for small in ("width = 16", "heads = 2", "feed_forward_width = 16", "depth = 1", "vocab_size = 100"):
        name = small.split(" = ")[0]
        text = "\n".join(small if line.startswith(f"{name} = ") else line for line in text.split("\n"))
    (folder / "config.cfg").write_text(text)
    paths = [f"--paths.{split}={folder / 'corpus.spacy'}" for split in ("train", "dev")]
    return [str(folder / "config.cfg"), "--output", str(folder / "out"), *paths, "--training.max_epochs=1"]


def train(*arguments: str) -> "tuple[int, str]":
    result = CliRunner().invoke(app, ["train", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def read_config(folder: Path) -> Dict[str, Any]:
    return dict(spacy.util.load_config(folder / "out" / "model-last" / "config.cfg", interpolate=True))


def test_a_path_that_the_config_does_not_use_is_refused(tmp_path: Path) -> None:
    status, shown = train(*make_config(tmp_path), "--paths.encoder", make_bert_folder(tmp_path / "bert"))
    assert status == 1 and "[H229] nothing in this config uses paths.encoder" in shown and "--encoder" in shown
    assert not (tmp_path / "out").exists()


def test_an_encoder_given_to_train_is_trained_with_its_rates(tmp_path: Path) -> None:
    folder = make_bert_folder(tmp_path / "bert")
    status, shown = train(*make_config(tmp_path), "--encoder", folder, "--training.dropout", "0.25")
    assert status == 0, shown
    config = read_config(tmp_path)
    wanted = spacy.util.load_config_from_str(render_config("en", ["textcat"], folder), interpolate=True)
    assert config["components"]["transformer"]["model"]["name"] == folder
    assert config["training"]["optimizer"]["learn_rate"] == wanted["training"]["optimizer"]["learn_rate"]
    assert config["training"]["dropout"] == 0.25  # what is said by name comes last
    nlp = spacy.load(tmp_path / "out" / "model-last")
    assert nlp.get_pipe("transformer").model.get_dim("nO") == 16  # type: ignore[attr-defined]


def test_a_training_from_scratch_is_resumed_with_the_same_encoder_only(tmp_path: Path) -> None:
    arguments = make_config(tmp_path)
    assert train(*arguments, "--encoder", SCRATCH)[0] == 0
    status, shown = train(*arguments, "--resume", "--encoder", SCRATCH)
    assert status == 0 and "has already finished" in shown
    status, shown = train(*arguments, "--resume", "--encoder", make_bert_folder(tmp_path / "bert"))
    assert status == 1 and "[H181]" in shown


def test_there_is_no_encoder_to_replace_in_a_network_without_one(tmp_path: Path) -> None:
    arguments = make_config(tmp_path)
    config = Path(__file__).parents[2] / "configs" / "text_heads" / "textcnn_zh.cfg"
    status, shown = train(str(config), *arguments[1:], "--encoder", make_bert_folder(tmp_path / "bert"))
    assert status == 1 and "[H222]" in shown
