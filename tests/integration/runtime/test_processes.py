"""A server of two processes: one port, one set of metrics, and what happens when a process dies or is told to stop."""

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.integration.runtime.servers import Server, status

from canarium_runtime.testing import linear_model

BODY = {"instances": [[3, 4]]}
StartServer = Callable[..., Server]


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    servers: list[Server] = []

    def start(uri: str | None = None, **settings: str) -> Server:
        model = uri or linear_model(tmp_path / "model.onnx").as_uri()
        servers.append(Server(tmp_path, model, **{"processes": "2", **settings}))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()  # its processes leave with it, which a test below proves
            server.process.wait()


def client() -> httpx.AsyncClient:
    return httpx.AsyncClient(timeout=60, trust_env=False)


def get(server: Server, path: str) -> str:
    """The body of an answer, whatever its status."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(server.url + path, timeout=20) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        return str(error.read().decode())


def processes(server: Server) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(get(server, "/health"))["processes"]
    return found


def series(text: str, name: str) -> float:
    """The sum of a metric over its labels."""
    return sum(
        float(line.split()[-1])
        for line in text.splitlines()
        if line.startswith((name + "{", name + " "))
    )


def answered(server: Server) -> tuple[float, str]:
    """Predictions that the metrics know of, and all metrics."""
    text = get(server, "/metrics")
    return series(text, "ml_predictions_total"), text


async def ask(server: Server, http: httpx.AsyncClient) -> None:
    """Send one request that must be answered."""
    response = await http.post(server.url + "/predict", json=BODY)
    assert response.json()["outputs"] == {"y": [43.0]}


async def test_metrics_are_those_of_all_processes(start_server: StartServer) -> None:
    """Whichever process is scraped knows each request, exactly; both have had some."""
    server = start_server()
    await asyncio.to_thread(server.wait_ready)
    async with client() as http:
        for _ in range(10):  # each time on 32 connections
            await asyncio.gather(*(ask(server, http) for _ in range(32)))
    seen = [await asyncio.to_thread(answered, server) for _ in range(8)]
    assert [count for count, _ in seen] == [320] * 8
    text = seen[0][1]
    assert series(text, "ml_prediction_duration_seconds_count") == 320
    assert series(text, "ml_model_ready") == 1
    assert series(text, "ml_processes_ready") == 2
    assert series(text, "ml_process_restarts_total") == 0
    shares = [await asyncio.to_thread(lambda p=p: cpu_seconds(p["pid"])) for p in processes(server)]
    assert all(share > 0 for share in shares)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_health_names_each_process(start_server: StartServer) -> None:
    """With its number, its state and how often it was started again; and the server is ready when all are."""
    server = start_server()
    await asyncio.to_thread(server.wait_ready)
    found = await asyncio.to_thread(processes, server)
    assert [(p["number"], p["state"], p["restarts"]) for p in found] == [
        (1, "Ready", 0),
        (2, "Ready", 0),
    ]
    assert len({p["pid"] for p in found}) == 2
    os.kill(found[1]["pid"], signal.SIGKILL)
    await asyncio.to_thread(server.wait_for, lambda: status(server.url + "/v2/health/ready") == 503)
    assert status(server.url + "/health") == 503
    assert status(server.url + "/v2/health/live") == 200
    await asyncio.to_thread(server.wait_ready)
    assert (await asyncio.to_thread(processes, server))[1]["restarts"] == 1


async def test_a_process_that_is_killed_takes_only_its_own_requests_along(
    start_server: StartServer,
) -> None:
    """Under load one of two is killed. Each client loses at most the request that was under way; none is told to come
    later; counts do not fall; and soon both serve again.
    """
    server = start_server()
    await asyncio.to_thread(server.wait_ready)
    going, lost, codes, counts = True, [0] * 8, set[int](), [0.0]

    async def load(number: int) -> None:
        async with client() as http:
            while going:
                try:
                    codes.add((await http.post(server.url + "/predict", json=BODY)).status_code)
                except httpx.TransportError:
                    lost[number] += 1

    async def scrape() -> None:
        async with client() as http:
            while going:
                with contextlib.suppress(httpx.TransportError):
                    response = await http.get(server.url + "/metrics")
                    if response.status_code == 200:
                        counts.append(series(response.text, "ml_predictions_total"))

    tasks = [*(asyncio.create_task(load(n)) for n in range(8)), asyncio.create_task(scrape())]
    await _until(lambda: counts[-1] > 100)
    victim = (await asyncio.to_thread(processes, server))[0]["pid"]
    os.kill(victim, signal.SIGKILL)
    scrapes = len(counts)
    await _until(lambda: len(counts) > scrapes + 3)
    await asyncio.to_thread(server.wait_ready)
    scrapes = len(counts)
    await _until(lambda: len(counts) > scrapes + 3)
    going = False
    await asyncio.gather(*tasks)
    assert codes == {200}
    assert max(lost) <= 1
    assert counts == sorted(counts)
    _, text = await asyncio.to_thread(answered, server)
    assert series(text, "ml_process_restarts_total") == 1
    assert victim not in {p["pid"] for p in await asyncio.to_thread(processes, server)}


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - the condition is about another process
            await asyncio.sleep(0.01)


async def test_no_request_is_lost_when_all_are_told_to_stop(start_server: StartServer) -> None:
    """SIGTERM under load: every request is answered with 200 until the clients leave, and the parent leaves with 0."""
    server = start_server(drain_delay="60s")
    await asyncio.to_thread(server.wait_ready)
    routed, codes = True, list[int]()

    async def load() -> None:
        async with client() as http:
            while routed:  # any lost request raises here
                codes.append((await http.post(server.url + "/predict", json=BODY)).status_code)

    tasks = [asyncio.create_task(load()) for _ in range(16)]
    await _until(lambda: len(codes) >= 200)
    server.terminate()
    told = len(codes)
    await asyncio.to_thread(server.wait_for, lambda: status(server.url + "/v2/health/ready") == 503)
    await _until(lambda: len(codes) >= told + 100)
    routed = False
    await asyncio.gather(*tasks)
    server.terminate()  # a second signal cuts the delay short
    assert set(codes) == {200}
    assert await asyncio.to_thread(server.exit_code) == 0
    states = [e["state"] for e in server.logs() if "state" in e]
    assert sorted(states) == sorted(["Warming", "Ready", "Draining", "Stopping"] * 2)


def test_the_reason_of_a_failed_start_is_the_servers(
    start_server: StartServer, tmp_path: Path
) -> None:
    """A model that cannot be read: the parent leaves as one process does, with the reason for the operator."""
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"broken")
    server = start_server(path.as_uri())
    assert server.exit_code() == 1
    assert (server.failure().reason, server.failure().permanent) == ("ModelUnreadable", True)


def test_a_taken_port_is_not_shared_with_a_stranger(start_server: StartServer) -> None:
    """Processes of one server share a port; another program must not, though the system would let it."""
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        server = start_server(port=str(stranger.getsockname()[1]))
        assert server.exit_code() == 1
    assert any("port" in entry["message"] for entry in server.logs())


async def test_processes_leave_with_their_parent(start_server: StartServer) -> None:
    """A parent that is killed leaves nobody behind who would hold the port."""
    server = start_server()
    await asyncio.to_thread(server.wait_ready)
    pids = [p["pid"] for p in await asyncio.to_thread(processes, server)]
    server.process.kill()
    server.process.wait()
    await _until(lambda: not any(_runs(pid) for pid in pids))


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class CountingHost:
    """Serves a file over HTTP and counts how often; as long as it is held, an answer waits."""

    def __init__(self, content: bytes) -> None:
        self.requests = 0
        self.go_on = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests += 1
                outer.go_on.wait(60)
                self.send_response(200)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self._server.server_port}/model.onnx"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[CountingHost]:
    made = CountingHost(linear_model(tmp_path / "source.onnx").read_bytes())
    yield made
    made.close()


async def test_the_model_is_downloaded_once(
    start_server: StartServer, host: CountingHost, tmp_path: Path
) -> None:
    """All processes, and one that is started again, serve what the first has fetched. Meanwhile liveness is fine."""
    digest = hashlib.sha256((tmp_path / "source.onnx").read_bytes()).hexdigest()
    server = start_server(host.uri, model_sha256=digest)
    await _until(lambda: host.requests > 0)
    await asyncio.to_thread(server.wait_for, lambda: status(server.url + "/v2/health/live") == 200)
    assert status(server.url + "/v2/health/ready") == 503
    host.go_on.set()
    await asyncio.to_thread(server.wait_ready)
    victim = (await asyncio.to_thread(processes, server))[1]["pid"]
    os.kill(victim, signal.SIGKILL)
    await asyncio.to_thread(server.wait_for, lambda: status(server.url + "/v2/health/ready") == 503)
    await asyncio.to_thread(server.wait_ready)
    async with client() as http:
        await ask(server, http)
    assert host.requests == 1


async def test_a_server_that_still_downloads_can_be_stopped(
    start_server: StartServer, host: CountingHost
) -> None:
    """The one that downloads and the one that waits for it leave at once, with 0."""
    server = start_server(host.uri, model_sha256="0" * 64)
    await _until(lambda: host.requests > 0)
    server.terminate()
    assert await asyncio.to_thread(server.exit_code) == 0
    assert not host.go_on.is_set()
