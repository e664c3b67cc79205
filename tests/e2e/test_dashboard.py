"""The dashboard on a real cluster: as a pod without rights of its own, with users who may and may not act."""

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from canarium_devcluster import dev_images
from tests.e2e import models
from tests.e2e.conftest import ROOT, ClusterInfo, World, free_port, quick_rollout
from tests.e2e.kube import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]
NAMESPACE = "canarium-system"
PAGE = {"X-Canarium-Dashboard": "1"}
IMAGE = {"name": "canarium.dev/canarium-dashboard", "newTag": "dev"}


@pytest.fixture
def dashboard(cluster: ClusterInfo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The dashboard's pod from `manifests/dashboard`, reached as `kubectl port-forward` reaches it; gives its URL."""
    dev_images.load_dashboard(cluster.name)
    kubectl = cluster.kubectl
    overlay = ROOT / "build" / "e2e" / "dashboard"
    overlay.mkdir(parents=True, exist_ok=True)
    kustomization = {"resources": ["../../../manifests/dashboard"], "images": [IMAGE]}
    (overlay / "kustomization.yaml").write_text(json.dumps(kustomization))
    restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
    space = {"metadata": {"name": NAMESPACE, "labels": restricted}}
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", **space})
    kubectl.run("apply", "--server-side", "--force-conflicts", "-k", str(overlay))
    waiting = ("rollout", "status", "deploy/canarium-dashboard", "-n", NAMESPACE)
    kubectl.run(*waiting, "--timeout=90s", timeout=100)
    port = free_port()
    words = ("port-forward", "-n", NAMESPACE, "svc/canarium-dashboard", f"{port}:80")
    forward = subprocess.Popen(
        [kubectl.binary, "--kubeconfig", kubectl.kubeconfig, *words], stdout=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{url}/healthz", trust_env=False).status_code == 200
        return False

    try:
        wait_for("the dashboard answers", answers, 30)
        yield url
    finally:
        forward.terminate()
        forward.wait(10)
        kubectl.run("delete", "namespace", NAMESPACE, "--timeout=60s", timeout=70)


def token_of(world: World, user: str, role: str) -> str:
    """Make a user of one namespace with a role of ours, and give their token."""
    kubectl, space = world.kubectl, ("-n", world.namespace)
    kubectl.run("create", "serviceaccount", user, *space)
    account = f"--serviceaccount={world.namespace}:{user}"
    for name in (role, *(["canarium-view"] if role == "canarium-edit" else [])):
        kubectl.run(
            "create", "rolebinding", f"{user}-{name}", f"--clusterrole={name}", account, *space
        )
    kubectl.run("create", "role", f"{user}-events", "--verb=list", "--resource=events", *space)
    kubectl.run("create", "rolebinding", f"{user}-events", f"--role={user}-events", account, *space)
    return kubectl.run("create", "token", user, *space).strip()


def page(url: str, token: str) -> httpx.Client:
    """Be a page of a user."""
    headers = {**PAGE, "Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=url, headers=headers, timeout=30, trust_env=False)


def views(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """Read the views of a stream."""
    kind = ""
    for line in response.iter_lines():
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "data" and kind == "view":
            yield json.loads(value)


def test_users_follow_a_rollout_and_act_by_their_own_rights(world: World, dashboard: str) -> None:
    """Who may patch approves and aborts; who may only look is told so, by the page and by the API server."""
    world.kubectl.run("apply", "-f", str(ROOT / "manifests" / "base" / "user-roles.yaml"))
    steps = [{"weight": 20, "pause": "1s", "approval": True}, {"weight": 60, "pause": "1h"}]
    rollout = quick_rollout(canary={"steps": steps})
    world.deploy("1", models.good(1), rollout=rollout)
    world.wait_phase("Promoted")
    actor, looker = (
        token_of(world, "anna", "canarium-edit"),
        token_of(world, "leo", "canarium-view"),
    )
    path = f"/api/deployments/{world.namespace}/{world.name}"
    with page(dashboard, actor) as anna, page(dashboard, looker) as leo, world.traffic():
        wait_for("roles are known", lambda: anna.get(path).status_code == 200, 20)
        wait_for("roles are known", lambda: leo.get(path).status_code == 200, 20)
        assert anna.get("/api/deployments").status_code == 403
        rows = anna.get("/api/deployments", params={"namespace": world.namespace}).json()["rows"]
        assert [row["health"] for row in rows] == ["healthy"]
        with anna.stream("GET", f"{path}?follow=true") as response:
            told = views(response)
            assert next(told)["mayAct"] is True
            began = time.monotonic()
            world.deploy("2", models.good(2), rollout=rollout)
            phases = set()
            for view in told:
                phases.add(view["phase"])
                if view["health"] == "waiting":
                    break
            assert "Canary" in phases, phases
            print(f"followed to the approval in {time.monotonic() - began:.1f} s")
            assert view["offers"][0]["verb"] == "approve"
            assert {check["name"] for check in view["checks"]} == {"error-rate", "latency-p95"}
            assert view["chart"]["points"][-1]["weight"] == 20
        offer = view["offers"][0]
        asked = {key: offer[key] for key in ("verb", "revision", "step")}
        seen = leo.get(path).json()
        assert seen["mayAct"] is False
        assert "leo lacks the verb patch" in seen["whyNot"]
        refused = leo.post(f"{path}/commands", json=asked)
        assert refused.status_code == 403
        assert "cannot patch resource" in refused.json()["message"]
        done = anna.post(f"{path}/commands", json={**asked, "note": "seen"}).json()
        assert done["outcome"] == "done", done
        assert done["message"].endswith(f"{world.namespace}:anna (seen)")
        again = anna.post(f"{path}/commands", json=asked).json()
        assert again["outcome"] == "refused", again
        world.wait("step 2", lambda s: s.get("rollout", {}).get("step") == 2)
        abort = {"verb": "abort", "revision": offer["revision"]}
        done = anna.post(f"{path}/commands", json=abort).json()
        assert done["outcome"] == "done", done
        world.wait_phase("Aborted")
        world.wait_told("AbortedByUser")
        last = anna.get(path).json()
        assert last["failure"]["reason"] == "AbortedByUser"
        assert "AbortedByUser" in {event["reason"] for event in last["events"]}
    assert httpx.get(f"{dashboard}{path}", headers=PAGE, trust_env=False).status_code == 401
