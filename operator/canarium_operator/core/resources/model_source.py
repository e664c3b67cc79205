"""From a model's URI to what a pod needs for it: the URI that the server reads, and the volume behind it.

The server itself knows only https, http and file: volumes are the cluster's affair, so they are resolved here.
"""

from dataclasses import dataclass, field
from typing import Final

from canarium_operator.core.manifests import Manifest

MOUNT_PATH: Final = "/models"
_VOLUME: Final = "model"


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Where the server finds the model."""

    uri: str
    """What the server is told."""
    volumes: list[Manifest] = field(default_factory=list)
    """Volumes of the pod."""
    mounts: list[Manifest] = field(default_factory=list)
    """Mounts of the container, all read-only."""


def locate(uri: str, number: int = 0) -> ModelSource:
    """Resolve a URI: `pvc://claim/a/b.onnx` becomes `file:///models/a/b.onnx` with the claim mounted at /models.

    Args:
        uri: of the spec.
        number: 0: the model; 1 and more: those of `serving.models`, which are mounted at `/models-1` and so on.
    """
    suffix = f"-{number}" if number else ""
    scheme, _, rest = uri.partition("://")
    name, _, path = rest.partition("/")
    if scheme == "pvc":
        volume: Manifest = {"persistentVolumeClaim": {"claimName": name, "readOnly": True}}
    elif scheme == "configmap":
        volume = {"configMap": {"name": name, "items": [{"key": path, "path": path}]}}
    else:
        return ModelSource(uri=uri)
    return ModelSource(
        uri=f"file://{MOUNT_PATH}{suffix}/{path}",
        volumes=[{"name": f"{_VOLUME}{suffix}", **volume}],
        mounts=[
            {
                "name": f"{_VOLUME}{suffix}",
                "mountPath": f"{MOUNT_PATH}{suffix}",
                "readOnly": True,
            }
        ],
    )
