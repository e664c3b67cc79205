"""Fallbacks that lie, hang or do not fit, and clients that leave or have little time: everybody is told, once."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import numpy as np
import pytest
from tests.unit.runtime.several import row, shown

from canarium_runtime.backends.base import ModelSpec
from canarium_runtime.batching.merge import Outputs, Run
from canarium_runtime.errors import ErrorKind, LoadError, ServingError
from canarium_runtime.fallback import other_server
from canarium_runtime.fallback.chain import Chain
from canarium_runtime.fallback.other_server import OtherServer
from canarium_runtime.fallback.sources import Cancel, FixedAnswer
from canarium_runtime.resilience.breaker import BreakerPolicy, BreakerState
from canarium_runtime.testing import make_service, model_spec, tensor
from canarium_runtime.validation import ValidatedInputs

Outcome = Outputs | ServingError
URL = "http://elsewhere/v2/models/m/infer"
AT_ONCE = BreakerPolicy(failures=1, first_pause_seconds=1e-9, longest_pause_seconds=1e-9)


def answer(value: float) -> Outputs:
    return Outputs(Run([np.array([value], np.float32)]))


class Held:
    """Who is asked, and answers when the test says so."""

    name = "b"
    timeout_seconds: float | None = None

    def __init__(self) -> None:
        self.asked: list[Callable[[Outcome], None]] = []
        self.given_up = 0

    def check(self, _: ModelSpec) -> None:
        """It can."""

    def start(self, _: ValidatedInputs, __: float, done: Callable[[Outcome], None]) -> Cancel:
        self.asked.append(done)

        def give_up() -> None:
            self.given_up += 1

        return give_up

    async def close(self) -> None:
        """Nothing is held."""


class World:
    """A chain between a model and one fallback, both of which the test plays."""

    def __init__(self, policy: BreakerPolicy | None, patience_seconds: float = 1000.0) -> None:
        self.service = make_service()
        self.model, self.other = Held(), Held()
        self.cancelled: list[Any] = []
        self.chain = Chain(
            self.submit, self.cancelled.append, [self.other], None, patience_seconds, policy
        )

    def submit(self, inputs: ValidatedInputs, deadline: float, done: Any, _: Any) -> int:
        self.model.start(inputs, deadline, done)
        return len(self.model.asked)

    def send(self) -> tuple[list[Outcome], Cancel]:
        got: list[Outcome] = []
        return got, self.chain.run(self.service.admit(), row(1), got.append)


async def test_a_client_that_leaves_during_the_probe_lets_the_next_one_probe() -> None:
    """The breaker does not wait for an answer that nobody will bring."""
    w = World(AT_ONCE)
    w.send()
    w.model.asked[0](ServingError(ErrorKind.MODEL_FAILED, "no"))
    breaker = w.chain.breaker
    assert breaker is not None
    assert breaker.state is BreakerState.OPEN
    _, leave = w.send()
    assert (len(w.model.asked), breaker.state) == (2, BreakerState.HALF_OPEN)
    leave()
    got, _ = w.send()
    assert len(w.model.asked) == 3
    w.model.asked[2](answer(5))
    assert (shown(got[0]), breaker.state) == ([5.0], BreakerState.CLOSED)


@pytest.mark.parametrize(("patience_seconds", "blamed"), [(1000.0, False), (0.0, True)])
async def test_clients_with_little_time_do_not_cut_the_model_out(
    patience_seconds: float, blamed: bool
) -> None:
    """World: a deadline that passes early, or after all of the time that a request may take; world: the breaker."""
    w = World(AT_ONCE, patience_seconds)
    got, _ = w.send()
    w.model.asked[0](ServingError(ErrorKind.DEADLINE, "late"))
    w.other.asked[0](answer(5))
    assert shown(got[0]) == [5.0]
    assert ("model" in w.chain.problems()) is blamed


async def test_an_answer_after_the_client_has_left_goes_nowhere() -> None:
    """In each stage."""
    w = World(None)
    got, leave = w.send()
    leave()
    w.model.asked[0](ServingError(ErrorKind.MODEL_FAILED, "no"))
    assert (got, w.cancelled, w.other.asked) == ([], [1], [])
    got, leave = w.send()
    w.model.asked[1](ServingError(ErrorKind.MODEL_FAILED, "no"))
    leave()
    w.other.asked[0](answer(5))
    assert (got, w.other.given_up) == ([], 1)
    assert w.chain.answered["b"] == 0


async def test_a_fallback_that_raises_what_nobody_thought_of_is_no_answer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The client gets the model's own failure, and the log the reason."""
    w = World(None)

    def surprise(*_: Any) -> Cancel:
        msg = "surprise"
        raise ZeroDivisionError(msg)

    w.other.start = surprise  # type: ignore[method-assign]
    got, _ = w.send()
    w.model.asked[0](ServingError(ErrorKind.MODEL_FAILED, "no"))
    assert [shown(o) for o in got] == [ErrorKind.MODEL_FAILED]
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ({"y": "high"}, "gives no FP32 for 'y'"),
        ({"y": [1, 2]}, r"has shape \[2\] for 'y', and a row of the model's has \[\]"),
        ({"z": 1}, "no output 'y'"),
        ({}, "no output 'y'"),
    ],
)
def test_a_fixed_answer_that_does_not_fit_keeps_the_server_from_becoming_ready(
    outputs: dict[str, Any], words: str
) -> None:
    """Not the first request that needs it from an answer."""
    with pytest.raises(LoadError, match=words) as caught:
        FixedAnswer(outputs, model_spec).check(model_spec())
    assert (caught.value.failure.reason, caught.value.failure.permanent) == ("InvalidConfig", True)


def test_a_number_too_large_for_its_datatype_is_a_wrong_setting() -> None:
    """300 is no UINT8."""
    spec = model_spec(outputs=[tensor("y", "UINT8", None)])
    with pytest.raises(LoadError, match="no UINT8"):
        FixedAnswer({"y": 300}, lambda: spec).check(spec)
    FixedAnswer({"y": 255}, lambda: spec).check(spec)


async def test_of_a_model_without_rows_the_fixed_answer_is_the_whole_output() -> None:
    """As the model would write it."""
    spec = model_spec(outputs=[tensor("y", "FP32", 2, "n")], batchable=False)
    source = FixedAnswer({"y": [[1, 2, 3], [4, 5, 6]]}, lambda: spec)
    source.check(spec)
    got: list[Outcome] = []
    source.start(ValidatedInputs({}, 1, "k", ("y",)), 0.0, got.append)
    assert isinstance(got[0], Outputs)
    assert got[0].arrays[0].shape == (2, 3)


Ask = Callable[..., Any]


@pytest.fixture
async def ask() -> AsyncIterator[Ask]:
    """Ask another server, which answers as it is told."""
    made: list[OtherServer] = []

    async def ask_one(
        handle: Callable[[httpx.Request], Any], *, left_seconds: float = 30, **more: Any
    ) -> Outcome:
        spec = more.pop("spec", model_spec)
        source = OtherServer(URL, more.pop("timeout", 20), spec, httpx.MockTransport(handle))
        made.append(source)
        got: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        source.start(row(3), time.monotonic() + left_seconds, got.set_result)
        async with asyncio.timeout(10):
            return await got

    yield ask_one
    for source in made:
        await source.close()


def tensors(data: Any, shape: Any = (1,)) -> httpx.Response:
    return httpx.Response(200, json={"outputs": [{"name": "y", "shape": shape, "data": data}]})


@pytest.mark.parametrize(
    "response",
    [
        pytest.param(tensors([300]), id="a number that the datatype does not hold"),
        pytest.param(tensors([-1]), id="a negative one"),
        pytest.param(tensors([1, 2], (2,)), id="rows for another request"),
        pytest.param(tensors([1], ()), id="no rows"),
        pytest.param(tensors([[1], [1, 2]]), id="ragged"),
        pytest.param(tensors([1], [10**30]), id="a huge shape"),
        pytest.param(tensors([1], "abc"), id="a shape that is text"),
        pytest.param(tensors({"a": 1}), id="data that is an object"),
        pytest.param(httpx.Response(200, json={"outputs": {"y": 1}}), id="outputs by name"),
        pytest.param(httpx.Response(200, json={"outputs": None}), id="no outputs"),
        pytest.param(httpx.Response(200, content=b"[" * 100_000), id="deep"),
        pytest.param(httpx.Response(302, headers={"location": "http://x"}), id="elsewhere"),
    ],
)
async def test_whatever_another_server_says_there_is_an_outcome(
    response: httpx.Response, ask: Ask
) -> None:
    """Nobody is left without one."""
    spec = model_spec(outputs=[tensor("y", "UINT8", None)])
    outcome = await ask(lambda _: response, spec=lambda: spec)
    assert isinstance(outcome, ServingError)
    assert (outcome.kind, outcome.message) == (
        ErrorKind.MODEL_FAILED,
        "elsewhere gave no answer",
    )


async def test_a_server_that_cannot_even_be_asked_is_no_answer(ask: Ask) -> None:
    """The model that it stands in for was closed meanwhile."""

    def gone() -> ModelSpec:
        raise ServingError(ErrorKind.NOT_READY, "closed")

    outcome = await ask(lambda _: tensors([1]), spec=gone)
    assert shown(outcome) is ErrorKind.MODEL_FAILED


async def test_a_body_without_end_is_cut_off(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not read into memory first."""
    monkeypatch.setattr(other_server, "_MAX_ANSWER_BYTES", 100_000)
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 10_000
            yield b" " * 10_000

    outcome = await ask(lambda _: httpx.Response(200, content=endless()))
    assert shown(outcome) is ErrorKind.MODEL_FAILED
    assert sent <= 120_000


async def test_only_the_settings_say_how_long_another_server_may_take(ask: Ask) -> None:
    """No timeout of the library's own cuts a longer one short."""
    timeouts: list[Any] = []

    def handle(request: httpx.Request) -> httpx.Response:
        timeouts.append(request.extensions.get("timeout"))
        return tensors([7])

    assert shown(await ask(handle, timeout=20)) == [7.0]
    assert {*timeouts[0].values()} == {None}


@pytest.mark.parametrize(("timeout", "left"), [(0.01, 30), (30, 0.01)])
async def test_another_server_that_is_silent_is_waited_for_no_longer_than_there_is_time(
    timeout: float, left: float, ask: Ask
) -> None:
    """Its own time, or what the request has left."""

    async def silent(_: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    outcome = await ask(silent, timeout=timeout, left_seconds=left)
    assert shown(outcome) is ErrorKind.DEADLINE


async def test_a_request_that_is_given_up_is_ended(ask: Ask) -> None:
    """The other server's connection is free again, and nobody is told."""
    begun, ended = asyncio.Event(), asyncio.Event()

    async def silent(_: httpx.Request) -> httpx.Response:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    source = OtherServer(URL, 30, model_spec, httpx.MockTransport(silent))
    got: list[Outcome] = []
    cancel = source.start(row(1), time.monotonic() + 30, got.append)
    async with asyncio.timeout(10):
        await begun.wait()
        cancel()
        await ended.wait()
    await source.close()
    assert got == []


async def test_what_is_sent_is_what_the_model_takes(ask: Ask) -> None:
    """A V2 request for the wanted outputs."""
    bodies: list[Any] = []

    def handle(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        return tensors([7])

    await ask(handle)
    assert bodies == [
        {
            "inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [3.0, 0.0]}],
            "outputs": [{"name": "y"}],
        }
    ]
