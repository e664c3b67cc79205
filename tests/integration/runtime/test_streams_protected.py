"""Streams of a server that authenticates and records, as a process."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.integration.runtime.servers import Server
from websockets.asyncio.client import connect

from canarium_runtime.security.keys import hash_of
from canarium_runtime.testing import linear_model

KEY = "key-of-a-batch-job-1234567890"
GOOD = {"x-api-key": KEY}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "keys").write_text(f"batch: {hash_of(KEY.encode())}\n")
    made = Server(
        tmp_path,
        linear_model(tmp_path / "m.onnx").as_uri(),
        api_keys_path=str(tmp_path / "keys"),
        open_paths="Health,Metrics",
        audit_sink="File",
        audit_file=str(tmp_path / "audit.jsonl"),
    )
    made.wait_ready()
    yield made
    if made.process.poll() is None:
        made.process.kill()
        made.process.wait()


def test_events_and_messages_ask_for_a_key_and_are_recorded(server: Server, tmp_path: Path) -> None:
    """Without one 401, or an error for each message; with one an answer, and one record of who got it."""
    url = server.url + "/predict/stream"
    body = {"instances": [[3, 4]]}
    refused = httpx.post(url, json=body, trust_env=False)
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")
    assert refused.headers["www-authenticate"]
    unknown = httpx.post(server.url + "/v2/models/x/infer_stream", json=body, trust_env=False)
    assert unknown.status_code == 401
    events = httpx.post(url, json=body, headers={**GOOD, "x-request-id": "e1"}, trust_env=False)
    assert (events.status_code, events.text.count("data: ")) == (200, 2)

    async def talk(headers: dict[str, str]) -> dict[str, str]:
        address = url.replace("http", "ws")
        async with connect(address, additional_headers=headers, proxy=None) as socket:
            await socket.send(json.dumps({"id": "m1", **body}))
            answer: dict[str, str] = json.loads(await asyncio.wait_for(socket.recv(), 10))
            return answer

    stranger = asyncio.run(talk({}))
    assert (stranger["code"], stranger["id"]) == ("unauthenticated", "m1")
    assert asyncio.run(talk(GOOD))["outputs"] == {"y": [43.0]}
    server.terminate()
    assert server.exit_code() == 0
    lines = (tmp_path / "audit.jsonl").read_text().splitlines()
    records = [r for r in map(json.loads, lines) if r["audit"] == "record"]
    assert [(r["client"], r["status"]) for r in records] == [("key:batch", "success")] * 2
    assert records[0]["id"] == "e1"
