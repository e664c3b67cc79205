"""`ResponseCache`: answers that were given before, in up to three levels.

    key = cache.key(inputs)
    outputs = cache.get(key)                              the memory alone; never waits
    if outputs is None and cache.has_levels_below:
        outputs = await cache.get_below(key)              Redis, then the database; never raises
    if outputs is None:
        outputs = ... run the model ...
        cache.put(key, outputs)                           the memory now, the others soon

What a lower level has is put into those above it. No answer is used for longer than the longest of the levels' times
after it was computed, however often it moves up. Call from the event loop's thread.
"""

import asyncio
import copy
import time
from collections.abc import Callable, Sequence

from canarium_api.metric_names import CacheLevel
from canarium_runtime.backends.base import Array
from canarium_runtime.batching.merge import Outputs
from canarium_runtime.caching.flights import SingleFlight
from canarium_runtime.caching.guarded import GuardedLevel
from canarium_runtime.caching.keys import Keys
from canarium_runtime.caching.memory import MemoryLevel, NotCacheableError, frozen, size_bytes
from canarium_runtime.caching.statistics import CacheStatistics, LevelStatistics
from canarium_runtime.errors import ServingError
from canarium_runtime.validation import ValidatedInputs

Outcome = Outputs | ServingError
"""What a flight ends with, as the batcher gives it: the answer, or the error that each of its requests gets."""


class ResponseCache:
    """See the module.

    Args:
        identity: everything that decides an answer but the input.
        memory: first level; None: off.
        below: further levels, in the order in which they are asked.
        flight_seconds: longest time that a run can take; see `SingleFlight`.
        wall_clock: seconds since 1970.
    """

    def __init__(
        self,
        identity: Sequence[str],
        memory: MemoryLevel | None,
        below: Sequence[GuardedLevel] = (),
        *,
        flight_seconds: float = 60.0,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.key: Callable[[ValidatedInputs], bytes] = Keys(identity).of
        """Give the key of a request."""
        self.flights: SingleFlight[Outcome] = SingleFlight(flight_seconds)
        """Equal requests in the air."""
        self.has_levels_below = bool(below)
        """Whether `get_below` can find anything."""
        self._memory = memory
        self._below = tuple(below)
        self._wall_clock = wall_clock
        self._longest_seconds = max(
            [
                memory.ttl_seconds if memory is not None else 0.0,
                *(level.ttl_seconds for level in below),
            ]
        )

    def for_model(self, identity: Sequence[str]) -> "ResponseCache":
        """Give the cache of another model of this server: the same levels, bounds and counts, and keys of its own.

        Start and close one of them alone.
        """
        other = copy.copy(self)
        other.key = Keys(identity).of
        return other

    def get(self, key: bytes) -> Sequence[Array] | None:
        """Look into the memory. The arrays are read-only."""
        return self._memory.get(key) if self._memory is not None else None

    async def get_below(self, key: bytes) -> Sequence[Array] | None:
        """Ask the further levels, each for a short time at most, and keep in those above it what one has.

        Never raises. The arrays are read-only.
        """
        for depth, level in enumerate(self._below):
            answer = await level.read(key)
            if answer is None:
                continue
            if self._memory is not None:
                good_for = answer.expires_at - self._wall_clock()
                self._memory.put(key, answer.outputs, good_for)
            for above in self._below[:depth]:
                above.write(key, answer.value, len(answer.value), answer.expires_at)
            return answer.outputs
        return None

    def put(self, key: bytes, outputs: Sequence[Array]) -> None:
        """Keep an answer: copies of it, so the caller may do with the arrays what it likes."""
        try:
            kept = frozen(outputs)
        except NotCacheableError:
            for level in (self._memory, *self._below):
                if level is not None:
                    level.dropped += 1
            return
        if self._memory is not None:
            self._memory.put(key, kept)
        if self._below:
            size = size_bytes(kept)
            expires_at = self._wall_clock() + self._longest_seconds
            for level in self._below:
                level.write(key, kept, size, expires_at)

    async def start(self) -> None:
        """Connect to the further levels; those that do not answer are cut out until they do. Never raises."""
        await asyncio.gather(*(level.start() for level in self._below))

    async def close(self) -> None:
        """Write what waits, for a moment, and let the levels go."""
        await asyncio.gather(*(level.close() for level in self._below))

    def statistics(self) -> CacheStatistics:
        """Give counts and states of all levels."""
        levels = [level.statistics() for level in self._below]
        if self._memory is not None:
            memory = self._memory
            levels.insert(
                0,
                LevelStatistics(
                    name=CacheLevel.MEMORY,
                    hits=memory.hits,
                    misses=memory.misses,
                    dropped=memory.dropped,
                    entries=len(memory),
                    bytes=memory.bytes,
                ),
            )
        return CacheStatistics(levels=tuple(levels), joined=self.flights.joined)
