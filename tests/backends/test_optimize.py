"""`optimize`: the exported pipeline beside the one it was made from."""

import json
import logging
import pickle
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, List

import pytest
import spacy
from spacy.language import Language
from typer.testing import CliRunner

from spacy_bert_heads.backends import optimize as optimize_module
from spacy_bert_heads.backends.measure import Bench, Measured, alike, answers, neutral_texts
from spacy_bert_heads.backends.optimize import find_encoders, optimize
from spacy_bert_heads.cli.app import app
from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.layers import runtimes
from spacy_bert_heads.layers.precision import cpu_kind
from spacy_bert_heads.layers.runtimes import BACKENDS, export_module

from ..making import assert_same_predictions, make_config, make_examples, make_nlp, make_texts, predictions
from .making import need

TEXTS = ["", *make_texts(12), "order " * 40]


@pytest.fixture(scope="module")
def original(bert_folder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline on disk, with a head of each kind on one encoder."""
    folder = tmp_path_factory.mktemp("original") / "pipeline"
    heads, settings = ("bert_textcat", "bert_ner", "bert_spans"), {"bert_spans": {"threshold": 0.01}}
    make_nlp(heads=heads, encoder=make_config(bert_folder, precision="fp32"), settings=settings).to_disk(folder)
    return folder


@pytest.fixture(scope="module")
def exported(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same exported to torch, which is always there."""
    folder = tmp_path_factory.mktemp("exported") / "pipeline"
    optimize(str(original), folder, backend="torch", precision="fp32")
    return folder


def annotate(nlp: Language, texts: List[str] = TEXTS) -> Any:
    return predictions(nlp.pipe(texts))


def code_of(model: Path, output: Path, backend: str = "torch") -> str:
    with pytest.raises(BertHeadsError) as error:
        optimize(str(model), output, backend=backend, precision="fp32")
    return error.value.code


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_exported_pipeline_loads_like_any_other_and_answers_as_the_original(
    original: Path, tmp_path: Path, backend: str
) -> None:
    need(backend)
    done = optimize(str(original), tmp_path / "exported", backend=backend, precision="fp32")
    assert done.encoders == ["transformer"]
    assert done.difference < 1e-4
    nlp = spacy.load(tmp_path / "exported")
    files = {path.name for path in (tmp_path / "exported" / "transformer").iterdir() if path.is_file()}
    assert files == {"cfg", "model"}
    assert_same_predictions(annotate(nlp), annotate(spacy.load(original)), 1e-5)
    names = [requirement.split(">=")[0] for requirement in nlp.meta.get("requirements", [])]
    assert names == list(BACKENDS[backend].requirements)
    # It runs in the backend, and the torch weights are gone
    shim = nlp.get_pipe("transformer").model.shims[0]  # type: ignore[attr-defined]
    assert shim.runtime.backend == backend
    assert shim.module is None


def test_outputs_and_confidences_are_those_of_the_original(original: Path, exported: Path) -> None:
    text = "Where is my order, Anna Smith? In New York!"
    for doc, other in zip(spacy.load(exported).pipe([text]), spacy.load(original).pipe([text])):
        for name in ("last_hidden_state", "pooler_output"):
            found, expected = (d._.trf_data.model_output[name] for d in (doc, other))
            assert found.shape == expected.shape
            assert found == pytest.approx(expected, abs=1e-5)
        assert [ent.text for ent in doc.ents] == [ent.text for ent in other.ents]
        assert list(doc._.ents_confidence) == pytest.approx(list(other._.ents_confidence), abs=1e-4)


def test_it_can_be_saved_turned_into_bytes_and_pickled(exported: Path, tmp_path: Path) -> None:
    nlp = spacy.load(exported)
    expected = annotate(nlp)
    nlp.to_disk(tmp_path / "again")
    empty = spacy.blank("en").from_config(nlp.config)
    for other in (
        spacy.load(tmp_path / "again"),
        empty.from_bytes(nlp.to_bytes()),
        pickle.loads(pickle.dumps(nlp)),
    ):
        assert_same_predictions(annotate(other), expected)


def test_training_it_is_an_error_that_says_what_to_do(exported: Path) -> None:
    nlp = spacy.load(exported)
    with pytest.raises(BertHeadsError) as error:
        nlp.update(make_examples(nlp), sgd=nlp.resume_training())
    assert error.value.code == "H235"


def test_heads_can_still_be_trained_on_it_while_it_is_frozen(exported: Path) -> None:
    nlp = spacy.load(exported)
    before = annotate(nlp)
    losses: Any = {}
    for _ in range(3):
        nlp.update(
            make_examples(nlp),
            sgd=nlp.resume_training(),
            losses=losses,
            exclude=["transformer"],
            annotates=["transformer"],
        )
    assert losses["bert_textcat"] > 0
    assert annotate(nlp) != before


def test_every_encoder_is_exported_heads_own_and_disabled_ones_too(bert_folder: str, tmp_path: Path) -> None:
    nlp = make_nlp(bert_folder)
    nlp.replace_listeners("transformer", "bert_ner", ["model.tok2vec"])
    nlp.disable_pipe("bert_ner")
    nlp.to_disk(tmp_path / "original")
    done = optimize(str(tmp_path / "original"), tmp_path / "exported", backend="torch", precision="fp32")
    assert done.encoders == ["transformer", "bert_ner"]
    found = spacy.load(tmp_path / "exported")
    assert found.disabled == ["bert_ner"]
    assert all(shim.runtime is not None for _, shim in find_encoders(found))
    found.enable_pipe("bert_ner")
    nlp.enable_pipe("bert_ner")
    assert_same_predictions(annotate(found), annotate(nlp), 1e-5)


def test_a_pipeline_in_place_is_replaced_and_anything_else_is_left_alone(original: Path, tmp_path: Path) -> None:
    output = tmp_path / "exported"
    for _ in range(2):
        optimize(str(original), output, backend="torch", precision="fp32")
        (output / "left_over").touch()
    optimize(str(original), output, backend="torch", precision="fp32")
    assert not (output / "left_over").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["exported"]
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter.txt").write_text("Dear Anna")
    assert code_of(original, mine) == "H246"
    assert code_of(original, mine / "letter.txt") == "H246"
    assert code_of(original, mine / "letter.txt" / "below") == "H123"
    assert [path.name for path in mine.iterdir()] == ["letter.txt"]


def test_the_original_cannot_be_replaced(original: Path) -> None:
    assert code_of(original, original) == "H247"
    assert code_of(original, original / "exported") == "H247"
    spacy.load(original)


def test_what_cannot_be_exported_is_said(exported: Path, tmp_path: Path) -> None:
    output = tmp_path / "exported"
    spacy.blank("en").to_disk(tmp_path / "blank")
    assert code_of(tmp_path / "blank", output) == "H244"
    assert code_of(exported, output) == "H245"
    assert code_of(tmp_path / "nothing", output) == "H227"
    assert code_of(exported, output, backend="tflite") == "H240"
    assert not output.exists()


def test_a_run_that_fails_leaves_the_old_pipeline(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "exported"
    optimize(str(original), output, backend="torch", precision="fp32")

    def full(nlp: Language, path: Path, **kwargs: Any) -> None:
        path.mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Language, "to_disk", full)
    assert code_of(original, output) == "H123"
    assert [path.name for path in tmp_path.iterdir()] == ["exported"]
    monkeypatch.undo()
    spacy.load(output)


def test_the_command_says_what_was_written(original: Path, tmp_path: Path) -> None:
    output = tmp_path / "exported"
    options = ["--backend", "torch", "--precision", "bf16"]
    result = CliRunner().invoke(app, ["optimize", str(original), str(output), *options])
    assert result.exit_code == 0, result.output
    assert "transformer" in result.output and str(output) in result.output.replace("\n", "")
    result = CliRunner().invoke(app, ["optimize", str(output), str(tmp_path / "twice"), *options])
    assert result.exit_code == 1
    assert "H245" in result.output


def test_auto_takes_the_fastest_that_keeps_the_answers_and_writes_down_what_it_measured(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = {("torch", "fp32"): (1.0, 1.2), ("openvino", "fp32"): (0.99, 9.0), ("onnxruntime", "fp32"): (0.996, 1.5)}
    monkeypatch.setattr(optimize_module, "candidates", lambda device: iter(rates))
    monkeypatch.setattr(optimize_module, "export_module", lambda module, *way, hidden_states: Stub(*way))
    monkeypatch.setattr(optimize_module, "mean_difference", lambda shim, runtime: 0.0)
    monkeypatch.setattr(optimize_module, "version", lambda package: "1.0")

    def measure(bench: Bench, runtimes: Any) -> Measured:
        way = (runtimes[0].backend, runtimes[0].precision)
        return Measured(*way, *rates[way], n_texts=len(bench.texts))

    monkeypatch.setattr(Bench, "measure", measure)
    told: List[Measured] = []
    done = optimize(str(original), tmp_path / "exported", tell=told.append)
    assert done.measured == Measured("onnxruntime", "fp32", 0.996, 1.5, len(neutral_texts("en")))
    assert done.tried == told and len(told) == 3 and done.neutral
    meta = json.loads((tmp_path / "exported" / "meta.json").read_text())
    assert meta["optimized"] == {**asdict(done.measured), "neutral_texts": True, "cpu": cpu_kind()}
    assert meta["requirements"] == ["onnxruntime>=1.0"]
    # None that keeps the answers is faster than the original
    rates[("onnxruntime", "fp32")] = (0.996, 0.9)
    rates[("torch", "fp32")] = (1.0, 1.0)
    with pytest.raises(BertHeadsError) as error:
        optimize(str(original), tmp_path / "none")
    assert error.value.code == "H254" and "openvino fp32 keeps 99.0%" in str(error.value)
    # One that was named is written if it is slower, but not if it changes too much
    optimize(str(original), tmp_path / "slower", backend="onnxruntime", precision="fp32")
    rates[("torch", "fp32")] = (0.9, 5.0)
    assert code_of(original, tmp_path / "none") == "H253"
    assert not (tmp_path / "none").exists()
    optimize(str(original), tmp_path / "forced", backend="torch", precision="fp32", force=True)
    assert (tmp_path / "forced").is_dir()


class Stub:
    """A runtime that only has to be saved."""

    def __init__(self, backend: str, precision: str) -> None:
        self.backend, self.precision, self.cpu = backend, precision, cpu_kind()

    def to_bytes(self) -> bytes:
        return b""


def test_agreement_counts_the_texts_with_the_same_categories_entities_and_spans(original: Path) -> None:
    nlp = spacy.load(original)
    [(_, shim)] = find_encoders(nlp)
    runtime = export_module(shim.module, "torch", "fp32", hidden_states=False)
    bench = Bench(nlp, [shim], TEXTS)
    measured = bench.measure([runtime])
    assert (measured.agreement, measured.n_texts) == (1, len(TEXTS))
    assert measured.speed > 0 and shim.runtime is None
    # An encoder that says the same about every wordpiece; counted by hand
    run = runtime.run
    runtime.run = lambda *arrays: {name: 0 * value for name, value in run(*arrays).items()}  # type: ignore[method-assign]
    shim.runtime = runtime
    changed = [answers(doc) for doc in nlp.pipe(TEXTS)]
    shim.runtime = None
    kept = [answers(nlp(text)) == found for text, found in zip(TEXTS, changed)]
    same = [
        all(answers(nlp(text))[name] == found[name] for name in ("chosen", "ents", "spans"))
        for text, found in zip(TEXTS, changed)
    ]
    assert sum(same) < len(TEXTS) and sum(kept) <= sum(same)
    assert bench.measure([runtime]).agreement == pytest.approx(sum(same) / len(TEXTS))


def test_numbers_of_a_regression_may_differ_by_one_percent() -> None:
    said = {"cats": {"stars": 4.0, "sure": 0.5}, "chosen": [], "ents": [], "spans": {}}
    assert alike({**said, "cats": {"stars": 4.03, "sure": 0.6}}, said)
    assert not alike({**said, "cats": {"stars": 4.2, "sure": 0.5}}, said)


def test_every_language_has_texts_to_measure_with() -> None:
    assert len(neutral_texts("zh")) > 8 and neutral_texts("zh") != neutral_texts("en")
    assert neutral_texts("is") == neutral_texts("en")


def test_on_another_kind_of_cpu_it_says_so_once(
    exported: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("spacy")
    monkeypatch.setattr(logger, "propagate", True)
    runtimes._warn_of_cpu.cache_clear()
    spacy.load(exported)
    assert "H255" not in caplog.text
    monkeypatch.setattr(runtimes, "cpu_kind", lambda: "AVX9000")
    spacy.load(exported)
    spacy.load(exported)
    assert caplog.text.count("H255") == 1 and "AVX9000" in caplog.text


def test_texts_are_read_from_a_file(original: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS[1:]) + "\n")
    (tmp_path / "none.txt").write_text("\n")
    options = ["--backend", "torch", "--precision", "fp32", "--texts"]
    command = ["optimize", str(original), str(tmp_path / "exported"), *options]
    result = CliRunner().invoke(app, [*command, str(tmp_path / "texts.txt")])
    assert result.exit_code == 0, result.output
    assert f"100.0% of {len(TEXTS) - 1} texts" in result.output.replace("\n", " ")
    result = CliRunner().invoke(app, [*command, str(tmp_path / "none.txt")])
    assert result.exit_code == 1 and "H256" in result.output


PROCESSES = """
import json, multiprocessing, sys
import spacy

if __name__ == "__main__":
    folder, method, texts = json.loads(sys.argv[1])
    nlp = spacy.load(folder)
    one = [(doc.cats, [ent.text for ent in doc.ents]) for doc in nlp.pipe(texts)]
    multiprocessing.set_start_method(method, force=True)
    two = [(doc.cats, [ent.text for ent in doc.ents]) for doc in nlp.pipe(texts, n_process=2, batch_size=4)]
    close = all(abs(a[0][k] - b[0][k]) < 1e-5 and a[1] == b[1] for a, b in zip(one, two) for k in a[0])
    print(json.dumps(len(one) == len(two) and close))
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "fork"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_several_processes_give_the_same_results(original: Path, tmp_path: Path, backend: str, method: str) -> None:
    need(backend)
    optimize(str(original), tmp_path / "exported", backend=backend, precision="fp32")
    script = tmp_path / "run.py"
    script.write_text(PROCESSES)
    request = json.dumps([str(tmp_path / "exported"), method, TEXTS])
    command = [sys.executable, "-W", "ignore", str(script), request]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=300, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) is True
