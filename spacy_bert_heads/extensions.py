"""`span._.confidence`, `doc._.ents_confidence`, `doc._.ents_uncertainty`, `doc._.cats_chosen`, `doc._.cats_set` and
`doc._.ents_set`, registered when this module is imported.

Whatever makes a pipeline imports it, through our entry points; so does unpickling a Doc that holds a confidence.
A program that reads Docs from bytes or a DocBin and makes no pipeline: `import spacy_bert_heads.extensions`.
"""

from functools import partial
from typing import Any, List, NamedTuple, Optional

from spacy.tokens import Doc, Span

NAME, ENTS_NAME, UNCERTAINTY_NAME = "confidence", "ents_confidence", "ents_uncertainty"
CHOSEN_NAME, CATS_SET_NAME, ENTS_SET_NAME = "cats_chosen", "cats_set", "ents_set"
# Lists of a Doc that are None until a component sets them
LIST_NAMES = (
    # List[str], likeliest first: the labels that reach their thresholds; empty: the head abstains
    CHOSEN_NAME,
    # List[str], likeliest first: the labels that may be true, from `bert-heads calibrate --coverage`
    CATS_SET_NAME,
    # List[Tuple[int, int, str, float]]: first token, token after the last, label and probability of the entities
    # that may be there, likeliest first. From the same
    ENTS_SET_NAME,
)


class Confidence(NamedTuple):
    """What `doc.user_data` holds for an entity, under spaCy's own key for a value of a span, which moves with the
    span in `Doc.from_docs` and `span.as_doc`. From bytes it comes back as a plain pair.

    label (str): The entity's label when the value was set: spaCy's key knows the characters only.
    value (float): Probability of the entity.
    """

    label: str
    value: float


def get_confidence(span: Span) -> Optional[float]:
    """RETURNS (Optional[float]): Probability of exactly this entity, 0 to 1, as `bert_ner` set it. None for any
    other span, and for one whose label has been changed."""
    stored = span.doc.user_data.get(_key(span))
    return stored[1] if stored is not None and stored[0] == span.label_ else None


def set_confidence(span: Span, value: Any) -> None:
    """Keep the probability of an entity.

    span (Span): The entity.
    value (Any): The probability, None to take it away, or a Confidence.
    """
    if value is None:
        span.doc.user_data.pop(_key(span), None)
    elif isinstance(value, (tuple, list)):  # from Doc.from_json
        span.doc.user_data[_key(span)] = Confidence(*value)
    else:
        span.doc.user_data[_key(span)] = Confidence(span.label_, float(value))


def get_ents_confidence(doc: Doc) -> List[Optional[float]]:
    """RETURNS (List[Optional[float]]): `span._.confidence` of each entity in `doc.ents`."""
    return [get_confidence(ent) for ent in doc.ents]


def get_list(name: str, doc: Doc) -> Optional[List[Any]]:
    """RETURNS (Optional[List[Any]]): A value of LIST_NAMES, whose tuples may come back from bytes as lists."""
    stored = doc.user_data.get(("._.", name, None, None))  # type: ignore[call-overload]
    return None if stored is None else [tuple(item) if isinstance(item, list) else item for item in stored]


def set_list(name: str, doc: Doc, value: Optional[List[Any]]) -> None:
    """Keep a value of LIST_NAMES where spaCy keeps the values of its extensions."""
    doc.user_data[("._.", name, None, None)] = value  # type: ignore[index]


def forget_confidence(doc: Doc, *, keep: List[Span]) -> None:
    """Take away what is stored for anything but some entities.

    doc (Doc): The Doc.
    keep (List[Span]): Entities whose confidence stays, unless their label has changed.
    """
    kept = {_key(ent): ent.label_ for ent in keep}
    for key, stored in list(doc.user_data.items()):
        if isinstance(key, tuple) and key[:2] == ("._.", NAME) and kept.get(key) != stored[0]:
            del doc.user_data[key]


def _key(span: Span) -> Any:  # spaCy's stubs know string keys only
    return "._.", NAME, span.start_char, span.end_char


if not Span.has_extension(NAME):
    Span.set_extension(NAME, getter=get_confidence, setter=set_confidence)
if not Doc.has_extension(ENTS_NAME):
    Doc.set_extension(ENTS_NAME, getter=get_ents_confidence)
if not Doc.has_extension(UNCERTAINTY_NAME):
    # layers.crf.paths.Uncertainty, where bert_ner was asked for it (annotates_uncertainty)
    Doc.set_extension(UNCERTAINTY_NAME, default=None)
for _name in LIST_NAMES:
    if not Doc.has_extension(_name):
        Doc.set_extension(_name, getter=partial(get_list, _name), setter=partial(set_list, _name))
