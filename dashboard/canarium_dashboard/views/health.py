"""How a ModelDeployment does, in one word: what kstatus, Flux and Argo CD read from it, and who has to act."""

from enum import StrEnum
from typing import Final

from canarium_api.conditions import ConditionType
from canarium_api.status import ModelDeploymentStatus, Phase, RevisionStatus


class Health(StrEnum):
    """In the order in which somebody should look."""

    DEGRADED = "degraded"
    """A revision has failed, nothing more happens until somebody acts, or no good revision serves."""
    WAITING = "waiting"
    """A rollout waits for a person, or is held."""
    PROGRESSING = "progressing"
    """Something is under way."""
    HEALTHY = "healthy"
    """What the spec asks for serves."""
    UNKNOWN = "unknown"
    """The operator has not looked at it yet."""


ORDER: Final = tuple(Health)
WORDS: Final = {
    Health.DEGRADED: "Needs attention",
    Health.WAITING: "Waiting",
    Health.PROGRESSING: "In progress",
    Health.HEALTHY: "Healthy",
    Health.UNKNOWN: "Not seen yet",
}


def health_of(status: ModelDeploymentStatus, generation: int | None) -> Health:
    """Tell how an object does.

    Args:
        status: of it.
        generation: of its spec; a status of an older one says nothing of the present spec.
    """
    if status.observed_generation < 0:
        return Health.UNKNOWN
    holds = {c.type: c.status for c in status.conditions}
    lost = (
        status.stable is not None
        and status.stable.served
        and holds.get(ConditionType.AVAILABLE) == "False"
    )
    if lost:
        return Health.DEGRADED
    if generation is not None and status.observed_generation != generation:
        return Health.PROGRESSING
    if holds.get(ConditionType.STALLED) == "True" or status.phase is Phase.ROLLING_BACK:
        return Health.DEGRADED
    if status.phase is Phase.PAUSED:
        return Health.WAITING
    if holds.get(ConditionType.READY) == "True":
        return Health.HEALTHY
    return Health.PROGRESSING


def label(version: str, revision: str) -> str:
    """Write `v7@9c1fab12`, as the operator does."""
    return f"{version if version.startswith('v') else 'v' + version}@{revision[:8]}"


def label_of(revision: RevisionStatus | None) -> str | None:
    """The same of a revision, if there is one."""
    return None if revision is None else label(revision.model_version, revision.revision)
