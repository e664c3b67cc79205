"""The series of tracing."""

from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, Metric

from canarium_api import metric_names as names


def families(dropped: int, identity: Sequence[str]) -> Iterator[Metric]:
    """Give the series.

    Args:
        dropped: spans that did not fit, or could not be sent.
        identity: values of the identity labels.
    """
    family = CounterMetricFamily(
        names.TRACE_SPANS_DROPPED_TOTAL,
        "Spans that did not fit into the queue, or that the collector did not take.",
        labels=names.IDENTITY_LABELS,
    )
    family.add_metric(identity, dropped)
    yield family
