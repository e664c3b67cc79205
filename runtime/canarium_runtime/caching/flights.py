"""`SingleFlight`: of equal requests that are in the air at the same time, one asks the model and all get its answer.

    if flights.join(key, done):     another leads: `done(outcome)` will be called once
        return
    ...                             we lead: run the model, and end with exactly one of
    flights.land(key, outcome)      everybody who joined gets this outcome
    flights.abandon(key)            the outcome is ours alone (our client left): the others must see for themselves

Who joined and does not want to wait any more: `flights.leave(key, done)`.

No task and no future: whoever joins leaves a function. All of it runs on the event loop's thread.
"""

import logging
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Abandoned:
    """What those who joined get when their leader gave up: join again; the first to do so leads."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "ABANDONED"


ABANDONED: Final = Abandoned()
Done = Callable[[T | Abandoned], None]


class _Flight(Generic[T]):
    __slots__ = ("joined", "started_at")

    def __init__(self, started_at: float) -> None:
        self.started_at = started_at
        self.joined: list[Done[T]] = []


class SingleFlight(Generic[T]):
    """Flights by key. Its size is bounded by the number of requests that the server has let in.

    Args:
        max_age_seconds: a flight that has not landed for so long is not joined any more; the next one who comes leads
            it. A leader that was lost must not hold its key for ever.
        clock: seconds that never go back.
    """

    def __init__(self, max_age_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_age_seconds = max_age_seconds
        self._clock = clock
        self._flights: dict[bytes, _Flight[T]] = {}
        self.joined = 0
        """How many requests have joined, since the start."""

    def __len__(self) -> int:
        """Flights in the air."""
        return len(self._flights)

    def join(self, key: bytes, done: Done[T]) -> bool:
        """Join the flight of a key, or begin to lead one.

        Args:
            key: of equal requests.
            done: called once when the leader lands or abandons, from within its call; not called for a leader.

        Returns:
            False: the caller leads, and must land or abandon.
        """
        flight = self._flights.get(key)
        if flight is None:
            self._flights[key] = _Flight(self._clock())
            return False
        now = self._clock()
        if now - flight.started_at > self._max_age_seconds:
            flight.started_at = now
            return False
        flight.joined.append(done)
        self.joined += 1
        return True

    def leave(self, key: bytes, done: Done[T]) -> None:
        """Take one who joined out again: its client is gone, or its time is over. `done` is not called after this."""
        flight = self._flights.get(key)
        if flight is not None and done in flight.joined:
            flight.joined.remove(done)

    def land(self, key: bytes, outcome: T) -> None:
        """Give everybody who joined the leader's outcome, be it an answer or an error."""
        self._end(key, outcome)

    def abandon(self, key: bytes) -> None:
        """Give everybody who joined `ABANDONED`. A flight that has landed already stays landed."""
        self._end(key, ABANDONED)

    def _end(self, key: bytes, outcome: T | Abandoned) -> None:
        flight = self._flights.pop(key, None)
        if flight is None:
            return
        for done in flight.joined:
            try:
                done(outcome)
            except Exception:  # noqa: BLE001
                # One who cannot take the answer must not keep it from the others.
                _log.exception("a request that joined another failed to take its answer")
