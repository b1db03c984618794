"""A joint model in plain PyTorch: pooled [CLS] -> linear; first wordpieces -> BiLSTM 2x128 -> linear -> pytorch-crf.

What a careful programmer writes by hand: words split at white space, wordpieces by the fast tokenizer, batches sorted
by their length in wordpieces, no gradients, one copy from torch per batch; the CRF in fp32. Rows: "bf16" (autocast)
and "fp32". Longer texts: windows of 512 wordpieces without overlap, put together again before the heads.

It learns with the encoder in bf16 autocast and the heads in fp32, with dropout of 0.1 before each of them.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import torch
from bare_encoder import Windows, autocast, encode_texts, pad
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
from torchcrf import CRF
from transformers import AutoConfig, AutoModel, AutoTokenizer
from worker import (
    Learner,
    Peer,
    Predicted,
    Row,
    TorchSteps,
    Utterance,
    run,
    sort_by_length,
    tag_spans,
    train_torch,
    unsort,
)

SETTINGS = "settings.json"


class JointModel(torch.nn.Module):
    """The encoder with both heads."""

    def __init__(self, encoder: Any, n_tags: int, n_intents: int) -> None:
        super().__init__()
        self.encoder = encoder
        width = encoder.config.hidden_size
        self.dropout = torch.nn.Dropout(0.1)
        self.intent = torch.nn.Linear(width, n_intents) if n_intents else None
        self.lstm = torch.nn.LSTM(width, 128, bidirectional=True, batch_first=True)
        self.tag = torch.nn.Linear(256, n_tags)
        self.crf = CRF(n_tags, batch_first=True)

    def forward(self, windows: Windows) -> Tuple[Optional[torch.Tensor], torch.Tensor, torch.Tensor]:
        """RETURNS: Intent scores of each text; tag scores of its words, padded; True where there is a word."""
        encoded = self.encoder(**pad(windows.ids))
        return self.heads(windows, encoded.last_hidden_state, encoded.pooler_output)

    def heads(
        self, windows: Windows, pieces: torch.Tensor, pooled: torch.Tensor
    ) -> Tuple[Optional[torch.Tensor], torch.Tensor, torch.Tensor]:
        """As `forward`, from what the encoder says."""
        owners = torch.tensor(windows.texts)
        counts = torch.bincount(owners, minlength=windows.n_texts)
        sums = pooled.new_zeros(windows.n_texts, pooled.shape[1]).index_add(0, owners, pooled)
        lengths = [len(places) for places in windows.first_pieces]
        rows = torch.tensor([row for places in windows.first_pieces for row, _ in places])
        columns = torch.tensor([column for places in windows.first_pieces for _, column in places])
        words = self.dropout(pieces[rows, columns]).split(lengths)
        packed = pack_padded_sequence(
            pad_sequence(list(words), batch_first=True), torch.tensor(lengths), batch_first=True, enforce_sorted=False
        )
        hidden, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
        means = self.dropout(sums / counts[:, None].clamp(min=1))
        return None if self.intent is None else self.intent(means), self.tag(self.dropout(hidden)), mask

    def loss(self, intent_scores: Any, tag_scores: Any, mask: Any, gold_tags: List[Any], gold_intents: Any) -> Any:
        """Mean over the texts. gold_tags: Numbers, a tensor for each text. gold_intents: Numbers, or None."""
        loss = -self.crf(tag_scores, pad_sequence(gold_tags, batch_first=True), mask, reduction="mean")
        return loss if gold_intents is None else loss + torch.nn.functional.cross_entropy(intent_scores, gold_intents)


class JointLearner(Learner):
    """The model in training."""

    def __init__(self, train: List[Utterance], job: Dict[str, Any]) -> None:
        self.tags = sorted({tag for utterance in train for tag in utterance["tags"]})
        self.intents = sorted({utterance["intent"] for utterance in train} - {None})
        self.tokenizer = AutoTokenizer.from_pretrained(job["encoder"])
        self.model = JointModel(AutoModel.from_pretrained(job["encoder"]), len(self.tags), len(self.intents))
        self.steps = TorchSteps(self.model.named_parameters(), "encoder.", job)

    def step(self, batch: List[Utterance]) -> None:
        self.model.train()
        intents = [self.intents.index(utterance["intent"]) for utterance in batch] if self.intents else None
        tags = [torch.tensor([self.tags.index(tag) for tag in utterance["tags"]]) for utterance in batch]
        self.steps.step(self.model.loss(*self._read(batch), tags, None if intents is None else torch.tensor(intents)))

    def predict(self, utterances: List[Utterance]) -> List[Predicted]:
        self.model.eval()
        predicted: List[Predicted] = []
        for start in range(0, len(utterances), 64):
            batch = utterances[start : start + 64]
            with torch.inference_mode():
                intent_scores, tag_scores, mask = self._read(batch)
                paths = self.model.crf.decode(tag_scores, mask)
            chosen = [None] * len(batch) if intent_scores is None else intent_scores.argmax(1).tolist()
            for utterance, path, intent in zip(batch, paths, chosen):
                spans = tag_spans(utterance["words"], [self.tags[tag] for tag in path])
                predicted.append((spans, None if intent is None else self.intents[intent]))
        return predicted

    def _read(self, batch: List[Utterance]) -> Tuple[Optional[torch.Tensor], torch.Tensor, torch.Tensor]:
        windows = encode_texts(self.tokenizer, [" ".join(utterance["words"]) for utterance in batch], words=True)
        with autocast(torch.bfloat16):
            encoded = self.model.encoder(**pad(windows.ids))
        return self.model.heads(windows, encoded.last_hidden_state.float(), encoded.pooler_output.float())

    def save(self, part: str, folder: Path) -> None:
        torch.save(self.model.state_dict(), folder / "weights.pt")

    def restore(self, part: str, folder: Path) -> None:
        self.model.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))


class PlainTorch(Peer):
    def prepare(self, train: List[Utterance], job: Dict[str, Any], output: Path) -> None:
        tokenizer = AutoTokenizer.from_pretrained(job["encoder"])
        tags = sorted({tag for utterance in train for tag in utterance["tags"]})
        intents = sorted({utterance["intent"] for utterance in train})
        model = JointModel(AutoModel.from_pretrained(job["encoder"]), len(tags), len(intents)).train()

        def loss(batch: List[Utterance]) -> torch.Tensor:
            windows = encode_texts(tokenizer, [" ".join(utterance["words"]) for utterance in batch], words=True)
            intent_scores, tag_scores, mask = model(windows)
            gold_tags = [torch.tensor([tags.index(tag) for tag in utterance["tags"]]) for utterance in batch]
            gold_intents = torch.tensor([intents.index(utterance["intent"]) for utterance in batch])
            return model.loss(intent_scores, tag_scores, mask, gold_tags, gold_intents)

        train_torch(model.named_parameters(), train, loss, "encoder.", job)
        torch.save(model.state_dict(), output / "weights.pt")
        model.encoder.config.save_pretrained(output)
        tokenizer.save_pretrained(output)
        (output / SETTINGS).write_text(json.dumps({"tags": tags, "intents": intents}), encoding="utf8")

    def learner(self, train: List[Utterance], job: Dict[str, Any]) -> Learner:
        return JointLearner(train, job)

    def rows(self, model: Path, job: Dict[str, Any]) -> Iterator[Tuple[str, Callable[[], Row]]]:
        for name, dtype in (("bf16", torch.bfloat16), ("fp32", None)):
            yield name, partial(make_row, model, dtype)


def make_row(folder: Path, dtype: Any) -> Row:
    """The trained model in one precision."""
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf8"))
    tags, intents = settings["tags"], settings["intents"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = JointModel(AutoModel.from_config(AutoConfig.from_pretrained(folder)), len(tags), len(intents))
    model.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
    model.eval()

    def predict(texts: List[str], size: int) -> List[Tuple[List[str], str]]:
        order, texts = sort_by_length(texts)
        result = []
        with torch.inference_mode(), autocast(dtype):
            for start in range(0, len(texts), size):
                windows = encode_texts(tokenizer, texts[start : start + size], words=True)
                intent_scores, tag_scores, mask = model(windows)
                with torch.autocast("cpu", enabled=False):
                    paths = model.crf.decode(tag_scores.float(), mask)
                found = intent_scores.argmax(1).tolist()
                result += [([tags[t] for t in path], intents[i]) for path, i in zip(paths, found)]
        return unsort(order, result)

    def read(predicted: List[Tuple[List[str], str]]) -> Tuple[List[int], List[str]]:
        begins = [sum(tag.startswith("B-") for tag in path) for path, _ in predicted]
        return begins, [intent for _, intent in predicted]

    return Row(predict, read, batch_sizes={"short": (64,), "long": (1, 4, 16)})


if __name__ == "__main__":
    run(PlainTorch())
