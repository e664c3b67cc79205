"""A worker: begins jobs, answers chunks.

It does no harm by dying at any moment: what it has taken is under a lease and goes to another worker, and what it has
kept was counted and acknowledged in the same transaction. What it does twice is kept once.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final

from canarium_api.metric_names import JobChunkResult, JobRowResult
from canarium_runtime.jobs import chunks, decisions, sources
from canarium_runtime.jobs.chunks import Answer, Failure, Packed
from canarium_runtime.jobs.decisions import Change, Plan
from canarium_runtime.jobs.errors import SourceError, StoreError, TransientError
from canarium_runtime.jobs.queue import Entry, Queue
from canarium_runtime.jobs.record import Job, Source
from canarium_runtime.jobs.states import JobState
from canarium_runtime.jobs.tools import Tools, new_delivery_id

_log = logging.getLogger(__name__)
_FIRST_PAUSE_SECONDS: Final = 0.5
_MAX_PAUSE_SECONDS: Final = 15.0


class Worker:
    """Takes work until it is told to stop.

    Args:
        tools: what it works with.
    """

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Work until `stop`; then what is under way has the drain timeout, and is given back after it."""
        config = self._tools.config
        loops = [self._loop(self._tools.queue, self._answer) for _ in range(config.concurrency)]
        loops.append(self._loop(self._tools.intake, self._begin, self.begins_jobs))
        self._tasks = [asyncio.create_task(loop) for loop in loops]
        stopped = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([stopped, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait(self._tasks, timeout=config.drain_timeout.total_seconds())
        finally:
            self._stopping.set()
            self._tools.opener.stop.set()
            for task in (*self._tasks, stopped):
                task.cancel()
            results = await asyncio.gather(*self._tasks, return_exceptions=True)
            for queue in (self._tools.queue, self._tools.intake):
                with contextlib.suppress(StoreError):
                    await queue.leave()
        for result in results:
            if isinstance(result, Exception):
                raise result

    def stop(self) -> None:
        """Take no more work."""
        self._stopping.set()

    def begins_jobs(self) -> bool:
        """Whether this worker's revision is the one that begins jobs. While the file cannot be read, nobody does."""
        path = self._tools.config.stable_file
        if path is None:
            return True
        try:
            return Path(path).read_text().strip() == self._tools.identity.revision
        except OSError:
            return False

    async def _loop(
        self,
        queue: Queue,
        work: Callable[[Entry], Awaitable[None]],
        may: Callable[[], bool] = lambda: True,
    ) -> None:
        pause = _FIRST_PAUSE_SECONDS
        prepared = False
        while not self._stopping.is_set():
            try:
                if not prepared:
                    await queue.prepare()
                    prepared = True
                entry = await queue.take() if may() else None
                if entry is not None:
                    await self._under_lease(queue, entry, work)
                elif not may():
                    await self._wait(_FIRST_PAUSE_SECONDS)
                pause = _FIRST_PAUSE_SECONDS
            except StoreError as error:
                # Redis may have come back empty, so the stream is made anew if need be.
                prepared = False
                _log.warning("no work can be taken", extra={"cause": str(error)})
                await self._wait(pause)
                pause = min(pause * 2, _MAX_PAUSE_SECONDS)

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _under_lease(
        self, queue: Queue, entry: Entry, work: Callable[[Entry], Awaitable[None]]
    ) -> None:
        """Work on an entry while its lease is renewed; whatever happens, somebody has it afterwards, or it is done."""
        try:
            async with self._renewed(queue, entry):
                await work(entry)
        except asyncio.CancelledError:
            # Shielded: the task is cancelled, and yet this must be said.
            await asyncio.shield(self._give_back(queue, entry, counts=False))
            raise
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, another attempt may work, and attempts are counted
            _log.warning(
                "a chunk was given back",
                extra={"job": entry.job, "attempt": entry.deliveries, "cause": str(error)},
                exc_info=error,
            )
            self._tools.metrics.chunks[JobChunkResult.RETRIED].inc()
            await self._wait(_FIRST_PAUSE_SECONDS)
            await self._give_back(queue, entry, counts=True)

    async def _give_back(self, queue: Queue, entry: Entry, *, counts: bool) -> None:
        with contextlib.suppress(StoreError):  # then the lease runs out
            await queue.give_back(entry, counts=counts)

    @contextlib.asynccontextmanager
    async def _renewed(self, queue: Queue, entry: Entry) -> AsyncIterator[None]:
        interval = self._tools.config.lease.total_seconds() / 3
        done = asyncio.Event()

        async def renew() -> None:
            while not done.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(done.wait(), interval)
                if not done.is_set():
                    with contextlib.suppress(StoreError):
                        await queue.renew(entry)

        task = asyncio.create_task(renew())
        try:
            yield
        finally:
            # Told, not cancelled: a client of Redis may take a cancellation for a timeout of its own, and it is lost.
            done.set()
            await asyncio.gather(task, return_exceptions=True)

    async def _answer(self, entry: Entry) -> None:
        """Answer one chunk."""
        tools = self._tools
        job = await tools.store.get(entry.job)
        if job is None or job.state is not JobState.RUNNING or job.generation != entry.generation:
            tools.metrics.chunks[JobChunkResult.STALE].inc()
            await tools.queue.drop(entry)
            return
        rows, before = await tools.store.chunk(entry.job, entry.chunk)
        if rows is None:
            msg = f"the rows of chunk {entry.chunk} are gone from Redis"
            await self._end(entry, lambda j, now: decisions.expire(j, msg, now, new_delivery_id()))
            return
        chunk = chunks.unpack(rows)
        poisoned = entry.deliveries > tools.config.max_attempts
        known = chunks.answered(before) if before is not None else {}
        answers = await self._answers(chunk, known, poisoned=poisoned)
        packed = await asyncio.to_thread(chunks.pack_results, chunk.first, answers)
        now = tools.now()
        after, counted = await tools.store.finish_chunk(
            entry, packed, now=now, delivery_id=new_delivery_id()
        )
        if not counted:
            tools.metrics.chunks[JobChunkResult.STALE].inc()
            return
        result = JobChunkResult.POISONED if poisoned else JobChunkResult.DONE
        tools.metrics.chunks[result].inc()
        tools.metrics.rows[JobRowResult.SUCCESS].inc(packed.rows - packed.failed)
        tools.metrics.rows[JobRowResult.ERROR].inc(packed.failed)
        if after is not None and after.is_finished:
            self._ended(after, now)

    async def _answers(
        self, chunk: chunks.Chunk, known: chunks.Outputs, *, poisoned: bool
    ) -> list[Answer]:
        """Answer the rows of a chunk: those with an answer from an earlier time keep it."""
        answers: dict[int, Answer] = dict(chunk.bad)
        for at in range(len(chunk.rows)):
            if chunk.first + at in known:
                answers[at] = known[chunk.first + at]
        open_ones = [at for at in range(len(chunk.rows)) if at not in answers]
        if poisoned:
            attempts = self._tools.config.max_attempts
            text = f"given up: {attempts} workers did not finish the chunk that the row is in"
            found: list[Answer] = [Failure("poisoned", text)] * len(open_ones)
        else:
            found = await self._tools.runner.run([chunk.rows[at] for at in open_ones])
        answers.update(zip(open_ones, found, strict=True))
        return [answers[at] for at in range(len(chunk.rows))]

    async def _begin(self, entry: Entry) -> None:
        """Begin a job: read its rows if need be, and put its chunks before this revision's workers."""
        tools = self._tools
        job = await tools.store.get(entry.job)
        if job is None or job.state is not JobState.QUEUED:
            await tools.intake.drop(entry)
            return
        if entry.deliveries > tools.config.max_attempts:
            reason = (
                f"given up: {tools.config.max_attempts} workers did not finish reading its rows"
            )
            await self._reject(entry, reason)
            return
        count, rows, size = job.chunk_count, job.rows_total, job.input_bytes
        if job.source is not None:
            try:
                count, rows, size = await self._read(job.id, job.source)
            except SourceError as error:
                await self._reject(entry, str(error))
                return
        plan = Plan(
            revision=tools.identity.revision,
            model_version=tools.identity.model_version,
            rows=rows,
            chunks=count,
            input_bytes=size,
            outputs=tools.runner.spec.output_names,
        )

        def decide(current: Job) -> Change | None:
            if current.state is not JobState.QUEUED:
                return None
            return decisions.plan(current, plan, tools.now())

        await tools.store.change(entry.job, decide, finished=entry)

    async def _read(self, job_id: str, source: Source) -> tuple[int, int, int]:
        """Read a source into chunks: how many there are, of how many rows and bytes."""
        config = self._tools.config
        path, is_copy = await asyncio.to_thread(self._tools.opener.open, source)
        count = rows = size = 0
        try:
            found = sources.read_rows(path, source, self._tools.runner.spec)
            parts = chunks.split(
                found,
                chunk_rows=config.chunk_rows,
                max_rows=config.max_rows,
                max_bytes=config.max_job_bytes,
            )
            async for packed in _in_thread(parts, self._tools.opener.stop):
                await self._tools.store.keep_inputs(job_id, {count: packed.blob})
                count, rows, size = count + 1, rows + packed.rows, size + len(packed.blob)
        finally:
            if is_copy:
                path.unlink(missing_ok=True)
        if count == 0:
            msg = "the source has no rows"
            raise SourceError(msg)
        return count, rows, size

    async def _reject(self, entry: Entry, reason: str) -> None:
        await self._end(entry, lambda j, now: decisions.reject(j, reason, now, new_delivery_id()))

    async def _end(self, entry: Entry, decide: Callable[[Job, datetime], Change]) -> None:
        """End a job that waits or runs, and acknowledge the entry."""
        now = self._tools.now()

        def unless_ended(job: Job) -> Change | None:
            return None if job.is_finished else decide(job, now)

        job = await self._tools.store.change(entry.job, unless_ended, finished=entry)
        if job is not None and job.finished_at == now:
            self._ended(job, now)

    def _ended(self, job: Job, now: datetime) -> None:
        self._tools.metrics.ended(job, now)
        _log.info(
            "a job ended",
            extra={
                "job": job.id,
                "state": job.state.value,
                "rows": job.rows_total,
                "failed": job.rows_failed,
                "reason": job.reason,
            },
        )


async def _in_thread(packed: Iterator[Packed], stop: threading.Event) -> AsyncIterator[Packed]:
    """Give what an iterator gives that blocks; it runs only as far as what was given has been taken."""
    while (found := await asyncio.to_thread(partial(next, packed, None))) is not None:
        if stop.is_set():
            msg = "the worker is told to stop"
            raise TransientError(msg)
        yield found
