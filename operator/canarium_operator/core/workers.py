"""Workers of batch jobs: whose they are, and how many.

A job is answered by the revision that began it, and the stable one begins jobs. So after a promotion the workers of the
revision before finish what they have begun, and go when their queue is empty. Sizes follow the length of the queue, as
Prometheus knows it: an HPA would need an adapter for external metrics, which many clusters lack. No data is no
reason to change a size.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from canarium_api import metric_names
from canarium_api.status import ModelDeploymentStatus
from canarium_api.v1alpha1 import JobWorkersSpec, ModelDeploymentSpec
from canarium_operator.core import manifests, naming
from canarium_operator.core.manifests import Manifest
from canarium_operator.core.revision import Revision
from canarium_operator.core.rollout.queries import Query, QueryKind, Series

CALM: Final = timedelta(minutes=5)
"""Workers are removed when none of them was needed for so long."""
SILENCE: Final = timedelta(minutes=10)
"""Workers of an earlier revision of which nothing has been heard for so long have nothing that others have not taken
over."""


@dataclass(frozen=True, kw_only=True)
class JobsPlan:
    """The workers of the revision that begins jobs."""

    revision: Revision
    workers: JobWorkersSpec


def jobs(
    spec: ModelDeploymentSpec, status: ModelDeploymentStatus, known: Mapping[str, Revision]
) -> JobsPlan | None:
    """Plan the workers: those of the stable revision, if it takes jobs; bounds are those of the spec."""
    stable = known.get(status.stable.revision) if status.stable is not None else None
    if stable is None or stable.serving.jobs is None:
        return None
    named = spec.serving.jobs or stable.serving.jobs
    return JobsPlan(revision=stable, workers=named.workers)


def bounds_of(workers: JobWorkersSpec) -> str:
    """Write what decides the number of workers, as the annotation has it."""
    return json.dumps([workers.min, workers.max, workers.target_queue_length])


def query(now: datetime) -> Query:
    """Ask for the queues of all revisions of all ModelDeployments at once; every worker says the same of its queue."""
    labels = f"{metric_names.DEPLOYMENT_LABEL}, {metric_names.REVISION_LABEL}"
    return Query(
        promql=f"max by ({labels}) ({metric_names.JOBS_QUEUE_LENGTH})",
        at=now,
        kind=QueryKind.NUMBER,
        revisions=(),
        look_back=timedelta(minutes=5),
        metric=metric_names.JOBS_QUEUE_LENGTH,
    )


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What this process remembers of the workers of one revision; losing it costs a few minutes."""

    needed: tuple[tuple[datetime, int], ...] = ()
    """How many were needed when, within CALM; only moments at which no later one needed more."""
    heard_at: datetime
    """When there was data last, or when this process first saw them."""


Memory = Mapping[tuple[str, str], Seen]
"""By namespace and name of the Deployment."""


@dataclass(frozen=True, kw_only=True)
class Resize:
    """Set the replicas of a Deployment."""

    manifest: Manifest
    replicas: int


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What to change, and what to remember."""

    changes: tuple[Resize, ...] = ()
    memory: Memory = field(default_factory=dict)


def assess(
    objects: Sequence[Manifest], answer: Sequence[Series] | None, memory: Memory, now: datetime
) -> Sizes:
    """Tell how many workers there should be.

    Args:
        objects: all Deployments of workers and all ConfigMaps that say whose begin jobs, of all ModelDeployments.
        answer: to `query`; None: Prometheus did not answer, and nothing is changed.
        memory: of the last time.
        now: the time.
    """
    if answer is None:
        return Sizes(memory=memory)
    lengths = {
        (
            s.labels.get(metric_names.DEPLOYMENT_LABEL, ""),
            s.labels.get(metric_names.REVISION_LABEL, ""),
        ): s.value
        for s in answer
    }
    stable = {
        _deployment(child): (child.get("data") or {}).get("revision", "")
        for child in objects
        if child["kind"] == "ConfigMap"
    }
    changes: list[Resize] = []
    after: dict[tuple[str, str], Seen] = {}
    for child in objects:
        if child["kind"] != "Deployment" or manifests.is_being_deleted(child):
            continue
        key = (child["metadata"]["namespace"], child["metadata"]["name"])
        deployment = _deployment(child)
        revision = manifests.labels(child).get(naming.JOBS_REVISION_LABEL, "")
        length = lengths.get((deployment, revision))
        if length is not None and not math.isfinite(length):
            length = None
        current = int(child.get("spec", {}).get("replicas", 1))
        # What is seen for the first time was needed a moment ago: this process may have just begun.
        seen = memory.get(key, Seen(needed=((now, current),), heard_at=now))
        if length is not None:
            seen = Seen(needed=seen.needed, heard_at=now)
        if stable.get(deployment) == revision:
            seen, size = _size(child, length, current, seen, now)
        else:
            size = _leaving(length, current, seen, now)
        after[key] = seen
        if size != current:
            changes.append(Resize(manifest=child, replicas=size))
    return Sizes(changes=tuple(changes), memory=after)


def _deployment(child: Manifest) -> str:
    name = manifests.labels(child).get(naming.DEPLOYMENT_LABEL, "")
    return f"{child['metadata']['namespace']}/{name}"


def _size(
    child: Manifest, length: float | None, current: int, seen: Seen, now: datetime
) -> tuple[Seen, int]:
    """Size the workers that begin jobs.

    20 chunks and a target of 8 need 3 workers. More are added at once; fewer are left when no moment of the last five
    minutes needed more.
    """
    try:
        least, most, target = json.loads(manifests.annotations(child)[naming.WORKERS_ANNOTATION])
    except (KeyError, ValueError, TypeError):
        return seen, current
    if length is None:
        return seen, max(least, min(current, most))
    needed = max(least, min(math.ceil(length / target), most))
    recent = [(at, count) for at, count in seen.needed if now - at < CALM and count > needed]
    after = Seen(needed=(*recent, (now, needed)), heard_at=now)
    calm = max(count for _, count in after.needed)
    return after, max(least, min(max(needed, min(current, calm)), most))


def _leaving(length: float | None, current: int, seen: Seen, now: datetime) -> int:
    """Size the workers of an earlier revision: they stay as they are until nothing is left for them."""
    if length is None:
        return 0 if now - seen.heard_at >= SILENCE else current
    return 0 if length == 0 else current
