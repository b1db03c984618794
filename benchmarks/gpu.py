"""On a GPU: training and prediction beside the bare encoder, CRF decoding beside pytorch-crf, the tests marked `gpu`.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --device cpu     the same in small, to try the script; writes a file only with --output

It needs this checkout, pytest, and cupy (thinc uses a GPU through it alone), and no network; tools/gpu_kit.py takes it
to a machine that has none. The encoder has BERT-base's size, random weights, and wordpieces learned from assets/. Both
heads of configs/joint.cfg learn from the English messages of assets/ in bf16, and `nlp.pipe` predicts

    short   these messages four times over, shuffled
    long    64 documents of 2,000 words each, put together from them

"bare" is the encoder with nothing around it but its fast tokenizer: trained in bf16 autocast with fused AdamW, as ours
is; predicting from texts sorted by length with all of its weights in bf16, its fastest way. Either has the batch size
that is fastest of those tried. All take turns, the device is waited for before the clock is read, and figures are
medians of the rounds. Memory is the GPU's at its fullest, weights and optimizers of both included. "profile" is where
Python spends a pass of `nlp.pipe`. A part that fails leaves its error in the result, and the others go on.
"""

import argparse
import cProfile
import json
import pstats
import random
import subprocess
import sys
import tempfile
import time
import traceback
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

sys.path.append(str(Path(__file__).parent / "peers"))

import spacy
import torch
from bare_encoder import encode_texts, pad
from crf import run_case, time_in_turn
from environment import write_result
from runs import BATCH_SIZE, CONFIGS
from spacy.language import Language
from spacy.schemas import ConfigSchemaTraining
from spacy.training import Example
from spacy.training.initialize import init_nlp
from spacy.util import load_config, registry
from spacy_pipelines import train_step
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel
from worker import sort_by_length

from spacy_bert_heads.layers.wordpiece import bert_tokenizer

ROOT = Path(__file__).resolve().parents[1]
MESSAGES = ROOT / "assets" / "en" / "generated.jsonl"
RATE = 5e-5
PIPE, DECODING, TESTS = 0.7, 20.0, "all pass"


class Sizes(NamedTuple):
    """What is measured on a device.

    encoder (Dict[str, int]): Other sizes than BERT-base's.
    messages, copies (int): Short texts: how many, and how many times over.
    documents, words (int): Long texts.
    steps (int): Batches of a round of training.
    ours (List[Tuple[int, int]]): Texts handed on together, and wordpieces that go through the encoder at once.
    bare (List[int]): Texts, or windows, that go through together.
    crf (Dict[str, int]): Docs, tokens and tags.
    """

    encoder: Dict[str, int]
    messages: int
    copies: int
    documents: int
    words: int
    steps: int
    ours: List[Tuple[int, int]]
    bare: List[int]
    crf: Dict[str, int]


SIZES = {
    "cuda": Sizes(
        encoder={},
        messages=2400,
        copies=4,
        documents=64,
        words=2000,
        steps=20,
        ours=[(256, 4096), (1024, 16384), (4096, 65536)],
        bare=[64, 256, 1024],
        crf={"docs": 128, "tokens": 128, "tags": 37},
    ),
    "cpu": Sizes(
        encoder={"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64},
        messages=100,
        copies=1,
        documents=1,
        words=600,
        steps=1,
        ours=[(256, 4096)],
        bare=[64],
        crf={"docs": 8, "tokens": 16, "tags": 9},
    ),
}


class BareEncoder:
    """The encoder alone, in training and in prediction.

    folder (Path): Hugging Face's.
    device (torch.device): Where it computes.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.device = device
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder).to(device).train()
        self.rounded = AutoModel.from_pretrained(folder).to(device, torch.bfloat16).eval()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=RATE, fused=True)

    def predict(self, texts: List[str], size: int) -> None:
        """Texts `size` at once, then windows `size` at once."""
        _, texts = sort_by_length(texts)
        with torch.inference_mode():
            for start in range(0, len(texts), size):
                windows = sorted(encode_texts(self.tokenizer, texts[start : start + size]).ids, key=len)
                for first in range(0, len(windows), size):
                    self.rounded(**self._inputs(windows[first : first + size]))

    def step(self, texts: List[str]) -> None:
        """Learn anything at all: a loss that all parameters of all layers have a part in."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            states = self.model(**self._inputs(encode_texts(self.tokenizer, texts).ids)).last_hidden_state
        states.float().square().mean().backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _inputs(self, windows: List[torch.Tensor]) -> Dict[str, torch.Tensor]:
        return {name: tensor.to(self.device) for name, tensor in pad(windows).items()}


def use_gpu() -> None:
    """Have spaCy and thinc use the first GPU, or end with what is missing."""
    try:
        spacy.require_gpu(0)
    except ValueError as error:
        cuda = torch.version.cuda or "none: it is built for CPUs"
        hint = f"It takes a GPU and cupy for torch's CUDA ({cuda}); --device cpu tries the script in small."
        raise SystemExit(f"{error}. {hint}") from error


def make_encoder(folder: Path, texts: List[str], sizes: Sizes) -> None:
    """A BERT with random weights and its tokenizer, as `save_pretrained` writes them."""
    torch.manual_seed(0)
    config = BertConfig(**sizes.encoder)
    longest = config.max_position_embeddings
    tokenizer = bert_tokenizer(texts, vocab=None, vocab_size=config.vocab_size, lowercase=True, max_length=longest)
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_pipeline(encoder: Path, device: torch.device) -> Language:
    """Both heads over the encoder, initialised from the messages."""
    config = load_config(CONFIGS / "joint.cfg", interpolate=False)
    config["paths"]["encoder"] = str(encoder)
    config["components"]["transformer"]["model"]["precision"] = "bf16"
    config["training"]["optimizer"]["learn_rate"] = RATE
    for split in ("train", "dev"):
        reader = {"@readers": "spacy_bert_heads.Corpus.v1", "path": str(MESSAGES), "split": split}
        config["corpora"][split] = reader
    return init_nlp(config, use_gpu=0 if device.type == "cuda" else -1)


def run_tests() -> Dict[str, Any]:
    """The tests marked `gpu`; those that were skipped have not passed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/gpu", "--junitxml", str(report)]
        subprocess.run(command, cwd=ROOT, check=False)
        root = ElementTree.parse(report).getroot()
    counts = {
        name: sum(int(suite.get(name, 0)) for suite in root.iter("testsuite"))
        for name in ("tests", "failures", "errors", "skipped")
    }
    failed = {
        str(case.get("name")): str(problem.get("message"))[:500]
        for case in root.iter("testcase")
        for problem in (*case.iter("failure"), *case.iter("error"))
    }
    return {**counts, "failed": failed}


def measure_crf(sizes: Sizes, repeats: int, device: torch.device) -> Dict[str, Any]:
    """See crf.py."""
    return run_case({**sizes.crf, "scheme": None, "goal_loss": 5.0, "goal_decode": DECODING}, repeats, device)


def measure_training(
    nlp: Language, bare: BareEncoder, sizes: Sizes, repeats: int, device: torch.device
) -> Dict[str, Any]:
    """Examples per second of both, and the most memory that a step took."""
    settings = nlp.config.interpolate()
    training = registry.resolve(settings["training"], schema=ConfigSchemaTraining)
    (corpus,) = spacy.util.resolve_dot_names(settings, [training["train_corpus"]])
    examples = list(corpus(nlp))[: sizes.steps * BATCH_SIZE]
    batches = [examples[first : first + BATCH_SIZE] for first in range(0, len(examples), BATCH_SIZE)]

    def ours() -> None:
        for batch in batches:
            train_step(nlp, training, [Example(nlp.make_doc(eg.text), eg.reference) for eg in batch])

    def theirs() -> None:
        for batch in batches:
            bare.step([eg.text for eg in batch])

    work = {"ours": ours, "bare": theirs}
    ms, _ = time_in_turn(work, repeats, device)
    return {
        "examples_per_second": {name: round(len(examples) / value * 1e3, 1) for name, value in ms.items()},
        "ours_over_bare": round(ms["bare"] / ms["ours"], 3),
        "peak_memory_mib": {name: peak_memory(run, device) for name, run in work.items()},
    }


def measure_prediction(
    nlp: Language, bare: BareEncoder, texts: List[str], sizes: Sizes, repeats: int, device: torch.device
) -> Dict[str, Any]:
    """Docs per second of all batch sizes, the fastest of either beside each other, and memory."""
    settings = nlp.get_pipe("transformer").model.attrs["settings"]  # type: ignore[attr-defined]

    def ours(size: int, pieces: int) -> List[Any]:
        settings.max_batch_pieces = pieces
        return list(nlp.pipe(texts, batch_size=size))

    work: Dict[str, Callable[[], Any]] = {}
    for size, pieces in sizes.ours:
        work[f"ours, {size} texts, {pieces} wordpieces"] = lambda size=size, pieces=pieces: ours(size, pieces)
    for size in sizes.bare:
        work[f"bare, {size} texts"] = lambda size=size: bare.predict(texts, size)
    work["spaCy's tokenizer alone"] = lambda: [nlp.make_doc(text) for text in texts]
    ms, _ = time_in_turn(work, repeats, device)
    fastest = {
        name: min((row for row in ms if row.startswith(name)), key=lambda row: ms[row]) for name in ("ours", "bare")
    }
    docs = work[fastest["ours"]]()
    return {
        "texts": len(texts),
        "docs_per_second": {name: round(len(texts) / value * 1e3, 1) for name, value in ms.items()},
        "fastest": fastest,
        "ours_over_bare": round(ms[fastest["bare"]] / ms[fastest["ours"]], 3),
        "peak_memory_mib": {name: peak_memory(work[row], device) for name, row in fastest.items()},
        "entities": sum(len(doc.ents) for doc in docs),
        "profile": profile(work[fastest["ours"]]),
    }


def peak_memory(work: Callable[[], Any], device: torch.device) -> Optional[int]:
    """RETURNS (Optional[int]): MiB of the GPU, weights and optimizers of both included. None on a CPU."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return round(torch.cuda.max_memory_allocated() / 2**20)


def profile(work: Callable[[], Any], n: int = 20) -> List[Dict[str, Any]]:
    """RETURNS (List[Dict[str, Any]]): Functions that take longest by themselves; the profiler slows Python down."""
    profiler = cProfile.Profile()
    profiler.runcall(work)
    rows = pstats.Stats(profiler).stats.items()  # type: ignore[attr-defined]
    return [
        {"function": f"{Path(file).name}:{line}({name})", "calls": calls, "seconds": round(own, 4)}
        for (file, line, name), (_, calls, own, *_) in sorted(rows, key=lambda row: -row[1][2])[:n]
    ]


def long_documents(texts: List[str], sizes: Sizes) -> List[str]:
    """Texts one after the other, cut to a length."""
    chooser, documents = random.Random(1), []
    for _ in range(sizes.documents):
        words: List[str] = []
        while len(words) < sizes.words:
            words += chooser.choice(texts).split()
        documents.append(" ".join(words[: sizes.words]))
    return documents


def goals(result: Dict[str, Any]) -> List[Dict[str, Any]]:
    """What was to be reached, what is, and whether that is enough. found: None where a part failed or was left out."""
    rows: List[Dict[str, Any]] = []
    for name in ("short", "long"):
        found = result.get(f"prediction_{name}", {}).get("ours_over_bare")
        rows.append({"what": f"nlp.pipe over the bare encoder, {name} texts", "found": found, "goal": PIPE})
    found = result.get("crf", {}).get("times_faster", {}).get("decode")
    rows.append({"what": "CRF decoding over pytorch-crf's", "found": found, "goal": DECODING})
    for row in rows:
        row["passed"] = row["found"] is not None and row["found"] >= row["goal"]
    tests = result.get("tests", {})
    n_passed = tests.get("tests", 0) - sum(tests.get(name, 0) for name in ("failures", "errors", "skipped"))
    passed = "error" not in tests and 0 < n_passed == tests.get("tests")
    found = f"{n_passed} of {tests['tests']} pass" if "tests" in tests else None
    return [*rows, {"what": "tests marked gpu", "found": found, "goal": TESTS, "passed": passed}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=SIZES, default="cuda")
    parser.add_argument(
        "--output", type=Path, help="JSON file to write. Default: gpu.json beside this; of a CPU, none"
    )
    parser.add_argument("--repeats", type=int, default=5, help="Rounds")
    parser.add_argument("--skip-tests", action="store_true", help="Leave the tests out")
    args = parser.parse_args()
    device, sizes, repeats = torch.device(args.device), SIZES[args.device], args.repeats
    result: Dict[str, Any] = {"device": args.device, "rehearsal": args.device == "cpu", "repeats": repeats}
    output = args.output
    if args.device == "cuda":
        use_gpu()
        import cupy

        output = output or Path(__file__).parent / "gpu.json"
        memory = round(torch.cuda.get_device_properties(0).total_memory / 2**20)
        result.update(cuda=torch.version.cuda, cupy=cupy.__version__, memory_mib=memory)

    def attempt(name: str, work: Callable[..., Dict[str, Any]], *arguments: Any) -> None:
        print(f"{name} ...", flush=True)
        start = time.perf_counter()
        try:
            result[name] = work(*arguments)
        except Exception:  # whatever it is: a machine with a GPU may be there once, and the rest counts too
            traceback.print_exc()
            result[name] = {"error": traceback.format_exc()}
        result[name]["seconds"] = round(time.perf_counter() - start, 1)
        result["goals"] = goals(result)
        if output is not None:
            write_result(output, result)

    if not args.skip_tests:
        attempt("tests", run_tests)
    attempt("crf", measure_crf, sizes, repeats, device)
    texts = [json.loads(line)["text"] for line in MESSAGES.read_text(encoding="utf8").splitlines()][: sizes.messages]
    short = texts * sizes.copies
    random.Random(0).shuffle(short)
    with tempfile.TemporaryDirectory() as folder:
        make_encoder(Path(folder), texts, sizes)
        nlp, bare = make_pipeline(Path(folder), device), BareEncoder(Path(folder), device)
    attempt("training", measure_training, nlp, bare, sizes, repeats, device)
    attempt("prediction_short", measure_prediction, nlp, bare, short, sizes, repeats, device)
    attempt("prediction_long", measure_prediction, nlp, bare, long_documents(texts, sizes), sizes, repeats, device)
    print(json.dumps({name: value for name, value in result.items() if name != "goals"}, indent=2))
    if result["rehearsal"]:
        print("\nA rehearsal on the CPU, in small: these figures say nothing.")
    for row in result["goals"]:
        print(f"{row['what']}: {row['found']}, goal {row['goal']}: {'passed' if row['passed'] else 'NOT PASSED'}")
    failed = [name for name, value in result.items() if isinstance(value, dict) and "error" in value]
    if failed:
        sys.exit(f"Failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
