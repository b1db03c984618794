"""What a conversion did, as text for people and as JSON for programs."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List

from spacy.tokens import Doc
from wasabi import table

from .docs import INCORRECT_SPANS_KEY
from .findings import KINDS, Findings
from .splits import SPLITS

# How many labels of a kind the text report lists, the most frequent first. The JSON report lists all.
MAX_LABELS = 20


@dataclass
class SplitCounts:
    """What the Docs of one split hold.

    docs (int): How many there are.
    ents_complete (int): Docs in which every token is known to be in or outside an entity.
    ents_partial (int): Docs in which only some tokens are known, or only rejected spans.
    with_cats (int): Docs with at least one category.
    spans (Counter[str]): Entities by label.
    rejected (Counter[str]): Rejected spans by label.
    cats (Counter[str]): Docs in which the label holds.
    cats_not (Counter[str]): Docs in which the label is known not to hold.
    """

    docs: int = 0
    ents_complete: int = 0
    ents_partial: int = 0
    with_cats: int = 0
    spans: "Counter[str]" = field(default_factory=Counter)
    rejected: "Counter[str]" = field(default_factory=Counter)
    cats: "Counter[str]" = field(default_factory=Counter)
    cats_not: "Counter[str]" = field(default_factory=Counter)

    def add(self, doc: Doc) -> None:
        """Count one Doc.

        doc (Doc): As `build_doc` makes it.
        """
        self.docs += 1
        rejected = doc.spans.get(INCORRECT_SPANS_KEY, ())
        if doc.has_annotation("ENT_IOB", require_complete=True):
            self.ents_complete += 1
        elif doc.has_annotation("ENT_IOB") or rejected:
            self.ents_partial += 1
        self.with_cats += bool(doc.cats)
        self.spans.update(ent.label_ for ent in doc.ents)
        self.rejected.update(span.label_ for span in rejected)
        self.cats.update(label for label, value in doc.cats.items() if value > 0.0)
        self.cats_not.update(label for label, value in doc.cats.items() if value == 0.0)


@dataclass
class ConvertReport:
    """What `convert` read, decided and wrote.

    settings (Dict[str, Any]): Language, seed and share of each split.
    findings (Findings): Bad records passed over, and decisions about good ones.
    inputs (List[Dict[str, Any]]): Of each file its path, role, format, and how many records it has and gave.
    splits (Dict[str, SplitCounts]): What each split holds.
    files (List[Path]): What was written.
    """

    settings: Dict[str, Any]
    findings: Findings
    inputs: List[Dict[str, Any]] = field(default_factory=list)
    splits: Dict[str, SplitCounts] = field(default_factory=lambda: {name: SplitCounts() for name in SPLITS})
    files: List[Path] = field(default_factory=list)

    def to_dict(self) -> Dict[str, Any]:
        """RETURNS (Dict[str, Any]): The report, ready for JSON."""
        return {
            "settings": self.settings,
            "inputs": self.inputs,
            "splits": {name: _sorted_counts(vars(counts)) for name, counts in self.splits.items()},
            "skipped": self._list_cases(bad_records=True),
            "findings": self._list_cases(bad_records=False),
            "files": [str(path) for path in self.files],
        }

    def to_text(self) -> str:
        """RETURNS (str): The report, ready for a terminal. Its last line says what was written."""
        lines = [
            f"Read {entry['path']} as {entry['format']}: {entry['records']} records, {entry['used']} used"
            + (f" for {entry['role']} only" if entry["role"] != "main" else "")
            for entry in self.inputs
        ]
        lines += [self._render_counts()]
        contents = self.to_dict()
        for title, entries in (("Skipped", contents["skipped"]), ("Decided", contents["findings"])):
            lines += [f"{title}:"] if entries else []
            for entry in entries:
                lines += _render_cases(entry, self.findings.n_cases[entry["kind"]])
        empty = [name for name in SPLITS if not self.splits[name].docs]
        if empty:
            lines.append(f"Warning: nothing in {' and '.join(empty)}. Give more data or another --split.")
        written = ", ".join(f"{name}.spacy ({self.splits[name].docs} docs)" for name in SPLITS)
        lines.append(f"Wrote {written} in {self.files[0].parent}" if self.files else "Wrote nothing")
        return "\n".join(lines)

    def _list_cases(self, *, bad_records: bool) -> List[Dict[str, Any]]:
        counts = self.findings.counts
        kinds = sorted(kind for kind in counts if kind not in KINDS) if bad_records else list(KINDS)
        return [
            {
                "kind": kind,
                "meaning": KINDS.get(kind, f"bad records [{kind}]"),
                "count": counts[kind],
                "cases": [
                    {"path": str(where.path), "line": where.line, "detail": detail}
                    for where, detail in self.findings.cases[kind]
                ],
            }
            for kind in kinds
            if counts[kind]
        ]

    def _render_counts(self) -> str:
        columns = [self.splits[name] for name in SPLITS]
        rows = [("docs", *(counts.docs for counts in columns))]
        rows.append(("  all entities known", *(counts.ents_complete for counts in columns)))
        rows.append(("  some entities known", *(counts.ents_partial for counts in columns)))
        rows.append(("  with categories", *(counts.with_cats for counts in columns)))
        for title, yes, no in (("span", "spans", "rejected"), ("category", "cats", "cats_not")):
            pairs = [(getattr(counts, yes), getattr(counts, no)) for counts in columns]
            yeses: Counter[str] = sum((one for one, _ in pairs), Counter())
            noes: Counter[str] = sum((other for _, other in pairs), Counter())
            labels = sorted({*yeses, *noes}, key=lambda label: (-yeses[label], -noes[label], label))
            for label in labels[:MAX_LABELS]:
                cells = [f"{one[label]} / {other[label]}" if noes else one[label] for one, other in pairs]
                rows.append((f"{title} {label}" + (" yes / no" if noes else ""), *cells))
            if len(labels) > MAX_LABELS:
                rows.append((f"and {len(labels) - MAX_LABELS} more labels", *[""] * len(SPLITS)))
        return str(table(rows, header=("", *SPLITS), divider=True, aligns=("l", "r", "r", "r"), max_col=80))


def _sorted_counts(values: Dict[str, Any]) -> Dict[str, Any]:
    return {name: dict(sorted(value.items())) if isinstance(value, dict) else value for name, value in values.items()}


def _render_cases(entry: Dict[str, Any], n_cases: int) -> List[str]:
    more = n_cases - len(entry["cases"])
    ending = f" and {more} more" if more else ""
    places = [f"{case['path']}:{case['line']}" if case["line"] else case["path"] for case in entry["cases"]]
    details = [case["detail"] for case in entry["cases"]]
    first = f"  {entry['count']} {entry['meaning']}"
    if not any(details):
        return [f"{first}: {', '.join(places)}{ending}"]
    # The message of an error names the place itself.
    shown = [detail if detail.startswith("[") else f"{at} {detail}" for at, detail in zip(places, details)]
    return [f"{first}:", *(f"    {line}" for line in shown), *([f"   {ending}"] if more else [])]
