"""One pass of a trained pipeline over annotated texts: all scores, and every mistake."""

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Union

import numpy
from spacy.language import Language
from spacy.scorer import Scorer
from spacy.training import Corpus, Example
from spacy.util import fix_random_seed
from spacy.vocab import Vocab

from ..corpus.doc_bins import read_doc_bins
from ..corpus.readers.formats import AUTO, ReadOptions
from ..corpus.splits import DEFAULT_SPLIT, parse_split, split_key
from ..corpus.training_corpus import AnnotationCorpus
from ..errors import BertHeadsError
from ..factory_names import EXCLUSIVE_FACTORIES, MULTILABEL_FACTORIES, SCORE_FACTORY, finds_entities, finds_spans
from ..pipeline.fitted import label_thresholds
from ..pipeline_io import load_pipeline, model_name
from .bootstrap import mean_interval
from .category_scores import ExclusiveScorer, MultilabelScorer, NumberScorer
from .entity_scores import EntityScorer
from .label_scores import Mistake
from .records import add_to_record, begin_record, describe_run
from .span_scores import SpanScorer

RULER_FACTORY = "entity_ruler"
SPACY_TEXT_FACTORIES = ("textcat", "textcat_multilabel")
# Texts whose numbers are furthest off, for each target
N_FAR_OFF = 200
# Labels that a note names
N_NAMED = 20
# What a mistake counts in the order of texts if nothing says how sure the pipeline was
UNSURE = 0.5

CategoryScorer = Union[ExclusiveScorer, MultilabelScorer, NumberScorer]


class WrongText(NamedTuple):
    """A text with mistakes.

    number (int): Which text of the corpus it is, counted from 1.
    example (Example): Prediction and gold annotation.
    mistakes (List[Mistake]): What is wrong.
    weight (float): How wrong: mistakes count as much as the pipeline was sure of them.
    """

    number: int
    example: Example
    mistakes: List[Mistake]
    weight: float


@dataclass
class Evaluation:
    """What an evaluation found.

    model (str): Language, name and version of the pipeline.
    corpus (str): The annotated texts.
    docs (int): How many there are.
    scores (Dict[str, Any]): What the pipeline's own scorers say.
    notes (List[str]): What was not scored, and why.
    entities (Optional[Dict[str, Any]]): See EntityScorer.to_dict; None if nothing can be scored.
    spans (List[Dict[str, Any]]): See SpanScorer.to_dict; of each component that finds spans that may overlap.
    categories (List[Dict[str, Any]]): The same of each text head.
    texts (Dict[str, Any]): How many texts are right in everything that is known of them.
    numbers (List[NumberScorer]): Gold and predicted numbers, to be drawn.
    wrong (List[WrongText]): Texts with mistakes, the worst first.
    run (Dict[str, Any]): When it was and with what; see records.describe_run.
    records (List[Dict[str, Any]]): Gold and prediction of each text; see records.add_to_record.
    """

    model: str
    corpus: str
    docs: int
    scores: Dict[str, Any]
    notes: List[str] = field(default_factory=list)
    entities: Optional[Dict[str, Any]] = None
    spans: List[Dict[str, Any]] = field(default_factory=list)
    categories: List[Dict[str, Any]] = field(default_factory=list)
    texts: Dict[str, Any] = field(default_factory=dict)
    numbers: List[NumberScorer] = field(default_factory=list)
    wrong: List[WrongText] = field(default_factory=list)
    run: Dict[str, Any] = field(default_factory=dict)
    records: List[Dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> Dict[str, Any]:
        """RETURNS (Dict[str, Any]): The scores of the pipeline's scorers by their own names, ours, and all texts. For
        JSON."""
        return {
            "docs": self.docs,
            **self.scores,
            "model": self.model,
            "corpus": self.corpus,
            "run": self.run,
            "notes": self.notes,
            "texts": self.texts,
            "entities": self.entities,
            **({"spans": self.spans} if self.spans else {}),
            "categories": self.categories,
            "records": self.records,
        }


def evaluate(
    model: str,
    corpus: Path,
    *,
    format: str = AUTO,
    options: Optional[ReadOptions] = None,
    off_tokens: str = "error",
    skip_bad: bool = False,
    with_uncertainty: bool = False,
    train: Optional[Path] = None,
) -> Evaluation:
    """Score a trained pipeline on annotated texts.

    model (str): Folder or package of the pipeline.
    corpus (Path): A `.spacy` file, a folder of them, or a file of any format that `convert` reads.
    format (str): Its format; "auto" looks at the content.
    options (Optional[ReadOptions]): What the file does not say about itself.
    off_tokens (str): Spans not at token boundaries: "error", "drop", "expand" or "split".
    skip_bad (bool): Whether to leave bad records out.
    with_uncertainty (bool): Whether to keep on each Doc how sure the head is of each token.
    train (Optional[Path]): Texts that the pipeline was trained on, so that a note can say how many of these there are.
        None: the file that its config names, if that is there.
    RETURNS (Evaluation): Scores and mistakes. What cannot be scored is named in its notes.
    RAISES (BertHeadsError): H1xx or H315 if the data cannot be read, H227 if the pipeline cannot.
    """
    if not corpus.exists():
        raise BertHeadsError("H101", path=corpus)
    nlp = load_pipeline(model)
    notes: List[str] = []
    try:
        reading = _with_spans(nlp, options or ReadOptions())
        examples = list(read_examples(nlp, corpus, format, reading, off_tokens, skip_bad))
    except BertHeadsError as error:
        if error.code not in ("H117", "H162"):
            raise
        examples = []
        notes.append(str(error))
    notes += note_trained_on(nlp, examples, train)
    fix_random_seed()
    scorer = _KeepingScorer(nlp=nlp)
    with _keep_uncertainty(nlp, with_uncertainty):
        scores = nlp.evaluate(examples, scorer=scorer)
    evaluation = evaluate_examples(nlp, scorer.examples)
    evaluation.corpus, evaluation.scores = str(corpus), scores
    evaluation.run = describe_run(nlp)
    evaluation.notes[:0] = notes
    return evaluation


def evaluate_predicted(nlp: Language, examples: Sequence[Example]) -> Evaluation:
    """Score predictions that have been made, also by the pipeline's own scorers.

    nlp (Language): The pipeline, whose heads say what is to be scored. It need not have made the predictions.
    examples (Sequence[Example]): Predictions and gold annotation.
    RETURNS (Evaluation): Scores and mistakes.
    """
    evaluation = evaluate_examples(nlp, examples)
    evaluation.scores, evaluation.run = Scorer(nlp=nlp).score(examples), describe_run(nlp)
    return evaluation


def evaluate_examples(nlp: Language, examples: Sequence[Example]) -> Evaluation:
    """Score predictions that have been made.

    nlp (Language): The pipeline, whose heads say what is to be scored.
    examples (Sequence[Example]): Predictions and gold annotation.
    RETURNS (Evaluation): Scores and mistakes, without those of the pipeline's own scorers.
    """
    evaluation = Evaluation(model_name(nlp), "", len(examples), {})
    gold = _count_gold(examples)
    entities = _find_entity_scorer(nlp)
    spans = _find_span_scorers(nlp)
    categories = _find_category_scorers(nlp, gold)
    scorers = [*([entities] if entities else []), *spans, *categories]
    mistakes: List[List[Mistake]] = [[] for _ in examples]
    weights = numpy.zeros(len(examples))
    outcomes: List[float] = []
    for number, eg in enumerate(examples):
        results = []
        evaluation.records.append(begin_record(eg))
        for scorer in scorers:
            right, found = scorer.add(eg)
            add_to_record(evaluation.records[-1], scorer, eg, right, found)
            mistakes[number] += found
            results.append(right)
        for mistake in mistakes[number]:
            weights[number] += UNSURE if mistake.confidence is None else mistake.confidence
        if any(right is not None for right in results):
            outcomes.append(float(False not in results))
    for scorer in categories:
        if isinstance(scorer, NumberScorer):
            evaluation.numbers.append(scorer)
            for number, mistake, weight in scorer.worst(N_FAR_OFF):
                mistakes[number].append(mistake)
                weights[number] += weight
    evaluation.entities = entities.to_dict() if entities else None
    evaluation.spans = [found.to_dict() for found in spans]
    evaluation.categories = [scorer.to_dict() for scorer in categories]
    evaluation.texts = {
        "scored": len(outcomes),
        "accuracy": sum(outcomes) / len(outcomes) if outcomes else None,
        "accuracy_interval": mean_interval(numpy.array(outcomes)),
    }
    evaluation.notes = _write_notes(len(examples), gold, entities, categories, spans)
    order = numpy.argsort(-weights, kind="stable").tolist()
    evaluation.wrong = [
        WrongText(number + 1, examples[number], mistakes[number], float(weights[number]))
        for number in order
        if mistakes[number]
    ]
    return evaluation


def judge_texts(nlp: Language, examples: Sequence[Example], components: Sequence[str]) -> List[Optional[bool]]:
    """Say of each text whether it is right in all that is known of it.

    nlp (Language): The pipeline.
    examples (Sequence[Example]): Predictions and gold annotation.
    components (Sequence[str]): The heads that count.
    RETURNS (List[Optional[bool]]): None for a text of which nothing is known.
    """
    scorers: List[Any] = [_find_entity_scorer(nlp), *_find_span_scorers(nlp)]
    scorers += _find_category_scorers(nlp, _count_gold(examples))
    # Several components that find entities have one scorer
    scorers = [one for one in scorers if one is not None and set(one.name.split(", ")) & set(components)]
    found: List[Optional[bool]] = []
    for eg in examples:
        rights = [right for right, _ in (one.add(eg) for one in scorers) if right is not None]
        found.append(all(rights) if rights else None)
    return found


def note_trained_on(nlp: Language, examples: Sequence[Example], train: Optional[Path]) -> List[str]:
    """Say how many texts a pipeline knows from its training, by texts that differ in case and white space at most.

    nlp (Language): The pipeline.
    examples (Sequence[Example]): What it is to be scored on.
    train (Optional[Path]): What it was trained on. None: the `.spacy` file that its config names, if that is there.
    RETURNS (List[str]): A note, or nothing.
    RAISES (BertHeadsError): H1xx or H315 if `train` is given and cannot be read.
    """
    named = nlp.config.get("paths", {}).get("train") if train is None else None
    path = Path(named) if isinstance(named, str) and named else train
    if path is None or (train is None and not path.exists()):
        return []
    if not path.exists():
        raise BertHeadsError("H101", path=path)
    try:
        if _is_spacy(path):
            vocab = Vocab()
            known = {split_key(doc.text) for doc_bin in read_doc_bins(path) for doc in doc_bin.get_docs(vocab)}
        elif train is None:
            return []
        else:
            given = read_examples(nlp, path, AUTO, ReadOptions(), "drop", True)
            known = {split_key(eg.reference.text) for eg in given}
    except BertHeadsError:
        if train is not None:
            raise
        return []
    n_known = sum(split_key(eg.reference.text) in known for eg in examples)
    if not n_known:
        return []
    shared = f"{n_known:,} of {len(examples):,} texts are among those that the pipeline was trained on"
    return [f"{shared} ({path.name}). Scores on them are too good."]


def _is_spacy(path: Path) -> bool:
    return path.suffix == ".spacy" or (path.is_dir() and next(path.rglob("*.spacy"), None) is not None)


class _KeepingScorer(Scorer):
    """`nlp.evaluate` predicts on copies of the Examples, which nobody else sees."""

    examples: List[Example]

    def score(self, examples: Iterable[Example], **kwargs: Any) -> Dict[str, Any]:
        self.examples = list(examples)
        return super().score(self.examples, **kwargs)


class _Gold(NamedTuple):
    """Gold annotation of a corpus: how often each entity label and each category has a value."""

    ents: "Counter[str]"
    cats: "Counter[str]"


def read_examples(
    nlp: Language, path: Path, format: str, options: ReadOptions, off_tokens: str, skip_bad: bool
) -> Iterator[Example]:
    """Read annotated texts.

    nlp (Language): Its tokenizer makes the tokens of the predicted Docs.
    path (Path): A `.spacy` file, a folder of them, or a file of any format that `convert` reads.
    format, options, off_tokens, skip_bad: As for evaluate.
    RETURNS (Iterator[Example]): Texts and gold annotation.
    RAISES (BertHeadsError): H1xx or H315 if the data cannot be read.
    """
    if _is_spacy(path) and format in (AUTO, "spacy"):
        for _ in read_doc_bins(path):
            pass  # says which file cannot be read
        return iter(Corpus(path)(nlp))
    corpus = AnnotationCorpus(
        [path],
        format=format,
        options=options,
        off_tokens=off_tokens,
        skip_bad=skip_bad,
        split=None,
        shares=parse_split(DEFAULT_SPLIT),
        seed=0,
        max_length=0,
        limit=0,
        augmenter=lambda nlp, example: [example],
    )
    return corpus(nlp)


@contextmanager
def _keep_uncertainty(nlp: Language, wanted: bool) -> Iterator[None]:
    heads: List[Any] = [pipe for _, pipe in nlp.pipeline if wanted and hasattr(pipe, "annotates_uncertainty")]
    before = [head.annotates_uncertainty for head in heads]
    try:
        for head in heads:
            head.annotates_uncertainty = True
        yield
    finally:
        for head, value in zip(heads, before):
            head.annotates_uncertainty = value


def _count_gold(examples: Sequence[Example]) -> _Gold:
    gold = _Gold(Counter(), Counter())
    for eg in examples:
        try:
            gold.ents.update(ent.label_ for ent in eg.reference.ents)
        except ValueError:
            pass  # EntityScorer counts it
        gold.cats.update(eg.reference.cats)
    return gold


def _find_entity_scorer(nlp: Language) -> Optional[EntityScorer]:
    pipes: List[Any] = []
    names = []
    for name in nlp.pipe_names:
        pipe, factory = nlp.get_pipe(name), nlp.get_pipe_meta(name).factory
        if factory == RULER_FACTORY or finds_entities(factory, pipe):
            names.append(name)
            pipes.append(pipe)
    labels = dict.fromkeys(label for pipe in pipes for label in pipe.labels)
    return EntityScorer(", ".join(names), list(labels)) if names else None


def _find_span_scorers(nlp: Language) -> List[SpanScorer]:
    found = []
    for name in nlp.pipe_names:
        pipe: Any = nlp.get_pipe(name)
        if finds_spans(nlp.get_pipe_meta(name).factory, pipe):
            unknown, incorrect = (getattr(pipe, f"{kind}_spans_key", None) for kind in ("unknown", "incorrect"))
            found.append(SpanScorer(name, pipe.labels, _spans_key(pipe), unknown, incorrect))
    return found


def _spans_key(pipe: Any) -> str:
    return pipe.spans_key if hasattr(pipe, "spans_key") else pipe.key


def _with_spans(nlp: Language, options: ReadOptions) -> ReadOptions:
    """Options for files of annotation tools, read as spans that may overlap where a component finds those."""
    keys = [scorer.spans_key for scorer in _find_span_scorers(nlp)]
    if not keys or options.overlaps:
        return options
    flat = "outer" if _find_entity_scorer(nlp) else None
    return replace(options, spans_key=keys[0], flatten=flat)


def _find_category_scorers(nlp: Language, gold: _Gold) -> List[CategoryScorer]:
    factories = {name: nlp.get_pipe_meta(name).factory for name in nlp.pipe_names}
    known = (*EXCLUSIVE_FACTORIES, *MULTILABEL_FACTORIES, SCORE_FACTORY)
    heads: Dict[str, Any] = {name: nlp.get_pipe(name) for name, factory in factories.items() if factory in known}
    # Gold labels that no head knows belong to the only head there is; of several nobody knows which
    claimed = {label for head in heads.values() for label in head.labels}
    others = sorted(set(gold.cats) - claimed) if len(heads) == 1 else []
    found: List[CategoryScorer] = []
    for name, head in heads.items():
        if factories[name] in EXCLUSIVE_FACTORIES:
            # spaCy's own head never abstains
            is_ours = factories[name] not in SPACY_TEXT_FACTORIES
            found.append(ExclusiveScorer(name, head.labels, others, _thresholds(head) if is_ours else None))
        elif factories[name] in MULTILABEL_FACTORIES:
            threshold = head.cfg["threshold"]
            found.append(
                MultilabelScorer(name, head.labels, _thresholds(head) if threshold is None else threshold, others)
            )
        else:
            found.append(NumberScorer(name, head.labels))
    return found


def _thresholds(head: Any) -> Dict[str, float]:
    return dict(zip(head.labels, label_thresholds(head.cfg, list(head.labels)).tolist()))


def _write_notes(
    n_texts: int,
    gold: _Gold,
    entities: Optional[EntityScorer],
    categories: Sequence[CategoryScorer],
    spans: Sequence[SpanScorer],
) -> List[str]:
    if not n_texts:
        return ["The corpus has no texts, so there is nothing to score."]
    notes = []
    if entities is None and gold.ents and not spans:
        notes.append(f"No component finds entities; the {sum(gold.ents.values())} gold entities are not scored.")
    if not categories and gold.cats:
        notes.append("No component predicts categories or numbers; the gold ones are not scored.")
    if entities is not None:
        notes += _entity_notes(n_texts, gold, entities)
    for one in spans:
        if one.n_unknown == n_texts:
            notes.append(f"'{one.name}' is not scored: no text has gold spans under doc.spans[{one.spans_key!r}].")
        elif one.n_unknown:
            notes.append(f"{one.n_unknown} of {n_texts} texts have no gold spans for '{one.name}' and are left out.")
        if one.n_ignored:
            notes.append(f"{one.n_ignored} spans of '{one.name}' lie where nobody has annotated, and are not scored.")
    for scorer in categories:
        if scorer.n_unknown == n_texts:
            notes.append(f"'{scorer.name}' is not scored: no text has a gold value for it.")
        elif scorer.n_unknown:
            notes.append(
                f"{scorer.n_unknown} of {n_texts} texts have no gold value for '{scorer.name}' and are left out."
            )
        if isinstance(scorer, ExclusiveScorer) and scorer.n_abstentions:
            notes.append(
                f"'{scorer.name}' abstains from {scorer.n_abstentions} of {len(scorer.pairs)} texts, as its threshold "
                "says; the scores are those of its best category."
            )
    known = {label for scorer in categories for label in scorer.labels}
    unknown = {label: n for label, n in sorted(gold.cats.items()) if label not in known}
    if categories and unknown:
        scored = isinstance(categories[0], (ExclusiveScorer, MultilabelScorer)) and len(categories) == 1
        what = "are counted as missed" if scored else "are not scored"
        notes.append(f"Categories that no component knows {what}: {_list(list(unknown))}.")
    return notes


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - N_NAMED} more" if len(names) > N_NAMED else ""
    return ", ".join(names[:N_NAMED]) + more


def _entity_notes(n_texts: int, gold: _Gold, scorer: EntityScorer) -> List[str]:
    notes = []
    if scorer.n_unreadable:
        notes.append(f"{scorer.n_unreadable} texts have a gold entity annotation that spaCy cannot read.")
    if scorer.n_unknown == n_texts:
        notes.append(f"'{scorer.name}' is not scored: no text has a gold annotation of entities.")
        return notes
    if scorer.n_unknown:
        notes.append(f"{scorer.n_unknown} of {n_texts} texts have no gold annotation of entities and are left out.")
    if scorer.n_partial:
        notes.append(
            f"{scorer.n_partial} texts are annotated in part; {scorer.n_ignored} predicted entities in the other "
            "parts are neither right nor wrong."
        )
    if not gold.ents:
        notes.append("No text has a gold entity: every predicted entity is invented.")
    unknown = {label: n for label, n in sorted(gold.ents.items()) if label not in scorer.labels}
    if unknown:
        shown = _list([f"{label} ({n})" for label, n in unknown.items()])
        notes.append(f"'{scorer.name}' does not know these gold labels, which are always missed: {shown}.")
    return notes
