"""One training from a config file: the beginning, or the rest."""

import json
import logging
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Dict, List, Optional

from spacy.cli._util import show_validation_error
from spacy.training.initialize import init_nlp
from spacy.training.loop import DIR_MODEL_BEST
from spacy.util import load_config, load_model, logger
from thinc.api import Config
from wasabi import msg

from .. import files
from ..corpus.doc_bins import check_doc_bins
from ..errors import BertHeadsError, NotResumableError
from ..files import lock
from ..pipeline_io import check_encoders
from .checkpoint import PIPELINE, Checkpoint, clean_up, find_checkpoints, load_checkpoint
from .console import describe_start, describe_zeros, head_names, score_names
from .curve import draw_curve
from .distributed import Ranks
from .fit_config import check_language, check_overrides, set_encoder
from .loop import RESULT, train

CURVE = "training.png"
SPACY_READER = "spacy.Corpus.v1"


def run(
    config_path: Path,
    output: Path,
    *,
    overrides: Dict[str, Any],
    use_gpu: int,
    resume: bool,
    or_restart: bool = False,
    verbose: bool,
    encoder: Optional[str] = None,
) -> str:
    """Train, or resume training, as a config says. In several processes when started by torchrun; see Ranks.

    config_path (Path): The training config.
    output (Path): Folder for everything that comes out.
    overrides (Dict[str, Any]): Settings by their names with dots.
    use_gpu (int): Number of the GPU, -1 for none.
    resume (bool): Resume if there is a checkpoint in the folder; do nothing if the training has finished.
    or_restart (bool): Resume, but restart if the training has finished, or was started with another config or corpus.
    verbose (bool): Log more.
    encoder (Optional[str]): Name for BertEncoder.v1, or "scratch", as fit_config puts it in. None: as in the config.
    RETURNS (str): What was done.
    RAISES (BertHeadsError): H101 if there is no config; H222 if there is no encoder to replace; H229 for an override
        that would change nothing; H180 if there is a checkpoint and `resume` is False; H181 if
        the folder's training is of another config; H182 if it is of another corpus; H183 if it cannot be read;
        H184, H185 for what several processes cannot train; H186 if there were another number of them; H187 if another
        process trains into the folder.
    """
    ranks = Ranks()
    run_once = partial(_run, config_path, output, overrides, encoder, use_gpu, verbose=verbose, ranks=ranks)
    with lock(output) if ranks.is_first else nullcontext():
        if or_restart and find_checkpoints(output):
            try:
                return run_once(resume=True)
            except NotResumableError as error:
                msg.warn(f"Restarting. {error}")
            ranks.gather(None)  # all have seen it
            if ranks.is_first:
                clean_up(output)
            ranks.gather(None)
        return run_once(resume=resume and not or_restart)


def _run(
    config_path: Path,
    output: Path,
    overrides: Dict[str, Any],
    encoder: Optional[str],
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
    config = _read_config(config_path, overrides, encoder)
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
            raise NotResumableError("H186", path=checkpoints[-1], found=len(resumed.random), expected=ranks.size)
        if ranks.is_first:
            files.clean_up(output)
        nlp = load_model(checkpoints[-1] / PIPELINE)
        if ranks.is_first:
            msg.info(f"Resuming after step {resumed.step}")
    else:
        _check_corpora(config)
        output.mkdir(parents=True, exist_ok=True)
        if ranks.is_first:
            msg.info(describe_start(config))
        with show_validation_error(config_path, hint_fill=False):
            nlp = init_nlp(config, use_gpu=use_gpu)
        check_encoders(nlp)
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
    zeros = describe_zeros(_best_row(rows)["scores"], score_names(nlp))
    if zeros is not None:
        msg.warn(zeros)
    return f"{_best(rows)}; pipeline in {output / DIR_MODEL_BEST}"


def _read_config(path: Path, overrides: Dict[str, Any], encoder: Optional[str]) -> Config:
    """An encoder comes with its learning rates, which an override may replace."""
    try:
        with show_validation_error(path):
            config = load_config(path, interpolate=False)
    except UnicodeDecodeError as error:
        raise BertHeadsError("H221", path=path, found=str(error)) from error
    if encoder is not None:
        set_encoder(config, encoder, path)
    check_overrides(config, overrides, path)
    with show_validation_error(path):
        config = Config().from_str(config.to_str(interpolate=False), overrides=overrides, interpolate=False)
        config.interpolate()  # shows what a variable lacks
    check_language(config, path)
    return config


def _check_corpora(config: Config) -> None:
    """See that the files are there and of the right kind, which spaCy says by a traceback, or not at all.

    RAISES (BertHeadsError): H101 if there is none, H315 if one is something else.
    """
    corpora = config.interpolate().get("corpora", {})
    for corpus in corpora.values() if isinstance(corpora, dict) else ():
        if corpus.get("@readers") == SPACY_READER and corpus.get("path"):
            check_doc_bins(Path(corpus["path"]))


def _best_row(rows: List[Dict[str, Any]]) -> Dict[str, Any]:
    return max(rows, key=lambda row: (row["score"], -row["step"]))


def _best(rows: List[Dict[str, Any]]) -> str:
    best = _best_row(rows)
    return f"best score {100 * best['score']:.2f} at step {best['step']} of {rows[-1]['step']}"


def _check_config(config: Config, begun_with: str, path: Path) -> None:
    now = _flatten(Config().from_str(config.to_str(interpolate=False), interpolate=False))
    then = _flatten(Config().from_str(begun_with, interpolate=False))
    missing = object()
    differing = sorted(name for name in {*now, *then} if now.get(name, missing) != then.get(name, missing))
    if differing:
        raise NotResumableError("H181", path=path, found=", ".join(differing[:5]))


def _flatten(section: Dict[str, Any], prefix: str = "") -> Dict[str, Any]:
    flat: Dict[str, Any] = {}
    for name, value in section.items():
        if isinstance(value, dict) and value:
            flat.update(_flatten(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat
