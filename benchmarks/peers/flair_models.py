"""flair: SequenceTagger (BiLSTM 2x128 and CRF over TransformerWordEmbeddings) and TextClassifier (over
TransformerDocumentEmbeddings), one encoder each, fp32.

Run by their own `predict` with `mini_batch_size`, which sorts by length itself. Words are split at white space, the
cheapest of flair's tokenizers. Row "entities alone" is the tagger. Its document embeddings cut long texts off.

They learn from the same batches, one after the other, and the best epoch of each is chosen by itself.
"""

from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import torch
from flair.data import Dictionary, Sentence
from flair.embeddings import TransformerDocumentEmbeddings, TransformerWordEmbeddings
from flair.models import SequenceTagger, TextClassifier
from worker import Learner, Peer, Predicted, Row, Spans, TorchSteps, Utterance, run, train_torch


class Flair(Peer):
    def prepare(self, train: List[Utterance], job: Dict[str, Any], output: Path) -> None:
        sentences = [_gold_sentence(utterance) for utterance in train]
        for name, model in make_models(train, job["encoder"]).items():
            model.train()
            train_torch(model.named_parameters(), sentences, partial(_loss, model), "embeddings.", job)
            model.save(output / f"{name}.pt")

    def learner(self, train: List[Utterance], job: Dict[str, Any]) -> Learner:
        return FlairLearner(train, job)

    def rows(self, model: Path, job: Dict[str, Any]) -> Iterator[Tuple[str, Callable[[], Row]]]:
        yield "both heads", partial(make_row, model, both=True)
        yield "entities alone", partial(make_row, model, both=False)


def make_models(train: List[Utterance], encoder: str) -> Dict[str, Any]:
    """The tagger and, where there are intents, the classifier."""
    slots = _labels({tag[2:] for utterance in train for tag in utterance["tags"] if tag != "O"})
    slots.span_labels = True  # the tagger makes BIO tags of them
    models: Dict[str, Any] = {
        "tagger": SequenceTagger(
            embeddings=TransformerWordEmbeddings(encoder, layers="-1", subtoken_pooling="first", fine_tune=True),
            tag_dictionary=slots,
            tag_type="slot",
            tag_format="BIO",
            hidden_size=128,
            use_rnn=True,
            use_crf=True,
            reproject_embeddings=False,
        )
    }
    if train[0]["intent"] is not None:
        models["classifier"] = TextClassifier(
            TransformerDocumentEmbeddings(encoder, layers="-1", fine_tune=True),
            label_dictionary=_labels({utterance["intent"] for utterance in train}),
            label_type="intent",
        )
    return models


class FlairLearner(Learner):
    """Both models in training."""

    def __init__(self, train: List[Utterance], job: Dict[str, Any]) -> None:
        self.models = make_models(train, job["encoder"])
        names = {"tagger": "slot_f1", "classifier": "intent_accuracy"}
        self.choices = {part: names[part] for part in self.models}
        self.steps = {part: TorchSteps(m.named_parameters(), "embeddings.", job) for part, m in self.models.items()}

    def step(self, batch: List[Utterance]) -> None:
        sentences = [_gold_sentence(utterance) for utterance in batch]
        for part, model in self.models.items():
            model.train()
            self.steps[part].step(_loss(model, sentences))

    def predict(self, utterances: List[Utterance]) -> List[Predicted]:
        sentences = [Sentence(utterance["words"]) for utterance in utterances]
        for model in self.models.values():
            model.predict(sentences, mini_batch_size=64)
        return [(_spans(s), s.get_label("intent").value if "classifier" in self.models else None) for s in sentences]

    def save(self, part: str, folder: Path) -> None:
        torch.save(self.models[part].state_dict(), folder / f"{part}-weights.pt")

    def restore(self, part: str, folder: Path) -> None:
        # flair keeps more than tensors among its weights
        self.models[part].load_state_dict(torch.load(folder / f"{part}-weights.pt", weights_only=False))


def make_row(model: Path, *, both: bool) -> Row:
    """The models, one after the other."""
    tagger = SequenceTagger.load(model / "tagger.pt")
    classifier = TextClassifier.load(model / "classifier.pt") if both else None

    def predict(texts: List[str], size: int) -> List[Sentence]:
        sentences = [Sentence(text, use_tokenizer=False) for text in texts]
        tagger.predict(sentences, mini_batch_size=size)
        if classifier is not None:
            classifier.predict(sentences, mini_batch_size=size)
        return sentences

    def read(sentences: List[Sentence]) -> Tuple[List[int], List[str]]:
        intents = [sentence.get_label("intent").value for sentence in sentences] if both else []
        return [len(sentence.get_spans("slot")) for sentence in sentences], intents

    return Row(predict, read)


def _loss(model: Any, batch: List[Sentence]) -> Any:
    # Sentences keep the embeddings of the epoch before
    for sentence in batch:
        sentence.clear_embeddings()
    total, count = model.forward_loss(batch)
    return total / count


def _gold_sentence(utterance: Utterance) -> Sentence:
    sentence = Sentence(utterance["words"])
    start = 0
    tags = [*utterance["tags"], "O"]
    for i, tag in enumerate(tags):
        if i > start and tags[start] != "O" and not tag.startswith("I-"):
            sentence[start:i].add_label("slot", tags[start][2:])
        if not tag.startswith("I-"):
            start = i
    if utterance["intent"] is not None:
        sentence.add_label("intent", utterance["intent"])
    return sentence


def _spans(sentence: Sentence) -> Spans:
    found = sentence.get_spans("slot")
    return {(span.start_position, span.end_position, span.get_label("slot").value) for span in found}


def _labels(names: Any) -> Dictionary:
    dictionary = Dictionary(add_unk=False)
    for name in sorted(names):
        dictionary.add_item(name)
    return dictionary


if __name__ == "__main__":
    run(Flair())
