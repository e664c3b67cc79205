"""When a process that died is started again, and when its server gives up.

A model that the first process cannot load is one that none can: the server leaves at once with that reason, as it does
with one process. Once the server has been ready, a process that cannot start is tried again, since what is in the way
may pass (memory that others hold); after `MAX_FAILED_STARTS` in a row the server leaves, so that whoever runs it sees
that and why. A process that dies while it serves is always started again, later and later while that goes on.
"""

import signal
from dataclasses import dataclass
from typing import Final

from canarium_api.runtime_config import LoadFailure

MAX_FAILED_STARTS: Final = 5
"""In a row, of one process."""
FIRST_DELAY_SECONDS: Final = 0.1
MAX_DELAY_SECONDS: Final = 10.0
STEADY_SECONDS: Final = 60.0
"""A process that has been ready for so long has recovered from what it died of before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """How a process ended that nobody told to."""

    exit_code: int
    """As `subprocess` gives it: negative for a signal."""
    failure: LoadFailure | None
    """The reason that it left, if it left one."""
    ready_seconds: float | None
    """How long it had been ready; None: it never was."""


@dataclass(frozen=True, slots=True)
class Restart:
    """Start it again."""

    delay_seconds: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The server cannot serve."""

    exit_code: int
    failure: LoadFailure


class Restarts:
    """The deaths of one process, one after the other.

    Args:
        number: which process it is, for messages.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._failed_starts = 0
        self._deaths = 0

    def died(self, death: Death, *, server_was_ready: bool) -> Restart | GiveUp:
        """Decide what follows a death.

        Args:
            death: the latest.
            server_was_ready: whether all processes have been ready at the same time before.
        """
        if death.ready_seconds is None:
            self._failed_starts += 1
            unloadable = death.failure is not None and not server_was_ready
            if unloadable or self._failed_starts >= MAX_FAILED_STARTS:
                failure = death.failure or self._unexplained(death.exit_code)
                return GiveUp(death.exit_code if death.exit_code > 0 else 1, failure)
        else:
            self._failed_starts = 0
            if death.ready_seconds >= STEADY_SECONDS:
                self._deaths = 0
        self._deaths += 1
        delay = FIRST_DELAY_SECONDS * 2 ** min(self._deaths - 1, 10)
        return Restart(min(delay, MAX_DELAY_SECONDS))

    def _unexplained(self, exit_code: int) -> LoadFailure:
        message = (
            f"serving process {self._number} {how_it_ended(exit_code)} before it was ready, "
            f"{self._failed_starts} times in a row: look at its last log lines; if memory is short, "
            "raise the limit or serve with fewer processes"
        )
        return LoadFailure(reason="ProcessDied", message=message)


def how_it_ended(exit_code: int) -> str:
    """Say in words how a process ended."""
    if exit_code >= 0:
        return f"left with exit code {exit_code}"
    try:
        return f"was killed by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"was killed by signal {-exit_code}"
