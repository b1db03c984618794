"""Sentence pairs against what Hugging Face's own tokenizers make of two sentences."""

from pathlib import Path
from typing import Any, List, Optional

import numpy
import pytest
import spacy
import torch
from tokenizers import processors
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    BertForSequenceClassification,
    BertTokenizer,
    PreTrainedTokenizerFast,
)

from spacy_bert_heads.backends.optimize import optimize
from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.models.sentence_pairs import PairTokens, find_sentences, has_token_types, pair_input, shows_both
from spacy_bert_heads.models.windows import cut_windows, tokenize

from ..making import (
    PIECES,
    SIZES,
    assert_close,
    assert_gradients_close,
    assert_same_predictions,
    encoder_module,
    head_module,
    initialize_nlp,
    make_bert_folder,
    make_config,
    make_example,
    make_nlp,
    make_scratch_config,
    make_tokenizer,
    predictions,
    randomise,
)

PAIRS = [("where is my order", "cancel it"), ("", "refund"), ("refund", ""), ("", ""), ("我的订单", "new york?")]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a b\tc", ["a b", "c"]),
        ("a", ["a"]),
        ("", [""]),
        ("\tc", ["", "c"]),
        ("a\t", ["a", ""]),
        ("\t", ["", ""]),
        ("a\tb\tc", ["a", "b\tc"]),
    ],
)
def test_the_first_separator_parts_two_sentences(text: str, expected: List[str]) -> None:
    assert [text[start:stop] for start, stop in find_sentences(text, "\t")] == expected


def test_a_separator_may_be_longer_than_a_character() -> None:
    text = "eins || zwei"
    assert [text[a:b] for a, b in find_sentences(text, " || ")] == ["eins", "zwei"]


def make_berts() -> Any:
    return make_tokenizer()


def make_robertas() -> Any:
    """Two tokens in the middle, no token types."""
    tokenizer = make_tokenizer().backend_tokenizer
    tokenizer.post_processor = processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", model_input_names=["input_ids", "attention_mask"]
    )


def make_slow(tmp_path: Any) -> Any:
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES), encoding="utf8")
    return BertTokenizer(str(tmp_path / "vocab.txt"))


@pytest.mark.parametrize("kind", ["bert", "roberta", "slow"])
@pytest.mark.parametrize("first, second", PAIRS)
def test_a_pair_in_one_window_is_what_the_tokenizer_makes_of_it(
    kind: str, first: str, second: str, tmp_path: Any
) -> None:
    tokenizer = make_slow(tmp_path) if kind == "slow" else make_berts() if kind == "bert" else make_robertas()
    tokens = PairTokens.of(tokenizer)
    parts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (first, second)]
    ids = numpy.array(parts[0] + parts[1], dtype="int64")
    pieces, types = pair_input(ids, len(parts[0]), (0, len(ids)), tokens)
    expected = tokenizer([first], [second])  # in lists: a plain empty string counts as no second sentence
    assert pieces == expected["input_ids"][0]
    assert types == (expected["token_type_ids"][0] if "token_type_ids" in expected else [0] * len(pieces))
    assert len(pieces) == len(ids) + len(tokens)


def test_windows_of_a_long_pair_show_the_middle_where_the_sentences_meet() -> None:
    tokens = PairTokens.of(make_berts())
    ids = numpy.arange(100, 110)
    assert pair_input(ids, 4, (0, 4), tokens) == ([2, 100, 101, 102, 103, 3], [0, 0, 0, 0, 0, 1])
    assert pair_input(ids, 4, (2, 6), tokens) == ([2, 102, 103, 3, 104, 105, 3], [0, 0, 0, 0, 1, 1, 1])
    assert pair_input(ids, 4, (4, 8), tokens) == ([2, 104, 105, 106, 107, 3], [0, 1, 1, 1, 1, 1])


@pytest.mark.parametrize("n_pieces", range(7))
def test_the_middle_is_shown_where_both_sides_are_or_a_side_is_empty(n_pieces: int) -> None:
    """By listing what a window holds, an empty sentence standing for a piece of its own at its end of the text."""
    for border in range(n_pieces + 1):
        line = [0] * (border or 1) + [1] * ((n_pieces - border) or 1)
        before = int(border == 0)
        for start in range(n_pieces + 1):
            for stop in range(start, n_pieces + 1):
                left = 0 if start == 0 else start + before
                right = len(line) if stop == n_pieces else stop + before
                expected = {0, 1} <= set(line[left:right])
                assert shows_both(border, (start, stop), n_pieces) == expected, (border, start, stop)


@pytest.mark.parametrize(
    "model_type, expected",
    [("bert", True), ("electra", True), ("albert", True), ("roberta", False), ("distilbert", False)],
)
def test_only_some_encoders_tell_token_types_apart(model_type: str, expected: bool) -> None:
    settings = {"type_vocab_size": 1} if model_type == "roberta" else {}
    config = AutoConfig.for_model(model_type, vocab_size=50, **SIZES[model_type], **settings)
    assert has_token_types(config) == expected


SEPARATORS = ["\t", " || "]


def make_pair_nlp(folder: str, separator: Any = "\t", **settings: Any) -> Any:
    return make_nlp(encoder=make_config(folder, pair_separator=separator, hidden_states=True, **settings))


@pytest.mark.parametrize("separator", SEPARATORS)
@pytest.mark.parametrize("model_type", ["bert", "electra", "distilbert"])
def test_an_encoder_reads_pairs_as_hugging_faces_does(tmp_path: Path, model_type: str, separator: str) -> None:
    folder = make_bert_folder(tmp_path, model_type)
    nlp = make_pair_nlp(folder, separator)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    pairs = [pair for pair in PAIRS if any(pair)]
    docs = list(nlp.pipe([separator.join(pair) for pair in pairs] + ["cancel my order"]))
    inputs = [tokenizer([a], [b], return_tensors="pt") for a, b in pairs] + [
        tokenizer(["cancel my order"], return_tensors="pt")
    ]
    for doc, values in zip(docs, inputs):
        if model_type == "distilbert":
            values.pop("token_type_ids", None)
        with torch.no_grad():
            expected = model(**values).last_hidden_state
        data = doc._.trf_data
        assert data.wordpieces.input_ids.tolist() == values["input_ids"].tolist()
        assert_close(data.model_output.last_hidden_state, expected, 1e-5)
        flat = values["input_ids"][0]
        for token in doc:
            rows = data.align[token.i].dataXd.flatten().tolist()
            found = "".join(tokenizer.convert_ids_to_tokens(flat[rows].tolist())).replace("##", "")
            assert found == (token.text.lower() if token.text.strip(" \t|") else "")


def test_gradients_and_loss_of_pairs_are_hugging_faces(tmp_path: Path) -> None:
    folder = make_bert_folder(tmp_path)
    nlp = make_nlp(encoder=make_config(folder, pair_separator="\t"), heads=["bert_textcat"], initialize=False)
    pairs = PAIRS[:3]
    labels = ["A", "B", "A"]
    texts = ["\t".join(pair) for pair in pairs]
    examples = [
        make_example(nlp, text, cats={label: float(label == true) for label in "AB"})
        for text, true in zip(texts, labels)
    ]
    initialize_nlp(nlp, examples=examples)
    randomise(head_module(nlp, "bert_textcat"), 0)
    linear = head_module(nlp, "bert_textcat").linear
    model = BertForSequenceClassification.from_pretrained(folder, num_labels=2).eval()
    model.bert.load_state_dict(encoder_module(nlp).transformer.state_dict())
    model.classifier.load_state_dict(linear.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer([a for a, _ in pairs], [b for _, b in pairs], padding=True, return_tensors="pt")
    component = nlp.get_pipe("bert_textcat")
    output = model(**inputs, labels=torch.tensor([component.labels.index(label) for label in labels]))
    output.loss.backward()
    for budget in (4096, 8):  # graph kept, and forward passes run again
        nlp.get_pipe("transformer").model.attrs["settings"].max_batch_pieces = budget
        encoder_module(nlp).zero_grad()
        losses = nlp.update(examples, sgd=False)
        assert losses["bert_textcat"] == pytest.approx(float(output.loss.detach()), rel=1e-5)
        assert_gradients_close(encoder_module(nlp).transformer, model.bert, 1e-4)


def test_windows_of_a_long_pair_lose_nothing_and_hold_what_they_should(tmp_path: Path) -> None:
    folder = make_bert_folder(tmp_path)
    nlp = make_pair_nlp(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    tokens = PairTokens.of(tokenizer)
    long = "order Anna cancel " * 12
    texts = [f"{a}\t{b}" for a, b in [(long, "refund"), ("refund", long), (long, long), (long, ""), ("", long)]]
    for doc in nlp.pipe([*texts, "order", long]):
        data = doc._.trf_data
        ids = [tokenizer(part, add_special_tokens=False)["input_ids"] for part in doc.text.split("\t")]
        pieces = numpy.array(sum(ids, []), dtype="int64")
        flat = data.wordpieces.input_ids.reshape(-1)
        rows = data.align.dataXd
        assert flat[rows].tolist() == pieces.tolist() and len(set(rows.tolist())) == len(rows)
        assert max(data.wordpieces.lengths) <= 32
        if "\t" in doc.text:
            assert len(data.wordpieces) > 1
            windows = cut_windows(len(pieces), 32 - len(tokens), 4)
            for number, window in enumerate(windows):
                expected_ids, types = pair_input(pieces, len(ids[0]), window, tokens)
                with torch.no_grad():
                    expected = model(
                        input_ids=torch.tensor([expected_ids]), token_type_ids=torch.tensor([types])
                    ).last_hidden_state[0]
                assert_close(data.model_output.last_hidden_state[number, : len(expected)], expected, 1e-5)


def test_a_slow_tokenizer_and_a_saved_pipeline_read_pairs(tmp_path: Path) -> None:
    folder = make_bert_folder(tmp_path / "bert")
    fast = make_pair_nlp(folder)
    (tmp_path / "bert" / "vocab.txt").write_text("\n".join(PIECES), encoding="utf8")
    slow = BertTokenizer(str(tmp_path / "bert" / "vocab.txt"))
    for a, b in PAIRS:
        doc = fast.make_doc(f"{a}\t{b}")
        ours, theirs = tokenize(slow, [doc], "\t")[0], tokenize(make_berts(), [doc], "\t")[0]
        assert ours.border == theirs.border and ours.ids.tolist() == theirs.ids.tolist()
        assert ours.pair_tokens.tolist() == theirs.pair_tokens.tolist()
        assert ours.pair_pieces.tolist() == theirs.pair_pieces.tolist()
    texts = ["\t".join(pair) for pair in PAIRS]
    expected = predictions(fast.pipe(texts))
    fast.to_disk(tmp_path / "nlp")
    assert_same_predictions(predictions(spacy.load(tmp_path / "nlp").pipe(texts)), expected, 1e-6)
    assert_same_predictions(predictions(fast(text) for text in texts), expected, 1e-5)


def test_from_scratch_reads_pairs_and_an_empty_separator_is_refused() -> None:
    nlp = make_nlp(encoder=make_scratch_config(pair_separator="\t"))
    assert len(nlp("cancel\torder")._.trf_data.wordpieces.input_ids[0]) == 3 + sum(
        len(nlp(text)._.trf_data.wordpieces.input_ids[0]) - 2 for text in ("cancel", "order")
    )
    with pytest.raises(BertHeadsError) as error:
        make_nlp(encoder=make_scratch_config(pair_separator=""))
    assert error.value.code == "H264"


@pytest.mark.parametrize("model_type, code", [("bert", "H248"), ("distilbert", None)])
def test_only_encoders_without_token_types_are_exported_for_pairs(
    tmp_path: Path, model_type: str, code: Optional[str]
) -> None:
    nlp = make_pair_nlp(make_bert_folder(tmp_path / "encoder", model_type))
    nlp.to_disk(tmp_path / "nlp")
    if code is None:
        optimize(str(tmp_path / "nlp"), tmp_path / "out", backend="torch", precision="fp32")
        texts = ["\t".join(pair) for pair in PAIRS]
        exported = spacy.load(tmp_path / "out")
        assert_same_predictions(predictions(exported.pipe(texts)), predictions(nlp.pipe(texts)), 1e-5)
        return
    with pytest.raises(BertHeadsError) as error:
        optimize(str(tmp_path / "nlp"), tmp_path / "out", backend="torch", precision="fp32")
    assert error.value.code == code and not (tmp_path / "out").exists()
