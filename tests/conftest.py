"""Fixtures that all tests share."""

import os
from pathlib import Path

import pytest

# Nothing downloads. Tiny models are fastest, and sums come out the same, on one thread.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public data files, which are not part of the project."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SPACY_BERT_HEADS_DATA") or beside)
    if not folder.is_dir():
        pytest.skip("needs the public data files: set SPACY_BERT_HEADS_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a two-layer BERT made from a seed; it reads 32 wordpieces at once."""
    from .making import make_bert_folder

    return make_bert_folder(tmp_path_factory.mktemp("bert"))
