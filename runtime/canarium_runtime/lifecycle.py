"""States of the served model, as one table.

Rules: everything that moves the state is in TRANSITIONS; an event that the table does not list for a state is a
programming error and leaves the state as it was.

Theory of operation. A server starts in LOADING (liveness is fine, readiness is not). When the artefact is fetched,
verified and opened it is WARMING; after the warm-up requests it is READY, the only state that is ready. SIGTERM moves
any of these to DRAINING: readiness is gone at once, so that endpoints and gateways take the pod out, yet requests that
still arrive are answered. When that time is over the server is STOPPING and refuses. FAILED is where a model ends that
cannot be loaded; where it is the server's first, the process leaves with the reason. UNLOADED is a model that is not in
memory, because nobody asked for it yet, or to make room for another; loading begins at LOADING again.
"""

from collections.abc import Callable
from enum import StrEnum


class ModelState(StrEnum):
    """Where the model stands."""

    UNLOADED = "Unloaded"

    LOADING = "Loading"
    WARMING = "Warming"
    READY = "Ready"
    DRAINING = "Draining"
    STOPPING = "Stopping"
    FAILED = "Failed"


class Event(StrEnum):
    """What happened."""

    LOAD = "load"
    LOADED = "loaded"
    WARMED = "warmed"
    FAILED = "failed"
    TERMINATE = "terminate"
    DRAINED = "drained"
    UNLOAD = "unload"


TRANSITIONS: dict[ModelState, dict[Event, ModelState]] = {
    ModelState.UNLOADED: {
        Event.LOAD: ModelState.LOADING,
        Event.TERMINATE: ModelState.DRAINING,
    },
    ModelState.LOADING: {
        Event.UNLOAD: ModelState.UNLOADED,
        Event.LOADED: ModelState.WARMING,
        Event.FAILED: ModelState.FAILED,
        Event.TERMINATE: ModelState.DRAINING,
    },
    ModelState.WARMING: {
        Event.WARMED: ModelState.READY,
        Event.FAILED: ModelState.FAILED,
        Event.TERMINATE: ModelState.DRAINING,
    },
    ModelState.READY: {
        Event.TERMINATE: ModelState.DRAINING,
        Event.UNLOAD: ModelState.UNLOADED,
    },
    ModelState.DRAINING: {Event.DRAINED: ModelState.STOPPING},
    ModelState.STOPPING: {},
    ModelState.FAILED: {Event.LOAD: ModelState.LOADING},
}

ANSWERING = frozenset({ModelState.READY, ModelState.DRAINING})
"""States in which requests are answered, provided that a model was loaded."""


class IllegalTransitionError(Exception):
    """The table has no such move."""


class Lifecycle:
    """The state of one model and the only way to change it."""

    def __init__(self, on_change: Callable[[ModelState], None] = lambda _: None) -> None:
        self.state = ModelState.LOADING
        self.reason = "the model is being loaded"
        self._watchers = [on_change]

    def watch(self, on_change: Callable[[ModelState], None]) -> None:
        """Call one more function at each change."""
        self._watchers.append(on_change)

    def unwatch(self, on_change: Callable[[ModelState], None]) -> None:
        """Call it no more; of one that is not called: nothing."""
        if on_change in self._watchers:
            self._watchers.remove(on_change)

    def advance(self, event: Event, reason: str = "") -> ModelState:
        """Move by the table.

        Raises:
            IllegalTransitionError: the table has no such move; the state stays.
        """
        try:
            target = TRANSITIONS[self.state][event]
        except KeyError:
            msg = f"{event} cannot happen in state {self.state}"
            raise IllegalTransitionError(msg) from None
        self.state = target
        self.reason = reason
        for on_change in [*self._watchers]:
            on_change(target)
        return target

    def allows(self, event: Event) -> bool:
        """Whether the table has a move for this event."""
        return event in TRANSITIONS[self.state]
