"""The factories spaCy finds through entry points.

Every `spacy.blank` imports this module, so it imports the components only when they are made.
"""

from typing import TYPE_CHECKING, Any, Callable, Dict, Optional, Union

from spacy.language import Language
from thinc.api import Config, Model

from .. import extensions  # noqa: F401  (registers span._.confidence in any process that makes a pipeline)
from ..defaults import DEFAULT_SPANS_KEY, HEAD_LR_SCALE, SPANS_LR_SCALE

if TYPE_CHECKING:
    from .encoder import BertEncoder
    from .ner import BertEntityRecognizer
    from .regression import BertRegressor
    from .seq2seq import GenerativeEntityRecognizer
    from .spans import BertSpanCategorizer
    from .textcat import BertMultiLabelTextCategorizer, BertTextCategorizer

ENCODER = """
[model]
@architectures = "spacy_bert_heads.BertEncoder.v1"
name = "bert-base-uncased"
hidden_states = false
attentions = false
precision = "auto"
train_precision = null
gradient_checkpointing = false
word_dropout = 0.0
window = null
overlap = 64
pair_separator = null
tokenizer_config = {}
transformer_config = {}
"""

# What every listener has
LISTENER = f"""
layer_mix = false
lr_scale = {HEAD_LR_SCALE}
grad_factor = 1.0
upstream = "*"
"""

POOLED_CLASSIFIER = f"""
[model]
@architectures = "spacy_bert_heads.PooledClassifier.v1"
exclusive_classes = false
dropout_samples = 1
standardize = false
lr_scale = {HEAD_LR_SCALE}
nO = null

[model.tok2vec]
@architectures = "spacy_bert_heads.PooledListener.v1"
pooling = "pooler"
windows = "mean"
{LISTENER}
"""

BILSTM_CRF = f"""
[model]
@architectures = "spacy_bert_heads.BiLSTMCRF.v1"
lstm_width = 256
lstm_depth = 1
crf = "constrained"
scheme = "bio"
lr_scale = {HEAD_LR_SCALE}
precision = "auto"
nO = null

[model.tok2vec]
@architectures = "spacy_bert_heads.TokenListener.v1"
pooling = "first"
{LISTENER}
"""

GLOBAL_POINTER = f"""
[model]
@architectures = "spacy_bert_heads.GlobalPointer.v1"
max_width = null
key_width = 64
lstm_width = 256
lstm_depth = 1
lr_scale = {SPANS_LR_SCALE}
precision = "auto"
nO = null

[model.tok2vec]
@architectures = "spacy_bert_heads.TokenListener.v1"
pooling = "first"
{LISTENER}
"""

POINTER_GENERATOR = f"""
[model]
@architectures = "spacy_bert_heads.PointerGenerator.v1"
width = 256
depth = 2
heads = 4
window = 192
overlap = 64
lr_scale = {HEAD_LR_SCALE}
nO = null

[model.tok2vec]
@architectures = "spacy_bert_heads.TokenListener.v1"
pooling = "first"
{LISTENER}
"""

# How a text head of categories learns
CATEGORY_LOSS: Dict[str, Any] = {
    "class_weights": None,
    "label_smoothing": 0.0,
    "focal_gamma": 0.0,
    "loss_weight": 1.0,
}

# Scores of a text head; spaCy shows those with a weight, and those with weight 0, while it trains
TEXTCAT_SCORES = {
    "cats_score": 1.0,
    "cats_score_desc": None,
    "cats_micro_p": None,
    "cats_micro_r": None,
    "cats_micro_f": None,
    "cats_macro_p": None,
    "cats_macro_r": None,
    "cats_macro_f": None,
    "cats_macro_auc": None,
    "cats_f_per_type": None,
    "cats_auc_per_type": None,
}

# Means over the targets. The RMSE is not shown while training, where spaCy takes every score for a percentage
REGRESSION_SCORES = {"cats_pearson": 1.0, "cats_spearman": 0.0, "cats_rmse": None, "cats_per_target": None}


def _model(config: str, **settings: Any) -> Any:
    """A default model: the config, with some settings in place of its own."""
    return {**Config().from_str(config)["model"], **settings}


@Language.factory(
    "bert_encoder",
    assigns=["doc._.trf_data"],
    default_config={
        "max_batch_items": 4096,
        "keep_outputs": True,
        "set_extra_annotations": {"@annotation_setters": "spacy-transformers.null_annotation_setter.v1"},
        "model": _model(ENCODER),
    },
)
def make_bert_encoder(
    nlp: Language,
    name: str,
    model: Model,
    set_extra_annotations: Callable,
    max_batch_items: int,
    keep_outputs: bool,
) -> "BertEncoder":
    """The shared encoder; see pipeline.encoder.BertEncoder."""
    from .encoder import BertEncoder

    return BertEncoder(
        nlp.vocab,
        model,
        set_extra_annotations,
        name=name,
        max_batch_items=max_batch_items,
        keep_outputs=keep_outputs,
    )


@Language.factory(
    "bert_textcat",
    assigns=["doc.cats", "doc._.cats_chosen"],
    default_config={
        "threshold": 0.0,
        **CATEGORY_LOSS,
        "scorer": {"@scorers": "spacy_bert_heads.textcat_scorer.v1"},
        "model": _model(POOLED_CLASSIFIER, exclusive_classes=True),
    },
    default_score_weights={"cats_acc": 0.0, **TEXTCAT_SCORES},
)
def make_bert_textcat(
    nlp: Language,
    name: str,
    model: Model,
    threshold: float,
    class_weights: Optional[Union[str, Dict[str, float]]],
    label_smoothing: float,
    focal_gamma: float,
    loss_weight: float,
    scorer: Optional[Callable],
) -> "BertTextCategorizer":
    """Exclusive classes; see pipeline.textcat.BertTextCategorizer."""
    from ..layers.class_losses import LossSettings
    from .textcat import BertTextCategorizer

    loss = LossSettings(class_weights, label_smoothing, focal_gamma, loss_weight)
    return BertTextCategorizer(nlp.vocab, model, name, threshold=threshold, scorer=scorer, loss=loss)


@Language.factory(
    "bert_textcat_multilabel",
    assigns=["doc.cats", "doc._.cats_chosen"],
    default_config={
        "threshold": 0.5,
        **CATEGORY_LOSS,
        "scorer": {"@scorers": "spacy_bert_heads.textcat_multilabel_scorer.v1"},
        "model": _model(POOLED_CLASSIFIER),
    },
    default_score_weights=TEXTCAT_SCORES,
)
def make_bert_textcat_multilabel(
    nlp: Language,
    name: str,
    model: Model,
    threshold: float,
    class_weights: Optional[Union[str, Dict[str, float]]],
    label_smoothing: float,
    focal_gamma: float,
    loss_weight: float,
    scorer: Optional[Callable],
) -> "BertMultiLabelTextCategorizer":
    """Any number of classes; see pipeline.textcat.BertMultiLabelTextCategorizer."""
    from ..layers.class_losses import LossSettings
    from .textcat import BertMultiLabelTextCategorizer

    loss = LossSettings(class_weights, label_smoothing, focal_gamma, loss_weight)
    return BertMultiLabelTextCategorizer(nlp.vocab, model, name, threshold=threshold, scorer=scorer, loss=loss)


@Language.factory(
    "bert_regression",
    assigns=["doc.cats"],
    default_config={
        "loss_weight": 1.0,
        "scorer": {"@scorers": "spacy_bert_heads.regression_scorer.v1"},
        "model": _model(POOLED_CLASSIFIER),
    },
    default_score_weights=REGRESSION_SCORES,
)
def make_bert_regression(
    nlp: Language, name: str, model: Model, loss_weight: float, scorer: Optional[Callable]
) -> "BertRegressor":
    """Numbers; see pipeline.regression.BertRegressor."""
    from .regression import BertRegressor

    return BertRegressor(nlp.vocab, model, name, loss_weight=loss_weight, scorer=scorer)


@Language.factory(
    "bert_ner",
    assigns=["doc.ents", "token.ent_iob", "token.ent_type", "span._.confidence", "doc._.ents_confidence"],
    default_config={
        "min_confidence": 0.0,
        "incorrect_spans_key": "incorrect_spans",
        "loss_weight": 1.0,
        "scorer": {"@scorers": "spacy.ner_scorer.v1"},
        "model": _model(BILSTM_CRF),
    },
    default_score_weights={"ents_f": 1.0, "ents_p": 0.0, "ents_r": 0.0, "ents_per_type": None},
)
def make_bert_ner(
    nlp: Language,
    name: str,
    model: Model,
    min_confidence: float,
    incorrect_spans_key: Optional[str],
    loss_weight: float,
    scorer: Optional[Callable],
) -> "BertEntityRecognizer":
    """Named entities; see pipeline.ner.BertEntityRecognizer."""
    from .ner import BertEntityRecognizer

    return BertEntityRecognizer(
        nlp.vocab,
        model,
        name,
        min_confidence=min_confidence,
        incorrect_spans_key=incorrect_spans_key,
        loss_weight=loss_weight,
        scorer=scorer,
    )


@Language.factory(
    "bert_spans",
    assigns=["doc.spans", "span._.confidence"],
    default_config={
        "spans_key": DEFAULT_SPANS_KEY,
        "threshold": 0.5,
        "label_thresholds": {},
        "annotate_ents": False,
        "incorrect_spans_key": "incorrect_spans",
        "unknown_spans_key": "unknown_spans",
        "loss_weight": 1.0,
        "scorer": {"@scorers": "spacy_bert_heads.spans_scorer.v1"},
        "model": _model(GLOBAL_POINTER),
    },
    default_score_weights={"spans_sc_f": 1.0, "spans_sc_p": 0.0, "spans_sc_r": 0.0, "spans_sc_per_type": None},
)
def make_bert_spans(
    nlp: Language,
    name: str,
    model: Model,
    spans_key: str,
    threshold: float,
    label_thresholds: Dict[str, float],
    annotate_ents: bool,
    incorrect_spans_key: Optional[str],
    unknown_spans_key: Optional[str],
    loss_weight: float,
    scorer: Optional[Callable],
) -> "BertSpanCategorizer":
    """Spans that may overlap; see pipeline.spans.BertSpanCategorizer."""
    from .spans import BertSpanCategorizer

    return BertSpanCategorizer(
        nlp.vocab,
        model,
        name,
        spans_key=spans_key,
        threshold=threshold,
        label_thresholds=label_thresholds,
        annotate_ents=annotate_ents,
        incorrect_spans_key=incorrect_spans_key,
        unknown_spans_key=unknown_spans_key,
        loss_weight=loss_weight,
        scorer=scorer,
    )


@Language.factory(
    "seq2seq_ner",
    assigns=["doc.ents", "token.ent_iob", "token.ent_type", "span._.confidence", "doc._.ents_confidence"],
    default_config={
        "spans_key": None,
        "beam_width": 4,
        "incorrect_spans_key": "incorrect_spans",
        "unknown_spans_key": "unknown_spans",
        "loss_weight": 1.0,
        "scorer": {"@scorers": "spacy_bert_heads.generation_scorer.v1"},
        "model": _model(POINTER_GENERATOR),
    },
    default_score_weights={"ents_f": 1.0, "ents_p": 0.0, "ents_r": 0.0, "ents_per_type": None},
)
def make_seq2seq_ner(
    nlp: Language,
    name: str,
    model: Model,
    spans_key: Optional[str],
    beam_width: int,
    incorrect_spans_key: Optional[str],
    unknown_spans_key: Optional[str],
    loss_weight: float,
    scorer: Optional[Callable],
) -> "GenerativeEntityRecognizer":
    """Entities generated one after the other; see pipeline.seq2seq.GenerativeEntityRecognizer."""
    from .seq2seq import GenerativeEntityRecognizer

    return GenerativeEntityRecognizer(
        nlp.vocab,
        model,
        name,
        spans_key=spans_key,
        beam_width=beam_width,
        incorrect_spans_key=incorrect_spans_key,
        unknown_spans_key=unknown_spans_key,
        loss_weight=loss_weight,
        scorer=scorer,
    )
