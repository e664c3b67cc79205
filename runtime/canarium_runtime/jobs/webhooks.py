"""Tell a callback that a job has ended, as the Standard Webhooks specification says.

Headers `webhook-id` (the same at each attempt), `webhook-timestamp` and `webhook-signature`, which is HMAC-SHA256 over
`ID.TIMESTAMP.BODY`. Delivery is at least once: receivers tell a repetition by the id. Redirects are not followed.
"""

import asyncio
import base64
import binascii
import contextlib
import hashlib
import hmac
import logging
import random
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import httpx
import orjson

from canarium_api.jobs_config import JobsConfig
from canarium_api.metric_names import JobWebhookResult
from canarium_runtime.jobs.errors import StoreError, UnreachableError
from canarium_runtime.jobs.hooks import Hooks
from canarium_runtime.jobs.metrics import JobMetrics
from canarium_runtime.jobs.network import AddressRules, GuardedAsyncTransport
from canarium_runtime.jobs.record import Delivery, DeliveryState, Job
from canarium_runtime.jobs.store import Store

_log = logging.getLogger(__name__)
_PREFIX: Final = "whsec_"
_MIN_SECRET_BYTES: Final = 24
_FIRST_DELAY: Final = timedelta(seconds=5)
_GROWTH: Final = 4
_MAX_DELAY: Final = timedelta(hours=1)
_GONE: Final = 410
_POLL_SECONDS: Final = 1.0
_AT_ONCE: Final = 4
"""Attempts of one worker at the same time, so that a receiver that is slow does not hold up the others."""
_LEASE: Final = timedelta(minutes=2)
"""Longer than an attempt: a worker that dies in one leaves it to another."""


def parse_secrets(text: str) -> tuple[bytes, ...]:
    """Read the secrets of a file, one a line.

    Raises:
        ValueError: there is none, or one is malformed. The message does not quote it.
    """
    secrets = []
    for number, line in enumerate(filter(None, map(str.strip, text.splitlines())), 1):
        try:
            secret = base64.b64decode(line.removeprefix(_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            secret = b""
        if not line.startswith(_PREFIX) or len(secret) < _MIN_SECRET_BYTES:
            msg = (
                f"secret {number} of the webhooks is none: write whsec_ and the base64 of at least {_MIN_SECRET_BYTES} "
                "random bytes"
            )
            raise ValueError(msg)
        secrets.append(secret)
    if not secrets:
        msg = "there is no secret for the webhooks"
        raise ValueError(msg)
    return tuple(secrets)


def sign(secrets: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """Give the value of `webhook-signature`: one signature for each secret."""
    signed = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
    digests = (hmac.new(secret, signed, hashlib.sha256).digest() for secret in secrets)
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)


def payload(job: Job) -> bytes:
    """Write the body: the type of the event, and the job as clients see it."""
    shown = job.view()
    del shown["callback"]
    return orjson.dumps(
        {"type": f"job.{job.state.value}", "timestamp": shown["finished_at"], "data": shown}
    )


def delay_after(attempts: int) -> timedelta:
    """How long to wait after some attempts: 5 s, 20 s, 80 s, up to an hour."""
    growth = float(_GROWTH ** min(attempts - 1, 10))
    return min(_FIRST_DELAY * growth, _MAX_DELAY)


class Messenger:
    """Delivers webhooks that are due.

    Args:
        config: settings.
        store: records.
        rules: which addresses may be reached.
        metrics: where it counts.
        now: the clock.
        transport: replaces the network in tests.
    """

    def __init__(
        self,
        config: JobsConfig,
        store: Store,
        rules: AddressRules,
        metrics: JobMetrics,
        now: Callable[[], datetime],
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._config = config
        self._store = store
        self._hooks = Hooks(store.client, store.keys)
        self._metrics = metrics
        self._now = now
        self._client = httpx.AsyncClient(
            transport=transport or GuardedAsyncTransport(rules),
            timeout=config.webhook_timeout.total_seconds(),
            follow_redirects=False,
        )

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(_AT_ONCE):
                    tasks.create_task(self._deliver())
        finally:
            await self._client.aclose()

    async def _deliver(self) -> None:
        while True:
            with contextlib.suppress(StoreError):
                while await self.deliver_one():
                    pass
            await asyncio.sleep(_POLL_SECONDS)

    async def deliver_one(self) -> bool:
        """Make one attempt, if any is due; False: none is."""
        if self._config.webhook_secret_file is None:
            return False
        job_id = await self._hooks.claim(self._now(), _LEASE)
        if job_id is None:
            return False
        job = await self._store.get(job_id)
        if job is None or job.delivery is None or job.callback is None:
            await self._hooks.drop(job_id)
            return True
        status, error = await self._attempt(job, job.callback, job.delivery)
        await self._settle(job, job.delivery, status, error)
        return True

    async def _attempt(
        self, job: Job, url: str, delivery: Delivery
    ) -> tuple[int | None, str | None]:
        timestamp = int(self._now().timestamp())
        body = payload(job)
        try:
            path = Path(self._config.webhook_secret_file or "")
            secrets = parse_secrets(await asyncio.to_thread(path.read_text))
            headers = {
                "content-type": "application/json",
                "user-agent": "canarium",
                "webhook-id": delivery.id,
                "webhook-timestamp": str(timestamp),
                "webhook-signature": sign(secrets, delivery.id, timestamp, body),
            }
            limit = self._config.webhook_timeout.total_seconds() * 2
            async with (
                asyncio.timeout(limit),
                self._client.stream("POST", url, content=body, headers=headers) as response,
            ):
                # What the receiver says beyond its status is not read: it may be endless.
                return response.status_code, None
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            return None, f"no answer ({type(error).__name__})"
        except (UnreachableError, ValueError) as error:
            return None, str(error)
        except OSError:
            return None, "the secret that signs webhooks cannot be read"
        except Exception as error:  # noqa: BLE001 - see below
            # One receiver, whatever it does, must not keep the others from being told.
            _log.exception("a webhook failed in this program itself", extra={"job": job.id})
            return None, f"internal error ({type(error).__name__})"

    async def _settle(
        self, job: Job, delivery: Delivery, status: int | None, error: str | None
    ) -> None:
        attempts = delivery.attempts + 1
        delivered = status is not None and 200 <= status < 300
        gave_up = attempts >= self._config.webhook_attempts or status == _GONE
        state = DeliveryState.PENDING
        result = JobWebhookResult.RETRIED
        if delivered:
            state, result = DeliveryState.DELIVERED, JobWebhookResult.DELIVERED
        elif gave_up:
            state, result = DeliveryState.FAILED, JobWebhookResult.FAILED
        again_at = None
        if state is DeliveryState.PENDING:
            spread = random.uniform(1.0, 1.2)  # noqa: S311 - so that many do not come in step
            again_at = self._now() + delay_after(attempts) * spread
        after = Delivery(
            id=delivery.id, state=state, attempts=attempts, last_status=status, last_error=error
        )
        await self._hooks.settle(job.id, after, again_at)
        self._metrics.webhooks[result].inc()
        if state is DeliveryState.FAILED:
            _log.warning(
                "a webhook was given up",
                extra={"job": job.id, "attempts": attempts, "status": status, "cause": error},
            )
