import pytest
import spacy
from spacy.language import Language

from spacy_bert_heads.bulk import local

from ..making import make_bert_folder, make_nlp
from .inline import InlineWorker


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A joint pipeline of random weights."""
    folder = tmp_path_factory.mktemp("apply")
    make_nlp(make_bert_folder(folder / "bert")).to_disk(folder / "model")
    return str(folder / "model")


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "Worker", InlineWorker)
    InlineWorker.n_started = 0


@pytest.fixture(scope="session")
def nlp(model: str) -> Language:
    return spacy.load(model)
