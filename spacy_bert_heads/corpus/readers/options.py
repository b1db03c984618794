"""What the user says about annotation files that the files do not say themselves."""

from dataclasses import dataclass
from pathlib import Path
from typing import FrozenSet, Optional

from ...errors import BertHeadsError
from ..annotations import INCORRECT_SPANS_KEY, UNKNOWN_SPANS_KEY
from .tag_spans import SCHEME_NAMES

AUTO = "auto"
# What a column of labels holds: one label of several, any number of labels, or a number to be predicted.
KINDS_OF_LABEL = (AUTO, "single", "multi", "score")
# Delimiters that are hard to type.
FLATTENINGS = ("outer", "inner", "longest")
DELIMITERS = {"tab": "\t", "space": " ", "\\t": "\t"}


@dataclass(frozen=True)
class ReadOptions:
    """What a file does not say about itself. Formats ignore what does not concern them.

    A column is a name from the header, or a number: 1 is the first column, -1 the last.

    lang (str): Language of the texts. Words of a column file are joined without spaces in zh, ja and the like.
    labels (Optional[Path]): File with one label a line: names of numbered labels, and all labels there are.
        Without it these are the labels that occur in the file.
    text_column (Optional[str]): Column of the text, or of the words in a CoNLL file. Two with a comma between them
        are a pair of sentences.
    label_column (Optional[str]): Column of the label, or of the tags in a CoNLL file. Several with commas between
        them are one label each: 0 or 1, or a number to be predicted.
    kind (str): What the label column holds: one label ("single"), any number of labels ("multi"), or a number
        ("score"). "auto" looks at the values.
    label_separator (str): What separates the labels of one text.
    delimiter (Optional[str]): What separates columns: a character, "tab" or "space". None: found from the file.
    header (Optional[bool]): Whether the first line names the columns. None: found from the file.
    scheme (str): Tag scheme of a CoNLL file: "bio", "iob1", "biluo", "bioes" or "bmes". "auto" finds it.
    pair_separator (str): What separates the two sentences of a pair in the text.
    only_answered (bool): Whether a Prodigy record without an answer is a task that nobody has answered. Otherwise it
        counts as accepted.
    other_labels (FrozenSet[str]): Entity labels there are beside those in the file. A manual Prodigy record that
        shows only some of all labels says nothing about the tokens outside its entities.
    spans_key (Optional[str]): Key of `doc.spans` under which entities are put, which may then overlap. None: they are
        entities only.
    flatten (Optional[str]): Which of the entities that overlap become `doc.ents`: the "outer" ones, the "inner" ones,
        or the "longest". None: with a spans_key none of all entities do; without one, entities that overlap are a
        mistake.
    RAISES (BertHeadsError): H145 for a kind, scheme, delimiter, label separator or flattening that there is not, or a
        spans_key with another meaning.
    """

    lang: str = "en"
    labels: Optional[Path] = None
    text_column: Optional[str] = None
    label_column: Optional[str] = None
    kind: str = AUTO
    label_separator: str = ","
    delimiter: Optional[str] = None
    header: Optional[bool] = None
    scheme: str = AUTO
    pair_separator: str = " "
    only_answered: bool = False
    other_labels: FrozenSet[str] = frozenset()
    spans_key: Optional[str] = None
    flatten: Optional[str] = None

    def __post_init__(self) -> None:
        _check("--kind", self.kind, self.kind in KINDS_OF_LABEL, ", ".join(KINDS_OF_LABEL))
        _check("--scheme", self.scheme, self.scheme in (AUTO, *SCHEME_NAMES), ", ".join((AUTO, *SCHEME_NAMES)))
        delimiter = self.column_delimiter
        _check("--delimiter", self.delimiter, delimiter is None or len(delimiter) == 1, "tab, space, , or ;")
        _check("--flatten", self.flatten, self.flatten in (None, *FLATTENINGS), ", ".join(FLATTENINGS))
        is_key = self.spans_key not in ("", INCORRECT_SPANS_KEY, UNKNOWN_SPANS_KEY)
        _check("--spans-key", self.spans_key, is_key, "a key such as sc, which has no other meaning")
        _check("--label-separator", self.label_separator, bool(self.label_separator), "a character such as , or |")

    @property
    def overlaps(self) -> bool:
        """RETURNS (bool): Whether entities may overlap."""
        return self.spans_key is not None or self.flatten is not None

    @property
    def column_delimiter(self) -> Optional[str]:
        """RETURNS (Optional[str]): The character between columns, if one was given."""
        return None if self.delimiter is None else DELIMITERS.get(self.delimiter, self.delimiter)


def _check(option: str, value: Optional[str], is_sound: bool, expected: str) -> None:
    if not is_sound:
        raise BertHeadsError("H145", option=option, found=repr(value), expected=expected)
