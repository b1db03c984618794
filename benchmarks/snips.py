"""Joint intents and slots on SNIPS, for the other benchmarks: Docs and scores.

FOLDER/snips holds seq.in, seq.out and label for train, dev and test, as in the JointBERT repository.
"""

from pathlib import Path
from typing import Dict, List

import spacy
from runs import SPLITS, predict, read_snips
from seqeval.metrics import f1_score
from seqeval.scheme import IOB2
from spacy.scorer import Scorer
from spacy.tokens import Doc, DocBin
from spacy.training import iob_utils
from spacy.vocab import Vocab


def convert(data: Path, output: Path) -> Dict[str, int]:
    """Write train.spacy, dev.spacy and test.spacy; RETURNS the number of Docs in each."""
    vocab = Vocab()
    intents = sorted({intent for _, _, intent in read_snips(data / "train")})
    counts = {}
    for split in SPLITS:
        docs = DocBin()
        for words, tags, intent in read_snips(data / split):
            doc = Doc(vocab, words=words)
            doc.set_ents(iob_utils.biluo_tags_to_spans(doc, iob_utils.iob_to_biluo(tags)), default="outside")
            doc.cats = {label: float(label == intent) for label in intents}
            docs.add(doc)
        docs.to_disk(output / f"{split}.spacy")
        counts[split] = len(docs)
    return counts


def score(pipeline: Path, corpus: Path) -> Dict[str, float]:
    """Intent accuracy, slot F1 by spaCy and by seqeval, share of sentences with all of it right. In percent."""
    nlp = spacy.load(pipeline)
    examples = predict(nlp, corpus)
    scores = Scorer(nlp).score(examples)
    gold = [_bio(eg.reference) for eg in examples]
    predicted = [_bio(eg.predicted) for eg in examples]
    whole = [g == p and _intent(eg.reference) == _intent(eg.predicted) for g, p, eg in zip(gold, predicted, examples)]
    return {
        "intent_accuracy": 100 * scores["cats_acc"],
        "slot_f1": 100 * scores["ents_f"],
        "slot_f1_seqeval": 100 * float(f1_score(gold, predicted, mode="strict", scheme=IOB2)),
        "sentence_accuracy": 100 * sum(whole) / len(whole),
    }


def _bio(doc: Doc) -> List[str]:
    return iob_utils.biluo_to_iob(iob_utils.doc_to_biluo_tags(doc))


def _intent(doc: Doc) -> str:
    return max(doc.cats, key=lambda label: doc.cats[label])
