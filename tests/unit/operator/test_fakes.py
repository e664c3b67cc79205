"""The fakes' own side: controllers and traffic, which no real cluster can be compared with in a unit test.

What the fake cluster has in common with a real one is held by tests/contract.
"""

from dataclasses import replace
from datetime import timedelta

import pytest

from canarium_api.runtime_config import LoadFailure
from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_operator.core import naming
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.observation import Observed
from canarium_operator.core.observing import observe
from canarium_operator.core.plan import Plan, RevisionPlan
from canarium_operator.core.resources.desired import desired_children
from canarium_operator.core.revision import revision_of
from canarium_operator.core.rollout.queries import Query, QueryKind, Series
from canarium_operator.errors import MetricSourceError, TransientClusterError
from canarium_operator.testing.clock import FakeClock
from canarium_operator.testing.cluster import Call, FakeCluster
from canarium_operator.testing.controllers import PodScript
from canarium_operator.testing.metrics import Behaviour, FakeMetrics, SimulatedTraffic
from canarium_operator.testing.objects import model_deployment

SPEC = ModelDeploymentSpec.from_manifest(model_deployment()["spec"])
REVISION = revision_of(SPEC, "runtime:1")


class World:
    """A fake cluster in which one revision runs with two pods."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.cluster = FakeCluster()
        self.traffic = SimulatedTraffic(self.cluster, requests_per_second=10)
        meta = self.cluster.put(model_deployment())["metadata"]
        self.ref = ObjectRef(namespace="ml", name="fraud", uid=meta["uid"])

    async def start(self) -> "World":
        planned = RevisionPlan(revision=REVISION, min_replicas=2, max_replicas=4)
        plan = Plan(ref=self.ref, spec=SPEC, revisions=(planned,), weights={REVISION.name: 100})
        for child in desired_children(plan):
            await self.cluster.apply(child)
        return self

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.cluster.tick(self.clock.advance(timedelta(seconds=1)))
            self.traffic.tick(self.clock.now())

    async def seen(self) -> Observed:
        return observe(await self.cluster.children(self.ref), SPEC)


async def test_pods_become_ready_after_their_time() -> None:
    """The HPA's lower bound brings two, and after five seconds they serve behind an accepted route."""
    world = await World().start()
    world.run(3)
    seen = await world.seen()
    assert (seen.workload(REVISION.name).replicas, seen.workload(REVISION.name).ready_replicas) == (
        2,
        0,
    )
    assert seen.route is not None
    assert seen.route.accepted
    world.run(5)
    assert (await world.seen()).workload(REVISION.name).ready_replicas == 2


async def test_the_autoscaler_follows_the_load_within_its_bounds() -> None:
    """More load than its upper bound allows brings no more pods than that."""
    world = await World().start()
    world.cluster.controllers.load[REVISION.name] = 99
    world.run(2)
    assert (await world.seen()).workload(REVISION.name).replicas == 4


@pytest.mark.parametrize(
    ("script", "capacity", "reason"),
    [
        (PodScript(ready_after=None), None, None),
        (
            PodScript(failure=LoadFailure(reason="DigestMismatch", message="m", permanent=True)),
            None,
            "DigestMismatch",
        ),
        (PodScript(waiting="ImagePullBackOff"), None, "ImagePullBackOff"),
        (PodScript(), 0, "Unschedulable"),
    ],
)
async def test_pods_fail_as_scripted(
    script: PodScript, capacity: int | None, reason: str | None
) -> None:
    """What the script says is what the operator reads."""
    world = await World().start()
    world.cluster.controllers.revisions[REVISION.name] = script
    world.cluster.controllers.capacity = capacity
    world.run(10)
    workload = (await world.seen()).workload(REVISION.name)
    assert workload.ready_replicas == 0
    assert (workload.problem.reason if workload.problem is not None else None) == reason


async def test_the_gateway_answers_after_its_delay_for_the_present_generation() -> None:
    """Until then, and when it refuses, the route is not accepted."""
    world = await World().start()
    world.cluster.controllers.route_refusal = "no such listener"
    world.run(5)
    route = (await world.seen()).route
    assert route is not None
    assert not route.accepted
    assert "no such listener" in route.message


async def test_faults_strike_before_or_after_the_effect() -> None:
    """A lost request changes nothing; a lost answer hides a change."""
    world = World()

    def fail(call: Call) -> None:
        if call.method == "apply":
            msg = "lost"
            raise TransientClusterError(msg)

    world.cluster.before = fail
    with pytest.raises(TransientClusterError):
        await world.start()
    assert await world.cluster.children(world.ref) == []
    world.cluster.before, world.cluster.after = world.cluster.after, fail
    with pytest.raises(TransientClusterError):
        await world.start()
    assert [child["kind"] for child in await world.cluster.children(world.ref)] == ["ConfigMap"]
    assert world.cluster.calls[0] == Call(
        "apply", "ConfigMap", naming.child_name("fraud", REVISION.name)
    )


async def test_changes_wake_the_owner_but_its_own_status_does_not() -> None:
    """As the operator's watches do."""
    world = World()
    woken: list[str] = []
    world.cluster.on_change = lambda ref: woken.append(str(ref))
    body = await world.cluster.get(world.ref)
    assert body is not None
    await world.cluster.apply_status({**body, "status": {"observedGeneration": 1}})
    assert woken == []
    world.cluster.annotate(world.ref, naming.command_annotation("retry"), "1")
    await world.start()
    assert set(woken) == {"ml/fraud"}


async def test_traffic_is_counted_as_prometheus_would() -> None:
    """Requests, error rate and latency of a revision over a window; nothing before it had traffic."""
    world = await World().start()
    world.traffic.behaviours[REVISION.name] = Behaviour(error_rate=0.25, latency=0.03)

    def asked(kind: QueryKind) -> Query:
        return Query(
            promql="",
            at=world.clock.now(),
            kind=kind,
            revisions=(REVISION.name,),
            look_back=timedelta(seconds=10),
        )

    assert await world.traffic.query(asked(QueryKind.COUNTS)) == ()
    world.run(20)
    counts = await world.traffic.query(asked(QueryKind.COUNTS))
    by_status = {series.labels["status"]: series.value for series in counts}
    assert by_status == pytest.approx({"success": 75, "error": 25, "invalid": 0})
    buckets = await world.traffic.query(asked(QueryKind.BUCKETS))
    below = {series.labels["le"]: series.value for series in buckets}
    assert (below["0.025"], below["0.05"], below["inf"]) == pytest.approx((0, 100, 100))
    assert world.traffic.lost == pytest.approx(40)  # of seconds 2 to 5, without a ready pod


async def test_metrics_fail_as_scripted() -> None:
    """An outage is an error, not an absence of data."""
    one = (Series(value=1.0),)
    metrics = FakeMetrics(lambda query: one if query.promql == "up" else ())
    up = Query(
        promql="up",
        at=FakeClock().now(),
        kind=QueryKind.NUMBER,
        revisions=(),
        look_back=timedelta(0),
    )
    assert await metrics.query(up) == one
    assert await metrics.query(replace(up, promql="down")) == ()
    metrics.outage = "connection refused"
    with pytest.raises(MetricSourceError, match="connection refused"):
        await metrics.query(up)
    assert len(metrics.queries) == 3
