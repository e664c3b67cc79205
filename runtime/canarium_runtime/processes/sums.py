"""One set of metrics from many processes, and from those that have died.

Counters and histograms are summed over all processes that ever were, each by the last that is known of it, so a sum
never falls when a process dies. Gauges are summed over those that live, with the exceptions of `GAUGES`. What a process
counted between its last report and its death is lost.

Metrics come and go as Prometheus' text, so that nothing here depends on how a process counts.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from canarium_api import metric_names as names
from canarium_api.metric_names import CacheLevel

Labels = tuple[tuple[str, str], ...]
Totals = dict[str, tuple[Metric, dict[tuple[str, Labels], float]]]

GAUGES: Final = {
    names.MODEL_LOAD_SECONDS: max,
    names.MODEL_READY: min,
    names.CACHE_LEVEL_UP: min,
    "process_start_time_seconds": min,
    "process_max_fds": max,
}
"""Gauges whose sum says nothing, and what is taken instead. Those that end with `_info` are 1 in every process."""
_ACCUMULATING: Final = frozenset({"counter", "histogram", "summary"})


class Sums:
    """Adds up the metrics of processes, each known by a number that is never used again."""

    def __init__(self) -> None:
        self._living: dict[int, str] = {}
        self._dead: Totals = {}

    def report(self, life: int, text: str) -> None:
        """Take the latest metrics of a process, in Prometheus' text format."""
        self._living[life] = text

    def end(self, life: int) -> None:
        """Keep what a process has counted; it is no more."""
        counted = text_string_to_metric_families(self._living.pop(life, ""))
        _add(self._dead, (m for m in counted if m.type in _ACCUMULATING))

    def metrics(self, own: Iterable[Metric]) -> Iterator[Metric]:
        """Give the sums.

        Args:
            own: metrics of whoever adds up, which count as those of one more process.
        """
        totals = {name: (metric, dict(values)) for name, (metric, values) in self._dead.items()}
        for text in self._living.values():
            _add(totals, text_string_to_metric_families(text))
        _add(totals, own)
        for metric, values in totals.values():
            summed = Metric(metric.name, metric.documentation, metric.type)
            for (sample, labels), value in values.items():
                summed.add_sample(sample, dict(labels), value)
            yield summed


def _add(totals: Totals, metrics: Iterable[Metric]) -> None:
    for metric in metrics:
        values = totals.setdefault(metric.name, (metric, {}))[1]
        for sample in metric.samples:
            key = sample.name, tuple(sample.labels.items())
            known = values.get(key)
            values[key] = (
                sample.value if known is None else _joined(metric, sample, known, sample.value)
            )


def _joined(metric: Metric, sample: Sample, one: float, other: float) -> float:
    if metric.type in _ACCUMULATING:
        return min(one, other) if sample.name.endswith("_created") else one + other
    if metric.name in GAUGES:
        return float(GAUGES[metric.name](one, other))
    # A level of the cache outside of the processes is one and the same for all.
    outside = sample.labels.get(names.LEVEL_LABEL, CacheLevel.MEMORY) != CacheLevel.MEMORY
    return max(one, other) if outside or metric.name.endswith("_info") else one + other
