"""What kstatus says of an object, and so Flux' health checks and Helm's `--wait`.

Written after `pkg/kstatus/status` of cli-utils (the same in Flux' fork), for kinds that it has no rule of its own for.
"""

from enum import StrEnum
from typing import Any


class Health(StrEnum):
    """The words of kstatus."""

    IN_PROGRESS = "InProgress"
    FAILED = "Failed"
    CURRENT = "Current"
    TERMINATING = "Terminating"


def compute(manifest: dict[str, Any]) -> Health:
    """Judge an object.

    Args:
        manifest: as the API server gives it.
    """
    metadata, status = manifest["metadata"], manifest.get("status", {})
    if metadata.get("deletionTimestamp"):
        return Health.TERMINATING
    if "generation" in metadata and "observedGeneration" in status:
        if not isinstance(status["observedGeneration"], int):
            msg = "kstatus refuses an observedGeneration that is no integer"
            raise TypeError(msg)
        if status["observedGeneration"] != metadata["generation"]:
            return Health.IN_PROGRESS
    conditions = status.get("conditions", [])
    for condition in conditions:
        if condition["type"] == "Reconciling" and condition["status"] == "True":
            return Health.IN_PROGRESS
        if condition["type"] == "Stalled" and condition["status"] == "True":
            return Health.FAILED
    for condition in conditions:
        if condition["type"] == "Ready":
            return Health.CURRENT if condition["status"] == "True" else Health.IN_PROGRESS
    return Health.CURRENT
