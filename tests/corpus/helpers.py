"""Small makers of records, files and Docs for the tests of `corpus`."""

import dataclasses
import gzip
import json
from pathlib import Path
from typing import Any, Dict, List, Optional, Union

import spacy
from spacy.tokens import Doc, DocBin

from spacy_bert_heads.corpus.convert import convert
from spacy_bert_heads.corpus.findings import Findings, Where
from spacy_bert_heads.corpus.readers.formats import ReadOptions
from spacy_bert_heads.corpus.readers.prodigy import read_record
from spacy_bert_heads.corpus.report import ConvertReport

ALL_TRAIN = "1,0,0"
OPTIONS = tuple(field.name for field in dataclasses.fields(ReadOptions))
PARIS = "Apple opened in Paris."


def make_span(start: int, end: int, label: Optional[str] = "ORG", **keys: Any) -> Dict[str, Any]:
    return {"start": start, "end": end, "label": label, **keys}


def make_choice(*accepted: str, text: str = "Great.", style: str = "single", **keys: Any) -> Dict[str, Any]:
    options = [{"id": name, "text": name.lower()} for name in ("POS", "NEG", "MIX")]
    config = {"choice_style": style}
    return {"text": text, "options": options, "accept": list(accepted), "config": config, **keys}


def write_jsonl(path: Path, *records: Union[Dict[str, Any], str, bytes]) -> Path:
    lines = []
    for record in records:
        if isinstance(record, dict):
            record = json.dumps(record, ensure_ascii=False)
        lines.append(record if isinstance(record, bytes) else record.encode("utf8"))
    content = b"".join(line + b"\n" for line in lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def read_one(record: Dict[str, Any]):
    """The annotation of one record, and what was found."""
    findings = Findings(skip_bad=False)
    return read_record(record, Where(Path("a.jsonl"), 1), findings), findings


def run(inputs: Union[Path, List[Path]], output_dir: Path, **settings: Any) -> ConvertReport:
    """`convert`, with its options for readers beside the others, and one path where it takes several."""
    options = {name: settings.pop(name) for name in OPTIONS if name in settings}
    given = {role: _as_list(settings.pop(role)) for role in ("dev", "test") if role in settings}
    return convert(_as_list(inputs), output_dir, options=ReadOptions(**options), **given, **settings)


def _as_list(paths: Union[Path, List[Path]]) -> List[Path]:
    return paths if isinstance(paths, list) else [paths]


def load_docs(path: Path, lang: str = "en") -> List[Doc]:
    return list(DocBin(store_user_data=True).from_disk(path).get_docs(spacy.blank(lang).vocab))


def convert_records(folder: Path, *records: Any, **settings: Any) -> List[Doc]:
    """The Docs that records become when all go to the train split."""
    path = write_jsonl(folder / "in.jsonl", *records)
    run(path, folder / "out", split=ALL_TRAIN, **settings)
    return load_docs(folder / "out" / "train.spacy", settings.get("lang", "en"))


def get_spans(spans: Any) -> List[tuple]:
    return [(span.start_char, span.end_char, span.label_) for span in spans]


def get_iob(doc: Doc) -> List[str]:
    """Per token I, O or B, and "" where nothing is known."""
    return [token.ent_iob_ for token in doc]
