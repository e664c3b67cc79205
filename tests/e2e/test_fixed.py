"""Several versions that serve for good, on a real gateway."""

import json
import urllib.request
from collections import Counter
from typing import Any

import pytest

from tests.e2e import models
from tests.e2e.conftest import World, quick_rollout
from tests.e2e.kube import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


def asked(version: str, artefact: models.Artefact, weight: int) -> dict[str, Any]:
    """A spec of the version `eu` beside that of `spec.model`."""
    model = {
        "uri": f"configmap://model-{version}/model.onnx",
        "sha256": artefact.sha256,
        "version": version,
    }
    fixed = {"versions": [{"name": "eu", "model": model, "weight": weight}]}
    rollout = quick_rollout(fixed=fixed)
    del rollout["canary"]
    return {
        "rollout": rollout,
        "autoscaling": {"minReplicas": 1, "maxReplicas": 3, "cpu": 0, "memory": 400},
    }


def answered_by(world: World, version: str) -> str:
    """Ask one version by the header, and give what answered."""
    request = urllib.request.Request(
        f"http://{world.cluster.gateway}/v2/models/{world.name}",
        headers={"Host": world.hostname, "x-canarium-version": version},
    )
    with urllib.request.urlopen(request, timeout=5) as answer:
        return str(json.load(answer)["versions"][0])


def shares(world: World, traffic: Any) -> dict[str, float]:
    """Measure who answers the next 300 requests."""
    before = Counter(traffic.answers)
    start = traffic.total
    wait_for("300 requests", lambda: traffic.total >= start + 300, 30)
    found = Counter(traffic.answers) - before
    return {revision: n / found.total() for (revision, _status), n in found.items()}


def test_versions_serve_with_their_weights_and_are_replaced_in_place(world: World) -> None:
    """30 and then 60 percent; another model under the name; one that cannot load; one version again. Nobody notices."""
    second, third = models.good(2), models.good(3)
    for version, artefact in (("2", second), ("3", third)):
        world.kubectl.apply(artefact.config_map(f"model-{version}", world.namespace))
    world.deploy("1", models.good(1), **asked("2", second, 30))
    status = world.wait("both", lambda s: s["phase"] == "Promoted" and s.get("versions"))
    main, eu = (version["revision"] for version in status["versions"])
    wait_for("eu by its header", lambda: answered_by(world, "eu") == "2", 20)
    assert answered_by(world, "main") == "1"
    with world.traffic() as traffic:
        found = shares(world, traffic)
        assert 0.2 < found[eu] < 0.4, found
        world.deploy("1", models.good(1), **asked("2", second, 60))
        world.wait("other weights", lambda s: s["versions"][1]["weight"] == 60)
        world.wait_phase("Promoted")
        found = shares(world, traffic)
        assert 0.5 < found[eu] < 0.7, found
        world.deploy("1", models.good(1), **asked("3", third, 60))
        world.wait("the new model", lambda s: s["versions"][1]["modelVersion"] == "3")
        world.wait_phase("Promoted")
        wait_for("eu by its header", lambda: answered_by(world, "eu") == "3", 20)
        wrong = models.Artefact(content=b"not a model")
        world.kubectl.apply(wrong.config_map("model-4", world.namespace))
        world.deploy("1", models.good(1), **asked("4", wrong, 60))
        status = world.wait("version 4 given up", lambda s: s.get("failedRevisions"), 120)
        assert status["versions"][1]["state"] == "Failed"
        assert status["versions"][1]["modelVersion"] == "3"
        assert answered_by(world, "eu") == "3"
        stalled = {c["type"]: c["reason"] for c in world.wait_phase("Aborted")["conditions"]}
        assert stalled["Stalled"] == "ModelLoadFailed"
        world.deploy("1", models.good(1))
        status = world.wait("one version", lambda s: not s.get("versions"))
        status = world.wait_phase("Promoted")
        assert status["stable"]["revision"] == main
        assert traffic.failures() == {}, traffic.last_errors
    reasons = [event["reason"] for event in world.events()]
    assert reasons[:4] == ["FirstDeployment", "Deployed", "VersionsPlanned", "VersionsChanged"]
