"""What the terminal shows: a running commentary, and on a real terminal a live panel below it.

The commentary is the same in both cases: what the demo does, each Event of the ModelDeployment, each change of the
weights with what the clients saw. So a log of the demo reads like the demo.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Final

from rich.console import Console
from rich.live import Live

from canarium_demo import panel
from canarium_demo.tally import Tally
from canarium_demo.world import World

_REFRESH_SECONDS: Final = 0.5


class Screen:
    """The terminal.

    Args:
        console: where to.
        live: draw the panel; it needs a terminal.
        world: from the API server.
        tally: from the client.
        began: when the demo began, on the monotonic clock.
    """

    def __init__(
        self, console: Console, *, live: bool, world: World, tally: Tally, began: float
    ) -> None:
        self._console = console
        self._live = live and console.is_terminal
        self._world = world
        self._tally = tally
        self._began = began
        self._events_shown = 0
        self._routes_shown = 0
        self._counted: dict[str, tuple[int, int]] = {}

    def act(self, title: str) -> None:
        """Begin a new part of the story."""
        self._report_news()
        self._console.print()
        self._console.rule(f"[bold]{title}", align="left")

    def say(self, text: str) -> None:
        """Say what is going on, after all that has happened before."""
        self._report_news()
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextlib.asynccontextmanager
    async def showing(self) -> AsyncIterator[None]:
        """Show what happens until the end of the block."""
        with contextlib.ExitStack() as stack:
            live = None
            if self._live:
                live = stack.enter_context(
                    Live(console=self._console, auto_refresh=False, transient=True)
                )
            task = asyncio.create_task(self._run(live))
            try:
                yield
            finally:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
                self._report_news()

    async def _run(self, live: Live | None) -> None:
        while True:
            self._report_news()
            if live is not None:
                now = time.monotonic()
                live.update(
                    panel.draw(self._world, self._tally, now, now - self._began), refresh=True
                )
            await asyncio.sleep(_REFRESH_SECONDS)

    def _report_news(self) -> None:
        """Print Events and weights that are new."""
        for event in self._world.events[self._events_shown :]:
            mark = "!" if event.warning else "·"
            self._stamped(
                f"{mark} {event.reason}: {event.message}", "yellow" if event.warning else ""
            )
        self._events_shown = len(self._world.events)
        if len(self._world.routes) > self._routes_shown:
            self._routes_shown = len(self._world.routes)
            if seen := self._since_last_change():
                self._stamped(f"  clients since the last change: {seen}", "dim")
            split = " : ".join(
                f"{self._world.versions.get(revision, revision)} {weight}%"
                for revision, weight in self._world.route.items()
            )
            self._stamped(f"  the route says {split}", "dim")

    def _stamped(self, text: str, style: str) -> None:
        stamp = f"{time.monotonic() - self._began:6.1f}s"
        self._console.print(
            f"{stamp}  {text}", style=style, markup=False, highlight=False, soft_wrap=True
        )

    def _since_last_change(self) -> str:
        """Say what clients saw of each version since the weights last changed."""
        parts = []
        for revision, version in self._world.versions.items():
            requests, failed = self._tally.requests_of(revision), self._tally.failed_of(revision)
            requests_before, failed_before = self._counted.get(revision, (0, 0))
            self._counted[revision] = (requests, failed)
            if requests > requests_before:
                said = f"{requests - requests_before} requests"
                parts.append(f"{version} {said}, {failed - failed_before} failed")
        return "; ".join(parts)
