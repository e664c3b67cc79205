"""Random requests to two revisions, counted as Prometheus would count them."""

from bisect import bisect_right
from dataclasses import dataclass, field
from datetime import datetime
from statistics import NormalDist

import numpy as np

from canarium_api import metric_names
from canarium_api.metric_names import DURATION_BUCKETS, PredictionStatus
from canarium_operator.core.rollout.queries import Query, QueryKind, Series, Vector

BOUNDS = (*DURATION_BUCKETS, float("inf"))
_ERROR, _INVALID, _FIRST_BUCKET = 0, 1, 2
"""Columns of a count: failed requests, refused ones, then requests by latency bucket (not cumulative)."""


@dataclass(frozen=True, kw_only=True)
class Nature:
    """How a version answers, in truth."""

    error_rate: float = 0.005
    invalid_rate: float = 0.01
    median: float = 0.040
    """Seconds; latencies are log-normal."""
    sigma: float = 0.5
    """Standard deviation of the logarithm of a latency."""

    def chances(self) -> np.ndarray:
        """Chance of each latency bucket."""
        bounds = np.log(np.array(DURATION_BUCKETS) / self.median) / self.sigma
        below = np.concatenate(([0.0], [_normal(bound) for bound in bounds], [1.0]))
        return np.diff(below)


def _normal(z: float) -> float:
    return NormalDist().cdf(z)


@dataclass
class Stream:
    """Requests that one revision has answered: cumulative counts at instants."""

    nature: Nature
    random: np.random.Generator
    times: list[datetime] = field(default_factory=list)
    totals: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Work the chances out once."""
        self._chances = self.nature.chances()

    def flow(self, requests: int, now: datetime) -> None:
        """Answer so many requests until now."""
        counts = np.zeros(_FIRST_BUCKET + len(BOUNDS))
        counts[_ERROR] = self.random.binomial(requests, self.nature.error_rate)
        counts[_INVALID] = self.random.binomial(requests, self.nature.invalid_rate)
        counts[_FIRST_BUCKET:] = self.random.multinomial(requests, self._chances)
        before = self.totals[-1] if self.totals else 0.0
        self.times.append(now)
        self.totals.append(before + counts)

    def between(self, start: datetime, end: datetime) -> np.ndarray:
        """Count what was answered after start, until end."""
        return self._at(end) - self._at(start)

    def _at(self, when: datetime) -> np.ndarray:
        index = bisect_right(self.times, when)
        return self.totals[index - 1] if index else np.zeros(_FIRST_BUCKET + len(BOUNDS))

    @property
    def requests(self) -> int:
        """All requests so far, but those that were refused."""
        return int(self.totals[-1][_FIRST_BUCKET:].sum()) if self.totals else 0

    @property
    def failed(self) -> int:
        """Failed requests so far."""
        return int(self.totals[-1][_ERROR]) if self.totals else 0


def answer(query: Query, streams: dict[str, Stream]) -> Vector:
    """Answer a query of the gate."""
    found: list[Series] = []
    for revision in query.revisions:
        if revision in streams:
            counts = streams[revision].between(query.at - query.look_back, query.at)
            found += _series(query.kind, revision, counts)
    return tuple(found)


def _series(kind: QueryKind, revision: str, counts: np.ndarray) -> list[Series]:
    label = {metric_names.REVISION_LABEL: revision}
    if kind is QueryKind.BUCKETS:
        cumulative = np.cumsum(counts[_FIRST_BUCKET:])
        return [
            Series(labels={**label, "le": str(bound)}, value=float(value))
            for bound, value in zip(BOUNDS, cumulative, strict=True)
        ]
    answered = counts[_FIRST_BUCKET:].sum()
    by_status = {
        PredictionStatus.SUCCESS: answered - counts[_ERROR],
        PredictionStatus.ERROR: counts[_ERROR],
        PredictionStatus.INVALID: counts[_INVALID],
    }
    return [
        Series(labels={**label, metric_names.STATUS_LABEL: status}, value=float(value))
        for status, value in by_status.items()
    ]
