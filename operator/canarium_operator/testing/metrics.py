"""`ports.MetricSource` in memory: answers by a function, or by traffic that flows through the fake cluster's route."""

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from canarium_operator.core import manifests, naming, pods
from canarium_operator.core.resources import route
from canarium_operator.errors import MetricSourceError
from canarium_operator.testing.cluster import FakeCluster

Answer = Callable[[str, datetime], float | None]

_REVISION: Final = re.compile(r'revision="(\w+)"')
_WINDOW: Final = re.compile(r"\[(\d+)s\]")


class FakeMetrics:
    """Answers every query by a function of it and its time."""

    def __init__(self, answer: Answer = lambda _promql, _at: None) -> None:
        self.answer = answer
        self.outage: str | None = None
        """When set, every query fails with this."""
        self.queries: list[tuple[str, datetime]] = []

    async def query(self, promql: str, at: datetime) -> float | None:
        """Evaluate a query."""
        self.queries.append((promql, at))
        if self.outage is not None:
            raise MetricSourceError(self.outage)
        return self.answer(promql, at)


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """How a revision answers requests."""

    error_rate: float = 0.0
    invalid_rate: float = 0.0
    """Share of requests that the server refuses as the client\'s mistake."""
    latency: float = 0.02
    """Seconds; what every latency quantile gives."""
    custom: float | None = None
    """What any query that is not built in gives."""


@dataclass(frozen=True)
class _Counts:
    requests: float = 0.0
    errors: float = 0.0


class SimulatedTraffic(FakeMetrics):
    """Traffic that follows the route's weights to the ready pods, counted as Prometheus would.

    Call `tick` after the cluster's. `lost` counts requests that reached a revision without a ready pod: a rollout
    must keep it at 0.
    """

    def __init__(self, cluster: FakeCluster, requests_per_second: float = 100.0) -> None:
        super().__init__(self._evaluate)
        self.requests_per_second = requests_per_second
        self.behaviours: dict[str, Behaviour] = {}
        """By revision; others answer well."""
        self.lost = 0.0
        self._cluster = cluster
        self._last: datetime | None = None
        self._times: dict[str, list[datetime]] = defaultdict(list)
        self._counts: dict[str, list[_Counts]] = defaultdict(list)

    def tick(self, now: datetime) -> None:
        """Let the requests since the last tick flow."""
        elapsed = (now - self._last).total_seconds() if self._last is not None else 0.0
        self._last = now
        if elapsed <= 0:
            return
        ready = {
            manifests.labels(pod).get(naming.REVISION_LABEL)
            for pod in self._cluster.each("Pod")
            if pods.is_ready(pod)
        }
        for live in self._cluster.each("HTTPRoute"):
            weights = route.weights_of(live)
            for revision, weight in weights.items():
                requests = self.requests_per_second * elapsed * weight / sum(weights.values())
                if revision in ready:
                    self._count(revision, requests, now)
                else:
                    self.lost += requests

    def _count(self, revision: str, requests: float, now: datetime) -> None:
        before = self._counts[revision][-1] if self._counts[revision] else _Counts()
        errors = requests * self.behaviours.get(revision, Behaviour()).error_rate
        self._times[revision].append(now)
        self._counts[revision].append(_Counts(before.requests + requests, before.errors + errors))

    def _at(self, revision: str, at: datetime) -> _Counts:
        index = bisect_right(self._times[revision], at)
        return self._counts[revision][index - 1] if index else _Counts()

    def _evaluate(self, promql: str, at: datetime) -> float | None:
        found, window = _REVISION.search(promql), _WINDOW.search(promql)
        if found is None or window is None:
            return self.behaviours.get(found[1] if found else "", Behaviour()).custom
        revision = found[1]
        if not self._times[revision] or self._times[revision][0] > at:
            return None
        first, last = (
            self._at(revision, at - timedelta(seconds=int(window[1]))),
            self._at(revision, at),
        )
        requests, errors = last.requests - first.requests, last.errors - first.errors
        behaviour = self.behaviours.get(revision, Behaviour())
        if "histogram_quantile" in promql:
            return behaviour.latency if requests > 0 else None
        if 'status="invalid"' in promql:
            return behaviour.invalid_rate if requests > 0 else None
        if " / " in promql:
            return errors / requests if requests > 0 else None
        return requests if "ml_predictions_total" in promql else behaviour.custom
