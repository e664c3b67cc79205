"""Which workers there are, in Redis: signs of life that last for a while."""

from datetime import timedelta

from canarium_runtime.jobs.keys import Keys
from canarium_runtime.jobs.redis_client import Client, translated


class Presence:
    """Signs of life of workers, and who of them does the upkeep.

    Args:
        client: of Redis.
        keys: names of the keys.
    """

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    async def announce(self, revision: str, consumer: str, ttl: timedelta) -> None:
        """Let others know that a worker is there."""
        milliseconds = round(ttl.total_seconds() * 1000)
        with translated():
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.set(self._keys.alive(revision), consumer, px=milliseconds)
                pipe.set(self._keys.consumer(consumer), "1", px=milliseconds)
                await pipe.execute()

    async def has_workers(self, revision: str) -> bool:
        """Whether a worker of a revision has been heard of lately."""
        with translated():
            return bool(await self._client.exists(self._keys.alive(revision)))

    async def is_alive(self, consumer: str) -> bool:
        """Whether a worker has been heard of lately."""
        with translated():
            return bool(await self._client.exists(self._keys.consumer(consumer)))

    async def lead_upkeep(self, consumer: str, ttl: timedelta) -> bool:
        """Tell whether this worker does the upkeep now: one does at a time."""
        milliseconds = max(1, round(ttl.total_seconds() * 1000))
        with translated():
            return bool(
                await self._client.set(self._keys.upkeep, consumer, nx=True, px=milliseconds)
            )
