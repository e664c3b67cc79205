"""Strategies: the same engine carries out other steps."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from canarium_api.conditions import ConditionType, Reason
from canarium_api.status import Phase
from canarium_operator.core.plan import make_plan
from canarium_operator.core.resources.desired import desired_children
from canarium_operator.core.resources.route import reached_by, weights_of
from canarium_operator.core.revision import revision_of
from canarium_operator.testing.scenario import IMAGE, REF, Scenario, Traffic, make_spec

V1, V2, V3 = (revision_of(make_spec(v), IMAGE).name for v in "123")
BLUE_GREEN: dict[str, Any] = {
    "blueGreen": {
        "beforeSwitch": {"pause": "1m"},
        "afterSwitch": {"pause": "1m"},
        "keepFor": "10m",
    },
    "analysis": {"metrics": [{"name": "error-rate", "minEffect": "5%"}]},
}


def blue_green(**changes: Any) -> Scenario:
    """Version 2 is up, and waits for the switch."""
    rollout = {**BLUE_GREEN, **changes}
    return (
        Scenario(spec=make_spec("1", rollout=rollout))
        .settle()
        .change(make_spec("2", rollout=rollout))
    )


def manifests(world: Scenario) -> dict[tuple[str, str], dict[str, Any]]:
    """All objects that the status asks for."""
    plan = make_plan(REF, world.spec, world.status, world.observed, world.wanted)
    return {(m["kind"], m["metadata"]["name"]): m for m in desired_children(plan)}


def reasons(world: Scenario) -> str | None:
    return world.status.last_transition.reason if world.status.last_transition else None


def is_ready(world: Scenario) -> bool:
    found = {c.type: c.status for c in world.status.conditions}
    return found[ConditionType.READY] == "True"


# --- blue-green


def test_the_new_colour_comes_up_at_full_size_without_traffic() -> None:
    """It is reached by the preview Service and the preview header alone."""
    world = blue_green().settle()
    assert world.status.phase is Phase.CANARY
    assert world.observed.workload(V2).ready_replicas == 2
    made = manifests(world)
    assert made["Service", "fraud-preview"]["spec"]["selector"]["canarium.dev/revision"] == V2
    route = made["HTTPRoute", "fraud"]
    assert weights_of(route) == {V1: 100}
    assert reached_by(route) == {V1, V2}
    rule = route["spec"]["rules"][0]
    assert rule["matches"][0]["headers"] == [
        {"type": "Exact", "name": "x-canarium-preview", "value": "true"}
    ]
    assert [b["name"] for b in rule["backendRefs"]] == [f"fraud-{V2}"]


def test_nobody_is_led_to_pods_that_are_not_ready() -> None:
    """The preview begins when the new colour is at its full size."""
    world = blue_green().step().act(ready=False).pods(V2, 1).step()
    assert ("Service", "fraud-preview") not in manifests(world)
    assert reached_by(manifests(world)["HTTPRoute", "fraud"]) == {V1}


def test_the_switch_moves_all_traffic_at_once() -> None:
    """After its pause; the preview is gone then."""
    world = blue_green().settle().later(61).settle()
    assert world.observed.route is not None
    assert world.observed.route.weights == {V2: 100}
    assert world.status.rollout is not None
    assert world.status.rollout.weight == 100
    assert ("Service", "fraud-preview") not in manifests(world)
    assert world.observed.workload(V1).ready_replicas == 2


def test_the_new_colour_is_promoted_after_the_checks_and_the_old_one_kept() -> None:
    """Ready at once: what is kept for a way back is no reason to wait."""
    world = blue_green().settle().later(61).settle().later(61).settle()
    assert reasons(world) == Reason.PROMOTED
    assert (world.status.phase, is_ready(world)) == (Phase.PROMOTED, True)
    assert world.observed.workload(V1).ready_replicas == 2
    world = world.later(598).settle()
    assert V1 in world.observed.workloads
    world = world.later(3).settle()
    assert V1 not in world.observed.workloads
    assert is_ready(world)


def test_a_bad_new_colour_gives_the_traffic_back_after_the_switch() -> None:
    """In one decision; stable has kept all its pods."""
    world = blue_green().settle().later(61).settle().serves(V2, Traffic(error_rate=0.3))
    world = world.later(31).step().act()
    assert world.observed.route is not None
    assert world.observed.route.weights == {V1: 100}
    assert world.status.failed_revisions[0].reason == Reason.ANALYSIS_FAILED


def test_checks_before_the_switch_are_those_that_are_named() -> None:
    """None by default, since no user's request has reached the new colour yet."""
    named = {**BLUE_GREEN["blueGreen"], "beforeSwitch": {"pause": "1m", "metrics": ["error-rate"]}}
    world = blue_green(blueGreen=named).settle().serves(V2, Traffic(requests=None))
    world = world.later(61).settle()
    assert world.status.rollout is not None
    assert (world.status.rollout.step, world.status.rollout.blocked_on) == (1, Reason.NO_DATA)


def test_the_kept_colour_is_an_instant_way_back() -> None:
    """Naming it again needs no pod start and no step."""
    world = blue_green().settle().later(61).settle().later(61).settle()
    world = world.change(make_spec("1", rollout=BLUE_GREEN)).step()
    assert "which was stable before" in world.status.last_transition.message  # type: ignore[union-attr]
    assert world.status.rollout is not None
    assert world.status.rollout.strategy == "direct"
    world = world.act(ready=False).step().act(ready=False)
    assert world.observed.route is not None
    assert world.observed.route.weights == {V1: 100}


# --- rollback window


def promoted_twice(**rollout: Any) -> Scenario:
    """Versions 1, 2 and 3 were stable one after the other."""
    settings = {
        "canary": {"steps": [{"weight": 50, "pause": "1m"}]},
        "analysis": {"metrics": []},
        **rollout,
    }
    world = Scenario(spec=make_spec("1", rollout=settings)).settle()
    for version in "23":
        world = world.change(make_spec(version, rollout=settings)).settle()
        world = world.later(61).settle().later(31).settle()
    assert world.status.phase is Phase.PROMOTED
    return world


@pytest.mark.parametrize("version", ["1", "2"])
def test_going_back_to_a_version_that_was_good_is_done_at_once(version: str) -> None:
    """As soon as its pods are ready, without steps, and also in a freeze window."""
    freeze = [{"from": "00:00", "to": "00:00"}]
    world = promoted_twice()
    settings = world.spec.rollout.to_manifest()
    world = world.change(make_spec(version, rollout={**settings, "freezes": freeze})).settle()
    assert world.observed.route is not None
    assert world.observed.route.weights == {revision_of(make_spec(version), IMAGE).name: 100}
    assert world.status.history[-1].outcome == "Promoted"
    assert "took over without steps" in world.status.history[-1].message


@pytest.mark.parametrize(("window", "strategy"), [(2, "direct"), (1, "canary"), (0, "canary")])
def test_the_window_has_an_end(window: int, strategy: str) -> None:
    """What was stable longer ago walks all steps."""
    world = promoted_twice(rollbackWindow=window)
    world = world.change(make_spec("1", rollout=world.spec.rollout.to_manifest())).step()
    assert world.status.rollout is not None
    assert world.status.rollout.strategy == strategy


def test_a_version_that_failed_is_not_gone_back_to() -> None:
    """Even if it was stable before that: the failure is the latest that is known of it."""
    world = promoted_twice()
    failed = replace(world, commands={"abort": "alice 1"})
    world = failed.change(make_spec("4", rollout=world.spec.rollout.to_manifest())).settle()
    world = replace(world, commands={"abort": "alice 2"}).settle().later(31).settle()
    assert world.status.phase is Phase.ABORTED
    again = world.change(make_spec("4", rollout=world.spec.rollout.to_manifest())).settle()
    assert again.status.canary is None


def test_what_is_kept_for_a_way_back_goes_when_its_time_is_over() -> None:
    """The next look comes then, not at the next resync."""
    world = blue_green(analysis={"metrics": []}).settle()
    world = world.later(61).settle().later(61).settle()
    assert [entry.keep_for for entry in world.status.retiring] == [timedelta(minutes=10)]
    later = world.later(9 * 60).step()
    assert later.decision is not None
    assert later.decision.requeue_after == timedelta(minutes=1)
    assert later.later(60).settle().status.retiring == []
