"""Input through pipes: all of it or a clear refusal."""

import errno
import gzip
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from spacy_bert_heads.corpus.readers import pipes
from spacy_bert_heads.errors import BertHeadsError

from .helpers import run, write_jsonl
from .reading import read, write

RECORD = {"spans": [{"start": 0, "end": 4, "label": "X"}], "answer": "accept"}
N_RECORDS = 3000


def make_content(folder: Path) -> bytes:
    """More than one look at a file takes."""
    records = ({"text": f"Text {number} " + "and more " * 60, **RECORD} for number in range(N_RECORDS))
    return write_jsonl(folder / "in.jsonl", *records).read_bytes()


def feed(descriptor: int, content: bytes) -> None:
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)


@pytest.mark.slow
@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("skip_bad", [False, True])
def test_all_records_come_through_a_pipe(tmp_path: Path, is_packed: bool, skip_bad: bool):
    content = make_content(tmp_path)
    reader, writer = os.pipe()
    thread = threading.Thread(target=feed, args=(writer, gzip.compress(content) if is_packed else content))
    thread.start()
    report = run(Path(f"/dev/fd/{reader}"), tmp_path / "out", split="1,0,0", skip_bad=skip_bad)
    thread.join()
    os.close(reader)
    assert report.splits["train"].docs == N_RECORDS and not report.findings.counts
    assert not pipes._COPIES


def test_standard_input_and_named_pipes_are_read(tmp_path: Path):
    content = "text,label\n" + "".join(f"text {number},{number % 2}\n" for number in range(20_000))
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    threading.Thread(target=fifo.write_text, args=(content,)).start()
    assert len(read(fifo, kind="single")[0]) == 20_000
    script = (
        "from pathlib import Path\nfrom tests.corpus.reading import read\nprint(len(read(Path('/dev/stdin'))[0]))\n"
    )
    folder = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], input=content, text=True, capture_output=True, cwd=folder)
    assert done.stdout == "20000\n", done.stderr


def test_pipe_that_nobody_writes_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(pipes, "QUIET_WAIT", 0.05)
    monkeypatch.setattr(pipes, "MAX_WAIT", 0.1)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(BertHeadsError) as info:
        read(fifo)
    assert (info.value.code, info.value.path) == ("H152", fifo)
    assert "Waiting" in capsys.readouterr().err


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_devices_are_refused(device: str):
    with pytest.raises(BertHeadsError) as info:
        read(Path(device))
    assert info.value.code == "H151"


def test_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(**settings):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pipes.tempfile, "NamedTemporaryFile", fail)
    reader, writer = os.pipe()
    feed(writer, b"text,label\na,b\n")
    with pytest.raises(BertHeadsError, match="TMPDIR") as info:
        read(Path(f"/dev/fd/{reader}"))
    os.close(reader)
    assert info.value.code == "H153"


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_impossible_file_names_are_refused(tmp_path: Path, name: str):
    for format in ("auto", "prodigy", "triples", "spacy"):
        with pytest.raises(BertHeadsError):
            read(tmp_path / name, format)


def test_error_names_the_format_that_was_assumed(tmp_path: Path):
    path = write(tmp_path / "a.csv", "text,label\na,x\nb\n")
    with pytest.raises(BertHeadsError, match="read as csv.*--format"):
        run(path, tmp_path / "out")
    with pytest.raises(BertHeadsError) as info:
        run(path, tmp_path / "out", format="csv")
    assert "read as" not in str(info.value)
