"""What must happen although nobody asks for it; any worker does it, one at a time.

Jobs that take too long end; jobs whose revision has no workers any more are begun again by this one; what Redis has
dropped is struck out; names of dead workers are forgotten. None of it is needed for a single chunk: those go over to
other workers by their leases.
"""

import asyncio
import logging
from datetime import datetime, timedelta
from typing import Final

from canarium_runtime.jobs import decisions
from canarium_runtime.jobs.decisions import Change
from canarium_runtime.jobs.errors import StoreError
from canarium_runtime.jobs.metrics import QueueMetrics
from canarium_runtime.jobs.presence import Presence
from canarium_runtime.jobs.record import Job
from canarium_runtime.jobs.states import JobState
from canarium_runtime.jobs.tools import Tools, new_delivery_id
from canarium_runtime.jobs.worker import Worker

_log = logging.getLogger(__name__)
_INTERVAL: Final = timedelta(seconds=10)
_BEATS: Final = 3
"""Signs of life in the time that one is good for."""


class Upkeep:
    """See the module.

    Args:
        worker: for whether it may begin jobs.
        tools: what it works with.
        metrics: told of the queue.
        consumer: the worker's name.
    """

    def __init__(self, worker: Worker, tools: Tools, metrics: QueueMetrics, consumer: str) -> None:
        self._worker = worker
        self._tools = tools
        self._metrics = metrics
        self._consumer = consumer
        self._presence = Presence(tools.store.client, tools.store.keys)

    async def run(self) -> None:
        """Work until cancelled."""
        lease = self._tools.config.lease
        interval = min(lease / _BEATS, _INTERVAL)
        while True:
            try:
                await self.beat()
                if await self._presence.lead_upkeep(self._consumer, interval):
                    await self.once()
            except StoreError as error:
                _log.warning("no upkeep", extra={"cause": str(error)})
            await asyncio.sleep(interval.total_seconds())

    async def beat(self) -> None:
        """Give a sign of life, and measure the queue."""
        tools = self._tools
        revision = tools.identity.revision
        await self._presence.announce(revision, self._consumer, tools.config.lease * 2)
        now = tools.now().timestamp()
        length, oldest = await tools.queue.length(), await tools.queue.oldest_seconds(now)
        if self._worker.begins_jobs():
            length += await tools.intake.length()
            oldest = max(oldest, await tools.intake.oldest_seconds(now))
        self._metrics.length.set(length)
        self._metrics.oldest.set(oldest)

    async def once(self) -> None:
        """Look at all jobs that wait or run."""
        tools, now = self._tools, self._tools.now()
        for job_id in await tools.store.unfinished():
            try:
                await self._look_at(job_id, now)
            except StoreError as error:
                # One job that cannot be read must not hide the others.
                _log.warning("no upkeep of a job", extra={"job": job_id, "cause": str(error)})
        await tools.store.forget_expired()
        for queue in (tools.queue, tools.intake):
            await queue.forget_gone(self._presence.is_alive)

    async def _look_at(self, job_id: str, now: datetime) -> None:
        tools = self._tools
        job = await tools.store.get(job_id)
        if job is None:
            await tools.store.delete([job_id])
        elif now >= job.expires_at(tools.config.job_timeout):
            await self._expire(job, now)
        elif await self._is_orphan(job):
            await self._adopt(job, now)

    async def _expire(self, job: Job, now: datetime) -> None:
        reason = f"it did not end within {self._tools.config.job_timeout}, the limit of all jobs"

        def decide(current: Job) -> Change | None:
            if current.is_finished:
                return None
            return decisions.expire(current, reason, now, new_delivery_id())

        after = await self._tools.store.change(job.id, decide)
        if after is not None and after.finished_at == now:
            self._tools.metrics.ended(after, now)

    async def _is_orphan(self, job: Job) -> bool:
        if job.state is not JobState.RUNNING or job.revision == self._tools.identity.revision:
            return False
        if not self._worker.begins_jobs():
            return False
        return not await self._presence.has_workers(job.revision)

    async def _adopt(self, job: Job, now: datetime) -> None:
        identity = self._tools.identity

        def decide(current: Job) -> Change | None:
            same = current.revision == job.revision and current.generation == job.generation
            if not same or current.state is not JobState.RUNNING:
                return None
            return decisions.adopt(current, identity.revision, identity.model_version, now)

        await self._tools.store.change(job.id, decide)
        _log.warning(
            "a job was begun again: its revision has no workers any more",
            extra={"job": job.id, "before": job.revision, "now": identity.revision},
        )
