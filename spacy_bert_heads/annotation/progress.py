"""What the rounds of a loop have brought: a table, a picture, a forecast, and how far people and teacher agree."""

import json
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Optional

from spacy.tokens import Doc

from ..errors import BertHeadsError
from ..files import write_files
from ..pipeline_io import load_pipeline
from ..training.fit_config import read_config, read_train_texts
from .comparison import compare
from .cross_validation import N_FOLDS, read_predicted
from .curve import draw_rounds, render_rounds
from .forecast import forecast
from .heads import find_heads
from .rounds import AGREEMENT, METRICS, TASKS, LoopSettings, Round, dev_of, rounds_up_to

CURVE, ROUNDS = "rounds.png", "rounds.json"
# With fewer texts to score, a difference of a few points means nothing
FEW_SCORED = 300


def show_progress(last: Round, settings: LoopSettings, say: Callable[[str], Any]) -> None:
    """Show the table of all rounds up to now, what the next answers are expected to bring, and, where a teacher began,
    how far it agrees with people. Writes the table as `rounds.json` and the curve as `rounds.png`.

    last (Round): The last round that has answers.
    settings (LoopSettings): What the loop works with.
    say (Callable[[str], Any]): Takes what is to be shown.
    """
    weights = dict(read_config(settings.config)["training"]["score_weights"])
    rounds = rounds_up_to(last)
    rows = [_read_row(one, weights, settings) for one in rounds if (one.folder / METRICS).exists()]
    if not rows:
        return
    content = (json.dumps(rows, indent=1) + "\n").encode("utf8")
    write_files({last.loop / ROUNDS: content})
    say(render_rounds(rows))
    if rows[-1]["scored"] < FEW_SCORED:
        said = _describe_few(rounds[-1], rows[-1]["cross_validated"])
        if said:
            say(said)
    alike = [row for row in rows if row["cross_validated"] == rows[-1]["cross_validated"]]
    expected = forecast(
        [row["texts"] for row in alike], [row["score"] for row in alike], rows[-1]["scored"], settings.limit
    )
    if expected is not None:
        say(expected.to_text())
    if settings.teacher is not None:
        _show_agreement(last, settings, say)
    try:
        draw_rounds(rows, last.loop / CURVE)
    except BertHeadsError as error:
        say(f"The rounds are not plotted. {error}")


def _describe_few(last: Round, cross_validated: bool) -> str:
    """RETURNS (str): How far a score on few texts can be from that on others; "" if nothing was scored."""
    found = json.loads((last.folder / METRICS).read_text(encoding="utf8"))["texts"]
    if not found["scored"]:
        return ""
    low, high = found["accuracy_interval"]
    how = f", each by one of {N_FOLDS} pipelines that did not learn from it" if cross_validated else ""
    return (
        f"Only {found['scored']} texts are scored{how}. {100 * found['accuracy']:.0f} % are right in everything: "
        f"with other texts of this kind it would be {100 * low:.0f} to {100 * high:.0f} % (95 % interval)."
    )


def _show_agreement(last: Round, settings: LoopSettings, say: Callable[[str], Any]) -> None:
    """How often teacher, people and student agree, written once for each round."""
    path = last.folder / AGREEMENT
    if not path.exists():
        nlp, dev = load_pipeline(str(last.model)), dev_of(last, settings)
        corpora: List[Path] = [last.corpus]
        predicted: Iterable[Doc] = ()
        if dev is None:
            predicted = read_predicted(last.folds, nlp.vocab)
        elif settings.dev is None:
            corpora.append(dev)
            predicted = nlp.pipe(read_train_texts(dev))
        tasks = [one.folder / TASKS for one in rounds_up_to(last)[1:]]
        agreement = compare(tasks, corpora, predicted, find_heads(nlp))
        found = {"pairs": agreement.to_list(), "text": agreement.to_text()}
        write_files({path: (json.dumps(found, indent=1) + "\n").encode("utf8")})
    shown = json.loads(path.read_text(encoding="utf8"))["text"]
    if shown:
        say(shown)


def _read_row(one: Round, weights: Dict[str, Optional[float]], settings: LoopSettings) -> Dict[str, Any]:
    found = json.loads((one.folder / METRICS).read_text(encoding="utf8"))
    scores = {name: found.get(name) for name, weight in weights.items() if weight}
    counts: Dict[str, Any] = {"docs": 0, "tokens": {"sum": 0}}
    if one.report.exists():
        counts = json.loads(one.report.read_text(encoding="utf8"))["splits"]["train"]
    return {
        "round": one.number,
        "texts": counts["docs"],
        "tokens": counts["tokens"]["sum"],
        "scored": found["docs"],
        "cross_validated": (settings.test or dev_of(one, settings)) is None,
        "scores": scores,
        "score": sum((weights[name] or 0.0) * (score or 0.0) for name, score in scores.items()),
    }
