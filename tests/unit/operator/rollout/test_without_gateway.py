"""Without a gateway the ratio of pods behind the Service `NAME` gives the weights."""

from dataclasses import replace
from typing import Any

import pytest

from canarium_api.conditions import ConditionType, Reason
from canarium_api.status import Phase, Splitter
from canarium_operator.core import naming, ratio
from canarium_operator.core.defaults import filled_in
from canarium_operator.core.diff import Apply, Delete, diff
from canarium_operator.core.observing import observe
from canarium_operator.core.plan import make_plan
from canarium_operator.core.resources.desired import desired_children
from canarium_operator.core.revision import revision_of
from canarium_operator.core.validation import validate
from canarium_operator.testing.scenario import IMAGE, REF, Scenario, Traffic, make_spec

V1, V2, V3 = (revision_of(make_spec(v), IMAGE).name for v in "123")
NOWHERE: dict[str, Any] = {"traffic": {}, "autoscaling": {"minReplicas": 3, "maxReplicas": 20}}


def steps(*weights: int) -> dict[str, Any]:
    """A rollout of these weights, a minute each, without checks."""
    return {
        "canary": {"steps": [{"weight": w, "pause": "1m"} for w in weights]},
        "analysis": {"metrics": []},
    }


def spec(version: str = "1", *weights: int, **changes: Any) -> Any:
    """A spec without a gateway."""
    return make_spec(version, **{**NOWHERE, "rollout": steps(*weights or (10, 25, 100)), **changes})


def canary(*weights: int, **changes: Any) -> Scenario:
    """Version 2 as far as it comes at once beside version 1."""
    first = Scenario(spec=spec("1", *weights, **changes)).settle()
    return first.change(spec("2", *weights, **changes)).settle()


def selector(world: Scenario) -> dict[str, str]:
    """Whom the Service `fraud` leads to."""
    plan = make_plan(REF, world.spec, world.status, world.observed, world.wanted)
    [found] = [
        m
        for m in desired_children(plan)
        if (m["kind"], m["metadata"]["name"]) == ("Service", "fraud")
    ]
    return dict(found["spec"]["selector"])


def pods(world: Scenario) -> tuple[int, int]:
    """Ready pods of versions 1 and 2."""
    seen = world.observed
    return seen.workload(V1).ready_replicas, seen.workload(V2).ready_replicas


ONLY_1, ONLY_2 = (naming.revision_selector(REF, v) for v in (V1, V2))
ALL = naming.any_revision_selector(REF)


@pytest.mark.parametrize(
    ("weight", "stable", "pods"),
    [(10, 9, 1), (10, 10, 1), (5, 18, 1), (50, 3, 3), (25, 3, 1), (25, 10, 3), (75, 3, 9)],
)
def test_a_canary_has_the_most_pods_that_keep_within_its_weight(
    weight: int, stable: int, pods: int
) -> None:
    """The rows are the worked example of the module, and what follows from it."""
    assert pods == ratio.canary_pods(weight, stable)


@pytest.mark.parametrize(
    ("weight", "fewest", "most", "stable"),
    [(10, 3, 20, 9), (5, 3, 20, 18), (25, 3, 20, 3), (25, 4, 20, 6), (1, 3, 20, None)],
)
def test_stable_has_the_fewest_pods_that_reach_a_weight(
    weight: int, fewest: int, most: int, stable: int | None
) -> None:
    """Within half a percentage point."""
    assert stable == ratio.least_stable(weight, fewest, most)


@pytest.mark.parametrize(
    ("fewest", "most", "words"),
    [(3, 20, "5 to 87, 100"), (3, 3, "25, 40, 50, 100"), (1, 1, "50, 100"), (1, 1000, "1 to 100")],
)
def test_the_reachable_weights_follow_from_the_bounds(fewest: int, most: int, words: str) -> None:
    """Nothing but the bounds of the autoscaler decides."""
    assert words == ratio.ranges(ratio.reachable_weights(fewest, most))


def test_a_weight_that_no_ratio_gives_is_refused_with_those_that_one_does() -> None:
    """The message names field, weight, bounds and remedy."""
    [problem] = validate(spec("1", 1, 50))
    assert str(problem) == (
        "spec.rollout.canary.steps[0].weight: without a gateway no ratio of 3 to 20 pods gives 1%: use 5 to 87, 100, "
        "raise autoscaling.maxReplicas, or set traffic.gateway"
    )
    assert validate(spec("1", 5, 50, 100)) == []
    assert validate(make_spec(rollout=steps(1, 50))) == []


@pytest.mark.parametrize(
    ("bounds", "weights"), [((3, 20), [25, 50, 100]), ((1, 1), [50, 100]), ((50, 100), [1, 5, 10, 25, 50, 100])]
)  # fmt: skip
def test_the_default_steps_are_those_that_need_few_pods(
    bounds: tuple[int, int], weights: list[int]
) -> None:
    """A ModelDeployment that says nothing of its rollout is valid without a gateway."""
    scaling = {"minReplicas": bounds[0], "maxReplicas": bounds[1]}
    filled = filled_in(make_spec(traffic={}, autoscaling=scaling, rollout={}))
    assert filled.rollout.canary is not None
    assert weights == [step.weight for step in filled.rollout.canary.steps]
    assert validate(filled) == []


def test_a_first_revision_is_served_by_the_service_alone() -> None:
    """No HTTPRoute is made; Ready comes with the pods and the Service."""
    world = Scenario(spec=spec()).settle()
    assert world.status.phase is Phase.PROMOTED
    plan = make_plan(REF, world.spec, world.status, world.observed, world.wanted)
    kinds = [m["kind"] for m in desired_children(plan)]
    assert "HTTPRoute" not in kinds
    assert selector(world) == ONLY_1
    ready = next(c for c in world.status.conditions if c.type == ConditionType.READY)
    assert ready.status == "True"


def test_the_canary_joins_the_service_when_the_ratio_is_that_of_its_weight() -> None:
    """10 % with 9 pods of stable and one of the canary; its size is pinned."""
    world = canary()
    assert pods(world) == (9, 1)
    assert world.status.rollout is not None
    assert world.status.rollout.splitter is Splitter.REPLICAS
    assert world.observed.route is not None
    assert world.observed.route.weights == {V1: 90, V2: 10}
    assert selector(world) == ALL
    plan = make_plan(REF, world.spec, world.status, world.observed, world.wanted)
    [planned] = [p for p in plan.revisions if p.revision.name == V2]
    assert (planned.min_replicas, planned.max_replicas) == (1, 1)
    assert world.status.stable is not None
    assert world.status.stable.weight == 90


def test_it_stays_outside_while_stable_has_too_few_pods() -> None:
    """One pod beside three would be 25 %."""
    world = Scenario(spec=spec()).settle().change(spec("2"))
    world = world.step().act()
    world = world.pods(V1, 3).step()
    assert selector(world) == ONLY_1
    assert world.decision is not None
    assert world.decision.blocked_on is Reason.AWAITING_PODS
    assert "3 of 9 pods of v1@" in world.decision.waiting
    late = world.later(601).step()
    stalled = next(c for c in late.status.conditions if c.type == ConditionType.STALLED)
    assert stalled.reason == Reason.AWAITING_CAPACITY
    assert late.status.canary is not None, "it is not the canary's fault"
    assert late.settle().status.rollout is not None


def test_its_size_follows_that_of_stable() -> None:
    """The autoscaler asks for 12 pods at 75 %: 16 would carry all, of 18 a quarter more is 25 %."""
    world = canary(25, 100)
    assert pods(world) == (3, 1)
    workload = replace(
        world.observed.workload(V1), spec_replicas=12, replicas=12, ready_replicas=12
    )
    seen = replace(world.observed, workloads={**world.observed.workloads, V1: workload})
    world = replace(world, observed=seen).settle()
    assert world.status.rollout is not None
    assert world.status.rollout.reserved_replicas == 16
    assert pods(world) == (18, 6)


def test_the_next_weight_is_given_by_pods_that_keep_within_it() -> None:
    """From 10 to 25 %: the canary's pods are counted from those of stable."""
    world = canary().later(61).settle()
    assert world.status.rollout is not None
    assert world.status.rollout.step == 2
    assert pods(world) == (9, 3)
    assert world.observed.weight(V2) == 25


def test_the_last_step_is_a_switch() -> None:
    """At 100 the Service leads to the canary alone, once it has full size; then it is promoted."""
    world = canary(25, 100).later(61).settle()
    assert selector(world) == ONLY_2
    assert pods(world)[1] >= 3
    world = world.later(61).settle()
    assert world.status.stable is not None
    assert world.status.stable.revision == V2
    assert selector(world) == ONLY_2


def test_an_abort_takes_it_out_of_the_service_at_once() -> None:
    """The selector is narrowed in the pass of the decision, while the pods drain."""
    rollout = {
        **steps(25, 100),
        "analysis": {"metrics": [{"name": "error-rate", "minEffect": "5%"}]},
    }
    world = (
        Scenario(spec=spec(rollout=rollout)).settle().change(spec("2", rollout=rollout)).settle()
    )
    assert selector(world) == ALL
    world = world.serves(V2, Traffic(error_rate=0.5)).later(61).step()
    assert world.status.canary is None
    assert selector(world) == ONLY_1
    assert V2 in {entry.revision for entry in world.status.retiring}


def test_it_waits_until_pods_of_others_have_gone() -> None:
    """A Service takes all pods or those of one revision: a withdrawn canary's would get connections too."""
    world = canary(25, 100).change(spec("3", 25, 100))
    world = world.step().act().step().act().step()
    assert selector(world) == ONLY_1
    assert world.decision is not None
    assert f"pods of {V2[:8]} have not gone yet" in world.decision.waiting
    stray = replace(world.observed, strays=frozenset({V2}))
    gone = {name: w for name, w in world.observed.workloads.items() if name != V2}
    world = replace(world, observed=replace(stray, workloads=gone)).step()
    assert selector(world) == ONLY_1, "pods may outlive their Deployment for a moment"
    world = replace(world, observed=replace(world.observed, strays=frozenset())).step()
    assert selector(world) == ALL


def test_lost_pods_of_the_canary_give_all_to_stable() -> None:
    """As with a gateway."""
    world = canary(25, 100).pods(V2, 0).step()
    assert world.status.last_transition is not None
    assert world.status.last_transition.reason == Reason.CAPACITY_LOST
    assert selector(world) == ONLY_1


def test_lower_steps_begin_with_all_traffic_at_stable() -> None:
    """Pods cannot follow a lower weight at once, so the canary leaves the Service until they have."""
    world = canary(50, 100).change(spec("2", 10, 100)).step()
    assert world.status.last_transition is not None
    assert world.status.last_transition.reason == Reason.ROLLOUT_REPLANNED
    assert selector(world) == ONLY_1
    world = world.act().settle()
    assert pods(world) == (9, 1)
    assert selector(world) == ALL


def test_a_gateway_in_the_middle_starts_the_step_over_with_the_gateway() -> None:
    """The Service stays, leads to stable, and weights are the route's from then on."""
    world = canary(25, 100)
    world = world.change(spec("2", 25, 100, traffic={"gateway": {"name": "public"}})).step()
    assert world.status.rollout is not None
    assert (world.status.rollout.splitter, world.status.rollout.weight) == (None, 0)
    assert selector(world) == ONLY_1
    world = world.act().settle()
    assert world.observed.weight(V2) == 25
    assert selector(world) == ONLY_1


def test_without_the_gateway_in_the_middle_the_step_starts_over_with_pods() -> None:
    """And the route goes once the Service is there."""
    gateway = {"traffic": {"gateway": {"name": "public"}}}
    world = canary(25, 100, **gateway)
    assert world.observed.weight(V2) == 25
    world = world.change(spec("2", 25, 100)).step()
    assert selector(world) == ONLY_1
    world = world.act().settle()
    assert selector(world) == ALL
    assert world.observed.weight(V2) == 25


def test_the_route_is_deleted_only_when_the_service_is_there() -> None:
    """Until then it is all that clients have."""
    world = canary(25, 100, traffic={"gateway": {"name": "public"}})
    plan = make_plan(REF, world.spec, world.status, world.observed, world.wanted)
    old = [{**m, "metadata": {**m["metadata"], "uid": "u"}} for m in desired_children(plan)]
    world = world.change(spec("2", 25, 100)).step()

    def changes(has_front: bool) -> list[str]:
        seen = replace(world.observed, has_front=has_front)
        plan = make_plan(REF, world.spec, world.status, seen, world.wanted)
        found = diff(plan, desired_children(plan), old)
        return [type(c).__name__ for c in found if c.manifest["kind"] == "HTTPRoute"]

    assert changes(has_front=False) == []
    assert changes(has_front=True) == [Delete.__name__]


def test_blue_green_is_a_switch_of_the_service() -> None:
    """The new colour is reached by the Service `NAME-preview` alone until then."""
    rollout = {
        "blueGreen": {"beforeSwitch": {"pause": "1m"}, "afterSwitch": {"pause": "1m"}},
        "analysis": {"metrics": []},
    }
    world = (
        Scenario(spec=spec(rollout=rollout)).settle().change(spec("2", rollout=rollout)).settle()
    )
    assert world.status.rollout is not None
    assert world.status.rollout.step_started_at is not None
    assert selector(world) == ONLY_1
    world = world.later(61).settle()
    assert selector(world) == ONLY_2
    world = world.later(61).settle()
    assert world.status.stable is not None
    assert world.status.stable.revision == V2


def test_the_selector_is_looked_at_itself() -> None:
    """Somebody widened it: it is put right in the next pass, and nothing that it leads to is deleted before."""
    world = Scenario(spec=spec()).settle()
    plan = make_plan(REF, world.spec, world.status, world.observed, world.wanted)
    wanted = desired_children(plan)
    live = [
        {**m, "spec": {**m["spec"], "selector": ALL}}
        if m["kind"] == "Service" and m["metadata"]["name"] == "fraud"
        else m
        for m in wanted
    ]
    [change] = [c for c in diff(plan, wanted, live) if isinstance(c, Apply)]
    assert change.manifest["metadata"]["name"] == "fraud"


def test_it_is_observed_from_selector_and_ready_pods() -> None:
    """Who runs without a Deployment is seen, too."""
    world = canary(25, 100)
    plan = make_plan(REF, world.spec, world.status, world.observed, world.wanted)
    children = [*desired_children(plan)]

    def pod(revision: str, ready: str = "True") -> dict[str, Any]:
        labels = {naming.DEPLOYMENT_LABEL: REF.name, naming.REVISION_LABEL: revision}
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}
        return {"kind": "Pod", "metadata": {"name": "p", "labels": labels}, "status": status}

    found = observe(
        [*children, *[pod(V1)] * 3, pod(V2), pod(V2, "False"), pod("stray", "False")], world.spec
    )
    assert found.route is not None
    assert found.route.weights == {V1: 75, V2: 25}
    assert found.route.accepted
    assert found.has_front
    assert found.strays == {"stray"}
