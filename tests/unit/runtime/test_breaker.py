"""The breaker's table of states, row by row."""

import pytest

from canarium_runtime.resilience.breaker import Breaker, BreakerPolicy, BreakerState

POLICY = BreakerPolicy(
    failures=3,
    first_pause_seconds=1,
    factor=2,
    longest_pause_seconds=10,
    jitter=0.5,
    probe_seconds=5,
)


def make(policy: BreakerPolicy = POLICY, chance: float = 1.0) -> tuple[Breaker, list[BreakerState]]:
    told: list[BreakerState] = []
    return Breaker(policy, lambda: chance, told.append), told


def fail(breaker: Breaker, now: float, times: int = 1, why: str = "broken") -> None:
    for _ in range(times):
        ticket = breaker.admit(now)
        assert ticket is not None
        breaker.failed(ticket, now, why)


def test_it_opens_after_some_failures_in_a_row_and_says_why() -> None:
    """Two failures of three change nothing, the third one opens it, with the latest reason."""
    breaker, told = make()
    fail(breaker, 0, 2)
    assert breaker.state is BreakerState.CLOSED
    fail(breaker, 0, why="no answer")
    assert (breaker.state, breaker.reason) == (BreakerState.OPEN, "no answer")
    assert breaker.admit(0.99) is None
    assert told == [BreakerState.OPEN]


def test_a_success_between_failures_keeps_it_closed() -> None:
    """Only failures in a row count."""
    breaker, _ = make()
    for _ in range(10):
        fail(breaker, 0, 2)
        ticket = breaker.admit(0)
        assert ticket is not None
        breaker.succeeded(ticket, 0)
    assert breaker.state is BreakerState.CLOSED


def test_one_probe_is_let_through_when_the_pause_is_over() -> None:
    """The first who asks then is the probe, everybody else is refused until it is heard of."""
    breaker, _ = make()
    fail(breaker, 0, 3)
    probe = breaker.admit(1.0)
    assert probe is not None
    assert breaker.admit(1.0) is None
    assert breaker.state is BreakerState.HALF_OPEN
    breaker.succeeded(probe, 1.2)
    assert breaker.state is BreakerState.CLOSED
    assert breaker.admit(1.2) is not None


def test_pauses_grow_to_a_bound_while_probes_fail() -> None:
    """1, 2, 4, 8, 10, 10 seconds; after a success they begin anew."""
    breaker, _ = make()
    fail(breaker, 0, 3)
    now, pauses = 0.0, []
    for _ in range(6):
        pauses.append(breaker.retry_at - now)
        now = breaker.retry_at
        fail(breaker, now)
    assert pauses == [1, 2, 4, 8, 10, 10]
    probe = breaker.admit(breaker.retry_at)
    assert probe is not None
    breaker.succeeded(probe, breaker.retry_at)
    fail(breaker, 100, 3)
    assert breaker.retry_at == 101


def test_half_of_a_pause_is_left_to_chance() -> None:
    """With a jitter of a half and the least chance, a pause of 1 s takes half a second."""
    breaker, _ = make(chance=0.0)
    fail(breaker, 0, 3)
    assert breaker.retry_at == 0.5


def test_what_was_called_before_it_opened_says_nothing_afterwards() -> None:
    """A late success does not close it, and late failures neither lengthen the pause nor spoil the probe."""
    breaker, _ = make()
    late = [breaker.admit(0) for _ in range(5)]
    fail(breaker, 0, 3)
    for ticket in late:
        assert ticket is not None
        breaker.succeeded(ticket, 0.1)
        breaker.failed(ticket, 0.1, "late")
    assert (breaker.state, breaker.retry_at, breaker.reason) == (BreakerState.OPEN, 1, "broken")
    probe = breaker.admit(1)
    assert late[0] is not None
    breaker.failed(late[0], 1, "late")
    assert breaker.state is BreakerState.HALF_OPEN
    assert probe is not None
    breaker.succeeded(probe, 1)
    assert breaker.state is BreakerState.CLOSED


def test_a_probe_that_was_given_up_makes_room_for_another_at_once() -> None:
    """A client that left says nothing about the service: no longer pause, no closing."""
    breaker, _ = make()
    fail(breaker, 0, 3)
    probe = breaker.admit(1)
    assert probe is not None
    breaker.dropped(probe, 1.5)
    assert breaker.state is BreakerState.OPEN
    assert breaker.admit(1.5) is not None


def test_a_probe_that_is_not_heard_of_does_not_hold_the_door_for_ever() -> None:
    """After `probe_seconds` the next who asks is the probe, and the lost one's word counts no more."""
    breaker, _ = make()
    fail(breaker, 0, 3)
    lost = breaker.admit(1)
    assert breaker.admit(5.9) is None
    probe = breaker.admit(6)
    assert probe is not None
    assert lost is not None
    breaker.failed(lost, 6, "late")
    assert breaker.state is BreakerState.HALF_OPEN
    breaker.succeeded(probe, 6)
    assert breaker.state is BreakerState.CLOSED


def test_it_can_be_tripped_by_a_single_failure() -> None:
    """A failure that needs no second look opens it at once; while it is open that changes nothing."""
    breaker, told = make()
    breaker.trip(0, "not connected")
    breaker.trip(0.5, "again")
    assert (breaker.state, breaker.reason, breaker.retry_at) == (
        BreakerState.OPEN,
        "not connected",
        1,
    )
    assert told == [BreakerState.OPEN]


@pytest.mark.parametrize(
    "wrong",
    [
        {"failures": 0},
        {"first_pause_seconds": 0},
        {"first_pause_seconds": 61},
        {"factor": 0.5},
        {"jitter": 1.5},
        {"probe_seconds": 0},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    """The error names what is expected."""
    with pytest.raises(ValueError, match="expected"):
        BreakerPolicy(**wrong)  # type: ignore[arg-type]
