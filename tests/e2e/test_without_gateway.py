"""Models that only clients in the cluster use: weights are the ratio of pods behind one Service.

kube-proxy runs on this machine, so that a test reaches a Service as a pod does.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e import models
from tests.e2e.conftest import ClusterInfo, OperatorProcess, World, quick_rollout
from tests.e2e.kube import Manifest, wait_for
from tests.e2e.traffic import Traffic

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
ROUTES = "httproutes.gateway.networking.k8s.io"
NOWHERE: dict[str, Any] = {
    "traffic": {},
    "rollout": quick_rollout(canary={"steps": [{"weight": w, "pause": "8s"} for w in (33, 100)]}),
}


def clients(world: World) -> Traffic:
    """Make clients of the Service, with a connection for each request."""
    service = world.kubectl.get("service", world.name, world.namespace)
    assert service is not None
    address = f"{service['spec']['clusterIP']}:80"
    return Traffic(gateway=address, hostname=world.name, keep_alive=False)


def led_to(world: World) -> str | None:
    """The one revision that the Service leads to; None: all pods."""
    service = world.kubectl.get("service", world.name, world.namespace)
    assert service is not None
    found: str | None = service["spec"]["selector"].get("canarium.dev/revision")
    return found


def test_the_ratio_of_pods_is_the_weight(world: World) -> None:
    """A third of the connections while two pods of stable and one of the canary run; a good version is promoted and a
    bad one taken back, and nobody's request fails but the bad version's.
    """
    world.deploy("1", models.good(1), **NOWHERE)
    first = world.wait_phase("Promoted")["stable"]["revision"]
    assert world.kubectl.list(ROUTES, world.namespace) == []
    assert led_to(world) == first
    with clients(world) as traffic:
        world.deploy("2", models.good(2), **NOWHERE)
        started = world.wait(
            "the first step", lambda s: (s.get("rollout") or {}).get("stepStartedAt")
        )
        second = started["canary"]["revision"]
        assert (started["stable"]["weight"], started["canary"]["weight"]) == (67, 33)
        before = dict(traffic.answers)
        wait_for("240 requests", lambda: traffic.total >= sum(before.values()) + 240, 30)
        after = dict(traffic.answers)
        assert world.status()["rollout"]["step"] == 1
        share = (after[second, 200] - before.get((second, 200), 0)) / (
            sum(after.values()) - sum(before.values())
        )
        assert 0.2 < share < 0.45, share  # four standard deviations of 240 draws
        world.wait("version 2 stable", lambda s: s["stable"]["modelVersion"] == "2", 90)
        assert led_to(world) == second
        world.wait_phase("Promoted")
        assert traffic.failures() == {}, traffic.last_errors
        traffic.bad_share = 0.5
        world.deploy("3", models.failing(), **NOWHERE)
        status = world.wait("version 3 taken back", lambda s: s.get("failedRevisions"), 90)
        bad = status["failedRevisions"][0]["revision"]
        assert led_to(world) == second
        world.wait_phase("Aborted")
        assert traffic.failures(besides=bad) == {}, traffic.last_errors


def test_an_unreachable_weight_is_refused_at_admission(world: World) -> None:
    """With the weights that one or two pods give."""
    rollout = quick_rollout(canary={"steps": [{"weight": 10}, {"weight": 50}]})
    manifest = world.manifest("1", "0" * 64, traffic={}, rollout=rollout)
    said = world.kubectl.run("apply", "-f", "-", stdin=json.dumps(manifest), check=False)
    assert "pods gives 10% : use 33, 50, 67, 100, raise" in said


@pytest.fixture
def no_gateway_api(cluster: ClusterInfo, operator: OperatorProcess) -> Iterator[None]:
    """A cluster without HTTPRoutes, and an operator that was started on it."""
    crd: Manifest | None = cluster.kubectl.get("crd", ROUTES, "default")
    assert crd is not None
    cluster.kubectl.run("delete", "crd", ROUTES)
    operator.kill()
    operator.start()
    yield
    crd["metadata"] = {
        name: value for name, value in crd["metadata"].items() if name in ("name", "annotations", "labels")
    }  # fmt: skip
    crd.pop("status", None)
    cluster.kubectl.apply(crd)
    cluster.kubectl.wait_established(ROUTES)
    operator.kill()
    operator.start()


@pytest.mark.usefixtures("no_gateway_api")
def test_the_gateway_api_need_not_be_installed(world: World) -> None:
    """The operator starts, serves and promotes on a cluster that has never heard of an HTTPRoute."""
    world.deploy("1", models.good(1), **NOWHERE)
    world.wait_phase("Promoted")
    with clients(world) as traffic:
        world.deploy("2", models.good(2), **NOWHERE)
        world.wait("version 2 stable", lambda s: s["stable"]["modelVersion"] == "2", 120)
        world.wait_phase("Promoted")
        assert traffic.total > 0
        assert traffic.failures() == {}, traffic.last_errors
