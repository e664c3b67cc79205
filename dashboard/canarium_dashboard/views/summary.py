"""What the list and the page of one ModelDeployment both say of it, in the same words."""

from canarium_api.base import ApiModel
from canarium_api.status import ModelDeploymentStatus, Phase
from canarium_dashboard.views import health
from canarium_dashboard.views.health import Health


class Summary(ApiModel):
    """A ModelDeployment in short."""

    namespace: str
    name: str
    health: Health
    health_words: str
    phase: Phase
    message: str
    stable: str | None = None
    canary: str | None = None
    weight: int | None = None
    """Percent of the traffic that the canary has; None: there is none."""


def summary_of(
    key: tuple[str, str], generation: int | None, status: ModelDeploymentStatus
) -> Summary:
    """Say it in short.

    Args:
        key: namespace and name.
        generation: of its spec.
        status: of it.
    """
    found = health.health_of(status, generation)
    return Summary(
        namespace=key[0],
        name=key[1],
        health=found,
        health_words=health.WORDS[found],
        phase=status.phase,
        message=_message(status, generation),
        stable=health.label_of(status.stable),
        canary=health.label_of(status.canary),
        weight=status.canary.weight if status.canary is not None else None,
    )


def _message(status: ModelDeploymentStatus, generation: int | None) -> str:
    """Give what the operator says, and that it is of an older spec where it is."""
    if status.observed_generation < 0:
        return status.message or "the operator has not looked at it yet: does it run?"
    if generation is not None and status.observed_generation != generation:
        return f"the operator has not seen the present spec yet; before: {status.message}"
    return status.message
