"""Tiny encoder-decoders with tokenizers made here, for the tests of generation."""

from pathlib import Path
from typing import Any, Dict

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForSeq2SeqLM, BartConfig, MT5Config, PreTrainedTokenizerFast, T5Config

TEXTS = [
    "Where is my order, Anna? please cancel the refund in New York, track Smith in London",
    "the the and my order is in to new york london anna smith please cancel track refund where",
    "我的订单在北京上海张三请取消退款 😀 👩‍👩‍👧 naïve [ | ]",
]
SPECIAL = ["<pad>", "</s>", "<unk>", "<s>"]


def make_piece_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """ "spaces": pieces of letters with a mark for spaces, as T5's. "bytes": of bytes, as BART's."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    if kind == "bytes":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        alphabet = []
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS * 2, trainer)
    template = "<s> $A </s>" if kind == "bytes" else "$A </s>"
    pairs = [(piece, tokenizer.token_to_id(piece)) for piece in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=pairs)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", bos_token="<s>"
    )


T5_SIZES: Dict[str, Any] = {
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 32,
    "num_layers": 1,
    "num_heads": 2,
    "dropout_rate": 0.0,
    "decoder_start_token_id": 0,
}
BART_SIZES: Dict[str, Any] = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "dropout": 0.0,
    "max_position_embeddings": 300,
    "bos_token_id": 3,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "decoder_start_token_id": 1,
    "forced_eos_token_id": 1,
}
KINDS = ("t5", "mt5", "bart")


def make_language_model(folder: Path, kind: str, seed: int = 0) -> str:
    """A folder with an encoder-decoder of random weights and its tokenizer."""
    torch.manual_seed(seed)
    tokenizer = make_piece_tokenizer("bytes" if kind == "bart" else "spaces")
    # As in real ones, the vocabulary of the weights is larger than the tokenizer's
    size = len(tokenizer) + 4
    configs: Dict[str, Any] = {
        "t5": lambda: T5Config(vocab_size=size, **T5_SIZES),
        "mt5": lambda: MT5Config(vocab_size=size, **T5_SIZES),
        "bart": lambda: BartConfig(vocab_size=size, **BART_SIZES),
    }
    model = AutoModelForSeq2SeqLM.from_config(configs[kind]())
    # As checkpoints for summaries have it
    model.generation_config.no_repeat_ngram_size = 1
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def text_to_text(name: str, **settings: Any) -> Dict[str, Any]:
    """Config of spacy_bert_heads.TextToText.v1."""
    return {"@architectures": "spacy_bert_heads.TextToText.v1", "name": name, **settings}
