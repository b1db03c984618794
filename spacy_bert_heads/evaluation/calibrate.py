"""A trained pipeline whose probabilities are true: a temperature for each head, and sets if they are asked for."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import numpy
import srsly
from spacy.language import Language
from spacy.training import Example

from ..errors import BertHeadsError, printable
from ..factory_names import (
    EXCLUSIVE_FACTORIES,
    GENERATION_FACTORY,
    MULTILABEL_FACTORIES,
    NER_FACTORIES,
    SCORE_FACTORY,
    SPANS_FACTORIES,
)
from ..files import write_files
from ..pipeline.fitted import COVERAGE, TEMPERATURE, THRESHOLDS
from .bootstrap import Interval
from .conformal import CoverageFit, fit_coverage
from .outcomes import Outcomes, TextOutcomes, observe
from .tables import limits
from .temperature import TemperatureFit, fit_temperature

DROPPED = {
    TEMPERATURE: "an older temperature",
    THRESHOLDS: "thresholds, which were chosen for other probabilities",
    COVERAGE: "sets, which were made of other probabilities",
}
SCORED_FACTORIES = (*EXCLUSIVE_FACTORIES, *MULTILABEL_FACTORIES, *NER_FACTORIES, *SPANS_FACTORIES)
# What a temperature is fitted to, by the kind of head; other kinds: texts
FITTED_TO = {"entities": "predicted entities", "spans": "possible spans"}


@dataclass
class Calibrated:
    """What `calibrate` did.

    texts (int): Annotated texts.
    temperatures (List[TemperatureFit]): One for each head.
    coverages (List[CoverageFit]): The same, if sets were asked for.
    notes (List[str]): What was dropped, and what was left alone.
    """

    texts: int
    temperatures: List[TemperatureFit] = field(default_factory=list)
    coverages: List[CoverageFit] = field(default_factory=list)
    notes: List[str] = field(default_factory=list)

    def to_dict(self) -> Dict[str, Any]:
        """RETURNS (Dict[str, Any]): For JSON."""
        return {
            "texts": self.texts,
            "notes": self.notes,
            "temperatures": [fit.to_dict() for fit in self.temperatures],
            "coverages": [fit.to_dict() for fit in self.coverages],
        }


def calibrate(nlp: Language, examples: Sequence[Example], *, coverage: Optional[float] = None) -> Calibrated:
    """Fit the temperatures of a pipeline's heads, and apply them. Its predictions stay; older thresholds and sets go.

    nlp (Language): The pipeline.
    examples (Sequence[Example]): Annotated texts that it was not trained on, and Docs without annotation.
    coverage (Optional[float]): Share of texts whose sets are to hold all that is true of them; see conformal. Then
        half of the texts, drawn at random, is for the temperatures, and the other half for the sets. None: no sets.
    RETURNS (Calibrated): What was done.
    RAISES (BertHeadsError): H602 if no head has gold annotation, H603 if there is no head to calibrate, H605 for a
        coverage that is no share.
    """
    check_coverage(coverage)
    done = Calibrated(len(examples))
    found = find_outcomes(nlp, examples, "calibrate", done.notes)
    first = second = None
    if coverage is not None:
        order = numpy.random.default_rng(0).permutation(len(examples))
        first, second = numpy.zeros((2, len(examples)), dtype=bool)
        first[order[: len(order) // 2]] = True
        second = ~first
    for outcomes in found:
        gone = [DROPPED[name] for name in outcomes.head.forget_fitted()]
        if gone:
            done.notes.append(f"'{outcomes.name}': dropped {'; '.join(gone)}.")
        fit = fit_temperature(outcomes, first)
        if fit.temperature is None:
            done.notes.append(f"'{fit.name}' is left alone. {fit.reason}")
        elif fit.reason:
            done.notes.append(f"'{fit.name}': {fit.reason}")
        if isinstance(outcomes, TextOutcomes) and outcomes.n_unknown:
            done.notes.append(
                f"'{outcomes.name}': left out {outcomes.n_unknown} of {len(examples)} texts, which have no gold "
                "category that it has."
            )
        done.temperatures.append(fit)
        if coverage is not None and second is not None:
            sets = fit_coverage(outcomes, coverage, second)
            if sets.coverage is None:
                done.notes.append(f"'{sets.name}' gets no sets. {sets.reason}")
            done.coverages.append(sets)
    return done


def find_outcomes(nlp: Language, examples: Sequence[Example], purpose: str, notes: List[str]) -> List[Outcomes]:
    """Let the pipeline predict the texts, and see what there is to fit.

    nlp (Language): The pipeline.
    examples (Sequence[Example]): Annotated texts and Docs without annotation.
    purpose (str): What it is for, for the error.
    notes (List[str]): Gets what is left alone, and why.
    RETURNS (List[Outcomes]): Of the heads of this package.
    RAISES (BertHeadsError): H602 if no head has gold annotation, H603 if there is no head.
    """
    outcomes = observe(nlp, examples)
    names = {found.name for found in outcomes}
    for name in nlp.pipe_names:
        factory = nlp.get_pipe_meta(name).factory
        if factory == SCORE_FACTORY:
            notes.append(f"'{name}' is left alone: it predicts numbers, not probabilities.")
        elif factory == GENERATION_FACTORY:
            notes.append(f"'{name}' is left alone: it sums the probabilities of readings, and has no temperature.")
        elif factory in SCORED_FACTORIES and name not in names:
            notes.append(f"'{name}' is left alone: it is not one of the heads of this package.")
    if not outcomes:
        raise BertHeadsError("H603", purpose=purpose, found=", ".join(nlp.pipe_names) or "an empty pipeline")
    if not any(len(found.texts if isinstance(found, TextOutcomes) else found.gold) for found in outcomes):
        raise BertHeadsError("H602", found=f"{len(examples)} texts without gold annotation for {', '.join(names)}")
    return outcomes


def check_coverage(coverage: Optional[float]) -> None:
    """RAISES (BertHeadsError): H605 if it is not between 0 and 1."""
    if coverage is not None and not 0.0 < coverage < 1.0:
        raise BertHeadsError("H605", found=coverage)


def to_text(done: Calibrated) -> str:
    """RETURNS (str): What `calibrate` did, as tables for a terminal."""
    from wasabi import table

    lines = [printable(f"Note: {note}") for note in done.notes]
    rows = []
    for fit in done.temperatures:
        for title, key in (("ECE", "expected_calibration_error"), ("classwise ECE", "classwise_calibration_error")):
            if fit.before.get(key) is not None:
                before, after = (_error(report, key) for report in (fit.before, fit.after))
                rows.append((printable(fit.name), title, *before, *after))
        if fit.before.get("nll") is not None:
            rows.append((printable(fit.name), "NLL", f"{fit.before['nll']:.4f}", "", f"{fit.after['nll']:.4f}", ""))
    if rows:
        header = ("head", "", "before", "95 % interval", "after", "95 % interval")
        aligns: Any = ("l", "l", "r", "r", "r", "r")
        lines += ["", str(table(rows, header=header, divider=True, aligns=aligns)).strip("\n")]
    for fit in done.temperatures:
        what = FITTED_TO.get(fit.kind, "texts")
        if fit.temperature is not None:
            lines.append(printable(f"'{fit.name}': temperature {_temperature(fit)}, fitted to {fit.n:,} {what}"))
    for sets in done.coverages:
        if sets.coverage is not None:
            what = "entities" if sets.kind == "entities" else "labels"
            lines.append(
                printable(
                    f"'{sets.name}': sets of {what} that are at least {sets.coverage.threshold:.4f} probable, "
                    f"{sets.size:.1f} on average; fitted to {sets.n:,} other texts for a coverage of "
                    f"{sets.coverage.share:g}"
                )
            )
    return "\n".join(lines)


def write_json(result: Dict[str, Any], path: Path) -> None:
    """RAISES (BertHeadsError): H123 if it cannot be written."""
    write_files({path: (srsly.json_dumps(result, indent=2) + "\n").encode("utf8")})


def _error(report: Dict[str, Any], key: str) -> Sequence[str]:
    interval: Optional[Interval] = report[f"{key}_interval"]
    return f"{report[key]:.4f}", limits(interval, 1.0, 4)


def _temperature(fit: TemperatureFit) -> str:
    if isinstance(fit.temperature, dict):
        values = list(fit.temperature.values())
        return f"{min(values):.2f} to {max(values):.2f} for {len(values)} labels"
    return f"{fit.temperature:.3f}"
