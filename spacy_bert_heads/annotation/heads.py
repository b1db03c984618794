"""Which components of a pipeline find entities or spans, and classify texts: ours and spaCy's."""

from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

from spacy.language import Language
from spacy.tokens import Doc, Span

from ..errors import BertHeadsError
from ..extensions import get_confidence_in
from ..factory_names import (
    EXCLUSIVE_FACTORIES,
    GENERATION_FACTORY,
    MULTILABEL_FACTORIES,
    SPANS_FACTORIES,
    finds_entities,
)

TEXTCAT_FACTORIES = (*EXCLUSIVE_FACTORIES, *MULTILABEL_FACTORIES)
# Of these, nobody can say how sure they are of a text, or of each token.
UNSCORED_FACTORIES = ("ner", "beam_ner", "spancat", "spancat_singlelabel", GENERATION_FACTORY)


class Head(NamedTuple):
    """A component that annotates.

    name (str): Its name in the pipeline.
    labels (Tuple[str, ...]): What it can say.
    exclusive (bool): Whether exactly one of the labels holds for a text; False of entities.
    scored (bool): Whether it says how sure it is.
    spans_key (Optional[str]): Key of `doc.spans` where it writes. None: not there.
    """

    name: str
    labels: Tuple[str, ...]
    exclusive: bool
    scored: bool
    spans_key: Optional[str] = None

    @property
    def choice_style(self) -> str:
        """RETURNS (str): How many labels may be chosen for a text: "single" or "multiple"."""
        return "single" if self.exclusive else "multiple"


class Heads(NamedTuple):
    """The heads of a pipeline that the annotation loop works with.

    ner (Optional[Head]): Finds entities.
    textcat (Optional[Head]): Classifies texts.
    spans (Optional[Head]): Finds spans that may overlap.
    """

    ner: Optional[Head]
    textcat: Optional[Head]
    spans: Optional[Head] = None

    @property
    def finder(self) -> Optional[Head]:
        """RETURNS (Optional[Head]): The one that is asked about stretches of a text: entities, or else spans."""
        return self.ner or self.spans


def find_heads(nlp: Language, components: Sequence[str] = ()) -> Heads:
    """Find the heads by their factories.

    nlp (Language): The pipeline. Components that are disabled do not count.
    components (Sequence[str]): Which to take where there are several of a kind; otherwise it is the first.
    RETURNS (Heads): The heads, as far as there are any.
    RAISES (BertHeadsError): H560 if a name is not one of a head.
    """
    factories = {name: nlp.get_pipe_meta(name).factory for name in nlp.pipe_names}
    ner = [name for name, factory in factories.items() if finds_entities(factory, nlp.get_pipe(name))]
    textcat = [name for name, factory in factories.items() if factory in TEXTCAT_FACTORIES]
    spans = [name for name, factory in factories.items() if factory in SPANS_FACTORIES]
    known = [*ner, *textcat, *spans]
    for name in components:
        if name not in known:
            raise BertHeadsError("H560", found=name, expected=", ".join(known) or "none")
    return Heads(*(_head(nlp, names, components) for names in (ner, textcat, spans)))


def found_spans(doc: Doc, head: Optional[Head]) -> List[Tuple[Span, Optional[float]]]:
    """What a head found in a Doc.

    doc (Doc): Predicted.
    head (Optional[Head]): It finds entities or spans. None: entities.
    RETURNS (List[Tuple[Span, Optional[float]]]): Entities or spans and their probabilities, where these are known.
    """
    key = None if head is None else head.spans_key
    spans = doc.ents if key is None else doc.spans.get(key, ())
    return [(span, get_confidence_in(span, key)) for span in spans]


def _head(nlp: Language, names: List[str], components: Sequence[str]) -> Optional[Head]:
    if not names:
        return None
    name = next((name for name in names if name in components), names[0])
    component: Any = nlp.get_pipe(name)
    factory = nlp.get_pipe_meta(name).factory
    return Head(
        name=name,
        labels=tuple(component.labels),
        exclusive=factory in EXCLUSIVE_FACTORIES,
        scored=factory not in UNSCORED_FACTORIES,
        spans_key=getattr(component, "spans_key", getattr(component, "key", None)),  # ours, and spaCy's
    )
