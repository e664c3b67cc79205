"""Laws of `SingleFlight`, for any order of joining, landing, abandoning, and any course of time."""

from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from canarium_runtime.caching.flights import Abandoned, SingleFlight

KEYS = st.sampled_from([b"a", b"b"])


class FlightMachine(RuleBasedStateMachine):
    """Requests that join, lead, fail and leave."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.flights: SingleFlight[int] = SingleFlight(10.0, lambda: self.now)
        self.calls: list[Callable[[int | Abandoned], None]] = []
        self.outcomes: list[list[int | Abandoned]] = []
        self.waiting: dict[bytes, list[int]] = {b"a": [], b"b": []}
        self.began: dict[bytes, float | None] = {b"a": None, b"b": None}

    @rule(key=KEYS, fails=st.booleans())
    def a_request_comes(self, key: bytes, fails: bool) -> None:
        number = len(self.outcomes)
        self.outcomes.append([])

        def done(outcome: int | Abandoned) -> None:
            self.outcomes[number].append(outcome)
            if fails:
                msg = "a request that cannot take its answer"
                raise RuntimeError(msg)

        self.calls.append(done)
        began = self.began[key]
        joined = self.flights.join(key, done)
        assert joined == (began is not None and self.now - began <= 10.0)
        if joined:
            self.waiting[key].append(number)
        else:
            self.began[key] = self.now

    @rule(key=KEYS, outcome=st.integers(0, 5))
    def the_leader_lands(self, key: bytes, outcome: int) -> None:
        self.flights.land(key, outcome)
        self.ended(key, [outcome])

    @rule(key=KEYS)
    def the_leader_abandons(self, key: bytes) -> None:
        self.flights.abandon(key)
        for number in self.waiting[key]:
            assert [type(o) for o in self.outcomes[number]] == [Abandoned]
        self.waiting[key].clear()
        self.began[key] = None

    @rule(key=KEYS, data=st.data())
    def one_who_joined_leaves(self, key: bytes, data: st.DataObject) -> None:
        if self.waiting[key]:
            number = self.waiting[key].pop(data.draw(st.integers(0, len(self.waiting[key]) - 1)))
            self.flights.leave(key, self.calls[number])

    @rule(seconds=st.floats(0, 8))
    def time_goes_by(self, seconds: float) -> None:
        self.now += seconds

    def ended(self, key: bytes, outcome: list[int]) -> None:
        for number in self.waiting[key]:
            assert self.outcomes[number] == outcome
        self.waiting[key].clear()
        self.began[key] = None

    @invariant()
    def who_waits_was_not_called_and_all_others_once_at_most(self) -> None:
        waiting = {number for numbers in self.waiting.values() for number in numbers}
        for number, outcomes in enumerate(self.outcomes):
            assert len(outcomes) == 0 if number in waiting else len(outcomes) <= 1

    @invariant()
    def nothing_is_left_of_what_landed(self) -> None:
        assert len(self.flights) == sum(began is not None for began in self.began.values())


TestSingleFlight = FlightMachine.TestCase
TestSingleFlight.settings = settings(max_examples=60, stateful_step_count=30)
