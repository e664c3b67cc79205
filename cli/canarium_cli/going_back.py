"""Going back to the version before: which it is, what of the spec makes it, and who else writes that spec. Pure.

The operator never writes a spec, and git is its source: going back is a change of the spec like any other. What a
revision was made from stands in its ConfigMap as long as it is there (until it has drained), and that of the last good
one in `NAME-memory`.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from canarium_api.status import HistoryEntry, ModelDeploymentStatus
from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_operator.core import memory, naming
from canarium_operator.core.revision import Revision

GOOD: Final = ("Deployed", "Promoted")
_FLUX: Final = "kustomize.toolkit.fluxcd.io"
_HELM: Final = "helm.toolkit.fluxcd.io"
_ARGO: Final = "argocd.argoproj.io/tracking-id"
_ARGO_LABEL: Final = "argocd.argoproj.io/instance"


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way back."""

    entry: HistoryEntry
    """When the version was good."""
    revision: Revision | None
    """What it was made from; None: the cluster does not have it any more."""
    at_once: bool
    """Within `rollout.rollbackWindow`: no steps."""
    serves: bool = False
    """It is the stable one: the spec names a version that was taken back, or cannot be carried out."""


def earlier(status: ModelDeploymentStatus) -> list[HistoryEntry]:
    """List the revisions that were stable before the present one, the latest first, each once."""
    present = status.stable.revision if status.stable is not None else ""
    found: dict[str, HistoryEntry] = {}
    for entry in reversed(status.history):
        if entry.outcome in GOOD and entry.revision != present:
            found.setdefault(entry.revision, entry)
    return list(found.values())


def way_back(
    status: ModelDeploymentStatus,
    revisions: Mapping[str, Revision],
    spec: Mapping[str, Any],
    *,
    to: str,
    window: int,
) -> Way | None:
    """Find the version to go back to: the stable one where the spec names another, else the one that was stable before.

    Args:
        status: of the ModelDeployment.
        revisions: what revisions were made from, by name.
        spec: the present one.
        to: version or start of a revision; empty: the latest.
        window: `rollout.rollbackWindow`.
    """

    def meant(entry: HistoryEntry) -> bool:
        return not to or entry.model_version == to or entry.revision.startswith(to)

    name = status.stable.revision if status.stable is not None else ""
    stable = revisions.get(name)
    entry = next((e for e in reversed(status.history) if e.revision == name), None)
    if stable is not None and entry is not None and meant(entry) and patch_to(stable, spec):
        return Way(entry=entry, revision=stable, at_once=True, serves=True)
    for place, found in enumerate(earlier(status)):
        if meant(found):
            revision = revisions.get(found.revision)
            return Way(entry=found, revision=revision, at_once=place < window)
    return None


def revisions_of(configmaps: Iterable[Mapping[str, Any]]) -> dict[str, Revision]:
    """Read what revisions were made from; a ConfigMap that cannot be read is left out."""
    found: dict[str, Revision] = {}
    for body in configmaps:
        meta = body["metadata"]
        labels, notes = meta.get("labels") or {}, meta.get("annotations") or {}
        try:
            if naming.MEMORY_LABEL in labels:
                good = memory.read_memory(dict(body)).last_good
                if good is not None:
                    found.setdefault(good.name, good)
            elif naming.TEMPLATE_ANNOTATION in notes:
                name = labels[naming.REVISION_LABEL]
                template = json.loads(notes[naming.TEMPLATE_ANNOTATION])
                found[name] = Revision.from_template(name, template)
        except (KeyError, TypeError, ValueError):
            continue
    return found


def patch_to(revision: Revision, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Write the merge patch that turns a spec into the one that named a revision.

    Fields that the spec has and the revision had not become null, which removes them. What is at its default on both
    sides is left out: the API server writes defaults into every spec.

    Args:
        revision: to go back to.
        spec: the present one.
    """
    now = ModelDeploymentSpec.from_manifest(spec)
    parts = {
        "model": _difference(_explicit(now.model), _explicit(revision.model)),
        "serving": _difference(_explicit(now.serving), _explicit(revision.serving)),
    }
    changed = {name: part for name, part in parts.items() if part}
    return {"spec": changed} if changed else {}


def _explicit(part: Any) -> dict[str, Any]:
    found: dict[str, Any] = part.model_dump(
        mode="json", by_alias=True, exclude_none=True, exclude_defaults=True
    )
    return found


def _difference(now: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Give a merge patch from one object to another: {a: 1, b: 2} to {a: 1, c: 3} is {b: null, c: 3}."""
    found: dict[str, Any] = {}
    for key in [*wanted, *(k for k in now if k not in wanted)]:
        if key not in wanted:
            found[key] = None
        elif isinstance(wanted[key], dict) and isinstance(now.get(key), dict):
            if inner := _difference(now[key], wanted[key]):
                found[key] = inner
        elif key not in now or now[key] != wanted[key]:
            found[key] = wanted[key]
    return found


def keeper(meta: Mapping[str, Any]) -> str:
    """Name what writes a ModelDeployment from git, and how it is held; empty where nothing says so."""
    labels, notes = meta.get("labels") or {}, meta.get("annotations") or {}
    for prefix, kind in ((_FLUX, "kustomization"), (_HELM, "helmrelease")):
        if name := labels.get(f"{prefix}/name"):
            space = labels.get(f"{prefix}/namespace", "flux-system")
            return (
                f"Flux ({kind} {space}/{name}); to hold it: flux suspend {kind} {name} -n {space}"
            )
    app = notes.get(_ARGO, "").split(":", 1)[0] or labels.get(_ARGO_LABEL, "")
    if app:
        return f"Argo CD (application {app}); to hold it: argocd app set {app} --sync-policy none"
    managers = {entry.get("manager", "") for entry in meta.get("managedFields") or []}
    if "kustomize-controller" in managers or "helm-controller" in managers:
        return "Flux; to hold it: flux suspend kustomization NAME"
    if "argocd-controller" in managers:
        return "Argo CD; to hold it: argocd app set NAME --sync-policy none"
    return ""


def as_yaml(patch: Mapping[str, Any]) -> str:
    """Write a patch as it is put into the manifest in git."""
    return yaml.safe_dump(dict(patch), sort_keys=False, allow_unicode=True)
