"""Every door of a server, each behind the same two questions: ask, and leave in the middle.

A new door is one more adapter in `DOORS`; the rows of test_every_door.py then go through it, too.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx
import numpy as np
from grpc import aio
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError

from canarium_runtime.app import create_app
from canarium_runtime.listening import QuietServer, uvicorn_config
from canarium_runtime.models import Models
from canarium_runtime.rest import binary, hotlane
from canarium_runtime.rest.endpoints import Predictor
from canarium_runtime.rpc import open_inference_pb2 as pb
from canarium_runtime.rpc.door import SERVICE, Door
from canarium_runtime.testing import FakeBackend, make_models

MODEL = "fraud"
INFER = f"/v2/models/{MODEL}/infer"


@dataclass(frozen=True)
class Tensor:
    """An input in no protocol's form."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: tuple[Any, ...]
    """In row-major order."""

    def nested(self) -> Any:
        """As nested lists; of a wrong number of values, flat."""
        array = np.array(self.values, object)
        return (
            array.reshape(self.shape).tolist()
            if array.size == np.prod(self.shape)
            else array.tolist()
        )

    def raw(self) -> bytes:
        """As bytes."""
        dtype = {"FP32": "<f4", "FP64": "<f8", "INT64": "<i8"}.get(self.datatype)
        array = np.array(self.values, dtype or object)
        return array.tobytes() if dtype else binary.write("BYTES", array)


@dataclass(frozen=True)
class Asked:
    """A request in no protocol's form."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...] = ()
    """Wanted ones; none: all."""
    id: str = ""
    request_id: str = ""


@dataclass(frozen=True)
class Got:
    """An answer in no protocol's form."""

    outputs: dict[str, Any] = field(default_factory=dict)
    """Nested lists by name."""
    id: str = ""
    code: str = ""
    """Of the error; empty: none."""
    message: str = ""
    status: str = ""
    """In the words of the protocol; empty: it has none."""
    request_id: str = ""
    revision: str = ""


@dataclass
class World:
    """A running server."""

    url: str
    grpc_address: str
    models: Models
    backend: FakeBackend
    channel: aio.Channel

    def counted(self) -> dict[str, int]:
        """Predictions by status, without zeros, and those under way."""
        metrics = self.models.primary.metrics
        found = {s.value: n for s, n in metrics.predictions.items() if n}
        return {**found, "inflight": metrics.inflight}

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that has no event."""
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.001)


@asynccontextmanager
async def world(
    backend: FakeBackend, *, hot: bool = True, serving: bool = True, **settings: Any
) -> AsyncIterator[World]:
    """A server with all its doors, on real sockets."""
    models = make_models(backend, serving=serving, model_name=MODEL, hot_lane=hot, **settings)
    predictor = Predictor(models)
    app = create_app(models.config, predictor)
    http: dict[str, Any] = {"http": hotlane.protocol_class(predictor)} if hot else {}
    ws = {"ws": "websockets-sansio", "ws_max_size": models.config.max_body_bytes}
    server = QuietServer(uvicorn_config(app, host="127.0.0.1", port=0, **http, **ws))
    running = asyncio.create_task(server.serve())
    door = Door(models, predictor.streams)
    address = f"127.0.0.1:{await door.open('127.0.0.1', 0)}"
    async with asyncio.timeout(10):
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.001)
    port = server.servers[0].sockets[0].getsockname()[1]
    async with aio.insecure_channel(address) as channel:
        try:
            yield World(f"http://127.0.0.1:{port}", address, models, backend, channel)
        finally:
            server.should_exit = server.force_exit = True
            await running
            await door.close(0)
            await models.close()


# --- bodies -----------------------------------------------------------------------------------------------------------


def v2_body(asked: Asked) -> bytes:
    """V2 as JSON."""
    document: dict[str, Any] = {
        "inputs": [
            {"name": t.name, "datatype": t.datatype, "shape": t.shape, "data": t.values}
            for t in asked.inputs
        ]
    }
    if asked.id:
        document["id"] = asked.id
    if asked.outputs:
        document["outputs"] = [{"name": name} for name in asked.outputs]
    return json.dumps(document).encode()


def v2_binary(asked: Asked) -> tuple[bytes, int]:
    """V2 with binary data in both directions, and the length of its JSON."""
    document = json.loads(v2_body(asked))
    blobs = [t.raw() for t in asked.inputs]
    for tensor, blob in zip(document["inputs"], blobs, strict=True):
        del tensor["data"]
        tensor["parameters"] = {"binary_data_size": len(blob)}
    document["parameters"] = {"binary_data_output": True}
    head = json.dumps(document).encode()
    return head + b"".join(blobs), len(head)


def plain_body(asked: Asked) -> bytes:
    """`/predict`."""
    document: dict[str, Any] = {"inputs": {t.name: t.nested() for t in asked.inputs}}
    if asked.id:
        document["id"] = asked.id
    return json.dumps(document).encode()


def message(asked: Asked, *, raw: bool) -> bytes:
    """`ModelInferRequest`."""
    request = pb.ModelInferRequest(model_name=MODEL, id=asked.id)
    fields = {"FP32": "fp32_contents", "FP64": "fp64_contents", "INT64": "int64_contents"}
    for t in asked.inputs:
        tensor = request.inputs.add(name=t.name, datatype=t.datatype, shape=t.shape)
        if raw:
            request.raw_input_contents.append(t.raw())
        elif t.datatype == "BYTES":
            tensor.contents.bytes_contents.extend(v.encode() for v in t.values)
        else:
            getattr(tensor.contents, fields[t.datatype]).extend(t.values)
    for name in asked.outputs:
        request.outputs.add(name=name)
    return request.SerializeToString()


def _array(datatype: str, shape: list[int], data: Any) -> Any:
    return np.array(data, object).reshape(shape).tolist()


_DTYPES = {"FP32": "<f4", "INT64": "<i8"}


def _from_bytes(datatype: str, shape: list[int], blob: bytes) -> Any:
    return np.frombuffer(blob, _DTYPES[datatype]).reshape(shape).tolist()


def _error(document: dict[str, Any], status: str, **more: str) -> Got:
    return Got(
        code=document["code"],
        message=document["error"],
        id=document.get("id", ""),
        request_id=document["request_id"],
        status=status,
        **more,
    )


def _v2_answer(document: dict[str, Any], tail: bytes = b"") -> Got:
    outputs = {}
    for tensor in document["outputs"]:
        size = tensor.get("parameters", {}).get("binary_data_size")
        if size is None:
            outputs[tensor["name"]] = _array(tensor["datatype"], tensor["shape"], tensor["data"])
        else:
            outputs[tensor["name"]] = _from_bytes(tensor["datatype"], tensor["shape"], tail[:size])
            tail = tail[size:]
    assert document["model_name"] == MODEL
    assert document["model_version"] == "7"
    return Got(outputs, document["id"])


def _plain_answer(document: dict[str, Any]) -> Got:
    assert document["model_version"] == "7"
    return Got(document["outputs"], document["id"])


def _message_answer(response: pb.ModelInferResponse) -> Got:
    outputs = {}
    for index, tensor in enumerate(response.outputs):
        shape = list(tensor.shape)
        if response.raw_output_contents:
            blob = response.raw_output_contents[index]
            outputs[tensor.name] = _from_bytes(tensor.datatype, shape, blob)
        else:
            values = getattr(tensor.contents, {"FP32": "fp32_contents"}[tensor.datatype])
            outputs[tensor.name] = _array(tensor.datatype, shape, list(values))
    assert response.model_name == MODEL
    assert response.model_version == "7"
    return Got(outputs, response.id)


# --- doors ------------------------------------------------------------------------------------------------------------


async def _post(
    w: World, asked: Asked, path: str, body: bytes, headers: dict[str, str] | None = None
) -> httpx.Response:
    sent = {**(headers or {}), **({"x-request-id": asked.request_id} if asked.request_id else {})}
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        return await client.post(w.url + path, content=body, headers=sent)


def _of_http(response: httpx.Response, answer: Callable[[], Got]) -> Got:
    more = {"revision": response.headers["x-canarium-revision"]}
    if response.status_code != 200:
        return _error(response.json(), str(response.status_code), **more)
    got = answer()
    request_id = response.headers["x-request-id"]
    return Got(got.outputs, got.id, status="200", request_id=request_id, **more)


async def ask_v2(w: World, asked: Asked) -> Got:
    """`POST /v2/models/NAME/infer`, JSON."""
    response = await _post(w, asked, INFER, v2_body(asked))
    return _of_http(response, lambda: _v2_answer(response.json()))


async def ask_v2_binary(w: World, asked: Asked) -> Got:
    """The same, with binary data in both directions."""
    body, size = v2_binary(asked)
    headers = {"inference-header-content-length": str(size)}
    response = await _post(w, asked, INFER, body, headers)

    def answer() -> Got:
        size = int(response.headers["inference-header-content-length"])
        return _v2_answer(json.loads(response.content[:size]), response.content[size:])

    return _of_http(response, answer)


async def ask_plain(w: World, asked: Asked) -> Got:
    """`POST /predict`."""
    response = await _post(w, asked, "/predict", plain_body(asked))
    return _of_http(response, lambda: _plain_answer(response.json()))


def _of_events(response: httpx.Response, answer: Callable[[Any], Got]) -> Got:
    def read() -> Got:
        assert response.headers["content-type"].startswith("text/event-stream")
        events = response.text.removesuffix("\n\n").split("\n\n")
        assert len(events) == 2, "one piece and the end"
        piece, end = events
        got = answer(json.loads(piece.removeprefix("data: ")))
        assert json.loads(end.removeprefix("event: end\ndata: ")) == {"id": got.id, "pieces": 1}
        return got

    return _of_http(response, read)


async def ask_plain_events(w: World, asked: Asked) -> Got:
    """`POST /predict/stream`."""
    response = await _post(w, asked, "/predict/stream", plain_body(asked))
    return _of_events(response, _plain_answer)


async def ask_v2_events(w: World, asked: Asked) -> Got:
    """`POST /v2/models/NAME/infer_stream`."""
    path = f"/v2/models/{MODEL}/infer_stream"
    response = await _post(w, asked, path, v2_body(asked))
    return _of_events(response, _v2_answer)


async def ask_websocket(w: World, asked: Asked) -> Got:
    """A message to `/predict/stream`."""
    address = w.url.replace("http", "ws") + "/predict/stream"
    async with connect(address, proxy=None) as socket:
        assert socket.response is not None
        revision = socket.response.headers["x-canarium-revision"]
        await socket.send(plain_body(asked).decode())
        try:
            document = json.loads(await asyncio.wait_for(socket.recv(), 10))
        except ConnectionClosedError as closed:
            assert closed.rcvd is not None
            assert closed.rcvd.code == 1009
            return Got(code="body_too_large", revision=revision)
        if "error" in document:
            return _error(document, "", revision=revision)
        got = _plain_answer(document)
        return Got(got.outputs, got.id, revision=revision)


def _metadata(asked: Asked) -> tuple[tuple[str, str], ...]:
    return (("x-request-id", asked.request_id),) if asked.request_id else ()


async def _unary(w: World, asked: Asked, raw: bool) -> Got:
    method = w.channel.unary_unary(f"/{SERVICE}/ModelInfer")
    call = method(message(asked, raw=raw), metadata=_metadata(asked), timeout=10)
    try:
        body = await call
    except aio.AioRpcError as error:
        trailing = dict(error.trailing_metadata() or ())
        if "canarium-error-bin" not in trailing:
            # Refused by gRPC itself, before any code of ours.
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            return Got(code="body_too_large", status="RESOURCE_EXHAUSTED")
        document = json.loads(trailing["canarium-error-bin"])
        assert error.details() == document["error"]
        return _error(document, error.code().name, revision=trailing["x-canarium-revision"])
    trailing = dict(await call.trailing_metadata())
    got = _message_answer(pb.ModelInferResponse.FromString(body))
    return Got(
        got.outputs,
        got.id,
        status="OK",
        request_id=trailing["x-request-id"],
        revision=trailing["x-canarium-revision"],
    )


async def ask_grpc(w: World, asked: Asked) -> Got:
    """`ModelInfer`, typed contents."""
    return await _unary(w, asked, False)


async def ask_grpc_raw(w: World, asked: Asked) -> Got:
    """`ModelInfer`, raw contents."""
    return await _unary(w, asked, True)


async def ask_grpc_stream(w: World, asked: Asked) -> Got:
    """`ModelStreamInfer`."""
    call = w.channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(
        metadata=_metadata(asked), timeout=10
    )
    await call.write(message(asked, raw=False))
    await call.done_writing()
    try:
        answers = [pb.ModelStreamInferResponse.FromString(body) async for body in call]
    except aio.AioRpcError as error:
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        return Got(code="body_too_large", status="RESOURCE_EXHAUSTED")
    (answer,) = answers
    revision = dict(await call.trailing_metadata())["x-canarium-revision"]
    if answer.error_message:
        got = Got(message=answer.error_message, code="?", id=answer.infer_response.id)
    else:
        got = _message_answer(answer.infer_response)
    return Got(got.outputs, got.id, got.code, got.message, revision=revision)


@dataclass(frozen=True)
class Way:
    """One door."""

    ask: Callable[[World, Asked], Awaitable[Got]]
    protocol: str
    """`v2` or `plain`: what can be said in it, and how it names fields."""
    hot: bool = True
    """The server has the hot lane."""
    shares_head: bool = False
    """Requests of one connection share its metadata, so that a request has no id of its own."""


DOORS: dict[str, Way] = {
    "hot lane, V2": Way(ask_v2, "v2"),
    "hot lane, V2 binary": Way(ask_v2_binary, "v2"),
    "hot lane, plain": Way(ask_plain, "plain"),
    "FastAPI, V2": Way(ask_v2, "v2", hot=False),
    "FastAPI, V2 binary": Way(ask_v2_binary, "v2", hot=False),
    "FastAPI, plain": Way(ask_plain, "plain", hot=False),
    "events, V2": Way(ask_v2_events, "v2"),
    "events, plain": Way(ask_plain_events, "plain"),
    "WebSocket": Way(ask_websocket, "plain", shares_head=True),
    "gRPC, typed": Way(ask_grpc, "v2"),
    "gRPC, raw": Way(ask_grpc_raw, "v2"),
    "gRPC, stream": Way(ask_grpc_stream, "v2", shares_head=True),
}
