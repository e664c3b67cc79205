"""Metadata that all children share: name, labels, and the owner that takes them along when it is deleted.

The ModelDeployment's own labels and annotations are not copied: a GitOps tool's tracking label on a child would make
the tool believe that the child is missing in git, and prune it.
"""

from canarium_operator.core import naming
from canarium_operator.core.manifests import Manifest
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.revision import Revision


def object_metadata(ref: ObjectRef) -> Manifest:
    """Metadata of a child that there is once for the whole ModelDeployment."""
    return {
        "name": ref.name,
        "namespace": ref.namespace,
        "labels": naming.object_labels(ref),
        "ownerReferences": [naming.owner_reference(ref)],
    }


def revision_labels(ref: ObjectRef, revision: Revision) -> dict[str, str]:
    """Labels of the children of one revision, and of its pods."""
    return {
        **naming.object_labels(ref),
        naming.REVISION_LABEL: revision.name,
        naming.MODEL_VERSION_LABEL: revision.model_version,
    }


def revision_metadata(ref: ObjectRef, revision: Revision) -> Manifest:
    """Metadata of a child of one revision."""
    return {
        **object_metadata(ref),
        "name": naming.child_name(ref.name, revision.name),
        "labels": revision_labels(ref, revision),
    }
