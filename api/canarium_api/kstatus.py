"""What kstatus, and so Flux' health checks and Helm's `--wait`, makes of an object by its status.

Written after `pkg/kstatus/status` of cli-utils (the same in Flux' fork), in its order: an object that is being deleted,
an older generation observed, `Reconciling` or `Stalled` (whichever is True and listed first), `Ready`; without any of
these it is current.

Not here: the rules of their own that it has for Deployments, pods and other kinds of Kubernetes itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final


class Health(StrEnum):
    """The words of kstatus."""

    IN_PROGRESS = "InProgress"
    FAILED = "Failed"
    CURRENT = "Current"
    TERMINATING = "Terminating"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Health, and why."""

    health: Health
    message: str
    field: str
    """What decided it."""


_RULES: Final[tuple[Mapping[tuple[Any, Any], Health], ...]] = (
    {("Reconciling", "True"): Health.IN_PROGRESS, ("Stalled", "True"): Health.FAILED},
    {
        ("Ready", "True"): Health.CURRENT,
        ("Ready", "False"): Health.IN_PROGRESS,
        ("Ready", "Unknown"): Health.IN_PROGRESS,
    },
)
"""Health by type and status of a condition; the conditions are gone through for each of these in turn."""
_PARTS: Final = ("type", "status", "reason", "message")


def judge(body: Mapping[str, Any]) -> Judgement:
    """Tell the health of an object as it stands.

    Args:
        body: the whole object; its status has the shape that its schema wants.

    Raises:
        TypeError: its observed generation is no integer, which kstatus refuses.
    """
    meta, status = body.get("metadata") or {}, body.get("status") or {}
    if meta.get("deletionTimestamp"):
        return Judgement(health=Health.TERMINATING, message="it is being deleted", field="metadata")
    return (
        _by_generation(meta.get("generation"), status.get("observedGeneration"))
        or _by_conditions(status.get("conditions") or [])
        or Judgement(
            health=Health.CURRENT,
            message="it has no condition Ready: kstatus takes such an object for current",
            field="status",
        )
    )


def _by_generation(generation: Any, observed: Any) -> Judgement | None:
    if generation is None or observed is None:
        return None
    field = "status.observedGeneration"
    # In a file, 2.0 is an integer too: the API server stores it as 2.
    whole = observed.is_integer() if isinstance(observed, float) else isinstance(observed, int)
    if not whole:
        msg = f"{field} is {observed!r}: kstatus refuses what is no integer"
        raise TypeError(msg)
    if observed == generation:
        return None
    message = f"the operator has seen generation {observed}, and the object's is {generation}"
    return Judgement(health=Health.IN_PROGRESS, message=message, field=field)


def _by_conditions(conditions: Sequence[Mapping[str, Any]]) -> Judgement | None:
    for rules in _RULES:
        for index, condition in enumerate(conditions):
            kind, holds, reason, message = map(condition.get, _PARTS)
            health = rules.get((kind, holds))
            if health is not None:
                return Judgement(
                    health=health,
                    message=f"{kind}={holds}, {reason}: {message}",
                    field=f"status.conditions[{index}]",
                )
    return None
