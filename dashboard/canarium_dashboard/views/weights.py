"""Weights over time, as a chart: what was watched, what Events and the status tell, and what is not known."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pydantic import Field

from canarium_api.base import ApiModel
from canarium_api.status import HistoryEntry, ModelDeploymentStatus
from canarium_dashboard.history import Source, WeightPoint
from canarium_dashboard.told import joined, weights_told

_ENDED: Final = ("Promoted", "RolledBack", "Superseded")


@dataclass(frozen=True, kw_only=True)
class Span:
    """One rollout."""

    revision: str
    version: str
    start: datetime
    end: datetime | None
    """None: it is under way."""
    outcome: str = ""


class WeightStep(ApiModel):
    """From `at` on, this weight."""

    at: datetime
    weight: int
    source: Source


class TrafficPoint(ApiModel):
    """What share of the requests the canary answered, in the time before `at`."""

    at: datetime
    share: float
    """0 to 1."""
    per_second: float
    """Requests of both revisions."""


class WeightChart(ApiModel):
    """The chart."""

    start: datetime
    end: datetime | None = None
    """None: it is under way, and the chart ends with the present."""
    known_from: datetime | None = None
    """From when on the weights are known; None: never."""
    points: list[WeightStep] = Field(default=[])
    planned: list[int] = Field(default=[])
    traffic: list[TrafficPoint] = Field(default=[])
    alternative: str = ""
    """What it shows, in a sentence."""


def span_of(status: ModelDeploymentStatus) -> Span | None:
    """Give the rollout under way, else the latest one that has ended."""
    if status.canary is not None and status.rollout is not None:
        canary = status.canary
        return Span(
            revision=canary.revision,
            version=canary.model_version,
            start=status.rollout.started_at,
            end=None,
        )
    last = next((e for e in reversed(status.history) if _is_rollout(e)), None)
    if last is None or last.started_at is None:
        return None
    return Span(
        revision=last.revision,
        version=last.model_version,
        start=last.started_at,
        end=last.finished_at,
        outcome=last.outcome,
    )


def _is_rollout(entry: HistoryEntry) -> bool:
    return entry.outcome in _ENDED and entry.started_at is not None


def chart_of(
    span: Span,
    watched: Sequence[WeightPoint],
    events: Iterable[dict[str, Any]],
    planned: Sequence[int],
    traffic: Sequence[TrafficPoint],
    now: datetime,
) -> WeightChart:
    """Make the chart of a rollout.

    Args:
        span: the rollout.
        watched: weights of its canary that were seen.
        events: of the ModelDeployment.
        planned: weights of its steps.
        traffic: as Prometheus counted it.
        now: the present.
    """
    end = span.end or now
    seen = [p for p in watched if p.at >= span.start.replace(microsecond=0)]
    points = joined(seen, weights_told(events, span.revision, span.start, end))
    points = [p for p in points if p.at <= end]
    if points and span.end is not None and span.outcome in ("Promoted", "RolledBack"):
        # How it ended is in the history, whoever watched.
        last = 100 if span.outcome == "Promoted" else 0
        if points[-1].weight != last:
            point = WeightPoint(at=end, revision=span.revision, weight=last, source=Source.STATUS)
            points.append(point)
    known_from = points[0].at if points else None
    steps = [WeightStep(at=p.at, weight=p.weight, source=p.source) for p in points]
    return WeightChart(
        start=span.start,
        end=span.end,
        known_from=known_from,
        points=steps,
        planned=sorted(set(planned)),
        traffic=list(traffic),
        alternative=_alternative(span, steps),
    )


def _alternative(span: Span, steps: Sequence[WeightStep]) -> str:
    if not steps:
        return f"The weights of {span.version} were not watched"
    told = ", ".join(f"{step.weight}% from {step.at:%H:%M:%S}" for step in steps[-8:])
    return f"Weight of {span.version}: {told} UTC"
