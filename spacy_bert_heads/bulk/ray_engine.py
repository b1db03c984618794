"""The engine on a cluster: Ray Data with an actor for each GPU, or for some cores. Needs the extra `ray`.

Ray starts the actors and others in place of those that die, sends shards to those that are free, and holds reading
back when they are not. An actor has its pipeline in a process of its own, as the local engine has: texts that end it
are set aside in the same way, and results are the same.
"""

import json
import logging
import pickle
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional

from ..errors import BertHeadsError
from ..threads import count_cpus
from .local import Setup, Worker
from .shards import Outcome, Shard


class Actor:
    """Holds a process that predicts. Ray makes one for each place in its pool.

    setup (Setup): What the process needs to know.
    n_threads (int): Threads that it may use.
    """

    def __init__(self, setup: Setup, n_threads: int) -> None:
        import ray

        # Ray hides all GPUs but the actor's own, also from the process that it starts
        gpus = ray.get_gpu_ids()
        self.worker = Worker(setup, n_threads, int(gpus[0]) if gpus else None)

    def __call__(self, batch: Dict[str, Any]) -> Dict[str, Any]:
        """Predict the shards of a batch.

        batch (Dict[str, Any]): `shard`: shards as JSON.
        RETURNS (Dict[str, Any]): `outcome`: outcomes as JSON. What goes wrong is an outcome too, with its error: Ray
            would try again what fails.
        """
        outcomes = []
        for text in batch["shard"]:
            if text.startswith('{"error"'):
                outcomes.append(text)
                continue
            try:
                outcome = self.worker.run(Shard(**json.loads(text)))
                outcomes.append(json.dumps({"outcome": outcome._asdict()}))
            except BertHeadsError as error:
                outcomes.append(json.dumps({"error": pickle.dumps(error).hex()}))
        return {"outcome": outcomes}


class Reader:
    """Reads shards, in a process of the cluster.

    shards (Iterable[Shard]): Can be pickled.
    """

    def __init__(self, shards: Iterable[Shard]) -> None:
        self.shards = shards

    def __call__(self, batch: Dict[str, Any]) -> Iterator[Dict[str, List[str]]]:
        """Read all of them, as fast as the actors take them.

        batch (Dict[str, Any]): Not looked at.
        YIELDS (Dict[str, List[str]]): `shard`: one shard as JSON, or `error`.
        """
        try:
            for shard in self.shards:
                yield {"shard": [json.dumps(shard._asdict(), ensure_ascii=False)]}
        except BertHeadsError as error:
            yield {"shard": [json.dumps({"error": pickle.dumps(error).hex()})]}


def run_ray(
    setup: Setup,
    shards: Iterable[Shard],
    *,
    address: Optional[str] = None,
    n_process: Optional[int] = None,
    threads: Optional[int] = None,
    tell: Callable[[int], None] = lambda n: None,
) -> Iterator[Outcome]:
    """Predict shards with the actors of a Ray cluster.

    Shards are read by a task of the cluster, as they are needed, and written by the actors: all machines must see the
    input, the model and the output folder under the same paths.

    setup (Setup): What the actors need to know.
    shards (Iterable[Shard]): Can be pickled.
    address (Optional[str]): Of the cluster to join. None: one is started on this machine, with the cores that this
        process may use.
    n_process (Optional[int]): How many actors. None: one for each GPU of the cluster or, without, for as many cores as
        an actor has threads; Ray adds some while there is work, and takes them away.
    threads (Optional[int]): Threads of each actor. None: one.
    tell (Callable[[int], None]): Called with the number of texts of each shard that is done.
    YIELDS (Outcome): One for each shard.
    RAISES (BertHeadsError): H410 if Ray is not installed; as Worker.run.
    """
    try:
        import ray
        from ray.data import ActorPoolStrategy, DataContext
    except ImportError as error:
        raise BertHeadsError("H410", found="ray", extra="ray") from error
    n_threads = threads or 1
    is_own = not ray.is_initialized()
    if is_own:
        settings: Dict[str, Any] = {"address": address}
        if address is None:
            settings = {"num_cpus": count_cpus() + 1, "include_dashboard": False}
        ray.init(log_to_driver=True, logging_level=logging.ERROR, **settings)
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    # Otherwise shards would wait until there are 128 MB of them. Each is a block of its own
    context.target_max_block_size = 1
    try:
        n_gpus = int(ray.cluster_resources().get("GPU", 0))
        most = n_process or n_gpus or max(1, int(ray.cluster_resources().get("CPU", 1)) // n_threads)
        # Half a core, since Ray joins steps that need the same: the actors would do the reading, one by one
        reading = ray.data.range(1).map_batches(Reader(shards), batch_size=1, num_cpus=0.5)
        dataset = reading.map_batches(
            Actor,
            batch_size=1,
            batch_format="numpy",
            fn_constructor_args=(setup, n_threads),
            num_cpus=None if n_gpus else n_threads,
            num_gpus=1 if n_gpus else None,
            compute=ActorPoolStrategy(size=most) if n_process else ActorPoolStrategy(min_size=1, max_size=most),
        )
        for row in dataset.iter_rows():
            found = json.loads(row["outcome"])
            if "error" in found:
                raise pickle.loads(bytes.fromhex(found["error"]))  # from our own actors
            outcome = Outcome(**found["outcome"])
            tell(outcome.n_items)
            yield outcome
    finally:
        if is_own:
            ray.shutdown()
