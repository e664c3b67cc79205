"""Flux's kustomize-controller as a process of this machine, set up as its documentation asks for several tenants."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from canarium_devcluster.gitops.part import Part
from canarium_devcluster.kube import Api, apply_all, condition, wait_for

FLAGS: Final = (
    "--log-level=info",
    "--log-encoding=json",
    "--no-cross-namespace-refs=true",
    "--no-remote-bases=true",
    "--default-service-account=default",
    "--requeue-dependency=1s",
    # Else a commit that comes while health is waited for is applied when that wait is over.
    "--feature-gates=CancelHealthCheckOnNewRevision=true",
)
STOP_SECONDS: Final = 70.0
_CRDS: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@dataclass(frozen=True)
class Controller:
    """The running controller."""

    part: Part

    def applied(self, namespace: str) -> list[dict[str, str]]:
        """List what each apply in a namespace did, oldest first: object to created, configured or unchanged."""
        entries = (
            json.loads(line) for line in self.part.log.read_text().splitlines() if line[:1] == "{"
        )
        return [
            entry["output"]
            for entry in entries
            if entry["msg"] == "server-side apply completed" and entry["namespace"] == namespace
        ]


@contextmanager
def controller(kubeconfig: Path, binary: Path, log: Path) -> Iterator[Controller]:
    """Run the controller for all namespaces, from when it is ready.

    Raises:
        DevclusterError: it has ended, or was not ready in a minute.
    """
    health = f"127.0.0.1:{_free_port()}"
    log.unlink(missing_ok=True)  # `applied` tells of this run alone
    part = Part(
        name="Flux's kustomize-controller",
        command=[
            *(str(binary), *FLAGS),
            *(f"--health-addr={health}", "--metrics-addr=0", "--events-addr="),
        ],
        environment={
            **os.environ,
            "KUBECONFIG": str(kubeconfig),
            "RUNTIME_NAMESPACE": "flux-system",
        },
        log=log,
        health=f"{health}/readyz",
        stop_seconds=STOP_SECONDS,
    )
    try:
        part.start()
        yield Controller(part)
    finally:
        part.stop()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def install_crds(api: Api, crds: Sequence[dict[str, Any]]) -> None:
    """Install what the controller watches, and wait until it is served."""
    apply_all(api, crds)

    for crd in crds:
        name = crd["metadata"]["name"]

        def lacking(name: str = name) -> str | None:
            found = condition(api.get(f"{_CRDS}/{name}"), "Established")
            return None if found.get("status") == "True" else "not established"

        wait_for(f"The kind of {name}", lacking, seconds=30)
