"""From the answers of Prometheus to what a check is judged by: counts, buckets, sums, or a user's number.

A query that failed, and one that returned nothing, stay what they are: neither is ever a number.
"""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from canarium_api import metric_names
from canarium_api.analysis import MetricSpec
from canarium_api.metric_names import PredictionStatus
from canarium_operator.core.rollout import promql
from canarium_operator.core.rollout.queries import Query, QueryFailure, Reading, Side, Vector
from canarium_operator.core.statistics.latency import Buckets, quantile

_MOST: Final = 1e15
"""Requests; more than any counter holds exactly."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """How often something happened. Counts may be broken numbers: `increase` extrapolates."""

    events: float
    trials: float

    @property
    def samples(self) -> float:
        """Number of trials."""
        return self.trials

    @property
    def value(self) -> float | None:
        """The share; None without trials."""
        return self.events / self.trials if self.trials > 0 else None


@dataclass(frozen=True, kw_only=True)
class Latencies:
    """How long requests took: bounds in seconds with cumulative counts, the last one infinite."""

    buckets: Buckets
    q: float

    @property
    def samples(self) -> float:
        """Number of requests."""
        return self.buckets[-1][1] if self.buckets else 0.0

    @property
    def value(self) -> float | None:
        """The quantile in seconds."""
        return quantile(self.buckets, self.q)


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Sums of a mean."""

    total: float
    squares: float
    count: float

    @property
    def samples(self) -> float:
        """Number of values."""
        return self.count

    @property
    def value(self) -> float | None:
        """The mean."""
        return self.total / self.count if self.count > 0 else None


@dataclass(frozen=True, kw_only=True)
class Number:
    """A user's number, and the requests that were answered meanwhile."""

    value: float | None
    samples: float | None
    """None: there is no series of its requests."""


Measured = Share | Latencies | Moments | Number
"""Each has `value` and `samples`."""


def measure(
    metric: MetricSpec, side: Side, readings: Mapping[Query, Reading]
) -> Measured | str | None:
    """Read one side of a check.

    Returns:
        What was measured; a sentence where a query failed; None where there is no data of the revision at all.
    """
    vectors: dict[str, Vector] = {}
    for part, query in side.parts.items():
        reading = readings.get(query, ())
        if isinstance(reading, QueryFailure):
            return f"Prometheus: {reading.message}"
        vectors[part] = reading
    try:
        return _read(metric, side.revision, vectors)
    except ValueError as error:
        return str(error)


def _read(metric: MetricSpec, revision: str, vectors: Mapping[str, Vector]) -> Measured | None:
    counts = _by_status(vectors.get("counts", ()), revision)
    answered = sum(n for status, n in counts.items() if status != PredictionStatus.INVALID)
    if metric.query is not None:
        return Number(value=one_number(vectors["query"]), samples=answered if counts else None)
    if not any(vectors.values()):
        return None
    if metric.proportion is not None:
        return Share(events=_count(vectors["events"]), trials=_count(vectors["trials"]))
    if metric.mean is not None:
        return Moments(
            total=one_number(vectors["sum"]) or 0.0,
            squares=_count(vectors["sum_of_squares"]),
            count=_count(vectors["count"]),
        )
    latency = promql.LATENCY.match(metric.name)
    if latency is not None:
        buckets = _buckets(vectors["buckets"], revision)
        return Latencies(buckets=buckets, q=int(latency[1]) / 100) if buckets else None
    if not counts:
        return None
    if metric.name == promql.INVALID_RATE:
        invalid = counts.get(PredictionStatus.INVALID, 0.0)
        return Share(events=invalid, trials=answered + invalid)
    failed = sum(counts.get(status, 0.0) for status in metric_names.FAILED_STATUSES)
    return Share(events=failed, trials=answered)


def _by_status(vector: Vector, revision: str) -> dict[str, float]:
    """Add the requests of a revision up by how they ended."""
    counts: dict[str, float] = defaultdict(float)
    for series in vector:
        if series.labels.get(metric_names.REVISION_LABEL) == revision:
            counts[series.labels.get(metric_names.STATUS_LABEL, "")] += _finite(series.value)
    return counts


def _buckets(vector: Vector, revision: str) -> Buckets:
    """Order the buckets of a revision; counts that fall a little with the bound, as extrapolated ones may, are lifted.

    Raises:
        ValueError: there are buckets, but none for +Inf.
    """
    found = sorted(
        (float(series.labels.get("le", "nan")), _finite(series.value))
        for series in vector
        if series.labels.get(metric_names.REVISION_LABEL) == revision
    )
    if found and not math.isinf(found[-1][0]):
        msg = "the histogram of latencies has no bucket for +Inf: is it cut off by a relabelling rule?"
        raise ValueError(msg)
    lifted, highest = [], 0.0
    for bound, count in found:
        highest = max(highest, count)
        lifted.append((bound, highest))
    return tuple(lifted)


def _finite(value: float) -> float:
    """Read a count of `increase`, which may be a little below 0; NaN is none.

    Raises:
        ValueError: a count that nobody can have counted.
    """
    if abs(value) > _MOST:
        msg = f"a count is {value:+}: the series of the revision are damaged"
        raise ValueError(msg)
    return value if value > 0 else 0.0


def one_number(vector: Vector) -> float | None:
    """Read the answer of a query that must give one number; None where it gave nothing, or NaN (0 / 0).

    Raises:
        ValueError: several series, or an infinite value: it comes from a division by zero and compares as "above" or
            "below" whatever was meant.
    """
    if not vector:
        return None
    if len(vector) > 1:
        msg = (
            f"{len(vector)} series where one number is needed: wrap the query in sum(...), avg(...) "
            "or max(...)"
        )
        raise ValueError(msg)
    value = vector[0].value
    if math.isinf(value):
        msg = f"the query gives {value:+}: it divides by zero; guard the divisor with (... > 0)"
        raise ValueError(msg)
    return None if math.isnan(value) else value


def _count(vector: Vector) -> float:
    """Read a count; nothing is zero.

    Raises:
        ValueError: a negative count, or what `one_number` refuses.
    """
    value = _finite(one_number(vector) or 0.0)
    if vector and vector[0].value < 0:
        msg = f"the query gives {value:g} where a count is needed: use sum(increase(...))"
        raise ValueError(msg)
    return value
