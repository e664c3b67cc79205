"""The operator as users install it: a pod with least-privilege RBAC, from `kubectl apply -k manifests/`."""

from collections.abc import Iterator

import pytest

from tests.e2e import models
from tests.e2e.conftest import ROOT, ClusterInfo, OperatorProcess, World
from tests.e2e.kube import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

NAMESPACE = "canarium-system"
OVERLAY = str(ROOT / "manifests" / "overlays" / "devcluster")


@pytest.fixture
def installed(cluster: ClusterInfo, operator_session: OperatorProcess) -> Iterator[ClusterInfo]:
    """The operator's pod, ready, and no other operator."""
    operator_session.stop()
    kubectl = cluster.kubectl
    kubectl.run("apply", "--server-side", "--force-conflicts", "-k", OVERLAY)
    kubectl.run(
        "rollout",
        "status",
        "deploy/canarium-operator",
        "-n",
        NAMESPACE,
        "--timeout=90s",
        timeout=100,
    )
    yield cluster
    kubectl.run("delete", "namespace", NAMESPACE, "--timeout=60s", timeout=70)


def operator_pods(cluster: ClusterInfo) -> dict[str, str]:
    """Name to uid of the operator's pods that are not going away."""
    pods = cluster.kubectl.list("pods", NAMESPACE, "app.kubernetes.io/name=canarium-operator")
    return {
        pod["metadata"]["name"]: pod["metadata"]["uid"]
        for pod in pods
        if "deletionTimestamp" not in pod["metadata"]
    }


def test_the_installed_operator_promotes_and_rolls_back_though_its_pod_is_killed(
    installed: ClusterInfo, operator_session: OperatorProcess
) -> None:
    """Its permissions suffice for a whole life of a model, and another pod goes on where the first one died."""
    namespace = "e2e-in-cluster"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    installed.kubectl.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}
    )
    world = World(installed, operator_session, namespace)
    world.deploy("1", models.good(1))
    world.wait_phase("Promoted")
    with world.traffic(bad_share=0.0) as traffic:
        world.deploy("2", models.good(2))
        world.wait("step 2", lambda s: s.get("rollout", {}).get("step") == 2, 60)
        [killed] = operator_pods(installed)
        installed.kubectl.run(
            "delete", "pod", killed, "-n", NAMESPACE, "--force", "--grace-period=0"
        )
        wait_for("another pod", lambda: set(operator_pods(installed)) - {killed}, 60)
        world.wait("version 2 stable", lambda s: s["stable"]["modelVersion"] == "2", 120)
        assert traffic.failures() == {}, traffic.last_errors
    with world.traffic(bad_share=0.3) as traffic:
        world.deploy("3", models.failing())
        world.wait("version 3 taken back", lambda s: s["failedRevisions"], 90)
        world.wait_phase("Aborted")
    installed.kubectl.run("delete", "namespace", namespace, "--wait=false")
    log = installed.kubectl.run("logs", "deploy/canarium-operator", "-n", NAMESPACE)
    # Denied by RBAC, that is; a namespace on its way out forbids new content to everybody.
    denied = [line for line in log.splitlines() if "is forbidden: User" in line]
    assert denied == []


def test_without_the_right_to_ask_pods_a_canary_waits_and_says_so(
    installed: ClusterInfo, operator_session: OperatorProcess
) -> None:
    """An administrator who does not grant `services/proxy` sees what is missing; when it is granted, it goes on."""
    kubectl, namespace = installed.kubectl, "e2e-unasked"
    role = kubectl.get("clusterrole", "canarium-operator", "")
    assert role is not None
    index = next(
        n for n, rule in enumerate(role["rules"]) if rule["resources"] == ["services/proxy"]
    )
    remove = f'[{{"op": "remove", "path": "/rules/{index}"}}]'
    kubectl.run("patch", "clusterrole", "canarium-operator", "--type=json", "-p", remove)
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    world = World(installed, operator_session, namespace)
    world.deploy("1", models.good(1))
    world.wait_phase("Promoted")
    with world.traffic(rate=20) as traffic:
        world.deploy("2", models.good(2))
        status = world.wait(
            "the wait", lambda s: s.get("rollout", {}).get("blockedOn") == "AwaitingSignature", 90
        )
        assert status["canary"]["weight"] == 0
        kubectl.run("apply", "--server-side", "--force-conflicts", "-k", OVERLAY)
        world.wait("version 2 stable", lambda s: s["stable"]["modelVersion"] == "2", 120)
        assert traffic.failures() == {}, traffic.last_errors
    kubectl.run("delete", "namespace", namespace, "--wait=false")
