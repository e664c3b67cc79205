"""What a worker works with."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from secrets import token_hex

from canarium_api.jobs_config import JobsConfig
from canarium_api.runtime_config import RuntimeConfig
from canarium_runtime.jobs.inference import RowRunner
from canarium_runtime.jobs.metrics import JobMetrics
from canarium_runtime.jobs.queue import Queue
from canarium_runtime.jobs.sources import Opener
from canarium_runtime.jobs.store import Store


def utc_now() -> datetime:
    """Give the present instant."""
    return datetime.now(UTC)


def new_delivery_id() -> str:
    """Make the id of a webhook."""
    return f"msg_{token_hex(16)}"


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What a worker works with.

    Args:
        identity: the model's settings: whose work it does.
        config: settings of jobs.
        store: records.
        intake: jobs that are to be begun.
        queue: chunks of its revision.
        runner: answers rows.
        opener: gets sources.
        metrics: where it counts.
        now: the clock.
    """

    identity: RuntimeConfig
    config: JobsConfig
    store: Store
    intake: Queue
    queue: Queue
    runner: RowRunner
    opener: Opener
    metrics: JobMetrics
    now: Callable[[], datetime] = utc_now
