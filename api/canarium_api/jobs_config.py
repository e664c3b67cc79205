"""`JobsConfig`: what servers and workers of batch jobs read from their environment, beside `RuntimeConfig`.

Secrets are files, so that none of them is ever in a ConfigMap or in the environment.
"""

import ipaddress
from datetime import timedelta
from typing import ClassVar, Final, Self

from pydantic import Field, field_validator, model_validator

from canarium_api.duration import Duration
from canarium_api.environment import EnvironmentModel

WORKER_PORT: Final = 8082
"""Where workers offer /metrics and /health."""
REDIS_FILE: Final = "/etc/canarium/jobs/redis/url"
"""Where the operator mounts the Redis URL."""
WEBHOOK_FILE: Final = "/etc/canarium/jobs/webhook/secret"
"""Where the operator mounts the secret that signs webhooks."""
STABLE_FILE: Final = "/etc/canarium/jobs/stable/revision"
"""Where workers read which revision begins new jobs."""
_MAX_CHUNKS: Final = 100_000
"""In one job: they are put into the queue at once."""


class JobsConfig(EnvironmentModel):
    """Settings of batch jobs. They are off unless a Redis is named."""

    env_prefix: ClassVar[str] = "CANARIUM_JOBS_"

    redis_url_file: str | None = None
    """File with the URL of the Redis that holds jobs, `redis://` or `rediss://`. Default: no jobs."""
    stable_file: str | None = None
    """File that names the revision which begins new jobs; workers of others only finish what they began.
    Default: every worker begins jobs."""
    webhook_secret_file: str | None = None
    """File with the secret that signs webhooks, `whsec_` and base64; one a line, for rotation: webhooks are signed with
    each. Default: jobs with a callback are refused."""
    private_networks: str = ""
    """Networks, comma-separated CIDRs, that sources and callbacks may be in although they are not public; `http://` is
    allowed there, too."""
    file_directory: str | None = None
    """Directory that `file://` sources may be read from, on the workers. Default: none are."""
    download_dir: str = "/tmp/jobs"  # noqa: S108 - an emptyDir of the pod
    """Where workers keep a source while they read it."""
    chunk_rows: int = Field(default=256, ge=1, le=65_536)
    """Rows that a worker takes at once."""
    max_rows: int = Field(default=1_000_000, ge=1)
    """Most rows in one job."""
    max_job_bytes: int = Field(default=64 * 1024**2, ge=1024)
    """Most bytes of a job's source, and of its rows as they wait in Redis."""
    max_result_bytes: int = Field(default=256 * 1024**2, ge=1024)
    """Most bytes of a job's results in Redis; a job that exceeds them fails."""
    max_stored_bytes: int = Field(default=1024**3, ge=1024)
    """Bytes of all jobs in Redis above which no new ones are taken (429)."""
    max_jobs: int = Field(default=1000, ge=1, le=10_000)
    """Most jobs that are remembered; the oldest that have ended are forgotten for new ones."""
    max_unfinished: int = Field(default=100, ge=1, le=10_000)
    """Most jobs that wait or run; above it 429."""
    max_unfinished_per_client: int = Field(default=16, ge=1)
    """The same, for one client."""
    result_ttl: Duration = timedelta(days=1)
    """How long a job and its results are kept after it ended."""
    job_timeout: Duration = timedelta(days=1)
    """From submission to end; a job that takes longer fails."""
    source_timeout: Duration = timedelta(minutes=10)
    """For fetching a source."""
    lease: Duration = timedelta(seconds=60)
    """A worker that has not been heard of for so long has lost its chunk to another one."""
    max_attempts: int = Field(default=3, ge=1, le=100)
    """Workers that a chunk may outlive; then its rows fail."""
    concurrency: int = Field(default=1, ge=1, le=64)
    """Chunks that one worker has under way."""
    webhook_attempts: int = Field(default=8, ge=1, le=20)
    """Attempts to deliver a webhook before it is given up; 8 take about two and a half hours."""
    webhook_timeout: Duration = timedelta(seconds=10)
    """For one delivery."""
    drain_timeout: Duration = timedelta(seconds=30)
    """How long a worker that is told to stop may go on with its chunk; then it gives the chunk back."""
    host: str = "0.0.0.0"  # noqa: S104 - a pod's address is not known beforehand
    """Address of a worker's /metrics and /health."""
    port: int = Field(default=WORKER_PORT, ge=0, le=65535)
    """Port of a worker's /metrics and /health."""

    @field_validator("private_networks")
    @classmethod
    def _are_networks(cls, value: str) -> str:
        parse_networks(value)
        return value

    @model_validator(mode="after")
    def _leases_are_long_enough(self) -> Self:
        if self.lease < timedelta(milliseconds=100):
            msg = "the lease must be at least 100ms, since a worker renews it while it computes"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _counts_fit(self) -> Self:
        if self.max_unfinished > self.max_jobs:
            msg = f"max_unfinished ({self.max_unfinished}) must not be above max_jobs ({self.max_jobs})"
            raise ValueError(msg)
        if self.max_rows > self.chunk_rows * _MAX_CHUNKS:
            msg = f"max_rows must not be above {_MAX_CHUNKS} times chunk_rows: raise chunk_rows"
            raise ValueError(msg)
        return self

    @property
    def networks(self) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        """`private_networks`, parsed."""
        return parse_networks(self.private_networks)


def parse_networks(text: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    """Read comma-separated CIDRs.

    Raises:
        ValueError: one is none.
    """
    return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())
