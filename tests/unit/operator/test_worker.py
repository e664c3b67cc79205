"""Workers: one pass at a time for each object, no wake lost, no error fatal. Time is virtual: nothing here waits."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from typing import Any, ParamSpec

import pytest

from canarium_operator import worker
from canarium_operator.core.naming import ObjectRef
from canarium_operator.errors import ConflictError, ForbiddenError, TransientClusterError
from canarium_operator.testing import virtual_time
from canarium_operator.worker import FIRST_BACKOFF, MAX_BACKOFF, MAX_UNHEEDING, Workers

REF = ObjectRef(namespace="ml", name="fraud")
OTHER = ObjectRef(namespace="ml", name="spam")
LONG = timedelta(hours=1)


P = ParamSpec("P")


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test on a loop of its own, in no time."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        virtual_time.run(test(*args, **kwargs))

    return run


def now() -> float:
    return asyncio.get_running_loop().time()


class Passes:
    """A reconcile function that follows a script and notes when it ran."""

    def __init__(self, *script: timedelta | Exception | None) -> None:
        self.script = list(script)
        self.times: list[float] = []
        self.refs: list[ObjectRef] = []
        self.running = 0
        self.most_running = 0
        self.during: Callable[[], Awaitable[None]] | None = None
        """Done in the middle of each pass."""

    async def __call__(self, ref: ObjectRef) -> timedelta | None:
        """Do a pass."""
        self.times.append(now())
        self.refs.append(ref)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            if self.during is not None:
                await self.during()
            result = self.script.pop(0) if self.script else LONG
        finally:
            self.running -= 1
        if isinstance(result, Exception):
            raise result
        return result


@in_virtual_time
async def test_a_wake_leads_to_one_pass_and_then_quiet() -> None:
    """The next pass comes when it was asked for."""
    passes = Passes(timedelta(seconds=10), LONG)
    workers = Workers(passes, 4)
    workers.wake(REF)
    await asyncio.sleep(60)
    assert passes.times == [0.0, 10.0]
    await workers.close()


@in_virtual_time
async def test_wakes_during_a_pass_fold_into_one_more() -> None:
    """A busy watch costs one pass, not one for each event."""
    passes = Passes()

    async def busy() -> None:
        if len(passes.times) == 1:
            for _ in range(100):
                workers.wake(REF)
                await asyncio.sleep(0.01)

    passes.during = busy
    workers = Workers(passes, 4)
    workers.wake(REF)
    await asyncio.sleep(60)
    assert len(passes.times) == 2
    await workers.close()


@in_virtual_time
async def test_a_wake_ends_the_wait_for_the_next_pass() -> None:
    """What changed is looked at now."""
    passes = Passes()
    workers = Workers(passes, 4)
    workers.wake(REF)
    await asyncio.sleep(5)
    workers.wake(REF)
    await asyncio.sleep(1)
    assert passes.times == [0.0, 5.0]
    await workers.close()


@in_virtual_time
async def test_errors_back_off_and_a_success_forgets_them() -> None:
    """Each wait is twice the one before, up to a minute, and starts over after a good pass."""
    down = TransientClusterError("503")
    passes = Passes(*[down] * 10, timedelta(0), down, LONG)
    workers = Workers(passes, 4)
    workers.wake(REF)
    await asyncio.sleep(1000)
    waits = [b - a for a, b in zip(passes.times, passes.times[1:], strict=False)]
    assert waits[:8] == pytest.approx([0.5, 1, 2, 4, 8, 16, 32, 60])
    assert waits[8:10] == pytest.approx([MAX_BACKOFF] * 2)
    assert waits[10:] == pytest.approx([0.0, FIRST_BACKOFF])
    await workers.close()


@in_virtual_time
async def test_the_api_server_may_ask_for_a_longer_wait() -> None:
    """Retry-After counts where it is longer than the backoff."""
    passes = Passes(TransientClusterError("429", retry_after=30.0))
    workers = Workers(passes, 4)
    workers.wake(REF)
    await asyncio.sleep(100)
    assert passes.times == pytest.approx([0.0, 30.0])
    await workers.close()


@in_virtual_time
async def test_a_busy_watch_cannot_undo_the_backoff_but_shortens_a_long_one() -> None:
    """Wakes are unheeded for a few seconds after an error, and heeded after."""
    down = TransientClusterError("503", retry_after=50.0)
    passes = Passes(down, LONG)
    workers = Workers(passes, 4)
    workers.wake(REF)
    for _ in range(20):
        await asyncio.sleep(0.1)
        workers.wake(REF)
    assert passes.times == [0.0]
    await asyncio.sleep(10)
    assert passes.times == pytest.approx([0.0, MAX_UNHEEDING])
    await workers.close()


@in_virtual_time
async def test_a_conflict_is_looked_at_again_soon_however_often() -> None:
    """Somebody else wrote; that is no reason to back off."""
    passes = Passes(*[ConflictError("409")] * 5)
    workers = Workers(passes, 4)
    workers.wake(REF)
    await asyncio.sleep(10)
    assert passes.times == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0, 2.5])
    await workers.close()


@pytest.mark.parametrize("error", [ForbiddenError("403"), RuntimeError("a defect")])
@in_virtual_time
async def test_no_error_ends_a_worker(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """Not even one of our own making; it is logged and tried again."""
    passes = Passes(error)
    workers = Workers(passes, 4)
    workers.wake(REF)
    await asyncio.sleep(MAX_BACKOFF + 1)
    assert len(passes.times) == 2
    assert str(error) in caplog.text
    await workers.close()


@in_virtual_time
async def test_the_worker_of_a_gone_object_ends() -> None:
    """Nothing is left of it, and a later wake starts anew."""
    passes = Passes(None, None)
    workers = Workers(passes, 4)
    workers.wake(REF)
    await asyncio.sleep(1)
    assert len(workers) == 0
    workers.wake(REF)
    await asyncio.sleep(1)
    assert passes.times == pytest.approx([0.0, 1.0])
    assert len(workers) == 0


@in_virtual_time
async def test_a_wake_during_the_last_pass_is_not_lost() -> None:
    """An object that is made anew while its predecessor's end is read gets its pass."""
    passes = Passes(None, LONG)

    async def made_anew() -> None:
        if len(passes.times) == 1:
            await asyncio.sleep(0.1)
            workers.wake(REF)

    passes.during = made_anew
    workers = Workers(passes, 4)
    workers.wake(REF)
    await asyncio.sleep(1)
    assert len(passes.times) == 2
    assert len(workers) == 1
    await workers.close()


@in_virtual_time
async def test_objects_are_worked_on_beside_one_another_up_to_the_limit() -> None:
    """One pass at a time for each object, and so many in all."""
    passes = Passes()

    async def slow() -> None:
        await asyncio.sleep(1)

    passes.during = slow
    workers = Workers(passes, 2)
    for number in range(5):
        workers.wake(ObjectRef(namespace="ml", name=f"model-{number}"))
    await asyncio.sleep(10)
    assert passes.most_running == 2
    assert len(passes.times) == 5
    await workers.close()


@in_virtual_time
async def test_one_object_does_not_wait_for_the_backoff_of_another() -> None:
    """Backoff holds no slot."""
    passes = Passes(TransientClusterError("503", retry_after=60.0), LONG)
    workers = Workers(passes, 1)
    workers.wake(REF)
    await asyncio.sleep(1)
    workers.wake(OTHER)
    await asyncio.sleep(1)
    assert passes.refs == [REF, OTHER]
    await workers.close()


@in_virtual_time
async def test_closing_cuts_off_the_pass_under_way() -> None:
    """Which is safe at any point, and leaves no task behind."""
    passes = Passes()

    async def endless() -> None:
        await asyncio.sleep(1e6)

    passes.during = endless
    workers = Workers(passes, 1)
    workers.wake(REF)
    await asyncio.sleep(1)
    await workers.close()
    assert passes.running == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_the_time_in_which_wakes_are_unheeded_is_shorter_than_any_other_wait() -> None:
    """Or a rollback would wait for it."""
    assert worker.MAX_UNHEEDING < worker.MAX_BACKOFF


@pytest.mark.parametrize("turns", range(5))
@in_virtual_time
async def test_closing_ends_a_worker_that_is_woken_at_the_same_moment(turns: int) -> None:
    """SIGTERM in the middle of a rollout must not wait for its end."""
    workers = Workers(Passes(), 1)
    workers.wake(REF)
    await asyncio.sleep(1)
    workers.wake(REF)
    for _ in range(turns):
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await workers.close()
