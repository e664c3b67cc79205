"""Limits that several servers share, with a real Redis that also dies and comes back."""

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis

from canarium_api.runtime_config import RuntimeConfig
from canarium_runtime.errors import ErrorKind, ServingError
from canarium_runtime.security import Client, Credentials, Guard
from canarium_runtime.security.shared import LEASE

FROM = Credentials(address="10.0.0.7")


class RedisServer:
    """A Redis of this test's own on the loopback."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = int(listener.getsockname()[1])
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url, decode_responses=True)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        program = shutil.which("redis-server")
        if program is None:
            pytest.fail("redis-server is missing: install the Debian package redis-server")
        self._process = subprocess.Popen(
            [program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""],
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
        )
        ends = time.monotonic() + 20
        while time.monotonic() < ends:
            try:
                self.client.ping()
            except redis.ConnectionError:
                time.sleep(0.01)
            else:
                return
        pytest.fail("redis-server does not answer")

    def stop(self) -> None:
        """End it, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def server(running: RedisServer) -> RedisServer:
    running.client.flushall()
    return running


@asynccontextmanager
async def guards(url: str, number: int, rate: float, burst: int) -> AsyncIterator[list[Guard]]:
    """Servers that share a limit."""
    config = RuntimeConfig(
        model_uri="file:///m", rate_limit=rate, rate_limit_burst=burst, rate_limit_redis_url=url
    )
    made = [Guard(config, deployment="ml/fraud") for _ in range(number)]
    for guard in made:
        await guard.start()
    try:
        yield made
    finally:
        for guard in made:
            await guard.close()


async def asks(guard: Guard) -> Client | None:
    """One request, which waits for a lease where it must; None: too often."""
    try:
        return guard.admit(FROM) or await guard.admit_later(FROM)
    except ServingError as error:
        if error.kind is not ErrorKind.RATE_LIMITED or not error.retry_after_seconds:
            raise
        return None


async def until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < ends
        await asyncio.sleep(0.01)


async def test_servers_together_let_in_no_more_than_one_would(server: RedisServer) -> None:
    """World: three servers, burst 20, next to no rate; event: 30 requests at each at once."""
    async with guards(server.url, 3, rate=0.1, burst=20) as made:
        answers = await asyncio.gather(*(asks(guard) for guard in made for _ in range(30)))
        assert sum(client is not None for client in answers) == 20
        assert sum(guard.counts.limited for guard in made) == 70
        assert all(guard.counts.shared for guard in made)


async def test_over_time_servers_together_keep_the_rate(server: RedisServer) -> None:
    """World: two servers, 200 a second, burst 20; event: both are asked as fast as can be for a second or two."""
    async with guards(server.url, 2, rate=200, burst=20) as made:
        began = time.monotonic()

        async def flood(guard: Guard) -> int:
            admitted = 0
            while time.monotonic() - began < 1.5:
                admitted += await asks(guard) is not None
                await asyncio.sleep(0)
            return admitted

        total = sum(await asyncio.gather(*map(flood, made)))
        span = time.monotonic() - began
        assert total <= 20 + 200 * span + 1
        # Nothing that is granted is lost on the way; a busy machine may take its time.
        assert total >= 100


async def test_after_the_first_request_none_waits(server: RedisServer) -> None:
    """World: a lease of 100; events: requests at a quarter of the rate; each is answered at once."""
    async with guards(server.url, 1, rate=1000, burst=1000) as (guard,):
        assert guard.admit(FROM) is None
        await guard.admit_later(FROM)
        for _ in range(200):
            assert guard.admit(FROM) is not None
            await until(lambda: guard._buckets.of("address:10.0.0.7", 0).tokens > 50)  # type: ignore[union-attr]


async def test_a_lease_that_is_not_used_is_given_back(server: RedisServer) -> None:
    """World: a server has leased all there is and uses one; event: two seconds; another server gets the rest."""
    async with guards(server.url, 2, rate=0.01, burst=10) as (first, second):
        assert await asks(first)
        bucket = first._buckets.of("address:10.0.0.7", 0)  # type: ignore[union-attr]
        bucket.chunk = 9
        for _ in range(2):
            assert await asks(first)
        held = bucket.tokens
        assert held > 0
        await until(lambda: bucket.tokens == 0)
        answers = [await asks(second) for _ in range(10)]
        assert sum(client is not None for client in answers) == 10 - 3


async def test_without_redis_each_server_allows_its_share(server: RedisServer) -> None:
    """World: two servers that have met; events: Redis dies, and comes back."""
    async with guards(server.url, 2, rate=0.1, burst=10) as made:
        for guard in made:
            await asks(guard)
        await until(lambda: all(guard._shared.servers == 2 for guard in made))  # type: ignore[union-attr]
        server.stop()
        try:
            async with asyncio.timeout(60):  # each is answered; how soon is the machine's affair
                answers = await asyncio.gather(*(asks(guard) for guard in made for _ in range(10)))
            await until(lambda: not any(guard.counts.shared for guard in made))
            # A burst of 10 by two is 5 for each, besides what was leased before.
            assert 10 <= sum(client is not None for client in answers) <= 12
            assert "allows 1/2 of each limit" in made[0].problems()["rate_limits"]
            assert "127.0.0.1" not in made[0].problems()["rate_limits"]
        finally:
            server.start()
        await until(lambda: all(guard.counts.shared for guard in made))
        assert made[0].problems() == {}


async def test_a_redis_that_was_never_there_costs_no_request_its_answer() -> None:
    """World: nobody listens; the whole limit holds, as no other server is known."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with guards(f"redis://127.0.0.1:{port}", 1, rate=0.1, burst=3) as (guard,):
        async with asyncio.timeout(60):  # each is answered; how soon is the machine's affair
            answers = [await asks(guard) for _ in range(5)]
        assert [client is not None for client in answers] == [True] * 3 + [False] * 2


def test_the_script_grants_what_the_bucket_would(server: RedisServer) -> None:
    """World: burst 5 and a rate that does not matter; events: leases and one that is given back."""
    lease = server.client.register_script(LEASE)

    def ask(number: int) -> list[int]:
        return lease(keys=["k"], args=["100", "5", str(number)])  # type: ignore[no-any-return]

    assert ask(3)[0] == 3
    granted, wait = ask(3)
    assert (granted, wait > 0) == (2, True)
    assert ask(1)[0] == 0
    assert ask(-2)[0] == -2
    assert ask(5)[0] == 2
    assert 99e6 < ask(1)[1] <= 100e6
    assert ask(-50)[0] == -50
    assert ask(50)[0] == 5
    assert server.client.pttl("k") > 0
