"""Small inputs from seeds, shared by the tests of the core. Nothing here downloads."""

import random
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

import numpy
import spacy
import torch
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece
from transformers import AutoConfig, AutoModel, BertTokenizerFast

from spacy_bert_heads.models.bilstm_crf import get_crf
from spacy_bert_heads.pipeline.entity_annotations import Skipped, known_labels, read_annotation, to_tags
from spacy_bert_heads.tags import TagScheme

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"!,.?'-"]
PIECES += list("abcdefghijklmnopqrstuvwxyz0123456789") + [f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz0123456789"]
PIECES += (
    "the and my order is in to new york london anna smith please cancel track refund where ##ing ##ed ##s".split()
)
PIECES += list("我的订单在北京上海张三请取消退款")
PIECES = list(dict.fromkeys(PIECES))
WORDS = ["the", "order", "cancel", "refund", "tracking", "new", "york", "zebra", "anna", "where", "x", "42", "?"]

# Sizes by the names each kind of config uses
SIZES: Dict[str, Dict[str, Any]] = {
    "bert": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32},
    "roberta": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32},
    "electra": {
        "hidden_size": 16,
        "embedding_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    },
    "albert": {
        "hidden_size": 16,
        "embedding_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    },
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
}
NO_DROPOUT: Dict[str, Dict[str, float]] = {
    "distilbert": {"dropout": 0.0, "attention_dropout": 0.0},
    "albert": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "classifier_dropout_prob": 0.0},
}
DROPOUT_NAMES = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def make_tokenizer(max_length: int = 32) -> BertTokenizerFast:
    """A BERT tokenizer with a hundred wordpieces, Chinese characters among them."""
    tokenizer = Tokenizer(WordPiece({piece: i for i, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return BertTokenizerFast(tokenizer_object=tokenizer, model_max_length=max_length)


def make_bert_folder(
    folder: Path, model_type: str = "bert", *, max_length: int = 32, seed: int = 0, **config: Any
) -> str:
    """A two-layer encoder with random weights and its tokenizer, as `save_pretrained` writes them."""
    torch.manual_seed(seed)
    positions = max_length + 2 if model_type == "roberta" else max_length
    sizes = {**SIZES[model_type], **NO_DROPOUT.get(model_type, DROPOUT_NAMES), **config}
    model = AutoModel.from_config(
        AutoConfig.for_model(
            model_type,
            vocab_size=len(PIECES),
            max_position_embeddings=positions,
            pad_token_id=1 if model_type == "roberta" else 0,
            **sizes,
        )
    )
    randomise(model, seed)
    model.save_pretrained(folder)
    make_tokenizer(max_length).save_pretrained(folder)
    return str(folder)


def randomise(module: torch.nn.Module, seed: int) -> None:
    """Larger weights than BERT's initial ones, biases included, so that no comparison is one of zeros."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.1 * noise if "LayerNorm.weight" in name else 0.25 * noise)


def make_config(folder: str, **settings: Any) -> Dict[str, Any]:
    """Config of spacy_bert_heads.BertEncoder.v1. In fp32, for comparisons that would not hold in less."""
    required = {"@architectures": "spacy_bert_heads.BertEncoder.v1", "name": folder}
    return {**required, "precision": "fp32", "overlap": 4, **settings}


def make_scratch_config(**settings: Any) -> Dict[str, Any]:
    """Config of a tiny spacy_bert_heads.BertFromScratch.v1."""
    sizes = {
        "width": 16,
        "depth": 1,
        "heads": 2,
        "feed_forward_width": 32,
        "max_length": 32,
        "vocab_size": 300,
        "precision": "fp32",
        "overlap": 4,
    }
    return {"@architectures": "spacy_bert_heads.BertFromScratch.v1", **sizes, **settings}


HEADS: Dict[str, Dict[str, Any]] = {
    "bert_textcat": {},
    "bert_textcat_multilabel": {},
    "bert_regression": {},
    "bert_ner": {"model": {"lstm_width": 8}},
    "bert_spans": {"model": {"key_width": 8, "lstm_width": None}},
    "seq2seq_ner": {"model": {"width": 16, "heads": 2}},
    "tagger": {
        "model": {
            "@architectures": "spacy.Tagger.v2",
            "tok2vec": {
                "@architectures": "spacy-transformers.TransformerListener.v1",
                "grad_factor": 1.0,
                "pooling": {"@layers": "reduce_mean.v1"},
            },
        }
    },
    "textcat": {
        "model": {
            "@architectures": "spacy.TextCatReduce.v1",
            "exclusive_classes": True,
            "use_reduce_mean": True,
            "use_reduce_first": False,
            "use_reduce_last": False,
            "use_reduce_max": False,
            "tok2vec": {
                "@architectures": "spacy-transformers.TransformerListener.v1",
                "grad_factor": 1.0,
                "pooling": {"@layers": "reduce_mean.v1"},
            },
        }
    },
}


def make_nlp(
    folder: Optional[str] = None,
    heads: Sequence[str] = ("bert_textcat", "bert_ner"),
    *,
    lang: str = "en",
    encoder: Optional[Dict[str, Any]] = None,
    settings: Optional[Dict[str, Dict[str, Any]]] = None,
    max_batch_items: int = 4096,
    initialize: bool = True,
    seed: int = 0,
) -> Language:
    """A pipeline of one encoder and heads, initialised with the examples of `make_examples`."""
    nlp = spacy.blank(lang)
    config = {"model": encoder or make_config(str(folder)), "max_batch_items": max_batch_items}
    nlp.add_pipe("bert_encoder", name="transformer", config={**config, **(settings or {}).get("transformer", {})})
    for head in heads:
        config = {**HEADS[head], **(settings or {}).get(head, {})}
        if head == "bert_ner":
            config["model"] = {"precision": "fp32", **config.get("model", {})}
        nlp.add_pipe(head, config=config)
    if initialize:
        initialize_nlp(nlp, seed)
    return nlp


def initialize_nlp(nlp: Language, seed: int = 0, examples: Optional[List[Example]] = None) -> None:
    """Initialise, and give spaCy's own heads random weights: they start from zeros, which send no gradient."""
    spacy.util.fix_random_seed(seed)
    nlp.initialize(lambda: make_examples(nlp) if examples is None else examples)
    random_state = numpy.random.RandomState(seed)
    for name, component in nlp.pipeline:
        if name in ("tagger", "textcat"):
            for node in component.model.walk():  # type: ignore[attr-defined]
                for param in node.param_names:
                    shape = node.get_param(param).shape
                    node.set_param(param, random_state.normal(scale=0.5, size=shape).astype("float32"))


TRAINING: List[Tuple[str, str, List[Tuple[int, int, str]]]] = [
    ("Where is my order, Anna?", "TRACK", [(19, 23, "PERSON")]),
    ("please cancel the refund in New York", "CANCEL", [(28, 36, "CITY")]),
    ("track Smith in London", "TRACK", [(6, 11, "PERSON"), (15, 21, "CITY")]),
]


# Beside the entities: some within each other, also with the same label
NESTED: List[List[Tuple[int, int, str]]] = [
    [(9, 17, "THING"), (12, 17, "THING")],
    [(14, 24, "THING"), (18, 24, "THING"), (25, 36, "PLACE")],
    [(6, 21, "THING"), (12, 21, "PLACE")],
]


def make_examples(nlp: Language) -> List[Example]:
    """Three annotated texts: two exclusive categories, two kinds of entities, spans that overlap, and tags made of the
    first letter.
    """
    examples = []
    for (text, cat, entities), nested in zip(TRAINING, NESTED):
        doc = nlp.make_doc(text)
        annotation = {
            "cats": {label: float(label == cat) for label in ("CANCEL", "TRACK")},
            "entities": entities,
            "spans": {"sc": [*entities, *nested]},
            "tags": [token.lower_[0] if token.is_alpha else "PUNCT" for token in doc],
        }
        examples.append(Example.from_dict(doc, annotation))
    return examples


def make_example(nlp: Language, text: str, **annotation: Any) -> Example:
    return Example.from_dict(nlp.make_doc(text), annotation)


def make_texts(n: int, seed: int = 0, longest: int = 12) -> List[str]:
    """Texts of random words, some of which are many wordpieces."""
    chooser = random.Random(seed)
    return [" ".join(chooser.choices(WORDS, k=chooser.randint(1, longest))) for _ in range(n)]


def encoder_module(nlp: Language, name: str = "transformer") -> Any:
    """The torch module of a pipeline's encoder: `transformer` in it is the Hugging Face model."""
    return nlp.get_pipe(name).model.shims[0].module  # type: ignore[attr-defined]


def head_module(nlp: Language, name: str) -> Any:
    """The torch module of a head's output layer."""
    return nlp.get_pipe(name).model.get_ref("output_layer").shims[0].module  # type: ignore[attr-defined]


def crf_module(nlp: Language) -> Any:
    """The torch module of the CRF, None if there is none."""
    crf = get_crf(nlp.get_pipe("bert_ner").model)  # type: ignore[attr-defined]
    return None if crf is None else crf.shims[0].module


def gradients(module: torch.nn.Module) -> Dict[str, torch.Tensor]:
    """Gradients by parameter; those that are absent are left out."""
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def has_gradient(module: torch.nn.Module) -> bool:
    return any(bool(gradient.abs().sum() > 0) for gradient in gradients(module).values())


def clear_gradients(nlp: Language) -> None:
    for _, component in nlp.pipeline:
        for node in component.model.walk():  # type: ignore[attr-defined]
            for shim in node.shims:
                shim.module.zero_grad()


def weights(module: torch.nn.Module) -> Dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def record_rectangles(nlp: Language, monkeypatch: Any) -> List[Tuple[int, int, int]]:
    """A list that grows by rows, columns and wordpieces (padding left out) of what goes through the encoder."""
    shim = nlp.get_pipe("transformer").model.shims[0]  # type: ignore[attr-defined]
    seen: List[Tuple[int, int, int]] = []
    runner = shim.runner

    def recorder(is_train: bool) -> Any:
        run = runner(is_train)

        def record(ids: Any, mask: Any, token_types: Any) -> Any:
            seen.append((*ids.shape, int(mask.sum())))
            return run(ids, mask, token_types)

        return record

    monkeypatch.setattr(shim, "runner", recorder)
    return seen


def hf_inputs(nlp: Language, texts: Sequence[str]) -> Any:
    """What Hugging Face's own tokenizer makes of texts."""
    tokenizer = nlp.get_pipe("transformer").model.shims[0].tokenizer  # type: ignore[attr-defined]
    return tokenizer(list(texts), padding=True, return_tensors="pt")


def predictions(docs: Iterable[Doc]) -> List[Tuple[Dict[str, float], List[Tuple[int, int, str]]]]:
    """Categories, and entities with the spans of `bert_spans` behind them."""
    return [
        (dict(doc.cats), [(span.start, span.end, span.label_) for span in (*doc.ents, *doc.spans.get("sc", ()))])
        for doc in docs
    ]


def assert_same_predictions(ours: Sequence[Any], theirs: Sequence[Any], tolerance: float = 0.0) -> None:
    """Equal entities; categories equal to a tolerance."""
    assert len(ours) == len(theirs)
    for (cats, ents), (other_cats, other_ents) in zip(ours, theirs):
        assert ents == other_ents
        assert list(cats) == list(other_cats)
        numpy.testing.assert_allclose(list(cats.values()), list(other_cats.values()), rtol=0, atol=tolerance)


def assert_close(actual: Any, expected: Any, tolerance: float = 1e-5) -> None:
    actual, expected = (numpy.asarray(x.detach() if isinstance(x, torch.Tensor) else x) for x in (actual, expected))
    assert actual.shape == expected.shape
    numpy.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)


def assert_gradients_close(module: torch.nn.Module, reference: torch.nn.Module, tolerance: float = 1e-5) -> None:
    """Every parameter of `module` has the gradient of its namesake in `reference`; none passes by being zero in
    both, unless the reference says so.
    """
    ours, theirs = gradients(module), gradients(reference)
    assert any(bool(gradient.abs().max() > 1e-4) for gradient in theirs.values())
    assert {n for n, g in ours.items() if g.abs().sum() > 0} == {n for n, g in theirs.items() if g.abs().sum() > 0}
    for name, gradient in theirs.items():
        if name in ours:
            assert_close(ours[name], gradient, tolerance)


def gold_tags(example: Example, scheme: TagScheme) -> Any:
    """Gold tags for the tokens of the predicted Doc, by the steps of `bert_ner`'s loss. UNKNOWN where none."""
    skipped = Skipped("")
    return to_tags(known_labels(read_annotation(example, None, skipped), scheme.labels, example, skipped), scheme)
