"""What `seq2seq_ner` asks of an architecture that generates: losses, probabilities and readings of Docs."""

import re
from typing import Any, Callable, List, NamedTuple, Optional, Sequence, Tuple

import numpy
from spacy.tokens import Doc
from thinc.api import Model

from ..layers.readings import Generated, NumberedSpan

GENERATOR = "generator"
# Words in the name of a label, such as "creative work" in CREATIVE_WORK, creative-work or CreativeWork
WORD = re.compile(r"[A-Z]{2,}(?![a-z])|[A-Z]?[^\W\dA-Z_]+|[A-Z]|\d+")


class Text(NamedTuple):
    """A Doc and what is known of it before it is read.

    doc (Doc): The Doc.
    free (numpy.ndarray): True for tokens where a span may begin and end: no white space. Bool, (n_tokens,).
    closed (numpy.ndarray): True for tokens that no span may have, such as those of entities that are there already.
        Bool, (n_tokens,).
    """

    doc: Doc
    free: numpy.ndarray
    closed: numpy.ndarray


# The spans of a Doc, None where they are not known
Target = Optional[Sequence[NumberedSpan]]


class Generator:
    """Works on the output of a model, which has one of these in its attributes. It keeps nothing."""

    def learn_labels(self, model: Model, labels: Sequence[str], read: Callable[[str], Any]) -> None:
        """Have what stands for the labels begin as what their names mean.

        model (Model): An initialised model.
        labels (Sequence[str]): The labels.
        read (Callable[[str], Any]): Gives token vectors of a text, (n_tokens, width), or None.
        """
        raise NotImplementedError

    def can_say(self, model: Model, text: Text, spans: Sequence[NumberedSpan], nested: bool) -> bool:
        """RETURNS (bool): Whether exactly these spans can be generated."""
        raise NotImplementedError

    def loss(
        self,
        model: Model,
        texts: Sequence[Text],
        outputs: Any,
        spans: Sequence[Target],
        nested: bool,
        weight: float,
        shares: Optional[numpy.ndarray] = None,
    ) -> Tuple[float, Any]:
        """Negative log-likelihood, a mean over the Docs whose spans are known, and its gradient for the outputs.

        model (Model): The model; gradients of what comes behind the outputs are added up in it.
        texts (Sequence[Text]): The Docs.
        outputs (Any): The model's output.
        spans (Sequence[Target]): What is there. Each can be said.
        nested (bool): Whether spans may overlap.
        weight (float): Multiplies the gradients, but not the loss.
        shares (Optional[numpy.ndarray]): Of each Doc's loss, what counts. None: all of it. Float, (n_docs,).
        """
        raise NotImplementedError

    def log_probabilities(
        self, model: Model, texts: Sequence[Text], outputs: Any, spans: Sequence[Sequence[NumberedSpan]], nested: bool
    ) -> List[float]:
        """RETURNS (List[float]): Of exactly these spans in each Doc, in nats."""
        raise NotImplementedError

    def readings(self, model: Model, texts: Sequence[Text], outputs: Any, n: int, nested: bool) -> List[Generated]:
        """RETURNS (List[Generated]): The best readings of each Doc that a beam of width n finds."""
        raise NotImplementedError


def name_words(label: str) -> List[str]:
    """RETURNS (List[str]): The words in the name of a label, in small letters: it as it is if there is none."""
    return [word.lower() for word in WORD.findall(label)] or [label]


def get_generator(model: Model) -> Generator:
    """RETURNS (Generator): That of a model of `seq2seq_ner`."""
    return model.attrs[GENERATOR]
