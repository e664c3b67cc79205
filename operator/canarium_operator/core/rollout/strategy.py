"""Strategies as lists of steps: whatever `spec.rollout` names, the engine carries out the same kind of step.

A canary of weights is its steps; blue-green is a step without traffic and a switch; an A/B test is a step that its
result ends, and a switch; a shadow is a step before any of these. A strategy with something of its own to do adds a
field to `Step`, and the rule that reads it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from canarium_api.abtest import AbTestSpec
from canarium_api.analysis import MetricSpec
from canarium_api.rollout import DEFAULT_STEPS, BlueGreenSpec, CanaryStep, RolloutSpec
from canarium_api.shadow import SHADOW_CHECKS, ShadowSpec
from canarium_api.status import RolloutStatus
from canarium_operator.core.rollout.queries import templates


class Strategy(StrEnum):
    """What `status.rollout.strategy` says."""

    CANARY = "canary"
    BLUE_GREEN = "blueGreen"
    AB_TEST = "abTest"
    DIRECT = "direct"
    """To 100 % at once, without checks: back to a revision that was stable before (`rollbackWindow`), or promoted by
    a command."""


class StepKind(StrEnum):
    """How requests reach the canary in a step."""

    SPLIT = "split"
    """By weight."""
    SHADOW = "shadow"
    """By copies of requests, whose answers nobody gets."""
    PREVIEW = "preview"
    """By the preview header and Service alone."""
    MATCH = "match"
    """By a header or cookie of the request; all others go to stable. An A/B test."""
    STICKY = "sticky"
    """By a hash of the user's key, in a router. An A/B test."""


UNSEEN: Final = frozenset({StepKind.SHADOW, StepKind.PREVIEW})
"""Kinds of step in which no user gets an answer of the canary by chance."""
TESTED: Final = frozenset({StepKind.MATCH, StepKind.STICKY})
"""Kinds of step that end by the result of an A/B test."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a rollout."""

    weight: int
    """Percent of the traffic that the route splits off for the canary."""
    size: int
    """Percent of the pods that the stable revision needs, which the canary must have ready."""
    pause: timedelta = timedelta(0)
    approval: bool = False
    metrics: Sequence[str] | None = None
    """Names of the checks that gate it; None: all."""
    kind: StepKind = StepKind.SPLIT


_LAST: Final = Step(weight=100, size=100)
"""Added where the steps end below 100: promotion never moves traffic onto pods that have not carried it."""


def strategy_of(spec: RolloutSpec) -> Strategy:
    """Tell which strategy a spec names."""
    if spec.blue_green is not None:
        return Strategy.BLUE_GREEN
    if spec.ab_test is not None:
        return Strategy.AB_TEST
    return Strategy.CANARY


def steps_of(spec: RolloutSpec, strategy: str) -> tuple[Step, ...]:
    """Give the steps of a strategy; the last one has weight 100.

    Args:
        spec: what the user asked for.
        strategy: of the rollout under way, as its status says.
    """
    match strategy:
        case Strategy.DIRECT:
            return (Step(weight=100, size=100, metrics=()),)
        case Strategy.BLUE_GREEN if spec.blue_green is not None:
            steps = _blue_green(spec.blue_green)
        case Strategy.AB_TEST if spec.ab_test is not None:
            steps = _ab_test(spec, spec.ab_test)
        case _:
            steps = _canary(spec)
    return steps if spec.shadow is None else (_shadow(spec.shadow), *steps)


def _shadow(shadow: ShadowSpec) -> Step:
    return Step(
        weight=0,
        size=shadow.percent,
        pause=shadow.pause,
        approval=shadow.approval,
        metrics=shadow.metrics,
        kind=StepKind.SHADOW,
    )


def _canary(spec: RolloutSpec) -> tuple[Step, ...]:
    listed = spec.canary.steps if spec.canary is not None else DEFAULT_STEPS
    steps = tuple(map(_split, listed))
    return steps if steps[-1].weight == 100 else (*steps, _LAST)


def _split(step: CanaryStep) -> Step:
    return Step(
        weight=step.weight,
        size=step.weight,
        pause=step.pause,
        approval=step.approval,
        metrics=step.metrics,
    )


def _blue_green(spec: BlueGreenSpec) -> tuple[Step, ...]:
    before, after = spec.before_switch, spec.after_switch
    return (
        Step(
            weight=0,
            size=100,
            pause=before.pause,
            approval=before.approval,
            metrics=before.metrics if before.metrics is not None else (),
            kind=StepKind.PREVIEW,
        ),
        Step(
            weight=100,
            size=100,
            pause=after.pause,
            approval=after.approval,
            metrics=after.metrics,
        ),
    )


def _ab_test(spec: RolloutSpec, test: AbTestSpec) -> tuple[Step, ...]:
    """Give the test, and the switch to all the traffic that follows where B is promoted.

    The goals are judged by the test alone. What else is checked guards both steps, and built-in checks guard the
    switch even where they were goals: errors at 100 % are nobody's wish. A goal of the user's is not asked again: with
    the effects that tests look for, that would take weeks, and stable has no traffic any more to compare with.
    """
    guards = tuple(m.name for m in spec.analysis.metrics if m.name not in test.goals)
    built_in = tuple(m.name for m in spec.analysis.metrics if not templates(m))
    sticky = test.sticky is not None
    return (
        Step(
            weight=test.share if sticky else 0,
            size=test.share,
            pause=test.min_duration,
            metrics=guards,
            kind=StepKind.STICKY if sticky else StepKind.MATCH,
        ),
        Step(weight=100, size=100, metrics=tuple(dict.fromkeys((*guards, *built_in)))),
    )


def step_at(spec: RolloutSpec, rollout: RolloutStatus) -> Step:
    """Give the step that a rollout is in, as its status planned it.

    While the spec plans other steps than the status does (until the next pass takes them up, or while the spec is
    invalid), it is a plain split at the planned weight, which nothing can pass.
    """
    steps = steps_of(spec, rollout.strategy)
    weight = rollout.weights[rollout.step - 1]
    if [step.weight for step in steps] == rollout.weights:
        return steps[rollout.step - 1]
    return Step(weight=weight, size=max(weight, 1), approval=True)


def metrics_of(spec: RolloutSpec, step: Step) -> list[MetricSpec]:
    """Give the checks that gate a step. Those that compare a shadow's answers have nothing to say in any other."""
    return [
        metric
        for metric in spec.analysis.metrics
        if (step.metrics is None or metric.name in step.metrics)
        and (step.kind is StepKind.SHADOW or metric.name not in SHADOW_CHECKS)
    ]
