"""What is known about one text, whatever its format was, and how several records of one text are merged."""

from bisect import bisect
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Dict, FrozenSet, List, NamedTuple, Optional, Sequence, Set, Tuple

from .findings import Findings, Where

# Where spaCy's own `ner` looks for spans that are known to be wrong (its `incorrect_spans_key`).
INCORRECT_SPANS_KEY = "incorrect_spans"
# Where `bert_spans` looks for stretches about which nothing is known; see pipeline.span_annotations.
UNKNOWN_SPANS_KEY = "unknown_spans"


class CharSpan(NamedTuple):
    """A labelled stretch of a text in Unicode code points, end exclusive."""

    start: int
    end: int
    label: str


@dataclass(frozen=True)
class Annotation:
    """What one record says about a text, or all records of a text together.

    text (str): The text.
    where (Where): Place of the record, of the first one when several were merged.
    tokens (Optional[List[Tuple[int, int]]]): Start and end of each token. None leaves them to the tokenizer.
    ents (List[CharSpan]): Spans known to be entities.
    complete (bool): Whether everything outside `ents` is known to be no entity. Otherwise it is unknown.
    unknown (List[CharSpan]): Spans of a complete annotation about which nothing is known: as spans that overlap,
        about those of their label, or of any if they have none.
    rejected (List[CharSpan]): Spans known not to be entities of their label.
    cats (Dict[str, float]): 1.0 for labels that hold, 0.0 for labels that do not, or numbers to be predicted.
        Absent labels are unknown.
    exclusive (bool): Whether exactly one of the labels in `cats` holds.
    timestamp (Optional[float]): Unix time of the answer, of the newest one when several were merged.
    input_hash (Optional[int]): By which the tool knows the text, of a record that says so.
    second_start (Optional[int]): Where the second sentence begins, of a text that is a pair of sentences.
    annotator (Optional[str]): By whom the tool knows who answered.
    silver (Optional[float]): Of an answer of a large language model that nobody has reviewed, how much it counts in
        training, above 0 and at most 1. None: people say so.
    """

    text: str
    where: Where
    tokens: Optional[List[Tuple[int, int]]] = None
    ents: List[CharSpan] = field(default_factory=list)
    complete: bool = False
    unknown: List[CharSpan] = field(default_factory=list)
    rejected: List[CharSpan] = field(default_factory=list)
    cats: Dict[str, float] = field(default_factory=dict)
    exclusive: bool = False
    timestamp: Optional[float] = None
    input_hash: Optional[int] = None
    second_start: Optional[int] = None
    annotator: Optional[str] = None
    silver: Optional[float] = None

    @property
    def is_empty(self) -> bool:
        """RETURNS (bool): Whether the annotation says nothing about its text."""
        return not (self.complete or self.ents or self.rejected or self.cats)


def merge(versions: Sequence[Annotation], findings: Findings, *, overlaps: bool = False) -> Annotation:
    """Join all records of one text by the rules in docs/reference/formats.md.

    What people say replaces whatever a large language model said.
    A complete annotation wins over yes/no answers. Versions that differ are never mixed: the newest wins, or
    the last in file order when not all of them carry a time. There is no vote: of three versions the last one wins
    over two that agree. Where spans may overlap, labels are questions by themselves: what the newest version says
    nothing about, such as a label that was not shown, comes from the newest one that does. Every such decision becomes
    a finding.

    versions (Sequence[Annotation]): At least one, in file order, all of the same text.
    findings (Findings): Takes the decisions.
    overlaps (bool): Whether spans may overlap. Otherwise accepted ones that do are both unknown.
    RETURNS (Annotation): What is known about the text.
    """
    of_people = [version for version in versions if version.silver is None]
    if of_people and len(of_people) < len(versions):
        findings.note("silver_replaced", versions[0].where, count=len(versions) - len(of_people))
        versions = of_people
    first = versions[0]
    for version in versions[1:]:
        findings.note("merged", version.where)
    ordered = _oldest_first(versions)
    complete = [version for version in ordered if version.complete]
    ents: List[CharSpan]
    unknown: List[CharSpan] = []
    rejected: List[CharSpan] = []
    if complete:
        winner = complete[-1]
        if overlaps:
            winner = _fill_gaps(complete)
            single = [replace(version, ents=[]) if version.complete else version for version in ordered]
            answers = _join_verdicts(single, findings, overlaps)
            asked, rejected = ([span for span in spans if _is_gap(winner, span)] for spans in answers)
            winner = replace(winner, ents=[*winner.ents, *asked])
        ents, unknown = sorted(set(winner.ents)), winner.unknown
        _report_losers(winner, ordered, findings, overlaps)
    else:
        ents, rejected = _join_verdicts(ordered, findings, overlaps)
    cats = _join_cats(ordered, findings)
    with_tokens = [version for version in complete[-1:] or ordered if version.tokens is not None]
    tokens = with_tokens[-1].tokens if with_tokens else None
    for version in ordered:
        if tokens is not None and version.tokens not in (None, tokens):
            findings.note("other_tokens", version.where)
    return replace(
        first,
        tokens=tokens,
        ents=ents,
        complete=bool(complete),
        unknown=unknown,
        rejected=rejected,
        cats=cats,
        exclusive=any(version.exclusive and version.cats.keys() == cats.keys() for version in ordered),
        second_start=next((one.second_start for one in versions if one.second_start is not None), None),
        silver=ordered[-1].silver,
        timestamp=max((version.timestamp for version in versions if version.timestamp is not None), default=None),
    )


def overlapping(spans: Sequence[CharSpan]) -> List[Tuple[CharSpan, CharSpan]]:
    """Find spans that share characters.

    spans (Sequence[CharSpan]): In any order.
    RETURNS (List[Tuple[CharSpan, CharSpan]]): Pairs; every span that overlaps another one is in a pair.
    """
    pairs = []
    furthest: Optional[CharSpan] = None
    for span in sorted(spans):
        if furthest is not None and span.start < furthest.end:
            pairs.append((furthest, span))
        if furthest is None or span.end > furthest.end:
            furthest = span
    return pairs


def flatten(spans: Sequence[CharSpan], how: str) -> List[CharSpan]:
    """Choose spans that do not overlap.

    spans (Sequence[CharSpan]): In any order.
    how (str): "outer": of two that overlap the one that begins first, or of these the longer one, so that of spans
        within each other the outermost stays. "inner": the one that ends first, or of these the shorter one, so that
        the innermost stays. "longest": the longer one, the longest of all first. Among equals the first label.
    RETURNS (List[CharSpan]): The chosen ones, in order of the text.
    """
    keys: Dict[str, Callable[[CharSpan], Tuple[Any, ...]]] = {
        "outer": lambda span: (span.start, -span.end, span.label),
        "inner": lambda span: (span.end, -span.start, span.label),
        "longest": lambda span: (span.start - span.end, span.start, span.label),
    }
    chosen: List[CharSpan] = []
    for span in sorted(set(spans), key=keys[how]):
        # In order of their beginnings, chosen spans that do not overlap also end in this order
        at = bisect(chosen, span)
        before, behind = chosen[at - 1 : at], chosen[at : at + 1]
        if all(one.end <= span.start for one in before) and all(span.end <= one.start for one in behind):
            chosen.insert(at, span)
    return chosen


def _oldest_first(versions: Sequence[Annotation]) -> List[Annotation]:
    times = [version.timestamp for version in versions if version.timestamp is not None]
    if len(times) < len(versions):
        return list(versions)
    return sorted(versions, key=lambda version: version.timestamp or 0.0)


def _fill_gaps(complete: Sequence[Annotation]) -> Annotation:
    """The newest of some complete annotations of spans that may overlap, and in its gaps what older ones say."""
    *older, winner = complete
    for version in reversed(older):
        filled = [gap for gap in winner.unknown if gap.label and not _is_gap(version, gap)]
        ents = [span for span in version.ents if any(_is_about(gap, span) for gap in filled)]
        unknown = [gap for gap in winner.unknown if gap not in filled]
        winner = replace(winner, ents=list(dict.fromkeys([*winner.ents, *ents])), unknown=unknown)
    return winner


def _is_about(gap: CharSpan, span: CharSpan) -> bool:
    return gap.label in ("", span.label) and gap.start < span.end and span.start < gap.end


def _is_gap(annotation: Annotation, span: CharSpan) -> bool:
    """Whether a complete annotation of spans that may overlap says nothing about one."""
    return span not in annotation.ents and any(_is_about(gap, span) for gap in annotation.unknown)


def _report_losers(winner: Annotation, versions: Sequence[Annotation], findings: Findings, overlaps: bool) -> None:
    ents = set(winner.ents)
    for version in versions:
        if version.complete:
            differing = ents ^ set(version.ents)
            if any(not (overlaps and (_is_gap(version, span) or _is_gap(winner, span))) for span in differing):
                findings.note("entity_conflict", version.where, f"differs from {winner.where}, which is kept")
            continue
        wrong = [span for span in version.ents if span not in ents]
        wrong += [span for span in version.rejected if span in ents]
        for span in wrong:
            findings.note("binary_against_manual", version.where, f"{_show(span)} against {winner.where}")


def _join_verdicts(
    ordered: Sequence[Annotation], findings: Findings, overlaps: bool
) -> Tuple[List[CharSpan], List[CharSpan]]:
    verdicts: Dict[CharSpan, Tuple[bool, Where]] = {}
    for version in ordered:
        answers = [(span, True) for span in version.ents] + [(span, False) for span in version.rejected]
        for span, answer in answers:
            if span in verdicts and verdicts[span][0] != answer:
                detail = f"{_show(span)} answered differently at {verdicts[span][1]}"
                findings.note("binary_conflict", version.where, detail)
            verdicts[span] = (answer, version.where)
    accepted = sorted(span for span, (answer, _) in verdicts.items() if answer)
    unclear: Set[CharSpan] = set()
    for one, other in [] if overlaps else overlapping(accepted):
        findings.note("binary_overlap", verdicts[other][1], f"{_show(one)} and {_show(other)}")
        unclear.update((one, other))
    rejected = sorted(span for span, (answer, _) in verdicts.items() if not answer)
    return [span for span in accepted if span not in unclear], rejected


def _join_cats(ordered: Sequence[Annotation], findings: Findings) -> Dict[str, float]:
    questions = list({frozenset(version.cats): version.cats for version in ordered if version.exclusive}.values())
    cats: Dict[str, float] = {}
    # One of all that answer alike: a text may come thousands of times.
    kept: Dict[Tuple[bool, FrozenSet[Tuple[str, float]]], Annotation] = {}
    for version in reversed(ordered):
        for question in questions:
            if not version.exclusive and _chosen(version) & question.keys():
                # A yes to one label of an exclusive question is a no to its others.
                noes = dict.fromkeys(question, 0.0)
                version = replace(version, cats={**noes, **version.cats}, exclusive=True)
        clashes = [other for other in kept.values() if _cats_clash(version, other)]
        if clashes:
            detail = f"differs from {clashes[0].where}, which is kept"
            findings.note("category_conflict", version.where, detail)
        if any(version.exclusive and other.exclusive for other in clashes):
            continue
        cats = {**version.cats, **cats}
        kept.setdefault((version.exclusive, frozenset(version.cats.items())), version)
    return dict(sorted(cats.items()))


def _chosen(version: Annotation) -> Set[str]:
    return {label for label, value in version.cats.items() if value > 0.0}


def _cats_clash(one: Annotation, other: Annotation) -> bool:
    shared = one.cats.keys() & other.cats.keys()
    if shared and one.exclusive and other.exclusive:
        return _chosen(one) != _chosen(other)
    return any(one.cats[label] != other.cats[label] for label in shared)


def _show(span: CharSpan) -> str:
    return f"{span.label} {span.start}-{span.end}"
