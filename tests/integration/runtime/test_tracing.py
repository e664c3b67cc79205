"""Traces of real requests, through each HTTP door: which spans there are, what they say, and where they go."""

import asyncio
import gzip
import json
import logging
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from canarium_api.runtime_config import RuntimeConfig
from canarium_runtime.app import create_app
from canarium_runtime.backends.base import Array, BackendError
from canarium_runtime.caching import ResponseCache
from canarium_runtime.caching.memory import MemoryLevel
from canarium_runtime.listening import QuietServer, uvicorn_config
from canarium_runtime.rest import hotlane
from canarium_runtime.rest.endpoints import Predictor
from canarium_runtime.testing import FakeBackend, make_models
from canarium_runtime.tracing import spans as spans_module
from canarium_runtime.tracing.spans import SpanWriter, make_writer, resource_of, traces_url

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
NOT_SAMPLED = {"traceparent": f"00-{TRACE}-{SPAN}-00"}
ROW = {"instances": [[1, 2]]}
INFER = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}


class Server:
    """A running server whose spans stay in memory, or go where `exporter` says."""

    def __init__(self, port: int, models: Any, exporter: SpanExporter, writer: SpanWriter) -> None:
        self.port = port
        self.models = models
        self.exporter = exporter
        self.writer = writer
        self.client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}")

    async def post(
        self, path: str = "/predict", body: Any = ROW, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        return await self.client.post(path, json=body, headers=headers or {})

    async def spans(self) -> dict[str, list[ReadableSpan]]:
        """All spans so far, by name."""
        await asyncio.to_thread(self.writer._processor.force_flush)
        assert isinstance(self.exporter, InMemorySpanExporter)
        found: dict[str, list[ReadableSpan]] = {}
        for span in self.exporter.get_finished_spans():
            found.setdefault(span.name, []).append(span)
        return found


@asynccontextmanager
async def serve(
    *,
    hot: bool = True,
    ratio: float = 0.0,
    exporter: SpanExporter | None = None,
    writer: SpanWriter | None = None,
    backend: FakeBackend | None = None,
    **settings: Any,
) -> AsyncIterator[Server]:
    models = make_models(
        backend,
        model_name="fraud",
        deployment="shop/fraud",
        hot_lane=hot,
        tracing_ratio=ratio,
        **settings,
    )
    used = exporter or InMemorySpanExporter()
    made = writer or SpanWriter(used, resource_of(models.config, {"K8S_POD_NAME": "fraud-1"}))
    models.trace_with(made)
    predictor = Predictor(models)
    http: dict[str, Any] = {"http": hotlane.protocol_class(predictor)} if hot else {}
    app = create_app(models.config, predictor)
    server = QuietServer(uvicorn_config(app, host="127.0.0.1", port=0, **http))
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(10):
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.001)
    found = Server(server.servers[0].sockets[0].getsockname()[1], models, used, made)
    try:
        yield found
    finally:
        await found.client.aclose()
        server.should_exit = True
        await serving
        await models.close()


def said(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


@pytest.mark.parametrize("hot", [True, False])
@pytest.mark.parametrize(
    ("path", "body", "route"),
    [
        ("/predict", ROW, "/predict"),
        ("/v2/models/fraud/infer", INFER, "/v2/models/{name}[/versions/{version}]/infer"),
    ],
)
async def test_a_sampled_request_leaves_its_spans(
    hot: bool, path: str, body: Any, route: str
) -> None:
    """The server's own, child of the caller's; the wait; the run."""
    async with serve(hot=hot) as server:
        answer = await server.post(path, body, {**SAMPLED, "x-request-id": "q-1"})
        assert answer.status_code == 200
        spans = await server.spans()
    assert sorted(spans) == sorted([f"POST {route}", "queue", "run batch"])
    (own,), (queue,), (run,) = spans[f"POST {route}"], spans["queue"], spans["run batch"]
    assert own.context is not None
    assert own.parent is not None
    assert f"{own.context.trace_id:032x}" == TRACE
    assert f"{own.parent.span_id:016x}" == SPAN
    assert own.kind is SpanKind.SERVER
    assert said(own) == {
        "http.request.method": "POST",
        "http.route": route,
        "http.response.status_code": 200,
        "canarium.model.name": "fraud",
        "canarium.model.version": "7",
        "canarium.revision": "r1",
        "canarium.request.id": "q-1",
        "canarium.rows": 1,
        "canarium.batch.size": 1,
        "canarium.batch.count": 1,
    }
    for child in (queue, run):
        assert child.parent is not None
        assert child.parent.span_id == own.context.span_id
    times = (own.start_time, queue.start_time, queue.end_time, run.start_time, run.end_time)
    assert all(times)
    assert queue.end_time == run.start_time
    assert own.start_time <= queue.start_time <= run.start_time <= run.end_time <= own.end_time  # type: ignore[operator]
    assert own.resource.attributes["service.name"] == "fraud"
    assert own.resource.attributes["service.namespace"] == "shop"
    assert own.resource.attributes["service.version"] == "r1"
    assert own.resource.attributes["k8s.pod.name"] == "fraud-1"


@pytest.mark.parametrize("headers", [NOT_SAMPLED, {}])
async def test_a_request_that_is_not_sampled_leaves_nothing(headers: dict[str, str]) -> None:
    """And no trace is made for it at all."""
    async with serve() as server:
        assert (await server.post(headers=headers)).status_code == 200
        assert await server.spans() == {}
        assert server.writer._handed == 0


async def test_a_state_is_passed_on() -> None:
    """Several headers are one list."""
    async with serve() as server:
        headers = [*SAMPLED.items(), ("tracestate", "a=1"), ("tracestate", "b=2")]
        await server.client.post("/predict", json=ROW, headers=headers)
        (own,) = (await server.spans())["POST /predict"]
    assert own.context is not None
    assert own.context.trace_state.to_header() == "a=1,b=2"


async def test_the_span_of_a_batch_is_linked_to_all_its_requests() -> None:
    """It is in the first one's trace; the others point to it."""
    gate = threading.Event()
    backend = FakeBackend(gate=gate)
    async with serve(backend=backend, ratio=1.0) as server:
        first = asyncio.create_task(server.post())
        async with asyncio.timeout(10):
            while not backend.started.is_set():  # noqa: ASYNC110 - set by a thread
                await asyncio.sleep(0.001)
        rest = [asyncio.create_task(server.post()) for _ in range(3)]
        async with asyncio.timeout(10):
            while server.models.primary.waiting < 3:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.001)
        gate.set()
        await asyncio.gather(first, *rest)
        spans = await server.spans()
    own = {s.context.span_id: s.context.trace_id for s in spans["POST /predict"] if s.context}
    assert len(own) == 4
    _, batch = sorted(spans["run batch"], key=lambda s: said(s)["canarium.batch.size"])
    assert said(batch) == {"canarium.batch.size": 3, "canarium.batch.requests": 3}
    links = {link.context.span_id: link.context.trace_id for link in batch.links}
    assert len(links) == 3
    assert links.items() <= own.items()
    others = spans["run in batch"]
    assert len(others) == 2
    assert batch.context is not None
    for other in others:
        assert [link.context.span_id for link in other.links] == [batch.context.span_id]
        assert (other.start_time, other.end_time) == (batch.start_time, batch.end_time)


@pytest.mark.parametrize(
    ("body", "status", "code", "failed"),
    [
        ({"instances": [["a", 1]]}, 422, "invalid_input", False),
        ({}, 400, "malformed_request", False),
        ({"instances": [[1, 2], [3, 4]]}, 500, "model_failed", True),
    ],
)
async def test_a_failure_says_its_code(body: Any, status: int, code: str, failed: bool) -> None:
    """A client's mistake is no error of the server's span."""
    async with serve(backend=FakeBackend(compute=_failing)) as server:
        assert (await server.post(body=body, headers=SAMPLED)).status_code == status
        (own,) = (await server.spans())["POST /predict"]
    assert said(own)["error.type"] == code
    assert said(own)["http.response.status_code"] == status
    assert (own.status.status_code is StatusCode.ERROR) is failed


async def test_a_refused_request_is_traced_too() -> None:
    """It never got a place in the server."""
    async with serve() as server:
        server.models.primary.terminate()
        server.models.primary.stop()
        assert (await server.post(headers=SAMPLED)).status_code == 503
        (own,) = (await server.spans())["POST /predict"]
    assert said(own)["error.type"] == "stopping"


async def test_a_request_that_the_cache_answers_says_so() -> None:
    """The first is a miss and runs, the second a hit and does not."""
    async with serve() as server:
        primary = server.models.primary
        primary._compose(ResponseCache(("d",), MemoryLevel(1 << 20, 60.0), [], flight_seconds=30))
        for _ in range(2):
            await server.post(headers=SAMPLED)
        spans = await server.spans()
    assert [said(s)["canarium.cache"] for s in spans["POST /predict"]] == ["miss", "hit"]
    assert len(spans["run batch"]) == 1


def _failing(_: Any) -> list[Array]:
    msg = "no"
    raise BackendError(msg)


def _crashing(_: Any) -> list[Array]:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("compute", "about"),
    [
        (_failing, {"request_id": "q-9", "trace_id": TRACE, "code": "model_failed"}),
        (_crashing, {"request_ids": ["q-9"], "trace_ids": [TRACE]}),
    ],
)
async def test_a_failure_is_logged_with_its_request_and_trace(
    compute: Any, about: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """So that a line leads to the trace, and the answer's id to the line."""
    async with serve(backend=FakeBackend(compute=compute)) as server:
        answer = await server.post(headers={**SAMPLED, "x-request-id": "q-9"})
        assert answer.status_code == 500
    (line,) = [vars(r) for r in caplog.records if r.levelno >= logging.ERROR]
    assert about.items() <= line.items()


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://otel:4318", "http://otel:4318/v1/traces"),
        ("http://otel:4318/", "http://otel:4318/v1/traces"),
        ("https://otel/otlp/v1/traces", "https://otel/otlp/v1/traces"),
    ],
)
def test_a_collectors_address_alone_means_its_usual_path(given: str, url: str) -> None:
    """A path is kept as it is."""
    assert traces_url(given) == url


class Collector(BaseHTTPRequestHandler):
    """A receiver of OTLP over HTTP."""

    status = 200
    received: list[ExportTraceServiceRequest]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        if self.path == "/v1/traces":
            self.received.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(self.status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def collector(request: pytest.FixtureRequest) -> Iterator[tuple[str, type[Collector]]]:
    class Own(Collector):
        received: list[ExportTraceServiceRequest] = []  # noqa: RUF012 - of this test alone
        status = getattr(request, "param", 200)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Own)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", Own
    server.shutdown()
    server.server_close()
    thread.join()


def config(endpoint: str) -> RuntimeConfig:
    return RuntimeConfig(
        model_uri="file:///m.onnx", deployment="shop/fraud", tracing_endpoint=endpoint
    )


async def test_spans_reach_a_collector_by_otlp(collector: tuple[str, type[Collector]]) -> None:
    """What it gets is what was meant, and is sent when the server ends."""
    endpoint, received = collector
    async with serve(writer=make_writer(config(endpoint))) as server:
        await server.post(headers=SAMPLED)
    (batch,) = received.received
    (resource,) = batch.resource_spans
    attributes = {a.key: a.value.string_value for a in resource.resource.attributes}
    assert attributes["service.name"] == "fraud"
    spans = resource.scope_spans[0].spans
    assert {s.name for s in spans} == {"POST /predict", "queue", "run batch"}
    assert {s.trace_id.hex() for s in spans} == {TRACE}
    assert server.writer.dropped == 0


@pytest.mark.parametrize("collector", [400], indirect=True)
async def test_what_a_collector_does_not_take_is_counted(
    collector: tuple[str, type[Collector]],
) -> None:
    """The requests are answered as ever."""
    async with serve(writer=make_writer(config(collector[0]))) as server:
        assert (await server.post(headers=SAMPLED)).status_code == 200
        await asyncio.to_thread(server.writer._processor.force_flush)
        text = (await server.client.get("/metrics")).text
    line = next(x for x in text.splitlines() if x.startswith("ml_trace_spans_dropped_total{"))
    assert float(line.split()[-1]) == 3


async def test_a_collector_that_hangs_costs_a_bounded_queue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What does not fit is dropped and counted, and no request waits."""
    monkeypatch.setattr(spans_module, "_MAX_WAITING_SPANS", 64)
    monkeypatch.setattr(spans_module, "_SPANS_AN_EXPORT", 16)
    release = threading.Event()

    class Hanging(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            release.wait(10)
            return SpanExportResult.SUCCESS

        def shutdown(self) -> None:
            """Nothing is held."""

    async with serve(exporter=Hanging(), ratio=1.0) as server:
        for _ in range(60):
            assert (await server.post()).status_code == 200
        handed, dropped = server.writer._handed, server.writer.dropped
        release.set()
    assert handed + dropped == 180
    assert dropped > 0
    assert handed <= 64 + 16


def test_the_settings_are_read_from_the_environment() -> None:
    """A URL with a password is refused."""
    base = {"CANARIUM_MODEL_URI": "file:///m.onnx"}
    read = RuntimeConfig.from_env(
        {
            **base,
            "CANARIUM_TRACING_ENDPOINT": "http://otel:4318",
            "CANARIUM_TRACING_RATIO": "0.5",
        }
    )
    assert (read.tracing_endpoint, read.tracing_ratio) == ("http://otel:4318", 0.5)
    for wrong in ("otel:4318", "http://me:secret@otel:4318"):
        with pytest.raises(ValueError, match="tracing_endpoint"):
            RuntimeConfig.from_env({**base, "CANARIUM_TRACING_ENDPOINT": wrong})


def test_opentelemetry_is_not_imported_without_need() -> None:
    """A server that traces nothing does not pay for the SDK at its start."""
    code = (
        "import sys, canarium_runtime.server; "
        "print([m for m in sys.modules if m.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.replace("'", '"')) == []
