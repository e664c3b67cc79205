"""The whole product on a real cluster: an operator process, pods, gateway and Prometheus.

`make e2e` brings the cluster up, loads the images and sets CANARIUM_TEST_CLUSTER; without it, these tests are
skipped. The operator runs as a process of this machine (as `canarium operator --kubeconfig` does), so that
tests can kill and restart it within a moment; `test_in_cluster.py` runs it as a pod with its own permissions
instead. What is not replaced by anything: API server, controllers, kubelet, gateway, Prometheus, the
inference servers. Nothing is mocked.
"""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import models
from tests.e2e.kube import Kubectl, Manifest, wait_for
from tests.e2e.traffic import Traffic

ROOT = Path(__file__).parents[2]
CRDS = ROOT / "crds"
COPIES = "canarium-copies"
"""Namespace for copies of memories."""
_numbers = itertools.count(1)


@dataclass(frozen=True)
class ClusterInfo:
    """Where things are."""

    name: str
    kubectl: Kubectl
    gateway: str
    """`host:port`."""
    prometheus: str


def free_port() -> int:
    """Find a port of loopback that nobody uses: another run of these tests may be under way beside this one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class OperatorProcess:
    """An operator outside the cluster, that can be killed without mercy."""

    cluster: ClusterInfo
    log: Path
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0

    def start(self) -> None:
        """Start it, unless it runs."""
        if self.process is not None and self.process.poll() is None:
            return
        environment = {
            **os.environ,
            "CANARIUM_PROMETHEUS_URL": self.cluster.prometheus,
            "CANARIUM_MEMORY_NAMESPACE": COPIES,
            "CANARIUM_METRICS_PORT": "0",
            "CANARIUM_HEALTH_PORT": str(free_port()),
            "CANARIUM_LOG_LEVEL": "info",
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "canarium_operator",
                    "--kubeconfig",
                    self.cluster.kubectl.kubeconfig,
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        self.starts += 1

    def kill(self) -> None:
        """End it with SIGKILL: no clean-up of any kind."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it politely."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(timeout=20)
        self.process = None


@dataclass
class World:
    """One namespace and the ModelDeployment `fraud` in it."""

    cluster: ClusterInfo
    operator: OperatorProcess
    namespace: str
    name: str = "fraud"
    applied: list[Manifest] = field(default_factory=list)

    @property
    def kubectl(self) -> Kubectl:
        return self.cluster.kubectl

    @property
    def hostname(self) -> str:
        return f"{self.name}.{self.namespace}.models.local"

    def traffic(self, **options: Any) -> Traffic:
        """Make clients of this model."""
        return Traffic(gateway=self.cluster.gateway, hostname=self.hostname, **options)

    def deploy(self, version: str, artefact: models.Artefact, **parts: Any) -> None:
        """Apply one version as git would: the model as a ConfigMap, and the manifest.

        Args:
            version: for people; also names the ConfigMap.
            artefact: the model.
            parts: top-level parts of the spec, which replace the defaults of these tests.
        """
        source = artefact.config_map(f"model-{version}", self.namespace)
        self.kubectl.apply(source, self.manifest(version, artefact.sha256, **parts))

    def manifest(self, version: str, sha256: str, **parts: Any) -> Manifest:
        spec = {
            "model": {
                "uri": f"configmap://model-{version}/model.onnx",
                "sha256": sha256,
                "version": version,
            },
            "traffic": {"gateway": {"name": "public", "namespace": "canarium-gateway"}},
            "autoscaling": {"minReplicas": 1, "maxReplicas": 2, "cpu": 0, "memory": 400},
            "serving": {"resources": {"requests": {"cpu": "20m", "memory": "128Mi"}}},
            "rollout": quick_rollout(),
            **parts,
        }
        return {
            "apiVersion": "canarium.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": spec,
        }

    def status(self) -> dict[str, Any]:
        """Read the status as it is now."""
        body = self.kubectl.get("modeldeployments.canarium.dev", self.name, self.namespace)
        assert body is not None
        status: dict[str, Any] = body["status"]
        status["current"] = status["observedGeneration"] == body["metadata"]["generation"]
        return status

    def wait(
        self, what: str, test: Callable[[dict[str, Any]], object], seconds: float = 90
    ) -> dict[str, Any]:
        """Wait until the status of the present generation is as wanted; a failure shows what it was."""
        last: dict[str, Any] = {}

        def look() -> dict[str, Any] | None:
            nonlocal last
            last = self.status()
            return last if last["current"] and test(last) else None

        try:
            return wait_for(what, look, seconds)
        except AssertionError as error:
            events = self.kubectl.run("get", "events", "-n", self.namespace, check=False)
            shown = json.dumps({k: last.get(k) for k in ("phase", "message", "rollout")}, indent=1)
            msg = f"{error}\n{shown}\n{events[-3000:]}"
            raise AssertionError(msg) from error

    def wait_phase(self, phase: str, seconds: float = 90) -> dict[str, Any]:
        """Wait for a phase."""
        return self.wait(f"phase {phase}", lambda s: s["phase"] == phase, seconds)

    def events(self) -> list[Manifest]:
        """List the operator's Events, oldest first."""
        found = self.kubectl.list("events", self.namespace)
        mine = [e for e in found if e["involvedObject"]["kind"] == "ModelDeployment"]
        return sorted(mine, key=lambda e: int(e["metadata"]["name"].rsplit(".", 1)[-1]))

    def reasons(self) -> list[str]:
        """List the reasons of the operator's Events, oldest first."""
        return [event["reason"] for event in self.events()]

    def wait_told(self, *reasons: str, seconds: float = 30) -> None:
        """Wait until each of these reasons has its Event: they are written after the status that they tell of."""
        told: list[str] = []

        def look() -> bool:
            told[:] = self.reasons()
            return set(reasons) <= set(told)

        try:
            wait_for(f"Events {', '.join(reasons)}", look, seconds)
        except AssertionError as error:
            msg = f"{error}; told: {', '.join(told)}"
            raise AssertionError(msg) from error

    def wait_told_last(self, *reasons: str, seconds: float = 30) -> None:
        """Wait until the latest Events have just these reasons, in this order."""
        told: list[str] = []

        def look() -> bool:
            told[:] = self.reasons()
            return tuple(told[-len(reasons) :]) == reasons

        try:
            wait_for(f"the Events {', '.join(reasons)} as the last ones", look, seconds)
        except AssertionError as error:
            msg = f"{error}; told: {', '.join(told)}"
            raise AssertionError(msg) from error


def quick_rollout(**parts: Any) -> dict[str, Any]:
    """Make rollout settings with seconds instead of minutes.

    The latency check is absolute and generous: pods share two cores with the control plane, and relative
    limits are tested with virtual time.
    """
    return {
        "scaleDownDelay": "3s",
        "progressDeadline": "90s",
        "canary": {"steps": [{"weight": w, "pause": "5s"} for w in (20, 60, 100)]},
        "analysis": {
            "interval": "2s",
            "minSamples": 20,
            "metrics": [
                {"name": "error-rate", "minEffect": "5%"},
                {"name": "latency-p95", "max": "5s", "minSamples": 20},
            ],
        },
        **parts,
    }


@pytest.fixture(scope="session")
def cluster() -> ClusterInfo:
    """The running devcluster."""
    name = os.environ.get("CANARIUM_TEST_CLUSTER")
    if not name:
        pytest.skip(
            "needs a cluster: run `make e2e`, which brings one up and sets CANARIUM_TEST_CLUSTER"
        )
    found = subprocess.run(
        [sys.executable, "-m", "canarium_devcluster", "status", "--name", name, "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    info = json.loads(found.stdout)
    kubectl = Kubectl(info["kubeconfig"], info["kubectl"])
    kubectl.run("apply", "--server-side", "--force-conflicts", "-k", str(CRDS))
    for kind in ("modeldeployments", "analysistemplates", "clusteranalysistemplates"):
        kubectl.wait_established(f"{kind}.canarium.dev")
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": COPIES}})
    return ClusterInfo(
        name=name,
        kubectl=kubectl,
        gateway=info["gateway"].removeprefix("http://") + ":80",
        prometheus=info["prometheus"],
    )


@pytest.fixture(scope="session")
def operator_session(cluster: ClusterInfo) -> Iterator[OperatorProcess]:
    """One operator for all tests; it is restarted where a test killed it."""
    log = ROOT / "build" / "e2e" / "operator.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    operator = OperatorProcess(cluster, log)
    yield operator
    operator.stop()


@pytest.fixture
def operator(operator_session: OperatorProcess) -> OperatorProcess:
    """A running operator."""
    operator_session.start()
    return operator_session


@pytest.fixture
def world(cluster: ClusterInfo, operator: OperatorProcess) -> Iterator[World]:
    """An empty namespace with restricted pod security."""
    namespace = f"e2e-{os.getpid()}-{next(_numbers)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.kubectl.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}
    )
    yield World(cluster, operator, namespace)
    cluster.kubectl.run("delete", "namespace", namespace, "--wait=false")
