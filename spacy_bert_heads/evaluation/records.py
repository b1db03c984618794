"""What a report keeps of each text, so that reports can be compared text by text, and of the run itself."""

import math
import os
import subprocess
from datetime import datetime, timezone
from hashlib import blake2b
from typing import Any, Dict, List, Optional, Sequence, Union

from spacy.language import Language
from spacy.training import Example

from .. import __version__
from .category_scores import EXTRA_CATEGORY, MISSED_CATEGORY, ExclusiveScorer, MultilabelScorer, NumberScorer
from .entity_scores import EntityScorer, read_entities
from .label_scores import Mistake
from .span_scores import SpanScorer

# Characters of a text that a report keeps; entities behind them are kept all the same
MAX_TEXT = 400
GIT_SECONDS = 5

Scorer = Union[EntityScorer, SpanScorer, ExclusiveScorer, MultilabelScorer, NumberScorer]


def begin_record(example: Example) -> Dict[str, Any]:
    """RETURNS (Dict[str, Any]): "id", a hash of the text by which it is found in another report, and its "text", or
    the beginning of that."""
    text = example.reference.text
    digest = blake2b(text.encode("utf8", "surrogatepass"), digest_size=8).hexdigest()
    return {"id": digest, "text": text[:MAX_TEXT]}


def add_to_record(
    record: Dict[str, Any], scorer: Scorer, example: Example, right: Optional[bool], mistakes: Sequence[Mistake]
) -> None:
    """Write down what is gold and what a head predicted. A head about which nothing is known is left out.

    record (Dict[str, Any]): Of the text. "ents" gets gold and predicted entities, each as [start, end, label],
        predicted ones with their confidence if there is one; "spans", by component, the same without confidence;
        "cats", by component, [gold label, predicted label] of exclusive classes, and [gold labels, predicted labels]
        of others; "numbers", by component and target, [gold, predicted].
    scorer (Scorer): Of the head.
    example (Example): Prediction and gold annotation.
    right (Optional[bool]): What the scorer says about the text.
    mistakes (Sequence[Mistake]): Likewise.
    """
    if isinstance(scorer, EntityScorer):
        found = read_entities(example) if right is not None else None
        if found is not None:
            gold = [[ent.start, ent.end, ent.label] for ent in found.gold]
            predicted = [
                [ent.start, ent.end, ent.label, *([] if ent.confidence is None else [round(ent.confidence, 3)])]
                for ent in found.predicted
            ]
            record["ents"] = [gold, predicted]
    elif isinstance(scorer, SpanScorer):
        if right is not None:
            sides = scorer.read(example)
            record.setdefault("spans", {})[scorer.name] = [sorted(map(list, side)) for side in sides]
    elif isinstance(scorer, NumberScorer):
        known = [label for label in scorer.labels if label in example.reference.cats]
        values = {label: [example.reference.cats[label], example.predicted.cats.get(label)] for label in known}
        if values:
            record.setdefault("numbers", {})[scorer.name] = {
                label: [_finite(value) for value in pair] for label, pair in values.items()
            }
    elif right is not None:
        record.setdefault("cats", {})[scorer.name] = _categories(scorer, example, mistakes)


def describe_run(nlp: Language) -> Dict[str, Any]:
    """What tells this evaluation from others.

    nlp (Language): The pipeline.
    RETURNS (Dict[str, Any]): "date" and time in UTC, the git "commit" of the current folder ("-dirty" behind it if
        files differ from it; None where there is no repository), eight digits that depend on the pipeline's "config",
        and the "version" of this package.
    """
    config = nlp.config.to_str(interpolate=False)
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _find_commit(),
        "config": blake2b(config.encode("utf8", "surrogatepass"), digest_size=4).hexdigest(),
        "version": __version__,
    }


def _categories(
    scorer: Union[ExclusiveScorer, MultilabelScorer], example: Example, mistakes: Sequence[Mistake]
) -> List[Any]:
    """Predictions are read from the mistakes: what a head gives is the scorer's to say."""
    cats = {label: value for label, value in example.reference.cats.items() if label in scorer.all_labels}
    if isinstance(scorer, ExclusiveScorer):
        gold = max(cats, key=lambda label: cats[label])
        return [gold, mistakes[0].predicted if mistakes else gold]
    true = [label for label, value in cats.items() if value > 0]
    missed = {mistake.gold for mistake in mistakes if mistake.kind == MISSED_CATEGORY}
    extra = [mistake.predicted for mistake in mistakes if mistake.kind == EXTRA_CATEGORY]
    return [true, [*(label for label in true if label not in missed), *extra]]


def _finite(value: Optional[float]) -> Optional[float]:
    return value if value is not None and math.isfinite(value) else None


def _find_commit() -> Optional[str]:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude", "*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=GIT_SECONDS, cwd=os.getcwd())
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None
