"""Reads the status of a ModelDeployment; apart from the Kubernetes client, which takes half a second to import."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from canarium_api.status import ModelDeploymentStatus


def status_of(body: Mapping[str, Any]) -> "ModelDeploymentStatus":
    """Read the status of a ModelDeployment."""
    from canarium_api.status import (
        ModelDeploymentStatus,  # slow to import, too, and lists do without
    )

    return ModelDeploymentStatus.from_manifest(body.get("status") or {})
