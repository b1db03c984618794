"""What answers of a large language model are worth that nobody has reviewed: SNIPS, a simulated teacher.

    python benchmarks/silver.py --data FOLDER [--seeds 0] [--conditions 50 50+200 100x3 ...]

The teacher is a server on loopback that `bert-heads prelabel --twice` asks; its answers go through `merge --silver`,
as a user's would. It knows the truth and errs as large models without examples are reported to: about 60 F1 on slots
and 85 % of intents (the share of each kind of error is in ERRORS). Its errors are not just noise. Each label is easier
or harder than others, and is mistaken for the same other label each time; two answers to a text share most errors, so
that what they disagree on says little about what they both have wrong.

The student is trained as in active_learning.py: configs/joint.cfg, half of MiniLM frozen, steps of 16 texts, their
number by `n_steps`, no dev split. 50: it learns from so many texts that a person has corrected (gold). 50+200: and
from 200 other, silver ones; 50+200@1 gives these a weight of 1. 100x3: as 100, but for as many steps as 300 texts
have. The whole test split is scored: the mean of intent accuracy and slot F1. A condition that is in the JSON file is
not run again. One thread is used.
"""

import argparse
import json
import os
import random
import re
import statistics
import tempfile
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

import torch
from active_learning import Experiment
from environment import add_common_arguments, data_folder, write_result
from spacy.scorer import Scorer as SpacyScorer
from spacy.tokens import Doc, DocBin
from spacy.training import Example

from spacy_bert_heads.annotation.merge import merge
from spacy_bert_heads.annotation.prelabel.prelabel import prelabel
from spacy_bert_heads.annotation.prelabel.teacher import Teacher

# Of each true entity; what is left is right. Invented ones come on top, so many for each true one
ERRORS = {"missed": 0.18, "label": 0.10, "border": 0.12}
INVENTED = 0.18
WRONG_INTENT = 0.15
# Share of errors that a second answer repeats
SHARED = 0.7
CONDITION = re.compile(r"(?P<corrected>\d+)(x(?P<times>\d+))?(\+(?P<silver>\d+)(@(?P<weight>[\d.]+))?)?")
CONDITIONS = ("50", "100", "0+200", "50+200", "50x5", "100x3", "50x5+200", "50x9")
MOST_CORRECTED = 200
WEIGHT = 0.3


class SimulatedTeacher:
    """Answers about texts whose truth it knows, with errors that depend on the text, the label and a seed.

    docs (Sequence[Doc]): The truth.
    seed (int): Of its errors.
    """

    def __init__(self, docs: Sequence[Doc], seed: int) -> None:
        self.docs = {doc.text: doc for doc in docs}
        self.seed = seed
        self.labels = sorted({ent.label_ for doc in docs for ent in doc.ents})
        self.intents = sorted(docs[0].cats)
        chooser = random.Random(seed)
        # What each is mistaken for, and how hard it is: 0.5 to 1.5 times as many errors
        self.mistaken = {**_cycle(self.labels, chooser), **_cycle(self.intents, chooser)}
        self.hardness = {label: chooser.uniform(0.5, 1.5) for label in [*self.labels, *self.intents]}

    def answer(self, text: str, variant: int) -> Dict[str, Any]:
        """What it says. variant (int): 0 or 1, for the two orders of a prompt."""
        doc = self.docs[text]
        words: List[Tuple[str, str]] = []
        for number, ent in enumerate(doc.ents):
            draw = self._draw(text, variant, number)
            kind = self._error(draw, ent.label_)
            if kind == "label":
                words.append((ent.text, self.mistaken[ent.label_]))
            elif kind == "border":
                wider = draw.random() < 0.5 or len(ent) == 1
                end = min(len(doc), ent.end + 1) if wider else ent.end - 1
                start = ent.start - 1 if wider and end == ent.end and ent.start else ent.start
                words.append((doc[start:end].text, ent.label_))
            elif kind != "missed":
                words.append((ent.text, ent.label_))
            if draw.random() < INVENTED:
                outside = [token for token in doc if not token.ent_type_]
                if outside:
                    words.append((draw.choice(outside).text, draw.choice(self.labels)))
        intent = max(doc.cats, key=lambda name: doc.cats[name])
        draw = self._draw(text, variant, -1)
        if draw.random() < WRONG_INTENT * self.hardness[intent]:
            intent = self.mistaken[intent]
        return {"entities": [{"text": one, "label": label} for one, label in words], "categories": [intent]}

    def _draw(self, text: str, variant: int, number: int) -> random.Random:
        """Random numbers that come again for the same text and entity, and mostly for its second answer too."""
        base = zlib.crc32(f"{self.seed} {number} {text}".encode())
        alone = random.Random(base + 1).random() >= SHARED
        return random.Random(base * 31 + (variant if alone else 0))

    def _error(self, draw: random.Random, label: str) -> str:
        value = draw.random() / self.hardness[label]
        for kind, share in ERRORS.items():
            if value < share:
                return kind
            value -= share
        return "none"


def _cycle(names: Sequence[str], chooser: random.Random) -> Dict[str, str]:
    order = chooser.sample(list(names), len(names))
    return dict(zip(order, [*order[1:], order[0]]))


class Served(NamedTuple):
    """What the teacher made of texts.

    docs (Dict[float, List[Doc]]): Silver Docs by weight.
    report (Dict[str, Any]): What prelabel said, and how good the teacher is.
    """

    docs: Dict[float, List[Doc]]
    report: Dict[str, Any]


def teach(experiment: Experiment, docs: Sequence[Doc], seed: int) -> Served:
    """Have texts annotated by way of `prelabel` and `merge`."""
    teacher = SimulatedTeacher(docs, seed)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            prompt, text = body["messages"][0]["content"], body["messages"][-1]["content"]
            first, last = (prompt.index(f"- {label}\n") for label in (teacher.labels[0], teacher.labels[-1]))
            written = json.dumps(teacher.answer(text, int(first > last)))
            content = json.dumps({"choices": [{"message": {"content": written}}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            raw = "".join(json.dumps({"text": doc.text}) + "\n" for doc in docs)
            (folder / "raw.jsonl").write_text(raw, encoding="utf8")
            asked = Teacher(
                f"http://127.0.0.1:{server.server_port}/v1",
                "simulated",
                labels=teacher.labels,
                categories=teacher.intents,
                twice=True,
            )
            report = prelabel(folder / "raw.jsonl", folder / "tasks.jsonl", asked, confirm=lambda plan: False)
            found: Dict[float, List[Doc]] = {}
            for weight in (WEIGHT, 1.0):
                merge([], folder / "silver", answers=[], silver=[folder / "tasks.jsonl"], silver_weight=weight)
                bin = DocBin().from_disk(folder / "silver" / "train.spacy")
                found[weight] = list(bin.get_docs(experiment.vocab))
    finally:
        server.shutdown()
    told = {
        "texts": len(found[WEIGHT]),
        "rejected": dict(report.rejected),
        "agreement": round((report.agreement or 0.0) / report.n_tasks, 3),
        "first_answer": rate(docs, [teacher.answer(doc.text, 0) for doc in docs]),
    }
    return Served(found, told)


def rate(docs: Sequence[Doc], answers: Sequence[Dict[str, Any]]) -> Dict[str, float]:
    """F1 of slots and share of right intents of a teacher's answers, by the words that it names."""
    both = said = true = right = 0
    for doc, answer in zip(docs, answers):
        gold = [(ent.text, ent.label_) for ent in doc.ents]
        given = [(one["text"], one["label"]) for one in answer["entities"]]
        both += len(set(gold) & set(given))
        said, true = said + len(set(given)), true + len(set(gold))
        right += doc.cats[answer["categories"][0]] == 1.0
    return {"ents_f": round(200 * both / (said + true), 1), "cats_acc": round(100 * right / len(docs), 1)}


def run_condition(
    experiment: Experiment, condition: str, corrected: Sequence[Doc], served: Served, seed: int
) -> Dict[str, Any]:
    """Train and score one student."""
    found_in = CONDITION.fullmatch(condition)
    if found_in is None:
        raise SystemExit(f"{condition} is no condition such as {', '.join(CONDITIONS)}")
    silver: List[Doc] = []
    if found_in["silver"]:
        silver = served.docs[float(found_in["weight"] or WEIGHT)][: int(found_in["silver"])]
    start = time.perf_counter()
    gold = list(corrected[: int(found_in["corrected"])]) * int(found_in["times"] or 1)
    nlp = experiment.train([*gold, *silver], seed)
    predicted = nlp.pipe([experiment.blank(doc) for doc in experiment.test_docs])
    examples = [Example(doc, gold) for doc, gold in zip(predicted, experiment.test_docs)]
    scores = SpacyScorer(nlp).score(examples)
    found = {name: round(100 * scores[name], 2) for name in ("cats_acc", "ents_f")}
    seconds = round(time.perf_counter() - start, 1)
    return {**found, "score": round(statistics.mean(found.values()), 2), "silver": len(silver), "seconds": seconds}


def summarise(runs: Dict[str, Any]) -> Dict[str, Any]:
    """Means over seeds."""
    by_condition: Dict[str, List[float]] = {}
    for key, row in runs.items():
        by_condition.setdefault(key.split("/")[0], []).append(row["score"])
    return {name: round(statistics.mean(scores), 2) for name, scores in by_condition.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser, "silver.json")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--conditions", nargs="+", default=list(CONDITIONS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    results: Dict[str, Any] = {"teachers": {}, "runs": {}}
    if args.output.exists():
        results = json.loads(args.output.read_text(encoding="utf8"))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    experiment = Experiment("snips", data_folder(args, "snips"), "fp32", None)
    for seed in args.seeds:
        order = list(range(len(experiment.train_docs)))
        random.Random(seed).shuffle(order)
        corrected = [experiment.train_docs[number] for number in order[:MOST_CORRECTED]]
        waiting = [one for one in args.conditions if f"{one}/{seed}" not in results["runs"]]
        served = Served({}, {})
        n_silver = max((int(one.partition("+")[2].partition("@")[0] or 0) for one in waiting), default=0)
        if n_silver:
            others = [experiment.train_docs[number] for number in order[MOST_CORRECTED : MOST_CORRECTED + n_silver]]
            served = teach(experiment, others, seed)
            results["teachers"][str(seed)] = served.report
            print("teacher", served.report, flush=True)
        for condition in waiting:
            row = run_condition(experiment, condition, corrected, served, seed)
            results["runs"][f"{condition}/{seed}"] = row
            print(condition, seed, row, flush=True)
            write_result(args.output, {**results, "means": summarise(results["runs"])})


if __name__ == "__main__":
    main()
