"""What kstatus, and so Flux, makes of a ModelDeployment, by its status alone.

The rules are those of kstatus for any kind (`pkg/kstatus/status` of cli-utils), as far as our conditions use them:
being deleted, an older generation observed, Reconciling, Stalled, Ready.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Health(StrEnum):
    """Words of kstatus."""

    CURRENT = "Current"
    IN_PROGRESS = "InProgress"
    FAILED = "Failed"
    TERMINATING = "Terminating"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Health, and why."""

    health: Health
    message: str
    field: str
    """What decided it."""


def judge(body: dict[str, Any]) -> Judgement:
    """Tell the health of an object as it stands.

    Args:
        body: the whole object; its status has the shape that the schema wants.
    """
    meta, status = body.get("metadata") or {}, body.get("status") or {}
    conditions = [c for c in status.get("conditions") or [] if isinstance(c, dict)]
    by_type = {c.get("type"): (index, c) for index, c in enumerate(conditions)}
    if meta.get("deletionTimestamp"):
        return Judgement(health=Health.TERMINATING, message="it is being deleted", field="metadata")
    generation, observed = meta.get("generation"), status.get("observedGeneration")
    if observed is not None and generation is not None and observed != generation:
        message = f"the operator has seen generation {observed}, and the object's is {generation}"
        return Judgement(
            health=Health.IN_PROGRESS, message=message, field="status.observedGeneration"
        )
    for kind, health in (("Reconciling", Health.IN_PROGRESS), ("Stalled", Health.FAILED)):
        index, condition = by_type.get(kind, (0, {}))
        if condition.get("status") == "True":
            return _by(health, index, condition)
    index, condition = by_type.get("Ready", (0, {}))
    if condition.get("status") == "True":
        return _by(Health.CURRENT, index, condition)
    if condition:
        return _by(Health.IN_PROGRESS, index, condition)
    message = "it has no condition Ready: kstatus takes such an object for current"
    return Judgement(health=Health.CURRENT, message=message, field="status")


def _by(health: Health, index: int, condition: dict[str, Any]) -> Judgement:
    said = [str(condition.get(part)) for part in ("type", "status", "reason", "message")]
    message = f"{said[0]}={said[1]}, {said[2]}: {said[3]}"
    return Judgement(health=health, message=message, field=f"status.conditions[{index}]")
