"""Metrics of one server, with the names and labels of `canarium_api.metric_names`.

All series exist from the start at 0: Prometheus' `increase()` does not see what a series held when it was first
scraped. Only the event loop's thread writes, so observations take no lock: prometheus_client's own histogram costs
several microseconds for each.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from canarium_api import metric_names as names
from canarium_api.metric_names import PredictionStatus
from canarium_runtime.audit.counts import AuditCounts
from canarium_runtime.rules.tally import new_tally
from canarium_runtime.security.counts import GuardCounts

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Histogram:
    """Counts by bucket; `bounds` are inclusive upper bounds in rising order."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    @property
    def count(self) -> int:
        """How many values were counted."""
        return sum(self._counts)

    @property
    def total(self) -> float:
        """Sum of the values."""
        return self._sum

    def snapshot(self) -> tuple[list[tuple[str, float]], float]:
        """Cumulative counts by upper bound, ending with +Inf, and the sum of the values."""
        bounds = [*map(floatToGoString, self._bounds), "+Inf"]
        return list(zip(bounds, accumulate(self._counts), strict=True)), self._sum


@dataclass(slots=True)
class RunCount:
    """Runs of the model with the same number of rows."""

    runs: int = 0
    seconds: float = 0.0
    """All of them together."""


class Metrics(Collector):
    """What this server counts. Call from the event loop's thread.

    Args:
        deployment: `namespace/name` of the ModelDeployment.
        model_version: version of the model.
        revision: revision.
    """

    def __init__(self, *, deployment: str, model_version: str, revision: str) -> None:
        self._identity = (deployment, model_version, revision)
        self.succeeded = 0
        self.failed = dict.fromkeys(set(PredictionStatus) - {PredictionStatus.SUCCESS}, 0)
        self.violations = new_tally()
        """Values that broke a rule of validation; the rules themselves count here."""
        self.duration = Histogram(names.DURATION_BUCKETS)
        self.failed_seconds = 0.0
        """Part of the sum of `duration` that is of requests that failed."""
        self.queue_duration = Histogram(names.DURATION_BUCKETS)
        self.inference_duration = Histogram(names.DURATION_BUCKETS)
        self.batch_size = Histogram(names.BATCH_SIZE_BUCKETS)
        self.runs_by_rows: dict[int, RunCount] = {}
        """Runs of the model by their number of rows; the largest batch bounds it."""
        self.last_run_at = 0.0
        """Seconds since 1970; 0: there was none."""
        self.inflight = 0
        self.queue_length: Callable[[], int] = lambda: 0
        self.load_seconds = 0.0
        self.ready = False
        self.more: list[Callable[[Sequence[str]], Iterable[Metric]]] = []
        """Series of parts that are not always there; each gets the values of the identity labels."""
        self.guard = GuardCounts()
        self.audit = AuditCounts()

    @property
    def predictions(self) -> dict[PredictionStatus, int]:
        """Requests by how they ended."""
        counts = {PredictionStatus.SUCCESS: self.succeeded, **self.failed}
        return {status: counts[status] for status in PredictionStatus}

    def batch_ran(self, rows: int, seconds: float) -> None:
        """One run of the model."""
        self.batch_size.observe(rows)
        self.inference_duration.observe(seconds)
        count = self.runs_by_rows.get(rows)
        if count is None:
            count = self.runs_by_rows[rows] = RunCount()
        count.runs += 1
        count.seconds += seconds
        self.last_run_at = time.time()

    def left_queue(self, seconds: float) -> None:
        """A request waited this long for its run."""
        self.queue_duration.observe(seconds)

    def collect(self) -> Iterable[Metric]:
        """Give the registry all series."""
        labels = names.IDENTITY_LABELS
        predictions = CounterMetricFamily(
            names.PREDICTIONS_TOTAL,
            "Requests for predictions, by how they ended.",
            labels=(*labels, names.STATUS_LABEL),
        )
        for status, value in self.predictions.items():
            predictions.add_metric((*self._identity, status.value), value)
        yield predictions
        violations = CounterMetricFamily(
            names.VALIDATION_VIOLATIONS_TOTAL,
            "Values of requests (rows, for expressions) that broke a rule of spec.serving.validation.",
            labels=(*labels, names.KIND_LABEL, names.OUTCOME_LABEL),
        )
        for (kind, outcome), value in self.violations.items():
            violations.add_metric((*self._identity, kind.value, outcome.value), value)
        yield violations
        for name, text, histogram in (
            (
                names.PREDICTION_DURATION_SECONDS,
                "From arrival to answer, of requests that the model was asked (success, error, timeout).",
                self.duration,
            ),
            (names.BATCH_SIZE, "Rows in one run of the model.", self.batch_size),
            (
                names.QUEUE_DURATION_SECONDS,
                "How long a request waited for its run.",
                self.queue_duration,
            ),
            (names.INFERENCE_DURATION_SECONDS, "One run of the model.", self.inference_duration),
        ):
            family = HistogramMetricFamily(name, text, labels=labels)
            buckets, total = histogram.snapshot()
            family.add_metric(self._identity, buckets=buckets, sum_value=total)
            yield family
        for name, text, number in (
            (
                names.INFLIGHT_REQUESTS,
                "Requests that have arrived and are not answered.",
                self.inflight,
            ),
            (names.QUEUE_LENGTH, "Requests that wait for a run of the model.", self.queue_length()),
            (
                names.MODEL_LOAD_SECONDS,
                "Fetching, verifying, opening and warming the model.",
                self.load_seconds,
            ),
            (names.MODEL_READY, "1 while the server is ready, else 0.", int(self.ready)),
        ):
            gauge = GaugeMetricFamily(name, text, labels=labels)
            gauge.add_metric(self._identity, number)
            yield gauge
        for part in self.more:
            yield from part(self._identity)
        yield from self.guard.families(self._identity)
        yield from self.audit.families(self._identity)


class _Together(Collector):
    """The series of several models, each family once, as the text format wants it."""

    def __init__(self, several: Sequence[Metrics]) -> None:
        self._several = several

    def collect(self) -> Iterable[Metric]:
        """Give the registry all series."""
        families: dict[str, Metric] = {}
        for metrics in self._several:
            for family in metrics.collect():
                known = families.setdefault(family.name, family)
                if known is not family:
                    known.samples.extend(family.samples)
        return families.values()


def render(several: Sequence[Metrics]) -> bytes:
    """All series of some models and of this process in Prometheus' text format, `CONTENT_TYPE`."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Together(several))
    ProcessCollector(registry=registry)
    return generate_latest(registry)
