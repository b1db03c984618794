"""What a reader met on its way: bad records, and every decision it took about good ones."""

from collections import Counter
from pathlib import Path
from typing import Any, Dict, List, NamedTuple

from ..errors import BertHeadsError

# How many cases of each kind are named one by one. The rest is counted.
MAX_CASES = 5

# Every kind of finding, in the order of the report. Nothing is left out, merged or decided without one.
KINDS: Dict[str, str] = {
    "ignored": "records answered 'ignore', left out",
    "rejected": "records rejected in a manual view, left out",
    "no_task": "records with a text but no spans, label or choice, left out",
    "span_ignored": "spans answered 'ignore', their tokens stay unknown",
    "pattern_hits": "pattern hits without a label, not used as entities",
    "highlights": "spans that were only shown beside a question about the text, not used as entities",
    "nothing_chosen": "exclusive choices accepted with nothing chosen, their categories dropped",
    "unanswered_choice": "records with options but no 'accept' list, their categories left unknown",
    "numbered_options": "records whose option ids are numbers, option texts used as labels instead",
    "unused_label": "records with a 'label' beside another question, the label not used",
    "split_entity": "entities cut in two by the end of a sentence, both parts left unknown",
    "broken_tags": "entities whose tags do not begin or end as their scheme wants, left unknown",
    "repaired_tags": "entities that begin with I- instead of B-, taken as they stand",
    "comment_lines": "comment lines, left out",
    "numbered_labels": "labels that are numbers and have no name, kept as they are; --labels gives names",
    "unquoted": "cells in quotes, the quotes taken off as in CSV",
    "separator_in_label": "labels that hold a separator, taken as one label; --kind multi takes them apart",
    "no_label": "records without a label, left out",
    "no_annotation": "records that nobody has annotated, left out",
    "cancelled": "annotations that were skipped or cancelled, left out",
    "drafts": "drafts that were never submitted, not used",
    "predictions": "predictions of a model, not used",
    "relations": "relations between spans, not used",
    "unused_results": "results of other kinds than spans, classes and numbers, not used",
    "empty_annotation": "records with an empty list of spans, taken as texts without entities",
    "utf16_offsets": "spans whose offsets count UTF-16 units, recounted in characters",
    "stale_text": "spans whose stored text is not the text at their offsets, the offsets used",
    "other_layers": "Docs with spans or tags that are neither entities nor categories, those not used",
    "spans_trimmed": "spans that begin or end with white space off token borders, the white space taken off",
    "spans_dropped": "spans off token borders, left unknown",
    "spans_expanded": "spans off token borders, expanded to whole tokens",
    "tokens_split": "spans off token borders, the tokens split there",
    "merged": "records merged with an earlier record of the same text",
    "some_labels": "records whose 'config' shows only some labels of the file, tokens outside their entities unknown",
    "unanswered": "tasks that nobody has answered yet, left out",
    "edited_text": "records whose '_input_hash' is not that of their text, which was edited or hashed otherwise; they "
    "count for the text that they have",
    "other_tokens": "records with other tokens than those kept for their text, spans placed by their characters",
    "entity_conflict": "complete annotations that differ from another of the same text, the newest kept (the last in "
    "the file where one has no time)",
    "binary_conflict": "spans both accepted and rejected, the newest answer kept (the last in the file where one "
    "has no time)",
    "binary_against_manual": "yes/no answers that contradict the complete annotation of the text, not used",
    "binary_overlap": "accepted spans that overlap another accepted span, both left unknown",
    "category_conflict": "records whose categories differ from others of the same text, the newest kept (the last in "
    "the file where one has no time)",
    "off_tokens": "spans off the borders of the tokens kept for their text, left unknown",
    "in_dev_and_test": "texts of the dev file that also occur in the test file, kept in test only",
    "left_out_of_main": "texts that also occur in the dev or test file, left out of the other splits",
    "repeated_text": "texts that occur before in the same corpus, but for case and white space",
    "shared_text": "texts that occur in another corpus as well, so scores on one of the two flatter",
    "differing_text": "texts annotated otherwise than where they occur first",
    "probabilities": "texts whose categories have a classifier's probabilities, the likeliest taken as the one that "
    "holds, or all from 0.5 on where they do not add up to 1",
    "bare": "texts with no annotation that the format can hold, written as they are",
    "lost_blank": "texts without a word, left out",
    "lost_unknown": "texts with tokens that are not annotated, which the format makes tokens outside entities",
    "lost_unasked": "texts whose entities nobody was asked about, which the format makes texts without entities",
    "lost_outside": "texts known to have no entities: no text in the file has one, so a reader cannot tell",
    "lost_rejected": "rejected spans, which the format cannot hold, left out",
    "lost_implied": "rejected spans of texts whose entities are all known, left out: no entity is there anyway",
    "lost_cats": "categories, which the format cannot hold, left out",
    "lost_scores": "category values other than 0 and 1, which the format cannot hold, left out",
    "lost_confidence": "predictions whose probability the format cannot hold, left out",
    "lost_negative": "categories that do not hold, which the format cannot say, left out",
    "lost_unknown_cats": "categories of which nothing is known, which the format makes ones that do not hold",
    "lost_pair": "pairs of sentences, written as one text: the format cannot say where the second begins",
    "lost_groups": "spans of groups other than the rejected ones, which the format cannot hold, left out",
    "lost_tokens": "texts with other tokens than the tokenizer of --lang makes, which the format cannot hold",
    "lost_spacing": "texts whose white space the format cannot hold, which get other spaces",
}


class Where(NamedTuple):
    """The place of a record: file, and line counted from 1. Line 0 is the file as a whole. In files that may have
    many records on a line, such as JSON arrays, also its number counted from 1."""

    path: Path
    line: int
    record: int = 0

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else str(self.path)
        return f"{place} (record {self.record})" if self.record else place

    def error(self, code: str, found: Any, **fields: Any) -> BertHeadsError:
        """The error of this code, at this place.

        code (str): Key of MESSAGES.
        found (Any): The offending value.
        **fields (Any): The other values the message names.
        RETURNS (BertHeadsError): To be raised.
        """
        return BertHeadsError(code, path=self.path, line=self.line, record=self.record, found=found, **fields)


class Finding(NamedTuple):
    """One case of something found, with what is special about it."""

    where: Where
    detail: str


class Findings:
    """Counts everything found and keeps the first cases of each kind.

    skip_bad (bool): Whether bad records are counted and passed over. Otherwise the first one is raised.
    """

    def __init__(self, *, skip_bad: bool) -> None:
        self.skip_bad = skip_bad
        self.counts: Counter[str] = Counter()
        self.n_cases: Counter[str] = Counter()
        self.cases: Dict[str, List[Finding]] = {}
        self.n_records: Counter[Path] = Counter()

    def note(self, kind: str, where: Where, detail: str = "", count: int = 1) -> None:
        """Count a decision that was taken.

        kind (str): Key of KINDS.
        where (Where): Place of the record concerned.
        detail (str): What is special about this case.
        count (int): How many things of this kind the case holds.
        """
        self.counts[kind] += count
        self.n_cases[kind] += 1
        cases = self.cases.setdefault(kind, [])
        if len(cases) < MAX_CASES:
            cases.append(Finding(where, detail))

    def add(self, other: "Findings") -> None:
        """Take over what was noted elsewhere.

        other (Findings): Its kinds and cases are added to these.
        """
        self.counts += other.counts
        self.n_cases += other.n_cases
        for kind, cases in other.cases.items():
            known = self.cases.setdefault(kind, [])
            known += cases[: MAX_CASES - len(known)]

    def bad(self, error: BertHeadsError) -> None:
        """Stop at a bad record, or count it under its error code and go on.

        error (BertHeadsError): What is wrong with the record. Has a path.
        RAISES (BertHeadsError): The same error, unless bad records are to be skipped.
        """
        if not self.skip_bad:
            raise error
        where = Where(Path(error.path or ""), error.line or 0, error.record)
        self.note(error.code, where, str(error))

    def describe(self, path: Path) -> str:
        """Say in one line what became of the records of a file.

        path (Path): The file.
        RETURNS (str): Each kind that occurred, with the first place in the file.
        """
        parts = []
        for kind, cases in self.cases.items():
            places = [case.where for case in cases if case.where.path == path]
            if places:
                parts.append(f"{KINDS.get(kind, f'bad records [{kind}]').split(',')[0]}, first at {places[0]}")
        return "; ".join(parts) or "no records"
