"""A process that predicts: `python -m spacy_bert_heads.bulk.worker`, told by lines of JSON what to do.

Its environment is set before torch is imported, which is why it is a process of its own and not a fork. Only plain
records come in and go out. The first line is its setup, each of the others a shard; its answers go to what was stdout.
It ends when the other end of its pipe is closed, also in the middle of a shard.
"""

import base64
import json
import os
import pickle
import queue
import signal
import sys
import threading
from pathlib import Path
from typing import IO, Any, Dict, Optional

from ..errors import BertHeadsError, NotWrittenError
from ..files import temporary_name, write_new
from .layout import shard_path


class Desk:
    """Does what the lines say.

    setup (Dict[str, Any]): The first line.
    answer (Any): Called with each answer.
    """

    def __init__(self, setup: Dict[str, Any], answer: Any) -> None:
        # Not before: setup has to be read while torch is not imported
        from spacy.cli._util import import_code

        from .predictions import FORMATS, Options, Predictor

        self.answer = answer
        if setup["gpu"] is not None:
            _use_gpu(setup["gpu"])
        if setup["code"] is not None:
            import_code(Path(setup["code"]))
        options = Options(**{**setup["options"], "select": tuple(setup["options"]["select"])})
        self.ending = FORMATS[options.format]
        self.predictor = Predictor(setup["model"], options, setup["batch_size"])

    def work(self, task: Dict[str, Any]) -> None:
        """Predict a shard; write it under a temporary name, or answer with its records.

        task (Dict[str, Any]): Number, items, folder of the output, and which texts are suspected of what.
        """

        def tell(start: int, end: int) -> None:
            self.answer({"batch": [start, end]})

        settings = {"suspects": task["suspects"], "killers": task["killers"], "tell": tell}
        result: Dict[str, Any] = {}
        if task["folder"] is None:
            records, rejected = self.predictor.records(task["items"], **settings)
            result.update(records=records, n_written=len(records), lost={})
        else:
            content, count, rejected, lost = self.predictor.write(task["items"], task["first"], **settings)
            path = shard_path(Path(task["folder"]), task["shard"], self.ending)
            temporary = temporary_name(path, "tmp")
            try:
                write_new(temporary, content, path)
            except NotWrittenError:
                temporary.unlink(missing_ok=True)
                raise
            result.update(temporary=str(temporary), n_bytes=len(content), n_written=count, lost=lost)
        from .shards import describe_rejected

        result["rejected"] = [describe_rejected(where, error) for where, error in rejected]
        self.answer({"result": result})


def main() -> None:
    """Read lines until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one ends it
    # Whatever prints must not print between the answers
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    lines: "queue.Queue[bytes]" = queue.Queue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, lines), daemon=True).start()

    def answer(value: Dict[str, Any]) -> None:
        answers.write(json.dumps(value).encode("ascii") + b"\n")
        answers.flush()

    desk: Optional[Desk] = None
    try:
        desk = Desk(json.loads(lines.get()), answer)
        answer({"ready": os.getpid()})
        while True:
            desk.work(json.loads(lines.get()))
    except BertHeadsError as error:
        answer({"error": base64.b64encode(pickle.dumps(error)).decode("ascii")})


def _listen(stream: IO[bytes], lines: "queue.Queue[bytes]") -> None:
    for line in stream:
        lines.put(line)
    # Nobody waits for the rest
    os._exit(0)


def _use_gpu(gpu: int) -> None:
    """Use the one GPU that this process can see; `gpu` is the number by which others know it."""
    import spacy
    import torch

    if not torch.cuda.is_available():
        reason = "this torch is built without CUDA" if torch.version.cuda is None else "no such device"
        raise BertHeadsError("H656", found=gpu, reason=reason)
    try:
        spacy.require_gpu(0)
    except ValueError as error:
        raise BertHeadsError("H656", found=gpu, reason=error) from error


if __name__ == "__main__":
    main()
