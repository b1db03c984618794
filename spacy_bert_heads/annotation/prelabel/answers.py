"""The answer of a large language model -> spans at token boundaries and categories; what does not fit is counted.

A model copies words and counts badly, so it is never asked for offsets. Its answer is hostile data: nothing in it is
trusted to be there, to be of some type, or to be short.
"""

import json
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Dict, Iterator, List, Optional, Sequence, Set, Tuple

from ...corpus.annotations import CharSpan
from .questions import Question

# Beyond these an answer is no answer. Entities of a text, and places at which JSON may begin in prose.
MAX_ENTITIES = 2000
MAX_STARTS = 50
# Places that are looked at in one text, which only a text and an answer made for it can reach
MAX_PLACES = 200_000

# What is wrong with an answer as a whole
NO_JSON, NO_LISTS, TOO_MANY, OTHER_TEXT = "no_json", "no_lists", "too_many", "other_text"
# What is wrong with a part of it
(
    MALFORMED,
    UNKNOWN_LABEL,
    NOT_THERE,
    INSIDE_WORDS,
    NO_OCCURRENCE,
    OVERLAPPING,
    REPEATED,
    UNKNOWN_CATEGORY,
    NO_CHOICE,
) = (
    *("malformed", "unknown_label", "not_there", "inside_words", "no_occurrence", "overlapping", "repeated"),
    *("unknown_category", "no_choice"),
)
REASONS: Dict[str, str] = {
    NO_JSON: "answers without JSON that can be read, or cut off",
    NO_LISTS: "answers without the lists that were asked for",
    TOO_MANY: f"answers with more than {MAX_ENTITIES:,} entities, or that fit far too many places",
    OTHER_TEXT: "answers about another text: none of their entities is in this one",
    MALFORMED: "entities or categories of another form",
    UNKNOWN_LABEL: "entities with a label that was not asked for",
    NOT_THERE: "entities whose words are not in the text",
    INSIDE_WORDS: "entities that begin or end inside a token",
    NO_OCCURRENCE: "entities said to stand more often in the text than they do",
    OVERLAPPING: "entities that overlap another one",
    REPEATED: "entities given twice",
    UNKNOWN_CATEGORY: "categories that were not asked for",
    NO_CHOICE: "texts with no single category where exactly one holds, left without one",
}
# Different marks for the same thing; what is not visible is nothing
QUOTES = {
    **dict.fromkeys("\u2018\u2019\u201a\u201b`\u00b4\u02bc", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u00ab\u00bb", '"'),
}
DASHES = dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-")
SAME = {**QUOTES, **DASHES, **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad", "")}
THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)


class UnusableError(Exception):
    """An answer is none. Its message is a key of REASONS."""


@dataclass
class Aligned:
    """What an answer says about its text.

    ents (List[CharSpan]): In order of the text, at token boundaries, without overlap.
    cats (Dict[str, float]): 1 for the categories that hold, 0 for all others; none where the answer does not say.
    rejected (Counter[str]): What was not used, by reason: a key of REASONS.
    """

    ents: List[CharSpan] = field(default_factory=list)
    cats: Dict[str, float] = field(default_factory=dict)
    rejected: "Counter[str]" = field(default_factory=Counter)


def read_answer(content: str, question: Question) -> Dict[str, List[Any]]:
    """Find the answer in what a model wrote: JSON alone, in a fence, or in prose.

    content (str): What it wrote.
    question (Question): What was asked.
    RETURNS (Dict[str, List[Any]]): The lists "entities" and "categories", as far as they were asked for. What is in
        them may be anything.
    RAISES (UnusableError): If there is no JSON, none with these lists, or too much.
    """
    asked = [name for name, names in (("entities", question.labels), ("categories", question.categories)) if names]
    reason = NO_JSON
    for value in _json_values(THOUGHT.sub("", content)):
        if isinstance(value, dict):
            if all(isinstance(value.get(name), list) for name in asked):
                if any(len(value[name]) > MAX_ENTITIES for name in asked):
                    raise UnusableError(TOO_MANY)
                return {name: value[name] for name in asked}
            reason = NO_LISTS
    raise UnusableError(reason)


def _json_values(content: str) -> Iterator[Any]:
    try:
        yield json.loads(content)
    except (ValueError, RecursionError):
        pass
    position = -1
    decoder = json.JSONDecoder()
    for _ in range(MAX_STARTS):
        position = content.find("{", position + 1)
        if position < 0:
            return
        try:
            value, end = decoder.raw_decode(content, position)
        except (ValueError, RecursionError):
            continue
        yield value
        position = end - 1


def align(answer: Dict[str, List[Any]], text: str, tokens: Sequence[Tuple[int, int]], question: Question) -> Aligned:
    """Find in the text what an answer names.

    Words are looked for as they are, then without regard to case, width, white space and the style of quotes and
    dashes. Only places that begin and end with a token count, so "art" is not found in "cart".

    answer (Dict[str, List[Any]]): What read_answer returns.
    text (str): The text.
    tokens (Sequence[Tuple[int, int]]): Start and end of each of its tokens.
    question (Question): What was asked.
    RETURNS (Aligned): What can be used.
    RAISES (UnusableError): If there are several entities and the words of none are in the text.
    """
    found = Aligned()
    finder = _Finder(text, tokens)
    taken: Set[int] = set()
    names = _by_folded(question.labels)
    for entity in answer.get("entities", ()):
        words = entity.get("text") if isinstance(entity, dict) else None
        label = entity.get("label") if isinstance(entity, dict) else None
        if not isinstance(words, str) or not isinstance(label, str) or not words.strip():
            found.rejected[MALFORMED] += 1
        elif label.strip().casefold() not in names:
            found.rejected[UNKNOWN_LABEL] += 1
        else:
            number = entity.get("occurrence")
            place, reason = finder.find(words, number if type(number) is int and number > 0 else None)
            if place is None:
                found.rejected[reason] += 1
                continue
            span = CharSpan(*place, names[label.strip().casefold()])
            if span in found.ents:
                found.rejected[REPEATED] += 1
            elif not taken.isdisjoint(range(span.start, span.end)):
                found.rejected[OVERLAPPING] += 1
            else:
                taken.update(range(span.start, span.end))
                found.ents.append(span)
    if not found.ents and found.rejected[NOT_THERE] > 1 and not found.rejected[INSIDE_WORDS]:
        raise UnusableError(OTHER_TEXT)
    found.ents.sort()
    if question.categories:
        _choose(answer.get("categories", ()), question, found)
    return found


def _choose(given: Sequence[Any], question: Question, found: Aligned) -> None:
    names = _by_folded(question.categories)
    chosen: Set[str] = set()
    for category in given:
        if not isinstance(category, str):
            found.rejected[MALFORMED] += 1
        elif category.strip().casefold() not in names:
            found.rejected[UNKNOWN_CATEGORY] += 1
        else:
            chosen.add(names[category.strip().casefold()])
    if question.exclusive and len(chosen) != 1:
        found.rejected[NO_CHOICE] += 1
    elif chosen or not given:
        found.cats = {name: float(name in chosen) for name in question.categories}


def _by_folded(names: Sequence[str]) -> Dict[str, str]:
    """Names by how they read without regard to case. Of those that differ by case alone, the first."""
    return {name.casefold(): name for name in reversed(names)}


class _Finder:
    """Finds words in a text.

    text (str): The text.
    tokens (Sequence[Tuple[int, int]]): Start and end of each token.
    """

    def __init__(self, text: str, tokens: Sequence[Tuple[int, int]]) -> None:
        self.text = text
        self._starts = {start for start, _ in tokens}
        self._ends = {end for _, end in tokens}
        self._next: "Counter[str]" = Counter()
        self._folded: Optional[Tuple[str, List[int]]] = None
        self._known: Dict[str, Tuple[List[Tuple[int, int]], List[Tuple[int, int]]]] = {}
        self._n_places = 0

    def find(self, words: str, number: Optional[int]) -> Tuple[Optional[Tuple[int, int]], str]:
        """Find one occurrence of words.

        words (str): The words.
        number (Optional[int]): Which occurrence, from 1. None: the one behind the last that was found in this way.
        RETURNS (Tuple[Optional[Tuple[int, int]], str]): Start and end, or None and why there is none.
        RAISES (UnusableError): If there are far too many places to look at.
        """
        if len(words) > 2 * len(self.text) + 10:
            return None, NOT_THERE
        if words not in self._known:
            self._known[words] = self._places(words)
        places, usable = self._known[words]
        if not usable:
            return None, INSIDE_WORDS if places else NOT_THERE
        if number is None:
            self._next[words] += 1
            number = self._next[words]
        if number <= len(usable):
            return usable[number - 1], ""
        # Perhaps it counted those inside other words too
        if number <= len(places) and places[number - 1] in usable:
            return places[number - 1], ""
        return None, NO_OCCURRENCE

    def _places(self, words: str) -> Tuple[List[Tuple[int, int]], List[Tuple[int, int]]]:
        """All places, and those at the borders of tokens."""
        places = list(self._exact(words.strip()))
        usable = [place for place in places if self._is_on_tokens(place)]
        if not usable:
            folded = list(self._alike(words))
            places, usable = places + folded, [place for place in folded if self._is_on_tokens(place)]
        return places, usable

    def _is_on_tokens(self, place: Tuple[int, int]) -> bool:
        return place[0] in self._starts and place[1] in self._ends

    def _exact(self, words: str) -> Iterator[Tuple[int, int]]:
        return ((position, position + len(words)) for position in self._search(self.text, words))

    def _search(self, text: str, words: str) -> Iterator[int]:
        position = text.find(words)
        while position >= 0:
            self._n_places += 1
            if self._n_places > MAX_PLACES:
                raise UnusableError(TOO_MANY)
            yield position
            position = text.find(words, position + 1)

    def _alike(self, words: str) -> Iterator[Tuple[int, int]]:
        """Places that differ in case, width, white space, quotes and dashes alone."""
        if self._folded is None:
            self._folded = fold(self.text)
        text, origins = self._folded
        # Models put quotes around what they quote
        for wanted in dict.fromkeys((fold(words)[0].strip(), fold(words)[0].strip(" '\"."))):
            found = False
            for position in self._search(text, wanted) if wanted else ():
                last = position + len(wanted) - 1
                # Not from the middle of a character that folds to several
                whole_start = position == 0 or origins[position - 1] != origins[position]
                whole_end = last + 1 == len(text) or origins[last + 1] != origins[last]
                if whole_start and whole_end:
                    found = True
                    yield origins[position], origins[last] + 1
            if found:
                return


def fold(text: str) -> Tuple[str, List[int]]:
    """Write a text without what models change when they copy: case, width, white space, quotes, dashes.

    text (str): The text.
    RETURNS (Tuple[str, List[int]]): The folded text, and for each of its characters the index of the one in `text`
        that it comes from.
    """
    characters: List[str] = []
    origins: List[int] = []
    for index, character in enumerate(text):
        for piece in SAME.get(character, unicodedata.normalize("NFKD", character).casefold()):
            piece = SAME.get(piece, piece)
            if piece.isspace():
                if characters and characters[-1] == " ":
                    continue
                piece = " "
            if piece:
                characters.append(piece)
                origins.append(index)
    return "".join(characters), origins
