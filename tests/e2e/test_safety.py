"""What keeps a bad commit from doing harm, on a real cluster: the schema contract, and memory beyond the object."""

from typing import Any

import pytest

from tests.e2e import models
from tests.e2e.conftest import World, quick_rollout
from tests.e2e.kube import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]


def condition(status: dict[str, Any], kind: str) -> str | None:
    found = [c for c in status["conditions"] if c["type"] == kind]
    return f"{found[0]['status']}/{found[0]['reason']}" if found else None


def test_a_model_with_other_inputs_gets_no_request_unless_it_is_allowed(world: World) -> None:
    """A pod of each revision tells its inputs through the API server; what breaks clients is named."""
    world.deploy("1", models.good(1))
    stable = world.wait("signature", lambda s: s.get("stable", {}).get("signature"))["stable"]
    assert stable["signature"]["inputs"] == [
        {"name": "input", "datatype": "FP32", "shape": [-1, models.FEATURES]}
    ]
    world.wait_phase("Promoted")
    with world.traffic() as traffic:
        world.deploy("2", models.wider())
        status = world.wait_phase("Aborted")
        wait_for("more answers", lambda seen=traffic.total: traffic.total > seen + 100, 30)
        assert traffic.failures() == {}, traffic.last_errors
        assert {revision for revision, _ in traffic.answers} == {stable["revision"]}
    [failure] = status["failedRevisions"]
    assert failure["reason"] == "IncompatibleSchema"
    assert "input 'input' has shape [-1, 5], it had [-1, 4]" in failure["message"]
    assert condition(status, "Compatible") == "False/IncompatibleSchema"
    assert condition(status, "Stalled") == "True/IncompatibleSchema"


def test_a_bad_commit_meets_the_last_good_revision_in_a_new_cluster_and_after_a_deletion(
    world: World,
) -> None:
    """Git names the last good one: it serves first, and the bad one is a canary. Deleted and made anew, without that
    line, the object still knows both.
    """
    good = models.good(1)
    world.kubectl.apply(good.config_map("model-1", world.namespace))
    last_good = {"uri": "configmap://model-1/model.onnx", "sha256": good.sha256, "version": "1"}
    world.deploy("3", models.failing(), rollout=quick_rollout(lastGood=last_good))
    status = world.wait("a canary", lambda s: s.get("canary"))
    assert status["stable"]["modelVersion"] == "1"
    assert status["canary"]["modelVersion"] == "3"
    bad = status["canary"]["revision"]
    with world.traffic(bad_share=0.3) as traffic:
        status = world.wait_phase("Aborted")
        assert traffic.failures(besides=bad) == {}, traffic.last_errors
    assert [f["revision"] for f in status["failedRevisions"]] == [bad]

    world.kubectl.run("delete", "mdep", world.name, "-n", world.namespace)
    selector = f"canarium.dev/model-deployment={world.name}"
    wait_for(
        "nothing is left but the memory",
        lambda: (
            [
                m["metadata"]["name"]
                for m in world.kubectl.list(
                    "configmaps,deployments,services,httproutes", world.namespace, selector
                )
            ]
            == ["fraud-memory"]
        ),
        60,
    )
    world.operator.kill()
    world.operator.start()
    world.deploy("3", models.failing())
    status = world.wait_phase("Aborted")
    assert status["stable"]["modelVersion"] == "1"
    assert [f["revision"] for f in status["failedRevisions"]] == [bad]
    with world.traffic(bad_share=0.3) as traffic:
        wait_for("answers", lambda: traffic.total > 100, 30)
        assert {r for r, code in traffic.answers if code == 200} == {status["stable"]["revision"]}
        assert traffic.failures() == {}, traffic.last_errors


def test_no_weight_moves_before_the_pods_can_take_the_traffic_that_is_measured(
    world: World,
) -> None:
    """A declared throughput that asks for more pods than allowed holds the step at 0 %; with a true one it goes on."""
    world.deploy("1", models.good(1))
    world.wait_phase("Promoted")
    with world.traffic() as traffic:
        wait_for("traffic that Prometheus has seen", lambda: traffic.total > 1500, 60)
        tiny = quick_rollout(capacity={"requestsPerSecond": 0.001})
        world.deploy("2", models.good(2), rollout=tiny)
        status = world.wait(
            "a canary that is too small",
            lambda s: s.get("rollout", {}).get("blockedOn") == "AwaitingCapacity",
        )
        assert status["rollout"]["weight"] == 0
        assert "autoscaling.maxReplicas allows 2: raise it" in status["message"]
        assert condition(status, "CapacityReady") == "False/AwaitingCapacity"
        world.deploy(
            "2", models.good(2), rollout=quick_rollout(capacity={"requestsPerSecond": 1000})
        )
        world.wait("version 2 stable", lambda s: s["stable"]["modelVersion"] == "2", 120)
        assert traffic.failures() == {}, traffic.last_errors
