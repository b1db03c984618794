"""JSON records of words and tags, as data sets on the Hugging Face hub have them -> annotations."""

from pathlib import Path
from typing import Any, Callable, Iterator, List, Optional, Sequence, Tuple

from ...errors import BertHeadsError
from ..annotations import Annotation
from ..findings import Findings, Where
from .conll import WITHOUT_SPACES, Sentence, annotate, rename_tags
from .labels import LabelNames
from .lines import head_values, most, read_json_records
from .offsets import is_index, show
from .options import AUTO, ReadOptions
from .tag_spans import SCHEME_NAMES
from .tag_styles import find_tags

WORD_KEYS = ("tokens", "words")
TAG_KEYS = ("ner_tags", "tags", "ner", "labels")

# The words of a sentence and their tags, as a file has them, with their place.
TokenRow = Tuple[Where, Any, Any]
# The name of a tag: its value, its place, and what takes tags without a name.
NameTag = Callable[[Any, Where, Findings], str]


class TokenLinesConverter:
    """Reads {"tokens": ["Anna", "laughs"], "ner_tags": ["B-PER", "O"]}, one record per line or an array."""

    name = "token-lines"
    suffixes: Tuple[str, ...] = ()

    def sniff(self, path: Path, head: bytes) -> bool:
        """Recognise the format by its content.

        path (Path): Its name is not looked at.
        head (bytes): The beginning of a file.
        RETURNS (bool): Whether most of its first values are such records.
        """
        return most(head_values(head), is_token_record)

    def read(self, path: Path, findings: Findings, options: ReadOptions) -> Iterator[Annotation]:
        """Stream the annotations of a file.

        path (Path): A JSON or JSONL file, plain or gzipped. It is read two or three times.
        findings (Findings): Takes bad records, and decisions about good ones.
        options (ReadOptions): Keys of words and tags, scheme, names of tags that are numbers, and the language.
        YIELDS (Annotation): One for each record.
        RAISES (BertHeadsError): H132 for tags of no scheme; H156 for numbers without names.
        """
        names = LabelNames(options.labels)

        def read_rows(found: Findings) -> Iterator[TokenRow]:
            for where, record in read_json_records(path, found, progress=found is findings):
                if isinstance(record, dict):
                    words, tags = (_key(record, *keys) for keys in _keys(options))
                    yield where, record.get(words), record.get(tags)
                else:
                    found.bad(where.error("H106", type(record).__name__))

        def name_tag(value: Any, where: Where, found: Findings) -> str:
            return value if isinstance(value, str) and not names.names else names.get(str(value), where, found)

        column = options.label_column or "of the tags"
        yield from annotate_tokens(read_rows, name_tag, options, path, column, findings)


def is_token_record(value: Any) -> bool:
    """RETURNS (bool): Whether a JSON value is an object with words and as many tags."""
    if not isinstance(value, dict):
        return False
    words = value.get(_key(value, None, WORD_KEYS))
    tags = value.get(_key(value, None, TAG_KEYS))
    if not isinstance(words, list) or not isinstance(tags, list) or not len(words) == len(tags) > 0:
        return False
    return all(isinstance(word, str) for word in words) and all(map(_is_tag, tags))


def annotate_tokens(
    read_rows: Callable[[Findings], Iterator[TokenRow]],
    name_tag: NameTag,
    options: ReadOptions,
    path: Path,
    column: str,
    findings: Findings,
) -> Iterator[Annotation]:
    """Make annotations of lists of words and tags.

    read_rows (Callable[[Findings], Iterator[TokenRow]]): Reads the file from the beginning.
    name_tag (NameTag): Gives tags their names.
    options (ReadOptions): Scheme and language.
    path (Path): The file, for messages.
    column (str): Where the tags are, for messages.
    findings (Findings): Takes bad rows, and decisions about good ones.
    YIELDS (Annotation): One for each row.
    RAISES (BertHeadsError): H132 for tags of no scheme; H156 for numbers without names.
    """

    def read_sentences(found: Findings) -> Iterator[Sentence]:
        for where, words, values in read_rows(found):
            try:
                sentence = Sentence(where, *_check(words, values, where))
                yield sentence._replace(tags=[name_tag(value, where, found) for value in values])
            except BertHeadsError as error:
                found.bad(error)

    def read_tags() -> Iterator[Sequence[str]]:
        return (sentence.tags for sentence in read_sentences(Findings(skip_bad=True)))

    scheme, style = find_tags(read_tags, None if options.scheme == AUTO else options.scheme)
    if scheme not in SCHEME_NAMES:
        raise BertHeadsError("H156" if scheme.isdigit() else "H132", path=path, found=repr(scheme), column=column)
    if style.name:
        findings.note("tag_style", Where(path, 0), style.name)
    sentences = rename_tags(read_sentences(findings), style)
    yield from annotate(sentences, scheme, options.lang not in WITHOUT_SPACES, findings)


def _check(words: Any, tags: Any, where: Where) -> Tuple[List[str], List[Any]]:
    if not isinstance(words, list) or not isinstance(tags, list) or not words or len(words) != len(tags):
        counts = [f"{len(value)}" if isinstance(value, list) else "no list of" for value in (words, tags)]
        found = f"{counts[0]} words and {counts[1]} tags"
        raise where.error("H136", found, expected="as many tags as words, and at least one")
    if not all(isinstance(word, str) and word.strip() for word in words):
        raise where.error("H136", show(words), expected="words that are strings and not empty")
    if not all(map(_is_tag, tags)):
        raise where.error("H136", show(tags), expected="tags that are strings or numbers")
    return words, tags


def _is_tag(value: Any) -> bool:
    return isinstance(value, str) or is_index(value)


def _keys(options: ReadOptions) -> List[Tuple[Optional[str], Sequence[str]]]:
    return [(options.text_column, WORD_KEYS), (options.label_column, TAG_KEYS)]


def _key(record: Any, asked: Optional[str], known: Sequence[str]) -> str:
    return asked or next((key for key in known if isinstance(record.get(key), list)), known[0])
