"""`MemoryLevel`: the answers that this process keeps, at most so many bytes of them, the least recently used go first.

Call from the event loop's thread alone: nothing is locked, so looking up and putting cost about a microsecond.
"""

import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from canarium_runtime.backends.base import Array

ENTRY_BYTES: Final = 320
"""What an entry costs beside its arrays: its place in the dictionary, its key, its tuples. Measured, rounded up."""
ARRAY_BYTES: Final = 176
"""What an array costs beside its data. Measured, rounded up."""
_LARGEST_SHARE: Final = 8
"""An answer that is larger than an eighth of the level would drive out too much: it is not kept."""
_TEXTS: Final = frozenset({str, bytes})


class NotCacheableError(Exception):
    """An output has elements that somebody could change later."""


def frozen(outputs: Sequence[Array]) -> tuple[Array, ...]:
    """Copy arrays and make the copies read-only.

    Copies, since an answer is often a view of a whole batch's output, which it would keep alive.

    Raises:
        NotCacheableError: elements are neither numbers nor strings.
    """
    copies = []
    for array in outputs:
        if array.dtype.hasobject and not _TEXTS.issuperset(map(type, array.flat)):
            raise NotCacheableError
        copy = array.copy()
        copy.setflags(False)  # type: ignore[call-arg] # by position it takes half the time
        copies.append(copy)
    return tuple(copies)


def size_bytes(outputs: Sequence[Array]) -> int:
    """Say how much memory an answer takes, with all that belongs to its entry."""
    total = ENTRY_BYTES
    for array in outputs:
        total += ARRAY_BYTES + array.nbytes
        if array.dtype.hasobject:
            total += sum(map(sys.getsizeof, array.flat))
    return total


class MemoryLevel:
    """The first level.

    Args:
        max_bytes: most memory of all entries together.
        ttl_seconds: how long an answer is good for.
        clock: seconds that never go back.
    """

    __slots__ = (
        "_clock",
        "_entries",
        "_max_bytes",
        "bytes",
        "dropped",
        "hits",
        "misses",
        "ttl_seconds",
    )

    def __init__(
        self, max_bytes: int, ttl_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_bytes = max_bytes
        self.ttl_seconds = ttl_seconds
        self._clock = clock
        self._entries: OrderedDict[bytes, tuple[tuple[Array, ...], float, int]] = OrderedDict()
        self.bytes = 0
        self.hits = 0
        self.misses = 0
        self.dropped = 0
        """Answers that were too large to keep, or have elements that somebody could change."""

    def __len__(self) -> int:
        """Entries, those that are over included until they are asked for or driven out."""
        return len(self._entries)

    def get(self, key: bytes) -> tuple[Array, ...] | None:
        """Look an answer up."""
        entry = self._entries.get(key)
        if entry is None:
            self.misses += 1
            return None
        if entry[1] <= self._clock():
            self._forget(key)
            self.misses += 1
            return None
        self._entries.move_to_end(key)
        self.hits += 1
        return entry[0]

    def put(
        self, key: bytes, outputs: tuple[Array, ...], good_for_seconds: float = float("inf")
    ) -> None:
        """Keep an answer.

        Args:
            key: of the request.
            outputs: arrays that nobody changes; see `frozen`.
            good_for_seconds: if it is less than the level's own time.
        """
        size = size_bytes(outputs)
        if size * _LARGEST_SHARE > self._max_bytes:
            self.dropped += 1
            return
        entries = self._entries
        if key in entries:
            self._forget(key)
        entries[key] = (outputs, self._clock() + min(self.ttl_seconds, good_for_seconds), size)
        self.bytes += size
        while self.bytes > self._max_bytes:
            self.bytes -= entries.popitem(last=False)[1][2]

    def _forget(self, key: bytes) -> None:
        self.bytes -= self._entries.pop(key)[2]
