"""What an exported encoder changes: how many texts get the same answers, and how much faster they get them."""

import time
from dataclasses import dataclass
from importlib import import_module
from statistics import median
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple

import numpy
from spacy.language import Language
from spacy.tokens import Doc

from ..extensions import CHOSEN_NAME
from ..layers.encoder_shim import EncoderShim
from ..layers.precision import has_bf16
from ..layers.runtimes import BACKENDS, Runtime, is_installed

# Rounds in which the original and the export take turns, after one that is not timed
ROUNDS = 3
# Texts that are measured at most, and how many sentences make one long text
MOST_TEXTS, LONG = 2000, 8


@dataclass(frozen=True)
class Measured:
    """One way to run the encoders of a pipeline, on some texts.

    backend, precision (str): The way; see runtimes.BACKENDS.
    agreement (float): Share of the texts that get the same categories, entities and spans as from the original.
    speed (float): Texts a second through the whole pipeline, over the original's.
    n_texts (int): Number of texts.
    """

    backend: str
    precision: str
    agreement: float
    speed: float
    n_texts: int


def candidates(device: Any) -> Iterator[Tuple[str, str]]:
    """YIELDS (Tuple[str, str]): Installed backends, with the precisions that this machine computes in by itself."""
    for backend, known in BACKENDS.items():
        for precision in known.precisions:
            if is_installed(backend, precision) and (precision != "bf16" or has_bf16(device)):
                yield backend, precision


def neutral_texts(lang: str) -> List[str]:
    """spaCy's example sentences of a language, or the English ones, and longer texts made from them."""
    sentences: List[str] = []
    for code in (lang, "en"):
        try:
            sentences = list(import_module(f"spacy.lang.{code}.examples").sentences)
            break
        except ImportError:
            pass
    return [*sentences, *(" ".join(sentences[n:] + sentences[:n]) for n in range(min(LONG, len(sentences))))]


class Bench:
    """Runs a pipeline with its own encoders and with exported ones, in turn.

    nlp (Language): The pipeline. It is left as it was.
    texts (Sequence[str]): Texts to run; the first 2,000 of them count.
    """

    def __init__(self, nlp: Language, shims: Sequence[EncoderShim], texts: Sequence[str]) -> None:
        self.nlp = nlp
        self.shims = shims
        self.texts = list(texts[:MOST_TEXTS])
        self.expected = [answers(doc) for doc in nlp.pipe(self.texts)]

    def measure(self, runtimes: Sequence[Runtime]) -> Measured:
        """runtimes (Sequence[Runtime]): One for each encoder, in their order.
        RETURNS (Measured): Agreement with the original and speed beside it.
        """
        found = self._with(runtimes, lambda: [answers(doc) for doc in self.nlp.pipe(self.texts)])
        seconds: Dict[bool, List[float]] = {True: [], False: []}
        for _ in range(ROUNDS):
            seconds[False].append(self._time())
            seconds[True].append(self._with(runtimes, self._time))
        return Measured(
            backend=runtimes[0].backend,
            precision=runtimes[0].precision,
            agreement=sum(map(alike, found, self.expected)) / max(1, len(self.texts)),
            speed=median(seconds[False]) / median(seconds[True]),
            n_texts=len(self.texts),
        )

    def _with(self, runtimes: Sequence[Runtime], do: Callable[[], Any]) -> Any:
        try:
            for shim, runtime in zip(self.shims, runtimes):
                shim.runtime = runtime
            return do()
        finally:
            for shim in self.shims:
                shim.runtime = None

    def _time(self) -> float:
        start = time.perf_counter()
        for _ in self.nlp.pipe(self.texts):
            pass
        return time.perf_counter() - start


def answers(doc: Doc) -> Dict[str, Any]:
    """RETURNS (Dict[str, Any]): What a user reads off a Doc: "cats", their probabilities or numbers; "chosen", the
    categories that the heads chose, or the best one where no head of ours chose; "ents" and "spans" with their labels.
    """
    chosen = doc._.get(CHOSEN_NAME) if Doc.has_extension(CHOSEN_NAME) else None
    if not chosen and doc.cats:
        chosen = [max(doc.cats, key=lambda label: doc.cats[label])]
    return {
        "cats": dict(doc.cats),
        "chosen": sorted(chosen or ()),
        "ents": [(ent.start, ent.end, ent.label_) for ent in doc.ents],
        "spans": {key: sorted((s.start, s.end, s.label_) for s in group) for key, group in doc.spans.items()},
    }


def alike(found: Dict[str, Any], expected: Dict[str, Any]) -> bool:
    """Whether two answers are the same. Numbers of a regression, which are no probabilities, may differ by 1 %."""
    if any(found[name] != expected[name] for name in ("chosen", "ents", "spans")):
        return False
    numbers = [label for label, value in expected["cats"].items() if not 0 <= value <= 1]
    return bool(
        numpy.allclose(
            [found["cats"][n] for n in numbers], [expected["cats"][n] for n in numbers], rtol=0.01, atol=0.01
        )
    )
