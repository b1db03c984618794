"""Names, and files that are written whole or not at all."""

import ntpath
import posixpath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_bert_heads.files import is_plain_name

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
