"""`Job`: all that is known of a job but its rows and results; kept as JSON in Redis."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from canarium_runtime.jobs.states import FINISHED, JobState

MAX_ERRORS = 20
"""Failed rows that a record names; the results have all."""


class Format(StrEnum):
    """Formats of a source."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


class _Value(BaseModel):
    # A record may have been written by a later version, during an update: what it has besides is left alone.
    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


class Source(_Value):
    """Where rows come from, if not with the request."""

    model_config = ConfigDict(extra="forbid")

    uri: str = Field(min_length=1, max_length=2048)
    """`https://`, `http://` with a digest, or `file:///` in the directory that the workers allow."""
    format: Format | None = None
    """Default: by the ending of the path."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Expected digest of the file."""
    columns: dict[str, str | list[str]] | None = Field(default=None, max_length=1000)
    """CSV and Parquet: the column, or the columns in order, of each of the model's inputs. Default: the column with the
    input's name."""


class RowError(_Value):
    """Why a row has no answer."""

    row: int
    """From 0."""
    code: str
    """As in the answers of `/predict`."""
    message: str
    field: str | None = None
    """Path in the row."""


class DeliveryState(StrEnum):
    """Where a webhook stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class Delivery(_Value):
    """The webhook of a job's end."""

    id: str
    """The same at each attempt, so that a receiver can tell a repetition."""
    state: DeliveryState = DeliveryState.PENDING
    attempts: int = 0
    last_status: int | None = None
    """HTTP status of the last attempt."""
    last_error: str | None = None
    """Why there was none."""


class Job(_Value):
    """One job."""

    id: str
    client: str = ""
    """Who may see it."""
    state: JobState = JobState.QUEUED
    reason: str = ""
    """Why it failed; empty otherwise."""
    created_at: datetime
    started_at: datetime | None = None
    retried_at: datetime | None = None
    finished_at: datetime | None = None
    revision: str = ""
    """Whose workers answer it; empty until it is begun."""
    model_version: str = ""
    generation: int = 0
    """Raised when another revision begins it again: what the one before still does then counts for nothing."""
    source: Source | None = None
    """None: the rows came with the request."""
    callback: str | None = None
    """URL that is told of its end."""
    max_failed_share: float = 1.0
    """Share of failed rows above which it fails."""
    chunk_count: int = 0
    """0: not known yet."""
    chunks_done: int = 0
    rows_total: int = 0
    """0: not known yet."""
    rows_done: int = 0
    """Rows with an answer or an error."""
    rows_failed: int = 0
    input_bytes: int = 0
    """In Redis."""
    result_bytes: int = 0
    """In Redis."""
    outputs: tuple[str, ...] = ()
    """The model's outputs, in its order: columns of a CSV."""
    errors: tuple[RowError, ...] = ()
    """The first rows that failed, by number; at most MAX_ERRORS."""
    delivery: Delivery | None = None
    """None: nobody is to be told, or not yet."""

    @property
    def is_finished(self) -> bool:
        """Whether it has ended."""
        return self.state in FINISHED

    @property
    def stored_bytes(self) -> int:
        """What it takes of the bound on all jobs."""
        return self.input_bytes + self.result_bytes

    def expires_at(self, timeout: timedelta) -> datetime:
        """When it fails if it has not ended; a retry has all the time again."""
        return (self.retried_at or self.created_at) + timeout

    def view(self) -> dict[str, Any]:
        """What a client sees."""
        share = self.rows_done / self.rows_total if self.rows_total else 0.0
        shown: dict[str, Any] = {
            "id": self.id,
            "state": self.state.value,
            "reason": self.reason or None,
            "progress": round(share, 4),
            "rows": {
                "total": self.rows_total or None,
                "done": self.rows_done,
                "failed": self.rows_failed,
            },
            "model_version": self.model_version or None,
            "revision": self.revision or None,
            "created_at": _text(self.created_at),
            "started_at": _text(self.started_at),
            "finished_at": _text(self.finished_at),
            "errors": [error.model_dump(exclude_none=True) for error in self.errors],
            "callback": None,
        }
        if self.delivery is not None:
            shown["callback"] = self.delivery.model_dump(mode="json")
        return shown


def _text(at: datetime | None) -> str | None:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z") if at is not None else None
