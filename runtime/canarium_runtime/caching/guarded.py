"""`GuardedLevel`: a level that can cost a request some time and nothing else.

- A lookup ends after `timeout_seconds`, come what may (`lookups`, `calls`).
- After some failures in a row a breaker cuts the level out: lookups skip it at once. No request pays for finding out
  whether it is back; a task of its own does, with more time to connect.
- Writes wait in a bounded queue (`writes`), and go out in batches by a task of its own. What does not fit is dropped.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar

from canarium_api.metric_names import DURATION_BUCKETS, CacheLevel
from canarium_runtime.backends.base import Array
from canarium_runtime.caching import codec
from canarium_runtime.caching.calls import Calls
from canarium_runtime.caching.codec import Answer
from canarium_runtime.caching.levels import Contents, Entry, Level, LevelError
from canarium_runtime.caching.lookups import READS_AT_ONCE, Found, Lookups, Unknown
from canarium_runtime.caching.statistics import LevelStatistics
from canarium_runtime.caching.writes import Write, WriteQueue
from canarium_runtime.metrics import Histogram
from canarium_runtime.resilience.breaker import Breaker, BreakerPolicy, BreakerState

_log = logging.getLogger(__name__)

T = TypeVar("T")

CONNECTIONS: Final = READS_AT_ONCE + 2
"""Lookups, a batch of writes, and a sweep."""
CONNECT_SECONDS: Final = 2.0
"""Longest time to connect and to see that the level answers; no request waits for it."""
_WRITE_SECONDS: Final = 2.0
_SWEEP_SECONDS: Final = 30.0
_SWEEP_TIMEOUT_SECONDS: Final = 60.0
_CLOSE_SECONDS: Final = 2.0
"""How long `close` lets waiting writes go out, and again connections close."""
POLICY: Final = BreakerPolicy(failures=3, first_pause_seconds=0.5, longest_pause_seconds=30.0)


class GuardedLevel:
    """See the module. Call on the event loop.

    Args:
        name: which level it is.
        level: what it guards.
        ttl_seconds: how long a value is kept.
        timeout_seconds: longest time that a lookup may take.
        policy: of the breaker.
        wall_clock: seconds since 1970.
    """

    def __init__(
        self,
        name: CacheLevel,
        level: Level,
        *,
        ttl_seconds: float,
        timeout_seconds: float,
        policy: BreakerPolicy = POLICY,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.ttl_seconds = ttl_seconds
        self._level = level
        self._timeout_seconds = timeout_seconds
        self._wall_clock = wall_clock
        self._breaker = Breaker(policy, random.random, self._state_changed)
        self._changed = asyncio.Event()
        self._told = ""
        self._calls = Calls()
        self._lookups = Lookups(self._fetch, timeout_seconds)
        self._writes = WriteQueue()
        self._tasks: list[asyncio.Task[None]] = []
        self._started = False
        self._contents: Contents | None = None
        self._hits = self._misses = self._errors = self._skipped = 0
        self.dropped = 0
        """Answers that were not written."""
        self._duration = Histogram(DURATION_BUCKETS)

    @property
    def up(self) -> bool:
        """Whether it is asked."""
        return self._started and self._breaker.state is BreakerState.CLOSED

    def statistics(self) -> LevelStatistics:
        """Give counts and state."""
        up = self._breaker.state is BreakerState.CLOSED
        return LevelStatistics(
            name=self.name,
            hits=self._hits,
            misses=self._misses,
            errors=self._errors,
            skipped=self._skipped,
            dropped=self.dropped + self._writes.dropped,
            entries=self._contents.entries if self._contents else None,
            bytes=self._contents.bytes if self._contents else None,
            up=up,
            reason="" if up else self._breaker.reason,
            duration=self._duration,
        )

    async def start(self) -> None:
        """Connect, and begin to write and to look after it; a level that does not answer is cut out at first."""
        if self._tasks:
            return
        await self._probe()
        self._started = True
        work = (self._look_after(), self._write(), self._sweep())
        self._tasks = [asyncio.create_task(each) for each in work]
        for task in self._tasks:
            task.add_done_callback(_report)

    async def close(self) -> None:
        """Let waiting writes go out, for a moment, and let the level go."""
        if self.up:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._writes.drained()
        self._started = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._lookups.close()
        try:
            await self._calls.bounded(self._level.close(), _CLOSE_SECONDS)
        except LevelError as error:
            _log.info("closing a level of the cache failed", extra=self._about(error.reason))
        if self._calls.abandoned:
            await asyncio.wait(self._calls.abandoned, timeout=_CLOSE_SECONDS)

    # --- lookups

    async def read(self, key: bytes) -> Answer | None:
        """Look an answer up; None: it is not there, or the level does not tell in time. Never raises."""
        if not self.up:
            self._skipped += 1
            return None
        started = time.perf_counter()
        found = await self._lookups.find(key)
        if found is not Unknown.SKIPPED:
            self._duration.observe(time.perf_counter() - started)
        return self._counted(key, found)

    def _counted(self, key: bytes, found: Found) -> Answer | None:
        """Count a lookup, in exactly one way, and read what it found."""
        if found is None:
            self._misses += 1
            return None
        if found is Unknown.SKIPPED:
            self._skipped += 1
            return None
        if found is Unknown.FAILED:
            self._errors += 1
            return None
        try:
            answer = codec.decode(key, found)
        except codec.CodecError as error:
            # The level is alive and what it holds is wrong: no answer, and the next write puts it right.
            self._errors += 1
            _log.warning("the cache holds what is no answer", extra=self._about(str(error)))
            return None
        if answer.expires_at <= self._wall_clock():
            self._misses += 1
            return None
        self._hits += 1
        return answer

    async def _fetch(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes] | None:
        return await self._asked(self._level.read(keys), self._timeout_seconds)

    async def _asked(self, call: Coroutine[Any, Any, T], timeout_seconds: float) -> T | None:
        """Make a call if the breaker lets it through, and tell it how that ended; None: it failed."""
        ticket = self._breaker.admit(time.monotonic()) if self.up else None
        if ticket is None:
            call.close()
            return None
        try:
            result = await self._calls.bounded(call, timeout_seconds)
        except LevelError as error:
            self._breaker.failed(ticket, time.monotonic(), error.reason)
            return None
        self._breaker.succeeded(ticket, time.monotonic())
        return result

    # --- writes

    def write(
        self, key: bytes, answer: Sequence[Array] | bytes, size_bytes: int, expires_at: float
    ) -> None:
        """Take an answer to be written. Never waits; drops it while the level is cut out or too much waits.

        Args:
            key: of the request.
            answer: arrays that nobody changes, or what `codec.encode` made of them.
            size_bytes: about how much memory they take.
            expires_at: seconds since 1970 from which it must not be used.
        """
        if self.up:
            self._writes.put(key, answer, size_bytes, expires_at)
        else:
            self.dropped += 1

    async def _write(self) -> None:
        while True:
            batch = await self._writes.batch()
            now = self._wall_clock()
            entries = [entry for write in batch if (entry := self._entry(write, now)) is not None]
            if entries and not await self._asked(self._acknowledged(entries), _WRITE_SECONDS):
                self._errors += 1
                self.dropped += len(entries)
            self._writes.done()

    def _entry(self, write: Write, now: float) -> Entry | None:
        key, answer, expires_at = write
        ttl_seconds = min(self.ttl_seconds, expires_at - now)
        if ttl_seconds <= 0:
            return None
        if isinstance(answer, bytes):
            return Entry(key, answer, ttl_seconds)
        try:
            return Entry(key, codec.encode(key, answer, expires_at), ttl_seconds)
        except codec.CodecError as error:
            self.dropped += 1
            _log.debug("an answer cannot be written", extra=self._about(str(error)))
            return None

    async def _acknowledged(self, entries: Sequence[Entry]) -> bool:
        await self._level.write(entries)
        return True

    # --- looking after it

    def _state_changed(self, state: BreakerState) -> None:
        self._changed.set()
        if state is BreakerState.OPEN:
            self._lookups.release()
        up, reason = state is BreakerState.CLOSED, self._breaker.reason
        if state is BreakerState.HALF_OPEN or (not up and reason == self._told):
            return  # a reason is told once, not after each probe
        self._told = "" if up else reason
        if up:
            _log.info("a level of the cache answers again", extra=self._about(""))
        else:
            _log.warning("a level of the cache is cut out", extra=self._about(reason))

    async def _look_after(self) -> None:
        """Find out whether it is back while it does not answer."""
        while True:
            self._changed.clear()
            wait = None if self.up else self._breaker.retry_at - time.monotonic()
            if wait is None or wait > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._changed.wait()
            else:
                await self._probe()

    async def _sweep(self) -> None:
        while True:
            if self.up:
                await self._swept()
            await asyncio.sleep(_SWEEP_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311 - no secret

    async def _swept(self) -> None:
        try:
            self._contents = await self._calls.bounded(self._level.sweep(), _SWEEP_TIMEOUT_SECONDS)
        except LevelError as error:
            # Slow housekeeping does not make lookups slow, so the breaker is not told.
            self._errors += 1
            _log.warning("sweeping a level of the cache failed", extra=self._about(error.reason))

    async def _probe(self) -> None:
        ticket = self._breaker.admit(time.monotonic())
        if ticket is None:
            return
        try:
            await self._calls.bounded(self._level.open(), CONNECT_SECONDS)
        except LevelError as error:
            self._breaker.failed(ticket, time.monotonic(), error.reason)
            self._breaker.trip(
                time.monotonic(), error.reason
            )  # the first look, before anybody asked
        else:
            self._breaker.succeeded(ticket, time.monotonic())

    def _about(self, reason: str) -> dict[str, str]:
        return {"level": self.name.value, "reason": reason}


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("a task of the cache ended in this server itself", exc_info=error)
