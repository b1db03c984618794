"""What our pipelines and those of spacy-transformers share: Docs in, Docs out."""

from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

from worker import BATCH_SIZES, Learner, Predicted, Row, Utterance


def pipeline_row(load: Callable[[], Any], note: str = "") -> Row:
    """A pipeline that reads texts with `nlp.pipe`. The Docs are kept until the pass is over, as a user's would be."""
    nlp = load()

    def predict(texts: List[str], size: int) -> Any:
        return list(nlp.pipe(texts, batch_size=size))

    sizes = {"short": (*BATCH_SIZES["short"], 1000), "long": BATCH_SIZES["long"]}
    return Row(predict, read_docs, batch_sizes=sizes, note=note)


class PipelineLearner(Learner):
    """A pipeline in training: what `spacy train` does with a batch.

    config (Any): Its config.
    train (List[Utterance]): What it is initialised with.
    folder (Path): For corpora and checkpoints.
    """

    def __init__(self, config: Any, train: List[Utterance], folder: Path) -> None:
        from spacy.schemas import ConfigSchemaTraining
        from spacy.training.initialize import init_nlp
        from spacy.util import registry

        paths = write_corpora(train, folder)
        config["paths"].update({split: str(path) for split, path in paths.items()})
        self.nlp = init_nlp(config)
        self.training = registry.resolve(self.nlp.config.interpolate()["training"], schema=ConfigSchemaTraining)
        self.intents = sorted({utterance["intent"] for utterance in train} - {None})

    def step(self, batch: List[Utterance]) -> None:
        from spacy.training import Example

        docs = [annotations(self.nlp.vocab, utterance, self.intents) for utterance in batch]
        train_step(self.nlp, self.training, [Example(self.nlp.make_doc(doc.text), doc) for doc in docs])

    def predict(self, utterances: List[Utterance]) -> List[Predicted]:
        predicted: List[Predicted] = []
        for doc in self.nlp.pipe([" ".join(utterance["words"]) for utterance in utterances]):
            intent = max(doc.cats, key=lambda label: doc.cats[label]) if doc.cats else None
            predicted.append(({(ent.start_char, ent.end_char, ent.label_) for ent in doc.ents}, intent))
        return predicted

    def save(self, part: str, folder: Path) -> None:
        self.nlp.to_disk(folder / "best")

    def restore(self, part: str, folder: Path) -> None:
        import spacy

        self.nlp = spacy.load(folder / "best")


def train_step(nlp: Any, training: Dict[str, Any], examples: List[Any]) -> None:
    """What `spacy train` does with a batch. training: The resolved block of the config."""
    nlp.update(examples, drop=training["dropout"], sgd=False)
    for _, component in nlp.pipeline:
        if getattr(component, "is_trainable", False):
            component.finish_update(training["optimizer"])
    training["optimizer"].step_schedules()


def read_docs(docs: List[Any]) -> Tuple[List[int], List[str]]:
    """Number of entities and best category of each Doc."""
    entities = [len(doc.ents) for doc in docs]
    return entities, [max(doc.cats, key=lambda label: doc.cats[label]) for doc in docs if doc.cats]


def annotations(vocab: Any, utterance: Utterance, intents: List[str]) -> Any:
    """A Doc with its entities and all categories."""
    from spacy.tokens import Doc
    from spacy.training import iob_utils

    doc = Doc(vocab, words=utterance["words"])
    doc.set_ents(iob_utils.biluo_tags_to_spans(doc, iob_utils.iob_to_biluo(utterance["tags"])), default="outside")
    doc.cats = {label: float(label == utterance["intent"]) for label in intents}
    return doc


def write_corpora(train: List[Utterance], folder: Path) -> Dict[str, Path]:
    """The texts as .spacy files; a few of them serve as dev."""
    from spacy.tokens import DocBin
    from spacy.vocab import Vocab

    vocab, intents = Vocab(), sorted({utterance["intent"] for utterance in train})
    paths = {}
    for name, part in {"train": train, "dev": train[:50]}.items():
        paths[name] = folder / f"{name}.spacy"
        DocBin(docs=[annotations(vocab, utterance, intents) for utterance in part]).to_disk(paths[name])
    return paths
