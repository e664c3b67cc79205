"""Laws of the breaker, for any sequence of calls, their ends in any order, and any course of time."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from canarium_runtime.resilience.breaker import Breaker, BreakerPolicy, BreakerState

POLICIES = st.builds(
    BreakerPolicy,
    failures=st.integers(1, 4),
    first_pause_seconds=st.floats(0.1, 5),
    factor=st.floats(1, 10),
    longest_pause_seconds=st.floats(5, 100),
    jitter=st.floats(0, 1),
    probe_seconds=st.floats(0.1, 10),
)
LEGAL = {
    (BreakerState.CLOSED, BreakerState.OPEN),
    (BreakerState.OPEN, BreakerState.HALF_OPEN),
    (BreakerState.HALF_OPEN, BreakerState.CLOSED),
    (BreakerState.HALF_OPEN, BreakerState.OPEN),
}


class BreakerMachine(RuleBasedStateMachine):
    """Calls through a breaker and keeps the books beside it."""

    policy = BreakerPolicy(
        failures=2, first_pause_seconds=1, longest_pause_seconds=8, probe_seconds=3
    )

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.moves: list[BreakerState] = [BreakerState.CLOSED]
        self.chance = 0.5
        self.breaker = Breaker(self.policy, lambda: self.chance, self.moves.append)
        self.tickets: list[int] = []
        self.probe_since: float | None = None

    @rule()
    def call(self) -> None:
        before = self.breaker.state
        ticket = self.breaker.admit(self.now)
        if ticket is None:
            assert before is not BreakerState.CLOSED
            return
        if before is BreakerState.HALF_OPEN:  # a second probe only where the first is lost
            assert self.probe_since is not None
            assert self.now >= self.probe_since + self.policy.probe_seconds
        if before is not BreakerState.CLOSED:
            self.probe_since = self.now
        self.tickets.append(ticket)

    @precondition(lambda self: self.tickets)
    @rule(data=st.data(), end=st.sampled_from(["succeeded", "failed", "dropped"]))
    def end_a_call(self, data: st.DataObject, end: str) -> None:
        ticket = self.tickets.pop(data.draw(st.integers(0, len(self.tickets) - 1)))
        before = self.breaker.state
        if end == "succeeded":
            self.breaker.succeeded(ticket, self.now)
        elif end == "dropped":
            self.breaker.dropped(ticket, self.now)
        else:
            self.breaker.failed(ticket, self.now, "f")
        if before is BreakerState.OPEN:
            assert self.breaker.state is BreakerState.OPEN

    @rule(seconds=st.floats(0, 20), chance=st.floats(0, 1))
    def time_goes_by(self, seconds: float, chance: float) -> None:
        self.now += seconds
        self.chance = chance

    @rule()
    def trip(self) -> None:
        self.breaker.trip(self.now, "t")

    @invariant()
    def moves_are_legal(self) -> None:
        assert set(zip(self.moves, self.moves[1:], strict=False)) <= LEGAL
        assert self.moves[-1] is self.breaker.state

    @invariant()
    def it_never_stays_shut_for_ever(self) -> None:
        if self.breaker.state is not BreakerState.CLOSED:
            longest = max(self.policy.longest_pause_seconds, self.policy.probe_seconds)
            assert self.breaker.retry_at <= self.now + longest
            assert self.breaker.reason


TestBreaker = BreakerMachine.TestCase
TestBreaker.settings = settings(max_examples=60, stateful_step_count=40)


@given(policy=POLICIES, opened=st.integers(0, 10_000), chance=st.floats(0, 1))
def test_pauses_keep_their_bounds(policy: BreakerPolicy, opened: int, chance: float) -> None:
    """A pause is at most the longest, at least its share without jitter, and grows with the number before it."""
    pause = policy.pause_seconds(opened, chance)
    assert policy.first_pause_seconds * (1 - policy.jitter) <= pause * (1 + 1e-9)
    assert pause <= policy.longest_pause_seconds
    assert policy.pause_seconds(opened + 1, chance) >= pause * (1 - 1e-9)
