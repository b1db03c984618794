"""BertFromScratch in a pipeline: its vocabulary comes from the whole corpus, or from a file."""

from pathlib import Path
from typing import Any, List

import pytest
import spacy
from spacy.language import Language
from spacy.training import Example

from spacy_bert_heads.errors import BertHeadsError

from ..making import (
    PIECES,
    assert_same_predictions,
    encoder_module,
    initialize_nlp,
    make_example,
    make_examples,
    make_nlp,
    make_scratch_config,
    make_tokenizer,
    predictions,
)

LATE = "xylophone"  # only in the fiftieth text


def make_many(nlp: Language) -> List[Example]:
    """Fifty examples, of which spaCy shows a text categorizer's model ten."""
    examples = make_examples(nlp)
    while len(examples) < 49:
        examples += make_examples(nlp)
    cats = {"CANCEL": 1.0, "TRACK": 0.0}
    return [*examples[:49], make_example(nlp, f"{LATE} {LATE} {LATE}", cats=cats, entities=[(0, 9, "CITY")])]


def tokenizers(nlp: Language) -> List[Any]:
    return [
        shim.tokenizer
        for _, component in nlp.pipeline
        for node in component.model.walk()  # type: ignore[attr-defined]
        for shim in node.shims
        if hasattr(shim, "tokenizer")
    ]


PRIVATE_HEADS = ("bert_textcat", "bert_textcat_multilabel", "bert_ner", "bert_spans", "seq2seq_ner")


def make_private(head: str, lang: str = "en") -> Language:
    nlp = spacy.blank(lang)
    nlp.add_pipe(head, config={"model": {"tok2vec": make_scratch_config()}})
    return nlp


@pytest.mark.parametrize("head", [None, *PRIVATE_HEADS])
def test_the_vocabulary_comes_from_the_whole_corpus(head: Any) -> None:
    nlp = make_private(head) if head else make_nlp(encoder=make_scratch_config(), initialize=False)
    initialize_nlp(nlp, examples=make_many(nlp))
    (tokenizer,) = tokenizers(nlp)
    assert tokenizer.tokenize(LATE) == [LATE]
    assert tokenizer.model_max_length == 32


@pytest.mark.parametrize("kind", ["vocab.txt", "tokenizer.json"])
@pytest.mark.parametrize("head", [None, *PRIVATE_HEADS])
def test_a_vocabulary_file_is_used_instead(tmp_path: Path, head: Any, kind: str) -> None:
    path = tmp_path / kind
    if kind == "vocab.txt":
        path.write_text("\n".join(PIECES), encoding="utf8")
    else:
        make_tokenizer().backend_tokenizer.save(str(path))
    nlp = make_private(head) if head else make_nlp(encoder=make_scratch_config(), initialize=False)
    nlp.config["initialize"]["components"][head or "transformer"] = {"vocab": str(path)}
    initialize_nlp(nlp, examples=make_many(nlp))
    (tokenizer,) = tokenizers(nlp)
    assert tokenizer.get_vocab() == make_tokenizer().get_vocab()
    assert "##x" in tokenizer.tokenize(LATE) or len(tokenizer.tokenize(LATE)) == len(LATE)


def test_a_corpus_without_text_teaches_nothing() -> None:
    nlp = make_nlp(encoder=make_scratch_config(), initialize=False)
    examples = [make_example(nlp, " ", cats={"TRACK": 1.0, "CANCEL": 0.0}, entities=[])]
    with pytest.raises(BertHeadsError) as error:
        initialize_nlp(nlp, examples=examples)
    assert error.value.code == "H207"


def test_width_must_fit_the_attention_heads() -> None:
    with pytest.raises(BertHeadsError) as error:
        make_nlp(encoder=make_scratch_config(width=18, heads=4))
    assert error.value.code == "H206"


def test_chinese_is_learned_saved_and_loaded(tmp_path: Path) -> None:
    nlp = make_nlp(lang="zh", encoder=make_scratch_config(), initialize=False)
    texts = [
        ("张三在北京的订单", "TRACK", [(0, 2, "PERSON"), (3, 5, "CITY")]),
        ("请取消上海的退款", "CANCEL", [(3, 5, "CITY")]),
    ]
    examples = [
        make_example(nlp, text, cats={c: float(c == cat) for c in ("TRACK", "CANCEL")}, entities=entities)
        for text, cat, entities in texts
    ]
    initialize_nlp(nlp, examples=examples)
    sgd = nlp.create_optimizer()
    sgd.learn_rate = 0.003
    for _ in range(60):
        nlp.update(examples, sgd=sgd)
    scores = nlp.evaluate(examples)
    assert scores["cats_acc"] == scores["ents_f"] == 1.0
    nlp.to_disk(tmp_path)
    strange = [*(text for text, _, _ in texts), "", "订单 abc", "👍"]
    assert_same_predictions(predictions(spacy.load(tmp_path).pipe(strange)), predictions(nlp.pipe(strange)))
    assert encoder_module(nlp).transformer.config.max_position_embeddings == 32


def test_initialising_again_keeps_vocabulary_and_weights() -> None:
    nlp = make_nlp(encoder=make_scratch_config())
    before, vocab = nlp("where is my order").cats, tokenizers(nlp)[0].get_vocab()
    initialize_nlp(nlp, seed=5, examples=make_many(nlp))
    assert tokenizers(nlp)[0].get_vocab() == vocab
    assert nlp("where is my order").cats == before
