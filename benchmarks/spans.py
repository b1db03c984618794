"""bert_spans: which loss; against bert_ner on flat entities and spaCy's spancat on nested ones; speed; long texts.

    python benchmarks/spans.py PART --data FOLDER [--corpus NAME] [--models FOLDER] [--epochs 4] [--seed 0]

Each part, corpus and seed adds its figures to the JSON file. What --models holds already is not trained again;
trainings of another size or seed need another folder.

loss: SNIPS slots, two trainings of configs/spans.cfg on the same texts: binary cross-entropy, and the ranking loss of
    Su et al. (2022), equation 5, summed over labels. F1 on test, and the expected calibration error of the confidence.
flat: --corpus snips (slots; the default) or wnut17; configs/ner.cfg and configs/spans.cfg on the same texts. F1 of
    doc.ents on test, of bert_spans by annotate_ents.
nested: --corpus genia (the default): its dev file as training set (every tenth sentence chooses the best checkpoint),
    its test file as test; or germeval: outer and inner entities, multilingual-e5-small trimmed to German, its
    embeddings frozen. configs/spans.cfg, and the same with spaCy's spancat in place of bert_spans: the same encoder,
    optimizer and number of epochs, an ngram suggester up to the longest span, and the best of several learning rates
    of the head on the sentences that choose. Seconds of training are given: they are not the same.
heads: the heads alone, which is quick: over token vectors of the encoder that are stored and not trained. --corpus
    snips (the default), genia or germeval, as above. bert_spans, on SNIPS also bert_ner and bert_spans without a
    BiLSTM and with the ranking loss, Adam at 0.001 for the same number of epochs, and spancat for --times the
    seconds of bert_spans. F1 on test, calibration, and seconds of the processor's time.
speed: texts per second of the processor's time, so that other work on the machine matters little, of the pipelines of
    `flat` and of a spancat on the same encoder, SNIPS test; and GENIA test, if `nested` was there before.
scaling: the head alone on one text of 1,000 to 16,000 words, 50 labels and spans of up to 32 words: seconds of the
    processor's time and peak memory of prediction and of a step of training, each in a process of its own.

FOLDER/snips is as for benchmarks/snips.py, FOLDER/wnut17 as for benchmarks/ner_learning.py; FOLDER/nested/genia holds
genia.dev.iob2.gz and genia.test.iob2.gz, with a column of words and four of tags, FOLDER/nested/germeval2014 holds
germ.train.iob2.gz, germ.dev.iob2.gz and germ.test.iob2.gz, with two columns of tags.
"""

import argparse
import gzip
import json
import random
import resource
import statistics
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Tuple

import numpy
import spacy
import torch
from environment import add_common_arguments, data_folder, write_result
from recipe import convert_wnut
from runs import SPLITS, predict, read_snips, train_pipeline
from spacy.scorer import Scorer
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Example, iob_utils
from spacy.util import fix_random_seed, minibatch, registry
from spacy.vocab import Vocab
from thinc.api import Adam, Config, Model
from thinc.types import Floats2d

from spacy_bert_heads.encoders.fetch import fetch_encoder
from spacy_bert_heads.evaluation.calibration import calibration_report
from spacy_bert_heads.extensions import get_confidence_in
from spacy_bert_heads.layers import global_pointer
from spacy_bert_heads.pipeline import spans as component
from spacy_bert_heads.project.configs import DEMO_ENCODER
from spacy_bert_heads.training.vocabulary import read_texts

KEY = "sc"
# Learning rates of the head that spancat is tried with, as multiples of the encoder's
SPANCAT_RATES = (5.0, 20.0)
PRECISION = "fp32"
# Token vectors by text, for `heads`
STORED: Dict[str, Any] = {}


def ranking_loss(parts: List[Any], targets: Any, max_width: int, *, weight: float = 1.0) -> Tuple[float, List[Any]]:
    """In place of layers.global_pointer.span_loss: for each Doc and label log(1 + sum of e^s over false spans) +
    log(1 + sum of e^-s over true ones), the mean over Docs of the sum over labels.
    """
    total, gradients, n_docs = 0.0, [], max(1, sum(len(array) > 0 for array in parts))
    for array, target in zip(parts, targets):
        flat = torch.from_numpy(numpy.array(array)).requires_grad_(True)
        if len(flat):
            cells = global_pointer._Cells.from_targets([target], [len(flat)], max_width)
            scores = global_pointer.all_scores(global_pointer.SpanParts.from_flat(flat, max_width), len(flat))
            truths, known = cells.take(0, len(flat), scores.shape[2])
            known = known.expand_as(scores).bool()
            false = scores.masked_fill(~known | truths.bool(), -torch.inf)
            true = (-scores).masked_fill(~known | ~truths.bool(), -torch.inf)
            zero = torch.zeros(1, scores.shape[2])
            losses = [torch.cat((zero, part.flatten(0, 1))).logsumexp(0) for part in (false, true)]
            loss = (losses[0] + losses[1]).sum() / n_docs
            (loss * weight).backward()
            total += float(loss.detach())
        gradients.append(flat.detach().numpy() * 0 if flat.grad is None else flat.grad.numpy())
    return total, gradients


def write_snips(data: Path, folder: Path, n_train: int, n_dev: int, n_test: int, seed: int) -> Dict[str, int]:
    """Docs with slots as entities and as spans. RETURNS the number of each split."""
    vocab, counts = Vocab(), {}
    for split in SPLITS:
        sentences = list(read_snips(data / split))
        if split == "train":
            random.Random(seed).shuffle(sentences)
            sentences = sentences[:n_train]
        elif split == "dev":
            sentences = sentences[:n_dev]
        elif n_test:
            sentences = sentences[:n_test]
        docs = DocBin()
        for words, tags, _ in sentences:
            doc = Doc(vocab, words=words)
            doc.set_ents(iob_utils.biluo_tags_to_spans(doc, iob_utils.iob_to_biluo(tags)), default="outside")
            doc.spans[KEY] = list(doc.ents)
            docs.add(doc)
        docs.to_disk(folder / f"{split}.spacy")
        counts[split] = len(docs)
    return counts


def read_columns(path: Path) -> Iterator[Tuple[List[str], List[List[str]]]]:
    """Words and columns of tags of each sentence."""
    with gzip.open(path, "rt", encoding="utf8") as stream:
        for block in stream.read().strip().split("\n\n"):
            columns = list(zip(*(line.split("\t") for line in block.split("\n"))))
            yield list(columns[0]), [list(column) for column in columns[1:]]


def write_wnut(args: argparse.Namespace, folder: Path) -> Dict[str, int]:
    """Docs with entities, and the same as spans. RETURNS the number of each split."""
    convert_wnut(data_folder(args, "wnut17"), folder)
    limits, counts = {"train": args.n_train, "dev": args.n_dev, "test": args.n_test or None}, {}
    for split in SPLITS:
        docs = list(DocBin().from_disk(folder / f"{split}.spacy").get_docs(Vocab()))[: limits[split]]
        for doc in docs:
            doc.spans[KEY] = list(doc.ents)
        DocBin(docs=docs).to_disk(folder / f"{split}.spacy")
        counts[split] = len(docs)
    return counts


def make_nested(vocab: Vocab, words: List[str], columns: List[List[str]]) -> Doc:
    """A Doc with the spans of several columns of tags."""
    doc = Doc(vocab, words=words)
    spans: Dict[Tuple[int, int, str], None] = {}
    for tags in columns:
        for span in iob_utils.biluo_tags_to_spans(doc, iob_utils.iob_to_biluo(tags)):
            spans[span.start, span.end, span.label_] = None
    doc.spans[KEY] = [Span(doc, *span) for span in spans]
    return doc


def write_germeval(data: Path, folder: Path, n_train: int, n_dev: int, n_test: int) -> Dict[str, int]:
    """Docs with nested spans. RETURNS the number of each split."""
    vocab, counts = Vocab(), {}
    for split, limit in zip(SPLITS, (n_train, n_dev, n_test or None)):
        docs = DocBin()
        for words, columns in islice(read_columns(data / f"germ.{split}.iob2.gz"), limit):
            docs.add(make_nested(vocab, words, columns))
        docs.to_disk(folder / f"{split}.spacy")
        counts[split] = len(docs)
    return counts


def write_genia(data: Path, folder: Path, n_train: int, n_test: int) -> Dict[str, int]:
    """Docs with nested spans. RETURNS the number of each split."""
    limits = {"train": n_train, "dev": n_train // 8, "test": n_test or 1_000_000}
    vocab = Vocab()
    bins = {split: DocBin() for split in SPLITS}
    for name in ("dev", "test"):
        for number, (words, columns) in enumerate(read_columns(data / f"genia.{name}.iob2.gz")):
            doc = make_nested(vocab, words, columns)
            split = "test" if name == "test" else "dev" if number % 10 == 9 else "train"
            if len(bins[split]) < limits[split]:
                bins[split].add(doc)
    for split, found in bins.items():
        found.to_disk(folder / f"{split}.spacy")
    return {split: len(found) for split, found in bins.items()}


def outcomes(examples: List[Any]) -> Tuple[List[float], List[bool]]:
    """Confidence of each predicted span, and whether the gold Doc has it."""
    confidences, correct = [], []
    for eg in examples:
        gold = {(span.start_char, span.end_char, span.label_) for span in eg.reference.spans[KEY]}
        for span in eg.predicted.spans[KEY]:
            confidence = get_confidence_in(span, KEY)
            assert confidence is not None
            confidences.append(confidence)
            correct.append((span.start_char, span.end_char, span.label_) in gold)
    return confidences, correct


def score(pipeline: Path, corpus: Path) -> Dict[str, Any]:
    """F1 and the like in percent; of bert_spans also the entities, and the calibration."""
    nlp = spacy.load(pipeline)
    if "bert_spans" in nlp.pipe_names:
        nlp.get_pipe("bert_spans").annotate_ents = True  # type: ignore[attr-defined]
    examples = predict(nlp, corpus)
    found = Scorer(nlp).score(examples)
    names = [name for name in found if name.startswith(("ents_", "spans_")) and name[-2:] in ("_p", "_r", "_f")]
    figures: Dict[str, Any] = {name: round(100 * found[name], 2) for name in names if found[name] is not None}
    if "bert_spans" in nlp.pipe_names:
        report = calibration_report(*outcomes(examples))
        error = report["expected_calibration_error"]
        figures["expected_calibration_error"] = None if error is None else round(error, 4)
        figures["mean_confidence"] = report["mean_confidence"]
    return figures


def run(
    args: argparse.Namespace,
    name: str,
    config: str,
    folder: Path,
    n_train: int,
    change: Optional[Callable[[Config], None]] = None,
) -> Dict[str, Any]:
    """Train, unless the pipeline is there, and score on test."""
    output = args.models / name
    figures_path = output / "figures.json"
    if not figures_path.exists():
        if output.exists():
            raise SystemExit(f"{output} holds an unfinished training. Remove it.")
        figures: Dict[str, Any] = train_pipeline(
            config,
            folder / "train.spacy",
            folder / "dev.spacy",
            n_train,
            output,
            epochs=args.epochs,
            precision=PRECISION,
            seed=args.seed,
            change=change,
        )
        figures["dev"] = score(output / "model-best", folder / "dev.spacy")
        figures["test"] = score(output / "model-best", folder / "test.spacy")
        figures_path.write_text(json.dumps(figures))
    figures = json.loads(figures_path.read_text())
    print(name, figures)
    return figures


def use_spancat(max_width: int, rate: float) -> Callable[[Config], None]:
    """Puts spaCy's spancat in the place of bert_spans, on the same encoder."""

    def change(config: Config) -> None:
        config["nlp"]["pipeline"] = ["transformer", "spancat"]
        del config["components"]["bert_spans"]
        config["components"]["spancat"] = {
            "factory": "spancat",
            "spans_key": KEY,
            "threshold": 0.5,
            "suggester": {"@misc": "spacy.ngram_range_suggester.v1", "min_size": 1, "max_size": max_width},
            "model": {
                "@architectures": "spacy.SpanCategorizer.v1",
                "reducer": {"@layers": "spacy.mean_max_reducer.v1", "hidden_size": 128},
                "scorer": {"@layers": "spacy.LinearLogistic.v1"},
                "tok2vec": {
                    "@architectures": "spacy-transformers.TransformerListener.v1",
                    "grad_factor": 1.0,
                    "pooling": {"@layers": "reduce_mean.v1"},
                },
            },
        }
        config["training"]["optimizer"]["head_rate"] = rate * config["training"]["optimizer"]["learn_rate"]

    return change


def run_loss(args: argparse.Namespace) -> Dict[str, Any]:
    folder, n_train = snips(args)
    result: Dict[str, Any] = {"cross_entropy": run(args, "spans-snips", "spans.cfg", folder, n_train)}
    kept, component.span_loss = component.span_loss, ranking_loss  # type: ignore[assignment]
    result["ranking"] = run(args, "spans-snips-ranking", "spans.cfg", folder, n_train)
    component.span_loss = kept
    return result


def run_flat(args: argparse.Namespace) -> Dict[str, Any]:
    folder, n_train = flat_corpus(args)
    ner = run(args, f"ner-{args.corpus}", "ner.cfg", folder, n_train)
    spans = run(args, f"spans-{args.corpus}", "spans.cfg", folder, n_train)
    difference = round(spans["test"]["ents_f"] - ner["test"]["ents_f"], 2)
    return {"bert_ner": ner, "bert_spans": spans, "difference_ents_f": difference}


def flat_corpus(args: argparse.Namespace) -> Tuple[Path, int]:
    """Folder with the corpus, and how many texts its train split has."""
    if args.corpus == "snips":
        return snips(args)
    folder = args.models / "wnut17-corpus"
    folder.mkdir(parents=True, exist_ok=True)
    return folder, write_wnut(args, folder)["train"]


def snips(args: argparse.Namespace) -> Tuple[Path, int]:
    folder = args.models / "snips-corpus"
    folder.mkdir(parents=True, exist_ok=True)
    return folder, write_snips(data_folder(args, "snips"), folder, args.n_train, args.n_dev, args.n_test, args.seed)[
        "train"
    ]


def run_nested(args: argparse.Namespace) -> Dict[str, Any]:
    folder = args.models / f"{args.corpus}-corpus"
    folder.mkdir(parents=True, exist_ok=True)
    nested = data_folder(args, "nested")
    use_encoder: Optional[Callable[[Config], None]] = None
    if args.corpus == "genia":
        counts = write_genia(nested / "genia", folder, args.n_train, args.n_test)
    else:
        counts = write_germeval(nested / "germeval2014", folder, args.n_train, args.n_dev, args.n_test)
        use_encoder = use_multilingual(folder)
    docs = DocBin().from_disk(folder / "train.spacy").get_docs(Vocab())
    longest = max(len(span) for doc in docs for span in doc.spans[KEY])
    ours = run(args, f"spans-{args.corpus}", "spans.cfg", folder, counts["train"], use_encoder)
    result = {"docs": counts, "longest": longest, "bert_spans": ours}
    if args.ours_only:
        return result
    tried = {}
    for rate in args.spancat_rates:

        def change(config: Config, rate: float = rate) -> None:
            if use_encoder is not None:
                use_encoder(config)
            use_spancat(longest, rate)(config)

        name = f"spancat-{args.corpus}-{rate}"
        tried[rate] = run(args, name, "spans.cfg", folder, counts["train"], change)
    best = max(tried, key=lambda rate: tried[rate]["dev"]["spans_sc_f"])
    difference = round(ours["test"]["spans_sc_f"] - tried[best]["test"]["spans_sc_f"], 2)
    return {**result, "spancat": tried, "spancat_rate": best, "difference_spans_sc_f": difference}


def use_multilingual(folder: Path) -> Callable[[Config], None]:
    """Puts multilingual-e5-small, trimmed to German and to the texts of train and dev, in the encoder's place."""
    encoder = folder / "encoder"
    if not encoder.exists():
        texts = [text for split in SPLITS[:2] for text in read_texts(folder / f"{split}.spacy")]
        fetch_encoder("multilingual", encoder, languages=["de"], texts=texts, most_pieces=20000)

    def change(config: Config) -> None:
        config["paths"]["encoder"] = str(encoder)
        config["training"]["optimizer"]["freeze_embeddings"] = True

    return change


@registry.architectures("benchmarks.StoredVectors.v1")
def build_stored_vectors() -> Model[List[Doc], List[Floats2d]]:
    """A tok2vec that looks vectors up by the text."""

    def forward(model: Model, docs: List[Doc], is_train: bool) -> Any:
        return [STORED[doc.text] for doc in docs], lambda gradient: []

    return Model("stored_vectors", forward, dims={"nO": len(next(iter(STORED.values()))[0])})


def head_config(head: str, longest: int) -> Tuple[str, Dict[str, Any]]:
    """Factory and settings of a head over stored vectors."""
    tok2vec = {"@architectures": "benchmarks.StoredVectors.v1"}
    if head == "bert_ner":
        return head, {"model": {"tok2vec": tok2vec, "lr_scale": 1.0}}
    if head.startswith("bert_spans"):
        # As in configs/spans.cfg, twice as fast as bert_ner
        lstm_width = None if "no bilstm" in head else 256
        return "bert_spans", {"model": {"tok2vec": tok2vec, "lr_scale": 2.0, "lstm_width": lstm_width}}
    config = Config({"nlp": {}, "components": {"bert_spans": {}}, "training": {"optimizer": {"learn_rate": 1.0}}})
    use_spancat(longest, 1.0)(config)
    settings = {name: value for name, value in config["components"]["spancat"].items() if name != "factory"}
    settings["model"]["tok2vec"] = tok2vec
    return "spancat", settings


def run_head(head: str, folder: Path, args: argparse.Namespace, seconds: float = 0.0) -> Dict[str, Any]:
    """Train one head over stored vectors, and score it. With `seconds`, epochs are added until they have passed, and
    no more begun then.
    """
    nlp = spacy.blank("en")
    docs = {split: list(DocBin().from_disk(folder / f"{split}.spacy").get_docs(nlp.vocab)) for split in SPLITS}
    longest = max(len(span) for doc in docs["train"] for span in doc.spans[KEY])
    factory, settings = head_config(head, longest)
    component_made: Any = nlp.add_pipe(factory, name="head", config=settings)
    examples = {
        split: [Example(Doc(nlp.vocab, words=[t.text for t in doc]), doc) for doc in docs[split]] for split in docs
    }
    fix_random_seed(args.seed)
    kept = component.span_loss
    component.span_loss = ranking_loss if "ranking" in head else kept  # type: ignore[assignment]
    sgd = nlp.initialize(lambda: examples["train"])
    sgd = Adam(0.001, L2=0.0, grad_clip=1.0)
    chooser, start = random.Random(args.seed), time.process_time()
    n_epochs = 0
    while time.process_time() - start < seconds if seconds else n_epochs < args.epochs:
        n_epochs += 1
        chooser.shuffle(examples["train"])
        for batch in minibatch(examples["train"], 32):
            component_made.update(batch, sgd=sgd, drop=0.1)
    trained = time.process_time() - start
    component.span_loss = kept
    if factory == "bert_spans":
        component_made.annotate_ents = True
    test = examples["test"]
    start = time.process_time()
    for eg, doc in zip(test, nlp.pipe([eg.predicted for eg in test])):
        eg.predicted = doc
    predicting = time.process_time() - start
    found = Scorer(nlp).score(test)
    names = [name for name in ("spans_sc_p", "spans_sc_r", "spans_sc_f", "ents_f") if found.get(name) is not None]
    figures: Dict[str, Any] = {name: round(100 * found[name], 2) for name in names}
    figures.update(epochs=n_epochs, training_seconds=round(trained, 1), prediction_seconds=round(predicting, 2))
    if factory == "bert_spans":
        report = calibration_report(*outcomes(test))
        figures["expected_calibration_error"] = report["expected_calibration_error"]
        figures["mean_confidence"] = report["mean_confidence"]
    print(folder.name, head, figures)
    return figures


def store_vectors(folder: Path, others: Iterable[Doc] = (), encoder_name: str = DEMO_ENCODER) -> None:
    """Token vectors of an encoder for all texts of a corpus, and for others."""
    vocab = Vocab()
    encoder = registry.architectures.get("spacy_bert_heads.BertEncoder.v1")(name=encoder_name, precision=PRECISION)
    vectors = registry.architectures.get("spacy_bert_heads.TokenVectors.v1")(encoder)
    vectors.initialize(X=[Doc(vocab, words=["a"])])
    read = (DocBin().from_disk(folder / f"{split}.spacy").get_docs(vocab) for split in SPLITS)
    for docs in (*read, others):
        for batch in minibatch(docs, 64):
            for doc, found in zip(batch, vectors.predict(batch)):
                STORED[doc.text] = found.copy()


def run_heads(args: argparse.Namespace) -> Dict[str, Any]:
    folder, encoder = args.models / f"{args.corpus}-corpus", DEMO_ENCODER
    folder.mkdir(parents=True, exist_ok=True)
    others: List[str] = []
    if args.corpus == "snips":
        snips(args)
        others = ["bert_ner", "bert_spans, no bilstm", "bert_spans, ranking loss"]
    elif args.corpus == "genia":
        write_genia(data_folder(args, "nested") / "genia", folder, args.n_train, args.n_test)
    else:
        data = data_folder(args, "nested") / "germeval2014"
        write_germeval(data, folder, args.n_train, args.n_dev, args.n_test)
        use_multilingual(folder)
        encoder = str(folder / "encoder")
    store_vectors(folder, encoder_name=encoder)
    ours = run_head("bert_spans", folder, args)
    seconds = args.times * ours["training_seconds"]
    found = {"bert_spans": ours, "spancat": run_head("spancat", folder, args, seconds)}
    return {**found, **{head: run_head(head, folder, args) for head in others}}


def run_speed(args: argparse.Namespace) -> Dict[str, Any]:
    """Texts per second, the median of several rounds in which each pipeline has its turn."""
    result = {}
    if (args.models / "spans-snips").exists():
        result["snips"] = measure_speed(args, snips(args)[0], "spans-snips", {"bert_ner": "ner-snips"})
    if (args.models / "spans-genia").exists():
        result["genia"] = measure_speed(args, args.models / "genia-corpus", "spans-genia", {})
    return result


def measure_speed(args: argparse.Namespace, corpus: Path, ours: str, others: Dict[str, str]) -> Dict[str, Any]:
    """A pipeline with bert_spans, others, and one with a spancat, which need not have learned anything."""
    texts = [doc.text for doc in DocBin().from_disk(corpus / "test.spacy").get_docs(Vocab())]
    folders = {"bert_spans": ours, **others}
    pipelines = {name: spacy.load(args.models / folder / "model-best") for name, folder in folders.items()}
    pipelines["spancat"] = spacy.load(args.models / ours / "model-best", exclude=["bert_spans"])
    head: Any = pipelines["bert_spans"].get_pipe("bert_spans")
    config = Config({"nlp": {}, "components": {"bert_spans": {}}, "training": {"optimizer": {"learn_rate": 1.0}}})
    use_spancat(head.max_width, 1.0)(config)
    settings = {name: value for name, value in config["components"]["spancat"].items() if name != "factory"}
    spancat: Any = pipelines["spancat"].add_pipe("spancat", config=settings)
    sample = list(pipelines["bert_spans"].pipe(texts[:1]))
    for label in head.labels:
        spancat.add_label(label)
    suggested = spancat.suggester(sample)
    scores = numpy.zeros((len(suggested.data), len(spancat.labels)), dtype="float32")
    spancat.model.initialize(X=(sample, suggested), Y=scores)
    times: Dict[str, List[float]] = {name: [] for name in pipelines}
    for round_number in range(args.rounds + 1):
        for name, nlp in pipelines.items():
            start = time.process_time()
            for _ in nlp.pipe(texts, batch_size=128):
                pass
            if round_number:
                times[name].append(time.process_time() - start)
    rates = {name: round(len(texts) / statistics.median(found), 1) for name, found in times.items()}
    ratios = {f"against_{name}": round(rates["bert_spans"] / rate, 3) for name, rate in rates.items()}
    del ratios["against_bert_spans"]
    return {"texts": len(texts), "max_width": head.max_width, "texts_per_second": rates, **ratios}


def measure_scaling(n_words: int, training: bool) -> None:
    """Prints seconds, and MiB beyond what there was before. In a process of its own."""
    max_width, n_labels = 32, 50
    torch.manual_seed(0)
    module = global_pointer.GlobalPointer(384, n_labels, max_width, 64, None, 1)
    generator = numpy.random.default_rng(0)

    def step(n: int) -> None:
        X = torch.randn(n, 384)
        flat = module(X, torch.tensor([n]))
        spans = [(int(i), int(i) + 2, int(i) % n_labels) for i in generator.integers(0, n - 2, n // 10)]
        blank, unknown = numpy.zeros(n, dtype=bool), numpy.zeros((n, 1), dtype=bool)
        if training:
            target = global_pointer.SpanTargets(spans, [], unknown, blank)
            _, (gradient,) = global_pointer.span_loss([flat.detach().numpy()], [target], max_width)
            flat.backward(torch.from_numpy(numpy.asarray(gradient)))
        else:
            limits = numpy.zeros(n_labels, dtype="float32")
            global_pointer.find_spans([flat.detach().numpy()], [blank], max_width, limits)

    step(100)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(5):
        start = time.process_time()
        step(n_words)
        times.append(time.process_time() - start)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"seconds": round(statistics.median(times), 4), "mebibytes": round(used / 1024, 1)}))


def run_scaling(args: argparse.Namespace) -> Dict[str, Any]:
    result: Dict[str, Any] = {}
    for kind in ("prediction", "training"):
        result[kind] = {}
        for n_words in (1000, 2000, 4000, 8000, 16000):
            command = [sys.executable, __file__, "scaling", "--n-words", str(n_words), "--kind", kind]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            result[kind][n_words] = json.loads(done.stdout.splitlines()[-1])
            print(kind, n_words, result[kind][n_words])
    return result


PARTS = {
    "heads": run_heads,
    "loss": run_loss,
    "flat": run_flat,
    "nested": run_nested,
    "speed": run_speed,
    "scaling": run_scaling,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    add_common_arguments(parser, "spans.json")
    parser.add_argument("--corpus", choices=("snips", "wnut17", "genia", "germeval"), help="Of `flat` and `nested`")
    parser.add_argument(
        "--models", type=Path, default=Path("spans-models"), help="Where corpora and pipelines are kept"
    )
    parser.add_argument("--n-train", type=int, default=2000, help="Texts to learn from")
    parser.add_argument("--n-dev", type=int, default=700, help="SNIPS texts that choose the best checkpoint")
    parser.add_argument("--n-test", type=int, default=0, help="Texts to test on; 0: all")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--spancat-rates", type=float, nargs="+", default=SPANCAT_RATES, help="Of `nested`, learning rates of spancat"
    )
    parser.add_argument("--times", type=float, default=4.0, help="Of `heads`, how much longer spancat is trained")
    parser.add_argument("--ours-only", action="store_true", help="Of `nested`, train bert_spans alone")
    parser.add_argument("--n-words", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.n_words:
        measure_scaling(args.n_words, args.kind == "training")
        return
    args.corpus = args.corpus or ("genia" if args.part == "nested" else "snips")
    found = PARTS[args.part](args)
    if args.part != "scaling":
        names = ("epochs", "seed", "n_train", "n_dev", "n_test")
        found = {"precision": PRECISION, **{name: getattr(args, name) for name in names}, **found}
    result = json.loads(args.output.read_text(encoding="utf8")) if args.output.exists() else {}
    result.pop("environment", None)
    if args.part in ("flat", "nested", "heads"):
        result.setdefault(args.part, {}).setdefault(args.corpus, {})[f"seed {args.seed}"] = found
    else:
        result[args.part] = found
    write_result(args.output, result)


if __name__ == "__main__":
    main()
