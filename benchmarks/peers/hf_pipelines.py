"""Hugging Face pipelines: BertForTokenClassification and BertForSequenceClassification, one encoder each, fp32.

`pipeline("token-classification")` (entities put together by aggregation_strategy="simple", windows of 512 wordpieces
that share 64 for longer texts) and `pipeline("text-classification")` (which cuts longer texts off), batched, texts
sorted by length beforehand. Row "entities alone" is the first of them.
"""

from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import torch
from transformers import (
    AutoTokenizer,
    BertForSequenceClassification,
    BertForTokenClassification,
    pipeline,
)
from worker import Peer, Row, Utterance, run, sort_by_length, train_torch, unsort


class HuggingFace(Peer):
    def prepare(self, train: List[Utterance], job: Dict[str, Any], output: Path) -> None:
        tokenizer = AutoTokenizer.from_pretrained(job["encoder"])
        tags = sorted({tag for utterance in train for tag in utterance["tags"]})
        intents = sorted({utterance["intent"] for utterance in train})

        def encode(batch: List[Utterance]) -> Any:
            words = [utterance["words"] for utterance in batch]
            return tokenizer(words, is_split_into_words=True, padding=True, return_tensors="pt")

        def tag_loss(batch: List[Utterance]) -> torch.Tensor:
            encoded = encode(batch)
            labels = torch.full_like(encoded["input_ids"], -100)
            for i, utterance in enumerate(batch):
                for j, word in enumerate(encoded.word_ids(i)):
                    if word is not None:
                        labels[i, j] = tags.index(utterance["tags"][word])
            return token_model(**encoded, labels=labels).loss

        def intent_loss(batch: List[Utterance]) -> torch.Tensor:
            labels = torch.tensor([intents.index(utterance["intent"]) for utterance in batch])
            return text_model(**encode(batch), labels=labels).loss

        token_model = BertForTokenClassification.from_pretrained(job["encoder"], **_labels(tags)).train()
        text_model = BertForSequenceClassification.from_pretrained(job["encoder"], **_labels(intents)).train()
        for name, model, loss in (("tokens", token_model, tag_loss), ("texts", text_model, intent_loss)):
            train_torch(model.named_parameters(), train, loss, "bert.", job)
            model.save_pretrained(output / name)
            tokenizer.save_pretrained(output / name)

    def rows(self, model: Path, job: Dict[str, Any]) -> Iterator[Tuple[str, Callable[[], Row]]]:
        yield "both heads", partial(make_row, model, both=True)
        yield "entities alone", partial(make_row, model, both=False)


def make_row(model: Path, *, both: bool) -> Row:
    """The pipelines, one after the other."""
    tagger = pipeline("token-classification", str(model / "tokens"), aggregation_strategy="simple", stride=64)
    classifier = pipeline("text-classification", str(model / "texts")) if both else None

    def predict(texts: List[str], size: int) -> Tuple[List[Any], List[Any]]:
        order, texts = sort_by_length(texts)
        entities = unsort(order, tagger(texts, batch_size=size))
        if classifier is None:
            return entities, []
        return entities, unsort(order, classifier(texts, batch_size=size, truncation=True))

    def read(predicted: Tuple[List[Any], List[Any]]) -> Tuple[List[int], List[str]]:
        entities, intents = predicted
        return [len(found) for found in entities], [found["label"] for found in intents]

    return Row(predict, read, note="long texts: intents from the first 512 wordpieces" if both else "")


def _labels(names: List[str]) -> Dict[str, Any]:
    return {"label2id": {name: i for i, name in enumerate(names)}, "id2label": dict(enumerate(names))}


if __name__ == "__main__":
    run(HuggingFace())
