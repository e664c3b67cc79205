"""A server that authenticates, limits, caches and records, as a process: the same at each HTTP door."""

import json
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from tests.integration.runtime.servers import Server, status

from canarium_runtime.security.keys import hash_of
from canarium_runtime.testing import linear_model

ROW = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [3, 4]}]}
INFER = "/v2/models/model/infer"
KEY, OTHER = "key-of-a-batch-job-1234567890", "key-of-a-web-shop-1234567890"
DOORS = [pytest.param("true", id="hot lane"), pytest.param("false", id="FastAPI")]
StartServer = Callable[..., Server]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartServer]:
    running: list[Server] = []
    linear_model(tmp_path / "m.onnx")
    keys = tmp_path / "keys"
    keys.write_text(f"batch: {hash_of(KEY.encode())}\nshop: {hash_of(OTHER.encode())}\n")

    def make(**settings: str) -> Server:
        server = Server(tmp_path, (tmp_path / "m.onnx").as_uri(), **settings)
        running.append(server)
        server.wait_ready()
        return server

    yield make
    for server in running:
        server.process.kill()
        server.process.wait()


def post(server: Server, key: str | None = None, **more: Any) -> httpx.Response:
    headers = {"x-api-key": key} if key else {}
    return httpx.post(server.url + INFER, json=ROW, headers=headers, **more)


@pytest.mark.parametrize("hot", DOORS)
def test_only_who_has_a_key_is_answered(start: StartServer, tmp_path: Path, hot: str) -> None:
    """Predictions and metadata ask for it; probes and metrics do not."""
    server = start(api_keys_path=str(tmp_path / "keys"), open_paths="Health,Metrics", hot_lane=hot)
    refused = post(server)
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")
    assert refused.headers["www-authenticate"]
    assert post(server, "wrong").status_code == 401
    assert post(server, KEY).json()["outputs"][0]["data"] == [43.0]
    bearer = {"authorization": f"Bearer {OTHER}"}
    assert httpx.post(server.url + INFER, json=ROW, headers=bearer).status_code == 200
    assert status(server.url + "/v2/models/model") == 401
    assert [status(server.url + p) for p in ("/health/ready", "/metrics")] == [200, 200]
    text = httpx.get(server.url + "/metrics").text
    assert 'ml_authentication_failures_total{deployment="local/model"' in text
    assert 'status="invalid"} 2.0' in text
    assert KEY not in json.dumps(server.logs())


@pytest.mark.parametrize("hot", DOORS)
def test_a_client_over_its_rate_is_told_when_to_come_again(
    start: StartServer, tmp_path: Path, hot: str
) -> None:
    """One client's requests are not another's."""
    server = start(
        api_keys_path=str(tmp_path / "keys"),
        rate_limit="0.01",
        rate_limit_burst="2",
        hot_lane=hot,
    )
    assert [post(server, KEY).status_code for _ in range(4)] == [200, 200, 429, 429]
    limited = post(server, KEY)
    assert (limited.json()["code"], int(limited.headers["retry-after"]) > 0) == (
        "rate_limited",
        True,
    )
    assert post(server, OTHER).status_code == 200


@pytest.mark.parametrize("hot", DOORS)
def test_each_prediction_is_recorded_and_the_record_can_be_verified(
    start: StartServer, tmp_path: Path, hot: str
) -> None:
    """Who, what and how it ended; a record that is changed afterwards is found."""
    log = tmp_path / "audit.jsonl"
    server = start(
        api_keys_path=str(tmp_path / "keys"),
        audit_sink="File",
        audit_file=str(log),
        hot_lane=hot,
    )
    for number in range(3):
        httpx.post(
            server.url + INFER, json=ROW, headers={"x-api-key": KEY, "x-request-id": f"r{number}"}
        )
    httpx.post(server.url + INFER, json={}, headers={"x-api-key": OTHER, "x-request-id": "bad"})
    post(server, "wrong")
    server.terminate()
    assert server.exit_code() == 0
    records = [r for r in map(json.loads, log.read_text().splitlines()) if r["audit"] == "record"]
    shown = [(r["client"], r["id"], r["status"]) for r in records]
    assert shown == [
        *(("key:batch", f"r{i}", "success") for i in range(3)),
        ("key:shop", "bad", "invalid"),
    ]
    assert len({r["sha256"] for r in records}) == 1
    assert len(records[0]["sha256"]) == 64
    verify = [sys.executable, "-m", "canarium_runtime.audit", "verify", str(log)]
    assert subprocess.run(verify, check=False).returncode == 0
    log.write_text(log.read_text().replace('"r1"', '"r9"'))
    assert subprocess.run(verify, check=False, capture_output=True).returncode == 1


def test_a_server_with_a_certificate_speaks_tls(start: StartServer, tmp_path: Path) -> None:
    """And who shows a certificate of the client CA is known by it."""
    ca, client_ca = trustme.CA(), trustme.CA()
    issued = ca.issue_cert("localhost", "127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    client_ca.cert_pem.write_to_path(tmp_path / "client-ca.pem")
    client = client_ca.issue_cert("batch@example.org", common_name="batch")
    client.private_key_and_cert_chain_pem.write_to_path(tmp_path / "client.pem")
    server = Server(
        tmp_path,
        (tmp_path / "m.onnx").as_uri(),
        tls_certificate_file=str(tmp_path / "server.pem"),
        tls_key_file=str(tmp_path / "server.pem"),
        tls_client_ca_file=str(tmp_path / "client-ca.pem"),
        tls_client_certificates="Optional",
    )
    try:
        context = ssl.create_default_context()
        ca.configure_trust(context)
        url = f"https://127.0.0.1:{server.port}"

        def ready() -> bool:
            try:
                return httpx.get(url + "/health/ready", verify=context).status_code == 200
            except httpx.TransportError:
                return False

        server.wait_for(ready)
        assert httpx.post(url + INFER, json=ROW, verify=context).status_code == 401
        context.load_cert_chain(tmp_path / "client.pem")
        assert httpx.post(url + INFER, json=ROW, verify=context).json()["outputs"][0]["data"] == [
            43.0
        ]
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{server.port}/health/ready")
    finally:
        server.process.kill()
        server.process.wait()


@pytest.mark.parametrize("hot", DOORS)
def test_an_equal_request_is_answered_from_the_cache(start: StartServer, hot: str) -> None:
    """The model runs once; the answer is the same but for its id."""
    server = start(cache_memory_bytes="1000000", hot_lane=hot)
    answers = [post(server).json() for _ in range(3)]
    assert [a["outputs"] for a in answers] == [answers[0]["outputs"]] * 3
    text = httpx.get(server.url + "/metrics").text
    assert 'ml_cache_hits_total{deployment="local/model",level="memory"' in text
    runs = [line for line in text.splitlines() if line.startswith("ml_batch_size_count")]
    assert runs[0].endswith(" 1.0")
    assert 'status="success"} 3.0' in text


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("api_keys_path", "/nowhere/keys", "API keys cannot be read"),
        ("tls_certificate_file", "/nowhere/cert", "certificate"),
    ],
)
def test_what_protects_is_needed_to_start(
    tmp_path: Path, setting: str, value: str, message: str
) -> None:
    """A server that cannot know its clients does not serve without knowing them."""
    linear_model(tmp_path / "m.onnx")
    settings = {setting: value}
    if setting.startswith("tls"):
        settings["tls_key_file"] = value
    server = Server(tmp_path, (tmp_path / "m.onnx").as_uri(), **settings)
    assert server.exit_code() == 1
    assert message in server.termination_log.read_text()
