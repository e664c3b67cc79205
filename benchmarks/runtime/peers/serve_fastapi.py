"""Plain FastAPI under uvicorn with uvloop and httptools, in the ways that people write it.

BENCH_ROUTE: `async` calls the model in the route, `def` lets Starlette's threads do it, `batch` is the queue that
articles show: wait until the batch is full or BENCH_BATCH_MS have passed, then run it in a thread.
"""

import asyncio
import os
from contextlib import asynccontextmanager

import numpy as np
import uvicorn
from common import BATCH_MS, HOST, MAX_BATCH, PORT, PROCESSES, open_model
from fastapi import FastAPI
from pydantic import BaseModel

ROUTE = os.environ["BENCH_ROUTE"]


class Sample(BaseModel):
    """A request."""

    row: list[float]


class Answer(BaseModel):
    """A response."""

    y: list[float]


async def batches(queue, run) -> None:
    """Form batches for ever."""
    loop = asyncio.get_running_loop()
    while True:
        items = [await queue.get()]
        ends = loop.time() + BATCH_MS / 1000
        while len(items) < MAX_BATCH and (left := ends - loop.time()) > 0:
            try:
                items.append(await asyncio.wait_for(queue.get(), left))
            except TimeoutError:
                break
        answers = await loop.run_in_executor(None, run, np.stack([row for row, _ in items]))
        for (_, future), answer in zip(items, answers, strict=True):
            if not future.done():
                future.set_result(answer)


@asynccontextmanager
async def lifespan(app):
    """Open the model; for `batch` also start its loop."""
    app.state.run = open_model()
    app.state.queue = asyncio.Queue()
    task = asyncio.create_task(batches(app.state.queue, app.state.run))
    yield
    task.cancel()


app = FastAPI(lifespan=lifespan)

if ROUTE == "async":

    @app.post("/predict")
    async def predict_inline(sample: Sample) -> Answer:
        """Run in the event loop."""
        return Answer(y=app.state.run([sample.row])[0].tolist())

elif ROUTE == "def":

    @app.post("/predict")
    def predict_in_thread(sample: Sample) -> Answer:
        """Run in one of Starlette's threads."""
        return Answer(y=app.state.run([sample.row])[0].tolist())

else:

    @app.post("/predict")
    async def predict_batched(sample: Sample) -> Answer:
        """Wait for a batch."""
        future = asyncio.get_running_loop().create_future()
        app.state.queue.put_nowait((np.asarray(sample.row, np.float32), future))
        return Answer(y=(await future).tolist())


if __name__ == "__main__":
    uvicorn.run(
        "serve_fastapi:app",
        host=HOST,
        port=PORT,
        workers=PROCESSES if PROCESSES > 1 else None,
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
    )
