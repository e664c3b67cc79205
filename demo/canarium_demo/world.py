"""What the cluster shows of the demo's ModelDeployment: a fold over the objects that the watches bring. Pure.

Nothing here is inferred from what the demo did; all that the report says of promotions, weights and restarts was read
from the API server.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from canarium_api.rollout import DEFAULT_STEPS
from canarium_api.status import ModelDeploymentStatus
from canarium_api.v1alpha1 import ModelDeploymentSpec

Manifest = Mapping[str, Any]
FULL: Final = 100


@dataclass(frozen=True, kw_only=True)
class ClusterEvent:
    """An Event about the ModelDeployment."""

    at: datetime
    reason: str
    message: str
    warning: bool


@dataclass(kw_only=True)
class World:
    """All that has been seen so far.

    Args:
        name: of the ModelDeployment.
    """

    name: str
    generation: int = 0
    status: ModelDeploymentStatus = field(default_factory=ModelDeploymentStatus)
    plan: list[int] = field(default_factory=list)
    """Weights of the steps that the spec asks for."""
    versions: dict[str, str] = field(default_factory=dict)
    """Version by revision, of all revisions that the status ever named."""
    routes: list[dict[str, int]] = field(default_factory=list)
    """Weights by revision, one entry for each change of the route."""
    events: list[ClusterEvent] = field(default_factory=list)
    operators: dict[str, int] = field(default_factory=dict)
    """Restarts of the container, by uid of each operator pod that was ever ready."""
    _restarts_before: int = 0
    _event_uids: set[str] = field(default_factory=set)

    def see_object(self, body: Manifest) -> None:
        """Take the ModelDeployment in."""
        self.generation = body["metadata"]["generation"]
        spec = ModelDeploymentSpec.from_manifest(body["spec"])
        steps = spec.rollout.canary.steps if spec.rollout.canary is not None else DEFAULT_STEPS
        weights = [step.weight for step in steps]
        self.plan = weights if weights[-1] == FULL else [*weights, FULL]
        self.status = ModelDeploymentStatus.from_manifest(body.get("status") or {})
        for live in (self.status.stable, self.status.canary):
            if live is not None:
                self.versions[live.revision] = live.model_version
        for ended in self.status.history:
            self.versions[ended.revision] = ended.model_version

    def see_route(self, body: Manifest) -> None:
        """Take the HTTPRoute in."""
        weights: dict[str, int] = {}
        for rule in body["spec"].get("rules") or []:
            for backend in rule.get("backendRefs") or []:
                revision = backend["name"].removeprefix(f"{self.name}-")
                weights[revision] = weights.get(revision, 0) + backend.get("weight", 1)
        if not self.routes or self.routes[-1] != weights:
            self.routes.append(weights)

    def see_event(self, body: Manifest) -> None:
        """Take an Event in, once."""
        uid = body["metadata"]["uid"]
        if uid in self._event_uids:
            return
        self._event_uids.add(uid)
        at = body.get("eventTime") or body.get("lastTimestamp")
        self.events.append(
            ClusterEvent(
                at=datetime.fromisoformat(at or body["metadata"]["creationTimestamp"]),
                reason=body["reason"],
                message=body.get("message", ""),
                warning=body.get("type") == "Warning",
            )
        )

    def see_operator(self, body: Manifest) -> None:
        """Take a pod of the operator in; it counts from when it is ready."""
        uid, status = body["metadata"]["uid"], body.get("status") or {}
        conditions = status.get("conditions") or []
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
        leaving = "deletionTimestamp" in body["metadata"]
        if uid not in self.operators and (leaving or not ready):
            return
        restarts = sum(c["restartCount"] for c in status.get("containerStatuses") or [])
        if not self.operators:
            self._restarts_before = restarts  # of an operator that was there before the demo
        self.operators[uid] = restarts

    @property
    def operator_restarts(self) -> int:
        """How often the operator began anew: pods that took over from another, and restarts of containers."""
        others = max(0, len(self.operators) - 1)
        return others + sum(self.operators.values()) - self._restarts_before

    @property
    def route(self) -> Mapping[str, int]:
        """Weights by revision, now."""
        return self.routes[-1] if self.routes else {}

    def revisions_of(self, version: str) -> list[str]:
        """Revisions that are a version; more than one only if its serving settings changed too."""
        return [revision for revision, name in self.versions.items() if name == version]

    def outcomes(self, outcome: str) -> list[str]:
        """Versions whose rollout ended so, oldest first, as `status.history` says."""
        return [e.model_version for e in self.status.history if e.outcome == outcome]

    @property
    def failed_versions(self) -> list[str]:
        """Versions that `status.failedRevisions` holds."""
        return [failure.model_version for failure in self.status.failed_revisions]

    def canary_weights(self, version: str) -> list[int]:
        """Weights that the route gave a version while it was a canary, in order, without repetitions and zeros."""
        own = self.revisions_of(version)
        return rollout_weights([sum(route.get(r, 0) for r in own) for route in self.routes])


def rollout_weights(weights: Sequence[int]) -> list[int]:
    """Cut a revision's weights down to its rollout: up to the first 100, after which it is stable.

    0, 10, 10, 25, 100, 90, 100 (the next canary comes) gives 10, 25, 100.
    """
    seen: list[int] = []
    for weight in weights:
        if weight and (not seen or seen[-1] != weight):
            seen.append(weight)
        if weight == FULL:
            break
    return seen
