"""The whole cache: levels in order, filled back, for one identity."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from canarium_api.metric_names import CacheLevel
from canarium_api.runtime_config import RuntimeConfig
from canarium_runtime.caching import make_cache
from canarium_runtime.caching.cache import ResponseCache
from canarium_runtime.caching.guarded import GuardedLevel
from canarium_runtime.caching.memory import MemoryLevel
from canarium_runtime.caching.statistics import LevelStatistics
from canarium_runtime.caching.testing import FakeLevel
from canarium_runtime.errors import LoadError
from canarium_runtime.validation import ValidatedInputs


def inputs(*values: float, outputs: tuple[str, ...] = ("y",)) -> ValidatedInputs:
    return ValidatedInputs({"x": np.array([values], np.float32)}, 1, "k", outputs)


class World:
    """A cache with both further levels, the stores of which may be shared with others."""

    def __init__(
        self, *identity: str, redis: FakeLevel, database: FakeLevel, memory: bool = True
    ) -> None:
        self.redis, self.database = redis, database
        below = [
            GuardedLevel(name, level, ttl_seconds=ttl_seconds, timeout_seconds=5)
            for name, level, ttl_seconds in (
                (CacheLevel.REDIS, redis, 3600.0),
                (CacheLevel.DATABASE, database, 86400.0),
            )
        ]
        self.cache = ResponseCache(identity, MemoryLevel(1 << 20, 300) if memory else None, below)

    def level(self, name: CacheLevel) -> LevelStatistics:
        (found,) = [each for each in self.cache.statistics().levels if each.name is name]
        return found


MakeWorld = Callable[..., Any]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the fake has no event for it
            await asyncio.sleep(0.001)


@pytest.fixture
async def make_world() -> AsyncIterator[MakeWorld]:
    made: list[World] = []

    async def make(
        *identity: str,
        redis: FakeLevel | None = None,
        database: FakeLevel | None = None,
        memory: bool = True,
    ) -> World:
        world = World(
            *(identity or ("d1",)),
            redis=redis or FakeLevel(),
            database=database or FakeLevel(),
            memory=memory,
        )
        made.append(world)
        await world.cache.start()
        return world

    yield make
    for world in made:
        await world.cache.close()


async def test_an_answer_is_put_into_all_levels(make_world: MakeWorld) -> None:
    """The memory has it at once, the others soon, each for its own time."""
    world = await make_world()
    key = world.cache.key(inputs(1))
    world.cache.put(key, [np.array([2.0], np.float32)])
    found = world.cache.get(key)
    assert found is not None
    assert found[0].tolist() == [2.0]
    await until(lambda: key in world.redis.store and key in world.database.store)
    now = time.time()
    assert 3590 < world.redis.store[key][1] - now <= 3600
    assert 86390 < world.database.store[key][1] - now <= 86400


async def test_levels_are_asked_in_order_and_filled_on_the_way_back(make_world: MakeWorld) -> None:
    """What the database alone has is in Redis and in the memory afterwards; and Redis spares the database."""
    first = await make_world()
    key = first.cache.key(inputs(1))
    first.cache.put(key, [np.array([2.0], np.float32)])
    await until(lambda: key in first.database.store)

    second = await make_world(database=first.database)
    assert second.cache.get(key) is None
    found = await second.cache.get_below(key)
    assert found is not None
    assert found[0].tolist() == [2.0]
    assert second.cache.get(key) is not None
    await until(lambda: key in second.redis.store)
    assert second.level(CacheLevel.DATABASE).hits == 1

    third = await make_world(redis=second.redis, database=first.database)
    assert await third.cache.get_below(key) is not None
    assert (third.level(CacheLevel.REDIS).hits, third.level(CacheLevel.DATABASE).hits) == (1, 0)


async def test_an_answer_does_not_grow_younger_on_its_way_up(make_world: MakeWorld) -> None:
    """Filled into Redis with ten seconds left of its time, it ends there in ten seconds, not in an hour."""
    first = await make_world()
    key = first.cache.key(inputs(1))
    first.cache._wall_clock = lambda: time.time() - 86390
    first.cache.put(key, [np.array([2.0], np.float32)])
    await until(lambda: key in first.database.store)
    second = await make_world(database=first.database)
    assert await second.cache.get_below(key) is not None
    await until(lambda: key in second.redis.store)
    assert second.redis.store[key][1] - time.time() <= 10
    entry = second.cache._memory._entries[key]
    assert entry[1] - time.monotonic() <= 10


async def test_another_version_does_not_answer_from_what_this_one_left(
    make_world: MakeWorld,
) -> None:
    """The same input under another digest or revision is another key, in every level."""
    old = await make_world("digest 1", "revision 1")
    new = await make_world("digest 2", "revision 1", redis=old.redis, database=old.database)
    image = await make_world("digest 1", "revision 2", redis=old.redis, database=old.database)
    key = old.cache.key(inputs(1))
    old.cache.put(key, [np.array([2.0], np.float32)])
    await until(lambda: key in old.database.store)
    for other in (new, image):
        assert other.cache.key(inputs(1)) != key
        assert await other.cache.get_below(other.cache.key(inputs(1))) is None


async def test_models_of_one_server_share_levels_and_no_answer(make_world: MakeWorld) -> None:
    """One memory and one connection for all of them; the same input is another key for each."""
    world = await make_world("digest 1")
    other = world.cache.for_model(("digest 2",))
    key = world.cache.key(inputs(1))
    assert other.key(inputs(1)) != key
    assert world.cache.key(inputs(1)) == key
    other.put(other.key(inputs(1)), [np.array([2.0], np.float32)])
    assert world.cache.get(key) is None
    assert other.get(other.key(inputs(1))) is not None
    assert other.statistics() == world.cache.statistics()


async def test_wanted_outputs_and_their_order_are_part_of_the_key(make_world: MakeWorld) -> None:
    """An answer has the outputs that were asked for."""
    world = await make_world()
    keys = {
        world.cache.key(inputs(1, outputs=names))
        for names in (("y",), ("z",), ("y", "z"), ("z", "y"))
    }
    assert len(keys) == 4


async def test_dead_levels_are_never_an_error(make_world: MakeWorld) -> None:
    """Both further levels are broken from the start: lookups miss, puts go to the memory."""
    redis, database = FakeLevel(), FakeLevel()
    redis.broken = database.broken = True
    world = await make_world(redis=redis, database=database)
    key = world.cache.key(inputs(1))
    assert await world.cache.get_below(key) is None
    world.cache.put(key, [np.array([2.0], np.float32)])
    assert world.cache.get(key) is not None
    assert [(each.name, each.up) for each in world.cache.statistics().levels] == [
        (CacheLevel.MEMORY, True),
        (CacheLevel.REDIS, False),
        (CacheLevel.DATABASE, False),
    ]


async def test_redis_without_a_memory_is_enough(make_world: MakeWorld) -> None:
    """With the memory off, `get` finds nothing and the further levels do."""
    world = await make_world(memory=False)
    key = world.cache.key(inputs(1))
    world.cache.put(key, [np.array(["a", "b"], object)])
    assert world.cache.get(key) is None
    await until(lambda: key in world.redis.store)
    found = await world.cache.get_below(key)
    assert found is not None
    assert found[0].tolist() == ["a", "b"]


async def test_what_cannot_be_frozen_is_counted_and_not_kept(make_world: MakeWorld) -> None:
    """An object that somebody could change later is not cached."""
    world = await make_world()
    world.cache.put(b"k", [np.array([{"a": 1}], object)])
    assert world.cache.get(b"k") is None
    assert world.level(CacheLevel.MEMORY).dropped == 1


def config(**settings: Any) -> RuntimeConfig:
    return RuntimeConfig(model_uri="file:///m.onnx", **settings)


def test_nothing_is_cached_unless_asked_for() -> None:
    """Without settings there is no cache."""
    assert make_cache(config(), "d", "1") is None


async def test_settings_make_the_levels(tmp_path: Path) -> None:
    """Each level is on when its setting is there."""
    settings = config(
        cache_memory_bytes=1 << 20,
        cache_memory_ttl="10s",
        cache_redis_url="redis://127.0.0.1:1",
        cache_database_url=f"sqlite:///{tmp_path}/answers.db",
    )
    cache = make_cache(settings, "d", "1")
    assert cache is not None
    assert [level.name for level in cache.statistics().levels] == list(CacheLevel)
    assert cache.has_levels_below
    assert cache._longest_seconds == timedelta(days=1).total_seconds()
    memory_alone = make_cache(config(cache_memory_bytes=1 << 20), "d", "1")
    assert memory_alone is not None
    assert not memory_alone.has_levels_below
    await cache.close()


@pytest.mark.parametrize(
    ("setting", "url"),
    [
        ("cache_redis_url", "redis://u:hidden@host:port"),
        ("cache_database_url", "postgresql://u:hidden@host:port/d"),
        ("cache_database_url", "postgresql://u:hidden@host"),
    ],
)
async def test_a_url_that_cannot_be_used_stops_the_server_without_showing_it(
    setting: str, url: str
) -> None:
    """The reason names the variable and how to write it, not what it holds."""
    with pytest.raises(LoadError) as caught:
        make_cache(config(**{setting: url}), "d", "1")
    failure = caught.value.failure
    assert failure.reason == "InvalidConfig"
    assert f"CANARIUM_{setting.upper()}" in failure.message
    assert "hidden" not in failure.message


@pytest.mark.parametrize(
    ("setting", "url", "package"),
    [
        ("cache_redis_url", "redis://h", "redis"),
        ("cache_database_url", "sqlite:////tmp/x", "sqlalchemy"),
        ("cache_database_url", "sqlite:////tmp/x", "aiosqlite"),
        ("cache_database_url", "postgresql://h/d", "asyncpg"),
    ],
)
def test_a_missing_library_is_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, setting: str, url: str, package: str
) -> None:
    """An image without the libraries says which one is missing, and how to get it."""
    import sys

    for name in list(sys.modules):
        if name.split(".")[0] == package or name.endswith(
            ("redis_level", "sql_level", "sql_tables")
        ):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(LoadError, match=rf"needs the package {package}.*install canarium\[cache\]"):
        make_cache(config(**{setting: url}), "d", "1")


def test_libraries_of_levels_that_are_off_are_not_imported() -> None:
    """A server with a memory alone starts without Redis' and the databases' libraries."""
    import subprocess
    import sys

    program = (
        "import sys, canarium_runtime.caching as c; "
        "from canarium_api.runtime_config import RuntimeConfig as R; "
        "assert c.make_cache(R(model_uri='file:///m', cache_memory_bytes=1000000), 'd', '1'); "
        "print({'redis', 'sqlalchemy', 'asyncpg', 'aiosqlite'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
