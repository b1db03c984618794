"""Tags of a sentence, as files have them, -> entities; what is broken stays unknown."""

from collections import Counter
from typing import Iterable, List, NamedTuple, Optional, Sequence, Tuple

from ...tags import OUTSIDE, SCHEMES, Letters, Span

# Tag of a token that nobody annotated.
MISSING = "-"
# BIO in which B- stands only where two entities of one label touch, as in the CoNLL-2003 files.
IOB1 = "iob1"
SCHEME_NAMES = (*SCHEMES, IOB1)
# The share of tags that may be mistakes when a scheme is recognised. Their sentences are bad records.
RARE = 0.05
# Entities with a marked end, at least, for each that begins with B-, in a scheme that marks the end.
LEAST_CLOSED = 0.5


class TagSpans(NamedTuple):
    """What the tags of a sentence say.

    ents (List[Span]): Entities, in order.
    unknown (List[Span]): Stretches of tokens about which nothing is known, in order.
    n_repaired (int): Entities that begin with an I- of BIO that nothing precedes.
    broken (List[Span]): Those of `unknown` that are entities with a beginning or an end missing.
    opens_broken (str): Label of an entity that begins before the sentence, or "".
    ends_broken (str): Label of an entity that continues after the sentence, or "".
    """

    ents: List[Span]
    unknown: List[Span]
    n_repaired: int
    broken: List[Span]
    opens_broken: str
    ends_broken: str


NOTHING = TagSpans([], [], 0, [], "", "")


def find_scheme(sentences: Iterable[Sequence[str]]) -> str:
    """Recognise the scheme by the tags of a whole file.

    sentences (Iterable[Sequence[str]]): Tags of each sentence.
    RETURNS (str): One of SCHEME_NAMES, or the first tag that no scheme has, or letters that no scheme has together.
        Rare tags do not count where they fit no scheme.
    """
    tags: "Counter[str]" = Counter()
    unopened = needless = False
    for sentence in sentences:
        tags.update(sentence)
        before = OUTSIDE
        for tag in sentence:
            if tag[:1] == "I":
                unopened = unopened or before[:1] not in "BI" or before[1:] != tag[1:]
            elif tag[:1] == "B":
                needless = needless or before[:1] not in "BI" or before[1:] != tag[1:]
            before = tag
    inside = {tag: n for tag, n in tags.items() if tag not in (OUTSIDE, MISSING)}
    n_least = sum(inside.values()) * RARE
    wrong = {tag: n for tag, n in inside.items() if not is_tag(tag)}
    if sum(wrong.values()) > n_least:
        return min(wrong)
    letters: "Counter[str]" = Counter()
    for tag, n in inside.items():
        letters[tag[0]] += n if tag not in wrong else 0
    for least in (0, n_least):
        kept = {letter for letter, n in letters.items() if n > least}
        if kept <= set("BI"):
            # A file of BIO with broken sequences has entities that begin with B- as well.
            return IOB1 if unopened and not needless else "bio"
        for name in ("biluo", "bioes", "bmes"):
            if kept <= set(SCHEMES[name]):
                # Where few of the entities that begin also end, these letters are mistakes in a file of BIO.
                n_ended = letters[SCHEMES[name].last] + letters[SCHEMES[name].single]
                is_closed = letters["M"] or n_ended >= LEAST_CLOSED * letters[SCHEMES[name].first]
                return name if is_closed else "bio"
    return " ".join(sorted(letters))


def is_tag(tag: str, scheme: Optional[str] = None) -> bool:
    """RETURNS (bool): Whether the scheme, or any if it is None, has this tag for some label."""
    if tag in (OUTSIDE, MISSING):
        return True
    letters = "BILUMES" if scheme is None else "BI" if scheme == IOB1 else "".join(SCHEMES[scheme])
    return len(tag) > 2 and tag[0] in letters and tag[1] == "-"


def read_tags(tags: Sequence[str], scheme: str) -> TagSpans:
    """Read the entities of a sentence.

    tags (Sequence[str]): One for each token.
    scheme (str): One of SCHEME_NAMES.
    RETURNS (TagSpans): The entities, and what is not known.
    """
    if all(tag == OUTSIDE for tag in tags):
        return NOTHING
    if scheme in (IOB1, "bio"):
        return _read_bio(tags, scheme == IOB1)
    return _read_closed(tags, SCHEMES[scheme])


def _read_bio(tags: Sequence[str], is_iob1: bool) -> TagSpans:
    ents: List[Span] = []
    unknown: List[Span] = []
    n_repaired, start, label = 0, 0, ""
    for index, tag in enumerate([*tags, OUTSIDE]):
        goes_on = bool(label) and tag[:1] == "I" and tag[2:] == label
        if goes_on:
            continue
        if label:
            ents.append((start, index, label))
        label = tag[2:]
        if label:
            start = index
            n_repaired += tag[0] == "I" and not is_iob1
        elif tag == MISSING:
            _add_missing(unknown, index)
    return TagSpans(ents, unknown, n_repaired, [], "", "")


def _read_closed(tags: Sequence[str], letters: Letters) -> TagSpans:
    """Of schemes that mark the end as well: an entity without its beginning or its end is broken."""
    ents: List[Span] = []
    unknown: List[Span] = []
    broken: List[Span] = []
    start, label, is_whole = 0, "", False
    for index, tag in enumerate([*tags, OUTSIDE]):
        letter, name = tag[:1], tag[2:]
        if label and (name != label or letter in (letters.first, letters.single)):
            broken.append((start, index, label))
            label = ""
        if not name:
            if tag == MISSING:
                _add_missing(unknown, index)
        elif letter == letters.single:
            ents.append((index, index + 1, name))
        else:
            if not label:
                start, label, is_whole = index, name, letter == letters.first
            if letter == letters.last:
                (ents if is_whole else broken).append((start, index + 1, label))
                label = ""
    opens = broken[0][2] if broken and broken[0][0] == 0 and tags[0][:1] != letters.first else ""
    last = broken[-1] if broken else (0, 0, "")
    ends = last[2] if last[1] == len(tags) and tags[-1][:1] != letters.last else ""
    return TagSpans(ents, sorted(unknown + broken), 0, broken, opens, ends)


def _add_missing(unknown: List[Span], index: int) -> None:
    if unknown and unknown[-1][1] == index:
        unknown[-1] = (unknown[-1][0], index + 1, "")
    else:
        unknown.append((index, index + 1, ""))


def join_words(words: Sequence[str], *, with_spaces: bool) -> Tuple[str, List[Tuple[int, int]]]:
    """Make the text of a sentence out of its words.

    words (Sequence[str]): The words; none is empty.
    with_spaces (bool): Whether all words are parted by spaces. Otherwise only neighbours written in ASCII letters or
        digits are, of which one has more than one character.
    RETURNS (Tuple[str, List[Tuple[int, int]]]): The text, and start and end of each word.
    """
    tokens: List[Tuple[int, int]] = []
    position = 0
    if with_spaces:
        for word in words:
            end = position + len(word)
            tokens.append((position, end))
            position = end + 1
        return " ".join(words), tokens
    parts: List[str] = []
    before = ""
    for word in words:
        if before and _is_ascii_word(before[-1], word[0]) and len(before) + len(word) > 2:
            parts.append(" ")
            position += 1
        parts.append(word)
        tokens.append((position, position + len(word)))
        position += len(word)
        before = word
    return "".join(parts), tokens


def _is_ascii_word(*characters: str) -> bool:
    return all(character.isascii() and character.isalnum() for character in characters)
