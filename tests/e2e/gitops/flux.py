"""Flux's kustomize-controller as a process of this machine, set up as its documentation asks for several tenants."""

import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.kube import Kubectl, wait_for

FLAGS = (
    "--log-level=info",
    "--log-encoding=json",
    "--no-cross-namespace-refs=true",
    "--no-remote-bases=true",
    "--default-service-account=default",
    "--requeue-dependency=1s",
    # Else a commit that comes while health is waited for is applied when that wait is over.
    "--feature-gates=CancelHealthCheckOnNewRevision=true",
)


@dataclass(frozen=True)
class Controller:
    """The running controller."""

    process: subprocess.Popen[bytes]
    log: Path

    def applied(self, namespace: str) -> list[dict[str, str]]:
        """List what each apply in a namespace did, oldest first: object to created, configured or unchanged."""
        entries = (
            json.loads(line) for line in self.log.read_text().splitlines() if line[:1] == "{"
        )
        return [
            entry["output"]
            for entry in entries
            if entry["msg"] == "server-side apply completed" and entry["namespace"] == namespace
        ]


@contextmanager
def controller(kubectl: Kubectl, binary: Path, log: Path, health_port: int) -> Iterator[Controller]:
    """Run the controller for all namespaces."""
    addresses = (f"--health-addr=127.0.0.1:{health_port}", "--metrics-addr=0", "--events-addr=")
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(binary), *FLAGS, *addresses],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "KUBECONFIG": kubectl.kubeconfig,
                "RUNTIME_NAMESPACE": "flux-system",
            },
        )

    def ready() -> bool:
        assert process.poll() is None, f"kustomize-controller ended, see {log}"
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{health_port}/readyz", timeout=2
            ) as told:
                return bool(told.status == 200)
        except OSError:
            return False

    try:
        wait_for("kustomize-controller", ready, 60)
        yield Controller(process, log)
    finally:
        process.terminate()
        process.wait(timeout=70)


def install_crds(kubectl: Kubectl, crds: list[dict[str, Any]]) -> None:
    """Install what the controller watches, and wait until it is served."""
    kubectl.apply(*crds)
    for crd in crds:
        kubectl.wait_established(crd["metadata"]["name"])
