"""What `.spacy` files hold, as text, JSON and an HTML page."""

import heapq
import os
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Set, Tuple

import srsly
from spacy import displacy
from spacy.tokens import Doc
from spacy.vocab import Vocab

from ..errors import BertHeadsError, NotWrittenError
from ..files import check_not_read, check_writable, is_shards, write_files
from .counts import DEFAULT_LIMIT, SplitCounts, Wordpieces, count_over, middle_and_longest
from .doc_bins import read_doc_bins
from .docs import INCORRECT_SPANS_KEY
from .findings import Findings, Where
from .report import MAX_LABELS, list_cases, render_counts, render_findings
from .splits import split_key
from .store import hash_text

TEMPLATE = Path(__file__).with_name("inspect.html.jinja")
# How many texts the page shows of a corpus, chosen by their hash, and how many more for labels not among them.
N_EXAMPLES = 12
N_LABEL_EXAMPLES = 20
# How much of a text and how many of its rejected spans and categories the page shows.
MAX_CHARACTERS = 700
MAX_CHIPS = 12
N_BINS = 24
# Background colours of labels, in turn: far apart, and light enough for dark text.
COLOURS = (
    *("#aecbfa", "#fdd7a4", "#b7e1cd", "#f6b8c6", "#d7c3f2", "#fff0a3"),
    *("#a8e0e6", "#e3c9ae", "#c9e39a", "#f4c2e7", "#c4cfd9", "#f7b79f"),
)


class Shown(NamedTuple):
    """A text to be shown on the page.

    number (int): Which Doc of its corpus it is, counted from 1.
    text (str): Its beginning.
    is_cut (bool): Whether there is more of it.
    ents (List[Tuple[int, int, str]]): Start, end and label of entities in the beginning.
    rejected (List[Tuple[str, str]]): Label and words of rejected spans.
    unknown (int): Tokens of which nothing is known, if some are known.
    cats (List[Tuple[str, float]]): Categories with their values, the highest first.
    labels (Set[str]): Labels of its entities and of the categories that hold.
    tokens (List[str]): Of spans that may overlap, the tokens of the beginning; `ents` then counts in tokens.
    """

    number: int
    text: str
    is_cut: bool
    ents: List[Tuple[int, int, str]]
    rejected: List[Tuple[str, str]]
    unknown: int
    cats: List[Tuple[str, float]]
    labels: Set[str]
    tokens: List[str] = []


@dataclass
class Inspection:
    """What `inspect_corpora` found.

    paths (Dict[str, Path]): File or folder of each corpus, by its name.
    counts (Dict[str, SplitCounts]): What each holds.
    findings (Findings): Texts that occur several times.
    examples (Dict[str, List[Shown]]): Some texts of each.
    encoder (Optional[str]): Whose wordpieces were counted.
    limit (int): Wordpieces that the encoder takes at once.
    """

    paths: Dict[str, Path]
    counts: Dict[str, SplitCounts]
    findings: Findings
    examples: Dict[str, List[Shown]] = field(default_factory=dict)
    encoder: Optional[str] = None
    limit: int = DEFAULT_LIMIT

    def to_dict(self) -> Dict[str, Any]:
        """RETURNS (Dict[str, Any]): The counts, ready for JSON."""
        return {
            "encoder": self.encoder,
            "corpora": {
                name: {"path": str(self.paths[name]), **counts.to_dict(self.limit)}
                for name, counts in self.counts.items()
            },
            "findings": list_cases(self.findings, bad_records=False),
        }

    def to_text(self) -> str:
        """RETURNS (str): The counts, ready for a terminal."""
        return "\n".join([render_counts(self.counts, self.limit), *render_findings(self.findings)])

    def to_html(self) -> str:
        """RETURNS (str): A page that needs no other file."""
        from jinja2 import Environment

        environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        template = environment.from_string(TEMPLATE.read_text(encoding="utf8"))
        colours = _choose_colours(self.counts.values())
        return template.render(
            inspection=self,
            labels=_compare_labels(self.counts),
            lengths=_compare_lengths(self.counts),
            middle_and_longest=middle_and_longest,
            count_over=count_over,
            findings=list_cases(self.findings, bad_records=False),
            colours=colours,
            draw=lambda shown: _draw(shown, colours),
            max_chips=MAX_CHIPS,
            max_labels=MAX_LABELS,
        )


def inspect_corpora(
    paths: Sequence[Path],
    *,
    encoder: Optional[str] = None,
    html: Optional[Path] = None,
    report_path: Optional[Path] = None,
    spans_key: Optional[str] = None,
) -> Inspection:
    """Count what `.spacy` files hold, and look for texts that occur several times.

    paths (Sequence[Path]): Files, or folders of them. Of a folder as `convert` makes it each split is a corpus.
    encoder (Optional[str]): Count wordpieces of this encoder too.
    html (Optional[Path]): Where to write a page with figures and examples.
    report_path (Optional[Path]): Where to write the counts as JSON.
    spans_key (Optional[str]): Key of `doc.spans` whose spans, which may overlap, are shown in place of entities.
    RETURNS (Inspection): What was found.
    RAISES (BertHeadsError): H101 or H315 if a file cannot be read; H123 if one cannot be written; H161 if one is given
        twice.
    """
    for path in (html, report_path):
        if path is not None:
            check_writable(path.parent)
    corpora = _name_corpora(paths)
    for path in (html, report_path):
        if path is not None:
            check_not_read(path, [*paths, *corpora.values()])
    if html is not None and report_path is not None and os.path.realpath(html) == os.path.realpath(report_path):
        raise NotWrittenError("H123", path=html, found="two outputs have this name")
    wordpieces = Wordpieces(encoder) if encoder else None
    inspection = Inspection(corpora, {name: SplitCounts() for name in corpora}, Findings(skip_bad=False))
    if wordpieces is not None:
        inspection.encoder, inspection.limit = encoder, wordpieces.limit
    seen = _SeenTexts(inspection.findings, spans_key)
    for name, path in corpora.items():
        sample, number = _Sample(), 0
        for doc_bin in read_doc_bins(path):
            # A vocabulary for each file: it would otherwise grow with every new word.
            for doc in doc_bin.get_docs(Vocab()):
                number += 1
                inspection.counts[name].add(doc, wordpieces, spans_key)
                seen.add(doc, name, Where(path, number))
                sample.add(doc, number, spans_key)
        if not number:
            raise BertHeadsError("H310", path=path)
        inspection.examples[name] = sample.choose()
    contents = {}
    if html is not None:
        contents[html] = inspection.to_html().encode("utf8")
    if report_path is not None:
        contents[report_path] = (srsly.json_dumps(inspection.to_dict(), indent=2) + "\n").encode("utf8")
    write_files(contents)
    return inspection


def _name_corpora(paths: Sequence[Path]) -> Dict[str, Path]:
    found: List[Path] = []
    for path in paths:
        parts = sorted(path.glob("*.spacy")) if path.is_dir() and not is_shards(path) else []
        found += parts or [path]
    for path in found:
        if found.count(path) > 1:
            raise BertHeadsError("H161", path=path, found="a corpus")
    # As in training: first train, then dev, then test.
    order = {"train": 0, "dev": 1, "test": 2}
    found.sort(key=lambda path: order.get(path.stem, 3))
    stems = [path.stem for path in found]
    return {path.stem if stems.count(path.stem) == 1 else str(path): path for path in found}


class _SeenTexts:
    """Finds texts that occur several times: about 150 bytes of memory for each different text."""

    def __init__(self, findings: Findings, spans_key: Optional[str]) -> None:
        self._findings = findings
        self._spans_key = spans_key
        self._seen: Dict[int, Tuple[str, Where, int, int]] = {}

    def add(self, doc: Doc, corpus: str, where: Where) -> None:
        text, annotation = hash_text(doc.text), hash_text(repr(_annotation(doc, self._spans_key)))
        known = self._seen.setdefault(hash_text(split_key(doc.text)), (corpus, where, text, annotation))
        if known[1] == where:
            return
        kind = "repeated_text" if known[0] == corpus else "shared_text"
        self._findings.note(kind, where, f"same text as {known[1]}")
        if known[2] == text and known[3] != annotation:
            self._findings.note("differing_text", where, f"differs from {known[1]}")


class _Sample:
    """Texts to show: some by chance, always the same ones, and one for each label."""

    def __init__(self) -> None:
        self._lowest: List[Tuple[int, int, Shown]] = []
        self._by_label: Dict[str, Tuple[int, Shown]] = {}

    def add(self, doc: Doc, number: int, spans_key: Optional[str]) -> None:
        rank = hash_text(doc.text)
        is_low = len(self._lowest) < N_EXAMPLES or rank < -self._lowest[0][0]
        new = [label for label in _labels(doc, spans_key) if rank < self._by_label.get(label, (rank + 1,))[0]]
        if not is_low and not new:
            return
        shown = _show(doc, number, spans_key)
        if is_low:
            push = heapq.heappush if len(self._lowest) < N_EXAMPLES else heapq.heappushpop
            push(self._lowest, (-rank, number, shown))
        for label in new:
            self._by_label[label] = (rank, shown)

    def choose(self) -> List[Shown]:
        chosen = {shown.number: shown for _, _, shown in self._lowest}
        covered = set().union(*(shown.labels for shown in chosen.values()))
        for label, (_, shown) in sorted(self._by_label.items()):
            if label not in covered and len(chosen) < N_EXAMPLES + N_LABEL_EXAMPLES:
                chosen[shown.number] = shown
                covered |= shown.labels
        return [chosen[number] for number in sorted(chosen)]


def _annotation(doc: Doc, spans_key: Optional[str]) -> Any:
    ents = [(ent.start_char, ent.end_char, ent.label_) for ent in doc.ents]
    ents += sorted((span.start_char, span.end_char, span.label_) for span in doc.spans.get(spans_key or "", ()))
    rejected = sorted((span.start_char, span.end_char, span.label_) for span in doc.spans.get(INCORRECT_SPANS_KEY, ()))
    return ents, rejected, sorted(doc.cats.items()), [token.ent_iob for token in doc]


def _labels(doc: Doc, spans_key: Optional[str]) -> Set[str]:
    spans = doc.ents if spans_key is None else doc.spans.get(spans_key, ())
    return {span.label_ for span in spans} | {label for label, value in doc.cats.items() if value > 0.0}


def _show(doc: Doc, number: int, spans_key: Optional[str]) -> Shown:
    text = doc.text
    tokens = [token for token in doc if token.idx + len(token) <= MAX_CHARACTERS] if spans_key is not None else []
    ents = [(ent.start_char, ent.end_char, ent.label_) for ent in doc.ents if ent.end_char <= MAX_CHARACTERS]
    if spans_key is not None:
        group = doc.spans.get(spans_key, ())
        ents = [(span.start, span.end, span.label_) for span in group if span.end <= len(tokens)]
    rejected = doc.spans.get(INCORRECT_SPANS_KEY, ())
    unknown = sum(token.ent_iob == 0 for token in doc)
    return Shown(
        number=number,
        text=text[:MAX_CHARACTERS],
        is_cut=len(text) > MAX_CHARACTERS,
        ents=ents,
        rejected=[(span.label_, span.text[:60]) for span in rejected],
        unknown=unknown if unknown < len(doc) or rejected else 0,
        cats=sorted(doc.cats.items(), key=lambda cat: (-cat[1], cat[0])),
        labels=_labels(doc, spans_key),
        tokens=[token.text for token in tokens],
    )


def _compare_labels(counts: Dict[str, SplitCounts]) -> List[Dict[str, Any]]:
    """Entities, rejected spans, categories: for each label how often it occurs, and how long its bar is."""
    scored = {label for split in counts.values() for label in split.scores}
    groups = []
    for title, attribute in (
        ("Entities", "spans"),
        ("Rejected spans", "rejected"),
        ("Categories that apply", "cats"),
        ("Categories that do not apply", "cats_not"),
    ):
        columns = [getattr(split, attribute) for split in counts.values()]
        labels = {label for column in columns for label in column}
        labels -= scored if attribute.startswith("cats") else set()
        # Bars compare shares, so that a small split can be read beside a large one.
        tops = [max((column[label] for label in labels), default=0) for column in columns]
        rows = [
            (label, [(column[label], 100 * column[label] / top if top else 0) for column, top in zip(columns, tops)])
            for label in sorted(labels, key=lambda label: (-sum(column[label] for column in columns), label))
        ]
        if rows:
            groups.append({"title": title, "rows": rows, "sums": [sum(column.values()) for column in columns]})
    return groups


def _compare_lengths(counts: Dict[str, SplitCounts]) -> List[Dict[str, Any]]:
    """Histograms of lengths, of all corpora on one scale. The last bin holds everything from its border on."""
    groups = []
    for title, attribute in (("Tokens", "tokens"), ("Wordpieces", "wordpieces")):
        columns = [getattr(split, attribute) for split in counts.values()]
        lengths = sorted(length for column in columns for length, n in column.items() for _ in range(min(n, 100)))
        if not lengths:
            continue
        longest = lengths[-1]
        width = max(1, -(-min(longest, 2 * lengths[int(len(lengths) * 0.95)] + N_BINS) // N_BINS))
        n_bins = min(N_BINS, longest // width + 1)
        histograms = []
        for column in columns:
            bins = [0] * n_bins
            for length, n in column.items():
                bins[min(length // width, n_bins - 1)] += n
            top = max(bins)
            histograms.append([(n, 100 * n / top if top else 0) for n in bins])
        borders = [(i * width, (i + 1) * width - 1 if i < n_bins - 1 else longest) for i in range(n_bins)]
        groups.append({"title": title, "borders": borders, "histograms": dict(zip(counts, histograms))})
    return groups


def _choose_colours(counts: Iterable[SplitCounts]) -> Dict[str, str]:
    labels = sorted({label for split in counts for label in (*split.spans, *split.rejected)})
    return {label: COLOURS[i % len(COLOURS)] for i, label in enumerate(labels)}


def _draw(shown: Shown, colours: Dict[str, str]) -> Any:
    from markupsafe import Markup

    if shown.tokens:
        spans = [{"start_token": start, "end_token": end, "label": label} for start, end, label in shown.ents]
        return Markup(draw_spans({"text": shown.text, "spans": spans, "tokens": shown.tokens}, colours))
    # displaCy escapes the text but not the labels, and looks colours up in upper case.
    ents = [{"start": start, "end": end, "label": escape(label)} for start, end, label in shown.ents]
    options = {"colors": {escape(label).upper(): colour for label, colour in colours.items()}}
    content = {"text": shown.text, "ents": ents, "title": None}
    return Markup(displacy.render(content, style="ent", manual=True, page=False, jupyter=False, options=options))


def draw_spans(drawn: Dict[str, Any], colours: Dict[str, str]) -> str:
    """Tokens with a line below for each span.

    drawn (Dict[str, Any]): "text", "tokens", and "spans" with the "start_token", "end_token" and "label" of each.
    colours (Dict[str, str]): Of the labels.
    RETURNS (str): HTML of displaCy's span style, all that came with the text escaped.
    """
    # displaCy escapes the tokens but not the labels, and looks colours up in upper case
    spans = [{**span, "label": escape(span["label"])} for span in drawn["spans"]]
    options = {"colors": {escape(label).upper(): colour for label, colour in colours.items()}}
    content = {**drawn, "spans": spans, "title": None}
    return displacy.render(content, style="span", manual=True, page=False, jupyter=False, options=options)
