"""What a conversion did, as text for people and as JSON for programs."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Dict, List, Mapping, Sequence, Set

from wasabi import table

from ..errors import printable
from .counts import DEFAULT_LIMIT, SplitCounts, count_over, middle_and_longest
from .findings import KINDS, Findings
from .splits import SPLITS
from .tokens import ScriptCounts, long_texts_warning

# How many labels of a kind the text report lists, the most frequent first, and how many a warning names. The JSON
# report lists all.
MAX_LABELS = 20
MAX_NAMED = 5


@dataclass
class ConvertReport:
    """What `convert` read, decided and wrote.

    settings (Dict[str, Any]): Language, seed and share of each split.
    findings (Findings): Bad records passed over, and decisions about good ones.
    inputs (List[Dict[str, Any]]): Of each file its path, role, format, and how many records it has and gave.
    splits (Dict[str, SplitCounts]): What each split holds.
    files (List[Path]): What was written.
    shards (Dict[str, int]): Number of files of each split that is a folder.
    limit (int): Wordpieces that the encoder takes at once.
    notes (List[str]): What else people should know about the files read.
    scripts (ScriptCounts): The letters of all texts.
    """

    settings: Dict[str, Any]
    findings: Findings
    inputs: List[Dict[str, Any]] = field(default_factory=list)
    splits: Dict[str, SplitCounts] = field(default_factory=lambda: {name: SplitCounts() for name in SPLITS})
    files: List[Path] = field(default_factory=list)
    shards: Dict[str, int] = field(default_factory=dict)
    limit: int = DEFAULT_LIMIT
    notes: List[str] = field(default_factory=list)
    scripts: ScriptCounts = field(default_factory=ScriptCounts)
    # Whether the text report has a row for each label
    shows_labels: ClassVar[bool] = True
    # Kinds of findings that it has a table for
    shown_elsewhere: ClassVar[Sequence[str]] = ()

    def to_dict(self) -> Dict[str, Any]:
        """RETURNS (Dict[str, Any]): The report, ready for JSON."""
        return {
            "settings": self.settings,
            "inputs": self.inputs,
            "notes": self.notes,
            "splits": {name: counts.to_dict(self.limit) for name, counts in self.splits.items()},
            "warnings": self._list_warnings(),
            "skipped": list_cases(self.findings, bad_records=True),
            "findings": list_cases(self.findings, bad_records=False),
            "files": [str(path) for path in self.files],
            "shards": self.shards,
        }

    def to_text(self) -> str:
        """RETURNS (str): The report, ready for a terminal. Its last line says what was written."""
        lines = [
            f"Read {entry['path']} as {entry['format']}: {entry['records']} records, {entry['used']} used"
            + (f" for {entry['role']} only" if entry["role"] != "main" else "")
            for entry in self.inputs
        ]
        lines += [f"Note: {note}" for note in self.notes]
        table_at = len(lines)
        lines += render_findings(self.findings, shown_elsewhere=self.shown_elsewhere)
        lines += [f"Warning: {warning}" for warning in self._list_warnings()]
        for name, count in self.shards.items():
            path = next(path for path in self.files if path.stem == name)
            lines.append(f"{path} is a folder of {count} files; pass the folder itself, as in --paths.{name} {path}")
        written = ", ".join(f"{name}.spacy ({counts.docs} docs)" for name, counts in self.splits.items())
        lines.append(f"Wrote {written} in {self.files[0].parent}" if self.files else "Wrote nothing")
        lines = [printable(line) for line in lines]
        lines.insert(table_at, render_counts(self.splits, self.limit, labels=self.shows_labels))
        return "\n".join(lines)

    def _list_warnings(self) -> List[str]:
        warnings = []
        empty = [name for name, counts in self.splits.items() if not counts.docs]
        if empty:
            warnings.append(f"no texts in {' and '.join(empty)}. Add more data, or pass another --split.")
        filled = [name for name in self.splits if name not in empty]
        if self.scripts.warning():
            warnings.append(f"{self.scripts.warning()}.")
        for name in filled:
            long = long_texts_warning(self.splits[name].tokens)
            if long:
                warnings.append(f"in {name}, {long}.")
        for kind, attribute in (("entity", "spans"), ("category", "cats")):
            by_split: Dict[str, "Counter[str]"] = {name: getattr(self.splits[name], attribute) for name in filled}
            for name in filled:
                lacking = sorted(set().union(*by_split.values()) - set(by_split[name]))
                if lacking:
                    warnings.append(_lacking_labels(name, kind, lacking))
        return warnings


def list_cases(findings: Findings, *, bad_records: bool) -> List[Dict[str, Any]]:
    """Make findings ready for JSON.

    findings (Findings): All of them.
    bad_records (bool): Whether to list bad records that were skipped, or decisions about good ones.
    RETURNS (List[Dict[str, Any]]): Of each kind the meaning, the number and the first cases.
    """
    counts = findings.counts
    kinds = sorted(kind for kind in counts if kind not in KINDS) if bad_records else list(KINDS)
    return [
        {
            "kind": kind,
            "meaning": KINDS.get(kind, f"bad records [{kind}]"),
            "count": counts[kind],
            "cases": [
                {"path": str(where.path), "line": where.line, "record": where.record, "detail": detail}
                for where, detail in findings.cases[kind]
            ],
        }
        for kind in kinds
        if counts[kind]
    ]


def render_findings(findings: Findings, *, shown_elsewhere: Sequence[str] = ()) -> List[str]:
    """Make findings readable.

    findings (Findings): All of them.
    shown_elsewhere (Sequence[str]): Kinds that are left out.
    RETURNS (List[str]): Lines for a terminal: what was skipped and what was decided, each with its first cases.
    """
    lines = []
    for title, bad_records in (("Skipped", True), ("Decided", False)):
        cases = list_cases(findings, bad_records=bad_records)
        entries = [entry for entry in cases if entry["kind"] not in shown_elsewhere]
        lines += [f"{title}:"] if entries else []
        for entry in entries:
            lines += _render_cases(entry, findings)
    return [printable(line) for line in lines]


def render_counts(splits: Mapping[str, SplitCounts], limit: int = DEFAULT_LIMIT, labels: bool = True) -> str:
    """Make a table of counts.

    splits (Mapping[str, SplitCounts]): One column each.
    limit (int): Wordpieces that the encoder takes at once.
    labels (bool): Whether there is a row for each label.
    RETURNS (str): The table, for a terminal.
    """
    columns = list(splits.values())
    rows: List[Any] = [("docs", *(counts.docs for counts in columns))]
    rows.append(("  all entities known", *(counts.ents_complete for counts in columns)))
    rows.append(("  some entities known", *(counts.ents_partial for counts in columns)))
    rows.append(("  with categories", *(counts.with_cats for counts in columns)))
    if any(counts.with_spans for counts in columns):
        rows.append(("  with spans that may overlap", *(counts.with_spans for counts in columns)))
    rows.append(("tokens, median / longest", *(_show_lengths(counts.tokens) for counts in columns)))
    if any(counts.wordpieces for counts in columns):
        rows.append(("wordpieces, median / longest", *(_show_lengths(counts.wordpieces) for counts in columns)))
        rows.append((f"  over {limit} wordpieces", *(_show_over(counts, limit) for counts in columns)))
    scored = {label for counts in columns if labels for label in counts.scores}
    kinds = (("span", "spans", "rejected"), ("category", "cats", "cats_not")) if labels else ()
    for title, yes, no in kinds:
        rows += _label_rows(title, [(getattr(counts, yes), getattr(counts, no)) for counts in columns], scored)
    for label in sorted(scored):
        cells = [counts.values.get(label) for counts in columns]
        shown = [f"{one.total / one.n:.3g} ({one.low:.3g} to {one.high:.3g})" if one else "" for one in cells]
        rows.append((f"score {printable(label)}, mean (range)", *shown))
    aligns: Any = ("l", *("r" for _ in splits))
    return str(table(rows, header=("", *map(printable, splits)), divider=True, aligns=aligns, max_col=80))


def _label_rows(title: str, pairs: List[Any], scored: Set[str]) -> List[Any]:
    rows: List[Any] = []
    yeses: Counter[str] = sum((one for one, _ in pairs), Counter())
    noes: Counter[str] = sum((other for _, other in pairs), Counter())
    leave_out = scored if title == "category" else set()
    labels = sorted({*yeses, *noes} - leave_out, key=lambda label: (-yeses[label], -noes[label], label))
    for label in labels[:MAX_LABELS]:
        cells = [f"{one[label]} / {other[label]}" if noes else one[label] for one, other in pairs]
        rows.append((f"{title} {printable(label)}" + (" yes / no" if noes else ""), *cells))
    if len(labels) > MAX_LABELS:
        rows.append((f"and {len(labels) - MAX_LABELS} more labels", *[""] * len(pairs)))
    return rows


def _show_lengths(lengths: "Counter[int]") -> str:
    return "{} / {}".format(*middle_and_longest(lengths))


def _show_over(counts: SplitCounts, limit: int) -> str:
    over = count_over(counts.wordpieces, limit)
    return f"{over} ({over / counts.docs:.1%})" if over else "0"


def _lacking_labels(name: str, kind: str, labels: List[str]) -> str:
    shown = ", ".join(repr(label) for label in labels[:MAX_NAMED])
    more = f" and {len(labels) - MAX_NAMED} more" if len(labels) > MAX_NAMED else ""
    label = f"{kind} label" if len(labels) == 1 else f"{len(labels)} {kind} labels"
    effect = "nothing to learn" if name == "train" else "nothing to score"
    return f"no text in {name} for {label} {shown}{more}: {effect}. Add more data, or try another --seed."


def _render_cases(entry: Dict[str, Any], findings: Findings) -> List[str]:
    cases = findings.cases[entry["kind"]]
    more = findings.n_cases[entry["kind"]] - len(cases)
    ending = f" and {more} more" if more else ""
    places = [str(case.where) for case in cases]
    details = [case.detail for case in cases]
    first = f"  {entry['count']} {entry['meaning']}"
    if not any(details):
        return [f"{first}: {', '.join(places)}{ending}"]
    # The message of an error names the place itself.
    shown = [f"{at}: {detail}" for at, detail in zip(places, details)] if entry["kind"] in KINDS else details
    return [f"{first}:", *(f"    {line}" for line in shown), *([f"   {ending}"] if more else [])]
