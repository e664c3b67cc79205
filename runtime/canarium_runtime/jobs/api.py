"""What clients can do with jobs, without HTTP: `routes` carries it."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import datetime, timedelta
from secrets import token_hex
from typing import Any, Final

import httpx
import orjson

from canarium_api.jobs_config import JobsConfig
from canarium_api.runtime_config import RuntimeConfig
from canarium_runtime.errors import ErrorKind, ServingError, invalid
from canarium_runtime.jobs import chunks, decisions, results
from canarium_runtime.jobs.chunks import Row
from canarium_runtime.jobs.decisions import Change
from canarium_runtime.jobs.errors import SourceError, StoreError, UnreachableError
from canarium_runtime.jobs.keys import Keys
from canarium_runtime.jobs.metrics import JobMetrics
from canarium_runtime.jobs.network import AddressRules
from canarium_runtime.jobs.record import Job
from canarium_runtime.jobs.redis_client import Client, connect
from canarium_runtime.jobs.requests import JobRequest, check_source, parse_request
from canarium_runtime.jobs.results import ResultFormat
from canarium_runtime.jobs.states import IllegalEventError, JobState
from canarium_runtime.jobs.store import Store
from canarium_runtime.jobs.tools import new_delivery_id, utc_now

MAX_LISTED: Final = 100
_RETRY_AFTER_SECONDS: Final = 30
_MAX_KEY: Final = 256


def make_store(config: JobsConfig, deployment: str, client: Client) -> Store:
    """Make the store of a ModelDeployment's jobs."""
    return Store(
        client,
        Keys(deployment),
        lifetime=config.job_timeout + timedelta(hours=1),
        result_ttl=config.result_ttl,
        max_result_bytes=config.max_result_bytes,
    )


class Jobs:
    """Takes jobs, and tells of them.

    Args:
        identity: the model's settings.
        config: settings of jobs.
        client: of Redis.
        rules: which addresses callbacks may have; default: by the settings.
        now: the clock.
    """

    def __init__(
        self,
        identity: RuntimeConfig,
        config: JobsConfig,
        client: Client,
        rules: AddressRules | None = None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self.config = config
        self.max_body_bytes = min(identity.max_body_bytes, config.max_job_bytes)
        self.metrics = JobMetrics(identity)
        self._client = client
        self._store = make_store(config, identity.deployment, client)
        self._rules = rules or AddressRules(private_networks=config.networks)
        self._now = now

    @classmethod
    def from_config(cls, identity: RuntimeConfig, config: JobsConfig) -> "Jobs | None":
        """Make it where the settings name a Redis, else None; nothing is sent yet.

        Raises:
            StoreError: the file with the URL cannot be read.
        """
        if config.redis_url_file is None:
            return None
        return cls(identity, config, connect(config.redis_url_file))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def submit(self, body: bytes, client: str, key: str | None) -> tuple[Job, bool]:
        """Take a job.

        Args:
            body: see `JobRequest`.
            client: who asks.
            key: idempotency key: with the same one, the same request is the same job.

        Returns:
            The job, and whether it is new.

        Raises:
            ServingError: MALFORMED, INVALID, CONFLICT (the key stands for another request) or QUEUE_FULL.
            StoreError: Redis failed.
        """
        idempotency = self._idempotency(body, client, key)
        if idempotency is not None and (known := await self._known(idempotency)) is not None:
            return known, False
        request = await asyncio.to_thread(parse_request, body)
        await self._check_callback(request)
        job = Job(
            id=token_hex(16),
            client=client,
            created_at=self._now(),
            source=request.source,
            callback=request.callback.url if request.callback is not None else None,
            max_failed_share=request.max_failed_share,
        )
        packed: list[chunks.Packed] = []
        if request.source is not None:
            check_source(request.source)
        else:
            packed = await asyncio.to_thread(self._pack, request.rows or [])
            job = job.model_copy(
                update={
                    "chunk_count": len(packed),
                    "rows_total": sum(p.rows for p in packed),
                    "input_bytes": sum(len(p.blob) for p in packed),
                }
            )
        await self._check_room(client, job.input_bytes)
        stands_for = (idempotency[0], f"{job.id} {idempotency[1]}") if idempotency else None
        blobs = {number: p.blob for number, p in enumerate(packed)}
        if await self._store.create(job, blobs, stands_for):
            return job, True
        # The same key came twice at once.
        known = await self._known(idempotency) if idempotency is not None else None
        if known is None:
            raise ServingError(ErrorKind.CONFLICT, "the same request is being taken: try again")
        return known, False

    async def newest(self, client: str, limit: int) -> list[Job]:
        """List the client's jobs, newest first."""
        jobs = await self._store.newest(self.config.max_jobs)
        return [job for job in jobs if job.client == client][:limit]

    async def get(self, job_id: str, client: str) -> Job:
        """Read a job.

        Raises:
            ServingError: NOT_FOUND, also where it is another client's.
        """
        job = await self._store.get(job_id) if job_id.isalnum() else None
        if job is None or job.client != client:
            message = "no such job; jobs are forgotten some time after they end"
            raise ServingError(ErrorKind.NOT_FOUND, message)
        return job

    async def cancel(self, job_id: str, client: str) -> Job:
        """End a job; one that has ended stays as it is.

        Raises:
            ServingError: NOT_FOUND.
        """
        await self.get(job_id, client)
        now = self._now()

        def decide(job: Job) -> Change | None:
            if job.is_finished:
                return None
            return decisions.cancel(job, now, new_delivery_id())

        after = await self._store.change(job_id, decide)
        if after is not None and after.finished_at == now:
            self.metrics.ended(after, now)
        return after if after is not None else await self.get(job_id, client)

    async def retry(self, job_id: str, client: str) -> Job:
        """Do again what failed of a job that has ended, and what was not done.

        Raises:
            ServingError: NOT_FOUND, CONFLICT (nothing is to be done again, or it runs), or QUEUE_FULL.
        """
        await self.get(job_id, client)
        await self._check_room(client, 0)
        now = self._now()
        try:
            after = await self._store.retry(job_id, lambda j, done: decisions.retry(j, done, now))
        except IllegalEventError as error:
            raise ServingError(ErrorKind.CONFLICT, str(error)) from error
        return after if after is not None else await self.get(job_id, client)

    async def delete(self, job_id: str, client: str) -> None:
        """Forget a job that has ended, with its results.

        Raises:
            ServingError: NOT_FOUND, or CONFLICT while it waits or runs.
        """
        job = await self.get(job_id, client)
        if not job.is_finished:
            message = f"the job is {job.state}: cancel it first"
            raise ServingError(ErrorKind.CONFLICT, message)
        await self._store.delete([job_id])

    async def results(
        self, job_id: str, client: str, form: ResultFormat, *, partial: bool
    ) -> tuple[Job, AsyncIterator[bytes]]:
        """Give the results, in the order of the rows, a chunk at a time.

        Args:
            job_id: the job.
            client: who asks.
            form: JSON lines or CSV.
            partial: take what there is of a job that has not succeeded.

        Raises:
            ServingError: NOT_FOUND, or CONFLICT where the job has not succeeded and `partial` is false.
        """
        job = await self.get(job_id, client)
        if job.state is not JobState.SUCCEEDED and not partial:
            message = f"the job is {job.state}: ask with partial=true for the rows that are done"
            raise ServingError(ErrorKind.CONFLICT, message)
        return job, self._stream(job, form, complete=job.state is JobState.SUCCEEDED)

    async def _stream(
        self, job: Job, form: ResultFormat, *, complete: bool
    ) -> AsyncIterator[bytes]:
        if form is ResultFormat.CSV:
            yield results.csv_head(job.outputs)
        count = 0
        async for blob in self._store.results(job):
            count += 1
            if form is ResultFormat.CSV:
                yield await asyncio.to_thread(results.csv_lines, blob, job.outputs)
            else:
                yield await asyncio.to_thread(chunks.result_lines, blob)
        if complete and count < job.chunk_count:
            # The connection breaks: a file that ends early must not look whole.
            msg = "the job was deleted or begun again while its results were read"
            raise StoreError(msg)

    def _pack(self, rows: list[Any]) -> list[chunks.Packed]:
        def lines() -> Any:
            for row in rows:
                line: Row = orjson.dumps(row)
                yield line

        try:
            return list(
                chunks.split(
                    lines(),
                    chunk_rows=self.config.chunk_rows,
                    max_rows=self.config.max_rows,
                    max_bytes=self.config.max_job_bytes,
                )
            )
        except SourceError as error:
            raise ServingError(ErrorKind.BODY_TOO_LARGE, str(error), field="rows") from error

    def _idempotency(self, body: bytes, client: str, key: str | None) -> tuple[str, str] | None:
        if key is None:
            return None
        if not 0 < len(key) <= _MAX_KEY:
            message = f"idempotency-key: expected 1 to {_MAX_KEY} characters"
            raise ServingError(ErrorKind.MALFORMED, message, field="idempotency-key")
        name = self._store.keys.idempotency(_digest(client.encode()), _digest(key.encode()))
        return name, _digest(body)

    async def _known(self, idempotency: tuple[str, str]) -> Job | None:
        found = await self._store.known(idempotency[0])
        if found is None:
            return None
        job_id, _, digest = found.partition(" ")
        if digest != idempotency[1]:
            message = "idempotency-key: it stands for another request: use a new key"
            raise ServingError(ErrorKind.CONFLICT, message, field="idempotency-key")
        return await self._store.get(job_id)

    async def _check_callback(self, request: JobRequest) -> None:
        if request.callback is None:
            return
        if self.config.webhook_secret_file is None:
            message = "callback: this server has no secret to sign webhooks with; ask for the job's state instead"
            raise ServingError(ErrorKind.INVALID, message, field="callback")
        try:
            url = httpx.URL(request.callback.url)
        except httpx.InvalidURL as error:
            raise invalid("callback.url", "a URL", "none") from error
        if url.scheme not in ("https", "http") or not url.host:
            raise invalid("callback.url", "https://HOST/PATH", "another kind of URL")
        try:
            await asyncio.to_thread(self._rules.check, url)
        except UnreachableError as error:
            message = f"callback.url: {error}"
            raise ServingError(ErrorKind.INVALID, message, field="callback.url") from error
        except httpx.ConnectError as error:
            raise invalid("callback.url", "a host that can be resolved", url.host) from error

    async def _check_room(self, client: str, size: int) -> None:
        """Hold to the bounds. Requests that come at the same moment may pass them by one another's size."""
        config = self.config
        unfinished = await self._store.unfinished()
        own = sum(1 for owner in unfinished.values() if owner == client)
        stored = await self._store.stored_bytes() + size
        message = None
        if len(unfinished) >= config.max_unfinished:
            message = f"{config.max_unfinished} jobs wait or run, which is the limit"
        elif own >= config.max_unfinished_per_client:
            message = f"{own} jobs of yours wait or run, which is the limit for one client"
        elif stored > config.max_stored_bytes:
            message = f"all jobs together would take more than {config.max_stored_bytes} bytes: delete old ones"
        if message is not None:
            raise ServingError(
                ErrorKind.QUEUE_FULL, message, retry_after_seconds=_RETRY_AFTER_SECONDS
            )
        with suppress(StoreError):
            await self._store.make_room(config.max_jobs)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
