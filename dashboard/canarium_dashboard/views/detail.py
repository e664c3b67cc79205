"""The page of one ModelDeployment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import Field, ValidationError

from canarium_api.base import ApiModel
from canarium_api.experiment import GoalStatus
from canarium_api.status import Check, GateStatus, ModelDeploymentStatus, Phase
from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_dashboard.history import CheckPoint, WeightPoint, point_of
from canarium_dashboard.told import time_of
from canarium_dashboard.views import checks, health, offers, revisions, steps, weights
from canarium_dashboard.views.checks import CheckView
from canarium_dashboard.views.offers import Offer
from canarium_dashboard.views.revisions import Deed, Ending, RevisionView
from canarium_dashboard.views.steps import StepView
from canarium_dashboard.views.summary import Summary, summary_of
from canarium_dashboard.views.weights import TrafficPoint, WeightChart


class EventView(ApiModel):
    """An Event of Kubernetes."""

    at: datetime | None = None
    reason: str
    message: str
    warning: bool = False
    count: int = 1


class Failure(ApiModel):
    """Why the revision of the spec does not serve."""

    label: str
    reason: str
    message: str
    at: datetime
    place: str = ""
    """`step 2, at 10%`."""
    then: str = ""
    """What serves now, and what somebody can do."""


class Goal(ApiModel):
    """A goal of an A/B test."""

    name: str
    verdict: str
    message: str
    evidence: str = ""


class Detail(Summary):
    """The page."""

    now: datetime
    next_check_at: datetime | None = None
    may_act: bool = False
    why_not: str = ""
    """Why no buttons are shown."""
    offers: list[Offer] = Field(default=[])
    failure: Failure | None = None
    steps: list[StepView] = Field(default=[])
    chart: WeightChart | None = None
    checks: list[CheckView] = Field(default=[])
    checks_words: str = ""
    """Of which moment they are, where it is not the present."""
    gates: list[GateStatus] = Field(default=[])
    experiment: str = ""
    goals: list[Goal] = Field(default=[])
    revisions: list[RevisionView] = Field(default=[])
    endings: list[Ending] = Field(default=[])
    deeds: list[Deed] = Field(default=[])
    events: list[EventView] = Field(default=[])
    notes: list[str] = Field(default=[])
    """What could not be read, and why."""
    problem: str | None = None
    """Why what is shown may be old."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """All that a page of one ModelDeployment is made from."""

    namespace: str
    name: str
    generation: int | None
    spec: Mapping[str, Any]
    status: ModelDeploymentStatus
    now: datetime
    weights: Sequence[WeightPoint] = ()
    """Of the canary of `weights.span_of(status)`."""
    checks: Mapping[str, Sequence[CheckPoint]] = field(default_factory=dict)
    """Of the same, by check."""
    events: Sequence[Mapping[str, Any]] = ()
    traffic: Sequence[TrafficPoint] = ()
    may_act: bool = False
    why_not: str = ""
    notes: Sequence[str] = ()
    problem: str | None = None


def detail_of(known: Known) -> Detail:
    """Make the page."""
    status, spec = known.status, parsed(known.spec)
    row = _steps(status, spec)
    failed = _failed(status)
    cards, words = _checks(known, spec, failed is not None)
    goals, experiment = _goals(status)
    return Detail(
        **dict(summary_of((known.namespace, known.name), known.generation, status)),
        now=known.now,
        next_check_at=status.rollout.next_check_at if status.rollout is not None else None,
        may_act=known.may_act,
        why_not=known.why_not,
        offers=offers.offers_of(status, spec, row),
        failure=failed,
        steps=row,
        chart=_chart(known, row),
        checks=cards,
        checks_words=words,
        gates=status.rollout.gates if status.rollout is not None else [],
        experiment=experiment,
        goals=goals,
        revisions=revisions.revisions_of(status, spec),
        endings=revisions.endings_of(status),
        deeds=revisions.deeds_of(status),
        events=_events(known.events),
        notes=list(known.notes),
        problem=known.problem,
    )


def parsed(spec: Mapping[str, Any]) -> ModelDeploymentSpec | None:
    """Read a spec; None where this version cannot."""
    try:
        return ModelDeploymentSpec.from_manifest(spec)
    except ValidationError:
        return None


def _steps(status: ModelDeploymentStatus, spec: ModelDeploymentSpec | None) -> list[StepView]:
    if status.rollout is not None and status.canary is not None:
        return steps.steps_under_way(status.rollout, spec, status.canary.weight)
    if status.phase in (Phase.ABORTED, Phase.ROLLING_BACK) and spec is not None:
        return steps.steps_of_failed(status, spec)
    return []


def _failed(status: ModelDeploymentStatus) -> Failure | None:
    if status.phase not in (Phase.ABORTED, Phase.ROLLING_BACK) or not status.failed_revisions:
        return None
    last = status.failed_revisions[-1]
    place = f"step {last.step}" if last.step is not None else ""
    if last.step is not None and last.weight is not None:
        place += f", at {last.weight}%"
    return Failure(
        label=health.label(last.model_version, last.revision),
        reason=last.reason,
        message=last.message,
        at=last.failed_at,
        place=place,
        then=status.message.partition(last.message)[2].lstrip(".; "),
    )


def _checks(
    known: Known, spec: ModelDeploymentSpec | None, failed: bool
) -> tuple[list[CheckView], str]:
    status = known.status
    metrics = {m.name: m for m in spec.rollout.analysis.metrics} if spec is not None else {}
    if status.rollout is not None:
        found = [
            checks.view_of(c, metrics.get(c.name), known.checks.get(c.name, ()))
            for c in status.rollout.checks
        ]
        return found, ""
    if not failed:
        return [], ""
    last = status.failed_revisions[-1]
    cards = [
        checks.view_of(c, metrics.get(c.name), _with_last(c, last.revision, last.step or 0, known))
        for c in last.checks
    ]
    words = f"As they stood when it was taken back, at {last.failed_at:%Y-%m-%d %H:%M:%S} UTC."
    return cards, words if cards else ""


def _with_last(check: Check, revision: str, step: int, known: Known) -> list[CheckPoint]:
    """Give what was watched of a check, and the measurement that it ended with."""
    points = list(known.checks.get(check.name, ()))
    if check.measured_at is not None and (not points or points[-1].at < check.measured_at):
        points.append(point_of(revision, step, check, check.measured_at))
    return points


def _chart(known: Known, row: Sequence[StepView]) -> WeightChart | None:
    span = weights.span_of(known.status)
    if span is None:
        return None
    planned = [step.weight for step in row]
    events = [dict(event) for event in known.events]
    return weights.chart_of(span, known.weights, events, planned, known.traffic, known.now)


def _goals(status: ModelDeploymentStatus) -> tuple[list[Goal], str]:
    test = status.rollout.experiment if status.rollout is not None else None
    if test is None:
        return [], ""
    return [_goal(goal) for goal in test.goals], test.message or test.assignment


def _goal(goal: GoalStatus) -> Goal:
    needed = f" of {goal.needed}" if goal.needed is not None else ""
    return Goal(
        name=goal.name,
        verdict=goal.verdict,
        message=goal.message,
        evidence=f"{goal.samples}{needed} of B, {goal.baseline_samples} of A",
    )


def _events(events: Sequence[Mapping[str, Any]]) -> list[EventView]:
    """List Events, latest first."""
    found = [
        EventView(
            at=time_of(dict(event)),
            reason=str(event.get("reason", "")),
            message=str(event.get("message", "")),
            warning=event.get("type") == "Warning",
            count=int(event.get("count") or 1),
        )
        for event in events
    ]
    # Names of the operator's Events end with the number of the transition, which orders those of one second.
    order = sorted(
        range(len(found)),
        key=lambda i: (
            found[i].at.timestamp() if found[i].at else 0.0,  # type: ignore[union-attr]
            str(events[i].get("metadata", {}).get("name", "")),
        ),
        reverse=True,
    )
    return [found[i] for i in order]
