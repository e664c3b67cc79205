"""What the tree shall hold after an outcome: from the files at the head of the branch to the files of the commit."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

import yaml

from canarium_api import API_VERSION
from canarium_operator.core.outcomes.jobs import RECORD, GitJob
from canarium_operator.core.outcomes.manifest_file import (
    KIND,
    ManifestFile,
    MovedOnError,
    UnusableFileError,
)

Read = Callable[[str], bytes | None]
"""Gives a file at the head of the branch; None: there is none."""
_HEADER: Final = (
    "# Written by Canarium when this model was promoted. Use it as a kustomize patch, so that a new cluster\n"
    "# brings this version up first: patches: [{path: %s}]\n"
)


@dataclass(frozen=True, kw_only=True)
class Composition:
    """The files that change; none: `nothing` or `problem` says why."""

    files: dict[str, bytes]
    nothing: str = ""
    problem: str = ""


def compose(job: GitJob, read: Read) -> Composition:
    """Decide what a commit shall change.

    Args:
        job: the outcome.
        read: the files as they are.
    """
    try:
        return _record(job, read) if job.kind == RECORD else _revert(job, read)
    except UnusableFileError as error:
        return Composition(files={}, problem=f"{job.manifest} on {job.branch} {error}")


def _revert(job: GitJob, read: Read) -> Composition:
    if not job.edits:
        why = "the revisions differ in nothing that a manifest says"
        return Composition(files={}, nothing=why)
    text = _text(read(job.manifest))
    if text is None:
        msg = "does not exist: correct spec.gitops.manifest"
        raise UnusableFileError(msg)
    manifest = ManifestFile(text, job.name)
    try:
        changed = manifest.change(job.edits)
    except MovedOnError as error:
        return Composition(files={}, nothing=f"{job.manifest} {error}")
    if not changed:
        return Composition(files={}, nothing=f"{job.manifest} is as it was before already")
    return Composition(files={job.manifest: manifest.text().encode()})


def _record(job: GitJob, read: Read) -> Composition:
    before = _parsed(read(job.record))
    known = _known(before)
    ours = job.content["rollout"]["lastGood"]["record"]
    if job.only_first and before is not None:
        return Composition(files={}, nothing=f"{job.record} has a record already")
    if known.get("revision") == ours["revision"]:
        return Composition(files={}, nothing=f"{job.record} names {ours['revision'][:8]} already")
    if str(known.get("releasedAt", "")) > ours["releasedAt"]:
        return Composition(files={}, nothing=f"{job.record} has a later promotion")
    document = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": _metadata_for(job, read),
        "spec": job.content,
    }
    body = yaml.safe_dump(document, sort_keys=False, width=120, allow_unicode=True)
    return Composition(files={job.record: (_HEADER % _from_manifest(job) + body).encode()})


def _from_manifest(job: GitJob) -> str:
    """Write the record's path as a kustomization beside the manifest would."""
    record, folder = PurePosixPath(job.record), PurePosixPath(job.manifest).parent
    return str(record.relative_to(folder) if record.is_relative_to(folder) else record)


def _metadata_for(job: GitJob, read: Read) -> dict[str, str]:
    """Name the object as the manifest does, with its namespace where it has one: kustomize finds the target of a patch
    by both, and may give it others later.
    """
    text = _text(read(job.manifest)) if job.manifest else None
    try:
        return ManifestFile(text, job.name).metadata if text is not None else {"name": job.name}
    except UnusableFileError:
        return {"name": job.name}


def _known(document: Any) -> dict[str, Any]:
    """Find the record in the file as it is; anything else counts as none."""
    for key in ("spec", "rollout", "lastGood", "record"):
        document = document.get(key) if isinstance(document, dict) else None
    return document if isinstance(document, dict) else {}


def _parsed(raw: bytes | None) -> Any:
    text = _text(raw)
    try:
        return yaml.safe_load(text) if text is not None else None
    except yaml.YAMLError:
        return {}


def _text(raw: bytes | None) -> str | None:
    if raw is None:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        msg = "is not a text in UTF-8"
        raise UnusableFileError(msg) from error
