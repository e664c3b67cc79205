"""A guarded level costs time at most: what lookups and writes do while it fails, hangs, lies or drowns."""

import asyncio
import functools
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from canarium_api.metric_names import CacheLevel
from canarium_operator.testing import virtual_time
from canarium_runtime.backends.base import Array
from canarium_runtime.caching import calls, codec, lookups, writes
from canarium_runtime.caching.guarded import GuardedLevel
from canarium_runtime.caching.levels import LevelError
from canarium_runtime.caching.memory import frozen, size_bytes
from canarium_runtime.caching.testing import FakeLevel
from canarium_runtime.resilience.breaker import BreakerPolicy

OUTPUTS = frozen([np.array([1.5], np.float32)])
QUICK = BreakerPolicy(failures=2, first_pause_seconds=0.01, longest_pause_seconds=0.02)
NEVER = BreakerPolicy(failures=2, first_pause_seconds=1000, longest_pause_seconds=1000)


class World:
    """A fake level and its guard."""

    def __init__(self, policy: BreakerPolicy, timeout_seconds: float = 0.05) -> None:
        self.level = FakeLevel()
        self.guard = GuardedLevel(
            CacheLevel.REDIS,
            self.level,
            ttl_seconds=60,
            timeout_seconds=timeout_seconds,
            policy=policy,
        )

    async def start(self) -> None:
        """Start it, and wait for its first sweep, so that nothing else runs."""
        await self.guard.start()
        await self.until(lambda: self.guard.statistics().entries is not None)

    def holds(self, *keys: bytes) -> None:
        ends = time.time() + 60
        for key in keys:
            self.level.store[key] = (codec.encode(key, OUTPUTS, ends), ends)

    def write(self, key: bytes, outputs: tuple[Array, ...] = OUTPUTS) -> None:
        self.guard.write(key, outputs, size_bytes(outputs), time.time() + 60)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - the fake has no event for it
                await asyncio.sleep(0.001)


MakeWorld = Callable[..., World]


def in_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test on a loop whose time passes only while nothing else can happen: how busy the machine is, is no matter.

    The worlds that it makes are let go at its end.
    """

    @functools.wraps(test)
    def run(monkeypatch: pytest.MonkeyPatch) -> None:
        async def in_loop() -> None:
            # The clock by which calls see that this process, and not the level, was busy.
            clock = SimpleNamespace(monotonic=asyncio.get_running_loop().time)
            monkeypatch.setattr(calls, "time", clock)
            made: list[World] = []

            def make(policy: BreakerPolicy = NEVER, timeout_seconds: float = 0.05) -> World:
                made.append(World(policy, timeout_seconds))
                return made[-1]

            try:
                await test(make)
            finally:
                for world in made:
                    if world.level.hanging is not None:
                        world.level.hanging.set()
                    await world.guard.close()

        virtual_time.run(in_loop())

    del run.__wrapped__  # type: ignore[attr-defined] # else pytest looks for the fixtures of the test itself
    return run


def now() -> float:
    """Virtual seconds."""
    return asyncio.get_running_loop().time()


@pytest.fixture
async def make_world() -> AsyncIterator[MakeWorld]:
    made: list[World] = []

    def make(policy: BreakerPolicy = NEVER, timeout_seconds: float = 0.05) -> World:
        made.append(World(policy, timeout_seconds))
        return made[-1]

    yield make
    for world in made:
        if world.level.hanging is not None:
            world.level.hanging.set()
        await world.guard.close()


async def test_what_is_written_is_read_and_counted(make_world: MakeWorld) -> None:
    """A miss, then a hit; the level has the value with its time."""
    world = make_world()
    await world.start()
    assert await world.guard.read(b"k") is None
    world.write(b"k")
    await world.until(lambda: b"k" in world.level.store)
    answer = await world.guard.read(b"k")
    assert answer is not None
    assert answer.outputs[0].tolist() == [1.5]
    found = world.guard.statistics()
    assert (found.hits, found.misses, found.errors, found.skipped, found.up) == (1, 1, 0, 0, True)


async def test_lookups_of_one_moment_are_one_call(make_world: MakeWorld) -> None:
    """Fifty lookups, two of them for the same key, cost the level one call of 49 keys."""
    world = make_world()
    await world.start()
    keys = [bytes([n]) for n in range(49)]
    world.holds(*keys[:5])
    answers = await asyncio.gather(*(world.guard.read(key) for key in [*keys, keys[0]]))
    assert world.level.reads == [49]
    assert [answer is not None for answer in answers] == [n < 5 or n == 49 for n in range(50)]


@in_virtual_time
async def test_a_hanging_level_costs_each_lookup_its_timeout_and_then_nothing(
    make_world: MakeWorld,
) -> None:
    """Lookups end in time; after two that failed the level is cut out and skipped at once, with the reason."""
    world = make_world(timeout_seconds=0.05)
    await world.start()
    world.level.hanging = asyncio.Event()
    for _ in range(2):
        started = now()
        assert await world.guard.read(b"k") is None
        assert now() - started == pytest.approx(0.05)
    started = now()
    assert await world.guard.read(b"k") is None
    assert now() == started
    found = world.guard.statistics()
    assert (found.up, found.reason) == (False, "no answer within 50 ms")
    assert (found.errors, found.skipped) == (2, 1)


@in_virtual_time
async def test_a_busy_process_does_not_blame_the_level(make_world: MakeWorld) -> None:
    """The loop stands still for longer than the timeout while the level answers quickly: it stays in use."""
    world = make_world(timeout_seconds=0.02)
    await world.start()
    loop = asyncio.get_running_loop()

    def stand_still() -> None:
        """A large batch that runs on the loop."""
        loop._virtual.now += 0.05  # type: ignore[attr-defined]

    async def answer(_: object) -> dict[bytes, bytes]:
        came = loop.create_future()
        loop.call_soon(stand_still)
        loop.call_soon(came.set_result, None)
        await came
        for _ in range(5):  # as a library's reader, parser and pool do
            await asyncio.sleep(0)
        return {b"k": b"v"}

    world.level.read = answer  # type: ignore[method-assign, assignment]
    for _ in range(5):
        await world.guard.read(b"k")
    assert world.guard.up


@in_virtual_time
async def test_lookups_that_wait_behind_hanging_ones_end_in_time_too(make_world: MakeWorld) -> None:
    """More lookups than run at once: all of them end within their own timeout."""
    world = make_world(timeout_seconds=0.1)
    await world.start()
    world.level.hanging = asyncio.Event()

    async def timed(number: int) -> float:
        started = now()
        for _ in range(number):
            await asyncio.sleep(0)  # so that they do not go out together
        assert await world.guard.read(bytes([number])) is None
        return now() - started

    times = await asyncio.gather(*(timed(number) for number in range(40)))
    assert max(times) == pytest.approx(0.1)
    assert world.level.reads == [1] * lookups.READS_AT_ONCE


@in_virtual_time
async def test_a_call_that_ignores_its_end_is_left_behind(make_world: MakeWorld) -> None:
    """Lookups end in time although the library does not let go, and only so many calls are left behind."""
    world = make_world(BreakerPolicy(failures=100), timeout_seconds=0.005)
    await world.start()
    world.level.hanging, world.level.deaf = asyncio.Event(), True
    for number in range(calls.MAX_ABANDONED + 4):
        started = now()
        assert await world.guard.read(bytes([number])) is None
        assert now() - started <= 0.005 + 1e-9
    assert len(world.level.reads) == calls.MAX_ABANDONED
    world.level.hanging.set()
    world.level.hanging = None
    world.holds(b"k")
    await world.until(lambda: not world.guard._calls.abandoned)
    assert await world.guard.read(b"k") is not None


async def test_a_level_that_is_back_is_found_without_a_request(make_world: MakeWorld) -> None:
    """Nobody asks, and yet the level is used again soon after it answers again."""
    world = make_world(QUICK)
    await world.start()
    world.level.broken = True
    for _ in range(2):
        assert await world.guard.read(b"k") is None
    assert not world.guard.up
    world.level.broken = False
    await world.until(lambda: world.guard.up)
    world.holds(b"k")
    assert await world.guard.read(b"k") is not None
    assert world.guard.statistics().reason == ""


async def test_a_level_that_is_dead_at_the_start_is_used_when_it_comes(
    make_world: MakeWorld,
) -> None:
    """Starting does not fail; lookups skip the level until it is there."""
    world = make_world(QUICK)
    world.level.broken = True
    await world.guard.start()
    assert await world.guard.read(b"k") is None
    found = world.guard.statistics()
    assert (found.up, found.reason, found.skipped) == (False, "fake: broken", 1)
    world.level.broken = False
    await world.until(lambda: world.guard.up)


async def test_a_reason_is_logged_once_however_often_it_is_tried(
    make_world: MakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """A level that is away for a day does not fill the log."""
    world = make_world(QUICK)
    attempts = 0

    async def refuse() -> None:
        nonlocal attempts
        attempts += 1
        msg = "refused"
        raise LevelError(msg)

    world.level.open = refuse  # type: ignore[method-assign]
    with caplog.at_level(logging.INFO):
        await world.guard.start()
        await world.until(lambda: attempts >= 4)
    told = [r for r in caplog.records if r.getMessage() == "a level of the cache is cut out"]
    assert [(r.levelname, vars(r)["reason"]) for r in told] == [("WARNING", "refused")]


async def test_what_is_no_answer_is_an_error_and_not_the_levels_end(make_world: MakeWorld) -> None:
    """Wrong bytes under our key: no answer, the level stays, and the next write puts it right."""
    world = make_world()
    await world.start()
    for _ in range(5):
        world.level.store[b"k"] = (b"wrong bytes", time.time() + 60)
        assert await world.guard.read(b"k") is None
    found = world.guard.statistics()
    assert (found.errors, found.up) == (5, True)
    world.write(b"k")
    await world.until(lambda: world.level.store[b"k"][0] != b"wrong bytes")
    assert await world.guard.read(b"k") is not None


async def test_an_answer_whose_time_is_over_is_a_miss(make_world: MakeWorld) -> None:
    """Whatever the level keeps, the time within the value decides."""
    world = make_world()
    await world.start()
    past = time.time() - 1
    world.level.store[b"k"] = (codec.encode(b"k", OUTPUTS, past), time.time() + 60)
    assert await world.guard.read(b"k") is None
    assert world.guard.statistics().misses == 1


async def test_writes_go_out_in_batches(make_world: MakeWorld) -> None:
    """While one batch is on its way, others gather: a hundred writes are three calls."""
    world = make_world()
    await world.start()
    for number in range(100):
        world.write(bytes([number]))
    await world.until(lambda: len(world.level.store) == 100)
    assert world.level.writes == [64, 36]


async def test_a_full_queue_drops_and_counts_and_never_waits(make_world: MakeWorld) -> None:
    """A level that does not take writes costs no memory beyond the bound."""
    world = make_world(timeout_seconds=10)
    await world.start()
    world.level.hanging = asyncio.Event()
    for number in range(writes.MAX_ENTRIES + 100):
        world.write(number.to_bytes(20, "big"))
    assert world.guard.statistics().dropped == 100
    world.level.hanging.set()
    await world.until(lambda: len(world.level.store) == writes.MAX_ENTRIES)


async def test_large_answers_are_bounded_by_their_bytes(make_world: MakeWorld) -> None:
    """A few large answers fill the queue as many small ones do, and one that is too large is never taken."""
    world = make_world(timeout_seconds=10)
    await world.start()
    large = frozen([np.zeros(writes.LARGEST_BYTES // 8 - 1000, np.float64)])
    fitting = writes.MAX_BYTES // size_bytes(large)
    for number in range(fitting + 3):
        world.write(bytes([number]), large)
    assert world.guard.statistics().dropped == 3
    world.write(b"huge", frozen([np.zeros(writes.LARGEST_BYTES // 8, np.float64)]))
    assert world.guard.statistics().dropped == 4


async def test_writes_that_fail_are_counted_and_cut_the_level_out(make_world: MakeWorld) -> None:
    """Nobody reads, and yet a dead level is noticed; what comes then is dropped at once."""
    world = make_world()
    await world.start()
    world.level.broken = True
    for number in range(2):
        world.write(bytes([number]))
        await world.until(lambda n=number: world.guard.statistics().errors == n + 1)  # type: ignore[misc]
    assert not world.guard.up
    world.write(b"later")
    found = world.guard.statistics()
    assert (found.dropped, found.reason) == (3, "fake: broken")


async def test_a_datatype_without_a_form_is_dropped(make_world: MakeWorld) -> None:
    """It cannot be written for others; the writer goes on with the next."""
    world = make_world()
    await world.start()
    world.write(b"complex", frozen([np.zeros(1, np.complex64)]))
    world.write(b"float")
    await world.until(lambda: b"float" in world.level.store)
    assert b"complex" not in world.level.store
    assert world.guard.statistics().dropped == 1


async def test_closing_lets_waiting_writes_go_out(make_world: MakeWorld) -> None:
    """A pod that leaves hands on what it has computed last."""
    world = make_world()
    await world.start()
    world.write(b"k")
    await world.guard.close()
    assert b"k" in world.level.store
    assert world.level.closed
    assert await world.guard.read(b"k") is None


async def test_closing_does_not_wait_for_a_level_that_hangs(make_world: MakeWorld) -> None:
    """Lookups that wait are let go, and closing ends."""
    world = make_world(timeout_seconds=30)
    await world.start()
    world.level.hanging = asyncio.Event()
    lookup = asyncio.create_task(world.guard.read(b"k"))
    await world.until(lambda: len(world.level.reads) == 1)
    async with asyncio.timeout(10):
        await world.guard.close()
        assert await lookup is None


async def test_a_client_that_leaves_takes_nobody_along(make_world: MakeWorld) -> None:
    """A lookup that is cancelled does not end that of another for the same batch."""
    world = make_world(timeout_seconds=30)
    await world.start()
    world.holds(b"b")
    world.level.hanging = asyncio.Event()
    gone, stays = (asyncio.create_task(world.guard.read(key)) for key in (b"a", b"b"))
    await world.until(lambda: len(world.level.reads) == 1)
    gone.cancel()
    world.level.hanging.set()
    assert await stays is not None
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_a_librarys_surprise_does_not_reach_a_request(
    make_world: MakeWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """An error that nobody thought of is logged with its trace and counts as a failure."""
    world = make_world()
    await world.start()

    async def surprise(_: object) -> dict[bytes, bytes]:
        msg = "surprise"
        raise ZeroDivisionError(msg)

    world.level.read = surprise  # type: ignore[method-assign, assignment]
    assert await world.guard.read(b"k") is None
    assert world.guard.statistics().errors == 1
    assert "ZeroDivisionError" in caplog.text
