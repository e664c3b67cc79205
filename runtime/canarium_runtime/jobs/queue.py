"""Work in Redis Streams: taken under a lease, acknowledged with its result, taken over from the dead.

A stream's entries stay until they are acknowledged (`store` does it in the transaction that keeps the result, and
deletes the entry). Who takes one has it for the time of the lease, and renews that while it works. An entry whose
lease is over is taken by another worker; Redis counts how often that was.
"""

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from redis.exceptions import ResponseError

from canarium_runtime.jobs.redis_client import Client, translated

GROUP: Final = "workers"
BLOCK_SECONDS: Final = 1.0
"""How long a read waits for work; also how soon the work of the dead is looked for."""
_FORGOTTEN_AFTER: Final = timedelta(days=1)
"""Names of workers that are gone are kept for so long."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Work that was taken."""

    stream: str
    id: str
    fields: Mapping[str, str]
    deliveries: int
    """How often it was taken, this time included."""

    @property
    def job(self) -> str:
        """The job that it is of."""
        return self.fields["job"]

    @property
    def chunk(self) -> int:
        """Number of the chunk; only in streams of chunks."""
        return int(self.fields["chunk"])

    @property
    def generation(self) -> int:
        """Of the job when it was put there."""
        return int(self.fields["generation"])


class Queue:
    """One stream, as one worker sees it.

    Args:
        client: of Redis.
        stream: key of the stream.
        consumer: the worker's name; no other worker may have it.
        lease: how long an entry is the worker's without a renewal.
    """

    def __init__(self, client: Client, stream: str, consumer: str, lease: timedelta) -> None:
        self._client = client
        self.stream = stream
        self._consumer = consumer
        self._lease_ms = math.ceil(lease.total_seconds() * 1000)
        self._cursor = "0-0"

    async def prepare(self) -> None:
        """Make the stream, if there is none."""
        with translated():
            try:
                await self._client.xgroup_create(self.stream, GROUP, id="0", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise

    async def take(self, *, block_seconds: float = BLOCK_SECONDS) -> Entry | None:
        """Take an entry: one whose lease is over, else a new one; None: there is none.

        Raises:
            StoreError: Redis failed, or has lost the stream; `prepare` makes it anew.
        """
        with translated():
            lost = await self._take_over()
            if lost is not None:
                return lost
            answer = await self._client.xreadgroup(
                GROUP,
                self._consumer,
                {self.stream: ">"},
                count=1,
                block=max(1, round(block_seconds * 1000)),
            )
            for _, entries in _pairs(answer):
                for entry_id, fields in entries:
                    return self._entry(entry_id, fields, 1)
            return None

    async def _take_over(self) -> Entry | None:
        answer = await self._client.xautoclaim(
            self.stream, GROUP, self._consumer, self._lease_ms, self._cursor, count=1
        )
        self._cursor = _text(answer[0])
        for entry_id, fields in answer[1]:
            if fields:
                return self._entry(entry_id, fields, await self._deliveries(entry_id))
        return None

    async def _deliveries(self, entry_id: Any) -> int:
        found = await self._client.xpending_range(
            self.stream, GROUP, min=entry_id, max=entry_id, count=1
        )
        return int(found[0]["times_delivered"]) if found else 1

    async def renew(self, entry: Entry) -> bool:
        """Have the lease anew; False: somebody else has the entry, or it is done."""
        with translated():
            found = await self._client.xpending_range(
                self.stream, GROUP, min=entry.id, max=entry.id, count=1, consumername=self._consumer
            )
            if not found:
                return False
            await self._claim(entry, idle_ms=0, deliveries=entry.deliveries)
            return True

    async def give_back(self, entry: Entry, *, counts: bool) -> None:
        """Let another worker have the entry at once.

        Args:
            entry: what was taken.
            counts: whether this was an attempt; a worker that is told to stop has made none.
        """
        with translated():
            deliveries = entry.deliveries if counts else entry.deliveries - 1
            await self._claim(entry, idle_ms=self._lease_ms + 1, deliveries=deliveries)

    async def _claim(self, entry: Entry, *, idle_ms: int, deliveries: int) -> None:
        await self._client.xclaim(
            self.stream,
            GROUP,
            self._consumer,
            0,
            [entry.id],
            idle=idle_ms,
            retrycount=max(0, deliveries),
            justid=True,
        )

    async def drop(self, entry: Entry) -> None:
        """Acknowledge an entry that is of no use."""
        with translated():
            async with self._client.pipeline(transaction=True) as pipe:
                pipe.xack(self.stream, GROUP, entry.id)
                pipe.xdel(self.stream, entry.id)
                await pipe.execute()

    async def forget_gone(
        self, is_alive: Callable[[str], Awaitable[bool]], after: timedelta = _FORGOTTEN_AFTER
    ) -> None:
        """Delete the names of workers that are gone and hold nothing; else they would be kept for ever.

        Args:
            is_alive: tells of a name whether its worker has been heard of lately.
            after: how long a worker must have done nothing.
        """
        with translated():
            for consumer in await self._client.xinfo_consumers(self.stream, GROUP):
                name = _text(consumer["name"])
                idle = timedelta(milliseconds=int(consumer["idle"]))
                if consumer["pending"] or idle < after or await is_alive(name):
                    continue
                await self._client.xgroup_delconsumer(self.stream, GROUP, name)

    async def leave(self) -> None:
        """Delete this worker's own name, if it holds nothing: entries go with their owner's name."""
        with translated():
            for consumer in await self._client.xinfo_consumers(self.stream, GROUP):
                if _text(consumer["name"]) == self._consumer and not consumer["pending"]:
                    await self._client.xgroup_delconsumer(self.stream, GROUP, self._consumer)

    async def length(self) -> int:
        """Entries that wait or are worked on."""
        with translated():
            return int(await self._client.xlen(self.stream))

    async def oldest_seconds(self, now: float) -> float:
        """Age of the oldest entry; 0 without one.

        Args:
            now: seconds since the epoch.
        """
        with translated():
            found = await self._client.xrange(self.stream, count=1)
        if not found:
            return 0.0
        milliseconds = int(_text(found[0][0]).partition("-")[0])
        return max(0.0, now - milliseconds / 1000)

    def _entry(self, entry_id: Any, fields: Mapping[Any, Any], deliveries: int) -> Entry:
        texts = {_text(name): _text(value) for name, value in fields.items()}
        return Entry(stream=self.stream, id=_text(entry_id), fields=texts, deliveries=deliveries)


def _pairs(answer: Any) -> Sequence[Any]:
    """Entries by stream: a list of pairs, or with the third version of the protocol a mapping to lists of lists."""
    if isinstance(answer, dict):
        return [
            (name, entries[0] if entries and isinstance(entries[0], list) else entries)
            for name, entries in answer.items()
        ]
    return answer or []


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
