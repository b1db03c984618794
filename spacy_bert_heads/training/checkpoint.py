"""Checkpoints: all that a training needs to resume as if it had never been interrupted."""

import json
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, cast

import numpy
import torch
from spacy.language import Language
from thinc.api import Model, Optimizer, get_current_ops
from thinc.util import has_cupy_gpu, xp2torch

from .. import files
from ..errors import BertHeadsError, NotResumableError
from ..files import create, remove_folder, replace_folder
from .distributed import Key
from .optimizer import AdamW

FOLDER_NAME = re.compile(r"checkpoint-(\d+)")
PIPELINE, STATE = "pipeline", "state.pt"

# Of python and of numpy, in types that torch.load accepts as data
DataState = Tuple[Any, Any]


@dataclass
class Checkpoint:
    """A training after an evaluation. Its pipeline lies beside it.

    config (str): The training config as it was given, variables and all.
    step (int): The last step it has made.
    digest (int): Of the texts it has seen; see loop.Batches.
    history (List[Dict[str, Any]]): Of each evaluation: "score", "other_scores", "losses", "seconds".
    start (DataState): Random state before the first batch was drawn.
    random (List[Dict[str, Any]]): Random state after the last step, of each process.
    optimizer (Dict[str, Any]): See dump_optimizer.
    """

    config: str
    step: int
    digest: int
    history: List[Dict[str, Any]]
    start: DataState
    random: List[Dict[str, Any]]
    optimizer: Dict[str, Any]


def save_checkpoint(nlp: Language, checkpoint: Checkpoint, output: Path) -> None:
    """Write a checkpoint, and when it is complete remove those before it.

    nlp (Language): The pipeline.
    checkpoint (Checkpoint): All else.
    output (Path): Folder of the training.
    RAISES (BertHeadsError): H123 if it cannot be written; the checkpoint before it is then still there.
    """
    path = output / f"checkpoint-{checkpoint.step:06}"
    state = dict(vars(checkpoint), history=json.dumps(checkpoint.history, default=float))

    def write(folder: Path) -> None:
        nlp.to_disk(folder / PIPELINE)
        with create(folder / STATE, path) as stream:
            try:
                torch.save(state, stream)
            except RuntimeError as error:
                # torch says something about positions, and what the system said comes before
                raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None

    replace_folder(path, write)
    for other in find_checkpoints(output):
        if other != path:
            remove_folder(other)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint, without its pipeline.

    RAISES (BertHeadsError): H183 if that is impossible.
    """
    try:
        state = torch.load(path / STATE, map_location="cpu", weights_only=True)
        return Checkpoint(**dict(state, history=json.loads(state["history"])))
    except Exception as error:  # zipfile, pickle and torch each have their own
        raise NotResumableError("H183", path=path, found=f"{type(error).__name__}: {error}") from error


def find_checkpoints(output: Path) -> List[Path]:
    """RETURNS (List[Path]): The complete checkpoints of a training, the latest last."""
    found = [(FOLDER_NAME.fullmatch(path.name), path) for path in output.glob("checkpoint-*")]
    return [path for _, path in sorted((int(match.group(1)), path) for match, path in found if match)]


def clean_up(output: Path) -> None:
    """Remove all checkpoints of a training that has ended, and what killed ones have left behind."""
    for path in find_checkpoints(output):
        remove_folder(path)
    files.clean_up(output)


def get_data_state() -> DataState:
    """RETURNS (DataState): Random state of python and numpy, from which corpora and batches are drawn."""
    kind, keys, *rest = cast(tuple, numpy.random.get_state())
    return random.getstate(), (kind, torch.tensor(keys.astype("int64")), *rest)


def set_data_state(state: DataState) -> None:
    """Draw from here on as after `get_data_state`."""
    python, (kind, keys, *rest) = state
    random.setstate(python)
    numpy.random.set_state((kind, keys.numpy().astype("uint32"), *rest))


def get_random_state() -> Dict[str, Any]:
    """RETURNS (Dict[str, Any]): Random state of all that draws, but for cupy, which does not show its own."""
    return {
        "data": get_data_state(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: Dict[str, Any]) -> None:
    """Draw from here on as after `get_random_state`."""
    set_data_state(state["data"])
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def seed_cupy(step: int) -> None:
    """Seed cupy's random numbers again. Done at each checkpoint, so that a resumed training draws the same ones."""
    if has_cupy_gpu:
        import cupy

        cupy.random.seed(step)


def dump_optimizer(optimizer: Optimizer, nlp: Language) -> Dict[str, Any]:
    """The state of an optimizer, AdamW.v1 or one of thinc's, by names that hold in another process.

    RAISES (BertHeadsError): H272 for an optimizer of another kind.
    """
    names = _parameter_names(nlp)
    if isinstance(optimizer, AdamW):
        return {
            name: {names[key]: value for key, value in found.items() if key in names}
            if isinstance(found, dict)
            else found
            for name, found in optimizer.state_dict().items()
        }
    if type(optimizer) is not Optimizer:
        raise BertHeadsError("H272", found=type(optimizer).__name__)
    arrays = {"mom1": optimizer.mom1, "mom2": optimizer.mom2, "averages": optimizer.averages or {}}
    state: Dict[str, Any] = {
        kind: {names[key]: xp2torch(array).cpu().clone() for key, array in found.items() if key in names}
        for kind, found in arrays.items()
    }
    state["nr_update"] = {names[key]: count for key, count in optimizer.nr_update.items() if key in names}
    return state


def load_optimizer(optimizer: Optimizer, nlp: Language, state: Dict[str, Any]) -> None:
    """Take up what `dump_optimizer` gave."""
    keys = {name: key for key, name in _parameter_names(nlp).items()}
    state = {
        kind: {keys[name]: value for name, value in found.items()} if isinstance(found, dict) else found
        for kind, found in state.items()
    }
    if isinstance(optimizer, AdamW):
        optimizer.load_state_dict(state)
        return
    ops = get_current_ops()
    optimizer.nr_update.update(state["nr_update"])
    for kind in ("mom1", "mom2", "averages"):
        target: Optional[Dict[Key, Any]] = getattr(optimizer, kind)
        if target is not None:
            target.update({key: ops.asarray(tensor.numpy()) for key, tensor in state[kind].items()})


def _parameter_names(nlp: Language) -> Dict[Key, str]:
    """Ids are counted from the start in each process; component, number of the node and name stay."""
    names: Dict[Key, str] = {}
    for component_name, component in nlp.pipeline:
        model = getattr(component, "model", None)
        for number, node in enumerate(model.walk() if isinstance(model, Model) else ()):
            for name in node.param_names:
                names[(node.id, name)] = f"{component_name}/{number}/{name}"
            for shim in node.shims:
                if isinstance(shim._model, torch.nn.Module):
                    for name, _ in shim._model.named_parameters():
                        names[(shim.id, name)] = f"{component_name}/{number}/{shim.__class__.__name__}/{name}"
    return names
