"""`Breaker`: stop asking what does not answer, and find out by itself when it answers again. No IO, no clock.

Whoever calls something that may fail asks for a ticket, and reports with it how the call ended:

    ticket = breaker.admit(now)
    if ticket is None:                  cut out: do without
    else:
        call, then breaker.succeeded(ticket, now), breaker.failed(ticket, now, why) or breaker.dropped(ticket, now)

    state       event                                             state after
    CLOSED      a success                                         CLOSED, the count of failures is 0 again
    CLOSED      `failures` failures in a row, or `trip`           OPEN for the first pause
    OPEN        the pause is over, and somebody asks              HALF_OPEN: this one call is the probe
    HALF_OPEN   somebody else asks                                HALF_OPEN, refused
    HALF_OPEN   the probe succeeds                                CLOSED
    HALF_OPEN   the probe fails                                   OPEN for a longer pause
    HALF_OPEN   the probe is dropped                              OPEN, and the next who asks is the probe
    HALF_OPEN   the probe is not heard of for `probe_seconds`     HALF_OPEN: the next who asks is the probe

A ticket is good for the state that it was given in: what was called before the breaker opened says nothing afterwards.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class BreakerState(StrEnum):
    """Whether calls go through."""

    CLOSED = "closed"
    """All do."""
    OPEN = "open"
    """None does."""
    HALF_OPEN = "half-open"
    """One does, to see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    """When to cut out, and for how long."""

    failures: int = 5
    """Failures in a row that open it; at least 1."""
    first_pause_seconds: float = 1.0
    """How long it stays open at first."""
    factor: float = 2.0
    """By how much each pause is longer than the one before; at least 1."""
    longest_pause_seconds: float = 60.0
    """No pause is longer."""
    jitter: float = 0.5
    """The share of a pause that is left to chance, 0 to 1, so that many servers do not probe at the same moment: with
    0.5, a pause of 10 s takes 5 to 10 s."""
    probe_seconds: float = 30.0
    """A probe that says nothing for so long is taken for lost."""

    def __post_init__(self) -> None:
        if self.failures < 1:
            msg = f"failures: expected at least 1, got {self.failures}"
            raise ValueError(msg)
        if not 0 < self.first_pause_seconds <= self.longest_pause_seconds:
            msg = "first_pause_seconds: expected above 0 and at most longest_pause_seconds"
            raise ValueError(msg)
        if self.factor < 1 or not 0 <= self.jitter <= 1 or self.probe_seconds <= 0:
            msg = "expected factor of at least 1, jitter of 0 to 1, and probe_seconds above 0"
            raise ValueError(msg)

    def pause_seconds(self, opened: int, chance: float) -> float:
        """Give the length of a pause.

        With the defaults and chance 1: 1, 2, 4, 8, 16, 32, 60, 60, ... seconds; with chance 0 half of that.

        Args:
            opened: how many pauses came before it without a success.
            chance: 0 to 1.
        """
        pause = self.first_pause_seconds
        for _ in range(opened):  # not a power, which overflows
            pause *= self.factor
            if pause >= self.longest_pause_seconds:
                break
        pause = min(pause, self.longest_pause_seconds)
        return pause * (1 - self.jitter * (1 - chance))


class Breaker:
    """See the module. Not locked: call from one thread.

    Args:
        policy: when to cut out, and for how long.
        chance: gives numbers of 0 to 1, such as `random.random`.
        on_change: told of each new state.
    """

    __slots__ = ("_chance", "_failed", "_generation", "_on_change", "_opened", "_policy", "reason",
                 "retry_at", "state")  # fmt: skip

    def __init__(
        self,
        policy: BreakerPolicy,
        chance: Callable[[], float],
        on_change: Callable[[BreakerState], None] = lambda _: None,
    ) -> None:
        self._policy = policy
        self._chance = chance
        self._on_change = on_change
        self._failed = 0
        self._opened = 0
        self._generation = 0
        self.state = BreakerState.CLOSED
        self.reason = ""
        """Why it was opened last; empty while it never was."""
        self.retry_at = 0.0
        """While OPEN: the instant from which a probe is admitted. While HALF_OPEN: from which the probe is lost."""

    def admit(self, now: float) -> int | None:
        """Ask whether to call.

        Returns:
            A ticket to report the end of the call with, or None: do without.
        """
        if self.state is BreakerState.CLOSED:
            return self._generation
        if now < self.retry_at:
            return None
        self._generation += 1
        self.retry_at = now + self._policy.probe_seconds
        self._move(BreakerState.HALF_OPEN)
        return self._generation

    def succeeded(self, ticket: int, now: float) -> None:
        """Report that a call was answered."""
        if ticket != self._generation:
            return
        self._failed = 0
        if self.state is BreakerState.HALF_OPEN:
            self._opened = 0
            self._move(BreakerState.CLOSED)

    def failed(self, ticket: int, now: float, reason: str) -> None:
        """Report that a call failed or was not answered in time.

        Args:
            ticket: what `admit` gave.
            now: the present instant.
            reason: for people; without secrets.
        """
        if ticket != self._generation:
            return
        self._failed += 1
        if self.state is BreakerState.HALF_OPEN or self._failed >= self._policy.failures:
            self._open(now, reason)

    def dropped(self, ticket: int, now: float) -> None:
        """Report that a call was given up for reasons that say nothing about whom it was made to."""
        if ticket == self._generation and self.state is BreakerState.HALF_OPEN:
            self._generation += 1
            self.retry_at = now
            self._move(BreakerState.OPEN)

    def trip(self, now: float, reason: str) -> None:
        """Open at once, for a failure that needs no second look; a breaker that is not closed stays as it is."""
        if self.state is BreakerState.CLOSED:
            self._open(now, reason)

    def _open(self, now: float, reason: str) -> None:
        self._generation += 1
        self._failed = 0
        self.reason = reason
        self.retry_at = now + self._policy.pause_seconds(self._opened, self._chance())
        self._opened += 1
        self._move(BreakerState.OPEN)

    def _move(self, state: BreakerState) -> None:
        if state is not self.state:
            self.state = state
            self._on_change(state)
