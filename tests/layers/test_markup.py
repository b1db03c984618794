"""Markup of texts: exact places whatever is in them, and nothing illegal under any choice of symbols."""

import itertools
import random
from functools import lru_cache
from pathlib import Path
from typing import List, Sequence

import numpy
import pytest
import spacy
import srsly
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.language import Language
from spacy.tokens import Doc

from spacy_bert_heads.layers.markup import Alphabet, Markup, Pieces, Place, cut_pieces, split_doc
from spacy_bert_heads.layers.readings import MOST_PER_TOKEN, NumberedSpan, in_order, join_borders

from ..generating import make_piece_tokenizer

N_LABELS = 2
LABELS = ["A", "B", "C", "D"]


@pytest.fixture(scope="module", params=["spaces", "bytes"])
def tokenizer(request: pytest.FixtureRequest):
    return make_piece_tokenizer(request.param)


def make_markup(
    tokenizer, doc: Doc, nested: bool = False, n_labels: int = N_LABELS, closed: Sequence[int] = ()
) -> Markup:
    pieces = split_doc(tokenizer, doc, 50)
    shut = numpy.array([token.i in closed for token in doc], dtype=bool)
    free = numpy.array([not token.is_space for token in doc], dtype=bool)
    alphabet = Alphabet(len(tokenizer), n_labels, tokenizer.eos_token_id, nested)
    return Markup.of(pieces, (0, len(doc)), free, shut, alphabet)


def split_naively(doc: Doc, pieces: Pieces, tokenizer) -> List[str]:
    return [tokenizer.decode(pieces.ids[a:b]).strip() for a, b in zip(pieces.begins, pieces.ends)]


HARD = [
    "Anna Anna and Anna's Anna-Anna, Anna.",
    "[ | ] [[ Anna | PERSON ]] </s> <s> <pad>",
    "我的订单在北京，北京！😀😀 👩‍👩‍👧 naïve café",
    "  New\n\nYork \t Smith  ",
    "x" * 90 + " Anna",
]


@pytest.mark.parametrize("text", HARD)
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_each_token_is_whole_pieces_and_each_span_comes_back(tokenizer, text: str, lang: str) -> None:
    doc = spacy.blank(lang)(text)
    pieces = split_doc(tokenizer, doc, 50)
    assert not {tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id} & set(pieces.ids)
    last = 0
    for token in doc:
        begin, end = pieces.begins[token.i], pieces.ends[token.i]
        assert (begin < 0) == (end < 0)
        if begin >= 0:
            assert last <= begin < end <= begin + 50
            last = end
    markup = make_markup(tokenizer, doc)
    sayable = [token.i for token in doc if pieces.begins[token.i] >= 0 and not token.is_space]
    for i, j in itertools.islice(itertools.combinations_with_replacement(sayable, 2), 60):
        written = markup.write([(i, j + 1, 1)])
        assert written is not None and markup.read(written) == [(i, j + 1, 1)]
        plain = [symbol for symbol in written[:-1] if symbol < markup.alphabet.opening]
        assert plain == pieces.ids


def test_pieces_say_what_their_token_says() -> None:
    tokenizer = make_piece_tokenizer("bytes")
    doc = spacy.blank("en")("where's the order of anna in new york?")
    assert split_naively(doc, split_doc(tokenizer, doc, 50), tokenizer) == [token.text for token in doc]


@pytest.mark.parametrize("nested, n_labels", [(False, 2), (True, 2), (True, 1)])
def test_as_many_texts_can_be_written_as_there_are_sets_of_spans(tokenizer, nested: bool, n_labels: int) -> None:
    """Every path through what is allowed, against every set of spans that do not cross."""
    doc = spacy.blank("en")("anna york" if nested and n_labels > 1 else "anna in york")
    markup = make_markup(tokenizer, doc, nested, n_labels)
    found = []

    def visit(place: Place, symbols: List[int]) -> None:
        if place.ended:
            spans = markup.read(symbols)
            assert spans is not None
            found.append(tuple(in_order(spans)))
            return
        allowed = markup.allowed(place)
        assert allowed and len(set(allowed)) == len(allowed)
        for symbol in allowed:
            visit(markup.follow(place, symbol), [*symbols, symbol])

    visit(Place(), [])
    spans = [(i, j + 1, label) for i in range(len(doc)) for j in range(i, len(doc)) for label in range(n_labels)]
    expected = set()
    for size in range(len(spans) + 1 if nested else len(doc) + 1):
        for chosen in itertools.combinations(spans, size):
            is_few = len(chosen) <= MOST_PER_TOKEN * len(doc)
            if is_few and all(_lie_well(a, b, nested) for a, b in itertools.combinations(chosen, 2)):
                expected.add(tuple(in_order(chosen)))
    assert len(found) == len(set(found)) and set(found) == expected
    for chosen in expected:
        written = markup.write(chosen)
        assert written is not None and in_order(markup.read(written) or []) == list(chosen)


def _lie_well(a: NumberedSpan, b: NumberedSpan, nested: bool) -> bool:
    apart = a[1] <= b[0] or b[1] <= a[0]
    within = (a[0] <= b[0] and b[1] <= a[1]) or (b[0] <= a[0] and a[1] <= b[1])
    return apart or (nested and within)


@settings(max_examples=40, deadline=None)
@given(
    text=st.sampled_from(HARD),
    nested=st.booleans(),
    n_labels=st.integers(1, 3),
    closed=st.lists(st.integers(0, 8), max_size=2),
    seed=st.integers(0, 10_000),
)
def test_whatever_is_chosen_ends_in_something_legal(
    text: str, nested: bool, n_labels: int, closed: List[int], seed: int
) -> None:
    doc = _blank()(text)
    markup = make_markup(_tokenizer("spaces"), doc, nested, n_labels, closed)
    chooser, place, symbols = random.Random(seed), Place(), []
    while not place.ended:
        allowed = markup.allowed(place)
        assert allowed and len(symbols) < 5000
        symbols.append(chooser.choice(allowed))
        place = markup.follow(place, symbols[-1])
    spans = markup.read(symbols)
    assert spans is not None and len(set(spans)) == len(spans)
    for start, end, label in spans:
        assert 0 <= start < end <= len(doc) and 0 <= label < n_labels
        assert not set(closed) & set(range(start, end))
        assert not doc[start].is_space and not doc[end - 1].is_space
    assert markup.write(spans) == symbols
    assert len(markup.steps(symbols)) == len(symbols)


@pytest.mark.parametrize("size, overlap", [(3, 1), (4, 2), (10, 5), (100, 50)])
def test_windows_of_pieces_are_not_too_long_and_cover_all_tokens(size: int, overlap: int) -> None:
    chooser = random.Random(0)
    for n_tokens in (0, 1, 2, 7, 40):
        bounds = [0, *itertools.accumulate(chooser.randint(0, size) for _ in range(n_tokens))]
        borders = cut_pieces(bounds, size, overlap)
        assert all(bounds[stop] - bounds[start] <= size for start, stop in borders)
        owned = [token for token in range(n_tokens) for window in join_borders(borders) if window.owns(token)]
        assert owned == list(range(n_tokens))
        for window in join_borders(borders):
            assert window.start <= window.first_own <= window.last_own <= window.stop


def test_crossing_spans_and_spans_over_nothing_cannot_be_written(tokenizer) -> None:
    doc = spacy.blank("en")("anna in new york")
    assert make_markup(tokenizer, doc, nested=True).write([(0, 3, 0), (2, 4, 0)]) is None
    assert make_markup(tokenizer, doc, nested=False).write([(0, 3, 0), (1, 2, 0)]) is None
    assert make_markup(tokenizer, doc, closed=[1]).write([(0, 3, 0)]) is None


def test_samples_of_real_corpora_go_to_markup_and_back(shared_data: Path) -> None:
    files = [("cluener2020", "zh"), ("wnut17", "en"), ("snips", "en")]
    checked = 0
    for folder, lang in files:
        for nlp, words, spans in _read_samples(shared_data / folder, lang):
            doc = Doc(nlp.vocab, words=words)
            for kind in ("spaces", "bytes"):
                tokenizer = _tokenizer(kind)
                pieces = split_doc(tokenizer, doc, 50)
                markup = make_markup(tokenizer, doc, n_labels=len(LABELS))
                if all(pieces.begins[i] >= 0 and pieces.begins[j - 1] >= 0 for i, j, _ in spans):
                    written = markup.write(spans)
                    assert written is not None and in_order(markup.read(written) or []) == in_order(spans)
                    checked += 1
    assert checked > 100


@lru_cache
def _blank() -> Language:
    return spacy.blank("en")


@lru_cache
def _tokenizer(kind: str):
    return make_piece_tokenizer(kind)


def _read_samples(folder: Path, lang: str):
    nlp = spacy.blank(lang)
    if folder.name == "cluener2020":
        path = next(iter(sorted(folder.rglob("dev*.json*"))), None)
        for record in itertools.islice(srsly.read_jsonl(path), 60) if path else ():
            spans = [
                (start, end + 1, number % len(LABELS))
                for number, places in enumerate(record["label"].values())
                for borders in places.values()
                for start, end in borders
            ]
            flat = []
            for span in in_order(spans):
                if not flat or flat[-1][1] <= span[0]:
                    flat.append(span)
            yield nlp, list(record["text"]), flat
        return
    if folder.name == "snips":
        rows = zip(
            (folder / "dev" / "seq.in").read_text(encoding="utf8").splitlines(),
            (folder / "dev" / "seq.out").read_text(encoding="utf8").splitlines(),
        )
        pairs = [(words.split(), tags.split()) for words, tags in itertools.islice(rows, 60)]
    else:
        path = next(iter(sorted(folder.rglob("*dev*"))), None)
        blocks = path.read_text(encoding="utf8").strip().split("\n\n")[:60] if path and path.is_file() else []
        split = [[line.split("\t") for line in block.split("\n") if line.strip()] for block in blocks]
        pairs = [([row[0] for row in rows], [row[-1].strip() for row in rows]) for rows in split if rows]
    for words, tags in pairs:
        spans, start = [], None
        for i, tag in enumerate([*tags, "O"]):
            if start is not None and not tag.startswith("I-"):
                spans.append((start, i, len(tags[start]) % len(LABELS)))
                start = None
            if tag.startswith("B-"):
                start = i
        yield nlp, words, spans
