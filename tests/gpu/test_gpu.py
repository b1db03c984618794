"""What a GPU computes, against the CPU. Without a CUDA GPU, or without cupy for it, all of this is skipped."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence, Set, Tuple

import numpy
import pytest
import spacy
import torch
from spacy.language import Language
from thinc.compat import has_cupy_gpu
from thinc.util import to_numpy
from torch.testing import assert_close

from spacy_bert_heads.bulk.predictions import Options
from spacy_bert_heads.bulk.run import apply_to_files
from spacy_bert_heads.layers.crf.module import ConditionalRandomField
from spacy_bert_heads.models.gradient_cache import run_batch
from spacy_bert_heads.tags import TagScheme
from spacy_bert_heads.training.optimizer import build_adamw_v1
from spacy_bert_heads.training.run import run

from ..corpus.helpers import write_jsonl
from ..layers.test_crf import make_annotation, make_batch, make_crf, make_patterns
from ..making import (
    TRAINING,
    assert_same_predictions,
    make_config,
    make_examples,
    make_nlp,
    make_texts,
    predictions,
)
from ..models import test_gradient_cache
from ..training import test_resume

pytestmark = pytest.mark.gpu

PIPELINES = [
    ("bert_textcat", "bert_ner"),
    ("bert_textcat_multilabel", "bert_spans"),
    ("bert_regression", "bert_ner"),
    ("seq2seq_ner",),
    ("textcat", "tagger", "bert_ner"),
]
# Some of several windows, and one of none
TEXTS = [*make_texts(20, longest=60), ""]


@pytest.fixture(autouse=True)
def devices(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """LSTMs that are exact on the GPU; the CPU again for the tests that follow."""
    if not has_cupy_gpu:
        pytest.skip("needs a CUDA GPU, and cupy for it")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    yield
    use("cpu")


def use(device: str) -> None:
    if device == "cuda":
        spacy.require_gpu(0)
    else:
        spacy.require_cpu()


def on(device: str, nlp: Language, folder: Path) -> Language:
    """The pipeline saved, and loaded on a device, which is then in use."""
    nlp.to_disk(folder)
    use(device)
    loaded = spacy.load(folder)
    assert devices_of(loaded) == {device}
    return loaded


def devices_of(nlp: Language) -> Set[str]:
    shims = [shim for _, component in nlp.pipeline for node in component.model.walk() for shim in node.shims]  # type: ignore[attr-defined]
    return {parameter.device.type for shim in shims for parameter in shim.module.parameters()}


def make_optimizer() -> Any:
    return build_adamw_v1(learn_rate=1e-3, head_rate=1e-2, warmup=0, decay="constant")


def train(nlp: Language, n: int, optimizer: Any) -> List[Dict[str, float]]:
    losses: List[Dict[str, float]] = []
    for _ in range(n):
        losses.append({})
        nlp.update(make_examples(nlp), sgd=optimizer, losses=losses[-1])
    optimizer.step_pending()
    return losses


def read(nlp: Language) -> List[Any]:
    docs = list(nlp.pipe(TEXTS))
    assert any(doc.ents or doc.spans.get("sc") or doc.cats for doc in docs)
    return predictions(docs)


@pytest.mark.parametrize("heads", PIPELINES, ids="+".join)
def test_it_learns_and_predicts_what_the_cpu_does(bert_folder: str, tmp_path: Path, heads: Sequence[str]) -> None:
    use("cpu")
    made = make_nlp(bert_folder, heads)
    trained, losses = {}, {}
    for device in ("cpu", "cuda"):
        trained[device] = on(device, made, tmp_path / device)
        losses[device] = train(trained[device], 4, make_optimizer())
        use("cpu")
    for there, here in zip(losses["cuda"], losses["cpu"]):
        assert there == pytest.approx(here, rel=1e-3, abs=1e-4)
    assert sum(losses["cpu"][-1].values()) < sum(losses["cpu"][0].values())
    # The weights of one, so that what differs is the way to predict alone
    expected = read(trained["cpu"])
    assert_same_predictions(read(on("cuda", trained["cpu"], tmp_path / "same")), expected, 1e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_both_heads_learn_three_texts_by_heart(bert_folder: str, tmp_path: Path, precision: str) -> None:
    use("cpu")
    encoder = make_config(bert_folder, precision=precision)
    nlp = on(
        "cuda",
        make_nlp(encoder=encoder, settings={"bert_ner": {"model": {"precision": precision, "lstm_width": 8}}}),
        tmp_path,
    )
    train(nlp, 60, make_optimizer())
    for (_, label, entities), doc in zip(TRAINING, nlp.pipe([text for text, _, _ in TRAINING])):
        assert max(doc.cats, key=lambda name: doc.cats[name]) == label
        assert [(ent.start_char, ent.end_char, ent.label_) for ent in doc.ents] == entities


def test_what_was_trained_on_a_gpu_is_read_where_there_is_none(bert_folder: str, tmp_path: Path) -> None:
    use("cpu")
    nlp = on("cuda", make_nlp(bert_folder), tmp_path / "made")
    train(nlp, 10, make_optimizer())
    nlp.to_disk(tmp_path / "trained")
    code = """if True:
        import json, sys, spacy, torch
        assert not torch.cuda.is_available()
        docs = spacy.load(sys.argv[1]).pipe(json.loads(sys.argv[2]))
        found = [(doc.cats, [(ent.start, ent.end, ent.label_) for ent in doc.ents]) for doc in docs]
        print(json.dumps(found))
    """
    command = [sys.executable, "-c", code, str(tmp_path / "trained"), json.dumps(TEXTS)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    elsewhere = [(cats, [tuple(ent) for ent in ents]) for cats, ents in json.loads(done.stdout)]
    assert_same_predictions(read(nlp), elsewhere, 1e-4)


def test_a_training_that_goes_on_is_that_of_one_go(bert_folder: str, tmp_path: Path) -> None:
    """The optimizer's state, on the GPU, goes through a file as a checkpoint's does. Losses are compared, not weights:
    sums come in any order on a GPU, and Adam makes whole steps of what is left where a gradient should be 0.
    """
    use("cpu")
    made = make_nlp(bert_folder)
    losses = {}
    for way in ("one go", "resumed", "forgotten"):
        nlp, optimizer = on("cuda", made, tmp_path / way), make_optimizer()
        train(nlp, 4, optimizer)
        if way != "one go":
            torch.save(optimizer.state_dict(), tmp_path / "state.pt")
            optimizer = make_optimizer()
        if way == "resumed":
            optimizer.load_state_dict(torch.load(tmp_path / "state.pt", map_location="cpu"))
        losses[way] = [sum(step.values()) for step in train(nlp, 4, optimizer)]
        use("cpu")
    assert losses["resumed"] == pytest.approx(losses["one go"], rel=1e-3)
    assert losses["forgotten"] != pytest.approx(losses["one go"], rel=1e-2)


def test_bert_heads_train_runs_to_its_end_and_its_pipeline_is_read(tmp_path: Path) -> None:
    use("cuda")
    config = test_resume.make_config_file(tmp_path)
    run(config, tmp_path / "out", overrides={}, use_gpu=0, resume=False, verbose=False)
    rows = json.loads((tmp_path / "out" / "training.json").read_text())["evaluations"]
    assert len(rows) > 3 and all(numpy.isfinite(row["losses"]["bert_ner"]) for row in rows)
    nlp = spacy.load(tmp_path / "out" / "model-best")
    assert devices_of(nlp) == {"cuda"} and nlp("Where is my order?").cats


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precisions_are_near_fp32_and_other_than_it(bert_folder: str, tmp_path: Path, precision: str) -> None:
    use("cpu")
    nlp = on("cuda", make_nlp(bert_folder), tmp_path)
    encoder: Any = nlp.get_pipe("transformer")
    states = {}
    for name in ("fp32", precision, "auto"):
        encoder.model.shims[0].precision = name
        docs = [nlp.make_doc(text) for text in TEXTS]
        outputs = [to_numpy(data.model_output.last_hidden_state) for data in encoder.predict(docs).doc_data]
        assert all(output.dtype == "float32" for output in outputs)
        states[name] = numpy.concatenate([output.reshape(-1, output.shape[-1]) for output in outputs])
    distance = numpy.abs(states[precision] - states["fp32"])
    assert 0 < distance.max() < 0.25 and distance.mean() < 0.02
    if torch.cuda.get_device_capability()[0] >= 8 and precision == "bf16":
        assert (states["auto"] == states["bf16"]).all()


@pytest.mark.parametrize("scheme", [None, "bio", "bioes"])
def test_the_crf_computes_what_it_does_on_the_cpu(scheme: Any) -> None:
    crf, _ = make_crf(scheme, n_labels=3, n_tags=7)
    tags = TagScheme(scheme or "bio", ["A", "B", "C"])
    emissions, mask = make_batch(crf.num_tags, (9, 5, 1, 0), scale=3.0)
    allowed, paths = make_annotation(crf, mask)
    spans = torch.tensor([(0, 1, 3, 0), (0, 4, 5, 2), (1, 0, 4, 1), (2, 0, 1, 0)])

    def compute(device: str) -> Dict[str, torch.Tensor]:
        there: ConditionalRandomField = crf.to(device)
        scores, within = emissions.to(device).requires_grad_(True), mask.to(device)
        patterns = type(make_patterns(tags))(*(part.to(device) for part in make_patterns(tags)))
        found = {
            "whole": there.log_likelihood_of_tags(scores, paths.to(device), within),
            "partial": there.log_likelihood(scores, allowed.to(device), within),
            "rejected": there.rejected_span_loss(scores, within, spans, patterns),
        }
        loss = torch.stack([value[value.isfinite()].sum() for value in found.values()]).sum()
        names = ["emissions", *(name for name, _ in there.named_parameters())]
        found.update(zip(names, torch.autograd.grad(loss, [scores, *there.parameters()])))
        found["marginals"] = there.marginals(scores, within)
        found["spans"] = there.span_log_probability(scores, within, spans, patterns)
        found["path"], found["score"] = there.viterbi(scores, within)
        found["paths"], found["path scores"], found["exists"] = there.nbest(scores, within, 4)
        assert {tensor.device.type for tensor in found.values()} == {device}
        return {name: tensor.detach().cpu() for name, tensor in found.items()}

    expected = compute("cpu")
    for name, value in compute("cuda").items():
        assert_close(value, expected[name], rtol=1e-4, atol=1e-4, msg=lambda said, name=name: f"{name}: {said}")


def test_decoding_and_likelihood_are_pytorch_crfs() -> None:
    from torchcrf import CRF as PytorchCRF

    torch.manual_seed(0)
    theirs = PytorchCRF(11, batch_first=True).to("cuda")
    ours = ConditionalRandomField(11).to("cuda")
    ours.load_state_dict(theirs.state_dict())
    lengths = (20, 7, 1, 13)
    emissions, mask = (tensor.to("cuda") for tensor in make_batch(11, lengths, scale=3.0))
    tags = torch.randint(0, 11, mask.shape, device="cuda")
    likelihoods = [ours.log_likelihood_of_tags(emissions, tags, mask), theirs(emissions, tags, mask, reduction="none")]
    assert_close(*likelihoods, rtol=1e-4, atol=1e-3)
    paths = ours.viterbi(emissions, mask)[0].tolist()
    assert [path[:length] for path, length in zip(paths, lengths)] == theirs.decode(emissions, mask)


def test_the_second_forward_pass_of_a_large_batch_has_the_dropout_of_the_first(
    bert_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use("cpu")
    encoder = make_config(bert_folder, transformer_config=test_gradient_cache.DROPOUT)
    nlp = on("cuda", make_nlp(encoder=encoder, heads=[]), tmp_path)
    shim, batch = test_gradient_cache.make_batch(nlp, TEXTS)
    passes: List[torch.Tensor] = []
    first = shim.runner(True)

    def record(*inputs: Any) -> Any:
        named = first(*inputs)
        passes.append(named["last_hidden_state"].detach())
        return named

    monkeypatch.setattr(shim, "runner", lambda is_train: record)
    # Rectangles of a GPU are large; of less than what one holds, none keeps its graph
    outputs, backprop = run_batch(shim, batch, 96, True)
    n = len(passes)
    backprop({"last_hidden_state": torch.ones_like(outputs["last_hidden_state"])})
    assert n > 1 and len(passes) == 2 * n
    for here, again in zip(passes, passes[n:]):
        assert torch.equal(here, again)
    run_batch(shim, batch, 96, True)
    assert not torch.equal(passes[0], passes[2 * n])


def count_waits(nlp: Language, texts: List[str]) -> Tuple[int, List[str]]:
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            list(nlp.pipe(texts))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    places = [f"{Path(w.filename).name}:{w.lineno}" for w in caught if "synchroniz" in str(w.message)]
    return len(places), places


def test_a_batch_waits_for_the_device_as_often_however_many_texts_it_has(bert_folder: str, tmp_path: Path) -> None:
    use("cpu")
    nlp = make_nlp(bert_folder)
    train(nlp, 60, make_optimizer())  # without entities there would be no probabilities of them to wait for
    nlp = on("cuda", nlp, tmp_path)
    texts = [text for text, _, _ in TRAINING]
    assert all(doc.ents for doc in nlp.pipe(texts))  # warm
    few, many = count_waits(nlp, texts), count_waits(nlp, texts * 20)
    assert 0 < few[0] == many[0], (few, many)


def test_apply_runs_a_process_on_the_gpu(bert_folder: str, tmp_path: Path) -> None:
    use("cpu")
    nlp = make_nlp(bert_folder)
    train(nlp, 30, make_optimizer())
    nlp.to_disk(tmp_path / "model")
    texts = [text for text in TEXTS if text]
    source = write_jsonl(tmp_path / "in.jsonl", *({"text": text} for text in texts))
    report = apply_to_files(
        str(tmp_path / "model"), [source], tmp_path / "out", options=Options(format="spacy"), gpus=[0]
    )
    assert (report.n_items, report.n_rejected) == (len(texts), 0)
    (part,) = (tmp_path / "out").glob("part-*.spacy")
    docs = spacy.tokens.DocBin().from_disk(part).get_docs(nlp.vocab)
    assert_same_predictions(predictions(docs), predictions(nlp.pipe(texts)), 0.05)
