"""The text classifiers of the literature as training configs, `configs/text_heads/*.cfg`.

Each is a config of `project.render_config` in which some blocks are others, so that they cannot drift apart.
"""

import re
from dataclasses import dataclass, field, replace
from typing import Dict, List, Optional, Sequence, Tuple

from .project import DEMO_ENCODER, SCRATCH, render_config

FOLDER = "configs/text_heads"
CHINESE_BERT = "bert-base-chinese"
ERNIE = "nghuyong/ernie-3.0-base-zh"
HEADER = (
    "Rendered by spacy_bert_heads/text_configs.py from templates/config.cfg.jinja. To change it here, change those",
    "and run `python -m spacy_bert_heads.project`; a test compares them.",
)
# Between these the page holds what `literature_table` makes
PAGE = "docs/text-heads.md"
MARKERS = ("<!-- text heads: rendered, do not edit -->\n", "\n<!-- text heads: end -->")
MODEL = "components.bert_textcat.model"
# Where the encoder's learning rate is in a config; without an encoder it is everyone's
RATE = ("training.optimizer", "learn_rate")
BATCH_SIZE = ("training.batcher", "size")
# Blocks of the encoder and its outputs, for networks without one
ENCODER_BLOCKS = (
    "components.transformer",
    "components.transformer.model",
    "components.transformer.set_extra_annotations",
    "components.doc_cleaner",
    "components.doc_cleaner.attrs",
    "initialize.components.transformer",
)
# What comments say of the encoder, and what they say without one
NO_ENCODER_PHRASES = (
    ("# How long: 30 times over the corpus", "# How long: a few times over the corpus"),
    ("# 32 texts a step.", "# 64 texts a step."),
    (
        "The pipeline. The encoder comes first; the heads behind it hear what it says, so each text is encoded once.",
        "The pipeline: one network, and no encoder.",
    ),
    ("# dropout is the heads'; the encoder has its own, above.\n", ""),
    (
        " The encoder sorts them by length; of very long texts, hand\n"
        "# on fewer: all their vectors are in memory at once.\n",
        "\n",
    ),
    (
        "# learn_rate is the encoder's. head_rate, crf_rate: null is learn_rate times the lr_scale of each head, "
        "above.\n"
        "# layer_decay: each layer of the encoder learns so many times as fast as the one above it.\n"
        "# freeze_embeddings, freeze_layers (from below) keep parts of the encoder as they are, which is faster, "
        "too.\n",
        "# head_rate: null is learn_rate, times the model's lr_scale if it has one. The crf_rate is for CRFs,\n"
        "# layer_decay, freeze_embeddings and freeze_layers for encoders.\n",
    ),
)

TOKEN_LISTENER = """
# It hears one vector per token, and teaches the encoder.
[components.bert_textcat.model.tok2vec]
@architectures = "spacy_bert_heads.TokenListener.v1"
pooling = "first"
layer_mix = false
lr_scale = 20.0
grad_factor = 1.0
upstream = "*"
"""
EVERY_CHARACTER = """
# Every character is a token, those of words and numbers and white space too: with no wordpieces, rare words are known
# by their letters, and a space says where a clause ends.
[nlp.tokenizer]
@tokenizers = "spacy_bert_heads.CharacterTokenizer.v1"
whole_words = false
"""
EMBEDDINGS = f"""
# Learned vectors of the character, of it and the next one, and of it and the next two, side by side. min_count: how
# often they must occur in the training texts; rarer ones share a vector. word_dropout: share of them that training
# hides, so that it learns that vector. include_static_vectors: beside them pretrained vectors from paths.vectors (see
# `python -m spacy init vectors`).
[{MODEL}.tok2vec]
@architectures = "spacy_bert_heads.NgramEmbed.v1"
widths = [128, 64, 64]
min_count = 2
word_dropout = WORD_DROPOUT
include_static_vectors = false
"""
ENSEMBLE = f"""
# The mean of the logits of the networks below, each of which learns by itself. Name them as you like.
[{MODEL}]
@architectures = "spacy_bert_heads.TextEnsemble.v1"
exclusive_classes = true
nO = null
"""


@dataclass(frozen=True)
class Network:
    """A text architecture.

    name (str): Registered name, without prefix and version.
    about (str): What it does, for the comment above it.
    sizes (str): Its settings, a line each.
    lr_scale (Optional[str]): Its learning rate over embeddings beside theirs, each of which is seen seldom. None: it
        has no rate of its own.
    word_dropout (Optional[str]): That of the embeddings. None: it is over none.
    """

    name: str
    about: str
    sizes: str
    lr_scale: Optional[str] = "0.2"
    word_dropout: Optional[str] = "0.3"

    def block(self, lr_scale: Optional[str], section: str = MODEL) -> str:
        """RETURNS (str): The block of the model. lr_scale: None for a network that has none. section: its name."""
        lines = [f"# {self.about}", f"[{section}]"]
        lines += [f'@architectures = "spacy_bert_heads.{self.name}.v1"', "exclusive_classes = true", self.sizes]
        return "\n".join([*lines, *([f"lr_scale = {lr_scale}"] if lr_scale else []), "nO = null"])

    def embeddings(self, section: str = MODEL) -> Optional[str]:
        """RETURNS (Optional[str]): The block of what it is over, None for nothing. section: the name of its own."""
        if self.word_dropout is None:
            return None
        return EMBEDDINGS.replace(MODEL, section).replace("WORD_DROPOUT", self.word_dropout)


CNN = Network(
    "TextCNN",
    "Convolutions over 2, 3 and 4 tokens, and each filter's largest value.",
    "kernels = [2, 3, 4]\nfilters = 256",
    lr_scale="0.5",
    # Largest values are of few n-grams, each of which is missed the more
    word_dropout="0.1",
)
RNN = Network("TextRNN", "A BiLSTM, and its last states.", "lstm_width = 256\nlstm_depth = 2")
# Over embeddings, where there is more to overfit
SHALLOW_RNN = replace(RNN, sizes="lstm_width = 256\nlstm_depth = 1")
RNN_ATTENTION = replace(SHALLOW_RNN, name="TextRNNAttention", about="A BiLSTM, and attention over its states.")
RCNN = Network(
    "TextRCNN",
    "A BiLSTM beside its input, a dense layer, and each unit's largest value.",
    "lstm_width = 512\nlstm_depth = 1\nhidden_width = 256",
)
PYRAMID = Network(
    "DPCNN", "A pyramid of convolutions, each block half as long as the one below.", "filters = 250\ndepth = 4"
)
BAG = Network(
    "BagOfNgrams",
    "A linear layer over n-grams of 1 to 3 tokens, of those that occur min_count times in the training texts.",
    "ngram_size = 3\nmin_count = 2",
    lr_scale=None,
    word_dropout=None,
)


@dataclass(frozen=True)
class TextConfig:
    """One config.

    lang (str): Language code.
    head (str): "textcat" or "ner", in which blocks are changed.
    encoder (Optional[str]): As for render_config; None: no encoder at all.
    comment (str): First line of the file.
    blocks (Dict[str, Optional[str]]): New blocks by the name of the one they replace; None takes it out.
    values (Dict[Tuple[str, str], str]): New values by block and key.
    """

    lang: str
    head: str
    encoder: Optional[str]
    comment: str
    blocks: Dict[str, Optional[str]] = field(default_factory=dict)
    values: Dict[Tuple[str, str], str] = field(default_factory=dict)


def _over_bert(network: Network, comment: str) -> TextConfig:
    blocks = {
        MODEL: network.block("20.0"),
        f"{MODEL}.tok2vec": TOKEN_LISTENER,
    }
    return TextConfig("zh", "textcat", CHINESE_BERT, comment, dict(blocks))


def _over_embeddings(network: Network, comment: str) -> TextConfig:
    bag = network is BAG
    blocks: Dict[str, Optional[str]] = {
        MODEL: network.block(network.lr_scale),
        f"{MODEL}.tok2vec": network.embeddings(),
        "nlp.tokenizer": EVERY_CHARACTER,
        **dict.fromkeys(ENCODER_BLOCKS),
    }
    values = {
        ("nlp", "pipeline"): '["bert_textcat"]',
        ("training", "dropout"): "0.0" if bag else "0.3",
        ("training", "max_epochs"): "3" if bag else "4",
        ("components.bert_textcat", "label_smoothing"): "0.0" if bag else "0.1",
        BATCH_SIZE: "64",
        RATE: "1e-2" if bag else "5e-3",
    }
    return TextConfig("zh", "textcat", None, comment, blocks, values)


def _ensemble(members: Dict[str, Network], comment: str) -> TextConfig:
    """members: networks over embeddings, by the names of their blocks. They are trained as one of them alone is."""
    paragraphs: List[Optional[str]] = [ENSEMBLE]
    for name, network in members.items():
        section = f"{MODEL}.*.{name}"
        paragraphs += [network.block(network.lr_scale, section), network.embeddings(section)]
    text = "\n\n".join(paragraph.strip("\n") for paragraph in paragraphs if paragraph)
    alone = _over_embeddings(PYRAMID, comment)
    return replace(alone, blocks={**alone.blocks, MODEL: text, f"{MODEL}.tok2vec": None})


CONFIGS: Dict[str, TextConfig] = {
    "bert_zh": TextConfig("zh", "textcat", CHINESE_BERT, "BERT's pooled [CLS] and a linear layer, Chinese."),
    "ernie_zh": TextConfig("zh", "textcat", ERNIE, "ERNIE's pooled [CLS] and a linear layer, Chinese."),
    "bert_cnn_zh": _over_bert(CNN, "TextCNN over BERT, Chinese."),
    "bert_rnn_zh": _over_bert(RNN, "TextRNN over BERT, Chinese."),
    "bert_rcnn_zh": _over_bert(RCNN, "TextRCNN over BERT, Chinese."),
    "bert_dpcnn_zh": _over_bert(PYRAMID, "DPCNN over BERT, Chinese."),
    "textcnn_zh": _over_embeddings(CNN, "TextCNN over characters, no BERT, Chinese."),
    "textrnn_zh": _over_embeddings(SHALLOW_RNN, "TextRNN over characters, no BERT, Chinese."),
    "textrnn_att_zh": _over_embeddings(RNN_ATTENTION, "TextRNN with attention over characters, no BERT, Chinese."),
    "textrcnn_zh": _over_embeddings(RCNN, "TextRCNN over characters, no BERT, Chinese."),
    "dpcnn_zh": _over_embeddings(PYRAMID, "DPCNN over characters, no BERT, Chinese."),
    "ensemble_zh": _ensemble(
        {
            "dpcnn": PYRAMID,
            "dpcnn_again": PYRAMID,
            "textcnn": CNN,
            "textrcnn": RCNN,
            "textrnn_att": RNN_ATTENTION,
            "fasttext": BAG,
        },
        "Several networks over characters as one, no BERT, Chinese.",
    ),
    "fasttext_zh": _over_embeddings(BAG, "A bag of 1 to 3 characters, no BERT, Chinese."),
    "layer_mix": TextConfig(
        "en",
        "textcat",
        DEMO_ENCODER,
        "All layers of BERT in learned shares, their mean over the text, five dropouts.",
        values={
            ("components.transformer.model", "hidden_states"): "true",
            ("components.bert_textcat.model", "dropout_samples"): "5",
            ("components.bert_textcat.model.tok2vec", "pooling"): '"mean"',
            ("components.bert_textcat.model.tok2vec", "layer_mix"): "true",
        },
    ),
    "token_classification": TextConfig(
        "en",
        "ner",
        DEMO_ENCODER,
        "Entities by a linear layer over BERT, neither BiLSTM nor CRF.",
        values={("components.bert_ner.model", "lstm_width"): "null", ("components.bert_ner.model", "crf"): "null"},
    ),
}
# Name in the literature, its config, and what there is to say
LITERATURE: Sequence[Tuple[str, str, str]] = (
    ("BertForSequenceClassification, one label; bert", "configs/textcat.cfg, bert_zh", "Devlin et al. (2019)"),
    (
        "BertForSequenceClassification, several labels",
        "configs/textcat_multilabel.cfg",
        "binary cross-entropy with logits",
    ),
    ("BertForSequenceClassification, regression", "configs/regression.cfg", "mean squared error"),
    ("ERNIE", "ernie_zh", "Sun et al. (2019)"),
    ("bert_CNN", "bert_cnn_zh", "TextCNN on a `TokenListener`"),
    ("bert_RNN", "bert_rnn_zh", ""),
    ("bert_RCNN", "bert_rcnn_zh", ""),
    ("bert_DPCNN", "bert_dpcnn_zh", ""),
    ("weighted layers + multi-sample dropout", "layer_mix", "Peters et al. (2018), Inoue (2019)"),
    ("TextCNN", "textcnn_zh", "Kim (2014)"),
    ("TextRNN", "textrnn_zh", "last states of a BiLSTM"),
    ("TextRNN_Att", "textrnn_att_zh", "Zhou et al. (2016)"),
    ("TextRCNN", "textrcnn_zh", "Lai et al. (2015), with an LSTM"),
    ("DPCNN", "dpcnn_zh", "Johnson and Zhang (2017)"),
    ("FastText", "fasttext_zh", "Joulin et al. (2017); linear in its n-grams, with no narrow layer between"),
    ("ensemble of these", "ensemble_zh", "`TextEnsemble.v1`: the mean of their logits"),
    ("Transformer", "configs/textcat_zh.cfg", "`BertFromScratch.v1`"),
    ("BertForTokenClassification", "token_classification", "`lstm_width` and `crf` switched off"),
    ("BERT-BiLSTM-CRF", "configs/ner.cfg", "`BiLSTMCRF.v1`"),
)


def text_configs() -> Dict[str, str]:
    """RETURNS (Dict[str, str]): Path to content of every config."""
    return {f"{FOLDER}/{name}.cfg": render(f"{FOLDER}/{name}.cfg", config) for name, config in CONFIGS.items()}


def render(path: str, config: TextConfig) -> str:
    """One config. path: where it will lie, for the command in its comment."""
    encoder = SCRATCH if config.encoder is None else config.encoder
    text = render_config(config.lang, [config.head], encoder, path=path, header=(config.comment, *HEADER))
    for old, new in () if config.encoder else NO_ENCODER_PHRASES:
        assert old in text, f"{path}: the template no longer says {old!r}"
        text = text.replace(old, new)
    paragraphs: List[str] = []
    unused = {*config.blocks, *config.values}
    for paragraph in text.rstrip("\n").split("\n\n"):
        found = re.search(r"^\[(.+)\]$", paragraph, flags=re.M)
        name = found[1] if found else ""
        for (block, key), value in config.values.items():
            if block == name:
                paragraph, count = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value}", paragraph)
                unused -= {(block, key)} if count else set()
        unused.discard(name)
        replaced = config.blocks.get(name, paragraph)
        if replaced is not None:
            paragraphs.append(replaced.strip("\n"))
    assert not unused, f"{path}: the template has no {unused}"
    return "\n\n".join(paragraphs) + "\n"


def literature_table() -> str:
    """RETURNS (str): Which name of the literature is which config, as Markdown for `PAGE`."""
    rows = []
    for name, configs, note in LITERATURE:
        links = []
        for config in configs.split(", "):
            path = config if config.endswith(".cfg") else f"{FOLDER}/{config}.cfg"
            links.append(f"[`{path.split('configs/')[1]}`](../{path})")
        rows.append(f"| {name} | {', '.join(links)} | {note} |")
    return "\n".join(["| in the literature | config | |", "|---|---|---|", *rows])
