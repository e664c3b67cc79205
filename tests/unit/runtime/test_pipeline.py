"""A request's way through the cache: one run for equal requests, and nobody loses by another's failure."""

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from canarium_runtime.batching.merge import Outputs, Run
from canarium_runtime.caching import ResponseCache
from canarium_runtime.caching.memory import MemoryLevel
from canarium_runtime.errors import ErrorKind, ServingError
from canarium_runtime.pipeline import Cancel, Pipeline
from canarium_runtime.service import Prediction
from canarium_runtime.testing import make_service
from canarium_runtime.validation import ValidatedInputs

Outcome = Outputs | ServingError


def row(value: float) -> ValidatedInputs:
    """A request of one row."""
    return ValidatedInputs({"x": np.array([[value, 0]], np.float32)}, 1, "k", ("y",))


def answer(value: float) -> Outputs:
    return Outputs(Run([np.array([value], np.float32)]))


class World:
    """A pipeline with a cache before a model that the test plays itself."""

    def __init__(self, **settings: Any) -> None:
        self.asked: list[tuple[ValidatedInputs, Callable[[Outcome], None]]] = []
        self.cancelled: list[Prediction] = []
        self.service = make_service(**settings)
        cache = ResponseCache(("digest",), MemoryLevel(1 << 20, 60.0), [], flight_seconds=30)
        self.pipeline = Pipeline(self.enqueue, self.cancelled.append, cache=cache)
        self.refusing = False

    def enqueue(
        self, _: Prediction, inputs: ValidatedInputs, done: Callable[[Outcome], None]
    ) -> None:
        if self.refusing:
            raise ServingError(ErrorKind.QUEUE_FULL, "full")
        self.asked.append((inputs, done))

    def send(self, value: float) -> tuple[Prediction, list[Outcome], Cancel]:
        prediction = self.service.admit()
        got: list[Outcome] = []
        return prediction, got, self.pipeline.start(prediction, row(value), got.append)


def shown(outcomes: list[Outcome]) -> list[Any]:
    return [
        o.kind if isinstance(o, ServingError) else [a.tolist() for a in o.arrays] for o in outcomes
    ]


async def test_an_equal_request_is_answered_from_the_memory() -> None:
    """The model is asked once; another input is another question."""
    w = World()
    _, first, _ = w.send(1)
    w.asked[0][1](answer(1))
    _, second, _ = w.send(1)
    w.send(2)
    assert shown(first) == shown(second) == [[[1.0]]]
    assert len(w.asked) == 2


async def test_equal_requests_under_way_are_one_run() -> None:
    """All get its answer."""
    w = World()
    got = [w.send(1)[1] for _ in range(3)]
    assert len(w.asked) == 1
    w.asked[0][1](answer(7))
    assert [shown(g) for g in got] == [[[[7.0]]]] * 3


async def test_the_models_failure_is_that_of_all_and_is_not_kept() -> None:
    """The next equal request asks again."""
    w = World()
    got = [w.send(1)[1] for _ in range(2)]
    w.asked[0][1](ServingError(ErrorKind.MODEL_FAILED, "no"))
    assert [shown(g) for g in got] == [[ErrorKind.MODEL_FAILED]] * 2
    w.send(1)
    assert len(w.asked) == 2


@pytest.mark.parametrize("kind", [ErrorKind.DEADLINE, ErrorKind.QUEUE_FULL, ErrorKind.STOPPING])
async def test_a_leader_without_time_does_not_take_the_others_along(kind: ErrorKind) -> None:
    """The first of them asks in its stead."""
    w = World()
    _, leader, _ = w.send(1)
    _, follower, _ = w.send(1)
    w.asked[0][1](ServingError(kind, "no time"))
    assert (shown(leader), shown(follower), len(w.asked)) == ([kind], [], 2)
    w.asked[1][1](answer(3))
    assert shown(follower) == [[[3.0]]]


async def test_a_leader_that_leaves_hands_over() -> None:
    """Its place in the queue is given up, and who joined it asks for itself."""
    w = World()
    prediction, leader, leave = w.send(1)
    _, follower, _ = w.send(1)
    leave()
    assert (w.cancelled, len(w.asked)) == ([prediction], 2)
    w.asked[1][1](answer(3))
    assert (leader, shown(follower)) == ([], [[[3.0]]])


async def test_a_follower_that_leaves_is_not_told() -> None:
    """Nor does it disturb the others."""
    w = World()
    _, leader, _ = w.send(1)
    _, follower, leave = w.send(1)
    leave()
    w.asked[0][1](answer(3))
    assert (shown(leader), follower) == ([[[3.0]]], [])


async def test_a_follower_has_its_own_deadline() -> None:
    """It is not in the queue, and is told in time all the same."""
    w = World(request_timeout="20ms")
    w.send(1)
    _, follower, _ = w.send(1)
    async with asyncio.timeout(10):
        while not follower:  # noqa: ASYNC110 - told by a timer
            await asyncio.sleep(0.01)
    assert shown(follower) == [ErrorKind.DEADLINE]
    w.asked[0][1](answer(1))
    assert len(follower) == 1


async def test_a_refused_leader_raises_and_leaves_no_trace() -> None:
    """As without a cache; the next one leads."""
    w = World()
    w.refusing = True
    with pytest.raises(ServingError, match="full"):
        w.send(1)
    w.refusing = False
    w.send(1)
    assert len(w.asked) == 1


async def test_an_answer_of_somebody_else_is_shared_with_its_mark_and_not_kept() -> None:
    """Nobody waits for others to be refused one after the other; what it says is not the model's answer."""
    w = World()
    leading, leader, _ = w.send(1)
    following, follower, _ = w.send(1)
    leading.mark("fallback", "other")
    w.asked[0][1](answer(9))
    assert shown(leader) == shown(follower) == [[[9.0]]]
    assert following.marks == {"fallback": "other"}
    later, _, _ = w.send(1)
    assert (len(w.asked), later.marks) == (2, None)


async def test_a_warning_about_the_input_keeps_no_answer_from_the_cache() -> None:
    """It is the model's own answer, and the warning each request's own."""
    w = World()
    warned, _, _ = w.send(1)
    plain, follower, _ = w.send(1)
    warned.mark("warnings", ["x was clipped"])
    w.asked[0][1](answer(9))
    assert (shown(follower), plain.marks) == ([[[9.0]]], None)
    _, later, _ = w.send(1)
    assert (shown(later), len(w.asked)) == ([[[9.0]]], 1)
