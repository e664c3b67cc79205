"""The Prometheus adapter: a vector, nothing, or an error; nothing else gets out."""

import json
import math
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from canarium_operator.adapters.prometheus import PrometheusMetrics, parse_result
from canarium_operator.core.rollout.queries import Query, QueryKind, Series, Vector
from canarium_operator.errors import MetricSourceError

AT = datetime(2026, 1, 1, tzinfo=UTC)


def series(*values: str) -> list[dict[str, Any]]:
    return [{"metric": {"pod": str(n)}, "value": [1.0, value]} for n, value in enumerate(values)]


@pytest.mark.parametrize(
    ("result", "vector"),
    [
        ([], ()),
        (series("0.25"), (Series(labels={"pod": "0"}, value=0.25),)),
        ([1767225600.0, "3"], (Series(value=3.0),)),
        (
            series("1e-3", "+Inf"),
            (Series(labels={"pod": "0"}, value=0.001), Series(labels={"pod": "1"}, value=math.inf)),
        ),
    ],
)
def test_a_result_is_a_vector(result: Any, vector: Vector) -> None:
    """A scalar is a series without labels; what the numbers mean is not for the adapter to say."""
    assert parse_result(result) == vector


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ([{"metric": {}, "values": [[1.0, "1"]]}], "not a range"),
        ([1767225600.0, "hello"], "no number"),
        ("what", "no result"),
        (None, "no result"),
        (series("1") * 10_001, "sum them up"),
    ],
)
def test_what_is_not_a_vector_is_an_error(result: Any, message: str) -> None:
    """An error holds a rollout; a number made up from one of these could pass it."""
    with pytest.raises(MetricSourceError, match=message):
        parse_result(result)


class Server:
    """A Prometheus that answers with what the test says."""

    def __init__(self) -> None:
        self.status = 200
        self.body: bytes = json.dumps(
            {"status": "success", "data": {"resultType": "vector", "result": series("7")}}
        ).encode()
        self.delay = threading.Event()
        self.hangs = False
        self.requests: list[tuple[str, dict[str, list[str]], str | None]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                outer.requests.append(
                    (parts.path, parse_qs(parts.query), self.headers.get("Authorization"))
                )
                if outer.hangs:
                    outer.delay.wait(5)
                self.send_response(outer.status)
                self.end_headers()
                self.wfile.write(outer.body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
                """Say nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.http.server_address[1]

    def url(self, credentials: str = "") -> str:
        return f"http://{credentials}127.0.0.1:{self.port}/prefix/"


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    thread = threading.Thread(target=found.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    found.delay.set()
    found.http.shutdown()
    thread.join()
    found.http.server_close()


UP = Query(promql="up", at=AT, kind=QueryKind.NUMBER, revisions=(), look_back=timedelta(0))


async def ask(url: str, timeout: float = 5) -> Vector:
    metrics = PrometheusMetrics(url, timeout=timedelta(seconds=timeout))
    try:
        return await metrics.query(UP)
    finally:
        metrics.close()


async def test_a_query_is_asked_for_its_time(server: Server) -> None:
    """An instant query below the given path, at the given instant."""
    [found] = await ask(server.url())
    assert found.value == 7.0
    path, query, _ = server.requests[0]
    assert path == "/prefix/api/v1/query"
    assert query == {"query": ["up"], "time": [f"{AT.timestamp():.3f}"]}


async def test_credentials_of_the_url_are_sent(server: Server) -> None:
    """As basic authentication, with escapes undone."""
    await ask(server.url("ops:p%40ss@"))
    assert server.requests[0][2] == "Basic b3BzOnBAc3M="


async def test_a_refused_query_is_explained_in_prometheus_words(server: Server) -> None:
    """A mistake in a user's PromQL reaches the status as Prometheus put it."""
    server.status, server.body = (
        400,
        json.dumps({"status": "error", "error": 'parse error: unexpected "}"'}).encode(),
    )
    with pytest.raises(MetricSourceError, match='refused with 400: parse error: unexpected "}"'):
        await ask(server.url())


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (503, b"gone for lunch"),
        (200, b"<html>"),
        (200, b"{}"),
        (200, b"[]"),
        (200, b'{"data": null}'),
        (404, b"\xff\xfe"),
    ],
)
async def test_a_wrong_answer_is_an_error_of_ours(server: Server, status: int, body: bytes) -> None:
    """No error of a library gets out, whatever stands behind the URL."""
    server.status, server.body = status, body
    with pytest.raises(MetricSourceError):
        await ask(server.url())


async def test_a_slow_answer_is_given_up(server: Server) -> None:
    """The gate goes on without it."""
    server.hangs = True
    with pytest.raises(MetricSourceError, match=r"no answer within 0\.2 s|cannot be reached"):
        await ask(server.url(), timeout=0.2)


async def test_credentials_appear_in_no_error(server: Server) -> None:
    """Neither the user nor the password, wherever the query fails."""
    server.status, server.body = 401, b"who are you"
    for url in (server.url("ops:hunter2@"), "http://ops:hunter2@127.0.0.1:1"):
        with pytest.raises(MetricSourceError) as caught:
            await ask(url)
        error: BaseException | None = caught.value
        while error is not None:
            assert "hunter2" not in str(error)
            error = error.__cause__


async def test_nobody_listening_is_said_plainly() -> None:
    """The innermost reason, not three wrapped ones."""
    with pytest.raises(MetricSourceError, match="Connection refused"):
        await ask("http://127.0.0.1:1")
