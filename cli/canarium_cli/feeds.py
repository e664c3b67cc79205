"""Follows a ModelDeployment on a cluster: the object by a watch, pods and Events by lists every few seconds.

The connection may break: what was seen last stays, a note says so, and it is tried again. Where the user may not watch,
the object is read again and again; where pods or Events are not theirs to read, a note says so, once, and they are
left out.
"""

import queue
from collections.abc import Callable, Generator
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from canarium_cli.access_errors import AccessError, ForbiddenError, GoneError
from canarium_cli.following import Snapshot, without_body
from canarium_cli.streams import Open

if TYPE_CHECKING:
    from canarium_cli.access import Access

_QUEUE: Final = 1000
"""Changes that wait to be shown; the reader is faster than any rollout."""
_POLL_SECONDS: Final = 2.0
"""Between two looks at the object, where a watch is not allowed."""
_SURROUNDINGS_SECONDS: Final = 3.0
"""Between two lists of pods and Events."""
_LONGEST_WAIT: Final = 15.0
"""Seconds between two tries to reach the API server again."""
Change = Callable[[Snapshot], Snapshot]


def follow(
    access: "Access", namespace: str, name: str, *, tick: float, surroundings: bool
) -> Generator[Snapshot, None, None]:
    """Give what is seen: at each change, and at every tick.

    Args:
        access: the cluster.
        namespace: of the ModelDeployment.
        name: of the ModelDeployment.
        tick: seconds; the ages on a screen go on while nothing changes.
        surroundings: read pods and Events, too.

    Raises:
        AccessError: it cannot be read in the first place.
    """
    body = access.read(namespace, name)
    snapshot = Snapshot(at=datetime.now(UTC), body=body)
    changes: queue.Queue[Change] = queue.Queue(_QUEUE)
    opened = Open()
    watcher = _Watcher(access, namespace, name, changes, opened)
    if surroundings:
        snapshot = watcher.surroundings_now()(snapshot)
        opened.start(watcher.surroundings)
    opened.start(lambda: watcher.objects(body))
    try:
        while True:
            yield replace(snapshot, at=datetime.now(UTC))
            try:
                change = changes.get(timeout=tick)
            except queue.Empty:
                continue
            snapshot = change(snapshot)
    finally:
        opened.end()


class _Watcher:
    """What threads do: read, and tell of each change."""

    def __init__(
        self,
        access: "Access",
        namespace: str,
        name: str,
        changes: "queue.Queue[Change]",
        opened: Open,
    ) -> None:
        self._access = access
        self._namespace = namespace
        self._name = name
        self._changes = changes
        self._opened = opened
        self._stop = opened.ended
        self._forbidden: set[str] = set()

    def objects(self, body: dict[str, Any]) -> None:
        """Follow the object until it is stopped: after each watch, however it ended, it is read as it is now."""
        version, wait, may_watch = body["metadata"].get("resourceVersion", ""), 1.0, True
        while not self._stop.is_set():
            try:
                if may_watch:
                    self._watch(version)
                else:
                    self._stop.wait(_POLL_SECONDS)
            except ForbiddenError:
                may_watch = False
            except GoneError:
                pass  # the version is too old
            except AccessError as error:
                wait = self._again(error, wait)
            if self._stop.is_set():
                return
            try:
                found = self._access.read(self._namespace, self._name)
            except GoneError:
                self._tell(without_body)
                return
            except AccessError as error:
                wait = self._again(error, wait)
                continue
            self._tell(lambda s, found=found: replace(s, body=found, notes=self._notes()))  # type: ignore[misc]
            version, wait = found["metadata"].get("resourceVersion", ""), 1.0

    def _watch(self, version: str) -> None:
        changes = self._access.watch(
            self._namespace, name=self._name, version=version, opened=self._opened
        )
        for kind, body in changes:
            if self._stop.is_set():
                return
            if kind == "DELETED":
                self._tell(without_body)
                self._stop.set()
                return
            self._tell(lambda s, body=body: replace(s, body=body, notes=self._notes()))  # type: ignore[misc]

    def _again(self, error: AccessError, wait: float) -> float:
        """Note that the connection broke, and wait, twice as long as before."""
        self._lost(f"{error}; trying again")
        self._stop.wait(min(wait, _LONGEST_WAIT))
        return min(wait * 2, _LONGEST_WAIT)

    def _lost(self, words: str) -> None:
        self._tell(lambda s: replace(s, notes=(*self._notes(), words)))

    def surroundings(self) -> None:
        """Follow pods and Events until it is stopped."""
        while not self._stop.wait(_SURROUNDINGS_SECONDS):
            self._tell(self.surroundings_now())

    def surroundings_now(self) -> Change:
        """Read pods and Events; gives what changes in what is shown."""
        found: dict[str, Any] = {}
        for what in ("pods", "events"):
            if what in self._forbidden:
                continue
            try:
                found[what] = tuple(getattr(self._access, what)(self._namespace, self._name))
            except ForbiddenError:
                self._forbidden.add(what)
            except AccessError:
                continue  # the object's own watch says what is wrong
        return lambda s: replace(s, notes=self._notes(), **found)

    def _notes(self) -> tuple[str, ...]:
        return tuple(
            f"{what} are not shown: you may not list them in {self._namespace}"
            for what in sorted(self._forbidden)
        )

    def _tell(self, change: Change) -> None:
        try:
            self._changes.put(change, timeout=1)
        except queue.Full:  # nobody reads any more
            self._stop.set()
