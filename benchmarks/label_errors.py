"""Does `find-label-errors` find errors? 10 % noise injected into the intents and entities of SNIPS.

    python benchmarks/label_errors.py --data FOLDER [--texts 1500] [--folds 3] [--epochs 5] [--work FOLDER]

An even sample of the training texts gets errors: so many of the intents become another one, drawn at random; so many
of the entities become, in equal shares, an entity of another label, one whose border is a token off, or none, and as
many as each of these are invented where there is none. The dev texts, which choose the checkpoints, get the same
noise. MiniLM with both heads (configs/joint.cfg, lower three layers frozen, steps of 16 texts) is trained once for
each fold, by the command's own code.

Precision at the number of injected errors: of so many annotations, or texts, at the head of the ranking, the share in
which an error was injected. What is ranked hits an error of an entity if it overlaps it. Errors that SNIPS itself has
count against it. "flagged" is what the command writes without --n.

Folds that are finished stay in --work, and are not run again. One thread is used.
"""

import argparse
import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

import snips
import torch
from environment import add_common_arguments, data_folder, write_result
from runs import CONFIGS
from spacy.tokens import Doc, DocBin, Span
from spacy.util import filter_spans, load_config
from spacy.vocab import Vocab

from spacy_bert_heads.annotation.folds import FoldSettings, predict_out_of_fold
from spacy_bert_heads.annotation.label_errors import LabelErrors, Suspicion, rank

N_DEV = 200
WRONG_LABEL, WRONG_BORDER, MISSED, INVENTED = "wrong label", "wrong border", "missed", "invented"
FROZEN = {"freeze_embeddings": True, "freeze_layers": 3}


class Injected(NamedTuple):
    """An error of an entity.

    text (int): Which text, counted from 0.
    kind (str): What was done.
    start (int): First character concerned.
    end (int): The character behind the last one.
    """

    text: int
    kind: str
    start: int
    end: int


def add_noise(docs: Sequence[Doc], share: float, chooser: random.Random) -> Tuple[List[int], List[Injected]]:
    """Spoil annotations in place.

    RETURNS (Tuple[List[int], List[Injected]]): Texts whose intent is wrong, and wrong entities.
    """
    intents = sorted(docs[0].cats)
    wrong = sorted(chooser.sample(range(len(docs)), round(share * len(docs))))
    for number in wrong:
        doc = docs[number]
        true = max(doc.cats, key=lambda label: doc.cats[label])
        other = chooser.choice([label for label in intents if label != true])
        doc.cats = {label: float(label == other) for label in intents}
    labels = sorted({ent.label_ for doc in docs for ent in doc.ents})
    places = [(number, i) for number, doc in enumerate(docs) for i in range(len(doc.ents))]
    chosen = chooser.sample(places, round(share * len(places)))
    kinds = dict(zip(chosen, [WRONG_LABEL, WRONG_BORDER, MISSED, INVENTED] * len(chosen)))
    injected: List[Injected] = []
    for number, doc in enumerate(docs):
        ents: List[Span] = []
        n_invented = 0
        for i, ent in enumerate(doc.ents):
            kind = kinds.get((number, i))
            if kind == INVENTED:
                n_invented += 1
            if kind in (None, INVENTED):
                ents.append(ent)
                continue
            start, end, label = ent.start, ent.end, ent.label_
            if kind == WRONG_LABEL:
                label = chooser.choice([other for other in labels if other != label])
            elif kind == WRONG_BORDER:
                taken = {t.i for other in doc.ents for t in other}
                moves = [(start + 1, end), (start, end - 1)] if end - start > 1 else []
                moves += [(start - 1, end)] if start > 0 and start - 1 not in taken else []
                moves += [(start, end + 1)] if end < len(doc) and end not in taken else []
                if not moves:
                    ents.append(ent)
                    continue
                start, end = chooser.choice(moves)
            injected.append(Injected(number, str(kind), ent.start_char, ent.end_char))
            if kind != MISSED:
                ents.append(Span(doc, start, end, label=label))
        free = [token.i for token in doc if not any(span.start <= token.i < span.end for span in [*ents, *doc.ents])]
        for place in chooser.sample(free, min(n_invented, len(free))):
            span = Span(doc, place, place + 1, label=chooser.choice(labels))
            injected.append(Injected(number, INVENTED, span.start_char, span.end_char))
            ents.append(span)
        doc.set_ents(filter_spans(ents), default="outside")
    return wrong, injected


def make_corpus(data: Path, output: Path, n_texts: int, noise: float, seed: int) -> Dict[str, Any]:
    """Write train.spacy and dev.spacy with noise, RETURNS what is wrong in train."""
    with tempfile.TemporaryDirectory() as folder:
        snips.convert(data, Path(folder))
        vocab = Vocab()
        splits = {
            name: list(DocBin().from_disk(Path(folder) / f"{name}.spacy").get_docs(vocab)) for name in ("train", "dev")
        }
    chooser = random.Random(seed)
    found: Dict[str, Any] = {}
    for name, n in (("train", n_texts), ("dev", N_DEV)):
        unique = list({doc.text: doc for doc in splits[name]}.values())
        docs = chooser.sample(unique, n)
        intents, entities = add_noise(docs, noise, chooser)
        DocBin(docs=docs).to_disk(output / f"{name}.spacy")
        if name == "train":
            found = {"intents": intents, "entities": entities, "n_entities": sum(len(doc.ents) for doc in docs)}
    return found


def make_config(output: Path, seed: int) -> None:
    config = load_config(CONFIGS / "joint.cfg", interpolate=False)
    config["system"]["seed"] = seed
    config["components"]["transformer"]["model"]["precision"] = "fp32"
    config["training"]["optimizer"].update(FROZEN)
    config["training"]["batcher"]["size"] = 16
    config["training"]["logger"]["progress_bar"] = False
    config.to_disk(output)


def measure(errors: LabelErrors, injected: Dict[str, Any]) -> Dict[str, Any]:
    """Precision at the number of injected errors, and of what is flagged."""
    wrong_intents = set(injected["intents"])
    places: Dict[int, List[Injected]] = {}
    for one in injected["entities"]:
        places.setdefault(one.text, []).append(one)

    def hits(one: Suspicion) -> bool:
        if one.head:
            return one.text in wrong_intents
        start, end = one.place
        return any(start < error.end and error.start < end for error in places.get(one.text, ()))

    ranked = sorted(errors.suspicions, key=lambda one: -one.score)
    found = {}
    for name, is_entity, n in (("intents", False, len(wrong_intents)), ("entities", True, len(injected["entities"]))):
        part = [one for one in ranked if bool(one.head) != is_entity]
        flagged = [one for one in part if one.is_suspect]
        found[name] = {
            "injected": n,
            "precision_at_injected": round(sum(map(hits, part[:n])) / n, 4),
            "flagged": len(flagged),
            "precision_of_flagged": round(sum(map(hits, flagged)) / max(len(flagged), 1), 4),
        }
    texts = list(dict.fromkeys(one.text for one in ranked if not one.head))
    n = len(places)
    found["texts_with_wrong_entities"] = {
        "injected": n,
        "precision_at_injected": round(sum(text in places for text in texts[:n]) / n, 4),
    }
    top = set(texts[:n])
    kinds = Counter(error.kind for error in injected["entities"])
    in_top = Counter(error.kind for error in injected["entities"] if error.text in top)
    found["found_by_kind"] = {kind: f"{in_top[kind]} of {count}" for kind, count in kinds.items()}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser, "label_errors.json")
    parser.add_argument("--texts", type=int, default=1500)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--noise", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=None, help="Folder to keep the folds in")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        injected = make_corpus(data_folder(args, "snips"), work, args.texts, args.noise, args.seed)
        make_config(work / "config.cfg", args.seed)
        docs = list(DocBin().from_disk(work / "train.spacy").get_docs(Vocab()))
        settings = FoldSettings(work / "config.cfg", work / "dev.spacy", folds=args.folds, epochs=args.epochs)
        errors = rank(docs, predict_out_of_fold(docs, work / "folds", settings, say=print))
    names = ("texts", "folds", "epochs", "noise", "seed")
    result = {"settings": {name: getattr(args, name) for name in names}, **measure(errors, injected)}
    print(result)
    write_result(args.output, result)


if __name__ == "__main__":
    main()
