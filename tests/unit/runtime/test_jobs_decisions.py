"""What becomes of a job: the table, and properties of whatever may happen to it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canarium_runtime.jobs import decisions
from canarium_runtime.jobs.decisions import (
    Announce,
    Begin,
    ChunkDone,
    DoneChunk,
    Enqueue,
    ForgetResults,
    Plan,
)
from canarium_runtime.jobs.record import MAX_ERRORS, Job, RowError
from canarium_runtime.jobs.states import FINISHED, TRANSITIONS, Event, IllegalEventError, JobState
from canarium_runtime.jobs.states import target as move

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
PLAN = Plan(revision="r1", model_version="7", rows=30, chunks=3, input_bytes=100, outputs=("y",))


def queued(**fields: Any) -> Job:
    return Job(id="j1", created_at=NOW, **fields)


def running(**fields: Any) -> Job:
    return decisions.plan(queued(**fields), PLAN, NOW).job


def done(chunk: int, failed: int = 0, generation: int = 0, size: int = 10) -> ChunkDone:
    errors = tuple(
        RowError(row=chunk * 10 + n, code="model_failed", message="it failed")
        for n in range(min(failed, MAX_ERRORS))
    )
    return ChunkDone(
        chunk=chunk,
        generation=generation,
        rows=10,
        failed=failed,
        result_bytes=size,
        errors=errors,
    )


def finish(job: Job, result: ChunkDone, max_bytes: int = 1000) -> decisions.Change | None:
    return decisions.finish_chunk(
        job, result, max_result_bytes=max_bytes, now=LATER, delivery_id="m"
    )


def finished(job: Job, *results: ChunkDone) -> Job:
    for result in results:
        change = finish(job, result)
        assert change is not None
        job = change.job
    return job


@pytest.mark.parametrize("state", JobState)
@pytest.mark.parametrize("event", Event)
def test_an_event_moves_the_state_as_the_table_says_or_is_refused(
    state: JobState, event: Event
) -> None:
    """Nothing else moves it."""
    if event in TRANSITIONS[state]:
        assert move(state, event) is TRANSITIONS[state][event]
    else:
        with pytest.raises(IllegalEventError, match=f"{state} cannot be {event}"):
            move(state, event)


def test_only_a_retry_leads_out_of_an_end() -> None:
    """A job that has ended stays so, whatever workers still say of it."""
    for state in FINISHED:
        assert set(TRANSITIONS[state]) <= {Event.RETRIED, Event.RESTARTED}


def test_a_job_belongs_to_the_revision_that_begins_it() -> None:
    """All of its chunks go before that revision's workers."""
    change = decisions.plan(queued(), PLAN, LATER)
    assert (change.job.state, change.job.revision) == (JobState.RUNNING, "r1")
    assert change.job.started_at == LATER
    assert change.effects == (Enqueue(revision="r1", generation=0, chunks=(0, 1, 2)),)


def test_the_last_chunk_ends_the_job() -> None:
    """Whatever their order."""
    job = finished(running(), done(2), done(0))
    assert (job.state, job.rows_done, job.finished_at) == (JobState.RUNNING, 20, None)
    job = finished(job, done(1, failed=3))
    assert (job.state, job.rows_done, job.rows_failed) == (JobState.SUCCEEDED, 30, 3)
    assert job.finished_at == LATER


@pytest.mark.parametrize(
    ("share", "failed", "state"),
    [
        (0.1, (3, 0, 0), JobState.SUCCEEDED),
        (0.1, (4, 0, 0), JobState.FAILED),
        (0.0, (0, 1, 0), JobState.FAILED),
        (1.0, (10, 10, 9), JobState.SUCCEEDED),
        (1.0, (10, 10, 10), JobState.FAILED),
    ],
)
def test_a_job_fails_when_more_rows_failed_than_may(
    share: float, failed: tuple[int, ...], state: JobState
) -> None:
    """At once, not at its end; and in any case when all rows failed."""
    job = running(max_failed_share=share)
    for chunk, count in enumerate(failed):
        change = finish(job, done(chunk, failed=count))
        assert change is not None
        job = change.job
        if job.is_finished:
            break
    assert job.state is state
    if state is JobState.FAILED:
        assert "30 rows failed" in job.reason


def test_a_job_whose_results_are_too_large_fails() -> None:
    """Redis holds no more of it than the limit and one chunk."""
    change = finish(running(), done(0, size=101), max_bytes=100)
    assert change is not None
    assert change.job.state is JobState.FAILED
    assert "larger than 100 bytes" in change.job.reason


@pytest.mark.parametrize(
    "job",
    [
        decisions.cancel(running(), NOW, "m").job,
        decisions.adopt(running(), "r2", "8", NOW).job,
        queued(),
    ],
)
def test_a_chunk_of_a_job_that_went_on_without_it_counts_for_nothing(job: Job) -> None:
    """Its job has ended, or another revision has begun it again."""
    assert finish(job, done(0)) is None


def test_a_callback_is_told_of_every_end_and_of_nothing_else() -> None:
    """With an id that stays the same."""
    job = running(callback="https://example.com")
    assert finish(job, done(0)).effects == ()  # type: ignore[union-attr]
    ends = [
        decisions.cancel(job, NOW, "m1"),
        decisions.expire(job, "too long", NOW, "m1"),
        decisions.reject(queued(callback="https://example.com"), "no file", NOW, "m1"),
        finish(finished(job, done(0), done(1)), done(2)),
    ]
    for end in ends:
        assert end is not None
        assert end.effects == (Announce(),)
        assert end.job.delivery is not None


def test_a_retry_does_what_failed_and_what_was_not_done() -> None:
    """Chunks without a failed row keep their results."""
    job = finished(running(), done(0), done(1, failed=2))
    job = decisions.cancel(job, LATER, "m").job
    known = {0: DoneChunk(rows=10, failed=0), 1: DoneChunk(rows=10, failed=2)}
    change = decisions.retry(job, known, LATER)
    assert change.effects == (Enqueue(revision="r1", generation=0, chunks=(1, 2), redone=(1,)),)
    assert (change.job.state, change.job.rows_done, change.job.rows_failed) == (
        JobState.RUNNING,
        10,
        0,
    )
    assert (change.job.errors, change.job.finished_at, change.job.chunks_done) == ((), None, 1)
    again = finished(change.job, done(1), done(2))
    assert (again.state, again.rows_done) == (JobState.SUCCEEDED, 30)


def test_a_retry_of_a_job_that_nobody_began_puts_it_back() -> None:
    """Its source may be there now."""
    job = decisions.reject(queued(), "no file", LATER, "m").job
    change = decisions.retry(job, {}, LATER)
    assert change.effects == (Begin(),)
    assert (change.job.state, change.job.reason) == (JobState.QUEUED, "")


@pytest.mark.parametrize(
    "job", [queued(), running(), finished(running(), done(0), done(1), done(2))]
)
def test_there_is_nothing_to_retry_while_a_job_runs_or_when_no_row_failed(job: Job) -> None:
    """It says so."""
    known = {n: DoneChunk(rows=10, failed=0) for n in range(3)} if job.is_finished else {}
    with pytest.raises(IllegalEventError):
        decisions.retry(job, known, LATER)


def test_another_revision_begins_a_job_from_the_start() -> None:
    """So that one revision answers all of its rows."""
    change = decisions.adopt(finished(running(), done(0, failed=1)), "r2", "8", LATER)
    assert change.effects == (
        ForgetResults(),
        Enqueue(revision="r2", generation=1, chunks=(0, 1, 2)),
    )
    job = change.job
    assert (job.rows_done, job.rows_failed, job.errors, job.result_bytes) == (0, 0, (), 0)


@given(
    order=st.permutations(range(3)),
    failed=st.lists(st.integers(0, 10), min_size=3, max_size=3),
    share=st.floats(0, 1),
)
def test_the_counts_of_a_job_do_not_depend_on_the_order_of_its_chunks(
    order: list[int], failed: list[int], share: float
) -> None:
    """Rows are never counted twice, errors are the first by number, and the record stays small."""
    job = running(max_failed_share=share)
    counted = 0
    for chunk in order:
        change = finish(job, done(chunk, failed=failed[chunk]))
        if change is None:
            assert job.is_finished
            continue
        job, counted = change.job, counted + 1
    assert job.rows_done == 10 * counted
    assert job.is_finished
    assert len(job.errors) <= MAX_ERRORS
    assert [e.row for e in job.errors] == sorted({e.row for e in job.errors})
    if counted == 3 and sum(failed) < 30:
        assert (job.state is JobState.FAILED) == (sum(failed) > share * 30)
