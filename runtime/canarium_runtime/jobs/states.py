"""States of a job, as one table.

Rules: everything that moves the state is in TRANSITIONS; an event that the table does not list for a state leaves the
job as it was.

Theory of operation. A job is QUEUED until a worker has read its rows: then it is RUNNING, and belongs to that worker's
revision. When its last chunk is done it has SUCCEEDED, or FAILED where too many rows did. Whoever began it may be gone
for good; then workers of another revision ADOPT it and begin again, so that one revision answers all rows. A job that
has ended can be retried: what failed, and what was not done, is done again.
"""

from enum import StrEnum


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Event(StrEnum):
    """What happened to a job."""

    PLANNED = "planned"
    """Its rows are known, and a revision has begun it."""
    REJECTED = "rejected"
    """Its source cannot be read."""
    PROGRESSED = "progressed"
    """A chunk is done, and others are not."""
    COMPLETED = "completed"
    """The last chunk is done."""
    EXCEEDED = "exceeded"
    """More rows failed than may, or the results are too large."""
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    """It took longer than jobs may."""
    ADOPTED = "adopted"
    """Another revision begins it again."""
    RESTARTED = "restarted"
    """Retried, before its rows were known."""
    RETRIED = "retried"
    """Retried: some chunks are to be done again."""


_ENDED = {Event.RESTARTED: JobState.QUEUED, Event.RETRIED: JobState.RUNNING}

TRANSITIONS: dict[JobState, dict[Event, JobState]] = {
    JobState.QUEUED: {
        Event.PLANNED: JobState.RUNNING,
        Event.REJECTED: JobState.FAILED,
        Event.CANCELLED: JobState.CANCELLED,
        Event.EXPIRED: JobState.FAILED,
    },
    JobState.RUNNING: {
        Event.PROGRESSED: JobState.RUNNING,
        Event.COMPLETED: JobState.SUCCEEDED,
        Event.EXCEEDED: JobState.FAILED,
        Event.CANCELLED: JobState.CANCELLED,
        Event.EXPIRED: JobState.FAILED,
        Event.ADOPTED: JobState.RUNNING,
    },
    JobState.SUCCEEDED: {Event.RETRIED: JobState.RUNNING},
    JobState.FAILED: dict(_ENDED),
    JobState.CANCELLED: dict(_ENDED),
}

FINISHED = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
"""States in which nothing happens unless somebody asks for it."""


class IllegalEventError(Exception):
    """The table has no such move."""


def target(state: JobState, event: Event) -> JobState:
    """Look a move up.

    Raises:
        IllegalEventError: the table has none.
    """
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        msg = f"a job that is {state} cannot be {event}"
        raise IllegalEventError(msg) from None
