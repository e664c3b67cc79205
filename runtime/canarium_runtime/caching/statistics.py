"""What the cache has to tell: counts for `/metrics`, states for `/health`."""

from dataclasses import dataclass

from canarium_api.metric_names import CacheLevel
from canarium_runtime.metrics import Histogram


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelStatistics:
    """One level since the start."""

    name: CacheLevel
    hits: int
    misses: int
    errors: int = 0
    """Lookups, batches of writes and sweeps that failed or took too long, and lookups that found what is no answer."""
    skipped: int = 0
    """Lookups that did not ask the level, since it was cut out or busy."""
    dropped: int = 0
    """Answers that were not written: too large, too many at a time, or the level was cut out."""
    entries: int | None = None
    """Answers that it holds; None: not known."""
    bytes: int | None = None
    """What they take; None: not known."""
    up: bool = True
    """False: it is cut out, and asked again from time to time."""
    reason: str = ""
    """Why it is cut out."""
    duration: Histogram | None = None
    """Seconds of one lookup; None for the memory, which takes no time worth measuring."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStatistics:
    """The whole cache since the start."""

    levels: tuple[LevelStatistics, ...]
    joined: int
    """Requests that shared the run of an equal one."""
