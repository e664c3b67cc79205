"""The reconciler: status before effects, every effect again after a crash, and what the API server refuses."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from canarium_api import KIND
from canarium_api.conditions import Reason
from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_operator.core import naming
from canarium_operator.core.manifests import Manifest
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.revision import revision_of
from canarium_operator.core.rollout.queries import Query, QueryKind, Vector
from canarium_operator.errors import (
    ClusterError,
    ConflictError,
    ForbiddenError,
    MetricSourceError,
    RejectedError,
    TransientClusterError,
)
from canarium_operator.reconciler import FIRST_REPAIR_WITHIN, REJECTION_RETRY, Reconciler
from canarium_operator.testing.clock import FakeClock
from canarium_operator.testing.cluster import Call, FakeCluster
from canarium_operator.testing.metrics import Behaviour, SimulatedTraffic
from canarium_operator.testing.objects import model_deployment

REF = ObjectRef(namespace="ml", name="fraud")
ROLLOUT = {
    "canary": {"steps": [{"weight": 50, "pause": "30s"}]},
    "analysis": {"interval": "10s", "minSamples": 10},
}
AUTOSCALING = {"minReplicas": 2, "maxReplicas": 4}


def manifest(version: str = "1", **changes: Any) -> Manifest:
    return model_deployment(
        version=version, **{"rollout": ROLLOUT, "autoscaling": AUTOSCALING, **changes}
    )


class Bench:
    """A reconciler in a world that moves when it is told to."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.cluster = FakeCluster()
        self.metrics = SimulatedTraffic(self.cluster)
        self.reports: list[str | None] = []
        self.restart()

    def restart(self) -> None:
        """Begin with an operator that remembers nothing."""
        self.reconciler = Reconciler(
            self.cluster,
            self.metrics,
            self.clock,
            runtime_image="runtime:1",
            report=lambda _ref, status: self.reports.append(
                None if status is None else status.phase
            ),
        )

    async def reconcile(self) -> timedelta | None:
        """Do one pass."""
        return await self.reconciler.reconcile(REF)

    def later(self, seconds: float) -> None:
        """Let time pass, and the cluster and the traffic with it."""
        now = self.clock.advance(timedelta(seconds=seconds))
        self.cluster.tick(now)
        self.metrics.tick(now)

    async def settle(self, seconds: float = 20) -> timedelta | None:
        """Let the operator and the cluster work until the operator waits, again and again for so long."""
        after: timedelta | None = timedelta(0)
        for _ in range(int(seconds)):
            for _ in range(20):
                after = await self.reconcile()
                if after != timedelta(0):
                    break
            self.later(1)
        return after

    @property
    def status(self) -> dict[str, Any]:
        """The stored status."""
        body = self.cluster.find(KIND, "ml", "fraud")
        assert body is not None
        status: dict[str, Any] = body["status"]
        return status

    def condition(self, kind: str) -> str | None:
        """One condition as `status/reason`."""
        found = [c for c in self.status["conditions"] if c["type"] == kind]
        return f"{found[0]['status']}/{found[0]['reason']}" if found else None

    @property
    def reasons(self) -> list[str]:
        """Reasons of all Events, in order."""
        return [event.reason for _, event in self.cluster.events]

    def fail(self, error: ClusterError, method: str, kind: str | None = None) -> None:
        """Have calls of a method fail before their effect."""

        def before(call: Call) -> None:
            if call.method == method and kind in (None, call.kind):
                raise error

        self.cluster.before = before

    def mend(self) -> None:
        """Have nothing fail any more."""
        self.cluster.before = lambda _call: None
        self.cluster.refuse = lambda _manifest: None


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
async def serving(bench: Bench) -> Bench:
    """Version 1 serves."""
    bench.cluster.put(manifest())
    await bench.settle()
    assert bench.status["phase"] == "Promoted"
    bench.metrics.lost = 0.0
    return bench


def refusing(kind: str, words: str = "exceeded quota") -> Callable[[Manifest], str | None]:
    return lambda made: words if made["kind"] == kind else None


async def test_an_object_that_is_gone_needs_no_further_pass(bench: Bench) -> None:
    """The worker ends, and its metrics with it."""
    assert await bench.reconcile() is None
    assert bench.reports == [None]


async def test_an_object_that_is_being_deleted_is_left_alone(bench: Bench) -> None:
    """Its children go through their owner references; nothing is made anew."""
    bench.cluster.put(manifest())
    body = bench.cluster.find(KIND, "ml", "fraud")
    assert body is not None
    body["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    bench.cluster.store(body)
    bench.cluster.calls.clear()
    assert await bench.reconcile() is None
    assert [call.method for call in bench.cluster.calls] == ["recall"]


async def test_the_status_is_written_before_anything_is_done_for_it(serving: Bench) -> None:
    """Every pass: read, record, act, announce."""
    serving.cluster.put(manifest("2"))
    serving.cluster.calls.clear()
    await serving.reconcile()
    methods = [call.method for call in serving.cluster.calls]
    assert methods[:3] == ["recall", "children", "apply_status"]
    assert set(methods[3:-1]) == {"apply"}
    assert methods[-1] == "record_event"


async def test_a_pass_that_changes_nothing_writes_nothing(serving: Bench) -> None:
    """At rest, an operator only reads."""
    serving.cluster.calls.clear()
    await serving.reconcile()
    assert [call.method for call in serving.cluster.calls] == ["recall", "children"]


async def test_a_conflict_leaves_everything_as_it_was(serving: Bench) -> None:
    """Somebody wrote in between: nothing is done for a status that was not recorded."""
    serving.cluster.put(manifest("2"))
    serving.fail(ConflictError("409"), "apply_status")
    serving.cluster.calls.clear()
    with pytest.raises(ConflictError):
        await serving.reconcile()
    assert not {"apply", "delete", "record_event"} & {c.method for c in serving.cluster.calls}
    serving.mend()
    await serving.reconcile()
    assert serving.status["canary"]["modelVersion"] == "2"


async def test_each_event_is_posted_once_also_by_an_operator_that_remembers_nothing(
    serving: Bench,
) -> None:
    """The name of an Event carries its epoch."""
    before = serving.reasons
    serving.restart()
    await serving.settle(3)
    assert serving.reasons == before == ["FirstDeployment", "Deployed"]


async def test_an_event_is_not_lost_when_the_operator_dies_before_posting_it(
    serving: Bench,
) -> None:
    """The next operator posts it before it records a transition of its own."""
    serving.cluster.put(manifest("2"))
    serving.fail(TransientClusterError("503"), "record_event")
    await serving.reconcile()
    serving.mend()
    serving.restart()
    await serving.settle()
    assert serving.reasons[2:4] == ["RolloutStarted", "StepStarted"]


async def test_an_event_that_is_refused_for_a_while_holds_nothing_and_is_posted_later(
    serving: Bench,
) -> None:
    """The rollout goes on; what could not be told is told in its order."""
    serving.cluster.put(manifest("2"))
    serving.fail(ForbiddenError("403"), "record_event")
    await serving.settle()
    assert serving.status["phase"] == "Canary"
    assert serving.reasons == ["FirstDeployment", "Deployed"]
    serving.mend()
    await serving.settle(1)
    assert serving.reasons[2:4] == ["RolloutStarted", "StepStarted"]


async def test_a_bad_canary_loses_its_traffic_even_when_events_cannot_be_posted(
    serving: Bench,
) -> None:
    """What people are told is less than what they get."""
    serving.cluster.put(manifest("2"))
    await serving.settle(10)
    canary = serving.status["canary"]["revision"]
    serving.metrics.behaviours[canary] = Behaviour(error_rate=0.5)
    serving.fail(TransientClusterError("429"), "record_event")
    await serving.settle(20)
    route = serving.cluster.find("HTTPRoute", "ml", "fraud")
    assert route is not None
    assert len(route["spec"]["rules"][0]["backendRefs"]) == 1


async def test_an_object_made_anew_under_the_same_name_is_another_object(serving: Bench) -> None:
    """Nothing that was known of the old one keeps its Events from being posted or its children from being made."""
    serving.cluster.remove(KIND, "ml", "fraud")
    serving.cluster.put(manifest())
    serving.cluster.events.clear()
    await serving.settle()
    assert serving.status["phase"] == "Promoted"
    assert serving.reasons == ["FirstDeployment", "Deployed"]


async def test_a_refused_object_stalls_with_its_reason_and_recovers_when_it_is_let_in(
    serving: Bench,
) -> None:
    """A quota is the user's to raise; after that, everything goes on by itself."""
    serving.cluster.refuse = refusing("Deployment")
    serving.cluster.put(manifest("2"))
    after = await serving.settle(3)
    assert after is not None
    assert timedelta(0) < after <= REJECTION_RETRY
    assert serving.condition("Stalled") == "True/RejectedByCluster"
    assert "exceeded quota" in serving.status["message"]
    serving.mend()
    await serving.settle()
    assert serving.condition("Stalled") is None
    assert serving.status["phase"] == "Canary"
    assert Reason.RECOVERED in serving.reasons


async def test_a_refused_first_deployment_says_so(bench: Bench) -> None:
    """The Deployment that was refused cannot be scaled either; the refusal is what counts."""
    bench.cluster.refuse = refusing("Deployment")
    bench.cluster.put(manifest())
    await bench.settle(3)
    assert bench.condition("Stalled") == "True/RejectedByCluster"
    assert "exceeded quota" in bench.status["message"]


async def test_a_refusal_whose_words_change_each_time_does_not_make_the_operator_spin(
    serving: Bench,
) -> None:
    """Quota messages carry the present usage."""
    count = iter(range(1000))
    serving.cluster.refuse = lambda made: (
        f"used: {next(count)}" if made["kind"] == "Deployment" else None
    )
    serving.cluster.put(manifest("2"))
    after = await serving.settle(3)
    assert after is not None
    assert after > timedelta(0)


async def test_a_size_whose_autoscaler_is_refused_is_left_to_the_old_one(serving: Bench) -> None:
    """Or the two would undo each other for as long as the quota lasts: HPA down, operator up."""
    serving.cluster.refuse = refusing("HorizontalPodAutoscaler")
    serving.cluster.put(manifest(autoscaling={"minReplicas": 4, "maxReplicas": 6}))
    await serving.settle(3)
    assert serving.condition("Stalled") == "True/RejectedByCluster"
    assert [c for c in serving.cluster.calls if c.method == "scale" and c.kind == "Deployment"][
        1:
    ] == []
    serving.mend()
    await serving.settle()
    assert serving.status["stable"]["readyReplicas"] == 4


async def test_a_refusal_outlives_the_operator(serving: Bench) -> None:
    """A new operator does not announce that all is mended, only to be refused again."""
    serving.cluster.refuse = refusing("HorizontalPodAutoscaler")
    serving.cluster.put(manifest("2"))
    await serving.settle(3)
    before = [reason for reason in serving.reasons if reason == Reason.REJECTED_BY_CLUSTER]
    for _ in range(3):
        serving.restart()
        await serving.settle(2)
    after = [reason for reason in serving.reasons if reason == Reason.REJECTED_BY_CLUSTER]
    assert after == before
    assert Reason.RECOVERED not in serving.reasons
    assert serving.condition("Stalled") == "True/RejectedByCluster"


async def test_a_refused_object_does_not_slow_the_gate_down(serving: Bench) -> None:
    """A canary is measured as often as the spec says, whatever else is refused."""
    serving.cluster.refuse = refusing("PodDisruptionBudget")
    serving.cluster.put(manifest("2"))
    after = await serving.settle(12)
    assert serving.condition("Stalled") == "True/RejectedByCluster"
    assert after is not None
    assert after <= timedelta(seconds=10)


async def test_a_canary_whose_service_is_refused_gets_no_traffic(serving: Bench) -> None:
    """Its pods are ready, but nothing leads to them."""
    serving.cluster.refuse = refusing("Service")
    serving.cluster.put(manifest("2"))
    await serving.settle()
    assert serving.status["rollout"]["weight"] == 0
    assert serving.status["canary"]["readyReplicas"] > 0
    assert serving.metrics.lost == 0
    serving.mend()
    await serving.settle()
    assert serving.status["rollout"]["weight"] == 50


@pytest.mark.parametrize(
    "error", [RejectedError("422"), ForbiddenError("403"), TransientClusterError("500")]
)
async def test_what_fails_for_one_object_does_not_keep_traffic_on_a_bad_canary(
    serving: Bench, error: ClusterError
) -> None:
    """A webhook or a quota may be against one kind of object; the route is changed all the same."""
    serving.cluster.put(manifest("2"))
    await serving.settle(10)
    assert serving.status["phase"] == "Canary"
    canary = serving.status["canary"]["revision"]
    serving.metrics.behaviours[canary] = Behaviour(error_rate=0.5)
    serving.restart()
    serving.fail(error, "apply", "HorizontalPodAutoscaler")
    for _ in range(20):
        serving.later(1)
        try:
            await serving.reconcile()
        except TransientClusterError:
            continue
    route = serving.cluster.find("HTTPRoute", "ml", "fraud")
    assert route is not None
    assert len(route["spec"]["rules"][0]["backendRefs"]) == 1


async def test_an_unreadable_spec_stalls_leaves_all_as_it_is_and_recovers(serving: Bench) -> None:
    """The schema keeps such specs out, but a schema may be older than an operator."""
    serving.cluster.put(manifest(rollout={"progressDeadline": "99999999999d"}))
    serving.cluster.calls.clear()
    await serving.settle(2)
    assert serving.condition("Stalled") == "True/InvalidSpec"
    assert "spec.rollout.progressDeadline" in serving.status["message"]
    assert serving.condition("Available") == "True/Serving"
    assert {c.method for c in serving.cluster.calls} <= {
        "recall",
        "children",
        "apply_status",
        "record_event",
    }
    assert serving.reasons[-1] == Reason.INVALID_SPEC
    serving.cluster.put(manifest())
    await serving.settle(2)
    assert serving.condition("Ready") == "True/Serving"
    assert serving.reasons[-1] == Reason.RECOVERED


async def test_an_invalid_spec_stalls_and_recovers_when_mended(serving: Bench) -> None:
    """What the schema cannot say is said by the operator, with the field."""
    broken = {"resources": {"requests": {"cpu": "4", "memory": "1Gi"}, "limits": {"cpu": "1"}}}
    serving.cluster.put(manifest(serving=broken))
    await serving.settle(2)
    assert serving.condition("Stalled") == "True/InvalidSpec"
    assert "spec.serving.resources.requests.cpu" in serving.status["message"]
    serving.cluster.put(manifest())
    await serving.settle(2)
    assert serving.condition("Ready") == "True/Serving"


async def test_what_others_changed_is_repaired_at_the_resync(serving: Bench) -> None:
    """Every child is applied again, also where its annotation says that it is current."""
    name = serving.status["stable"]["revision"]
    service = serving.cluster.find("Service", "ml", naming.child_name("fraud", name))
    assert service is not None
    selector = service["spec"]["selector"]
    service["spec"]["selector"] = {"somebody": "else"}
    serving.cluster.store(service)
    await serving.settle(3)
    serving.later(300)
    assert await serving.reconcile() == timedelta(minutes=5)
    service = serving.cluster.find("Service", "ml", naming.child_name("fraud", name))
    assert service is not None
    assert selector.items() <= service["spec"]["selector"].items()


async def test_a_new_operator_repairs_what_others_changed_meanwhile_soon_but_not_at_once(
    serving: Bench,
) -> None:
    """A start with a thousand objects must not begin with ten thousand applies."""
    name = naming.child_name("fraud", serving.status["stable"]["revision"])
    service = serving.cluster.find("Service", "ml", name)
    assert service is not None
    selector, service["spec"]["selector"] = service["spec"]["selector"], {"somebody": "else"}
    serving.cluster.store(service)
    serving.restart()
    serving.cluster.calls.clear()
    after = await serving.reconcile()
    assert "apply" not in {call.method for call in serving.cluster.calls}
    assert after is not None
    assert after <= FIRST_REPAIR_WITHIN
    serving.later(after.total_seconds())
    await serving.reconcile()
    service = serving.cluster.find("Service", "ml", name)
    assert service is not None
    assert selector.items() <= service["spec"]["selector"].items()


async def test_the_next_pass_is_never_later_than_the_resync(serving: Bench) -> None:
    """At rest, the wait is what is left of the resync."""
    serving.later(100)
    after = await serving.reconcile()
    assert after is not None
    assert timedelta(minutes=2) < after <= timedelta(seconds=200)


async def test_a_query_that_fails_is_an_answer(serving: Bench) -> None:
    """Prometheus may be away; the pass goes on and says so."""
    serving.metrics.outage = "connection refused"
    serving.cluster.put(manifest("2"))
    await serving.settle(50)
    assert serving.status["rollout"]["blockedOn"] == "MetricsUnavailable"
    assert "connection refused" in serving.status["message"]
    assert serving.status["rollout"]["step"] == 1


async def test_all_queries_of_a_pass_are_asked_even_when_one_fails(serving: Bench) -> None:
    """A check whose own query works is judged."""
    answer = serving.metrics.answer

    def without_latency(query: Query) -> Vector:
        if query.kind is QueryKind.BUCKETS:
            msg = "too many samples"
            raise MetricSourceError(msg)
        return answer(query)

    serving.metrics.answer = without_latency
    serving.cluster.put(manifest("2"))
    await serving.settle(50)
    checks = {c["name"]: c["verdict"] for c in serving.status["rollout"]["checks"]}
    assert checks == {"error-rate": "Pass", "invalid-rate": "Pass", "latency-p95": "Error"}


async def test_an_object_that_vanishes_between_reading_and_writing_raises(serving: Bench) -> None:
    """The worker tries again and then sees that it is gone."""
    serving.cluster.put(manifest("2"))

    def vanish(call: Call) -> None:
        if call.method == "children":
            serving.cluster.remove(KIND, "ml", "fraud")

    serving.cluster.after = vanish
    with pytest.raises(ClusterError):
        await serving.reconcile()
    assert await serving.reconcile() is None


async def test_an_object_made_anew_remembers_what_failed_and_serves_what_was_good(
    serving: Bench,
) -> None:
    """Deleting and creating it, with an operator that knows nothing, changes nothing of the verdict."""
    bad = revision_of(ModelDeploymentSpec.from_manifest(manifest("2")["spec"]), "runtime:1").name
    serving.metrics.behaviours[bad] = Behaviour(error_rate=0.5)
    serving.cluster.put(manifest("2"))
    await serving.settle(60)
    assert serving.status["phase"] == "Aborted"
    serving.cluster.remove(KIND, "ml", "fraud")
    serving.restart()
    serving.later(1)
    assert {c["metadata"]["name"] for c in serving.cluster.all("ConfigMap")} == {"fraud-memory"}
    serving.cluster.put(manifest("2"))
    await serving.settle(60)
    assert serving.status["phase"] == "Aborted"
    assert serving.status["stable"]["modelVersion"] == "1"
    [failure] = serving.status["failedRevisions"]
    assert failure["modelVersion"] == "2"


async def test_a_memory_changes_only_when_there_is_something_to_remember(serving: Bench) -> None:
    """It costs a rollout one write, and nothing at rest."""
    serving.cluster.calls.clear()
    serving.cluster.put(manifest("2"))
    await serving.settle(80)
    assert serving.status["phase"] == "Promoted"
    writes = [c for c in serving.cluster.calls if (c.method, c.name) == ("apply", "fraud-memory")]
    assert len(writes) == 1
