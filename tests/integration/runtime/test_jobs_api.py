"""The routes of batch jobs, with a worker in the same loop, over the fake Redis."""

import asyncio
import base64
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import fakeredis
import httpx
import orjson
import pytest
from fastapi import FastAPI, Request

from canarium_api.jobs_config import JobsConfig
from canarium_runtime.app import create_app
from canarium_runtime.jobs.api import Jobs, make_store
from canarium_runtime.jobs.inference import RowRunner
from canarium_runtime.jobs.metrics import JobMetrics, QueueMetrics
from canarium_runtime.jobs.network import AddressRules
from canarium_runtime.jobs.queue import Entry, Queue
from canarium_runtime.jobs.routes import make_router, named
from canarium_runtime.jobs.sources import Opener
from canarium_runtime.jobs.tools import Tools, utc_now
from canarium_runtime.jobs.upkeep import Upkeep
from canarium_runtime.jobs.webhooks import Messenger
from canarium_runtime.jobs.worker import Worker
from canarium_runtime.metrics import render
from canarium_runtime.rest.endpoints import Predictor
from canarium_runtime.rest.routes import add_error_handlers
from canarium_runtime.testing import FakeBackend, make_models, model_spec, tensor


class World:
    """Routes, a worker that is run on demand, and a client."""

    def __init__(
        self, backend: FakeBackend, config: JobsConfig, redis: Any, **settings: Any
    ) -> None:
        self.models = make_models(backend, max_batch_size=4, deployment="ns/name", **settings)
        self.service = self.models.primary
        self.redis = redis
        identity = self.service.config
        rules = AddressRules(private_networks=config.networks, resolve=lambda h, p: ["10.0.0.1"])
        self.late = timedelta()
        self.jobs = Jobs(identity, config, redis, rules, now=lambda: utc_now() + self.late)
        self.store = make_store(config, "ns/name", redis)
        self.config = config
        keys = self.store.keys
        self.tools = Tools(
            identity=identity,
            config=config,
            store=self.store,
            intake=Queue(redis, keys.intake, "w", config.lease),
            queue=Queue(redis, keys.chunks(identity.revision), "w", config.lease),
            runner=RowRunner(self.service),
            opener=Opener(config=config, rules=rules),
            metrics=JobMetrics(identity),
            now=lambda: utc_now() + self.late,
        )
        app = FastAPI()
        app.include_router(
            make_router(self.jobs, lambda request: request.headers.get("x-client", ""))
        )
        add_error_handlers(app, Predictor(self.models))
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://server"
        )

    async def submit(self, rows: list[Any], **fields: Any) -> str:
        answer = await self.client.post("/jobs", json={"rows": rows, **fields})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    async def job(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = (await self.client.get(f"/jobs/{job_id}")).json()
        return found

    async def lines(self, job_id: str, **parameters: Any) -> list[dict[str, Any]]:
        answer = await self.client.get(f"/jobs/{job_id}/results", params=parameters)
        assert answer.status_code == 200, answer.text
        return [orjson.loads(line) for line in answer.content.splitlines()]

    async def work(self) -> None:
        """Let a worker take all that there is."""
        opener = Opener(config=self.config, rules=self.tools.opener.rules)
        self.tools = replace(self.tools, opener=opener)
        worker = Worker(self.tools)
        running = asyncio.create_task(worker.run())
        await self.tools.queue.prepare()
        await self.tools.intake.prepare()
        while await self.tools.intake.length() or await self.tools.queue.length():
            assert not running.done(), running
            await asyncio.sleep(0)
        worker.stop()
        await running


@asynccontextmanager
async def world(
    backend: FakeBackend | None = None, *, model: dict[str, Any] | None = None, **jobs: Any
) -> AsyncIterator[World]:
    config = JobsConfig(**{"chunk_rows": 3, "max_rows": 1000, "lease": "200ms", **jobs})
    redis = fakeredis.FakeAsyncRedis()
    made = World(backend or FakeBackend(), config, redis, **(model or {}))
    try:
        yield made
    finally:
        await made.client.aclose()
        await redis.aclose()
        made.service.close()


ROWS = [[n, 1] for n in range(8)]


async def test_a_job_is_taken_answered_and_downloaded() -> None:
    """202 with its address; then state, progress and results in the order of the rows."""
    async with world() as w:
        answer = await w.client.post("/jobs", json={"rows": ROWS})
        assert answer.status_code == 202
        job = answer.json()
        assert (job["state"], job["progress"], job["rows"]["total"]) == ("queued", 0.0, 8)
        assert answer.headers["location"] == f"/jobs/{job['id']}"
        await w.work()
        job = await w.job(job["id"])
        assert (job["state"], job["progress"], job["errors"]) == ("succeeded", 1.0, [])
        assert (job["model_version"], job["revision"]) == ("7", "r1")
        expected = [{"row": n, "outputs": {"y": n + 1}} for n in range(8)]
        assert expected == await w.lines(job["id"])
        answer = await w.client.get(f"/jobs/{job['id']}/results?format=csv")
        assert answer.text.splitlines()[:2] == ["row,y,error,field", "0,1.0,,"]
        assert answer.headers["content-type"].startswith("text/csv")
        assert max(w.tools.runner._service.metrics.batch_size.snapshot()[0])  # rows were joined


async def test_bad_rows_fail_alone_and_are_named() -> None:
    """Those that do not fit, those that the model fails on; the others are answered."""
    nan = {"x": [[1e39, 1]]}
    rows = [[1, 2], "text", [3], {"x": [4, "5"]}, {"z": [1, 2]}, [6, 7], None, nan]
    async with world() as w:
        job_id = await w.submit(rows)
        await w.work()
        job = await w.job(job_id)
        assert (job["state"], job["rows"]) == ("succeeded", {"total": 8, "done": 8, "failed": 6})
        assert [e["row"] for e in job["errors"]] == [1, 2, 3, 4, 6, 7]
        assert job["errors"][2]["field"] == "x[1]"
        assert job["errors"][2]["message"] == 'x[1]: expected a number (FP32), got a string "5"'
        lines = await w.lines(job_id)
        assert [line["row"] for line in lines if "outputs" in line] == [0, 5]


async def test_a_row_that_the_model_fails_on_is_found_among_the_others() -> None:
    """A run that fails is halved until the row is found."""

    def compute(inputs: Any) -> list[Any]:
        if (inputs["x"][:, 0] == 5).any():
            from canarium_runtime.backends.base import BackendError

            msg = "secret detail"
            raise BackendError(msg)
        return [inputs["x"].sum(axis=1)]

    async with world(FakeBackend(compute=compute), chunk_rows=8) as w:
        job_id = await w.submit(ROWS)
        await w.work()
        lines = await w.lines(job_id)
        assert [line["row"] for line in lines if "error" in line] == [5]
        assert lines[5]["error"]["code"] == "model_failed"
        assert "secret" not in str(lines)


async def test_rows_of_a_model_that_cannot_be_batched_are_run_one_by_one() -> None:
    """A row is then all of the input."""
    spec = model_spec([tensor("x", "FP32", 2)], [tensor("y", "FP32", 2)], batchable=False)
    backend = FakeBackend(spec, lambda inputs: [inputs["x"] * 2])
    async with world(backend) as w:
        job_id = await w.submit([[1, 2], [3, 4], [5]])
        await w.work()
        lines = await w.lines(job_id)
        assert [line.get("outputs") for line in lines] == [{"y": [2, 4]}, {"y": [6, 8]}, None]


async def test_partial_results_while_it_runs_and_whole_ones_only_at_the_end() -> None:
    """409 says how to have what there is."""
    async with world(model={"request_timeout": "1s"}) as w:
        job_id = await w.submit(ROWS)
        answer = await w.client.get(f"/jobs/{job_id}/results")
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
        assert "partial=true" in answer.json()["error"]
        assert await w.lines(job_id, partial="true") == []
        await w.work()
        await w.redis.hdel(w.store.keys.results(job_id), "1")
        with pytest.raises(Exception, match="deleted or begun again"):
            await w.lines(job_id)


async def test_a_cancelled_job_is_not_answered_and_a_retry_answers_it() -> None:
    """Cancelling twice changes nothing; a retry of a job that nobody began begins it."""
    async with world() as w:
        job_id = await w.submit(ROWS)
        for _ in range(2):
            answer = await w.client.post(f"/jobs/{job_id}/cancel")
            assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
        await w.work()
        assert (await w.job(job_id))["rows"]["done"] == 0
        answer = await w.client.post(f"/jobs/{job_id}/retry")
        assert (answer.status_code, answer.json()["state"]) == (202, "queued")
        assert (await w.client.post(f"/jobs/{job_id}/retry")).status_code == 409
        await w.work()
        assert len(await w.lines(job_id)) == 8
        answer = await w.client.post(f"/jobs/{job_id}/retry")
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


async def test_a_retry_runs_only_rows_without_an_answer() -> None:
    """Rows that have one keep it, also in a chunk that is done again."""
    broken = {"is": True}
    seen: list[float] = []

    def compute(inputs: Any) -> list[Any]:
        from canarium_runtime.backends.base import BackendError

        seen.extend(inputs["x"][:, 0].tolist())
        if broken["is"] and (inputs["x"][:, 0] == 5).any():
            raise BackendError("no")
        return [inputs["x"].sum(axis=1)]

    async with world(FakeBackend(compute=compute)) as w:
        job_id = await w.submit(ROWS)
        await w.work()
        assert (await w.job(job_id))["rows"]["failed"] == 1
        broken["is"] = False
        seen.clear()
        await w.client.post(f"/jobs/{job_id}/retry")
        await w.work()
        assert seen == [5.0]
        job = await w.job(job_id)
        assert (job["rows"]["failed"], job["rows"]["done"], job["errors"]) == (0, 8, [])
        assert [line["row"] for line in await w.lines(job_id)] == list(range(8))


async def test_too_many_failed_rows_end_the_job() -> None:
    """The share is the client's to say."""
    async with world() as w:
        job_id = await w.submit([["x"], *ROWS], max_failed_share=0.05)
        await w.work()
        job = await w.job(job_id)
        assert job["state"] == "failed"
        assert job["reason"] == "1 of 9 rows failed, more than max_failed_share 0.05 allows"


async def test_an_idempotency_key_makes_one_job_of_two_requests() -> None:
    """The same key with another body is refused; for another client it is another key."""
    async with world() as w:
        send = {"json": {"rows": ROWS}, "headers": {"idempotency-key": "k1"}}
        first = await w.client.post("/jobs", **send)  # type: ignore[arg-type]
        second = await w.client.post("/jobs", **send)  # type: ignore[arg-type]
        assert (first.status_code, second.status_code) == (202, 200)
        assert first.json()["id"] == second.json()["id"]
        other = await w.client.post(
            "/jobs", json={"rows": [[1, 1]]}, headers={"idempotency-key": "k1"}
        )
        assert (other.status_code, other.json()["field"]) == (409, "idempotency-key")
        theirs = await w.client.post(
            "/jobs",
            json={"rows": [[1, 1]]},
            headers={"idempotency-key": "k1", "x-client": "b"},
        )
        assert theirs.status_code == 202


async def test_clients_see_their_own_jobs_only() -> None:
    """Another one's is not found, in a list, by its id, or by a command."""
    async with world() as w:
        job_id = await w.submit(ROWS)
        theirs = {"x-client": "b"}
        assert (await w.client.get("/jobs", headers=theirs)).json() == {"jobs": []}
        for method, path in (
            ("GET", ""),
            ("GET", "/results"),
            ("POST", "/cancel"),
            ("POST", "/retry"),
            ("DELETE", ""),
        ):
            answer = await w.client.request(method, f"/jobs/{job_id}{path}", headers=theirs)
            assert answer.status_code == 404, path
        ids = [await w.submit([[1, 1]]) for _ in range(2)]
        listed = (await w.client.get("/jobs?limit=2")).json()["jobs"]
        assert [job["id"] for job in listed] == ids[::-1]


async def test_a_job_is_deleted_when_it_has_ended() -> None:
    """Before that, it must be cancelled."""
    async with world() as w:
        job_id = await w.submit(ROWS)
        assert (await w.client.delete(f"/jobs/{job_id}")).status_code == 409
        await w.work()
        assert (await w.client.delete(f"/jobs/{job_id}")).status_code == 204
        assert (await w.client.get(f"/jobs/{job_id}")).status_code == 404


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"max_unfinished": 2}, "2 jobs wait or run"),
        ({"max_unfinished_per_client": 2}, "2 jobs of yours"),
        ({"max_stored_bytes": 3000}, "more than 3000 bytes"),
    ],
)
async def test_above_the_bounds_jobs_are_refused(bounds: dict[str, int], message: str) -> None:
    """429, with when to come again; jobs that have ended free their place."""
    async with world(**bounds) as w:
        rows = [[n * 1.37, n * 7.3] for n in range(30)]
        ids = []
        while (refused := await w.client.post("/jobs", json={"rows": rows})).status_code == 202:
            ids.append(refused.json()["id"])
            assert len(ids) <= 10
        assert (refused.status_code, refused.json()["code"]) == (429, "queue_full")
        assert message in refused.json()["error"]
        assert int(refused.headers["retry-after"]) > 0
        for job_id in ids:
            await w.client.post(f"/jobs/{job_id}/cancel")
            await w.client.delete(f"/jobs/{job_id}")
        assert (await w.client.post("/jobs", json={"rows": rows})).status_code == 202


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"{", 400, ""),
        (b"{}", 400, "body"),
        (b'{"rows": []}', 400, "rows"),
        (b'{"rows": [1], "source": {"uri": "https://h/a.csv"}}', 400, "body"),
        (b'{"rows": [1], "more": 1}', 400, "more"),
        (b'{"rows": [1], "max_failed_share": 2}', 400, "max_failed_share"),
        (b'{"source": {"uri": "ftp://h/a.csv"}}', 422, "source.uri"),
        (b'{"source": {"uri": "http://h/a.csv"}}', 422, "source.sha256"),
        (b'{"source": {"uri": "https://h/a.txt"}}', 422, "source.format"),
        (b'{"rows": [1], "callback": {"url": "https://h/"}}', 422, "callback"),
    ],
)
async def test_a_request_that_is_wrong_is_refused_with_its_field(
    body: bytes, status: int, field: str
) -> None:
    """At once, where that can be told."""
    async with world() as w:
        answer = await w.client.post("/jobs", content=body)
        assert (answer.status_code, answer.json()["field"]) == (status, field)


async def test_a_callback_to_an_address_that_is_not_public_is_refused(tmp_path: Path) -> None:
    """Unless its network is allowed."""
    path = tmp_path / "secret"
    path.write_text(f"whsec_{base64.b64encode(b'k' * 24).decode()}")
    body = {"rows": [[1, 1]], "callback": {"url": "https://svc/"}}
    async with world(webhook_secret_file=str(path)) as w:
        answer = await w.client.post("/jobs", json=body)
        assert (answer.status_code, answer.json()["field"]) == (422, "callback.url")
    async with world(webhook_secret_file=str(path), private_networks="10.0.0.0/8") as w:
        assert (await w.client.post("/jobs", json=body)).status_code == 202


@pytest.mark.parametrize(
    ("statuses", "attempts", "state", "last"),
    [
        ([204], 1, "delivered", 204),
        ([500, 200], 2, "delivered", 200),
        ([302], 1, "pending", 302),
        ([410], 1, "failed", 410),
        ([500, 500, 500], 3, "failed", 500),
        ([None], 1, "pending", None),
    ],
)
async def test_a_webhook_is_tried_until_it_is_taken_or_given_up(
    tmp_path: Path, statuses: list[int | None], attempts: int, state: str, last: int | None
) -> None:
    """A redirect is no receiver; 410 says that there will never be one again."""
    sent: list[httpx.Request] = []

    def receive(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        status = statuses[len(sent) - 1]
        if status is None:
            raise httpx.ConnectError("secret detail")
        return httpx.Response(status, headers={"location": "https://elsewhere/"})

    path = tmp_path / "secret"
    path.write_text(f"whsec_{base64.b64encode(b'k' * 24).decode()}")
    settings = {"private_networks": "10.0.0.0/8", "webhook_attempts": 3}
    async with world(webhook_secret_file=str(path), **settings) as w:
        messenger = Messenger(
            w.config,
            w.store,
            w.tools.opener.rules,
            w.tools.metrics,
            w.tools.now,
            httpx.MockTransport(receive),
        )
        job_id = await w.submit(ROWS, callback={"url": "https://svc/done?token=1"})
        assert not await messenger.deliver_one()
        await w.client.post(f"/jobs/{job_id}/cancel")
        for _ in statuses:
            assert await messenger.deliver_one()
            assert not await messenger.deliver_one()
            w.late += timedelta(hours=2)
        callback = (await w.job(job_id))["callback"]
        assert (callback["attempts"], callback["state"]) == (attempts, state)
        assert callback["last_status"] == last
        assert "secret" not in str(callback)
        assert [str(request.url) for request in sent] == ["https://svc/done?token=1"] * attempts
        assert await messenger.deliver_one() is (state == "pending")


async def test_a_source_is_read_by_a_worker(tmp_path: Path) -> None:
    """A file that cannot be read fails the job, and a retry reads it again."""
    path = tmp_path / "rows.csv"
    async with world(file_directory=str(tmp_path)) as w:
        source = {"uri": path.as_uri(), "columns": {"x": ["a", "b"]}}
        answer = await w.client.post("/jobs", json={"source": source})
        job_id = answer.json()["id"]
        assert answer.json()["rows"]["total"] is None
        await w.work()
        job = await w.job(job_id)
        assert (job["state"], job["revision"]) == ("failed", None)
        assert "cannot be read" in job["reason"]
        path.write_text("a,b\n1,2\n3,oops\n5,6\n7,8\n")
        await w.client.post(f"/jobs/{job_id}/retry")
        await w.work()
        job = await w.job(job_id)
        assert (job["state"], job["rows"]) == ("succeeded", {"total": 4, "done": 4, "failed": 1})
        assert [line.get("outputs") for line in await w.lines(job_id)] == [
            {"y": 3},
            None,
            {"y": 11},
            {"y": 15},
        ]


async def test_a_chunk_that_no_worker_outlives_is_given_up() -> None:
    """Its rows fail, the others are answered."""

    class Deadly(RowRunner):
        async def run(self, rows: Any) -> Any:
            if [3, 1] in rows:
                raise RuntimeError("as if the worker had died")
            return await super().run(rows)

    async with world(max_attempts=2) as w:
        w.tools = replace(w.tools, runner=Deadly(w.service))
        job_id = await w.submit(ROWS)
        await w.work()
        lines = await w.lines(job_id)
        assert [line["row"] for line in lines if "error" in line] == [3, 4, 5]
        assert lines[3]["error"]["code"] == "poisoned"
        assert (await w.job(job_id))["state"] == "succeeded"


async def test_a_renewal_that_cannot_be_cancelled_does_not_hold_the_worker_up() -> None:
    """A client of Redis may take a cancellation for a timeout of its own, and it is lost."""
    renewing = asyncio.Event()

    class Stubborn(Queue):
        async def renew(self, entry: Entry) -> bool:
            renewing.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.05)
            return True

    class Slow(RowRunner):
        async def run(self, rows: Any) -> Any:
            await renewing.wait()
            return await super().run(rows)

    async with world() as w:
        stream = w.store.keys.chunks(w.service.config.revision)
        queue = Stubborn(w.redis, stream, "w", w.config.lease)
        w.tools = replace(w.tools, queue=queue, runner=Slow(w.service))
        job_id = await w.submit(ROWS)
        await asyncio.wait_for(w.work(), 30)
        assert (await w.job(job_id))["state"] == "succeeded"


async def test_a_job_that_takes_too_long_fails() -> None:
    """The upkeep ends it, and counts it."""
    async with world(job_timeout="1h") as w:
        job_id = await w.submit(ROWS)
        upkeep = Upkeep(Worker(w.tools), w.tools, QueueMetrics(w.service.config), "w")
        await w.tools.queue.prepare()
        await w.tools.intake.prepare()
        await upkeep.beat()
        await upkeep.once()
        assert (await w.job(job_id))["state"] == "queued"
        w.late = timedelta(hours=2)
        await upkeep.once()
        job = await w.job(job_id)
        assert (job["state"], job["reason"]) == (
            "failed",
            "it did not end within 1:00:00, the limit of all jobs",
        )
        await w.work()
        assert (await w.job(job_id))["rows"]["done"] == 0


async def test_without_redis_the_server_has_no_jobs_and_without_an_answer_says_so(
    tmp_path: Path,
) -> None:
    """404 where jobs are off, 503 where Redis is away; predictions go on."""
    models = make_models()
    service = models.primary
    (tmp_path / "url").write_text("redis://127.0.0.1:1/0")
    for config, status in (
        (JobsConfig(), 404),
        (JobsConfig(redis_url_file=str(tmp_path / "url")), 503),
    ):
        transport = httpx.ASGITransport(create_app(service.config, Predictor(models), config))
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            answer = await client.get("/jobs")
            assert answer.status_code == status
            answer = await client.post("/predict", json={"inputs": {"x": [[1, 2]]}})
            assert answer.status_code == 200
    assert "ml_jobs_finished_total" in render([service.metrics]).decode()
    service.close()


def test_a_client_is_who_the_guard_says() -> None:
    """Nobody is told apart where there is no guard."""
    assert named(Request({"type": "http", "headers": []})) == ""
    assert named(Request({"type": "http", "headers": [], "state": {"client": "ann"}})) == "ann"


def test_a_server_without_jobs_imports_nothing_for_them() -> None:
    """It starts as fast as before, and its image need not have the library."""
    code = "import sys, canarium_runtime.__main__; sys.exit('redis' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
