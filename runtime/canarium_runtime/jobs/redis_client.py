"""The connection to Redis: opened from a file with its URL, errors translated."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from redis import asyncio as redis_asyncio
from redis.exceptions import RedisError, WatchError

from canarium_runtime.jobs.errors import StoreError

_SOCKET_TIMEOUT_SECONDS: Final = 15.0
"""Longer than any read that waits (`queue.BLOCK_SECONDS`)."""
_CONNECT_TIMEOUT_SECONDS: Final = 5.0
_MAX_CONNECTIONS: Final = 64
_CONFLICTS: Final = 100
"""Attempts at one transaction. Workers that finish chunks of the same job at the same moment meet here."""
_MAX_PAUSE_SECONDS: Final = 0.05

T = TypeVar("T")

Client = Any
"""`redis.asyncio.Redis`, whose own annotations say of every command that it may or may not be awaited."""


def connect(url_file: str) -> Client:
    """Prepare a client; nothing is sent yet.

    Args:
        url_file: file with the URL, which may hold a password.

    Raises:
        StoreError: the file cannot be read, or holds no such URL. The message does not quote it.
    """
    try:
        url = Path(url_file).read_text().strip()
    except OSError as error:
        msg = f"{url_file}, which should hold the URL of Redis, cannot be read: {error.strerror}"
        raise StoreError(msg) from error
    try:
        return redis_asyncio.Redis.from_url(
            url,
            socket_timeout=_SOCKET_TIMEOUT_SECONDS,
            socket_connect_timeout=_CONNECT_TIMEOUT_SECONDS,
            max_connections=_MAX_CONNECTIONS,
            health_check_interval=30,
        )
    except ValueError:
        msg = f"{url_file} holds no URL of Redis: write redis://HOST:PORT/0 or rediss://"
        raise StoreError(msg) from None


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn errors of the library into `StoreError`."""
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        msg = f"the jobs' Redis does not answer as it should ({type(error).__name__})"
        raise StoreError(msg) from error


async def transact(
    client: Client, watched: Sequence[str], body: Callable[[Any], Awaitable[T]]
) -> T:
    """Carry a transaction out, once nobody has changed what it rests on.

    Args:
        client: of Redis.
        watched: keys that `body` reads.
        body: reads, calls `multi`, queues its writes and gives the answer; asked again after a conflict.

    Raises:
        StoreError: Redis failed, or there were too many conflicts.
    """
    with translated():
        for _ in range(_CONFLICTS):
            async with client.pipeline(transaction=True) as pipe:
                if watched:
                    await pipe.watch(*watched)
                try:
                    answer = await body(pipe)
                    await pipe.execute()
                except WatchError:
                    await asyncio.sleep(random.uniform(0, _MAX_PAUSE_SECONDS))  # noqa: S311
                    continue
                return answer
    msg = f"others changed what was to be changed {_CONFLICTS} times meanwhile"
    raise StoreError(msg)
