"""Real Redis and PostgreSQL that die, hang and lie: they cost requests time, never an error, and come back."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest
from redis.asyncio import Redis
from tests.services.postgresql import PostgresServer, running_postgresql
from tests.services.processes import Service
from tests.services.redis import RedisServer, running_redis

from canarium_api.metric_names import CacheLevel
from canarium_runtime.caching.cache import ResponseCache
from canarium_runtime.caching.guarded import CONNECTIONS, GuardedLevel
from canarium_runtime.caching.levels import Level
from canarium_runtime.caching.redis_level import PREFIX, RedisLevel
from canarium_runtime.caching.sql_level import SqlLevel
from canarium_runtime.caching.statistics import LevelStatistics
from canarium_runtime.resilience.breaker import BreakerPolicy
from canarium_runtime.validation import ValidatedInputs

TIMEOUT_SECONDS = 0.1
MOST_SECONDS = 10.0
"""A hundred times the timeout, since the machine of the test may be busy; who waits for the server waits longer."""
POLICY = BreakerPolicy(failures=3, first_pause_seconds=0.05, longest_pause_seconds=0.2)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgresServer]:
    with running_postgresql() as server:
        yield server


@pytest.fixture(params=["redis", "postgresql"])
def service(request: pytest.FixtureRequest) -> Iterator[tuple[Service, str]]:
    server: RedisServer | PostgresServer = request.getfixturevalue(request.param)
    server.ensure()
    yield server, server.url
    server.resume()


def make_level(url: str) -> tuple[CacheLevel, Level]:
    if url.startswith("redis"):
        return CacheLevel.REDIS, RedisLevel(url, connections=CONNECTIONS, connect_seconds=2)
    level = SqlLevel(url, max_bytes=1 << 20, connections=CONNECTIONS, connect_seconds=2)
    return CacheLevel.DATABASE, level


@pytest.fixture
async def cache(service: tuple[Service, str]) -> AsyncIterator[ResponseCache]:
    name, level = make_level(service[1])
    guard = GuardedLevel(
        name, level, ttl_seconds=60, timeout_seconds=TIMEOUT_SECONDS, policy=POLICY
    )
    cache = ResponseCache(("digest",), None, [guard])
    await cache.start()
    yield cache
    await cache.close()


def key_of(cache: ResponseCache, number: int) -> bytes:
    return cache.key(ValidatedInputs({"x": np.array([[number]])}, 1, "k", ("y",)))


def statistics(cache: ResponseCache) -> LevelStatistics:
    (level,) = cache.statistics().levels
    return level


class Load:
    """Requests that do not end: each looks up, computes, puts."""

    def __init__(self, cache: ResponseCache) -> None:
        self._cache = cache
        self._task = asyncio.create_task(self._run())
        self.slowest_seconds = 0.0
        self.hits = 0

    async def _run(self) -> None:
        number = 0
        while True:
            number = (number + 1) % 50
            await asyncio.gather(*(self._request(number * 8 + n) for n in range(8)))
            await asyncio.sleep(0)

    async def _request(self, number: int) -> None:
        key = key_of(self._cache, number)
        started = time.perf_counter()
        found = await self._cache.get_below(key)
        self.slowest_seconds = max(self.slowest_seconds, time.perf_counter() - started)
        if found is None:
            self._cache.put(key, [np.array([number * 2])])
        else:
            assert found[0].tolist() == [number * 2]
            self.hits += 1

    async def until_hits(self) -> None:
        """Wait until some more requests were answered from the level."""
        wanted = self.hits + 100
        await self.until(lambda: self.hits >= wanted)

    async def until(self, condition: object) -> None:
        async with asyncio.timeout(60):
            while not condition():  # type: ignore[operator]
                if self._task.done():
                    await self._task  # raises what went wrong
                await asyncio.sleep(0.005)

    async def end(self) -> None:
        assert not self._task.done(), "a request failed"
        self._task.cancel()
        await asyncio.wait((self._task,))


async def test_a_kill_in_the_middle_of_the_work_costs_time_and_no_error(
    service: tuple[Service, str], cache: ResponseCache
) -> None:
    """With kill -9 under load: every request goes on, the level is cut out, and used again after its restart."""
    server, _ = service
    load = Load(cache)
    await load.until_hits()
    load.slowest_seconds = 0.0
    server.kill()
    await load.until(lambda: not statistics(cache).up)
    assert statistics(cache).reason
    await asyncio.to_thread(server.start)
    await load.until(lambda: statistics(cache).up)
    await load.until_hits()
    await load.end()
    assert load.slowest_seconds < MOST_SECONDS


async def test_a_server_that_hangs_costs_a_timeout_and_no_error(
    service: tuple[Service, str], cache: ResponseCache
) -> None:
    """SIGSTOP under load: connections stay and nothing answers; lookups end in time, and it is used again later."""
    server, _ = service
    load = Load(cache)
    await load.until_hits()
    load.slowest_seconds = 0.0
    server.stall()
    try:
        await load.until(lambda: not statistics(cache).up)
        skipped = statistics(cache).skipped
        await load.until(lambda: statistics(cache).skipped > skipped + 1000)
    finally:
        server.resume()
    await load.until(lambda: statistics(cache).up)
    await load.until_hits()
    await load.end()
    assert load.slowest_seconds < MOST_SECONDS


async def test_closing_while_the_server_hangs_ends(
    service: tuple[Service, str], cache: ResponseCache
) -> None:
    """A pod that leaves does not wait for a database that does not answer."""
    server, _ = service
    cache.put(key_of(cache, 1), [np.array([1])])
    server.stall()
    try:
        async with asyncio.timeout(60):
            await cache.close()
    finally:
        server.resume()


async def test_wrong_bytes_in_redis_are_no_answer_and_are_replaced(tmp_path: Path) -> None:
    """What somebody else wrote under our keys is a miss, and the next put mends it."""
    with running_redis(tmp_path) as server:
        name, level = make_level(server.url)
        guard = GuardedLevel(name, level, ttl_seconds=60, timeout_seconds=5)
        cache = ResponseCache(("digest",), None, [guard])
        await cache.start()
        stranger = Redis.from_url(server.url)
        one, other = key_of(cache, 1), key_of(cache, 2)
        cache.put(one, [np.array([1])])
        cache.put(other, [np.array([2])])
        name_of_one, name_of_other = PREFIX + one.hex(), PREFIX + other.hex()
        async with asyncio.timeout(60):
            while await stranger.exists(name_of_one, name_of_other) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        right = await stranger.get(name_of_one)
        assert right is not None
        for wrong in (b"", b"pickle", right[:-1], right + b"x", await stranger.get(name_of_other)):
            await stranger.set(name_of_one, wrong or b"")
            assert await cache.get_below(one) is None
        assert (statistics(cache).errors, statistics(cache).up) == (5, True)
        cache.put(one, [np.array([1])])
        async with asyncio.timeout(60):
            while await cache.get_below(one) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        await stranger.delete(name_of_one)
        await stranger.lpush(name_of_one, "a list")  # MGET says that there is nothing
        assert await cache.get_below(one) is None
        await stranger.aclose()
        await cache.close()


async def test_two_servers_share_what_one_has_computed(
    service: tuple[Service, str], cache: ResponseCache
) -> None:
    """A pod that starts finds the answers of those before it."""
    cache.put(key_of(cache, 7), [np.array(["a", "é"], object)])
    name, level = make_level(service[1])
    other = ResponseCache(
        ("digest",), None, [GuardedLevel(name, level, ttl_seconds=60, timeout_seconds=5)]
    )
    await other.start()
    async with asyncio.timeout(60):
        while (found := await other.get_below(key_of(other, 7))) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert found[0].tolist() == ["a", "é"]
    await other.close()
