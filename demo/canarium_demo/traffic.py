"""Real requests: held-out digits, sent through the gateway at a steady rate, each counted with who answered it.

Threads and the standard library's client, because client and cluster share the machine: at a quarter of a millisecond
of CPU time for each request it takes an eighth of what the convenient asyncio clients do, and leaves the rest to what
is to be watched. The tally stays on the event loop, so nothing is locked.
"""

import asyncio
import contextlib
import http.client
import json
import random
import threading
import time
import urllib.parse
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

from canarium_demo.errors import DemoError
from canarium_demo.models import INPUT, Digits
from canarium_demo.tally import OK, UNANSWERED, Answer, Tally

REVISION_HEADER: Final = "x-canarium-revision"
RATE: Final = 80.0
"""Requests a second, all clients together."""
CLIENTS: Final = 16
"""Each has one connection and one request at a time: while answers take more than 200 ms, fewer are sent."""
TIMEOUT_SECONDS: Final = 60.0
"""Longer than the server and the gateway wait, so that it is they who give up and say why."""
_MAX_LAG_SECONDS: Final = 0.5
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
    """Clients of the gateway.

    Args:
        gateway: URL of the gateway, by address: the Host header chooses the route, as DNS would.
        hostname: of the route.
        samples: drawn from, over and over.
        tally: told of every answer, on the event loop.
    """

    def __init__(
        self, gateway: str, hostname: str, samples: Sequence[Sample], tally: Tally
    ) -> None:
        self._address = urllib.parse.urlsplit(gateway).netloc
        self._headers = {"Host": hostname, "Content-Type": "application/json"}
        self._samples = samples
        self._tally = tally

    async def wait_until_served(self, seconds: float) -> None:
        """Wait for the first good answer; nothing is counted yet."""
        deadline = time.monotonic() + seconds
        connection = self._connect()
        with contextlib.closing(connection):
            while True:
                answer = await asyncio.to_thread(self._ask, connection, self._samples[0])
                if answer.status == OK:
                    return
                if time.monotonic() > deadline:
                    raise DemoError(
                        f"The gateway gave no good answer within {seconds:.0f} s; the latest: "
                        f"{answer.status} {answer.note}"
                    )
                await asyncio.sleep(0.2)

    @contextlib.asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Send requests in the background; at the end, those under way are waited for."""
        stop, loop = threading.Event(), asyncio.get_running_loop()
        threads = [
            threading.Thread(target=self._send, args=(number, stop, loop), daemon=True)
            for number in range(CLIENTS)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                await asyncio.to_thread(thread.join)
            await asyncio.sleep(0)  # what the threads handed over last is counted now

    def _send(self, number: int, stop: threading.Event, loop: asyncio.AbstractEventLoop) -> None:
        """Be one client: a request every CLIENTS / RATE seconds, at another moment than the others.

        Samples are drawn by chance. Taken in turn, they would fall into step with the gateway, which gives every tenth
        request to a canary at 10 %, and the canary would see the same few again and again.
        """
        chance = random.Random(number)  # noqa: S311 - repeatable, not secret
        due = time.monotonic() + number / RATE
        with contextlib.closing(self._connect()) as connection:
            while not stop.wait(max(0.0, due - time.monotonic())):
                answer = self._ask(connection, chance.choice(self._samples))
                loop.call_soon_threadsafe(self._tally.add, answer)
                due = max(due + CLIENTS / RATE, time.monotonic() - _MAX_LAG_SECONDS)

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._address, timeout=TIMEOUT_SECONDS)

    def _ask(self, connection: http.client.HTTPConnection, sample: Sample) -> Answer:
        began = time.monotonic()
        try:
            connection.request("POST", "/predict", sample.body, self._headers)
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()  # the next request opens it again
            now = time.monotonic()
            note = f"{type(error).__name__} {error}"
            return Answer(at=now, seconds=now - began, status=UNANSWERED, note=note)
        now = time.monotonic()
        status, read = response.status, None
        if status == OK and (read := _label(content)) is None:
            status = UNANSWERED  # a page of somebody else's
        return Answer(
            at=now,
            seconds=now - began,
            status=status,
            revision=response.headers.get(REVISION_HEADER, ""),
            correct=None if read is None else read == sample.label,
            note="" if status == OK else content[:200].decode(errors="replace"),
        )


def _label(content: bytes) -> int | None:
    """Read the digit out of an answer; None where it holds none."""
    try:
        return int(json.loads(content)["outputs"]["label"][0])
    except (ValueError, KeyError, IndexError, TypeError):
        return None
