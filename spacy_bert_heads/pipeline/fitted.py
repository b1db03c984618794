"""What is fitted to a head once it has been trained: temperature, thresholds, sets with a guaranteed coverage.

All of it is in the component's `cfg`, so it is saved, copied, packaged and sourced with the component. It belongs to
the weights that it was fitted to: when they change, it goes.
"""

from typing import Any, Dict, List, NamedTuple, Optional, Union

import numpy

TEMPERATURE, THRESHOLDS, COVERAGE = "temperature", "thresholds", "coverage"
FITTED = (TEMPERATURE, THRESHOLDS, COVERAGE)
# Of text heads whose labels do not exclude each other: the probability that their temperatures leave as it is
AROUND = "temperature_around"
# Of text heads: `threshold` of their config, while there are fitted ones in its place
SINGLE = "single_threshold"


class Coverage(NamedTuple):
    """When a label or an entity is in the set of those that may be true.

    share (float): Of the texts whose set holds all that is true, 0 to 1.
    threshold (float): Probability from which something is in the set.
    """

    share: float
    threshold: float


class Fitted:
    """Reads and writes what was fitted to a head. A mixin for components with `cfg`."""

    cfg: Dict[str, Any]

    @property
    def temperature(self) -> Union[None, float, Dict[str, float]]:
        """RETURNS (Union[None, float, Dict[str, float]]): What the head's scores are divided by before they become
        probabilities; by label if its labels do not exclude each other. None: nothing."""
        return self.cfg.get(TEMPERATURE)

    @property
    def coverage(self) -> Optional[Coverage]:
        """RETURNS (Optional[Coverage]): What the sets are to hold. None: there are no sets."""
        found = self.cfg.get(COVERAGE)
        return None if found is None else Coverage(**found)

    def set_coverage(self, coverage: Coverage) -> None:
        """Have sets written from now on.

        coverage (Coverage): What they are to hold.
        """
        self.cfg[COVERAGE] = coverage._asdict()

    def set_thresholds(self, thresholds: Dict[str, float]) -> None:
        """Apply thresholds from now on.

        thresholds (Dict[str, float]): Probability from which each label counts. Labels that are not in it keep the
            setting of the config.
        """
        self.cfg[THRESHOLDS] = dict(thresholds)
        if self.cfg.get("threshold") is not None:
            self.cfg[SINGLE], self.cfg["threshold"] = self.cfg["threshold"], None

    def forget_fitted(self, *names: str) -> List[str]:
        """Take away what was fitted.

        *names (str): Which of FITTED; none: all.
        RETURNS (List[str]): What there was of it.
        """
        gone = [name for name in names or FITTED if self.cfg.get(name) is not None]
        for name in gone:
            self.cfg[name] = None
        if TEMPERATURE in gone:
            self.cfg.pop(AROUND, None)
        if THRESHOLDS in gone and self.cfg.get(SINGLE) is not None:
            single = self.cfg.pop(SINGLE)
            if self.cfg["threshold"] is None:
                self.cfg["threshold"] = single
        return gone


def label_thresholds(cfg: Dict[str, Any], labels: List[str]) -> numpy.ndarray:
    """The probability from which a text head chooses each label.

    A number under `threshold` holds for all labels, also where somebody has set it, as spaCy's find-threshold does,
    after others were fitted.

    cfg (Dict[str, Any]): The component's.
    labels (List[str]): Its labels.
    RETURNS (numpy.ndarray): Float, (n_labels,).
    """
    single = cfg.get("threshold")
    if single is not None:
        return numpy.full(len(labels), single, dtype="float64")
    fitted = cfg.get(THRESHOLDS) or {}
    return numpy.array([fitted.get(label, cfg.get(SINGLE, 0.0)) for label in labels], dtype="float64")
