"""One suite for all levels of the cache: what a fake promises, Redis, SQLite and PostgreSQL keep."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from tests.services.postgresql import PostgresServer, running_postgresql
from tests.services.redis import RedisServer, running_redis

from canarium_runtime.caching.levels import Entry, Level, LevelError
from canarium_runtime.caching.redis_level import PREFIX, RedisLevel
from canarium_runtime.caching.sql_level import ROW_BYTES, SWEEP_SECONDS, SqlLevel
from canarium_runtime.caching.testing import FakeLevel

MakeLevel = Callable[[], Level]
KINDS = ("fake", "redis", "sqlite", "postgresql")
MAX_BYTES = 1 << 20


class Clock:
    """Seconds since 1970 that a test moves on."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgresServer]:
    with running_postgresql() as server:
        yield server


def url_of(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    match kind:
        case "redis":
            server: RedisServer = request.getfixturevalue("redis")
            return server.url
        case "postgresql":
            database: PostgresServer = request.getfixturevalue("postgresql")
            return database.new_database()
        case _:
            return f"sqlite:///{tmp_path}/folder/answers.db"


@pytest.fixture
async def make_level(
    request: pytest.FixtureRequest, tmp_path: Path, clock: Clock
) -> AsyncIterator[MakeLevel]:
    """Make levels that share what they keep, as those of several servers do."""
    kind: str = request.param
    url = url_of(kind, request, tmp_path)
    shared: dict[bytes, tuple[bytes, float]] = {}
    made: list[Level] = []

    def make() -> Level:
        level: Level
        if kind == "fake":
            level = FakeLevel(shared)
        elif kind == "redis":
            level = RedisLevel(url, connections=3, connect_seconds=5)
        else:
            level = SqlLevel(
                url, max_bytes=MAX_BYTES, connections=3, connect_seconds=5, clock=clock
            )
        made.append(level)
        return level

    yield make
    for level in made:
        await level.close()


all_levels = pytest.mark.parametrize("make_level", KINDS, indirect=True)
databases = pytest.mark.parametrize("make_level", ["sqlite", "postgresql"], indirect=True)


def keys_of(test: str, count: int) -> list[bytes]:
    """Keys that no other test uses."""
    return [f"{test}-{number:016}".encode() for number in range(count)]


@all_levels
async def test_what_was_written_is_read(make_level: MakeLevel) -> None:
    """Values come back byte for byte, and a key that was not written is absent."""
    level = make_level()
    await level.open()
    first, second, absent = keys_of("read", 3)
    value = bytes(range(256)) * 40
    await level.write([Entry(first, value, 60), Entry(second, b"\0", 60)])
    assert await level.read([first, absent, second]) == {first: value, second: b"\0"}


@all_levels
async def test_another_server_reads_it_too(make_level: MakeLevel) -> None:
    """What one server wrote, another one reads."""
    one, other = make_level(), make_level()
    await asyncio.gather(one.open(), other.open())
    (key,) = keys_of("shared", 1)
    await one.write([Entry(key, b"value", 60)])
    assert await other.read([key]) == {key: b"value"}


@all_levels
async def test_the_later_value_replaces_the_earlier(make_level: MakeLevel) -> None:
    """A key has one value, the one that was written last."""
    level = make_level()
    await level.open()
    (key,) = keys_of("replaced", 1)
    await level.write([Entry(key, b"old", 60)])
    await level.write([Entry(key, b"new", 60)])
    assert await level.read([key]) == {key: b"new"}


@all_levels
async def test_a_value_is_gone_when_its_time_is_over(make_level: MakeLevel, clock: Clock) -> None:
    """After its time to live a value is absent, one with more time is still there."""
    level = make_level()
    await level.open()
    short, long = keys_of("over", 2)
    await level.write([Entry(short, b"s", 1), Entry(long, b"l", 3600)])
    clock.now += 2
    async with asyncio.timeout(10):
        while short in await level.read([short]):  # noqa: ASYNC110 - Redis keeps its own time
            await asyncio.sleep(0.05)
    assert await level.read([short, long]) == {long: b"l"}


@all_levels
async def test_servers_that_start_write_and_sweep_at_once_do_not_disturb_each_other(
    make_level: MakeLevel,
) -> None:
    """Eight servers open the same store, write the same keys in different orders and sweep: nobody gets an error."""
    levels = [make_level() for _ in range(8)]
    await asyncio.gather(*(level.open() for level in levels))
    keys = keys_of("many", 60)

    async def work(number: int, level: Level) -> None:
        turned = keys[number * 7 :] + keys[: number * 7]
        for begin in range(0, len(turned), 15):
            some = turned[begin : begin + 15]
            await level.write([Entry(key, b"v" * 100, 60) for key in some])
            await level.read(some)
            await level.sweep()

    await asyncio.gather(*(work(number, level) for number, level in enumerate(levels)))
    assert set(await levels[0].read(keys)) == set(keys)


@databases
async def test_a_sweep_deletes_what_is_over_and_tells_what_is_left(
    make_level: MakeLevel, clock: Clock
) -> None:
    """Rows whose time is over leave the table; the count is that of the others, and another server tells it too."""
    level, other = make_level(), make_level()
    await level.open()
    await other.open()
    clock.now += SWEEP_SECONDS + 1
    before = await level.sweep()
    assert before is not None
    short, long = keys_of("swept", 1500), keys_of("kept", 5)
    await level.write([Entry(key, b"v", 10) for key in short])
    await level.write([Entry(key, b"v", 3600) for key in long])
    clock.now += SWEEP_SECONDS + 1
    after = await level.sweep()
    assert after is not None
    assert (before.entries + 5, before.bytes + 5 * (ROW_BYTES + 1)) == (after.entries, after.bytes)
    assert await other.sweep() == after


@databases
async def test_the_table_is_swept_once_however_many_servers_there_are(
    make_level: MakeLevel, clock: Clock
) -> None:
    """What is over stays until the next sweep is due, whoever asks for one."""
    level, other = make_level(), make_level()
    await level.open()
    await other.open()
    clock.now += SWEEP_SECONDS + 1
    first = await level.sweep()
    assert first is not None
    await level.write([Entry(key, b"v", 3600) for key in keys_of("once", 3)])
    assert await other.sweep() == first
    clock.now += SWEEP_SECONDS + 1
    later = await other.sweep()
    assert later is not None
    assert later.entries == first.entries + 3


@databases
async def test_a_table_that_is_too_large_loses_what_ends_first(
    make_level: MakeLevel, clock: Clock
) -> None:
    """A sweep brings the table below its bound, and what was to stay longest stays."""
    level = make_level()
    await level.open()
    early, late = keys_of("early", 30), keys_of("late", 20)
    value = b"v" * (MAX_BYTES // 40)
    for keys, ttl_seconds in ((early, 2000.0), (late, 80_000.0)):
        for begin in range(0, len(keys), 10):
            await level.write([Entry(k, value, ttl_seconds) for k in keys[begin : begin + 10]])
    clock.now += SWEEP_SECONDS + 1
    contents = await level.sweep()
    assert contents is not None
    assert contents.bytes <= MAX_BYTES
    assert set(await level.read(late)) == set(late)
    left = len(await level.read(early))
    assert 0 < left < len(early)


@all_levels
async def test_a_lookup_of_many_keys_is_one_call(make_level: MakeLevel) -> None:
    """Any number of keys is looked up at once, known ones and unknown ones."""
    level = make_level()
    await level.open()
    keys = keys_of("lots", 64)
    await level.write([Entry(key, key, 60) for key in keys[::2]])
    assert await level.read(keys) == {key: key for key in keys[::2]}
    assert await level.read(keys[:1]) == {keys[0]: keys[0]}


@pytest.mark.parametrize("port_of", ["redis", "postgresql"])
async def test_what_is_wrong_is_said_without_the_password(port_of: str) -> None:
    """Nobody listens: the error tells so, and holds neither address nor password."""
    if port_of == "redis":
        level: Level = RedisLevel(
            "redis://u:hidden@127.0.0.1:1/0", connections=1, connect_seconds=1
        )
    else:
        url = "postgresql://u:hidden@127.0.0.1:1/d"
        level = SqlLevel(url, max_bytes=1, connections=1, connect_seconds=1)
    with pytest.raises(LevelError) as caught:
        await level.open()
    assert "hidden" not in str(caught.value)
    assert "127.0.0.1" not in str(caught.value)
    assert "Connection" in str(caught.value)
    await level.close()


async def test_redis_holds_values_under_a_prefix_with_their_time(redis: RedisServer) -> None:
    """Somebody who looks into Redis finds our keys by their prefix, and each of them ends."""
    level = RedisLevel(redis.url, connections=1, connect_seconds=5)
    (key,) = keys_of("prefix", 1)
    await level.write([Entry(key, b"v", 100)])
    try:
        left = await level._client.pttl(PREFIX + key.hex())
        assert 90_000 < left <= 100_000
    finally:
        await level.close()


async def test_a_wrong_password_of_the_database_is_told_as_such(postgresql: PostgresServer) -> None:
    """The reason names what the database said, by the kind of its error."""
    url = postgresql.url.replace("correct%20horse", "wrong")
    level = SqlLevel(url, max_bytes=1, connections=1, connect_seconds=5)
    with pytest.raises(LevelError, match="InvalidPassword"):
        await level.open()
    await level.close()


@pytest.mark.parametrize(
    "url",
    ["mysql://h/d", "sqlite://", "nothing", "postgresql://h", "postgresql://h/d?sslrootcert=x"],
)
def test_a_url_of_another_database_is_refused(url: str) -> None:
    """Only files of SQLite and databases of PostgreSQL are taken."""
    with pytest.raises(ValueError, match=r"expected|names no|not a URL|parameters other"):
        SqlLevel(url, max_bytes=1, connections=1, connect_seconds=1)
