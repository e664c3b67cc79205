"""The cache's series for `/metrics`: statistics in, families out."""

from collections.abc import Callable, Iterator, Sequence

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from canarium_api import metric_names as names
from canarium_runtime.caching.statistics import CacheStatistics, LevelStatistics

_COUNTERS: tuple[tuple[str, str, Callable[[LevelStatistics], int]], ...] = (
    (names.CACHE_HITS_TOTAL, "Lookups that found an answer.", lambda level: level.hits),
    (names.CACHE_MISSES_TOTAL, "Lookups that found none.", lambda level: level.misses),
    (
        names.CACHE_ERRORS_TOTAL,
        "Lookups that failed, took too long or found what is no answer; also writes and sweeps that failed.",
        lambda level: level.errors,
    ),
    (
        names.CACHE_SKIPPED_TOTAL,
        "Lookups that did not ask the level, since it was cut out or busy.",
        lambda level: level.skipped,
    ),
    (
        names.CACHE_DROPPED_TOTAL,
        "Answers that were not written: too large, too many at a time, or the level was cut out or failed.",
        lambda level: level.dropped,
    ),
)
_GAUGES: tuple[tuple[str, str, Callable[[LevelStatistics], int | None]], ...] = (
    (
        names.CACHE_ENTRIES,
        "Answers that the level holds, where that is known.",
        lambda level: level.entries,
    ),
    (names.CACHE_BYTES, "Bytes that they take, where that is known.", lambda level: level.bytes),
    (
        names.CACHE_LEVEL_UP,
        "1 while the level is asked, 0 while it is cut out.",
        lambda level: int(level.up),
    ),
)


def families(statistics: CacheStatistics, identity: Sequence[str]) -> Iterator[Metric]:
    """Give all series of a cache.

    Args:
        statistics: what it tells.
        identity: values of the identity labels.
    """
    labels = (*names.IDENTITY_LABELS, names.LEVEL_LABEL)
    for name, text, count in _COUNTERS:
        counter = CounterMetricFamily(name, text, labels=labels)
        for level in statistics.levels:
            counter.add_metric((*identity, level.name.value), count(level))
        yield counter
    for name, text, value in _GAUGES:
        gauge = GaugeMetricFamily(name, text, labels=labels)
        for level in statistics.levels:
            if (number := value(level)) is not None:
                gauge.add_metric((*identity, level.name.value), number)
        yield gauge
    histogram = HistogramMetricFamily(
        names.CACHE_LOOKUP_DURATION_SECONDS,
        "One lookup in a level outside of the process, whether it found something or not.",
        labels=labels,
    )
    for level in statistics.levels:
        if level.duration is not None:
            buckets, total = level.duration.snapshot()
            histogram.add_metric((*identity, level.name.value), buckets=buckets, sum_value=total)
    yield histogram
    joined = CounterMetricFamily(
        names.CACHE_JOINED_TOTAL,
        "Requests that got the answer of an equal one which was under way.",
        labels=names.IDENTITY_LABELS,
    )
    joined.add_metric(tuple(identity), statistics.joined)
    yield joined
