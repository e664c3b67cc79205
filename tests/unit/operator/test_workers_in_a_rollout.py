"""Workers of batch jobs through a rollout: reconciler and sizing together, in the fake cluster."""

from typing import Any

from tests.unit.operator.test_reconciler import REF, Bench, manifest

from canarium_operator.core import naming
from canarium_operator.core.rollout.queries import Query, Series, Vector
from canarium_operator.sizing import Sizing
from canarium_operator.testing.metrics import FakeMetrics

JOBS: dict[str, Any] = {
    "redis": {"name": "redis", "key": "url"},
    "workers": {"min": 1, "max": 5, "targetQueueLength": 8},
}


class World:
    """An operator with its loop of sizes, and queues of so many chunks."""

    def __init__(self) -> None:
        self.bench = Bench()
        self.queues: dict[str, float] = {}
        self.sizing = Sizing(self.bench.cluster, FakeMetrics(self._answer), self.bench.clock)

    def _answer(self, query: Query) -> Vector:
        return tuple(
            Series(labels={"deployment": "ml/fraud", "revision": revision}, value=length)
            for revision, length in self.queues.items()
        )

    async def go_on(self, seconds: float = 30) -> None:
        """Let the operator, its loop and the cluster work for so long."""
        await self.bench.settle(seconds)
        await self.sizing.once()
        await self.bench.settle(10)

    def workers(self) -> dict[str, int]:
        """Ready workers by revision."""
        return {
            deployment["metadata"]["labels"][naming.JOBS_REVISION_LABEL]: deployment["status"].get(
                "readyReplicas", 0
            )
            for deployment in self.bench.cluster.each("Deployment")
            if naming.JOBS_LABEL in deployment["metadata"]["labels"]
        }

    def beginner(self) -> str | None:
        """Whose workers begin jobs."""
        found = self.bench.cluster.find("ConfigMap", "ml", naming.jobs_name("fraud"))
        return None if found is None else str(found["data"]["revision"])

    def stable(self) -> str:
        return str(self.bench.status["stable"]["revision"])


async def test_workers_go_with_the_stable_revision_and_finish_what_they_have() -> None:
    """A canary has none; after its promotion it has, and those of the revision before go when their queue is empty."""
    w = World()
    w.bench.cluster.put(manifest("1", serving={"jobs": JOBS}))
    await w.go_on()
    old = w.stable()
    assert (w.workers(), w.beginner()) == ({old: 1}, old)
    w.queues[old] = 30
    await w.go_on()
    assert w.workers() == {old: 4}

    w.bench.cluster.put(manifest("2", serving={"jobs": JOBS}))
    await w.go_on(10)
    assert "canary" in w.bench.status
    assert (w.workers(), w.beginner()) == ({old: 4}, old)
    await w.go_on(120)
    new = w.stable()
    assert new != old
    assert (w.workers(), w.beginner()) == ({old: 4, new: 1}, new)

    await w.go_on(120)  # the servers of the old revision have gone meanwhile, its workers have not
    assert w.bench.cluster.find("Deployment", "ml", naming.child_name("fraud", old)) is None
    assert w.workers() == {old: 4, new: 1}
    w.queues[old] = 0
    await w.go_on()
    assert w.workers() == {new: 1}


async def test_a_canary_that_fails_leaves_the_workers_alone() -> None:
    """They have never been its."""
    w = World()
    w.bench.cluster.put(manifest("1", serving={"jobs": JOBS}))
    await w.go_on()
    old = w.stable()
    w.bench.cluster.put(manifest("2", serving={"jobs": JOBS}))
    await w.go_on(10)
    w.bench.cluster.annotate(REF, naming.command_annotation("abort"), "now")
    await w.go_on(60)
    assert w.stable() == old
    assert (w.workers(), w.beginner()) == ({old: 1}, old)


async def test_bounds_change_in_place() -> None:
    """Without a rollout, and without a restart of any pod."""
    w = World()
    w.bench.cluster.put(manifest("1", serving={"jobs": JOBS}))
    await w.go_on()
    before = w.bench.cluster.events.copy()
    pods = {pod["metadata"]["name"] for pod in w.bench.cluster.each("Pod")}
    more = {**JOBS, "workers": {"min": 3, "max": 5}}
    w.bench.cluster.put(manifest("1", serving={"jobs": more}))
    await w.go_on()
    assert w.workers() == {w.stable(): 3}
    assert w.bench.cluster.events == before
    assert pods <= {pod["metadata"]["name"] for pod in w.bench.cluster.each("Pod")}


async def test_jobs_that_are_turned_off_are_finished_first() -> None:
    """Nobody begins one any more; workers go when nothing is left."""
    w = World()
    w.bench.cluster.put(manifest("1", serving={"jobs": JOBS}))
    await w.go_on()
    old = w.stable()
    w.queues[old] = 10
    await w.go_on()
    w.bench.cluster.put(manifest("1"))
    await w.go_on(150)
    assert w.stable() != old
    assert (w.workers(), w.beginner()) == ({old: 2}, None)
    w.queues[old] = 0
    await w.go_on()
    assert w.workers() == {}
