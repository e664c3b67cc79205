"""What a level outside of this process is to the cache: a few calls that may fail in one way only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


class LevelError(Exception):
    """A level did not do what it was asked.

    Args:
        reason: one sentence for people, which ends up in `/health` and logs: no address, no password.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Entry:
    """A value to write."""

    key: bytes
    value: bytes
    ttl_seconds: float
    """Above 0."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a level holds, as last counted."""

    entries: int
    bytes: int


class Level(Protocol):
    """Keeps bytes under keys until their time is over. Every call raises LevelError and nothing else, and may be
    cancelled at any moment.
    """

    async def open(self) -> None:
        """Connect as many times as calls may run at once, and see that it answers; called again after failures."""
        ...

    async def read(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """Give the values of those keys that are there and whose time is not over."""
        ...

    async def write(self, entries: Sequence[Entry]) -> None:
        """Keep values, in place of those under the same keys."""
        ...

    async def sweep(self) -> Contents | None:
        """Delete what is over and what is too much, a bounded part of it; None: the level does so itself."""
        ...

    async def close(self) -> None:
        """Let connections go."""
        ...
