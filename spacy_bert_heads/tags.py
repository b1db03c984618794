"""Tag schemes: BIO, BILUO (with the letters BIOES as well) and BMES, all with O. Plain Python.

Every scheme gives four roles to the tokens of an entity; they differ in which roles share a letter:

    role     bio  biluo  bioes  bmes
    first     B     B      B      B     first of several tokens
    inside    I     I      I      M
    last      I     L      E      E     last of several tokens
    single    B     U      S      S     the only token
"""

from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from .errors import BertHeadsError

OUTSIDE = "O"
UNKNOWN = -1  # tag number of a token that nobody annotated

Span = Tuple[int, int, str]  # first token, token after the last, label


class Letters(NamedTuple):
    """Letter of each role. One of these per scheme; see the table above."""

    first: str
    inside: str
    last: str
    single: str


class SpanTags(NamedTuple):
    """Tag number of each role, for one label."""

    first: int
    inside: int
    last: int
    single: int


SCHEMES: Dict[str, Letters] = {
    "bio": Letters("B", "I", "I", "B"),
    "biluo": Letters("B", "I", "L", "U"),
    "bioes": Letters("B", "I", "E", "S"),
    "bmes": Letters("B", "M", "E", "S"),
}


class TagScheme:
    """The tags of some labels under one scheme, and which of them may follow each other.

    scheme (str): One of SCHEMES.
    labels (Sequence[str]): Entity labels, in the order that label numbers refer to.
    RAISES (BertHeadsError): H331 for an unknown scheme, H332 for a label given twice.
    """

    def __init__(self, scheme: str, labels: Sequence[str]) -> None:
        if scheme not in SCHEMES:
            raise BertHeadsError("H331", found=scheme, expected=", ".join(SCHEMES))
        repeated = next((label for i, label in enumerate(labels) if label in labels[:i]), None)
        if repeated is not None:
            raise BertHeadsError("H332", found=repeated)
        self.scheme = scheme
        self.labels = list(labels)
        self.letters = SCHEMES[scheme]
        self.tags = [OUTSIDE]
        self.tags += [f"{letter}-{label}" for label in labels for letter in dict.fromkeys(self.letters)]
        self.tag_numbers = {tag: number for number, tag in enumerate(self.tags)}
        self.span_tags = [
            SpanTags(*(self.tag_numbers[f"{letter}-{label}"] for letter in self.letters)) for label in labels
        ]

    @property
    def allowed_start(self) -> List[bool]:
        """RETURNS (List[bool]): For each tag, whether the first token may have it."""
        return [self._may_open(tag) for tag in self.tags]

    @property
    def allowed_end(self) -> List[bool]:
        """RETURNS (List[bool]): For each tag, whether the last token may have it."""
        return [tag == OUTSIDE or self._ends(tag) for tag in self.tags]

    @property
    def allowed_transitions(self) -> List[List[bool]]:
        """RETURNS (List[List[bool]]): For each tag (row), which tags the next token may have (columns)."""
        return [[self._may_follow(tag, after) for after in self.tags] for tag in self.tags]

    @property
    def extends(self) -> List[List[bool]]:
        """Which tag would make an entity longer that could also have ended: in BIO, I-X after B-X or I-X.

        RETURNS (List[List[bool]]): For each tag (row), whether each tag of the next token (column) does so.
        """
        return [self.extends_from(tag) for tag in range(len(self.tags))]

    @property
    def forbidden_next(self) -> List[List[bool]]:
        """RETURNS (List[List[bool]]): For each label, the tags that cannot follow a finished entity."""
        extends = self.extends
        return [extends[tags.last] for tags in self.span_tags]

    def extends_from(self, tag: int) -> List[bool]:
        """RETURNS (List[bool]): Which tags of the next token would make an entity that ends in `tag` longer."""
        name = self.tags[tag]
        return [
            self._ends(name) and self._may_follow(name, after) and not self._may_open(after) for after in self.tags
        ]

    def tags_from_spans(
        self, n_tokens: int, spans: Sequence[Span], missing: Optional[Sequence[bool]] = None
    ) -> List[int]:
        """Write entities as one tag per token.

        n_tokens (int): Number of tokens in the Doc.
        spans (Sequence[Span]): Entities as (start, end, label), in any order, without overlap.
        missing (Optional[Sequence[bool]]): True for tokens outside all entities that nobody annotated.
        RETURNS (List[int]): Tag numbers; UNKNOWN for missing tokens.
        RAISES (BertHeadsError): H333 for borders outside the Doc, H334 for overlaps, H335 for unknown labels.
        """
        tags = [0] * n_tokens if missing is None else [UNKNOWN if gap else 0 for gap in missing]
        owners: Dict[int, Span] = {}
        for span in spans:
            start, end, label = span
            if not 0 <= start < end <= n_tokens:
                raise BertHeadsError("H333", found=span, n_tokens=n_tokens)
            if label not in self.labels:
                raise BertHeadsError("H335", found=label, expected=", ".join(self.labels))
            roles = self.span_tags[self.labels.index(label)]
            for token in range(start, end):
                if token in owners:
                    raise BertHeadsError("H334", found=span, other=owners[token])
                owners[token] = span
                tags[token] = roles.inside
            if end - start == 1:
                tags[start] = roles.single
            else:
                tags[start], tags[end - 1] = roles.first, roles.last
        return tags

    def spans_from_tags(self, tags: Sequence[int]) -> List[Span]:
        """Read entities from one tag per token. Legal paths come back exactly. In an illegal one, an entity
        that was never opened starts where it is first seen, one that was never closed ends where it is last
        seen, as in the CoNLL evaluation.

        tags (Sequence[int]): Tag numbers; UNKNOWN counts as outside.
        RETURNS (List[Span]): Entities as (start, end, label) in order.
        """
        spans: List[Span] = []
        start, before = 0, OUTSIDE
        for token, number in enumerate([*tags, 0]):
            tag = OUTSIDE if number == UNKNOWN else self.tags[number]
            same_label = before != OUTSIDE and tag[2:] == before[2:]
            if not (same_label and self._goes_on(before) and not self._begins(tag)):
                if before != OUTSIDE:
                    spans.append((start, token, before[2:]))
                start = token
            before = tag
        return spans

    def numbers(self, names: Sequence[str]) -> List[int]:
        """Numbers of tags given by name.

        names (Sequence[str]): Tags such as "B-PER", or "-" for a token that nobody annotated.
        RETURNS (List[int]): Tag numbers; UNKNOWN for "-".
        RAISES (BertHeadsError): H336 for a tag that the scheme and the labels do not have.
        """
        unknown = next((name for name in names if name != "-" and name not in self.tag_numbers), None)
        if unknown is not None:
            raise BertHeadsError("H336", found=unknown, expected=", ".join(self.tags))
        return [self.tag_numbers.get(name, UNKNOWN) for name in names]

    def _begins(self, tag: str) -> bool:
        return tag[0] in (self.letters.first, self.letters.single)

    def _may_open(self, tag: str) -> bool:
        return tag == OUTSIDE or self._begins(tag)

    def _ends(self, tag: str) -> bool:
        return tag[0] in (self.letters.last, self.letters.single)

    def _goes_on(self, tag: str) -> bool:
        return tag[0] in (self.letters.first, self.letters.inside)

    def _may_follow(self, tag: str, after: str) -> bool:
        if self._may_open(after):
            return tag == OUTSIDE or self._ends(tag)
        return tag != OUTSIDE and tag[2:] == after[2:] and self._goes_on(tag)
