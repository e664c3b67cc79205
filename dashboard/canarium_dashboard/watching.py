"""Watches of the API server, one for each user and scope, which all of that user's pages share.

A watcher lists, watches, lists anew when it must, and remembers what it saw (`history`). Users never share one: what
one of them may not see must not reach them by another's watch.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from pydantic import ValidationError

from canarium_api.status import ModelDeploymentStatus
from canarium_dashboard import settings
from canarium_dashboard.access import Access, Change, Scope, StaleError
from canarium_dashboard.errors import (
    BusyError,
    DashboardError,
    ForbiddenError,
    MissingError,
    SignedOutError,
    UnreachableError,
)
from canarium_dashboard.history import History, Key

log = logging.getLogger(__name__)
FIRST_BACKOFF, MAX_BACKOFF = 0.5, 15.0
"""Seconds between two attempts after an error."""
_KEPT: Final = ("name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp")
Clock = Callable[[], datetime]


@dataclass(frozen=True, kw_only=True)
class User:
    """Who asks, and with what."""

    identity: str
    """Tells users apart; a hash where they bring a token."""
    access: Access = field(repr=False)


class Watcher:
    """Keeps the objects of one scope as one user sees them."""

    def __init__(self, access: Access, scope: Scope, clock: Clock) -> None:
        self.scope = scope
        self.objects: dict[Key, dict[str, Any]] = {}
        self.statuses: dict[Key, ModelDeploymentStatus] = {}
        self.truncated = False
        self.problem: DashboardError | None = None
        """Why it does not know the present; None while it does."""
        self.synced = asyncio.Event()
        """It has listed once, or failed to."""
        self.history = History()
        self._access = access
        self._clock = clock
        self._listeners: set[asyncio.Event] = set()

    @property
    def listeners(self) -> int:
        """How many pages follow it."""
        return len(self._listeners)

    @contextlib.contextmanager
    def listening(self) -> Iterator[asyncio.Event]:
        """Give an event that is set at every change, while the block lasts."""
        changed = asyncio.Event()
        self._listeners.add(changed)
        try:
            yield changed
        finally:
            self._listeners.discard(changed)

    async def run(self) -> None:
        """List and watch until cancelled, or until the user is refused."""
        backoff = FIRST_BACKOFF
        while True:
            try:
                version = await self._list()
                backoff = FIRST_BACKOFF
                while True:
                    version = await self._watch(version)
            except StaleError:
                continue
            except DashboardError as error:
                self._fail(error)
                if isinstance(error, SignedOutError):
                    return
                wait = MAX_BACKOFF if isinstance(error, ForbiddenError | MissingError) else backoff
                await asyncio.sleep(wait)
                backoff = min(backoff * 2, MAX_BACKOFF)

    def ended(self, task: asyncio.Task[None]) -> None:
        """Tell the pages that it has died of what nobody foresaw, rather than showing the past for ever."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("watch of %s has died", self.scope, exc_info=error)
            msg = f"the watch has ended by a mistake of the dashboard ({type(error).__name__}): reload the page"
            self._fail(UnreachableError(msg))

    async def _list(self) -> str:
        found = await self._access.find(self.scope)
        bodies = {_key(body): body for body in found.items}
        for key in set(self.objects) - set(bodies):
            self._drop(key)
        self.truncated = found.truncated
        for key, body in bodies.items():
            self._take(key, body)
        self.problem = None
        self.synced.set()
        self._tell()
        return found.version

    async def _watch(self, version: str) -> str:
        async for change in self._access.watch(self.scope, version):
            version = str(change.body["metadata"]["resourceVersion"])
            if change.kind != "BOOKMARK":
                self.apply(change)
        return version

    def apply(self, change: Change) -> None:
        """Take a change, and tell the pages."""
        key = _key(change.body)
        if change.kind == "DELETED":
            self._drop(key)
        elif key in self.objects or len(self.objects) < settings.MAX_OBJECTS:
            self._take(key, change.body)
        else:
            self.truncated = True
        self._tell()

    def _take(self, key: Key, body: dict[str, Any]) -> None:
        status, meta = status_of(body), body["metadata"]
        self.objects[key] = {
            "metadata": {name: meta[name] for name in _KEPT if name in meta},
            "spec": body.get("spec") or {},
        }
        self.statuses[key] = status
        self.history.saw(key, status, self._clock())

    def _drop(self, key: Key) -> None:
        self.objects.pop(key, None)
        self.statuses.pop(key, None)
        self.history.forget(key)

    def _fail(self, error: DashboardError) -> None:
        if str(self.problem) != str(error):
            log.warning("watch of %s: %s", self.scope, error)
        self.problem = error
        self.synced.set()
        self._tell()

    def _tell(self) -> None:
        for listener in self._listeners:
            listener.set()


@dataclass
class _Running:
    watcher: Watcher
    task: asyncio.Task[None]
    kept: bool = False
    """It stays, whether pages follow it or not."""
    idle_since: float | None = None


class Watchers:
    """All watchers of a dashboard."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._running: dict[tuple[str, Scope], _Running] = {}

    def get(self, user: User, scope: Scope, *, keep: bool = False) -> Watcher:
        """Give the watcher of a scope; starts it unless it runs.

        Raises:
            BusyError: there are too many already.
        """
        self.tidy()
        key = (user.identity, scope)
        running = self._running.get(key)
        if running is None:
            self._make_room()
            watcher = Watcher(user.access, scope, self._clock)
            task = asyncio.create_task(watcher.run(), name=f"watch {scope}")
            task.add_done_callback(watcher.ended)
            running = self._running[key] = _Running(watcher=watcher, task=task, kept=keep)
        running.kept = running.kept or keep
        return running.watcher

    def covering(self, user: User, namespace: str, name: str) -> Watcher:
        """Give a watcher that knows an object, the one with the widest scope first: it may have watched for long."""
        wide = (Scope(), Scope(namespace=namespace))
        for scope in wide:
            running = self._running.get((user.identity, scope))
            if running is not None and running.watcher.problem is None:
                return running.watcher
        return self.get(user, Scope(namespace=namespace, name=name))

    def tidy(self) -> None:
        """End watchers that nobody follows any more, and forget those that have ended."""
        now = asyncio.get_running_loop().time()
        for key, running in list(self._running.items()):
            if running.watcher.listeners or running.kept:
                running.idle_since = None
            elif running.idle_since is None:
                running.idle_since = now
            idle = running.idle_since is not None and (
                now - running.idle_since > settings.IDLE.total_seconds()
            )
            if idle or running.task.done():
                self._end(key)

    def _make_room(self) -> None:
        if len(self._running) < settings.MAX_WATCHERS:
            return
        idle = [k for k, r in self._running.items() if not r.watcher.listeners and not r.kept]
        if not idle:
            msg = "this dashboard watches as much as it may: close other pages, or try again later"
            raise BusyError(msg)
        self._end(idle[0])

    def _end(self, key: tuple[str, Scope]) -> None:
        self._running.pop(key).task.cancel()

    async def close(self) -> None:
        """End them all."""
        tasks = [running.task for running in self._running.values()]
        self._running.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def status_of(body: dict[str, Any]) -> ModelDeploymentStatus:
    """Read the status of an object; one that was written by a version that this one cannot read is shown as unknown."""
    try:
        return ModelDeploymentStatus.from_manifest(body.get("status") or {})
    except ValidationError:
        return ModelDeploymentStatus(message="its status cannot be read by this dashboard")


def _key(body: dict[str, Any]) -> Key:
    meta = body["metadata"]
    return str(meta["namespace"]), str(meta["name"])
