"""What a Doc says, in the terms of annotation tools."""

from collections import Counter
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Callable, Dict, FrozenSet, Iterable, Iterator, List, Optional, Protocol, Set, Tuple

from spacy.attrs import ENT_IOB
from spacy.language import Language
from spacy.tokens import Doc, Span

from ...extensions import get_confidence_in
from ...factory_names import EXCLUSIVE_FACTORIES, SCORE_FACTORY
from ...pipeline_io import model_name
from ..annotations import INCORRECT_SPANS_KEY, UNKNOWN_SPANS_KEY
from ..findings import Findings, Where

# A category of an exported prediction holds from this probability on, if several of them may.
THRESHOLD = 0.5

# What the numbers of spaCy's ENT_IOB mean.
MISSING, OUTSIDE = 0, 2


@dataclass(frozen=True)
class Contents:
    """What all texts to be written have in common.

    has_ents (bool): Whether something is known about the entities of some.
    has_cats (bool): Whether some have categories.
    scores (FrozenSet[str]): Categories that are numbers to be predicted, rather than yes or no.
    model (Optional[str]): Name and version of the pipeline that predicted them. None: people annotated them.
    exclusive (Tuple[FrozenSet[str], ...]): Labels of each component of the pipeline that chooses exactly one.
    from_classifier (bool): Whether categories have probabilities although no pipeline is known to have predicted them.
    spans_key (Optional[str]): Key of `doc.spans` whose spans are written in place of entities. None: `doc.ents` is.
    """

    has_ents: bool
    has_cats: bool
    scores: FrozenSet[str]
    model: Optional[str] = None
    exclusive: Tuple[FrozenSet[str], ...] = ()
    from_classifier: bool = False
    spans_key: Optional[str] = None

    @classmethod
    def of_pipeline(cls, nlp: Language, spans_key: Optional[str] = None) -> "Contents":
        """What the components of a pipeline annotate.

        nlp (Language): The pipeline.
        spans_key (Optional[str]): Key of `doc.spans` whose spans are written in place of entities.
        RETURNS (Contents): What it will be.
        """
        assigns: Set[str] = set()
        scores: Set[str] = set()
        exclusive: List[FrozenSet[str]] = []
        for name, pipe in nlp.pipeline:
            meta = nlp.get_pipe_meta(name)
            labels = frozenset(getattr(pipe, "labels", ()))
            assigns.update(meta.assigns)
            if getattr(pipe, "annotate_ents", False):
                assigns.add("doc.ents")
            if meta.factory in EXCLUSIVE_FACTORIES:
                exclusive.append(labels)
            elif meta.factory == SCORE_FACTORY:
                scores |= labels
        return cls(
            has_ents=("doc.ents" if spans_key is None else "doc.spans") in assigns,
            has_cats="doc.cats" in assigns,
            scores=frozenset(scores),
            model=model_name(nlp),
            exclusive=tuple(exclusive),
            spans_key=spans_key,
        )


@dataclass(frozen=True)
class Exported:
    """A Doc to be written, with its place.

    doc (Doc): The Doc.
    where (Where): Its file and its number in it, counted from 1.
    contents (Contents): What it has in common with the others.
    asks_ents (bool): Whether anything is known about its entities.
    complete (bool): Whether tokens outside entities are known to be so, but for those in `unknown`.
    unknown (List[Tuple[int, int, str]]): First token, and the one behind the last, of stretches that are not known;
        of spans that may overlap also the label that this is about, or "".
    rejected (List[Span]): Spans known to be no entities of their label.
    others (Dict[str, Any]): Keys of the record that the text came in, for formats that can hold them.
    """

    doc: Doc
    where: Where
    contents: Contents
    asks_ents: bool
    complete: bool
    unknown: List[Tuple[int, int, str]]
    rejected: List[Span]
    others: Dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_doc(
        cls, doc: Doc, where: Where, contents: Contents, others: Optional[Dict[str, Any]] = None
    ) -> "Exported":
        """Look at what a Doc says about entities. Where no token is known to be outside, only single spans were
        judged; a Doc that is all entities is complete.

        doc (Doc): With at least one token.
        where (Where): Its place.
        contents (Contents): What it has in common with the others.
        others (Optional[Dict[str, Any]]): Keys of the record that it came in.
        """
        rejected = list(doc.spans.get(INCORRECT_SPANS_KEY, ()))
        key = contents.spans_key
        if key is not None:
            gaps = [(gap.start, gap.end, gap.label_) for gap in doc.spans.get(UNKNOWN_SPANS_KEY, ())]
            complete = key in doc.spans and (0, len(doc), "") not in gaps
            asks = key in doc.spans or bool(rejected)
            return cls(doc, where, contents, asks, complete, gaps if complete else [], rejected, others or {})
        iob = doc.to_array(ENT_IOB).tolist()
        unknown, position = [], 0
        for is_missing, group in groupby(iob, key=lambda value: value == MISSING):
            end = position + len(list(group))
            if is_missing:
                unknown.append((position, end, ""))
            position = end
        return cls(
            doc=doc,
            where=where,
            contents=contents,
            asks_ents=bool(rejected) or any(value != MISSING for value in iob),
            complete=OUTSIDE in iob or MISSING not in iob,
            unknown=unknown,
            rejected=rejected,
            others=others or {},
        )

    @property
    def spans(self) -> List[Span]:
        """RETURNS (List[Span]): The entities, or the spans that are written in their place."""
        key = self.contents.spans_key
        return list(self.doc.ents if key is None else self.doc.spans.get(key, ()))

    def scores(self) -> Dict[str, float]:
        """RETURNS (Dict[str, float]): Categories that are numbers to be predicted."""
        return {label: value for label, value in self.doc.cats.items() if label in self.contents.scores}

    def choices(self) -> Dict[str, bool]:
        """RETURNS (Dict[str, bool]): Other categories, and whether they hold: of a prediction the likeliest of labels
        that exclude each other, and any other from THRESHOLD on."""
        cats = {label: value for label, value in self.doc.cats.items() if label not in self.contents.scores}
        choices = {label: value >= THRESHOLD for label, value in cats.items()}
        for labels in self.contents.exclusive:
            shared = [label for label in cats if label in labels]
            if shared:
                best = max(shared, key=lambda label: cats[label])
                choices.update((label, label == best) for label in shared)
        return choices

    def confidences(self) -> List[Optional[float]]:
        """RETURNS (List[Optional[float]]): Probability of each of `spans`, where the pipeline says it."""
        return [get_confidence_in(span, self.contents.spans_key) for span in self.spans]

    def n_probabilities(self) -> int:
        """RETURNS (int): Of how many entities and categories the pipeline says how probable they are."""
        n_ents = sum(confidence is not None for confidence in self.confidences())
        return n_ents + (len(self.choices()) if self.contents.model else 0)


class Writer(Protocol):
    """Writes the files of one format.

    name (str): What the format is called in `--format`.
    """

    name: str

    def lines(self, docs: Iterable[Exported], findings: Findings) -> Iterator[str]:
        """Write a file.

        docs (Iterable[Exported]): What to write, read once.
        findings (Findings): Takes what the format cannot hold.
        YIELDS (str): Lines of the file, with their ends.
        """
        ...


class InferredByFile:
    """Tells what is lost in a format that names only what holds: entities, and labels chosen.

    What was asked, a reader concludes from the whole file. If there is an entity in it, all tokens outside entities
    are known to be so. A label that some text has does not hold for the others that have any.

    empty_choice (bool): Whether the format can say that no label holds.
    tokenize (Callable[[str], Doc]): Makes the tokens that a reader will make of a text.
    """

    def __init__(self, *, empty_choice: bool, tokenize: Callable[[str], Doc]) -> None:
        self._empty_choice = empty_choice
        self._tokenize = tokenize
        self._has_spans = False
        # What is lost depends on what is yet to come.
        self._with_spans, self._without_spans = Findings(skip_bad=False), Findings(skip_bad=False)
        self._n_docs = 0
        self._n_known: "Counter[str]" = Counter()
        self._held: Set[str] = set()
        self._where: Dict[str, Where] = {}

    def add(self, exported: Exported, choices: Dict[str, bool], findings: Findings) -> None:
        """Look at a text that is written.

        exported (Exported): The text.
        choices (Dict[str, bool]): Its categories, and whether they hold.
        findings (Findings): Takes what is lost of it anyway.
        """
        where = exported.where
        self._has_spans = self._has_spans or bool(exported.spans)
        if exported.rejected:
            findings.note("lost_rejected", where, count=len(exported.rejected))
        if [token.text for token in self._tokenize(exported.doc.text)] != [token.text for token in exported.doc]:
            findings.note("lost_tokens", where)
        if exported.asks_ents:
            self._without_spans.note("lost_outside", where)
            if exported.unknown:
                n_tokens = len({token for start, end, _ in exported.unknown for token in range(start, end)})
                self._with_spans.note("lost_unknown", where, f"{n_tokens} of {len(exported.doc)} tokens")
        else:
            self._with_spans.note("lost_unasked", where)
        if any(choices.values()) or (choices and self._empty_choice):
            self._n_docs += 1
            for label, holds in choices.items():
                self._n_known[label] += 1
                self._where.setdefault(label, where)
                if holds:
                    self._held.add(label)
        elif choices:
            findings.note("lost_negative", where, ", ".join(sorted(choices)), count=len(choices))

    def note(self, findings: Findings) -> None:
        """Tell what is lost, now that all texts are known.

        findings (Findings): Takes it; categories for each label with the first text that has it.
        """
        findings.add(self._with_spans if self._has_spans else self._without_spans)
        for label, n_known in sorted(self._n_known.items()):
            if label not in self._held:
                findings.note("lost_negative", self._where[label], label, count=n_known)
            elif n_known < self._n_docs:
                count = self._n_docs - n_known
                findings.note("lost_unknown_cats", self._where[label], f"{label} in {count} other texts", count)
