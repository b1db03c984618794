"""Hostile texts from a seed through a pipeline: whatever comes, every Doc is whole, and the same alone and in a batch.

FUZZ_TEXTS and FUZZ_SEED in the environment take more texts, or others:

    FUZZ_TEXTS=20000 python -m pytest tests/pipeline/test_fuzz.py
"""

import os
import random
import unicodedata
from typing import Callable, Dict, List

import pytest
from spacy.language import Language
from spacy.tokens import Doc

from spacy_bert_heads.extensions import get_confidence_in

from ..making import WORDS, make_examples, make_nlp

N_TEXTS = int(os.environ.get("FUZZ_TEXTS", "400"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
# One text in so many is read again by itself
ALONE = 4

JOINED = ["👩‍👩‍👧‍👦", "👍🏽", "🏳️‍🌈", "🇩🇪", "\u200d", "\ufe0f", "\U0001f3fd", "👨\u200d", "\u200d👩"]
RIGHT_TO_LEFT = ["שלום", "مرحبا", "\u202e", "\u202d", "\u2067", "\u2069", "\u200f", "\u061c", "\u202c"]
SPACES = [" ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u2003", "\u200b", "\u3000", "\u2028", "\x85", "\x0b", "\ufeff"]
SCRIPTS = ["订单", "東京タワー", "กรุงเทพ", "한국어", "Ωμέγα", "заказ", "हिन्दी", "ﬁ", "ß", "İ", "ǆ", "Å", "𝔘𝔫𝔦", "𓀀"]
COMBINING = [chr(code) for code in range(0x300, 0x370)] + ["\u0e33", "\u0fb2", "\u20dd", "\u3099"]
CONTROLS = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))]
MARKUP = ["<b>", "[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]", "##ing", "http://a.b/?c=d&e", "a@b.c", "...", "\\"]


def some(chooser: random.Random, pieces: List[str], longest: int, joint: str = "") -> str:
    return joint.join(chooser.choices(pieces, k=chooser.randint(1, longest)))


def any_character(chooser: random.Random) -> str:
    """Any code point but half a surrogate pair, which spaCy itself refuses."""
    while True:
        character = chr(chooser.randrange(0x110000))
        if unicodedata.category(character) != "Cs":
            return character


# Each makes a part of a text
PARTS: Dict[str, Callable[[random.Random], str]] = {
    "nothing": lambda chooser: "",
    "words": lambda chooser: some(chooser, WORDS, 12, " "),
    "joined emoji": lambda chooser: some(chooser, JOINED, 12),
    "right to left": lambda chooser: some(chooser, [*RIGHT_TO_LEFT, *WORDS], 12, " "),
    "white space": lambda chooser: some(chooser, SPACES, 12),
    "words in odd spaces": lambda chooser: "".join(some(chooser, [*WORDS, *SPACES], 2) for _ in range(12)),
    "mixed scripts": lambda chooser: some(chooser, [*SCRIPTS, *WORDS], 12, chooser.choice(["", " "])),
    "lone combining marks": lambda chooser: some(chooser, COMBINING, 30),
    "combining marks on words": lambda chooser: some(chooser, [*COMBINING, *"abcé"], 60),
    "controls": lambda chooser: some(chooser, [*CONTROLS, "\x00", *WORDS], 20),
    "markup": lambda chooser: some(chooser, [*MARKUP, *WORDS], 12, chooser.choice(["", " "])),
    "any characters": lambda chooser: "".join(any_character(chooser) for _ in range(chooser.randint(1, 30))),
    "a very long word": lambda chooser: chooser.choice(["z", "ab", "é", "订", "1", "👍"]) * chooser.randint(50, 600),
    "a repeat": lambda chooser: chooser.choice([*WORDS, *SCRIPTS, *JOINED, *MARKUP, *SPACES]) * chooser.randint(2, 80),
    "words repeated": lambda chooser: (some(chooser, WORDS, 3, " ") + " ") * chooser.randint(2, 40),
}


def make_hostile_texts(n: int, seed: int) -> List[str]:
    """The first are of one kind each, the others of up to three."""
    chooser = random.Random(seed)
    texts = [make(chooser) for make in PARTS.values()]
    while len(texts) < n:
        parts = chooser.choices(list(PARTS.values()), k=chooser.randint(1, 3))
        texts.append(chooser.choice(["", " ", "\n"]).join(make(chooser) for make in parts))
    return texts[:n]


@pytest.fixture(scope="module")
def nlp(bert_folder: str) -> Language:
    """Trained a little, so that there are entities."""
    nlp = make_nlp(bert_folder, ["bert_textcat", "bert_ner", "bert_spans"])
    sgd = nlp.create_optimizer()
    sgd.learn_rate = 0.002
    for _ in range(25):
        nlp.update(make_examples(nlp), sgd=sgd)
    return nlp


def assert_whole(doc: Doc, text: str) -> None:
    assert doc.text == text
    end = 0
    for ent, confidence in zip(doc.ents, doc._.ents_confidence):
        assert end <= ent.start < ent.end <= len(doc)
        assert not ent[0].is_space and not ent[-1].is_space and ent.text == ent.text.strip() != ""
        assert text[ent.start_char : ent.end_char] == ent.text and ent.label_ in ("CITY", "PERSON")
        assert confidence is not None and 0.0 <= confidence <= 1.0
        end = ent.end
    assert len(doc.ents) == len(doc._.ents_confidence)
    assert len({(span.start, span.end, span.label) for span in doc.spans["sc"]}) == len(doc.spans["sc"])
    for span in doc.spans["sc"]:
        assert not span[0].is_space and not span[-1].is_space and 0.5 <= get_confidence_in(span, "sc") <= 1.0
    assert set(doc.cats) == {"CANCEL", "TRACK"} and sum(doc.cats.values()) == pytest.approx(1.0, abs=1e-5)
    assert all(0.0 <= value <= 1.0 for value in doc.cats.values())


def assert_same(doc: Doc, other: Doc) -> None:
    """Up to the order in which fp32 adds up."""
    assert doc.cats == pytest.approx(other.cats, abs=1e-4)
    ents, others = (
        {(span.start, span.end, span.label_): span._.confidence for span in (*one.ents, *one.spans["sc"])}
        for one in (doc, other)
    )
    assert ents == pytest.approx(others, abs=1e-3)


def test_hostile_texts_come_back_whole_in_order_and_the_same_alone(nlp: Language) -> None:
    texts = make_hostile_texts(N_TEXTS, SEED)
    n_docs = n_ents = 0
    for text, doc in zip(texts, nlp.pipe(texts, batch_size=64)):
        assert_whole(doc, text)
        n_ents += len(doc.ents)
        if n_docs % ALONE == 0:
            assert_same(nlp(text), doc)
        n_docs += 1
    assert n_docs == N_TEXTS
    assert n_ents > N_TEXTS / 10


def test_the_texts_are_those_of_the_seed_and_of_every_kind() -> None:
    texts = make_hostile_texts(400, SEED)
    assert texts == make_hostile_texts(400, SEED) != make_hostile_texts(400, SEED + 1)
    joined = "".join(texts)
    assert "" in texts and any(text.isspace() for text in texts) and max(map(len, texts)) > 500
    for needed in ("\x00", "\u202e", "\u200d", "\u0301", "[CLS]", "订"):
        assert needed in joined
