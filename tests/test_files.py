"""Names, and files that are written whole or not at all."""

import ntpath
import os
import posixpath
import secrets
import signal
import stat
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Iterator

import pytest
import spacy
from hypothesis import given
from hypothesis import strategies as st

from spacy_bert_heads import files
from spacy_bert_heads.errors import BertHeadsError
from spacy_bert_heads.files import Staging, is_plain_name, lock, remove_folder, replace_folder, write_files
from spacy_bert_heads.pipeline_io import load_pipeline, write_pipeline

PLAIN = ["vocab.txt", "tokenizer.json", "sentencepiece.bpe.model", "config.json", "a", "data-00000-of-00001.arrow"]
STRANGE = [
    *("", ".", "..", "/etc/passwd", "../x", "a/b", "a\\b", "..\\x", "C:x", "C:\\x", "//host/x", "\\\\host\\x"),
    *(".bashrc", "a\0b", "a\n", "a:stream", "con", "NUL", "aux.txt", "com1.json", "a.", "a ", " a", "~", "-e"),
    *("a\u202eb", "\u2025", "\uff0fa", b"vocab.txt", None, 5, "x" * 201),
]


@pytest.mark.parametrize("name", PLAIN)
def test_names_that_tokenizers_have_are_plain(name: str) -> None:
    assert is_plain_name(name)


@pytest.mark.parametrize("name", STRANGE)
def test_names_that_lead_elsewhere_are_not(name: Any) -> None:
    assert not is_plain_name(name)


@given(st.text(alphabet="ab./\\:~ \0\n-CON", max_size=12) | st.text(max_size=12))
def test_a_plain_name_stays_in_its_folder_on_both_kinds_of_system(name: str) -> None:
    if is_plain_name(name):
        for path in (posixpath, ntpath):
            joined = path.normpath(path.join("folder", name))
            assert path.split(joined) == ("folder", name) and not path.splitdrive(name)[0]


posix = pytest.mark.skipif(os.name != "posix", reason="permissions, links and signals of POSIX")


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def write_model(text: str) -> Any:
    return lambda folder: (folder / "meta.json").write_text(text)


def write_text(path: Path, text: str) -> None:
    with Staging() as staging:
        with staging.open(path) as stream:
            stream.write(text)
        staging.commit()


WAYS = [lambda path, text: write_files({path: text.encode("utf8")}), write_text]


@posix
@pytest.mark.parametrize("write", WAYS)
@pytest.mark.parametrize("old", [0o600, 0o640, 0o644, 0o755])
def test_a_replaced_file_keeps_its_mode_and_a_new_one_follows_the_umask(tmp_path, umask, write, old: int) -> None:
    path = tmp_path / "a.jsonl"
    write(path, "one")
    assert mode(path) == 0o640
    path.chmod(old)
    write(path, "two")
    assert (mode(path), path.read_text()) == (old, "two")


@posix
@pytest.mark.parametrize("write", WAYS)
def test_a_private_file_is_private_while_it_is_written(tmp_path, umask, write, monkeypatch) -> None:
    (tmp_path / "a").touch(0o600)
    seen = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda n: (seen.append(stat.S_IMODE(os.fstat(n).st_mode)), sync(n)))
    write(tmp_path / "a", "secret")
    assert seen == [0o600]


@posix
def test_a_replaced_folder_keeps_its_mode(tmp_path: Path, umask: None) -> None:
    path = tmp_path / "model"
    replace_folder(path, write_model("one"))
    assert mode(path) == 0o750
    path.chmod(0o700)
    replace_folder(path, write_model("two"))
    assert (mode(path), (path / "meta.json").read_text()) == (0o700, "two")


@posix
@pytest.mark.parametrize("write", WAYS)
@pytest.mark.parametrize("exists", [True, False])
def test_a_link_is_written_through(tmp_path: Path, write: Any, exists: bool) -> None:
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / "target", tmp_path / "link"
    link.symlink_to(target)
    if exists:
        target.touch(0o600)
    write(link, "new")
    assert link.is_symlink() and target.read_text() == "new"
    assert not exists or mode(target) == 0o600
    assert os.listdir(tmp_path / "far") == ["target"]


@posix
def test_a_link_to_a_folder_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "far" / "model").mkdir(parents=True)
    (tmp_path / "model").symlink_to(tmp_path / "far" / "model")
    replace_folder(tmp_path / "model", write_model("new"))
    assert (tmp_path / "model").is_symlink() and os.listdir(tmp_path / "far") == ["model"]
    assert (tmp_path / "far" / "model" / "meta.json").read_text() == "new"


@posix
@pytest.mark.parametrize("write", WAYS)
@pytest.mark.parametrize("plant", ["link", "file", "fifo"])
def test_what_is_planted_under_the_temporary_name_is_not_written_to(tmp_path, write, plant: str, monkeypatch) -> None:
    victim = tmp_path / "precious"
    victim.write_text("precious")
    # As if somebody had guessed it
    monkeypatch.setattr(secrets, "token_hex", lambda n: "0" * 2 * n)
    planted = files.temporary_name(tmp_path / "out", "tmp")
    if plant == "link":
        planted.symlink_to(victim)
    elif plant == "file":
        os.link(victim, planted)
    else:
        os.mkfifo(planted)
    with pytest.raises(BertHeadsError, match="H123.*exists"):
        write(tmp_path / "out", "theirs")
    assert victim.read_text() == "precious" and not (tmp_path / "out").exists()


@posix
@pytest.mark.parametrize("write", WAYS)
def test_a_pipe_or_device_is_not_replaced_by_a_file(tmp_path: Path, write: Any) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BertHeadsError, match="H123.*pipe"):
        write(tmp_path / "pipe", "text")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode) and os.listdir(tmp_path) == ["pipe"]


def test_temporary_names_differ_from_call_to_call(tmp_path: Path) -> None:
    assert len({files.temporary_name(tmp_path / "x", "tmp") for _ in range(50)}) == 50


@posix
@pytest.mark.parametrize("action", ["replace", "remove"])
@pytest.mark.parametrize("moment", ["replace 0", "replace 1", "rmtree 0", "end"])
def test_a_folder_whose_writer_was_killed_is_whole_again_after_the_next_run(tmp_path, action, moment: str) -> None:
    path = tmp_path / "model"
    replace_folder(path, write_model("old"))
    pid = os.fork()
    if not pid:  # pragma: no cover
        name, _, number = moment.partition(" ")
        module: Any = {"replace": os, "rmtree": files.shutil}.get(name)
        calls, real = [], getattr(module, name, None)

        def killing(*args: Any, **kwargs: Any) -> Any:
            calls.append(args)
            if len(calls) > int(number):
                if name == "rmtree":
                    (args[0] / "meta.json").unlink()  # half way through
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        if module is not None:
            setattr(module, name, killing)
        replace_folder(path, write_model("new")) if action == "replace" else remove_folder(path)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    files.clean_up(tmp_path)
    found = sorted(os.listdir(tmp_path))
    if action == "replace":
        assert found == ["model"]
        assert (path / "meta.json").read_text() == ("old" if moment.startswith("replace") else "new")
    else:
        assert found == (["model"] if moment == "replace 0" else [])
        assert not found or (path / "meta.json").read_text() == "old"


@posix
def test_a_pipeline_that_a_killed_process_moved_aside_is_found(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    write_pipeline(spacy.blank("de"), tmp_path / "model")
    (tmp_path / "model").rename(tmp_path / f".model.{dead.pid}.0123456789ab.old")
    assert load_pipeline(str(tmp_path / "model")).lang == "de"


def test_a_folder_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "model"
    replace_folder(path, write_model("old"))

    def fail(folder: Path) -> None:
        write_model("half")(folder)
        raise OSError(28, "No space left on device")

    with pytest.raises(BertHeadsError, match="H123.*No space left"):
        replace_folder(path, fail)
    assert os.listdir(tmp_path) == ["model"] and (path / "meta.json").read_text() == "old"


HOLD = """
import sys
from pathlib import Path
from spacy_bert_heads.files import lock
with lock(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.readline()
"""


def hold(folder: Path) -> "subprocess.Popen[str]":
    """Another process that has the lock of a folder until it gets a line."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "locked\n"
    return process


@pytest.mark.parametrize("ending", ["ends", "is killed"])
def test_a_second_process_is_refused_until_the_first_has_ended_however_it_does(tmp_path: Path, ending: str) -> None:
    folder = tmp_path / "out"
    process = hold(folder)
    with pytest.raises(BertHeadsError, match=rf"H187.* process {process.pid}\."):
        with lock(folder):
            pass
    assert folder.is_dir()
    if ending == "ends":
        process.communicate("\n")
    else:
        process.kill()
        process.wait()
    with lock(folder), lock(folder):
        write_files({folder / "a": b""})
    assert os.listdir(folder) == ["a"]


def test_a_folder_of_which_nothing_came_is_gone(tmp_path: Path) -> None:
    with pytest.raises(KeyError), lock(tmp_path / "a" / "b"):
        raise KeyError
    assert not os.listdir(tmp_path)


def count_up(path: Path, n: int) -> None:
    for _ in range(n):
        with files.lock_file(path.with_name(".lock"), wait=True):
            path.write_text(str(int(path.read_text()) + 1))


@pytest.mark.slow
def test_of_many_that_wait_one_at_a_time_has_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "count"
    path.write_text("0")
    processes = [get_context("spawn").Process(target=count_up, args=(path, 50)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert path.read_text() == "150" and os.listdir(tmp_path) == ["count"]


def test_where_there_are_no_locks_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def fail(*args: Any) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", fail)
    with lock(tmp_path):
        pass
