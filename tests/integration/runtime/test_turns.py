"""Whose turn it is, over HTTP: priorities, deadlines and preferred sizes, through each door and by both protocols."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from canarium_runtime.app import create_app
from canarium_runtime.listening import QuietServer, uvicorn_config
from canarium_runtime.rest import hotlane
from canarium_runtime.rest.endpoints import Predictor
from canarium_runtime.testing import FakeBackend, make_models

INFER = "/v2/models/fraud/infer"
HOT = pytest.mark.parametrize("hot", [True, False])


class World:
    """A server whose model runs only when the test lets it."""

    def __init__(self, client: httpx.AsyncClient, models: Any, backend: FakeBackend) -> None:
        self.client = client
        self.models = models
        self.backend = backend
        self.answered: list[float] = []

    async def ask(
        self,
        value: float,
        *,
        v2: bool = False,
        headers: dict[str, str] | None = None,
        **parameters: Any,
    ) -> httpx.Response:
        """Ask for the sum of [value, 0]; `answered` has who was answered, in order."""
        if v2:
            tensor = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [value, 0]}
            body: dict[str, Any] = {"inputs": [tensor], "parameters": parameters}
        else:
            body = {"instances": [[value, 0]]}
        answer = await self.client.post(INFER if v2 else "/predict", json=body, headers=headers)
        if answer.status_code == 200:
            self.answered.append(value)
        return answer

    async def occupy(self) -> "asyncio.Task[httpx.Response]":
        """Keep the model busy with a request of 0."""
        task = asyncio.create_task(self.ask(0))
        await until(self.backend.started.is_set)
        return task


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what a thread does has no event to await
            await asyncio.sleep(0.001)


@asynccontextmanager
async def serve(
    hot: bool, gate: threading.Event | None = None, **settings: Any
) -> AsyncIterator[World]:
    backend = FakeBackend(gate=gate)
    models = make_models(backend, model_name="fraud", hot_lane=hot, **settings)
    predictor = Predictor(models)
    http: dict[str, Any] = {"http": hotlane.protocol_class(predictor)} if hot else {}
    app = create_app(models.config, predictor)
    server = QuietServer(uvicorn_config(app, host="127.0.0.1", port=0, **http))
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            yield World(client, models, backend)
    finally:
        if gate is not None:
            gate.set()
        server.should_exit = True
        await serving
        await models.close()


@HOT
@pytest.mark.parametrize("v2", [True, False])
async def test_high_priority_passes_and_low_waits(hot: bool, v2: bool) -> None:
    """Those that came first are answered in the order of their priorities."""
    gate = threading.Event()
    async with serve(hot, gate, max_batch_size=1, allow_high_priority=True) as world:
        tasks = [await world.occupy()]
        primary = world.models.primary
        # One is made ready behind the run, as soon as it comes: it cannot be passed.
        tasks.append(asyncio.create_task(world.ask(1)))
        await until(lambda: primary.metrics.inflight == 2 and primary.waiting == 0)
        for number, (name, level) in enumerate((("low", 3), ("normal", 2), ("high", 1)), 2):
            given: dict[str, Any] = (
                {"priority": level} if v2 else {"headers": {"x-canarium-priority": name}}
            )
            tasks.append(asyncio.create_task(world.ask(number, v2=v2, **given)))
            await until(lambda n=number: primary.waiting == n - 1)
        gate.set()
        await asyncio.gather(*tasks)
    assert world.answered == [0, 1, 4, 3, 2]


@HOT
@pytest.mark.parametrize("v2", [True, False])
async def test_a_request_whose_client_has_gone_on_is_never_run(hot: bool, v2: bool) -> None:
    """It gets 504 while the model is still busy, and its rows are in no run."""
    gate = threading.Event()
    async with serve(hot, gate, max_batch_size=1) as world:
        first = await world.occupy()
        headers = {} if v2 else {"x-envoy-expected-rq-timeout-ms": "30"}
        given = {"timeout": 30_000} if v2 else {}
        # The first stands ready behind the run, the second waits in the queue.
        answers = await asyncio.gather(
            *(world.ask(n, v2=v2, headers=headers, **given) for n in (1, 2))
        )
        assert [a.status_code for a in answers] == [504, 504]
        assert answers[0].json()["code"] == "deadline_exceeded"
        gate.set()
        assert (await first).status_code == 200
        assert (await world.ask(3)).status_code == 200
    assert world.backend.batch_rows == [1, 1]


@HOT
async def test_what_expired_behind_a_run_leaves_its_batch(hot: bool) -> None:
    """The others of the batch are run without it."""
    gate = threading.Event()
    async with serve(hot, gate, max_batch_size=2) as world:
        first = await world.occupy()
        kept = asyncio.create_task(world.ask(1))
        late = await world.ask(2, v2=True, timeout=30_000)
        assert late.status_code == 504
        gate.set()
        assert (await kept).json()["outputs"]["y"] == [1.0]
        await first
    assert world.backend.batch_rows == [1, 1]


@HOT
@pytest.mark.parametrize(
    ("v2", "headers", "parameters", "status", "field"),
    [
        (False, {"x-canarium-priority": "urgent"}, {}, 400, "X-Canarium-Priority"),
        (True, {"x-canarium-priority": "urgent"}, {}, 400, "X-Canarium-Priority"),
        (False, {"x-envoy-expected-rq-timeout-ms": "x"}, {}, 400, "X-Envoy-Expected-Rq-Timeout-Ms"),
        (True, {}, {"priority": 9}, 400, "parameters.priority"),
        (True, {}, {"timeout": "1s"}, 400, "parameters.timeout"),
        (False, {"x-canarium-priority": "high"}, {}, 403, None),
        (True, {}, {"priority": 1}, 403, None),
        (True, {"x-canarium-priority": "low"}, {"priority": 2}, 200, None),
        (True, {}, {"timeout": 1}, 504, None),
    ],
)
async def test_wrong_wishes_are_refused(
    hot: bool,
    v2: bool,
    headers: dict[str, str],
    parameters: dict[str, Any],
    status: int,
    field: str | None,
) -> None:
    """The field is named, and the connection goes on."""
    async with serve(hot) as world:
        answer = await world.ask(1, v2=v2, headers=headers, **parameters)
        assert (answer.status_code, answer.json().get("field")) == (status, field)
        assert (await world.ask(2)).status_code == 200
        assert world.models.primary.metrics.inflight == 0


@HOT
async def test_a_run_takes_the_largest_preferred_size_that_is_full(hot: bool) -> None:
    """Seven that wait are a run of four, one of two, and the rest."""
    gate = threading.Event()
    async with serve(hot, gate, max_batch_size=8, preferred_batch_sizes=(2, 4)) as world:
        tasks = [await world.occupy()]
        tasks += [asyncio.create_task(world.ask(n)) for n in range(1, 8)]
        await until(lambda: world.models.primary.waiting == 7)
        gate.set()
        await asyncio.gather(*tasks)
    assert world.backend.batch_rows == [1, 4, 2, 1]


async def test_the_server_says_that_it_knows_the_extension() -> None:
    """V2's server metadata lists it."""
    async with serve(True) as world:
        assert "schedule_policy" in (await world.client.get("/v2")).json()["extensions"]
