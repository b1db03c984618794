"""`@readers = "spacy_bert_heads.Corpus.v1"`: annotation files straight into training, with no convert step."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Union

from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from spacy.training.corpus import dont_augment

from ..errors import BertHeadsError
from ..extensions import get_silver
from .annotations import Annotation, merge
from .docs import build_doc
from .findings import Findings
from .readers.formats import AUTO, ReadOptions
from .reading import read_files
from .report import render_findings
from .splits import DEFAULT_SPLIT, SPLITS, assign_split, parse_split, split_key
from .store import TextStore

# Below `spacy`, so that `spacy train` shows what it says.
logger = logging.getLogger("spacy.bert_heads.corpus")

Augmenter = Callable[[Language, Example], Iterable[Example]]


class AnnotationCorpus:
    """Examples from annotation files, with all records of a text merged.

    A reader knows only its own files: unlike `convert`, it does not report texts that another reader's files share.
    With the same path and a `split` in both readers, no text is in two splits.

    The files are read once, at the first call, into a temporary database on disk; each call streams from there.

    paths (Sequence[Path]): Files of any known format.
    format (str): Key of CONVERTERS, or "auto" to find it for each file.
    options (ReadOptions): What the files do not say about themselves. The language is that of the pipeline.
    off_tokens (str): What to do with spans not at token boundaries: "error", "drop", "expand" or "split".
    skip_bad (bool): Whether bad records are counted and left out. Otherwise the first one stops everything.
    split (Optional[str]): "train", "dev" or "test" to have only this part of the texts, as `convert` divides them.
    shares (Dict[str, float]): Share of each split.
    seed (int): Seed of the split.
    max_length (int): Texts of this many tokens or more are left out. 0: none are.
    limit (int): Most texts to read. 0: all.
    augmenter (Augmenter): Makes several examples of one.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        format: str,
        options: ReadOptions,
        off_tokens: str,
        skip_bad: bool,
        split: Optional[str],
        shares: Dict[str, float],
        seed: int,
        max_length: int,
        limit: int,
        augmenter: Augmenter,
    ) -> None:
        self.paths = paths
        self.format = format
        self.options = options
        self.off_tokens = off_tokens
        self.skip_bad = skip_bad
        self.split = split
        self.shares = shares
        self.seed = seed
        self.max_length = max_length
        self.limit = limit
        self.augmenter = augmenter
        self._store: Optional[TextStore] = None
        self._nlp: Optional[Language] = None

    def __call__(self, nlp: Language) -> Iterator[Example]:
        """Stream the examples.

        nlp (Language): Its tokenizer makes the tokens that the pipeline will see. Tokens of a file are kept in the
            reference.
        YIELDS (Example): One for each text, or what the augmenter makes of it.
        RAISES (BertHeadsError): H1xx for a bad file or record; H162 if no text is left.
        """
        findings = Findings(skip_bad=self.skip_bad)
        is_first = self._store is None or self._nlp is not nlp
        if is_first:
            self._read(nlp, findings)
        n_given = 0
        for reference in self._references(nlp, findings):
            yield from self.augmenter(nlp, Example(nlp.make_doc(reference.text), reference))
            n_given += 1
            if n_given == self.limit:
                break
        if not n_given:
            raise BertHeadsError("H162", path=self.paths[0], found=self.split or "null")
        if is_first:
            # What was decided is known, and told, after the first time through.
            for line in render_findings(findings):
                logger.info(line)

    def _references(self, nlp: Language, findings: Findings) -> Iterator[Doc]:
        assert self._store is not None
        for stored in self._store.texts():
            key = split_key(stored.records[0].text)
            if self.split in (None, assign_split(key, self.shares, self.seed)):
                doc = _build(nlp, stored.records, self.options, findings)
                if get_silver(doc) is not None and self.split not in (None, "train"):
                    continue
                if len(doc) and not 0 < self.max_length <= len(doc):
                    yield doc

    def _read(self, nlp: Language, findings: Findings) -> None:
        # With another tokenizer other spans could be misaligned, so another pipeline reads the files again.
        store = TextStore()
        read_files(
            store,
            nlp,
            self.paths,
            role=0,
            format=self.format,
            options=replace(self.options, lang=str(nlp.lang)),
            off_tokens=self.off_tokens,
            findings=findings,
        )
        self._store, self._nlp = store, nlp


def _build(nlp: Language, records: Sequence[Annotation], options: ReadOptions, findings: Findings) -> Doc:
    annotation = merge(records, findings, overlaps=options.overlaps)
    return build_doc(nlp, annotation, findings, spans_key=options.spans_key, how=options.flatten)


def build_corpus_v1(
    path: Union[None, str, Path, List[Union[str, Path]]],
    format: str = AUTO,
    split: Optional[str] = None,
    shares: str = DEFAULT_SPLIT,
    seed: int = 0,
    skip_bad: bool = False,
    off_tokens: str = "error",
    max_length: int = 0,
    limit: int = 0,
    augmenter: Optional[Augmenter] = None,
    labels: Union[None, str, Path] = None,
    text_column: Optional[str] = None,
    label_column: Optional[str] = None,
    kind: str = AUTO,
    label_separator: str = ",",
    delimiter: Optional[str] = None,
    header: Optional[bool] = None,
    scheme: str = AUTO,
    pair_separator: str = " ",
    spans_key: Optional[str] = None,
    flatten: Optional[str] = None,
) -> Callable[[Language], Iterator[Example]]:
    """Examples from annotation files, as `convert` would read them. Registered as spacy_bert_heads.Corpus.v1.

    path (Union[None, str, Path, List[Union[str, Path]]]): One file or several of any format that `convert` knows.
    format (str): Name of the format, or "auto" to look at the content.
    split (Optional[str]): "train", "dev" or "test" to read this part only, by the hash of the text, as in `convert`.
    shares (str): Shares of train, dev and test.
    seed (int): Seed of the split.
    skip_bad (bool): Whether to leave out bad records. Otherwise the first one stops the training.
    off_tokens (str): Spans not at token boundaries: "error", "drop", "expand" or "split".
    max_length (int): Texts of this many tokens or more are left out. 0: none are.
    limit (int): Most texts to read. 0: all.
    augmenter (Optional[Augmenter]): As in spaCy's own reader.
    labels, text_column, label_column, kind, label_separator, delimiter, header, scheme, pair_separator, spans_key,
        flatten: As in `ReadOptions`.
    RETURNS (Callable[[Language], Iterator[Example]]): Called by `spacy train` for each epoch.
    RAISES (BertHeadsError): H163 if there is no path; H120 or H164 for a bad split.
    """
    # From a config paths come as strings.
    paths = [Path(one) for one in (path if isinstance(path, list) else [path] if path is not None else [])]
    if not paths:
        raise BertHeadsError("H163")
    if split is not None and split not in SPLITS:
        raise BertHeadsError("H164", found=repr(split), expected=", ".join(SPLITS))
    return AnnotationCorpus(
        paths,
        format=format,
        options=ReadOptions(
            labels=Path(labels) if labels is not None else None,
            text_column=text_column,
            label_column=label_column,
            kind=kind,
            label_separator=label_separator,
            delimiter=delimiter,
            header=header,
            scheme=scheme,
            pair_separator=pair_separator,
            spans_key=spans_key,
            flatten=flatten,
        ),
        off_tokens=off_tokens,
        skip_bad=skip_bad,
        split=split,
        shares=parse_split(shares),
        seed=seed,
        max_length=max_length,
        limit=limit,
        augmenter=augmenter or dont_augment,
    )
