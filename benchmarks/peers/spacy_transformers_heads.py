"""spacy-transformers with spaCy's built-in `textcat` and `ner` on one encoder: the pipeline of spaCy's own quickstart.

It is what `python -m spacy init config --pipeline ner,textcat --optimize accuracy --gpu` writes (TransformerModel.v3,
windows of 128 tokens with stride 96, the transition-based parser, TextCatEnsemble), with the encoder exchanged.
fp32: spacy-transformers has mixed precision on GPUs alone. Row "encoder alone" has the heads switched off.
"""

import random
import sys
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import spacy
from spacy.cli.init_config import init_config
from spacy.training import Example
from spacy.util import load_model_from_config, minibatch
from spacy_pipelines import PipelineLearner, annotations, pipeline_row
from worker import TRAIN_BATCH, Learner, Peer, Row, Utterance, run

LEARN_RATE = 3e-4  # one for encoder and heads, since spaCy knows no other; a compromise for a short training


class SpacyTransformers(Peer):
    def prepare(self, train: List[Utterance], job: Dict[str, Any], output: Path) -> None:
        config = init_config(lang="en", pipeline=["ner", "textcat"], optimize="accuracy", gpu=True)
        config["components"]["transformer"]["model"]["name"] = job["encoder"]
        config["training"]["optimizer"]["learn_rate"] = LEARN_RATE
        nlp = load_model_from_config(config, auto_fill=True)
        intents = sorted({utterance["intent"] for utterance in train})
        docs = [annotations(nlp.vocab, utterance, intents) for utterance in train]
        examples = [Example(nlp.make_doc(doc.text), doc) for doc in docs]
        optimizer = nlp.initialize(lambda: examples)
        for _ in range(job["epochs"]):
            random.shuffle(examples)
            losses: Dict[str, float] = {}
            for batch in minibatch(examples, TRAIN_BATCH):
                nlp.update(batch, sgd=optimizer, losses=losses, drop=0.1)
            print(losses, file=sys.stderr)
        nlp.to_disk(output / "pipeline")

    def learner(self, train: List[Utterance], job: Dict[str, Any]) -> Learner:
        heads = ["ner"] if train[0]["intent"] is None else ["ner", "textcat"]
        config = init_config(lang="en", pipeline=heads, optimize="accuracy", gpu=True)
        config["components"]["transformer"]["model"]["name"] = job["encoder"]
        config["system"]["seed"] = job["seed"]
        config["training"]["optimizer"]["learn_rate"] = {
            "@schedules": "warmup_linear.v1",
            "initial_rate": job["rates"][0],
            "warmup_steps": round(0.1 * job["total_steps"]),
            "total_steps": job["total_steps"],
        }
        return PipelineLearner(config, train, Path(job["model"]))

    def rows(self, model: Path, job: Dict[str, Any]) -> Iterator[Tuple[str, Callable[[], Row]]]:
        path = model / "pipeline"
        yield "both heads", partial(pipeline_row, partial(spacy.load, path))
        yield "encoder alone", partial(pipeline_row, partial(spacy.load, path, exclude=["textcat", "ner"]))


if __name__ == "__main__":
    run(SpacyTransformers())
