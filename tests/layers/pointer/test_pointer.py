"""The pointing decoder against sums over all legal sequences, and its automaton under any weights."""

import itertools
import math
from typing import Dict, List, Sequence, Set, Tuple

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_bert_heads.layers.pointer import automaton
from spacy_bert_heads.layers.pointer.automaton import Rules, Steps, legal, read, spell, teach
from spacy_bert_heads.layers.pointer.module import PointerDecoder, bucket, log_probabilities, search
from spacy_bert_heads.layers.readings import NumberedSpan, Reading, combine, cut, in_order

N_LABELS = 2


def make_decoder(seed: int = 0, scale: float = 1.0, width: int = 8) -> PointerDecoder:
    torch.manual_seed(seed)
    decoder = PointerDecoder(N_LABELS, width, depth=2, heads=2).eval()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.copy_(torch.randn(parameter.shape) * scale)
    return decoder


def make_memory(decoder: PointerDecoder, texts: Sequence[Tuple[str, str]], nested: bool, seed: int = 0):
    """texts: for each token "w" or " " for white space, and "." or "x" where no span may be."""
    free = [numpy.array([kind == "w" for kind in kinds], dtype=bool) for kinds, _ in texts]
    closed = [numpy.array([mark == "x" for mark in marks], dtype=bool) for _, marks in texts]
    rules = Rules.of(free, closed, N_LABELS, nested)
    longest = max(len(kinds) for kinds, _ in texts)
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(len(texts), longest, decoder.begin.shape[0], generator=generator)
    lengths = torch.tensor([len(kinds) for kinds, _ in texts])
    return decoder.read(vectors, torch.arange(longest) < lengths[:, None], rules)


def all_sets(kinds: str, marks: str, nested: bool, most: int) -> Set[Tuple[NumberedSpan, ...]]:
    """All sets of spans that are legal, by definition."""
    spans = [
        (i, j + 1, label)
        for i in range(len(kinds))
        for j in range(i, len(kinds))
        if kinds[i] == kinds[j] == "w" and "x" not in marks[i : j + 1]
        for label in range(N_LABELS)
    ]
    found = set()
    for size in range(most + 1):
        for chosen in itertools.combinations(spans, size):
            flat = all(a[1] <= b[0] or b[1] <= a[0] for a, b in itertools.combinations(chosen, 2))
            if nested or flat:
                found.add(tuple(in_order(chosen)))
    return found


def score_sets(decoder: PointerDecoder, memory, sets: Sequence[Sequence[NumberedSpan]]) -> torch.Tensor:
    """Log-probabilities of sets of spans of the only text, which is repeated."""
    rows = torch.zeros(len(sets), dtype=torch.int64)
    n_tokens = memory.vectors.shape[1]
    lesson = teach(sets, n_tokens, N_LABELS)
    repeated = memory._replace(
        vectors=memory.vectors[rows],
        keys=memory.keys[rows],
        seen=[(keys[rows], values[rows]) for keys, values in memory.seen],
        is_token=memory.is_token[rows],
        rules=memory.rules.take(rows),
    )
    with torch.no_grad():
        return log_probabilities(decoder, repeated, lesson.symbols, lesson.steps, lesson.known)


def walk(decoder: PointerDecoder, memory) -> Dict[Tuple[NumberedSpan, ...], float]:
    """All sequences of the only text by brute force: one symbol after the other, with no array of steps at all."""
    n_tokens, found = memory.vectors.shape[1], {}
    finish = n_tokens + N_LABELS

    def visit(symbols: List[int], total: float) -> None:
        if symbols and symbols[-1] == finish:
            found[tuple(read(symbols, n_tokens, N_LABELS))] = total
            return
        steps, past, before = Steps.begin(1, 1, torch.device("cpu")), [], None
        for symbol in symbols:
            _, past = decoder(memory, before, steps, past)
            before = torch.tensor([[symbol]])
            steps = steps.advance(before, n_tokens)
        scores, _ = decoder(memory, before, steps, past)
        for symbol in torch.nonzero(scores[0, 0] > -torch.inf).flatten().tolist():
            visit([*symbols, symbol], total + float(scores[0, 0, symbol]))

    with torch.no_grad():
        visit([], 0.0)
    return found


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kinds, marks", [("w", "."), ("ww", ".."), ("w w", "..."), ("www", ".x."), ("wwww", "....")])
def test_probabilities_of_all_legal_sequences_sum_to_one(
    kinds: str, marks: str, nested: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = make_decoder(scale=0.5)
    if nested:
        monkeypatch.setattr(automaton, "MOST_PER_TOKEN", 1)
    memory = make_memory(decoder, [(kinds, marks)], nested)
    most = int(memory.rules.most[0])
    if nested and most > 3:
        # Of 20 spans, up to three
        most = 3
        memory = memory._replace(rules=memory.rules._replace(most=torch.tensor([most])))
    sets = sorted(all_sets(kinds, marks, nested, most))
    scores = score_sets(decoder, memory, sets)
    assert float(scores.exp().sum()) == pytest.approx(1.0, abs=1e-4)
    assert len(set(scores.tolist())) > len(sets) // 2 or len(sets) < 4


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kinds, marks", [("ww", ".."), ("w w", "..."), ("www", ".x.")])
def test_teacher_forcing_equals_one_symbol_after_the_other(
    kinds: str, marks: str, nested: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(automaton, "MOST_PER_TOKEN", 1)
    decoder = make_decoder(seed=1, scale=0.5)
    memory = make_memory(decoder, [(kinds, marks)], nested)
    walked = walk(decoder, memory)
    sets = sorted(all_sets(kinds, marks, nested, int(memory.rules.most[0])))
    assert sorted(walked) == sets
    numpy.testing.assert_allclose([walked[spans] for spans in sets], score_sets(decoder, memory, sets), atol=1e-4)
    # A beam as wide as there are sequences finds all of them, the best first
    symbols, totals = search(decoder, memory, len(sets) + 2)
    n_tokens = memory.vectors.shape[1]
    found = [
        tuple(read(row, n_tokens, N_LABELS)) for row, total in zip(symbols[0].tolist(), totals[0]) if total > -1e9
    ]
    assert found == sorted(sets, key=lambda spans: -walked[spans]) and len(found) == len(sets)


def test_training_twice_as_many_texts_is_free_of_company() -> None:
    decoder = make_decoder(seed=2, scale=0.5)
    texts = [("wwww", "...."), ("w", "."), ("w w", "..."), ("ww", "xx")]
    together = make_memory(decoder, texts, nested=False)
    spans = [[(0, 2, 1), (3, 4, 0)], [], [(0, 3, 1)], []]
    lesson = teach(spans, 4, N_LABELS)
    with torch.no_grad():
        scores = log_probabilities(decoder, together, lesson.symbols, lesson.steps, lesson.known)
        for row, (kinds, marks) in enumerate(texts):
            alone = make_memory(decoder, [(kinds, marks)], nested=False)
            vectors = together.vectors[row : row + 1, : len(kinds)]
            alone = decoder.read(vectors, torch.ones(1, len(kinds), dtype=torch.bool), alone.rules)
            assert float(score_sets(decoder, alone, [spans[row]])[0]) == pytest.approx(float(scores[row]), abs=1e-4)
        symbols, totals = search(decoder, together, 3)
        for row, (kinds, _) in enumerate(texts):
            vectors = together.vectors[row : row + 1, : len(kinds)]
            rules = make_memory(decoder, [texts[row]], nested=False).rules
            alone = decoder.read(vectors, torch.ones(1, len(kinds), dtype=torch.bool), rules)
            other, values = search(decoder, alone, 3)
            assert read(other[0, 0].tolist(), len(kinds), N_LABELS) == read(symbols[row, 0].tolist(), 4, N_LABELS)
            numpy.testing.assert_allclose(values[0], totals[row], atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(["ww w", "w", "   ", "wwwwww", "w w w"]), min_size=1, max_size=4),
    closed=st.integers(0, 63),
    nested=st.booleans(),
    seed=st.integers(0, 10_000),
    scale=st.sampled_from([0.0, 0.3, 3.0, 30.0]),
    n=st.integers(1, 5),
)
def test_under_any_weights_nothing_illegal_is_generated_and_a_beam_is_no_worse_than_greed(
    kinds: List[str], closed: int, nested: bool, seed: int, scale: float, n: int
) -> None:
    decoder = make_decoder(seed, scale)
    marks = ["".join("x" if closed >> i & 1 else "." for i in range(len(text))) for text in kinds]
    memory = make_memory(decoder, list(zip(kinds, marks)), nested, seed)
    n_tokens = memory.vectors.shape[1]
    with torch.no_grad():
        symbols, totals = search(decoder, memory, n)
        greedy = search(decoder, memory, 1)[1] if n > 1 else totals
    assert not totals.isnan().any()
    for row, (text, shut) in enumerate(zip(kinds, marks)):
        seen = []
        for sequence, total in zip(symbols[row].tolist(), totals[row].tolist()):
            if total == -math.inf:
                continue
            spans = read(sequence, n_tokens, N_LABELS)
            assert spans == in_order(spans) and spans not in seen
            seen.append(spans)
            for start, end, label in spans:
                assert 0 <= start < end <= len(text) and 0 <= label < N_LABELS
                assert text[start] == text[end - 1] == "w" and "x" not in shut[start:end]
            if not nested:
                assert all(a[1] <= b[0] for a, b in zip(spans, spans[1:]))
            assert spell(spans, n_tokens, N_LABELS) == sequence[: 3 * len(spans) + 1]
        assert totals[row].max() >= greedy[row, 0] - 1e-4


def test_gradients_reach_all_parameters_and_the_memory() -> None:
    decoder = make_decoder(seed=3, scale=0.3).train()
    memory = make_memory(decoder, [("wwww", "...."), ("ww", "..")], nested=False)
    lesson = teach([[(0, 2, 1), (3, 4, 0)], [(1, 2, 1)]], 4, N_LABELS)
    log_probabilities(decoder, memory, lesson.symbols, lesson.steps, lesson.known).sum().backward()
    without = {name for name, parameter in decoder.named_parameters() if not parameter.grad.abs().sum() > 0}
    # A constant in all keys moves no softmax
    assert without == set()


def test_far_distances_share_a_number_and_near_ones_do_not() -> None:
    near = bucket(torch.arange(-15, 16)).tolist()
    assert len(set(near)) == 31
    far = bucket(torch.tensor([-100_000, 100_000, 600, 700, 0])).tolist()
    assert far[1] == far[2] == far[3] and far[0] == 0 and near.index(far[4]) == 15
    assert bucket(torch.arange(0, 2000)).diff().min() >= 0


def test_windows_cover_a_text_and_each_token_has_one_owner() -> None:
    for n_tokens, size, overlap in itertools.product((0, 1, 5, 9, 30), (4, 7), (0, 1, 2)):
        windows = cut(n_tokens, size, overlap)
        assert all(0 < window.stop - window.start <= size for window in windows)
        for token in range(n_tokens):
            owners = [window for window in windows if window.owns(token)]
            assert len(owners) == 1 and owners[0].start <= token < owners[0].stop


def test_readings_of_windows_become_those_of_a_text() -> None:
    first, second = cut(6, 4, 2)
    a = [Reading([(0, 1, 0), (3, 4, 1)], math.log(0.6)), Reading([(0, 1, 0)], math.log(0.3))]
    b = [Reading([(1, 2, 1)], math.log(0.5)), Reading([], math.log(0.5))]
    found = combine([(first, a), (second, b)], 4, nested=False)
    # The first window does not own token 3, so its two readings are the same
    assert found.readings[0].log_probability == pytest.approx(math.log(0.9 * 0.5))
    assert [reading.spans for reading in found.readings] == [[(0, 1, 0), (3, 4, 1)], [(0, 1, 0)]]
    assert found.confidences == [pytest.approx(0.9), pytest.approx(0.5)]


def test_steps_that_are_walked_are_those_that_are_taught() -> None:
    spans = [[(0, 3, 0), (0, 3, 1), (0, 1, 0), (1, 2, 1)], [(2, 3, 0)]]
    lesson = teach(spans, 3, N_LABELS)
    rules = Rules.of([numpy.ones(3, bool)] * 2, [numpy.zeros(3, bool)] * 2, N_LABELS, nested=True)
    allowed = legal(lesson.steps, rules)
    steps = Steps.begin(2, 1, torch.device("cpu"))
    for number in range(lesson.symbols.shape[1]):
        now = legal(steps, rules)[:, 0]
        for row in range(2):
            if lesson.known[row, number]:
                assert now[row].tolist() == allowed[row, number].tolist()
                assert now[row, lesson.symbols[row, number]]
        steps = steps.advance(lesson.symbols[:, number : number + 1], 3)
