"""What the user says about files, checked before any file is read."""

from pathlib import Path

import pytest

from spacy_bert_heads.corpus.readers.options import ReadOptions
from spacy_bert_heads.errors import BertHeadsError

from .helpers import run, write_jsonl


@pytest.mark.parametrize(
    "options",
    [{"kind": "regression"}, {"scheme": "bilou"}, {"delimiter": ""}, {"delimiter": "||"}, {"label_separator": ""}],
)
def test_wrong_option_is_refused_whatever_the_format(options):
    with pytest.raises(BertHeadsError) as info:
        ReadOptions(**options)
    assert info.value.code == "H145"
    (name,) = options
    assert f"--{name.replace('_', '-')}" in str(info.value)


@pytest.mark.parametrize("given, character", [(None, None), ("tab", "\t"), ("\\t", "\t"), ("space", " "), (";", ";")])
def test_delimiters_may_be_spelled_out(given, character):
    assert ReadOptions(delimiter=given).column_delimiter == character


def test_wrong_off_tokens_is_no_bad_record(tmp_path: Path):
    source = write_jsonl(tmp_path / "in.jsonl", {"text": "one", "label": "A"})
    with pytest.raises(BertHeadsError) as info:
        run(source, tmp_path / "out", off_tokens="ignore", skip_bad=True)
    assert info.value.code == "H145"
