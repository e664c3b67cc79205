"""The capacity invariant: weights move onto enough pods, and stable keeps what an abort needs."""

from dataclasses import replace
from typing import Any

import pytest

from canarium_api.conditions import ConditionType, Reason
from canarium_api.status import RolloutStatus
from canarium_operator.core.plan import make_plan
from canarium_operator.core.revision import revision_of
from canarium_operator.core.rollout.queries import QueryFailure
from canarium_operator.testing.scenario import IMAGE, REF, Scenario, Traffic, make_spec

V1, V2 = (revision_of(make_spec(v), IMAGE).name for v in "12")
ROLLOUT = make_spec().to_manifest()["rollout"]
SCALING = {"minReplicas": 2, "maxReplicas": 20}


def spec(version: str, *, throughput: float | None = None, **scaling: int) -> Any:
    """Steps 10, 50, 100; a declared throughput of a pod; no headroom, so that the arithmetic is plain."""
    capacity = {"requestsPerSecond": throughput, "headroom": 1.0} if throughput else {}
    rollout = {**ROLLOUT, "capacity": capacity}
    return make_spec(version, rollout=rollout, autoscaling={**SCALING, **scaling})


def under_way(pods: int, *, requests_per_second: float = 0.0, **options: Any) -> Scenario:
    """Version 2 is asked for beside a version 1 that its autoscaler keeps at so many pods."""
    scenario = scaled(Scenario(spec=spec("1")).settle(), V1, pods).act()
    traffic = Traffic(requests=requests_per_second * 120)
    idle = Traffic(requests=None)
    scenario = replace(scenario, traffic={V1: traffic, V2: idle})
    return scenario.change(spec("2", **options))


def scaled(scenario: Scenario, revision: str, pods: int) -> Scenario:
    """An autoscaler asks for so many pods."""
    workload = replace(scenario.observed.workload(revision), spec_replicas=pods)
    workloads = {**scenario.observed.workloads, revision: workload}
    return replace(scenario, observed=replace(scenario.observed, workloads=workloads))


def floor(scenario: Scenario, revision: str) -> int:
    """Fewest pods that the plan asks for."""
    given = scenario.given()
    plan = make_plan(REF, scenario.spec, scenario.status, scenario.observed, given.wanted)
    return next(p.min_replicas for p in plan.revisions if p.revision.name == revision)


def rollout_of(scenario: Scenario) -> RolloutStatus:
    assert scenario.status.rollout is not None
    return scenario.status.rollout


def stalled(scenario: Scenario) -> str | None:
    found = [c for c in scenario.status.conditions if c.type == ConditionType.STALLED]
    return str(found[0].reason) if found else None


@pytest.mark.parametrize(
    ("requests_per_second", "throughput", "needed"),
    [
        (0.0, None, 1),
        (400.0, None, 1),
        (400.0, 10.0, 4),
        (400.0, 50.0, 1),
        (0.0, 10.0, 1),
        (403.0, 10.0, 5),
    ],
    ids=[
        "no throughput declared: its share of ten pods",
        "traffic alone says nothing",
        "40 requests/s at 10 for each pod",
        "one pod could do it, and its share is one",
        "no traffic: its share",
        "part of a pod is a pod",
    ],
)
def test_a_weight_needs_its_share_of_pods_and_enough_for_the_traffic(
    requests_per_second: float, throughput: float | None, needed: int
) -> None:
    """At 10 % of ten pods' traffic."""
    scenario = under_way(10, requests_per_second=requests_per_second, throughput=throughput)
    scenario = scenario.step().act(ready=False).step().act(ready=False).step()
    assert rollout_of(scenario).needed_replicas == needed
    assert floor(scenario, V2) == needed
    for ready in range(needed):
        assert rollout_of(scenario.pods(V2, ready).step()).weight == 0
    assert rollout_of(scenario.pods(V2, needed).step()).weight == 10


def test_headroom_counts() -> None:
    """40 requests a second times 1.5 at 10 for each pod are six pods."""
    scenario = under_way(10, requests_per_second=400.0, throughput=10.0)
    capacity = {"requestsPerSecond": 10, "headroom": 1.5}
    changed = make_spec("2", rollout={**ROLLOUT, "capacity": capacity}, autoscaling=SCALING)
    scenario = scenario.change(changed).step().step()
    assert rollout_of(scenario).needed_replicas == 6


def test_a_canary_that_the_traffic_needs_larger_waits_and_says_how_many_pods_are_missing() -> None:
    """Pods ready and needed, what for, and until when."""
    scenario = under_way(10, requests_per_second=400.0, throughput=10.0).step().act(ready=False)
    scenario = scenario.step().pods(V2, 2).step()
    assert rollout_of(scenario).blocked_on == Reason.AWAITING_CAPACITY
    assert (
        "2 of 4 pods of v2@6a7e947d are ready for its share of 400 requests/s"
        in scenario.status.message
    )
    assert "until 12:10:00Z" in scenario.status.message
    late = scenario.later(601).step()
    assert [f.reason for f in late.status.failed_revisions] == ["ProgressDeadlineExceeded"]


def test_pods_that_are_asked_for_later_get_their_own_deadline() -> None:
    """Traffic that grows while a canary waits is not the revision's fault."""
    scenario = under_way(10, requests_per_second=400.0, throughput=10.0).step().act(ready=False)
    scenario = scenario.step().pods(V2, 4, None).later(500)
    scenario = scenario.serves(V1, Traffic(requests=800.0 * 120)).step().later(200).step()
    assert rollout_of(scenario).needed_replicas == 8
    assert rollout_of(scenario).weight == 0


def test_more_pods_than_max_replicas_allows_stalls_and_blames_nobody() -> None:
    """The bound is the user's: raised, it goes on."""
    scenario = under_way(10, requests_per_second=4000.0, throughput=10.0).settle()
    assert rollout_of(scenario).needed_replicas == 20
    assert "20 of 40 pods" in scenario.status.message
    assert floor(scenario, V2) == 20
    assert rollout_of(scenario).weight == 0
    late = scenario.later(601).settle()
    assert stalled(late) == Reason.AWAITING_CAPACITY
    assert "autoscaling.maxReplicas allows 20: raise it" in late.status.message
    assert late.status.failed_revisions == []
    raised = late.change(spec("2", throughput=10.0, maxReplicas=50)).settle()
    assert stalled(raised) is None
    assert rollout_of(raised).weight == 10


def test_traffic_that_cannot_be_measured_holds_and_is_not_blamed_on_the_revision() -> None:
    """A declared throughput is worth nothing without the traffic; once it is known, the pods get their time."""
    scenario = under_way(10, requests_per_second=400.0, throughput=10.0)
    scenario = replace(scenario, failure=QueryFailure(message="timed out")).settle()
    assert "timed out" in scenario.status.message
    assert rollout_of(scenario).weight == 0
    assert rollout_of(scenario).blocked_on == Reason.METRICS_UNAVAILABLE
    scenario = scenario.later(601).settle()
    assert scenario.status.failed_revisions == []
    assert rollout_of(replace(scenario, failure=None).settle()).weight == 10


def test_within_a_step_the_canary_is_never_shrunk_for_a_lull() -> None:
    """The next step asks anew."""
    scenario = under_way(10, requests_per_second=400.0, throughput=10.0).settle()
    assert rollout_of(scenario).needed_replicas == 4
    scenario = scenario.serves(V1, Traffic(requests=12.0)).later(30).settle()
    assert rollout_of(scenario).needed_replicas == 4


def test_stable_keeps_the_pods_that_it_had_until_the_rollout_is_over_and_a_while_longer() -> None:
    """An HPA that has seen a tenth of the traffic would else take them away just when all of it comes back."""
    scenario = under_way(10).settle()
    assert floor(scenario, V1) == 10
    scenario = scenario.change(spec("1")).settle()
    assert scenario.status.rollout is None
    assert floor(scenario, V1) == 10
    assert floor(scenario.later(299).settle(), V1) == 10
    assert floor(scenario.later(301).settle(), V1) == 2


def test_the_new_stable_revision_keeps_them_too() -> None:
    """It may have carried all the traffic for a moment only."""
    scenario = replace(under_way(10), traffic={}).settle()
    for _ in range(3):
        scenario = scenario.later(61).settle()
    assert scenario.status.stable is not None
    assert scenario.status.stable.revision == V2
    assert floor(scenario, V2) == 10


@pytest.mark.parametrize(
    ("weight", "pods", "reserved"),
    [(10, 10, 10), (10, 18, 20), (50, 10, 10), (50, 12, 20), (50, 8, 10)],
    ids=[
        "as many as ever",
        "18 for 90 % are 20 for all",
        "at its floor, which says nothing",
        "12 for a half would be 24 for all, but maxReplicas is 20",
        "fewer than the floor: the Deployment lags",
    ],
)
def test_the_reserve_grows_with_what_the_autoscaler_asks_for(
    weight: int, pods: int, reserved: int
) -> None:
    """As long as stable carries most of the traffic, its autoscaler sees the traffic grow."""
    scenario = replace(under_way(10), traffic={}).settle()
    if weight == 50:
        scenario = scenario.later(61).settle()
    assert scenario.observed.weight(V2) == weight
    scenario = scaled(scenario, V1, pods).step()
    assert rollout_of(scenario).reserved_replicas == reserved
    assert floor(scenario, V1) == reserved


def test_the_reserve_grows_with_measured_traffic_and_never_falls() -> None:
    """With a declared throughput, growth counts whatever the weights are."""
    scenario = under_way(4, requests_per_second=40.0, throughput=10.0).settle()
    assert floor(scenario, V1) == 4
    scenario = scenario.serves(V1, Traffic(requests=90.0 * 120)).later(5).settle()
    assert floor(scenario, V1) == 9
    scenario = scenario.serves(V1, Traffic(requests=10.0 * 120)).later(5).settle()
    assert floor(scenario, V1) == 9


def test_a_lowered_bound_counts_for_stable_when_the_rollout_is_over() -> None:
    """Until then an abort needs its pods; the canary is bounded at once."""
    scenario = under_way(10).settle().change(spec("2", maxReplicas=4)).settle()
    assert floor(scenario, V1) == 10
    scenario = scenario.change(spec("1", maxReplicas=4)).settle().later(301).settle()
    assert floor(scenario, V1) == 2
