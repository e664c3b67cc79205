"""What to change so that the children become what the plan asks for.

Nothing is deleted that has traffic, whatever the plan says: not while the plan gives it a share, and not while the live
route does. A plan that is wrong (a lost status, a damaged template) then costs pods that run for too long, never
requests.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from canarium_operator.core import manifests, naming
from canarium_operator.core.manifests import Manifest
from canarium_operator.core.memory import is_memory
from canarium_operator.core.plan import Plan
from canarium_operator.core.resources import front, route
from canarium_operator.core.routing import ROUTERS


@dataclass(frozen=True, kw_only=True)
class Apply:
    """Create or update an object."""

    manifest: Manifest


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Set the replicas of a Deployment, as its HPA would a while later: it looks every 15 seconds only."""

    manifest: Manifest
    replicas: int


@dataclass(frozen=True, kw_only=True)
class Delete:
    """Delete an object."""

    manifest: Manifest


Change = Apply | Scale | Delete

_DELETION_ORDER: Final = (
    "HTTPRoute",
    "HorizontalPodAutoscaler",
    "Job",
    "Deployment",
    "PodDisruptionBudget",
    "Service",
    "ConfigMap",
)
"""The HPA first, so that it does not complain of a missing target; the ConfigMap last, as the only memory of a
revision. Pods are left to their Deployment. The route goes with its owner; it is deleted only where the spec names no
gateway any more and the Service `NAME` is there instead."""


def diff(
    plan: Plan, desired: Sequence[Manifest], children: Iterable[Manifest], *, full: bool = False
) -> tuple[Change, ...]:
    """Compare what is with what must be.

    Args:
        plan: the plan that `desired` was made from.
        desired: all that must exist.
        children: all that was found, pods included.
        full: apply everything, to repair what others changed without touching our annotation.
    """
    live = {manifests.key(child): child for child in children if child["kind"] != "Pod"}
    sizes = {
        naming.child_name(plan.ref.name, p.revision.name): p.min_replicas for p in plan.revisions
    }
    sizes[naming.router_name(plan.ref.name)] = ROUTERS
    if plan.jobs is not None:
        name = naming.workers_name(plan.ref.name, plan.jobs.revision.name)
        sizes[name] = plan.jobs.workers.min
    changes: list[Change] = []
    for wanted in desired:
        found = live.get(manifests.key(wanted))
        if wanted["kind"] == "Job" and found is not None:
            continue  # its template cannot be changed, and its name says what it is made from
        if full or found is None or not _is_current(wanted, found):
            changes.append(Apply(manifest=wanted))
        if wanted["kind"] == "Deployment":
            size = sizes.get(wanted["metadata"]["name"], 1)
            if _replicas(found) < size:
                changes.append(Scale(manifest=wanted, replicas=size))
    return (*changes, *_deletions(plan, live.values()))


def _is_current(wanted: Manifest, found: Manifest) -> bool:
    stamps = (manifests.annotations(m).get(naming.HASH_ANNOTATION) for m in (wanted, found))
    if len(set(stamps)) > 1:
        return False
    # What decides who gets requests is looked at itself, and not what we once wrote on it.
    if front.is_front(wanted) and front.selector_of(wanted) != front.selector_of(found):
        return False
    return wanted["kind"] != "HTTPRoute" or _contains(found.get("spec"), wanted["spec"])


def _contains(found: Any, wanted: Any) -> bool:
    """Tell whether all that is wanted is there; fields that the API server or others added do not matter."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(
            _contains(found.get(name), value) for name, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(found, list)
            and len(found) == len(wanted)
            and all(_contains(f, w) for f, w in zip(found, wanted, strict=True))
        )
    return bool(found == wanted)


def _replicas(deployment: Manifest | None) -> int:
    """Replicas that a Deployment asks for; one that is about to be created gets the API server's default of 1."""
    if deployment is None:
        return 1
    replicas: int = deployment.get("spec", {}).get("replicas", 1)
    return replicas


def _is_over(plan: Plan, child: Manifest, kept: frozenset[str]) -> bool:
    labels = manifests.labels(child)
    if child["kind"] == "HTTPRoute":
        return plan.spec.traffic.gateway is None and plan.has_front
    if front.is_front(child):
        return not plan.front
    if naming.ROUTER_LABEL in labels:
        return plan.router is None and not plan.keeps_router
    if naming.SHADOW_LABEL in labels:
        return plan.comparer is None
    if naming.JOBS_LABEL in labels:
        return _are_workers_over(plan, child)
    if naming.VALIDATION_LABEL in labels:
        return _is_validation_over(plan, child)
    if naming.PREVIEW_LABEL in labels:
        return plan.preview is None
    return labels.get(naming.REVISION_LABEL) not in kept


def _is_validation_over(plan: Plan, job: Manifest) -> bool:
    """Tell whether a Job can go: nobody will read its log, or another one runs for the same revision."""
    revision = manifests.labels(job).get(naming.VALIDATION_REVISION_LABEL)
    if plan.validation is not None and plan.validation.revision.name == revision:
        return bool(job["metadata"]["name"] != plan.validation.job)
    return revision not in plan.validated


def _are_workers_over(plan: Plan, child: Manifest) -> bool:
    """Tell whether workers can go: nobody needs them, when they have been scaled to none (`core.workers`)."""
    if child["kind"] != "Deployment":
        return plan.jobs is None
    revision = manifests.labels(child).get(naming.JOBS_REVISION_LABEL)
    if plan.jobs is not None and plan.jobs.revision.name == revision:
        return False
    return _replicas(child) == 0


def _behind(service: Manifest, live: Iterable[Manifest]) -> frozenset[str]:
    """Name the revisions that the Service `NAME` leads to."""
    only = front.revision_of(service)
    if only is not None:
        return frozenset({only})
    deployments = (child for child in live if child["kind"] == "Deployment")
    return frozenset(manifests.labels(d).get(naming.REVISION_LABEL, "") for d in deployments)


def _deletions(plan: Plan, live: Iterable[Manifest]) -> list[Delete]:
    live = list(live)
    kept = plan.kept | {p.revision.name for p in plan.revisions} | set(plan.weights or ())
    for child in live:
        if child["kind"] == "HTTPRoute":
            kept |= route.reached_by(child)
        elif front.is_front(child):
            kept |= _behind(child, live)
    doomed = [
        child
        for child in live
        if child["kind"] in _DELETION_ORDER
        and not is_memory(child)
        and _is_over(plan, child, kept)
        and not manifests.is_being_deleted(child)
    ]
    doomed.sort(key=lambda child: (_DELETION_ORDER.index(child["kind"]), child["metadata"]["name"]))
    return [Delete(manifest=child) for child in doomed]
