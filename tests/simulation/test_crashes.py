"""The operator dies at every single call that it makes, once each: the end is always the same, and so is the way."""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest

from canarium_api.golden import Outcome as Outcome_
from canarium_operator.testing.cluster import Call
from canarium_operator.testing.metrics import Behaviour
from canarium_operator.testing.objects import model_deployment

from .test_seeds import SEEDS
from .world import Crash, World

pytestmark = pytest.mark.timeout(400)
"""One test plays some hundred rollouts, which takes a minute on an idle machine."""
ROLLOUT = {
    "canary": {"steps": [{"weight": 40, "pause": "10s"}]},
    "analysis": {"interval": "10s", "minSamples": 10},
    "scaleDownDelay": "10s",
}
PAIRS = SEEDS // 10


@dataclass(frozen=True)
class Outcome:
    """What may not depend on when the operator died."""

    phase: str
    weights: dict[str, int]
    failed: list[str]
    history: list[str]
    events: list[str]
    deployments: list[str]


def manifest(version: str) -> dict[str, Any]:
    return model_deployment(
        version=version, rollout=ROLLOUT, autoscaling={"minReplicas": 2, "maxReplicas": 4}
    )


async def play(world: World, crashes: Sequence[int], error_rate: float) -> tuple[Outcome, int]:
    """Play a first deployment and a rollout; the operator dies at the given calls, counted over all its lives."""
    left = sorted(crashes)

    def fault(_call: Call, when: str) -> None:
        if when == "before" and left and world.calls >= left[0]:
            left.pop(0)
            raise Crash

    world.fault = fault
    first = world.put(manifest("1"))
    await world.run(200, lambda: world.phase == "Promoted")
    assert world.weights == {first: 100}
    world.metrics.lost = 0.0
    second = world.put(manifest("2"))
    world.metrics.behaviours[second] = Behaviour(error_rate=error_rate)
    await world.run(300, lambda: world.phase in ("Promoted", "Aborted"))
    calls = world.calls
    await world.run(20)
    assert world.metrics.lost == 0, f"{world.metrics.lost:.0f} requests were lost"
    world.monitor.finished()
    status = world.status
    return Outcome(
        phase=world.phase,
        weights=world.weights,
        failed=[entry["revision"] for entry in status.get("failedRevisions", [])],
        history=[entry["outcome"] for entry in status["history"]],
        events=[event.reason for _, event in world.cluster.events],
        deployments=[d["metadata"]["name"] for d in world.cluster.each("Deployment")],
    ), calls


@pytest.mark.parametrize(
    ("error_rate", "phase", "outcomes"),
    [(0.0, "Promoted", ["Deployed", "Promoted"]), (0.3, "Aborted", ["Deployed", "RolledBack"])],
    ids=["good", "bad"],
)
def test_a_rollout_ends_the_same_wherever_the_operator_dies(
    error_rate: float, phase: str, outcomes: list[str]
) -> None:
    """Once at each call, and at a sample of all pairs of calls."""
    undisturbed, calls = asyncio.run(play(World(), [], error_rate))
    assert undisturbed.phase == phase
    assert undisturbed.history == outcomes
    assert calls > 40
    pairs = list(itertools.combinations(range(1, calls + 1), 2))
    for crashes in [(n,) for n in range(1, calls + 1)] + Random(1).sample(pairs, PAIRS):
        world = World()
        with world.explained(f"the operator died at call {crashes} of a rollout of {calls} calls"):
            outcome, _ = asyncio.run(play(world, crashes, error_rate))
            assert world.crashes > 0
            assert outcome == undisturbed


VALIDATED = {
    **ROLLOUT,
    "validation": {
        "data": {"uri": "configmap://golden/golden.csv"},
        "thresholds": {"metrics": {"accuracy": {"min": 0.9}}},
    },
}


async def play_validated(outcome: Outcome_, crashes: Sequence[int]) -> tuple[Outcome, int, int]:
    """Play a rollout that golden data judge; gives how many pods of Jobs there were, too."""
    world, left = World(), sorted(crashes)
    world.cluster.controllers.golden = outcome

    def fault(_call: Call, when: str) -> None:
        if when == "before" and left and world.calls >= left[0]:
            left.pop(0)
            raise Crash

    def body(version: str) -> dict[str, Any]:
        return model_deployment(
            version=version, rollout=VALIDATED, autoscaling={"minReplicas": 2, "maxReplicas": 4}
        )

    world.put(body("1"))
    await world.run(200, lambda: world.phase == "Promoted")
    first = world.calls
    world.fault = fault
    left[:] = [first + crash for crash in left]
    second = world.put(body("2"))
    carried = 0

    def over() -> bool:
        nonlocal carried
        carried = max(carried, world.weights.get(second, 0))
        return world.phase in ("Promoted", "Aborted")

    await world.run(300, over)
    calls = world.calls - first
    await world.run(20)
    world.monitor.finished()
    if outcome.passed is False:
        assert carried == 0, "a canary that golden data refuse had traffic"
    status = world.status
    found = Outcome(
        phase=world.phase,
        weights=world.weights,
        failed=[entry["reason"] for entry in status.get("failedRevisions", [])],
        history=[entry["outcome"] for entry in status["history"]],
        events=[event.reason for _, event in world.cluster.events],
        deployments=[d["metadata"]["name"] for d in world.cluster.each("Deployment")],
    )
    return found, calls, len(list(world.cluster.each("Job")))


@pytest.mark.parametrize(
    ("outcome", "phase", "failed"),
    [
        (Outcome_(passed=True, message="all met"), "Promoted", []),
        (Outcome_(passed=False, message="accuracy is 0.7"), "Aborted", ["ValidationFailed"]),
    ],
    ids=["met", "missed"],
)
def test_golden_data_are_asked_once_wherever_the_operator_dies(
    outcome: Outcome_, phase: str, failed: list[str]
) -> None:
    """One Job a canary, the same end, and no traffic for a model that misses a threshold."""
    undisturbed, calls, jobs = asyncio.run(play_validated(outcome, []))
    assert (undisturbed.phase, undisturbed.failed, jobs) == (phase, failed, 1)
    assert calls > 15
    for crash in range(1, calls + 1):
        found, _, jobs = asyncio.run(play_validated(outcome, [crash]))
        assert (found, jobs) == (undisturbed, 1), f"the operator died at call {crash} of {calls}"
