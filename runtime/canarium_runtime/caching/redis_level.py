"""`RedisLevel`: a server that speaks Redis' protocol (Redis, Valkey, Dragonfly, KeyDB). Needs the package `redis`.

Values expire by themselves, and what is too much is the server's own affair: give it `maxmemory` and a policy such as
`allkeys-lru`. A cluster of Redis is not supported, since keys are read many at a time.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from canarium_runtime.caching.levels import Contents, Entry, LevelError

PREFIX: Final = "canarium:answer:"


class RedisLevel:
    """See the module.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        connections: how many calls run at once.
        connect_seconds: longest time to connect.

    Raises:
        ValueError: the URL cannot be read.
    """

    def __init__(self, url: str, *, connections: int, connect_seconds: float) -> None:
        self._connections = connections
        self._client = Redis.from_url(
            url,
            # Those that are being given up after a timeout still count.
            max_connections=2 * connections,
            socket_connect_timeout=connect_seconds,
            socket_keepalive=True,
            retry=Retry(NoBackoff(), 0),  # the caller's time is short, and the breaker decides
            client_name="canarium",
        )

    async def open(self) -> None:
        """Ask for as many pings at once as there shall be connections."""
        results = await asyncio.gather(
            *(self._ping() for _ in range(self._connections)), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _ping(self) -> None:
        try:
            await self._client.ping()
        except (RedisError, OSError) as error:
            raise _translated(error) from error

    async def read(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """MGET."""
        try:
            values = await self._client.mget([_name(key) for key in keys])
        except (RedisError, OSError) as error:
            raise _translated(error) from error
        return {k: v for k, v in zip(keys, values, strict=True) if isinstance(v, bytes)}

    async def write(self, entries: Sequence[Entry]) -> None:
        """SET with PX, all in one go."""
        try:
            async with self._client.pipeline(transaction=False) as pipeline:
                for entry in entries:
                    pipeline.set(
                        _name(entry.key), entry.value, px=max(1, int(entry.ttl_seconds * 1000))
                    )
                await pipeline.execute()
        except (RedisError, OSError) as error:
            raise _translated(error) from error

    async def sweep(self) -> Contents | None:
        """Do nothing: Redis forgets by itself."""
        return None

    async def close(self) -> None:
        """Close all connections."""
        try:
            await self._client.aclose()
        except (RedisError, OSError) as error:
            raise _translated(error) from error


def _name(key: bytes) -> str:
    return PREFIX + key.hex()


def _translated(error: Exception) -> LevelError:
    """Say what went wrong without the library's words, which hold the address."""
    return LevelError(f"Redis: {type(error).__name__}")
