"""Starts and stops the node through the Go side, which owns all that happens on the machine."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from canarium_devcluster import binaries, images
from canarium_devcluster.cluster import Cluster, write_json
from canarium_devcluster.errors import DevclusterError

_STATE_OF_ETCD = ("etcd", "kubelet", "varlog")
_SECONDS = 60


def install(
    cluster: Cluster,
    groups: Mapping[str, Path],
    pause: images.Image,
    controller_flags: Sequence[str] = (),
) -> None:
    """Give the cluster its binaries, its configuration and its kubectl.

    Hard links keep the binaries when the cache drops them, without taking place twice.
    """
    cluster.bin.mkdir(exist_ok=True)
    for name in binaries.NODE_GROUPS:
        for binary in binaries.group(name).binaries:
            images.copy_or_link(groups[name] / binary, cluster.bin / binary)
    link = cluster.bin / "kubectl"
    link.unlink(missing_ok=True)
    link.symlink_to("devcluster")
    config = {**cluster.config(pause.name), "controllerManagerFlags": list(controller_flags)}
    write_json(cluster.config_file, config)
    write_json(_keys_file(cluster), _keys(groups))
    cluster.kubectl.write_text(
        "#!/bin/sh\n"
        f'KUBECONFIG="${{KUBECONFIG:-{cluster.kubeconfig}}}"; export KUBECONFIG\n'
        f'exec "{cluster.bin}/kubectl" "$@"\n'
    )
    cluster.kubectl.chmod(0o755)


def outdated(cluster: Cluster, groups: Mapping[str, Path]) -> bool:
    """Whether the running node was started from other binaries than ``groups``."""
    try:
        return bool(json.loads(_keys_file(cluster).read_text()) != _keys(groups))
    except (OSError, ValueError):
        return True


def _keys(groups: Mapping[str, Path]) -> dict[str, str]:
    return {name: groups[name].name for name in binaries.NODE_GROUPS}


def _keys_file(cluster: Cluster) -> Path:
    return cluster.directory / "binaries.json"


def start(cluster: Cluster) -> None:
    """Start PID 1 of the node; the components come up by themselves."""
    _devcluster(cluster, "start")


def stop(cluster: Cluster) -> None:
    """End the node and remove its traces from the machine; nothing happens when it is down."""
    if (cluster.bin / "devcluster").exists():
        _devcluster(cluster, "stop")


def wipe(cluster: Cluster) -> None:
    """Forget all that was in the cluster; images, addresses and certificates stay."""
    for name in _STATE_OF_ETCD:
        shutil.rmtree(cluster.directory / name, ignore_errors=True)


def purge(cluster: Cluster) -> None:
    """Remove the stopped cluster's directory."""
    shutil.rmtree(cluster.directory)


def _devcluster(cluster: Cluster, command: str) -> None:
    # A file, since the node inherits it: a pipe would never end.
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(
            [str(cluster.bin / "devcluster"), command, "--config", str(cluster.config_file)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            timeout=_SECONDS,
            check=False,
        )
        output.seek(0)
        text = output.read().decode(errors="replace")
    if done.returncode != 0:
        raise DevclusterError(
            f"The node of '{cluster.name}' could not {command}",
            f"read {cluster.logs / 'node.log'}",
            details=text,
        )
