"""What was watched is drawn, and nothing else: weights and measurements of whole rollouts of the real engine."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.simulation.world import World

from canarium_api.status import ModelDeploymentStatus
from canarium_dashboard.history import CheckPoint, History, Source, WeightPoint, thinned
from canarium_dashboard.told import joined, time_of, weights_told
from canarium_dashboard.views.weights import chart_of, span_of
from canarium_operator.testing.metrics import Behaviour
from canarium_operator.testing.objects import model_deployment
from canarium_operator.testing.scenario import START

KEY = ("ml", "fraud")
ROLLOUT = {
    "analysis": {"interval": "10s"},
    "canary": {"steps": [{"weight": w, "pause": "20s"} for w in (5, 20)]},
}


class Rollout:
    """A rollout of a second version in virtual time."""

    def __init__(self, *, good: bool = True, sticky: bool = False) -> None:
        self.world = World()
        rollout: dict[str, Any] = ROLLOUT
        if sticky:
            test = {
                "sticky": {"header": "x-user"},
                "share": 30,
                "goals": ["error-rate"],
                "minDuration": "1m",
                "maxDuration": "5m",
                "onWinner": "Promote",
            }
            rollout = {"analysis": {"interval": "10s"}, "abTest": test}
        self.world.put(model_deployment(version="1", rollout=rollout))
        asyncio.run(self.world.run(120, lambda: self.world.phase == "Promoted"))
        self.revision = self.world.put(model_deployment(version="2", rollout=rollout))
        if not good:
            self.world.metrics.behaviours[self.revision] = Behaviour(error_rate=0.4)
        self.history = History()

    def run(self, seconds: float, *, watched: bool) -> None:
        """Play on."""
        for _ in range(round(seconds / 5)):
            asyncio.run(self.world.run(5))
            if watched:
                self.history.saw(KEY, self.status, self.world.clock.now())

    def run_to(self, step: int) -> None:
        """Play on to the beginning of a step, without watching, and five seconds into it."""

        def begun() -> bool:
            rollout = self.status.rollout
            return (
                rollout is not None and rollout.step == step and rollout.step_started_at is not None
            )

        asyncio.run(self.world.run(300, begun))
        self.run(5, watched=False)

    @property
    def status(self) -> ModelDeploymentStatus:
        return ModelDeploymentStatus.from_manifest(self.world.body["status"])

    @property
    def events(self) -> list[dict[str, Any]]:
        return [
            {
                "reason": e.reason,
                "message": e.message,
                "lastTimestamp": f"{e.at:%Y-%m-%dT%H:%M:%SZ}",
            }
            for _, e in self.world.cluster.events
        ]

    def weights(self) -> list[int]:
        """Give the weights as they are drawn."""
        span = span_of(self.status)
        assert span is not None
        watched = self.history.weights(KEY, span.revision)
        now = self.world.clock.now()
        return [p.weight for p in chart_of(span, watched, self.events, (), (), now).points]


@pytest.mark.parametrize("watched", [True, False], ids=["watched", "told by Events"])
@pytest.mark.parametrize(("good", "expected"), [(True, [0, 5, 20, 100]), (False, [0, 5, 0])])
def test_weights_of_a_whole_rollout(*, watched: bool, good: bool, expected: list[int]) -> None:
    """The same whether somebody watched or the Events tell it: this holds the operator's words to what is read."""
    rollout = Rollout(good=good)
    rollout.run(150, watched=watched)
    assert rollout.status.canary is None
    assert rollout.weights() == expected


def test_what_was_watched_late_begins_with_events_and_goes_on_with_what_was_seen() -> None:
    """Each point says how it is known."""
    rollout = Rollout()
    rollout.run_to(2)
    rollout.run(5, watched=True)
    span = span_of(rollout.status)
    assert span is not None
    watched = rollout.history.weights(KEY, span.revision)
    chart = chart_of(span, watched, rollout.events, (), (), rollout.world.clock.now())
    assert [(p.weight, p.source) for p in chart.points] == [
        (0, Source.EVENT),
        (5, Source.EVENT),
        (20, Source.STATUS),
    ]


def test_without_events_nothing_is_drawn_before_the_status_says_since_when() -> None:
    """The weight of the present step is known since its start, the ones before are not."""
    rollout = Rollout()
    rollout.run_to(2)
    rollout.run(5, watched=True)
    span = span_of(rollout.status)
    assert span is not None
    watched = rollout.history.weights(KEY, span.revision)
    chart = chart_of(span, watched, [], (), (), rollout.world.clock.now())
    assert [(p.weight, p.source) for p in chart.points] == [(20, Source.STATUS)]
    assert chart.known_from == rollout.status.rollout.step_started_at  # type: ignore[union-attr]
    assert chart.known_from is not None
    assert chart.known_from > span.start


def test_a_sticky_share_is_told_as_well() -> None:
    """Its words are another form of the same Event."""
    rollout = Rollout(sticky=True)
    rollout.run(40, watched=False)
    assert rollout.weights()[:2] == [0, 30]


def test_measurements_are_taken_once_each() -> None:
    """However often the status is seen."""
    rollout = Rollout()
    rollout.run(45, watched=True)
    before = rollout.history.checks(KEY, rollout.revision)["error-rate"]
    assert len(before) >= 3
    assert len({p.at for p in before}) == len(before)
    rollout.history.saw(KEY, rollout.status, rollout.world.clock.now())
    assert rollout.history.checks(KEY, rollout.revision)["error-rate"] == before
    assert rollout.history.checks(KEY, "another") == {}


def test_histories_are_bounded_and_the_one_that_changed_last_stays() -> None:
    """All objects together may not hold more than the bound."""
    rollout = Rollout()
    rollout.run(40, watched=False)
    history = History(max_points=10)
    for name in ("a", "b", "c", "d"):
        history.saw(("ml", name), rollout.status, rollout.world.clock.now())
    kept = [n for n in "abcd" if history.checks(("ml", n), rollout.revision)]
    assert kept[-1] == "d"
    assert len(kept) < 4


def test_what_is_gone_is_forgotten() -> None:
    """An object that is made anew begins anew."""
    rollout = Rollout()
    rollout.run(20, watched=True)
    rollout.history.forget(KEY)
    assert rollout.history.weights(KEY, rollout.revision) == []
    rollout.history.forget(KEY)


@given(st.integers(0, 700), st.integers(1, 240))
def test_thinning_keeps_the_bound_and_the_last_point(count: int, most: int) -> None:
    """For any number of points."""
    points = [
        CheckPoint(
            name="x",
            revision="r",
            step=1,
            at=START + timedelta(seconds=n),
            value=float(n),
            baseline=None,
        )
        for n in range(count)
    ]
    found = thinned(points, most)
    assert len(found) <= most
    assert found[-1:] == points[-1:]
    assert found == sorted(found, key=lambda p: p.at)


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"reason": "StepStarted", "message": "step 1/2: 5% of the traffic goes to v2@abc"},
        {
            "reason": "StepStarted",
            "message": "something else",
            "lastTimestamp": "2026-01-01T12:00:01Z",
        },
        {
            "reason": "StepPassed",
            "message": "step 1/2: 5% of the traffic goes to v2@abc",
            "lastTimestamp": "2026-01-01T12:00:01Z",
        },
        {"reason": "StepStarted", "message": 5, "lastTimestamp": "yesterday"},
        {
            "reason": "StepStarted",
            "message": "step 1/2: 5% of the traffic goes to v2@abc",
            "lastTimestamp": "2026-01-01T11:00:01Z",
        },
    ],
    ids=["empty", "no time", "other words", "another reason", "nonsense", "before the rollout"],
)
def test_events_that_tell_no_weight_are_passed_over(event: dict[str, Any]) -> None:
    """Other controllers, or people, write Events, too."""
    assert weights_told([event], "abcdef", START, START + timedelta(hours=1)) == []


def test_a_time_without_a_zone_is_none() -> None:
    """It could be any."""
    assert time_of({"lastTimestamp": "2026-01-01T12:00:01"}) is None


def test_where_both_speak_what_was_watched_counts() -> None:
    """What the watch has missed, the Events add."""

    def at(seconds: float, weight: int, source: Source) -> WeightPoint:
        when = START + timedelta(seconds=seconds)
        return WeightPoint(at=when, revision="r", weight=weight, source=source)

    told = [at(0, 0, Source.EVENT), at(10, 5, Source.EVENT), at(20, 20, Source.EVENT)]
    watched = [at(10.4, 5, Source.STATUS), at(25, 50, Source.WATCHED)]
    assert [(p.weight, p.source) for p in joined(watched, told)] == [
        (0, "event"),
        (5, "status"),
        (20, "event"),
        (50, "watched"),
    ]
    assert joined([], told) == told
