"""The Service `NAME`, which clients in the cluster use; and back from it to who gets their connections.

Its selector takes the pods of one revision, or those of all revisions: a selector has no "one of these two". Endpoints
are left to Kubernetes, so pods that die or come are noticed while the operator is away. A narrower selector takes the
traffic from a canary at once, whatever becomes of its pods.
"""

from collections.abc import Mapping

from canarium_operator.core import manifests, naming, ratio
from canarium_operator.core.manifests import Manifest
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.observation import RouteState
from canarium_operator.core.resources import metadata, service


def make_front(ref: ObjectRef, revisions: frozenset[str], *, grpc: bool = False) -> Manifest:
    """Make the Service.

    Args:
        ref: the ModelDeployment.
        revisions: who shall get connections; of more than one, all pods there are.
        grpc: some of the pods answer gRPC, too.
    """
    selector = naming.any_revision_selector(ref)
    if len(revisions) == 1:
        selector = naming.revision_selector(ref, next(iter(revisions)))
    return service.make(metadata.object_metadata(ref), selector, grpc=grpc)


def is_front(child: Manifest) -> bool:
    """Tell whether a child is this Service."""
    owner = manifests.labels(child).get(naming.DEPLOYMENT_LABEL)
    return bool(child["kind"] == "Service" and child["metadata"]["name"] == owner)


def selector_of(front: Manifest) -> dict[str, str]:
    """Read its selector."""
    selector: dict[str, str] = front.get("spec", {}).get("selector") or {}
    return selector


def revision_of(front: Manifest) -> str | None:
    """Read which single revision it leads to; None: to all pods."""
    return selector_of(front).get(naming.REVISION_LABEL)


def state_of(front: Manifest, ready: Mapping[str, int]) -> RouteState:
    """Read who gets which share of the connections.

    Args:
        front: the Service.
        ready: ready pods by revision.
    """
    weights = weights_of(front, ready)
    return RouteState(weights=weights, reached=frozenset(weights), accepted=True)


def weights_of(front: Manifest, ready: Mapping[str, int]) -> dict[str, int]:
    """Read the shares alone."""
    only = revision_of(front)
    return {only: 100} if only is not None else ratio.shares(ready)
