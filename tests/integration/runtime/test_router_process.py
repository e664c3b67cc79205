"""The router as a process, between raw clients and raw servers on the loopback."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import Receive, Scope, Send
from tests.integration.runtime.servers import REPOSITORY, free_port

from canarium_api.split import HEADER, Split
from canarium_runtime.listening import listening
from canarium_runtime.router import assignment

pytestmark = pytest.mark.timeout(60)
DEPLOYMENT = "ns/name"


def revision_at(port: int) -> str:
    """Name a revision so that its address is a port of the loopback."""
    return f"{port:06d}"


class Router:
    """`python -m canarium_runtime.router` on free ports."""

    def __init__(self, directory: Path, **settings: str) -> None:
        self.port, self.admin_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.admin = f"http://127.0.0.1:{self.admin_port}"
        values = {
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "ADMIN_PORT": str(self.admin_port),
            "DEPLOYMENT": DEPLOYMENT,
            "UPSTREAM": "http://127.0.0.1:{revision}",
            "DRAIN_DELAY": "1s",
            **settings,
        }
        path = os.pathsep.join([str(REPOSITORY / "api"), str(REPOSITORY / "runtime")])
        environment = {f"CANARIUM_ROUTER_{name}": value for name, value in values.items()}
        with (directory / "router.log").open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "canarium_runtime.router"],
                env={**os.environ, **environment, "PYTHONPATH": path},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    async def ready(self) -> None:
        """Wait until it is."""
        async with httpx.AsyncClient() as client:
            deadline = time.monotonic() + 20
            while True:
                try:
                    if (await client.get(f"{self.admin}/health/ready")).status_code == 200:
                        return
                except httpx.HTTPError:
                    pass
                assert time.monotonic() < deadline, "the router is not ready"
                await asyncio.sleep(0.05)

    async def counts(self) -> dict[str, float]:
        """Read its metric."""
        async with httpx.AsyncClient() as client:
            text = (await client.get(f"{self.admin}/metrics")).text
        return {
            sample.labels["variant"]: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "ml_router_requests_total"
        }


Handler = Callable[[Scope, Receive, Send], Awaitable[None]]


def echo(name: str) -> Handler:
    """A server that gives everything back, in pieces."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        headers = dict(scope["headers"])
        await send(
            {
                "type": "http.response.start",
                "status": int(headers.get(b"x-status", b"200")),
                "headers": [
                    (b"x-server", name.encode()),
                    (b"x-path", scope["raw_path"] + b"?" + scope["query_string"]),
                    (b"x-method", scope["method"].encode()),
                    (b"x-seen-split", headers.get(HEADER.encode(), b"none")),
                    (b"x-request-id", headers.get(b"x-request-id", b"none")),
                ],
            }
        )
        for start in range(0, len(body), 65536):
            piece = body[start : start + 65536]
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    return app


@asynccontextmanager
async def world(
    directory: Path, share: int = 50, **settings: str
) -> AsyncIterator[tuple[Router, httpx.AsyncClient, Split]]:
    """Two echo servers, a router, and a client that is the gateway: it sets the split."""
    async with (
        listening(echo("a"), "127.0.0.1", 0) as a,
        listening(echo("b"), "127.0.0.1", 0) as b,
    ):
        split = Split(stable=revision_at(a), canary=revision_at(b), share=share, key="x-user")
        router = Router(directory, **settings)
        try:
            await router.ready()
            async with httpx.AsyncClient(
                base_url=router.url, headers={HEADER: split.render()}, timeout=20
            ) as client:
                yield router, client, split
        finally:
            if router.process.poll() is None:
                router.process.kill()
            router.process.wait()


async def test_each_user_stays_with_a_version_and_a_larger_share_takes_nobody_back(
    tmp_path: Path,
) -> None:
    """What the router does is what the pure function says, and its metric counts it."""
    async with world(tmp_path) as (router, client, split):
        first = {}
        for number in range(60):
            user = f"user-{number}"
            answers = {
                (await client.get("/", headers={"x-user": user})).headers["x-server"]
                for _ in range(2)
            }
            assert len(answers) == 1
            first[user] = answers.pop()
            assert (first[user] == "b") == assignment.gets_canary(DEPLOYMENT, split, user.encode())
        assert {"a", "b"} == set(first.values())
        more = Split(stable=split.stable, canary=split.canary, share=80, key=split.key)
        for user, server in first.items():
            headers = {"x-user": user, HEADER: more.render()}
            later = (await client.get("/", headers=headers)).headers["x-server"]
            assert server == "a" or later == "b"
        assert (await client.get("/")).headers["x-server"] == "a"
        counts = await router.counts()
        assert counts["unkeyed"] == 1
        assert counts["stable"] + counts["canary"] == 180


async def test_requests_and_answers_pass_through_as_they_are(tmp_path: Path) -> None:
    """Method, path, query, headers, status, and a body of 20 MB that is never held as a whole."""
    async with world(tmp_path) as (router, client, _):
        answer = await client.request(
            "PUT",
            "/v2/models/a%2Fb/infer?x=1&y=%20",
            content=b"hello",
            headers={"x-user": "ana", "x-request-id": "r-1", "x-status": "422"},
        )
        assert (answer.status_code, answer.content) == (422, b"hello")
        assert answer.headers["x-path"] == "/v2/models/a%2Fb/infer?x=1&y=%20"
        assert answer.headers["x-method"] == "PUT"
        assert answer.headers["x-request-id"] == "r-1"
        assert answer.headers["x-seen-split"] == "none"
        big = os.urandom(20 * 1024 * 1024)

        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(big), 1024 * 1024):
                yield big[start : start + 1024 * 1024]

        for content in (big, pieces()):
            answer = await client.post("/", content=content, headers={"x-user": "ana"})
            assert answer.content == big
        process = Path(f"/proc/{router.process.pid}/status")
        status = await asyncio.to_thread(process.read_text)
        peak = next(int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line)
        assert peak < 160 * 1024, f"{peak} kB"


async def test_what_cannot_be_answered_is_refused_with_a_reason(tmp_path: Path) -> None:
    """A dead version is 502, a slow one 504, a large body 413, and what did not come by the route 421."""

    async def slow(_scope: Scope, _receive: Receive, _send: Send) -> None:
        await asyncio.sleep(30)

    async with (
        world(tmp_path, share=100, TIMEOUT="500ms", MAX_BODY_BYTES="1000") as (_, client, split),
        listening(slow, "127.0.0.1", 0) as sleeper,
    ):

        async def ask(canary: str, content: bytes = b"") -> int:
            told = Split(stable=split.stable, canary=canary, share=100, key=split.key)
            headers = {HEADER: told.render(), "x-user": "ana"}
            return (await client.post("/", headers=headers, content=content)).status_code

        assert await ask(revision_at(free_port())) == 502
        assert await ask(revision_at(sleeper)) == 504
        assert await ask(split.canary, b"x" * 1001) == 413
        assert await ask(split.canary, b"x" * 1000) == 200
        assert (await client.get("/", headers={HEADER: "stable=../x"})).status_code == 421


async def test_a_connection_that_a_server_closed_costs_no_request(tmp_path: Path) -> None:
    """A request that meets a closed connection is sent again."""

    async def fickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):  # answers two requests of a connection, and hangs up on the third
            if not await reader.readline():
                break
            while await reader.readline() not in (b"\r\n", b""):
                pass
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            await writer.drain()
        await reader.readline()
        writer.close()

    server = await asyncio.start_server(fickle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, world(tmp_path, share=100) as (_, client, split):
        told = Split(stable=split.stable, canary=revision_at(port), share=100, key=split.key)
        headers = {HEADER: told.render(), "x-user": "ana"}
        seen = Counter([(await client.get("/", headers=headers)).status_code for _ in range(30)])
        assert seen == {200: 30}


async def test_it_drains_without_losing_a_request(tmp_path: Path) -> None:
    """Told to stop, it is unready at once, still answers for a while, and leaves with 0."""
    async with world(tmp_path) as (router, client, _):
        statuses: Counter[int] = Counter()
        router.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 0.7
        while time.monotonic() < deadline:
            answer = await client.get("/", headers={"x-user": "ana"})
            statuses[answer.status_code] += 1
        assert set(statuses) == {200}
        async with httpx.AsyncClient() as admin:
            assert (await admin.get(f"{router.admin}/health/ready")).status_code == 503
        assert await asyncio.to_thread(router.process.wait, 20) == 0


async def test_a_client_that_goes_away_leaves_nothing_behind(tmp_path: Path) -> None:
    """Half a request, and gone: the next clients are served."""
    async with world(tmp_path, MAX_CONNECTIONS="5") as (router, client, split):
        for _ in range(20):
            _, writer = await asyncio.open_connection("127.0.0.1", router.port)
            writer.write(
                f"POST / HTTP/1.1\r\nhost: x\r\nx-user: ana\r\n{HEADER}: {split.render()}\r\n"
                "content-length: 1000000\r\n\r\nhello".encode()
            )
            await writer.drain()
            writer.close()
            await writer.wait_closed()
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)
        for _ in range(10):
            assert (await client.get("/", headers={"x-user": "ana"})).status_code == 200
