"""One training from a config file: the beginning, or the rest."""

import json
import logging
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional

from spacy.cli._util import show_validation_error
from spacy.training.initialize import init_nlp
from spacy.training.loop import DIR_MODEL_BEST
from spacy.util import load_config, load_model, logger
from thinc.api import Config
from wasabi import msg

from ..errors import BertHeadsError
from .checkpoint import PIPELINE, Checkpoint, clean_up, find_checkpoints, load_checkpoint
from .console import describe_start, head_names, score_names
from .curve import draw_curve
from .distributed import Ranks
from .loop import RESULT, recover_models, train

CURVE = "training.png"
# Of a folder that holds another training
NOT_RESUMABLE = ("H181", "H182", "H183", "H186")


def run(
    config_path: Path,
    output: Path,
    *,
    overrides: Dict[str, Any],
    use_gpu: int,
    resume: bool,
    or_restart: bool = False,
    verbose: bool,
) -> str:
    """Train, or resume training, as a config says. In several processes when started by torchrun; see Ranks.

    config_path (Path): The training config.
    output (Path): Folder for everything that comes out.
    overrides (Dict[str, Any]): Settings by their names with dots.
    use_gpu (int): Number of the GPU, -1 for none.
    resume (bool): Resume if there is a checkpoint in the folder; do nothing if the training has finished.
    or_restart (bool): If the training has finished, or was started with another config or corpus, restart instead.
    verbose (bool): Log more.
    RETURNS (str): What was done.
    RAISES (BertHeadsError): H101 if there is no config; H180 if there is a checkpoint and `resume` is False; H181 if
        the folder's training is of another config; H182 if it is of another corpus; H183 if it cannot be read;
        H184, H185 for what several processes cannot train; H186 if there were another number of them.
    """
    ranks = Ranks()
    if resume and or_restart and find_checkpoints(output):
        try:
            return _run(config_path, output, overrides, use_gpu, resume=True, verbose=verbose, ranks=ranks)
        except BertHeadsError as error:
            if error.code not in NOT_RESUMABLE:
                raise
            msg.warn(f"Restarting. {error}")
        ranks.gather(None)  # all have seen it
        if ranks.is_first:
            clean_up(output)
        ranks.gather(None)
    resume = resume and not or_restart
    return _run(config_path, output, overrides, use_gpu, resume=resume, verbose=verbose, ranks=ranks)


def _run(
    config_path: Path,
    output: Path,
    overrides: Dict[str, Any],
    use_gpu: int,
    *,
    resume: bool,
    verbose: bool,
    ranks: Ranks,
) -> str:
    """See run."""
    if not config_path.is_file():
        raise BertHeadsError("H101", path=config_path)
    if verbose:
        logger.setLevel(logging.DEBUG)
    checkpoints = find_checkpoints(output)
    if checkpoints and not resume:
        raise BertHeadsError("H180", path=checkpoints[-1], found=load_checkpoint(checkpoints[-1]).step)
    with show_validation_error(config_path):
        config = load_config(config_path, overrides=overrides, interpolate=False)
    result = output / RESULT
    if resume and not checkpoints and result.is_file():
        ended = json.loads(result.read_text(encoding="utf8"))
        _check_config(config, ended["config"], result)
        return f"The training in {output} has already finished: {_best(ended['evaluations'])}"
    resumed: Optional[Checkpoint] = None
    if checkpoints:
        resumed = load_checkpoint(checkpoints[-1])
        _check_config(config, resumed.config, checkpoints[-1])
        if len(resumed.random) != ranks.size:
            raise BertHeadsError("H186", path=checkpoints[-1], found=len(resumed.random), expected=ranks.size)
        if ranks.is_first:
            recover_models(output)
        nlp = load_model(checkpoints[-1] / PIPELINE)
        if ranks.is_first:
            msg.info(f"Resuming after step {resumed.step}")
    else:
        output.mkdir(parents=True, exist_ok=True)
        if ranks.is_first:
            msg.info(describe_start(config))
        with show_validation_error(config_path, hint_fill=False):
            nlp = init_nlp(config, use_gpu=use_gpu)
    if ranks.is_first:
        msg.info(f"Pipeline: {nlp.pipe_names}")
    rows = train(
        nlp,
        output,
        config=config.to_str(interpolate=False),
        resumed=resumed,
        ranks=ranks,
        use_gpu=use_gpu,
        stdout=sys.stdout,
        stderr=sys.stderr,
    )
    if not ranks.is_first:
        return f"Process {ranks.rank} has finished"
    try:
        draw_curve(rows, head_names(nlp), score_names(nlp), output / CURVE)
    except BertHeadsError as error:
        msg.info(f"The training is not plotted. {error}")
    return f"{_best(rows)}; pipeline in {output / DIR_MODEL_BEST}"


def _best(rows: List[Dict[str, Any]]) -> str:
    best = max(rows, key=lambda row: (row["score"], -row["step"]))
    return f"best score {100 * best['score']:.2f} at step {best['step']} of {rows[-1]['step']}"


def _check_config(config: Config, begun_with: str, path: Path) -> None:
    now = _flatten(Config().from_str(config.to_str(interpolate=False), interpolate=False))
    then = _flatten(Config().from_str(begun_with, interpolate=False))
    missing = object()
    differing = sorted(name for name in {*now, *then} if now.get(name, missing) != then.get(name, missing))
    if differing:
        raise BertHeadsError("H181", path=path, found=", ".join(differing[:5]))


def _flatten(section: Dict[str, Any], prefix: str = "") -> Dict[str, Any]:
    flat: Dict[str, Any] = {}
    for name, value in section.items():
        if isinstance(value, dict) and value:
            flat.update(_flatten(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat
