"""Requests that wait for something that is not in the queue, each until its own deadline."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable

from canarium_runtime.errors import ErrorKind, ServingError

_log = logging.getLogger(__name__)

Resume = Callable[[ServingError | None], None]
"""Is called once, on the event loop: with None when what it waits for is there, or with the reason why it is not."""
_SWEEP_SECONDS = 0.1


class Parking:
    """Waiting requests, in the order in which they came. Call on the event loop.

    Args:
        too_late: what those are told whose time is over.
    """

    def __init__(self, too_late: str) -> None:
        self._too_late = too_late
        self._parked: dict[Resume, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._parked)

    def add(self, resume: Resume, deadline: float) -> None:
        """Let a request wait.

        Args:
            resume: goes on with it; also the key for `remove`.
            deadline: instant of `time.monotonic()` after which nobody wants the answer.
        """
        self._parked[resume] = deadline
        self._watch()

    def remove(self, resume: Resume) -> None:
        """Forget a request that nobody waits for."""
        self._parked.pop(resume, None)

    def release(self, error: ServingError | None = None) -> None:
        """Go on with all that wait now."""
        self._go_on([*self._parked], error)

    def _go_on(self, waiting: Iterable[Resume], error: ServingError | None) -> None:
        for resume in waiting:
            if self._parked.pop(resume, None) is None:
                continue  # removed by what another one did when it went on
            try:
                resume(error)
            except Exception:  # noqa: BLE001 - logged
                # One caller's mistake must not keep the others waiting.
                _log.exception("a request that waited failed to go on")

    def _watch(self) -> None:
        if self._timer is None and self._parked:
            self._timer = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        now = time.monotonic()
        late = [r for r, deadline in self._parked.items() if deadline <= now]
        self._go_on(late, ServingError(ErrorKind.DEADLINE, self._too_late))
        self._watch()
