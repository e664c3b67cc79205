"""`plan`: what the operator would decide of a rollout whose metrics were recorded. The engine is the live one.

The cluster obeys at once (or after `pods_ready_after`), and time is virtual: from one decision to the instant that it
names for the next. What was recorded does not follow the weights that are decided here.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from canarium_api.conditions import Reason
from canarium_api.rollout import SchemaChange
from canarium_api.status import ModelDeploymentStatus, Phase, RevisionStatus, Verdict
from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.observation import Observed, RouteState, Workload
from canarium_operator.core.plan import make_plan
from canarium_operator.core.revision import Revision, revision_of
from canarium_operator.core.rollout.checks import due_queries
from canarium_operator.core.rollout.engine import advance
from canarium_operator.core.rollout.inputs import Decision, RolloutInput
from canarium_operator.core.routing import ROUTERS
from canarium_operator.core.status import present
from canarium_operator.replay.recording import Recording

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
LEAST_WAIT: Final = timedelta(milliseconds=100)
MAX_PASSES_AT_ONCE: Final = 60
IMAGE: Final = "runtime"
_PROMOTED: Final = frozenset({Reason.PROMOTED})
_PASSED: Final = frozenset({Reason.PROMOTED, Reason.STEP_PASSED})


@dataclass(frozen=True, kw_only=True)
class Decided:
    """One decision, or the beginning of a wait."""

    at: float
    """Seconds since the rollout began."""
    phase: str
    step: int
    weight: int
    verdict: str
    """Of the gate as a whole: `pass`, `fail`, or `not enough evidence`."""
    reason: str
    """The reason of the transition or of the wait, and a sentence."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How it ended."""

    outcome: str
    """promoted, rolled_back or held."""
    at: float
    canary_requests: int
    """Answered by the canary until then."""
    canary_failed_requests: int


@dataclass
class Planner:
    """One rollout in virtual time."""

    ref: ObjectRef
    spec: ModelDeploymentSpec
    recording: Recording
    start: datetime = START
    pods_ready_after: timedelta = timedelta(0)
    approve: bool = False
    """Somebody approves each step as soon as it asks."""
    _asked_at: dict[str, datetime] = field(default_factory=dict)
    _approvals: int = 0

    def __post_init__(self) -> None:
        """Put a stable revision before the one that the spec names; nothing is known of either model's inputs."""
        rollout = self.spec.rollout.model_copy(update={"schema_change": SchemaChange.ALLOW})
        self.spec = self.spec.model_copy(update={"rollout": rollout})
        model = self.spec.model.model_copy(
            update={"uri": "https://stable.invalid/model", "sha256": None, "version": "v-stable"}
        )
        self.stable = revision_of(self.spec.model_copy(update={"model": model}), IMAGE)
        self.wanted: Revision = revision_of(self.spec, IMAGE)
        self._roles = {self.stable.name: "stable", self.wanted.name: "canary"}
        size = self.spec.autoscaling.min_replicas
        self._status = ModelDeploymentStatus(
            phase=Phase.PROMOTED,
            observed_generation=1,
            stable=RevisionStatus(
                revision=self.stable.name,
                model_version=self.stable.model_version,
                ready_replicas=size,
                replicas=size,
                weight=100,
                served=True,
            ),
        )
        self._observed = Observed(
            revisions={self.stable.name: self.stable},
            workloads={
                self.stable.name: Workload(
                    revision=self.stable.name,
                    spec_replicas=size,
                    replicas=size,
                    ready_replicas=size,
                )
            },
            services=frozenset({self.stable.name}),
            route=RouteState(weights={self.stable.name: 100}, accepted=True),
        )

    def run(self) -> tuple[list[Decided], Outcome]:
        """Carry the rollout out until it ends, or the recording does."""
        decided = list(self._run())
        return decided, self._outcome

    def _run(self) -> Iterator[Decided]:
        now, last, passes = self.start, None, 0
        end = self.start + timedelta(seconds=self.recording.end)
        while True:
            before = self._status
            decision = self._pass(now)
            entry = self._entry(now, before, decision)
            if entry is not None and entry[0] != last:
                last, told = entry
                yield told
            if self._status.canary is None and self._status.epoch > 0:
                promoted = self._last_reason() in _PROMOTED
                self._outcome = self._ended(now, "promoted" if promoted else "rolled_back")
                return
            passes = passes + 1 if decision.requeue_after <= timedelta(0) else 0
            wait = decision.requeue_after if passes < MAX_PASSES_AT_ONCE else LEAST_WAIT
            if wait > timedelta(0) or self._status.epoch == before.epoch:
                now += max(self._until_ready(now, wait), LEAST_WAIT)
            if now > end:
                self._outcome = self._ended(end, "held")
                return

    def _pass(self, now: datetime) -> Decision:
        """Do what the reconciler does in one pass."""
        commands = {"approve": f"plan {self._approvals}"} if self.approve else {}
        given = RolloutInput(
            ref=self.ref,
            generation=2,
            spec=self.spec,
            wanted=self.wanted,
            status=self._status,
            observed=self._seen(now),
            now=now,
            commands=commands if self._last_reason() == Reason.APPROVAL_NEEDED else {},
        )
        if given.commands:
            self._approvals += 1
        readings = {
            query: self.recording.answer(
                query, (query.at - self.start).total_seconds(), self._roles
            )
            for query in due_queries(given)
        }
        given = replace(given, readings=readings)
        decision = advance(given)
        self._status = present(given, decision)
        self._act(given, now)
        return decision

    def _act(self, given: RolloutInput, now: datetime) -> None:
        """Let the cluster do what the status asks for."""
        plan = make_plan(self.ref, self.spec, self._status, given.observed, self.wanted)
        sizes = {planned.revision.name: planned.min_replicas for planned in plan.revisions}
        for name, size in sizes.items():
            if size > self._observed.workload(name).spec_replicas:
                self._asked_at[name] = now
        self._observed = Observed(
            revisions={p.revision.name: p.revision for p in plan.revisions},
            workloads={
                name: Workload(
                    revision=name,
                    spec_replicas=size,
                    replicas=size,
                    ready_replicas=min(size, self._observed.workload(name).ready_replicas),
                )
                for name, size in sizes.items()
            },
            services=frozenset(sizes),
            route=RouteState(
                weights=plan.weights or {},
                reached=plan.reached,
                accepted=True,
                mirrored={plan.mirror.revision: plan.mirror.percent} if plan.mirror else {},
                by_router=plan.split is not None,
            ),
            has_router=plan.router is not None,
            router_ready=ROUTERS if plan.router is not None else 0,
        )

    def _seen(self, now: datetime) -> Observed:
        """Let pods become ready that were asked for long enough ago."""
        workloads = {
            name: replace(workload, ready_replicas=workload.spec_replicas)
            if now >= self._asked_at.get(name, self.start) + self.pods_ready_after
            else workload
            for name, workload in self._observed.workloads.items()
        }
        self._observed = replace(self._observed, workloads=workloads)
        return self._observed

    def _until_ready(self, now: datetime, wait: timedelta) -> timedelta:
        """Wake up when pods become ready, as a watch would."""
        pending = [
            at + self.pods_ready_after - now
            for at in self._asked_at.values()
            if at + self.pods_ready_after > now
        ]
        return min([wait, *pending])

    def _last_reason(self) -> str:
        transition = self._status.last_transition
        return transition.reason if transition is not None else ""

    def _entry(
        self, now: datetime, before: ModelDeploymentStatus, decision: Decision
    ) -> tuple[tuple[object, ...], Decided] | None:
        """Tell what is new: a transition, or another thing that is waited for."""
        status = self._status
        rollout = status.rollout
        step = rollout.step if rollout is not None else 0
        if status.epoch != before.epoch and status.last_transition is not None:
            reason, words = status.last_transition.reason, status.last_transition.message
        elif decision.blocked_on is not None:
            reason, words = decision.blocked_on, decision.waiting
        else:
            return None
        told = Decided(
            at=round((now - self.start).total_seconds(), 3),
            phase=str(status.phase),
            step=step or (before.rollout.step if before.rollout is not None else 0),
            weight=status.canary.weight if rollout is None and status.canary else self._weight(),
            verdict="pass" if reason in _PASSED else _verdict(status),
            reason=f"{reason}: {words}",
        )
        return (status.epoch, reason), told

    def _weight(self) -> int:
        if self._status.rollout is not None:
            return self._status.rollout.weight
        return 100 if self._last_reason() in _PROMOTED else 0

    def _ended(self, now: datetime, outcome: str) -> Outcome:
        at = (now - self.start).total_seconds()
        canary = self.recording.roles["canary"]
        return Outcome(
            outcome=outcome,
            at=round(at, 3),
            canary_requests=round(canary.requests.increase(0, at)),
            canary_failed_requests=round(canary.errors.increase(0, at)),
        )


def _verdict(status: ModelDeploymentStatus) -> str:
    """Sum the checks up in the gate's three answers."""
    checks = list(status.rollout.checks) if status.rollout is not None else []
    if status.canary is None and status.failed_revisions:
        checks = list(status.failed_revisions[-1].checks)
    verdicts = {check.verdict for check in checks if not check.dry_run}
    if Verdict.FAIL in verdicts:
        return "fail"
    return "pass" if verdicts == {Verdict.PASS} else "not enough evidence"
