"""What the benchmarks that train pipelines share: reading SNIPS, and one training from a config of this repository."""

import argparse
import json
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from spacy.language import Language
from spacy.training import Corpus, Example
from spacy.training.initialize import init_nlp
from spacy.training.loop import train
from spacy.util import load_config
from thinc.api import Config

CONFIGS = Path(__file__).parent.parent / "configs"
BATCH_SIZE = 32
SPLITS = ("train", "dev", "test")
FILES = ("seq.in", "seq.out", "label")


def read_snips(folder: Path) -> Iterator[Tuple[List[str], List[str], str]]:
    """Words, tags and intent of each utterance. Fields are split on runs of white space."""
    columns = [(folder / name).read_text(encoding="utf8").rstrip("\n").split("\n") for name in FILES]
    if len({len(column) for column in columns}) > 1:
        raise SystemExit(f"{folder}: {', '.join(FILES)} have {[len(column) for column in columns]} lines")
    for line, (words, tags, intent) in enumerate(zip(*columns), start=1):
        if len(words.split()) != len(tags.split()):
            raise SystemExit(f"{folder}, line {line}: {len(words.split())} words but {len(tags.split())} tags")
        yield words.split(), tags.split(), intent.strip()


def set_values(config: Config, settings: Dict[str, Any]) -> None:
    """Sets values by their names with dots, whole blocks among them."""
    for name, value in settings.items():
        *sections, key = name.split(".")
        block: Dict[str, Any] = config
        for section in sections:
            block = block[section]
        block[key] = value


def parse_setting(text: str) -> Tuple[str, Any]:
    """NAME=VALUE, the value as JSON or, if it is none, as it stands."""
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, found {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def predict(nlp: Language, corpus: Path) -> List[Example]:
    """Gold Docs and what a pipeline predicts for them; `nlp.evaluate` keeps its predictions to itself."""
    examples = list(Corpus(corpus)(nlp))
    for example, doc in zip(examples, nlp.pipe([eg.predicted for eg in examples])):
        example.predicted = doc
    return examples


def train_pipeline(
    config_name: str,
    train_path: Path,
    dev_path: Path,
    n_train: int,
    output: Path,
    *,
    epochs: int,
    precision: str,
    seed: int,
    batch_size: int = BATCH_SIZE,
    change: Optional[Callable[[Config], None]] = None,
) -> Dict[str, float]:
    """Train with a learning rate that warms up for a tenth of the steps and falls to 0 with the last one.

    spaCy counts steps from 0 and evaluates where the number divides by eval_frequency, so the epochs are cut by a few
    steps to have the last evaluation after the last step.

    config_name (str): File in configs/.
    train_path (Path): The train split.
    dev_path (Path): The split that chooses model-best, about once an epoch.
    n_train (int): Docs in the train split.
    output (Path): Folder to make; model-best will be in it.
    epochs (int): Times over the train split.
    precision (str): The encoder's.
    seed (int): For all that is drawn.
    batch_size (int): Docs in a step.
    change (Optional[Callable[[Config], None]]): Changes other settings.
    RETURNS (Dict[str, float]): Seconds and examples per second, evaluation on dev included.
    """
    eval_frequency = max(1, (-(-n_train // batch_size) * epochs - 1) // epochs)
    last_step = eval_frequency * epochs
    overrides: Dict[str, Any] = {
        "paths.train": str(train_path),
        "paths.dev": str(dev_path),
        "system.seed": seed,
        "components.transformer.model.precision": precision,
        "training.max_epochs": epochs,
        "training.patience": 0,
        "training.max_steps": last_step,
        "training.eval_frequency": eval_frequency,
        "training.batcher.size": batch_size,
        "training.optimizer.total_steps": last_step + 1,
    }
    config = load_config(CONFIGS / config_name, overrides=overrides, interpolate=False)
    if change is not None:
        change(config)
    nlp = init_nlp(config)
    output.mkdir(parents=True)
    start = time.perf_counter()
    train(nlp, output)
    seconds = time.perf_counter() - start
    return {
        "training_seconds": round(seconds, 1),
        "training_examples_per_second": round(n_train * epochs / seconds, 1),
    }
