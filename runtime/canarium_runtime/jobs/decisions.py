"""What becomes of a job: a record and an event give another record, and what is to be done for it. No IO, no clock.

`store` writes the record and carries the effects out in one transaction, so that neither is ever without the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from canarium_runtime.jobs.record import MAX_ERRORS, Delivery, Job, RowError
from canarium_runtime.jobs.states import FINISHED, Event, IllegalEventError, JobState, target


@dataclass(frozen=True, kw_only=True)
class Begin:
    """Put the job before the workers that begin jobs."""


@dataclass(frozen=True, kw_only=True)
class Enqueue:
    """Put chunks before the workers of a revision."""

    revision: str
    generation: int
    chunks: tuple[int, ...]
    redone: tuple[int, ...] = ()
    """Chunks that count as not done from now on."""


@dataclass(frozen=True, kw_only=True)
class ForgetResults:
    """Nothing is done any more."""


@dataclass(frozen=True, kw_only=True)
class Announce:
    """Tell the callback."""


Effect = Begin | Enqueue | ForgetResults | Announce


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a job becomes."""

    job: Job
    effects: tuple[Effect, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What reading a job's rows has found."""

    revision: str
    model_version: str
    rows: int
    chunks: int
    input_bytes: int
    outputs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class DoneChunk:
    """What a chunk has counted for."""

    rows: int
    failed: int


@dataclass(frozen=True, kw_only=True)
class ChunkDone:
    """A chunk with its results."""

    chunk: int
    generation: int
    rows: int
    failed: int
    result_bytes: int
    """More than before, where the chunk was done again."""
    errors: tuple[RowError, ...] = ()


def _moved(job: Job, event: Event, now: datetime, **changes: Any) -> Job:
    state = target(job.state, event)
    ended = {"finished_at": now} if state in FINISHED else {}
    return job.model_copy(update={"state": state, **ended, **changes})


def _ended(job: Job, event: Event, now: datetime, delivery_id: str, **changes: Any) -> Change:
    if job.callback is None:
        return Change(job=_moved(job, event, now, **changes))
    told = Delivery(id=delivery_id)
    return Change(
        job=_moved(job, event, now, delivery=told, **changes),
        effects=(Announce(),),
    )


def plan(job: Job, found: Plan, now: datetime) -> Change:
    """Begin a job: it belongs to a revision from now on."""
    moved = _moved(
        job,
        Event.PLANNED,
        now,
        started_at=now,
        revision=found.revision,
        model_version=found.model_version,
        rows_total=found.rows,
        chunk_count=found.chunks,
        input_bytes=found.input_bytes,
        outputs=found.outputs,
    )
    return Change(job=moved, effects=(_all_chunks(moved),))


def reject(job: Job, reason: str, now: datetime, delivery_id: str) -> Change:
    """End a job whose rows cannot be read."""
    return _ended(job, Event.REJECTED, now, delivery_id, reason=reason)


def cancel(job: Job, now: datetime, delivery_id: str) -> Change:
    """End a job because its client asks for it."""
    return _ended(job, Event.CANCELLED, now, delivery_id)


def expire(job: Job, reason: str, now: datetime, delivery_id: str) -> Change:
    """End a job that takes too long."""
    return _ended(job, Event.EXPIRED, now, delivery_id, reason=reason)


def finish_chunk(
    job: Job, done: ChunkDone, *, max_result_bytes: int, now: datetime, delivery_id: str
) -> Change | None:
    """Count a chunk.

    Args:
        job: the job.
        done: the chunk; the caller knows that it was not counted before.
        max_result_bytes: of the whole job.
        now: the time.
        delivery_id: for the webhook, if this ends the job.

    Returns:
        None: the chunk is of no use any more, since the job has ended or was begun again.
    """
    if job.state is not JobState.RUNNING or job.generation != done.generation:
        return None
    errors = sorted((*job.errors, *done.errors), key=lambda error: error.row)[:MAX_ERRORS]
    counted = job.model_copy(
        update={
            "chunks_done": job.chunks_done + 1,
            "rows_done": job.rows_done + done.rows,
            "rows_failed": job.rows_failed + done.failed,
            "result_bytes": job.result_bytes + done.result_bytes,
            "errors": tuple(errors),
        }
    )
    if (reason := _excess(counted, max_result_bytes)) is not None:
        return _ended(counted, Event.EXCEEDED, now, delivery_id, reason=reason)
    if counted.chunks_done == counted.chunk_count:
        return _ended(counted, Event.COMPLETED, now, delivery_id)
    return Change(job=_moved(counted, Event.PROGRESSED, now))


def _excess(job: Job, max_result_bytes: int) -> str | None:
    if job.result_bytes > max_result_bytes:
        return f"the results are larger than {max_result_bytes} bytes: split the job"
    failed, total = job.rows_failed, job.rows_total
    if failed > job.max_failed_share * total:
        limit = f"{job.max_failed_share:.4g}"
        return f"{failed} of {total} rows failed, more than max_failed_share {limit} allows"
    if failed == total:
        return f"all {total} rows failed"
    return None


def retry(job: Job, done: Mapping[int, DoneChunk], now: datetime) -> Change:
    """Do again what failed, and what was not done.

    Args:
        job: the job, ended.
        done: the chunks that were done, by number.
        now: the time.

    Raises:
        IllegalEventError: it has not ended, or nothing failed.
    """
    fresh: dict[str, Any] = {
        "retried_at": now,
        "finished_at": None,
        "reason": "",
        "delivery": None,
        "errors": (),
    }
    if job.is_finished and not job.revision:
        moved = _moved(job, Event.RESTARTED, now, started_at=None, **fresh)
        return Change(job=moved, effects=(Begin(),))
    redone = tuple(sorted(number for number, chunk in done.items() if chunk.failed))
    missing = tuple(number for number in range(job.chunk_count) if number not in done)
    if not redone and not missing:
        msg = "every row of the job has an answer: there is nothing to do again"
        raise IllegalEventError(msg)
    kept = [chunk for chunk in done.values() if not chunk.failed]
    moved = _moved(
        job,
        Event.RETRIED,
        now,
        **fresh,
        chunks_done=len(kept),
        rows_done=sum(chunk.rows for chunk in kept),
        rows_failed=0,
    )
    again = Enqueue(
        revision=job.revision,
        generation=job.generation,
        chunks=tuple(sorted((*redone, *missing))),
        redone=redone,
    )
    return Change(job=moved, effects=(again,))


def adopt(job: Job, revision: str, model_version: str, now: datetime) -> Change:
    """Begin a job again, since nobody of its revision is left: all its rows are answered by one revision."""
    moved = _moved(
        job,
        Event.ADOPTED,
        now,
        revision=revision,
        model_version=model_version,
        generation=job.generation + 1,
        chunks_done=0,
        rows_done=0,
        rows_failed=0,
        result_bytes=0,
        errors=(),
    )
    return Change(job=moved, effects=(ForgetResults(), _all_chunks(moved)))


def _all_chunks(job: Job) -> Enqueue:
    return Enqueue(
        revision=job.revision, generation=job.generation, chunks=tuple(range(job.chunk_count))
    )
