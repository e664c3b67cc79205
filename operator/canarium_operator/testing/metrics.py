"""`ports.MetricSource` in memory: answers by a function, or by traffic that flows through the fake cluster's route."""

import math
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from canarium_api import metric_names
from canarium_api.metric_names import PredictionStatus
from canarium_api.shadow import SHADOW_CHECKS
from canarium_operator.core import manifests, naming, pods
from canarium_operator.core.resources import front, route, router
from canarium_operator.core.rollout.queries import Query, QueryKind, Series, Vector
from canarium_operator.errors import MetricSourceError
from canarium_operator.testing.cluster import FakeCluster

Answer = Callable[[Query], Vector]


class FakeMetrics:
    """Answers every query by a function of it."""

    def __init__(self, answer: Answer = lambda _query: ()) -> None:
        self.answer = answer
        self.outage: str | None = None
        """When set, every query fails with this."""
        self.queries: list[Query] = []

    async def query(self, query: Query) -> Vector:
        """Evaluate a query."""
        self.queries.append(query)
        if self.outage is not None:
            raise MetricSourceError(self.outage)
        return self.answer(query)


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """How a revision answers requests."""

    error_rate: float = 0.0
    invalid_rate: float = 0.0
    """Share of requests that the server refuses as the client\'s mistake."""
    latency: float = 0.02
    """Seconds, of every request."""
    mismatch_rate: float = 0.0
    """Share of copied requests that it answers differently than stable, with another class."""
    custom: float | None = None
    """What any query that is not built in gives."""


@dataclass(frozen=True)
class _Counts:
    requests: float = 0.0
    errors: float = 0.0


class SimulatedTraffic(FakeMetrics):
    """Traffic that follows the route's weights to the ready pods, and without a route the Service `NAME` to all that it
    leads to, counted as Prometheus would.

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
        ready = Counter(
            manifests.labels(pod).get(naming.REVISION_LABEL, "")
            for pod in self._cluster.each("Pod")
            if pods.is_ready(pod)
        )
        routes = list(self._cluster.each("HTTPRoute"))
        fronts = [service for service in self._cluster.each("Service") if front.is_front(service)]
        # All users are lost who are led to a router that is not there.
        routed = any(map(route.is_by_router, routes))
        if routed and not any(
            router.is_router(pod) and pods.is_ready(pod) for pod in self._cluster.each("Pod")
        ):
            self.lost += self.requests_per_second * elapsed
            return
        splits: list[Mapping[str, int]] = [route.weights_of(live) for live in routes]
        if not routes:
            splits = [front.weights_of(service, ready) for service in fronts]
        for weights in splits:
            for revision, weight in weights.items():
                requests = self.requests_per_second * elapsed * weight / sum(weights.values())
                if revision in ready:
                    self._count(revision, requests, now)
                else:
                    self.lost += requests
        for live in routes:
            # Copies are of what stable answers, which is everything; nobody waits for their answers.
            for revision, percent in route.mirrored_by(live).items():
                if revision in ready:
                    requests = self.requests_per_second * elapsed * percent / 100
                    self._count(revision, requests, now)

    def _count(self, revision: str, requests: float, now: datetime) -> None:
        before = self._counts[revision][-1] if self._counts[revision] else _Counts()
        errors = requests * self.behaviours.get(revision, Behaviour()).error_rate
        self._times[revision].append(now)
        self._counts[revision].append(_Counts(before.requests + requests, before.errors + errors))

    def _at(self, revision: str, at: datetime) -> _Counts:
        index = bisect_right(self._times[revision], at)
        return self._counts[revision][index - 1] if index else _Counts()

    def _evaluate(self, query: Query) -> Vector:
        if query.metric in SHADOW_CHECKS:
            return self._compared(query)
        if query.kind is QueryKind.NUMBER:
            custom = self.behaviours.get(query.revisions[0], Behaviour()).custom
            return (Series(value=custom),) if custom is not None else ()
        return tuple(
            series for revision in query.revisions for series in self._counted(query, revision)
        )

    def _compared(self, query: Query) -> Vector:
        (revision,) = query.revisions
        if not self._times[revision] or self._times[revision][0] > query.at:
            return ()
        first, last = (self._at(revision, query.at - query.look_back), self._at(revision, query.at))
        pairs = last.requests - first.requests
        rate = self.behaviours.get(revision, Behaviour()).mismatch_rate
        values = {"trials": pairs, "events": pairs * rate, "query": rate}
        return (Series(value=values[query.part]),)

    def _counted(self, query: Query, revision: str) -> list[Series]:
        if not self._times[revision] or self._times[revision][0] > query.at:
            return []
        first, last = (self._at(revision, query.at - query.look_back), self._at(revision, query.at))
        return series_of(
            revision,
            requests=last.requests - first.requests,
            errors=last.errors - first.errors,
            behaviour=self.behaviours.get(revision, Behaviour()),
            kind=query.kind,
        )


def series_of(
    revision: str, *, requests: float, errors: float, behaviour: Behaviour, kind: QueryKind
) -> list[Series]:
    """Give the series that Prometheus would have of so many requests.

    Args:
        revision: who answered.
        requests: all but those that were refused as the client's mistake.
        errors: of these, how many failed.
        behaviour: for the share of refused requests and the latency, which is the same for all requests.
        kind: of the query.
    """
    if kind is QueryKind.BUCKETS:
        return [
            Series(
                labels={metric_names.REVISION_LABEL: revision, "le": f"{bound:g}"},
                value=requests if bound >= behaviour.latency else 0.0,
            )
            for bound in (*metric_names.DURATION_BUCKETS, math.inf)
        ]
    share = behaviour.invalid_rate
    by_status = {
        PredictionStatus.SUCCESS: requests - errors,
        PredictionStatus.ERROR: errors,
        PredictionStatus.INVALID: requests * share / (1 - share) if share < 1 else requests,
    }
    return [
        Series(
            labels={metric_names.REVISION_LABEL: revision, metric_names.STATUS_LABEL: status},
            value=value,
        )
        for status, value in by_status.items()
    ]
