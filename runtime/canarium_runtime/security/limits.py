"""Rates of clients: the arithmetic, and a bounded set of buckets. No clock, no IO.

A bucket holds one number, the instant at which it will be full again (the generic cell rate algorithm): that is a
token bucket without tokens to refill. With rate r and burst b, t seconds let in at most b + r * t requests.
Worked example: 2 a second, burst 3. At second 10, three requests are let in, and the bucket is full again at 11.5. A
fourth at 10 must wait until it would be full within one second: 0.5 seconds.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

UNDECIDED: Final = -1.0
"""It must be asked for elsewhere first whether the request is let in."""
_LOOKS: Final = 32
"""Buckets that are looked at to find one that can be forgotten without loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A rate."""

    rate: float
    """Requests a second, over time."""
    burst: int
    """Requests at once, after a rest; at least 1."""

    def shared_by(self, servers: int) -> "Limit":
        """Give one server's share."""
        return Limit(rate=self.rate / servers, burst=max(1, math.floor(self.burst / servers)))


class Rate(Protocol):
    """The rate of one client."""

    def take(self, now: float) -> float:
        """Count a request at `now` (seconds, monotonic): 0.0 lets it in, more are the seconds to wait, and UNDECIDED
        means that it is not known yet.
        """

    def rests(self, now: float) -> bool:
        """Whether forgetting it loses nothing, as it is full like a new one."""


class Bucket:
    """The rate of one client in this server."""

    __slots__ = ("_full_at", "_interval", "_slack")

    def __init__(self, limit: Limit) -> None:
        self._interval = 1.0 / limit.rate
        self._slack = (limit.burst - 1) * self._interval
        self._full_at = -math.inf

    def take(self, now: float) -> float:
        """See `Rate`; never UNDECIDED."""
        full_at = self._full_at
        if full_at <= now:
            self._full_at = now + self._interval
            return 0.0
        wait = full_at - self._slack - now
        if wait > 0.0:
            return wait
        self._full_at = full_at + self._interval
        return 0.0

    def rests(self, now: float) -> bool:
        """Whether it is full."""
        return self._full_at <= now


Kind = TypeVar("Kind", bound=Rate)


class Buckets(Generic[Kind]):
    """The buckets of many clients, at most so many. Those that rest are forgotten first, which loses nothing.

    Args:
        default: limit of clients that have none of their own; None: such clients are not limited.
        own: limits by client.
        most: clients remembered at most.
        make: makes a bucket for a client.
    """

    def __init__(
        self,
        default: Limit | None,
        own: Mapping[str, Limit],
        most: int,
        make: Callable[[str, Limit], Kind],
    ) -> None:
        self._default = default
        self._own = own
        self._most = most
        self._make = make
        self._buckets: dict[str, Kind] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    @property
    def by_name(self) -> Mapping[str, Kind]:
        """Buckets that there are, as they are; for a look-up without a call."""
        return self._buckets

    def of(self, name: str, now: float) -> Kind | None:
        """Give a client's bucket; None where it is not limited."""
        found = self._buckets.get(name)
        if found is not None:
            return found
        limit = self._own.get(name, self._default)
        if limit is None:
            return None
        if len(self._buckets) >= self._most:
            self._forget_one(now)
        made = self._buckets[name] = self._make(name, limit)
        return made

    def _forget_one(self, now: float) -> None:
        """Forget one that rests among the oldest, else the oldest. Those that are busy go to the end of the line."""
        buckets = self._buckets
        first = next(iter(buckets))
        for _ in range(min(_LOOKS, len(buckets))):
            name = next(iter(buckets))
            bucket = buckets.pop(name)
            if bucket.rests(now):
                return
            buckets[name] = bucket
        del buckets[first]
