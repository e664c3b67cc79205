"""`canarium record`: what Prometheus knows of a rollout, in the form that `canarium plan` reads."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from canarium_api.status import HistoryEntry, ModelDeploymentStatus, RevisionStatus, RolloutStatus
from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_cli.record import RecordError, Span, samples_of, span_of
from canarium_operator.core.naming import ObjectRef
from canarium_operator.replay.planner import Planner
from canarium_operator.replay.recording import parse
from canarium_operator.testing.objects import model_deployment

NOW = datetime(2026, 1, 1, 13, tzinfo=UTC)
START = datetime(2026, 1, 1, 12, tzinfo=UTC)
REF = ObjectRef(namespace="ml", name="fraud")
STEP = timedelta(seconds=30)
SPAN = Span(canary="new", stable="old", start=START, end=START + timedelta(minutes=30))
Points = list[tuple[Mapping[str, str], list[tuple[float, float]]]]


def entry(revision: str, outcome: str, minutes: int) -> HistoryEntry:
    at = START + timedelta(minutes=minutes)
    return HistoryEntry(
        revision=revision,
        model_version=revision,
        outcome=outcome,
        message="",
        started_at=at,
        finished_at=at + timedelta(minutes=9),
    )


def test_the_rollout_under_way_is_recorded_until_now() -> None:
    """Whatever ended before."""
    status = ModelDeploymentStatus(
        stable=RevisionStatus(revision="old", model_version="1"),
        canary=RevisionStatus(revision="new", model_version="2"),
        rollout=RolloutStatus(steps=1, weights=[100], started_at=START),
        history=[entry("old", "Deployed", -60)],
    )
    assert span_of(status, NOW) == Span(canary="new", stable="old", start=START, end=NOW)


@pytest.mark.parametrize(
    ("history", "canary", "stable"),
    [
        ([("a", "Deployed"), ("b", "Promoted")], "b", "a"),
        ([("a", "Deployed"), ("b", "RolledBack")], "b", "a"),
        ([("a", "Deployed"), ("b", "Promoted"), ("c", "RolledBack"), ("d", "Superseded")], "c", "b"),
    ],
)  # fmt: skip
def test_else_the_latest_that_ended_beside_what_was_stable_then(
    history: list[tuple[str, str]], canary: str, stable: str
) -> None:
    """What was withdrawn is no rollout to learn from."""
    entries = [entry(name, outcome, 10 * n) for n, (name, outcome) in enumerate(history)]
    found = span_of(ModelDeploymentStatus(history=entries), NOW)
    assert (found.canary, found.stable) == (canary, stable)


def test_an_object_that_never_had_a_rollout_is_refused() -> None:
    """A first deployment has nothing beside it."""
    with pytest.raises(RecordError, match="no rollout is under way"):
        span_of(ModelDeploymentStatus(history=[entry("a", "Deployed", 0)]), NOW)


def source(error_rate: float) -> Any:
    """A Prometheus: 300 requests of stable and 60 of the canary in each step, the canary from the start on."""

    def ask(query: str) -> Points:
        series: Points = []
        for revision, requests, begins in (("old", 300.0, -600), ("new", 60.0, 30)):
            times = [START.timestamp() + s for s in range(begins, 3601, 30)]
            rate = error_rate if revision == "new" else 0.005
            if "agreement" in query:
                if f'"{revision}"' in query:
                    series.append(({}, [(at, 0.97) for at in times]))
            elif "_bucket" in query:
                for bound, share in (("0.05", 0.6), ("0.1", 0.9), ("+Inf", 1.0)):
                    points = [(at, requests * share) for at in times]
                    series.append(({"revision": revision, "le": bound}, points))
            else:
                for status, share in (("success", 1 - rate), ("error", rate), ("invalid", 0.01)):
                    points = [(at, requests * share) for at in times]
                    series.append(({"revision": revision, "status": status}, points))
        return series

    return ask


def spec() -> ModelDeploymentSpec:
    metrics = [
        {"name": "error-rate"},
        {"name": "agreement", "query": 'agreement{r="{{revision}}"}', "min": 0.9},
    ]
    return ModelDeploymentSpec.from_manifest(
        model_deployment(rollout={"analysis": {"metrics": metrics}})["spec"]
    )


@pytest.mark.parametrize(("error_rate", "outcome"), [(0.005, "promoted"), (0.05, "rolled_back")])
def test_what_is_recorded_can_be_planned_with(error_rate: float, outcome: str) -> None:
    """The whole way: Prometheus, file, plan."""
    samples = samples_of(REF, spec(), SPAN, source(error_rate), STEP)
    text = json.dumps(samples)
    _, found = Planner(ref=REF, spec=spec(), recording=parse(text)).run()
    assert found.outcome == outcome


def test_samples_are_cumulative_and_begin_before_the_rollout() -> None:
    """Ten minutes of stable: what the last step is compared with."""
    samples = samples_of(REF, spec(), SPAN, source(0.01), STEP)
    stable = [s for s in samples if s["revision"] == "stable"]
    canary = [s for s in samples if s["revision"] == "canary"]
    assert (stable[0]["at"], canary[0]["at"]) == (-630, 0)
    assert [s["requests"] for s in canary[:4]] == [0, 60, 120, 180]
    assert canary[2]["errors"] == pytest.approx(1.2)
    assert canary[2]["latency_seconds_buckets"] == {"0.05": 72, "0.1": 108, "+Inf": 120}
    assert canary[2]["values"] == {"agreement": 0.97}


def test_what_was_counted_in_a_single_step_is_evidence() -> None:
    """A canary that was taken back within seconds has one point in Prometheus; the file tells its increase."""
    span = Span(canary="new", stable="old", start=START, end=START + timedelta(seconds=60))

    def at_the_end(query: str) -> Points:
        within = START.timestamp() + 60
        return [
            (
                labels,
                [
                    point
                    for point in points
                    if labels.get("revision") == "old" or point[0] == within
                ],
            )
            for labels, points in source(0.9)(query)
        ]

    samples = samples_of(REF, spec(), span, at_the_end, STEP)
    assert [s["requests"] for s in samples if s["revision"] == "canary"] == [0, 60]
