"""The package as installed: entry points, light imports, messages."""

import ast
import json
import pickle
import re
import string
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, Dict, Iterator, List, Set, Tuple

import pytest

import spacy_bert_heads
from spacy_bert_heads.errors import MESSAGES, BertHeadsError, NotResumableError

PACKAGE = Path(spacy_bert_heads.__file__).parent
OURS = [point for point in distribution("spacy-bert-heads").entry_points if point.group.startswith("spacy_")]


def run_python(code: str) -> Any:
    """The JSON that a fresh interpreter prints last."""
    output = subprocess.run([sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.PIPE, check=True)
    return json.loads(output.stdout.splitlines()[-1])


def test_importing_the_package_loads_neither_torch_nor_spacy() -> None:
    code = "import spacy_bert_heads, sys, json; print(json.dumps([m for m in sys.modules]))"
    modules = set(run_python(code))
    assert not {"torch", "spacy", "thinc", "transformers", "numpy"} & modules


def test_a_fresh_interpreter_finds_every_factory_and_a_blank_pipeline_stays_light() -> None:
    code = """
import json, sys, spacy
nlp = spacy.blank("en")
ours = [m for m in sys.modules if m.startswith("spacy_bert_heads.")]
nlp.add_pipe("bert_encoder", name="transformer")
nlp.add_pipe("bert_textcat")
nlp.add_pipe("bert_textcat_multilabel")
nlp.add_pipe("bert_ner")
print(json.dumps([nlp.pipe_names, ours, nlp.analyze_pipes()["problems"]]))
"""
    names, ours, problems = run_python(code)
    assert names == ["transformer", "bert_textcat", "bert_textcat_multilabel", "bert_ner"]
    assert not any(problems.values())
    assert not [
        m for m in ours if m.split(".")[1] in ("layers", "models") or m.endswith((".ner", ".textcat", ".encoder"))
    ]


def test_loading_our_factories_and_commands_does_not_load_torch() -> None:
    """spaCy loads factory modules in every `spacy.blank`, and command modules in every command."""
    code = """
import json, sys
class Guard:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "transformers", "spacy_transformers"):
            frame, files = sys._getframe(), []
            while frame:
                files.append(frame.f_code.co_filename)
                frame = frame.f_back
            if any("spacy_bert_heads" in f for f in files):
                found.append(name)
        return None
found = []
import spacy, spacy.cli
for name in [m for m in sys.modules if m.split(".")[0] == "spacy_bert_heads"]:
    del sys.modules[name]
for name in [m for m in sys.modules if m.split(".")[0] in ("torch", "transformers", "spacy_transformers")]:
    del sys.modules[name]
sys.meta_path.insert(0, Guard())
import spacy_bert_heads.pipeline.factories, spacy_bert_heads.cli.app
print(json.dumps(found))
"""
    assert run_python(code) == []


def test_our_commands_add_no_other_module_to_those_of_spacy() -> None:
    """Every `spacy` command imports ours; its 5 s are for spaCy."""
    code = """
import json, sys, spacy.cli
before = set(sys.modules)
import spacy_bert_heads.cli.app
print(json.dumps(sorted({name.split(".")[0] for name in set(sys.modules) - before})))
"""
    assert run_python(code) == ["spacy_bert_heads"]


@pytest.mark.parametrize("point", OURS, ids=lambda point: f"{point.group}:{point.name}")
def test_every_entry_point_resolves(point: Any) -> None:
    assert callable(point.load())


def test_entry_points_hold_the_names_of_the_contract() -> None:
    found: Dict[str, Set[str]] = {}
    for point in OURS:
        found.setdefault(point.group, set()).add(point.name)
    assert {
        "bert_encoder",
        "bert_textcat",
        "bert_textcat_multilabel",
        "bert_ner",
        "bert_spans",
        "seq2seq_ner",
    } <= found["spacy_factories"]
    names = {"BertEncoder", "BertFromScratch", "TokenListener", "PooledListener", "PooledClassifier", "BiLSTMCRF"}
    assert {f"spacy_bert_heads.{name}.v1" for name in names} <= found["spacy_architectures"]
    assert found["spacy_cli"] == {"bert-heads"}


def test_the_package_is_typed_and_spacy_package_will_find_it() -> None:
    assert (PACKAGE / "py.typed").is_file()
    assert (distribution("spacy-bert-heads").read_text("top_level.txt") or "").split() == ["spacy_bert_heads"]
    assert distribution("spacy-bert-heads").version == spacy_bert_heads.__version__


def sources() -> Iterator[Tuple[Path, ast.AST]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf8"))


def raised() -> List[Tuple[str, Set[str], str]]:
    """Code, named fields and place of each call that passes an H-code; where fields come as **kwargs, "**" is one."""
    calls = []
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                for arg in [*node.args, *(keyword.value for keyword in node.keywords)]:
                    if isinstance(arg, ast.Constant) and re.fullmatch(r"H\d{3}", str(arg.value)):
                        fields = {keyword.arg or "**" for keyword in node.keywords}
                        if len(node.args) > 1:  # Where.error takes what was found as its second argument
                            fields.add("found")
                        calls.append((arg.value, fields, f"{path.name}:{node.lineno}"))
    return calls


def fields_of(code: str) -> Set[str]:
    return {name.split(".")[0] for _, name, _, _ in string.Formatter().parse(MESSAGES[code]) if name}


def test_codes_used_and_messages_written_are_the_same() -> None:
    used = set()
    for path, tree in sources():
        if path.name != "errors.py":
            used |= {
                node.value
                for node in ast.walk(tree)
                if isinstance(node, ast.Constant) and re.fullmatch(r"H\d{3}", str(node.value))
            }
    assert used - set(MESSAGES) == set()
    assert set(MESSAGES) - used == set()


def test_every_message_gets_the_fields_it_names() -> None:
    for code, fields, place in raised():
        if "**" not in fields and code in MESSAGES:
            assert fields_of(code) - {"found"} <= fields, f"{place} leaves out fields of {code}"
            if "found" in fields_of(code):
                assert "found" in fields, f"{place} says None for what was found ({code})"


@pytest.mark.parametrize("code", MESSAGES)
def test_an_error_says_code_place_and_what_to_do(code: str) -> None:
    fields = dict.fromkeys(fields_of(code) - {"found"}, 3)
    error = BertHeadsError(code, path="data.jsonl", line=7, found="FOUND", **fields)
    assert str(error).startswith(f"data.jsonl:7: [{code}] ")
    assert (error.code, error.path, error.line, error.found) == (code, "data.jsonl", 7, "FOUND")
    assert isinstance(error, ValueError)
    assert ("FOUND" in str(error)) == ("found" in fields_of(code))
    assert vars(pickle.loads(pickle.dumps(error))) == vars(error)
    special = NotResumableError(code, found="FOUND", **fields)
    assert type(pickle.loads(pickle.dumps(special))) is NotResumableError
    assert str(BertHeadsError(code, path="data.jsonl", found="", **fields)).startswith(f"data.jsonl: [{code}] ")
    assert str(BertHeadsError(code, found="", **fields)).startswith(f"[{code}] ")
    numbered = BertHeadsError(code, path="data.json", line=1, record=37, found="", **fields)
    assert str(numbered).startswith(f"data.json:1: [{code}] record 37: ")
