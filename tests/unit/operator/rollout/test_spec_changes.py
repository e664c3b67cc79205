"""What a change of the spec does in each phase: docs/explanation/safety.md has the same table for users.

Every cell is a test. A row says who is stable, who is the canary, with which weight of which step, and what happened,
once the moment of the change has settled.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest

from canarium_api.conditions import Reason
from canarium_api.status import Phase
from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_operator.core.plan import Plan, make_plan
from canarium_operator.core.resources.desired import desired_children
from canarium_operator.core.revision import revision_of
from canarium_operator.testing.scenario import IMAGE, REF, Scenario, Traffic, make_spec

BASE: Final = make_spec().to_manifest()
ROLLOUT: Final = BASE["rollout"]
NAMES: Final = {revision_of(make_spec(v), IMAGE).name: f"v{v}" for v in "123"}


def spec(version: str, **changes: Any) -> ModelDeploymentSpec:
    return make_spec(version, **changes)


# --- where it is


def nothing() -> Scenario:
    """Seen, and nothing exists yet."""
    return Scenario()


def starting() -> Scenario:
    """Version 1 comes up as the first revision."""
    return Scenario().step().act(ready=False).step()


def serving() -> Scenario:
    """Version 1 serves."""
    return Scenario().settle()


def loading() -> Scenario:
    """Version 2's pods start beside version 1."""
    return serving().change(spec("2")).step().act(ready=False).step()


def stepping() -> Scenario:
    """Version 2 has 50 % in step 2 of 3."""
    return serving().change(spec("2")).settle().later(61).settle()


def paused() -> Scenario:
    """The same, and the spec holds it."""
    return stepping().change(spec("2", rollout={**ROLLOUT, "paused": True})).settle()


def promoting() -> Scenario:
    """Version 2 is stable, version 1 drains."""
    return stepping().later(61).settle().later(61).settle()


def rolling_back() -> Scenario:
    """Version 2 has failed and drains."""
    return stepping().serves(_name("2"), Traffic(error_rate=0.3)).later(31).settle()


def aborted() -> Scenario:
    """Version 2 has failed and is gone."""
    return rolling_back().later(31).settle()


def invalid() -> Scenario:
    """Version 2 was a canary when the spec became invalid; the change comes with what mends it."""
    broken = replace(stepping().change(spec("2")), problem="spec.x: is wrong").settle()
    return replace(broken, problem=None)


def starting_the_last_good() -> Scenario:
    """Version 1 comes up first in a new cluster; the spec names version 2."""
    good = {"uri": "https://models/fraud/1.onnx", "version": "1"}
    named = spec("2", rollout={**ROLLOUT, "lastGood": good})
    return Scenario(spec=named).step().act(ready=False).step()


PLACES: Final[dict[str, Callable[[], Scenario]]] = {
    "Pending": nothing,
    "Loading the first": starting,
    "Promoted": serving,
    "Loading a canary": loading,
    "Canary": stepping,
    "Paused": paused,
    "Promoting": promoting,
    "RollingBack": rolling_back,
    "Aborted": aborted,
    "Invalid": invalid,
    "Loading the last good": starting_the_last_good,
}

# --- what is changed


def edited(scenario: Scenario, **parts: Any) -> Scenario:
    """Change parts of the spec, and keep the rest."""
    body = {**scenario.spec.to_manifest(), **parts}
    return scenario.change(ModelDeploymentSpec.from_manifest(body))


def rollout_edited(scenario: Scenario, **parts: Any) -> Scenario:
    return edited(scenario, rollout={**scenario.spec.to_manifest()["rollout"], **parts})


STEPS: Final = {"steps": [{"weight": w, "pause": "1m"} for w in (20, 40, 100)]}


def _strategy(scenario: Scenario) -> Scenario:
    rollout = dict(scenario.spec.to_manifest()["rollout"])
    rollout.pop("canary")
    return edited(scenario, rollout={**rollout, "blueGreen": {}})


CHANGES: Final[dict[str, Callable[[Scenario], Scenario]]] = {
    "model": lambda s: edited(s, model=spec("3").to_manifest()["model"]),
    "model back": lambda s: edited(s, model=spec("1").to_manifest()["model"]),
    "serving": lambda s: edited(s, serving={"maxBatchSize": 8}),
    "steps": lambda s: rollout_edited(s, canary=STEPS),
    "strategy": _strategy,
    "autoscaling": lambda s: edited(s, autoscaling={"minReplicas": 4, "maxReplicas": 8}),
    "gateway": lambda s: edited(s, traffic={"gateway": {"name": "other"}}),
    "delete": lambda s: s.recreated(),
}


def _name(version: str) -> str:
    return revision_of(make_spec(version), IMAGE).name


def outcome(scenario: Scenario) -> str:
    """Say what is, in one line."""
    status = scenario.status
    stable = "-" if status.stable is None else NAMES.get(status.stable.revision, "new")
    words = f"{stable}"
    if status.canary is not None and status.rollout is not None:
        canary = NAMES.get(status.canary.revision, "new")
        words += f", {canary} at {status.rollout.weight}% in {status.rollout.step}/{status.rollout.steps}"
    failed = [NAMES.get(f.revision, "new") for f in status.failed_revisions]
    if failed:
        words += f", {' '.join(failed)} failed"
    return f"{status.phase}: {words}"


CELLS: Final = [
    ("Pending", "model", "Promoted: v3"),
    ("Pending", "model back", "Promoted: v1"),
    ("Pending", "serving", "Promoted: new"),
    ("Pending", "steps", "Promoted: v1"),
    ("Pending", "strategy", "Promoted: v1"),
    ("Pending", "autoscaling", "Promoted: v1"),
    ("Pending", "gateway", "Promoted: v1"),
    ("Pending", "delete", "Promoted: v1"),
    ("Loading the first", "model", "Promoted: v3"),
    ("Loading the first", "model back", "Promoted: v1"),
    ("Loading the first", "serving", "Promoted: new"),
    ("Loading the first", "steps", "Promoted: v1"),
    ("Loading the first", "strategy", "Promoted: v1"),
    ("Loading the first", "autoscaling", "Promoted: v1"),
    ("Loading the first", "gateway", "Promoted: v1"),
    ("Loading the first", "delete", "Promoted: v1"),
    ("Promoted", "model", "Canary: v1, v3 at 10% in 1/3"),
    ("Promoted", "model back", "Promoted: v1"),
    ("Promoted", "serving", "Canary: v1, new at 10% in 1/3"),
    ("Promoted", "steps", "Promoted: v1"),
    ("Promoted", "strategy", "Promoted: v1"),
    ("Promoted", "autoscaling", "Promoted: v1"),
    ("Promoted", "gateway", "Promoted: v1"),
    ("Promoted", "delete", "Promoted: v1"),
    ("Loading a canary", "model", "Canary: v1, v3 at 10% in 1/3"),
    ("Loading a canary", "model back", "RollingBack: v1"),
    ("Loading a canary", "serving", "Canary: v1, new at 10% in 1/3"),
    ("Loading a canary", "steps", "Canary: v1, v2 at 20% in 1/3"),
    ("Loading a canary", "strategy", "Canary: v1, v2 at 0% in 1/2"),
    ("Loading a canary", "autoscaling", "Canary: v1, v2 at 10% in 1/3"),
    ("Loading a canary", "gateway", "Canary: v1, v2 at 10% in 1/3"),
    ("Loading a canary", "delete", "Canary: v1, v2 at 10% in 1/3"),
    ("Canary", "model", "Canary: v1, v3 at 10% in 1/3"),
    ("Canary", "model back", "RollingBack: v1"),
    ("Canary", "serving", "Canary: v1, new at 10% in 1/3"),
    ("Canary", "steps", "Canary: v1, v2 at 40% in 2/3"),
    ("Canary", "strategy", "Canary: v1, v2 at 0% in 1/2"),
    ("Canary", "autoscaling", "Canary: v1, v2 at 50% in 2/3"),
    ("Canary", "gateway", "Canary: v1, v2 at 50% in 2/3"),
    ("Canary", "delete", "Canary: v1, v2 at 10% in 1/3"),
    ("Paused", "model", "RollingBack: v1"),
    ("Paused", "model back", "RollingBack: v1"),
    ("Paused", "serving", "RollingBack: v1"),
    ("Paused", "steps", "Paused: v1, v2 at 40% in 2/3"),
    ("Paused", "strategy", "Paused: v1, v2 at 0% in 1/2"),
    ("Paused", "autoscaling", "Paused: v1, v2 at 50% in 2/3"),
    ("Paused", "gateway", "Paused: v1, v2 at 50% in 2/3"),
    ("Paused", "delete", "Paused: v1"),
    ("Promoting", "model", "Canary: v2, v3 at 10% in 1/3"),
    ("Promoting", "model back", "Promoting: v1"),
    ("Promoting", "serving", "Canary: v2, new at 10% in 1/3"),
    ("Promoting", "steps", "Promoting: v2"),
    ("Promoting", "strategy", "Promoting: v2"),
    ("Promoting", "autoscaling", "Promoting: v2"),
    ("Promoting", "gateway", "Promoting: v2"),
    ("Promoting", "delete", "Promoted: v2"),
    ("RollingBack", "model", "Canary: v1, v3 at 10% in 1/3, v2 failed"),
    ("RollingBack", "model back", "RollingBack: v1, v2 failed"),
    ("RollingBack", "serving", "Canary: v1, new at 10% in 1/3, v2 failed"),
    ("RollingBack", "steps", "RollingBack: v1, v2 failed"),
    ("RollingBack", "strategy", "RollingBack: v1, v2 failed"),
    ("RollingBack", "autoscaling", "RollingBack: v1, v2 failed"),
    ("RollingBack", "gateway", "RollingBack: v1, v2 failed"),
    ("RollingBack", "delete", "Aborted: v1, v2 failed"),
    ("Aborted", "model", "Canary: v1, v3 at 10% in 1/3, v2 failed"),
    ("Aborted", "model back", "Promoted: v1, v2 failed"),
    ("Aborted", "serving", "Canary: v1, new at 10% in 1/3, v2 failed"),
    ("Aborted", "steps", "Aborted: v1, v2 failed"),
    ("Aborted", "strategy", "Aborted: v1, v2 failed"),
    ("Aborted", "autoscaling", "Aborted: v1, v2 failed"),
    ("Aborted", "gateway", "Aborted: v1, v2 failed"),
    ("Aborted", "delete", "Aborted: v1, v2 failed"),
    ("Invalid", "model", "Canary: v1, v3 at 10% in 1/3"),
    ("Invalid", "model back", "RollingBack: v1"),
    ("Invalid", "serving", "Canary: v1, new at 10% in 1/3"),
    ("Invalid", "steps", "Canary: v1, v2 at 20% in 1/3"),
    ("Invalid", "strategy", "Canary: v1, v2 at 0% in 1/2"),
    ("Invalid", "autoscaling", "Canary: v1, v2 at 10% in 1/3"),
    ("Invalid", "gateway", "Canary: v1, v2 at 10% in 1/3"),
    ("Invalid", "delete", "Canary: v1, v2 at 10% in 1/3"),
    ("Loading the last good", "model", "Canary: v1, v3 at 10% in 1/3"),
    ("Loading the last good", "model back", "Promoted: v1"),
    ("Loading the last good", "serving", "Canary: new, new at 10% in 1/3"),
    ("Loading the last good", "steps", "Canary: v1, v2 at 20% in 1/3"),
    ("Loading the last good", "strategy", "Canary: v1, v2 at 0% in 1/2"),
    ("Loading the last good", "autoscaling", "Canary: v1, v2 at 10% in 1/3"),
    ("Loading the last good", "gateway", "Canary: v1, v2 at 10% in 1/3"),
    ("Loading the last good", "delete", "Canary: v1, v2 at 10% in 1/3"),
]


def test_every_cell_of_the_table_is_there() -> None:
    """A new phase or a new kind of change needs its outcome."""
    assert [(place, change) for place, change, _ in CELLS] == [
        (place, change) for place in PLACES for change in CHANGES
    ]


@pytest.mark.parametrize(("place", "change", "expected"), CELLS)
def test_a_change_of_the_spec_has_a_defined_outcome(place: str, change: str, expected: str) -> None:
    """Once the moment of the change has settled."""
    assert expected == outcome(CHANGES[change](PLACES[place]()).settle())


@pytest.mark.parametrize("place", [name for name in PLACES if name != "Pending"])
@pytest.mark.parametrize("change", [name for name in CHANGES if name != "delete"])
def test_no_change_of_the_spec_takes_pods_from_what_serves(place: str, change: str) -> None:
    """At no moment is the stable revision without traffic, or asked to run with fewer pods than it had."""
    scenario = CHANGES[change](PLACES[place]())
    if place.startswith("Loading the"):
        return  # nothing serves yet
    before = plan_of(scenario)
    stable = scenario.status.stable
    assert stable is not None
    sizes = {p.revision.name: p.min_replicas for p in before.revisions}
    for _ in range(12):
        scenario = scenario.step()
        plan = plan_of(scenario)
        assert scenario.status.stable is not None
        assert stable.revision in plan.kept
        if scenario.status.stable.revision != stable.revision:
            return  # back to what was stable before, whose pods are there (rollbackWindow)
        floors = {p.revision.name: p.min_replicas for p in plan.revisions}
        assert floors[stable.revision] >= sizes[stable.revision]
        failed = {f.revision for f in scenario.status.failed_revisions}
        assert not failed & set(plan.weights or ())
        scenario = scenario.act()


@pytest.mark.parametrize("place", list(PLACES))
def test_new_bounds_take_effect_at_once_wherever_it_is(place: str) -> None:
    """`minReplicas` of the new spec, for whoever is stable when the moment has settled."""
    scenario = CHANGES["autoscaling"](PLACES[place]()).settle()
    stable = scenario.status.stable
    assert stable is not None
    floors = {p.revision.name: p.min_replicas for p in plan_of(scenario).revisions}
    assert floors[stable.revision] == 4


@pytest.mark.parametrize("place", list(PLACES))
def test_a_new_gateway_is_asked_for_at_once_wherever_it_is(place: str) -> None:
    """With the weights as they are."""
    scenario = CHANGES["gateway"](PLACES[place]()).settle()
    [route] = [m for m in desired_children(plan_of(scenario)) if m["kind"] == "HTTPRoute"]
    assert [parent["name"] for parent in route["spec"]["parentRefs"]] == ["other"]


@pytest.mark.parametrize("place", ["Canary", "Promoted", "Promoting"])
def test_a_gateway_that_does_not_take_the_route_is_waited_for(place: str) -> None:
    """The old gateway's answer proves nothing of the new one: Ready is False, and no step begins."""
    scenario = CHANGES["gateway"](PLACES[place]()).act(accepted=False)
    scenario = scenario.later(120).step().act(accepted=False).step().act(accepted=False).step()
    weights = plan_of(scenario).weights
    assert scenario.status.phase in (Phase.CANARY, Phase.PROMOTED, Phase.PROMOTING)
    assert sum((weights or {}).values()) == 100
    ready = next(c for c in scenario.status.conditions if c.type == "Ready")
    assert ready.status == "False"


def plan_of(scenario: Scenario) -> Plan:
    """What the status asks for."""
    wanted = scenario.given().wanted
    return make_plan(REF, scenario.spec, scenario.status, scenario.observed, wanted)


def test_a_paused_rollout_whose_model_changes_is_withdrawn_and_the_new_one_waits() -> None:
    """The pause holds what is new; it does not keep what nobody wants any more."""
    scenario = CHANGES["model"](paused()).settle()
    assert scenario.observed.weight(_name("2")) == 0
    released = rollout_edited(scenario, paused=False).settle()
    assert outcome(released) == "Canary: v1, v3 at 10% in 1/3"
    reasons = {h.outcome for h in released.status.history}
    assert "Superseded" in reasons
    assert released.status.last_transition is not None
    assert released.status.last_transition.reason == Reason.STEP_STARTED
