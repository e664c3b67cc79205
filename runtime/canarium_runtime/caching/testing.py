"""A level for tests that is in memory, and can be told to fail, to hang and to lie."""

import asyncio
import time
from collections.abc import Mapping, Sequence

from canarium_runtime.caching.levels import Contents, Entry, LevelError


class FakeLevel:
    """Keeps the contract of `Level`; the same suite runs against it and against the real ones.

    Args:
        store: values and when they end; shared by those that stand for servers with one store.
    """

    def __init__(self, store: dict[bytes, tuple[bytes, float]] | None = None) -> None:
        self.store = store if store is not None else {}
        self.broken = False
        """Whether every call fails."""
        self.hanging: asyncio.Event | None = None
        """Calls wait for it."""
        self.deaf = False
        """Whether calls that hang do not end when they are cancelled."""
        self.opened = 0
        self.reads: list[int] = []
        """Number of keys of each lookup."""
        self.writes: list[int] = []
        """Number of entries of each write."""
        self.closed = False

    async def open(self) -> None:
        """Connect."""
        await self._called()
        self.opened += 1

    async def read(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """Look up."""
        self.reads.append(len(keys))
        await self._called()
        now = time.time()
        return {k: self.store[k][0] for k in keys if k in self.store and self.store[k][1] > now}

    async def write(self, entries: Sequence[Entry]) -> None:
        """Keep."""
        self.writes.append(len(entries))
        await self._called()
        now = time.time()
        self.store.update({e.key: (e.value, now + e.ttl_seconds) for e in entries})

    async def sweep(self) -> Contents | None:
        """Count."""
        await self._called()
        return Contents(len(self.store), sum(len(value) for value, _ in self.store.values()))

    async def close(self) -> None:
        """Note it."""
        self.closed = True

    async def _called(self) -> None:
        hanging = self.hanging
        while hanging is not None and not hanging.is_set():
            try:
                await hanging.wait()
            except asyncio.CancelledError:
                if not self.deaf:
                    raise
        if self.broken:
            msg = "fake: broken"
            raise LevelError(msg)
