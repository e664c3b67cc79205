"""Revisions with digest and lineage, how rollouts ended, and what people did."""

from datetime import datetime

from canarium_api.base import ApiModel
from canarium_api.status import (
    HistoryEntry,
    ModelDeploymentStatus,
    RevisionStatus,
    SignatureStatus,
    TensorStatus,
    VersionStatus,
)
from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_dashboard.views.health import label


class RevisionView(ApiModel):
    """One revision."""

    role: str
    label: str
    revision: str
    version: str
    digest: str | None = None
    source: str | None = None
    """Where its model comes from: known of what the spec names now."""
    pods: str | None = None
    """`2 of 3 ready`."""
    weight: int | None = None
    inputs: str | None = None
    outputs: str | None = None
    lineage: str | None = None
    """What it took over from, and when."""
    note: str | None = None


class Ending(ApiModel):
    """How one rollout ended."""

    label: str
    outcome: str
    message: str
    started_at: datetime | None = None
    finished_at: datetime


class Deed(ApiModel):
    """What somebody did."""

    verb: str
    by: str
    at: datetime
    message: str


def revisions_of(
    status: ModelDeploymentStatus, spec: ModelDeploymentSpec | None
) -> list[RevisionView]:
    """List what runs, what drains, and what failed."""
    found = [
        _live(role, revision, status, spec)
        for role, revision in (("canary", status.canary), ("stable", status.stable))
        # Where versions are fixed, stable is that of `main`.
        if revision is not None and not (status.versions and role == "stable")
    ]
    found += [_version(version) for version in status.versions]
    known = {view.revision for view in found}
    for entry in status.retiring:
        if entry.revision not in known:
            known.add(entry.revision)
            version = _version_of(status.history, entry.revision)
            found.append(
                RevisionView(
                    role="kept for a way back" if entry.keep_for else "draining",
                    label=label(version, entry.revision) if version else entry.revision[:8],
                    revision=entry.revision,
                    version=version,
                    note=f"{entry.reason}, since {entry.since:%Y-%m-%d %H:%M:%S}Z",
                )
            )
    for failed in reversed(status.failed_revisions):
        if failed.revision in known:
            continue
        known.add(failed.revision)
        found.append(
            RevisionView(
                role="failed",
                label=label(failed.model_version, failed.revision),
                revision=failed.revision,
                version=failed.model_version,
                digest=failed.digest,
                source=_source(spec, failed.model_version),
                note=f"{failed.message} ({failed.failed_at:%Y-%m-%d %H:%M:%S}Z)",
            )
        )
    return found


def _live(
    role: str,
    revision: RevisionStatus,
    status: ModelDeploymentStatus,
    spec: ModelDeploymentSpec | None,
) -> RevisionView:
    signature = revision.signature or SignatureStatus()
    return RevisionView(
        role=role,
        label=label(revision.model_version, revision.revision),
        revision=revision.revision,
        version=revision.model_version,
        digest=revision.digest,
        source=_source(spec, revision.model_version),
        pods=f"{revision.ready_replicas} of {revision.replicas} ready",
        weight=revision.weight,
        inputs=_tensors(signature.inputs),
        outputs=_tensors(signature.outputs),
        lineage=_lineage(revision, status),
    )


def _version(version: VersionStatus) -> RevisionView:
    return RevisionView(
        role=f"version {version.name}",
        label=label(version.model_version, version.revision) if version.revision else version.name,
        revision=version.revision,
        version=version.model_version,
        digest=version.digest,
        pods=f"{version.ready_replicas} of {version.replicas} ready",
        weight=version.weight,
        note=version.message or None,
    )


def _source(spec: ModelDeploymentSpec | None, version: str) -> str | None:
    """Give the model's URI where the spec still names this version."""
    if spec is None or spec.model.version != version:
        return None
    return spec.model.uri


def _tensors(tensors: list[TensorStatus]) -> str | None:
    if not tensors:
        return None
    return ", ".join(
        f"{t.name} {t.datatype}[{','.join('?' if n < 0 else str(n) for n in t.shape)}]"
        for t in tensors
    )


def _lineage(revision: RevisionStatus, status: ModelDeploymentStatus) -> str | None:
    """Say after what a revision came: the canary is to replace stable, stable replaced what was before it."""
    if status.canary is not None and revision.revision == status.canary.revision:
        stable = status.stable
        return (
            f"to take over from {label(stable.model_version, stable.revision)}" if stable else None
        )
    served = [e for e in status.history if e.outcome in ("Deployed", "Promoted")]
    mine = next(
        (i for i in reversed(range(len(served))) if served[i].revision == revision.revision), None
    )
    if mine is None:
        return None
    since = f"{served[mine].finished_at:%Y-%m-%d %H:%M}Z"
    if mine == 0:
        return f"serves since {since}"
    before = served[mine - 1]
    return f"took over from {label(before.model_version, before.revision)} on {since}"


def _version_of(history: list[HistoryEntry], revision: str) -> str:
    return next((e.model_version for e in reversed(history) if e.revision == revision), "")


def endings_of(status: ModelDeploymentStatus) -> list[Ending]:
    """List how rollouts ended, latest first."""
    return [
        Ending(
            label=label(entry.model_version, entry.revision),
            outcome=entry.outcome,
            message=entry.message,
            started_at=entry.started_at,
            finished_at=entry.finished_at,
        )
        for entry in reversed(status.history)
    ]


def deeds_of(status: ModelDeploymentStatus) -> list[Deed]:
    """List what people did, latest first."""
    return [
        Deed(verb=action.verb, by=action.by, at=action.at, message=action.message)
        for action in reversed(status.actions)
    ]
