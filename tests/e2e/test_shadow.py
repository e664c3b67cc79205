"""Shadows on a real cluster, with Envoy Gateway, which copies requests, beside Traefik, which does not."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import models
from tests.e2e.conftest import World, quick_rollout
from tests.e2e.kube import wait_for
from tests.e2e.traffic import Traffic

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

ENVOY = {"gateway": {"name": "envoy", "namespace": "canarium-gateway"}}


def settings(*, metrics: list[dict[str, Any]] | None = None, **shadow: Any) -> dict[str, Any]:
    """Make rollout settings with a shadow before a switch of all the traffic."""
    checks = metrics or [
        {"name": "error-rate", "minEffect": "5%"},
        {"name": "shadow-flip-rate", "max": "5%"},
        {"name": "shadow-psi", "max": "0.25"},
        {"name": "shadow-mismatch-rate", "max": "10%"},
    ]
    return quick_rollout(
        shadow={"pause": "5s", **shadow},
        canary={"steps": [{"weight": 100, "pause": "2s"}]},
        analysis={"interval": "2s", "minSamples": 20, "metrics": checks},
    )


def envoy(world: World, **options: Any) -> Traffic:
    """Make clients that come through Envoy."""
    gateway = world.kubectl.get("gateway", "envoy", "canarium-gateway")
    assert gateway is not None, "bring the cluster up with --also envoy"
    address = gateway["status"]["addresses"][0]["value"]
    return Traffic(gateway=f"{address}:80", hostname=world.hostname, **options)


def go_on(traffic: Traffic) -> None:
    """Wait for a few seconds' worth of answers."""
    seen = traffic.total
    wait_for("users go on", lambda: traffic.total > seen + 300, 30)


def is_shadowed(status: dict[str, Any]) -> bool:
    """Tell whether the clock of the shadow's step runs."""
    rollout = status.get("rollout") or {}
    return rollout.get("step") == 1 and "stepStartedAt" in rollout


def check(status: dict[str, Any], name: str) -> dict[str, Any]:
    """Give one check of the rollout."""
    checks = status["rollout"]["checks"]
    return next((c for c in checks if c["name"] == name), {})


@contextmanager
def frozen(pod: dict[str, Any]) -> Iterator[None]:
    """Stop all processes of a pod without ending them: it accepts connections and never answers."""
    uid = pod["metadata"]["uid"]
    marks = (uid, uid.replace("-", "_"))
    found = [
        int(entry.parent.name)
        for entry in Path("/proc").glob("[0-9]*/cgroup")
        if _mentions(entry, marks)
    ]
    assert found, "no process of the pod on this machine"
    for number in found:
        os.kill(number, signal.SIGSTOP)
    try:
        yield
    finally:
        for number in found:
            os.kill(number, signal.SIGCONT)


def _mentions(path: Path, marks: tuple[str, ...]) -> bool:
    try:
        text = path.read_text()
    except OSError:
        return False
    return any(mark in text for mark in marks)


def test_a_shadow_that_answers_alike_is_promoted_and_users_never_feel_it(world: World) -> None:
    """Copies are compared pair by pair; a shadow that hangs, that is killed, and a comparer that is killed fail no
    request; then the version gets its traffic.
    """
    world.deploy("1", models.classifier(), rollout=settings(), traffic=ENVOY)
    stable = world.wait_phase("Promoted")["stable"]["revision"]
    with envoy(world) as traffic:
        slow = settings(pause="20s", approval=True)
        serving = {"resources": {"requests": {"cpu": "25m", "memory": "128Mi"}}}
        world.deploy("2", models.classifier(), rollout=slow, traffic=ENVOY, serving=serving)
        status = world.wait("the shadow", is_shadowed, 120)
        canary = status["canary"]["revision"]
        status = world.wait(
            "pairs", lambda s: check(s, "shadow-flip-rate").get("verdict") == "Pass", 60
        )
        assert check(status, "shadow-flip-rate")["value"] == 0
        assert check(status, "shadow-mismatch-rate")["samples"] > 20
        assert status["canary"]["weight"] == 0
        pods = "app.kubernetes.io/name=canarium-model,canarium.dev/revision=" + canary
        (pod,) = world.kubectl.list("pods", world.namespace, pods)
        with frozen(pod):
            go_on(traffic)
        selectors = (pods, f"canarium.dev/shadow={world.name}")
        for selector in selectors:
            kill = ["delete", "pod", "-n", world.namespace, "-l", selector]
            world.kubectl.run(*kill, "--grace-period=0", "--force")
            go_on(traffic)
        world.wait("the approval", lambda s: s["phase"] == "Paused", 120)
        assert {revision for revision, _ in traffic.answers} == {stable}
        assert traffic.failures() == {}, traffic.last_errors
        annotate = ["annotate", "mdep", world.name, "-n", world.namespace, "--overwrite"]
        world.kubectl.run(*annotate, "canarium.dev/approve=tests 1")
        world.wait("version 2 stable", lambda s: s["stable"]["modelVersion"] == "2", 120)
        world.wait_phase("Promoted")
        assert traffic.failures() == {}, traffic.last_errors
    left = world.kubectl.list("deploy,svc,cm", world.namespace, f"canarium.dev/shadow={world.name}")
    assert left == []


def test_flipped_labels_are_found_before_any_user_sees_one(world: World) -> None:
    """A third of the requests flip: the rate's interval holds that share, the version is taken back at weight 0, and
    only half of the requests were copied.
    """
    rollout = settings(percent=50, pause="60s")
    world.deploy("1", models.classifier(), rollout=rollout, traffic=ENVOY)
    stable = world.wait_phase("Promoted")["stable"]["revision"]
    with envoy(world, bad_share=0.33) as traffic:
        world.deploy("2", models.classifier(strange=True), rollout=rollout, traffic=ENVOY)
        status = world.wait("taken back", lambda s: s["phase"] == "Aborted", 120)
        assert {revision for revision, _ in traffic.answers} == {stable}
        assert traffic.failures() == {}, traffic.last_errors
    failure = status["failedRevisions"][-1]
    assert failure["reason"] == "AnalysisFailed"
    assert "shadow-flip-rate" in failure["message"]
    found = next(c for c in failure["checks"] if c["name"] == "shadow-flip-rate")
    low, high = found["interval"]
    assert low < 0.33 < high
    assert found["pValue"] < 0.05


def test_a_gateway_that_cannot_copy_requests_is_refused(world: World) -> None:
    """Traefik would answer every request with an error: nothing starts, the status says why, and users are served."""
    world.deploy("1", models.classifier(), rollout=settings())
    world.wait_phase("Promoted")
    with world.traffic(rate=20) as traffic:
        world.deploy("2", models.classifier(strange=True), rollout=settings())
        status = world.wait(
            "stalled", lambda s: any(c["type"] == "Stalled" for c in s["conditions"])
        )
        (stalled,) = (c for c in status["conditions"] if c["type"] == "Stalled")
        assert stalled["reason"] == "MirrorUnsupported"
        assert "traefik" in stalled["message"]
        assert "canary" not in status
        without = settings()
        del without["shadow"]
        # Stable has just begun: what it answers beside the canary is what the check compares with.
        without["canary"] = {"steps": [{"weight": 50, "pause": "2s"}]}
        without["analysis"]["metrics"] = without["analysis"]["metrics"][:1]
        world.deploy("2", models.classifier(strange=True), rollout=without)
        world.wait("version 2 stable", lambda s: s["stable"]["modelVersion"] == "2", 120)
        assert traffic.failures() == {}, traffic.last_errors
