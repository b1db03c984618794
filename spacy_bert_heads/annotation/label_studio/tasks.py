"""Prodigy tasks with a model's suggestions -> Label Studio's tasks with predictions (docs/reference/formats.md).

The server takes whatever it is sent, so everything is checked here.
"""

import math
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

from spacy.language import Language

from ...corpus.annotations import CharSpan
from ...corpus.findings import Findings, Where
from ...corpus.readers.labelling_config import LabellingConfig
from ...corpus.readers.lines import read_json_objects
from ...corpus.readers.offsets import read_span, show
from ...errors import BertHeadsError
from ...pipeline_io import model_name
from ..hashes import input_hash
from ..heads import find_heads
from ..tasks import ANSWER_KEYS, BINARY_VIEWS

# What types of answers are called in messages.
KINDS = {"labels": "entity label", "choices": "category"}
USED_KEYS = ("text", "meta", *ANSWER_KEYS)


@dataclass
class Suggested:
    """A text, and what a model suggests about it.

    text (str): The text.
    where (Where): Place of its first task.
    kept (Dict[str, Any]): Other keys of its tasks, to be kept beside it.
    meta (Dict[str, Any]): What annotators are to see of it.
    spans (Dict[CharSpan, Optional[float]]): Entities, and how sure the model is of each, if it says.
    cats (List[str]): Categories.
    confidence (Optional[float]): From 0 to 1. The lower, the earlier the text is to be annotated.
    """

    text: str
    where: Where
    kept: Dict[str, Any] = field(default_factory=dict)
    meta: Dict[str, Any] = field(default_factory=dict)
    spans: Dict[CharSpan, Optional[float]] = field(default_factory=dict)
    cats: List[str] = field(default_factory=list)
    confidence: Optional[float] = None

    def add(self, task: Mapping[str, Any], where: Where) -> None:
        """Take over a task about the text; one may ask for its entities and another one for its categories.

        task (Mapping[str, Any]): As TaskMaker makes it.
        where (Where): Its place.
        RAISES (BertHeadsError): H108 to H110 or H112 for a bad span, H122 for bad categories, H551 for a bad score,
            H552 if the task is answered, H558 if it is a yes or no question.
        """
        if task.get("answer") is not None:
            raise where.error("H552", show(task["answer"]))
        if task.get("_view_id") in BINARY_VIEWS:
            # Label Studio has only whole answers
            raise where.error("H558", task["_view_id"])
        self.kept.update((key, value) for key, value in task.items() if key not in USED_KEYS)
        meta = task.get("meta")
        if isinstance(meta, dict):
            self.meta.update(meta)
        spans, accept = (task.get(key) or [] for key in ("spans", "accept"))
        if not isinstance(spans, list) or not all(isinstance(span, dict) for span in spans):
            raise where.error("H108", show(spans))
        if not isinstance(accept, list) or not all(isinstance(label, str) for label in accept):
            raise where.error("H122", show(accept))
        for span in spans:
            self.spans[_read_span(span, self.text, where)] = _read_probability(span.get("score"), where)
        self.cats += [label for label in accept if label not in self.cats]
        scores = [score for score in (self.confidence, _read_confidence(self.meta, where)) if score is not None]
        self.confidence = min(scores, default=None)

    def unknown(self, config: LabellingConfig) -> List[Tuple[str, str]]:
        """List what a project does not ask for.

        config (LabellingConfig): Its interface.
        RETURNS (List[Tuple[str, str]]): Type of question and label of each suggestion that it cannot show.
        """
        suggested = [("labels", span.label) for span in self.spans] + [("choices", label) for label in self.cats]
        known = {(question.type, label) for question in config.asked() for label in question.labels}
        return [pair for pair in suggested if pair not in known]

    def data(self, config: LabellingConfig) -> Dict[str, Any]:
        """RETURNS (Dict[str, Any]): The `data` of a task in a project with this interface."""
        return {**self.kept, config.text_key: self.text, "_input_hash": input_hash(self.text)}

    def prediction(self, config: LabellingConfig, model_version: str) -> Dict[str, Any]:
        """Write the suggestions as a prediction.

        config (LabellingConfig): The project's interface. What it does not ask for is left out.
        model_version (str): By which the server knows the model.
        RETURNS (Dict[str, Any]): The prediction. Those of lower `score` are shown first.
        """
        results: List[Dict[str, Any]] = []
        for question in config.asked():
            common = {"from_name": question.name, "to_name": question.to_name, "type": question.type}
            if question.type == "labels":
                for span, score in sorted(self.spans.items(), key=lambda item: item[0]):
                    if span.label in question.labels:
                        covered = self.text[span.start : span.end]
                        value = {"start": span.start, "end": span.end, "text": covered, "labels": [span.label]}
                        results.append({**common, "value": value, **({} if score is None else {"score": score})})
            else:
                chosen = [label for label in self.cats if label in question.labels]
                if chosen:
                    results.append({**common, "value": {"choices": chosen}})
        for number, result in enumerate(results):
            result["id"] = f"r{number}"
        scored = {} if self.confidence is None else {"score": self.confidence}
        return {"model_version": model_version, "result": results, **scored}


def read_tasks(path: Path) -> List[Suggested]:
    """Read what `suggest` wrote.

    path (Path): Prodigy tasks, one a line, with suggestions and without answers.
    RETURNS (List[Suggested]): The texts, in the order of the file.
    RAISES (BertHeadsError): H101 to H107 for a bad file, H559 for an empty one, and those of Suggested.add.
    """
    texts: Dict[str, Suggested] = {}
    for where, task in read_json_objects(path, Findings(skip_bad=False)):
        text = task.get("text")
        if not isinstance(text, str) or not text.strip():
            raise where.error("H107", show(text))
        texts.setdefault(text, Suggested(text, where)).add(task, where)
    if not texts:
        raise BertHeadsError("H559", path=path)
    return list(texts.values())


def pipeline_config(nlp: Language) -> LabellingConfig:
    """Make the labelling interface for the heads of a pipeline.

    nlp (Language): The pipeline.
    RETURNS (LabellingConfig): What it asks for: entities, or spans where no head finds entities, and categories.
    RAISES (BertHeadsError): H557 if there is no head.
    """
    heads = find_heads(nlp)
    finder, textcat = heads.finder, heads.textcat
    if finder is None and textcat is None:
        raise BertHeadsError("H557", found=", ".join(nlp.pipe_names) or "an empty one")
    return LabellingConfig.from_labels(
        () if finder is None else finder.labels,
        () if textcat is None else textcat.labels,
        exclusive=textcat is not None and textcat.exclusive,
    )


def pipeline_version(nlp: Language) -> str:
    """Name the state that a pipeline is in. Rounds of training change neither its name nor its version, but its files.

    nlp (Language): The pipeline, as `spacy.load` returned it.
    RETURNS (str): Name, version and eight digits that depend on its files, such as "en_pipeline-0.0.0-5e1f09aa".
    """
    digest = blake2b(digest_size=4)
    for path in sorted(Path(nlp.path).rglob("*")):
        if path.is_file():
            digest.update(path.name.encode("utf8"))
            with path.open("rb") as stream:
                while chunk := stream.read(1 << 20):
                    digest.update(chunk)
    return f"{model_name(nlp)}-{digest.hexdigest()}".replace(",", "_")


def _read_span(span: Mapping[str, Any], text: str, where: Where) -> CharSpan:
    borders = span.get("start"), span.get("end")
    found = read_span(*borders, span.get("label"), text, None, where, Findings(skip_bad=False))
    if not found.start < found.end:
        raise where.error("H109", f"{found.start}-{found.end}", label=found.label)
    if found.start < 0 or found.end > len(text):
        raise where.error("H110", f"{found.start}-{found.end}", label=found.label, length=len(text))
    return found


def _read_probability(score: Any, where: Where) -> Optional[float]:
    if score is None:
        return None
    if not isinstance(score, (int, float)) or not 0.0 <= score <= 1.0:
        raise where.error("H551", show(score), expected="the 'score' of a span from 0 to 1")
    return float(score)


def _read_confidence(meta: Mapping[str, Any], where: Where) -> Optional[float]:
    """What strategies score is 0 where the model is sure and has no upper end. The server wants it the other way round
    and from 0 to 1; of `mnlp` this makes the probability per token.
    """
    score = meta.get("score")
    if score is None:
        return None
    if not isinstance(score, (int, float)) or not score >= 0.0:
        raise where.error("H551", show(score), expected="a 'score' in 'meta' that is 0 or more")
    return math.exp(-score)
