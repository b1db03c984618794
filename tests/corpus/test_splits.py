"""Where texts go."""

import pytest

from spacy_bert_heads.corpus.splits import assign_split, parse_split, renormalise, split_key
from spacy_bert_heads.errors import BertHeadsError

SHARES = {"train": 0.8, "dev": 0.1, "test": 0.1}


def test_shares_come_out_about_as_asked_for():
    names = [assign_split(f"text {i}", SHARES, seed=0) for i in range(5000)]
    for name, share in SHARES.items():
        assert names.count(name) / 5000 == pytest.approx(share, abs=0.02)


def test_seed_changes_the_division_and_nothing_else_does():
    first = [assign_split(f"text {i}", SHARES, seed=0) for i in range(200)]
    assert first == [assign_split(f"text {i}", SHARES, seed=0) for i in range(200)]
    assert first != [assign_split(f"text {i}", SHARES, seed=1) for i in range(200)]


def test_division_is_the_same_on_every_machine():
    names = [assign_split(f"text {i}", SHARES, seed=0) for i in range(8)]
    assert names == [*["train"] * 5, "test", "dev", "dev"]


@pytest.mark.parametrize("other", ["CAFÉ  au lait", " café au\nlait ", "cafe\u0301 au\u00a0lait", "Café Au\u2003Lait"])
def test_case_white_space_and_composition_make_no_other_text(other: str):
    assert split_key(other) == split_key("café au lait")


def test_different_texts_stay_different():
    assert split_key("a b") != split_key("ab")
    assert split_key("a.") != split_key("a")


@pytest.mark.parametrize(
    "value",
    ["", "0.8", "0.8,0.2", "0.8,0.1,0.2", "1.2,-0.1,-0.1", "a,b,c", "nan,0.5,0.5", "80,10,10", "inf,0,0"],
)
def test_shares_that_make_no_whole_are_refused(value: str):
    with pytest.raises(BertHeadsError) as info:
        parse_split(value)
    assert info.value.code == "H120"


def test_given_files_leave_the_ratio_of_the_other_splits():
    assert parse_split("0.8, 0.1, 0.1") == SHARES
    assert renormalise(SHARES, ["test"]) == pytest.approx({"train": 8 / 9, "dev": 1 / 9})
    assert renormalise(SHARES, ["dev", "test"]) == {"train": 1.0}


@pytest.mark.parametrize("given", [[], ["dev", "test"]])
def test_no_share_for_train_is_refused(given):
    with pytest.raises(BertHeadsError) as info:
        renormalise({"train": 0.0, "dev": 0.5, "test": 0.5}, given)
    assert info.value.code == "H121"
