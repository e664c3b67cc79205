"""Server-sent events: the present, again whenever it changes; what changed in between is never queued.

A page that reads slowly gets the latest state when it reads again. Streams are counted, and end when the server does.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from canarium_api.base import ApiModel
from canarium_dashboard import settings
from canarium_dashboard.errors import BusyError, DashboardError
from canarium_dashboard.watching import Watcher


class Seats:
    """Bounds the streams that are open at the same time."""

    def __init__(self) -> None:
        self._taken: Counter[str] = Counter()
        self.closing = asyncio.Event()
        """Set when the server ends: streams end themselves."""

    def check(self, identity: str) -> None:
        """See whether there is a seat.

        Raises:
            BusyError: there is none.
        """
        if self._taken.total() >= settings.MAX_STREAMS:
            msg = f"{settings.MAX_STREAMS} pages are open already: close one, or try again later"
            raise BusyError(msg)
        if self._taken[identity] >= settings.MAX_STREAMS_OF_ONE:
            msg = f"you have {settings.MAX_STREAMS_OF_ONE} pages open already: close one"
            raise BusyError(msg)

    @contextmanager
    def seat(self, identity: str) -> Iterator[None]:
        """Take a seat while the block lasts."""
        self._taken[identity] += 1
        try:
            yield
        finally:
            self._taken[identity] -= 1
            self._taken += Counter()  # drops what is zero


def event(kind: str, data: object) -> bytes:
    """Write one event; JSON has no raw newlines."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    return f"event: {kind}\ndata: {text}\n\n".encode()


def failure(error: DashboardError) -> dict[str, object]:
    """Write an error for a page."""
    return {"status": error.status, "message": str(error)}


async def stream(
    watcher: Watcher, seats: Seats, identity: str, make: Callable[[], Awaitable[ApiModel]]
) -> AsyncIterator[bytes]:
    """Send the view, and again whenever it differs, until the page goes or the server ends.

    Args:
        watcher: whose changes matter.
        seats: counts this stream.
        identity: of the user.
        make: makes the view.
    """
    with seats.seat(identity), watcher.listening() as changed:
        before: dict[str, object] = {}
        while not seats.closing.is_set():
            changed.clear()
            patience = settings.HEARTBEAT
            try:
                view = (await make()).to_manifest()
            except DashboardError as error:
                yield event("problem", failure(error))
                before = {}
                if error.status == 401:
                    return
            else:
                # The time alone is no news, but it keeps the page's clock right.
                news = {name: value for name, value in view.items() if name != "now"}
                if news != before:
                    before = news
                    data, patience = event("view", view), settings.ECHO
                else:
                    data = event("tick", view["now"])
                yield data
                await asyncio.sleep(len(data) / settings.BYTES_PER_SECOND)
            await _first(patience, changed, seats.closing)
            await asyncio.sleep(settings.CALM.total_seconds())


async def _first(patience: timedelta, *events: asyncio.Event) -> None:
    """Wait until one of these is set, or for so long."""
    tasks = [asyncio.ensure_future(each.wait()) for each in events]
    try:
        await asyncio.wait(
            tasks, timeout=patience.total_seconds(), return_when=asyncio.FIRST_COMPLETED
        )
    finally:
        for task in tasks:
            task.cancel()
