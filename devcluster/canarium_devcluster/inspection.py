"""Looks at a running cluster from the machine: components, memory, logs."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from canarium_devcluster import kube
from canarium_devcluster.cluster import Cluster
from canarium_devcluster.errors import DevclusterError

_FOLLOW_SECONDS = 0.3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Status:
    """What ``canarium cluster status`` shows."""

    cluster: Cluster
    pid: int | None
    components: dict[str, dict[str, Any]]
    api_ready: bool
    pods: list[tuple[str, str, bool]]  # namespace, name, ready

    @property
    def healthy(self) -> bool:
        """Whether everything runs and every pod is ready."""
        running = all(c["state"] == "running" for c in self.components.values())
        return bool(self.components) and self.api_ready and running and all(p[2] for p in self.pods)


def status(cluster: Cluster) -> Status:
    """Ask the supervisor's status file and the API server."""
    node = cluster.node()
    pods: list[tuple[str, str, bool]] = []
    ready = False
    if node is not None and cluster.kubeconfig.exists():
        api = kube.Api(cluster.kubeconfig)
        ready = api.ready()
        if ready:
            pods = [_pod(p) for p in api.get("/api/v1/pods")["items"] if _counts(p)]
    return Status(
        cluster=cluster,
        pid=node[0] if node else None,
        components=cluster.components() if node else {},
        api_ready=ready,
        pods=pods,
    )


def _counts(pod: dict[str, Any]) -> bool:
    finished = pod.get("status", {}).get("phase") in {"Succeeded", "Failed"}
    return not finished and not pod["metadata"].get("deletionTimestamp")


def _pod(pod: dict[str, Any]) -> tuple[str, str, bool]:
    ready = kube.condition(pod, "Ready").get("status") == "True"
    return pod["metadata"]["namespace"], pod["metadata"]["name"], ready


def processes(node_pid: int) -> Iterator[tuple[int, int]]:
    """Pids on the machine and inside the node, of all processes of the node and its pods."""
    for status_file in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status_file.read_text()
        except OSError:
            continue  # it ended meanwhile
        chain = next((line.split()[1:] for line in text.splitlines() if line[:5] == "NSpid"), [])
        pid = int(status_file.parent.name)
        # The node's PID namespace is the second level; pods have a third of their own.
        if len(chain) >= 2 and (pid == node_pid or _descends(pid, node_pid)):
            yield pid, int(chain[1])


def _descends(pid: int, ancestor: int) -> bool:
    while pid > 1:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return False
        pid = int(stat.rpartition(") ")[2].split()[1])
        if pid == ancestor:
            return True
    return False


def memory_bytes(node_pid: int) -> dict[str, int]:
    """Proportional memory (PSS) by program; shared pages are counted once."""
    found: dict[str, int] = {}
    for pid, _inside in processes(node_pid):
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        line = next((text for text in rollup.splitlines() if text.startswith("Pss:")), "Pss: 0 kB")
        name = arguments[0].decode().rpartition("/")[2]
        if name == "devcluster" and len(arguments) > 1:
            name = arguments[1].decode()
        found[name] = found.get(name, 0) + int(line.split()[1]) * 1024
    return found


def log_file(cluster: Cluster, component: str) -> Path:
    """The log of a component."""
    path = cluster.logs / f"{component}.log"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in cluster.logs.glob("*.log")))
        raise DevclusterError(f"There is no log of '{component}'", f"there are: {known or 'none'}")
    return path


def last_lines(path: Path, count: int) -> list[str]:
    """The end of a log."""
    with path.open(errors="replace") as lines:
        return list(deque(lines, maxlen=count))


def follow(path: Path) -> Iterator[str]:
    """New lines as they come, over rotations of the file."""
    handle = path.open(errors="replace")
    handle.seek(0, 2)
    while True:
        line = handle.readline()
        if line:
            yield line
            continue
        try:
            rotated = path.stat().st_ino != Path(f"/proc/self/fd/{handle.fileno()}").stat().st_ino
        except OSError:
            rotated = False
        if rotated:
            handle.close()
            handle = path.open(errors="replace")
        else:
            time.sleep(_FOLLOW_SECONDS)
