"""Tags written in other ways than B-PER -> tags as the schemes have them."""

import itertools
import re
from collections import Counter
from typing import Callable, Iterable, Iterator, Mapping, NamedTuple, Optional, Sequence, Tuple

from ...tags import OUTSIDE
from .tag_spans import IOB1, MISSING, SCHEME_NAMES, find_scheme, is_tag

# The label of entities in files that have B, I and O alone.
UNNAMED = "ENTITY"
# How many tags of a column may be of another style. They are bad records.
MOST = 0.9
# More labels than these are no labels of entities.
MAX_LABELS = 100
# How much is outside entities at least where tags are nothing but labels.
LEAST_OUTSIDE = 0.2
# Sentences that are looked at where the scheme is known.
N_SENTENCES = 10_000


class TagStyle(NamedTuple):
    """How the tags of a file are written.

    name (str): For people, "" if they are as the schemes have them.
    pattern (str): Regular expression of all tags but O and the one of tokens that nobody annotated. It has the groups
        "letter" and "label", or one of the two.
    """

    name: str
    pattern: str

    def rename(self, tag: str) -> str:
        """RETURNS (str): The tag as the schemes have it; itself if it is not of this style."""
        if not self.name or tag == MISSING:
            return tag
        if tag in (OUTSIDE, OUTSIDE.lower()):
            return OUTSIDE
        match = re.fullmatch(self.pattern, tag)
        if match is None:
            return tag
        groups = match.groupdict()
        return f"{groups.get('letter', 'I').upper()}-{groups.get('label', UNNAMED)}"

    def fits(self, tag: str) -> bool:
        """RETURNS (bool): Whether a tag is of this style."""
        return is_tag(self.rename(tag))


PLAIN = TagStyle("", "")
LETTERS = TagStyle(f"letters alone, {UNNAMED} taken as the label", r"(?P<letter>[BIESLUMbieslum])")
LABELS = TagStyle("labels alone, neighbours of one label taken as one entity", r"(?P<label>[^\W\d_][^\s,]*)")
STYLES = (
    PLAIN,
    TagStyle("a letter, another sign than '-' and a label", r"(?P<letter>[BIESLUM])[_.:/|](?P<label>.+)"),
    TagStyle("a label with its letter behind it", r"(?P<label>.*[^-_])[-_](?P<letter>[BIESLUM])"),
    TagStyle("lower case letters before the label", r"(?P<letter>[biesluBIESLUmM])[-_](?P<label>.+)"),
    LETTERS,
    LABELS,
)


def find_style(counts: Mapping[str, int]) -> Optional[TagStyle]:
    """Recognise how tags are written.

    counts (Mapping[str, int]): How often each cell of a column occurs.
    RETURNS (Optional[TagStyle]): The style that nearly all are of, some of them tags of entities unless it is the
        usual style; None if these are no tags.
    """
    n_outside = sum(counts.get(tag, 0) for tag in (OUTSIDE, OUTSIDE.lower()))
    inside = {tag: n for tag, n in counts.items() if tag not in (OUTSIDE, OUTSIDE.lower(), MISSING)}
    n_inside = sum(inside.values())
    for style in STYLES:
        if style is not PLAIN and not (n_outside and n_inside):
            continue
        # Most tags have a letter and a label: one alone is a mistake among them.
        if style in (LETTERS, LABELS) and 2 * sum(n for tag, n in inside.items() if PLAIN.fits(tag)) >= n_inside:
            continue
        if style is LABELS:
            n_all = n_outside + n_inside
            if len(inside) > MAX_LABELS or n_outside < LEAST_OUTSIDE * n_all:
                continue
        if sum(n for tag, n in inside.items() if style.fits(tag)) >= MOST * n_inside:
            return style
    return None


def find_tags(read: Callable[[], Iterable[Sequence[str]]], scheme: Optional[str]) -> Tuple[str, TagStyle]:
    """Recognise scheme and style by the tags of a whole file.

    read (Callable[[], Iterable[Sequence[str]]]): Gives the tags of each sentence, from the beginning of the file.
    scheme (Optional[str]): One of SCHEME_NAMES; None to find it.
    RETURNS (Tuple[str, TagStyle]): The scheme, and how the tags are written. What `find_scheme` says if there is none.
    """
    counts: "Counter[str]" = Counter()
    if scheme is None:
        found = find_scheme(_count(read(), counts))
        if found in SCHEME_NAMES:
            return found, PLAIN
    else:
        found = scheme
        for _ in itertools.islice(_count(read(), counts), N_SENTENCES):
            pass
    style = find_style(counts)
    if style is None or style is PLAIN:
        return found, PLAIN
    if style is LABELS:
        return IOB1, style
    names = {tag: style.rename(tag) for tag in counts}
    return scheme or find_scheme([names[tag] for tag in tags] for tags in read()), style


def _count(sentences: Iterable[Sequence[str]], counts: "Counter[str]") -> Iterator[Sequence[str]]:
    for tags in sentences:
        counts.update(tags)
        yield tags
