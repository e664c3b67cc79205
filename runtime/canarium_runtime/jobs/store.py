"""Records, rows and results in Redis. Each change of a job is one transaction, on condition that nobody made another.

A change is: read the record, decide (`decisions`, pure), write the record and all effects. Redis carries the writes out
together or not at all (MULTI), and not if a watched key has changed (WATCH); then it is decided anew. So a result is
kept, counted and its entry acknowledged in one moment: a worker may die before or after it, not within.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from canarium_runtime.jobs import decisions
from canarium_runtime.jobs.chunks import Results
from canarium_runtime.jobs.decisions import (
    Announce,
    Begin,
    Change,
    ChunkDone,
    DoneChunk,
    Enqueue,
    ForgetResults,
)
from canarium_runtime.jobs.errors import StoreError
from canarium_runtime.jobs.keys import Keys
from canarium_runtime.jobs.queue import GROUP, Entry
from canarium_runtime.jobs.record import Job
from canarium_runtime.jobs.redis_client import Client, transact, translated

Decide = Callable[[Job], Change | None]


class Store:
    """All of one ModelDeployment's jobs.

    Args:
        client: of Redis.
        keys: names of the keys.
        lifetime: how long what was not finished is kept at most, should nobody ever look at it again.
        result_ttl: how long what has ended is kept.
        max_result_bytes: of one job.
    """

    def __init__(
        self,
        client: Client,
        keys: Keys,
        *,
        lifetime: timedelta,
        result_ttl: timedelta,
        max_result_bytes: int,
    ) -> None:
        self.client = client
        self.keys = keys
        self._lifetime_seconds = round((lifetime + result_ttl).total_seconds())
        self._ttl_seconds = max(1, round(result_ttl.total_seconds()))
        self._max_result_bytes = max_result_bytes

    async def get(self, job_id: str) -> Job | None:
        """Read a record; None: there is none, or none any more."""
        with translated():
            return parse(await self.client.get(self.keys.job(job_id)))

    async def newest(self, limit: int) -> list[Job]:
        """Read the records of the newest jobs, newest first."""
        with translated():
            names = [n.decode() for n in await self.client.zrevrange(self.keys.index, 0, limit - 1)]
            if not names:
                return []
            texts = await self.client.mget([self.keys.job(name) for name in names])
        return [job for job in map(parse, texts) if job is not None]

    async def unfinished(self) -> dict[str, str]:
        """Clients of the jobs that wait or run, by job."""
        with translated():
            found = await self.client.hgetall(self.keys.unfinished)
        return {name.decode(): client.decode() for name, client in found.items()}

    async def stored_bytes(self) -> int:
        """Bytes that all jobs take."""
        with translated():
            return sum(map(int, await self.client.hvals(self.keys.sizes)))

    async def known(self, idempotency: str) -> str | None:
        """Read the job, with the digest of its request, that an idempotency key stands for: `JOB DIGEST`."""
        with translated():
            found = await self.client.get(idempotency)
        return found.decode() if found is not None else None

    async def create(
        self, job: Job, chunks: Mapping[int, bytes], idempotency: tuple[str, str] | None
    ) -> bool:
        """Put a job before the workers that begin jobs.

        Args:
            job: the record.
            chunks: its rows, if they came with the request.
            idempotency: key, and what it stands for.

        Returns:
            False: the idempotency key came to stand for another job meanwhile; nothing was written.
        """

        async def body(pipe: Any) -> bool:
            if idempotency is not None and await pipe.get(idempotency[0]) is not None:
                return False
            pipe.multi()
            if idempotency is not None:
                pipe.set(*idempotency, ex=self._ttl_seconds)
            if chunks:
                pipe.hset(self.keys.inputs(job.id), mapping=dict(chunks))
                pipe.expire(self.keys.inputs(job.id), self._lifetime_seconds)
            pipe.zadd(self.keys.index, {job.id: job.created_at.timestamp()})
            self._write(pipe, Change(job=job, effects=(Begin(),)))
            return True

        watched = [idempotency[0]] if idempotency is not None else []
        return await transact(self.client, watched, body)

    async def change(
        self, job_id: str, decide: Decide, *, finished: Entry | None = None
    ) -> Job | None:
        """Change a job.

        Args:
            job_id: the job.
            decide: gives the change, or None for none; may be asked several times.
            finished: entry that is acknowledged with it, whether or not there is a change.

        Returns:
            The job as it is now; None: there is none.
        """

        async def body(pipe: Any) -> Job | None:
            job = parse(await pipe.get(self.keys.job(job_id)))
            change = decide(job) if job is not None else None
            pipe.multi()
            self._acknowledge(pipe, finished)
            if change is None:
                return job
            self._write(pipe, change)
            return change.job

        return await transact(self.client, [self.keys.job(job_id)], body)

    async def retry(
        self, job_id: str, decide: Callable[[Job, Mapping[int, DoneChunk]], Change]
    ) -> Job | None:
        """Change a job by what of it is done; see `change`."""

        async def body(pipe: Any) -> Job | None:
            job = parse(await pipe.get(self.keys.job(job_id)))
            done = _parse_done(await pipe.hgetall(self.keys.done(job_id)))
            if job is None:
                return None
            change = decide(job, done)
            pipe.multi()
            self._write(pipe, change)
            return change.job

        return await transact(self.client, [self.keys.job(job_id), self.keys.done(job_id)], body)

    async def finish_chunk(
        self, entry: Entry, results: Results, *, now: datetime, delivery_id: str
    ) -> tuple[Job | None, bool]:
        """Keep the results of a chunk, count them, and acknowledge it; once, however often it is tried.

        Returns:
            The job as it is now, and whether this counted.
        """
        number, keys = str(entry.chunk), self.keys

        async def body(pipe: Any) -> tuple[Job | None, bool]:
            job = parse(await pipe.get(keys.job(entry.job)))
            counted = await pipe.hexists(keys.done(entry.job), number)
            before = await pipe.hstrlen(keys.results(entry.job), number)
            change = None
            if job is not None and not counted:
                done = ChunkDone(
                    chunk=entry.chunk,
                    generation=entry.generation,
                    rows=results.rows,
                    failed=results.failed,
                    result_bytes=len(results.blob) - int(before),
                    errors=results.errors,
                )
                change = decisions.finish_chunk(
                    job,
                    done,
                    max_result_bytes=self._max_result_bytes,
                    now=now,
                    delivery_id=delivery_id,
                )
            pipe.multi()
            self._acknowledge(pipe, entry)
            if change is None:
                return job, False
            pipe.hset(keys.results(entry.job), number, results.blob)
            pipe.hset(keys.done(entry.job), number, f"{results.rows}:{results.failed}")
            for key in (keys.results(entry.job), keys.done(entry.job)):
                pipe.expire(key, self._lifetime_seconds)
            self._write(pipe, change)
            return change.job, True

        return await transact(self.client, [keys.job(entry.job), keys.done(entry.job)], body)

    async def keep_inputs(self, job_id: str, chunks: Mapping[int, bytes]) -> None:
        """Keep rows of a job that is being begun; what was kept by an earlier attempt is overwritten."""
        with translated():
            async with self.client.pipeline(transaction=True) as pipe:
                pipe.hset(self.keys.inputs(job_id), mapping=dict(chunks))
                pipe.expire(self.keys.inputs(job_id), self._lifetime_seconds)
                await pipe.execute()

    async def chunk(self, job_id: str, number: int) -> tuple[bytes | None, bytes | None]:
        """Read the rows of a chunk, and the results of an earlier time."""
        with translated():
            async with self.client.pipeline(transaction=False) as pipe:
                pipe.hget(self.keys.inputs(job_id), str(number))
                pipe.hget(self.keys.results(job_id), str(number))
                rows, results = await pipe.execute()
        return rows, results

    async def results(self, job: Job) -> AsyncIterator[bytes]:
        """Read the results of a job, chunk by chunk in the order of the rows; chunks without results are left out."""
        for number in range(job.chunk_count):
            with translated():
                blob = await self.client.hget(self.keys.results(job.id), str(number))
            if blob is not None:
                yield blob

    async def delete(self, jobs: Sequence[str]) -> None:
        """Forget jobs, with their rows and results."""
        with translated():
            async with self.client.pipeline(transaction=True) as pipe:
                for job_id in jobs:
                    pipe.delete(*self.keys.of_job(job_id))
                    pipe.zrem(self.keys.index, job_id)
                    pipe.zrem(self.keys.hooks, job_id)
                    pipe.hdel(self.keys.unfinished, job_id)
                    pipe.hdel(self.keys.sizes, job_id)
                await pipe.execute()

    async def make_room(self, most: int) -> None:
        """Forget the oldest jobs that have ended, so that there is room for one more among `most`."""
        with translated():
            excess = int(await self.client.zcard(self.keys.index)) - most + 1
            if excess <= 0:
                return
            names = [n.decode() for n in await self.client.zrange(self.keys.index, 0, -1)]
        busy = await self.unfinished()
        await self.delete([name for name in names if name not in busy][:excess])

    async def forget_expired(self) -> None:
        """Strike out jobs whose records Redis has dropped."""
        with translated():
            names = [n.decode() for n in await self.client.zrange(self.keys.index, 0, -1)]
            if not names:
                return
            texts = await self.client.mget([self.keys.job(name) for name in names])
        gone = [name for name, text in zip(names, texts, strict=True) if text is None]
        if gone:
            await self.delete(gone)

    def _acknowledge(self, pipe: Any, entry: Entry | None) -> None:
        if entry is not None:
            pipe.xack(entry.stream, GROUP, entry.id)
            pipe.xdel(entry.stream, entry.id)

    def _write(self, pipe: Any, change: Change) -> None:
        job, keys = change.job, self.keys
        kept = self._ttl_seconds if job.is_finished else self._lifetime_seconds
        for effect in change.effects:
            match effect:
                case Begin():
                    pipe.xadd(keys.intake, {"job": job.id})
                case Enqueue(revision=revision, generation=generation, chunks=chunks):
                    if effect.redone:
                        pipe.hdel(keys.done(job.id), *map(str, effect.redone))
                    for chunk in chunks:
                        fields = {"job": job.id, "chunk": chunk, "generation": generation}
                        pipe.xadd(keys.chunks(revision), fields)
                case ForgetResults():
                    pipe.delete(keys.results(job.id), keys.done(job.id))
                case Announce():
                    at = job.finished_at or job.created_at
                    pipe.zadd(keys.hooks, {job.id: at.timestamp()})
        pipe.set(keys.job(job.id), job.model_dump_json(), ex=kept)
        pipe.hset(keys.sizes, job.id, str(job.stored_bytes))
        if job.is_finished:
            pipe.hdel(keys.unfinished, job.id)
        else:
            pipe.hset(keys.unfinished, job.id, job.client)
        if job.is_finished or change.effects:
            for key in keys.of_job(job.id)[1:]:
                pipe.expire(key, kept)


def parse(text: bytes | None) -> Job | None:
    """Read a record; None: there is none.

    Raises:
        StoreError: it is damaged.
    """
    if text is None:
        return None
    try:
        return Job.model_validate_json(text)
    except ValidationError as error:
        msg = "the record of a job in Redis is none"
        raise StoreError(msg) from error


def _parse_done(found: Mapping[bytes, bytes]) -> dict[int, DoneChunk]:
    done = {}
    for number, counts in found.items():
        rows, _, failed = counts.decode().partition(":")
        done[int(number)] = DoneChunk(rows=int(rows), failed=int(failed))
    return done
