"""The operator may die at any moment: kills at random moments of real rollouts.

Twenty in the usual run; `make kills` does two hundred and writes its log and figures to build/kills.
"""

import json
import os
import random
import subprocess
import threading
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from tests.e2e import models
from tests.e2e.conftest import World, quick_rollout
from tests.e2e.kube import wait_for

KILLS = int(os.environ.get("KILLS", "20"))
LOG = Path(os.environ.get("KILLS_LOG", "build/kills"))
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300 + 10 * KILLS)]

WEIGHTS = (10, 30, 60, 100)


@dataclass
class RouteWatch:
    """Follows every version of the route and of the object's status, from the API server's own watch."""

    world: World
    weights: list[dict[str, int]] = field(default_factory=list)
    """Route weights by service, in order."""
    steps: list[tuple[int, int, int]] = field(default_factory=list)
    """(epoch, step, weight asked for), in order."""

    def __enter__(self) -> "RouteWatch":
        self._readers: list[threading.Thread] = []
        self._processes = [
            self._follow("httproutes.gateway.networking.k8s.io", self._route),
            self._follow("modeldeployments.canarium.dev", self._status),
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
            process.wait(timeout=10)
        for reader in self._readers:
            reader.join(timeout=10)

    def _follow(self, kind, take):  # type: ignore[no-untyped-def]
        kubectl = self.world.kubectl
        command = [kubectl.binary, "get", kind, "-n", self.world.namespace, "-w", "-o", "json"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

        def read() -> None:
            decoder, text = json.JSONDecoder(), ""
            assert process.stdout is not None
            with process.stdout as lines:
                for line in lines:
                    text += line
                    if line.startswith("}"):
                        take(decoder.decode(text))
                        text = ""

        self._readers.append(threading.Thread(target=read, daemon=True))
        self._readers[-1].start()
        return process

    def _route(self, body: dict) -> None:  # type: ignore[type-arg]
        refs = body["spec"]["rules"][0]["backendRefs"]
        self.weights.append({ref["name"]: ref["weight"] for ref in refs})

    def _status(self, body: dict) -> None:  # type: ignore[type-arg]
        status = body.get("status", {})
        rollout = status.get("rollout")
        if rollout is not None:
            self.steps.append((status["epoch"], rollout["step"], rollout["weight"]))


def test_rollouts_survive_kills_at_random_moments(world: World) -> None:
    """Same final state, no weight above its step, no step skipped or repeated, no request of stable lost."""
    chance = random.Random(20260101)
    steps = [{"weight": w, "pause": "3s"} for w in WEIGHTS]
    analysis = {
        "interval": "1s",
        "minSamples": 5,
        "metrics": [{"name": "error-rate", "minEffect": "20%"}],
    }
    rollout = quick_rollout(canary={"steps": steps}, analysis=analysis)
    world.deploy("1", models.good(1), rollout=rollout)
    world.wait_phase("Promoted")
    kills, version, log = 0, 1, list[str]()
    with world.traffic() as traffic, RouteWatch(world) as watch:
        while kills < KILLS:
            version += 1
            watch.steps.clear()
            watch.weights.clear()
            before = len(world.events())
            world.deploy(str(version), models.good(version), rollout=rollout)

            def done(wanted: str = str(version)) -> bool:
                status = world.status()
                promoted = status["stable"]["modelVersion"] == wanted
                return status["current"] and promoted and status["phase"] == "Promoted"

            while not done():
                moment = threading.Event()
                moment.wait(chance.uniform(0.2, 2.5))
                if kills < KILLS:
                    log.append(f"kill {kills + 1}: {where(world)}")
                    world.operator.kill()
                    world.operator.start()
                    kills += 1
                    # Give it time for at least one pass now and then, or nothing would ever move.
                    moment.wait(chance.uniform(0.5, 3.5))
            wait_for("the watch to see the end", lambda: bool(watch.weights), 10)
            check_rollout(world, watch, before)
            log.append(f"version {version} promoted: every step once and in order")
        lost = traffic.failures()
        figures = {
            "kills": kills,
            "rollouts": version - 1,
            "transitions": world.status()["epoch"],
            "requests": traffic.total,
            "failed requests": sum(lost.values()),
        }
        LOG.mkdir(parents=True, exist_ok=True)
        (LOG / "log.txt").write_text("\n".join(log) + "\n", encoding="utf-8")
        (LOG / "figures.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
        assert traffic.failures() == {}, traffic.last_errors
        assert traffic.total > 1000
    assert world.operator.starts >= KILLS


def where(world: World) -> str:
    """Say in what the operator is interrupted."""
    status = world.status()
    rollout = status.get("rollout") or {}
    place = f"step {rollout.get('step', '-')} at {rollout.get('weight', '-')}%"
    return f"epoch {status['epoch']}, {status['phase']}, {place}"


def check_rollout(world: World, watch: RouteWatch, before: int) -> None:
    """Hold one rollout against the laws."""
    new = world.events()[before:]
    epochs = [int(e["metadata"]["name"].rsplit(".", 1)[-1]) for e in new]
    for event, (before_, epoch) in zip(new[1:], pairwise(epochs), strict=True):
        # A change of the weight has none: the StepStarted after it tells it.
        untold = event["reason"] == "StepStarted" and epoch == before_ + 2
        assert untold or epoch == before_ + 1, "each transition has one Event"
    started = [e["message"].split(":")[0] for e in new if e["reason"] == "StepStarted"]
    assert started == [f"step {n}/{len(WEIGHTS)}" for n in range(1, len(WEIGHTS) + 1)]
    position = 0
    for _, step, weight in watch.steps:
        assert position <= step <= position + 1
        position = step
        assert weight <= WEIGHTS[step - 1]
    assert position == len(WEIGHTS)
    seen = [max(w.values()) if len(w) == 1 else min_canary(w) for w in watch.weights]
    assert all(value in (*WEIGHTS, 100) for value in seen), seen


def min_canary(weights: dict[str, int]) -> int:
    """Give the weight of the canary: the one of the plan; the two sum to 100."""
    assert sum(weights.values()) == 100
    return next(value for value in weights.values() if value in WEIGHTS)
