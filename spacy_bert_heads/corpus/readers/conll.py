"""CoNLL-style columns -> annotations: a token a line, a blank line after each sentence."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from ...errors import BertHeadsError
from ...tags import Span
from ..annotations import Annotation, CharSpan
from ..findings import Findings, Where
from .columns import DOCSTART, RANGE, Columns, find_columns, sniff_columns
from .lines import decode, head_lines, is_text, iter_lines, read_head
from .options import AUTO, ReadOptions
from .tag_spans import SCHEME_NAMES, TagSpans, is_tag, join_words, read_tags
from .tag_styles import TagStyle, find_tags

# Languages whose words are written without spaces between them.
WITHOUT_SPACES = ("bo", "ja", "km", "lo", "my", "th", "zh")
# Sentences of more words are told: blank lines may be missing.
LONG = 1000
# As many characters as spaCy takes. A file without blank lines may be larger than memory.
MAX_WORDS = 1_000_000
# Findings about tags, and not about the words beside them.
ABOUT_TAGS = ("broken_tags", "repaired_tags", "split_entity", "H132")
# One character of Chinese or Japanese.
HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u3040-\u30ff]")


class Sentence(NamedTuple):
    """The words of a sentence, their tags, and the line of the first one."""

    where: Where
    words: List[str]
    tags: List[str]


class ColumnsConverter:
    """Reads tagged words in columns, parted by tabs or white space (CoNLL-2002, CoNLL-2003, BMES and the like)."""

    name = "conll"
    suffixes: Tuple[str, ...] = (".conll", ".conll.gz", ".conllu", ".conllup", ".iob", ".bio", ".bmes")

    def sniff(self, path: Path, head: bytes) -> bool:
        """Recognise the format by its content.

        path (Path): Its name is not looked at.
        head (bytes): The beginning of a file.
        RETURNS (bool): Whether nearly all lines have the same number of columns, one of them with tags such as B-PER.
        """
        return is_text(head) and sniff_columns(head).is_tagged

    def read(self, path: Path, findings: Findings, options: ReadOptions) -> Iterator[Annotation]:
        """Stream the annotations of a file.

        path (Path): A text file, plain or gzipped. It is read twice, or three times if its tags are not written
            like B-PER.
        findings (Findings): Takes bad sentences, and decisions about good ones.
        options (ReadOptions): Columns, delimiter, header, scheme, and the language, by which words are joined.
        YIELDS (Annotation): One for each sentence.
        RAISES (BertHeadsError): H130 for a line with other columns; H132 for tags of no scheme; H134 if the last
            column has no entities and others have; H145 for a column that is not there.
        """
        head = read_head(path)
        columns = find_columns(head, options, path)
        if options.overlaps and len(columns.layers) > 1:
            yield from _read_layers(path, head, columns, findings, options)
            return
        if columns.others and all(tag in (b"O", b"o", b"-") for tag in columns.tags):
            others = ", ".join(str(index + 1) for index in columns.others)
            found = f"no entities in column {columns.tag % columns.n_columns + 1}, and tags such as B-PER in {others}"
            raise BertHeadsError("H134", path=path, role="tag", found=found)

        def read_tags() -> Iterator[Sequence[str]]:
            passed = Findings(skip_bad=True)
            return (sentence.tags for sentence in _read_sentences(path, columns, passed, progress=False))

        scheme, style = find_tags(read_tags, None if options.scheme == AUTO else options.scheme)
        if scheme not in SCHEME_NAMES:
            raise BertHeadsError("H132", path=path, found=repr(scheme), column=options.label_column or columns.tag + 1)
        _tell(columns, style, Where(path, columns.first_line), findings)
        sentences = rename_tags(_read_sentences(path, columns, findings, progress=True), style)
        yield from annotate(sentences, scheme, needs_spaces(head, options, columns), findings)


def _read_layers(
    path: Path, head: bytes, columns: Columns, findings: Findings, options: ReadOptions
) -> Iterator[Annotation]:
    """Several columns of tags, such as outer and inner entities: their entities together."""
    each = [columns._replace(tag=index, others=[]) for index in columns.layers]

    def read_tags() -> Iterator[Sequence[str]]:
        for one in each:
            passed = Findings(skip_bad=True)
            yield from (sentence.tags for sentence in _read_sentences(path, one, passed, progress=False))

    scheme, style = find_tags(read_tags, None if options.scheme == AUTO else options.scheme)
    if scheme not in SCHEME_NAMES:
        shown = ", ".join(str(index + 1) for index in columns.layers)
        raise BertHeadsError("H132", path=path, found=repr(scheme), column=shown)
    _tell(each[0], style, Where(path, columns.first_line), findings)
    with_spaces = needs_spaces(head, options, columns)
    # The first column's findings are also about words and lines; of the others only those about tags are new
    found = [findings, *(Findings(skip_bad=findings.skip_bad) for _ in each[1:])]
    streams = []
    for one, taken in zip(each, found):
        sentences = rename_tags(_read_sentences(path, one, taken, progress=taken is findings), style)
        streams.append(annotate(sentences, scheme, with_spaces, taken))
    for together in _align(streams):
        ents = list(dict.fromkeys(ent for annotation in together for ent in annotation.ents))
        unknown = list(dict.fromkeys(gap for annotation in together for gap in annotation.unknown))
        yield replace(together[0], ents=ents, unknown=unknown)
    for taken in found[1:]:
        findings.add(taken.only(ABOUT_TAGS))


def _align(streams: Sequence[Iterator[Annotation]]) -> Iterator[List[Annotation]]:
    """The annotations of each sentence that is good in all columns."""
    heads = [next(stream, None) for stream in streams]
    while None not in heads:
        line = max(head.where.line for head in heads if head is not None)
        for number, stream in enumerate(streams):
            while (head := heads[number]) is not None and head.where.line < line:
                heads[number] = next(stream, None)
        whole = [head for head in heads if head is not None]
        if len(whole) == len(heads) and all(head.where.line == line for head in whole):
            yield whole
            heads = [next(stream, None) for stream in streams]
    for stream in streams:
        # What is left is noted, and counted
        for _ in stream:
            pass


def _tell(columns: Columns, style: TagStyle, where: Where, findings: Findings) -> None:
    """Say what was taken for what."""
    if columns.is_indexed:
        findings.note("index_column", where, f"the words are in column {columns.word + 1}")
    if columns.others:
        others = ", ".join(str(index + 1) for index in columns.others)
        findings.note("tag_columns", where, f"column {columns.tag % columns.n_columns + 1}, not {others}")
    if columns.affix:
        findings.note("word_affixes", where, columns.affix)
    if style.name:
        findings.note("tag_style", where, style.name)


def rename_tags(sentences: Iterator[Sentence], style: TagStyle) -> Iterator[Sentence]:
    """Write tags as the schemes have them.

    sentences (Iterator[Sentence]): With the tags of the file.
    style (TagStyle): How these are written.
    YIELDS (Sentence): The sentences with tags such as B-PER.
    """
    if not style.name:
        yield from sentences
        return
    names: Dict[str, str] = {}
    for sentence in sentences:
        for tag in sentence.tags:
            if tag not in names:
                names[tag] = style.rename(tag)
        yield sentence._replace(tags=[names[tag] for tag in sentence.tags])


def needs_spaces(head: bytes, options: ReadOptions, columns: Optional[Columns] = None) -> bool:
    """Decide how words become a text.

    head (bytes): The beginning of a file whose lines have words.
    options (ReadOptions): With the language.
    columns (Optional[Columns]): Where the words are, and what is taken off them. None: lines begin with words.
    RETURNS (bool): Whether spaces part the words: not in languages that are written without, nor where most lines
        have a single Chinese or Japanese character first.
    """
    at = 0 if columns is None else max(0, columns.word)
    firsts = [cells[at].decode("utf8", "replace") for cells in map(bytes.split, head_lines(head)) if len(cells) > at]
    if columns is not None and columns.affix:
        firsts = [columns.clean(first) for first in firsts]
    n_characters = sum(bool(HAN.fullmatch(first)) for first in firsts)
    return options.lang not in WITHOUT_SPACES and n_characters * 2 <= len(firsts)


def annotate(
    sentences: Iterator[Sentence], scheme: str, with_spaces: bool, findings: Findings
) -> Iterator[Annotation]:
    """Make annotations of tagged sentences.

    sentences (Iterator[Sentence]): In the order of the file.
    scheme (str): Scheme of their tags.
    with_spaces (bool): Whether spaces part the words.
    findings (Findings): Takes entities that are broken, split or repaired, and sentences with tags of no scheme.
    YIELDS (Annotation): One for each sentence, with its words as tokens.
    """
    report = _BrokenTags(findings)
    for where, words, tags in sentences:
        if not all(is_tag(tag, scheme) for tag in set(tags)):
            wrong = next(tag for tag in tags if not is_tag(tag, scheme))
            findings.bad(where.error("H132", f"{wrong!r} in the scheme {scheme}", column="'tags'"))
            continue
        found = read_tags(tags, scheme)
        text, tokens = join_words(words, with_spaces=with_spaces)
        report.add(found, where)
        ents, unknown = (
            [CharSpan(tokens[start][0], tokens[end - 1][1], label) for start, end, label in spans]
            for spans in (found.ents, found.unknown)
        )
        yield Annotation(text, where, tokens=tokens, ents=ents, complete=True, unknown=unknown)
    report.end()


class _BrokenTags:
    """Reports broken entities. Of one that the end of a sentence cuts, the two parts are one case."""

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self.cut_off: Optional[Tuple[Where, Span]] = None

    def add(self, found: TagSpans, where: Where) -> None:
        if found.n_repaired:
            self.findings.note("repaired_tags", where, count=found.n_repaired)
        broken = found.broken
        if self.cut_off is not None and found.opens_broken == self.cut_off[1][2]:
            self.findings.note("split_entity", where, f"{found.opens_broken}, which starts at {self.cut_off[0]}")
            # In a sentence that is nothing but the middle of an entity, the end is the same part.
            self.cut_off, broken = None, broken[1:]
        self.end()
        if broken and found.ends_broken:
            self.cut_off = where, broken[-1]
            broken = broken[:-1]
        for span in broken:
            self._note(where, span)

    def end(self) -> None:
        if self.cut_off is not None:
            self._note(*self.cut_off)
            self.cut_off = None

    def _note(self, where: Where, span: Span) -> None:
        start, end, label = span
        self.findings.note("broken_tags", where, f"{label}, tokens {start + 1} to {end} of the sentence")


def _read_sentences(path: Path, columns: Columns, findings: Findings, *, progress: bool) -> Iterator[Sentence]:
    rows = _Rows(path, columns, findings)
    for number, raw in iter_lines(path, progress=progress):
        if not raw.strip() or raw.startswith(DOCSTART):
            yield from rows.end_sentence()
        elif columns.header and raw.rstrip(b"\r\n") == columns.header:
            yield from rows.end_sentence()
            findings.note("header_lines", Where(path, number))
        else:
            rows.add(number, raw)
    yield from rows.end_sentence()


class _Rows:
    """Collects the lines of a sentence and counts their columns."""

    def __init__(self, path: Path, columns: Columns, findings: Findings) -> None:
        self.path = path
        self.columns = columns
        self.findings = findings
        self.begin: Optional[int] = None
        self.numbers: List[int] = []
        self.words: List[bytes] = []
        self.tags: List[bytes] = []
        self.error: Optional[BertHeadsError] = None

    def add(self, number: int, raw: bytes) -> None:
        columns = self.columns
        cells = raw.split(columns.delimiter)
        if raw.startswith(b"#") and columns.is_comment(raw, cells, self.begin is None):
            self.findings.note("comment_lines", Where(self.path, number))
            return
        if columns.has_ranges and RANGE.fullmatch(cells[0]):
            self.findings.note("range_lines", Where(self.path, number))
            return
        if self.begin is None:
            self.begin = number
        if len(self.words) == MAX_WORDS and self.error is None:
            found = f"a sentence of over {MAX_WORDS:,} words"
            self.error = Where(self.path, self.begin).error("H138", found, limit=MAX_WORDS)
        if len(cells) != columns.n_columns:
            self._fail(number, raw, len(cells))
        if self.error is None:
            word, tag = cells[columns.word].strip(b"\r\n"), cells[columns.tag].strip()
            if not word or not tag:
                self._fail(number, raw, len(cells) - 1)
            self.numbers.append(number)
            self.words.append(word)
            self.tags.append(tag)

    def _fail(self, number: int, raw: bytes, n_columns: int) -> None:
        if self.error is None:
            found = repr(raw.decode("utf8", "replace").rstrip("\r\n")[:80])
            expected = self.columns.n_columns or "at least 2"
            first = self.columns.first_line or number
            where = Where(self.path, number)
            self.error = where.error("H130", found, expected=expected, first=first, n_columns=n_columns)

    def end_sentence(self) -> Iterator[Sentence]:
        if self.begin is None:
            return
        begin, numbers, words, tags, error = self.begin, self.numbers, self.words, self.tags, self.error
        self.begin, self.numbers, self.words, self.tags, self.error = None, [], [], [], None
        self.findings.n_records[self.path] += 1
        where = Where(self.path, begin)
        if error is None:
            try:
                # "\n" occurs in no word: one call decodes them all.
                names = decode(b"\n".join(words) + b"\n", where).split("\n")
                labels = b"\n".join(tags).decode("utf8").split("\n")
            except (BertHeadsError, UnicodeDecodeError):
                error = self._find_bad_line(numbers, words, tags)
            else:
                if len(names) > LONG:
                    self.findings.note("long_sentence", where, f"{len(names):,} words")
                if self.columns.affix:
                    names = [self.columns.clean(name) for name in names]
                yield Sentence(where, names, labels)
                return
        self.findings.bad(error)

    def _find_bad_line(self, numbers: Sequence[int], words: Sequence[bytes], tags: Sequence[bytes]) -> BertHeadsError:
        for number, word, tag in zip(numbers, words, tags):
            try:
                decode(word + b"\t" + tag, Where(self.path, number))
            except BertHeadsError as error:
                return error
        raise AssertionError("one of the lines cannot be decoded")
