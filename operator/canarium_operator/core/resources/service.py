"""The Service of a revision: what the route's weights point at. Each revision has one, so weights are exact at any
replica count.
"""

from typing import Final

from canarium_api.runtime_config import GRPC_PORT
from canarium_operator.core import naming
from canarium_operator.core.manifests import Manifest
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.resources import metadata
from canarium_operator.core.revision import Revision

PORT: Final = 80


def make_service(ref: ObjectRef, revision: Revision) -> Manifest:
    """Make the Service of a revision."""
    return make(
        metadata.revision_metadata(ref, revision),
        naming.revision_selector(ref, revision.name),
        "https" if revision.serving.speaks_tls else "http",
        grpc=revision.serving.grpc,
    )


def make_preview(ref: ObjectRef, revision: str, *, grpc: bool = False) -> Manifest:
    """Make the Service that leads to a canary before it has traffic, under a name that stays the same."""
    meta = metadata.object_metadata(ref)
    labels = {**meta["labels"], naming.PREVIEW_LABEL: "true"}
    return make(
        {**meta, "name": naming.preview_name(ref.name), "labels": labels},
        naming.revision_selector(ref, revision),
        grpc=grpc,
    )


def make(
    meta: Manifest, selector: dict[str, str], protocol: str = "http", *, grpc: bool = False
) -> Manifest:
    """Make a Service that leads to the pods with these labels.

    Args:
        meta: of the Service.
        selector: of the pods.
        protocol: what they speak: `http` or `https`.
        grpc: some of them answer gRPC, too; those that do not have no port of that name, and are no endpoints of it.
    """
    ports: list[Manifest] = [
        {
            "name": "http",
            "port": PORT,
            "targetPort": "http",
            "protocol": "TCP",
            "appProtocol": protocol,
        }
    ]
    if grpc:
        ports.append(
            {
                "name": "grpc",
                "port": GRPC_PORT,
                "targetPort": "grpc",
                "protocol": "TCP",
                "appProtocol": "kubernetes.io/h2c" if protocol == "http" else "https",
            }
        )
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta,
        "spec": {
            "type": "ClusterIP",
            "selector": selector,
            "ports": ports,
        },
    }
