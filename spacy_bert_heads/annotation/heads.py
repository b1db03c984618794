"""Which components of a pipeline find entities and classify texts: ours and spaCy's."""

from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

from spacy.language import Language

from ..errors import BertHeadsError
from ..factory_names import EXCLUSIVE_FACTORIES, GENERATION_FACTORY, MULTILABEL_FACTORIES, finds_entities

TEXTCAT_FACTORIES = (*EXCLUSIVE_FACTORIES, *MULTILABEL_FACTORIES)
# Of these, nobody can say how sure they are of an entity, or of each token.
UNSCORED_FACTORIES = ("ner", "beam_ner", GENERATION_FACTORY)


class Head(NamedTuple):
    """A component that annotates.

    name (str): Its name in the pipeline.
    labels (Tuple[str, ...]): What it can say.
    exclusive (bool): Whether exactly one of the labels holds for a text; False of entities.
    scored (bool): Whether it says how sure it is.
    """

    name: str
    labels: Tuple[str, ...]
    exclusive: bool
    scored: bool

    @property
    def choice_style(self) -> str:
        """RETURNS (str): How many labels may be chosen for a text: "single" or "multiple"."""
        return "single" if self.exclusive else "multiple"


class Heads(NamedTuple):
    """The heads of a pipeline that the annotation loop works with.

    ner (Optional[Head]): Finds entities.
    textcat (Optional[Head]): Classifies texts.
    """

    ner: Optional[Head]
    textcat: Optional[Head]


def find_heads(nlp: Language, components: Sequence[str] = ()) -> Heads:
    """Find the heads by their factories.

    nlp (Language): The pipeline. Components that are disabled do not count.
    components (Sequence[str]): Which to take where there are several of a kind; otherwise it is the first.
    RETURNS (Heads): The heads, as far as there are any.
    RAISES (BertHeadsError): H560 if a name is not one of a head.
    """
    ner = [name for name in nlp.pipe_names if finds_entities(nlp.get_pipe_meta(name).factory, nlp.get_pipe(name))]
    textcat = [name for name in nlp.pipe_names if nlp.get_pipe_meta(name).factory in TEXTCAT_FACTORIES]
    for name in components:
        if name not in ner + textcat:
            raise BertHeadsError("H560", found=name, expected=", ".join(ner + textcat) or "none")
    return Heads(_head(nlp, ner, components), _head(nlp, textcat, components))


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
    )
