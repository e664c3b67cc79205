"""Strategies on a real cluster and a real gateway."""

import json
import urllib.request

import pytest

from tests.e2e import models
from tests.e2e.conftest import World, quick_rollout
from tests.e2e.kube import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]


def answered_by(world: World, **headers: str) -> str:
    """Ask the model once, and give the version that answered."""
    request = urllib.request.Request(
        f"http://{world.cluster.gateway}/v2/models/{world.name}",
        headers={"Host": world.hostname, **headers},
    )
    with urllib.request.urlopen(request, timeout=5) as answer:
        return str(json.load(answer)["versions"][0])


def test_blue_green_previews_switches_and_goes_back_at_once(world: World) -> None:
    """Users stay with the old colour until the switch; nobody's request fails; the way back needs no step."""
    strategy = {
        "beforeSwitch": {"pause": "1s", "approval": True},
        "afterSwitch": {"pause": "2s"},
        "keepFor": "5m",
    }
    analysis = {
        "interval": "1s",
        "minSamples": 10,
        "metrics": [{"name": "error-rate", "max": "5%"}],
    }
    rollout = quick_rollout(blueGreen=strategy, analysis=analysis)
    del rollout["canary"]
    world.deploy("1", models.good(1), rollout=rollout)
    old = world.wait_phase("Promoted")["stable"]["revision"]
    with world.traffic() as traffic:
        world.deploy("2", models.good(2), rollout=rollout)
        world.wait("the preview", lambda s: s["phase"] == "Paused")
        wait_for(
            "the header", lambda: answered_by(world, **{"x-canarium-preview": "true"}) == "2", 20
        )
        assert answered_by(world) == "1"
        preview = world.kubectl.get("service", f"{world.name}-preview", world.namespace)
        assert preview is not None
        annotate = ["annotate", "mdep", world.name, "-n", world.namespace, "--overwrite"]
        world.kubectl.run(*annotate, "canarium.dev/approve=tests 1")
        world.wait("version 2 stable", lambda s: s["stable"]["modelVersion"] == "2", 90)
        assert answered_by(world) == "2"
        status = world.wait_phase("Promoted")
        assert [entry["revision"] for entry in status["retiring"]] == [old]
        assert world.kubectl.get("deployment", f"{world.name}-{old}", world.namespace) is not None
        assert world.kubectl.get("service", f"{world.name}-preview", world.namespace) is None
        world.deploy("1", models.good(1), rollout=rollout)
        status = world.wait("back on version 1", lambda s: s["stable"]["modelVersion"] == "1", 60)
        wait_for("version 1 answers", lambda: answered_by(world) == "1", 20)
        assert traffic.failures() == {}, traffic.last_errors
    assert "took over without steps" in status["history"][-1]["message"]
