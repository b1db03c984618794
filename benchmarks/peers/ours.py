"""Our pipeline of configs/joint.cfg, both heads, run by `nlp.pipe`.

Rows: "auto" (the precision that the encoder chooses for itself), "fp32", "auto, entities alone", and "optimized": the
pipeline after `python -m spacy bert-heads optimize MODEL OUT --texts FILE`, in the backend and precision that are
fastest on this machine and keep the answers of 99.5 % of the short texts.
"""

import json
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
N_OPTIMIZE = 500  # Texts that `optimize` measures with


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
        yield "optimized", partial(optimized_row, pipeline, Path(job["texts"]))


def optimized_row(pipeline: Path, texts: Path) -> Row:
    """Made once, then kept beside the original. RAISES (RuntimeError): With the reason, if nothing was written."""
    output, sample = pipeline.parent / "optimized", pipeline.parent / "sample.txt"
    if not output.exists():
        short = json.loads(texts.read_text(encoding="utf8"))["short"]
        sample.write_text("\n".join(list(dict.fromkeys(short))[:N_OPTIMIZE]), encoding="utf8")
        command = [sys.executable, "-m", "spacy", "bert-heads", "optimize", str(pipeline), str(output)]
        done = subprocess.run([*command, "--texts", str(sample)], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError((done.stderr or done.stdout).strip().split("\n")[-1])
    chosen = json.loads((output / "meta.json").read_text(encoding="utf8"))["optimized"]
    return pipeline_row(partial(spacy.load, output), note=json.dumps(chosen))


if __name__ == "__main__":
    run(Ours())
