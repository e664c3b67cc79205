"""The server as a process: starting, refusing to start, and leaving without losing a request."""

import asyncio
import hashlib
import json
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import numpy as np
import pytest
import trustme
from onnx import TensorProto, helper
from tests.integration.runtime.servers import Server, status

from canarium_runtime.testing import linear_model, write_model

BODY = {"instances": [[3, 4]]}


StartServer = Callable[..., Server]


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    servers: list[Server] = []

    def start(uri: str | None = None, **settings: str) -> Server:
        servers.append(
            Server(tmp_path, uri or linear_model(tmp_path / "model.onnx").as_uri(), **settings)
        )
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


async def test_no_request_is_lost_when_a_loaded_server_is_told_to_stop(
    start_server: StartServer,
) -> None:
    """Keep-alive clients under load, SIGTERM, and clients that leave when readiness is gone: every request is
    answered with 200, and the process leaves with 0. The second SIGTERM cuts the long delay short.
    """
    server = start_server(drain_delay="60s")
    await asyncio.to_thread(server.wait_ready)
    routed = True
    answered: list[int] = []

    async def client() -> None:
        async with httpx.AsyncClient(timeout=60, trust_env=False) as http:
            while routed:
                response = await http.post(
                    server.url + "/predict", json=BODY
                )  # any lost request raises here
                assert response.json()["outputs"] == {"y": [43.0]}
                answered.append(response.status_code)

    clients = [asyncio.create_task(client()) for _ in range(8)]
    await _until(lambda: len(answered) >= 200)
    server.terminate()
    told = len(answered)
    async with httpx.AsyncClient(timeout=60, trust_env=False) as probe:
        while (await probe.get(server.url + "/v2/health/ready")).status_code == 200:
            pass
    await _until(
        lambda: len(answered) >= told + 50
    )  # it goes on answering although it is not ready
    routed = False
    await asyncio.gather(*clients)
    server.terminate()
    assert set(answered) == {200}
    assert await asyncio.to_thread(server.exit_code) == 0
    assert [e["state"] for e in server.logs() if "state" in e] == [
        "Warming",
        "Ready",
        "Draining",
        "Stopping",
    ]


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - the condition is about another process
            await asyncio.sleep(0.01)


def slow_model(path: Path) -> Path:
    """Some hundredths of a second a run; y is the sum of a product of large matrices that depends on x."""
    matrix = np.full((1200, 1200), 1e-6, np.float32)
    nodes = [
        helper.make_node("Add", ["a", "x"], ["b"]),
        helper.make_node("MatMul", ["b", "a"], ["c"]),
        helper.make_node("ReduceSum", ["c", "axes"], ["y"], keepdims=0),
    ]
    return write_model(
        path,
        nodes,
        [("x", TensorProto.FLOAT, [1, 1])],
        [("y", TensorProto.FLOAT, [])],
        {"a": matrix, "axes": np.array([0, 1], np.int64)},
    )


async def test_requests_under_way_are_finished(start_server: StartServer, tmp_path: Path) -> None:
    """SIGTERM while requests run and wait: all are answered, though the door is closed at once."""
    server = start_server(
        slow_model(tmp_path / "slow.onnx").as_uri(), drain_delay="0s", drain_timeout="60s"
    )
    await asyncio.to_thread(server.wait_ready)
    async with (
        httpx.AsyncClient(timeout=60, trust_env=False) as http,
        httpx.AsyncClient(timeout=60, trust_env=False) as probe,
    ):
        tasks = [
            asyncio.create_task(http.post(server.url + "/predict", json={"instances": [[1]]}))
            for _ in range(8)
        ]
        while _inflight((await probe.get(server.url + "/metrics")).text) < 2:
            assert not all(t.done() for t in tasks), "the model is too quick for this test"
        server.terminate()
        responses = await asyncio.gather(*tasks)
    assert [r.status_code for r in responses] == [200] * 8
    assert await asyncio.to_thread(server.exit_code) == 0


def _inflight(metrics: str) -> float:
    return next(
        float(line.split()[-1])
        for line in metrics.splitlines()
        if line.startswith("ml_inflight_requests{")
    )


async def test_an_idle_connection_is_answered_once_more_and_closed(
    start_server: StartServer,
) -> None:
    """A request on a kept connection after SIGTERM gets its answer, with `Connection: close`."""
    server = start_server(drain_delay="2s")
    await asyncio.to_thread(server.wait_ready)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    assert b"connection: close" not in await _get(reader, writer)
    server.terminate()
    await asyncio.to_thread(server.wait_for, lambda: status(server.url + "/v2/health/ready") == 503)
    assert b"connection: close" in await _get(reader, writer)
    assert await reader.read() == b""
    writer.close()
    assert await asyncio.to_thread(server.exit_code) == 0


async def _get(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(b"GET /v2/health/live HTTP/1.1\r\nhost: h\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(len(b'{"live":true}'))
    return head.lower()


async def test_an_endless_body_is_refused_while_it_comes(start_server: StartServer) -> None:
    """A chunked body over the limit gets 413 although its end never comes."""
    server = start_server(max_body_bytes="2048")
    await asyncio.to_thread(server.wait_ready)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"POST /predict HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n")
    writer.write(b"1000\r\n" + b" " * 4096 + b"\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 413")
    writer.close()


def test_a_wrong_digest_is_never_served(start_server: StartServer) -> None:
    """The process leaves with 1, was never ready, and tells the operator why for good."""
    server = start_server(model_sha256="0" * 64)
    seen = set()
    while server.process.poll() is None:
        seen.add(status(server.url + "/v2/health/ready"))
    assert seen <= {None, 503}
    assert server.exit_code() == 1
    failure = server.failure()
    assert (failure.reason, failure.permanent) == ("DigestMismatch", True)
    assert any(
        e["level"] == "error" and e.get("failure", {}).get("reason") == "DigestMismatch"
        for e in server.logs()
    )


def test_a_broken_file_is_never_served(start_server: StartServer, tmp_path: Path) -> None:
    """An unreadable model ends the process with the reason."""
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"broken")
    server = start_server(path.as_uri())
    assert server.exit_code() == 1
    assert (server.failure().reason, server.failure().permanent) == ("ModelUnreadable", True)


def test_wrong_settings_are_named(start_server: StartServer) -> None:
    """The variable that is wrong is in the message."""
    server = start_server(max_batch_size="0")
    assert server.exit_code() == 2
    assert server.failure().reason == "InvalidConfig"
    assert "CANARIUM_MAX_BATCH_SIZE" in server.failure().message


class ModelHost:
    """Serves bytes over HTTPS or HTTP: 503 first, then the content, or nothing at all."""

    def __init__(self, content: bytes | None, certificate: trustme.LeafCert | None = None) -> None:
        requested, released = threading.Event(), threading.Event()
        self.requested, self._released = requested, released
        attempts = iter([503])

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                requested.set()
                if content is None:
                    released.wait(60)
                    return
                status = next(attempts, 200)
                self.send_response(status)
                self.send_header("content-length", str(len(content) if status == 200 else 0))
                self.end_headers()
                if status == 200:
                    self.wfile.write(content)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://localhost:{self._server.server_port}/model.onnx?signature=secret"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            certificate.configure_cert(context)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            self.uri = self.uri.replace("http://", "https://")
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
async def hosts() -> AsyncIterator[Callable[..., ModelHost]]:
    made: list[ModelHost] = []

    def make(content: bytes | None, certificate: trustme.LeafCert | None = None) -> ModelHost:
        made.append(ModelHost(content, certificate))
        return made[-1]

    yield make
    for host in made:
        host.close()


async def test_a_model_is_fetched_over_https_and_served(
    start_server: StartServer, hosts: Callable[..., ModelHost], tmp_path: Path
) -> None:
    """The first attempt meets a 503, the second gets the file; the signature in the URI is in no log."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    content = linear_model(tmp_path / "source.onnx").read_bytes()
    host = hosts(content, authority.issue_cert("localhost"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        server = start_server(host.uri, model_sha256=hashlib.sha256(content).hexdigest())
        await asyncio.to_thread(server.wait_ready)
    async with httpx.AsyncClient(timeout=60, trust_env=False) as http:
        response = await http.post(server.url + "/predict", json=BODY)
    assert response.json()["outputs"] == {"y": [43.0]}
    assert "secret" not in json.dumps(server.logs())
    assert any(e["message"] == "download attempt failed" for e in server.logs())


async def test_a_server_that_still_downloads_can_be_stopped(
    start_server: StartServer, hosts: Callable[..., ModelHost]
) -> None:
    """SIGTERM during a download that hangs: alive but never ready, and gone at once with 0."""
    host = hosts(None)
    server = start_server(host.uri, model_sha256="0" * 64)
    assert await asyncio.to_thread(host.requested.wait, 60)
    await asyncio.to_thread(server.wait_for, lambda: status(server.url + "/v2/health/live") == 200)
    assert status(server.url + "/v2/health/ready") == 503
    server.terminate()
    assert await asyncio.to_thread(server.exit_code) == 0
