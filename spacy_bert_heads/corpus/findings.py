"""What a reader came across: bad records, and every decision it made about good ones."""

from collections import Counter
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Sequence, Type

from ..errors import BertHeadsError

# How many cases of each kind are named one by one. The rest is counted.
MAX_CASES = 5

# Every kind of finding, in the order of the report. Nothing is left out, merged or decided without one.
KINDS: Dict[str, str] = {
    "ignored": "records answered 'ignore', left out",
    "rejected": "records rejected in a manual view, left out",
    "no_task": "records with a text but no spans, label or choice, left out",
    "span_ignored": "spans answered 'ignore', their tokens left unknown",
    "pattern_hits": "pattern hits without a label, not used as entities",
    "highlights": "spans that only illustrate a question about the text, not used as entities",
    "nothing_chosen": "exclusive choices accepted with nothing chosen, their categories dropped",
    "unanswered_choice": "records with options but no 'accept' list, their categories left unknown",
    "numbered_options": "records whose option ids are numbers, option texts used as labels instead",
    "unused_label": "records with a 'label' beside another question, the label not used",
    "split_entity": "entities cut in two by the end of a sentence, both parts left unknown",
    "broken_tags": "entities whose tags do not begin or end as their scheme requires, left unknown",
    "repaired_tags": "entities that begin with I- instead of B-, accepted as they are",
    "comment_lines": "comment lines, left out",
    "header_lines": "lines that name the columns, left out",
    "index_column": "files whose first column numbers words or sentences, the words taken from another column",
    "range_lines": "lines that stand for several words or for none, as in CoNLL-U, left out",
    "tag_columns": "files with several columns of tags, one of them used; --label-column chooses one, and --spans-key "
    "takes all",
    "tag_style": "files whose tags are not written like B-PER, read in this way",
    "unnamed_label": "entities without a label, given the label ENTITY",
    "word_affixes": "files whose words all have a prefix such as 'en:' or their position at the end, now removed",
    "long_sentence": "sentences of over 1,000 words; a blank line belongs after each sentence",
    "numbered_labels": "labels that are numbers without a name, kept as they are; --labels gives names",
    "unquoted": "cells in quotes, the quotes removed as in CSV",
    "separator_in_label": "labels that contain a separator, taken as one label; --kind multi splits them",
    "labels_split": "cells with several labels, split because each of them also occurs elsewhere; --kind single takes "
    "them as one",
    "numbered_cats": "category values that are whole numbers other than 0 and 1; right as scores for bert_regression. "
    "If they number classes, make each class a category",
    "no_label": "records without a label, left out",
    "no_annotation": "records that nobody has annotated, left out",
    "cancelled": "annotations that were skipped or cancelled, left out",
    "drafts": "drafts that were never submitted, not used",
    "predictions": "predictions of a model, not used",
    "relations": "relations between spans, not used",
    "unused_results": "results of other kinds than spans, classes and numbers, not used",
    "empty_annotation": "records with an empty list of spans, taken as texts without entities",
    "utf16_offsets": "spans whose offsets count UTF-16 units, recounted in characters",
    "recounted_offsets": "spans whose offsets count bytes or line ends in another way, recounted in characters",
    "moved_spans": "spans whose stored text is not at their offsets but once nearby, moved there",
    "stale_text": "spans whose stored text is not the text at their offsets, the offsets used as their tokens confirm",
    "other_layers": "Docs with tags that are neither entities nor categories, which are not used",
    "ents_beside_group": "Docs with entities beside the group of spans, which are not used",
    "other_groups": "Docs with groups of spans, which are not used; --spans-key reads one of them",
    "flattened": "entities that overlap a chosen one, left out of doc.ents by --flatten",
    "discontinuous": "spans in several pieces, which no Doc can hold, their characters left unknown",
    "spans_trimmed": "misaligned spans that begin or end with white space, the white space removed",
    "spans_dropped": "spans not at token boundaries, left unknown",
    "spans_expanded": "spans not at token boundaries, expanded to whole tokens",
    "tokens_split": "spans not at token boundaries, the tokens split there",
    "silver": "texts with answers of a large language model that nobody has reviewed, which count for less in "
    "training",
    "silver_replaced": "such answers to texts that people have annotated too, not used",
    "silver_not_train": "texts with such answers alone that belong to the dev or test split, left out",
    "merged": "records merged with an earlier record of the same text",
    "some_labels": "records whose 'config' shows only some labels of the file, tokens outside entities left unknown",
    "unanswered": 'tasks that nobody has answered yet (no "answer": "accept"), left out',
    "edited_text": "records whose '_input_hash' does not match their text, which was edited or hashed differently; "
    "they count for the text that they have",
    "other_tokens": "records with tokens other than those kept for their text, spans placed by their characters",
    "entity_conflict": "complete annotations that differ from another one of the same text, the newest kept (the last "
    "in the file if one has no time)",
    "binary_conflict": "spans both accepted and rejected, the newest answer kept (the last in the file if one "
    "has no time)",
    "binary_against_manual": "yes/no answers that contradict the complete annotation of the text, not used",
    "binary_overlap": "accepted spans that overlap another accepted span, both left unknown",
    "category_conflict": "records whose categories differ from others of the same text, the newest kept (the last in "
    "the file if one has no time)",
    "off_tokens": "spans that do not match the tokens kept for their text, left unknown",
    "in_dev_and_test": "texts of the dev file that also occur in the test file, kept only in test",
    "left_out_of_main": "texts that also occur in the dev or test file, left out of the other splits",
    "repeated_text": "texts that occur earlier in the same corpus, ignoring case and white space",
    "shared_text": "texts that also occur in another corpus, so scores on one of the two are too high",
    "differing_text": "texts annotated differently from their first occurrence",
    "probabilities": "texts whose categories are probabilities from a classifier; the likeliest category is taken, or "
    "all from 0.5 on where they do not add up to 1",
    "bare": "texts with no annotation that the format can hold, written as they are",
    "lost_blank": "texts without a word, left out",
    "lost_unknown": "texts with unannotated tokens, which the format turns into tokens outside entities",
    "lost_unasked": "texts whose entities nobody was asked about, which the format turns into texts without entities",
    "lost_outside": "texts known to have no entities: no text in the file has any, so a reader cannot tell",
    "lost_rejected": "rejected spans, which the format cannot hold, left out",
    "lost_implied": "rejected spans of texts whose entities are all known, left out because they add nothing",
    "lost_cats": "categories, which the format cannot hold, left out",
    "lost_scores": "category values other than 0 and 1, which the format cannot hold, left out",
    "lost_confidence": "probabilities of predictions, which the format cannot hold, left out",
    "lost_negative": "categories that do not apply, which the format cannot express, left out",
    "lost_unknown_cats": "categories about which nothing is known, which the format turns into ones that do not apply",
    "lost_pair": "pairs of sentences, written as one text: the format cannot say where the second begins",
    "lost_silver": "texts that only a large language model has annotated, which the format turns into ones of people",
    "lost_groups": "spans in groups other than the rejected ones, which the format cannot hold, left out",
    "lost_keys": "keys of the input, which the format cannot hold, left out",
    "lost_tokens": "texts with tokens other than those of the tokenizer of --lang, which the format cannot hold",
    "lost_label": "entities whose label has line ends, tabs or white space around it, which the format cannot hold: "
    "spaces are written instead, or `-` (not annotated) if nothing is left",
    "lost_number": "categories whose value is not a finite number, which no format can hold, left out",
    "lost_spacing": "texts whose white space the format cannot hold, written with other spaces",
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

    def error(
        self, code: str, found: Any, *, error_class: Type[BertHeadsError] = BertHeadsError, **fields: Any
    ) -> BertHeadsError:
        """The error of this code, at this place.

        code (str): Key of MESSAGES.
        found (Any): The offending value.
        error_class (Type[BertHeadsError]): Its class.
        **fields (Any): The other values the message names.
        RETURNS (BertHeadsError): To be raised.
        """
        return error_class(code, path=self.path, line=self.line, record=self.record, found=found, **fields)


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
        """Count a decision that was made.

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

    def only(self, kinds: Sequence[str]) -> "Findings":
        """RETURNS (Findings): What was noted of these kinds."""
        found = Findings(skip_bad=self.skip_bad)
        for kind in kinds:
            if kind in self.counts:
                found.counts[kind], found.n_cases[kind] = self.counts[kind], self.n_cases[kind]
                found.cases[kind] = list(self.cases[kind])
        return found

    def bad(self, error: BertHeadsError) -> None:
        """Stop at a bad record, or count it under its error code and continue.

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
