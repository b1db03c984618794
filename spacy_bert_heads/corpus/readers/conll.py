"""CoNLL-style columns -> annotations: a token a line, a blank line after each sentence."""

import re
from pathlib import Path
from typing import Iterator, List, NamedTuple, Optional, Sequence, Tuple

from ...errors import BertHeadsError
from ...tags import Span
from ..annotations import Annotation, CharSpan
from ..findings import Findings, Where
from .lines import decode, head_lines, is_text, iter_lines, read_head
from .options import AUTO, ReadOptions
from .tag_spans import SCHEME_NAMES, TagSpans, find_scheme, is_tag, join_words, read_tags

DOCSTART = b"-DOCSTART-"
# Languages whose words are written without spaces between them.
WITHOUT_SPACES = ("bo", "ja", "km", "lo", "my", "th", "zh")
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
    suffixes: Tuple[str, ...] = (".conll", ".conll.gz", ".conllu", ".iob", ".bio", ".bmes")

    def sniff(self, path: Path, head: bytes) -> bool:
        """Recognise the format by its content.

        path (Path): Its name is not looked at.
        head (bytes): The beginning of a file.
        RETURNS (bool): Whether all lines have the same number of columns and a tag such as B-PER in the last one.
        """
        n_columns, n_tokens, n_tags = 0, 0, 0
        for raw in head_lines(head)[:2000]:
            cells = raw.split(b"\t") if b"\t" in raw.strip() else raw.split()
            if not raw.strip() or raw.startswith((DOCSTART, b"#")):
                continue
            tag = cells[-1].strip().decode("utf8", "replace")
            if len(cells) != (n_columns or len(cells)) or len(cells) < 2 or not is_tag(tag):
                return False
            n_columns, n_tokens, n_tags = len(cells), n_tokens + 1, n_tags + (len(tag) > 1)
        return is_text(head) and n_tokens > 0 and (n_tags > 0 or n_tokens > 10)

    def read(self, path: Path, findings: Findings, options: ReadOptions) -> Iterator[Annotation]:
        """Stream the annotations of a file.

        path (Path): A text file, plain or gzipped. It is read twice unless the scheme is given.
        findings (Findings): Takes bad sentences, and decisions about good ones.
        options (ReadOptions): Columns, delimiter, scheme, and the language, by which words are joined.
        YIELDS (Annotation): One for each sentence.
        RAISES (BertHeadsError): H130 for a line with other columns; H132 for tags of no scheme.
        """
        head = read_head(path)
        delimiter = _find_delimiter(head, options)
        scheme = options.scheme
        if scheme == AUTO:
            passed = Findings(skip_bad=True)
            every = (sentence.tags for sentence in _read_sentences(path, delimiter, passed, options, progress=False))
            scheme = find_scheme(every)
            if scheme not in SCHEME_NAMES:
                column = options.label_column or "-1"
                raise BertHeadsError("H132", path=path, found=repr(scheme), column=column)
        sentences = _read_sentences(path, delimiter, findings, options, progress=True)
        yield from annotate(sentences, scheme, needs_spaces(head, options), findings)


def needs_spaces(head: bytes, options: ReadOptions) -> bool:
    """Decide how words become a text.

    head (bytes): The beginning of a file whose lines begin with words.
    options (ReadOptions): With the language.
    RETURNS (bool): Whether spaces part the words: not in languages that are written without, nor where most lines
        begin with a single Chinese or Japanese character.
    """
    firsts = [cells[0].decode("utf8", "replace") for cells in map(bytes.split, head_lines(head)) if cells]
    n_characters = sum(bool(HAN.fullmatch(word)) for word in firsts)
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


def _find_delimiter(head: bytes, options: ReadOptions) -> Optional[bytes]:
    delimiter = options.column_delimiter
    if delimiter is not None:
        return None if delimiter.isspace() and delimiter != "\t" else delimiter.encode("utf8")
    lines = [raw for raw in head_lines(head)[:2000] if raw.strip() and not raw.startswith((DOCSTART, b"#"))]
    return b"\t" if lines and all(b"\t" in raw.strip() for raw in lines) else None


def _read_sentences(
    path: Path, delimiter: Optional[bytes], findings: Findings, options: ReadOptions, *, progress: bool
) -> Iterator[Sentence]:
    rows = _Rows(path, delimiter, findings, options)
    for number, raw in iter_lines(path, progress=progress):
        if not raw.strip() or raw.startswith(DOCSTART):
            yield from rows.end_sentence()
        else:
            rows.add(number, raw)
    yield from rows.end_sentence()


class _Rows:
    """Collects the lines of a sentence and counts their columns."""

    def __init__(self, path: Path, delimiter: Optional[bytes], findings: Findings, options: ReadOptions) -> None:
        self.path = path
        self.delimiter = delimiter
        self.findings = findings
        self.word_index = _column_index(options.text_column, 0)
        self.tag_index = _column_index(options.label_column, -1)
        self.first_line = 0
        self.n_columns = 0
        self.begin: Optional[int] = None
        self.words: List[bytes] = []
        self.tags: List[bytes] = []
        self.error: Optional[BertHeadsError] = None

    def add(self, number: int, raw: bytes) -> None:
        cells = raw.split(self.delimiter)
        if len(cells) != self.n_columns:
            if self._is_first(number, cells):
                self.first_line, self.n_columns = number, len(cells)
            elif raw.startswith(b"#") and self.begin is None:
                self.findings.note("comment_lines", Where(self.path, number))
                return
            else:
                self._fail(number, raw, len(cells))
        if self.begin is None:
            self.begin = number
        if self.error is None:
            word, tag = cells[self.word_index].strip(b"\r\n"), cells[self.tag_index].strip()
            if not word or not tag:
                self._fail(number, raw, len(cells) - 1)
            self.words.append(word)
            self.tags.append(tag)

    def _is_first(self, number: int, cells: Sequence[bytes]) -> bool:
        wanted = max(index + 1 if index >= 0 else -index for index in (self.word_index, self.tag_index))
        return not self.n_columns and len(cells) >= max(2, wanted)

    def _fail(self, number: int, raw: bytes, n_columns: int) -> None:
        if self.error is None:
            found = repr(raw.decode("utf8", "replace").rstrip("\r\n")[:80])
            expected = self.n_columns or "at least 2"
            where = Where(self.path, number)
            first = self.first_line or number
            self.error = where.error("H130", found, expected=expected, first=first, n_columns=n_columns)

    def end_sentence(self) -> Iterator[Sentence]:
        if self.begin is None:
            return
        begin, words, tags, error = self.begin, self.words, self.tags, self.error
        self.begin, self.words, self.tags, self.error = None, [], [], None
        self.findings.n_records[self.path] += 1
        if error is None:
            try:
                # "\n" occurs in no word: one call decodes them all.
                names = decode(b"\n".join(words) + b"\n", Where(self.path, begin)).split("\n")
                labels = b"\n".join(tags).decode("utf8").split("\n")
                yield Sentence(Where(self.path, begin), names, labels)
                return
            except (BertHeadsError, UnicodeDecodeError):
                error = self._find_bad_line(begin, words, tags)
        self.findings.bad(error)

    def _find_bad_line(self, begin: int, words: Sequence[bytes], tags: Sequence[bytes]) -> BertHeadsError:
        for offset, (word, tag) in enumerate(zip(words, tags)):
            try:
                decode(word + b"\t" + tag, Where(self.path, begin + offset))
            except BertHeadsError as error:
                return error
        raise AssertionError("one of the lines cannot be decoded")


def _column_index(column: Optional[str], default: int) -> int:
    if column is None:
        return default
    try:
        number = int(column)
    except ValueError:
        number = 0
    if not number:
        expected = "a number such as 1 for the first column or -1 for the last"
        raise BertHeadsError("H145", option="column", found=repr(column), expected=expected)
    return number - 1 if number > 0 else number
