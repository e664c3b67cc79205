"""Workers as processes, with a real model and a real Redis: killed, stopped, replaced."""

import asyncio
import base64
import hashlib
import hmac
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import redis.asyncio
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import Receive, Scope, Send
from tests.integration.runtime.jobs_redis import running_redis
from tests.integration.runtime.servers import REPOSITORY, Server, free_port

from canarium_api.jobs_config import JobsConfig
from canarium_runtime.app import create_app
from canarium_runtime.jobs.keys import Keys
from canarium_runtime.listening import listening
from canarium_runtime.rest.endpoints import Predictor
from canarium_runtime.testing import linear_model, make_models

pytestmark = pytest.mark.timeout(120)
DEPLOYMENT = "ns/fraud"
SECRET = b"a secret of twenty-four bytes"


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


class Worker:
    """`python -m canarium_runtime.jobs` on a free port."""

    def __init__(self, settings: dict[str, str], log: Path) -> None:
        self.port = free_port()
        path = os.pathsep.join([str(REPOSITORY / "api"), str(REPOSITORY / "runtime")])
        ports = {"CANARIUM_JOBS_HOST": "127.0.0.1", "CANARIUM_JOBS_PORT": str(self.port)}
        self._log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "canarium_runtime.jobs"],
                env={**os.environ, **settings, **ports, "PYTHONPATH": path},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    async def ready(self) -> None:
        """Wait until it is."""
        await until(lambda: self._is_ready(), self._log)

    async def _is_ready(self) -> bool:
        if self.process.poll() is not None:
            pytest.fail(self._log.read_text())
        try:
            async with httpx.AsyncClient(trust_env=False) as client:
                url = f"http://127.0.0.1:{self.port}/health/ready"
                return (await client.get(url)).status_code == 200
        except httpx.TransportError:
            return False

    async def series(self) -> dict[str, float]:
        """Values of its metrics, by name and the label that differs."""
        async with httpx.AsyncClient(trust_env=False) as client:
            text = (await client.get(f"http://127.0.0.1:{self.port}/metrics")).text
        return {
            f"{s.name}/{s.labels.get('result', '')}": s.value
            for family in text_string_to_metric_families(text)
            for s in family.samples
        }

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Send a signal, and wait for its end."""
        self.process.send_signal(number)
        return self.process.wait(timeout=60)


async def until(condition: Callable[[], Awaitable[bool]], log: Path | None = None) -> None:
    """Wait until a condition holds; fails after 60 s."""
    deadline = time.monotonic() + 60
    while not await condition():
        if time.monotonic() > deadline:
            pytest.fail(f"it did not come to be; see {log}")
        await asyncio.sleep(0.01)


class World:
    """Workers, and a client of a server."""

    def __init__(self, folder: Path, redis_url: str, **jobs: str) -> None:
        (folder / "url").write_text(redis_url)
        (folder / "secret").write_text(f"whsec_{base64.b64encode(SECRET).decode()}\n")
        (folder / "stable").write_text("r1\n")
        model = linear_model(folder / "model.onnx")
        self.folder = folder
        values = {
            "REDIS_URL_FILE": str(folder / "url"),
            "WEBHOOK_SECRET_FILE": str(folder / "secret"),
            "STABLE_FILE": str(folder / "stable"),
            "PRIVATE_NETWORKS": "127.0.0.0/8",
            "CHUNK_ROWS": "20",
            "MAX_ROWS": "100000",
            "LEASE": "1s",
            **jobs,
        }
        self.jobs = {f"CANARIUM_JOBS_{name}": value for name, value in values.items()}
        self.settings = {
            "CANARIUM_MODEL_URI": model.as_uri(),
            "CANARIUM_DEPLOYMENT": DEPLOYMENT,
            "CANARIUM_MODEL_VERSION": "7",
            "CANARIUM_REVISION": "r1",
            "CANARIUM_TERMINATION_LOG": str(folder / "termination-log"),
        }
        self.workers: list[Worker] = []
        self.client = httpx.AsyncClient()

    def connect(self, url: str) -> None:
        """Talk to a server."""
        transport = httpx.AsyncHTTPTransport(retries=2)
        self.client = httpx.AsyncClient(base_url=url, trust_env=False, transport=transport)

    def worker(self, **settings: str) -> Worker:
        changed = {f"CANARIUM_{name.upper()}": value for name, value in settings.items()}
        log = self.folder / f"worker-{len(self.workers)}.log"
        self.workers.append(Worker({**self.settings, **self.jobs, **changed}, log))
        return self.workers[-1]

    async def submit(self, rows: list[Any], **fields: Any) -> str:
        answer = await self.client.post("/jobs", json={"rows": rows, **fields})
        assert answer.status_code == 202, answer.text
        assert answer.headers["location"] == f"/jobs/{answer.json()['id']}"
        return str(answer.json()["id"])

    async def job(self, job_id: str) -> dict[str, Any]:
        answer = await self.client.get(f"/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def ended(self, job_id: str) -> dict[str, Any]:
        async def has_ended() -> bool:
            return (await self.job(job_id))["finished_at"] is not None

        await until(has_ended)
        return await self.job(job_id)

    async def results(self, job_id: str, **parameters: Any) -> list[dict[str, Any]]:
        answer = await self.client.get(f"/jobs/{job_id}/results", params=parameters)
        assert answer.status_code == 200, answer.text
        return [orjson.loads(line) for line in answer.content.splitlines()]

    async def progressed(self, job_id: str, rows: int) -> None:
        async def has() -> bool:
            return int((await self.job(job_id))["rows"]["done"]) >= rows

        await until(has)


@asynccontextmanager
async def world(
    folder: Path, redis_url: str, *, own_server: bool = False, **jobs: str
) -> AsyncIterator[World]:
    """Make a world; the server is a process of its own, or to save its start an application in this one."""
    client = redis.asyncio.Redis.from_url(redis_url)
    await client.flushall()
    await client.aclose()
    made = World(folder, redis_url, **jobs)
    try:
        async with _server_process(made) if own_server else _server(made) as url:
            made.connect(url)
            yield made
    finally:
        await made.client.aclose()
        for worker in made.workers:
            _end(worker.process)


@asynccontextmanager
async def _server(made: World) -> AsyncIterator[str]:
    models = make_models(serving=False, deployment=DEPLOYMENT)
    service = models.primary
    config = JobsConfig.from_env(made.jobs)
    async with listening(
        create_app(service.config, Predictor(models), config), "127.0.0.1", 0
    ) as port:
        yield f"http://127.0.0.1:{port}"
    service.close()


@asynccontextmanager
async def _server_process(made: World) -> AsyncIterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in made.jobs.items():
            patch.setenv(name, value)
        server = Server(made.folder, made.settings["CANARIUM_MODEL_URI"], deployment=DEPLOYMENT)
    try:
        await asyncio.to_thread(server.wait_ready)
        yield server.url
    finally:
        _end(server.process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait(timeout=20)


def expected(rows: list[Any]) -> list[dict[str, Any]]:
    return [{"row": n, "outputs": {"y": x[0] + 10 * x[1]}} for n, x in enumerate(rows)]


async def test_workers_that_are_killed_lose_and_double_nothing(
    tmp_path: Path, redis_url: str
) -> None:
    """Killed by SIGKILL in the middle of a chunk, twice: every row has exactly one answer, and it is the right one."""
    rows = [[float(n), float(n % 7)] for n in range(1200)]
    async with world(tmp_path, redis_url, own_server=True) as w:
        victims = [w.worker(), w.worker()]
        job_id = await w.submit(rows)
        keys, client = Keys(DEPLOYMENT), redis.asyncio.Redis.from_url(redis_url)
        for number, victim in enumerate(victims):
            await w.progressed(job_id, 200 * (number + 1))
            await _kill_with_work(client, keys, victim)
        held = (await client.xpending(keys.chunks("r1"), "workers"))["pending"]
        await client.aclose()
        assert held >= 1, "nobody was killed in the middle of a chunk"
        w.worker()
        job = await w.ended(job_id)
        assert (job["state"], job["rows"]) == (
            "succeeded",
            {"total": 1200, "done": 1200, "failed": 0},
        )
        results = await w.results(job_id)
        assert set(Counter(r["row"] for r in results).values()) == {1}
        assert expected(rows) == results
        assert (job["model_version"], job["revision"]) == ("7", "r1")


async def _kill_with_work(client: Any, keys: Keys, victim: Worker) -> None:
    """Kill a worker at a moment when it holds a chunk: stopped first, so that it cannot finish it meanwhile."""
    while True:
        victim.process.send_signal(signal.SIGSTOP)
        if (await client.xpending(keys.chunks("r1"), "workers"))["pending"]:
            victim.kill()
            return
        victim.process.send_signal(signal.SIGCONT)
        await asyncio.sleep(0)


async def test_a_worker_that_is_told_to_stop_leaves_no_work_behind(
    tmp_path: Path, redis_url: str
) -> None:
    """SIGTERM: it finishes its chunk or gives it back, and ends with 0; the next one goes on at once."""
    rows = [[float(n), 0.0] for n in range(1200)]
    async with world(tmp_path, redis_url, LEASE="1h") as w:
        first = w.worker()
        job_id = await w.submit(rows)
        await w.progressed(job_id, 40)
        assert await asyncio.to_thread(first.kill, signal.SIGTERM) == 0
        w.worker()  # with a lease of an hour, nothing that the first one kept would ever come back
        assert (await w.ended(job_id))["state"] == "succeeded"
        assert expected(rows) == await w.results(job_id)


async def test_only_the_stable_revision_begins_jobs_and_one_revision_answers_a_whole_job(
    tmp_path: Path, redis_url: str
) -> None:
    """What r1 has begun stays r1's while it has workers; without any, r2 begins it again, with all its rows."""
    rows = [[float(n), 1.0] for n in range(1200)]
    async with world(tmp_path, redis_url, LEASE="6s") as w:
        old = w.worker()
        job_id = await w.submit(rows)
        await w.progressed(job_id, 40)
        old.process.send_signal(signal.SIGSTOP)
        (w.folder / "stable").write_text("r2\n")
        w.worker(revision="r2", model_version="8")
        later = await w.submit(rows[:10])
        assert (await w.ended(later))["revision"] == "r2"
        old.kill()
        # As if the time had passed that a sign of life is good for.
        client = redis.asyncio.Redis.from_url(redis_url)
        assert (await w.job(job_id))["revision"] == "r1"
        await client.delete(Keys(DEPLOYMENT).alive("r1"))
        await client.aclose()
        job = await w.ended(job_id)
        assert (job["state"], job["revision"], job["model_version"]) == ("succeeded", "r2", "8")
        assert expected(rows) == await w.results(job_id)


async def test_a_signed_webhook_tells_the_end_and_comes_again_until_it_is_taken(
    tmp_path: Path, redis_url: str
) -> None:
    """The second attempt has the same id and a signature that the receiver can check."""
    calls: list[tuple[dict[str, str], bytes]] = []

    async def receiver(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        calls.append((headers, (await receive())["body"]))
        status = 500 if len(calls) == 1 else 204
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with listening(receiver, "127.0.0.1", 0) as port, world(tmp_path, redis_url) as w:
        worker = w.worker()
        url = f"http://127.0.0.1:{port}/done"
        job_id = await w.submit([[1.0, 2.0], [3.0, "four"]], callback={"url": url})

        async def delivered() -> bool:
            callback = (await w.job(job_id))["callback"]
            return bool(callback and callback["state"] == "delivered")

        await until(delivered)
        assert len({headers["webhook-id"] for headers, _ in calls}) == 1
        for headers, body in calls:
            signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
            digest = hmac.new(SECRET, signed, hashlib.sha256).digest()
            assert headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"
            told = orjson.loads(body)
            assert (told["type"], told["data"]["id"]) == ("job.succeeded", job_id)
            assert told["data"]["rows"] == {"total": 2, "done": 2, "failed": 1}
        series = await worker.series()
        assert series["ml_jobs_webhook_attempts_total/delivered"] == 1
        assert series["ml_jobs_webhook_attempts_total/retried"] == 1
        assert series["ml_jobs_rows_total/error"] == 1
        assert "ml_predictions_total/" not in series


async def test_a_model_that_cannot_be_loaded_ends_the_worker(
    tmp_path: Path, redis_url: str
) -> None:
    """With the reason where the operator reads it."""
    async with world(tmp_path, redis_url) as w:
        worker = w.worker(model_sha256="0" * 64)
        assert await asyncio.to_thread(worker.process.wait, 60) == 1
        assert "DigestMismatch" in (tmp_path / "termination-log").read_text()
