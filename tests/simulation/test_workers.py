"""The operator as it runs: workers that are woken by watches, several objects, an API server that goes away."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest

from canarium_api import KIND
from canarium_operator.core.naming import ObjectRef
from canarium_operator.errors import ConflictError, TransientClusterError
from canarium_operator.reconciler import Reconciler
from canarium_operator.testing import virtual_time
from canarium_operator.testing.cluster import Call, FakeCluster
from canarium_operator.testing.metrics import Behaviour, SimulatedTraffic
from canarium_operator.testing.objects import model_deployment
from canarium_operator.worker import Workers

from .test_seeds import SEEDS, seeds

NAMES = ("fraud", "spam", "churn")
ROLLOUT = {
    "canary": {"steps": [{"weight": 50, "pause": "20s"}]},
    "analysis": {"interval": "10s", "minSamples": 10},
}


def manifest(name: str, version: str) -> dict[str, Any]:
    autoscaling = {"minReplicas": 2, "maxReplicas": 4}
    return model_deployment(name, version=version, rollout=ROLLOUT, autoscaling=autoscaling)


class Installation:
    """A cluster with an operator in it."""

    def __init__(self) -> None:
        self.clock = virtual_time.LoopClock()
        self.cluster = FakeCluster()
        self.metrics = SimulatedTraffic(self.cluster)
        self.start_operator()

    def start_operator(self) -> None:
        """Start the operator's process; a watch tells it of all objects."""
        reconciler = Reconciler(self.cluster, self.metrics, self.clock, runtime_image="runtime:1")
        self.workers = Workers(reconciler.reconcile, 2)
        self.cluster.on_change = self.workers.wake
        for body in self.cluster.all(KIND):
            meta = body["metadata"]
            self.workers.wake(ObjectRef(namespace=meta["namespace"], name=meta["name"]))

    async def restart_operator(self) -> None:
        """Stop it as SIGTERM does, in the middle of whatever it does, and start another."""
        await self.workers.close()
        self.start_operator()

    async def live(self, seconds: int) -> None:
        """Let the cluster and its traffic go on."""
        for _ in range(seconds):
            await asyncio.sleep(1)
            self.cluster.tick(self.clock.now())
            self.metrics.tick(self.clock.now())

    def phases(self) -> dict[str, str]:
        """Phase of each object, as of its present generation."""
        found = {}
        for body in self.cluster.all(KIND):
            current = body["status"]["observedGeneration"] == body["metadata"]["generation"]
            found[body["metadata"]["name"]] = body["status"]["phase"] if current else "unseen"
        return found

    @contextmanager
    def trouble(self, random: Random, rate: float) -> Iterator[None]:
        """Have some calls fail before or after their effect."""

        def fault(call: Call) -> None:
            if random.random() < rate:
                if call.method == "apply_status" and random.random() < 0.5:
                    raise ConflictError("409")
                raise TransientClusterError("503")

        self.cluster.before = self.cluster.after = fault
        yield
        self.cluster.before = self.cluster.after = lambda _call: None


@pytest.mark.parametrize("seed", seeds(SEEDS // 30))
def test_several_rollouts_at_once_end_well_though_calls_fail_and_operators_restart(
    seed: int,
) -> None:
    """Good versions are promoted, the bad one is not, and each Event is told once."""

    async def story() -> None:
        random = Random(seed)
        world = Installation()
        for name in NAMES:
            world.cluster.put(manifest(name, "1"))
        await world.live(30)
        assert set(world.phases().values()) == {"Promoted"}
        world.metrics.lost = 0.0
        for name in NAMES:
            world.cluster.put(manifest(name, "2"))
        await world.live(1)
        bad = world.cluster.find(KIND, "ml", "spam")
        assert bad is not None
        revision = bad["status"]["canary"]["revision"]
        world.metrics.behaviours[revision] = Behaviour(error_rate=0.4)
        with world.trouble(random, random.choice((0.02, 0.1, 0.3))):
            for _ in range(4):
                await world.live(random.randint(5, 40))
                await world.restart_operator()
        await world.live(300)
        assert world.phases() == {"fraud": "Promoted", "churn": "Promoted", "spam": "Aborted"}
        assert world.metrics.lost == 0
        told = [(about, event.epoch) for about, event in world.cluster.events]
        assert len(told) == len(set(told))
        await world.workers.close()

    virtual_time.run(story())


def test_an_api_server_that_is_away_for_minutes_is_waited_for() -> None:
    """Nothing moves meanwhile, few calls are made, and all goes on when it is back."""

    async def story() -> None:
        world = Installation()
        world.cluster.put(manifest("fraud", "1"))
        await world.live(30)
        world.cluster.put(manifest("fraud", "2"))
        await world.live(8)
        with world.trouble(Random(1), 1.0):
            before = len(world.cluster.calls)
            await world.live(300)
            assert len(world.cluster.calls) - before < 70
        await world.live(200)
        assert world.phases() == {"fraud": "Promoted"}
        await world.workers.close()

    virtual_time.run(story())


def test_an_operator_at_rest_reads_every_few_minutes_and_writes_only_to_repair() -> None:
    """An hour of rest: a pass each resync for each object, and no status written."""

    async def story() -> None:
        world = Installation()
        for name in NAMES:
            world.cluster.put(manifest(name, "1"))
        await world.live(60)
        world.cluster.calls.clear()
        await world.live(3600)
        methods = [call.method for call in world.cluster.calls]
        assert methods.count("get") <= 13 * len(NAMES)
        assert "apply_status" not in methods
        assert "record_event" not in methods
        await world.workers.close()

    virtual_time.run(story())


def test_a_deleted_object_leaves_no_worker_and_a_new_one_of_its_name_starts_afresh() -> None:
    """Deleting takes the children along; nothing is made for what is gone."""

    async def story() -> None:
        world = Installation()
        world.cluster.put(manifest("fraud", "1"))
        await world.live(30)
        world.cluster.remove(KIND, "ml", "fraud")
        await world.live(2)
        assert len(world.workers) == 0
        assert world.cluster.all("Deployment") == []
        world.cluster.put(manifest("fraud", "1"))
        await world.live(30)
        assert world.phases() == {"fraud": "Promoted"}
        assert [event.epoch for _, event in world.cluster.events] == [1, 2, 1, 2]
        await world.workers.close()

    virtual_time.run(story())
