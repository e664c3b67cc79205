"""Several models in one server process, and who stands in for one: over real sockets, with real ONNX models."""

import asyncio
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from onnx import TensorProto, helper
from tests.integration.runtime.servers import Server, status

from canarium_runtime.testing import write_model

PADDING_BYTES = 4 << 20
"""What makes these models large enough to be counted."""

StartServer = Callable[..., Server]


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    servers: list[Server] = []

    def start(uri: str, **settings: Any) -> Server:
        directory = tmp_path / f"server-{len(servers)}"
        directory.mkdir()
        values = {k: v if isinstance(v, str) else json.dumps(v) for k, v in settings.items()}
        servers.append(Server(directory, uri, **values))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


def padded_model(path: Path, factor: float) -> Path:
    """Y = factor * x for rows of one number, with weights of PADDING_BYTES that change nothing."""
    nodes = [
        helper.make_node("Mul", ["x", "factor"], ["scaled"]),
        helper.make_node("ReduceMin", ["padding"], ["zero"], keepdims=0),
        helper.make_node("Add", ["scaled", "zero"], ["y"]),
    ]
    return write_model(
        path,
        nodes,
        [("x", TensorProto.FLOAT, ["N", 1])],
        [("y", TensorProto.FLOAT, ["N", 1])],
        {
            "factor": np.array(factor, np.float32),
            # Not constant, so that nobody folds it away before it is counted.
            "padding": np.arange(PADDING_BYTES // 4, dtype=np.float32),
        },
    )


def table_model(path: Path) -> Path:
    """Y = [10, 20, 30][x]: an index behind the end is this model's way to fail."""
    return write_model(
        path,
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        [("x", TensorProto.INT64, ["N"])],
        [("y", TensorProto.FLOAT, ["N"])],
        {"table": np.array([10, 20, 30], np.float32)},
    )


def cast_model(path: Path) -> Path:
    """Y = x as a float: takes what the table takes, and never fails."""
    return write_model(
        path,
        [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)],
        [("x", TensorProto.INT64, ["N"])],
        [("y", TensorProto.FLOAT, ["N"])],
    )


def v2(value: float, datatype: str = "FP32", *more: int) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "shape": [1, *more], "datatype": datatype, "data": [value]}]}


def client() -> httpx.AsyncClient:
    return httpx.AsyncClient(timeout=60, trust_env=False)


async def infer(http: httpx.AsyncClient, server: Server, name: str, value: float) -> Any:
    body = v2(value, "FP32", 1)
    response = await http.post(f"{server.url}/v2/models/{name}/infer", json=body)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["model_name"] == name
    return answer["outputs"][0]["data"][0]


def loads(server: Server) -> int:
    return sum(1 for e in server.logs() if e.get("state") == "Ready")


FACTORS = {"model": 1.0, "two": 2.0, "three": 3.0, "four": 4.0}


def several(tmp_path: Path) -> tuple[str, list[dict[str, str]]]:
    """URI of the first model, and the list of the others."""
    uris = {n: padded_model(tmp_path / f"{n}.onnx", f).as_uri() for n, f in FACTORS.items()}
    return uris["model"], [{"name": n, "uri": uris[n]} for n in list(FACTORS)[1:]]


async def test_models_come_and_go_under_load_and_no_answer_is_lost_or_swapped(
    start_server: StartServer, tmp_path: Path
) -> None:
    """Room for the first and two of three: each request is answered, by the model that it asked."""
    uri, models = several(tmp_path)
    bound = 3 * PADDING_BYTES + PADDING_BYTES // 2
    server = start_server(uri, models=models, model_memory_bytes=str(bound))
    await asyncio.to_thread(server.wait_ready)
    names = list(FACTORS)
    answered = 0

    async def ask(number: int) -> None:
        nonlocal answered
        async with client() as http:
            for turn in range(16):
                name = names[(number + turn // 4) % len(names)]
                value = float(100 * number + turn)
                assert await infer(http, server, name, value) == FACTORS[name] * value
                answered += 1

    await asyncio.gather(*(ask(number) for number in range(4)))
    assert answered == 64
    room_made = [e["unloaded"] for e in server.logs() if "unloaded" in e]
    assert room_made, "nothing had to make room"
    assert loads(server) > len(FACTORS), "nothing was loaded again"

    async with client() as http:
        for name in ("two", "three"):  # one after the other: only the last two are left
            await infer(http, server, name, 1)

        async def only_the_last_are_left() -> bool:
            asked = {n: await http.get(f"{server.url}/v2/models/{n}/ready") for n in FACTORS}
            ready = {n for n, r in asked.items() if r.status_code == 200}
            return ready == {"model", "two", "three"}

        await eventually(only_the_last_are_left)
        metrics = (await http.get(server.url + "/metrics")).text
        health = (await http.get(server.url + "/health")).json()
    succeeded = {
        line.split('model_version="')[1].split('"')[0]: float(line.rsplit(" ", 1)[1])
        for line in metrics.splitlines()
        if line.startswith("ml_predictions_total{") and 'status="success"' in line
    }
    assert sum(succeeded.values()) == 66
    assert {v for v, n in succeeded.items() if n} == {"1", "two:1", "three:1", "four:1"}
    assert 'status="error"' in metrics
    assert health["checks"]["models"] == {"status": "pass", "reason": "3 of 4 are loaded"}


class Gate:
    """A server of one artefact that holds each download until it is opened."""

    def __init__(self, artefact: Path) -> None:
        content = artefact.read_bytes()
        self.sha256 = hashlib.sha256(content).hexdigest()
        asked = self.asked = threading.Event()
        opened = self.opened = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.set()
                opened.wait(60)
                self.send_response(200)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self.http.server_port}/late.onnx"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.opened.set()
        self.http.shutdown()
        self.http.server_close()


async def test_others_answer_while_a_model_is_being_loaded(
    start_server: StartServer, tmp_path: Path
) -> None:
    """The artefact is on its way for as long as the test wants: whoever asks for it waits, and nobody else does."""
    uri, models = several(tmp_path)
    gate = Gate(padded_model(tmp_path / "late.onnx", 5.0))
    late = {"name": "late", "uri": gate.uri, "sha256": gate.sha256}
    try:
        server = start_server(
            uri, models=[*models, late], model_memory_bytes=str(20 * PADDING_BYTES)
        )
        await asyncio.to_thread(server.wait_ready)
        async with client() as http, client() as other:
            waiting = [asyncio.create_task(infer(other, server, "late", v)) for v in (1.0, 2.0)]
            await asyncio.to_thread(gate.asked.wait, 60)
            for value in range(20):
                for name in ("model", "two"):
                    assert await infer(http, server, name, value) == FACTORS[name] * value
            assert not any(task.done() for task in waiting)
            index = await http.get(f"{server.url}/v2/models/late/ready")
            assert index.status_code == 503
            gate.opened.set()
            assert await asyncio.gather(*waiting) == [5.0, 10.0]
    finally:
        gate.close()


async def ask_both(http: httpx.AsyncClient, server: Server, index: int) -> list[tuple[Any, Any]]:
    """The answer of V2 and of /predict, each with who stood in."""
    response = await http.post(f"{server.url}/v2/models/model/infer", json=v2(index, "INT64"))
    plain = await http.post(f"{server.url}/predict", json={"instances": [index]})
    if (response.status_code, plain.status_code) != (200, 200):
        return [(response.status_code, None), (plain.status_code, None)]
    one, two = response.json(), plain.json()
    return [
        (one["outputs"][0]["data"], one.get("parameters", {}).get("fallback")),
        (two["outputs"]["y"], two.get("fallback")),
    ]


async def eventually(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not await condition():  # noqa: ASYNC110 - the condition is about another process
            await asyncio.sleep(0.02)


async def test_another_model_stands_in_until_the_model_is_well_again(
    start_server: StartServer, tmp_path: Path
) -> None:
    """The breaker opens after two failures and closes again by itself; answers, metrics and /health say so."""
    server = start_server(
        table_model(tmp_path / "table.onnx").as_uri(),
        models=[{"name": "cast", "uri": cast_model(tmp_path / "cast.onnx").as_uri()}],
        fallbacks=[{"model": "cast"}],
        breaker_failures="2",
        warmup_requests="0",
    )
    await asyncio.to_thread(server.wait_ready)
    async with client() as http:

        async def cast_is_ready() -> bool:
            return (await http.get(f"{server.url}/v2/models/cast/ready")).status_code == 200

        await eventually(cast_is_ready)
        assert await ask_both(http, server, 1) == [([20.0], None)] * 2
        assert await ask_both(http, server, 7) == [([7.0], "cast")] * 2
        # Two failures: it is left alone, so the other answers what the model could.
        health = (await http.get(server.url + "/health")).json()
        assert health["checks"]["fallback"]["status"] == "warn"
        assert "model is left alone for a while" in health["checks"]["fallback"]["reason"]
        assert await ask_both(http, server, 1) == [([1.0], "cast")] * 2

        async def well() -> bool:
            return await ask_both(http, server, 1) == [([20.0], None)] * 2

        await eventually(well)
        health = (await http.get(server.url + "/health")).json()
        assert health["checks"]["fallback"] == {
            "status": "pass",
            "reason": "the model answers itself",
        }
        metrics = (await http.get(server.url + "/metrics")).text
    values = {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1])
              for line in metrics.splitlines() if not line.startswith("#")}  # fmt: skip
    stood_in = [v for k, v in values.items() if k.startswith("ml_fallbacks_total{")]
    counted = [
        v for k, v in values.items() if k.startswith("ml_predictions_total{")
        and 'status="fallback"' in k and 'model_version="1"' in k
    ]  # fmt: skip
    assert stood_in == counted
    assert stood_in[0] >= 4


async def test_another_server_stands_in_and_a_fixed_answer_for_that(
    start_server: StartServer, tmp_path: Path
) -> None:
    """Over a real socket; when the other server has gone, too, the next in line answers."""
    other = start_server(cast_model(tmp_path / "cast.onnx").as_uri())
    server = start_server(
        table_model(tmp_path / "table.onnx").as_uri(),
        fallbacks=[
            {"url": f"{other.url}/v2/models/model/infer"},
            {"outputs": {"y": -1}},
        ],
        breaker_failures="0",
        warmup_requests="0",
    )
    await asyncio.to_thread(other.wait_ready)
    await asyncio.to_thread(server.wait_ready)
    async with client() as http:
        assert await ask_both(http, server, 7) == [([7.0], "127.0.0.1")] * 2
        other.terminate()
        await asyncio.to_thread(other.exit_code)
        assert await ask_both(http, server, 7) == [([-1.0], "default")] * 2
        assert await ask_both(http, server, 2) == [([30.0], None)] * 2
    assert status(server.url + "/health") == 200


async def test_a_fixed_answer_that_does_not_fit_keeps_the_server_from_becoming_ready(
    start_server: StartServer, tmp_path: Path
) -> None:
    """The operator is told why, and that trying again does not help."""
    server = start_server(
        table_model(tmp_path / "table.onnx").as_uri(),
        fallbacks=[{"outputs": {"y": "high"}}],
        warmup_requests="0",
    )
    assert await asyncio.to_thread(server.exit_code) == 1
    failure = server.failure()
    assert (failure.reason, failure.permanent) == ("InvalidConfig", True)
    assert "gives no FP32 for 'y'" in failure.message
