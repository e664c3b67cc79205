"""Webhooks that are due, in Redis: a sorted set of jobs by the time of the next attempt."""

from datetime import datetime, timedelta
from typing import Any

from canarium_runtime.jobs.keys import Keys
from canarium_runtime.jobs.record import Delivery
from canarium_runtime.jobs.redis_client import Client, transact, translated
from canarium_runtime.jobs.store import parse


class Hooks:
    """Whose end is to be told, and when. `store` puts jobs there, with the change that ends them.

    Args:
        client: of Redis.
        keys: names of the keys.
    """

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    async def claim(self, now: datetime, lease: timedelta) -> str | None:
        """Take a job whose end is to be told now; nobody else has it for the time of the lease."""
        hooks = self._keys.hooks

        async def body(pipe: Any) -> str | None:
            due = await pipe.zrangebyscore(hooks, "-inf", now.timestamp(), start=0, num=1)
            pipe.multi()
            if not due:
                return None
            pipe.zadd(hooks, {due[0]: (now + lease).timestamp()})
            return str(due[0].decode())

        found: str | None = await transact(self._client, [hooks], body)
        return found

    async def settle(self, job_id: str, delivery: Delivery, again_at: datetime | None) -> None:
        """Note what became of an attempt to tell a job's end.

        Args:
            job_id: the job.
            delivery: as it is now.
            again_at: when to try again; None: no more.
        """
        keys = self._keys

        async def body(pipe: Any) -> None:
            job = parse(await pipe.get(keys.job(job_id)))
            pipe.multi()
            if job is None or job.delivery is None or job.delivery.id != delivery.id:
                # Deleted or retried meanwhile: there is another end to be told, or none.
                return
            text = job.model_copy(update={"delivery": delivery}).model_dump_json()
            pipe.set(keys.job(job_id), text, keepttl=True)
            if again_at is None:
                pipe.zrem(keys.hooks, job_id)
            else:
                pipe.zadd(keys.hooks, {job_id: again_at.timestamp()})

        await transact(self._client, [keys.job(job_id)], body)

    async def drop(self, job_id: str) -> None:
        """Tell nobody of a job."""
        with translated():
            await self._client.zrem(self._keys.hooks, job_id)
