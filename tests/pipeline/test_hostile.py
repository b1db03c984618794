"""Pipelines of others: whatever is in their bytes, loading them writes no file and runs no code."""

import json
from pathlib import Path
from typing import Any, Callable, Dict

import pytest
import srsly
from spacy.language import Language

from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.layers.encoder_module import rebuild_config, rebuild_tokenizer
from spacy_bert_heads.pipeline_io import load_pipeline

from ..making import make_nlp, make_scratch_config

Shim = Dict[str, Any]


def make_pipeline() -> Language:
    return make_nlp(encoder=make_scratch_config(), heads=["bert_textcat"])


def change_shims(value: Any, change: Callable[[Shim], Any]) -> Any:
    """Apply a change to every encoder in the bytes of a pipeline, however deep they are packed in others."""
    if isinstance(value, bytes):
        try:
            inner = srsly.msgpack_loads(value)
        except Exception:
            return value
        return srsly.msgpack_dumps(change_shims(inner, change)) if isinstance(inner, (dict, list)) else value
    if isinstance(value, dict):
        if value.get("tokenizer") and "config" in value:
            change(value)
            return value
        return {key: change_shims(item, change) for key, item in value.items()}
    return [change_shims(item, change) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", ["{target}", "../.bashrc", "..\\\\.bashrc", ".", "", "a/b", "C:x", "nul.txt"])
def test_a_saved_tokenizer_writes_nothing_outside_its_folder(tmp_path: Path, name: str) -> None:
    target = tmp_path / ".bashrc"
    target.write_text("mine")
    name = name.format(target=target)
    nlp = make_pipeline()
    nlp.to_disk(tmp_path / "model")

    def change(shim: Shim) -> None:
        shim["tokenizer"][name] = b"theirs"

    file = tmp_path / "model" / "transformer" / "model"
    file.write_bytes(change_shims(file.read_bytes(), change))
    with pytest.raises(BertHeadsError, match="H252"):
        load_pipeline(str(tmp_path / "model"))
    with pytest.raises(BertHeadsError, match="H252"):
        make_pipeline().from_bytes(change_shims(nlp.to_bytes(), change))
    assert target.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".bashrc", "model"]


def test_settings_that_name_code_or_files_are_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit('code of the pipeline ran')")
    (tmp_path / "vocab.txt").write_text("secret")
    evil = {"AutoConfig": "evil.C", "AutoModel": "evil.M", "AutoTokenizer": ["evil.T", "evil.T"]}
    found: Shim = {}

    def look(shim: Shim) -> None:
        found.update(shim)

    change_shims(make_pipeline().to_bytes(), look)
    settings = json.loads(found["tokenizer"]["tokenizer_config.json"])
    settings.update(auto_map=evil, vocab_file=str(tmp_path / "vocab.txt"), tokenizer_file=str(tmp_path / "vocab.txt"))
    files = {**found["tokenizer"], "tokenizer_config.json": json.dumps(settings).encode("utf8")}
    config = rebuild_config({**found["config"], "auto_map": evil, "attn_implementation": "evil/kernel:run"})
    assert not hasattr(config, "auto_map") and config._attn_implementation == "eager"
    tokenizer = rebuild_tokenizer(config, files)
    assert tokenizer.get_vocab() == rebuild_tokenizer(config, found["tokenizer"]).get_vocab()
    assert "secret" not in tokenizer.get_vocab()
