"""The steps of a rollout as a row: which have passed, which one is under way and until when, which are to come."""

from datetime import datetime
from enum import StrEnum
from typing import Final

from canarium_api.base import ApiModel
from canarium_api.duration import approximate_duration
from canarium_api.status import ModelDeploymentStatus, RolloutStatus
from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_operator.core.rollout.strategy import Step, StepKind, steps_of, strategy_of


class State(StrEnum):
    """Of one step."""

    PASSED = "passed"
    CURRENT = "current"
    COMING = "coming"
    FAILED = "failed"
    SKIPPED = "skipped"
    """Never reached."""


class StepView(ApiModel):
    """One step."""

    number: int
    weight: int
    title: str
    """`10%`, `shadow`, `preview`, `A/B test`."""
    state: State
    words: str
    """What is to be known of it, in a few words."""
    until: datetime | None = None
    """Of the current one: when its pause is over."""
    since: datetime | None = None
    """Of the current one: when the route was seen to carry its weight."""
    approval: bool = False
    approved: bool = False


_TITLES: Final = {
    StepKind.SHADOW: "shadow",
    StepKind.PREVIEW: "preview",
    StepKind.MATCH: "A/B test",
    StepKind.STICKY: "A/B test",
}


def planned(spec: ModelDeploymentSpec | None, rollout: RolloutStatus | None) -> list[Step]:
    """Give the steps as planned: those of the status where a rollout is under way, with what the spec says of them."""
    asked: list[Step] = []
    if spec is not None and spec.rollout.fixed is None:
        strategy = rollout.strategy if rollout is not None else strategy_of(spec.rollout)
        asked = list(steps_of(spec.rollout, strategy))
    if rollout is None:
        return asked
    if [step.weight for step in asked] == rollout.weights:
        return asked
    return [Step(weight=weight, size=weight) for weight in rollout.weights]


def steps_under_way(
    rollout: RolloutStatus, spec: ModelDeploymentSpec | None, weight: int
) -> list[StepView]:
    """Make the row of a rollout under way.

    Args:
        rollout: as the status has it.
        spec: for pauses and approvals.
        weight: what the route gives the canary now.
    """
    found = []
    for number, step in enumerate(planned(spec, rollout), start=1):
        if number < rollout.step:
            found.append(_view(number, step, State.PASSED, "passed"))
        elif number > rollout.step:
            found.append(_view(number, step, State.COMING, _coming(step)))
        else:
            found.append(_current(number, step, rollout, weight))
    return found


def _current(number: int, step: Step, rollout: RolloutStatus, weight: int) -> StepView:
    since = rollout.step_started_at
    until = since + step.pause if since is not None and step.pause else None
    if rollout.paused_at is not None:
        words, until = "held", None
    elif since is None:
        words = "waits for pods" if weight == rollout.weight else "traffic is moving"
    else:
        words = f"at least {approximate_duration(step.pause)}" if step.pause else "under way"
    view = _view(number, step, State.CURRENT, words)
    approved = step.approval and rollout.approved_step >= number
    return view.model_copy(update={"until": until, "since": since, "approved": approved})


def steps_of_failed(status: ModelDeploymentStatus, spec: ModelDeploymentSpec) -> list[StepView]:
    """Make the row of the rollout that was taken back last; empty where the steps of then are not known any more."""
    failed = status.failed_revisions[-1] if status.failed_revisions else None
    steps = planned(spec, None)
    if failed is None or failed.step is None or not 0 < failed.step <= len(steps):
        return []
    if failed.weight is not None and steps[failed.step - 1].weight != failed.weight:
        return []
    states = {-1: (State.PASSED, "passed"), 0: (State.FAILED, "failed here")}
    found = []
    for number, step in enumerate(steps, start=1):
        side = (number > failed.step) - (number < failed.step)
        state, words = states.get(side, (State.SKIPPED, "not reached"))
        found.append(_view(number, step, state, words))
    return found


def _coming(step: Step) -> str:
    return f"at least {approximate_duration(step.pause)}" if step.pause else "no pause"


def _view(number: int, step: Step, state: State, words: str) -> StepView:
    return StepView(
        number=number,
        weight=step.weight,
        title=_TITLES.get(step.kind, f"{step.weight}%"),
        state=state,
        words=words,
        approval=step.approval,
    )
