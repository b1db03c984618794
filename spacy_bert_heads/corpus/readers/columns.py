"""The beginning of a file of tagged words -> what its columns are, and which of its lines are no words."""

import re
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from ...errors import BertHeadsError
from .lines import head_lines
from .options import ReadOptions
from .tag_styles import MOST, PLAIN, TagStyle, find_style

DOCSTART = b"-DOCSTART-"
# Lines that are looked at to find out what the columns are.
N_SAMPLE = 2000
# Of files with more columns none but the last is thought to be of tags.
MAX_COLUMNS = 100
# What columns are called, compared in lower case.
WORD_NAMES = ("token", "tokens", "word", "words", "form")
TAG_NAMES = ("ne-coarse-lit", "ner", "ner_tag", "ner_tags", "ner-tag", "ne", "iob", "bio", "tag", "tags", "label")
# The columns of CoNLL-U, whose files do not name them.
CONLLU = "ID FORM LEMMA UPOS XPOS FEATS HEAD DEPREL DEPS MISC".split()
GLOBAL_COLUMNS = re.compile(rb"#\s*global\.columns\s*=\s*(.+)")
# In CoNLL-U the number of a line that stands for several words (3-4), or for none (8.1).
RANGE = re.compile(rb"\d+[-.]\d+")
# What numbers a word or a sentence: 7, 2-7, w7.
NUMBERED = re.compile(rb"(\S*?)(\d{1,9})")
# How many words have to look alike before something is taken off all of them.
LEAST_WORDS = 3
PREFIX = re.compile(r"[a-z]{2,12}(?:-[a-z]{1,12}){0,2}:(?=.)")
POSITION = re.compile(r"(?<=^.)\d{1,3}$")


class Columns(NamedTuple):
    """What the columns of a file are, and what its lines have in common.

    delimiter (Optional[bytes]): What stands between columns; None for white space.
    n_columns (int): How many there are; 0 if no line has as many as are asked for.
    first_line (int): The first line that has so many.
    word (int): Index of the column of words.
    tag (int): Index of the column of tags, from the end if it is the last one.
    style (Optional[TagStyle]): How the tags are written; None if there are no tags.
    others (List[int]): Indices of other columns that hold tags of entities.
    layers (List[int]): Indices of all columns of tags, with entities or without.
    header (bytes): The line that names the columns, b"" if there is none.
    is_indexed (bool): Whether the first column numbers words or sentences.
    has_ranges (bool): Whether such a number as 3-4 is that of a line that stands for several words, as in CoNLL-U.
    affix (str): What all words have in common: their "prefix", their "position" behind them, or "".
    tags (Dict[bytes, int]): How often each tag occurs in the lines that were looked at.
    is_tagged (bool): Whether these are tagged words beyond doubt.
    has_groups (bool): Whether blank lines part groups of lines.
    has_single_words (bool): Whether nearly all lines have a single word in the column of words.
    """

    delimiter: Optional[bytes]
    n_columns: int
    first_line: int
    word: int
    tag: int
    style: Optional[TagStyle]
    others: List[int]
    layers: List[int]
    header: bytes
    is_indexed: bool
    has_ranges: bool
    affix: str
    tags: Dict[bytes, int]
    is_tagged: bool
    has_groups: bool
    has_single_words: bool

    def is_comment(self, raw: bytes, cells: Sequence[bytes], is_first: bool) -> bool:
        """Tell a comment from a word that begins with '#'.

        raw (bytes): The line.
        cells (Sequence[bytes]): Its cells.
        is_first (bool): Whether it would be the first of its sentence.
        RETURNS (bool): Whether it is a comment.
        """
        if not raw.startswith(b"#"):
            return False
        if self.is_indexed:
            return True
        if len(cells) == self.n_columns:
            tag = cells[self.tag].strip()
            return tag not in self.tags and not (self.style or PLAIN).fits(tag.decode("utf8", "replace"))
        return is_first or raw[1:2].strip() == b""

    def clean(self, word: str) -> str:
        """RETURNS (str): A word without what all words have in common."""
        if self.affix == "prefix":
            return PREFIX.sub("", word, count=1) if PREFIX.match(word) else word
        return POSITION.sub("", word) if self.affix == "position" else word


class _Line(NamedTuple):
    number: int
    raw: bytes
    cells: List[bytes]


def find_columns(head: bytes, options: ReadOptions, path: Optional[Path] = None) -> Columns:
    """Look at the beginning of a file.

    head (bytes): What `read_head` gives.
    options (ReadOptions): Columns, delimiter and header, if they were given.
    path (Optional[Path]): The file, for messages.
    RETURNS (Columns): What its columns are.
    RAISES (BertHeadsError): H145 for a column that does not exist.
    """
    raws = head_lines(head)[:N_SAMPLE]
    delimiter = _find_delimiter(raws, options)
    groups: List[List[_Line]] = [[]]
    named = b""
    for number, raw in enumerate(raws, 1):
        if raw.startswith(b"#"):
            match = GLOBAL_COLUMNS.match(raw)
            named = match.group(1).strip() if match else named
        elif not raw.strip() or raw.startswith(DOCSTART):
            groups.append([])
        else:
            groups[-1].append(_Line(number, raw.rstrip(b"\r"), raw.rstrip(b"\r").split(delimiter)))
    groups = [group for group in groups if group]
    wanted = _number_of_columns(options)
    counts = Counter(len(line.cells) for group in groups for line in group if len(line.cells) >= wanted)
    n_columns = counts.most_common(1)[0][0] if counts else 0
    if groups and not counts and wanted > 2:
        n_most = max(len(line.cells) for group in groups for line in group)
        raise BertHeadsError("H145", path=path, option="column", found=wanted, expected=f"a number up to {n_most}")
    header, names = _find_header(groups, n_columns, options, path)
    groups = [[line for line in group if line.raw != header] for group in groups]
    lines = [line for group in groups for line in group]
    whole = [line for line in lines if len(line.cells) == n_columns]
    n_numbers = 0 if options.text_column is not None else _count_number_columns(groups, n_columns)
    is_indexed = n_numbers > 0
    has_ranges = is_indexed and not all(RANGE.fullmatch(line.cells[0]) for line in whole)
    if has_ranges:
        lines, whole = ([line for line in some if not RANGE.fullmatch(line.cells[0])] for some in (lines, whole))
    if named and not names:
        names = named.decode("utf8", "replace").split()
    elif is_indexed and n_columns == len(CONLLU) and not names:
        names = CONLLU
    word = _choose(options.text_column, names, WORD_NAMES, n_numbers, n_columns, path)
    chosen = [_choose(spec, names, TAG_NAMES, -1, n_columns, path) for spec in _tag_specs(options)]
    tag = chosen[-1]
    looked_at = range(n_columns) if n_columns <= MAX_COLUMNS else [tag % n_columns]
    styles = {index: find_style(_count(whole, index)) for index in looked_at if index != word % n_columns}
    inside = [index for index, style in styles.items() if style is PLAIN and _has_entities(whole, index)]
    is_chosen = options.label_column is not None
    if n_columns and not is_chosen and styles.get(tag % n_columns) is None and inside:
        tag = inside[-1]
    style = styles.get(tag % n_columns) if n_columns else None
    layers = [index for index, found in styles.items() if found is PLAIN and "O" in _count(whole, index)]
    if is_chosen:
        layers = [index % n_columns for index in chosen] if n_columns else []
    tags = Counter(line.cells[tag].strip() for line in whole)
    sentences = [[line.cells[word] for line in group if len(line.cells) == n_columns] for group in groups]
    are_words = all(line.cells[word].strip() and line.cells[tag].strip() for line in whole)
    has_groups = len(groups) > 1 and len(whole) >= 2 * len(groups)
    has_single_words = sum(len(line.cells[word].split()) == 1 for line in whole) >= MOST * len(whole)
    is_certain = style is not None and has_groups and has_single_words
    if style is PLAIN:
        is_certain = _has_entities(whole, tag) or len(whole) > 10
    return Columns(
        delimiter=delimiter,
        n_columns=n_columns,
        first_line=whole[0].number if whole else 0,
        word=word,
        tag=tag,
        style=style,
        others=[] if is_chosen else [index for index in inside if index != tag % n_columns],
        layers=layers,
        header=header,
        is_indexed=is_indexed,
        has_ranges=has_ranges,
        affix=_find_affix(sentences),
        tags=tags,
        is_tagged=bool(whole) and len(whole) >= MOST * len(lines) and are_words and is_certain,
        has_groups=has_groups,
        has_single_words=has_single_words,
    )


@lru_cache(maxsize=2)
def sniff_columns(head: bytes) -> Columns:
    """RETURNS (Columns): What the columns of a file look like if nothing is said about them."""
    return find_columns(head, ReadOptions())


def looks_tagged(head: bytes) -> bool:
    """RETURNS (bool): Whether lines are one word and something else, and they stand in groups or some hold an O."""
    columns = sniff_columns(head)
    is_pair = columns.delimiter == b"\t" and columns.n_columns == 2
    has_tags = columns.style is not None and columns.style is not PLAIN
    return is_pair and columns.has_single_words and (columns.has_groups or has_tags)


def most_frequent_tags(head: bytes) -> str:
    """RETURNS (str): The tags that occur most often at the beginning of a file of tagged words, for a message."""
    tags = Counter(sniff_columns(head).tags).most_common(5)
    return ", ".join(repr(tag.decode("utf8", "replace")[:40]) for tag, _ in tags)


def _find_delimiter(raws: Sequence[bytes], options: ReadOptions) -> Optional[bytes]:
    delimiter = options.column_delimiter
    if delimiter is not None:
        return None if delimiter.isspace() and delimiter != "\t" else delimiter.encode("utf8")
    rows = [raw for raw in raws if raw.strip() and not raw.startswith((DOCSTART, b"#"))]
    return b"\t" if 2 * sum(b"\t" in raw.strip() for raw in rows) > len(rows) else None


def _tag_specs(options: ReadOptions) -> List[Optional[str]]:
    """The columns of tags that were asked for: several where entities may overlap."""
    if options.label_column is None or not options.overlaps:
        return [options.label_column]
    return [spec.strip() for spec in options.label_column.split(",")]


def _number_of_columns(options: ReadOptions) -> int:
    """How many columns there are at least."""
    numbers = [int(spec) for spec in (options.text_column, *_tag_specs(options)) if spec and is_number(spec)]
    return max(2, *(abs(number) for number in numbers)) if numbers else 2


def is_number(spec: str) -> bool:
    """RETURNS (bool): Whether a column is given by its number."""
    return bool(re.fullmatch(r"-?[1-9]\d*", spec.strip()))


def _find_header(
    groups: Sequence[Sequence[_Line]], n_columns: int, options: ReadOptions, path: Optional[Path]
) -> Tuple[bytes, List[str]]:
    """The first line, if it names the columns, and the names."""
    if not groups or options.header is False:
        return b"", []
    first = groups[0][0]
    names = [cell.decode("utf8", "replace").strip() for cell in first.cells]
    asked = [spec for spec in (options.text_column, *_tag_specs(options)) if spec and not is_number(spec)]
    is_header = bool(options.header) or (bool(asked) and all(spec in names for spec in asked))
    if not is_header and len(names) == n_columns and len(set(names)) == len(names):
        is_header = any(name.lower() in WORD_NAMES for name in names) and find_style({names[-1]: 1}) is None
    return (first.raw, names) if is_header else (b"", [])


def _choose(
    spec: Optional[str], names: Sequence[str], known: Sequence[str], default: int, n_columns: int, path: Optional[Path]
) -> int:
    """Index of a column that was given by name or number, or is called as such columns are."""
    if spec is None:
        lowered = [name.lower() for name in names[:n_columns]]
        return next((lowered.index(name) for name in known if name in lowered), default)
    if spec in names[:n_columns]:
        return names.index(spec)
    if not is_number(spec):
        numbers = "a number such as 1 for the first column or -1 for the last"
        expected = ", ".join([*names, numbers]) if names else f"{numbers}, as the file does not name its columns"
        raise BertHeadsError("H145", path=path, option="column", found=repr(spec), expected=expected)
    number = int(spec)
    return number - 1 if number > 0 else number


def _count_number_columns(groups: Sequence[Sequence[_Line]], n_columns: int) -> int:
    """How many columns number words or sentences before the column of words comes. Words and tags must remain, and
    what is the same in every line is no column of words."""
    whole = [line for group in groups for line in group if len(line.cells) == n_columns]
    found = 0
    while found < n_columns - 2 and _has_numbers(groups, found, n_columns):
        if len({line.cells[found + 1] for line in whole}) == 1:
            break
        found += 1
    return found


def _has_numbers(groups: Sequence[Sequence[_Line]], index: int, n_columns: int) -> bool:
    """Whether a column counts the words of nearly every sentence (1 2 3, 1-1 1-2, w1 w2), or on through the file, or
    has one number for each sentence."""
    n_counted = n_more = n_sentences = 0
    before = (b"", -1)
    for group in groups:
        cells = [line.cells[index] for line in group if len(line.cells) == n_columns]
        without_ranges = [cell for cell in cells if not RANGE.fullmatch(cell)]
        numbers = [_split_number(cell) for cell in without_ranges or cells]
        if numbers:
            n_sentences += 1
            prefix, first = numbers[0]
            counts_up = numbers == [(prefix, number) for number in range(first, first + len(numbers))]
            is_counted = counts_up and (first in (0, 1) or (prefix, first) == (before[0], before[1] + 1))
            is_counted = is_counted or (len(set(numbers)) == 1 and first >= 0 and numbers[0] != before)
            n_counted += is_counted
            n_more += is_counted and len(numbers) > 1
            before = numbers[-1]
    return n_more > 0 and n_counted >= MOST * n_sentences


def _split_number(cell: bytes) -> Tuple[bytes, int]:
    """What is before the number at the end of a cell, and the number; -1 if there is none."""
    match = NUMBERED.fullmatch(cell)
    return (match.group(1), int(match.group(2))) if match else (cell, -1)


def _count(lines: Sequence[_Line], index: int) -> Dict[str, int]:
    counts = Counter(line.cells[index].strip() for line in lines)
    return {cell.decode("utf8", "replace"): n for cell, n in counts.items()}


def _has_entities(lines: Sequence[_Line], index: int) -> bool:
    cells = {line.cells[index].strip() for line in lines}
    return any(len(cell) > 1 for cell in cells)


def _find_affix(sentences: Sequence[Sequence[bytes]]) -> str:
    """Find what all words have: a language before them as in WikiANN, or a position behind them as in Weibo NER."""
    decoded = [[cell.decode("utf8", "replace").strip() for cell in sentence] for sentence in sentences]
    words = [word for sentence in decoded for word in sentence]
    if len(words) < LEAST_WORDS:
        return ""
    prefixes = {match.group() if match else "" for match in map(PREFIX.match, words)}
    if len(prefixes) == 1 and prefixes != {""}:
        return "prefix"
    n_digits = sum(word[:1].isdigit() for word in words)
    return "position" if 2 * n_digits < len(words) and all(map(_has_positions, decoded)) else ""


def _has_positions(words: Sequence[str]) -> bool:
    before = -1
    for word in words:
        match = POSITION.search(word)
        place = int(match.group()) if match else -1
        if place not in (0, before + 1):
            return False
        before = place
    return True
