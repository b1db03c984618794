"""Texts -> what a pipeline predicts of them, as records and as the files of each format."""

import json
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

import srsly
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span, SpanGroup

from ..corpus.docs import check_words
from ..corpus.findings import Findings, Where
from ..corpus.writers.export import FORMATS as TOOL_FORMATS
from ..corpus.writers.export import make_writer, note_layers
from ..corpus.writers.exported import Contents, Exported
from ..errors import BertHeadsError
from ..extensions import CATS_SET_NAME, CHOSEN_NAME, ENTS_SET_NAME, get_confidence, get_confidence_in, get_list
from ..factory_names import EXCLUSIVE_FACTORIES, MULTILABEL_FACTORIES, SCORE_FACTORY, finds_entities, finds_spans
from ..pipeline_io import load_pipeline
from ..tags import SCHEMES

JSONL, PARQUET, SPACY = "jsonl", "parquet", "spacy"
# By the ending of their files
FORMATS: Dict[str, str] = {
    JSONL: ".jsonl",
    PARQUET: ".parquet",
    SPACY: ".spacy",
    "prodigy": ".jsonl",
    "doccano": ".jsonl",
    "label-studio": ".json",
    "conll": ".conll",
}
ENTS, CATS, SPANS = "ents", "cats", "spans"
# What a pipeline predicts
LAYERS = (ENTS, CATS, SPANS)
CATS_FACTORIES = (*EXCLUSIVE_FACTORIES, *MULTILABEL_FACTORIES, SCORE_FACTORY)
# Keys of a record of ours, and of those of annotation tools, which mean something else in the input
OWN_KEYS = (ENTS, CATS, SPANS)
LIST_KEYS = (CHOSEN_NAME, CATS_SET_NAME, ENTS_SET_NAME)
TOOL_KEYS: Dict[str, Tuple[str, ...]] = {
    "prodigy": ("tokens", "spans", "label", "options", "accept", "answer", "config", "_view_id", "_is_binary"),
    "doccano": ("label", "entities", "cats", "relations"),
}
KEPT_INPUT = "_input"
# Digits of probabilities: more than a computation in fp32 has
DIGITS = 6
# A pipeline that fails on each of so many texts is broken
MANY = 16
# Where a Doc keeps the outputs of an encoder, which no file can hold
TRF_DATA: Any = ("._.", "trf_data", None, None)


@dataclass(frozen=True)
class Options:
    """What the results of a run depend on, beside the pipeline and the input.

    format (str): Key of FORMATS.
    select (Tuple[str, ...]): Keys of LAYERS: what to predict and write.
    min_confidence (float): Entities, spans and categories that are less probable are left out.
    drop_text (bool): Whether records have no text.
    scheme (str): Tag scheme of "conll", one of tags.SCHEMES.
    RAISES (BertHeadsError): H145 or H331 for something unknown, H650 for a probability that is none, or a format that
        cannot do without the text.
    """

    format: str = JSONL
    select: Tuple[str, ...] = (ENTS, CATS, SPANS)
    min_confidence: float = 0.0
    drop_text: bool = False
    scheme: str = "bio"

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise BertHeadsError("H145", option="--format", found=repr(self.format), expected=", ".join(FORMATS))
        for name in self.select or ("",):
            if name not in LAYERS:
                raise BertHeadsError("H145", option="--select", found=repr(name), expected=", ".join(LAYERS))
        if self.scheme not in SCHEMES:
            raise BertHeadsError("H331", found=self.scheme, expected=", ".join(SCHEMES))
        if not 0.0 <= self.min_confidence <= 1.0:
            expected = "a probability from 0 to 1"
            raise BertHeadsError("H650", option="--min-confidence", found=self.min_confidence, expected=expected)
        if self.drop_text and self.format not in (JSONL, PARQUET):
            found = f"--format {self.format}"
            raise BertHeadsError("H650", option="--drop-text", found=found, expected="--format jsonl or parquet")


class Predicted(NamedTuple):
    """A text with its predictions.

    where (Where): Its place.
    record (Dict[str, Any]): Its keys.
    doc (Doc): What the pipeline says.
    """

    where: Where
    record: Dict[str, Any]
    doc: Doc


class Rejection(NamedTuple):
    """A text without predictions.

    where (Where): Its place.
    error (BertHeadsError): Why.
    """

    where: Where
    error: BertHeadsError


class Predictor:
    """A pipeline, ready to predict.

    model (str): Its folder, or the name of its package.
    options (Options): What is wanted of it.
    batch_size (Optional[int]): Texts that go through it together. None: as many as its config says.
    RAISES (BertHeadsError): H227 or H249 if it cannot be loaded.
    """

    def __init__(self, model: str, options: Options, batch_size: Optional[int] = None) -> None:
        self.nlp = load_pipeline(model)
        self.options = options
        self.batch_size = batch_size or self.nlp.batch_size
        _leave_out(self.nlp, options.select)
        self.contents = _contents(self.nlp, options)

    def write(
        self, items: Sequence[Dict[str, Any]], first: int, **settings: Any
    ) -> Tuple[bytes, int, List[Rejection], Dict[str, int]]:
        """Predict, and write a file.

        items (Sequence[Dict[str, Any]]): As Shard has them, read from JSON.
        first (int): Number of the first one in the input, from 0.
        settings (Any): As for `predict`.
        RETURNS (Tuple[bytes, int, List[Rejection], Dict[str, int]]): The file's content, how many texts are in it, the
            others, and what the format cannot hold.
        RAISES (BertHeadsError): H651 as in `predict`.
        """
        rejected: List[Rejection] = []
        findings = Findings(skip_bad=False)
        count = 0

        def counted() -> Iterator[Predicted]:
            nonlocal count
            for result in self.predict(items, **settings):
                if isinstance(result, Rejection):
                    rejected.append(result)
                    continue
                is_blank = not len(result.doc) or (self.options.format == "conll" and not result.doc.text.strip())
                if is_blank and self.options.format in TOOL_FORMATS:
                    error = result.where.error("H652", repr(result.doc.text[:20]), format=self.options.format)
                    rejected.append(Rejection(result.where, error))
                    continue
                reason = cannot_be_packed(result.record) if self.options.format == SPACY else None
                if reason is not None:
                    rejected.append(Rejection(result.where, result.where.error("H661", reason)))
                    continue
                count += 1
                yield result

        with self.nlp.memory_zone():
            content = self._encode(counted(), first, findings)
        return content, count, rejected, dict(findings.counts)

    def records(
        self, items: Sequence[Dict[str, Any]], **settings: Any
    ) -> Tuple[List[Dict[str, Any]], List[Rejection]]:
        """Predict, and give the records back: those that "jsonl" writes.

        items, settings: As for `write`.
        RETURNS (Tuple[List[Dict[str, Any]], List[Rejection]]): Records in order, and texts that have none.
        """
        records: List[Dict[str, Any]] = []
        rejected: List[Rejection] = []
        with self.nlp.memory_zone():
            for result in self.predict(items, **settings):
                if isinstance(result, Rejection):
                    rejected.append(result)
                else:
                    records.append(self._record(result))
        return records, rejected

    def predict(
        self,
        items: Sequence[Dict[str, Any]],
        *,
        suspects: Iterable[int] = (),
        killers: Iterable[int] = (),
        tell: Callable[[int, int], None] = lambda start, end: None,
    ) -> Iterator[Any]:
        """Send texts through the pipeline, in batches.

        items (Sequence[Dict[str, Any]]): As in `write`.
        suspects (Iterable[int]): Indices of texts that go through it alone: one of them has ended the process.
        killers (Iterable[int]): Of texts that have ended it twice, and do not go through it again.
        tell (Callable[[int, int], None]): Is called before each batch, with the index of its first text and that
            behind its last.
        YIELDS (Union[Predicted, Rejection]): One for each text, in order.
        RAISES (BertHeadsError): H651 if the pipeline fails on every text of a batch of MANY or more.
        """
        alone, dead = set(suspects), set(killers)
        start = 0
        while start < len(items):
            end = start + 1
            while start not in alone and end < len(items) and end - start < self.batch_size and end not in alone:
                end += 1
            tell(start, end)
            batch = [(_where(item), item) for item in items[start:end]]
            if start in dead:
                yield Rejection(batch[0][0], batch[0][0].error("H653", repr(batch[0][1]["record"]["text"][:40])))
            else:
                yield from self._predict_batch(batch)
            start = end

    def _predict_batch(self, batch: Sequence[Tuple[Where, Dict[str, Any]]]) -> Iterator[Any]:
        results: List[Any] = []
        docs: List[Doc] = []
        for where, item in batch:
            try:
                docs.append(self._make_doc(where, item))
                results.append(None)
            except BertHeadsError as error:
                results.append(Rejection(where, error))
        predicted = iter(self._pipe(docs, [where for (where, _), known in zip(batch, results) if known is None]))
        for (where, item), known in zip(batch, results):
            found = known or next(predicted)
            yield found if isinstance(found, Rejection) else Predicted(where, item["record"], self._trim(found))

    def _make_doc(self, where: Where, item: Dict[str, Any]) -> Doc:
        text = item["record"]["text"]
        if len(text) > self.nlp.max_length:
            raise where.error("H138", f"{len(text):,}", limit=self.nlp.max_length)
        if "words" in item:
            return Doc(self.nlp.vocab, words=item["words"], spaces=item["spaces"])
        check_words(self.nlp, text, where)
        return self.nlp.make_doc(text)

    def _pipe(self, docs: List[Doc], places: Sequence[Where]) -> List[Any]:
        """Predictions of a batch. If the pipeline fails, of each text alone: one does not take others along."""
        try:
            return list(self.nlp.pipe(docs, batch_size=self.batch_size))
        except Exception as error:
            failure = error
        results: List[Any] = []
        for doc, where in zip(docs, places):
            try:
                # A Doc that went through half of the pipeline is not sent through it again
                fresh = Doc(self.nlp.vocab, [token.text for token in doc], [bool(t.whitespace_) for t in doc])
                results += self.nlp.pipe([fresh])
            except Exception as error:
                shown = f"{type(error).__name__}: {str(error).strip() or 'no message'}"
                results.append(Rejection(where, where.error("H654", shown)))
        if len(results) >= MANY and all(isinstance(result, Rejection) for result in results):
            raise BertHeadsError("H651", found=f"{type(failure).__name__}: {failure}") from failure
        return results

    def _trim(self, doc: Doc) -> Doc:
        """Take away what is not wanted, and what no file can hold."""
        doc.user_data.pop(TRF_DATA, None)
        least, select = self.options.min_confidence, self.options.select
        if ENTS not in select:
            doc.set_ents([], default="missing")
        elif least:
            known = [(ent, get_confidence(ent)) for ent in doc.ents]
            doc.ents = [ent for ent, value in known if value is None or value >= least]
        if CATS not in select:
            doc.cats = {}
        elif least:
            scores = self.contents.scores
            doc.cats = {label: value for label, value in doc.cats.items() if label in scores or value >= least}
        if SPANS not in select:
            doc.spans.clear()
        elif least:
            for key, group in list(doc.spans.items()):
                pairs = [
                    (span, value) for span, value in _with_confidence(key, group) if value is None or value >= least
                ]
                doc.spans[key] = SpanGroup(doc, name=key, spans=[span for span, _ in pairs])
                if "scores" in group.attrs:
                    doc.spans[key].attrs["scores"] = [value for _, value in pairs]
        return doc

    def _record(self, predicted: Predicted) -> Dict[str, Any]:
        _, given, doc = predicted
        record = keep_input(given, (*OWN_KEYS, *LIST_KEYS))
        if self.options.drop_text:
            del record["text"]
        if self.contents.has_ents or doc.ents:
            record[ENTS] = [_describe(ent, get_confidence(ent)) for ent in doc.ents]
            candidates = get_list(ENTS_SET_NAME, doc)
            if candidates is not None:
                record[ENTS_SET_NAME] = [_describe(Span(doc, *ent), value) for *ent, value in candidates]
        if self.contents.has_cats or doc.cats:
            record[CATS] = {label: round(float(value), DIGITS) for label, value in doc.cats.items()}
            for name in (CHOSEN_NAME, CATS_SET_NAME):
                labels = get_list(name, doc)
                if labels is not None:
                    record[name] = [label for label in labels if label in doc.cats]
        if doc.spans:
            record[SPANS] = {
                key: [_describe(span, value) for span, value in _with_confidence(key, group)]
                for key, group in doc.spans.items()
            }
        return record

    def _encode(self, results: Iterator[Predicted], first: int, findings: Findings) -> bytes:
        format = self.options.format
        if format == JSONL:
            lines = (json.dumps(self._record(result), ensure_ascii=False) + "\n" for result in results)
            return "".join(lines).encode("utf8")
        if format == PARQUET:
            return encode_parquet([self._record(result) for result in results])
        if format == SPACY:
            doc_bin = DocBin(store_user_data=True)
            for result in results:
                others = {key: value for key, value in result.record.items() if key != "text"}
                if others:
                    result.doc.user_data["record"] = others
                doc_bin.add(result.doc)
            return doc_bin.to_bytes()
        writer = make_writer(format, self.options.scheme, self.nlp, first=first + 1)
        return "".join(writer.lines(self._exported(results, findings), findings)).encode("utf8")

    def _exported(self, results: Iterator[Predicted], findings: Findings) -> Iterator[Exported]:
        reserved = TOOL_KEYS.get(self.options.format, ())
        for result in results:
            others = keep_input(result.record, reserved)
            others.pop("text")
            note_layers(result.doc, result.where, findings, self.contents.spans_key)
            if others and self.options.format == "conll":
                findings.note("lost_keys", result.where, ", ".join(others), count=len(others))
            yield Exported.from_doc(result.doc, result.where, self.contents, others)


def keep_input(record: Dict[str, Any], names: Iterable[str]) -> Dict[str, Any]:
    """Make room for predictions: what a record of the input has under their names is kept under "_input".

    record (Dict[str, Any]): The record.
    names (Iterable[str]): Keys that are needed.
    RETURNS (Dict[str, Any]): A copy.
    """
    taken = {name: record[name] for name in names if name in record}
    kept = {key: value for key, value in record.items() if key not in taken}
    if taken:
        before = kept.get(KEPT_INPUT)
        kept[KEPT_INPUT] = {**taken, KEPT_INPUT: before} if before is not None else taken
    return kept


def cannot_be_packed(record: Dict[str, Any]) -> Optional[str]:
    """RETURNS (Optional[str]): Why MessagePack, in which `.spacy` files keep user data, cannot hold a record: whole
    numbers of more than 64 bits, or lists in lists hundreds deep. None if it can.
    """
    try:
        srsly.msgpack_dumps({"record": record})
    except (ValueError, OverflowError, RecursionError) as error:
        return str(error) or type(error).__name__
    return None


def encode_parquet(records: Sequence[Dict[str, Any]]) -> bytes:
    """Write records as Parquet. Every file has the same columns: `text`, `ents` (list of start, end, label,
    confidence), `cats` (map of label and score), `spans` (map of key and list), and `record`, all other keys as
    JSON.

    records (Sequence[Dict[str, Any]]): As "jsonl" writes them.
    RETURNS (bytes): The file.
    RAISES (BertHeadsError): H410 if pyarrow is missing.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise BertHeadsError("H410", found="pyarrow", extra="arrow") from error
    span = pyarrow.struct(
        [
            ("start", pyarrow.int32()),
            ("end", pyarrow.int32()),
            ("label", pyarrow.string()),
            ("confidence", pyarrow.float64()),
        ]
    )
    kinds = {
        "text": pyarrow.string(),
        ENTS: pyarrow.list_(span),
        CATS: pyarrow.map_(pyarrow.string(), pyarrow.float64()),
        SPANS: pyarrow.map_(pyarrow.string(), pyarrow.list_(span)),
        "record": pyarrow.string(),
    }
    columns: Dict[str, List[Any]] = {name: [] for name in kinds}
    for record in records:
        others = {key: value for key, value in record.items() if key not in ("text", *OWN_KEYS)}
        columns["text"].append(record.get("text"))
        columns[ENTS].append(record.get(ENTS))
        for name in (CATS, SPANS):
            columns[name].append(list(record[name].items()) if name in record else None)
        columns["record"].append(json.dumps(others, ensure_ascii=False) if others else None)
    arrays = [pyarrow.array(columns[name], kind) for name, kind in kinds.items()]
    buffer = BytesIO()
    parquet.write_table(pyarrow.table(arrays, names=list(kinds)), buffer, compression="zstd")
    return buffer.getvalue()


def _describe(span: Span, confidence: Optional[float]) -> Dict[str, Any]:
    described: Dict[str, Any] = {"start": span.start_char, "end": span.end_char, "label": span.label_}
    if confidence is not None:
        described["confidence"] = round(float(confidence), DIGITS)
    return described


def _with_confidence(key: str, group: Any) -> List[Tuple[Span, Optional[float]]]:
    """Spans of a group, each with its probability in it, or what spaCy's spancat leaves beside them."""
    scores = group.attrs.get("scores")
    beside = list(scores) if scores is not None and len(scores) == len(group) else [None] * len(group)
    pairs = []
    for span, score in zip(group, beside):
        confidence = get_confidence_in(span, key)
        pairs.append((span, confidence if confidence is not None else None if score is None else float(score)))
    return pairs


def _leave_out(nlp: Language, select: Sequence[str]) -> None:
    """Disable components that predict nothing of what is wanted, and that no other needs."""
    for name in list(nlp.pipe_names):
        meta = nlp.get_pipe_meta(name)
        needed: Set[str] = {
            need for other in nlp.pipe_names if other != name for need in nlp.get_pipe_meta(other).requires
        }
        layer = _layer_of(meta.factory, nlp.get_pipe(name))
        if layer is not None and layer not in select and not needed & set(meta.assigns):
            nlp.disable_pipe(name)


def _layer_of(factory: str, pipe: Any) -> Optional[str]:
    """What a component predicts, and nothing else. None: nothing of LAYERS, or nobody knows."""
    if factory in CATS_FACTORIES:
        return CATS
    return ENTS if finds_entities(factory, pipe) else SPANS if finds_spans(factory, pipe) else None


def _contents(nlp: Language, options: Options) -> Contents:
    """What files will hold. In formats that have one place for both, spans stand where nothing sets entities.

    nlp (Language): The pipeline, without components that do not run.
    options (Options): What is wanted of it.
    RETURNS (Contents): Of all texts.
    RAISES (BertHeadsError): H191 if there are only spans, and the format cannot hold them.
    """
    contents = Contents.of_pipeline(nlp)
    if ENTS not in options.select:
        contents = replace(contents, has_ents=False)
    pipes = [(nlp.get_pipe_meta(name).factory, nlp.get_pipe(name)) for name in nlp.pipe_names]
    keys = [_spans_key(pipe) for factory, pipe in pipes if finds_spans(factory, pipe)]
    if options.format in TOOL_FORMATS and SPANS in options.select and keys and not contents.has_ents:
        if options.format == "conll":
            others = ", ".join(name for name in FORMATS if name != options.format)
            raise BertHeadsError("H191", format=repr(options.format), expected=others)
        contents = Contents.of_pipeline(nlp, keys[0])
    return contents if CATS in options.select else replace(contents, has_cats=False)


def _spans_key(pipe: Any) -> str:
    return pipe.spans_key if hasattr(pipe, "spans_key") else pipe.key


def _where(item: Dict[str, Any]) -> Where:
    path, line, record = item["at"]
    return Where(Path(path), line, record)
