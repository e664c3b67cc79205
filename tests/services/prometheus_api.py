"""Prometheus' range queries on loopback, answered from the traffic of a simulated world."""

import asyncio
import contextlib
import json
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from canarium_operator.core.rollout.queries import Query, QueryKind
from canarium_operator.ports import MetricSource


class PrometheusApi:
    """Answers the query of counts by a metric source, at each step of a range."""

    def __init__(self, source: MetricSource) -> None:
        self.source = source
        self.asked: list[dict[str, str]] = []
        self.status = 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                text = self.rfile.read(int(self.headers["Content-Length"])).decode()
                words = {name: values[0] for name, values in parse_qs(text).items()}
                outer.asked.append(words)
                body: dict[str, Any] = {"status": "error", "error": "no such thing"}
                if outer.status == 200:
                    body = {"status": "success", "data": {"result": outer.answer(words)}}
                data = json.dumps(body).encode()
                self.send_response(outer.status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
                """Say nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.http.server_address[1]}"

    def answer(self, words: dict[str, str]) -> list[dict[str, Any]]:
        """Evaluate a range query."""
        found: dict[str, dict[str, Any]] = {}
        revisions = re.search(r'revision=~"([^"]*)"', words["query"])
        window = re.search(r"\[(\d+)s\]", words["query"])
        assert revisions is not None
        assert window is not None
        at, end, step = (float(words[name]) for name in ("start", "end", "step"))
        while at <= end:
            query = Query(
                promql=words["query"],
                at=datetime.fromtimestamp(at, tz=UTC),
                kind=QueryKind.COUNTS,
                revisions=tuple(revisions[1].split("|")),
                look_back=timedelta(seconds=int(window[1])),
            )
            for series in asyncio.run(self.source.query(query)):
                name = json.dumps(dict(series.labels), sort_keys=True)
                entry = found.setdefault(name, {"metric": dict(series.labels), "values": []})
                entry["values"].append([at, str(series.value)])
            at += step
        return list(found.values())


@contextlib.contextmanager
def running_prometheus(source: MetricSource) -> Iterator[PrometheusApi]:
    """Run one for the time of a test."""
    server = PrometheusApi(source)
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        thread.join()
        server.http.server_close()
