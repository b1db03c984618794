"""What a training shows while it runs: a row for each evaluation, a progress bar, files for other programs."""

import sys
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, Callable, Dict, List, Optional, Tuple

import srsly
from spacy.language import Language
from tqdm import tqdm
from wasabi import Printer

from ..errors import BertHeadsError, printable
from ..files import write_errors

LogStep = Callable[[Optional[Dict[str, Any]]], None]
Logger = Tuple[LogStep, Callable[[], None]]

# Width of a column of numbers, and of the heads' names above them
WIDTH = 8
# The architecture that learns its vocabulary unless it is given one
SCRATCH = "spacy_bert_heads.BertFromScratch.v1"
HEAD_START = "spacy_bert_heads.head_start.v1"


def build_console_logger_v1(
    progress_bar: bool = True, output_file: Optional[str] = None, tensorboard: Optional[str] = None
) -> Callable[[Language, IO, IO], Logger]:
    """Rows on the console, with each head's loss and score and the time left. Registered as
    spacy_bert_heads.ConsoleLogger.v1.

    progress_bar (bool): Whether to show a progress bar, on a terminal.
    output_file (Optional[str]): Where to write the rows as JSON lines. An existing file is replaced.
    tensorboard (Optional[str]): Folder for TensorBoard; needs the extra `tensorboard`.
    RETURNS (Callable[[Language, IO, IO], Logger]): Called by `spacy train` when the training begins.
    """

    def set_up(nlp: Language, stdout: IO = sys.stdout, stderr: IO = sys.stderr) -> Logger:
        log = TrainingLog(nlp, stdout, stderr, progress_bar)
        if output_file is not None:
            log.open_file(Path(output_file))
        if tensorboard is not None:
            log.open_tensorboard(Path(tensorboard))
        return log.log_step, log.close

    return set_up


class TrainingLog:
    """Shows and writes what `log_step` is given.

    nlp (Language): The pipeline.
    stdout (IO): For the rows.
    stderr (IO): For the progress bar.
    progress_bar (bool): Whether to show one; it stays away where stderr is no terminal.
    """

    def __init__(self, nlp: Language, stdout: IO, stderr: IO, progress_bar: bool) -> None:
        self.stdout = stdout
        training = nlp.config["training"]
        self.heads, self.scores = head_names(nlp), score_names(nlp)
        self.total = _total_steps(training)
        self.last_step = -1
        self.file: Optional[IO] = None
        self.tensorboard: Any = None
        self._write_row(
            ["epoch", "step", *(f"loss {_short(name)}" for name in self.heads), *self.scores, "score", "left"]
        )
        self._write_row(["-" * width for width in self._widths])
        disable = None if progress_bar else True
        self.progress = tqdm(total=self.total, file=stderr, disable=disable, leave=False, unit="step")

    def open_file(self, path: Path) -> None:
        """Write rows as JSON too. RAISES (BertHeadsError): H123 if that is impossible."""
        with write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self.file = path.open("w", encoding="utf8")

    def open_tensorboard(self, folder: Path) -> None:
        """Write for TensorBoard too. RAISES (BertHeadsError): H410 if it is not installed."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise BertHeadsError("H410", found="tensorboard", extra="tensorboard") from error
        # Of a training that is resumed all rows come again
        self.tensorboard = SummaryWriter(str(folder), purge_step=0)

    def log_step(self, info: Optional[Dict[str, Any]]) -> None:
        """Take note of a step.

        info (Optional[Dict[str, Any]]): As `train_while_improving` gives it after an evaluation, else None.
        """
        self.progress.update(1)
        if info is None:
            return
        row = to_row(info, info["step"] - self.last_step)
        self.last_step = info["step"]
        losses = [f"{row['losses'].get(name, 0.0):.3f}" for name in self.heads]
        scores = [f"{100 * row['scores'].get(name, 0.0):.2f}" for name in self.scores]
        numbers = [str(row["epoch"]), str(row["step"]), *losses, *scores, f"{100 * row['score']:.2f}"]
        self._write_row([*numbers, self._time_left(row)])
        if self.file is not None:
            with write_errors(Path(self.file.name)):
                self.file.write(srsly.json_dumps(row) + "\n")
                self.file.flush()
        if self.tensorboard is not None:
            for kind in ("losses", "scores"):
                for name, value in row[kind].items():
                    self.tensorboard.add_scalar(f"{kind}/{name}", value, row["step"])
            self.tensorboard.add_scalar("score", row["score"], row["step"])
            self.tensorboard.flush()

    def close(self) -> None:
        """Close bar and files."""
        self.progress.close()
        if self.tensorboard is not None:
            self.tensorboard.close()
        if self.file is not None:
            with write_errors(Path(self.file.name)):
                self.file.close()

    @property
    def _widths(self) -> List[int]:
        heads = [max(WIDTH, len(printable(f"loss {_short(name)}"))) for name in self.heads]
        return [5, 6, *heads, *(max(WIDTH, len(name)) for name in self.scores), WIDTH, WIDTH]

    def _write_row(self, cells: List[str]) -> None:
        aligns = ["r"] * len(cells)
        # Through tqdm, which moves its bar out of the way
        shown = [printable(cell) for cell in cells]
        tqdm.write(Printer(no_print=True).row(shown, widths=self._widths, aligns=aligns, spacing=2), file=self.stdout)
        self.stdout.flush()

    def _time_left(self, row: Dict[str, Any]) -> str:
        done = row["step"] + 1
        if self.total is None or row["step"] == 0:
            return ""
        return str(timedelta(seconds=round(row["seconds"] / done * max(0, self.total - done))))


def show_note(text: str, stream: IO) -> None:
    """Show a line between the rows.

    text (str): The line.
    stream (IO): Where to; a progress bar on it is moved out of the way.
    """
    tqdm.write(Printer(no_print=True).info(text), file=stream)
    stream.flush()


def describe_start(config: Dict[str, Any]) -> str:
    """RETURNS (str): What takes time before the first step of a training with this config."""
    encoders = [component.get("model", {}) for component in config.get("components", {}).values()]
    learned = any(model.get("@architectures") == SCRATCH and not model.get("vocab") for model in encoders)
    initialize = config.get("initialize", {})
    given = any(values.get("vocab") for values in initialize.get("components", {}).values())
    doing = ["reading labels from the training corpus"]
    if learned and not given:
        doing.append("learning a vocabulary from its texts")
    if (initialize.get("after_init") or {}).get("@callbacks") == HEAD_START:
        doing.append("a head start for text heads, if their texts are few")
    path = config.get("paths", {}).get("train")
    return f"Initialising: {', '.join(doing)}" + (f" ({path})" if path else "")


def describe_plan(training: Dict[str, Any]) -> str:
    """RETURNS (str): How long a training is, and when it evaluates, from the block [training]."""
    steps, every = _total_steps(training), training["eval_frequency"]
    length = f"{steps} steps" if steps else "no fixed number of steps"
    return f"Loading the training corpus; {length}, an evaluation after the first and then every {every}"


def describe_evaluation(seconds: float, step: int, training: Dict[str, Any]) -> str:
    """What the evaluations of a training cost.

    seconds (float): What one took.
    step (int): After which step it was.
    training (Dict[str, Any]): The block [training].
    RETURNS (str): For people.
    """
    total, every = _total_steps(training), training["eval_frequency"]
    shown = f"An evaluation takes about {seconds:.1f} s"
    if total is None or step + every >= total:
        return shown
    n_more = (total - 1) // every - step // every
    left = timedelta(seconds=round(n_more * seconds))
    return f"{shown}; {n_more} more, the next after step {step + every}, take about {left}"


def head_names(nlp: Language) -> List[str]:
    """RETURNS (List[str]): What learns, without encoders: their loss is the size of gradients, which says little."""
    return [
        name
        for name, component in nlp.pipeline
        if getattr(component, "is_trainable", False) and not hasattr(component, "listeners")
    ]


def score_names(nlp: Language) -> List[str]:
    """RETURNS (List[str]): Scores that decide which checkpoint is best."""
    return [name for name, weight in nlp.config["training"]["score_weights"].items() if weight]


def describe_zeros(scores: Dict[str, float], names: List[str]) -> Optional[str]:
    """What a mean of several scores hides: a head that has learned nothing yet.

    scores (Dict[str, float]): Of the dev split, from 0 to 1; those that it does not have are left out.
    names (List[str]): Those that count.
    RETURNS (Optional[str]): For people. None if no score is 0.
    """
    zeros = [name for name in names if scores.get(name) == 0]
    if not zeros:
        return None
    shown = ", ".join(zeros)
    return f"In the best checkpoint {shown} = 0 on the dev split. Train for more epochs, or annotate more texts."


def to_row(info: Dict[str, Any], n_steps: int) -> Dict[str, Any]:
    """An evaluation in numbers that JSON can hold.

    info (Dict[str, Any]): As `train_while_improving` gives it after an evaluation.
    n_steps (int): Steps since the evaluation before.
    RETURNS (Dict[str, Any]): "epoch", "step", "seconds"; "losses", each a mean over the steps; "scores" and "score",
        from 0 to 1.
    """
    scores = {name: float(value) for name, value in info["other_scores"].items() if isinstance(value, (int, float))}
    return {
        "epoch": info["epoch"],
        "step": info["step"],
        "seconds": info["seconds"],
        "losses": {name: float(loss) / n_steps for name, loss in info["losses"].items()},
        "scores": scores,
        "score": float(info["score"]),
    }


def _total_steps(training: Dict[str, Any]) -> Optional[int]:
    counted = training["optimizer"].get("total_steps")
    limit = training["max_steps"] + 1 if training["max_steps"] else None
    known = [number for number in (counted, limit) if number]
    return min(known) if known else None


def _short(name: str) -> str:
    return name[len("bert_") :] if name.startswith("bert_") else name
