"""Several processes that train together, against one process with the whole batch."""

import multiprocessing
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest
import spacy
import torch
from thinc.api import Config
from torch import distributed as dist

from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.training.checkpoint import find_checkpoints
from spacy_bert_heads.training.distributed import Ranks
from spacy_bert_heads.training.optimizer import build_adamw_v1

from ..making import assert_close, make_config, make_examples, make_nlp, make_scratch_config
from .test_resume import LEFT, Killed, assert_same_training, kill_at, make_config_file, model_bytes, read_rows, train

HEADS = ["bert_textcat", "bert_ner"]
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="starts its processes by fork")


def in_processes(size: int, function: Callable[[], Any]) -> List[Any]:
    """Call a function in as many processes as torchrun would start, and wait for what each returns."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    context = multiprocessing.get_context("fork")
    queue = context.Queue()

    def begin(rank: int) -> None:
        os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        try:
            queue.put((rank, function()))
        except BaseException as error:
            queue.put((rank, error))
        dist.destroy_process_group()

    processes = [context.Process(target=begin, args=(rank,)) for rank in range(size)]
    for process in processes:
        process.start()
    found = dict(queue.get(timeout=120) for _ in processes)
    for process in processes:
        process.join()
    return [found[rank] for rank in range(size)]


def make_optimizer() -> Any:
    return build_adamw_v1(learn_rate=0.01, decay="constant", warmup=0, grad_clip=0.05)


def make_steps(folder: str, sizes: List[int], times: int = 1) -> List[bytes]:
    """Weights after some steps, the texts of a batch shared by the processes there are."""
    nlp = make_nlp(encoder=make_config(folder), heads=HEADS)
    optimizer, ranks = make_optimizer(), Ranks()
    optimizer.ranks = ranks
    ranks.check(nlp, optimizer, [])
    ranks.begin(nlp)
    examples = make_examples(nlp) * 3
    for size in sizes:
        for _ in range(times):
            nlp.update(ranks.share(examples[:size]), sgd=False)
        for _, component in nlp.pipeline:
            component.finish_update(optimizer)  # type: ignore[attr-defined]
        optimizer.step_schedules()
    assert optimizer.step == len(sizes)
    return model_bytes(nlp)


def load(folder: str, content: List[bytes]) -> Dict[str, torch.Tensor]:
    nlp = make_nlp(encoder=make_config(folder), heads=HEADS)
    for (_, component), data in zip(nlp.pipeline, content):
        component.model.from_bytes(data)  # type: ignore[attr-defined]
    shims = [shim for _, component in nlp.pipeline for node in component.model.walk() for shim in node.shims]
    return {f"{i}.{name}": p for i, shim in enumerate(shims) for name, p in shim.module.named_parameters()}


@pytest.mark.parametrize("size, sizes, times", [(2, [4], 1), (2, [3, 1, 4], 1), (3, [2, 6, 3], 1), (2, [4, 4], 2)])
def test_processes_make_the_steps_that_one_makes(bert_folder: str, size: int, sizes: List[int], times: int) -> None:
    """Batches of unlike shares, or too small for all; the norm is cut, so it must be that of all gradients."""
    found = in_processes(size, lambda: make_steps(bert_folder, sizes, times))
    assert all(content == found[0] for content in found)
    expected, before = load(bert_folder, make_steps(bert_folder, sizes, times)), load(bert_folder, [])
    changed = 0
    for name, parameter in load(bert_folder, found[0]).items():
        # Adam divides by the gradient's size, which for keys' biases is rounding alone
        if "key.bias" not in name:
            assert_close(parameter.detach(), expected[name].detach(), 2e-4)
            changed += not torch.equal(parameter, before[name])
    assert changed > 20


def make_two_heads(folder: Path, dropout: float, **training: Any) -> Path:
    config = Config().from_disk(make_config_file(folder, dropout=dropout, **training))
    nlp = make_nlp(encoder=make_scratch_config(dropout=dropout), heads=HEADS, initialize=False)
    for section in ("nlp", "components"):
        config[section] = nlp.config[section]
    config["training"]["score_weights"] = {"cats_micro_f": 0.5, "ents_f": 0.5}
    config.to_disk(folder / "config.cfg")
    return folder / "config.cfg"


@pytest.mark.slow
def test_a_training_in_two_processes_scores_as_in_one(tmp_path: Path) -> None:
    config = make_two_heads(tmp_path, dropout=0.0)
    train(config, tmp_path / "one")
    said = in_processes(2, lambda: train(config, tmp_path / "two"))
    assert "best score" in said[0] and said[1] == "Process 1 has finished"
    assert {path.name for path in (tmp_path / "two").iterdir()} - {"training.png"} == LEFT
    one, two = (read_rows(tmp_path / name) for name in ("one", "two"))
    assert [row["step"] for row in one] == [row["step"] for row in two]
    assert [row["score"] for row in one] == pytest.approx([row["score"] for row in two], abs=0.05)
    assert spacy.load(tmp_path / "two" / "model-best")("cancel my order")


@pytest.mark.slow
def test_two_processes_resume_with_the_same_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_two_heads(tmp_path, dropout=0.2, accumulate_gradient=2)
    in_processes(2, lambda: train(config, tmp_path / "one"))

    def begin() -> None:
        kill_at(monkeypatch, "step", 9)
        with pytest.raises(Killed):
            train(config, tmp_path / "other")

    assert in_processes(2, begin) == [None, None]
    (checkpoint,) = find_checkpoints(tmp_path / "other")
    with pytest.raises(BertHeadsError, match=f"{checkpoint.name}.*H186|H186.*2 processes, not 1"):
        train(config, tmp_path / "other", resume=True)
    in_processes(2, lambda: train(config, tmp_path / "other", resume=True))
    assert_same_training(tmp_path / "one", tmp_path / "other")


def test_what_processes_cannot_share_is_refused(bert_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nlp = make_nlp(encoder=make_config(bert_folder), heads=["bert_ner", "tagger"])
    ranks = Ranks()
    ranks.check(nlp, nlp.create_optimizer(), [])
    ranks.size = 2
    with pytest.raises(BertHeadsError, match="H184.*Optimizer"):
        ranks.check(nlp, nlp.create_optimizer(), [])
    with pytest.raises(BertHeadsError, match="H185.*'tagger'"):
        ranks.check(nlp, make_optimizer(), [])
    ranks.check(nlp, make_optimizer(), ["tagger"])


@pytest.mark.slow
def test_the_command_runs_under_torchrun(tmp_path: Path) -> None:
    config = make_two_heads(tmp_path, dropout=0.1)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "spacy", "bert-heads", "train", str(config), "--output", str(tmp_path / "out")]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("best score") == 1
    assert {path.name for path in (tmp_path / "out").iterdir()} - {"training.png"} == LEFT
