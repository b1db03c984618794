import pytest
import spacy
from spacy.language import Language

from spacy_bert_heads.bulk import local, worker

from ..making import make_bert_folder, make_nlp
from .inline import InlineWorker, name_of_ended_process


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A joint pipeline of random weights."""
    folder = tmp_path_factory.mktemp("apply")
    make_nlp(make_bert_folder(folder / "bert")).to_disk(folder / "model")
    return str(folder / "model")


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "Worker", InlineWorker)
    # As with processes: when a run ends, whoever wrote its temporary files lives no more
    monkeypatch.setattr(worker, "temporary_name", name_of_ended_process)
    InlineWorker.n_started = 0


@pytest.fixture(scope="session")
def nlp(model: str) -> Language:
    return spacy.load(model)
