"""check-package, with the commands it would run recorded instead of run."""

import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence
from zipfile import ZIP_DEFLATED, ZipFile

import pytest

from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.packaging import check_package as packaging
from spacy_bert_heads.packaging.check_package import check_package, find_source, read_wheel, run_command, to_text

RESULT = {
    "package": "en_support",
    "version": "0.1.0",
    "pipeline": ["transformer", "bert_ner"],
    "versions": {"spacy": "3.8.18", "torch": None},
    "seconds": {"load": 1.5, "annotate": 0.02},
    "results": [
        {
            "text": "Where is BK-1?",
            "cats": {"STATUS": 0.987, "REFUND": 0.013},
            "ents": [{"text": "BK-1", "label": "ORDER", "start": 9, "end": 13}],
        }
    ],
}


def make_wheel(folder: Path, requirements: Sequence[str] = ("spacy-bert-heads<0.2.0,>=0.1.0",)) -> Path:
    path = folder / "en_support-0.1.0-py3-none-any.whl"
    lines = ["Metadata-Version: 2.1", "Name: en_support", *(f"Requires-Dist: {r}" for r in requirements)]
    with ZipFile(path, "w") as archive:
        archive.writestr("en_support/meta.json", "{}")
        archive.writestr("en_support/en_support-0.1.0/meta.json", "{}")
        archive.writestr("en_support-0.1.0.dist-info/METADATA", "\n".join(lines) + "\n\n")
    return path


class Recorder:
    """Stands in for the commands; the last of them answers with RESULT."""

    def __init__(self) -> None:
        self.commands: List[List[str]] = []
        self.environments: List[Dict[str, str]] = []
        self.requests: List[str] = []

    def __call__(self, command: Sequence[str], environment: Dict[str, str], request: str) -> str:
        self.commands.append(list(command))
        self.environments.append(environment)
        self.requests.append(request)
        return json.dumps(RESULT)


def test_both_wheels_are_installed_and_tried_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://example.org/simple")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setattr(packaging, "find_source", lambda: "/source")
    wheel, run = make_wheel(tmp_path), Recorder()
    (tmp_path / "constraints.txt").write_text("torch==2\n")
    output = tmp_path / "metrics" / "check.json"
    result = check_package(wheel, ["a", "b"], output=output, constraints=tmp_path / "constraints.txt", run=run)
    assert result == RESULT == json.loads(output.read_text())
    build, venv, install, trial = run.commands
    assert build[:4] == [sys.executable, "-m", "pip", "wheel"] and build[-1] == "/source"
    assert venv[:3] == [sys.executable, "-m", "venv"]
    assert install[0] == trial[0] and install[0].startswith(venv[3])
    assert install[install.index("--find-links") + 1] == build[build.index("-w") + 1]
    assert install[install.index("--constraint") + 1] == str(tmp_path / "constraints.txt")
    assert install[-1] == str(wheel) and "demo" not in " ".join(install)
    assert "-I" in trial
    assert json.loads(run.requests[-1])["package"] == "en_support"
    assert json.loads(run.requests[-1])["texts"] == ["a", "b"]
    for environment in run.environments:
        assert environment["HF_HUB_OFFLINE"] == environment["TRANSFORMERS_OFFLINE"] == "1"
        assert environment["PIP_INDEX_URL"] == "https://example.org/simple"
        assert "PYTHONPATH" not in environment
    assert not Path(venv[3]).parent.exists()


def test_the_result_is_nice_to_read() -> None:
    shown = to_text(RESULT)
    assert "nlp = spacy.load('en_support')" in shown
    assert "STATUS 0.99   REFUND 0.01" in shown
    assert "ORDER  BK-1" in shown
    assert "spacy 3.8.18" in shown and "torch" not in shown


@pytest.mark.parametrize("requirements", [(), ("spacy-bert-heads-extra>=1",), ("spacy<3.9",)])
def test_a_package_that_does_not_require_us_is_an_error(tmp_path: Path, requirements: Sequence[str]) -> None:
    with pytest.raises(BertHeadsError, match="H223"):
        check_package(make_wheel(tmp_path, requirements), [], output=None, constraints=None, run=Recorder())


@pytest.mark.parametrize(
    "requirement", ["spacy-bert-heads", "spacy_bert_heads (>=0.1)", "Spacy.Bert-Heads[demo]>=0.1"]
)
def test_our_name_is_known_however_it_is_spelt(tmp_path: Path, requirement: str) -> None:
    run = Recorder()
    check_package(make_wheel(tmp_path, [requirement]), [], output=None, constraints=None, run=run)
    assert run.commands


def test_other_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.whl").write_text("no zip")
    with ZipFile(tmp_path / "other.whl", "w") as archive:
        archive.writestr("other/__init__.py", "")
    for name, code in (("missing.whl", "H101"), ("text.whl", "H224"), ("other.whl", "H224")):
        with pytest.raises(BertHeadsError, match=code):
            read_wheel(tmp_path / name)
    with pytest.raises(BertHeadsError, match="H101"):
        check_package(make_wheel(tmp_path), [], output=None, constraints=tmp_path / "no.txt", run=Recorder())


def test_a_command_that_fails_shows_its_last_words() -> None:
    assert run_command([sys.executable, "-c", "print(input())"], {}, "hello") == "hello\n"
    with pytest.raises(BertHeadsError, match="H226") as error:
        run_command([sys.executable, "-c", "raise SystemExit('no such wheel')"], {}, "")
    assert "no such wheel" in str(error.value) and "status 1" in str(error.value)


class FakeDistribution:
    def __init__(self, note: Optional[Dict[str, Any]], folder: Path) -> None:
        self.note, self.folder = note, folder

    def read_text(self, name: str) -> Optional[str]:
        return None if self.note is None else json.dumps(self.note)

    def locate_file(self, name: str) -> Path:
        return self.folder / name


@pytest.mark.parametrize(
    ("note", "source"),
    [
        ({"url": "file://FOLDER", "dir_info": {"editable": True}}, "FOLDER"),
        ({"url": "file://FOLDER/a%20b", "dir_info": {}}, "FOLDER/a b"),
        (
            {"url": "https://example.org/r.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}, "subdirectory": "p"},
            "spacy-bert-heads @ git+https://example.org/r.git@abc#subdirectory=p",
        ),
        (
            {"url": "https://example.org/s.tar.gz", "archive_info": {}},
            "spacy-bert-heads @ https://example.org/s.tar.gz",
        ),
        (None, "spacy-bert-heads==9.9"),
    ],
)
def test_our_own_wheel_is_built_from_where_we_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, note: Optional[Dict[str, Any]], source: str
) -> None:
    (tmp_path / "a b").mkdir()
    if note is not None:
        note = {**note, "url": note["url"].replace("FOLDER", tmp_path.as_posix())}
    # A build leaves metadata without a note in a source folder, and it comes first in sys.path
    found = [FakeDistribution(None, tmp_path), FakeDistribution(note, tmp_path)]
    monkeypatch.setattr(metadata, "distributions", lambda name: found)
    monkeypatch.setattr(metadata, "version", lambda name: "9.9")
    assert find_source() == source.replace("FOLDER", str(tmp_path))


def test_a_source_that_is_gone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note = {"url": (tmp_path / "gone").as_uri(), "dir_info": {}}
    monkeypatch.setattr(metadata, "distributions", lambda name: [FakeDistribution(note, tmp_path)])
    with pytest.raises(BertHeadsError, match="H225.*gone"):
        find_source()


def test_a_source_folder_in_the_path_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").write_text("")
    monkeypatch.setattr(metadata, "distributions", lambda name: [FakeDistribution(None, tmp_path)])
    assert find_source() == str(tmp_path)


@pytest.mark.parametrize("package", ["..", "a b", "-e", "en-support"])
def test_a_package_that_cannot_be_imported_is_none(tmp_path: Path, package: str) -> None:
    path = tmp_path / "en_support-0.1.0-py3-none-any.whl"
    with ZipFile(path, "w") as archive:
        archive.writestr(f"{package}/meta.json", "{}")
        archive.writestr("en_support-0.1.0.dist-info/METADATA", "Name: en_support\n\n")
    with pytest.raises(BertHeadsError, match="H224"):
        read_wheel(path)


def test_metadata_is_not_unpacked_without_limit(tmp_path: Path) -> None:
    path = tmp_path / "en_support-0.1.0-py3-none-any.whl"
    with ZipFile(path, "w", ZIP_DEFLATED) as archive:
        archive.writestr("en_support/meta.json", "{}")
        archive.writestr("en_support-0.1.0.dist-info/METADATA", "a" * (packaging.MAX_METADATA_BYTES + 1))
    with pytest.raises(BertHeadsError, match="H224"):
        read_wheel(path)
