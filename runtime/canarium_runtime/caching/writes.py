"""`WriteQueue`: answers on their way to a level, bounded in number and bytes. Putting never waits; what is too much is
dropped, since an answer that is not cached is only computed again.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from canarium_runtime.backends.base import Array

Write = tuple[bytes, Sequence[Array] | bytes, float]
"""Key, answer, and the instant from which it must not be used."""
MAX_ENTRIES: Final = 4096
MAX_BYTES: Final = 32 << 20
"""Of all that waits."""
LARGEST_BYTES: Final = 4 << 20
"""Of one answer."""
BATCH_ENTRIES: Final = 64
BATCH_BYTES: Final = 1 << 20
"""A batch ends with the entry that reaches this."""


class WriteQueue:
    """See the module."""

    def __init__(self) -> None:
        self._items: deque[tuple[Write, int]] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.dropped = 0
        """Answers that found no place."""

    def __len__(self) -> int:
        """Answers that wait."""
        return len(self._items)

    def put(
        self, key: bytes, outputs: Sequence[Array] | bytes, size_bytes: int, expires_at: float
    ) -> None:
        """Put an answer at the end, or drop it."""
        if (
            size_bytes > LARGEST_BYTES
            or len(self._items) >= MAX_ENTRIES
            or self._bytes + size_bytes > MAX_BYTES
        ):
            self.dropped += 1
            return
        self._items.append(((key, outputs, expires_at), size_bytes))
        self._bytes += size_bytes
        if len(self._items) == 1:
            self._filled.set()
            self._idle.clear()

    async def batch(self) -> list[Write]:
        """Wait for answers and take the first few. Call `done` before the next."""
        while not self._items:
            self._filled.clear()
            await self._filled.wait()
        taken: list[Write] = []
        total = 0
        while self._items and len(taken) < BATCH_ENTRIES and total < BATCH_BYTES:
            write, size = self._items.popleft()
            taken.append(write)
            total += size
        self._bytes -= total
        return taken

    def done(self) -> None:
        """Say that the batch is written, or lost."""
        if not self._items:
            self._idle.set()

    async def drained(self) -> None:
        """Wait until all that was put is written, or lost."""
        await self._idle.wait()
