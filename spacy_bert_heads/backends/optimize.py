"""A trained pipeline in, a copy whose encoders run in another backend out."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Iterator, List, Tuple, cast

import numpy
import torch
from spacy.language import Language
from thinc.api import Model

from ..errors import BertHeadsError
from ..layers.encoder_shim import EncoderShim
from ..layers.runtimes import Runtime, check_backend, export_module, get_backend
from ..models.encoder import is_encoder
from ..models.sentence_pairs import has_token_types
from ..pipeline_io import check_output, load_pipeline, write_pipeline
from .flat import Flat


@dataclass
class Optimized:
    """What `optimize` did.

    encoders (List[str]): Components whose encoders were exported.
    difference (float): Largest mean distance, over those encoders, of a wordpiece's vector from the original one,
        in lengths of that.
    megabytes_before, megabytes_after (float): Size of all files of the pipelines, in 10^6 bytes.
    """

    encoders: List[str]
    difference: float
    megabytes_before: float
    megabytes_after: float


def optimize(model: str, output: Path, *, backend: str, precision: str) -> Optimized:
    """Write a copy of a pipeline whose encoders run in another backend. It cannot be trained.

    model (str): Folder or package of the trained pipeline.
    output (Path): Folder to write. A pipeline that is there is replaced once the new one is complete.
    backend (str): Key of runtimes.BACKENDS.
    precision (str): One that the backend computes in.
    RETURNS (Optimized): What was done.
    RAISES (BertHeadsError): H227 for a pipeline that cannot be loaded; H240, H241 or H402 for a backend that cannot
        be used; H243 if it cannot take an encoder; H244 and H245 if there is none to export; H246 and H247 for an
        output that must not be replaced; H248 for an encoder of sentence pairs; H288 for
        one that exposes its attentions; H123 if it cannot be written.
    """
    check_backend(backend, precision)
    nlp = load_pipeline(model)
    check_output(nlp.path, output)
    encoders = list(find_encoders(nlp))
    if not encoders:
        raise BertHeadsError("H244")
    needs_types = {name: _needs_token_types(node) for name, node in _encoder_nodes(nlp)}
    differences = []
    for name, shim in encoders:
        if shim.runtime is not None:
            raise BertHeadsError("H245", found=shim.runtime.backend, component=name)
        if needs_types[name]:
            raise BertHeadsError("H248")
        if shim.attentions:
            raise BertHeadsError("H288")
        runtime = export_module(shim.module, backend, precision, hidden_states=shim.hidden_states)
        differences.append(mean_difference(shim, runtime))
        shim.runtime = runtime
    # pip then installs the backend with the packaged pipeline
    needed = [f"{package}>={version(package)}" for package in get_backend(backend).requirements]
    nlp.meta["requirements"] = [*nlp.meta.get("requirements", []), *needed]
    write_pipeline(nlp, output)
    before = _megabytes(nlp.path) if nlp.path else float("nan")
    return Optimized([name for name, _ in encoders], max(differences), before, _megabytes(output))


def find_encoders(nlp: Language) -> Iterator[Tuple[str, EncoderShim]]:
    """Every encoder of a pipeline, shared or a head's own, in disabled components too.

    YIELDS (Tuple[str, EncoderShim]): The component it is in, and the encoder.
    """
    for name, node in _encoder_nodes(nlp):
        yield name, cast(EncoderShim, node.shims[0])


def _encoder_nodes(nlp: Language) -> Iterator[Tuple[str, Model]]:
    for name, component in nlp.components:
        model = getattr(component, "model", None)
        for node in model.walk() if isinstance(model, Model) else ():
            if is_encoder(node):
                yield name, node


def _needs_token_types(encoder: Model) -> bool:
    config = cast(EncoderShim, encoder.shims[0]).config
    return encoder.attrs["settings"].pair_separator is not None and has_token_types(config)


def mean_difference(shim: EncoderShim, runtime: Runtime) -> float:
    """Distance of a runtime's vectors from those of the encoder in fp32, in lengths of the latter: the mean over
    random wordpieces in rectangles of several shapes.
    """
    random_state = numpy.random.RandomState(0)
    flat = Flat(shim.module, False)
    device = next(flat.parameters()).device
    distances = []
    for n_windows, n_pieces in ((1, 2), (4, 11), (3, 32)):
        shape = (n_windows, min(n_pieces, shim.max_positions))
        ids = random_state.randint(0, shim.config.vocab_size, shape).astype("int64")
        mask = numpy.ones_like(ids)
        with torch.no_grad():
            expected = flat(torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device))[0].cpu().numpy()
        found = runtime.run(ids, mask)["last_hidden_state"]
        distances.append(numpy.linalg.norm(found - expected, axis=-1) / numpy.linalg.norm(expected, axis=-1))
    return float(numpy.concatenate([distance.ravel() for distance in distances]).mean())


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()) / 1e6
