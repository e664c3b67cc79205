"""What an audit log counts, and its series."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from canarium_api import metric_names as names


@dataclass(slots=True)
class AuditCounts:
    """Counters of one server. `dropped` is written by the event loop's thread, the others by the writer's."""

    written: int = 0
    dropped: int = 0
    failures: int = 0
    waiting: Callable[[], int] = lambda: 0
    oldest_at: Callable[[], float | None] = lambda: None
    """When the oldest record that waits was made, seconds since 1970; None: none waits."""

    def families(self, identity: Sequence[str]) -> Iterable[Metric]:
        """Give the series.

        Args:
            identity: values of `metric_names.IDENTITY_LABELS`.
        """
        for name, text, number in (
            (names.AUDIT_RECORDS_TOTAL, "Audit records that were written.", self.written),
            (
                names.AUDIT_DROPPED_TOTAL,
                "Audit records that were left out because the buffer was full.",
                self.dropped,
            ),
            (
                names.AUDIT_FAILURES_TOTAL,
                "Attempts to write a block of audit records that failed; the block is tried again.",
                self.failures,
            ),
        ):
            counter = CounterMetricFamily(name, text, labels=names.IDENTITY_LABELS)
            counter.add_metric(identity, number)
            yield counter
        oldest_at = self.oldest_at()
        lag = 0.0 if oldest_at is None else max(0.0, time.time() - oldest_at)
        for name, text, value in (
            (names.AUDIT_WAITING, "Audit records that wait to be written.", float(self.waiting())),
            (names.AUDIT_LAG_SECONDS, "Age of the oldest audit record that waits.", lag),
        ):
            gauge = GaugeMetricFamily(name, text, labels=names.IDENTITY_LABELS)
            gauge.add_metric(identity, value)
            yield gauge
