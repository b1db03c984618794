"""A predicted Doc -> Prodigy tasks, for each of the interfaces in which people answer."""

from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

from spacy.language import Language
from spacy.tokens import Doc

from ..corpus.readers.prodigy import TEACHER
from ..corpus.writers.exported import THRESHOLD
from ..corpus.writers.prodigy import CHOICE_BLOCK, write_options, write_spans, write_tokens
from ..errors import BertHeadsError
from ..factory_names import GENERATION_FACTORY, NER_FACTORIES, SPANS_FACTORIES
from ..pipeline_io import model_name
from .hashes import set_hashes
from .heads import TEXTCAT_FACTORIES, Head, Heads, find_heads, found_spans

Task = Dict[str, Any]

NER_VIEWS = ("ner_manual", "ner")
SPANS_VIEWS = ("spans_manual", "spans")
TEXTCAT_VIEWS = ("choice", "classification", "blocks")
VIEWS = ("ner_manual", "ner", "spans_manual", "spans", "choice", "classification", "blocks")
# They ask yes or no about one suggestion.
BINARY_VIEWS = ("ner", "spans", "classification")
# An entity of the best reading can be improbable where all other readings are even more so. Of suggestions below this,
# annotators would have to remove nearly all, and would be asked what is known; one that they overlook is learned.
MIN_CONFIDENCE = 0.05
# For views that do not ask about such labels.
NO_HEAD = Head(name="", labels=(), exclusive=False, scored=False)
# What an earlier task asked and an annotator said.
ANSWER_KEYS = (
    *("tokens", "spans", "label", "options", "accept", "answer", "config", TEACHER),
    *("_input_hash", "_task_hash", "_view_id", "_is_binary", "_session_id", "_annotator_id", "_timestamp"),
)


def default_view(heads: Heads) -> str:
    """RETURNS (str): The interface that asks about everything the heads predict, predictions filled in; of entities
    and spans, about entities."""
    if heads.finder is not None and heads.textcat is not None:
        return "blocks"
    return "ner_manual" if heads.ner is not None else "spans_manual" if heads.spans is not None else "choice"


def asked_heads(heads: Heads, view: str) -> Heads:
    """RETURNS (Heads): Those that an interface asks about, as far as there are any. `blocks` asks about entities, or
    where no head finds them about spans."""
    return Heads(
        ner=heads.ner if view in (*NER_VIEWS, "blocks") else None,
        textcat=heads.textcat if view in TEXTCAT_VIEWS else None,
        spans=heads.spans if view in SPANS_VIEWS or (view == "blocks" and heads.ner is None) else None,
    )


def blocks(heads: Heads) -> List[Dict[str, Any]]:
    """RETURNS (List[Dict[str, Any]]): The interfaces of `blocks`; the text need not be shown twice."""
    return [{"view_id": "ner_manual" if heads.spans is None else "spans_manual"}, CHOICE_BLOCK]


class TaskMaker:
    """Makes the tasks of one interface, with what the pipeline predicts filled in.

    ner_manual: one task with all entities of a probability of at least MIN_CONFIDENCE. If only some labels are shown,
    `config` names them, so that our reader knows that the others were not asked about.
    ner: yes or no, one task for each entity of at least this probability, so perhaps none.
    spans_manual, spans: the same of spans that may overlap.
    choice: one task with all labels as options, each with its probability; of exclusive ones the likeliest is chosen,
    of others all from 0.5 on.
    classification: yes or no, one task for each of the given labels; if none are given one for the likeliest label,
    or where labels are not exclusive for the one nearest to 0.5.
    blocks: entities, or spans where no head finds entities, and choice in one task.

    Hashes are those that Prodigy's own recipes would set: of the text, and of the text and what is asked about it,
    options excepted, which `textcat.manual` adds after hashing.

    nlp (Language): The pipeline that predicts the Docs.
    view (str): One of VIEWS.
    labels (Optional[Sequence[str]]): Labels to ask about. None: all. In "blocks", a head of which none is named asks
        about all of its own.
    components (Sequence[str]): Which heads to take where the pipeline has several of a kind; otherwise the first.
    RAISES (BertHeadsError): H560 if a component is no head, H561 if there is no such view, H562 if the pipeline lacks
        a head that it needs, H563 for a label that no head of the view has.

    heads (Heads): Those that the view asks about.
    span_labels, textcat_labels (List[str]): What is asked about, in the order of the pipeline; empty if the view does
        not ask about such labels. The first are those of entities or of spans.
    """

    def __init__(
        self,
        nlp: Language,
        view: str,
        *,
        labels: Optional[Sequence[str]] = None,
        components: Sequence[str] = (),
    ) -> None:
        if view not in VIEWS:
            raise BertHeadsError("H561", found=repr(view), expected=", ".join(VIEWS))
        found = find_heads(nlp, components)
        self.view = view
        self.heads = asked_heads(found, view)
        ner = (*NER_FACTORIES, GENERATION_FACTORY)
        finders = {"blocks": (*ner, *SPANS_FACTORIES), **dict.fromkeys(NER_VIEWS, ner)}
        if view not in ("choice", "classification"):
            _check_head(self.heads.finder, finders.get(view, SPANS_FACTORIES), nlp, view)
        if view in TEXTCAT_VIEWS:
            _check_head(self.heads.textcat, TEXTCAT_FACTORIES, nlp, view)
        self._finder, self._textcat = self.heads.finder or NO_HEAD, self.heads.textcat or NO_HEAD
        known = [*self._finder.labels, *self._textcat.labels]
        if labels is not None and not set(labels) <= set(known):
            unknown = ", ".join(sorted(set(labels) - set(known)))
            raise BertHeadsError("H563", found=unknown, expected=", ".join(known))
        self.span_labels = _asked(self._finder, labels)
        self.textcat_labels = _asked(self._textcat, labels)
        self._one_each = labels is not None
        self._model = model_name(nlp)
        self._ask: Callable[[Task, Doc], List[Task]] = {
            "ner_manual": self._ask_ents,
            "ner": self._ask_each_ent,
            "spans_manual": self._ask_ents,
            "spans": self._ask_each_ent,
            "choice": self._ask_choice,
            "classification": self._ask_label,
            "blocks": self._ask_both,
        }[view]

    def make(
        self, doc: Doc, *, meta: Optional[Mapping[str, Any]] = None, record: Optional[Mapping[str, Any]] = None
    ) -> List[Task]:
        """Make the tasks of a text.

        doc (Doc): With the predictions of all heads.
        meta (Optional[Mapping[str, Any]]): What the annotator sees beside the text. In the views that ask yes or no,
            `score` is the probability of what is asked about, unless it is given here.
        record (Optional[Mapping[str, Any]]): The source of the text, whose other keys are kept. What an earlier answer
            to it says is not, nor are its hashes: they may be those of another text.
        RETURNS (List[Dict[str, Any]]): The tasks, ready to be written as JSON.
        """
        kept = {key: value for key, value in (record or {}).items() if key not in ANSWER_KEYS}
        tasks = self._ask({**kept, "text": doc.text}, doc)
        for task in tasks:
            if meta:
                task["meta"] = {**_meta(task), **meta}
            # Prodigy sets it too; where answers do not come from there, it tells our reader what was asked
            task["_view_id"] = self.view
        return tasks

    def _ask_ents(self, loaded: Task, doc: Doc) -> List[Task]:
        task = {**set_hashes({**loaded, "spans": self._spans(doc)}), "tokens": write_tokens(doc)}
        if len(self.span_labels) < len(self._finder.labels):
            task["config"] = {"labels": self.span_labels}
        return [task]

    def _ask_each_ent(self, loaded: Task, doc: Doc) -> List[Task]:
        tasks = []
        for span in self._spans(doc):
            task = set_hashes({**loaded, "spans": [span]})
            text = doc.text[span["start"] : span["end"]]
            task["spans"] = [{**span, "text": text, "rank": 0, "input_hash": task["_input_hash"]}]
            tasks.append({**_with_score(task, span.get("score")), "tokens": write_tokens(doc)})
        return tasks

    def _ask_choice(self, loaded: Task, doc: Doc) -> List[Task]:
        return [{**set_hashes(loaded), **self._choice(doc)}]

    def _ask_label(self, loaded: Task, doc: Doc) -> List[Task]:
        labels = self.textcat_labels if self._one_each else [self._most_telling(doc)]
        return [_with_score(set_hashes({**loaded, "label": label}), doc.cats[label]) for label in labels]

    def _ask_both(self, loaded: Task, doc: Doc) -> List[Task]:
        [task] = self._ask_ents(loaded, doc)
        choice = self._choice(doc)
        config = {**task.get("config", {}), **choice["config"], "blocks": blocks(self.heads)}
        return [{**task, **choice, "config": config}]

    def _spans(self, doc: Doc) -> List[Dict[str, Any]]:
        found = [
            (span, confidence)
            for span, confidence in found_spans(doc, self.heads.finder)
            if span.label_ in self.span_labels and (confidence is None or confidence >= MIN_CONFIDENCE)
        ]
        return write_spans([span for span, _ in found], [confidence for _, confidence in found], self._model)

    def _choice(self, doc: Doc) -> Dict[str, Any]:
        if self._textcat.exclusive:
            accept = {_likeliest(self._textcat, doc)}
        else:
            accept = {label for label in self.textcat_labels if doc.cats[label] >= THRESHOLD}
        return {
            "options": write_options(doc, self.textcat_labels, self._model),
            "accept": [label for label in self.textcat_labels if label in accept],
            "config": {"choice_style": self._textcat.choice_style},
        }

    def _most_telling(self, doc: Doc) -> str:
        if self._textcat.exclusive:
            return _likeliest(self._textcat, doc)
        return min(self._textcat.labels, key=lambda label: abs(doc.cats[label] - 0.5))


def _check_head(head: Optional[Head], factories: Sequence[str], nlp: Language, view: str) -> None:
    if head is None:
        raise BertHeadsError(
            "H562", found=", ".join(nlp.pipe_names) or "nothing", view=view, expected=", ".join(factories)
        )


def _asked(head: Head, labels: Optional[Sequence[str]]) -> List[str]:
    named = [label for label in head.labels if label in (labels or ())]
    return named or list(head.labels)


def _likeliest(head: Head, doc: Doc) -> str:
    return max(head.labels, key=lambda label: doc.cats[label])


def _with_score(task: Task, score: Optional[float]) -> Task:
    return task if score is None else {**task, "meta": {**_meta(task), "score": score}}


def _meta(task: Task) -> Dict[str, Any]:
    meta = task.get("meta")
    return meta if isinstance(meta, dict) else {}


def split_names(names: Optional[str]) -> List[str]:
    """RETURNS (List[str]): Names, as of labels, that were given with commas between them."""
    return [name.strip() for name in (names or "").split(",") if name.strip()]
