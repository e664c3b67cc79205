"""What must be true after every single write to the cluster, whatever goes wrong.

The monitor looks at the stored objects alone, as an outsider with a watch would, and knows nothing of the operator's
code but the table of transitions.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from canarium_api import KIND, kstatus
from canarium_api.conditions import Reason
from canarium_api.rollout import ReadyWhen
from canarium_api.status import MAX_FAILED_REVISIONS, MAX_HISTORY, ModelDeploymentStatus, Phase
from canarium_operator.core import manifests, naming, ratio, versions
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.resources import front, route
from canarium_operator.core.rollout.state import WITHOUT_EVENT, is_legal
from canarium_operator.testing.cluster import Call, FakeCluster
from tests.argocd import ArgoLua
from tests.situations import KSTATUS

_LUA = ArgoLua()
BACK = frozenset({Reason.ROLLOUT_REPLANNED, Reason.ROLLOUT_STARTED, Reason.PROMOTED_BY_USER})
"""Transitions after which a step may be lower than before."""


class Monitor:
    """Watches one ModelDeployment."""

    def __init__(
        self,
        cluster: FakeCluster,
        ref: ObjectRef,
        now: Callable[[], datetime],
        *,
        exact_routes: bool = True,
    ) -> None:
        self.story: list[str] = []
        """Transitions, for the report of a failure."""
        self.steps: list[tuple[str, int]] = []
        """(canary, step) of each StepStarted."""
        self.retried: set[str] = set()
        """Revisions that the user asked to be tried again."""
        self.handled: set[tuple[str, str]] = set()
        """Commands that were carried out or refused."""
        self.told: list[int] = []
        """Epochs of the transitions that have Events."""
        self.promoted: list[str] = []
        self.early = 0
        """Writes of a status that was Ready while a canary was under way."""
        self.max_weight: dict[str, int] = {}
        """Highest weight that the route ever gave to a revision, while it was a canary."""
        self.drain: timedelta | None = None
        """How long a revision keeps its pods at least, after it was decided that it gets no more traffic."""
        self._retired: dict[str, datetime] = {}
        self._cluster = cluster
        self._now = now
        self._ref = ref
        self._exact_routes = exact_routes
        self._before = ModelDeploymentStatus()

    def route_weights(self) -> dict[str, int]:
        """Weights of the live route."""
        live = self._cluster.live("HTTPRoute", self._ref.namespace, self._ref.name)
        if live is not None:
            return route.weights_of(live)
        service = self._cluster.live("Service", self._ref.namespace, self._ref.name)
        return {} if service is None else front.weights_of(service, self._all_ready())

    def _all_ready(self) -> dict[str, int]:
        names = {
            manifests.labels(pod).get(naming.REVISION_LABEL) for pod in self._cluster.each("Pod")
        }
        return {name: self.ready_pods(name) for name in names if name is not None}

    def _has_route(self) -> bool:
        return self._cluster.live("HTTPRoute", self._ref.namespace, self._ref.name) is not None

    def front(self) -> set[str]:
        """Whom the Service `NAME` leads to."""
        service = self._cluster.live("Service", self._ref.namespace, self._ref.name)
        if service is None:
            return set()
        only = front.revision_of(service)
        return {only} if only is not None else set(self._all_ready())

    def written(self, call: Call) -> None:
        """Look at the world after a write."""
        match call.method, call.kind:
            case "apply_status", _:
                self._status_written()
            case "apply", "HTTPRoute":
                self._route_written()
            case "apply", "Service" if call.name == self._ref.name:
                self._front_written()
            case "delete", _:
                self._deleted(call)
            case _:
                pass

    def pass_ended(self, *, settled: bool) -> None:
        """Look at the world after a pass without an error: all that the status asks for is done.

        Args:
            settled: the operator waits now.
        """
        status = self._status()
        if status.stable is not None and status.phase is not Phase.INVALID:
            asked = _asked(status)
            if not self._has_route():
                self._front_written()
                asked = self.route_weights()
            assert self.route_weights() == asked, f"route {self.route_weights()}, status {asked}"
        if settled and status.canary is not None and status.canary.revision in self.route_weights():
            ready = self.ready_pods(status.canary.revision)
            assert ready > 0, "traffic stays on a canary without a ready pod"

    def _status(self) -> ModelDeploymentStatus:
        body = self._cluster.live(KIND, self._ref.namespace, self._ref.name)
        assert body is not None
        return ModelDeploymentStatus.from_manifest(body["status"])

    def _status_written(self) -> None:
        before, status = self._before, self._status()
        self._before = status
        conditions = {c.type.value: c.status for c in status.conditions}
        self._health(conditions, status)
        assert len(status.history) <= MAX_HISTORY
        assert len(status.failed_revisions) <= MAX_FAILED_REVISIONS
        if status.epoch == before.epoch:
            assert _facts(status) == _facts(before), "the facts changed without a transition"
            return
        assert status.epoch == before.epoch + 1, f"epoch {before.epoch} to {status.epoch}"
        transition = status.last_transition
        assert transition is not None
        assert transition.epoch == status.epoch
        self.story.append(
            f"{transition.at:%H:%M:%S} epoch {status.epoch}: {transition.reason}: {transition.message}"
        )
        reason = Reason(transition.reason)
        if reason not in WITHOUT_EVENT:
            self.told.append(status.epoch)
        assert is_legal(reason, before.phase, status.phase), (
            f"{reason} may not lead from {before.phase} to {status.phase}"
        )
        for verb, value in status.handled_commands.items() - before.handled_commands.items():
            assert (verb, value) not in self.handled, f"{verb} {value!r} is carried out twice"
            self.handled.add((verb, value))
        if reason is Reason.ROLLOUT_RETRIED:
            self.retried |= {f.revision for f in before.failed_revisions} - {
                f.revision for f in status.failed_revisions
            }
        known = {entry.revision for entry in before.retiring}
        for entry in status.retiring:
            if entry.revision not in known:
                self._retired[entry.revision] = self._now()
        self._steps(reason, before, status)
        self._endings(reason, before, status)

    def _health(self, conditions: dict[str, str], status: ModelDeploymentStatus) -> None:
        """Look at what those who wait are told: one thing, and Flux and Argo CD the same."""
        body = self._cluster.live(KIND, self._ref.namespace, self._ref.name)
        assert body is not None
        told = [
            name for name in ("Ready", "Reconciling", "Stalled") if conditions.get(name) == "True"
        ]
        assert len(told) == 1, conditions
        assert KSTATUS[_LUA.health(body)["status"]] is kstatus.judge(body).health
        if told != ["Ready"]:
            return
        assert conditions["Available"] == "True"
        assert status.stable is not None
        assert status.stable.ready_replicas > 0
        ready_when = body["spec"]["rollout"].get("readyWhen", ReadyWhen.PROMOTED)
        self.early += status.canary is not None
        assert status.canary is None or ready_when != ReadyWhen.PROMOTED
        failed = {f.revision for f in status.failed_revisions}
        assert status.canary is None or status.canary.revision not in failed

    def _steps(
        self, reason: Reason, before: ModelDeploymentStatus, status: ModelDeploymentStatus
    ) -> None:
        rollout, canary = status.rollout, status.canary
        assert (rollout is None) == (canary is None)
        if rollout is None or canary is None:
            return
        assert rollout.weight <= rollout.weights[rollout.step - 1]
        same = before.canary is not None and before.canary.revision == canary.revision
        if not same:
            assert reason is Reason.ROLLOUT_STARTED
            assert (rollout.step, rollout.weight) == (1, 0)
            known = {f.revision for f in before.failed_revisions}
            assert canary.revision not in known, "a failed revision is tried again"
            self.retried.discard(canary.revision)
        elif reason not in BACK:
            assert before.rollout is not None
            onwards = reason in (Reason.STEP_PASSED, Reason.STEP_SKIPPED)
            assert rollout.step - before.rollout.step == onwards
        if reason is Reason.STEP_STARTED:
            if rollout.splitter is None:
                assert self.route_weights().get(canary.revision, 0) == rollout.weight
            elif rollout.weight > 0:
                assert canary.revision in self.front()
            self.steps.append((canary.revision, rollout.step))

    def _endings(
        self, reason: Reason, before: ModelDeploymentStatus, status: ModelDeploymentStatus
    ) -> None:
        forgotten = {f.revision for f in before.failed_revisions} - {
            f.revision for f in status.failed_revisions
        }
        full = len(status.failed_revisions) == MAX_FAILED_REVISIONS
        assert not forgotten or full or reason is Reason.ROLLOUT_RETRIED, "a failure is forgotten"
        old = before.stable.revision if before.stable is not None else None
        new = status.stable.revision if status.stable is not None else None
        if old != new:
            allowed = (
                Reason.FIRST_DEPLOYMENT,
                Reason.RETARGETED,
                Reason.PROMOTED,
                Reason.VERSIONS_CHANGED,
            )
            assert reason in allowed, f"stable changed by {reason}"
        if reason is Reason.PROMOTED:
            assert before.rollout is not None
            assert before.canary is not None
            assert before.rollout.step == before.rollout.steps
            assert before.rollout.weight == 100
            assert new == before.canary.revision
            self.promoted.append(str(new))

    def _route_written(self) -> None:
        weights, status = self.route_weights(), self._status()
        assert sum(weights.values()) == 100, f"weights {weights}"
        names = {naming.child_name(self._ref.name, revision): revision for revision in weights}
        services = {s["metadata"]["name"] for s in self._cluster.each("Service")}
        live = self._cluster.live("HTTPRoute", self._ref.namespace, self._ref.name)
        if live is not None and route.is_by_router(live):
            names[naming.router_name(self._ref.name)] = "the router"
        assert set(names) <= services, f"traffic to what does not exist: {set(names) - services}"
        copied = route.mirrored_by(live) if live is not None else {}
        if not self._exact_routes:
            return
        if copied:
            assert status.canary is not None, "copies to nobody"
            assert status.rollout is not None
            assert set(copied) == {status.canary.revision}
            assert status.rollout.weights[status.rollout.step - 1] == 0, "copies beside a weight"
            assert self.ready_pods(status.canary.revision) > 0, "copies to no ready pod"
        assert weights == _asked(status), f"route {weights}, status asks for {_asked(status)}"
        if status.canary is not None and status.rollout is not None:
            share = weights.get(status.canary.revision, 0)
            assert share <= status.rollout.weights[status.rollout.step - 1]
            highest = max(share, self.max_weight.get(status.canary.revision, 0))
            self.max_weight[status.canary.revision] = highest
            if share > 0:
                ready = self.ready_pods(status.canary.revision)
                assert ready > 0, f"{share}% to a canary without a ready pod"

    def _front_written(self) -> None:
        """Look at the Service that splits by the ratio of pods."""
        status = self._status()
        if not self._exact_routes:
            return
        asked, leads = set(_asked(status)), self.front()
        rollout, canary, stable = status.rollout, status.canary, status.stable
        if len(asked) == 1:
            assert leads == asked, f"the Service leads to {leads}, status asks for {asked}"
        if len(asked) < 2 or rollout is None or canary is None or stable is None:
            return
        assert leads <= asked, f"connections go to {leads - asked}, too"
        weight = rollout.weights[rollout.step - 1]
        deployment = self._cluster.live(
            "Deployment", self._ref.namespace, naming.child_name(self._ref.name, stable.revision)
        )
        assert deployment is not None
        if weight < 100:
            most = ratio.canary_pods(weight, deployment["spec"]["replicas"])
            assert self.ready_pods(canary.revision) <= most, "more pods than the step's weight"

    def ready_pods(self, revision: str) -> int:
        """Count the pods that serve."""
        return sum(
            any(c["type"] == "Ready" and c["status"] == "True" for c in _conditions(pod))
            for pod in self._cluster.each("Pod")
            if manifests.labels(pod).get(naming.REVISION_LABEL) == revision
        )

    def _deleted(self, call: Call) -> None:
        carrying = {naming.child_name(self._ref.name, r) for r in self.route_weights()}
        live = self._cluster.live("HTTPRoute", self._ref.namespace, self._ref.name)
        if live is not None:
            copied = route.mirrored_by(live)
            carrying |= {naming.child_name(self._ref.name, revision) for revision in copied}
        if live is not None and route.is_by_router(live):
            carrying.add(naming.router_name(self._ref.name))
        assert call.name not in carrying, f"{call.kind} {call.name} had traffic"
        since = self._retired.get(call.name.removeprefix(naming.child_name(self._ref.name, "")))
        if since is not None and self.drain is not None:
            assert self._now() - since >= self.drain, f"{call.name} had no time to drain"

    def events_behind(self) -> int:
        """Count the transitions whose Events are still to come."""
        latest = max((event.epoch for _, event in self._cluster.events), default=0)
        return sum(epoch > latest for epoch in self.told)

    def finished(self, *, events_complete: bool = True, events_in_order: bool = True) -> None:
        """Look at the whole story, once all is over.

        Args:
            events_complete: no Event may be missing.
            events_in_order: with two operators, one may tell late what the other has passed by.
        """
        epochs = [event.epoch for _, event in self._cluster.events]
        assert len(epochs) == len(set(epochs)), f"Events twice: {epochs}"
        assert epochs == sorted(epochs) or not events_in_order, f"Events out of order: {epochs}"
        if events_complete:
            assert sorted(epochs) == self.told, (
                f"Events lost: {sorted(set(self.told) - set(epochs))}"
            )


def _conditions(body: manifests.Manifest) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = body.get("status", {}).get("conditions") or []
    return found


def _asked(status: ModelDeploymentStatus) -> dict[str, int]:
    """Weights that a status asks for."""
    if status.stable is None:
        return {}
    if status.versions:
        return versions.shares(status.versions)
    share = status.rollout.weight if status.rollout is not None else 0
    weights = {status.stable.revision: 100 - share}
    if status.canary is not None:
        weights[status.canary.revision] = share
    return {revision: weight for revision, weight in weights.items() if weight > 0}


def _facts(status: ModelDeploymentStatus) -> object:
    """What only a transition may change."""
    rollout = status.rollout
    return (
        status.stable and (status.stable.revision, status.stable.served),
        status.canary and status.canary.revision,
        rollout and (rollout.step, rollout.weight, rollout.weights, rollout.step_started_at),
        [f.revision for f in status.failed_revisions],
        [
            (v.name, v.revision, v.weight, v.wanted_weight, v.state, v.next and v.next.revision)
            for v in status.versions
        ],
        len(status.history),
        status.last_transition,
    )
