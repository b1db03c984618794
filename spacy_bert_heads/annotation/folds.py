"""Predictions for annotated texts by pipelines that did not learn from them: as many trainings as there are folds."""

import json
from collections import defaultdict
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from spacy.training.loop import DIR_MODEL_BEST, DIR_MODEL_LAST
from spacy.util import minibatch

from ..corpus.doc_bins import DocWriter
from ..corpus.splits import split_key
from ..errors import BertHeadsError
from ..factory_names import EXCLUSIVE_FACTORIES, MULTILABEL_FACTORIES
from ..files import Staging, clean_up, lock, remove_folder, write_files
from ..pipeline.entity_annotations import Skipped, read_annotation
from ..pipeline_io import load_pipeline
from ..training.fit_config import fit_config, read_config
from ..training.run import run

NER_FACTORY = "bert_ner"
SETTINGS = "settings.json"
# Of each training, on the dev split
N_EVALUATIONS = 5
# Texts whose outputs of the encoder are in memory at once
BATCH = 128
EXCLUSIVE, MULTILABEL = "exclusive", "multilabel"


class ScoredSpan(NamedTuple):
    """An entity, annotated or predicted, and what a pipeline that did not learn from the text says about it.

    start (int): Its first character.
    end (int): The character behind the last one.
    label (str): Its label.
    probability (Optional[float]): Of exactly this entity; None if the pipeline does not know the label.
    outside (float): Probability of the least probable of its tokens to be in no entity.
    """

    start: int
    end: int
    label: str
    probability: Optional[float]
    outside: float


@dataclass(frozen=True)
class FoldSettings:
    """How the folds are made.

    config (Path): Training config.
    dev (Optional[Path]): Annotated texts that choose the best checkpoint of each training. None: it is the last one.
    folds (int): How many.
    epochs (Optional[int]): Times over the texts in each training. None: as in the config.
    seed (int): Decides which text is in which fold.
    gpu (int): Number of the GPU, -1 for none.
    """

    config: Path
    dev: Optional[Path]
    folds: int = 5
    epochs: Optional[int] = None
    seed: int = 0
    gpu: int = -1


class Outcome(NamedTuple):
    """What a pipeline that did not learn from a text says about it and its annotation.

    cats (Dict[str, float]): Probability of each category.
    gold (List[ScoredSpan]): Annotated entities, and how probable each is.
    predicted (List[ScoredSpan]): Predicted entities, and how probable each is.
    unknown (List[Tuple[int, int]]): Characters of tokens that nobody annotated.
    outside (Tuple[float, int]): Sum over the tokens that are annotated as in no entity of their probability to be so,
        and the number of these tokens.
    """

    cats: Dict[str, float]
    gold: List[ScoredSpan]
    predicted: List[ScoredSpan]
    unknown: List[Tuple[int, int]]
    outside: Tuple[float, int]


class OutOfFold(NamedTuple):
    """The predictions for all texts.

    outcomes (List[Outcome]): In the order of the texts.
    heads (Dict[str, Tuple[str, Tuple[str, ...]]]): Components that classify texts: EXCLUSIVE or MULTILABEL, and the
        labels.
    ner_labels (Optional[Tuple[str, ...]]): Labels of the component that finds entities; None if there is none.
    """

    outcomes: List[Outcome]
    heads: Dict[str, Tuple[str, Tuple[str, ...]]]
    ner_labels: Optional[Tuple[str, ...]]


def predict_out_of_fold(
    docs: Sequence[Doc], folder: Path, settings: FoldSettings, *, say: Callable[[str], Any]
) -> OutOfFold:
    """Train a pipeline for each fold, on all other folds, and let it predict that fold.

    A fold that is finished is kept: killed and called again, it continues where it was.

    docs (Sequence[Doc]): Annotated texts.
    folder (Path): For what is finished. Trained pipelines are removed from it.
    settings (FoldSettings): How.
    say (Callable[[str], Any]): Takes what is to be shown.
    RETURNS (OutOfFold): The predictions.
    RAISES (BertHeadsError): H187 if another process works in the folder; H630 if it holds other folds; H631 if there
        are fewer different texts than folds; H632 if the pipeline has no head that can be asked; whatever fit-config
        and train find wrong.
    """
    numbers = assign_folds(docs, settings.folds, settings.seed)
    with lock(folder):
        clean_up(folder)
        _check_settings(docs, folder, settings)
        found: Dict[int, Outcome] = {}
        heads: Dict[str, Tuple[str, Tuple[str, ...]]] = {}
        ner_labels: Optional[Dict[str, None]] = None
        for result in run_folds(
            docs, numbers, folder, settings, suffix=".json", answer=partial(_answer, docs), say=say
        ):
            data = json.loads(result.read_text(encoding="utf8"))
            found.update((int(number), _read_outcome(row)) for number, row in data["texts"].items())
            for name, (kind, labels) in data["heads"].items():
                known = heads.get(name, (kind, ()))[1]
                heads[name] = kind, tuple(dict.fromkeys([*known, *labels]))
            if data["ner_labels"] is not None:
                ner_labels = {**(ner_labels or {}), **dict.fromkeys(data["ner_labels"])}
    outcomes = [found[number] for number in range(len(docs))]
    return OutOfFold(outcomes, heads, None if ner_labels is None else tuple(ner_labels))


def assign_folds(docs: Sequence[Doc], n_folds: int, seed: int) -> numpy.ndarray:
    """Deal texts out to folds, so that each fold gets its share of every label; those that differ only in case or
    white space go together, for a pipeline would know one by the other.

    Texts are sorted by their rarest label and dealt out in turn.

    docs (Sequence[Doc]): Annotated texts.
    n_folds (int): How many folds.
    seed (int): Decides the order within a label.
    RETURNS (numpy.ndarray): Fold of each text. Int, (n_docs,).
    RAISES (BertHeadsError): H631 if there are fewer different texts than folds, or fewer than 2 folds.
    """
    groups: Dict[str, List[int]] = defaultdict(list)
    for number, doc in enumerate(docs):
        groups[split_key(doc.text)].append(number)
    if not 2 <= n_folds <= len(groups):
        raise BertHeadsError("H631", found=n_folds, n_texts=len(groups))
    labels = {key: {label for number in group for label in _labels(docs[number])} for key, group in groups.items()}
    counts: Dict[str, int] = defaultdict(int)
    for found in labels.values():
        for label in found:
            counts[label] += 1
    order = list(groups)
    numpy.random.default_rng(seed).shuffle(order)
    rarest = {key: min(((counts[label], label) for label in labels[key]), default=(0, "")) for key in order}
    folds = numpy.zeros(len(docs), dtype="int64")
    for turn, key in enumerate(sorted(order, key=lambda key: rarest[key])):
        folds[groups[key]] = turn % n_folds
    return folds


def _labels(doc: Doc) -> Iterator[str]:
    yield from (f"cat {label}" for label, value in doc.cats.items() if value > 0)
    try:
        yield from (f"ent {ent.label_}" for ent in doc.ents)
    except ValueError:  # E093: inside an entity that never began
        pass


def _check_settings(docs: Sequence[Doc], folder: Path, settings: FoldSettings) -> None:
    """RAISES (BertHeadsError): H630 if the folder holds folds of other texts or settings."""
    digest = blake2b(digest_size=16)
    for doc in docs:
        rejected = [(span.start, span.end, span.label_) for group in doc.spans.values() for span in group]
        content = [doc.text, doc.to_array(["ENT_IOB", "ENT_TYPE"]).tolist(), doc.cats, rejected]
        digest.update(json.dumps(content).encode("utf8", "surrogatepass"))
    config = read_config(settings.config).to_str(interpolate=False)
    now = {
        **{name: value for name, value in asdict(settings).items() if name in ("folds", "epochs", "seed")},
        "texts": digest.hexdigest(),
        "config": blake2b(config.encode("utf8"), digest_size=16).hexdigest(),
    }
    path = folder / SETTINGS
    if path.exists():
        then = json.loads(path.read_text(encoding="utf8"))
        differing = [name for name in now if then.get(name) != now[name]]
        if differing:
            raise BertHeadsError("H630", path=folder, found=", ".join(differing))
    else:
        write_files({path: json.dumps(now, indent=1).encode("utf8")})


def _answer(docs: Sequence[Doc], nlp: Language, chosen: List[int]) -> bytes:
    """What is written down of a fold."""
    heads, ner = _find_heads(nlp)
    content = {
        "heads": heads,
        "ner_labels": None if ner is None else list(ner.labels),
        "texts": dict(zip(chosen, ask(nlp, [docs[number] for number in chosen]))),
    }
    return json.dumps(content).encode("utf8", "surrogatepass")


def run_folds(
    docs: Sequence[Doc],
    numbers: numpy.ndarray,
    folder: Path,
    settings: FoldSettings,
    *,
    suffix: str,
    answer: Callable[[Language, List[int]], bytes],
    say: Callable[[str], Any],
) -> Iterator[Path]:
    """Train a pipeline for each fold, on all other folds, and keep what it says of that fold.

    A fold that is finished is kept: killed and called again, it continues where it was.

    docs (Sequence[Doc]): Annotated texts.
    numbers (numpy.ndarray): Fold of each, from assign_folds. Int, (n_docs,).
    folder (Path): For what is finished. Trained pipelines are removed from it.
    settings (FoldSettings): How.
    suffix (str): Of the file of a fold.
    answer (Callable[[Language, List[int]], bytes]): Its content, from the pipeline and the numbers of its texts.
    say (Callable[[str], Any]): Takes what is to be shown.
    YIELDS (Path): The file of each fold.
    RAISES (BertHeadsError): Whatever fit-config, train and `answer` find wrong.
    """
    for fold in range(settings.folds):
        work = folder / f"fold-{fold + 1}"
        result = work.with_suffix(suffix)
        if result.exists():
            say(f"Fold {fold + 1} of {settings.folds} is finished")
        else:
            nlp = train_fold(docs, numbers, fold, work, settings, say)
            write_files({result: answer(nlp, numpy.flatnonzero(numbers == fold).tolist())})
        if work.exists():
            remove_folder(work)
        yield result


def train_fold(
    docs: Sequence[Doc],
    numbers: numpy.ndarray,
    fold: int,
    work: Path,
    settings: FoldSettings,
    say: Callable[[str], Any],
) -> Language:
    """Train on all folds but one, or go on with that.

    docs (Sequence[Doc]): Annotated texts.
    numbers (numpy.ndarray): Fold of each, from assign_folds. Int, (n_docs,).
    fold (int): The fold that is left out, counted from 0.
    work (Path): Folder that everything is written into.
    settings (FoldSettings): How.
    say (Callable[[str], Any]): Takes what is to be shown.
    RETURNS (Language): The pipeline with the best score on `settings.dev`; without it, that of the last step.
    RAISES (BertHeadsError): Whatever fit-config and train find wrong.
    """
    train, held_out, config = work / "train.spacy", work / "held-out.spacy", work / "config.cfg"
    parts = {train: numpy.flatnonzero(numbers != fold), held_out: numpy.flatnonzero(numbers == fold)}
    if not config.exists():
        with Staging() as staging:
            for path, chosen in parts.items():
                writer = DocWriter(staging, path)
                for number in chosen.tolist():
                    writer.add(docs[number])
                writer.close()
            staging.commit()
        fit_config(
            settings.config,
            config,
            train=train.absolute(),
            dev=(settings.dev or held_out).absolute(),
            encoder=None,
            epochs=settings.epochs,
            seed=None,
            evaluations=N_EVALUATIONS if settings.dev else 1,
        )
    say(f"Fold {fold + 1} of {settings.folds}: training on {len(parts[train])} texts")
    say(run(config, work / "training", overrides={}, use_gpu=settings.gpu, resume=True, verbose=False))
    return load_pipeline(str(work / "training" / (DIR_MODEL_BEST if settings.dev else DIR_MODEL_LAST)))


def _find_heads(nlp: Language) -> Tuple[Dict[str, Tuple[str, Tuple[str, ...]]], Any]:
    """Heads that classify texts, and the one that finds entities."""
    heads: Dict[str, Tuple[str, Tuple[str, ...]]] = {}
    ner: Any = None
    for name, pipe in nlp.pipeline:
        factory = nlp.get_pipe_meta(name).factory
        kinds = {**dict.fromkeys(EXCLUSIVE_FACTORIES, EXCLUSIVE), **dict.fromkeys(MULTILABEL_FACTORIES, MULTILABEL)}
        if factory in kinds:
            heads[name] = kinds[factory], tuple(pipe.labels)  # type: ignore[attr-defined]
        elif factory == NER_FACTORY and ner is None:
            ner = pipe
    if not heads and ner is None:
        raise BertHeadsError("H632", found=", ".join(nlp.pipe_names) or "none")
    return heads, ner


def ask(nlp: Language, docs: Sequence[Doc]) -> List[Outcome]:
    """What a pipeline says about texts and their annotation.

    nlp (Language): The pipeline.
    docs (Sequence[Doc]): Annotated texts.
    RETURNS (List[Outcome]): One for each text.
    """
    _, ner = _find_heads(nlp)
    encoders: List[Any] = [pipe for _, pipe in nlp.pipeline if hasattr(pipe, "keep_outputs")]
    for encoder in encoders:
        encoder.keep_outputs = True  # for the second question
    outcomes: List[Outcome] = []
    for batch in minibatch(docs, BATCH):
        examples = [Example(begin_doc(nlp, doc), doc) for doc in batch]
        for eg, doc in zip(examples, nlp.pipe([eg.predicted for eg in examples])):
            eg.predicted = doc
        outcomes += [_ask_categories(eg) for eg in examples] if ner is None else _ask_entities(ner, examples)
    return outcomes


def _ask_categories(example: Example) -> Outcome:
    return Outcome({label: float(value) for label, value in example.predicted.cats.items()}, [], [], [], (0.0, 0))


def _ask_entities(ner: Any, examples: Sequence[Example]) -> List[Outcome]:
    docs = [eg.predicted for eg in examples]
    annotations = [read_annotation(eg, None, Skipped("")) for eg in examples]
    spans = {
        "gold": [annotation.ents for annotation in annotations],
        "predicted": [[(ent.start, ent.end, ent.label_) for ent in doc.ents] for doc in docs],
    }
    values = {side: ner.span_probabilities(docs, found) for side, found in spans.items()}
    outcomes = []
    for i, (eg, outside) in enumerate(zip(examples, ner.outside_probabilities(docs))):
        doc, annotation = docs[i], annotations[i]
        sides = [
            [
                ScoredSpan(
                    doc[start:end].start_char,
                    doc[start:end].end_char,
                    label,
                    value if label in ner.labels else None,
                    float(outside[start:end].min()),
                )
                for (start, end, label), value in zip(spans[side][i], values[side][i])
            ]
            for side in spans
        ]
        missing = [doc[k] for k in numpy.flatnonzero(annotation.missing).tolist()]
        is_outside = ~annotation.missing
        for start, end, _ in annotation.ents:
            is_outside[start:end] = False
        outcomes.append(
            _ask_categories(eg)._replace(
                gold=sides[0],
                predicted=sides[1],
                unknown=[(token.idx, token.idx + len(token)) for token in missing],
                outside=(float(outside[is_outside].sum()), int(is_outside.sum())),
            )
        )
    return outcomes


def begin_doc(nlp: Language, doc: Doc) -> Doc:
    """RETURNS (Doc): The text of an annotated Doc, as spaCy's own corpus reader has it read."""
    if doc.has_unknown_spaces:
        return Doc(nlp.vocab, words=[token.text for token in doc], spaces=[bool(t.whitespace_) for t in doc])
    return nlp.make_doc(doc.text)


def _read_outcome(row: Any) -> Outcome:
    cats, gold, predicted, unknown, outside = row
    return Outcome(
        cats,
        [ScoredSpan(*span) for span in gold],
        [ScoredSpan(*span) for span in predicted],
        [(start, end) for start, end in unknown],
        (outside[0], outside[1]),
    )
