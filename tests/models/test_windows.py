"""Windows and alignment against brute force, and against plain Hugging Face run window by window."""

from typing import Any, Optional, Tuple

import numpy
import pytest
import spacy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.language import Language
from spacy.tokens import Doc

from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.models.windows import (
    Pieces,
    SpecialTokens,
    align_offsets,
    choose_windows,
    cut_windows,
    make_windowed_doc,
    tokenize,
)

from ..making import assert_close, encoder_module, make_config, make_nlp, make_texts, make_tokenizer

STRANGE_TEXTS = {
    "empty": "",
    "space": " ",
    "white space": "\n\t",
    "one letter": "x",
    "emoji of several code points": "ok 👩‍👩‍👧‍👦 👍🏽!",
    "Chinese": "我的订单在北京，张三 please",
    "white space between": "  the   order\n\n is ",
    "combining accents": "cafe\u0301 na\u00efve Zo\u0308e",
    "NUL and controls": "a\x00b \x07 order",
    "right to left": "שלום order مرحبا",
    "punctuation run": "!!!???...---" * 6,
    "long word": "abc " + "a" * 3000 + " order",
    "special tokens spelt out": "the [SEP] and [CLS] [MASK] token",
}

window_settings = st.tuples(st.integers(0, 80), st.integers(1, 12)).flatmap(
    lambda pair: st.tuples(st.just(pair[0]), st.just(pair[1]), st.integers(0, pair[1] - 1))
)


VOCAB = spacy.blank("xx").vocab


@settings(deadline=None)
@given(window_settings)
def test_windows_cover_every_wordpiece_in_order_and_share_the_overlap(setting: Tuple[int, int, int]) -> None:
    n_pieces, capacity, overlap = setting
    windows = cut_windows(n_pieces, capacity, overlap)
    assert windows[0][0] == 0 and windows[-1][1] == n_pieces
    assert all(0 <= stop - start <= capacity for start, stop in windows)
    if n_pieces > capacity:
        assert all(stop - start == capacity for start, stop in windows)
        for (start, stop), (next_start, _) in zip(windows, windows[1:]):
            assert start < next_start <= stop - overlap
    else:
        assert len(windows) == 1


@pytest.mark.parametrize("capacity, overlap", [(5, 5), (5, 9), (0, 0), (5, -1)])
def test_windows_that_could_not_move_on_are_refused(capacity: int, overlap: int) -> None:
    with pytest.raises(BertHeadsError) as error:
        cut_windows(50, capacity, overlap)
    assert error.value.code == "H201"


def context(first: int, last: int, window: Tuple[int, int], n_pieces: int) -> float:
    """Wordpieces seen on the shorter side of first..last; -inf where the window does not hold them."""
    start, stop = window
    if not start <= first <= last < stop:
        return -numpy.inf
    left = numpy.inf if start == 0 else first - start
    right = numpy.inf if stop == n_pieces else stop - 1 - last
    return min(left, right)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.data())
def test_every_token_is_read_where_it_has_most_context(data: st.DataObject) -> None:
    n_pieces, capacity, overlap = data.draw(window_settings)
    windows = cut_windows(n_pieces, capacity, overlap)
    # Tokens in order: runs of wordpieces, some without any, some sharing one with their neighbour
    pairs, token, piece = [], 0, 0
    while piece < n_pieces:
        length = data.draw(st.integers(0, capacity + 2))
        length = min(length, n_pieces - piece)
        pairs += [(token, p) for p in range(piece, piece + length)]
        token += 1
        piece = max(piece, piece + length - data.draw(st.sampled_from([0, 0, 0, 1])) * (length > 1))
        if length == 0 and data.draw(st.booleans()):
            piece += 1
    array = numpy.array(pairs, dtype="int64").reshape(-1, 2)
    pieces = Pieces(numpy.arange(n_pieces), array[:, 0], array[:, 1], token)
    chosen = choose_windows(pieces, windows)
    assert len(chosen) == len(pairs)
    for t in range(token):
        own = [i for i, (pair_token, _) in enumerate(pairs) if pair_token == t]
        if not own:
            continue
        first, last = pairs[own[0]][1], pairs[own[-1]][1]
        best = max(context(first, last, window, n_pieces) for window in windows)
        if best > -numpy.inf:
            assert len(set(chosen[own])) == 1
            assert context(first, last, windows[chosen[own[0]]], n_pieces) == best
        else:  # no window holds the token whole
            for i in own:
                p = pairs[i][1]
                one_best = max(context(p, p, window, n_pieces) for window in windows)
                assert context(p, p, windows[chosen[i]], n_pieces) == one_best > -numpy.inf


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_alignment_equals_one_made_character_by_character(data: st.DataObject) -> None:
    words = data.draw(st.lists(st.text("ab ", min_size=1, max_size=4), max_size=8))
    doc = Doc(VOCAB, words=words, spaces=[data.draw(st.booleans()) for _ in words])
    n = len(doc.text)
    offsets, at = [], 0
    while at < n:  # wordpieces in order, some empty, some skipping characters, some repeating them (byte-level)
        at = min(n, at + data.draw(st.integers(0, 2)))
        end = min(n, at + data.draw(st.integers(0, 4)))
        offsets += [(at, end)] * data.draw(st.sampled_from([1, 1, 1, 3]))
        at = max(end, at + 1)
    starts = numpy.array([token.idx for token in doc], dtype="int64")
    ends = starts + numpy.array([len(token) for token in doc], dtype="int64")
    tokens, pieces = align_offsets(starts, ends, numpy.array(offsets, dtype="int64").reshape(-1, 2))
    expected = [
        (token.i, i)
        for token in doc
        for i, (start, end) in enumerate(offsets)
        if set(range(start, end)) & set(range(token.idx, token.idx + len(token)))
    ]
    assert list(zip(tokens.tolist(), pieces.tolist())) == expected


@pytest.mark.parametrize("name", STRANGE_TEXTS)
def test_wordpieces_of_strange_texts_are_hugging_faces_and_none_is_lost(name: str) -> None:
    tokenizer, text = make_tokenizer(), STRANGE_TEXTS[name]
    doc = spacy.blank("en").make_doc(text)
    (pieces,) = tokenize(tokenizer, [doc])
    encoded = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
    assert pieces.ids.tolist() == encoded["input_ids"]
    assert set(pieces.pair_pieces.tolist()) == {i for i, (a, b) in enumerate(encoded["offset_mapping"]) if a < b}
    for token, piece in zip(pieces.pair_tokens.tolist(), pieces.pair_pieces.tolist()):
        start, end = encoded["offset_mapping"][piece]
        assert doc[token].idx < end and start < doc[token].idx + len(doc[token])
    windowed = make_windowed_doc(pieces, SpecialTokens.of(tokenizer), 16, 4)
    assert windowed.align.lengths.sum() == len(windowed.align.dataXd)
    assert len(windowed.align.lengths) == len(doc)
    seen = {p for start, stop in windowed.windows for p in range(start, stop)}
    assert seen == set(range(len(pieces.ids)))


@pytest.mark.parametrize("separator", [None, " "])
def test_texts_tokenized_together_are_as_each_by_itself(separator: Optional[str]) -> None:
    tokenizer, nlp = make_tokenizer(), spacy.blank("en")
    docs = [nlp.make_doc(text) for text in ["", *STRANGE_TEXTS.values(), " ", *make_texts(5), ""]]
    for doc, pieces in zip(docs, tokenize(tokenizer, docs, separator)):
        (alone,) = tokenize(tokenizer, [doc], separator)
        assert (pieces.n_tokens, pieces.border) == (len(doc), alone.border)
        for name in ("ids", "pair_tokens", "pair_pieces"):
            found = getattr(pieces, name)
            assert found.dtype == "int64" and found.base is None
            assert numpy.array_equal(found, getattr(alone, name))


def test_a_tokenizer_without_offsets_gives_the_same_wordpieces_token_by_token(tmp_path: Any) -> None:
    from transformers import BertTokenizer

    make_tokenizer().save_pretrained(tmp_path)
    slow = BertTokenizer.from_pretrained(tmp_path)
    nlp = spacy.blank("en")
    docs = [nlp.make_doc(text) for text in [*make_texts(5), "", "我的订单 anna"]]
    for ours, theirs in zip(tokenize(slow, docs), tokenize(make_tokenizer(), docs)):
        assert ours.ids.tolist() == theirs.ids.tolist()
        assert ours.pair_tokens.tolist() == theirs.pair_tokens.tolist()
        assert ours.pair_pieces.tolist() == theirs.pair_pieces.tolist()
    assert SpecialTokens.of(slow) == SpecialTokens.of(make_tokenizer()) == SpecialTokens([2], [3], 0)


def vectors_by_hand(nlp: Language, text: str, pooling: str, window: int, overlap: int) -> Tuple[Any, Any]:
    """Token vectors and pooled vector of a long text from plain Hugging Face, one window at a time."""
    model = encoder_module(nlp).transformer.eval()
    tokenizer = make_tokenizer()
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    capacity = window - 2
    starts = [0]
    while starts[-1] + capacity < len(ids):
        starts.append(min(starts[-1] + capacity - overlap, len(ids) - capacity))
    windows = [(s, min(s + capacity, len(ids))) for s in starts]
    outputs = []
    with torch.no_grad():
        for start, stop in windows:
            outputs.append(model(torch.tensor([[2, *ids[start:stop], 3]])))
    doc, vectors = nlp.make_doc(text), []
    for token in doc:
        own = [i for i, (a, b) in enumerate(offsets) if max(a, token.idx) < min(b, token.idx + len(token))]
        if not own:
            vectors.append(torch.zeros(16))
            continue
        contexts = [context(own[0], own[-1], w, len(ids)) for w in windows]
        groups = [own] if max(contexts) > -numpy.inf else [[i] for i in own]
        rows = torch.cat(
            [
                outputs[best].last_hidden_state[0, [1 + i - windows[best][0] for i in group]]
                for group in groups
                for best in [int(numpy.argmax([context(group[0], group[-1], w, len(ids)) for w in windows]))]
            ]
        )
        vectors.append({"first": rows[0], "last": rows[-1], "mean": rows.mean(0)}[pooling])
    return torch.stack(vectors), torch.cat([o.pooler_output for o in outputs]).mean(0)


@pytest.mark.parametrize("pooling", ["first", "mean", "last"])
@pytest.mark.parametrize("window, overlap", [(None, 4), (12, 3)])
def test_vectors_of_long_docs_are_those_of_each_tokens_best_window(
    bert_folder: str, pooling: str, window: Any, overlap: int
) -> None:
    nlp = make_nlp(
        encoder=make_config(bert_folder, window=window, overlap=overlap),
        settings={"bert_ner": {"model": {"tok2vec": {"pooling": pooling}}}},
    )
    texts = [" ".join(make_texts(12, seed=seed)) + "  \n zebra" for seed in range(3)]
    docs = [nlp.get_pipe("transformer")(doc) for doc in map(nlp.make_doc, ["x", *texts])]
    tokens = nlp.get_pipe("bert_ner").model.get_ref("tok2vec").predict(docs)
    pooled = nlp.get_pipe("bert_textcat").model.get_ref("tok2vec").predict(docs)
    for text, token_vectors, pooled_vector in zip(texts, tokens[1:], pooled[1:]):
        expected_tokens, expected_pooled = vectors_by_hand(nlp, text, pooling, window or 32, overlap)
        assert_close(token_vectors, expected_tokens)
        assert_close(pooled_vector, expected_pooled)


def test_spacy_transformers_own_listener_reads_the_same_windows(bert_folder: str) -> None:
    nlp = make_nlp(
        bert_folder, ["tagger", "bert_ner"], settings={"bert_ner": {"model": {"tok2vec": {"pooling": "mean"}}}}
    )
    docs = [nlp.get_pipe("transformer")(nlp.make_doc(text)) for text in ["", " ".join(make_texts(12)), "\n\t", "x"]]
    ours = nlp.get_pipe("bert_ner").model.get_ref("tok2vec").predict(docs)
    theirs = nlp.get_pipe("tagger").model.get_ref("tok2vec").predict(docs)
    for doc, our_vectors, their_vectors in zip(docs, ours, theirs):
        assert our_vectors.shape == (len(doc), 16)
        if len(doc):
            assert_close(our_vectors, their_vectors)
