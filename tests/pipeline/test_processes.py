"""Several processes, forked or spawned, from a parent whose threads have already worked."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ..making import make_nlp, make_texts

SCRIPT = """
import multiprocessing, sys
import spacy, torch

def main(model, method):
    multiprocessing.set_start_method(method)
    torch.set_num_threads(2)
    nlp = spacy.load(model)
    texts = [line.rstrip("\\n") for line in open(model + ".txt")]
    def read(docs):
        found = [(doc, (*doc.ents, *doc.spans["sc"])) for doc in docs]
        return [(doc.cats, [(e.start, e.end, e.label_, e._.confidence) for e in spans]) for doc, spans in found]
    expected = read(nlp.pipe(texts))
    found = read(nlp.pipe(texts, n_process=2, batch_size=5))
    assert len(expected) == len(found) == len(texts)
    for (cats, ents), (other_cats, other_ents) in zip(expected, found):
        assert [e[:3] for e in ents] == [e[:3] for e in other_ents]
        assert all(abs(e[3] - o[3]) < 1e-4 for e, o in zip(ents, other_ents))
        assert all(abs(cats[label] - other_cats[label]) < 1e-4 for label in cats)
    print("same", len(found))

if __name__ == "__main__":
    main(*sys.argv[1:])
"""


# Each spawned process imports spaCy, torch and transformers anew
@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_nlp_pipe_in_two_processes_ends_with_the_same_results(bert_folder: str, tmp_path: Path, method: str) -> None:
    if method == "fork" and sys.platform != "linux":
        pytest.skip("needs processes that are forked")
    heads = ("bert_textcat", "bert_ner", "bert_spans")
    nlp = make_nlp(bert_folder, heads, settings={"transformer": {"keep_outputs": method == "spawn"}})
    nlp.to_disk(tmp_path / "model")
    (tmp_path / "model.txt").write_text("\n".join(make_texts(20)))
    (tmp_path / "run.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "run.py"), str(tmp_path / "model"), method]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["same", "20"]


FORKS = """
import os, sys
import torch
import spacy_bert_heads.pipeline.encoder
from spacy_bert_heads.layers.encoder_module import load_pretrained
from spacy_bert_heads.layers.encoder_shim import EncoderShim

def threads_of_a_child():
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.write(writer, str(torch.get_num_threads()).encode())
        os._exit(0)
    return int(os.read(reader, 10))

torch.set_num_threads(2)
before = threads_of_a_child()
settings = dict(hidden_states=False, attentions=False, precision="fp32", train_precision="fp32")
shim = EncoderShim(**settings, gradient_checkpointing=False, word_dropout=0.0)
shim.set_encoder(load_pretrained(sys.argv[1], {}, {}))
print(before, threads_of_a_child(), torch.get_num_threads())
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that are forked")
def test_children_keep_their_threads_until_an_encoder_is_loaded(bert_folder: str) -> None:
    command = [sys.executable, "-c", FORKS, bert_folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["2", "1", "2"]
