"""Objects that are deleted and made anew, with everything going wrong: what failed stays away, what was good serves."""

import asyncio
from datetime import timedelta
from random import Random

import pytest

from canarium_api import KIND
from canarium_operator.core import naming
from canarium_operator.core.memory import copy_name
from canarium_operator.errors import TransientClusterError
from canarium_operator.testing.cluster import Call
from canarium_operator.testing.metrics import Behaviour
from canarium_operator.testing.objects import model_deployment

from .invariants import Monitor
from .test_seeds import seeds
from .world import REF, Crash, World

ROLLOUT = {
    "canary": {"steps": [{"weight": 20, "pause": "10s"}, {"weight": 100, "pause": "10s"}]},
    "analysis": {"interval": "10s", "minSamples": 10},
    "progressDeadline": "15m",
}


@pytest.mark.parametrize("seed", seeds(60))
def test_an_object_made_anew_never_tries_what_failed_before(seed: int) -> None:
    """From the failure on, through a deletion at any later moment, the bad revision gets no request."""
    world = World()
    with world.explained(f"rerun with: SEED={seed} pytest tests/simulation/test_memory.py"):
        asyncio.run(play(world, Random(seed)))


@pytest.mark.parametrize("seed", seeds(40))
def test_a_namespace_made_anew_never_tries_what_failed_before(seed: int) -> None:
    """The same where all of the namespace goes, and the memory with it: its copy is elsewhere."""
    world = World(memory_namespace="canarium-system")
    with world.explained(f"rerun with: SEED={seed} pytest tests/simulation/test_memory.py"):
        asyncio.run(play(world, Random(seed), with_its_namespace=True))


async def play(world: World, random: Random, *, with_its_namespace: bool = False) -> None:
    """Fail, delete, make anew, and look at every weight since."""
    trouble = [False]

    def fault(call: Call, when: str) -> None:
        if not trouble[0]:
            return
        if random.random() < 0.02:
            raise Crash
        if random.random() < 0.05:
            msg = f"{call.method} {call.kind}: 503"
            raise TransientClusterError(msg)

    world.restart_after = lambda: timedelta(seconds=random.choice((0, 0, 5, 20)))
    world.fault = fault
    first = put(world, "1")
    await world.run(3600, lambda: world.phase == "Promoted")
    trouble[0] = True
    bad = put(world, "2")
    world.metrics.behaviours[bad] = Behaviour(error_rate=0.5)
    await world.run(3600, lambda: bool(world.status.get("failedRevisions")))
    # What was decided is remembered as soon as the pass is over; the moment in between is in ADR 0012.
    await world.run(3600, lambda: "failedRevisions" in remembered(world))
    if with_its_namespace:
        await world.run(3600, lambda: "failedRevisions" in remembered(world, copied=True))
    await world.run(random.uniform(0, 120))
    world.cluster.remove(KIND, REF.namespace, REF.name)
    if with_its_namespace:
        world.cluster.remove("ConfigMap", REF.namespace, naming.memory_name(REF.name))
    world.monitor = Onlooker(world.cluster, REF, world.clock.now)
    await world.run(random.choice((0, 1, 30)))

    later = random.choice(("1", "2", "3"))
    wanted = put(world, later)
    await world.run(3600, lambda: carries(world, bad) or world.weights == {first: 100})
    assert not carries(world, bad)
    trouble[0] = False
    end = "Promoted" if later != "2" else "Aborted"
    await world.run(3600, lambda: carries(world, bad) or world.phase == end)
    assert not carries(world, bad)
    assert world.phase == end
    assert world.weights == ({first: 100} if later == "2" else {wanted: 100})


class Onlooker(Monitor):
    """Holds nothing against the operator: there is no object for a while, and then another one."""

    def written(self, call: Call) -> None:
        """Let it pass."""

    def pass_ended(self, *, settled: bool) -> None:
        """Let it pass."""


def put(world: World, version: str) -> str:
    """Apply a version."""
    scaling = {"minReplicas": 2, "maxReplicas": 4}
    return world.put(model_deployment(version=version, rollout=ROLLOUT, autoscaling=scaling))


def carries(world: World, revision: str) -> bool:
    """Tell whether the route gives a revision anything."""
    return world.weights.get(revision, 0) > 0


def remembered(world: World, *, copied: bool = False) -> str:
    """Text of the memory, or of its copy, if it has failures in it."""
    where = (REF.namespace, naming.memory_name(REF.name))
    if copied:
        where = (world.memory_namespace, copy_name(REF))
    found = world.cluster.live("ConfigMap", *where)
    text: str = found["data"]["memory.json"] if found is not None else ""
    return text if '"reason"' in text else ""
