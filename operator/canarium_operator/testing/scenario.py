"""Builders of inputs of the rollout engine: worlds as rows of a test, with every part replaceable.

`Scenario` is frozen; each method gives another one. `settle` plays the engine against itself with a cluster
that does at once what is asked, so that a test can start in the middle of a rollout.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from canarium_api.golden import Outcome
from canarium_api.status import ModelDeploymentStatus
from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.observation import LoadProblem, Observed, RouteState, Workload
from canarium_operator.core.plan import make_plan
from canarium_operator.core.resources import front
from canarium_operator.core.revision import Revision, revision_of
from canarium_operator.core.rollout.answers import GateAnswer
from canarium_operator.core.rollout.checks import due_queries
from canarium_operator.core.rollout.contract import due_probes
from canarium_operator.core.rollout.engine import advance
from canarium_operator.core.rollout.inputs import Decision, RolloutInput, SignatureAnswer
from canarium_operator.core.rollout.queries import Query, QueryFailure, QueryKind, Reading, Series
from canarium_operator.core.rollout.shadow import with_checks
from canarium_operator.core.status import present
from canarium_operator.testing.cluster import SIGNATURE
from canarium_operator.testing.metrics import Behaviour, series_of

START = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
REF = ObjectRef(namespace="ml", name="fraud", uid="0000-1111")
IMAGE = "runtime:1"


def make_spec(version: str = "1", **changes: Any) -> ModelDeploymentSpec:
    """Build a spec of one model version: steps 10, 50, 100 with a minute each, two pods.

    Args:
        version: names the model.
        changes: top-level parts of the spec as in a manifest, such as `rollout={...}`.
    """
    body: dict[str, Any] = {
        "model": {"uri": f"https://models/fraud/{version}.onnx", "version": version},
        "traffic": {"gateway": {"name": "public"}},
        "autoscaling": {"minReplicas": 2, "maxReplicas": 10},
        "rollout": {
            "canary": {"steps": [{"weight": w, "pause": "1m"} for w in (10, 50, 100)]},
            "analysis": {"interval": "30s", "minSamples": 100},
        },
    }
    return with_checks(ModelDeploymentSpec.from_manifest({**body, **changes}))


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What Prometheus says of one revision."""

    requests: float | None = 1000.0
    error_rate: float = 0.001
    invalid_rate: float = 0.0
    latency: float = 0.020
    """Seconds."""
    custom: float | None = 0.99


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A ModelDeployment and the world around it at one moment."""

    spec: ModelDeploymentSpec = field(default_factory=make_spec)
    status: ModelDeploymentStatus = field(default_factory=ModelDeploymentStatus)
    observed: Observed = field(default_factory=Observed)
    traffic: Mapping[str, Traffic] = field(default_factory=dict)
    """By revision; missing: healthy."""
    metrics: Callable[[Query], Reading] | None = None
    """When set, it answers every query instead of `traffic`."""
    failure: QueryFailure | None = None
    """When set, what every query answers."""
    now: datetime = START
    generation: int = 1
    signatures: Mapping[str, SignatureAnswer] = field(default_factory=dict)
    """What pods of revisions tell of their models; others tell the usual."""
    golden: Outcome | None = None
    """What the Job of the present canary has said of its model on golden data; None: it still runs."""
    commands: Mapping[str, str] = field(default_factory=dict)
    gate_answers: Mapping[str, GateAnswer] = field(default_factory=dict)
    problem: str | None = None
    rejection: str | None = None
    decision: Decision | None = None

    @property
    def wanted(self) -> Revision:
        """The revision that the spec names."""
        return revision_of(self.spec, IMAGE)

    def given(self) -> RolloutInput:
        """Build the engine's input, with all queries that are due answered."""
        given = RolloutInput(
            ref=REF,
            generation=self.generation,
            spec=self.spec,
            wanted=None if self.problem is not None else self.wanted,
            status=self.status,
            observed=self.observed,
            now=self.now,
            commands=self.commands,
            gate_answers=self.gate_answers,
            problem=self.problem,
            rejection=self.rejection,
        )
        signatures = {
            probe.revision: self.signatures.get(probe.revision, SIGNATURE)
            for probe in due_probes(given)
        }
        return replace(
            given,
            readings={q: self._answer(q) for q in due_queries(given)},
            signatures=signatures,
        )

    def _answer(self, query: Query) -> Reading:
        if self.failure is not None:
            return self.failure
        if self.metrics is not None:
            return self.metrics(query)
        return tuple(
            series for revision in query.revisions for series in self._series(query, revision)
        )

    def _series(self, query: Query, revision: str) -> list[Series]:
        traffic = self.traffic.get(revision, Traffic())
        if query.kind is QueryKind.NUMBER:
            return [Series(value=traffic.custom)] if traffic.custom is not None else []
        if traffic.requests is None:
            return []
        return series_of(
            revision,
            requests=traffic.requests,
            errors=traffic.requests * traffic.error_rate,
            behaviour=Behaviour(invalid_rate=traffic.invalid_rate, latency=traffic.latency),
            kind=query.kind,
        )

    def step(self) -> Self:
        """Let the engine decide once."""
        given = self.given()
        decision = advance(given)
        return replace(self, status=present(given, decision), decision=decision)

    def act(self, *, ready: bool = True, accepted: bool = True) -> Self:
        """Let the cluster do what the status asks for."""
        plan = make_plan(REF, self.spec, self.status, self.observed, self.given().wanted)
        workloads = {}
        for planned in plan.revisions:
            before = self.observed.workload(planned.revision.name)
            size = min(max(planned.min_replicas, before.spec_replicas), planned.max_replicas)
            count = size if ready and before.problem is None else before.ready_replicas
            workloads[planned.revision.name] = replace(
                before,
                revision=planned.revision.name,
                spec_replicas=size,
                replicas=size,
                ready_replicas=count,
            )
        route = RouteState(
            weights=plan.weights or {},
            reached=plan.reached,
            accepted=accepted,
            mirrored={plan.mirror.revision: plan.mirror.percent} if plan.mirror else {},
            by_router=plan.split is not None,
        )
        if self.spec.traffic.gateway is None and plan.front:
            service = front.make_front(REF, plan.front)
            counts = {name: workload.ready_replicas for name, workload in workloads.items()}
            route = front.state_of(service, counts)
        revisions = {p.revision.name: p.revision for p in plan.revisions}
        return replace(
            self,
            observed=Observed(
                revisions=revisions,
                workloads=workloads,
                services=frozenset(workloads),
                route=route,
                has_front=bool(plan.front),
                has_router=plan.router is not None or plan.keeps_router,
                router_ready=2 if ready and plan.router is not None else 0,
                validations={plan.validation.job: self.golden}
                if plan.validation is not None and self.golden is not None
                else {},
                memory=plan.memory or self.observed.memory,
                gateway_class=self.observed.gateway_class,
            ),
        )

    def recreated(self) -> Self:
        """Delete the object and make it anew: its status and children are gone, what it is remembered for is not."""
        return replace(
            self,
            status=ModelDeploymentStatus(),
            observed=Observed(memory=self.observed.memory),
            generation=1,
        )

    def settle(self, limit: int = 50) -> Self:
        """Decide and act until nothing more happens at this moment."""
        scenario = self
        for _ in range(limit):
            before = scenario
            scenario = scenario.step().act()
            if scenario.status == before.status and scenario.observed == before.observed:
                return scenario
        msg = f"not settled after {limit} passes: {scenario.status.message}"
        raise AssertionError(msg)

    def answered(self, gate: str, message: str) -> Self:
        """Let an outside system answer in one pass, without approving."""
        answer = GateAnswer(message=message)
        return replace(replace(self, gate_answers={gate: answer}).step(), gate_answers={})

    def later(self, seconds: float) -> Self:
        """Let time pass."""
        return replace(self, now=self.now + timedelta(seconds=seconds))

    def change(self, spec: ModelDeploymentSpec) -> Self:
        """Let the user apply another spec."""
        return replace(self, spec=spec, generation=self.generation + 1)

    def pods(self, revision: str, ready: int, problem: LoadProblem | None = None) -> Self:
        """Set how many pods of a revision are ready, and what is wrong with the others."""
        before = self.observed.workload(revision)
        workload = replace(before, revision=revision, ready_replicas=ready, problem=problem)
        if before == Workload(revision=""):
            workload = replace(workload, revision=revision)
        workloads = {**self.observed.workloads, revision: workload}
        return replace(self, observed=replace(self.observed, workloads=workloads))

    def serves(self, revision: str, traffic: Traffic) -> Self:
        """Set what Prometheus says of a revision."""
        return replace(self, traffic={**self.traffic, revision: traffic})
