"""Keeps as many workers of batch jobs as their queues need: asks, decides (`core.workers`, pure), scales.

One loop for all ModelDeployments, with one query. It remembers nothing that matters: after a start, sizes stay as they
are until the queues say otherwise.
"""

import asyncio
import logging
from datetime import timedelta
from typing import Final

from canarium_operator.core import workers
from canarium_operator.errors import ClusterError, MetricSourceError
from canarium_operator.ports import Clock, Cluster, MetricSource

log = logging.getLogger(__name__)
INTERVAL: Final = timedelta(seconds=15)


class Sizing:
    """The loop.

    Args:
        cluster: where the workers are.
        metrics: knows the lengths of their queues.
        clock: the time.
    """

    def __init__(self, cluster: Cluster, metrics: MetricSource, clock: Clock) -> None:
        self._cluster = cluster
        self._metrics = metrics
        self._clock = clock
        self._memory: workers.Memory = {}

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            try:
                await self.once()
            except (ClusterError, MetricSourceError) as error:
                log.warning("workers of batch jobs keep their number: %s", error)
            except Exception:
                # A mistake here must not stop the rollouts, which run in the same process.
                log.exception("workers of batch jobs keep their number")
            await asyncio.sleep(INTERVAL.total_seconds())

    async def once(self) -> None:
        """Look once. Without workers nothing is asked.

        Raises:
            ClusterError: a Deployment could not be scaled; the others were.
            MetricSourceError: Prometheus did not answer; nothing was changed.
        """
        objects = await self._cluster.objects_of_jobs()
        if not any(child["kind"] == "Deployment" for child in objects):
            self._memory = {}
            return
        now = self._clock.now()
        answer = await self._metrics.query(workers.query(now))
        sizes = workers.assess(objects, answer, self._memory, now)
        self._memory = sizes.memory
        failure: ClusterError | None = None
        for change in sizes.changes:
            try:
                await self._cluster.resize(change.manifest, change.replicas)
            except ClusterError as error:
                failure = failure or error
            else:
                meta = change.manifest["metadata"]
                log.info("%s/%s: %d workers", meta["namespace"], meta["name"], change.replicas)
        if failure is not None:
            raise failure
