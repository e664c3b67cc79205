"""From a status to the objects that must exist for it: which revisions run, how large, and who gets what traffic.

A plan follows from the status that was just written and from nothing that happened before, so a pass that
died between writing the status and touching the cluster is repaired by the next one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from canarium_api.split import Split
from canarium_api.status import ModelDeploymentStatus, RolloutStatus, Splitter
from canarium_api.v1alpha1 import AutoscalingSpec, ModelDeploymentSpec
from canarium_operator.core import golden, mirroring, ratio, routing, versions, workers
from canarium_operator.core.memory import Memory, last_good_ones, memory_of
from canarium_operator.core.mirroring import ComparerPlan, Mirror
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.observation import Observed
from canarium_operator.core.revision import Revision
from canarium_operator.core.rollout.strategy import StepKind, step_at
from canarium_operator.core.routing import CookieRule, HeaderRule, RouterPlan
from canarium_operator.core.workers import JobsPlan


@dataclass(frozen=True, kw_only=True)
class RevisionPlan:
    """One revision that must run."""

    revision: Revision
    min_replicas: int
    """Lower bound of its HPA; also what it is scaled to at once when it has fewer."""
    max_replicas: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that must exist for one ModelDeployment."""

    ref: ObjectRef
    spec: ModelDeploymentSpec
    revisions: tuple[RevisionPlan, ...] = ()
    """What runs."""
    kept: frozenset[str] = frozenset()
    """Revisions whose children are never deleted. More than `revisions` where a revision's template was lost:
    its pods go on serving, though they cannot be made anew. Children of all other revisions are deleted.
    """
    memory: Memory | None = None
    """What shall be remembered beyond the object's life; None: what is remembered stays as it is."""
    weights: Mapping[str, int] | None = None
    """Percent of the traffic by revision, without zeros; None: there is no route."""
    rules: tuple[HeaderRule | CookieRule, ...] = ()
    """Requests that do not follow the weights."""
    split: Split | None = None
    """What the route tells the router, to which it then leads all requests; None: the route splits by weights."""
    router: RouterPlan | None = None
    """None: there is no router."""
    keeps_router: bool = False
    """The router that there is stays, although it is not made anew: requests may still be on their way to it."""
    mirror: Mirror | None = None
    """Who gets copies of requests; None: nobody."""
    comparer: ComparerPlan | None = None
    """None: there is no comparer."""
    jobs: JobsPlan | None = None
    """None: nobody begins batch jobs; workers that there are finish what they have."""
    validation: golden.GoldenPlan | None = None
    """The Job that runs the canary's model over golden data; None: there is none to run."""
    validated: frozenset[str] = frozenset()
    """Revisions whose Jobs stay for their logs."""
    preview: str | None = None
    """Revision that the Service `NAME-preview` leads to; None: there is no such Service."""
    front: frozenset[str] = frozenset()
    """Revisions that the Service `NAME` leads to; none: there is no such Service."""
    has_front: bool = False
    """The Service `NAME` was seen."""

    @property
    def reached(self) -> frozenset[str]:
        """Revisions that the route, or without a gateway the Service `NAME`, leads to in some way."""
        copied = {self.mirror.revision} if self.mirror is not None else set()
        return frozenset(self.weights or ()) | {rule.revision for rule in self.rules} | copied


def canary_replicas(weight: int, reserved: int, autoscaling: AutoscalingSpec) -> int:
    """Pods that a canary needs before it gets a weight, if the stable revision needs `reserved` for all the traffic.

    10 reserved pods: weight 1 needs 1, weight 25 needs 3, weight 100 needs 10; never above `maxReplicas`.
    """
    return max(1, min(math.ceil(reserved * weight / 100), autoscaling.max_replicas))


def splitter_of(spec: ModelDeploymentSpec) -> Splitter | None:
    """Tell what splits the traffic: None for the gateway."""
    return Splitter.REPLICAS if spec.traffic.gateway is None else None


def is_split_by_replicas(spec: ModelDeploymentSpec, rollout: RolloutStatus) -> bool:
    """Tell whether the step that a rollout is in or waits for has a weight that the ratio of pods must give."""
    shared = 0 < step_at(spec.rollout, rollout).weight < 100
    return shared and splitter_of(spec) is rollout.splitter is Splitter.REPLICAS


def stable_floor(status: ModelDeploymentStatus, spec: ModelDeploymentSpec) -> int:
    """Fewest pods of the stable revision: all that it needs to take every request back, while and shortly after a
    canary has a part of them. A `maxReplicas` that was lowered meanwhile counts once that is over.

    Where the ratio of pods gives the weights, it is as many more as the steps so far need: 9 for 10 %. It does not fall
    at a later step that needs fewer: stable would shrink before the canary can follow, and that would be more weight.
    """
    rollout, scaling = status.rollout, spec.autoscaling
    reserved = status.reserve.replicas if status.reserve is not None else 0
    if rollout is not None:
        reserved = max(reserved, rollout.reserved_replicas)
    floor = max(scaling.min_replicas, reserved)
    if rollout is None or rollout.splitter is not Splitter.REPLICAS:
        return floor
    for weight in rollout.weights[: rollout.step]:
        if 0 < weight < 100:
            # None: above the bounds no ratio is exact, and the canary stays below the weight.
            floor = ratio.least_stable(weight, floor, scaling.max_replicas) or floor
    return floor


def canary_floor(spec: ModelDeploymentSpec, rollout: RolloutStatus) -> int:
    """Fewest pods of the canary: what the step needs that it is in or waits for."""
    scaling = spec.autoscaling
    if is_split_by_replicas(spec, rollout):
        return max(1, min(rollout.needed_replicas, scaling.max_replicas))
    size = max(step_at(spec.rollout, rollout).size, rollout.weight)
    share = canary_replicas(size, rollout.reserved_replicas, scaling)
    return max(share, min(rollout.needed_replicas, scaling.max_replicas))


def make_plan(
    ref: ObjectRef,
    spec: ModelDeploymentSpec,
    status: ModelDeploymentStatus,
    observed: Observed,
    wanted: Revision | None,
) -> Plan:
    """Derive the plan of a status.

    Args:
        ref: the ModelDeployment.
        spec: its spec.
        status: the status that was just decided.
        observed: for the templates of revisions that the spec no longer names, and the sizes of those that drain.
        wanted: the revision that the spec names; None while the spec is invalid.
    """
    known = dict(observed.revisions)
    if wanted is not None:
        known[wanted.name] = wanted
        for version in versions.versions_of(spec, wanted):
            known[version.revision.name] = version.revision
        for good in last_good_ones(spec, wanted, observed.memory):
            known.setdefault(good.name, good)
    scaling = spec.autoscaling
    sizes: dict[str, int] = {}
    fixed: str | None = None
    for retiring in status.retiring:
        # Keeps what it has while it drains; without an HPA above it nothing would shrink it either.
        sizes[retiring.revision] = max(1, observed.workload(retiring.revision).spec_replicas)
    rollout = status.rollout
    if status.stable is not None:
        sizes[status.stable.revision] = stable_floor(status, spec)
    for name, size in versions.running(status.versions, scaling).items():
        sizes[name] = max(size, sizes.get(name, 0))
    if status.canary is not None and rollout is not None:
        sizes[status.canary.revision] = canary_floor(spec, rollout)
        if is_split_by_replicas(spec, rollout):
            fixed = status.canary.revision  # one pod more would be more than its weight
    weights = None
    if status.stable is not None:
        share = 0
        # Where a gateway was added or removed meanwhile, the rollout is planned anew before anything is split again.
        if rollout is not None and rollout.splitter is splitter_of(spec):
            share = rollout.weight
        weights = {status.stable.revision: 100 - share}
        if status.canary is not None:
            weights[status.canary.revision] = share
        weights = {revision: weight for revision, weight in weights.items() if weight > 0}
    if status.versions:
        weights = versions.shares(status.versions)
    preview = _previewed(spec, status)
    return Plan(
        ref=ref,
        spec=spec,
        revisions=tuple(
            RevisionPlan(
                revision=known[name],
                min_replicas=size,
                max_replicas=size if name == fixed else max(size, scaling.max_replicas),
            )
            for name, size in sizes.items()
            if name in known
        ),
        kept=frozenset(sizes),
        memory=memory_of(status, known, observed.memory),
        weights=weights,
        rules=routing.rules(spec, status, preview),
        split=routing.split(spec, status),
        router=routing.router(spec, status, known),
        keeps_router=routing.keeps_router(status, observed),
        mirror=mirroring.mirror(spec, status, observed),
        comparer=mirroring.comparer(spec, status, known),
        jobs=workers.jobs(spec, status, known),
        validation=golden.planned(ref, spec, status, known),
        validated=golden.kept(status),
        preview=preview,
        front=_front(spec, status, weights or {}, observed),
        has_front=observed.has_front,
    )


def _front(
    spec: ModelDeploymentSpec,
    status: ModelDeploymentStatus,
    weights: Mapping[str, int],
    observed: Observed,
) -> frozenset[str]:
    """Tell whom the Service `NAME` leads to.

    One that exists when a gateway is added stays, since clients use it; it then leads to the stable revision alone,
    as the ratio of pods is no weight any more.
    """
    if spec.traffic.gateway is None:
        return frozenset(weights)
    if observed.has_front and status.stable is not None:
        return frozenset({status.stable.revision})
    return frozenset()


def _previewed(spec: ModelDeploymentSpec, status: ModelDeploymentStatus) -> str | None:
    """Name the canary that waits for the switch, once its pods are ready."""
    rollout = status.rollout
    if status.canary is None or rollout is None or rollout.prepared_step != rollout.step:
        return None
    step = step_at(spec.rollout, rollout)
    return status.canary.revision if step.kind is StepKind.PREVIEW else None
