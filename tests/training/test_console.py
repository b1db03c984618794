"""The logger's rows, files and picture."""

import io
import json
import sys
from pathlib import Path
from typing import Any, Dict, Optional

import pytest
from spacy.util import load_config, registry

from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.training.console import (
    build_console_logger_v1,
    describe_evaluation,
    describe_plan,
    describe_start,
    describe_zeros,
    to_row,
)
from spacy_bert_heads.training.curve import draw_curve

from ..making import make_nlp

ROOT = Path(__file__).parents[2]
TOTAL = 40


def make_logger_nlp(bert_folder: str, **training: Any) -> Any:
    nlp = make_nlp(bert_folder, initialize=False)
    optimizer = {"@optimizers": "spacy_bert_heads.AdamW.v1", "total_steps": TOTAL}
    nlp.config["training"].update({"optimizer": optimizer, "max_steps": 0, **training})
    return nlp


def make_info(step: int) -> Dict[str, Any]:
    """What spaCy's loop says at an evaluation, the sums of losses among it."""
    return {
        "epoch": step // 10,
        "step": step,
        "seconds": 2 * step,
        "losses": {"transformer": 5.0, "bert_textcat": 20.0, "bert_ner": 10.0 * step},
        "other_scores": {"cats_score": 0.5, "ents_f": 0.25, "ents_per_type": {"CITY": {"f": 0.1}}, "speed": 100.0},
        "score": 0.375,
    }


def log(nlp: Any, **settings: Any) -> str:
    out = io.StringIO()
    log_step, close = build_console_logger_v1(**settings)(nlp, out, io.StringIO())
    for step in range(21):
        log_step(make_info(step) if step % 10 == 0 else None)
    close()
    return out.getvalue()


def test_rows_have_mean_losses_scores_and_the_time_left(bert_folder: str) -> None:
    shown = log(make_logger_nlp(bert_folder))
    header, _, *rows = [line.split() for line in shown.splitlines()]
    assert " ".join(header) == "epoch step loss textcat loss ner cats_score ents_f score left"
    assert len(rows) == 3
    # 10 steps since the row before; 21 steps in 40 s, 19 to go
    assert rows[2] == ["2", "20", "2.000", "20.000", "50.00", "25.00", "37.50", "0:00:36"]


@pytest.mark.parametrize(("max_steps", "left"), [(29, "0:00:17"), (0, "")])
def test_the_end_is_known_from_the_config_or_not_at_all(bert_folder: str, max_steps: int, left: str) -> None:
    nlp = make_logger_nlp(bert_folder, optimizer={"@optimizers": "Adam.v1"}, max_steps=max_steps)
    assert log(nlp).split()[-1] == (left or "37.50")


def test_the_file_has_every_number(bert_folder: str, tmp_path: Path) -> None:
    path = tmp_path / "new" / "log.jsonl"
    for _ in range(2):  # a file of an earlier training is replaced
        log(make_logger_nlp(bert_folder), output_file=str(path))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 10, 20]
    assert rows[1] == to_row(make_info(10), 10)
    assert rows[1]["losses"] == {"transformer": 0.5, "bert_textcat": 2.0, "bert_ner": 10.0}
    assert rows[1]["scores"] == {"cats_score": 0.5, "ents_f": 0.25, "speed": 100.0}


def test_a_file_that_cannot_be_written_is_named(bert_folder: str, tmp_path: Path) -> None:
    with pytest.raises(BertHeadsError, match="H123"):
        log(make_logger_nlp(bert_folder), output_file=str(tmp_path))


def test_tensorboard_gets_losses_and_scores(bert_folder: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log(make_logger_nlp(bert_folder), tensorboard=str(tmp_path))
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("losses/bert_ner")] == [(0, 0), (10, 10), (20, 20)]
    assert events.Scalars("scores/ents_f")[0].value == 0.25


def test_missing_extras_say_how_to_install_them(
    bert_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(BertHeadsError, match=r"H410.*spacy-bert-heads\[tensorboard\]"):
        log(make_logger_nlp(bert_folder), tensorboard=str(tmp_path))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(BertHeadsError, match=r"H410.*spacy-bert-heads\[plots\]"):
        draw_curve([], [], [], tmp_path / "curve.png")


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "curve.png"
    draw_curve([to_row(make_info(step), 10) for step in (0, 10, 20)], ["bert_ner"], ["cats_score", "ents_f"], path)
    assert path.read_bytes()[:4] == b"\x89PNG"
    assert [file.name for file in tmp_path.iterdir()] == ["curve.png"]


def test_it_is_registered() -> None:
    logger = registry.resolve({"logger": {"@loggers": "spacy_bert_heads.ConsoleLogger.v1"}})["logger"]
    assert callable(logger)


def test_what_comes_before_the_first_step_is_said() -> None:
    config: Dict[str, Any] = {
        "paths": {"train": "corpus/train.spacy"},
        "components": {"transformer": {"model": {"@architectures": "spacy_bert_heads.BertFromScratch.v1"}}},
        "initialize": {"components": {"transformer": {"vocab": None}}},
    }
    said = describe_start(config)
    assert "learning a vocabulary" in said and "(corpus/train.spacy)" in said
    config["initialize"]["components"]["transformer"]["vocab"] = "vocab.txt"
    assert "vocabulary" not in describe_start(config)
    config["components"] = {"bert_ner": {"source": "other"}}
    assert "vocabulary" not in describe_start(config)


@pytest.mark.parametrize(("total", "every", "step"), [(16, 3, 0), (16, 5, 0), (15, 5, 5), (4, 9, 0), (None, 3, 0)])
def test_the_evaluations_to_come_are_those_of_spacys_loop(total: Optional[int], every: int, step: int) -> None:
    training = {"optimizer": {"total_steps": total}, "max_steps": 0, "eval_frequency": every}
    said = describe_evaluation(2.0, step, training)
    # spaCy evaluates after steps 0, every, 2 * every, ...
    later = [number for number in range(step + 1, total or 0) if number % every == 0]
    if later:
        assert f"{len(later)} more, the next after step {later[0]}, take about 0:00:{2 * len(later):02}" in said
    else:
        assert said == "An evaluation takes about 2.0 s"
    assert f"every {every}" in describe_plan(training)


def test_a_head_that_has_learned_nothing_is_named() -> None:
    names = ["cats_score", "ents_f", "spans_sc_f"]
    assert describe_zeros({"cats_score": 1.0, "ents_f": 0.02, "speed": 0.0}, names) is None
    said = describe_zeros({"cats_score": 1.0, "ents_f": 0.0}, names)
    assert said is not None and "ents_f = 0" in said and "cats" not in said and "spans" not in said


def test_a_head_start_is_told_before_it_begins() -> None:
    config = load_config(ROOT / "configs" / "textcat.cfg")
    assert "a head start for text heads" in describe_start(config)
    config["initialize"]["after_init"] = None
    assert "head start" not in describe_start(config)
