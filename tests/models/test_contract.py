"""One contract for every architecture this package registers."""

import copy
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Dict, List

import pytest
import spacy
import srsly
from spacy.tokens import Doc
from spacy.util import fix_random_seed, registry
from spacy_transformers.data_classes import FullTransformerBatch, TransformerData
from thinc.api import Config, Model

from ..generating import make_language_model
from ..making import assert_close, make_config, make_nlp, make_scratch_config

ENCODER = make_config("FOLDER")
SCRATCH = make_scratch_config()
EMBEDDING = {
    "@architectures": "spacy.MultiHashEmbed.v2",
    "width": 6,
    "attrs": ["ORTH"],
    "rows": [50],
    "include_static_vectors": False,
}
PREFIX = "spacy_bert_heads."
# Architecture, and what it is given that has no default
TABLE: Dict[str, Dict[str, Any]] = {
    "BertEncoder.v1": {"name": "FOLDER", "precision": "fp32", "overlap": 4, "hidden_states": True},
    "BertFromScratch.v1": {key: value for key, value in SCRATCH.items() if key != "@architectures"},
    "TokenListener.v1": {"pooling": "mean"},
    "PooledListener.v1": {},
    "TokenVectors.v1": {"encoder": ENCODER, "pooling": "last"},
    "PooledVectors.v1": {"encoder": SCRATCH},
    "TransformerVectors.v1": {"encoder": ENCODER, "pooling": {"@layers": "reduce_mean.v1"}},
    "PooledClassifier.v1": {"tok2vec": ENCODER, "exclusive_classes": True, "nO": 3},
    "BiLSTMCRF.v1": {"tok2vec": SCRATCH, "lstm_width": 8, "precision": "fp32", "nO": 5, "features": EMBEDDING},
    "GlobalPointer.v1": {
        "tok2vec": SCRATCH,
        "key_width": 4,
        "max_width": 3,
        "lstm_width": 8,
        "nO": 2,
        "features": EMBEDDING,
    },
    "PointerGenerator.v1": {"tok2vec": SCRATCH, "width": 8, "heads": 2, "nO": 2, "features": EMBEDDING},
    "TextToText.v1": {"name": "LANGUAGE_MODEL", "nO": 2},
    "TextCNN.v1": {"tok2vec": ENCODER, "exclusive_classes": True, "filters": 4, "nO": 3},
    "TextRNN.v1": {"tok2vec": SCRATCH, "exclusive_classes": True, "lstm_width": 8, "nO": 3},
    "TextRNNAttention.v1": {"tok2vec": EMBEDDING, "exclusive_classes": False, "lstm_width": 8, "nO": 3},
    "TextRCNN.v1": {"tok2vec": EMBEDDING, "exclusive_classes": False, "lstm_width": 8, "nO": 3},
    "NgramEmbed.v1": {"widths": [4, 2]},
    "BagOfNgrams.v1": {"exclusive_classes": True, "nO": 3},
    "DPCNN.v1": {"tok2vec": ENCODER, "exclusive_classes": True, "filters": 4, "nO": 3},
}
TEXT_HEADS = (
    "PooledClassifier.v1",
    "BagOfNgrams.v1",
    "TextCNN.v1",
    "TextRNN.v1",
    "TextRNNAttention.v1",
    "TextRCNN.v1",
    "DPCNN.v1",
)
WIDTHS = {
    "BiLSTMCRF.v1": 5,
    "GlobalPointer.v1": 2,
    "PointerGenerator.v1": 2,
    "TextToText.v1": 2,
    "NgramEmbed.v1": 6,
    **dict.fromkeys(TEXT_HEADS, 3),
}
# Numbers for each token beyond one for each label: products with tokens behind it, and ends
MORE_COLUMNS = {"GlobalPointer.v1": 3 + 2, "PointerGenerator.v1": 6, "TextToText.v1": 14}
# Rows are pieces, those of a window's ends included
PER_PIECE = ("TextToText.v1",)
# Layers, and parameters, that learn from a loss and not from what comes back to the model
BY_LOSS = ("crf", "pointer_decoder")
OF_DECODER = ("decoder.", "lm_head")
USE_THE_POOLER = ("PooledVectors.v1", "PooledClassifier.v1", "BertEncoder.v1", "BertFromScratch.v1")
PER_DOC = ("PooledListener.v1", "PooledVectors.v1", *TEXT_HEADS)
TEXTS = ["where is my order", "", "请取消", " ", "cancel " * 40]


@pytest.fixture(scope="module")
def docs(bert_folder: str) -> List[Doc]:
    """Docs that carry the shared encoder's outputs, for the listeners."""
    return list(make_nlp(bert_folder, []).pipe(TEXTS))


@pytest.fixture(scope="module", autouse=True)
def language_model(tmp_path_factory: pytest.TempPathFactory) -> None:
    FOLDERS["LANGUAGE_MODEL"] = make_language_model(tmp_path_factory.mktemp("t5"), "t5")


FOLDERS: Dict[str, str] = {}


def make_model(name: str, folder: str) -> Model:
    config = Config({"model": {"@architectures": PREFIX + name, **TABLE[name]}}).to_str().replace("FOLDER", folder)
    for placeholder, path in FOLDERS.items():
        config = config.replace(placeholder, path)
    fix_random_seed(0)
    return registry.resolve(Config().from_str(config))["model"]


def make_ready(name: str, folder: str, docs: List[Doc]) -> Model:
    model = make_model(name, folder)
    if name.endswith("Listener.v1"):
        make_nlp(folder, []).get_pipe("transformer").add_listener(model.layers[0], "head")
    fix_random_seed(0)
    return model.initialize(X=docs)


def arrays(name: str, Y: Any) -> List[Any]:
    """A model's output as one list of arrays, Doc by Doc."""
    if isinstance(Y, FullTransformerBatch):
        return [
            array
            for data in Y.doc_data
            for value in data.model_output.values()
            for array in (value if isinstance(value, list) else [value])
        ]
    return list(Y)


def assert_same_output(name: str, ours: Any, theirs: Any, tolerance: float = 0.0) -> None:
    ours, theirs = arrays(name, ours), arrays(name, theirs)
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs):
        assert_close(a, b, tolerance)


def test_the_table_holds_every_registered_architecture() -> None:
    points = entry_points().select(group="spacy_architectures")  # type: ignore[attr-defined]
    names = {point.name[len(PREFIX) :] for point in points if point.name.startswith(PREFIX)}
    assert names == set(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_config_fills_and_survives_json_and_text(name: str, bert_folder: str) -> None:
    filled = registry.fill({"model": {"@architectures": PREFIX + name, **TABLE[name]}})
    assert srsly.json_loads(srsly.json_dumps(filled)) == filled
    config = Config(filled)
    assert Config().from_str(config.to_str()) == config
    assert set(TABLE[name]) < set(filled["model"])


@pytest.mark.parametrize("name", TABLE)
def test_shapes_are_as_declared(name: str, bert_folder: str, docs: List[Doc]) -> None:
    model = make_ready(name, bert_folder, docs)
    width = WIDTHS.get(name, 16)
    assert model.get_dim("nO") == width
    Y = model.predict(docs)
    if isinstance(Y, FullTransformerBatch):
        for doc, data in zip(docs, Y.doc_data):
            n_windows, n_pieces = data.wordpieces.input_ids.shape
            assert data.model_output["last_hidden_state"].shape == (n_windows, n_pieces, width)
            assert data.model_output["pooler_output"].shape == (n_windows, width)
            for layer in data.model_output.get("hidden_states", []):
                assert layer.shape == (n_windows, n_pieces, width)
            assert len(data.align.lengths) == len(doc)
    elif name in PER_DOC:
        assert Y.shape == (len(docs), width)
    else:
        width += MORE_COLUMNS.get(name, 0)
        rows = [len(y) if name in PER_PIECE and len(doc) else len(doc) for y, doc in zip(Y, docs)]
        assert [y.shape for y in Y] == [(n, width) for n in rows]
    if name != "TransformerVectors.v1":  # spacy-transformers' part of it needs a Doc
        assert arrays(name, model.predict([])) == []


@pytest.mark.parametrize("name", TABLE)
def test_prediction_is_repeatable_and_free_of_company(name: str, bert_folder: str, docs: List[Doc]) -> None:
    model = make_ready(name, bert_folder, docs)
    together = model.predict(docs)
    assert_same_output(name, model.predict(docs), together)
    if name == "TransformerVectors.v1":  # spacy-transformers gives one empty Doc alone a width of 0
        docs = [doc for doc in docs if len(doc)]
        together = model.predict(docs)
    apart = [array for doc in docs for array in arrays(name, model.predict([doc]))]
    assert_same_output(name, apart, arrays(name, together), 1e-5)


@pytest.mark.parametrize("name", [name for name in TABLE if not name.endswith("Listener.v1")])
def test_backprop_fills_every_parameters_gradient(name: str, bert_folder: str, docs: List[Doc]) -> None:
    model = make_ready(name, bert_folder, docs)
    Y, backprop = model.begin_update(docs)
    if isinstance(Y, FullTransformerBatch):
        backprop([TransformerData(data.wordpieces, data.model_output, data.align) for data in Y.doc_data])
    elif name in PER_DOC:
        backprop(model.ops.asarray2f([[1.0 + i * j for j in range(Y.shape[1])] for i in range(len(Y))]))
    else:
        backprop([model.ops.asarray2f(y * 0 + 1) * model.ops.xp.arange(1, y.shape[1] + 1, dtype="f") for y in Y])
    for node in model.walk():
        for shim in node.shims:
            if node.name in BY_LOSS:
                continue
            for parameter, value in shim.module.named_parameters():
                if node.name == "text_to_text" and parameter.startswith(OF_DECODER):
                    continue
                if parameter.startswith("transformer.pooler") and name not in USE_THE_POOLER:
                    assert value.grad is None or not value.grad.any()
                elif not parameter.endswith("key.bias"):
                    assert value.grad is not None and bool(value.grad.any()), parameter


@pytest.mark.parametrize("name", TABLE)
def test_bytes_disk_and_copies_give_the_same_output(
    name: str, bert_folder: str, docs: List[Doc], tmp_path: Path
) -> None:
    model = make_ready(name, bert_folder, docs)
    before = model.predict(docs)
    from_bytes = make_model(name, bert_folder).from_bytes(model.to_bytes())
    assert_same_output(name, from_bytes.predict(docs), before)
    model.to_disk(tmp_path / "model")
    assert_same_output(name, make_model(name, bert_folder).from_disk(tmp_path / "model").predict(docs), before)
    again = make_model(name, bert_folder).from_bytes(from_bytes.to_bytes())
    assert again.to_bytes() == from_bytes.to_bytes()
    assert_same_output(name, copy.deepcopy(model).predict(docs), before)
    copied = model.copy()
    assert_same_output(name, copied.predict(docs), before)
    ids = [shim.id for m in (model, copied) for node in m.walk() for shim in node.shims]
    assert len(ids) == len(set(ids))
    for node in copied.walk():  # a copy shares no weight
        for shim in node.shims:
            for parameter in shim.module.parameters():
                parameter.data.zero_()
    assert_same_output(name, model.predict(docs), before)


@pytest.mark.parametrize("name", TABLE)
def test_an_uninitialised_model_can_be_saved(name: str, bert_folder: str) -> None:
    model = make_model(name, bert_folder)
    assert make_model(name, bert_folder).from_bytes(model.to_bytes()).to_bytes() == model.to_bytes()


@pytest.mark.parametrize(
    "factory",
    [
        "bert_encoder",
        "bert_textcat",
        "bert_textcat_multilabel",
        "bert_regression",
        "bert_ner",
        "bert_spans",
        "seq2seq_ner",
    ],
)
def test_factory_config_survives_text_and_json(factory: str) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe(factory)
    config = nlp.config["components"]
    assert Config().from_str(nlp.config.to_str())["components"] == config
    assert srsly.json_loads(srsly.json_dumps(config)) == config
    assert spacy.blank("en").from_config(Config().from_str(nlp.config.to_str())).pipe_names == [factory]
