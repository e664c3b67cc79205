"""Says what is being done, how long it took last time, and how long it has been.

On a terminal this is one live line; elsewhere plain lines, at least one each half minute, so that
a log shows that work goes on.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from rich.console import Console
from rich.status import Status

from canarium_devcluster.cache import Cache

_PLAIN_INTERVAL_SECONDS = 20.0
_LIVE_INTERVAL_SECONDS = 0.5


def spoken(seconds: float) -> str:
    """``5m42s``, ``12s`` or ``0.4s``."""
    if seconds >= 60:
        return f"{int(seconds) // 60}m{int(seconds) % 60:02d}s"
    return f"{seconds:.0f}s" if seconds >= 10 else f"{seconds:.1f}s"


class Step:
    """One announced piece of work."""

    def __init__(self, title: str, last: float | None) -> None:
        self.title = title
        self.last = last
        self.detail = ""  # replaced by whoever does the work
        self.started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the step began."""
        return time.monotonic() - self.started

    def line(self) -> str:
        """The state in one line."""
        before = f", last time {spoken(self.last)}" if self.last is not None else ""
        detail = f", {self.detail}" if self.detail else ""
        return f"{self.title}: {spoken(self.seconds)}{detail}{before}"


class Progress:
    """Announces steps on a console and remembers their durations in the cache."""

    def __init__(self, console: Console, cache: Cache) -> None:
        self.console = console
        self._cache = cache

    def say(self, text: str) -> None:
        """One line, without markup or wrapping."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def step(self, title: str, *, remember: str = "") -> Iterator[Step]:
        """Announce a piece of work; ``remember`` names its duration for the next time."""
        step = Step(title, self._cache.last_seconds(remember) if remember else None)
        with self._shown(step):
            yield step
        if remember:
            self._cache.remember_seconds(remember, step.seconds)
        self.say(f"{title}: done in {spoken(step.seconds)}")

    @contextlib.contextmanager
    def _shown(self, step: Step) -> Iterator[None]:
        stop = threading.Event()
        if self.console.is_terminal:
            with self.console.status(step.line()) as status:
                ticker = threading.Thread(target=_live, args=(status, step, stop), daemon=True)
                ticker.start()
                try:
                    yield
                finally:
                    stop.set()
                    ticker.join()
            return
        before = f" (last time {spoken(step.last)})" if step.last is not None else ""
        self.say(f"{step.title}{before} ...")
        ticker = threading.Thread(target=self._plain, args=(step, stop), daemon=True)
        ticker.start()
        try:
            yield
        finally:
            stop.set()
            ticker.join()

    def _plain(self, step: Step, stop: threading.Event) -> None:
        while not stop.wait(_PLAIN_INTERVAL_SECONDS):
            self.say(f"  {step.line()}")


def _live(status: Status, step: Step, stop: threading.Event) -> None:
    while not stop.wait(_LIVE_INTERVAL_SECONDS):
        status.update(step.line())
