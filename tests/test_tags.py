"""Tag schemes: literal matrices, and entities to tags and back."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.tags import SCHEMES, UNKNOWN, TagScheme

MATRICES = {
    "bio": """
               O    B-X  I-X  B-Y  I-Y
        start  1    1    0    1    0
        O      1    1    0    1    0
        B-X    1    1    1    1    0
        I-X    1    1    1    1    0
        B-Y    1    1    0    1    1
        I-Y    1    1    0    1    1
        end    1    1    1    1    1
    """,
    "biluo": """
               O    B-X  I-X  L-X  U-X  B-Y  I-Y  L-Y  U-Y
        start  1    1    0    0    1    1    0    0    1
        O      1    1    0    0    1    1    0    0    1
        B-X    0    0    1    1    0    0    0    0    0
        I-X    0    0    1    1    0    0    0    0    0
        L-X    1    1    0    0    1    1    0    0    1
        U-X    1    1    0    0    1    1    0    0    1
        B-Y    0    0    0    0    0    0    1    1    0
        I-Y    0    0    0    0    0    0    1    1    0
        L-Y    1    1    0    0    1    1    0    0    1
        U-Y    1    1    0    0    1    1    0    0    1
        end    1    0    0    1    1    0    0    1    1
    """,
    "bmes": """
               O    B-X  M-X  E-X  S-X
        start  1    1    0    0    1
        O      1    1    0    0    1
        B-X    0    0    1    1    0
        M-X    0    0    1    1    0
        E-X    1    1    0    0    1
        S-X    1    1    0    0    1
        end    1    0    0    1    1
    """,
}
MATRICES["bioes"] = MATRICES["biluo"].replace("L-", "E-").replace("U-", "S-")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_allowed_transitions(scheme):
    header, *rows = [line.split() for line in MATRICES[scheme].strip().splitlines()]
    expected = {name: [value == "1" for value in values] for name, *values in rows}
    tags = TagScheme(scheme, ["X"] if scheme == "bmes" else ["X", "Y"])
    assert tags.tags == header
    assert tags.allowed_start == expected["start"]
    assert tags.allowed_end == expected["end"]
    assert dict(zip(tags.tags, tags.allowed_transitions)) == {tag: expected[tag] for tag in tags.tags}


def test_only_bio_needs_to_forbid_a_next_tag():
    assert TagScheme("bio", ["X", "Y"]).forbidden_next == [
        [False, False, True, False, False],
        [False, False, False, False, True],
    ]
    for scheme in ("biluo", "bioes", "bmes"):
        assert not any(TagScheme(scheme, ["X"]).forbidden_next[0])


@pytest.mark.parametrize(
    "scheme, names",
    [
        ("bio", ["B-X", "I-X", "I-X", "O", "B-Y", "B-Y", "I-Y"]),
        ("biluo", ["B-X", "I-X", "L-X", "O", "U-Y", "B-Y", "L-Y"]),
        ("bioes", ["B-X", "I-X", "E-X", "O", "S-Y", "B-Y", "E-Y"]),
        ("bmes", ["B-X", "M-X", "E-X", "O", "S-Y", "B-Y", "E-Y"]),
    ],
)
def test_spans_are_written_with_the_letters_of_the_scheme(scheme, names):
    tags = TagScheme(scheme, ["X", "Y"])
    spans = [(0, 3, "X"), (4, 5, "Y"), (5, 7, "Y")]
    numbers = tags.tags_from_spans(7, spans)
    assert [tags.tags[number] for number in numbers] == names
    assert tags.numbers(names) == numbers
    assert tags.spans_from_tags(numbers) == spans


@pytest.mark.parametrize("scheme", SCHEMES)
@settings(max_examples=50, deadline=None, derandomize=True)
@given(pieces=st.lists(st.tuples(st.integers(1, 4), st.sampled_from(["X", "Y", None])), max_size=6))
def test_spans_come_back_from_their_tags_and_are_legal(scheme, pieces):
    tags, spans, start = TagScheme(scheme, ["X", "Y"]), [], 0
    for length, label in pieces:
        if label is not None:
            spans.append((start, start + length, label))
        start += length
    numbers = tags.tags_from_spans(start, spans)
    assert tags.spans_from_tags(numbers) == spans
    assert is_legal(tags, numbers)


def is_legal(tags, path):
    steps = all(tags.allowed_transitions[i][j] for i, j in zip(path, path[1:]))
    return not path or steps and tags.allowed_start[path[0]] and tags.allowed_end[path[-1]]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_path_is_legal_exactly_if_it_is_how_its_entities_are_written(scheme):
    tags = TagScheme(scheme, ["X"] if len(set(SCHEMES[scheme])) == 4 else ["X", "Y"])
    for path in itertools.product(range(len(tags.tags)), repeat=4):
        written = tags.tags_from_spans(4, tags.spans_from_tags(path))
        assert is_legal(tags, path) == (written == list(path))


def test_illegal_tags_are_read_as_the_conll_evaluation_does():
    tags = TagScheme("bio", ["X", "Y"])
    assert tags.spans_from_tags(tags.numbers(["I-X", "I-X", "I-Y", "O", "I-X"])) == [
        (0, 2, "X"),
        (2, 3, "Y"),
        (4, 5, "X"),
    ]


def test_missing_tokens_are_unknown_except_inside_entities():
    tags = TagScheme("bio", ["X"])
    assert tags.tags_from_spans(4, [(1, 2, "X")], [True, True, True, False]) == [UNKNOWN, 1, UNKNOWN, 0]
    assert tags.spans_from_tags([UNKNOWN, 1, UNKNOWN, 0]) == [(1, 2, "X")]


def test_labels_may_hold_hyphens():
    tags = TagScheme("biluo", ["X-Y", "Y"])
    spans = [(0, 2, "X-Y"), (2, 3, "Y")]
    assert tags.spans_from_tags(tags.tags_from_spans(3, spans)) == spans


@pytest.mark.parametrize(
    "code, found, call",
    [
        ("H331", "iob", lambda tags: TagScheme("iob", ["X"])),
        ("H332", "X", lambda tags: TagScheme("bio", ["X", "Y", "X"])),
        ("H333", (1, 4, "X"), lambda tags: tags.tags_from_spans(3, [(1, 4, "X")])),
        ("H333", (1, 1, "X"), lambda tags: tags.tags_from_spans(3, [(1, 1, "X")])),
        ("H334", (1, 3, "Y"), lambda tags: tags.tags_from_spans(3, [(0, 2, "X"), (1, 3, "Y")])),
        ("H335", "Z", lambda tags: tags.tags_from_spans(3, [(0, 2, "Z")])),
        ("H336", "B-Z", lambda tags: tags.numbers(["O", "B-Z"])),
    ],
)
def test_mistakes_are_named(code, found, call):
    with pytest.raises(BertHeadsError) as error:
        call(TagScheme("bio", ["X", "Y"]))
    assert (error.value.code, error.value.found) == (code, found)
