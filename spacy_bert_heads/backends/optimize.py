"""A trained pipeline in, a copy whose encoders run in another backend out."""

from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Callable, Iterator, List, Optional, Sequence, Tuple, cast

import numpy
import torch
from spacy.language import Language
from thinc.api import Model

from ..errors import BertHeadsError
from ..layers.encoder_shim import EncoderShim
from ..layers.precision import cpu_kind
from ..layers.runtimes import Runtime, check_backend, export_module, get_backend
from ..models.encoder import is_encoder
from ..models.sentence_pairs import has_token_types
from ..pipeline_io import check_output, load_pipeline, write_pipeline
from .flat import Flat
from .measure import Bench, Measured, candidates, neutral_texts

AUTO = "auto"
# Share of texts with the same answers: for a backend to be chosen, and for one that was named to be written
CHOSEN, WRITTEN = 0.995, 0.99
# Key of meta.json under which a pipeline keeps what was measured
MEASURED = "optimized"


@dataclass
class Optimized:
    """What `optimize` did.

    encoders (List[str]): Components whose encoders were exported.
    difference (float): Largest mean distance, over those encoders, of a wordpiece's vector from the original one,
        in lengths of that.
    measured (Measured): What was written.
    tried (List[Measured]): All that was measured.
    neutral (bool): Whether it was measured on spaCy's example sentences.
    megabytes_before, megabytes_after (float): Size of all files of the pipelines, in 10^6 bytes.
    """

    encoders: List[str]
    difference: float
    measured: Measured
    tried: List[Measured]
    neutral: bool
    megabytes_before: float
    megabytes_after: float


def optimize(
    model: str,
    output: Path,
    *,
    backend: str = AUTO,
    precision: Optional[str] = None,
    texts: Sequence[str] = (),
    force: bool = False,
    tell: Callable[[Measured], None] = lambda measured: None,
) -> Optimized:
    """Write a copy of a pipeline whose encoders run in another backend. It cannot be trained.

    model (str): Folder or package of the trained pipeline.
    output (Path): Folder to write. A pipeline that is there is replaced once the new one is complete.
    backend (str): Key of runtimes.BACKENDS, or "auto": of all that is installed, the fastest that gives the same
        answers for 99.5 % of the texts.
    precision (Optional[str]): One that the backend computes in. None: the fastest of them, as for "auto".
    texts (Sequence[str]): Texts to measure with, at most 2,000. None: spaCy's example sentences of the language.
    force (bool): Write what was named even if it keeps the answers of fewer than 99 % of the texts.
    tell (Callable[[Measured], None]): Told of each way once it is measured.
    RETURNS (Optimized): What was done. The pipeline's meta.json has it too, under "optimized".
    RAISES (BertHeadsError): H227 for a pipeline that cannot be loaded; H240, H241 or H402 for a backend that cannot
        be used; H243 if it cannot take an encoder; H244 and H245 if there is none to export; H246 and H247 for an
        output that must not be replaced; H248 for an encoder of sentence pairs; H253 if what was named changes too
        many answers, H254 if there is nothing to choose; H288 for one that exposes its attentions; H123 if it cannot
        be written.
    """
    ways = _find_ways(backend, precision)
    nlp = load_pipeline(model)
    check_output(nlp.path, output)
    encoders = list(find_encoders(nlp))
    _check_encoders(nlp, encoders)
    bench = Bench(nlp, [shim for _, shim in encoders], texts or neutral_texts(nlp.lang or "en"))
    named = backend != AUTO and precision is not None
    best: Optional[Tuple[Measured, List[Runtime]]] = None
    tried = []
    for way in ways:
        try:
            runtimes = [export_module(shim.module, *way, hidden_states=shim.hidden_states) for _, shim in encoders]
        except BertHeadsError:
            if named:
                raise
            continue
        measured = bench.measure(runtimes)
        tried.append(measured)
        tell(measured)
        if named or (measured.agreement >= CHOSEN and measured.speed > (best[0].speed if best else 1)):
            best = measured, runtimes
    if best is None:
        raise BertHeadsError("H254", found=_list(tried), expected=f"{CHOSEN:.1%}")
    measured, runtimes = best
    if measured.agreement < WRITTEN and not force:
        n_other = round((1 - measured.agreement) * measured.n_texts)
        raise BertHeadsError(
            "H253",
            backend=measured.backend,
            precision=measured.precision,
            found=n_other,
            n_texts=measured.n_texts,
            share=f"{measured.agreement:.1%}",
            expected=f"{WRITTEN:.0%}",
        )
    difference = max(mean_difference(shim, runtime) for (_, shim), runtime in zip(encoders, runtimes))
    for (_, shim), runtime in zip(encoders, runtimes):
        shim.runtime = runtime
    # pip then installs the backend with the packaged pipeline
    needed = [f"{package}>={version(package)}" for package in get_backend(measured.backend).requirements]
    nlp.meta["requirements"] = [*nlp.meta.get("requirements", []), *needed]
    nlp.meta[MEASURED] = {**asdict(measured), "neutral_texts": not texts, "cpu": cpu_kind()}
    write_pipeline(nlp, output)
    before = _megabytes(nlp.path) if nlp.path else float("nan")
    names = [name for name, _ in encoders]
    return Optimized(names, difference, measured, tried, not texts, before, _megabytes(output))


def _find_ways(backend: str, precision: Optional[str]) -> List[Tuple[str, str]]:
    """RETURNS (List[Tuple[str, str]]): Backends and precisions to measure."""
    if backend != AUTO and precision is not None:
        check_backend(backend, precision)
        return [(backend, precision)]
    if backend != AUTO:
        # Says what is wrong with the name, or what to install
        check_backend(backend, "fp32")
    ways = candidates(torch.device("cpu"))
    return [way for way in ways if backend in (AUTO, way[0]) and precision in (None, way[1])]


def _check_encoders(nlp: Language, encoders: List[Tuple[str, EncoderShim]]) -> None:
    """RAISES (BertHeadsError): H244, H245, H248 or H288; see optimize."""
    if not encoders:
        raise BertHeadsError("H244")
    needs_types = {name: _needs_token_types(node) for name, node in _encoder_nodes(nlp)}
    for name, shim in encoders:
        if shim.runtime is not None:
            raise BertHeadsError("H245", found=shim.runtime.backend, component=name)
        if needs_types[name]:
            raise BertHeadsError("H248")
        if shim.attentions:
            raise BertHeadsError("H288")


def _list(tried: Sequence[Measured]) -> str:
    found = [f"{m.backend} {m.precision} keeps {m.agreement:.1%} at {m.speed:.2f} × its speed" for m in tried]
    return "; ".join(found) or "nothing could be measured"


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
