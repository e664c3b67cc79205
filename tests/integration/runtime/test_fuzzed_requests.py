"""Thousands of bad requests through each door: the server goes on, and blames the client, never itself."""

import asyncio
import os
import re
from collections import Counter
from collections.abc import Iterator

import pytest
from tests.integration.runtime.fuzzing import DOORS, Door, bad_requests
from tests.integration.runtime.servers import Server

from canarium_runtime.testing import linear_model

REQUESTS = int(os.environ.get("CANARIUM_FUZZ_REQUESTS", "2000"))
"""Bad requests through each door."""
SEED = int(os.environ.get("CANARIUM_FUZZ_SEED", "1"))
AT_ONCE = 32
PATIENCE_SECONDS = 0.5
"""For an answer: a request whose end never comes has none. An answer after that would be missed; the log is not."""
STATUS = re.compile(rb"^HTTP/1\.[01] (\d{3}) ")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("fuzzed")
    started = Server(folder, linear_model(folder / "model.onnx").as_uri(), request_timeout="5s")
    started.wait_ready()
    yield started
    started.process.kill()
    started.process.wait()


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
async def test_bad_requests_never_break_the_server(server: Server, door: Door) -> None:
    """No answer of 5xx, no crash, nothing in the log that the server blames on itself; a good request is answered
    rightly all the while, on a connection of its own.
    """
    requests = bad_requests(door, SEED)
    seen: Counter[str] = Counter()
    broken: list[str] = []

    async def send_some() -> None:
        while seen.total() - seen["200"] < REQUESTS:  # a few turn out to be good
            request = next(requests)
            answer = await exchange(server.port, request)
            found = STATUS.match(answer)
            status = found[1].decode() if found else ("no answer" if not answer else "no HTTP")
            seen[status] += 1
            if status.startswith("5") or status == "no HTTP":
                broken.append(f"{status}: {answer[:300]!r} for {request[:300]!r}")
            if seen.total() % 100 == 0:
                await ask_rightly(server.port)

    await asyncio.gather(*(send_some() for _ in range(AT_ONCE)))
    assert server.process.poll() is None
    assert broken == []
    refused = sum(number for status, number in seen.items() if status.startswith("4"))
    assert refused >= 0.5 * REQUESTS, f"too few were refused for this test to mean much: {seen}"
    assert [e for e in server.logs() if e["level"] in {"error", "critical"}] == []


async def exchange(port: int, request: bytes) -> bytes:
    """Send bytes on a new connection; what comes first in return, or nothing."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        answer = await asyncio.wait_for(reader.read(65_536), PATIENCE_SECONDS)
        if answer == b"HTTP/1.1 100 Continue\r\n\r\n":
            answer = await asyncio.wait_for(reader.read(65_536), PATIENCE_SECONDS)
        return answer
    except (TimeoutError, ConnectionError):
        return b""
    finally:
        writer.transport.abort()


async def ask_rightly(port: int) -> None:
    """Send a good request; its answer must be right."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = DOORS[0].request(headers=lambda given: [*given, ("connection", "close")])
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), 30)
    assert answer.endswith(b'"data":[43.0]}]}'), answer
    writer.close()
