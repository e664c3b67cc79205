"""Golden data before any traffic: which Job must run for a canary, and what it has said.

A Job belongs to one canary of one rollout: its name is made from the revision, the start of the rollout, the revision
to compare with and all that is asked. So another try, or other thresholds while nothing is known yet, is another Job,
and what an old one said counts for nothing.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from canarium_api.golden import GoldenSpec, Outcome
from canarium_api.status import ModelDeploymentStatus
from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_operator.core import manifests, naming
from canarium_operator.core.manifests import Manifest
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.revision import Revision
from canarium_operator.core.rollout.strategy import Strategy


@dataclass(frozen=True, kw_only=True)
class GoldenPlan:
    """A Job that must exist."""

    job: str
    """Its name."""
    revision: Revision
    against: Revision | None
    """The old version, where a threshold compares with it."""
    spec: GoldenSpec


def job_of(ref: ObjectRef, spec: ModelDeploymentSpec, status: ModelDeploymentStatus) -> str | None:
    """Name the Job of the canary that there is; None: it needs none."""
    asked, canary, rollout = spec.rollout.validation, status.canary, status.rollout
    if asked is None or canary is None or rollout is None or rollout.strategy == Strategy.DIRECT:
        return None
    stable = status.stable.revision if status.stable is not None else ""
    content = [
        ref.name,
        canary.revision,
        rollout.started_at.isoformat(),
        stable if asked.thresholds.needs_old else "",
        asked.to_manifest(),
    ]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return naming.validation_name(ref.name, digest[:10])


def planned(
    ref: ObjectRef,
    spec: ModelDeploymentSpec,
    status: ModelDeploymentStatus,
    known: Mapping[str, Revision],
) -> GoldenPlan | None:
    """Give the Job that must exist for a status; it stays as long as its canary, for its log."""
    asked, canary = spec.rollout.validation, status.canary
    job = job_of(ref, spec, status)
    if job is None or asked is None or canary is None or canary.revision not in known:
        return None
    if canary.validation is not None and canary.validation.job != job:
        return None  # its verdict is known; what is asked since then counts for the next one
    stable = status.stable
    against = known.get(stable.revision) if stable is not None else None
    return GoldenPlan(
        job=job,
        revision=known[canary.revision],
        against=against if asked.thresholds.needs_old else None,
        spec=asked,
    )


def kept(status: ModelDeploymentStatus) -> frozenset[str]:
    """Name the revisions whose Jobs stay, since somebody may want to read their log."""
    names = {failure.revision for failure in status.failed_revisions}
    names |= {who.revision for who in (status.stable, status.canary) if who is not None}
    return frozenset(names)


def is_of_validation(child: Manifest) -> bool:
    """Tell whether an object is such a Job, or a pod of one."""
    return naming.VALIDATION_LABEL in manifests.labels(child)


def read_outcomes(jobs: Sequence[Manifest], pods: Sequence[Manifest]) -> dict[str, Outcome]:
    """Read what Jobs have said; one that still runs is absent.

    Args:
        jobs: Jobs of validations.
        pods: their pods.
    """
    found: dict[str, Outcome] = {}
    for job in jobs:
        if not manifests.is_being_deleted(job) and (failure := _failure(job)) is not None:
            found[job["metadata"]["name"]] = failure
    for pod in pods:
        outcome = _told(pod)
        if outcome is not None:
            found[manifests.labels(pod)[naming.VALIDATION_LABEL]] = outcome
    return found


def _failure(job: Manifest) -> Outcome | None:
    """Read why a Job ended without a word of its own."""
    for condition in job.get("status", {}).get("conditions") or []:
        if condition.get("type") == "Failed" and condition.get("status") == "True":
            reason, message = condition.get("reason", "Failed"), condition.get("message", "")
            return Outcome(passed=None, message=f"{reason}: {message}"[:600])
    return None


def _told(pod: Manifest) -> Outcome | None:
    for container in pod.get("status", {}).get("containerStatuses") or []:
        terminated = (container.get("state") or {}).get("terminated") or {}
        try:
            return Outcome.model_validate_json(terminated.get("message") or "")
        except ValidationError:
            continue
    return None
