"""Metrics of batch jobs, with the names of `canarium_api.metric_names`; all series exist from the start."""

from collections.abc import Iterable
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from canarium_api import metric_names as names
from canarium_api.metric_names import JobChunkResult, JobEnd, JobRowResult, JobWebhookResult
from canarium_api.runtime_config import RuntimeConfig
from canarium_runtime.jobs.record import Job


class JobMetrics(Collector):
    """What one process counts.

    Args:
        config: for the identity labels.
    """

    def __init__(self, config: RuntimeConfig) -> None:
        self._registry = CollectorRegistry()
        self._identity = (config.deployment, config.model_version, config.revision)
        chunks = self._counter(
            names.JOBS_CHUNKS_TOTAL,
            "Chunks that this worker took, by what became of them.",
            names.RESULT_LABEL,
        )
        rows = self._counter(
            names.JOBS_ROWS_TOTAL, "Rows that were answered, by how.", names.RESULT_LABEL
        )
        ends = self._counter(
            names.JOBS_FINISHED_TOTAL, "Jobs that ended, by how.", names.STATE_LABEL
        )
        hooks = self._counter(
            names.JOBS_WEBHOOK_ATTEMPTS_TOTAL,
            "Attempts to deliver a webhook, by what became of them.",
            names.RESULT_LABEL,
        )
        self.chunks = {r: chunks.labels(*self._identity, r.value) for r in JobChunkResult}
        self.rows = {r: rows.labels(*self._identity, r.value) for r in JobRowResult}
        self._ends = {e: ends.labels(*self._identity, e.value) for e in JobEnd}
        self.webhooks = {r: hooks.labels(*self._identity, r.value) for r in JobWebhookResult}
        self._duration = Histogram(
            names.JOBS_DURATION_SECONDS,
            "From submission to end of a job.",
            names.IDENTITY_LABELS,
            buckets=names.JOB_DURATION_BUCKETS,
            registry=self._registry,
        ).labels(*self._identity)

    def _counter(self, name: str, text: str, label: str) -> Counter:
        labels = (*names.IDENTITY_LABELS, label)
        return Counter(name.removesuffix("_total"), text, labels, registry=self._registry)

    def ended(self, job: Job, now: datetime) -> None:
        """Count the end of a job."""
        self._ends[JobEnd(job.state.value)].inc()
        self._duration.observe((now - (job.retried_at or job.created_at)).total_seconds())

    def collect(self) -> Iterable[Metric]:
        """Give a registry all series."""
        return self._registry.collect()


class QueueMetrics(Collector):
    """What a worker sees of its queue, which is one for all workers: take the largest, not the sum.

    Args:
        config: for the identity labels.
    """

    def __init__(self, config: RuntimeConfig) -> None:
        self._registry = CollectorRegistry()
        identity = (config.deployment, config.model_version, config.revision)
        self.length = Gauge(
            names.JOBS_QUEUE_LENGTH,
            "Chunks and jobs that wait for this revision's workers or are worked on; each worker says the same.",
            names.IDENTITY_LABELS,
            registry=self._registry,
        ).labels(*identity)
        self.oldest = Gauge(
            names.JOBS_QUEUE_OLDEST_SECONDS,
            "Age of the oldest of them; each worker says the same.",
            names.IDENTITY_LABELS,
            registry=self._registry,
        ).labels(*identity)

    def collect(self) -> Iterable[Metric]:
        """Give a registry all series."""
        return self._registry.collect()
