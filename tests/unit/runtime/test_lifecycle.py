"""The state machine of the model: the whole table, and who may be answered."""

from itertools import product

import pytest

from canarium_runtime.lifecycle import (
    ANSWERING,
    TRANSITIONS,
    Event,
    IllegalTransitionError,
    Lifecycle,
    ModelState,
)

PATHS: dict[ModelState, list[Event]] = {
    ModelState.UNLOADED: [Event.UNLOAD],
    ModelState.LOADING: [],
    ModelState.WARMING: [Event.LOADED],
    ModelState.READY: [Event.LOADED, Event.WARMED],
    ModelState.DRAINING: [Event.TERMINATE],
    ModelState.STOPPING: [Event.TERMINATE, Event.DRAINED],
    ModelState.FAILED: [Event.FAILED],
}


def at(state: ModelState) -> Lifecycle:
    lifecycle = Lifecycle()
    for event in PATHS[state]:
        lifecycle.advance(event)
    assert lifecycle.state is state
    return lifecycle


@pytest.mark.parametrize(("state", "event"), list(product(ModelState, Event)))
def test_the_table_decides_every_move(state: ModelState, event: Event) -> None:
    """World: a state; event: any; world: what the table says, or the same state and an error."""
    lifecycle = at(state)
    target = TRANSITIONS[state].get(event)
    assert lifecycle.allows(event) == (target is not None)
    if target is None:
        with pytest.raises(IllegalTransitionError):
            lifecycle.advance(event)
        assert lifecycle.state is state
    else:
        assert lifecycle.advance(event, "because") is target
        assert (lifecycle.state, lifecycle.reason) == (target, "because")


def test_only_ready_and_draining_answer() -> None:
    """A draining server still answers what comes; a stopping one refuses."""
    assert {ModelState.READY, ModelState.DRAINING} == ANSWERING


def test_who_leaves_never_comes_back() -> None:
    """From draining and stopping no path leads back."""
    reached = {ModelState.DRAINING, ModelState.STOPPING}
    assert all(target in reached for state in reached for target in TRANSITIONS[state].values())
