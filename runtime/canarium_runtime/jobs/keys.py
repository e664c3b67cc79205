"""Names of all keys in Redis. All of one ModelDeployment begin alike, so that several can share a Redis."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Keys:
    """Names for one ModelDeployment.

    Args:
        deployment: `namespace/name`.
    """

    deployment: str

    @property
    def _base(self) -> str:
        return f"canarium:{{{self.deployment}}}:jobs"

    @property
    def index(self) -> str:
        """Sorted set of all jobs by the time of their submission."""
        return f"{self._base}:index"

    @property
    def unfinished(self) -> str:
        """Hash from each job that waits or runs to its client."""
        return f"{self._base}:unfinished"

    @property
    def sizes(self) -> str:
        """Hash from each job to the bytes that it takes."""
        return f"{self._base}:sizes"

    @property
    def intake(self) -> str:
        """Stream of jobs that are to be begun."""
        return f"{self._base}:intake"

    @property
    def hooks(self) -> str:
        """Sorted set of jobs whose end is to be told, by the time when that is due."""
        return f"{self._base}:hooks"

    @property
    def upkeep(self) -> str:
        """Lock of whoever does the upkeep."""
        return f"{self._base}:upkeep"

    def chunks(self, revision: str) -> str:
        """Stream of the chunks of a revision."""
        return f"{self._base}:chunks:{revision}"

    def alive(self, revision: str) -> str:
        """There while a worker of a revision has been heard of."""
        return f"{self._base}:alive:{revision}"

    def consumer(self, name: str) -> str:
        """There while one worker has been heard of."""
        return f"{self._base}:consumer:{name}"

    def job(self, job: str) -> str:
        """Record of a job."""
        return f"{self._base}:job:{job}"

    def inputs(self, job: str) -> str:
        """Hash from number to chunk."""
        return f"{self._base}:in:{job}"

    def results(self, job: str) -> str:
        """Hash from number of the chunk to its results."""
        return f"{self._base}:out:{job}"

    def done(self, job: str) -> str:
        """Hash from number of each chunk that has counted to `ROWS:FAILED`."""
        return f"{self._base}:done:{job}"

    def of_job(self, job: str) -> tuple[str, ...]:
        """All that belongs to a job alone."""
        return self.job(job), self.inputs(job), self.results(job), self.done(job)

    def idempotency(self, client: str, key: str) -> str:
        """Job that a client's key stands for; both are digests."""
        return f"{self._base}:key:{client}:{key}"
