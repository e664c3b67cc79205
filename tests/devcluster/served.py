"""A small program in two versions, ``one`` and ``two``, and a cluster to run it in."""

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from canarium_devcluster import cluster, launcher, workshop

NAMESPACE = "served"
IMAGE = "canarium.dev/devcluster-test:dev"
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def until(what: str, condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not reached in {seconds:.0f} s: {what}"
        time.sleep(0.1)


def deployment(version: str) -> dict[str, Any]:
    container = {
        "name": "app",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "env": [{"name": "VERSION", "value": version}],
        "ports": [{"containerPort": 8000}, {"containerPort": 8001}],
        "readinessProbe": {"httpGet": {"path": "/", "port": 8000}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
        "securityContext": RESTRICTED,
    }
    annotations = {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": "8000",
        "prometheus.io/path": "/numbers",
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": version, "namespace": NAMESPACE},
        "spec": {
            "selector": {"matchLabels": {"app": version}},
            "template": {
                "metadata": {"labels": {"app": version}, "annotations": annotations},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [container],
                },
            },
        },
    }


def service(version: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": version, "namespace": NAMESPACE},
        "spec": {"selector": {"app": version}, "ports": [{"port": 80, "targetPort": 8000}]},
    }


class Running:
    """A cluster with two versions of a small program in it."""

    def __init__(self, mine: cluster.Cluster) -> None:
        self.mine = mine

    def kubectl(self, *arguments: str, stdin: object = None, check: bool = True) -> str:
        done = subprocess.run(
            [self.mine.kubectl, *arguments],
            input=None if stdin is None else json.dumps(stdin),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout + done.stderr

    def apply(self, *documents: dict[str, Any]) -> None:
        items = {"apiVersion": "v1", "kind": "List", "items": list(documents)}
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=items)

    def through_gateway(self) -> str | None:
        """Which version answers a request."""
        request = urllib.request.Request(
            f"http://{self.mine.addresses.gateway_ip}/", headers={"Host": "addons.example.com"}
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError:
            return None

    def ask_prometheus(self, query: str) -> list[dict[str, Any]]:
        url = f"http://{self.mine.addresses.prometheus_ip}:9090/api/v1/query?query={quote(query)}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            return list(json.load(answer)["data"]["result"])

    def python(self, code: str) -> str:
        """Run code inside a pod."""
        return self.kubectl("exec", "-n", NAMESPACE, "deploy/one", "--", "python3", "-c", code)


def start(mine: cluster.Cluster, program: str, folder: Path) -> Running:
    """Build the program's image, run both versions of it, and wait until both are ready."""
    shop = workshop.open_workshop()
    package = folder / "served"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(program)
    image = shop.python_images.build(
        name=IMAGE, entrypoint=["python3", "-m", "served"], packages=[package]
    )
    launcher.load(shop, mine.name, [image])
    found = Running(mine)
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": NAMESPACE,
            "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
        },
    }
    found.apply(namespace)
    for version in ("one", "two"):
        found.apply(deployment(version), service(version))
    found.kubectl(
        "wait", "-n", NAMESPACE, "--for=condition=Available", "deploy/one", "deploy/two",
        "--timeout=60s",
    )  # fmt: skip
    return found
