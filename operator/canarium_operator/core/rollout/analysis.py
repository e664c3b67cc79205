"""The gate: which queries to run, and what their answers say of the canary.

A check ends in one of six verdicts; only `Pass` lets a step end. A query that fails, returns nothing, or
rests on too few requests is a verdict of its own, never a pass and never a fault of the canary.

Evidence is counted from the moment that the route was seen to carry the step's weight (`evidence_since`):
requests from before, at another weight or of another revision, do not count.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from canarium_api.analysis import AnalysisSpec, MetricSpec
from canarium_api.status import Check, Verdict
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.rollout import promql

BEYOND_QUANTILE: Final = 10
"""Requests beyond a quantile that make it worth looking at."""
MIN_WINDOW: Final = timedelta(seconds=5)
MAX_WINDOW: Final = timedelta(hours=6)
"""Longer steps are judged by their latest six hours: a longer range costs Prometheus much and dilutes what is new."""
BASELINE_WINDOW: Final = timedelta(minutes=10)
"""How far back stable is looked at where it gets no traffic any more."""
DEFAULT_LATENCY_TOLERANCE: Final = 0.010
"""Seconds. Quantiles of a histogram are no finer than its buckets, so a ratio alone would fail 1 ms against 2 ms."""


@dataclass(frozen=True, kw_only=True)
class QueryFailure:
    """A query that could not be answered."""

    message: str


Reading = float | QueryFailure | None
"""A number, a failure, or None for no data."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Whom the gate compares, and since when."""

    ref: ObjectRef
    canary: str
    stable: str
    evidence_since: datetime
    stable_has_traffic: bool


@dataclass(frozen=True)
class Query:
    """An instant query."""

    promql: str
    at: datetime


@dataclass(frozen=True, kw_only=True)
class Queries:
    """The queries of one check."""

    value: Query
    samples: Query
    baseline: Query | None
    """None: the check compares nothing."""
    baseline_samples: Query | None


def with_defaults(metric: MetricSpec) -> MetricSpec:
    """Give a built-in check its limits where the user set none.

    error-rate: at most 5 %, and at most 1 percentage point above stable. invalid-rate: at most 5 percentage
    points above stable. latency: at most 1.5 times stable.
    """
    if metric.query is not None or _has_limit(metric):
        return metric
    if promql.LATENCY.match(metric.name):
        return metric.model_copy(update={"max_ratio": 1.5})
    if metric.name == promql.INVALID_RATE:
        return metric.model_copy(update={"max_increase": 0.05})
    return metric.model_copy(update={"max": 0.05, "max_increase": 0.01})


def _has_limit(metric: MetricSpec) -> bool:
    limits = (metric.max, metric.min, metric.max_increase, metric.max_ratio)
    return any(limit is not None for limit in limits)


def is_relative(metric: MetricSpec) -> bool:
    """Tell whether a check compares the canary with the stable revision."""
    return metric.max_increase is not None or metric.max_ratio is not None


def window(subject: Subject, now: datetime) -> timedelta:
    """Time that the queries look back: since the evidence began, in whole seconds, within bounds."""
    elapsed = timedelta(seconds=math.ceil((now - subject.evidence_since).total_seconds()))
    return min(max(elapsed, MIN_WINDOW), MAX_WINDOW)


def make_queries(metric: MetricSpec, subject: Subject, now: datetime) -> Queries:
    """Build the queries of one check.

    Stable and canary are compared over the same time; at 100 %, where stable gets nothing, the canary is
    compared with what stable did in the minutes before it lost its traffic.
    """
    metric = with_defaults(metric)
    look_back = window(subject, now)
    value = Query(promql.value_query(metric, subject.ref, subject.canary, look_back), now)
    samples = Query(promql.samples_query(metric, subject.ref, subject.canary, look_back), now)
    if not is_relative(metric):
        return Queries(value=value, samples=samples, baseline=None, baseline_samples=None)
    at = now
    if not subject.stable_has_traffic:
        look_back, at = BASELINE_WINDOW, subject.evidence_since
    return Queries(
        value=value,
        samples=samples,
        baseline=Query(promql.value_query(metric, subject.ref, subject.stable, look_back), at),
        baseline_samples=Query(
            promql.samples_query(metric, subject.ref, subject.stable, look_back), at
        ),
    )


def is_due(
    check: Check | None, spec: AnalysisSpec, now: datetime, gate_at: datetime | None
) -> bool:
    """Tell whether a check must be measured now: never measured, an interval ago, or not since the gate opened.

    Args:
        check: its latest result.
        spec: for the interval.
        now: the present.
        gate_at: when the step's pause ends, so that the decision rests on a fresh measurement; None: not in a step.
    """
    if check is None or check.measured_at is None:
        return True
    if gate_at is not None and check.measured_at < gate_at <= now:
        return True
    return now >= check.measured_at + spec.interval


def is_current(check: Check, metric: MetricSpec, spec: AnalysisSpec, subject: Subject) -> bool:
    """Tell whether a result is of the query, limits and samples that are asked for now."""
    if check.measured_at is None:
        return True
    asked = (
        make_queries(metric, subject, check.measured_at).value.promql,
        describe_limits(metric),
        _needed(metric, spec),
    )
    return (check.query, check.limit, check.needed) == asked


def _needed(metric: MetricSpec, spec: AnalysisSpec) -> int:
    """Give the requests that a check needs.

    A quantile needs ten requests beyond it to say anything: p95 at least 200, p99 at least 1000, unless the
    user says otherwise.
    """
    if metric.min_samples is not None:
        return metric.min_samples
    if (latency := promql.LATENCY.match(metric.name)) is not None and spec.min_samples > 0:
        return max(spec.min_samples, BEYOND_QUANTILE * 100 // (100 - int(latency[1])))
    return spec.min_samples


def assess(
    metric: MetricSpec,
    spec: AnalysisSpec,
    subject: Subject,
    readings: Mapping[Query, Reading],
    previous: Check | None,
    now: datetime,
) -> Check:
    """Judge one check by the answers to its queries.

    Args:
        metric: the check.
        spec: for the defaults of the analysis.
        subject: whom it compares.
        readings: answers by query.
        previous: its latest result, for its count of failures.
        now: the present.
    """
    metric = with_defaults(metric)
    queries = make_queries(metric, subject, now)
    needed = _needed(metric, spec)
    failures = previous.failures if previous is not None else 0
    draft = Check(
        name=metric.name,
        verdict=Verdict.PENDING,
        limit=describe_limits(metric),
        needed=needed,
        failures=failures,
        query=queries.value.promql,
        measured_at=now,
    )
    for query in (queries.samples, queries.value, queries.baseline_samples, queries.baseline):
        failure = readings.get(query) if query is not None else None
        if isinstance(failure, QueryFailure):
            return _with(draft, Verdict.ERROR, f"Prometheus: {failure.message}")
    samples = _number(readings, queries.samples)
    draft = draft.model_copy(
        update={"samples": math.floor(samples) if samples is not None else None}
    )
    if needed > 0:
        if samples is None:
            return _with(
                draft, Verdict.NO_DATA, "no series of the canary's requests in Prometheus yet"
            )
        if samples < needed:
            return _with(
                draft,
                Verdict.TOO_FEW_SAMPLES,
                f"canary answered {math.floor(samples)} of {needed} requests",
            )
    value = _number(readings, queries.value)
    if value is None:
        return _with(draft, Verdict.NO_DATA, "the query returned no data for the canary")
    draft = draft.model_copy(update={"value": value})
    if queries.baseline is not None and queries.baseline_samples is not None:
        stable_samples = _number(readings, queries.baseline_samples)
        if needed > 0 and (stable_samples is None or stable_samples < needed):
            count = math.floor(stable_samples or 0)
            return _with(
                draft, Verdict.TOO_FEW_SAMPLES, f"stable answered {count} of {needed} requests"
            )
        draft = draft.model_copy(update={"baseline": _number(readings, queries.baseline)})
    if is_relative(metric) and draft.baseline is None:
        return _with(draft, Verdict.NO_DATA, "no value of the stable revision to compare with")
    broken = _broken_limits(metric, value, draft.baseline)
    if broken:
        failed = draft.model_copy(update={"failures": failures + 1})
        return _with(failed, Verdict.FAIL, "; ".join(broken))
    return _with(draft, Verdict.PASS, f"{format_value(metric.name, value)} is within limits")


def _with(check: Check, verdict: Verdict, message: str) -> Check:
    return check.model_copy(update={"verdict": verdict, "message": message[:500]})


def _number(readings: Mapping[Query, Reading], query: Query) -> float | None:
    reading = readings.get(query)
    return float(reading) if isinstance(reading, (int, float)) and math.isfinite(reading) else None


def _broken_limits(metric: MetricSpec, value: float, baseline: float | None) -> list[str]:
    """Name the limits that a value breaks, each as a comparison."""
    shown = format_value(metric.name, value)
    broken = []
    if metric.max is not None and value > metric.max:
        broken.append(f"{shown} is above max {format_value(metric.name, metric.max)}")
    if metric.min is not None and value < metric.min:
        broken.append(f"{shown} is below min {format_value(metric.name, metric.min)}")
    if baseline is None:
        return broken
    stable = format_value(metric.name, baseline)
    if metric.max_increase is not None and value - baseline > metric.max_increase:
        limit = format_value(metric.name, metric.max_increase)
        broken.append(f"{shown} is more than {limit} above stable's {stable}")
    if metric.max_ratio is not None and value > baseline * metric.max_ratio:
        default = DEFAULT_LATENCY_TOLERANCE if promql.LATENCY.match(metric.name) else 0.0
        tolerance = default if metric.tolerance is None else metric.tolerance
        if value - baseline > tolerance:
            broken.append(f"{shown} is more than {metric.max_ratio:g} times stable's {stable}")
    return broken


def describe_limits(metric: MetricSpec) -> str:
    """Write the limits of a check in words: `max 5%, at most 1% above stable`."""
    metric = with_defaults(metric)
    parts = []
    if metric.max is not None:
        parts.append(f"max {format_value(metric.name, metric.max)}")
    if metric.min is not None:
        parts.append(f"min {format_value(metric.name, metric.min)}")
    if metric.max_increase is not None:
        parts.append(f"at most {format_value(metric.name, metric.max_increase)} above stable")
    if metric.max_ratio is not None:
        parts.append(f"at most {metric.max_ratio:g} times stable")
    return ", ".join(parts)


def format_value(name: str, value: float) -> str:
    """Write a value in the unit of its check: `0.8%`, `38.2ms`, or the plain number."""
    if promql.LATENCY.match(name):
        return f"{value:.3g}s" if value >= 1 else f"{value * 1000:.3g}ms"
    if name in ("error-rate", promql.INVALID_RATE):
        return f"{value * 100:.3g}%"
    return f"{value:.4g}"
