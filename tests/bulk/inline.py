"""Workers of the local engine within this process: what they do is real, but starting one takes seconds."""

import json
import os
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

from spacy_bert_heads.bulk.local import Setup, Worker
from spacy_bert_heads.bulk.shards import Shard
from spacy_bert_heads.bulk.worker import Desk
from spacy_bert_heads.files import temporary_name


class Died(BaseException):
    """Raised where a process would end."""


class InlineWorker(Worker):
    """Does what a Worker does without a process. A component that raises Died ends it."""

    desk: Optional[Desk] = None
    n_started = 0

    def _talk(self, shard: Shard, suspects: Any, killers: Any) -> Iterator[Dict[str, Any]]:
        answers: List[Dict[str, Any]] = []
        if self.desk is None:
            type(self).n_started += 1
            options = json.loads(json.dumps(vars(self.setup.options)))
            setup = {"model": self.setup.model, "options": options, "batch_size": self.setup.batch_size}
            self.desk = Desk({**setup, "gpu": None, "code": None}, answers.append)
        self.desk.answer = answers.append
        folder = None if self.setup.folder is None else str(self.setup.folder)
        task = {"shard": shard.number, "first": shard.first, "folder": folder}
        task.update(
            suspects=sorted(suspects), killers=sorted(killers), items=[json.loads(item) for item in shard.items]
        )
        try:
            self.desk.work(json.loads(json.dumps(task)))
        except Died:
            self.desk = None
        yield from answers


def name_of_ended_process(path: Path, ending: str) -> Path:
    """A temporary name with a number that no process has."""
    name = temporary_name(path, ending).name
    return path.with_name(name.replace(f".{os.getpid()}.", f".{2**31 - 1}."))


__all__ = ["Died", "InlineWorker", "Setup", "name_of_ended_process"]
