"""The annotation loop: tasks, answers, a corpus, a pipeline, its score; and the same again.

All it knows is in its folder, one folder a round. What is there is not made again, so it can be killed at any moment.
"""

import json
import os
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Set, Tuple

from spacy.language import Language
from spacy.training.loop import DIR_MODEL_LAST
from thinc.api import Config

from ..defaults import DEFAULT_SPANS_KEY
from ..errors import BertHeadsError, NothingToAskError, printable
from ..evaluation.evaluate import evaluate, evaluate_predicted
from ..evaluation.report import write_report
from ..factory_names import NER_FACTORIES, SPANS_FACTORIES
from ..files import lock, replace_folder, write_files
from ..pipeline_io import load_pipeline
from ..training.fit_config import fit_config, read_config
from ..training.run import run
from .cold_start import choose_first_texts
from .cross_validation import N_FOLDS, cross_validate, name_labels, read_predicted_examples, read_trust
from .folds import FoldSettings
from .heads import find_heads
from .merge import list_spacy_files, merge
from .prelabel.prelabel import prelabel
from .prelabel.questions import Question
from .progress import show_progress
from .rounds import CONFIG, METRICS, TASKS, LoopSettings, Round, answers_before, dev_of
from .suggest import suggest
from .tasks import SPANS_VIEWS

# What the teacher said, beside the folders of the rounds
TEACHER_ANSWERS = "teacher.answers"
# Where no dev split is given: of fewer texts none is set aside, and they are cross-validated. Then a fifth is, once
FEW_TEXTS = 300
ALL_TRAIN, WITH_DEV = "1,0,0", "0.8,0.2,0"
# Of each training, on the dev split.
N_EVALUATIONS = 5
EXCLUSIVE_FACTORY = "bert_textcat"


def run_loop(folder: Path, settings: LoopSettings, *, say: Callable[[str], Any]) -> str:
    """Do everything that can be done until the next answers are needed.

    folder (Path): State of the loop. It is made if it is missing.
    settings (LoopSettings): What it works with.
    say (Callable[[str], Any]): Takes what is to be shown.
    RETURNS (str): What it waits for.
    RAISES (BertHeadsError): H187 if another process works in the folder; H521 if there is nothing to begin with; H522
        if all there is to learn from are rejected entities; H753 for a teacher beside something else to begin with,
        H754 for a pipeline to begin with and no dev split, H755 for fewer texts than folds; whatever suggest,
        prelabel, merge, fit-config, train and evaluate find wrong.
    """
    folder = Path(os.path.abspath(folder))
    for path in filter(None, (settings.config, settings.raw, settings.dev, settings.test)):
        if not path.exists():
            raise BertHeadsError("H101", path=path)
    if settings.teacher is not None and (settings.model is not None or settings.bases):
        raise BertHeadsError("H753", path=folder, found="--base" if settings.bases else "--model")
    asks = settings.teacher is not None or settings.labels or settings.categories
    if settings.begins_with_nothing and not asks:
        raise BertHeadsError("H521", path=folder)
    if settings.model is not None and settings.dev is None:
        raise BertHeadsError("H754", path=folder)
    with lock(folder):
        now = Round(0, folder)
        model = _begin(now, settings, say)
        while True:
            before, now = now, Round(now.number + 1, folder)
            if not now.answers:
                show_progress(before, settings, say)
                return _ask(now, before, model, settings, say)
            model = _learn(now, model, settings, say)


def _begin(first: Round, settings: LoopSettings, say: Callable[[str], Any]) -> Optional[str]:
    """The pipeline to begin with, scored.

    RETURNS (Optional[str]): Its name or folder. None: a teacher or people begin.
    """
    if settings.begins_with_nothing:
        return None
    if settings.model is None:
        return _learn(first, None, settings, say)
    if settings.bases:
        _merge_answers(first, settings, say)
    _evaluate(first, settings.model, settings)
    return settings.model


def _ask(now: Round, before: Round, model: Optional[str], settings: LoopSettings, say: Callable[[str], Any]) -> str:
    """Choose what to annotate, unless that is done.

    RETURNS (str): What to do with it.
    """
    tasks = now.folder / TASKS
    if not tasks.exists():
        done = answers_before(now)
        done += [before.corpus] if before.corpus.exists() else []
        dev, test = dev_of(before, settings), [] if settings.test is None else list_spacy_files(settings.test)
        try:
            if model is None:
                begin = _choose_first if settings.teacher is None else _prelabel
                say(begin(tasks, [*done, *test, *(list_spacy_files(dev) if dev else [])], settings))
                return _waiting(now)
            chosen = suggest(
                model,
                settings.raw,
                tasks,
                view=settings.view,
                strategy=settings.strategy,
                limit=settings.limit,
                exclude=done,
                dev=dev,
                trust=None if dev else read_trust(before.folds),
                held_out=test,
                diverse=settings.diverse,
                random_share=settings.random_share,
                seed=now.number,
                skip_bad=settings.skip_bad,
            )
        except NothingToAskError as error:
            return f"{error}\nThe loop has come to its end; add more texts to {settings.raw} to continue."
        say(chosen.to_text())
    return _waiting(now)


def _waiting(now: Round) -> str:
    tasks = now.folder / TASKS
    return (
        f"Round {now.number} is waiting for answers: annotate {tasks}, save the result in the same folder, for "
        f"example as {now.folder / 'answers.jsonl'}, and run this command again."
    )


def _prelabel(tasks: Path, done: Sequence[Path], settings: LoopSettings) -> str:
    """Have the teacher fill in the first tasks. Its answers are beside the rounds, whose other files are people's.

    RETURNS (str): What came of it.
    """
    assert settings.teacher is not None
    report = prelabel(
        settings.raw,
        tasks,
        settings.teacher,
        confirm=settings.confirm,
        lang=read_config(settings.config)["nlp"]["lang"],
        limit=settings.limit,
        exclude=done,
        cache=tasks.parent.parent / TEACHER_ANSWERS,
        skip_bad=settings.skip_bad,
    )
    return report.to_text()


def _choose_first(tasks: Path, done: Sequence[Path], settings: LoopSettings) -> str:
    """Choose the first texts by the encoder alone.

    RETURNS (str): What came of it.
    """
    question = Question(settings.labels, settings.categories, chooses_one(settings.config))
    report = choose_first_texts(
        settings.raw,
        tasks,
        question,
        config=settings.config,
        limit=settings.limit,
        exclude=done,
        seed=1,
        skip_bad=settings.skip_bad,
    )
    return report.to_text()


def _dev_before(now: Round, settings: LoopSettings) -> Optional[Path]:
    return dev_of(Round(now.number - 1, now.loop), settings)


def _learn(now: Round, model: Optional[str], settings: LoopSettings, say: Callable[[str], Any]) -> str:
    """From answers to a pipeline and its scores.

    RETURNS (str): Folder of the pipeline.
    """
    _merge_answers(now, settings, say)
    if not now.folder.joinpath(METRICS).exists():
        _cross_validate(now, settings, say)
        _train(now, model, settings, say)
        _evaluate(now, str(now.model), settings)
    return str(now.model)


def _merge_answers(now: Round, settings: LoopSettings, say: Callable[[str], Any]) -> None:
    """All answers of all rounds, merged again: none is lost, whenever it came, and none counts twice."""
    if now.report.exists():
        return
    config = read_config(settings.config)
    dev = _dev_before(now, settings)
    before = answers_before(now)
    merge_all = partial(
        merge,
        settings.bases,
        now.corpus.parent,
        answers=[*before, *now.answers],
        merged_before=before,
        leave_out=[path for path in (dev, settings.test) if path is not None],
        lang=config["nlp"]["lang"],
        exclusive=chooses_one(settings.config),
        off_tokens=settings.off_tokens,
        skip_bad=settings.skip_bad,
        spans_key=_spans_key(config, settings.view),
    )
    found = {} if dev else merge_all(split=ALL_TRAIN).splits
    # That of a folder of --base
    has_dev = dev is not None or ("dev" in found and found["dev"].docs > 0)
    is_dividing = not has_dev and found["train"].docs >= FEW_TEXTS
    report = merge_all(split=WITH_DEV if is_dividing else ALL_TRAIN, report_path=now.report)
    say(report.to_text())
    counts = report.splits["train"]
    if is_dividing:
        n_dev = report.splits["dev"].docs
        say(
            f"Of {counts.docs + n_dev} texts, {n_dev} are set aside as dev from now on: they choose the best "
            "checkpoint and score each round. Do not compare these scores with cross-validated ones."
        )
    elif not has_dev and counts.docs < N_FOLDS:
        now.report.unlink()
        raise BertHeadsError("H755", path=now.folder, found=counts.docs, expected=N_FOLDS)
    if counts.rejected and not counts.ents_complete and not counts.spans:
        now.report.unlink()
        raise BertHeadsError("H522", path=now.folder, found=sum(counts.rejected.values()))


def _cross_validate(now: Round, settings: LoopSettings, say: Callable[[str], Any]) -> None:
    """Have each text predicted by a pipeline that did not learn from it, unless there is a dev split."""
    if dev_of(now, settings) is not None:
        return
    say(
        f"Round {now.number}: fewer than {FEW_TEXTS} texts, so none is set aside as dev. For cross-validation there "
        f"are {N_FOLDS} trainings before the one on all texts"
    )
    counts = json.loads(now.report.read_text(encoding="utf8"))["splits"]["train"]
    config = name_labels(read_config(settings.config), counts)
    write_files({now.folds / CONFIG: config.to_str(interpolate=False).encode("utf8")})
    folds = FoldSettings(now.folds / CONFIG, None, N_FOLDS, settings.epochs or 0, gpu=settings.gpu)
    cross_validate(now.corpus, now.folds, folds, view=settings.view, strategy=settings.strategy, say=say)


def _train(now: Round, model: Optional[str], settings: LoopSettings, say: Callable[[str], Any]) -> None:
    """Train on everything annotated up to now, from where the last pipeline is.

    Without a dev split training begins from the start, as in the folds, and the last step counts. When there first is
    one, it begins from the start again: the last pipeline has learned from its texts.
    """
    config = now.folder / CONFIG
    dev = dev_of(now, settings)
    nlp = None if model is None or _dev_before(now, settings) is None else load_pipeline(model)
    new = set() if nlp is None else _new_labels(nlp, json.loads(now.report.read_text(encoding="utf8")))
    if new:
        nlp = None
        named = printable(", ".join(sorted(new)))
        say(f"New to the pipeline: {named}. It is therefore trained from the start.")
    fit = fit_config(
        settings.config,
        config,
        train=now.corpus,
        dev=Path(os.path.abspath(dev or now.corpus)),
        encoder=None,
        epochs=0 if settings.epochs is None and nlp is None else settings.epochs,
        seed=None,
        evaluations=N_EVALUATIONS if dev else 1,
    )
    if nlp is not None and model is not None:
        source_components(config, nlp, str(Path(model).absolute()) if Path(model).exists() else model)
    scored = "" if dev else "; the scores below are of these same texts"
    say(f"Round {now.number}: training on {fit.docs} texts, {fit.steps} steps{scored}")
    done = run(config, now.model.parent, overrides={}, use_gpu=settings.gpu, resume=True, verbose=False)
    if dev:
        say(done)
        return
    last = load_pipeline(str(now.model.parent / DIR_MODEL_LAST))
    last.meta["performance"] = {}  # of texts that it knows
    replace_folder(now.model, last.to_disk)


def source_components(config_path: Path, nlp: Language, model: str) -> None:
    """Have a training begin with the components of a trained pipeline.

    config_path (Path): The training config, which is changed. Components that the pipeline does not have, or made by
        another factory, stay as they are.
    nlp (Language): The pipeline.
    model (str): Its folder or package.
    """
    config = read_config(config_path)
    for name, factory in _factories(config).items():
        if name not in nlp.pipe_names or nlp.get_pipe_meta(name).factory != factory:
            continue
        if getattr(nlp.get_pipe(name), "is_trainable", False):
            config["components"][name] = {"source": model}
    write_files({config_path: config.to_str(interpolate=False).encode("utf8")})


def chooses_one(config_path: Path) -> bool:
    """RETURNS (bool): Whether a training config has a head for categories of which exactly one holds."""
    return EXCLUSIVE_FACTORY in _factories(read_config(config_path)).values()


def _factories(config: Config) -> Dict[str, str]:
    return {name: component.get("factory", "") for name, component in config["components"].items()}


def _spans_key(config: Config, view: Optional[str]) -> Optional[str]:
    """Where the answers belong if they are about spans: the view says so, or there is no head for entities. None: they
    are not."""
    factories = _factories(config)
    if set(factories.values()) & set(NER_FACTORIES) and view not in SPANS_VIEWS:
        return None
    names = [name for name, factory in factories.items() if factory in SPANS_FACTORIES]
    return config["components"][names[0]].get("spans_key", DEFAULT_SPANS_KEY) if names else None


def _new_labels(nlp: Language, report: Dict[str, Any]) -> Set[str]:
    """Labels in the corpus that no head of the pipeline knows."""
    heads = find_heads(nlp)
    counts = report["splits"]["train"]
    used: List[Tuple[Any, Sequence[str]]] = [
        (heads.finder, ("spans", "rejected")),
        (heads.textcat, ("cats", "cats_not")),
    ]
    return {
        label
        for head, kinds in used
        if head is not None
        for kind in kinds
        for label in counts[kind]
        if label not in head.labels
    }


def _evaluate(now: Round, model: str, settings: LoopSettings) -> None:
    if (now.folder / METRICS).exists():
        return
    scored = settings.test or dev_of(now, settings)
    if scored is None:
        nlp = load_pipeline(model)
        found = evaluate_predicted(nlp, read_predicted_examples(now.corpus, now.folds, nlp.vocab))
        found.corpus = str(now.corpus)
    else:
        found = evaluate(model, scored)
    write_report(found, now.folder / METRICS)
