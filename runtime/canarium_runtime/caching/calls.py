"""`Calls`: calls that end in time, even if what is called does not end when it is cancelled."""

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from canarium_runtime.caching.levels import LevelError

_log = logging.getLogger(__name__)

T = TypeVar("T")

_STALLED: Final = 1.2
_GRACE: Final = 0.2
MAX_ABANDONED: Final = 16
"""Most calls that were given up and still hang; while there are so many, no other is made."""


class Calls:
    """Makes calls to one level, and keeps those that were given up until they end."""

    def __init__(self) -> None:
        self._abandoned: set[asyncio.Task[Any]] = set()

    @property
    def abandoned(self) -> frozenset[asyncio.Task[Any]]:
        """Calls that were given up and have not ended."""
        return frozenset(self._abandoned)

    async def bounded(self, call: Coroutine[Any, Any, T], timeout_seconds: float) -> T:
        """Await a call, no longer than that.

        Raises:
            LevelError: it failed, in whatever way, or took too long.
        """
        if len(self._abandoned) >= MAX_ABANDONED:
            call.close()
            msg = f"{MAX_ABANDONED} earlier calls still hang"
            raise LevelError(msg)
        task = asyncio.create_task(call)
        started = time.monotonic()
        try:
            await asyncio.wait((task,), timeout=timeout_seconds)
            if not task.done() and time.monotonic() - started > _STALLED * timeout_seconds:
                # This process was busy and not the level: its answer may have come and wait to be read.
                await asyncio.wait((task,), timeout=timeout_seconds * _GRACE)
        except asyncio.CancelledError:
            self._abandon(task)
            raise
        if not task.done():
            self._abandon(task)
            msg = f"no answer within {timeout_seconds * 1000:.0f} ms"
            raise LevelError(msg)
        return _result(task)

    def _abandon(self, task: asyncio.Task[Any]) -> None:
        self._abandoned.add(task)
        task.add_done_callback(self._ended)
        task.cancel()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._abandoned.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, so that nobody complains that it was not


def _result(task: asyncio.Task[T]) -> T:
    try:
        return task.result()
    except LevelError:
        raise
    except asyncio.CancelledError:
        msg = "the connection was given up"
        raise LevelError(msg) from None
    except Exception as error:
        # A library's surprise must not become a request's: the cache never fails.
        _log.exception("a level of the cache failed in this server itself")
        msg = f"{type(error).__name__} in this server"
        raise LevelError(msg) from error
