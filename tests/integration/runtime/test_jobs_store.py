"""One suite for the fake Redis and a real one: queue, leases, and transactions of jobs."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import redis.asyncio
from tests.integration.runtime.jobs_redis import running_redis

from canarium_api.jobs_config import JobsConfig
from canarium_runtime.jobs import chunks, decisions
from canarium_runtime.jobs.api import make_store
from canarium_runtime.jobs.chunks import Failure
from canarium_runtime.jobs.decisions import Change, Plan
from canarium_runtime.jobs.errors import StoreError
from canarium_runtime.jobs.hooks import Hooks
from canarium_runtime.jobs.presence import Presence
from canarium_runtime.jobs.queue import Entry, Queue
from canarium_runtime.jobs.record import Delivery, DeliveryState, Job
from canarium_runtime.jobs.redis_client import connect
from canarium_runtime.jobs.states import JobState
from canarium_runtime.jobs.store import Store

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LEASE = timedelta(milliseconds=150)
REVISION = "r1"


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(params=["fake", "real"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    if request.param == "fake":
        made: Any = fakeredis.FakeAsyncRedis()
    else:
        made = redis.asyncio.Redis.from_url(request.getfixturevalue("redis_url"))
        await made.flushall()
    yield made
    await made.aclose()


@pytest.fixture
def store(client: Any) -> Store:
    return make_store(JobsConfig(), "ns/name", client)


def queue(store: Store, consumer: str, lease: timedelta = LEASE) -> Queue:
    return Queue(store.client, store.keys.chunks(REVISION), consumer, lease)


async def begun(store: Store, rows: int = 6, **fields: Any) -> Job:
    """Put a job with chunks of two rows before the workers."""
    job = Job(id="j1", created_at=NOW, **fields)
    packed = list(
        chunks.split(
            [b"%d" % row for row in range(rows)], chunk_rows=2, max_rows=1000, max_bytes=10_000
        )
    )
    plan = Plan(
        revision=REVISION,
        model_version="7",
        rows=rows,
        chunks=len(packed),
        input_bytes=sum(len(p.blob) for p in packed),
        outputs=("y",),
    )
    assert await store.create(job, {n: p.blob for n, p in enumerate(packed)}, None)
    after = await store.change("j1", lambda current: decisions.plan(current, plan, NOW))
    assert after is not None
    return after


async def finish(store: Store, entry: Entry, *, failed: bool = False) -> tuple[Job | None, bool]:
    """Answer a chunk."""
    blob, _ = await store.chunk(entry.job, entry.chunk)
    assert blob is not None
    chunk = chunks.unpack(blob)
    bad = Failure("model_failed", "it failed")
    answers = [bad if failed else {"y": row} for row in chunk.rows]
    results = chunks.pack_results(chunk.first, answers)
    return await store.finish_chunk(entry, results, now=NOW, delivery_id="msg_1")


async def lines(store: Store) -> list[bytes]:
    job = await store.get("j1")
    assert job is not None
    return [
        line async for blob in store.results(job) for line in chunks.result_lines(blob).splitlines()
    ]


async def test_a_job_is_answered_chunk_by_chunk_in_the_order_of_its_rows(store: Store) -> None:
    """All chunks are taken once, the last one ends the job, and the results are in order."""
    await begun(store)
    worker = queue(store, "a")
    await worker.prepare()
    assert await worker.length() == 3
    taken = []
    while (entry := await worker.take(block_seconds=0.01)) is not None:
        taken.append(entry.chunk)
        after, counted = await finish(store, entry)
        assert counted
    assert taken == [0, 1, 2]
    assert after is not None
    assert (after.state, after.rows_done, after.chunks_done) == (JobState.SUCCEEDED, 6, 3)
    assert await worker.length() == 0
    assert await store.unfinished() == {}
    assert [b'{"row":%d,"outputs":{"y":%d}}' % (n, n) for n in range(6)] == await lines(store)


async def test_what_a_dead_worker_held_is_taken_by_another_and_counted(store: Store) -> None:
    """An entry whose lease is over goes to somebody else, with the number of its deliveries."""
    await begun(store, rows=2)
    dead, alive = queue(store, "dead"), queue(store, "alive")
    await dead.prepare()
    held = await dead.take(block_seconds=0.01)
    assert held is not None
    assert held.deliveries == 1
    entry = None
    while entry is None:
        entry = await alive.take(block_seconds=0.02)
    assert (entry.id, entry.deliveries) == (held.id, 2)
    assert not await dead.renew(held)


async def test_a_lease_that_is_renewed_is_not_lost(store: Store) -> None:
    """Nobody takes what its holder renews, however long it takes."""
    await begun(store, rows=2)
    slow, other = queue(store, "slow"), queue(store, "other")
    await slow.prepare()
    held = await slow.take(block_seconds=0.01)
    assert held is not None
    for _ in range(8):  # 8 times 50 ms is far more than the lease
        assert await slow.renew(held)
        assert await other.take(block_seconds=0.05) is None


@pytest.mark.parametrize(("counts", "deliveries"), [(True, 2), (False, 1)])
async def test_what_is_given_back_is_there_at_once(
    store: Store, counts: bool, deliveries: int
) -> None:
    """Another worker has it without waiting for the lease; a stop is no attempt."""
    await begun(store, rows=2)
    one, other = (queue(store, name, timedelta(hours=1)) for name in ("one", "other"))
    await one.prepare()
    held = await one.take(block_seconds=0.01)
    assert held is not None
    assert await other.take(block_seconds=0.01) is None
    await one.give_back(held, counts=counts)
    again = await other.take(block_seconds=0.01)
    assert again is not None
    assert (again.id, again.deliveries) == (held.id, deliveries)


async def test_a_chunk_that_two_workers_finish_counts_once(store: Store) -> None:
    """The second one is told that it did not count."""
    await begun(store)
    worker = queue(store, "a")
    await worker.prepare()
    entry = await worker.take(block_seconds=0.01)
    assert entry is not None
    _, first = await finish(store, entry)
    after, second = await finish(store, entry)
    assert (first, second) == (True, False)
    assert after is not None
    assert (after.rows_done, after.chunks_done) == (2, 1)
    assert len(await lines(store)) == 2


async def test_workers_that_finish_chunks_at_once_are_all_counted(store: Store) -> None:
    """No count is lost between transactions that meet."""
    await begun(store, rows=80)
    workers = [queue(store, f"w{n}", timedelta(hours=1)) for n in range(8)]
    await workers[0].prepare()

    async def work(worker: Queue) -> None:
        while (entry := await worker.take(block_seconds=0.01)) is not None:
            await finish(store, entry)

    await asyncio.gather(*map(work, workers))
    job = await store.get("j1")
    assert job is not None
    assert (job.state, job.rows_done, job.chunks_done) == (JobState.SUCCEEDED, 80, 40)
    assert len(await lines(store)) == 80


async def test_a_retry_redoes_only_what_failed(store: Store) -> None:
    """Chunks whose rows all have an answer are not put before the workers again."""
    await begun(store)
    worker = queue(store, "a")
    await worker.prepare()
    while (entry := await worker.take(block_seconds=0.01)) is not None:
        await finish(store, entry, failed=entry.chunk == 1)
    after = await store.retry("j1", lambda job, done: decisions.retry(job, done, NOW))
    assert after is not None
    assert (after.state, after.rows_done, after.rows_failed) == (JobState.RUNNING, 4, 0)
    assert await worker.length() == 1
    entry = await worker.take(block_seconds=0.01)
    assert entry is not None
    assert entry.chunk == 1
    ended, counted = await finish(store, entry)
    assert counted
    assert ended is not None
    assert (ended.state, ended.rows_done, ended.rows_failed) == (JobState.SUCCEEDED, 6, 0)
    assert ended.result_bytes == sum([len(blob) async for blob in store.results(ended)])


async def test_results_of_a_revision_that_was_left_count_for_nothing(store: Store) -> None:
    """After a job was begun again by another revision, chunks of the one before are dropped."""
    await begun(store)
    old = queue(store, "old")
    await old.prepare()
    entry = await old.take(block_seconds=0.01)
    assert entry is not None
    await store.change("j1", lambda job: decisions.adopt(job, "r2", "8", NOW))
    job, counted = await finish(store, entry)
    assert not counted
    assert job is not None
    assert (job.revision, job.rows_done, job.generation) == ("r2", 0, 1)
    fresh = Queue(store.client, store.keys.chunks("r2"), "fresh", LEASE)
    assert await fresh.length() == 3


async def test_an_idempotency_key_stands_for_one_job(store: Store) -> None:
    """Of two that are made with it, one is."""
    jobs = [Job(id=f"j{n}", created_at=NOW) for n in range(2)]
    name = store.keys.idempotency("client", "key")
    made = await asyncio.gather(*(store.create(job, {}, (name, job.id)) for job in jobs))
    assert sorted(made) == [False, True]
    winner = await store.known(name)
    assert [job.id for job in await store.newest(10)] == [winner]


async def test_a_job_that_was_deleted_leaves_nothing(store: Store) -> None:
    """No key of it is left; its entries are dropped by whoever takes them."""
    await begun(store)
    await store.delete(["j1"])
    keys = {key.decode() for key in await store.client.keys("*")}
    assert keys == {store.keys.intake, store.keys.chunks(REVISION)}
    assert await store.stored_bytes() == 0


async def test_everything_of_a_job_has_an_end(store: Store) -> None:
    """No key of a job is kept for ever, before and after it ended."""
    await begun(store)
    worker = queue(store, "a")
    await worker.prepare()
    while (entry := await worker.take(block_seconds=0.01)) is not None:
        await finish(store, entry)
        for key in await store.client.keys("*j1*"):
            assert await store.client.ttl(key) > 0, key


async def test_the_oldest_jobs_that_ended_make_room(store: Store) -> None:
    """Those that wait or run stay."""
    for number in range(4):
        job = Job(id=f"j{number}", created_at=NOW + timedelta(seconds=number))
        await store.create(job, {}, None)
        if number != 1:
            await store.change(f"j{number}", lambda j: decisions.cancel(j, NOW, "msg"))
    await store.make_room(3)
    assert [job.id for job in await store.newest(10)] == ["j3", "j1"]


async def test_a_webhook_is_attempted_by_one_worker_at_a_time_and_again_when_due(
    store: Store,
) -> None:
    """Who takes it has it for a while; what became of it is in the record."""
    await begun(store, callback="https://example.com")
    await store.change("j1", lambda job: decisions.cancel(job, NOW, "msg_1"))
    lease = timedelta(minutes=1)
    assert await Hooks(store.client, store.keys).claim(NOW, lease) == "j1"
    assert await Hooks(store.client, store.keys).claim(NOW, lease) is None
    assert await Hooks(store.client, store.keys).claim(NOW + lease, lease) == "j1"
    tried = Delivery(id="msg_1", attempts=1, last_status=500)
    await Hooks(store.client, store.keys).settle("j1", tried, NOW + timedelta(hours=1))
    assert await Hooks(store.client, store.keys).claim(NOW + lease * 2, lease) is None
    assert await Hooks(store.client, store.keys).claim(NOW + timedelta(hours=1), lease) == "j1"
    done = Delivery(id="msg_1", state=DeliveryState.DELIVERED, attempts=2, last_status=204)
    await Hooks(store.client, store.keys).settle("j1", done, None)
    job = await store.get("j1")
    assert job is not None
    assert job.delivery == done
    assert await Hooks(store.client, store.keys).claim(NOW + timedelta(days=1), lease) is None


async def test_an_outcome_that_nobody_decides_on_leaves_the_job(store: Store) -> None:
    """An entry is acknowledged although nothing changes."""
    await begun(store)
    worker = queue(store, "a")
    await worker.prepare()
    entry = await worker.take(block_seconds=0.01)

    def nothing(job: Job) -> Change | None:
        return None

    before = await store.get("j1")
    assert await store.change("j1", nothing, finished=entry) == before
    assert await worker.length() == 2
    assert await store.change("gone", nothing) is None


async def test_names_of_workers_that_left_are_forgotten(store: Store) -> None:
    """A name that holds nothing goes; one that holds an entry stays, since the entry would go with it."""
    await begun(store)
    idle, busy = queue(store, "idle"), queue(store, "busy")
    await idle.prepare()
    entry = await idle.take(block_seconds=0.01)
    assert entry is not None
    await idle.drop(entry)
    await busy.take(block_seconds=0.01)
    await idle.leave()
    await busy.leave()
    stream = store.keys.chunks(REVISION)
    names = [c["name"] for c in await store.client.xinfo_consumers(stream, "workers")]
    assert names == [b"busy"]


async def test_names_of_workers_that_died_are_forgotten_in_time(store: Store) -> None:
    """Not while they may live, and not while an entry is theirs."""
    await begun(store)
    for name in ("dead", "alive", "busy"):
        worker = queue(store, name)
        await worker.prepare()
        entry = await worker.take(block_seconds=0.01)
        assert entry is not None
        if name != "busy":
            await worker.drop(entry)
    presence = Presence(store.client, store.keys)
    await presence.announce(REVISION, "alive", timedelta(minutes=1))
    await worker.forget_gone(presence.is_alive, timedelta(0))
    stream = store.keys.chunks(REVISION)
    names = {c["name"] for c in await store.client.xinfo_consumers(stream, "workers")}
    assert names == {b"alive", b"busy"}


async def test_a_redis_that_is_away_is_an_error_of_ours(tmp_path: Path) -> None:
    """No exception of the library comes through, and no message shows the URL."""
    (tmp_path / "url").write_text("redis://user:hush@127.0.0.1:1/0")
    away = make_store(JobsConfig(), "ns/name", connect(str(tmp_path / "url")))
    with pytest.raises(StoreError) as caught:
        await away.get("j1")
    assert "hush" not in str(caught.value)
    await away.client.aclose()
    with pytest.raises(StoreError, match="cannot be read"):
        connect(str(tmp_path / "missing"))
    (tmp_path / "url").write_text("hush://hush")
    with pytest.raises(StoreError) as caught:
        connect(str(tmp_path / "url"))
    assert "hush" not in str(caught.value)
