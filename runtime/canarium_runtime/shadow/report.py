"""What the comparer counts, as Prometheus' series, with the names and labels of `canarium_api.metric_names`.

Counters exist from the start at 0, since `increase()` does not see what a series held when it was first scraped. The
gauges of an output exist only when there is something to say: no series is no evidence, and 0 would be.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from canarium_api import metric_names as names
from canarium_api.metric_names import (
    ShadowDropped,
    ShadowMismatch,
    ShadowOutcome,
    ShadowSide,
    ShadowUnpaired,
)
from canarium_runtime.shadow.comparison import OutputComparison, PairComparison
from canarium_runtime.shadow.pairing import Pair
from canarium_runtime.shadow.windows import OutputWindow

MAX_OUTPUTS = 32
"""Outputs that are told apart; pairs are judged by all of them all the same."""
_BOTH_ANSWERED = frozenset({ShadowOutcome.COMPARED, ShadowOutcome.UNCOMPARED})


class OutputReport:
    """What is known of one output."""

    def __init__(self) -> None:
        self.rows = 0
        self.flipped_rows = 0
        self.uncompared = 0
        self.max_absolute = 0.0
        self.max_relative = 0.0
        self.window: OutputWindow | None = None

    def add(self, output: OutputComparison) -> None:
        """Take one comparison."""
        if not output.compared:
            self.uncompared += 1
        self.rows += output.rows
        self.flipped_rows += output.flipped_rows
        self.max_absolute = max(self.max_absolute, output.max_absolute)
        self.max_relative = max(self.max_relative, output.max_relative)
        if output.stable is None or output.shadow is None or not output.rows:
            return
        columns, labels = output.stable.shape[1], output.stable.dtype.kind != "f"
        window = self.window
        if window is None or (window.columns, window.labels) != (columns, labels):
            window = self.window = OutputWindow(columns, labels=labels)
        window.add(output.stable, output.shadow)


class Report(Collector):
    """Counts of one comparer.

    Args:
        deployment: `namespace/name` of the ModelDeployment.
        revision: revision of the shadow.
    """

    def __init__(self, *, deployment: str, revision: str) -> None:
        self._identity = (deployment, revision)
        self.pairs = dict.fromkeys(ShadowOutcome, 0)
        self.mismatches = dict.fromkeys(ShadowMismatch, 0)
        self.mismatched_pairs = 0
        self.answers = dict.fromkeys(ShadowSide, 0)
        self.latency_seconds = dict.fromkeys(ShadowSide, 0.0)
        self.pull_failures = dict.fromkeys(ShadowSide, 0)
        self.targets = dict.fromkeys(ShadowSide, 0)
        self.dropped: Counter[tuple[ShadowSide, ShadowDropped]] = Counter()
        self.unpaired: Mapping[tuple[ShadowSide, ShadowUnpaired], int] = {}
        """The `Pairing`'s own count."""
        self.sample_share = 1.0
        self.outputs: dict[str, OutputReport] = {}
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def add(self, pair: Pair, comparison: PairComparison) -> None:
        """Count one pair."""
        self.pairs[comparison.outcome] += 1
        self.mismatched_pairs += comparison.is_mismatch
        for kind in comparison.mismatches:
            self.mismatches[kind] += 1
        if comparison.outcome in _BOTH_ANSWERED:
            self.latency_seconds[ShadowSide.STABLE] += pair.stable.seconds
            self.latency_seconds[ShadowSide.SHADOW] += pair.shadow.seconds
        for output in comparison.outputs:
            report = self.outputs.get(output.name)
            if report is None:
                if len(self.outputs) == MAX_OUTPUTS:
                    continue
                report = self.outputs[output.name] = OutputReport()
            report.add(output)

    def render(self) -> bytes:
        """All series in Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """Give the registry all series."""
        yield from self._pair_metrics()
        yield from self._answer_metrics()
        yield from self._output_metrics()

    def _pair_metrics(self) -> Iterable[Metric]:
        yield self._counter(
            names.SHADOW_PAIRS_TOTAL,
            "Requests that both sides ended, by what became of the pair.",
            [names.OUTCOME_LABEL],
            [((outcome.value,), value) for outcome, value in self.pairs.items()],
        )
        yield self._counter(
            names.SHADOW_MISMATCHES_TOTAL,
            "Pairs whose answers differ, by how; a pair may differ in several ways.",
            [names.KIND_LABEL],
            [((kind.value,), value) for kind, value in self.mismatches.items()],
        )
        yield self._counter(
            names.SHADOW_MISMATCHED_PAIRS_TOTAL,
            "Pairs in which stable answered and the shadow did not, or differently: tolerance, flip or shape.",
            [],
            [((), self.mismatched_pairs)],
        )
        yield self._counter(
            names.SHADOW_LATENCY_SECONDS_TOTAL,
            "From arrival to answer, summed over the pairs that both sides answered.",
            [names.SIDE_LABEL],
            [((side.value,), value) for side, value in self.latency_seconds.items()],
        )

    def _answer_metrics(self) -> Iterable[Metric]:
        by_side = [names.SIDE_LABEL]
        yield self._counter(
            names.SHADOW_ANSWERS_TOTAL,
            "Answers that were fetched.",
            by_side,
            [((side.value,), value) for side, value in self.answers.items()],
        )
        yield self._counter(
            names.SHADOW_UNPAIRED_TOTAL,
            "Answers that were fetched and not compared, by why.",
            [names.SIDE_LABEL, names.REASON_LABEL],
            [
                ((side.value, reason.value), self.unpaired.get((side, reason), 0))
                for side in ShadowSide
                for reason in ShadowUnpaired
            ],
        )
        yield self._counter(
            names.SHADOW_DROPPED_TOTAL,
            "Answers that a pod did not hand over, by why.",
            [names.SIDE_LABEL, names.REASON_LABEL],
            [
                ((side.value, reason.value), self.dropped[side, reason])
                for side in ShadowSide
                for reason in ShadowDropped
            ],
        )
        yield self._counter(
            names.SHADOW_PULL_FAILURES_TOTAL,
            "Fetches that failed.",
            by_side,
            [((side.value,), value) for side, value in self.pull_failures.items()],
        )
        yield self._gauge(
            names.SHADOW_TARGETS,
            "Pods that answered the latest fetch.",
            by_side,
            [((side.value,), value) for side, value in self.targets.items()],
        )
        yield self._gauge(
            names.SHADOW_SAMPLE_SHARE,
            "Share of the requests whose answers the pods are asked to record.",
            [],
            [((), self.sample_share)],
        )

    def _output_metrics(self) -> Iterable[Metric]:
        outputs = sorted(self.outputs.items())
        by_output = [names.OUTPUT_LABEL]
        for name, text, values in (
            (
                names.SHADOW_ROWS_TOTAL,
                "Rows of an output that were compared.",
                [((n,), o.rows) for n, o in outputs],
            ),
            (
                names.SHADOW_FLIPPED_ROWS_TOTAL,
                "Rows of an output with another class.",
                [((n,), o.flipped_rows) for n, o in outputs],
            ),
            (
                names.SHADOW_UNCOMPARED_OUTPUTS_TOTAL,
                "Answers whose output was too large to compare.",
                [((n,), o.uncompared) for n, o in outputs],
            ),
        ):
            yield self._counter(name, text, by_output, values)
        for name, text, gauges in (
            (
                names.SHADOW_MAX_ABSOLUTE_DIFFERENCE,
                "Largest difference of a number of an output since the comparer began.",
                [((n,), o.max_absolute) for n, o in outputs if o.rows],
            ),
            (
                names.SHADOW_MAX_RELATIVE_DIFFERENCE,
                "The same relative to stable's number.",
                [((n,), o.max_relative) for n, o in outputs if o.rows],
            ),
            (
                names.SHADOW_PSI,
                "Population stability index of an output, shadow against stable, over the latest rows.",
                _known((n, o.window.psi()) for n, o in outputs if o.window is not None),
            ),
            (
                names.SHADOW_RANK_CORRELATION,
                "Spearman's rank correlation of an output, shadow with stable, over the latest rows.",
                _known(
                    (n, o.window.rank_correlation()) for n, o in outputs if o.window is not None
                ),
            ),
        ):
            yield self._gauge(name, text, by_output, gauges)

    def _counter(
        self,
        name: str,
        text: str,
        labels: Sequence[str],
        values: Iterable[tuple[tuple[str, ...], float]],
    ) -> Metric:
        family = CounterMetricFamily(name, text, labels=(*names.SHADOW_IDENTITY_LABELS, *labels))
        for own, value in values:
            family.add_metric((*self._identity, *own), value)
        return family

    def _gauge(
        self,
        name: str,
        text: str,
        labels: Sequence[str],
        values: Iterable[tuple[tuple[str, ...], float]],
    ) -> Metric:
        family = GaugeMetricFamily(name, text, labels=(*names.SHADOW_IDENTITY_LABELS, *labels))
        for own, value in values:
            family.add_metric((*self._identity, *own), value)
        return family


def _known(
    values: Iterable[tuple[str, float | None]],
) -> list[tuple[tuple[str, ...], float]]:
    return [((name,), value) for name, value in values if value is not None]
