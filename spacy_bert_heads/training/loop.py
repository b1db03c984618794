"""spaCy's training loop with a checkpoint at each evaluation, from which it can be resumed.

A resumed training draws its batches again from the beginning, and spaCy's loop counts them, but until the
checkpoint's step nothing is learned and evaluations are read from the checkpoint. Then weights, optimizer and random
numbers are as they were, and it learns. So everything that the loop keeps for itself is right, and loggers see the
whole training.
"""

import json
import shutil
import time
from pathlib import Path
from typing import IO, Any, Callable, Dict, Iterator, List, Optional, Tuple
from zlib import crc32

from spacy.language import Language
from spacy.schemas import ConfigSchemaTraining
from spacy.training.loop import (
    DIR_MODEL_BEST,
    DIR_MODEL_LAST,
    clean_output_dir,
    create_before_to_disk_callback,
    create_evaluation_callback,
    create_train_batches,
    train_while_improving,
    update_meta,
)
from spacy.util import registry, resolve_dot_names
from thinc.api import fix_random_seed, set_gpu_allocator

from ..errors import NotResumableError
from ..files import replace_folder, write_files
from .checkpoint import (
    Checkpoint,
    DataState,
    clean_up,
    dump_optimizer,
    get_data_state,
    get_random_state,
    load_optimizer,
    save_checkpoint,
    seed_cupy,
    set_data_state,
    set_random_state,
)
from .console import describe_evaluation, describe_plan, show_note, to_row
from .distributed import Ranks
from .optimizer import AdamW

# Written when a training has ended: its config and its evaluations
RESULT = "training.json"


def train(
    nlp: Language,
    output: Path,
    *,
    config: str,
    resumed: Optional[Checkpoint],
    ranks: Ranks,
    use_gpu: int,
    stdout: IO,
    stderr: IO,
) -> List[Dict[str, Any]]:
    """Train a pipeline as `spacy train` does, with checkpoints.

    nlp (Language): Initialised, or loaded from the checkpoint.
    output (Path): Folder for model-best, model-last, checkpoints and, in the end, the evaluations.
    config (str): The training config as it was given.
    resumed (Optional[Checkpoint]): Where to resume. None: start from the beginning.
    ranks (Ranks): The processes that train. All learn; the first one evaluates and writes.
    use_gpu (int): Number of the GPU, -1 for none.
    stdout (IO): For the logger.
    stderr (IO): For the logger's progress bar.
    RETURNS (List[Dict[str, Any]]): The evaluations; see console.to_row.
    RAISES (BertHeadsError): H123 if something cannot be written, as on a full disk: with more space, the training can
        be resumed; H182 if the training corpus has changed, H272 if the optimizer cannot be resumed, H184 or
        H185 for what several processes cannot train.
    """
    filled = nlp.config.interpolate()
    if filled["training"]["seed"] is not None:
        fix_random_seed(filled["training"]["seed"])
    if use_gpu >= 0 and filled["training"]["gpu_allocator"]:
        set_gpu_allocator(filled["training"]["gpu_allocator"])
    T = registry.resolve(filled["training"], schema=ConfigSchemaTraining)
    train_corpus, dev_corpus = resolve_dot_names(filled, [T["train_corpus"], T["dev_corpus"]])
    optimizer, frozen = T["optimizer"], T["frozen_components"]
    before_to_disk = create_before_to_disk_callback(T["before_to_disk"])
    ranks.check(nlp, optimizer, frozen)
    if resumed is None and ranks.is_first:
        clean_output_dir(output)
        (output / RESULT).unlink(missing_ok=True)
    start = ranks.broadcast(get_data_state()) if resumed is None else resumed.start
    if isinstance(optimizer, AdamW):
        optimizer.ranks = ranks
        ranks.begin(nlp)
    history = [] if resumed is None else list(resumed.history)
    seat = _Seat(nlp, create_evaluation_callback(nlp, dev_corpus, T["score_weights"]), history, ranks)
    batches = Batches(create_train_batches(nlp, train_corpus, T["batcher"], T["max_epochs"]), start)
    steps = train_while_improving(
        seat,  # type: ignore[arg-type]
        optimizer,
        batches,
        seat.evaluate,
        dropout=T["dropout"],
        accumulate_gradient=T["accumulate_gradient"],
        patience=T["patience"],
        max_steps=T["max_steps"],
        eval_frequency=T["eval_frequency"],
        exclude=frozen,
        annotating_components=T["annotating_components"],
        before_update=seat.before_update(T["before_update"]),
    )

    def save_last() -> None:
        with nlp.use_params(optimizer.averages):
            replace_folder(output / DIR_MODEL_LAST, before_to_disk(nlp).to_disk)

    rows: List[Dict[str, Any]] = []
    is_timed = False
    seconds_before = history[-1]["seconds"] if history else 0
    if ranks.is_first:
        show_note(describe_plan(filled["training"]), stdout)
    with nlp.select_pipes(disable=frozen):
        log_step, finish_log = T["logger"](nlp, stdout, stderr) if ranks.is_first else (_log_nothing, _log_nothing)
    try:
        for _, info, is_best in steps:
            if is_best is not None:
                if seat.is_replaying:
                    info["losses"].update(seat.replayed["losses"])
                    info["seconds"] = seat.replayed["seconds"]
                else:
                    info["seconds"] += seconds_before
                    history.append({name: info[name] for name in ("score", "other_scores", "losses", "seconds")})
                    seed_cupy(info["step"])
                    if ranks.is_first:
                        with nlp.select_pipes(disable=frozen):
                            update_meta(T, nlp, info)
                        save_last()
                        if is_best:
                            replace_folder(
                                output / DIR_MODEL_BEST,
                                lambda folder: shutil.copytree(output / DIR_MODEL_LAST, folder, dirs_exist_ok=True),
                            )
                    random_states = ranks.gather(get_random_state())
                    if ranks.is_first:
                        checkpoint = Checkpoint(
                            config=config,
                            step=info["step"],
                            digest=batches.digest,
                            history=history,
                            start=start,
                            random=random_states,
                            optimizer=dump_optimizer(optimizer, nlp),
                        )
                        save_checkpoint(nlp, checkpoint, output)
                info["output_path"] = str(output / DIR_MODEL_LAST)
                rows.append(to_row(info, info["step"] - (rows[-1]["step"] if rows else -1)))
            log_step(info if is_best is not None else None)
            if seat.seconds is not None and not is_timed and ranks.is_first:
                is_timed = True
                show_note(describe_evaluation(seat.seconds, info["step"], filled["training"]), stdout)
            if resumed is not None and info["step"] == resumed.step:
                if batches.digest != resumed.digest:
                    raise NotResumableError("H182", found="it has other texts")
                load_optimizer(optimizer, nlp, resumed.optimizer)
                set_random_state(resumed.random[ranks.rank])
                seed_cupy(resumed.step)
                seat.is_replaying = False
        if seat.is_replaying:
            raise NotResumableError("H182", found="it ends too early")
    finally:
        finish_log()
        if ranks.is_first and not seat.is_replaying:
            save_last()
    if not ranks.is_first:
        return rows
    result = {"config": config, "evaluations": rows}
    write_files({output / RESULT: json.dumps(result, indent=1).encode("utf8")})
    clean_up(output)
    return rows


def _log_nothing(info: Optional[Dict[str, Any]] = None) -> None:
    """The logger of all processes but the first."""


class _Seat:
    """The pipeline as spaCy's loop drives it: while it replays, nothing happens, and it learns from its share alone.

    nlp (Language): The pipeline.
    evaluate (Callable): Evaluates it.
    history (List[Dict[str, Any]]): Evaluations to replay; those of a Checkpoint.
    ranks (Ranks): The processes that train.

    seconds (Optional[float]): What the last evaluation took, if there was one that was not replayed.
    """

    def __init__(
        self,
        nlp: Language,
        evaluate: Callable[[], Tuple[float, Dict[str, Any]]],
        history: List[Dict[str, Any]],
        ranks: Ranks,
    ) -> None:
        self.nlp = nlp
        self.ranks = ranks
        self.is_replaying = bool(history)
        self.replayed: Dict[str, Any] = {}
        self.seconds: Optional[float] = None
        self._evaluate = evaluate
        self._history = iter(list(history))

    @property
    def pipeline(self) -> List[Tuple[str, Any]]:
        return [] if self.is_replaying else self.nlp.pipeline

    def update(self, examples: List[Any], **kwargs: Any) -> None:
        if not self.is_replaying:
            self.nlp.update(self.ranks.share(examples), **kwargs)

    def use_params(self, params: Optional[Dict[Any, Any]]) -> Any:
        return self.nlp.use_params(params)

    def evaluate(self) -> Tuple[float, Dict[str, Any]]:
        if not self.is_replaying:
            start = time.perf_counter()
            found = self.ranks.broadcast(self._evaluate() if self.ranks.is_first else (0.0, {}))
            self.seconds = time.perf_counter() - start
            return found
        self.replayed = next(self._history)
        return self.replayed["score"], self.replayed["other_scores"]

    def before_update(self, callback: Optional[Callable]) -> Optional[Callable]:
        """The config's callback, which gets the pipeline itself and is not called while replaying."""
        if callback is None:
            return None
        return lambda _, step: None if self.is_replaying else callback(self.nlp, step)


class Batches:
    """Batches drawn with random numbers of their own, so that the same ones can be drawn again.

    As long as training itself draws none from python's, they are those of `spacy train`.

    batches (Iterator[Any]): What draws them.
    start (DataState): Random state to begin with.

    digest (int): Checksum of the epochs and texts drawn so far.
    """

    def __init__(self, batches: Iterator[Any], start: DataState) -> None:
        self.batches = batches
        self.state = start
        self.digest = 0

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> Any:
        outside = get_data_state()
        set_data_state(self.state)
        try:
            epoch, batch = next(self.batches)
            for part in (str(epoch), *(eg.reference.text for eg in batch)):
                self.digest = crc32(part.encode("utf8", "surrogatepass"), self.digest)
            return epoch, batch
        finally:
            self.state = get_data_state()
            set_data_state(outside)
