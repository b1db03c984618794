"""Our pipeline of configs/joint.cfg, both heads, run by `nlp.pipe`.

Rows: "auto" (the precision that the encoder chooses for itself), "fp32", "auto, entities alone", and "optimized",
which is the pipeline after `python -m spacy bert-heads optimize MODEL OUT --backend openvino --precision bf16`.
"""

import importlib.util
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

sys.path.append(str(Path(__file__).parent.parent))

import spacy
from runs import CONFIGS, train_pipeline
from spacy.util import load_config
from spacy_pipelines import PipelineLearner, pipeline_row, write_corpora
from worker import Learner, Peer, Row, Utterance, run

PRECISION = "components.transformer.model.precision"
AUTO, FP32 = {PRECISION: "auto"}, {PRECISION: "fp32"}
OPTIMIZE = ("--backend", "openvino", "--precision", "bf16")


class Ours(Peer):
    def prepare(self, train: List[Utterance], job: Dict[str, Any], output: Path) -> None:
        paths = write_corpora(train, output)
        train_pipeline(
            "joint.cfg",
            paths["train"],
            paths["dev"],
            len(train),
            output / "training",
            epochs=job["epochs"],
            precision="fp32",
            seed=job["seed"],
        )

    def learner(self, train: List[Utterance], job: Dict[str, Any]) -> Learner:
        config = load_config(CONFIGS / ("ner.cfg" if train[0]["intent"] is None else "joint.cfg"), interpolate=False)
        config["system"]["seed"] = job["seed"]
        encoder, heads = job["rates"]
        config["training"]["optimizer"].update(learn_rate=encoder, head_rate=heads, total_steps=job["total_steps"])
        return PipelineLearner(config, train, Path(job["model"]))

    def rows(self, model: Path, job: Dict[str, Any]) -> Iterator[Tuple[str, Callable[[], Row]]]:
        pipeline = model / "training" / "model-best"
        for settings in (AUTO, FP32):
            yield settings[PRECISION], partial(pipeline_row, partial(spacy.load, pipeline, config=settings))
        load_tagger = partial(spacy.load, pipeline, config=AUTO, exclude=["bert_textcat"])
        yield "auto, entities alone", partial(pipeline_row, load_tagger)
        yield "optimized", partial(pipeline_row, partial(load_optimized, pipeline), note=" ".join(OPTIMIZE))


def load_optimized(pipeline: Path) -> Any:
    """Made once, then kept beside the original. RAISES (RuntimeError): With the reason, if it cannot be made."""
    if importlib.util.find_spec("openvino") is None:
        raise RuntimeError("openvino is not installed")
    output = pipeline.parent / "optimized"
    if not output.exists():
        command = [sys.executable, "-m", "spacy", "bert-heads", "optimize", str(pipeline), str(output), *OPTIMIZE]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError((done.stderr or done.stdout).strip().split("\n")[-1])
    return spacy.load(output)


if __name__ == "__main__":
    run(Ours())
