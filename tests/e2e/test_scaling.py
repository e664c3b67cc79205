"""The HPA of a revision under real load."""

import pytest

from tests.e2e import models
from tests.e2e.conftest import World
from tests.e2e.kube import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


def test_load_brings_a_second_pod_and_traffic_reaches_it(world: World) -> None:
    """CPU above the target: the revision's own HPA adds a pod."""
    world.deploy(
        "1",
        models.slow(),
        autoscaling={"minReplicas": 1, "maxReplicas": 2, "cpu": 50, "memory": 0},
        serving={
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "1"}}
        },
    )
    status = world.wait_phase("Promoted")
    name = f"{world.name}-{status['stable']['revision']}"
    with world.traffic(rate=40, clients=4) as traffic:

        def scaled() -> bool:
            hpa = world.kubectl.get("hpa", name, world.namespace)
            return hpa is not None and hpa["status"].get("desiredReplicas", 0) >= 2

        wait_for("HPA wants 2 pods", scaled, 120, every=1)
        wait_for("2 ready pods", lambda: world.status()["stable"]["readyReplicas"] == 2, 60)
    assert traffic.failures() == {}, traffic.last_errors
