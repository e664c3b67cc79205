"""Pods that are not there: kwok says in the API server's name what a kubelet would, for a node that there is not.

Scheduler, controllers and API server are the real ones of the embedded cluster; so is every request of the operator.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from canarium_devcluster import go_modules
from canarium_devcluster.workshop import Workshop

MODULE: Final = go_modules.Module(
    path="sigs.k8s.io/kwok",
    version="v0.8.0",
    sum="h1:OTIOTwgROqPMovcTwxICx2eYQ4AwLpSx5EpjbDKF4SQ=",
)
NODE: Final = "fake"


def binary(workshop: Workshop) -> Path:
    """Build kwok, once."""
    folder = workshop.builder.ensure_module(
        "bin-kwok", MODULE, package="./cmd/kwok", title=f"kwok {MODULE.version}"
    )
    return folder / "kwok"


@contextmanager
def running(workshop: Workshop, kubeconfig: Path, log: Path) -> Iterator[int]:
    """Run kwok beside the cluster, for the node NODE alone; gives its process id."""
    folder = go_modules.fetch(MODULE).folder / "kustomize" / "stage"
    kinds = ("pod/fast", "node/fast", "node/heartbeat-with-lease")
    stages = [stage for kind in kinds for stage in sorted((folder / kind).glob("*.yaml"))]
    config = log.with_suffix(".stages.yaml")
    config.write_text(
        "\n---\n".join(s.read_text() for s in stages if s.name != "kustomization.yaml")
    )
    command = [
        str(binary(workshop)),
        f"--kubeconfig={kubeconfig}",
        f"--config={config}",
        "--manage-nodes-with-label-selector=type=kwok",
        "--cidr=10.128.0.0/12",
        "--node-ip=10.127.0.1",
        "--node-lease-duration-seconds=40",
        "--server-address=",
    ]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield process.pid
        finally:
            process.terminate()
            process.wait(timeout=20)


def node() -> dict[str, object]:
    """Make the node; nothing but what tolerates it gets there."""
    size = {"cpu": "10000", "memory": "100000Gi", "pods": "20000"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": NODE,
            "labels": {"type": "kwok", "kubernetes.io/hostname": NODE},
            "annotations": {"kwok.x-k8s.io/node": "fake"},
        },
        "spec": {
            "podCIDR": "10.128.0.0/12",
            "taints": [{"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}],
        },
        "status": {"allocatable": size, "capacity": size},
    }
