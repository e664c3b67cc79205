"""`Lookups`: keys that are asked for one by one, fetched many at a time.

What is asked for in the same turn of the loop, or while fetches run, goes out together. So a hundred requests cost a
level two or three calls, and this process two or three tasks.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import Enum
from typing import Final

READS_AT_ONCE: Final = 2
_KEYS_AT_ONCE: Final = 64
MAX_WAITING: Final = 4096
"""Most lookups that wait; above it they skip the level."""


class Unknown(Enum):
    """Why a lookup cannot say whether the level has a value."""

    FAILED = "failed"
    SKIPPED = "skipped"


Found = bytes | Unknown | None
"""None: the level does not have it."""
Fetch = Callable[[Sequence[bytes]], Awaitable[Mapping[bytes, bytes] | None]]
"""Gives what is there, or None if that failed; never raises."""


class Lookups:
    """See the module. Call on the event loop.

    Args:
        fetch: asks the level.
        timeout_seconds: longest time that one lookup takes.
    """

    def __init__(self, fetch: Fetch, timeout_seconds: float) -> None:
        self._fetch = fetch
        self._timeout_seconds = timeout_seconds
        self._waiting: deque[tuple[bytes, asyncio.Future[Found]]] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._scheduled = False
        self._closed = False

    async def find(self, key: bytes) -> Found:
        """Look a key up, within the timeout."""
        if self._closed or len(self._waiting) >= MAX_WAITING:
            return Unknown.SKIPPED
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Found] = loop.create_future()
        self._waiting.append((key, future))
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._start)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await future
        except TimeoutError:
            return Unknown.FAILED

    def release(self) -> None:
        """Let all who wait for a fetch go on without."""
        while self._waiting:
            _settle(self._waiting.popleft()[1], Unknown.SKIPPED)

    async def close(self) -> None:
        """End what runs; later lookups are skipped."""
        self._closed = True
        self.release()
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _start(self) -> None:
        """Start fetches while something waits and not enough of them run."""
        self._scheduled = False
        while self._waiting and len(self._running) < READS_AT_ONCE:
            count = min(_KEYS_AT_ONCE, len(self._waiting))
            taken = [self._waiting.popleft() for _ in range(count)]
            wanted = [(key, future) for key, future in taken if not future.done()]
            if wanted:
                task = asyncio.create_task(self._run(wanted))
                self._running.add(task)
                task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not self._closed:
            self._start()

    async def _run(self, wanted: Sequence[tuple[bytes, asyncio.Future[Found]]]) -> None:
        found: Mapping[bytes, bytes] | None = None
        try:
            found = await self._fetch(list(dict.fromkeys(key for key, _ in wanted)))
        finally:
            for key, future in wanted:
                _settle(future, found.get(key) if found is not None else Unknown.FAILED)


def _settle(future: asyncio.Future[Found], value: Found) -> None:
    if not future.done():
        future.set_result(value)
