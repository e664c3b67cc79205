"""The Service of a revision: what the route's weights point at. Each revision has one, so weights are exact at any
replica count.
"""

from typing import Final

from canarium_operator.core import naming
from canarium_operator.core.manifests import Manifest
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.resources import metadata
from canarium_operator.core.revision import Revision

PORT: Final = 80


def make_service(ref: ObjectRef, revision: Revision) -> Manifest:
    """Make the Service of a revision."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata.revision_metadata(ref, revision),
        "spec": {
            "type": "ClusterIP",
            "selector": naming.revision_selector(ref, revision.name),
            "ports": [
                {
                    "name": "http",
                    "port": PORT,
                    "targetPort": "http",
                    "protocol": "TCP",
                    "appProtocol": "http",
                }
            ],
        },
    }
