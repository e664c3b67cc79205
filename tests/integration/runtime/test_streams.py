"""Answers in pieces and long connections: server-sent events, WebSockets and gRPC streams, and what ends them."""

import asyncio
import dataclasses
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

import httpx
import numpy as np
import pytest
from tests.integration.runtime.doors import MODEL, World, world
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from canarium_runtime.backends.base import Array, BackendError
from canarium_runtime.rpc import open_inference_pb2 as pb
from canarium_runtime.rpc.door import SERVICE
from canarium_runtime.testing import FakeBackend, model_spec, tensor

SPEC = model_spec([tensor("x", "FP32", None)], [tensor("y", "FP32", None)])


class Counting(FakeBackend):
    """Counts from 0 up to x, a piece for each number; fails at `fails_at`, waits before `waits_at`."""

    def __init__(self, *, fails_at: int = -1, waits_at: int = -1) -> None:
        super().__init__(dataclasses.replace(SPEC, streams=True), lambda inputs: [inputs["x"]])
        self.gate = threading.Event()
        self.given: list[int] = []
        self.ended = threading.Event()
        self._fails_at = fails_at
        self._waits_at = waits_at

    def stream(
        self, inputs: Mapping[str, Array], outputs: Sequence[str]
    ) -> Iterator[Sequence[Array]]:
        """Count."""
        assert list(outputs) == ["y"]
        try:
            for number in range(int(inputs["x"][0])):
                if number == self._fails_at:
                    msg = "secret detail"
                    raise BackendError(msg)
                if number == self._waits_at:
                    self.gate.wait(10)
                self.given.append(number)
                yield [np.array([number], np.float32)]
        finally:
            self.ended.set()


def body(count: int, **more: Any) -> dict[str, Any]:
    return {"instances": [count], **more}


async def events(response: httpx.Response) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Read events as they come: name and data."""
    name = "message"
    async for line in response.aiter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))
            name = "message"


async def _ask(
    w: World, document: dict[str, Any], path: str = "/predict/stream"
) -> list[tuple[str, dict[str, Any]]]:
    async with (
        httpx.AsyncClient(trust_env=False, timeout=10) as client,
        client.stream("POST", w.url + path, json=document) as response,
    ):
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        return [event async for event in events(response)]


async def test_each_piece_is_an_event() -> None:
    """Three pieces, then the end; counted as one prediction."""
    async with world(Counting()) as w:
        got = await _ask(w, body(3, id="mine"))
        assert [name for name, _ in got] == ["message"] * 3 + ["end"]
        assert [data["outputs"]["y"] for _, data in got[:3]] == [[0.0], [1.0], [2.0]]
        assert {data["id"] for _, data in got} == {"mine"}
        assert got[-1][1] == {"id": "mine", "pieces": 3}
        assert w.counted() == {"success": 1, "inflight": 0}


async def test_v2_streams_the_same_pieces() -> None:
    """`infer_stream` gives a V2 response for each."""
    async with world(Counting()) as w:
        document = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [2]}]}
        for path in ("infer_stream", "versions/7/infer_stream"):
            got = await _ask(w, document, f"/v2/models/{MODEL}/{path}")
            assert [d["outputs"][0]["data"] for n, d in got if n == "message"] == [[0.0], [1.0]]


async def test_a_piece_comes_before_the_next_one_is_made() -> None:
    """The client has the first while the model waits to make the second."""
    backend = Counting(waits_at=1)
    async with (
        world(backend) as w,
        httpx.AsyncClient(trust_env=False, timeout=10) as client,
        client.stream("POST", w.url + "/predict/stream", json=body(2)) as response,
    ):
        reading = events(response)
        assert (await anext(reading))[1]["outputs"]["y"] == [0.0]
        assert backend.given == [0]
        backend.gate.set()
        assert [name async for name, _ in reading] == ["message", "end"]


async def test_a_failure_before_the_first_piece_has_its_status() -> None:
    """It is refused like everywhere else; so is what is not valid, and nothing of it starts."""
    async with world(Counting(fails_at=0)) as w, httpx.AsyncClient(trust_env=False) as client:
        failed = await client.post(w.url + "/predict/stream", json=body(3))
        assert (failed.status_code, failed.json()["code"]) == (500, "model_failed")
        assert "secret" not in failed.text
        wrong = await client.post(w.url + "/predict/stream", json={"instances": ["a"]})
        assert (wrong.status_code, wrong.json()["field"]) == (422, "instances[0]")
        assert w.counted() == {"error": 1, "invalid": 1, "inflight": 0}


async def test_a_failure_after_some_pieces_is_an_event() -> None:
    """The pieces, then the error's body, and no end."""
    async with world(Counting(fails_at=2)) as w:
        got = await _ask(w, body(5))
        assert [name for name, _ in got] == ["message", "message", "error"]
        assert got[-1][1]["code"] == "model_failed"
        assert "secret" not in json.dumps(got)
        assert w.counted() == {"error": 1, "inflight": 0}


async def test_a_client_that_goes_stops_the_model() -> None:
    """The iteration is closed a few pieces after the client has gone, not at its end."""
    backend = Counting(waits_at=3)
    async with world(backend) as w:
        async with (
            httpx.AsyncClient(trust_env=False) as client,
            client.stream("POST", w.url + "/predict/stream", json=body(1_000_000)) as response,
        ):
            assert (await anext(events(response)))[0] == "message"
        await w.until(lambda: w.counted()["inflight"] == 0)
        backend.gate.set()
        await w.until(backend.ended.is_set)
        assert len(backend.given) <= 5
        assert w.counted() == {"invalid": 1, "inflight": 0}


async def test_a_client_that_does_not_read_holds_the_model_back() -> None:
    """Pieces do not pile up in memory: the model waits for the client."""
    backend = Counting()
    async with world(backend) as w:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(w.url.rsplit(":", 1)[1]))
        document = json.dumps(body(10_000_000)).encode()
        writer.transport.pause_reading()
        head = (
            f"POST /predict/stream HTTP/1.1\r\nhost: h\r\ncontent-length: {len(document)}\r\n\r\n"
        )
        writer.write(head.encode() + document)
        made = -1
        while made != len(backend.given) or made < 1:  # until it stands still
            made = len(backend.given)
            await asyncio.sleep(0.3)
        assert made < 1_000_000
        writer.transport.abort()
        assert reader
        await w.until(backend.ended.is_set)
        await w.until(lambda: w.counted()["inflight"] == 0)


async def test_a_piece_that_takes_too_long_ends_the_stream() -> None:
    """The request timeout is for each piece: many quick ones may take longer together."""
    backend = Counting(waits_at=2)
    async with world(backend, request_timeout="200ms") as w:
        got = await _ask(w, body(5))
        backend.gate.set()
        assert [name for name, _ in got] == ["message", "message", "error"]
        assert got[-1][1]["code"] == "deadline_exceeded"
        assert w.counted() == {"timeout": 1, "inflight": 0}


async def test_only_so_many_streams_run_at_a_time() -> None:
    """Above the bound 429; room is there again when a stream has ended."""
    backend = Counting(waits_at=1)
    async with (
        world(backend, max_streams=1) as w,
        httpx.AsyncClient(trust_env=False, timeout=10) as client,
    ):
        async with client.stream("POST", w.url + "/predict/stream", json=body(2)) as response:
            reading = events(response)
            await anext(reading)
            refused = await client.post(w.url + "/predict/stream", json=body(2))
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            backend.gate.set()
            assert [name async for name, _ in reading] == ["message", "end"]
        assert (await _ask(w, body(1)))[-1][0] == "end"


async def test_a_grpc_stream_gives_the_pieces_of_a_request() -> None:
    """Each piece a response with the request's id; the empty last one where the client wants it."""
    async with world(Counting(fails_at=7)) as w:
        call = w.channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(timeout=10)
        for count, wants_final in ((2, True), (1, False), (9, False)):
            request = pb.ModelInferRequest(model_name=MODEL, id=f"r{count}")
            request.inputs.add(name="x", datatype="FP32", shape=[1]).contents.fp32_contents.append(
                count
            )
            if wants_final:
                request.parameters["triton_enable_empty_final_response"].bool_param = True
            await call.write(request.SerializeToString())
        await call.done_writing()
        got: dict[str, list[Any]] = {"r1": [], "r2": [], "r9": []}
        async for message in call:
            answer = pb.ModelStreamInferResponse.FromString(message)
            response = answer.infer_response
            if answer.error_message:
                got[response.id].append(answer.error_message)
            elif response.parameters["triton_final_response"].bool_param:
                got[response.id].append("final")
            else:
                got[response.id] += response.outputs[0].contents.fp32_contents
        assert got == {
            "r1": [0.0],
            "r2": [0.0, 1.0, "final"],
            "r9": [*map(float, range(7)), "the model failed on this input"],
        }
        assert w.counted() == {"success": 2, "error": 1, "inflight": 0}


# --- WebSocket --------------------------------------------------------------------------------------------------------


def _socket(w: World) -> connect:
    return connect(w.url.replace("http", "ws") + "/predict/stream", proxy=None)


async def _receive(socket: ClientConnection) -> dict[str, Any]:
    return json.loads(await asyncio.wait_for(socket.recv(), 10))


async def test_answers_come_in_the_order_in_which_they_are_done() -> None:
    """A request that waits does not hold up one behind it: ids tell which is which."""
    gate = threading.Event()

    def compute(inputs: Mapping[str, Array]) -> Sequence[Array]:
        if (inputs["x"] == 1).any():
            gate.wait(10)
        return [inputs["x"]]

    async with (
        world(FakeBackend(SPEC, compute), workers=2, max_batch_size=1) as w,
        _socket(w) as socket,
    ):
        await socket.send(json.dumps(body(1, id="slow")))
        await w.until(lambda: w.counted()["inflight"] == 1)
        await socket.send(json.dumps(body(2, id="quick")))
        assert (await _receive(socket))["id"] == "quick"
        gate.set()
        assert (await _receive(socket))["id"] == "slow"


async def test_mistakes_are_messages_and_the_connection_goes_on() -> None:
    """Not JSON, not valid, binary: each gets an error, with the id where there is one."""
    async with world(FakeBackend(SPEC, lambda inputs: [inputs["x"]])) as w, _socket(w) as socket:
        for sent, client_id, code in (
            ("{", None, "malformed_request"),
            (json.dumps({"instances": ["a"], "id": "mine"}), "mine", "invalid_input"),
            (b"\x00", None, "unsupported_encoding"),
        ):
            await socket.send(sent)
            error = await _receive(socket)
            assert error["code"] == code
            assert error.get("id") in {client_id, error["request_id"], None}
            assert client_id is None or error["id"] == client_id
        await socket.send(json.dumps(body(3)))
        assert (await _receive(socket))["outputs"] == {"y": [3.0]}
        assert w.counted() == {"success": 1, "invalid": 2, "inflight": 0}


async def test_a_bounded_number_is_under_way_for_one_connection() -> None:
    """Above 32 nothing more is read, and nothing is lost: all are answered in the end."""
    gate = threading.Event()
    backend = FakeBackend(SPEC, lambda inputs: [inputs["x"]], gate)
    async with world(backend, max_batch_size=1) as w, _socket(w) as socket:
        for number in range(100):
            await socket.send(json.dumps(body(number, id=str(number))))
        await w.until(lambda: w.counted()["inflight"] == 32)
        await asyncio.sleep(0.1)
        assert w.counted()["inflight"] == 32
        gate.set()
        got = {(await _receive(socket))["id"] for _ in range(100)}
        assert got == {str(number) for number in range(100)}


async def test_a_socket_that_closes_takes_its_requests_along() -> None:
    """What is under way for it is given up at once."""
    gate = threading.Event()
    backend = FakeBackend(SPEC, lambda inputs: [inputs["x"]], gate)
    async with world(backend, max_batch_size=1) as w:
        async with _socket(w) as socket:
            for number in range(5):
                await socket.send(json.dumps(body(number)))
            await w.until(lambda: w.counted()["inflight"] == 5)
        await w.until(lambda: w.counted()["inflight"] == 0)
        assert w.counted() == {"invalid": 5, "inflight": 0}
        gate.set()


async def test_a_message_above_the_limit_closes_the_connection() -> None:
    """With the code that says so."""
    async with world(FakeBackend(SPEC), max_body_bytes=2048) as w, _socket(w) as socket:
        await socket.send("x" * 4096)
        with pytest.raises(ConnectionClosed) as closed:
            await _receive(socket)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009


async def test_an_idle_connection_is_closed() -> None:
    """After the idle timeout, with 1000: nothing is under way."""
    async with world(FakeBackend(SPEC), stream_idle_timeout="100ms") as w, _socket(w) as socket:
        began = time.monotonic()
        with pytest.raises(ConnectionClosed) as closed:
            await _receive(socket)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1000
        assert time.monotonic() - began >= 0.1


async def test_a_server_that_leaves_answers_what_is_under_way_and_closes() -> None:
    """SIGTERM: the answer comes, then 1012, which asks the client to connect anew."""
    gate = threading.Event()
    backend = FakeBackend(SPEC, lambda inputs: [inputs["x"]], gate)
    async with world(backend) as w, _socket(w) as socket:
        await socket.send(json.dumps(body(4)))
        await w.until(lambda: w.counted()["inflight"] == 1)
        w.models.terminate()
        gate.set()
        assert (await _receive(socket))["outputs"] == {"y": [4.0]}
        with pytest.raises(ConnectionClosed) as closed:
            await _receive(socket)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
