"""Rates that all servers share through Redis, without a request that waits for Redis.

Each server leases requests in chunks, as many as a tenth of a second allows, and asks for the next chunk while the last
one is being used. So all servers together let in what Redis has granted; what a server has leased and not used yet (at
most one chunk, for at most two seconds, then it is given back) may come on top in a span of time. Only the first
request of a client, and those of one that is faster than its leases, wait a round trip (`Guard.admit_later`).

Without Redis, each server allows its share of the limits: an equal part for each server that Redis knew of last, and
where it knew of none the whole. Redis is tried again every second.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from secrets import token_hex
from typing import Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from canarium_runtime.security.counts import GuardCounts
from canarium_runtime.security.limits import UNDECIDED, Bucket, Limit

_log = logging.getLogger(__name__)
LEASE_SECONDS: Final = 0.1
"""A lease is what the limit allows in this time, and at least one request."""
_TIMEOUT_SECONDS: Final = 0.25
"""For one question to Redis; requests without a lease wait for it."""
_RETRY_SECONDS: Final = 1.0
_SWEEP_SECONDS: Final = 1.0
_MOST_AT_ONCE: Final = 256
_SERVER_SECONDS: Final = 10

LEASE: Final = """
-- One key: the instant at which the bucket is full again, as in limits.Bucket. ARGV: seconds a request, burst, wanted.
-- Gives how many are granted (negative wanted: given back), and microseconds until one can be.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local interval, burst, wanted = ARGV[1] * 1000000, tonumber(ARGV[2]), tonumber(ARGV[3])
local full = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
local granted = math.floor((now + burst * interval - full) / interval + 0.000001)
granted = math.max(math.min(granted, wanted), math.min(wanted, 0))
full = math.max(full + granted * interval, now)
redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000) + 1000)
return {granted, math.max(0, math.ceil(full - (burst - 1) * interval - now))}
"""
SERVERS: Final = """
-- One key: servers by when they were seen last. ARGV: this server, seconds after which one is gone. Gives their number.
local clock = redis.call('TIME')
local now = tonumber(clock[1])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[2] * 2)
return redis.call('ZCARD', KEYS[1])
"""


class LeasedBucket:
    """The rate of one client, by leases."""

    __slots__ = (
        "_local", "_low", "_servers", "_shared", "asked", "chunk", "limit", "name", "refused_until", "tokens",
        "used_at",
    )  # fmt: skip

    def __init__(self, shared: "SharedLimits", name: str, limit: Limit) -> None:
        self.name = name
        self.limit = limit
        self.chunk = max(1, min(limit.burst, math.ceil(limit.rate * LEASE_SECONDS)))
        self.tokens = 0
        """Requests that are leased and not used."""
        self.refused_until = 0.0
        """Until then Redis grants nothing."""
        self.used_at = 0.0
        self.asked = False
        self._low = self.chunk // 2
        self._shared = shared
        self._servers = 0
        self._local = Bucket(limit)

    def take(self, now: float) -> float:
        """See `limits.Rate`."""
        if self.tokens > 0:
            self.tokens -= 1
            self.used_at = now
            if self.tokens <= self._low and not self.asked:
                self._shared.want(self)
            return 0.0
        if not self._shared.up:
            return self._alone(now)
        if now < self.refused_until:
            return self.refused_until - now
        if not self.asked:
            self._shared.want(self)
        return UNDECIDED

    def _alone(self, now: float) -> float:
        """Allow this server's share."""
        if self._servers != self._shared.servers:
            self._servers = self._shared.servers
            self._local = Bucket(self.limit.shared_by(self._servers))
        return self._local.take(now)

    def rests(self, now: float) -> bool:
        """Whether it holds nothing that would be lost."""
        idle = self.tokens == 0 and not self.asked and self.refused_until <= now
        return idle and self._local.rests(now)


class SharedLimits:
    """Leases of all clients of this server.

    Args:
        url: of Redis; may hold a password.
        deployment: `NAMESPACE/NAME`: its servers share.
        counts: whether limits are shared now is told there.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        url: str,
        deployment: str,
        counts: GuardCounts,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.up = True
        """Whether Redis answers. Taken for granted at the start; the first question tells."""
        self.servers = 1
        """How many share, as Redis knew last."""
        self.problem = ""
        self._counts = counts
        self._clock = clock
        self._prefix = f"canarium:limit:{{{deployment}}}"
        self._server = token_hex(8)
        self._redis = Redis.from_url(
            url,
            socket_timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
        )
        self._wanted: dict[str, LeasedBucket] = {}
        self._waiting: dict[str, asyncio.Event] = {}
        self._leased: dict[str, LeasedBucket] = {}
        self._wake = asyncio.Event()
        self._stopping = False

    def bucket(self, name: str, limit: Limit) -> LeasedBucket:
        """Make a client's bucket."""
        return LeasedBucket(self, name, limit)

    def want(self, bucket: LeasedBucket) -> None:
        """Ask for a lease, soon."""
        bucket.asked = True
        self._wanted[bucket.name] = bucket
        self._wake.set()

    async def answered(self, name: str) -> None:
        """Wait for the answer to what this client has asked for last."""
        bucket = self._wanted.get(name)
        if bucket is not None and bucket.asked:
            await self._waiting.setdefault(name, asyncio.Event()).wait()

    async def run(self) -> None:
        """Ask Redis for what is wanted, until cancelled."""
        await self._meet()
        met = swept = self._clock()
        while not self._stopping:
            if not self.up:
                await asyncio.sleep(_RETRY_SECONDS)
                await self._meet()
                continue
            if self._wanted:
                await self._ask()
            else:
                # Not `wait_for`: up to Python 3.11 it loses a cancellation that comes together with the event.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_SWEEP_SECONDS):
                        await self._wake.wait()
                self._wake.clear()
            now = self._clock()
            if now - swept >= _SWEEP_SECONDS:
                swept = now
                await self._give_back(now)
            if now - met >= _SERVER_SECONDS / 3:
                met = now
                await self._meet()

    def stop(self) -> None:
        """Let `run` end. Cancelling is not enough: a cancellation in the middle of an answer of Redis can get lost."""
        self._stopping = True

    async def close(self) -> None:
        """Give back what is leased, and part."""
        if self.up:
            await self._give_back(math.inf)
        await self._redis.aclose()

    async def _ask(self) -> None:
        asked = list(islice(self._wanted.values(), _MOST_AT_ONCE))
        answers = await self._evaluate([(b, b.chunk) for b in asked])
        now = self._clock()
        for bucket, (granted, wait) in zip(asked, answers, strict=False):
            bucket.tokens += granted
            bucket.used_at = now
            bucket.refused_until = now + wait / 1e6 if granted == 0 else 0.0
            if bucket.tokens:
                self._leased[bucket.name] = bucket
        self._settle(asked)

    def _settle(self, asked: Iterable[LeasedBucket]) -> None:
        """Let those go on that wait for an answer to these."""
        for bucket in asked:
            bucket.asked = False
            self._wanted.pop(bucket.name, None)
            if waiting := self._waiting.pop(bucket.name, None):
                waiting.set()

    async def _give_back(self, now: float) -> None:
        """Give back leases that have not been used for a while: other servers may need them."""
        idle = [
            b for b in self._leased.values() if now - b.used_at >= _SWEEP_SECONDS and not b.asked
        ]
        returned = []
        for bucket in idle:
            del self._leased[bucket.name]
            if bucket.tokens:
                returned.append((bucket, -bucket.tokens))
                bucket.tokens = 0
        for start in range(0, len(returned), _MOST_AT_ONCE):
            await self._evaluate(returned[start : start + _MOST_AT_ONCE])

    async def _evaluate(self, wanted: Sequence[tuple[LeasedBucket, int]]) -> list[Sequence[int]]:
        """Ask for leases, or give them back with a negative number; gives nothing where Redis does not answer."""
        pipeline = self._redis.pipeline(transaction=False)
        for bucket, number in wanted:
            limit = bucket.limit
            key = f"{self._prefix}:{bucket.name}"
            pipeline.eval(LEASE, 1, key, repr(1.0 / limit.rate), str(limit.burst), str(number))
        try:
            answers: list[Sequence[int]] = await pipeline.execute()
        except (RedisError, OSError) as error:
            self._went(error)
            return []
        return answers

    async def _meet(self) -> None:
        """Say that this server is here, and learn how many are."""
        key = f"{self._prefix}:servers"
        try:
            number = await self._redis.eval(SERVERS, 1, key, self._server, str(_SERVER_SECONDS))
        except (RedisError, OSError) as error:
            self._went(error)
            return
        self.servers = max(1, int(number))
        if not self.up:
            _log.info("rate limits are shared through Redis again")
        self.up = self._counts.shared = True
        self.problem = ""

    def _went(self, error: Exception) -> None:
        """Redis does not answer: from now on each server allows its share."""
        text = f"Redis does not answer ({type(error).__name__})"
        self.problem = f"{text}: this server allows 1/{self.servers} of each limit by itself"
        if self.up:
            _log.warning("rate limits: %s", self.problem)
        self.up = self._counts.shared = False
        for bucket in self._leased.values():
            bucket.tokens = 0
        self._leased.clear()
        self._settle(list(self._wanted.values()))
