"""The PodDisruptionBudget of a revision: a node drain takes one pod at a time."""

from canarium_operator.core import naming
from canarium_operator.core.manifests import Manifest
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.resources import metadata
from canarium_operator.core.revision import Revision


def make_disruption_budget(ref: ObjectRef, revision: Revision) -> Manifest:
    """Make the PodDisruptionBudget of a revision.

    The bound is on the unavailable, since a bound on the available would block every drain while there is one pod
    only. Pods that do not work may always go: a canary that never gets ready must not hold up a drain.
    """
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata.revision_metadata(ref, revision),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": naming.revision_selector(ref, revision.name)},
        },
    }
