"""The asyncio shell: who runs where, who fails, who is forgotten."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import numpy as np
import pytest

from canarium_runtime.backends.base import Array, InputError
from canarium_runtime.batching.batcher import Batcher
from canarium_runtime.batching.placement import Placement
from canarium_runtime.errors import ErrorKind, ServingError
from canarium_runtime.metrics import Metrics
from canarium_runtime.testing import FakeBackend, model_spec, run_batched, tensor

MakeBatcher = Callable[..., Batcher]


@pytest.fixture
async def make_batcher() -> AsyncIterator[MakeBatcher]:
    made: list[Batcher] = []

    def make(backend: FakeBackend, **settings: object) -> Batcher:
        metrics = Metrics(deployment="n/m", model_version="1", revision="r")
        values = {
            "capacity": 10,
            "max_rows": 4,
            "max_delay_seconds": 0.05,
            "workers": 1,
            **settings,
        }
        made.append(Batcher(backend, observer=metrics, **values))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for batcher in made:
        batcher.close()


async def ask(batcher: Batcher, *rows: list[float], seconds: float = 30) -> list[float]:
    answer = await run_batched(
        batcher,
        {"x": np.array(rows, np.float32)},
        rows=len(rows),
        key="k",
        outputs=("y",),
        deadline=time.monotonic() + seconds,
    )
    return [float(v) for v in answer[0]]


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until the condition holds; the test's timeout ends a wrong one."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - a fake in a thread has no event to await
            await asyncio.sleep(0.001)


async def test_requests_of_one_moment_run_together(make_batcher: MakeBatcher) -> None:
    """Three requests in the same turn of the loop are one run, and each gets its own row."""
    backend = FakeBackend()
    batcher = make_batcher(backend)
    assert await asyncio.gather(*(ask(batcher, [i, 1.0]) for i in range(3))) == [
        [1.0],
        [2.0],
        [3.0],
    ]
    assert backend.batch_rows == [3]


async def test_what_is_flushed_runs_in_this_turn_of_the_loop(make_batcher: MakeBatcher) -> None:
    """Who has taken all that came need not wait for the turn's end; a second flush finds nothing to do."""
    backend = FakeBackend()
    batcher = make_batcher(backend)
    batcher.placement.observe(0.00001)  # a small model, which runs on the loop
    asked = [asyncio.create_task(ask(batcher, [i, 1.0])) for i in range(2)]
    order: list[str] = []

    def flush() -> None:
        batcher.flush()
        order.append(f"{backend.batch_rows}")
        batcher.flush()

    asyncio.get_running_loop().call_soon(flush)
    assert await asyncio.gather(*asked) == [[1.0], [2.0]]
    assert (order, backend.batch_rows) == (["[2]"], [2])


async def test_what_arrives_during_a_run_is_the_next_batch(make_batcher: MakeBatcher) -> None:
    """While the only worker is busy, requests gather, up to the most rows."""
    gate = threading.Event()
    backend = FakeBackend(gate=gate)
    batcher = make_batcher(backend)
    first = asyncio.create_task(ask(batcher, [1, 1]))
    await until(backend.started.is_set)
    rest = [asyncio.create_task(ask(batcher, [i, 0])) for i in range(5)]
    await until(lambda: batcher.waiting == 1)  # four are made ready
    gate.set()
    assert await asyncio.gather(first, *rest) == [[2], [0], [1], [2], [3], [4]]
    assert backend.batch_rows == [1, 4, 1]


async def test_a_large_request_is_split_and_merged_back(make_batcher: MakeBatcher) -> None:
    """Eleven rows with at most four a run: three runs, one answer in order."""
    backend = FakeBackend()
    assert await ask(make_batcher(backend), *[[i, 0] for i in range(11)]) == [
        float(i) for i in range(11)
    ]
    assert backend.batch_rows == [4, 4, 3]


async def test_only_the_request_that_fails_gets_the_error(make_batcher: MakeBatcher) -> None:
    """A failing batch is run again one by one, once; the client does not see the library's message."""
    backend = FakeBackend()
    batcher = make_batcher(backend)
    nan = float("nan")
    good, bad, fine = await asyncio.gather(
        ask(batcher, [1, 1]), ask(batcher, [nan, 1]), ask(batcher, [2, 1]), return_exceptions=True
    )
    assert (good, fine) == ([2], [3])
    assert isinstance(bad, ServingError)
    assert bad.kind is ErrorKind.MODEL_FAILED
    assert "secret" not in bad.message
    assert backend.batch_rows == [3, 1, 1, 1]


async def test_a_model_that_refuses_an_input_tells_the_client(make_batcher: MakeBatcher) -> None:
    """Its words are for the client, and only for the one whose input it is."""

    def refusing(inputs: Mapping[str, Array]) -> Sequence[Array]:
        if (inputs["x"] < 0).any():
            msg = "x must not be negative"
            raise InputError(msg, "x")
        return [inputs["x"].sum(axis=1)]

    batcher = make_batcher(FakeBackend(compute=refusing))
    good, bad = await asyncio.gather(
        ask(batcher, [1, 1]), ask(batcher, [-1, 1]), return_exceptions=True
    )
    assert good == [2]
    assert isinstance(bad, ServingError)
    assert (bad.kind, bad.message, bad.field) == (
        ErrorKind.INVALID,
        "x must not be negative",
        "x",
    )


async def test_an_output_without_a_row_for_each_row_is_the_models_failure(
    make_batcher: MakeBatcher,
) -> None:
    """Joined requests whose results cannot be told apart are run alone instead, never mixed up."""
    backend = FakeBackend(compute=lambda inputs: [inputs["x"].sum(axis=1)[:1]])
    batcher = make_batcher(backend)
    assert await asyncio.gather(ask(batcher, [1, 1]), ask(batcher, [2, 2])) == [[2], [4]]


async def test_a_mistake_of_the_backend_itself_is_an_internal_error(
    make_batcher: MakeBatcher,
) -> None:
    """Any other exception in a run answers its requests instead of leaving them waiting."""

    def broken(_: object) -> list[np.ndarray[tuple[int], np.dtype[np.float32]]]:
        msg = "bug"
        raise KeyError(msg)

    for inline in (False, True):
        batcher = make_batcher(FakeBackend(compute=broken))
        batcher.placement.inline = inline
        with pytest.raises(ServingError, match="internal error"):
            await ask(batcher, [1, 1])


async def test_a_full_queue_refuses(make_batcher: MakeBatcher) -> None:
    """With the worker busy and the queue full, the next request is refused at once and told when to come back."""
    gate = threading.Event()
    backend = FakeBackend(gate=gate)
    batcher = make_batcher(backend, capacity=2)
    first = asyncio.create_task(ask(batcher, [1, 1]))
    await until(backend.started.is_set)
    rest = [asyncio.create_task(ask(batcher, [1, 1])) for _ in range(2)]
    await until(lambda: batcher.waiting == 2)
    with pytest.raises(ServingError) as caught:
        await ask(batcher, [1, 1])
    assert caught.value.kind is ErrorKind.QUEUE_FULL
    assert caught.value.retry_after_seconds == 1
    gate.set()
    await asyncio.gather(first, *rest)


async def test_a_request_past_its_deadline_is_answered_though_the_model_hangs(
    make_batcher: MakeBatcher,
) -> None:
    """Both the request in the run and the one in the queue get DEADLINE."""
    gate = threading.Event()
    backend = FakeBackend(gate=gate)
    batcher = make_batcher(backend)
    first = asyncio.create_task(ask(batcher, [1, 1], seconds=0.05))
    await until(backend.started.is_set)
    for request in (first, ask(batcher, [1, 1], seconds=0.05)):
        with pytest.raises(ServingError) as caught:
            await request
        assert caught.value.kind is ErrorKind.DEADLINE
    assert batcher.waiting == 0
    gate.set()


async def test_a_cancelled_caller_leaves_the_queue(make_batcher: MakeBatcher) -> None:
    """The model never sees a request that nobody waits for."""
    gate = threading.Event()
    backend = FakeBackend(gate=gate)
    batcher = make_batcher(backend)
    first = asyncio.create_task(ask(batcher, [1, 1]))
    await until(backend.started.is_set)
    second = asyncio.create_task(ask(batcher, [5, 5]))
    await until(lambda: batcher.waiting == 1)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert batcher.waiting == 0
    gate.set()
    assert await first == [2]
    assert backend.batch_rows == [1]


async def test_closing_answers_what_waits(make_batcher: MakeBatcher) -> None:
    """Requests in the queue are told that the server stops."""
    gate = threading.Event()
    backend = FakeBackend(gate=gate)
    batcher = make_batcher(backend)
    tasks = [asyncio.create_task(ask(batcher, [1, 1])) for _ in range(2)]
    await until(backend.started.is_set)
    batcher.close()
    for task in tasks:
        with pytest.raises(ServingError) as caught:
            await task
        assert caught.value.kind is ErrorKind.STOPPING
    gate.set()


async def test_a_second_worker_takes_a_partial_batch_after_the_delay(
    make_batcher: MakeBatcher,
) -> None:
    """While one worker is busy, the other holds a single row back, then runs it though the first still runs."""
    gate = threading.Event()
    backend = FakeBackend(gate=gate)
    batcher = make_batcher(backend, workers=2)
    first = asyncio.create_task(ask(batcher, [1, 1]))
    await until(backend.started.is_set)
    offered = time.monotonic()
    second = asyncio.create_task(ask(batcher, [2, 2]))
    await until(lambda: len(backend.batch_rows) == 2)
    assert time.monotonic() - offered >= 0.045
    gate.set()
    assert await asyncio.gather(first, second) == [[2], [4]]


async def test_a_quick_model_moves_to_the_loop(make_batcher: MakeBatcher) -> None:
    """After quick runs there is no hand-off to a thread."""
    backend = FakeBackend()
    batcher = make_batcher(backend)
    batcher.placement.observe(0.00001)
    assert await ask(batcher, [1, 1]) == [2]
    assert backend.threads == [threading.current_thread().name]


async def test_a_model_without_batch_axis_runs_alone(make_batcher: MakeBatcher) -> None:
    """Inputs and outputs pass through as they are, whatever their shapes."""
    spec = model_spec([tensor("x", "FP32", 2, 2)], [tensor("y", "FP32")], batchable=False)
    backend = FakeBackend(spec, lambda inputs: [inputs["x"].sum()])
    batcher = make_batcher(backend, max_rows=1)
    array = np.ones((2, 2), np.float32)
    answers = await asyncio.gather(
        *(
            run_batched(
                batcher,
                {"x": array},
                rows=1,
                key="k",
                outputs=("y",),
                deadline=time.monotonic() + 9,
            )
            for _ in range(2)
        )
    )
    assert [float(a[0]) for a in answers] == [4.0, 4.0]


@pytest.mark.parametrize(
    ("seconds", "inline"),
    [
        pytest.param([], False, id="unknown: in a thread"),
        pytest.param([0.0001], True, id="quick: on the loop"),
        pytest.param([0.0015], False, id="between the bounds: stays in the thread"),
        pytest.param([0.0001, *[0.002] * 50], True, id="between the bounds: stays on the loop"),
        pytest.param([0.0001, 0.05], False, id="one long run is enough to leave"),
        pytest.param([0.05, *[0.0001] * 60], True, id="comes back after many quick ones"),
    ],
)
def test_placement_has_hysteresis(seconds: list[float], inline: bool) -> None:
    """World: run times seen; world: where the next batch runs."""
    placement = Placement()
    for value in seconds:
        placement.observe(value)
    assert placement.inline is inline
