"""What a model wrote becomes spans that are right, or is counted; whatever it wrote."""

import json
import re
from typing import Any, Dict, List, Optional, Tuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_bert_heads.annotation.prelabel import answers as module
from spacy_bert_heads.annotation.prelabel.answers import Aligned, UnusableError, align, fold, read_answer
from spacy_bert_heads.annotation.prelabel.questions import Question, Shot, read_descriptions
from spacy_bert_heads.annotation.prelabel.tasks import join
from spacy_bert_heads.corpus.docs import load_tokenizer
from spacy_bert_heads.errors import BertHeadsError

NLP = {lang: load_tokenizer(lang) for lang in ("en", "zh")}
BOTH = Question(("LOC", "PER"), ("A", "B"))
ENTS = Question(("LOC", "PER"))


def tokenize(text: str, lang: str = "en") -> List[Tuple[int, int]]:
    return [(token.idx, token.idx + len(token)) for token in NLP[lang].make_doc(text)]


def find(text: str, *entities: Any, lang: str = "en") -> Aligned:
    """Entities are (words, label, occurrence)."""
    given = [dict(zip(("text", "label", "occurrence"), entity)) for entity in entities]
    return align({"entities": given}, text, tokenize(text, lang), ENTS)


@pytest.mark.parametrize(
    ("text", "words", "number", "expected"),
    [
        ("Paris, Paris and Paris.", "Paris", 2, (7, 12)),
        ("Paris, Paris and Paris.", "Paris", None, (0, 5)),
        ("an art cart art", "art", 2, (12, 15)),  # the one inside "cart" is none
        ("an art cart art", "art", 3, (12, 15)),  # unless it was counted
        ("He flew to NEW  york today", "New York", 1, (11, 20)),
        ("she said “Old Town” twice", '"Old Town"', 1, (9, 19)),
        ("she said Old Town twice", '"Old Town".', 1, (9, 17)),
        ("Ｔｏｋｙｏ is far", "Tokyo", 1, (0, 5)),
        ("the Saint\u2013Denis line", "Saint-Denis", 1, (4, 15)),
        ("in Zu\u0308rich now", "Zürich", 1, (3, 10)),
        ("at the caf\u00e9 now", "cafe\u0301", 1, (7, 11)),
        ("👩\u200d💻 in Rome 👩\u200d💻", "Rome", 1, (7, 11)),
    ],
)
def test_words_are_found_where_they_stand(
    text: str, words: str, number: Optional[int], expected: Tuple[int, int]
) -> None:
    found = find(text, (words, "LOC", number))
    assert [tuple(ent) for ent in found.ents] == [(*expected, "LOC")] and not found.rejected


def test_chinese_is_found_by_characters() -> None:
    text = "我在北京，他也在北京。"
    found = find(text, ("北京", "LOC", 2), ("北京", "LOC", 1), lang="zh")
    assert [(ent.start, ent.end) for ent in found.ents] == [(2, 4), (8, 10)]


def test_occurrences_that_are_not_said_come_one_after_the_other() -> None:
    found = find("Kim met Kim", ("Kim", "PER"), ("Kim", "PER", "x"), ("Kim", "PER", 0))
    assert [(ent.start, ent.end) for ent in found.ents] == [(0, 3), (8, 11)]
    assert found.rejected == {module.NO_OCCURRENCE: 1}


@pytest.mark.parametrize(
    ("entity", "reason"),
    [
        (("Berlin", "LOC", 1), module.NOT_THERE),
        (("Par", "LOC", 1), module.INSIDE_WORDS),
        (("Paris", "ORG", 1), module.UNKNOWN_LABEL),
        (("Paris", "LOC", 2), module.NO_OCCURRENCE),
        (("Anna", "PER", 1), module.REPEATED),
        (("Anna in", "PER", 1), module.OVERLAPPING),
        (("", "LOC", 1), module.MALFORMED),
        ((7, "LOC", 1), module.MALFORMED),
        (("Paris", ["LOC"], 1), module.MALFORMED),
        (("x" * 10_000, "LOC", 1), module.NOT_THERE),
    ],
)
def test_what_does_not_fit_is_counted(entity: Any, reason: str) -> None:
    found = find("Anna in Paris", ("Anna", "per ", 1), entity)
    assert [tuple(ent) for ent in found.ents] == [(0, 4, "PER")]
    assert found.rejected == {reason: 1} and reason in module.REASONS


def test_an_answer_for_another_text_is_none() -> None:
    with pytest.raises(UnusableError, match=module.OTHER_TEXT):
        find("Anna in Paris", ("Bob", "PER", 1), ("Rome", "LOC", 1))


@pytest.mark.parametrize(
    ("given", "exclusive", "cats", "rejected"),
    [
        (["a "], True, {"A": 1.0, "B": 0.0}, {}),
        (["A", "A"], True, {"A": 1.0, "B": 0.0}, {}),
        (["A", "B"], True, {}, {module.NO_CHOICE: 1}),
        ([], True, {}, {module.NO_CHOICE: 1}),
        ([], False, {"A": 0.0, "B": 0.0}, {}),
        (["A", "B"], False, {"A": 1.0, "B": 1.0}, {}),
        (["C"], False, {}, {module.UNKNOWN_CATEGORY: 1}),
        ([3, "B"], True, {"A": 0.0, "B": 1.0}, {module.MALFORMED: 1}),
    ],
)
def test_categories(given: List[Any], exclusive: bool, cats: Dict[str, float], rejected: Dict[str, int]) -> None:
    found = align({"categories": given}, "x", [(0, 1)], Question((), ("A", "B"), exclusive))
    assert found.cats == cats and found.rejected == rejected


GOOD = {"entities": [{"text": "Anna", "label": "PER", "occurrence": 1}], "categories": ["A"]}


@pytest.mark.parametrize(
    "written",
    [
        json.dumps(GOOD),
        f"Sure! Here is the JSON:\n```json\n{json.dumps(GOOD, indent=2)}\n```\nAnything else?",
        f'<think>Maybe {{"entities": []}}? No.</think>{json.dumps(GOOD)}',
        f'The set {{a, b}} aside, {{"x": 1}} and then {json.dumps(GOOD)} {{',
    ],
)
def test_json_is_found_alone_and_in_prose(written: str) -> None:
    assert read_answer(written, BOTH) == GOOD


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("", module.NO_JSON),
        ("I cannot do that.", module.NO_JSON),
        (json.dumps(GOOD)[:-9], module.NO_LISTS),  # cut off: the entity alone is complete
        ("[" * 1_000_000, module.NO_JSON),
        ('{"a":' * 1_000_000, module.NO_JSON),
        ('{"entities": 3, "categories": []}', module.NO_LISTS),
        ('{"entities": []}', module.NO_LISTS),
        (json.dumps({"entities": [1] * (module.MAX_ENTITIES + 1), "categories": []}), module.TOO_MANY),
    ],
)
def test_what_is_no_answer_is_none(written: str, reason: str) -> None:
    with pytest.raises(UnusableError, match=f"^{reason}$"):
        read_answer(written, BOTH)


def test_a_hostile_pair_of_text_and_answer_costs_seconds_at_most() -> None:
    text = "a" * 50_000
    entities = [{"text": "a" * length, "label": "LOC", "occurrence": 1} for length in range(1, 2000)]
    with pytest.raises(UnusableError, match=module.TOO_MANY):
        align({"entities": entities}, text, [(0, len(text))], ENTS)


WORDS = st.lists(
    st.sampled_from(["Anna", "anna", "in", "Ｐaris", "“a”", "ﬁn", "北京", "e\u0301", "\u00a0", ".", "ß"]), max_size=12
)


@settings(max_examples=60, deadline=None)
@given(
    WORDS,
    st.lists(
        st.tuples(st.text(max_size=6) | st.sampled_from(["ANNA", "fin", "paris", '"a"', "ss"]), st.integers(-1, 3))
    ),
)
def test_spans_are_always_on_tokens_and_say_what_was_asked_for(words: List[str], asked: List[Tuple[str, int]]) -> None:
    doc = NLP["en"].make_doc(" ".join(words))
    tokens = [(token.idx, token.idx + len(token)) for token in doc]
    entities = [{"text": text, "label": "LOC", "occurrence": number} for text, number in asked]
    try:
        found = align({"entities": entities}, doc.text, tokens, ENTS)
    except UnusableError:
        return
    assert len(found.ents) + sum(found.rejected.values()) == len(entities)
    ends = [0, *(ent.end for ent in found.ents)]
    for before, ent in zip(ends, found.ents):
        assert ent.start >= before and doc.char_span(ent.start, ent.end) is not None
        folded = fold(doc.text[ent.start : ent.end])[0].strip(" '\".")
        assert any(folded == fold(text)[0].strip(" '\".") for text, _ in asked)


def test_two_answers_are_sure_of_what_both_say() -> None:
    text = "Anna Smith met Bob in Paris"
    first = find(text, ("Anna Smith", "PER", 1), ("Paris", "LOC", 1))
    second = find(text, ("Anna", "PER", 1), ("Bob", "PER", 1), ("Paris", "LOC", 1))
    first.cats, second.cats = {"A": 1.0, "B": 0.0}, {"A": 0.0, "B": 1.0}
    opinion = join([first, second], exclusive=True)
    assert [text[ent.start : ent.end] for ent in opinion.ents] == ["Anna Smith", "Bob", "Paris"]
    assert sorted(text[ent.start : ent.end] for ent in opinion.unsure) == ["Anna", "Anna Smith", "Bob"]
    assert opinion.unsure_cats == ["A", "B"] and opinion.cats == first.cats
    assert opinion.agreement == pytest.approx(2 * 1 / (2 + 3 + 1 + 1))
    alone = join([first], exclusive=True)
    assert alone.agreement is None and not alone.unsure
    assert join([Aligned(), Aligned()], exclusive=True).agreement == 1.0


def test_of_several_categories_only_the_differing_ones_are_unsure() -> None:
    one, other = Aligned(cats={"A": 1.0, "B": 0.0}), Aligned(cats={"A": 1.0, "B": 1.0})
    assert join([one, other], exclusive=False).unsure_cats == ["B"]
    assert join([one, Aligned()], exclusive=False).unsure_cats == ["A", "B"]


def test_the_prompt_names_everything_once_and_its_schema_is_strict() -> None:
    question = Question(("LOC", "PER"), ("A", "B"), False, {"LOC": "cities"})
    shown = question.instructions()
    assert re.findall(r"^- (.*)$", shown, re.M) == ["LOC: cities", "PER", "A", "B"]
    assert re.findall(r"^- (.*)$", question.instructions(reverse=True), re.M) == ["PER", "LOC: cities", "B", "A"]
    schema = question.schema()
    assert schema["required"] == ["entities", "categories"] and schema["additionalProperties"] is False
    assert schema["properties"]["entities"]["items"]["properties"]["label"]["enum"] == ["LOC", "PER"]
    shots = [Shot("Rome", (("Rome", "LOC", 1),), ("A",)), Shot("Kim", (("Kim", "PER", 1),), ())]
    messages = question.messages("text", shots)
    assert [one["content"] for one in messages if one["role"] == "user"] == ["Rome", "Kim", "text"]
    assert [one["content"] for one in question.messages("text", shots, reverse=True)][1::2] == ["Kim", "Rome", "text"]
    # Examples are answers that would be understood
    for shot, message in zip(shots, messages[2::2]):
        found = align(read_answer(message["content"], question), shot.text, tokenize(shot.text), question)
        assert len(found.ents) == 1 and not found.rejected


def test_descriptions_name_known_labels_once(tmp_path: Any) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("LOC: cities: and more\n\nLOC:SUB: parts of them\n", encoding="utf8")
    assert read_descriptions(path, ["LOC", "LOC:SUB"]) == {"LOC": "cities: and more", "LOC:SUB": "parts of them"}
    for wrong in ("ORG: firms", "LOC", "LOC:", "LOC: a\nLOC: b"):
        path.write_text(wrong, encoding="utf8")
        with pytest.raises(BertHeadsError) as error:
            read_descriptions(path, ["LOC"])
        assert error.value.code == "H748" and error.value.line == wrong.count("\n") + 1
