"""The REST API over ASGI: every route, every refusal, and what is counted."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.types import Message

from canarium_api.metric_names import PredictionStatus
from canarium_runtime.app import create_app
from canarium_runtime.errors import ServingError
from canarium_runtime.models import Models
from canarium_runtime.rest.endpoints import Predictor
from canarium_runtime.testing import FakeBackend, make_models, make_service, model_spec, tensor

INFER = "/v2/models/fraud/infer"
ROW = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}
PLAIN = {"inputs": {"x": [[1, 2], [3, 4]]}}


class World:
    """A service, its backend and a client."""

    def __init__(self, backend: FakeBackend, models: Models, client: httpx.AsyncClient) -> None:
        self.backend = backend
        self.models = models
        self.service = models.primary
        self.client = client

    def counted(self) -> dict[str, int]:
        """Predictions by status, without zeros."""
        return {s.value: n for s, n in self.service.metrics.predictions.items() if n}


@asynccontextmanager
async def world(backend: FakeBackend | None = None, **settings: Any) -> AsyncIterator[World]:
    backend = backend or FakeBackend()
    models = make_models(backend, **{"model_name": "fraud", **settings})
    service = models.primary
    transport = httpx.ASGITransport(create_app(service.config, Predictor(models)))
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        yield World(backend, models, client)
    service.close()


@pytest.mark.parametrize("path", [INFER, "/v2/models/fraud/versions/7/infer"])
async def test_v2_infer_answers(path: str) -> None:
    """A V2 request gets the outputs, the version, its own id and both headers."""
    async with world() as w:
        response = await w.client.post(
            path, json={"id": "mine", **ROW}, headers={"x-request-id": "r-1"}
        )
        assert response.status_code == 200
        assert response.json() == {
            "model_name": "fraud",
            "model_version": "7",
            "id": "mine",
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [3.0]}],
        }
        assert response.headers["x-request-id"] == "r-1"
        assert response.headers["x-canarium-revision"] == "r1"
        assert response.headers["content-type"] == "application/json"
        assert w.counted() == {"success": 1}


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(PLAIN, id="inputs by name"),
        pytest.param({"instances": [[1, 2], [3, 4]]}, id="instances"),
        pytest.param({"instances": [{"x": [1, 2]}, {"x": [3, 4]}]}, id="instances as objects"),
    ],
)
async def test_predict_answers(body: dict[str, Any]) -> None:
    """The simple protocol gives outputs by name, and what answered."""
    async with world() as w:
        response = await w.client.post("/predict", json=body)
        answer = response.json()
        assert len(answer.pop("id")) > 8
        assert answer == {
            "outputs": {"y": [3, 7]},
            "model_name": "fraud",
            "model_version": "7",
            "revision": "r1",
        }


async def test_only_wanted_outputs_are_given() -> None:
    """A V2 request may name its outputs."""
    spec = model_spec(outputs=[tensor("y", "FP32", None), tensor("label", "BYTES", None)])
    backend = FakeBackend(
        spec, lambda i: [i["x"].sum(axis=1), np.array(["a"] * len(i["x"]), object)]
    )
    async with world(backend) as w:
        response = await w.client.post(INFER, json={**ROW, "outputs": [{"name": "label"}]})
        assert response.json()["outputs"] == [
            {"name": "label", "datatype": "BYTES", "shape": [1], "data": ["a"]}
        ]


@pytest.mark.parametrize(
    ("method", "path", "kwargs", "status", "code", "message", "counted"),
    [
        pytest.param(
            "POST",
            INFER,
            {"content": b"{"},
            400,
            "malformed_request",
            "not valid JSON",
            "invalid",
            id="json",
        ),
        pytest.param(
            "POST",
            INFER,
            {"content": b"\xff"},
            400,
            "malformed_request",
            "JSON",
            "invalid",
            id="no utf-8",
        ),
        pytest.param(
            "POST", INFER, {"content": b""}, 400, "malformed_request", "JSON", "invalid", id="empty"
        ),
        pytest.param(
            "POST",
            "/predict",
            {"json": []},
            400,
            "malformed_request",
            "body:",
            "invalid",
            id="no object",
        ),
        pytest.param(
            "POST",
            "/predict",
            {"json": {"inputs": {"x": [[1, "a"]]}}},
            422,
            "invalid_input",
            'inputs.x[0][1]: expected a number (FP32), got a string "a"',
            "invalid",
            id="a wrong element",
        ),
        pytest.param(
            "POST",
            INFER,
            {"content": b" " * 2000},
            413,
            "body_too_large",
            "at most 1024 bytes",
            "invalid",
            id="large",
        ),
        pytest.param(
            "POST",
            INFER,
            {"json": ROW, "headers": {"content-encoding": "br"}},
            415,
            "unsupported_encoding",
            "Content-Encoding",
            "invalid",
            id="compressed",
        ),
        pytest.param(
            "POST",
            INFER,
            {"json": ROW, "headers": {"inference-header-content-length": "5000"}},
            400,
            "malformed_request",
            "Inference-Header-Content-Length: expected at most",
            "invalid",
            id="less JSON than the header says",
        ),
        pytest.param(
            "POST",
            INFER,
            {"json": ROW, "headers": {"inference-header-content-length": "9" * 5000}},
            400,
            "malformed_request",
            "Inference-Header-Content-Length: expected a number",
            "invalid",
            id="no number of bytes of JSON",
        ),
        pytest.param(
            "POST",
            "/predict",
            {"json": PLAIN, "headers": {"inference-header-content-length": "5"}},
            415,
            "unsupported_encoding",
            "V2",
            "invalid",
            id="binary tensors are of V2",
        ),
        pytest.param(
            "POST",
            "/v2/models/other/infer",
            {"json": ROW},
            404,
            "not_found",
            "no model 'other' here; there is 'fraud'",
            None,
            id="another model",
        ),
        pytest.param(
            "GET",
            "/v2/models/fraud/versions/8",
            {},
            404,
            "not_found",
            "no version '8' here; there is '7'",
            None,
            id="another version",
        ),
        pytest.param(
            "GET",
            "/nothing",
            {},
            404,
            "not_found",
            "/v2/models/fraud/infer",
            None,
            id="another path",
        ),
        pytest.param(
            "GET", "/predict", {}, 405, "method_not_allowed", "GET", None, id="another method"
        ),
        pytest.param(
            "POST",
            "/predict",
            {"content": b'{"inputs": {"x": [[NaN, 1]]}}'},
            400,
            "malformed_request",
            "JSON",
            "invalid",
            id="NaN is not JSON",
        ),
    ],
)
async def test_a_clients_mistake_is_a_4xx_that_says_what_is_wrong(
    method: str,
    path: str,
    kwargs: dict[str, Any],
    status: int,
    code: str,
    message: str,
    counted: str | None,
) -> None:
    """World: a request; world: its status, a code, one sentence, and how it counts."""
    async with world(max_body_bytes=1024) as w:
        response = await w.client.request(method, path, **kwargs)
        answer = response.json()
        assert (response.status_code, answer["code"]) == (status, code)
        assert message in answer["error"]
        assert answer["request_id"] == response.headers["x-request-id"]
        assert response.headers["x-canarium-revision"] == "r1"
        assert "Traceback" not in response.text
        assert w.counted() == ({counted: 1} if counted else {})
        assert w.backend.batch_rows == []


async def test_a_body_without_a_length_is_bounded_too() -> None:
    """Chunks are counted while they come."""
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield b" " * 512

    async with world(max_body_bytes=1024) as w:
        response = await w.client.post(INFER, content=chunks())
        assert response.status_code == 413
        assert sent <= 4


async def test_the_models_failure_is_a_500_without_its_secrets(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The client learns that the model failed; the log has the cause and the request id."""
    backend = FakeBackend(compute=lambda i: [i["missing"]])
    async with world(backend) as w:
        response = await w.client.post("/predict", json=PLAIN)
        assert response.status_code == 500
        assert response.json()["code"] == "internal_error"
        assert w.counted() == {"error": 1}
    spec = model_spec(inputs=[tensor("x", "FP32", None, 2)])
    nan = FakeBackend(spec)
    async with world(nan) as w:
        nan.infer = _always_nan(nan)  # type: ignore[method-assign]
        response = await w.client.post("/predict", json=PLAIN, headers={"x-request-id": "abc"})
        assert (response.status_code, response.json()["code"]) == (500, "model_failed")
        assert "secret" not in response.text
        logged = next(r for r in caplog.records if r.message == "a prediction failed")
        assert "secret detail" in vars(logged)["cause"]
        assert vars(logged)["request_id"] == "abc"
        assert w.counted() == {"error": 1}


def _always_nan(backend: FakeBackend) -> Callable[..., Any]:
    original = backend.infer
    return lambda inputs, outputs: original(
        {n: np.full_like(a, np.nan) for n, a in inputs.items()}, outputs
    )


async def test_failures_do_not_flood_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """A model that fails on everything writes a few lines a second."""
    backend = FakeBackend()
    async with world(backend) as w:
        backend.infer = _always_nan(backend)  # type: ignore[method-assign]
        for _ in range(50):
            await w.client.post("/predict", json=PLAIN)
        assert w.counted() == {"error": 50}
        assert len([r for r in caplog.records if r.message == "a prediction failed"]) <= 20


@pytest.mark.parametrize("path", ["/predict", INFER, "/v2/models/fraud"])
async def test_while_loading_clients_are_told_to_come_back(path: str) -> None:
    """503 with Retry-After and the reason; alive, but not ready."""
    async with world(serving=False) as w:
        method = "GET" if path == "/v2/models/fraud" else "POST"
        response = await w.client.request(method, path, json=PLAIN)
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        assert "being loaded" in response.json()["error"]
        assert (await w.client.get("/v2/health/live")).status_code == 200
        for ready in ("/v2/health/ready", "/health/ready", "/v2/models/fraud/ready", "/health"):
            assert (await w.client.get(ready)).status_code == 503


async def test_a_full_queue_is_a_429_with_retry_after() -> None:
    """One request runs, one is ready behind it, one waits; the next is refused at once, and the three are answered."""
    gate = threading.Event()
    backend = FakeBackend(gate=gate)
    async with world(backend, queue_size=1, max_batch_size=1) as w:
        first = asyncio.create_task(w.client.post("/predict", json={"instances": [[1, 2]]}))
        await _until(backend.started.is_set)
        second = asyncio.create_task(w.client.post("/predict", json={"instances": [[1, 2]]}))
        await _until(lambda: w.service.metrics.inflight == 2 and w.service.waiting == 0)
        third = asyncio.create_task(w.client.post("/predict", json={"instances": [[1, 2]]}))
        await _until(lambda: w.service.waiting == 1)
        fourth = await w.client.post("/predict", json={"instances": [[1, 2]]})
        assert (fourth.status_code, fourth.headers["retry-after"]) == (429, "1")
        gate.set()
        assert [(await t).status_code for t in (first, second, third)] == [200, 200, 200]
        assert w.counted() == {"success": 3, "rejected": 1}


async def test_no_answer_in_time_is_a_504() -> None:
    """A model that hangs does not keep its clients."""
    gate = threading.Event()
    async with world(FakeBackend(gate=gate), request_timeout="50ms") as w:
        response = await w.client.post("/predict", json=PLAIN)
        assert (response.status_code, response.json()["code"]) == (504, "deadline_exceeded")
        assert w.counted() == {"timeout": 1}
        gate.set()


async def test_a_draining_server_answers_and_asks_clients_to_leave() -> None:
    """Not ready, still answering, closing connections; then refusing."""
    async with world() as w:
        w.service.terminate()
        assert (await w.client.get("/v2/health/ready")).status_code == 503
        response = await w.client.post("/predict", json=PLAIN)
        assert (response.status_code, response.headers["connection"]) == (200, "close")
        w.service.stop()
        response = await w.client.post("/predict", json=PLAIN)
        assert (response.status_code, response.json()["code"]) == (503, "stopping")
        assert response.headers["connection"] == "close"
        assert w.counted() == {"success": 1, "rejected": 1}


async def test_metadata_comes_from_the_model() -> None:
    """Names, datatypes and shapes as the model declares them; -1 for any size."""
    async with world() as w:
        assert (await w.client.get("/v2")).json()["name"] == "canarium"
        for path in ("/v2/models/fraud", "/v2/models/fraud/versions/7"):
            assert (await w.client.get(path)).json() == {
                "name": "fraud",
                "versions": ["7"],
                "platform": "fake",
                "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
                "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}],
            }
            assert (await w.client.get(path + "/ready")).json() == {"name": "fraud", "ready": True}
        ready = (await w.client.get("/v2/health/ready")).json()
        assert ready == {"live": True, "ready": True, "state": "Ready", "reason": ""}


async def test_metrics_are_on_the_same_port() -> None:
    """Prometheus' text format, with this revision's labels."""
    async with world() as w:
        await w.client.post("/predict", json=PLAIN)
        response = await w.client.get("/metrics")
        assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
        labels = 'deployment="local/model",model_version="7",revision="r1"'
        assert (
            f'ml_predictions_total{{{labels},status="{PredictionStatus.SUCCESS}"}} 1.0'
            in response.text
        )
        assert f"ml_batch_size_sum{{{labels}}} 2.0" in response.text
        assert f"ml_model_ready{{{labels}}} 1.0" in response.text
        assert f"ml_inflight_requests{{{labels}}} 0.0" in response.text


async def test_the_openapi_document_describes_both_protocols() -> None:
    """Bodies are documented although FastAPI does not parse them; every reference resolves."""
    async with world() as w:
        document = (await w.client.get("/openapi.json")).json()
        assert {"/predict", "/v2/models/{name}/infer", "/health", "/metrics"} <= set(
            document["paths"]
        )
        body = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"][
            "schema"
        ]
        assert body == {"$ref": "#/components/schemas/PredictRequest"}
        references = set(_references(document))
        assert references
        assert references <= {
            f"#/components/schemas/{n}" for n in document["components"]["schemas"]
        }


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        return [v for k, v in node.items() if k == "$ref"] + [
            r for v in node.values() for r in _references(v)
        ]
    return [r for v in node for r in _references(v)] if isinstance(node, list) else []


@pytest.mark.parametrize("sent", ["", "a b", "x" * 129, "ü"])
async def test_an_unsafe_request_id_is_replaced(sent: str) -> None:
    """An id goes into headers and logs, so only visible characters pass, and not many."""
    async with world() as w:
        response = await w.client.post(
            "/predict", json=PLAIN, headers={"x-request-id": sent.encode()}
        )
        assert response.headers["x-request-id"] not in {sent, ""}


async def test_a_routed_prediction_is_the_same_as_the_fast_one() -> None:
    """A path that only the router understands (escaped) reaches the same service."""
    async with world() as w:
        body = b'{"instances": [[1, 2]]}'
        messages = await _asgi(
            create_app(w.service.config, Predictor(w.models))._app, "/predict", [body]
        )  # type: ignore[arg-type]
        assert messages[0]["status"] == 200
        assert (b"x-canarium-revision", b"r1") in messages[0]["headers"]
        assert w.counted() == {"success": 1}


async def test_a_body_that_does_not_come_is_given_up() -> None:
    """A slow client does not hold a place for ever: 408 after the request timeout."""
    async with world(request_timeout="10ms") as w:
        app = create_app(w.service.config, Predictor(w.models))
        messages = await _asgi(app, "/predict", [b'{"inst', None])
        assert messages[0]["status"] == 408
        assert w.counted() == {"invalid": 1}
        assert w.service.metrics.inflight == 0


async def test_a_client_that_leaves_is_its_own_mistake() -> None:
    """A connection closed in mid-body is no failure of the model."""
    async with world() as w:
        app = create_app(w.service.config, Predictor(w.models))
        await _asgi(app, "/predict", [b"{"], then={"type": "http.disconnect"})
        assert w.counted() == {"invalid": 1}


async def test_a_cancelled_body_read_stays_cancelled() -> None:
    """Only the deadline turns a cancellation into an answer."""
    async with world() as w:
        app = create_app(w.service.config, Predictor(w.models))
        task = asyncio.create_task(_asgi(app, "/predict", [None]))
        await _until(lambda: w.service.metrics.inflight == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert w.service.metrics.inflight == 0


async def test_the_service_says_why_it_has_no_specs() -> None:
    """Asking a loading service for its model is an answerable error."""
    with pytest.raises(ServingError, match="being loaded"):
        _ = make_service(serving=False).spec


async def _asgi(
    app: Callable[..., Any], path: str, chunks: list[bytes | None], then: Message | None = None
) -> list[Message]:
    """Call an ASGI application by hand; a chunk of None never comes."""
    sent: list[Message] = []
    rest = list(chunks)

    async def receive() -> Message:
        if not rest:
            assert then is not None
            return then
        chunk = rest.pop(0)
        if chunk is None:
            await asyncio.get_running_loop().create_future()
        return {"type": "http.request", "body": chunk, "more_body": bool(rest) or then is not None}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "headers": [],
        "query_string": b"",
        "root_path": "",
    }
    await app(scope, receive, send)
    return sent


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - a fake in a thread has no event to await
            await asyncio.sleep(0.001)
