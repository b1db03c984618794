"""Every type of encoder people use, saved in its own format with a tokenizer of its own kind, and as old folders."""

import json
import os
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import pytest
import spacy
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AlbertTokenizerFast,
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    BertTokenizerFast,
    DebertaTokenizerFast,
    DebertaV2TokenizerFast,
    DistilBertTokenizerFast,
    ElectraTokenizerFast,
    PreTrainedTokenizerFast,
    RobertaTokenizerFast,
    XLMRobertaTokenizerFast,
)

from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.layers.encoder_module import load_pretrained

from ..making import (
    PIECES,
    TRAINING,
    assert_close,
    assert_same_predictions,
    has_gradient,
    make_config,
    make_examples,
    make_nlp,
    predictions,
    randomise,
)

TEXTS = [text for text, _, _ in TRAINING]
CORPUS = [*TEXTS, "where is my tracking number", "I'd like a refund, please!", "我的订单在北京"] * 5
LENGTH = 32
SIZE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
SMALL = {**SIZE, "embedding_size": 8}


def wordpiece(kind: Callable[..., Any]) -> Any:
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return kind(tokenizer_object=tokenizer, model_max_length=LENGTH)


def byte_level(kind: Callable[..., Any], specials: Tuple[str, ...], roberta: bool) -> Any:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(specials), initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    ids = {name: tokenizer.token_to_id(name) for name in specials}
    first, _, last = specials[:3]
    wrap = processors.RobertaProcessing if roberta else processors.BertProcessing
    tokenizer.post_processor = wrap((last, ids[last]), (first, ids[first]))
    return kind(tokenizer_object=tokenizer, model_max_length=LENGTH)


def unigram(kind: Callable[..., Any], first: str, last: str, pad: str, unk: str) -> Any:
    """What transformers makes of a sentencepiece model."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    specials = [first, pad, last, unk, "[MASK]" if first == "[CLS]" else "<mask>"]
    trainer = trainers.UnigramTrainer(vocab_size=150, special_tokens=specials, unk_token=unk)
    tokenizer.train_from_iterator(CORPUS, trainer)
    ids = {name: tokenizer.token_to_id(name) for name in (first, last)}
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {last} $B:1 {last}:1",
        special_tokens=[(first, ids[first]), (last, ids[last])],
    )
    settings = {"bos_token": first, "cls_token": first, "eos_token": last, "sep_token": last, "pad_token": pad}
    mask = AddedToken(specials[-1], lstrip=True)
    return kind(tokenizer_object=tokenizer, model_max_length=LENGTH, unk_token=unk, mask_token=mask, **settings)


def pieces_of_bytes(kind: Callable[..., Any]) -> Any:
    """BPE over text with marks for spaces, and bytes for what is in no piece, as Gemma's, which mmBERT has."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=list(GEMMA), show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    content = json.loads(tokenizer.to_str())
    vocabulary = content["model"]["vocab"]
    vocabulary.update({f"<0x{byte:02X}>": len(vocabulary) + byte for byte in range(256)})
    content["model"]["byte_fallback"] = True
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", pair="<bos> $A <eos> $B:1 <eos>:1", special_tokens=[("<bos>", 2), ("<eos>", 1)]
    )
    return kind(tokenizer_object=tokenizer, model_max_length=LENGTH)


GEMMA = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")
ROBERTA = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
DEBERTA = ("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]")
KINDS_OF_TOKENS = ("cls_token", "pad_token", "sep_token", "unk_token", "mask_token")
MODERN = {**SIZE, "global_attn_every_n_layers": 2, "local_attention": 8}
# Of the encoders that have no tokenizer class of their own
PLAIN = partial(PreTrainedTokenizerFast, model_input_names=["input_ids", "attention_mask"])
# Type, or another name of one: its tokenizer, and what its config needs
TYPES: Dict[str, Tuple[Callable[[], Any], Dict[str, Any]]] = {
    "bert": (lambda: wordpiece(BertTokenizerFast), SIZE),
    "ernie": (lambda: wordpiece(BertTokenizerFast), {**SIZE, "use_task_id": True}),
    "electra": (lambda: wordpiece(ElectraTokenizerFast), SMALL),
    "distilbert": (
        lambda: wordpiece(DistilBertTokenizerFast),
        {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
    ),
    "roberta": (
        lambda: byte_level(RobertaTokenizerFast, ROBERTA, True),
        {**SIZE, "max_position_embeddings": LENGTH + 2, "type_vocab_size": 1},
    ),
    "xlm-roberta": (
        lambda: unigram(XLMRobertaTokenizerFast, "<s>", "</s>", "<pad>", "<unk>"),
        {**SIZE, "max_position_embeddings": LENGTH + 2, "type_vocab_size": 1},
    ),
    "albert": (lambda: unigram(AlbertTokenizerFast, "[CLS]", "[SEP]", "<pad>", "<unk>"), SMALL),
    "deberta": (
        lambda: byte_level(DebertaTokenizerFast, DEBERTA, False),
        {**SIZE, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "type_vocab_size": 0},
    ),
    "deberta-v2": (
        lambda: unigram(DebertaV2TokenizerFast, "[CLS]", "[SEP]", "[PAD]", "[UNK]"),
        {
            **SIZE,
            "relative_attention": True,
            "pos_att_type": ["c2p", "p2c"],
            "type_vocab_size": 0,
            "position_biased_input": False,
            "position_buckets": 8,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
        },
    ),
    "modernbert": (
        lambda: byte_level(partial(PLAIN, **dict(zip(KINDS_OF_TOKENS, DEBERTA))), DEBERTA, False),
        MODERN,
    ),
    "mmbert": (
        lambda: pieces_of_bytes(
            partial(PLAIN, **dict(zip(KINDS_OF_TOKENS, (GEMMA[2], GEMMA[0], GEMMA[1], *GEMMA[3:]))))
        ),
        {**MODERN, "model_type": "modernbert"},
    ),
}
every_type = pytest.mark.parametrize("model_type", TYPES)


def make_folder(folder: Path, model_type: str) -> Path:
    make, settings = TYPES[model_type]
    settings = dict(settings)
    tokenizer = make()
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        settings.pop("model_type", model_type),
        **{"max_position_embeddings": LENGTH, **settings},
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
    )
    model = AutoModel.from_config(config)
    randomise(model, 0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def outputs(folder: Path) -> List[List[torch.Tensor]]:
    """By Hugging Face, each text alone: the last hidden state, then all of them. ModernBERT's last one is another."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        found = [model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True) for text in TEXTS]
    return [[layer[0] for layer in (one.last_hidden_state, *one.hidden_states)] for one in found]


@every_type
def test_its_output_is_hugging_faces(tmp_path: Path, model_type: str) -> None:
    folder = make_folder(tmp_path, model_type)
    nlp = make_nlp(encoder=make_config(str(folder), hidden_states=True), heads=["bert_textcat"])
    assert nlp.get_pipe("transformer").model.shims[0].max_positions == LENGTH  # type: ignore[attr-defined]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for doc, expected in zip(nlp.pipe(TEXTS), outputs(folder)):
        data = doc._.trf_data
        assert data.wordpieces.input_ids[0].tolist() == tokenizer(doc.text)["input_ids"]
        found = [data.model_output.last_hidden_state, *data.model_output.hidden_states]
        assert len(found) == len(expected) == 4
        for ours, theirs in zip(found, expected):
            assert_close(ours[0], theirs, 1e-5)
        assert all(data.align.lengths)  # no token without a wordpiece


@every_type
def test_it_learns_and_a_saved_pipeline_needs_nothing_else(tmp_path: Path, model_type: str) -> None:
    folder = make_folder(tmp_path / "encoder", model_type)
    heads = {"bert_ner": {"model": {"lstm_width": 8, "tok2vec": {"layer_mix": True}}}}
    nlp = make_nlp(encoder=make_config(str(folder), hidden_states=True), settings=heads)
    nlp.update(make_examples(nlp), sgd=False)
    assert has_gradient(nlp.get_pipe("transformer").model.shims[0].module.transformer)  # type: ignore[attr-defined]
    sgd = nlp.create_optimizer()
    for _ in range(2):
        nlp.update(make_examples(nlp), sgd=sgd)
    texts = [*TEXTS, "", "order " * 60, "我的订单 🙂 café"]
    before = predictions(nlp.pipe(texts))
    assert_same_predictions(predictions(nlp(text) for text in texts), before, 1e-5)
    nlp.to_disk(tmp_path / "nlp")
    for path in folder.iterdir():
        path.unlink()
    assert_same_predictions(predictions(spacy.load(tmp_path / "nlp").pipe(texts)), before)


# Types people have in the form of before 2020: vocabulary as plain files, weights pickled
OLD: Dict[str, Tuple[str, ...]] = {
    "bert": ("vocab.txt",),
    "ernie": ("vocab.txt",),
    "electra": ("vocab.txt",),
    "distilbert": ("vocab.txt",),
    "roberta": ("vocab.json", "merges.txt"),
    "deberta": ("vocab.json", "merges.txt"),
}


@pytest.mark.parametrize("model_type", OLD)
@pytest.mark.parametrize("settings", [True, False], ids=["with tokenizer_config.json", "without"])
def test_an_old_folder_gives_the_same_encoder(tmp_path: Path, model_type: str, settings: bool) -> None:
    folder = make_folder(tmp_path, model_type)
    new = load_pretrained(str(folder), {}, {})
    state = AutoModel.from_pretrained(folder).state_dict()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.model.save(str(folder))
    if OLD[model_type] == ("vocab.txt",):
        pieces = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
        (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf8")
    torch.save(state, folder / "pytorch_model.bin")
    keep = {"config.json", "pytorch_model.bin", *OLD[model_type], *(["tokenizer_config.json"] if settings else [])}
    for name in os.listdir(folder):
        if name not in keep:
            (folder / name).unlink()
    assert set(OLD[model_type]) < set(os.listdir(folder))
    old = load_pretrained(str(folder), {}, {})
    for text in [*TEXTS, "我的订单", "Unknown wörds…"]:
        ids = new.tokenizer(text)["input_ids"]
        assert old.tokenizer(text)["input_ids"] == ids
    with torch.no_grad():
        inputs = torch.tensor([ids[:20]]), torch.ones(1, len(ids[:20]), dtype=torch.long)
        assert_close(
            old.module.eval()(*inputs)["last_hidden_state"], new.module.eval()(*inputs)["last_hidden_state"], 0
        )


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@every_type
def test_pickled_code_in_its_weights_is_not_run(tmp_path: Path, model_type: str) -> None:
    folder = make_folder(tmp_path / "model", model_type)
    (folder / "model.safetensors").unlink()
    torch.save({"embeddings.word_embeddings.weight": Bomb(tmp_path / "exploded")}, folder / "pytorch_model.bin")
    with pytest.raises(BertHeadsError) as error:
        load_pretrained(str(folder), {}, {})
    assert error.value.code == "H203"
    assert not (tmp_path / "exploded").exists()


def test_the_folders_are_of_the_types_they_say(tmp_path: Path) -> None:
    for model_type in TYPES:
        folder = make_folder(tmp_path / model_type, model_type)
        expected = TYPES[model_type][1].get("model_type", model_type)
        assert json.loads((folder / "config.json").read_text())["model_type"] == expected
