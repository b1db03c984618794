"""A pipeline applied to texts: into a folder of shards, or record by record."""

import os
import threading
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, Optional, Sequence, Union

from tqdm import tqdm

from .. import __version__
from ..corpus.findings import KINDS, Where
from ..errors import BertHeadsError
from ..files import check_writable, lock
from .items import AUTO, STDIN, TEXT, Item, Source, count_items, find_sources, make_item, read_items
from .layout import REJECTED
from .local import Setup, run_local
from .manifest import Done, Manifest, hash_model
from .predictions import CATS, ENTS, FORMATS, SPANS, Options
from .shards import Outcome, Shard, cut

LOCAL, RAY = "local", "ray"
ENGINES = (LOCAL, RAY)
SHARD_SIZE = 1000
# Where a text that comes from a program is said to be
MEMORY = Path("<texts>")

Inputs = Union[str, Path, Iterable[Union[str, Path, Dict[str, Any]]]]


@dataclass
class Report:
    """What became of the texts.

    output (Path): Folder of the run.
    n_items (int): Records of the input.
    n_before (int): Of these, done by an earlier run.
    n_rejected (int): Without predictions.
    n_shards (int): Files of predictions.
    lost (Dict[str, int]): What the format cannot hold.
    """

    output: Path
    n_items: int = 0
    n_before: int = 0
    n_rejected: int = 0
    n_shards: int = 0
    lost: Dict[str, int] = field(default_factory=dict)

    def to_text(self) -> str:
        """RETURNS (str): The report, ready for a terminal. Its last line says what was written."""
        lines = [f"{count:,} {KINDS.get(kind, kind)}" for kind, count in sorted(self.lost.items())]
        written = f"Wrote {self.n_items - self.n_rejected:,} records in {self.n_shards:,} files to {self.output}"
        if self.n_before:
            written += f", {self.n_before:,} texts of them in an earlier run"
        if self.n_rejected:
            written += f"; {self.n_rejected:,} were rejected, see {self.output / REJECTED}"
        return "\n".join([*lines, written])


def apply_to_files(
    model: str,
    inputs: Sequence[Union[str, Path]],
    output: Path,
    *,
    options: Options,
    engine: str = LOCAL,
    address: Optional[str] = None,
    n_process: Optional[int] = None,
    gpus: Sequence[int] = (),
    threads: Optional[int] = None,
    batch_size: Optional[int] = None,
    shard_size: int = SHARD_SIZE,
    input_format: str = AUTO,
    text_column: Optional[str] = None,
    limit: Optional[int] = None,
    code: Optional[Path] = None,
) -> Report:
    """Write a pipeline's predictions of all texts into a folder, a file for each shard.

    Killed at any moment, it goes on where it was when it is called again: what is written is compared with the input
    by a hash of its content. The files, in the order of their names, and rejected.jsonl hold each record once.

    model (str): Folder or package of a trained pipeline.
    inputs (Sequence[Union[str, Path]]): As for items.find_sources.
    output (Path): Folder of the run. It is made if it is missing.
    options (Options): What to predict, and how to write it.
    engine (str): One of ENGINES.
    address (Optional[str]): Of the Ray cluster to join.
    n_process (Optional[int]): Processes, or Ray actors. None: as many as the machine has cores and memory for.
    gpus (Sequence[int]): GPUs, of which each has a process.
    threads (Optional[int]): Threads of each process. None: one.
    batch_size (Optional[int]): Texts that go through the pipeline together. None: as its config says.
    shard_size (int): Records of a file, fewer if they are long.
    input_format (str): One of items.KINDS, or "auto".
    text_column (Optional[str]): Key or column of the text.
    limit (Optional[int]): Read no more records than this.
    code (Optional[Path]): Python file with functions that the pipeline needs.
    RETURNS (Report): What became of the texts.
    RAISES (BertHeadsError): H1xx for a file that cannot be read as a whole or not be written; H187 if another run uses
        the folder; H227 if there is no such pipeline; H642, H643, H645 to H651, H655 to H658 or H660 as in
            errors.py.
    """
    if engine not in ENGINES:
        raise BertHeadsError("H657", found=repr(engine), expected=", ".join(ENGINES))
    if engine == LOCAL and address is not None:
        raise BertHeadsError("H658", found="--address", engine=engine)
    if engine == RAY and gpus:
        raise BertHeadsError("H658", found="--gpu-id", engine=engine)
    for name, value in (
        ("shard-size", shard_size),
        ("batch-size", batch_size),
        ("limit", limit),
        ("n-process", n_process),
    ):
        if value is not None and value < 1:
            raise BertHeadsError("H650", option=f"--{name}", found=value, expected="a number of at least 1")
    check_writable(output)
    sources = find_sources(inputs, kind=input_format, output=output)
    chosen = {
        "format": options.format,
        "select": sorted(options.select),
        "min_confidence": options.min_confidence,
        "drop_text": options.drop_text,
        "scheme": options.scheme,
        "shard_size": shard_size,
        "input_format": input_format,
        "text_column": text_column,
        "limit": limit,
    }
    header = {"version": __version__, "model": model, "hash": hash_model(model, code), "options": chosen}
    # Processes of a cluster start in another folder
    whole = os.path.abspath(model) if os.path.exists(model) else model
    setup = Setup(whole, options, batch_size, code and code.absolute(), output.absolute())
    if engine == RAY:
        if any(source.path == STDIN for source in sources):
            raise BertHeadsError("H658", found="-", engine=engine)
        sources = [source._replace(path=source.path.absolute()) for source in sources]
    with lock(output), Manifest(output, FORMATS[options.format], header) as manifest:
        report = Report(output, n_before=manifest.n_items)
        with tqdm(desc="apply", unit=" docs", delay=1.0, disable=None, smoothing=0.05) as bar:
            if not bar.disable:
                threading.Thread(target=_set_total, args=(bar, sources, limit), daemon=True).start()
            bar.initial = manifest.n_items
            tell = _in_turn(bar.update)
            tell(manifest.n_items)
            shards = ToDo(sources, text_column, shard_size, limit, manifest.done, output)
            outcomes: Iterator[Outcome]
            if engine == LOCAL:
                outcomes = run_local(setup, shards, n_process=n_process, gpus=gpus, threads=threads, tell=tell)
            else:
                from .ray_engine import run_ray

                outcomes = run_ray(setup, shards, address=address, n_process=n_process, threads=threads, tell=tell)
            with closing(outcomes):  # type: ignore[type-var]
                for outcome in outcomes:
                    manifest.commit(outcome)
        report.n_items, report.n_rejected = manifest.n_items, manifest.n_rejected
        report.n_shards, report.lost = len(manifest.done), manifest.lost
    if not report.n_items:
        raise BertHeadsError("H660", path=sources[0].path)
    return report


def apply(
    model: str,
    inputs: Inputs,
    *,
    select: Sequence[str] = (ENTS, CATS, SPANS),
    min_confidence: float = 0.0,
    n_process: Optional[int] = None,
    gpus: Sequence[int] = (),
    batch_size: Optional[int] = None,
    text_column: Optional[str] = None,
    limit: Optional[int] = None,
    code: Optional[Path] = None,
    rejected: Optional[Callable[[Dict[str, Any]], None]] = None,
) -> Iterator[Dict[str, Any]]:
    """Apply a trained pipeline to texts in several processes, and yield a record for each.

    A record is what `bert-heads apply` writes as JSONL: the keys of the input, and `ents`, `cats` and `spans`. Texts
    are read as they are needed, so there can be any number of them.

    model (str): Folder or package of the pipeline.
    inputs (Inputs): A file, folder or pattern; or any number of texts, which are strings or dicts with the text under
        "text"; or any number of Path objects.
    select (Sequence[str]): What to predict: "ents", "cats", "spans".
    min_confidence (float): Entities, spans and categories that are less probable are left out.
    n_process (Optional[int]): How many processes. None: as many as the machine has cores and memory for.
    gpus (Sequence[int]): GPUs, of which each has a process.
    batch_size (Optional[int]): Texts that go through the pipeline together. None: as its config says.
    text_column (Optional[str]): Key or column of the text.
    limit (Optional[int]): Read no more records than this.
    code (Optional[Path]): Python file with functions that the pipeline needs.
    rejected (Optional[Callable[[Dict[str, Any]], None]]): Called with what is in rejected.jsonl otherwise. Without
        it a bad record is an error.
    YIELDS (Dict[str, Any]): Records, in the order of the input.
    RAISES (BertHeadsError): As `apply_to_files`, and for the first bad record.
    """
    options = Options(select=tuple(select), min_confidence=min_confidence)
    setup = Setup(model, options, batch_size, code)
    shards = cut(islice(_items(inputs, text_column), limit), SHARD_SIZE)
    with closing(run_local(setup, shards, n_process=n_process, gpus=gpus, ordered=True)) as outcomes:  # type: ignore[type-var]
        for outcome in outcomes:
            for bad in outcome.rejected:
                if rejected is None:
                    raise BertHeadsError("H659", found=bad["reason"])
                rejected(bad)
            yield from outcome.records


@dataclass(frozen=True)
class ToDo:
    """The shards that are not done yet, which can be read in another process.

    sources (Sequence[Source]): The files.
    text_column (Optional[str]): Key or column of the text.
    shard_size (int): Records of a shard.
    limit (Optional[int]): Read no more records than this.
    done (Dict[int, Done]): What is done, by the numbers of shards.
    output (Path): Folder of the run.
    """

    sources: Sequence[Source]
    text_column: Optional[str]
    shard_size: int
    limit: Optional[int]
    done: Dict[int, Done]
    output: Path

    def __iter__(self) -> Iterator[Shard]:
        """YIELDS (Shard): Shards to be done.
        RAISES (BertHeadsError): H648 or H649 if what is done was made of other records."""
        done = dict(self.done)  # it grows meanwhile
        n_shards = 0
        for shard in cut(islice(read_items(self.sources, self.text_column), self.limit), self.shard_size):
            n_shards += 1
            if shard.number not in done:
                yield shard
            elif done[shard.number].digest != shard.digest:
                last = shard.first + shard.n_items
                raise BertHeadsError("H648", path=self.output, found=shard.first + 1, last=last)
        if done and max(done) >= n_shards:
            raise BertHeadsError("H649", path=self.output, found=n_shards, expected=max(done) + 1)


def _in_turn(update: Callable[[int], Any]) -> Callable[[int], None]:
    """A function that several threads may call, as a progress bar's is none."""
    turn = threading.Lock()

    def tell(n: int) -> None:
        with turn:
            update(n)

    return tell


def _set_total(bar: Any, sources: Sequence[Any], limit: Optional[int]) -> None:
    """Count the records while the first of them are worked on: then there is a time left to be shown."""
    try:
        total = count_items(sources)
    except (BertHeadsError, OSError, ValueError):
        return  # whoever reads it will say so
    if total:
        bar.total = total if limit is None else min(total, limit)


def _items(inputs: Inputs, text_column: Optional[str]) -> Iterator[Item]:
    if isinstance(inputs, (str, Path)):
        inputs = [Path(inputs)]
    remaining = iter(inputs)
    for first in remaining:
        everything = chain([first], remaining)
        if isinstance(first, Path):
            yield from read_items(find_sources(list(everything)), text_column)  # type: ignore[arg-type]
        else:
            yield from _wrap(everything, text_column or TEXT)


def _wrap(texts: Iterable[Any], text_column: str) -> Iterator[Item]:
    for number, text in enumerate(texts, 1):
        where = Where(MEMORY, number)
        yield make_item(where, text if isinstance(text, dict) else {text_column: text}, text_column)
