"""ModelDeployments in all states, made by the operator's own reconciler in virtual time.

A `Scene` plays one world on: each step gives the body that an API server would have, and the Events.
"""

import asyncio
import hashlib
import json
import math
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from statistics import NormalDist
from typing import Any

from tests.simulation.world import REF, World

from canarium_api.metric_names import REVISION_LABEL
from canarium_operator.core.naming import command_annotation
from canarium_operator.core.rollout.queries import Query, QueryKind, Series, Vector
from canarium_operator.testing.metrics import Behaviour
from canarium_operator.testing.objects import model_deployment

Manifest = dict[str, Any]
STEPS = [{"weight": w, "pause": "2m"} for w in (1, 5, 10, 25, 50)]
ANALYSIS = {"interval": "10s", "minSamples": 200}


def _play(world: World, seconds: float) -> None:
    """Let a world go on, in a thread of its own: a browser that is driven has a loop in this one."""
    thread = threading.Thread(target=lambda: asyncio.run(world.run(seconds)))
    thread.start()
    thread.join()


@dataclass
class Scene:
    """One ModelDeployment under a name of its own."""

    namespace: str
    name: str
    world: World = field(default_factory=World)
    seed: int = 7

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.nature: dict[str, Behaviour] = {}
        """How revisions answer on average; what is measured varies around it."""
        self.world.metrics.requests_per_second = 120.0
        counted = self.world.metrics.answer
        self.world.metrics.answer = lambda query: self._spread(query, counted(query))

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.namespace, self.name

    @property
    def now(self) -> datetime:
        """The present instant."""
        return self.world.clock.now()

    def deploy(self, version: str, nature: Behaviour, **parts: Any) -> str:
        """Apply a version, and give its revision."""
        model = {
            "uri": f"https://models.example.com/{self.name}/{version}/model.onnx",
            "sha256": hashlib.sha256(f"{self.name} {version}".encode()).hexdigest(),
            "version": version,
        }
        rollout = {"analysis": ANALYSIS, "canary": {"steps": STEPS}, **parts.pop("rollout", {})}
        if {"blueGreen", "abTest", "fixed"} & set(rollout):
            rollout.pop("canary")
        spec = {"model": model, "rollout": rollout, **parts}
        revision = self.world.put(model_deployment(version=version, **spec))
        self.nature[revision] = nature
        return revision

    def run(self, seconds: float, until: str = "") -> None:
        """Let time pass, or a phase come."""
        for _ in self.ticks(seconds):
            if until and self.world.phase == until:
                return

    def ticks(self, seconds: float, every: float = 10.0) -> Iterator[None]:
        """Let time pass in pieces, with measurements that vary."""
        for _ in range(math.ceil(seconds / every)):
            for revision, nature in self.nature.items():
                wave = self.random.gauss(1.0, 0.3)
                self.world.metrics.behaviours[revision] = replace(
                    nature, error_rate=min(1.0, max(0.0, nature.error_rate * wave))
                )
            _play(self.world, every)
            yield

    def _spread(self, query: Query, found: Vector) -> Vector:
        """Give latencies a distribution (log-normal) in place of the fake's one value, which moves with the load."""
        if query.kind is not QueryKind.BUCKETS:
            return found
        load = 1 + 0.09 * math.sin(query.at.timestamp() / 75)
        spread = []
        for series in found:
            bound = float(series.labels["le"])
            revision = series.labels[REVISION_LABEL]
            total = next(s.value for s in found if s.labels == {**series.labels, "le": "inf"})
            median = self.nature[revision].latency * load
            share = 1.0 if math.isinf(bound) else NormalDist(0, 0.42).cdf(math.log(bound / median))
            spread.append(Series(labels=series.labels, value=total * share))
        return tuple(spread)

    def ask(self, verb: str, value: str) -> None:
        """Give a command, and let the operator answer."""
        self.world.cluster.annotate(REF, command_annotation(verb), value)
        _play(self.world, 1.0)

    @property
    def body(self) -> Manifest:
        """The object as it is now."""
        # The operator's words name the object that it knows.
        text = json.dumps(self.world.body).replace(
            "fraud -n ml", f"{self.name} -n {self.namespace}"
        )
        found = json.loads(text.replace(str(REF), f"{self.namespace}/{self.name}"))
        meta = {**found["metadata"], "namespace": self.namespace, "name": self.name}
        return {**found, "metadata": meta}

    @property
    def events(self) -> list[Manifest]:
        """Its Events as the API server has them: times in whole seconds."""
        return [
            {
                "metadata": {"name": f"{self.name}.00000000.{event.epoch:06d}"},
                "type": "Warning" if event.warning else "Normal",
                "reason": event.reason,
                "message": event.message.replace(str(REF), f"{self.namespace}/{self.name}"),
                "lastTimestamp": f"{event.at:%Y-%m-%dT%H:%M:%SZ}",
                "count": 1,
            }
            for _, event in self.world.cluster.events
        ]


GOOD = Behaviour(error_rate=0.0012, latency=0.021)
SAME = Behaviour(error_rate=0.0014, latency=0.022)
BAD = Behaviour(error_rate=0.024, latency=0.025)


QUICK = {"canary": {"steps": [{"weight": 100, "pause": "10s"}]}}


def promoted(namespace: str, name: str, *versions: str) -> Scene:
    """Versions that have taken over from each other."""
    scene = Scene(namespace, name)
    for version in versions or ("v1",):
        scene.deploy(version, GOOD, rollout=QUICK)
        scene.run(300, until="Promoted")
        scene.run(60)
    return scene


def canary(namespace: str, name: str, *, nature: Behaviour = SAME, **parts: Any) -> Scene:
    """A third version that has just been applied."""
    scene = promoted(namespace, name, "v6", "v7")
    scene.run(60)
    scene.deploy("v8", nature, **parts)
    return scene


def rolled_back(namespace: str, name: str) -> Scene:
    """A second version that was taken back."""
    scene = canary(namespace, name)
    failing(scene, step=3)
    scene.run(900, until="Aborted")
    scene.run(30)
    return scene


def failing(scene: Scene, *, step: int) -> None:
    """Let the canary come to a step, and fail from there on."""
    for _ in scene.ticks(3600):
        rollout = scene.world.status.get("rollout") or {}
        if rollout.get("step") == step and rollout.get("stepStartedAt"):
            break
    scene.nature[scene.world.status["canary"]["revision"]] = BAD


def waiting(namespace: str, name: str) -> Scene:
    """A canary whose second step waits for an approval."""
    steps = [
        {"weight": 10, "pause": "1m"},
        {"weight": 50, "pause": "1m", "approval": True},
    ]
    scene = canary(namespace, name, rollout={"canary": {"steps": steps}})
    scene.run(200)
    for _ in scene.ticks(600):
        rollout = scene.world.status.get("rollout") or {}
        if rollout.get("blockedOn") == "AwaitingApproval":
            break
    return scene
