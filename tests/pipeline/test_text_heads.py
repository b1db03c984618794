"""Every text architecture in every text component, over BERT and over plain embeddings."""

from pathlib import Path
from typing import Any, Dict, List, Optional

import numpy
import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from thinc.api import Adam

from spacy_bert_heads.errors import BertHeadsError

from ..making import (
    assert_same_predictions,
    encoder_module,
    gradients,
    has_gradient,
    initialize_nlp,
    make_config,
    make_example,
    make_nlp,
    make_scratch_config,
    predictions,
)

PREFIX = "spacy_bert_heads."
SIZES: Dict[str, Dict[str, Any]] = {
    "TextCNN.v1": {"filters": 6},
    "TextRNN.v1": {"lstm_width": 8, "lstm_depth": 1},
    "TextRNNAttention.v1": {"lstm_width": 8, "lstm_depth": 1},
    "TextRCNN.v1": {"lstm_width": 8, "hidden_width": 8},
    "DPCNN.v1": {"filters": 8, "depth": 2},
}
EXCLUSIVE = {"bert_textcat": True, "bert_textcat_multilabel": False, "bert_regression": False}
TEXTS = ["Where is my order, Anna?", "please cancel the refund in New York", "track", "", "where to?"]
FIRST = [1.0, 0.0, 1.0, 0.0, 1.0]
every_architecture = pytest.mark.parametrize("name", SIZES)
every_component = pytest.mark.parametrize("head", EXCLUSIVE)


def embedding(lang: str = "en", **settings: Any) -> Dict[str, Any]:
    defaults = {"width": 12, "attrs": ["ORTH"], "rows": [200], "include_static_vectors": False}
    return {"@architectures": "spacy.MultiHashEmbed.v2", **defaults, **settings}


def token_listener() -> Dict[str, Any]:
    return {"@architectures": "spacy_bert_heads.TokenListener.v1"}


def architecture(name: str, head: str, tok2vec: Dict[str, Any], **settings: Any) -> Dict[str, Any]:
    return {
        "@architectures": PREFIX + name,
        "exclusive_classes": EXCLUSIVE[head],
        "lr_scale": 1.0,
        "tok2vec": tok2vec,
        **SIZES.get(name, {}),
        **settings,
    }


def examples_of(nlp: Language, head: str) -> List[Example]:
    """Two labels, exclusive ones; for regression two targets on scales of their own."""
    if head == "bert_regression":
        cats = [{"HOW": 2.0 * first - 0.5, "MUCH": 3.0 - first} for first in FIRST]
    else:
        cats = [{"TRACK": first, "CANCEL": 1 - first} for first in FIRST]
    return [make_example(nlp, text, cats=values) for text, values in zip(TEXTS, cats)]


def make_alone(head: str, model: Dict[str, Any], lang: str = "en", **config: Any) -> Language:
    """A pipeline of one head and nothing else."""
    nlp = spacy.blank(lang, config=config)
    nlp.add_pipe(head, config={"model": model})
    initialize_nlp(nlp, examples=examples_of(nlp, head))
    return nlp


def learn(nlp: Language, head: str, steps: int = 60, rate: float = 0.01) -> float:
    sgd = Adam(rate)
    loss = 0.0
    for _ in range(steps):
        loss = nlp.update(examples_of(nlp, head), sgd=sgd)[head]
    return loss


def main_score(nlp: Language, head: str) -> float:
    scores = nlp.evaluate(examples_of(nlp, head))
    return scores["cats_pearson" if head == "bert_regression" else "cats_macro_f"]


def assert_learned_and_saved(nlp: Language, head: str, folder: Path) -> None:
    assert main_score(nlp, head) > 0.99
    before = predictions(nlp.pipe(TEXTS))
    assert_same_predictions(predictions(nlp(text) for text in TEXTS), before, 1e-5)
    nlp.to_disk(folder)
    assert_same_predictions(predictions(spacy.load(folder).pipe(TEXTS)), before)


@every_architecture
@every_component
def test_a_network_over_plain_embeddings_learns_with_no_bert_around(name: str, head: str, tmp_path: Path) -> None:
    nlp = make_alone(head, architecture(name, head, embedding()))
    assert nlp.pipe_names == [head]
    learn(nlp, head, *((150, 0.02) if head == "bert_regression" else ()))
    assert_learned_and_saved(nlp, head, tmp_path)


@every_architecture
def test_a_network_over_bert_learns_and_teaches_it(name: str, bert_folder: str, tmp_path: Path) -> None:
    head = "bert_textcat"
    model = architecture(name, head, token_listener(), lr_scale=20.0)
    nlp = make_nlp(bert_folder, [head], settings={head: {"model": model}}, initialize=False)
    initialize_nlp(nlp, examples=examples_of(nlp, head))
    nlp.update(examples_of(nlp, head), sgd=False)
    assert has_gradient(encoder_module(nlp).transformer)
    assert "pooler.dense.weight" not in gradients(encoder_module(nlp).transformer)
    learn(nlp, head, 40, 0.001)
    assert_learned_and_saved(nlp, head, tmp_path)


def shared_tok2vec(nlp: Language) -> Dict[str, Any]:
    """spaCy's own encoder, shared by its own listener."""
    model = {"@architectures": "spacy.HashEmbedCNN.v2", "width": 16, "depth": 1, "embed_size": 100, "window_size": 1}
    model |= {"maxout_pieces": 2, "subword_features": True, "pretrained_vectors": None}
    nlp.add_pipe("tok2vec", config={"model": model})
    return {"@architectures": "spacy.Tok2VecListener.v1", "width": 16, "upstream": "tok2vec"}


def characters(nlp: Language) -> Dict[str, Any]:
    return {
        "@architectures": "spacy.Tok2Vec.v2",
        "embed": {
            "@architectures": "spacy.CharacterEmbed.v2",
            "width": 16,
            "rows": 100,
            "nM": 8,
            "nC": 4,
            "include_static_vectors": False,
            "feature": "LOWER",
        },
        "encode": {
            "@architectures": "spacy.MaxoutWindowEncoder.v2",
            "width": 16,
            "window_size": 1,
            "maxout_pieces": 2,
            "depth": 1,
        },
    }


@pytest.mark.parametrize("make", [shared_tok2vec, characters, lambda nlp: make_scratch_config()])
def test_any_tok2vec_serves(make: Any, tmp_path: Path) -> None:
    head = "bert_textcat"
    nlp = spacy.blank("en")
    nlp.add_pipe(head, config={"model": architecture("TextCNN.v1", head, make(nlp))})
    initialize_nlp(nlp, examples=examples_of(nlp, head))
    learn(nlp, head, 40)
    assert_learned_and_saved(nlp, head, tmp_path)


def make_bag(head: str, **settings: Any) -> Dict[str, Any]:
    bag = {"@architectures": "spacy_bert_heads.BagOfNgrams.v1", "exclusive_classes": EXCLUSIVE[head]}
    return {**bag, "min_count": 1, **settings}


@every_component
def test_a_bag_of_ngrams_learns(head: str, tmp_path: Path) -> None:
    nlp = make_alone(head, make_bag(head))
    learn(nlp, head, 400, 0.05)
    assert_learned_and_saved(nlp, head, tmp_path)


@every_component
def test_ngrams_are_those_of_all_texts_as_the_pipeline_splits_them(head: str) -> None:
    """spaCy shows a model ten texts, and gold tokens may be others than the pipeline's."""
    nlp = spacy.blank("en")
    nlp.add_pipe(head, config={"model": make_bag(head, ngram_size=1)})
    cats = examples_of(nlp, head)[0].reference.cats
    words = [f"word{i}." for i in range(30)]
    examples = [Example(nlp.make_doc(word), Doc(nlp.vocab, words=[word], spaces=[False])) for word in words]
    for eg in examples:
        eg.reference.cats = cats
    nlp.initialize(lambda: examples)
    (known,) = nlp.get_pipe(head).model.attrs["vocabulary"]  # type: ignore[attr-defined]
    assert {nlp.vocab.strings[key] for key in known.tolist()} == {".", *(word[:-1] for word in words)}


@pytest.mark.parametrize("name", [*SIZES, "BagOfNgrams.v1"])
@every_component
def test_texts_that_are_all_empty_are_no_trouble(name: str, head: str) -> None:
    model = make_bag(head) if name == "BagOfNgrams.v1" else architecture(name, head, characters(spacy.blank("en")))
    nlp = make_alone(head, model)
    cats = examples_of(nlp, head)[0].reference.cats
    empty = [make_example(nlp, "", cats=cats)] * 2
    before = predictions(nlp.pipe(["", ""]))
    assert_same_predictions(before[:1], predictions([list(nlp.pipe(["where", ""]))[1]]), 1e-6)
    sgd = Adam(0.01)
    losses = [nlp.update(empty, sgd=sgd)[head] for _ in range(20)]
    assert losses[-1] < losses[0]


def test_chinese_is_read_by_characters(tmp_path: Path) -> None:
    head = "bert_textcat"
    tokenizer = {"@tokenizers": "spacy.zh.ChineseTokenizer", "segmenter": "char"}
    nlp = spacy.blank("zh", config={"nlp": {"tokenizer": tokenizer}})
    assert len(nlp("北京的订单")) == 5
    nlp.add_pipe(head, config={"model": architecture("TextCNN.v1", head, embedding())})
    examples = [
        make_example(nlp, text, cats={"订单": first, "退款": 1 - first})
        for text, first in (("我的订单在北京", 1.0), ("请取消退款", 0.0), ("订单", 1.0), ("退", 0.0))
    ]
    initialize_nlp(nlp, examples=examples)
    sgd = Adam(0.01)
    for _ in range(40):
        nlp.update(examples, sgd=sgd)
    assert nlp.evaluate(examples)["cats_acc"] == 1.0


def test_static_vectors_reach_the_network() -> None:
    head = "bert_textcat"

    def make(vectors: bool) -> Language:
        nlp = spacy.blank("en")
        random_state = numpy.random.RandomState(0)
        for word in ("where", "cancel", "order"):
            nlp.vocab.set_vector(word, random_state.normal(size=7).astype("float32"))
        model = architecture("TextCNN.v1", head, embedding(include_static_vectors=vectors))
        nlp.add_pipe(head, config={"model": model})
        initialize_nlp(nlp, examples=examples_of(nlp, head))
        return nlp

    def change(nlp: Language) -> float:
        before = nlp("cancel order").cats["TRACK"]
        nlp.vocab.vectors.data[:] = 3.0
        return abs(nlp("cancel order").cats["TRACK"] - before)

    assert change(make(True)) > 1e-4 and change(make(False)) == 0.0


@every_component
def test_the_head_of_the_wrong_kind_is_refused(head: str) -> None:
    model = architecture("TextCNN.v1", head, embedding(), exclusive_classes=not EXCLUSIVE[head])
    with pytest.raises(BertHeadsError) as error:
        spacy.blank("en").add_pipe(head, config={"model": model})
    assert error.value.code == "H217"


def test_a_replaced_listener_gives_the_network_an_encoder_of_its_own(bert_folder: str) -> None:
    head = "bert_textcat"
    nlp = make_nlp(
        bert_folder, [head], settings={head: {"model": architecture("TextRCNN.v1", head, token_listener())}}
    )
    before = predictions(nlp.pipe(TEXTS))
    nlp.replace_listeners("transformer", head, ["model.tok2vec"])
    nlp.remove_pipe("transformer")
    assert_same_predictions(predictions(nlp.pipe(TEXTS)), before, 1e-6)
    loaded = spacy.blank("en").from_config(nlp.config).from_bytes(nlp.to_bytes())
    assert_same_predictions(predictions(loaded.pipe(TEXTS)), before, 1e-6)


def code_of_initialize(head: str, cats: List[Dict[str, float]], labels: Optional[List[str]] = None) -> str:
    nlp = spacy.blank("en")
    nlp.add_pipe(head, config={"model": architecture("TextCNN.v1", head, embedding())})
    if labels is not None:
        nlp.config["initialize"]["components"][head] = {"labels": labels}
    with pytest.raises(BertHeadsError) as error:
        initialize_nlp(nlp, examples=[make_example(nlp, "where", cats=values) for values in cats])
    return error.value.code


@every_component
def test_data_without_any_label_says_so(head: str) -> None:
    assert code_of_initialize(head, [{}, {}]) == "H304"


def test_one_exclusive_label_says_so() -> None:
    assert code_of_initialize("bert_textcat", [{"A": 1.0}, {}]) == "H303"
    assert code_of_initialize("bert_textcat", [{}], ["A"]) == "H303"


def test_one_label_is_enough_for_yes_or_no() -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("bert_textcat_multilabel", config={"model": make_yes_or_no()})
    examples = [make_example(nlp, text, cats={"A": first}) for text, first in zip(TEXTS, FIRST)]
    initialize_nlp(nlp, examples=examples)
    sgd = Adam(0.01)
    for _ in range(40):
        nlp.update(examples, sgd=sgd)
    assert nlp.evaluate(examples)["cats_macro_f"] == 1.0


def make_yes_or_no() -> Dict[str, Any]:
    return architecture("TextCNN.v1", "bert_textcat_multilabel", embedding())


@pytest.mark.parametrize("head", ["bert_textcat", "bert_textcat_multilabel"])
def test_a_label_never_seen_stays_unlikely_and_is_reported_with_no_support(head: str) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe(head, config={"model": architecture("TextCNN.v1", head, embedding())})
    nlp.config["initialize"]["components"][head] = {"labels": ["TRACK", "CANCEL", "NEVER"]}
    initialize_nlp(nlp, examples=examples_of(nlp, head))
    learn(nlp, head)
    scores = nlp.evaluate(examples_of(nlp, head))
    assert scores["cats_support"] == {"TRACK": 3, "CANCEL": 2, "NEVER": 0}
    assert scores["cats_f_per_type"]["NEVER"]["f"] == 0.0
    if head == "bert_textcat":
        assert max(doc.cats["NEVER"] for doc in nlp.pipe(TEXTS)) < 0.1


def test_a_text_head_beside_bert_needs_no_encoder_of_its_own_name(bert_folder: str) -> None:
    """One pipeline, two networks: entities over BERT, categories over embeddings."""
    nlp = make_nlp(
        encoder=make_config(bert_folder),
        heads=["bert_ner", "bert_textcat"],
        settings={"bert_textcat": {"model": architecture("DPCNN.v1", "bert_textcat", embedding())}},
    )
    assert len(nlp.get_pipe("transformer").listeners) == 1  # type: ignore[attr-defined]
    assert sum(nlp("where is Anna").cats.values()) == pytest.approx(1.0)
