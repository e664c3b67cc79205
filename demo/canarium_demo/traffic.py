"""Real requests: held-out digits, sent through the gateway at a steady rate, each counted with who answered it."""

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import httpx

from canarium_demo.errors import DemoError
from canarium_demo.models import INPUT, Digits
from canarium_demo.tally import OK, UNANSWERED, Answer, Tally

REVISION_HEADER: Final = "x-canarium-revision"
RATE: Final = 80.0
"""Requests a second."""
MAX_INFLIGHT: Final = 16
"""Requests under way; when the answers are late, no more are sent until some have come. At RATE, answers may take
200 ms each before that slows the client down."""
TIMEOUT_SECONDS: Final = 60.0
"""Longer than the server and the gateway wait, so that it is they who give up and say why."""
_MAX_LAG_SECONDS: Final = 0.25
"""What a stall of this process may be made up for in a burst."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One request, made ready."""

    body: bytes
    label: int


def samples_of(data: Digits) -> list[Sample]:
    """Make one request of each held-out digit."""
    pairs = zip(data.held_out, data.held_out_labels, strict=True)
    return [
        Sample(body=json.dumps({"inputs": {INPUT: [row.tolist()]}}).encode(), label=int(label))
        for row, label in pairs
    ]


class Traffic:
    """A client of the gateway.

    Args:
        gateway: URL of the gateway, by address: the Host header chooses the route, as DNS would.
        hostname: of the route.
        samples: sent in turn, over and over.
        tally: told of every answer.
    """

    def __init__(
        self, gateway: str, hostname: str, samples: Sequence[Sample], tally: Tally
    ) -> None:
        self._url = f"{gateway}/predict"
        self._headers = {"host": hostname, "content-type": "application/json"}
        self._samples = samples
        self._tally = tally
        self._limits = httpx.Limits(
            max_connections=MAX_INFLIGHT, max_keepalive_connections=MAX_INFLIGHT
        )

    async def wait_until_served(self, seconds: float) -> None:
        """Wait for the first good answer; nothing is counted yet."""
        deadline = time.monotonic() + seconds
        async with self._client() as client:
            while (answer := await self._ask(client, self._samples[0])).status != OK:
                if time.monotonic() > deadline:
                    raise DemoError(
                        f"The gateway gave no good answer within {seconds:.0f} s; the latest: "
                        f"{answer.status} {answer.note}"
                    )
                await asyncio.sleep(0.2)

    @contextlib.asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Send requests in the background; at the end, those under way are waited for."""
        stop = asyncio.Event()
        task = asyncio.create_task(self._run(stop), name="traffic")
        try:
            yield
        finally:
            stop.set()
            await task

    async def _run(self, stop: asyncio.Event) -> None:
        pending: set[asyncio.Task[None]] = set()
        turns: Iterator[Sample] = itertools.cycle(self._samples)
        due = time.monotonic()
        async with self._client() as client:
            while not stop.is_set():
                due = max(due + 1 / RATE, time.monotonic() - _MAX_LAG_SECONDS)
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                if len(pending) >= MAX_INFLIGHT:
                    await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                task = asyncio.create_task(self._count(client, next(turns)))
                pending.add(task)
                task.add_done_callback(pending.discard)
            if pending:
                await asyncio.wait(pending)

    async def _count(self, client: httpx.AsyncClient, sample: Sample) -> None:
        self._tally.add(await self._ask(client, sample))

    async def _ask(self, client: httpx.AsyncClient, sample: Sample) -> Answer:
        began = time.monotonic()
        try:
            response = await client.post(self._url, content=sample.body, headers=self._headers)
        except httpx.HTTPError as error:
            now = time.monotonic()
            note = f"{type(error).__name__} {error}"
            return Answer(at=now, seconds=now - began, status=UNANSWERED, note=note)
        now = time.monotonic()
        status, read = response.status_code, None
        if status == OK and (read := _label(response)) is None:
            status = UNANSWERED  # a page of somebody else's
        return Answer(
            at=now,
            seconds=now - began,
            status=status,
            revision=response.headers.get(REVISION_HEADER, ""),
            correct=None if read is None else read == sample.label,
            note="" if status == OK else response.text[:200],
        )

    def _client(self) -> httpx.AsyncClient:
        # Proxies of the environment are for the internet, not for this cluster.
        return httpx.AsyncClient(timeout=TIMEOUT_SECONDS, limits=self._limits, trust_env=False)


def _label(response: httpx.Response) -> int | None:
    """Read the digit out of an answer; None where it holds none."""
    try:
        return int(response.json()["outputs"]["label"][0])
    except (ValueError, KeyError, IndexError, TypeError):
        return None
