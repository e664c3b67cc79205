"""An event loop whose time passes only while it would sleep: an hour of waiting costs nothing, and is exact."""

import asyncio
import selectors
from collections.abc import Coroutine
from datetime import datetime, timedelta
from typing import Any, TypeVar

from canarium_operator.testing.clock import START

T = TypeVar("T")


class _Selector(selectors.SelectSelector):
    """Waits by moving the loop's clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Give what is ready at once; else let the time pass in which nothing would happen."""
        found = super().select(0)
        if not found and timeout:
            self.now += timeout
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop; real sockets and threads are not for it."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        """Give virtual seconds since the loop was made."""
        return self._virtual.now


class LoopClock:
    """`ports.Clock` that follows the running loop."""

    def now(self) -> datetime:
        """Give the present instant."""
        return START + timedelta(seconds=asyncio.get_running_loop().time())


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a virtual loop of its own."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
