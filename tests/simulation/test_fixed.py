"""Fixed versions in virtual time, with faults from a seed: weights move only onto ready pods, and all ends as asked."""

import asyncio
import os
from random import Random
from typing import Any

import pytest

from canarium_operator.core import naming
from canarium_operator.errors import ConflictError, TransientClusterError
from canarium_operator.testing.cluster import Call
from canarium_operator.testing.controllers import PodScript
from canarium_operator.testing.objects import model_deployment

from .world import REF, Crash, World

SEEDS = int(os.environ.get("SEEDS", "250"))
ONLY = os.environ.get("SEED")
NAMES = ("eu", "us", "lab")
VERSIONS = "23456"
FAULTS_LAST = 200.0


def seeds(count: int) -> list[int]:
    return [int(ONLY)] if ONLY is not None else list(range(count))


class FixedStory:
    """Versions, weights and strategies that change three times, while the operator dies and calls fail."""

    def __init__(self, seed: int) -> None:
        self.random = random = Random(seed)
        self.rate = random.choice((0.01, 0.05, 0.1))
        self.world = World()
        self.world.fault = self._fault
        self.faults = False
        self.asked: dict[str, tuple[str, int]] = {}
        self.main = "1"

    def _fault(self, call: Call, when: str) -> None:
        if not self.faults or call.method == "query" or self.random.random() > self.rate:
            return
        if self.random.random() < 0.3:
            raise Crash
        if call.method == "apply_status" and when == "before":
            msg = "409 the object has been modified"
            raise ConflictError(msg)
        msg = f"{call.method}: 503"
        raise TransientClusterError(msg, retry_after=1)

    def wish(self, *, fixed: bool) -> None:
        """Ask for something else."""
        random = self.random
        rollout: dict[str, Any] = {"scaleDownDelay": "20s", "analysis": {"metrics": []}}
        self.asked = {}
        if fixed:
            names = random.sample(NAMES, random.randint(1, len(NAMES)))
            models = random.sample(VERSIONS, len(names))
            weights = [random.choice((0, 1, 10, 33)) for _ in names]
            self.asked = dict(zip(names, zip(models, weights, strict=True), strict=True))
            rollout["fixed"] = {
                "versions": [
                    {
                        "name": name,
                        "weight": weight,
                        "model": {"uri": f"https://models.example.com/{model}", "version": model},
                    }
                    for name, (model, weight) in self.asked.items()
                ]
            }
        else:
            rollout["canary"] = {"steps": [{"weight": 50, "pause": "10s"}]}
        self.main = random.choice(("1", "1", "7"))
        scaling = {"minReplicas": random.randint(1, 3), "maxReplicas": 6}
        manifest = model_deployment(version=self.main, rollout=rollout, autoscaling=scaling)
        self.world.put(manifest)

    def kill_a_pod(self) -> None:
        """Lose one."""
        pods = self.world.cluster.all("Pod")
        if pods:
            name = self.random.choice(pods)["metadata"]["name"]
            self.world.cluster.remove("Pod", REF.namespace, name)

    async def play(self) -> None:
        """From one version to several, and on."""
        world, random = self.world, self.random
        world.cluster.controllers.pods = PodScript()
        world.put(model_deployment(version="1", autoscaling={"minReplicas": 2, "maxReplicas": 6}))
        await world.run(120, lambda: world.phase == "Promoted")
        world.metrics.lost = 0.0
        self.faults = True
        for number in range(3):
            fixed = number < 2 or random.random() < 0.7
            world.at(
                random.uniform(0, 60) + 60 * number,
                "user: another wish",
                lambda fixed=fixed: self.wish(fixed=fixed),
            )
        kills = random.random() < 0.4
        if kills:
            world.at(random.uniform(30, FAULTS_LAST), "a pod dies", self.kill_a_pod)
        await world.run(FAULTS_LAST)
        self.faults = False
        await world.run(1800, lambda: world.phase == "Promoted")
        await world.run(400)
        self.verify(kills=kills)

    def verify(self, *, kills: bool) -> None:
        """All is as it was asked for last."""
        world, status = self.world, self.world.status
        assert world.phase == "Promoted", f"{world.phase}: {status['message']}"
        found = {
            version["name"]: (version["modelVersion"], version["weight"])
            for version in status.get("versions", [])
            if version["name"] != "main"
        }
        assert found == self.asked
        assert status["stable"]["modelVersion"] == self.main
        rest = 100 - sum(weight for _, weight in self.asked.values())
        assert world.weights[status["stable"]["revision"]] == rest
        assert sum(world.weights.values()) == 100
        running = {
            d["metadata"]["labels"][naming.MODEL_VERSION_LABEL]
            for d in world.cluster.each("Deployment")
        }
        assert running == {self.main, *(model for model, _ in self.asked.values())}
        if not kills:
            assert world.metrics.lost == 0, f"{world.metrics.lost:.0f} requests were lost"
        world.monitor.finished(events_complete=False)


@pytest.mark.parametrize("seed", seeds(SEEDS // 10))
def test_fixed_versions_end_as_they_were_asked_for(seed: int) -> None:
    """Whatever is asked for in the middle of what, and whenever the operator dies."""
    story = FixedStory(seed)
    with story.world.explained(f"rerun with: SEED={seed} make sim"):
        asyncio.run(story.play())
