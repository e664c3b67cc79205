"""What security counts, and its series. Written by the event loop's thread."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from canarium_api import metric_names as names
from canarium_api.metric_names import AuthFailure


@dataclass(slots=True)
class GuardCounts:
    """Counters of one server."""

    failures: dict[AuthFailure, int] = field(default_factory=lambda: dict.fromkeys(AuthFailure, 0))
    limited: int = 0
    shared: bool = False

    def families(self, identity: Sequence[str]) -> Iterable[Metric]:
        """Give the series.

        Args:
            identity: values of `metric_names.IDENTITY_LABELS`.
        """
        failures = CounterMetricFamily(
            names.AUTHENTICATION_FAILURES_TOTAL,
            "Requests that were refused with 401 or 403, by why.",
            labels=(*names.IDENTITY_LABELS, names.REASON_LABEL),
        )
        for reason, value in self.failures.items():
            failures.add_metric((*identity, reason.value), value)
        yield failures
        limited = CounterMetricFamily(
            names.RATE_LIMITED_TOTAL,
            "Requests that were refused with 429 because their client asked too often.",
            labels=names.IDENTITY_LABELS,
        )
        limited.add_metric(identity, self.limited)
        yield limited
        shared = GaugeMetricFamily(
            names.RATE_LIMIT_SHARED,
            "1 while limits are shared through Redis; 0 while they are this server's own.",
            labels=names.IDENTITY_LABELS,
        )
        shared.add_metric(identity, int(self.shared))
        yield shared
