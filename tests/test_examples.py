"""The example behind a web server: answers under load are those of the pipeline, and a full queue is said."""

import asyncio
import importlib.util
from pathlib import Path
from typing import Any, List

import pytest
import spacy

from .making import make_nlp, make_texts

pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")
SERVER = Path(__file__).parents[1] / "examples" / "server.py"


@pytest.fixture
def server(bert_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    make_nlp(bert_folder).to_disk(tmp_path / "model")
    monkeypatch.setenv("MODEL", str(tmp_path / "model"))
    spec = importlib.util.spec_from_file_location("server", SERVER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Where FastAPI looks for the types of a module's functions
    monkeypatch.setitem(__import__("sys").modules, "server", module)
    spec.loader.exec_module(module)
    return module


def test_requests_that_come_together_go_through_the_pipeline_together(server: Any, tmp_path: Path) -> None:
    texts = make_texts(96)
    sizes: List[int] = []
    original = server.predict_all
    server.predict_all = lambda batch: sizes.append(len(batch)) or original(batch)

    async def talk() -> List[Any]:
        async with server.app.router.lifespan_context(server.app):
            transport = httpx.ASGITransport(app=server.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:

                async def ask(mine: List[str]) -> List[Any]:
                    return [(await client.post("/predict", json={"text": text})) for text in mine]

                # 32 clients, each with one request at a time
                answers = await asyncio.gather(*(ask(texts[number::32]) for number in range(32)))
                odd = [await client.post("/predict", json={"text": text}) for text in ("x" * 20_001, "!" * 9_000)]
                for _ in range(256):
                    server.app.state.queue.put_nowait(("x", asyncio.get_running_loop().create_future()))
                busy = await client.post("/predict", json={"text": "one too many"})
        assert [answer.status_code for answer in odd] == [422, 422] and busy.status_code == 503
        return [answers[number % 32][number // 32].json() for number in range(96)]

    found = asyncio.run(talk())
    nlp = spacy.load(tmp_path / "model")
    for text, answer in zip(texts, found, strict=True):
        doc = nlp(text)
        assert answer["ents"] == [[ent.start_char, ent.end_char, ent.label_] for ent in doc.ents]
        assert answer["cats"] == pytest.approx(doc.cats, abs=1e-5)
    assert max(sizes) > 8 and max(sizes) <= 32


def test_the_page_shows_the_example_as_it_is() -> None:
    page = Path(__file__).parents[1] / "docs" / "apply.md"
    assert f"```python\n{SERVER.read_text(encoding='utf8')}```" in page.read_text(encoding="utf8")
