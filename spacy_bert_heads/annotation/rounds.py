"""A round of the annotation loop, and what is in its folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Callable, List, NamedTuple, Optional, Tuple

from spacy.training.loop import DIR_MODEL_BEST

from .prelabel.teacher import Plan, Teacher

TASKS, CONFIG, METRICS, AGREEMENT = "tasks.jsonl", "config.cfg", "metrics.json", "agreement.json"
# Endings of files that are not all there yet.
UNFINISHED = ("~", ".tmp", ".part", ".crdownload")


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


def rounds_up_to(last: Round) -> List[Round]:
    """RETURNS (List[Round]): All rounds from 0 to this one."""
    return [Round(number, last.loop) for number in range(last.number + 1)]


def answers_before(now: Round) -> List[Path]:
    """RETURNS (List[Path]): The files of answers of all rounds before this one."""
    return [path for one in rounds_up_to(now)[1:-1] for path in one.answers]


def dev_of(now: Round, settings: LoopSettings) -> Optional[Path]:
    """Texts that choose the best checkpoint.

    now (Round): The round in which they do.
    settings (LoopSettings): What the loop works with.
    RETURNS (Optional[Path]): Those that were given, or those that a round up to this one set aside. None: there are
        none yet.
    """
    found = [one.set_aside for one in rounds_up_to(now) if one.set_aside.exists()]
    return settings.dev or (found[0] if found else None)
