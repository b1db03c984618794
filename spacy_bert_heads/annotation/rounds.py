"""The annotation loop: tasks, answers, a corpus, a pipeline, its score; and the same again.

All it knows is in its folder, one folder a round. What is there is not made again, so it can be killed at any moment.
"""

import json
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Set, Tuple

from spacy.language import Language
from spacy.tokens import Doc
from spacy.training.loop import DIR_MODEL_BEST, DIR_MODEL_LAST
from thinc.api import Config

from ..defaults import DEFAULT_SPANS_KEY
from ..errors import BertHeadsError, NothingToAskError, printable
from ..evaluation.evaluate import evaluate, evaluate_predicted
from ..evaluation.report import write_report
from ..factory_names import NER_FACTORIES, SPANS_FACTORIES
from ..files import lock, replace_folder, write_files
from ..pipeline_io import load_pipeline
from ..training.fit_config import fit_config, read_config, read_train_texts
from ..training.run import run
from .cold_start import choose_first_texts
from .comparison import compare
from .cross_validation import cross_validate, name_labels, read_predicted, read_predicted_examples, read_trust
from .curve import draw_rounds, render_rounds
from .folds import FoldSettings
from .forecast import forecast
from .heads import find_heads
from .merge import list_spacy_files, merge
from .prelabel.prelabel import Plan, Teacher, prelabel
from .prelabel.questions import Question
from .suggest import suggest
from .tasks import SPANS_VIEWS

CURVE, ROUNDS = "rounds.png", "rounds.json"
TASKS, CONFIG, METRICS, AGREEMENT = "tasks.jsonl", "config.cfg", "metrics.json", "agreement.json"
# What the teacher said, beside the folders of the rounds
TEACHER_ANSWERS = "teacher.answers"
# Where no dev split is given: of fewer texts none is set aside, and they are cross-validated. Then a fifth is, once
FEW_TEXTS, N_FOLDS = 300, 3
ALL_TRAIN, WITH_DEV = "1,0,0", "0.8,0.2,0"
# Endings of files that are not all there yet.
UNFINISHED = ("~", ".tmp", ".part", ".crdownload")
# Of each training, on the dev split.
N_EVALUATIONS = 5
EXCLUSIVE_FACTORY = "bert_textcat"
# With fewer texts to score, a difference of a few points means nothing
FEW_SCORED = 300


@dataclass(frozen=True)
class LoopSettings:
    """What a loop works with. None of it may change while one runs, but for `limit`, `strategy` and the like.

    config (Path): Training config, such as configs/joint.cfg.
    raw (Path): Texts to choose from, as for `suggest`.
    dev (Optional[Path]): Annotated texts that choose the best checkpoint of each training. None: while fewer than 300
        texts are annotated, they are cross-validated, and the last step of each training counts; then a fifth of them
        is set aside.
    test (Optional[Path]): Annotated texts that score each round. None: those of `dev`, or all where there are none.
    bases (Tuple[Path, ...]): Annotated texts to begin with, as for `merge`.
    model (Optional[str]): Trained pipeline to begin with. None: one is trained on `bases`.
    view (Optional[str]): How annotators are asked. None: all at once that the heads predict.
    strategy (Optional[str]): Which texts come first. None: the default for the view.
    limit (int): Texts in a round.
    diverse (bool): Choose texts that are not alike.
    random_share (float): So much of the limit is drawn at random.
    epochs (Optional[int]): Times over the corpus in each training. None: as many as suit the texts where a training
        begins from the start, otherwise as in the config.
    off_tokens (str): What to do with spans not at token boundaries.
    skip_bad (bool): Whether to leave bad records out.
    gpu (int): Number of the GPU, -1 for none.
    labels, categories (Tuple[str, ...]): What is asked about the first texts where there is neither annotation nor a
        teacher.
    teacher (Optional[Teacher]): The large language model that fills in the first tasks, where there is no annotation
        at all.
    confirm (Callable[[Plan], bool]): See prelabel.
    """

    config: Path
    raw: Path
    dev: Optional[Path] = None
    test: Optional[Path] = None
    bases: Tuple[Path, ...] = ()
    model: Optional[str] = None
    view: Optional[str] = None
    strategy: Optional[str] = None
    limit: int = 100
    diverse: bool = False
    random_share: float = 0.0
    epochs: Optional[int] = None
    off_tokens: str = "error"
    skip_bad: bool = False
    gpu: int = -1
    labels: Tuple[str, ...] = ()
    categories: Tuple[str, ...] = ()
    teacher: Optional[Teacher] = None
    confirm: Callable[[Plan], bool] = lambda plan: False

    @property
    def begins_with_nothing(self) -> bool:
        """RETURNS (bool): Whether there is neither a pipeline nor annotation to begin with."""
        return self.model is None and not self.bases


class Round(NamedTuple):
    """One round and its folder. Round 0 has no tasks: its pipeline is the one to begin with."""

    number: int
    loop: Path

    @property
    def folder(self) -> Path:
        """RETURNS (Path): Where everything of the round is."""
        return self.loop / f"round-{self.number:02}"

    @property
    def corpus(self) -> Path:
        """RETURNS (Path): Everything annotated up to this round."""
        return self.folder / "corpus" / "train.spacy"

    @property
    def set_aside(self) -> Path:
        """RETURNS (Path): Its texts that are set aside for dev, if there are any."""
        return self.folder / "corpus" / "dev.spacy"

    @property
    def report(self) -> Path:
        """RETURNS (Path): What `merge` says about it; written last."""
        return self.folder / "corpus" / "merge.json"

    @property
    def folds(self) -> Path:
        """RETURNS (Path): What pipelines predict for its texts that did not learn from them, if there is no dev."""
        return self.folder / "folds"

    @property
    def model(self) -> Path:
        """RETURNS (Path): The pipeline trained on it."""
        return self.folder / "model" / DIR_MODEL_BEST

    @property
    def answers(self) -> List[Path]:
        """RETURNS (List[Path]): Every file that somebody has put into the folder, under whatever name."""
        if not self.folder.is_dir():
            return []
        ours = (TASKS, CONFIG, METRICS, AGREEMENT)
        return sorted(
            path
            for path in self.folder.iterdir()
            if path.is_file() and path.name not in ours and not path.name.startswith(".")
            if not path.name.endswith(UNFINISHED)
        )


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
                _show(before, settings, say)
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
        done = [path for number in range(1, now.number) for path in Round(number, now.loop).answers]
        done += [before.corpus] if before.corpus.exists() else []
        dev, test = _dev(before, settings), [] if settings.test is None else list_spacy_files(settings.test)
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


def _dev(now: Round, settings: LoopSettings) -> Optional[Path]:
    """Texts that choose the best checkpoint: those that were given, or those that a round up to this one set aside."""
    found = [one.set_aside for one in _rounds(now) if one.set_aside.exists()]
    return settings.dev or (found[0] if found else None)


def _rounds(last: Round) -> List[Round]:
    return [Round(number, last.loop) for number in range(last.number + 1)]


def _dev_before(now: Round, settings: LoopSettings) -> Optional[Path]:
    return _dev(Round(now.number - 1, now.loop), settings)


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
    before = [path for number in range(1, now.number) for path in Round(number, now.loop).answers]
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
    if _dev(now, settings) is not None:
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
    dev = _dev(now, settings)
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
    scored = settings.test or _dev(now, settings)
    if scored is None:
        nlp = load_pipeline(model)
        found = evaluate_predicted(nlp, read_predicted_examples(now.corpus, now.folds, nlp.vocab))
        found.corpus = str(now.corpus)
    else:
        found = evaluate(model, scored)
    write_report(found, now.folder / METRICS)


def _show(last: Round, settings: LoopSettings, say: Callable[[str], Any]) -> None:
    """Table and picture of all rounds up to now."""
    weights = dict(read_config(settings.config)["training"]["score_weights"])
    rounds = _rounds(last)
    rows = [_read_row(one, weights, settings) for one in rounds if (one.folder / METRICS).exists()]
    if not rows:
        return
    content = (json.dumps(rows, indent=1) + "\n").encode("utf8")
    write_files({last.loop / ROUNDS: content})
    say(render_rounds(rows))
    if rows[-1]["scored"] < FEW_SCORED:
        said = _describe_few(rounds[-1], rows[-1]["cross_validated"])
        if said:
            say(said)
    alike = [row for row in rows if row["cross_validated"] == rows[-1]["cross_validated"]]
    expected = forecast(
        [row["texts"] for row in alike], [row["score"] for row in alike], rows[-1]["scored"], settings.limit
    )
    if expected is not None:
        say(expected.to_text())
    if settings.teacher is not None:
        _show_agreement(last, settings, say)
    try:
        draw_rounds(rows, last.loop / CURVE)
    except BertHeadsError as error:
        say(f"The rounds are not plotted. {error}")


def _describe_few(last: Round, cross_validated: bool) -> str:
    """RETURNS (str): How far a score on few texts can be from that on others; "" if nothing was scored."""
    found = json.loads((last.folder / METRICS).read_text(encoding="utf8"))["texts"]
    if not found["scored"]:
        return ""
    low, high = found["accuracy_interval"]
    how = f", each by one of {N_FOLDS} pipelines that did not learn from it" if cross_validated else ""
    return (
        f"Only {found['scored']} texts are scored{how}. {100 * found['accuracy']:.0f} % are right in everything: "
        f"with other texts of this kind it would be {100 * low:.0f} to {100 * high:.0f} % (95 % interval)."
    )


def _show_agreement(last: Round, settings: LoopSettings, say: Callable[[str], Any]) -> None:
    """How often teacher, people and student agree, written once for each round."""
    path = last.folder / AGREEMENT
    if not path.exists():
        nlp, dev = load_pipeline(str(last.model)), _dev(last, settings)
        corpora: List[Path] = [last.corpus]
        predicted: Iterable[Doc] = ()
        if dev is None:
            predicted = read_predicted(last.folds, nlp.vocab)
        elif settings.dev is None:
            corpora.append(dev)
            predicted = nlp.pipe(read_train_texts(dev))
        tasks = [one.folder / TASKS for one in _rounds(last)[1:]]
        agreement = compare(tasks, corpora, predicted, find_heads(nlp))
        found = {"pairs": agreement.to_list(), "text": agreement.to_text()}
        write_files({path: (json.dumps(found, indent=1) + "\n").encode("utf8")})
    shown = json.loads(path.read_text(encoding="utf8"))["text"]
    if shown:
        say(shown)


def _read_row(one: Round, weights: Dict[str, Optional[float]], settings: LoopSettings) -> Dict[str, Any]:
    found = json.loads((one.folder / METRICS).read_text(encoding="utf8"))
    scores = {name: found.get(name) for name, weight in weights.items() if weight}
    counts: Dict[str, Any] = {"docs": 0, "tokens": {"sum": 0}}
    if one.report.exists():
        counts = json.loads(one.report.read_text(encoding="utf8"))["splits"]["train"]
    return {
        "round": one.number,
        "texts": counts["docs"],
        "tokens": counts["tokens"]["sum"],
        "scored": found["docs"],
        "cross_validated": (settings.test or _dev(one, settings)) is None,
        "scores": scores,
        "score": sum((weights[name] or 0.0) * (score or 0.0) for name, score in scores.items()),
    }
