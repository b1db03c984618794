"""`span._.confidence`, `doc._.ents_confidence`, `doc._.ents_uncertainty`, `doc._.spans_uncertainty`,
`doc._.cats_chosen`, `doc._.cats_set`, `doc._.ents_set` and `doc._.silver`, registered when this module is imported.

Whatever makes a pipeline imports it, through our entry points; so does unpickling a Doc that holds a confidence.
A program that reads Docs from bytes or a DocBin and makes no pipeline: `import spacy_bert_heads.extensions`.
"""

from functools import partial
from typing import Any, Dict, Iterable, List, NamedTuple, Optional

from spacy.tokens import Doc, Span

NAME, ENTS_NAME = "confidence", "ents_confidence"
UNCERTAINTY_NAMES = ("ents_uncertainty", "spans_uncertainty")
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
# float, above 0 and at most 1, in `doc.user_data` under this name, of a Doc whose annotation nobody has reviewed: how
# much it counts in training beside one of people. None of any other Doc
SILVER = "silver"
# Where a span is: None is doc.ents, anything else a key of doc.spans
Place = Optional[str]


class Confidence(NamedTuple):
    """What is stored of one span. From bytes it comes back as a plain list.

    `doc.user_data` holds a list of these under spaCy's own key for a value of a span, which knows the characters only
    and moves with the text in `Doc.from_docs` and `span.as_doc`. Spans of several labels, in `doc.ents` and in groups
    of `doc.spans`, may have the same characters.

    label (str): The span's label when the value was set.
    value (float): Probability of the span.
    place (Place): The key of its group, None for `doc.ents`.
    """

    label: str
    value: float
    place: Place = None


def get_confidence(span: Span) -> Optional[float]:
    """A span does not know the group that it is from: where several hold these characters and this label, the value in
    `doc.ents` comes first, then those of groups in the order in which they were set. `get_confidence_in` asks for one.

    RETURNS (Optional[float]): Probability of exactly this span, 0 to 1, as `bert_ner`, `bert_spans` or `seq2seq_ner`
        set it. None for any other span, and for one whose label has been changed.
    """
    found = [one for one in _read(span.doc, _key(span)) if one.label == span.label_]
    first = min(found, key=lambda one: one.place is not None, default=None)
    return None if first is None else first.value


def get_confidence_in(span: Span, place: Place) -> Optional[float]:
    """Probability of a span as a member of one group.

    span (Span): The span.
    place (Place): Key of `doc.spans`, or None for `doc.ents`.
    RETURNS (Optional[float]): 0 to 1, or None.
    """
    for one in _read(span.doc, _key(span)):
        if (one.label, one.place) == (span.label_, place):
            return one.value
    return None


def set_confidence(span: Span, value: Any, place: Place = None) -> None:
    """Keep the probability of a span.

    span (Span): The span.
    value (Any): The probability, None to take it away wherever it is, or what `Doc.to_json` wrote.
    place (Place): Key of the group in `doc.spans`, or None for `doc.ents`.
    """
    key, stored = _key(span), _read(span.doc, _key(span))
    if value is None:
        stored = [one for one in stored if one.label != span.label_]
    elif isinstance(value, (tuple, list)):  # from Doc.from_json
        stored = [Confidence(*one) for one in value]
    else:
        stored = [one for one in stored if (one.label, one.place) != (span.label_, place)]
        stored.append(Confidence(span.label_, float(value), place))
    _write(span.doc, key, stored)


def get_ents_confidence(doc: Doc) -> List[Optional[float]]:
    """RETURNS (List[Optional[float]]): The confidence of each entity in `doc.ents`."""
    return [get_confidence_in(ent, None) for ent in doc.ents]


def get_list(name: str, doc: Doc) -> Optional[List[Any]]:
    """RETURNS (Optional[List[Any]]): A value of LIST_NAMES, whose tuples may come back from bytes as lists."""
    stored = doc.user_data.get(("._.", name, None, None))  # type: ignore[call-overload]
    return None if stored is None else [tuple(item) if isinstance(item, list) else item for item in stored]


def set_list(name: str, doc: Doc, value: Optional[List[Any]]) -> None:
    """Keep a value of LIST_NAMES where spaCy keeps the values of its extensions."""
    doc.user_data[("._.", name, None, None)] = value  # type: ignore[index]


def get_silver(doc: Doc) -> Optional[float]:
    """RETURNS (Optional[float]): How much a Doc whose annotation nobody has reviewed counts in training, above 0 and
    at most 1. None of any other Doc, and where no such number is stored.
    """
    value: Any = doc.user_data.get(SILVER)
    return float(value) if type(value) in (int, float) and 0.0 < value <= 1.0 else None


def set_silver(doc: Doc, value: Optional[float]) -> None:
    """Mark a Doc as one that nobody has reviewed, or with None as one of people."""
    if value is None:
        doc.user_data.pop(SILVER, None)
    else:
        doc.user_data[SILVER] = float(value)


def forget_confidence(doc: Doc, *, keep: Iterable[Span], place: Place = None) -> None:
    """Take away what is stored of one place for anything but some spans. Other places are left as they are.

    doc (Doc): The Doc.
    keep (Iterable[Span]): Spans whose confidence stays, unless their label has changed.
    place (Place): Key of the group in `doc.spans`, or None for `doc.ents`.
    """
    kept = {(_key(span), span.label_) for span in keep}
    for key in [key for key in doc.user_data if isinstance(key, tuple) and key[:2] == ("._.", NAME)]:
        stored = _read(doc, key)
        _write(doc, key, [one for one in stored if one.place != place or (key, one.label) in kept])


def set_group_confidence(doc: Doc, place: str, spans: Iterable[Span], values: Iterable[float]) -> None:
    """Keep the probabilities of a whole group, in place of what was stored of it.

    doc (Doc): The Doc.
    place (str): Key of the group in `doc.spans`.
    spans (Iterable[Span]): The spans.
    values (Iterable[float]): Their probabilities.
    """
    forget_confidence(doc, keep=(), place=place)
    added: Dict[Any, List[Confidence]] = {}
    for span, value in zip(spans, values):
        added.setdefault(_key(span), []).append(Confidence(span.label_, float(value), place))
    for key, new in added.items():
        _write(doc, key, _read(doc, key) + new)


def _key(span: Span) -> Any:  # spaCy's stubs know string keys only
    return "._.", NAME, span.start_char, span.end_char


def _read(doc: Doc, key: Any) -> List[Confidence]:
    stored = doc.user_data.get(key, ())
    if stored and isinstance(stored[0], str):  # one entity by itself, as version 0.1.0 wrote it
        stored = [stored]
    return [Confidence(*one) for one in stored]


def _write(doc: Doc, key: Any, stored: List[Confidence]) -> None:
    if stored:
        doc.user_data[key] = stored
    else:
        doc.user_data.pop(key, None)


if not Span.has_extension(NAME):
    Span.set_extension(NAME, getter=get_confidence, setter=set_confidence)
if not Doc.has_extension(ENTS_NAME):
    Doc.set_extension(ENTS_NAME, getter=get_ents_confidence)
for _name in UNCERTAINTY_NAMES:
    # layers.crf.paths.Uncertainty, where bert_ner or bert_spans was asked for it (annotates_uncertainty)
    if not Doc.has_extension(_name):
        Doc.set_extension(_name, default=None)
if not Doc.has_extension(SILVER):
    Doc.set_extension(SILVER, getter=get_silver, setter=set_silver)
for _name in LIST_NAMES:
    if not Doc.has_extension(_name):
        Doc.set_extension(_name, getter=partial(get_list, _name), setter=partial(set_list, _name))
