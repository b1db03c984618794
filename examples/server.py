"""A pipeline behind HTTP. Texts that come while it is at work go through it together, when it is free again.

pip install fastapi uvicorn
MODEL=training/model-best OMP_NUM_THREADS=2 GOMP_SPINCOUNT=0 OMP_WAIT_POLICY=PASSIVE uvicorn server:app
"""

import asyncio
import os
from contextlib import asynccontextmanager

import spacy
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

from spacy_bert_heads.corpus.docs import check_words
from spacy_bert_heads.errors import BertHeadsError


class Request(BaseModel):
    text: str = Field(max_length=20_000)


def predict_all(texts):
    with app.state.nlp.memory_zone():  # forgets the words of these texts
        docs = app.state.nlp.pipe(texts)
        return [{"ents": [(e.start_char, e.end_char, e.label_) for e in doc.ents], "cats": doc.cats} for doc in docs]


async def work():
    while True:
        waiting = [await app.state.queue.get()]
        while len(waiting) < 32 and not app.state.queue.empty():
            waiting.append(app.state.queue.get_nowait())
        try:
            answers = await asyncio.to_thread(predict_all, [text for text, _ in waiting])
        except Exception as error:
            answers = [HTTPException(500, str(error))] * len(waiting)
        for (_, future), answer in zip(waiting, answers):
            if not future.cancelled():  # as it is when the client has gone
                future.set_result(answer)


@asynccontextmanager
async def lifespan(app):
    app.state.nlp = spacy.load(os.environ["MODEL"])
    app.state.queue = asyncio.Queue(maxsize=256)
    worker = asyncio.create_task(work())
    yield
    worker.cancel()


app = FastAPI(lifespan=lifespan)


@app.post("/predict")
async def predict(request: Request):
    future = asyncio.get_running_loop().create_future()
    try:
        check_words(app.state.nlp, request.text)  # the tokenizer would take minutes for some texts
        app.state.queue.put_nowait((request.text, future))
    except BertHeadsError as error:
        raise HTTPException(422, str(error)) from error
    except asyncio.QueueFull as error:
        raise HTTPException(503, "busy") from error
    answer = await future
    if isinstance(answer, HTTPException):
        raise answer
    return answer
