"""What the gate asks Prometheus, when, and what an answer is.

Evidence is counted from the moment that the route was seen to carry the step's weight (`evidence_since`): requests
from before, at another weight or of another revision, do not count.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from canarium_api.analysis import AnalysisSpec, MetricSpec
from canarium_api.status import Check
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.rollout import promql

MIN_WINDOW: Final = timedelta(seconds=5)
MAX_WINDOW: Final = timedelta(hours=6, minutes=30)
"""Longer ranges cost Prometheus much. No whole or half day is a multiple of it, so that pauses of days do not end just
when a part of the step begins, before the canary has answered anything in it."""
BASELINE_WINDOW: Final = timedelta(minutes=10)
"""How far back stable is looked at where it gets no traffic any more."""


class QueryKind(StrEnum):
    """What the series of an answer are."""

    COUNTS = "counts"
    """Requests by `revision` and `status`."""
    BUCKETS = "buckets"
    """Requests by `revision` and `le`, cumulative over `le`."""
    NUMBER = "number"
    """One number: a user's query."""


@dataclass(frozen=True, kw_only=True)
class Query:
    """An instant query, and the same in parts, for sources of metrics that do not speak PromQL."""

    promql: str
    at: datetime
    kind: QueryKind
    revisions: tuple[str, ...]
    look_back: timedelta
    metric: str = ""
    """NUMBER: the check that it is for."""
    part: str = ""
    """NUMBER: `query`, or which count or sum of the check: events, trials, sum, sum_of_squares, count."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """One series of an answer."""

    labels: Mapping[str, str] = field(default_factory=dict)
    value: float


@dataclass(frozen=True, kw_only=True)
class QueryFailure:
    """A query that could not be answered."""

    message: str


Vector = tuple[Series, ...]
Reading = Vector | QueryFailure
"""An answer; an empty vector means that there is no data."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Whom the gate compares, and since when."""

    ref: ObjectRef
    canary: str
    stable: str
    evidence_since: datetime
    stable_has_traffic: bool


@dataclass(frozen=True, kw_only=True)
class Side:
    """The queries about one revision, by part: `counts`, `buckets`, or the parts of a user's check."""

    revision: str
    parts: Mapping[str, Query]


def window(metric: MetricSpec, subject: Subject, now: datetime) -> timedelta:
    """Time that the queries of a check look back: since its evidence began, in whole seconds, within bounds."""
    begun = subject.evidence_since + part_of_step(metric, subject, now) * MAX_WINDOW
    elapsed = timedelta(seconds=math.ceil((now - begun).total_seconds()))
    return min(max(elapsed, MIN_WINDOW), MAX_WINDOW)


def part_of_step(metric: MetricSpec, subject: Subject, now: datetime) -> int:
    """Number the part of a long step that an instant lies in, from 0; the end of a part belongs to it.

    A sequential test is told its requests part by part, and carries the evidence on: over a window that slides, each
    look would be a new test, which in a step of a week takes back one good canary in five. Fixed limits do slide:
    their question is how the canary does now. So does a test against stable's past, which cannot be told twice.
    """
    if not is_sequential(metric) or not subject.stable_has_traffic:
        return 0
    return max(0, math.ceil((now - subject.evidence_since) / MAX_WINDOW) - 1)


def is_sequential(metric: MetricSpec) -> bool:
    """Tell whether a check compares by a sequential test: it needs counts, and no fixed limit instead."""
    if metric.query is not None:
        return False
    return metric.min_effect is not None or not has_limit(metric)


def has_limit(metric: MetricSpec) -> bool:
    """Tell whether a check has a fixed limit."""
    limits = (metric.max, metric.min, metric.max_increase, metric.max_ratio)
    return any(limit is not None for limit in limits)


def sides(metric: MetricSpec, subject: Subject, now: datetime) -> tuple[Side, Side]:
    """Build the queries of one check about canary and stable.

    Both are looked at over the same time, and where one query can bring both, it does. At 100 %, where stable gets
    nothing, the canary is compared with what stable did in the minutes before it lost its traffic.
    """
    look_back = window(metric, subject, now)
    both = (subject.canary, subject.stable)
    if subject.stable_has_traffic:
        return (
            _side(metric, subject, subject.canary, both, look_back, now),
            _side(metric, subject, subject.stable, both, look_back, now),
        )
    return (
        _side(metric, subject, subject.canary, both, look_back, now),
        _side(
            metric,
            subject,
            subject.stable,
            (subject.stable,),
            BASELINE_WINDOW,
            subject.evidence_since,
        ),
    )


def _side(
    metric: MetricSpec,
    subject: Subject,
    revision: str,
    revisions: tuple[str, ...],
    look_back: timedelta,
    at: datetime,
) -> Side:
    counts = Query(
        promql=promql.counts_query(subject.ref, revisions, look_back),
        at=at,
        kind=QueryKind.COUNTS,
        revisions=revisions,
        look_back=look_back,
    )
    if promql.LATENCY.match(metric.name) and not _is_custom(metric):
        buckets = Query(
            promql=promql.buckets_query(subject.ref, revisions, look_back),
            at=at,
            kind=QueryKind.BUCKETS,
            revisions=revisions,
            look_back=look_back,
        )
        return Side(revision=revision, parts={"buckets": buckets})
    asked = {
        part: Query(
            promql=promql.fill(template, subject.ref, revision, look_back),
            at=at,
            kind=QueryKind.NUMBER,
            revisions=(revision,),
            look_back=look_back,
            metric=metric.name,
            part=part,
        )
        for part, template in templates(metric).items()
    }
    if metric.proportion is None and metric.mean is None:
        asked["counts"] = counts
    return Side(revision=revision, parts=asked)


def templates(metric: MetricSpec) -> dict[str, str]:
    """Give the PromQL that a user wrote for a check, by part."""
    if metric.query is not None:
        return {"query": metric.query}
    if metric.proportion is not None:
        return {"events": metric.proportion.events, "trials": metric.proportion.trials}
    if metric.mean is not None:
        mean = metric.mean
        return {"sum": mean.sum, "sum_of_squares": mean.sum_of_squares, "count": mean.count}
    return {}


def _is_custom(metric: MetricSpec) -> bool:
    return bool(templates(metric))


def is_due(
    check: Check | None,
    metric: MetricSpec,
    spec: AnalysisSpec,
    *,
    now: datetime,
    since: datetime,
    gate_at: datetime | None,
) -> bool:
    """Tell whether a check must be measured now: never measured, an interval ago, or not since the gate opened.

    Args:
        check: its latest result.
        metric: for its initial delay.
        spec: for the interval.
        now: the present.
        since: when the evidence of the step began.
        gate_at: when the step's pause ends, so that the decision rests on a fresh measurement; None: not in a step.
    """
    if now < since + metric.initial_delay:
        return False
    if not spec.background and (gate_at is None or now < gate_at):
        return False
    if check is None or check.measured_at is None:
        return True
    if gate_at is not None and check.measured_at < gate_at <= now:
        return True
    return now >= check.measured_at + spec.interval
