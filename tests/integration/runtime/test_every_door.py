"""One contract for all doors: each row is a request in no protocol's form, and what must come of it.

World: a server with a model; event: a request through a door; world: outputs or an error, and what was counted.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from tests.integration.runtime.doors import DOORS, Asked, Got, Tensor, Way, World, world

from canarium_runtime.backends.base import Array, BackendError
from canarium_runtime.testing import FakeBackend, model_spec, tensor

SPEC = model_spec(
    [tensor("x", "FP32", None, 2), tensor("n", "INT64", None), tensor("s", "BYTES", None)],
    [tensor("y", "FP32", None), tensor("z", "FP32", None, 2)],
)
FAILS = 666.0
LIMIT_BYTES = 100_000
pytestmark = pytest.mark.asyncio(loop_scope="module")


def _compute(inputs: Mapping[str, Array]) -> Sequence[Array]:
    if (inputs["x"] == FAILS).any():
        msg = "secret detail"
        raise BackendError(msg)
    lengths = [len(text) for text in inputs["s"].tolist()]
    total = inputs["x"].sum(axis=1) + inputs["n"] + lengths
    return [total.astype("f4"), inputs["x"] * 2]


def x(*values: float, shape: tuple[int, ...] | None = None, datatype: str = "FP32") -> Tensor:
    """The first input."""
    return Tensor("x", datatype, shape or (len(values) // 2, 2), values)


def n(*values: int) -> Tensor:
    """The second."""
    return Tensor("n", "INT64", (len(values),), values)


def s(*values: str) -> Tensor:
    """The third."""
    return Tensor("s", "BYTES", (len(values),), values)


ONE = (x(1, 2), n(10), s("abc"))
ONE_ANSWER = {"y": [16.0], "z": [[2.0, 4.0]]}


@dataclass(frozen=True)
class Row:
    """A request and what comes of it."""

    asked: Asked
    outputs: dict[str, Any] = field(default_factory=dict)
    code: str = ""
    """Of the error; empty: none."""
    message: dict[str, str] = field(default_factory=dict)
    """Of the error, by protocol; none: any."""
    counted: str = "success"
    protocols: tuple[str, ...] = ("v2", "plain")
    """Those that can say it."""


ROWS: dict[str, Row] = {
    "one row": Row(Asked(ONE), ONE_ANSWER),
    "many rows": Row(
        Asked((x(*range(400)), n(*range(200)), s(*["ü" * (i % 3) for i in range(200)]))),
        {
            "y": [float(4 * i + 1 + i + i % 3) for i in range(200)],
            "z": [[4.0 * i, 4.0 * i + 2] for i in range(200)],
        },
    ),
    "an id of the client": Row(Asked(ONE, id='mine "ü"'), ONE_ANSWER),
    "a request id of the client": Row(Asked(ONE, request_id="r-77"), ONE_ANSWER),
    "one output": Row(Asked(ONE, outputs=("z",)), {"z": [[2.0, 4.0]]}, protocols=("v2",)),
    "outputs in the client's order": Row(
        Asked(ONE, outputs=("z", "y")), {"z": [[2.0, 4.0]], "y": [16.0]}, protocols=("v2",)
    ),
    "inputs in another order": Row(Asked(ONE[::-1]), ONE_ANSWER),
    "an output that is not there": Row(
        Asked(ONE, outputs=("w",)),
        code="invalid_input",
        message={
            "v2": "outputs[0].name: expected one of ['y', 'z'], each once, got a string \"w\""
        },
        counted="invalid",
        protocols=("v2",),
    ),
    "a missing input": Row(
        Asked(ONE[:2], id="mine"),
        code="invalid_input",
        message=dict.fromkeys(
            ("v2", "plain"), "inputs: expected the input 's', got the inputs ['n', 'x']"
        ),
        counted="invalid",
    ),
    "an input that is not there": Row(
        Asked((*ONE, Tensor("other", "FP32", (1,), (1.0,)))),
        code="invalid_input",
        counted="invalid",
    ),
    "the same input twice": Row(
        Asked((*ONE, n(1))),
        code="invalid_input",
        message={"v2": "inputs[3].name: expected each input once, got 'n' again"},
        counted="invalid",
        protocols=("v2",),
    ),
    "a wrong shape": Row(
        Asked((x(1, 2, 3, shape=(1, 3)), *ONE[1:])),
        code="invalid_input",
        message={
            "v2": "inputs[0].shape: expected shape [-1, 2] for input 'x', got shape [1, 3]",
            "plain": "inputs.x: expected shape [-1, 2] for input 'x', got shape [1, 3]",
        },
        counted="invalid",
    ),
    "fewer values than the shape says": Row(
        Asked((x(1, 2, 3, shape=(2, 2)), *ONE[1:])),
        code="invalid_input",
        counted="invalid",
        protocols=("v2",),
    ),
    "a wrong datatype": Row(
        Asked((x(1, 2, datatype="FP64"), *ONE[1:])),
        code="invalid_input",
        message={"v2": "inputs[0].datatype: expected FP32, got FP64"},
        counted="invalid",
        protocols=("v2",),
    ),
    "no rows": Row(
        Asked((x(shape=(0, 2)), n(), s())),
        code="invalid_input",
        counted="invalid",
        protocols=("v2",),
    ),
    "inputs with different numbers of rows": Row(
        Asked((x(1, 2), n(1, 2), s("a"))),
        code="invalid_input",
        message={
            "v2": "inputs[1].data: expected 1 in axis 0 (rows), as input 'x' has, got 2",
            "plain": "inputs.n: expected 1 in axis 0 (rows), as input 'x' has, got 2",
        },
        counted="invalid",
    ),
    "the model fails": Row(
        Asked((x(FAILS, 0), *ONE[1:]), id="mine"),
        code="model_failed",
        message=dict.fromkeys(("v2", "plain"), "the model failed on this input"),
        counted="error",
    ),
    "too much": Row(
        Asked((x(1, 2), n(1), s("a" * 2 * LIMIT_BYTES))), code="body_too_large", counted=""
    ),
}
STATUS = {
    "": ("200", "OK"),
    "invalid_input": ("422", "INVALID_ARGUMENT"),
    "model_failed": ("500", "INTERNAL"),
    "not_ready": ("503", "UNAVAILABLE"),
    "stopping": ("503", "UNAVAILABLE"),
    "queue_full": ("429", "RESOURCE_EXHAUSTED"),
    "deadline_exceeded": ("504", "DEADLINE_EXCEEDED"),
    "body_too_large": ("413", "RESOURCE_EXHAUSTED"),
}
EVERY = pytest.mark.parametrize("way", [pytest.param(way, id=name) for name, way in DOORS.items()])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def servers() -> AsyncIterator[dict[bool, World]]:
    """One with the hot lane and one without, for all rows."""
    async with (
        world(FakeBackend(SPEC, _compute), hot=True, max_body_bytes=LIMIT_BYTES) as hot,
        world(FakeBackend(SPEC, _compute), hot=False, max_body_bytes=LIMIT_BYTES) as cold,
    ):
        yield {True: hot, False: cold}


def check_error(got: Got, code: str) -> None:
    """It says its kind in the words of its protocol; a stream of gRPC has no word for it."""
    assert got.outputs == {}
    assert got.code in {code, "?"}
    assert got.status in {"", *STATUS[code]}


@pytest.mark.parametrize(
    ("way", "row"),
    [
        pytest.param(way, row, id=f"{door}: {name}")
        for name, row in ROWS.items()
        for door, way in DOORS.items()
        if way.protocol in row.protocols
    ],
)
async def test_each_door_keeps_the_contract(way: Way, row: Row, servers: dict[bool, World]) -> None:
    """The same request means the same through every door."""
    w = servers[way.hot]
    before = w.counted()
    got = await way.ask(w, row.asked)
    if row.code:
        check_error(got, row.code)
        if (wanted := row.message.get(way.protocol)) is not None:
            assert got.message == wanted
    else:
        assert got.outputs == row.outputs
        assert list(got.outputs) == list(row.outputs)
        assert got.status in {"", *STATUS[""]}
    if row.code != "body_too_large":
        assert got.revision == "r1"
    if row.asked.id and (way.shares_head or not row.code):
        assert got.id == row.asked.id
    elif not row.code:
        assert got.id != ""
    if row.asked.request_id and not way.shares_head:
        assert got.request_id == row.asked.request_id
    if row.counted:
        after = w.counted()
        rise = {k: v - before.get(k, 0) for k, v in after.items() if v != before.get(k, 0)}
        assert rise == {row.counted: 1}


@EVERY
async def test_a_server_that_loads_refuses(way: Way) -> None:
    """Before the model is there, each door says so, and counts it as rejected."""
    async with world(FakeBackend(SPEC, _compute), hot=way.hot, serving=False) as w:
        got = await way.ask(w, Asked(ONE))
        check_error(got, "not_ready")
        assert got.message == "the model is not ready: the model is being loaded"
        assert w.counted() == {"rejected": 1, "inflight": 0}


@EVERY
async def test_a_server_that_drains_answers_and_then_refuses(way: Way) -> None:
    """After SIGTERM requests are still answered, until the server stops."""
    async with world(FakeBackend(SPEC, _compute), hot=way.hot) as w:
        w.models.terminate()
        assert (await way.ask(w, Asked(ONE))).outputs == ONE_ANSWER
        w.models.refuse()
        check_error(await way.ask(w, Asked(ONE)), "stopping")
        assert w.counted() == {"success": 1, "rejected": 1, "inflight": 0}


@EVERY
async def test_a_full_server_refuses(way: Way) -> None:
    """Above the bound each door says 429, in its own words."""
    gate = threading.Event()
    backend = FakeBackend(SPEC, _compute, gate)
    async with world(backend, hot=way.hot, queue_size=1, max_batch_size=1, workers=1) as w:
        asking = [asyncio.create_task(way.ask(w, Asked(ONE))) for _ in range(6)]
        await w.until(lambda: any(task.done() for task in asking))
        gate.set()
        answers = await asyncio.gather(*asking)
        refused = [got for got in answers if got.code]
        for got in refused:
            check_error(got, "queue_full")
        answered = [got for got in answers if not got.code]
        assert [got.outputs for got in answered] == [ONE_ANSWER] * len(answered)
        assert answered
        assert w.counted() == {
            "success": len(answered), "rejected": len(refused), "inflight": 0
        }  # fmt: skip


@EVERY
async def test_an_answer_that_takes_too_long_is_given_up(way: Way) -> None:
    """After the request timeout each door says so, and counts a timeout."""
    gate = threading.Event()
    backend = FakeBackend(SPEC, _compute, gate)
    async with world(backend, hot=way.hot, request_timeout="100ms") as w:
        try:
            check_error(await way.ask(w, Asked(ONE)), "deadline_exceeded")
            assert w.counted() == {"timeout": 1, "inflight": 0}
        finally:
            gate.set()


@pytest.mark.parametrize(
    "way", [pytest.param(way, id=name) for name, way in DOORS.items() if way.hot]
)
async def test_a_client_that_leaves_is_not_waited_for(way: Way) -> None:
    """It gives its place in the server back at once, and counts as the client's doing.

    (Without the hot lane's connections, uvicorn does not tell FastAPI's routes of it.)
    """
    gate = threading.Event()
    backend = FakeBackend(SPEC, _compute, gate)
    async with world(backend, hot=way.hot) as w:
        try:
            asking = asyncio.create_task(way.ask(w, Asked(ONE)))
            await w.until(
                lambda: w.models.primary.metrics.inflight == 1 and backend.started.is_set()
            )
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            await w.until(lambda: w.models.primary.metrics.inflight == 0)
            assert w.counted() == {"invalid": 1, "inflight": 0}
        finally:
            gate.set()
