"""The capacity invariant, held against random loads, autoscalers, kills, weights and aborts."""

import math
import os
from dataclasses import dataclass, replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from canarium_api.conditions import Reason
from canarium_api.status import ModelDeploymentStatus
from canarium_operator.core.plan import make_plan
from canarium_operator.core.revision import revision_of
from canarium_operator.core.rollout.queries import Query, Series, Vector
from canarium_operator.testing.scenario import IMAGE, REF, Scenario, make_spec

EXAMPLES = min(5000, max(150, int(os.environ.get("SEEDS", "0"))))
MAX = 12
"""`maxReplicas`."""
THROUGHPUT = 10.0
"""Requests that one pod answers in a second."""
V1, V2 = (revision_of(make_spec(v), IMAGE).name for v in "12")
SHORT = {"canary": {"steps": [{"weight": w, "pause": "0s"} for w in (5, 30, 60, 100)]}}


def spec(version: str, *, declared: bool) -> object:
    capacity = {"requestsPerSecond": THROUGHPUT, "headroom": 1.0} if declared else {}
    rollout = {**SHORT, "analysis": {"metrics": []}, "capacity": capacity}
    return make_spec(version, rollout=rollout, autoscaling={"minReplicas": 2, "maxReplicas": MAX})


@dataclass(frozen=True)
class World:
    """A rollout, the load in pods that all the traffic needs, and an autoscaler without any patience."""

    scenario: Scenario
    load: float
    declared: bool

    def autoscaled(self) -> "World":
        """Let each HPA follow its revision's part of the load at once, up and down, within its bounds."""
        scenario = self.scenario
        plan = make_plan(
            REF,
            scenario.spec,
            scenario.status,
            scenario.observed,
            scenario.given().wanted,
        )
        workloads = {}
        for planned in plan.revisions:
            name = planned.revision.name
            before = scenario.observed.workload(name)
            wanted = math.ceil(self.load * scenario.observed.weight(name) / 100)
            size = max(planned.min_replicas, min(wanted, planned.max_replicas))
            ready = min(before.ready_replicas, size)
            workloads[name] = replace(
                before, revision=name, spec_replicas=size, ready_replicas=ready
            )
        observed = replace(
            scenario.observed,
            workloads=workloads,
            services=frozenset(workloads),
            revisions={p.revision.name: p.revision for p in plan.revisions},
        )
        return replace(self, scenario=replace(scenario, observed=observed))

    def routed(self) -> "World":
        """Let the gateway take the weights that the status asks for."""
        ready = self.scenario.observed.workloads
        acted = self.scenario.act(ready=False)
        observed = replace(acted.observed, workloads={**acted.observed.workloads, **ready})
        return replace(self, scenario=replace(acted, observed=observed))

    def started(self, revision: str, count: int) -> "World":
        """Let so many pods of a revision be ready, of those that are asked for."""
        asked = self.scenario.observed.workload(revision).spec_replicas
        return replace(self, scenario=self.scenario.pods(revision, min(count, asked)))

    def answer(self, query: Query) -> Vector:
        """Say how many requests there were, as Prometheus would."""
        requests = self.load * THROUGHPUT * query.look_back.total_seconds()
        return (Series(labels={"revision": V1, "status": "success"}, value=requests),)

    def decided(self) -> "World":
        """Let the operator look once."""
        scenario = replace(self.scenario, metrics=self.answer)
        return replace(self, scenario=scenario.step())


def stable_pods(world: World) -> int:
    """Pods that are asked for of whatever is stable."""
    stable = world.scenario.status.stable
    assert stable is not None
    return world.scenario.observed.workload(stable.revision).spec_replicas


ACTIONS = st.one_of(
    st.tuples(st.just("start"), st.sampled_from((V1, V2)), st.integers(0, MAX)),
    st.tuples(st.just("start"), st.just(V2), st.just(MAX)),
    st.tuples(st.just("route"), st.none(), st.none()),
    st.tuples(st.just("scale"), st.none(), st.none()),
    st.tuples(st.just("load"), st.none(), st.integers(0, 150)),
    st.tuples(st.just("later"), st.none(), st.sampled_from((0, 5, 31, 299))),
    st.tuples(st.just("change"), st.sampled_from("12"), st.none()),
)


def happen(world: World, action: tuple[str, str | None, int | None], *, grows: bool) -> World:
    what, who, much = action
    match what:
        case "start":
            return world.started(str(who), int(much or 0))
        case "route":
            return world.routed()
        case "scale":
            return world.autoscaled()
        case "load" if grows:
            return replace(world, load=int(much or 0) / 10)
        case "later":
            return replace(world, scenario=world.scenario.later(int(much or 0)))
        case "change":
            changed = world.scenario.change(spec(str(who), declared=world.declared))  # type: ignore[arg-type]
            return replace(world, scenario=changed)
    return world


def weights_move_onto_pods_that_are_there(before: ModelDeploymentStatus, after: World) -> None:
    """The law itself, written from the documentation: share of the reserve, and share of the traffic."""
    status, spec_ = after.scenario.status, after.scenario.spec
    rollout, canary = status.rollout, status.canary
    if rollout is None or canary is None:
        return
    earlier = before.rollout.weight if before.rollout is not None else 0
    if rollout.weight <= earlier:
        return
    assert status.last_transition is not None
    assert status.last_transition.reason in (Reason.WEIGHT_CHANGED, Reason.STEP_PASSED)
    share = rollout.weight / 100
    ready = after.scenario.observed.workload(canary.revision).ready_replicas
    assert ready >= min(MAX, math.ceil(rollout.reserved_replicas * share))
    if spec_.rollout.capacity.requests_per_second is not None:
        assert ready >= after.load * share - 1e-6


@settings(deadline=None, max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
@given(
    actions=st.lists(ACTIONS, min_size=10, max_size=40),
    load=st.integers(0, 120),
    declared=st.booleans(),
)
def test_no_weight_moves_onto_too_few_pods(
    actions: list[tuple[str, str | None, int | None]], load: int, declared: bool
) -> None:
    """Whatever loads, autoscalers and killed pods do meanwhile."""
    world = World(Scenario(spec=spec("1", declared=declared)).settle(), load / 10, declared)  # type: ignore[arg-type]
    world = world.autoscaled().started(V1, MAX)
    for action in actions:
        world = happen(world, action, grows=True)
        for _ in range(3):
            before = world.scenario.status
            world = world.decided()
            weights_move_onto_pods_that_are_there(before, world)


@settings(deadline=None, max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
@given(
    actions=st.lists(ACTIONS, min_size=10, max_size=40),
    load=st.integers(0, 120),
    declared=st.booleans(),
)
def test_an_abort_at_any_moment_needs_no_pod_to_start(
    actions: list[tuple[str, str | None, int | None]], load: int, declared: bool
) -> None:
    """Stable is asked to have pods for all the traffic, also just after the rollout; with a declared throughput that
    follows the traffic, without one it is what the traffic needed when the rollout began.
    """
    world = World(Scenario(spec=spec("1", declared=declared)).settle(), load / 10, declared)  # type: ignore[arg-type]
    world = world.autoscaled().started(V1, MAX)
    world = happen(world, ("change", "2", None), grows=False).decided()
    for action in actions:
        grows = declared and world.scenario.status.rollout is not None
        world = happen(world, action, grows=grows).decided().autoscaled()
        if world.scenario.status.reserve is None and world.scenario.status.rollout is None:
            continue  # its autoscaler has seen all the traffic for long enough
        needed = min(MAX, math.ceil(round(world.load, 6)))
        if world.scenario.status.rollout is not None or not declared:
            assert stable_pods(world) >= needed
        aborted = happen(world, ("change", "1", None), grows=False).decided().autoscaled()
        if world.scenario.status.stable is not None and (
            world.scenario.status.stable.revision == V1
        ):
            assert stable_pods(aborted) >= min(stable_pods(world), needed)
