"""What is wrong with annotated texts before a pipeline is trained on them.

spaCy's own `debug data` looks at labels only for the factory names it knows; this looks at those of our heads.
"""

import math
from collections import Counter
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Set, Tuple

import srsly
from spacy.language import Language
from spacy.tokens import Doc
from spacy.util import get_lang_class, registry
from thinc.api import Config
from wasabi import table

from ..corpus.annotations import INCORRECT_SPANS_KEY, UNKNOWN_SPANS_KEY
from ..corpus.doc_bins import read_doc_bins
from ..corpus.docs import check_words
from ..corpus.report import SplitCounts
from ..corpus.splits import split_key
from ..corpus.tokens import ScriptCounts, long_texts_warning
from ..defaults import MAX_SPAN_WIDTH
from ..encoders.traits import spelled_share
from ..errors import BertHeadsError, printable
from ..files import check_not_read, write_files
from ..pipeline_io import read_sourced
from ..project.configs import SCRATCH, TOKEN_HEADS
from ..training.fit_config import ENCODER_FACTORY, HEAD_FACTORIES, encoder_name, read_config, read_train_texts
from .span_scores import overlapping

# Fewer training examples than this for a label are worth a warning
FEW = 10
# Above this share of wordpieces, an encoder lacks the language of the texts
SPELLED = 0.2
N_CASES = 5


@dataclass(frozen=True)
class Head:
    """A head of the config that is to be checked.

    name (str): The component's name.
    kind (str): One of project.HEADS.
    labels (Optional[Set[str]]): Labels that the config gives it, or that it has where it is sourced. None: it reads
        them off the train split.
    source (Optional[str]): The pipeline that it comes from, trained. None: it is new.
    spans_key (Optional[str]): Of spans that may overlap, where they are in `doc.spans`.
    max_width (Optional[int]): Of these, tokens of the longest that can be found. None: as the train split has them.
    """

    name: str
    kind: str
    labels: Optional[Set[str]]
    source: Optional[str] = None
    spans_key: Optional[str] = None
    max_width: Optional[int] = None


@dataclass
class GroupCounts:
    """Spans under one key of `doc.spans`.

    docs (int): Texts that are annotated.
    labels (Counter[str]): Spans by label.
    overlapping (int): Spans that share characters with another one.
    widths (Counter[int]): Spans by their number of tokens, by the config's tokenizer.
    longest (Tuple[int, str, str]): The longest: tokens, words, label.
    misaligned (List[Tuple[str, str, str]]): Words, label and text of spans that are not at token boundaries.
    """

    docs: int = 0
    labels: "Counter[str]" = field(default_factory=Counter)
    overlapping: int = 0
    widths: "Counter[int]" = field(default_factory=Counter)
    longest: Tuple[int, str, str] = (0, "", "")
    misaligned: List[Tuple[str, str, str]] = field(default_factory=list)

    def add(self, doc: Doc, tokenized: Doc, key: str) -> None:
        """Count the spans of a text.

        doc (Doc): With the group.
        tokenized (Doc): The same text by the config's tokenizer.
        key (str): Of the group.
        """
        self.docs += 1
        for span in doc.spans[key]:
            self.labels[span.label_] += 1
            found = tokenized.char_span(span.start_char, span.end_char)
            if found is None:
                self.misaligned.append((span.text, span.label_, doc.text))
                continue
            self.widths[len(found)] += 1
            if len(found) > self.longest[0]:
                self.longest = len(found), span.text, span.label_
        places = {(span.start_char, span.end_char, span.label_) for span in doc.spans[key]}
        self.overlapping += len(overlapping(sorted(places)))

    def to_dict(self) -> Dict[str, Any]:
        """RETURNS (Dict[str, Any]): For JSON."""
        return {
            "docs": self.docs,
            "labels": dict(sorted(self.labels.items())),
            "overlapping": self.overlapping,
            "longest": self.longest[0],
            "off_token_borders": len(self.misaligned),
        }


@dataclass
class Split:
    """What is known about one split.

    counts (SplitCounts): Docs, labels and annotated Docs.
    keys (Counter[str]): Texts, in the form in which they are compared.
    lengths (List[int]): Tokens of each Doc, by the config's tokenizer.
    misaligned (List[Tuple[str, str, str]]): Words, label and text of entities that are not at token boundaries.
    several (List[Tuple[str, List[str]]]): Text and labels of Docs with more than one true category.
    none_true (int): Docs with categories, none of them true.
    bare (int): Docs without any annotation.
    no_numbers (List[Tuple[str, str, str]]): Value, category and text where doc.cats holds no finite number; these are
        not counted.
    scripts (ScriptCounts): Letters, by the config's tokenizer.
    groups (Dict[str, GroupCounts]): Spans that may overlap, by their key.
    """

    counts: SplitCounts = field(default_factory=SplitCounts)
    keys: "Counter[str]" = field(default_factory=Counter)
    lengths: List[int] = field(default_factory=list)
    misaligned: List[Tuple[str, str, str]] = field(default_factory=list)
    several: List[Tuple[str, List[str]]] = field(default_factory=list)
    none_true: int = 0
    bare: int = 0
    no_numbers: List[Tuple[str, str, str]] = field(default_factory=list)
    scripts: ScriptCounts = field(default_factory=ScriptCounts)
    groups: Dict[str, GroupCounts] = field(default_factory=dict)

    def labels(self, head: Head) -> "Counter[str]":
        """RETURNS (Counter[str]): Examples of each label of a head."""
        if head.kind == "regression":
            return Counter({label: values.n for label, values in self.counts.values.items()})
        if head.kind == "spans":
            return self.groups.get(head.spans_key or "", GroupCounts()).labels
        return self.counts.spans if head.kind == "ner" else self.counts.cats


@dataclass
class DataReport:
    """The result of `check_data`.

    splits (Dict[str, Split]): By name.
    heads (List[Head]): Those of the config that were checked.
    errors (List[BertHeadsError]): What makes training fail or learn the wrong thing.
    warnings (List[str]): What is worth a look.
    shared (Dict[str, int]): Texts that are in both of two splits, as "train and test".
    """

    splits: Dict[str, Split]
    heads: List[Head]
    errors: List[BertHeadsError] = field(default_factory=list)
    warnings: List[str] = field(default_factory=list)
    shared: Dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> Dict[str, Any]:
        """RETURNS (Dict[str, Any]): The report, ready for JSON."""
        return {
            "heads": {head.name: sorted(head.labels) if head.labels else None for head in self.heads},
            "splits": {name: _split_to_dict(split) for name, split in self.splits.items()},
            "same_text": self.shared,
            "errors": [{"code": error.code, "message": str(error)} for error in self.errors],
            "warnings": self.warnings,
        }

    def to_text(self) -> str:
        """RETURNS (str): The report, ready for a terminal."""
        names = list(self.splits)
        columns = list(self.splits.values())
        rows: List[Tuple[Any, ...]] = [("texts", *(split.counts.docs for split in columns))]
        rows.append(("  without annotation", *(split.bare for split in columns)))
        rows.append(("  with all entities known", *(split.counts.ents_complete for split in columns)))
        rows.append(("  with some entities known", *(split.counts.ents_partial for split in columns)))
        rows.append(("  with categories", *(split.counts.with_cats for split in columns)))
        rows.append(("tokens, median / longest", *(_middle_and_longest(split.lengths) for split in columns)))
        rows.append(("entities not at token boundaries", *(len(split.misaligned) for split in columns)))
        for head in self.heads:
            if head.kind == "spans":
                groups = [split.groups.get(head.spans_key or "", GroupCounts()) for split in columns]
                rows.append((f"{head.name}, texts with spans", *(group.docs for group in groups)))
                rows.append((f"{head.name}, spans that overlap", *(group.overlapping for group in groups)))
                rows.append((f"{head.name}, tokens of the longest", *(group.longest[0] for group in groups)))
            for label in sorted(set().union(*(split.labels(head) for split in columns))):
                rows.append((f"{head.name} {printable(label)}", *(_examples(split, head, label) for split in columns)))
        aligns: Any = ("l", *("r" for _ in names))
        lines = [str(table(rows, header=("", *names), divider=True, aligns=aligns, max_col=60))]
        lines += [printable(f"Warning: {warning}") for warning in self.warnings]
        return "\n".join(lines)


def check_data(
    config_path: Path, *, train: Optional[Path], dev: Optional[Path], test: Optional[Path], output: Optional[Path]
) -> DataReport:
    """Compare annotated texts with a training config.

    config_path (Path): The training config. Its heads, their labels and its tokenizer are what the data must fit.
    train (Optional[Path]): Train split, a `.spacy` file or a folder of them. None: as in the config.
    dev (Optional[Path]): Dev split. None: as in the config.
    test (Optional[Path]): Test split. None: there is none.
    output (Optional[Path]): Where to write the report as JSON, errors or not.
    RETURNS (DataReport): Counts, errors and warnings.
    RAISES (BertHeadsError): H101 or H315 if a split cannot be read; H221 if the config cannot; H123 if one of
            them would be replaced by the report.
    """
    config = read_config(config_path)
    try:
        heads, nlp = _read_heads(config), _tokenizer(config)
        paths = {name: path or _path(config, name) for name, path in (("train", train), ("dev", dev))}
    except (KeyError, TypeError, ValueError, ImportError) as error:
        if isinstance(error, BertHeadsError):
            raise
        raise BertHeadsError("H221", path=config_path, found=f"{type(error).__name__}: {error}") from error
    if test is not None:
        paths["test"] = test
    if output is not None:
        check_not_read(output, [config_path, *paths.values()])
    report = DataReport({name: _read_split(nlp, path) for name, path in paths.items()}, heads)
    for name, split in report.splits.items():
        if not split.counts.docs:
            report.errors.append(BertHeadsError("H310", path=paths[name]))
    for head in heads:
        _check_labels(report, head)
        if head.kind == "textcat":
            _check_exclusive(report, head)
        if head.kind == "regression":
            _check_targets(report, head)
        elif head.kind == "spans":
            _check_spans(report, head, paths)
        elif head.kind != "ner":
            _check_categories(report, head)
    if any(head.kind == "ner" for head in heads):
        _check_borders(report, paths)
    if any(head.kind not in TOKEN_HEADS for head in heads):
        _check_numbers(report, paths)
    _check_texts(report)
    _check_pieces(report, config, paths["train"])
    if output is not None:
        write_files({output: (srsly.json_dumps(report.to_dict(), indent=2) + "\n").encode("utf8")})
    return report


def _check_pieces(report: DataReport, config: Config, train: Path) -> None:
    """An encoder on this machine should know the words of the training texts; a hub id is not downloaded to see."""
    name = encoder_name(config)
    if name in (SCRATCH, "none"):
        return
    try:
        share = spelled_share(name, read_train_texts(train))
    except BertHeadsError as error:
        report.warnings.append(f"the encoder cannot be checked: {error}")
        return
    if share > SPELLED:
        report.warnings.append(
            f"the encoder reads {share:.0%} of the wordpieces in train as unknown or as single letters of words. "
            "Choose one that knows the language, or trim its vocabulary less (bert-heads fetch-encoder)"
        )


def _data_kind(kind: str, spans_key: Optional[str]) -> str:
    """What a head learns from: generated entities are entities, or spans that may overlap."""
    return ("ner" if spans_key is None else "spans") if kind == "seq2seq" else kind


def _read_heads(config: Config) -> List[Head]:
    """Heads that will be trained.

    RAISES (BertHeadsError): H227 if a pipeline that one is sourced from cannot be read, H249 if it would be without
        its encoder.
    """
    heads: List[Head] = []
    filled = config.interpolate()
    settings: Dict[str, Any] = filled["initialize"].get("components", {})
    factories: List[str] = []
    for name in filled["nlp"]["pipeline"]:
        component, sourced = filled["components"].get(name, {}), None
        if "source" in component:
            sourced = read_sourced(str(component["source"]), component.get("component", name))
            has_encoder = ENCODER_FACTORY in factories or "replace_listeners" in component
            if sourced.listens_to is not None and not has_encoder:
                raise BertHeadsError("H249", found=sourced.listens_to, component=name)
        factories.append(sourced.factory if sourced else component.get("factory", ""))
        kind = HEAD_FACTORIES.get(factories[-1])
        if kind is None or name in filled["training"].get("frozen_components", ()):
            continue
        if sourced is not None:
            kind = _data_kind(kind, sourced.spans_key)
            heads.append(Head(name, kind, set(sourced.labels), str(component["source"]), sourced.spans_key))
            continue
        kind = _data_kind(kind, component.get("spans_key"))
        labels = settings.get(name, {}).get("labels")
        if isinstance(labels, dict) and labels:
            labels = registry.resolve({"labels": labels})["labels"]
        spans_key = component.get("spans_key", "sc") if kind == "spans" else None
        max_width = component.get("model", {}).get("max_width") if kind == "spans" else None
        heads.append(Head(name, kind, set(labels) if labels else None, None, spans_key, max_width))
    return heads


def _tokenizer(config: Config) -> Language:
    """The config's language and tokenizer without its components, which could be large."""
    settings = dict(config.interpolate()["nlp"], pipeline=[], disabled=[])
    return get_lang_class(settings["lang"]).from_config({"nlp": settings})


def _path(config: Config, split: str) -> Path:
    path = config.interpolate()["paths"].get(split)
    if path is None:
        raise BertHeadsError("H221", found=f"paths.{split} is null; pass --paths.{split}")
    return Path(path)


def _read_split(nlp: Language, path: Path) -> Split:
    split = Split()
    for doc_bin in read_doc_bins(path):
        for doc in doc_bin.get_docs(nlp.vocab):
            _add(split, nlp, doc)
    return split


def _add(split: Split, nlp: Language, doc: Doc) -> None:
    has_cats = bool(doc.cats)
    for label, value in list(doc.cats.items()):
        if not isinstance(value, Real) or not math.isfinite(value):
            split.no_numbers.append((repr(doc.cats.pop(label)), label, doc.text))
    before = split.counts.ents_complete + split.counts.ents_partial
    split.counts.add(doc)
    has_ents = split.counts.ents_complete + split.counts.ents_partial > before
    groups = [key for key in doc.spans if key not in (INCORRECT_SPANS_KEY, UNKNOWN_SPANS_KEY)]
    split.bare += not (has_ents or has_cats or groups)
    split.keys[split_key(doc.text)] += 1
    check_words(nlp, doc.text)
    tokenized = nlp.make_doc(doc.text)
    split.lengths.append(len(tokenized))
    split.scripts.add(tokenized)
    for key in groups:
        split.groups.setdefault(key, GroupCounts()).add(doc, tokenized, key)
    for ent in doc.ents:
        if tokenized.char_span(ent.start_char, ent.end_char) is None:
            split.misaligned.append((ent.text, ent.label_, doc.text))
    true = [label for label, value in doc.cats.items() if value > 0.0]
    if len(true) > 1:
        split.several.append((doc.text, true))
    split.none_true += bool(doc.cats) and not true


def _check_labels(report: DataReport, head: Head) -> None:
    train = report.splits["train"].labels(head)
    if not train and report.splits["train"].counts.docs:
        missing = {
            "ner": "an entity",
            "regression": "a number in doc.cats",
            "spans": f"a span in doc.spans[{head.spans_key!r}]",
        }.get(head.kind, "a true category")
        report.errors.append(BertHeadsError("H312", found=missing, component=head.name))
        return
    total = sum((split.labels(head) for split in report.splits.values()), Counter[str]())
    for label in sorted(total):
        if head.source is not None and label not in (head.labels or ()):
            unknown = BertHeadsError("H319", found=total[label], label=label, component=head.name, source=head.source)
            report.warnings.append(str(unknown))
        elif head.labels is not None and label not in head.labels:
            report.errors.append(BertHeadsError("H311", found=total[label], label=label, component=head.name))
        elif label not in train:
            report.warnings.append(str(BertHeadsError("H314", label=label, component=head.name)))
        elif train[label] < FEW:
            examples = "1 training example" if train[label] == 1 else f"{train[label]} training examples"
            report.warnings.append(f"'{head.name}' has only {examples} of {label!r}")
    for label in sorted((head.labels or set()) - set(train)):
        if label not in total:
            report.warnings.append(f"'{head.name}' has the label {label!r}, but there is no example of it")
    for name, split in report.splits.items():
        if name != "train" and split.counts.docs and not split.labels(head):
            report.warnings.append(f"the {name} split has nothing to score '{head.name}' on")


def _check_exclusive(report: DataReport, head: Head) -> None:
    known = {*report.splits["train"].counts.values, *(head.labels or ())}
    if len(known) == 1:
        report.errors.append(BertHeadsError("H303", found=", ".join(known), component=head.name))
    several = [case for split in report.splits.values() for case in split.several]
    if several:
        text, labels = several[0]
        report.errors.append(
            BertHeadsError(
                "H313", found=len(several), component=head.name, text=_short(text), labels=", ".join(labels)
            )
        )
    none_true = sum(split.none_true for split in report.splits.values())
    if none_true:
        report.warnings.append(
            f"{none_true} texts only say which categories do not apply; '{head.name}' learns from "
            "them, but the scorer leaves them out"
        )


def _check_spans(report: DataReport, head: Head, paths: Dict[str, Path]) -> None:
    """Spans without a label, beyond token boundaries, or too long to be found."""
    trained = report.splits["train"].groups.get(head.spans_key or "", GroupCounts())
    limit = head.max_width or min(trained.longest[0], MAX_SPAN_WIDTH)
    for name, split in report.splits.items():
        group = split.groups.get(head.spans_key or "", GroupCounts())
        if group.labels[""]:
            report.warnings.append(
                f"{group.labels['']} spans in {name} have no label, and '{head.name}' learns nothing there"
            )
        if group.misaligned:
            text, label, context = group.misaligned[0]
            found, total = len(group.misaligned), sum(group.labels.values())
            error = BertHeadsError(
                "H316", path=paths[name], found=found, total=total, text=text, label=label, context=_short(context)
            )
            report.warnings.append(str(error))
        n_long = sum(count for width, count in group.widths.items() if width > limit)
        if limit and n_long:
            width, words, label = group.longest
            report.warnings.append(
                f"{n_long} spans in {name} have more than the {limit} tokens that '{head.name}' can find; "
                f"the longest has {width}: {_short(words)!r} ({label})"
            )


def _check_targets(report: DataReport, head: Head) -> None:
    train = report.splits["train"].counts.values
    for label in sorted(train):
        for name, split in report.splits.items():
            values = split.counts.values.get(label)
            if values is None:
                report.warnings.append(f"no text in {name} has a number for {label!r}, so it cannot be scored")
            elif values.low == values.high:
                report.warnings.append(
                    f"all {values.n} numbers for {label!r} in {name} are {values.low:g}: "
                    + ("nothing to learn" if name == "train" else "no correlation can be computed")
                )


def _check_categories(report: DataReport, head: Head) -> None:
    ranges: Dict[str, Tuple[float, float]] = {}
    for split in report.splits.values():
        for label, values in split.counts.scores.items():
            low, high = ranges.get(label, (values.low, values.high))
            ranges[label] = min(low, values.low), max(high, values.high)
    for label, (low, high) in sorted(ranges.items()):
        report.errors.append(BertHeadsError("H318", component=head.name, label=label, low=low, high=high))


def _check_numbers(report: DataReport, paths: Dict[str, Path]) -> None:
    for name, split in report.splits.items():
        if split.no_numbers:
            value, label, text = split.no_numbers[0]
            found = len(split.no_numbers)
            report.errors.append(
                BertHeadsError("H317", path=paths[name], found=found, value=value, label=label, text=_short(text))
            )


def _check_borders(report: DataReport, paths: Dict[str, Path]) -> None:
    """Misaligned entities are errors if a split would lose all of its entities, otherwise warnings."""
    for name, split in report.splits.items():
        if not split.misaligned:
            continue
        total = sum(split.counts.spans.values())
        text, label, context = split.misaligned[0]
        found = len(split.misaligned)
        error = BertHeadsError(
            "H316", path=paths[name], found=found, total=total, text=text, label=label, context=_short(context)
        )
        if found == total:
            report.errors.append(error)
        else:
            report.warnings.append(str(error))


def _check_texts(report: DataReport) -> None:
    names = list(report.splits)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            both = report.splits[one].keys.keys() & report.splits[other].keys.keys()
            report.shared[f"{one} and {other}"] = len(both)
            if both:
                report.warnings.append(
                    f"{len(both)} texts are in both {one} and {other}, so scores on {other} are too high; "
                    f"the first is {_short(min(both))!r}"
                )
    for name, split in report.splits.items():
        for warning in (split.scripts.warning(), long_texts_warning(Counter(split.lengths))):
            if warning is not None:
                report.warnings.append(f"in {name}, {warning}")
        if split.bare:
            report.warnings.append(f"{split.bare} texts in {name} have no annotation at all")


def _split_to_dict(split: Split) -> Dict[str, Any]:
    lengths = sorted(split.lengths)
    return {
        "docs": split.counts.docs,
        "without_annotation": split.bare,
        "ents_complete": split.counts.ents_complete,
        "ents_partial": split.counts.ents_partial,
        "with_cats": split.counts.with_cats,
        "ents": dict(sorted(split.counts.spans.items())),
        "cats": dict(sorted(split.counts.cats.items())),
        "scores": {label: values.to_dict() for label, values in sorted(split.counts.scores.items())},
        "several_true_categories": len(split.several),
        "no_true_category": split.none_true,
        "not_a_number": len(split.no_numbers),
        "same_text_twice": sum(count - 1 for count in split.keys.values()),
        "tokens": {"sum": sum(lengths), "middle": _middle(lengths), "longest": max(lengths, default=0)},
        **({"spans": {key: group.to_dict() for key, group in split.groups.items()}} if split.groups else {}),
        "off_token_borders": {
            "count": len(split.misaligned),
            "cases": [dict(zip(("text", "label", "context"), case)) for case in split.misaligned[:N_CASES]],
        },
    }


def _examples(split: Split, head: Head, label: str) -> str:
    """How many examples of a label a split has; for a number to be predicted, also its range."""
    values = split.counts.values.get(label) if head.kind == "regression" else None
    shown = f" ({values.low:g} to {values.high:g})" if values else ""
    return f"{split.labels(head)[label]}{shown}"


def _middle(lengths: Sequence[int]) -> int:
    return sorted(lengths)[len(lengths) // 2] if lengths else 0


def _middle_and_longest(lengths: Sequence[int]) -> str:
    return f"{_middle(lengths)} / {max(lengths, default=0)}"


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
