"""Thousands of bad requests through each door: the server goes on, and blames the client, never itself."""

import asyncio
import json
import os
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from grpc import aio
from tests.integration.runtime.fuzzing import DOORS, Door, bad_requests
from tests.integration.runtime.servers import Server, free_port
from websockets.asyncio.client import connect

from canarium_runtime.rpc import open_inference_pb2 as pb
from canarium_runtime.rpc.door import SERVICE
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


def spoilt_calls(seed: int) -> Iterator[bytes]:
    """ModelInfer requests with strange fields, or whose bytes are spoilt."""
    chance = random.Random(f"gRPC {seed}")
    names = ("", "x", "y", "model", "\x00", "é" * 300, "a" * 10_000)
    datatypes = ("FP32", "FP64", "INT64", "BYTES", "BOOL", "BF16", "", "float", "FP32\x00")
    sizes = (0, 1, 2, 3, -1, 2**31, 2**62, -(2**63))
    while True:
        request = pb.ModelInferRequest(model_name=chance.choice(("model", *names)))
        request.model_version = chance.choice(("", "", "1", "9", *names))
        request.id = chance.choice(names)
        for _ in range(chance.choice((0, 1, 1, 1, 2, 40))):
            tensor = request.inputs.add(
                name=chance.choice(("x", "x", *names)), datatype=chance.choice(datatypes)
            )
            tensor.shape.extend(chance.choice(sizes) for _ in range(chance.randrange(5)))
            tensor.contents.fp32_contents.extend([3.0] * chance.choice((0, 1, 2, 100)))
            if chance.random() < 0.3:
                tensor.contents.int64_contents.extend([2**62] * chance.randrange(3))
                tensor.contents.bytes_contents.append(chance.randbytes(5))
        for _ in range(chance.choice((0, 0, 0, 1, 3))):
            request.raw_input_contents.append(chance.randbytes(chance.choice((0, 4, 7, 8, 5000))))
        for _ in range(chance.choice((0, 0, 1))):
            request.outputs.add(name=chance.choice(names))
        body = request.SerializeToString()
        if chance.random() < 0.4:
            at = chance.randrange(len(body) + 1)
            noise = chance.randbytes(chance.choice((1, 3, 50)))
            body = chance.choice((body[:at], body[:at] + noise + body[at:], noise))
        yield body


async def test_bad_calls_never_break_the_grpc_door(tmp_path: Path) -> None:
    """The same through gRPC: no INTERNAL, no UNKNOWN, and the process goes on."""
    port = free_port()
    uri = linear_model(tmp_path / "model.onnx").as_uri()
    server = Server(tmp_path, uri, grpc_port=str(port), request_timeout="5s")
    server.wait_ready()
    seen: Counter[str] = Counter()
    broken: list[str] = []
    calls = spoilt_calls(SEED)
    try:
        async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")

            async def send_some() -> None:
                while seen.total() - seen["OK"] < REQUESTS:
                    body = next(calls)
                    try:
                        await infer(body, timeout=30)
                        status = "OK"
                    except aio.AioRpcError as error:
                        status = error.code().name
                        if status in {"INTERNAL", "UNKNOWN", "DATA_LOSS", "DEADLINE_EXCEEDED"}:
                            broken.append(f"{status} {error.details()} for {body[:200]!r}")
                    seen[status] += 1

            await asyncio.gather(*(send_some() for _ in range(AT_ONCE)))
        assert broken == []
        assert seen["INVALID_ARGUMENT"] > 0.2 * REQUESTS, seen
        assert server.process.poll() is None
        await ask_rightly(server.port)
        assert [e for e in server.logs() if e["level"] in {"error", "critical"}] == []
    finally:
        server.process.kill()
        server.process.wait()


async def test_bad_messages_never_break_the_websocket_door(server: Server) -> None:
    """Each is answered with the reason on the same connection, which stays open."""
    requests = bad_requests(DOORS[1], SEED)
    seen: Counter[str] = Counter()
    broken: list[str] = []
    async with connect(f"ws://127.0.0.1:{server.port}/predict/stream", max_size=None) as socket:
        while seen.total() - seen["answered"] < REQUESTS:
            body = next(requests).partition(b"\r\n\r\n")[2]
            try:
                message: str | bytes = body.decode()
            except UnicodeDecodeError:
                message = body
            await socket.send(message)
            answer = json.loads(await asyncio.wait_for(socket.recv(), 30))
            code = answer.get("code", "answered")
            seen[code] += 1
            if code in {"internal_error", "model_failed"}:
                broken.append(f"{answer} for {message[:200]!r}")
    assert broken == []
    assert server.process.poll() is None
    assert [e for e in server.logs() if e["level"] in {"error", "critical"}] == []
