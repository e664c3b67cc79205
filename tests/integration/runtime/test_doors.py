"""The same bytes through each HTTP door: the connection's own way, the front before FastAPI, and FastAPI's routes.

Each request goes to two servers, one with the hot lane and one without, over real sockets and in any pieces. Status,
body, headers and counts must be the same.
"""

import asyncio
import itertools
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canarium_runtime.app import create_app
from canarium_runtime.listening import QuietServer, uvicorn_config
from canarium_runtime.rest import hotlane
from canarium_runtime.rest.endpoints import Predictor
from canarium_runtime.rest.fast import FastReader
from canarium_runtime.testing import FakeBackend, make_models, model_spec, tensor

SPEC = model_spec(
    [tensor("x", "FP32", None, 2)], [tensor("y", "FP32", None), tensor("z", "FP32", None, 2)]
)
INFER = "/v2/models/fraud/infer"
ROW: dict[str, Any] = {
    "inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]
}
PLAIN: dict[str, Any] = {"instances": [[1, 2], [3, 4]]}
BINARY = np.array([[1, 2]], "<f4").tobytes()
BINARY_HEAD = json.dumps(
    {
        "inputs": [
            {
                "name": "x",
                "shape": [1, 2],
                "datatype": "FP32",
                "parameters": {"binary_data_size": len(BINARY)},
            }
        ],
        "parameters": {"binary_data_output": True},
    }
).encode()


@dataclass
class Door:
    """A running server."""

    port: int
    models: Any
    backend: FakeBackend

    def counts(self) -> dict[str, int]:
        """Predictions by status, without zeros."""
        metrics = self.models.primary.metrics
        found = {s.value: n for s, n in metrics.predictions.items() if n}
        return {**found, "inflight": metrics.inflight}


@asynccontextmanager
async def door(hot: bool, **settings: Any) -> AsyncIterator[Door]:
    """A server on a real socket, with or without the hot lane."""
    backend = FakeBackend(SPEC, lambda inputs: [inputs["x"].sum(axis=1), inputs["x"] * 2])
    models = make_models(backend, model_name="fraud", hot_lane=hot, max_body_bytes=2048, **settings)
    predictor = Predictor(models)
    app = create_app(models.config, predictor)
    http: dict[str, Any] = {"http": hotlane.protocol_class(predictor)} if hot else {}
    server = QuietServer(uvicorn_config(app, host="127.0.0.1", port=0, **http))
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(10):
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.001)
    try:
        yield Door(server.servers[0].sockets[0].getsockname()[1], models, backend)
    finally:
        server.should_exit = server.force_exit = True
        await serving
        await models.close()


@dataclass(frozen=True)
class Response:
    """What came back; the date and made-up request ids taken out."""

    status: int
    headers: dict[str, str]
    body: bytes
    closed: bool


async def exchange(port: int, pieces: Sequence[bytes], answers: int = 1) -> list[Response]:
    """Send pieces as packets of their own and read some responses."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            if len(pieces) > 1:
                await asyncio.sleep(0)
        async with asyncio.timeout(10):
            return [await read_response(reader) for _ in range(answers)]
    finally:
        writer.close()


async def read_response(reader: asyncio.StreamReader) -> Response:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status, *lines = head.strip().split("\r\n")
    headers = {n.lower(): v for n, _, v in (line.partition(": ") for line in lines)}
    body = await reader.readexactly(int(headers["content-length"]))
    made_up = headers.get("x-request-id", "")
    body = body.replace(made_up.encode(), b"ID") if made_up else body
    keep = {n: v for n, v in headers.items() if n not in {"date", "content-length"}}
    if "x-request-id" in keep and len(made_up) > 12 and "-" in made_up:
        keep["x-request-id"] = "ID"
    closed = headers.get("connection") == "close"
    return Response(int(status.split()[1]), keep, body, closed)


def request(
    body: bytes, path: str = INFER, method: str = "POST", version: str = "1.1", **headers: str
) -> bytes:
    """Write a request; a header of the value "-" is left out."""
    lines = {"host": "h", "content-length": str(len(body)), "x-request-id": "r1"}
    lines |= {n.replace("_", "-"): v for n, v in headers.items()}
    text = "".join(f"{n}: {v}\r\n" for n, v in lines.items() if v != "-")
    return f"{method} {path} HTTP/{version}\r\n{text}\r\n".encode() + body


def chunked(body: bytes, trailers: bool = False) -> bytes:
    """Write a body in chunks."""
    half = len(body) // 2
    parts = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in (body[:half], body[half:]) if p)
    return parts + (b"0\r\nx-t: 1\r\n\r\n" if trailers else b"0\r\n\r\n")


def _json(document: Any) -> bytes:
    return json.dumps(document).encode()


CASES: dict[str, list[bytes]] = {
    "V2": [request(_json(ROW))],
    "V2 by version": [request(_json(ROW), "/v2/models/fraud/versions/7/infer")],
    "plain": [request(_json(PLAIN), "/predict")],
    "an id in the body": [request(_json({**ROW, "id": "mine"}))],
    "an id that needs escapes": [request(_json({**ROW, "id": 'a"b\\ü'}))],
    "chosen outputs": [request(_json({**ROW, "outputs": [{"name": "z"}]}))],
    "binary": [
        request(BINARY_HEAD + BINARY, inference_header_content_length=str(len(BINARY_HEAD)))
    ],
    "binary with too little": [
        request(BINARY_HEAD + BINARY[:3], inference_header_content_length=str(len(BINARY_HEAD)))
    ],
    "head and body apart": [request(_json(ROW))[:-60], request(_json(ROW))[-60:]],
    "head in pieces": [
        request(_json(ROW))[:30],
        request(_json(ROW))[30:90],
        request(_json(ROW))[90:],
    ],
    "chunked": [
        request(b"", transfer_encoding="chunked", content_length="-") + chunked(_json(ROW))
    ],
    "chunked with trailers": [
        request(b"", transfer_encoding="chunked", content_length="-") + chunked(_json(ROW), True)
    ],
    "HTTP/1.0": [request(_json(ROW), version="1.0")],
    "connection: close": [request(_json(ROW), connection="close")],
    "no length": [request(b"", content_length="-")],
    "empty body": [request(b"")],
    "not JSON": [request(b"{")],
    "does not fit": [request(_json({**ROW, "inputs": []}))],
    "too large": [request(b" " * 4096)],
    "compressed": [request(_json(ROW), content_encoding="gzip")],
    "the model fails": [
        request(b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1e999,1]}]}')
    ],
    "another method": [request(_json(ROW), method="PUT")],
    "another model": [request(_json(ROW), "/v2/models/other/infer")],
    "an escaped path": [request(_json(ROW), "/v2/models/fr%61ud/infer")],
    "a query": [request(_json(ROW), INFER + "?a=1")],
    "an unsafe request id": [request(_json(ROW), x_request_id="a b")],
    "an odd length": [request(_json(ROW), content_length="+5")],
    "header without value": [request(_json(ROW), x_nothing="")],
    "GET": [request(b"", "/v2/models/fraud", "GET")],
}


@pytest.mark.parametrize("case", sorted(CASES))
async def test_each_door_answers_alike(case: str) -> None:
    """World: two servers; event: the same bytes; world: the same answer and the same counts."""
    async with door(True) as hot, door(False) as plain:
        (with_lane,) = await exchange(hot.port, CASES[case])
        (without,) = await exchange(plain.port, CASES[case])
        assert with_lane == without
        assert hot.counts() == plain.counts()


@pytest.mark.parametrize("hot", [True, False])
async def test_a_pipelined_pair_is_answered_in_order(hot: bool) -> None:
    """Two requests in one packet, the second with a path of another kind."""
    async with door(hot) as one:
        pair = request(_json({**ROW, "id": "a"})) + request(b"", "/health/live", "GET")
        first, second = await exchange(one.port, [pair], 2)
        assert (json.loads(first.body)["id"], json.loads(second.body)) == ("a", {"live": True})


@pytest.mark.parametrize("hot", [True, False])
async def test_many_requests_of_any_kind_follow_each_other_on_one_connection(hot: bool) -> None:
    """Those of the lane and others, alternating; a body that is split just before the next request."""
    async with door(hot) as one:
        head_and_half = request(_json({**ROW, "id": "b"}))[:-9]
        rest_and_more = request(_json({**ROW, "id": "b"}))[-9:] + request(_json({**ROW, "id": "c"}))
        pieces = [
            request(_json({**ROW, "id": "a"})),
            request(b"", "/health/live", "GET"),
            head_and_half,
            rest_and_more,
            request(_json(PLAIN), "/predict"),
        ]
        answers = await exchange(one.port, pieces, 5)
        assert [a.status for a in answers] == [200] * 5
        documents = [json.loads(a.body) for a in answers]
        ids = [d.get("id") for d in documents]
        assert ids[0] == "a"
        assert ids[2:4] == ["b", "c"]
        assert documents[4]["outputs"]["y"] == [3.0, 7.0]
        assert one.counts() == {"success": 4, "inflight": 0}


@pytest.mark.parametrize("hot", [True, False])
async def test_requests_that_come_together_are_answered_as_if_each_came_alone(
    hot: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong ones among them change nothing for the others; one whose client has left takes nobody along."""
    together: list[int] = []
    read_together = FastReader.read_together

    def spied(reader: FastReader, bodies: Sequence[bytes]) -> Any:
        read = read_together(reader, bodies)
        together.append(sum(inputs is not None for inputs in read))
        return read

    monkeypatch.setattr(FastReader, "read_together", spied)
    frame = '{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": %s}]}'
    good = [request((frame % f"[{n}, {n + 1}]").encode()) for n in range(12)]
    bad = [request((frame % data).encode()) for data in ('[1, "2"]', "[1]", "[1, 2", "[1, NaN]")]
    async with door(hot) as one:
        alone = [(await exchange(one.port, [sent]))[0] for sent in (*good, *bad)]
        assert [a.status for a in alone] == [200] * 12 + [422, 422, 400, 400]
        for sent, expected in ((good, alone[:12]), ([*good, *bad], alone)):
            wires = [await asyncio.open_connection("127.0.0.1", one.port) for _ in sent]
            _, gone = await asyncio.open_connection("127.0.0.1", one.port)
            gone.write(good[0])
            gone.close()
            for (_, writer), bytes_ in zip(wires, sent, strict=True):
                writer.write(bytes_)
            async with asyncio.timeout(10):
                got = [await read_response(reader) for reader, _ in wires]
            assert got == expected
            for _, writer in wires:
                writer.close()
        assert max(together) > 1
        async with asyncio.timeout(10):
            while one.counts()["inflight"]:  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.001)


@pytest.mark.parametrize("hot", [True, False])
async def test_a_refused_request_leaves_the_connection_usable(hot: bool) -> None:
    """A server that still loads refuses before the body has come; what comes of it then is not a request."""
    async with door(hot) as one:
        one.models.primary.answering = False
        whole = request(_json(ROW))
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(whole[:-20])
        await writer.drain()
        assert (await read_response(reader)).status == 503
        one.models.primary.answering = True
        writer.write(whole[-20:])
        await writer.drain()
        writer.write(whole)
        await writer.drain()
        async with asyncio.timeout(10):
            assert (await read_response(reader)).status == 200
        writer.close()


@pytest.mark.parametrize("hot", [True, False])
async def test_who_waits_behind_a_client_that_left_is_not_kept(hot: bool) -> None:
    """A client that closes its connection takes its request out of the queue: it is not run."""
    async with door(hot) as one:
        one.models.primary._batcher._busy = 9  # all workers are held
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(request(_json(ROW)))
        await writer.drain()
        async with asyncio.timeout(10):
            while one.models.primary.waiting == 0:  # noqa: ASYNC110 - no event to await
                await asyncio.sleep(0.001)
            writer.close()
            await writer.wait_closed()
            if hot:
                while one.models.primary.waiting:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
                assert one.counts() == {"invalid": 1, "inflight": 0}
        assert one.backend.batch_rows == []
        one.models.primary._batcher._busy = 0
        assert reader


async def test_a_slow_body_is_given_up() -> None:
    """408, and the connection is closed: what comes later would be read as a request."""
    async with door(True, request_timeout="50ms") as one:
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(request(_json(ROW))[:-5])
        await writer.drain()
        async with asyncio.timeout(10):
            answer = await read_response(reader)
            assert (answer.status, answer.closed) == (408, True)
            assert await reader.read() == b""
        writer.close()
        assert one.counts() == {"invalid": 1, "inflight": 0}


async def test_a_client_that_never_reads_is_not_read_from() -> None:
    """Its answers do not pile up in memory: the server stops reading its requests."""
    async with door(True) as one:
        small = socket.socket()
        small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        small.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        small.connect(("127.0.0.1", one.port))
        reader, writer = await asyncio.open_connection(sock=small, limit=1024)
        wide = request(_json({"instances": [[i, i] for i in range(150)]}), "/predict")
        refused = False
        for _ in range(20_000):
            writer.write(wide)
            try:
                await asyncio.wait_for(writer.drain(), 0.5)
            except TimeoutError:
                refused = True
                break
        assert refused, "the server took everything"
        writer.transport.abort()
        assert reader
        async with asyncio.timeout(10):
            while one.models.primary.metrics.inflight:  # noqa: ASYNC110
                await asyncio.sleep(0.001)


values = st.one_of(st.floats(-9, 9), st.sampled_from([1, None, "a", [], 1e300]))
bodies = st.one_of(
    st.builds(
        lambda v: _json({"instances": v}), st.lists(st.lists(values, max_size=3), max_size=3)
    ),
    st.builds(
        lambda v, s: _json({"inputs": [{"name": "x", "shape": s, "datatype": "FP32", "data": v}]}),
        st.lists(values, max_size=4),
        st.lists(st.integers(-1, 3), max_size=3),
    ),
    st.binary(max_size=60),
)
headers = st.fixed_dictionaries(
    {},
    optional={
        "content_length": st.sampled_from(["0", "5", "-1", "abc", "999999", "00012"]),
        "connection": st.sampled_from(["close", "keep-alive", "upgrade"]),
        "expect": st.sampled_from(["100-continue", "other"]),
        "content_encoding": st.sampled_from(["gzip", "identity"]),
        "inference_header_content_length": st.sampled_from(["3", "x", "", "99999"]),
        "upgrade": st.just("h2c"),
        "x_request_id": st.sampled_from(["ok", "", "a b", "é"]),
        "transfer_encoding": st.sampled_from(["chunked", "gzip", "identity"]),
    },
)


@dataclass(frozen=True)
class Sent:
    """A request that hypothesis made."""

    data: bytes
    cuts: tuple[int, ...]

    def pieces(self) -> list[bytes]:
        """Its packets."""
        edges = [0, *sorted({c % (len(self.data) + 1) for c in self.cuts}), len(self.data)]
        return [self.data[a:b] for a, b in itertools.pairwise(edges) if a < b]


sent = st.builds(
    lambda body, path, method, version, more, cuts: Sent(
        request(body, path, method, version, **more), tuple(cuts)
    ),
    bodies,
    st.sampled_from(
        [INFER, "/predict", "/predict?x=1", "/v2/models/fraud/versions/7/infer", "/no"]
    ),
    st.sampled_from(["POST", "POST", "POST", "GET", "HEAD", "OPTIONS"]),
    st.sampled_from(["1.1", "1.1", "1.1", "1.0"]),
    headers,
    st.lists(st.integers(0, 400), max_size=3),
)


async def talk(port: int, pieces: Sequence[bytes]) -> bytes:
    """Send everything, close the sending side, and read to the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        async with asyncio.timeout(10):
            return await read_some(reader)
    except (ConnectionError, asyncio.IncompleteReadError):
        return b""
    finally:
        writer.close()


async def read_some(reader: asyncio.StreamReader) -> bytes:
    """The first response's status line, or nothing where the server waits for more."""
    try:
        return (await asyncio.wait_for(reader.readline(), 0.15)).split(b" ", 2)[1]
    except (TimeoutError, IndexError):
        return b""


@settings(max_examples=15, deadline=None)
@given(st.lists(sent, min_size=1, max_size=6))
def test_any_request_is_answered_alike(several: list[Sent]) -> None:
    """Odd methods, versions, lengths and headers, cut anywhere: the same statuses, never a 5xx, the same counts."""

    async def run() -> None:
        async with door(True) as hot, door(False) as plain:
            for one in several:
                statuses = await asyncio.gather(
                    talk(hot.port, one.pieces()), talk(plain.port, one.pieces())
                )
                assert statuses[0] == statuses[1], one.data
                assert not statuses[0].startswith(b"5"), one.data

    asyncio.run(run())
