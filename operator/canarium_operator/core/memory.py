"""What outlives a ModelDeployment: the revisions that failed, and the last one that was good.

It is kept in the ConfigMap `NAME-memory`, which nobody owns, so that deleting the ModelDeployment leaves it. It follows
from the status, as all children do, and is read in one case only: a ModelDeployment of the same name that has no
stable revision yet. Checks are left out of what is remembered of a failure; its message has the evidence in a sentence.

A namespace that is deleted takes it along. Where the operator was given a namespace of its own for that
(`settings.memory_namespace`), a copy of it is kept there, under a name made of the ModelDeployment's.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import ValidationError

from canarium_api.status import MAX_FAILED_REVISIONS, FailedRevision, ModelDeploymentStatus
from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_operator.core import manifests, naming
from canarium_operator.core.manifests import Manifest
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.revision import Revision, variant_of

_KEY: Final = "memory.json"
COPY: Final = "copy"
"""Value of MEMORY_LABEL on copies."""
KEPT_FOR: Final = timedelta(days=30)
"""So long a copy stays that is not written any more."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What is known of a ModelDeployment beyond its own life."""

    failed_revisions: tuple[FailedRevision, ...] = ()
    """At most MAX_FAILED_REVISIONS, without their checks."""
    last_good: Revision | None = None
    """The revision that served last."""


def is_memory(manifest: Manifest) -> bool:
    """Tell whether an object is the memory of some ModelDeployment."""
    return manifest["kind"] == "ConfigMap" and naming.MEMORY_LABEL in manifests.labels(manifest)


def memory_of(
    status: ModelDeploymentStatus, known: Mapping[str, Revision], before: Memory | None
) -> Memory | None:
    """Derive what must be remembered.

    Args:
        status: the status that was just decided.
        known: templates of revisions.
        before: what is remembered now; kept where the status does not know better.

    Returns:
        None: there is nothing to remember, or nothing is known yet, and what is remembered stays as it is.
    """
    stable = status.stable
    if stable is None:
        return None
    last_good = before.last_good if before is not None else None
    if stable.served:
        last_good = known.get(stable.revision, last_good)
    failed = tuple(f.model_copy(update={"checks": []}) for f in status.failed_revisions)
    if last_good is None and not failed:
        return None
    return Memory(failed_revisions=failed, last_good=last_good)


def make_memory(ref: ObjectRef, memory: Memory) -> Manifest:
    """Make the ConfigMap; it has no owner, which is the point of it."""
    content: dict[str, Any] = {
        "failedRevisions": [f.to_manifest() for f in memory.failed_revisions]
    }
    if memory.last_good is not None:
        good = memory.last_good
        content["lastGood"] = {"revision": good.name, "template": good.to_template()}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": naming.memory_name(ref.name),
            "namespace": ref.namespace,
            "labels": {**naming.object_labels(ref), naming.MEMORY_LABEL: "true"},
        },
        "data": {_KEY: json.dumps(content, sort_keys=True, indent=1)},
    }


def copy_name(ref: ObjectRef) -> str:
    """Name of the copy of a memory, in a namespace that holds those of all."""
    digest = hashlib.sha256(str(ref).encode()).hexdigest()
    return f"memory-{digest[:20]}"


def make_copy(memory: Manifest, namespace: str, at: datetime) -> Manifest:
    """Make the copy of a memory.

    Its labels are not those of children, so that no ModelDeployment beside it takes it for its own.

    Args:
        memory: the ConfigMap.
        namespace: for the copy.
        at: when it was written, for `is_old`.
    """
    meta = memory["metadata"]
    name: str = manifests.labels(memory)[naming.DEPLOYMENT_LABEL]
    ref = ObjectRef(namespace=meta["namespace"], name=name)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": copy_name(ref),
            "namespace": namespace,
            "labels": {
                **naming.MANAGED_BY,
                naming.MEMORY_LABEL: COPY,
                naming.COPY_NAMESPACE_LABEL: ref.namespace,
                naming.COPY_NAME_LABEL: ref.name,
            },
            "annotations": {naming.WRITTEN_ANNOTATION: f"{at:%Y-%m-%dT%H:%M:%SZ}"},
        },
        "data": memory["data"],
    }


def restored(copy: Manifest, ref: ObjectRef) -> Manifest | None:
    """Give the memory that a copy was made of, as if it were still there; None where it is another's copy.

    It carries no stamp of what was applied, so that it is written again as soon as there is anything to remember.
    """
    labels = manifests.labels(copy)
    of = (labels.get(naming.COPY_NAMESPACE_LABEL), labels.get(naming.COPY_NAME_LABEL))
    if of != (ref.namespace, ref.name):
        return None
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": naming.memory_name(ref.name),
            "namespace": ref.namespace,
            "labels": {**naming.object_labels(ref), naming.MEMORY_LABEL: "true"},
        },
        "data": copy.get("data"),
    }


def is_old(copy: Manifest, now: datetime) -> bool:
    """Tell whether a copy was not written for KEPT_FOR; one that does not say when it was, is not."""
    written = manifests.annotations(copy).get(naming.WRITTEN_ANNOTATION, "")
    try:
        return datetime.fromisoformat(written) + KEPT_FOR < now
    except (ValueError, TypeError):
        return False


def read_memory(configmap: Manifest) -> Memory:
    """Read the ConfigMap.

    Raises:
        ValueError: it was damaged; nothing of it is believed then.
    """
    try:
        content = json.loads((configmap.get("data") or {})[_KEY])
        failed = [FailedRevision.from_manifest(entry) for entry in content["failedRevisions"]]
        good = content.get("lastGood")
        last_good = (
            Revision.from_template(good["revision"], good["template"]) if good is not None else None
        )
    except (KeyError, TypeError, AttributeError, ValueError, ValidationError) as error:
        msg = (
            f"ConfigMap {configmap['metadata']['name']}: its key {_KEY} cannot be read, so nothing is known of earlier "
            f"failures ({type(error).__name__}): delete the ConfigMap, it is written anew"
        )
        raise ValueError(msg) from error
    return Memory(failed_revisions=tuple(failed[-MAX_FAILED_REVISIONS:]), last_good=last_good)


def last_good_ones(
    spec: ModelDeploymentSpec, wanted: Revision, memory: Memory | None
) -> tuple[Revision, ...]:
    """Name the revisions that a cluster where nothing serves yet brings up before the wanted one, best first.

    What the cluster remembers comes before what the spec says of other clusters: it has served here.

    Args:
        spec: for `rollout.lastGood`.
        wanted: the revision that the spec names; for its image.
        memory: what is remembered.
    """
    found = [memory.last_good] if memory is not None and memory.last_good is not None else []
    declared = spec.rollout.last_good
    if declared is not None:
        found.append(
            variant_of(
                spec,
                wanted.image,
                uri=declared.uri,
                sha256=declared.sha256,
                version=declared.version,
            )
        )
    return tuple(revision for revision in found if revision.name != wanted.name)
