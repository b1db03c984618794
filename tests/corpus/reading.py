"""Reading of small files in tests of the formats."""

from pathlib import Path
from typing import Any, List, Tuple, Union

from spacy_bert_heads.corpus.annotations import Annotation
from spacy_bert_heads.corpus.findings import Findings
from spacy_bert_heads.corpus.readers.formats import AUTO, ReadOptions, find_converter


def write(path: Path, content: Union[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode("utf8") if isinstance(content, str) else content)
    return path


def read(path: Path, format: str = AUTO, skip_bad: bool = False, **options: Any) -> Tuple[List[Annotation], Findings]:
    """The annotations of a file, and what was found."""
    findings = Findings(skip_bad=skip_bad)
    converter = find_converter(path, format)
    return list(converter.read(path, findings, ReadOptions(**options))), findings


def covered(annotation: Annotation, name: str = "ents") -> List[Tuple[str, str]]:
    """Text and label of each span."""
    return [(annotation.text[start:end], label) for start, end, label in getattr(annotation, name)]


def words(annotation: Annotation) -> List[str]:
    return [annotation.text[start:end] for start, end in annotation.tokens]


def chosen(annotation: Annotation) -> List[str]:
    return [label for label, value in annotation.cats.items() if value > 0]
