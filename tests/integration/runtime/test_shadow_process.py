"""Two servers and a comparer as processes, with real models; the gateway's mirror is played by the test."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from onnx import TensorProto, helper
from prometheus_client.parser import text_string_to_metric_families
from tests.integration.runtime.servers import REPOSITORY, Server, free_port, status

from canarium_runtime.testing import write_model

CLASSES = 4
FLIPPED = 2
"""The class that model B takes for the one before it."""


def classifier(path: Path, *, flipped: bool) -> Path:
    """Scores that are the input, and the label of the largest. B moves the score of one class to another's place."""
    weights = np.eye(CLASSES, dtype=np.float32)
    if flipped:
        weights[FLIPPED] = np.eye(CLASSES, dtype=np.float32)[FLIPPED - 1]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["scores"]),
        helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
    ]
    return write_model(
        path,
        nodes,
        [("x", TensorProto.FLOAT, ["N", CLASSES])],
        [("label", TensorProto.INT64, ["N"]), ("scores", TensorProto.FLOAT, ["N", CLASSES])],
        {"w": weights},
    )


class ComparerProcess:
    """`python -m canarium_runtime.shadow` on a free port."""

    def __init__(self, directory: Path, **settings: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.output = directory / "comparer.log"
        values = {
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "TARGETS_FILE": str(directory / "targets.json"),
            "TOKEN_FILE": str(directory / "token"),
            "PULL_INTERVAL": "50ms",
            "ANSWERS_PER_SECOND": "10000",
            "DEPLOYMENT": "ns/name",
            "REVISION": "b",
            **settings,
        }
        path = os.pathsep.join([str(REPOSITORY / "api"), str(REPOSITORY / "runtime")])
        environment = {f"CANARIUM_SHADOW_{name}": value for name, value in values.items()}
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "canarium_runtime.shadow"],
                env={**os.environ, **environment, "PYTHONPATH": path},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def kill(self) -> None:
        """End it without a word."""
        self.process.kill()
        self.process.wait()


class World:
    """Model A as stable, model B as its shadow, and what a gateway does between them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "token").write_text("a secret")
        self.servers: dict[str, Server] = {}
        self.answer_ports: dict[str, int] = {}
        for name in ("stable", "shadow"):
            own = directory / name
            own.mkdir()
            model = classifier(own / "model.onnx", flipped=name == "shadow")
            self.answer_ports[name] = free_port()
            self.servers[name] = Server(
                own,
                model.as_uri(),
                answers_port=str(self.answer_ports[name]),
                answers_token_file=str(directory / "token"),
            )
        targets = {n: [f"http://127.0.0.1:{p}"] for n, p in self.answer_ports.items()}
        (directory / "targets.json").write_text(json.dumps(targets))
        self.comparers: list[ComparerProcess] = []
        self._mirrored: set[asyncio.Task[Any]] = set()
        self._number = 0

    def start_comparer(self) -> ComparerProcess:
        """Start one."""
        self.comparers.append(ComparerProcess(self.directory))
        return self.comparers[-1]

    async def request(self, client: httpx.AsyncClient, label: int) -> httpx.Response:
        """Do as a gateway does: stable's answer is waited for, the copy's is thrown away, whatever it is."""
        self._number += 1
        row = [float(label == i) for i in range(CLASSES)]
        headers = {"x-request-id": f"req-{self._number}"}

        async def mirror() -> None:
            url = self.servers["shadow"].url + "/predict"
            try:
                await client.post(url, json={"instances": [row]}, headers=headers)
            except httpx.TransportError:
                return

        task = asyncio.create_task(mirror())
        self._mirrored.add(task)
        task.add_done_callback(self._mirrored.discard)
        return await client.post(
            self.servers["stable"].url + "/predict", json={"instances": [row]}, headers=headers
        )

    async def wait_mirrored(self) -> None:
        """Until every copy has its answer."""
        await asyncio.gather(*self._mirrored)

    def end(self) -> None:
        """End all processes."""
        for process in [
            *(s.process for s in self.servers.values()),
            *(c.process for c in self.comparers),
        ]:
            if process.poll() is None:
                process.kill()
                process.wait()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    try:
        for server in made.servers.values():
            server.wait_ready()
        yield made
    finally:
        made.end()


@asynccontextmanager
async def gateway() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
        yield client


Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def metrics(
    client: httpx.AsyncClient, comparer: ComparerProcess
) -> Callable[..., float | None]:
    """Read the metrics: a function from name and labels to the value; None where there is no such series."""
    text = (await client.get(comparer.url + "/metrics")).text
    values: Series = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = {k: v for k, v in sample.labels.items() if k not in {"deployment", "revision"}}
            if sample.name.startswith("ml_shadow"):
                assert (sample.labels["deployment"], sample.labels["revision"]) == ("ns/name", "b")
            values[sample.name, tuple(sorted(labels.items()))] = sample.value

    def value(name: str, **labels: str) -> float | None:
        return values.get((f"ml_shadow_{name}", tuple(sorted(labels.items()))))

    return value


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not await condition():  # noqa: ASYNC110 - the condition is about other processes
            await asyncio.sleep(0.02)


async def compared(client: httpx.AsyncClient, comparer: ComparerProcess, pairs: int) -> None:
    """Wait until the comparer has seen so many pairs."""

    async def enough() -> bool:
        value = await metrics(client, comparer)
        return (value("pairs_total", outcome="compared") or 0) >= pairs

    await until(enough)


async def ready(client: httpx.AsyncClient, comparer: ComparerProcess) -> None:
    async def is_ready() -> bool:
        return status(comparer.url + "/health/ready") == 200

    await until(is_ready)


async def test_a_flipped_label_shows_as_its_share(world: World) -> None:
    """A quarter of the requests are of the class that B takes for another: a quarter of the pairs flip, in labels and
    scores, and the distribution of the labels has moved.
    """
    comparer = world.start_comparer()
    async with gateway() as client:
        await ready(client, comparer)
        for number in range(240):
            response = await world.request(client, number % CLASSES)
            assert response.json()["outputs"]["label"] == [number % CLASSES]
        await world.wait_mirrored()
        await compared(client, comparer, 240)
        value = await metrics(client, comparer)
    assert value("pairs_total", outcome="compared") == 240
    assert value("mismatches_total", kind="flip") == 60
    assert value("mismatches_total", kind="tolerance") == 60
    assert value("mismatches_total", kind="status") == 0
    assert value("mismatched_pairs_total") == 60
    for output in ("label", "scores"):
        assert value("rows_total", output=output) == 240
        assert value("flipped_rows_total", output=output) == 60
        assert (value("psi", output=output) or 0) > 0.25
    # One row in four has its two highest ranks swapped with the lowest: its correlation is -1/3, as ties share ranks.
    assert value("rank_correlation", output="scores") == pytest.approx(3 / 4 - 1 / 12)
    assert value("max_absolute_difference", output="scores") == 1
    for side in ("stable", "shadow"):
        assert (value("latency_seconds_total", side=side) or 0) > 0
        assert value("dropped_total", side=side, reason="limited") == 0
        assert value("unpaired_total", side=side, reason="ambiguous") == 0


async def test_a_shadow_that_dies_is_nothing_to_stables_clients(world: World) -> None:
    """Killed in the middle: every request to stable is answered rightly, and the comparer says what is missing."""
    comparer = world.start_comparer()
    async with gateway() as client:
        await ready(client, comparer)
        for number in range(60):
            if number == 20:
                world.servers["shadow"].process.kill()
                world.servers["shadow"].process.wait()
            response = await world.request(client, number % CLASSES)
            assert response.json()["outputs"]["label"] == [number % CLASSES]

        async def noticed() -> bool:
            return status(comparer.url + "/health/ready") == 503

        await until(noticed)
        reason = (await client.get(comparer.url + "/health")).json()["reason"]
        assert reason.startswith("no pods of shadow were reached: http://127.0.0.1:")
        assert status(comparer.url + "/health/live") == 200


@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_a_comparer_that_dies_or_hangs_is_nothing_to_stables_clients(
    world: World, how: str
) -> None:
    """Requests go on. After a restart only what comes from then on is compared; nothing twice."""
    comparer = world.start_comparer()
    async with gateway() as client:
        await ready(client, comparer)
        for number in range(60):
            if number == 20:
                comparer.process.send_signal(signal.SIGSTOP if how == "stopped" else signal.SIGKILL)
            response = await world.request(client, number % CLASSES)
            assert response.json()["outputs"]["label"] == [number % CLASSES]
        comparer.kill()
        await world.wait_mirrored()
        again = world.start_comparer()
        await ready(client, again)
        for number in range(8):
            await world.request(client, number % CLASSES)
        await world.wait_mirrored()
        await compared(client, again, 8)
        value = await metrics(client, again)
    assert value("pairs_total", outcome="compared") == 8


async def test_clients_do_not_get_at_answers(world: World) -> None:
    """Not on the server's port, and on the other one not without the token."""
    async with gateway() as client:
        for name, server in world.servers.items():
            path = "/canarium/v1/answers"
            assert (await client.get(server.url + path)).status_code == 404
            other = f"http://127.0.0.1:{world.answer_ports[name]}"
            assert (await client.get(other + path)).status_code == 401
            assert (await client.post(other + "/predict", json={})).status_code == 404


async def test_a_server_whose_second_port_is_taken_serves_without_it(tmp_path: Path) -> None:
    """Answers cannot be fetched, predictions can; the log says so."""
    model = classifier(tmp_path / "model.onnx", flipped=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = Server(tmp_path, model.as_uri(), answers_port=str(port))
        try:
            await asyncio.to_thread(server.wait_ready)
            (warning,) = [e for e in server.logs() if e["message"] == "answers cannot be offered"]
            assert warning["level"] == "warning"
        finally:
            server.terminate()
    assert await asyncio.to_thread(server.exit_code) == 0


async def test_both_leave_when_told(world: World) -> None:
    """SIGTERM while a comparer is connected: everybody ends with 0."""
    comparer = world.start_comparer()
    async with gateway() as client:
        await ready(client, comparer)
    for process in [*(s.process for s in world.servers.values()), comparer.process]:
        process.terminate()
        assert await asyncio.to_thread(process.wait, 30) == 0


def test_wrong_settings_of_a_comparer_are_named(tmp_path: Path) -> None:
    """The variable is in the log, and its value is not."""
    comparer = ComparerProcess(tmp_path, WINDOW="soon")
    assert comparer.process.wait(30) == 2
    log = comparer.output.read_text()
    assert "CANARIUM_SHADOW_WINDOW" in log
