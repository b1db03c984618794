"""EDS-NLP: `eds.transformer` and `eds.ner_crf`, entities alone.

As in its own tutorial: windows of 128 wordpieces with stride 96, CRF mode "joint" (one sequence of tags per label, so
39 of them here) with windows of 20 words, run by `nlp.pipe(...).set_processing(batch_size=..., autocast=...)`, texts
sorted by length beforehand. Rows: "entities alone" with autocast, its default, which is bf16 on a CPU; and in fp32.
"""

from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import edsnlp
import edsnlp.pipes as eds
from spacy.tokens import Doc
from spacy.training import iob_utils
from worker import Peer, Row, Utterance, run, sort_by_length, train_torch, unsort


class EdsNlp(Peer):
    def prepare(self, train: List[Utterance], job: Dict[str, Any], output: Path) -> None:
        nlp = edsnlp.blank("eds")
        ner = eds.ner_crf(
            embedding=eds.transformer(model=job["encoder"], window=128, stride=96),
            mode="joint",
            target_span_getter="ents",
            span_setter="ents",
            window=20,
        )
        nlp.add_pipe(ner, name="ner")
        docs = [_gold_doc(nlp, utterance) for utterance in train]
        nlp.post_init(docs)
        component = nlp.pipes.ner

        def loss(batch: List[Doc]) -> Any:
            return component(component.prepare_batch(batch, supervision=True))["loss"]

        component.train()
        train_torch(component.named_parameters(), docs, loss, "embedding.transformer.", job)
        component.eval()
        nlp.to_disk(output / "pipeline")

    def rows(self, model: Path, job: Dict[str, Any]) -> Iterator[Tuple[str, Callable[[], Row]]]:
        yield "entities alone, bf16", partial(make_row, model, autocast=True)
        yield "entities alone, fp32", partial(make_row, model, autocast=False)


def make_row(model: Path, *, autocast: bool) -> Row:
    """The trained pipeline."""
    nlp = edsnlp.load(model / "pipeline")

    def predict(texts: List[str], size: int) -> List[Doc]:
        order, texts = sort_by_length(texts)
        stream = nlp.pipe(texts).set_processing(batch_size=size, autocast=autocast, backend="simple")
        return unsort(order, list(stream))

    def read(docs: List[Doc]) -> Tuple[List[int], List[str]]:
        return [len(doc.ents) for doc in docs], []

    return Row(predict, read)


def _gold_doc(nlp: Any, utterance: Utterance) -> Doc:
    doc = Doc(nlp.vocab, words=utterance["words"])
    doc.ents = iob_utils.biluo_tags_to_spans(doc, iob_utils.iob_to_biluo(utterance["tags"]))
    return doc


if __name__ == "__main__":
    run(EdsNlp())
