"""One cluster on disk: its name, its directory, its addresses, and whether it runs.

The directory keeps the slot for as long as it exists, because certificates and stored Services
name its addresses; ``down --purge`` gives it back.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from canarium_devcluster import addresses
from canarium_devcluster.errors import DevclusterError

DEFAULT_NAME = "canarium"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,29}[a-z0-9]|[a-z]")
_INTERFACE_CHARACTERS = 15  # the kernel's limit
_SOCKET_PATH_CHARACTERS = 107  # the kernel's limit
_LOCK_PATIENCE_SECONDS = 600.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cluster:
    """Names and paths of one cluster."""

    name: str
    directory: Path
    slot: int

    @property
    def addresses(self) -> addresses.Addresses:
        """What the slot stands for."""
        return addresses.Addresses(self.slot)

    @property
    def config_file(self) -> Path:
        """What the node reads."""
        return self.directory / "cluster.json"

    @property
    def bin(self) -> Path:
        """The binaries that this cluster runs, apart from the cache, which may be pruned."""
        return self.directory / "bin"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.directory / "kubeconfig"

    @property
    def kubectl(self) -> Path:
        """A kubectl that uses this cluster unless KUBECONFIG says otherwise."""
        return self.directory / "kubectl"

    @property
    def logs(self) -> Path:
        """One file for each component."""
        return self.directory / "logs"

    @property
    def containerd_socket(self) -> Path:
        """Reachable from the machine: paths of sockets are not bound to a namespace."""
        return self.directory / "containerd" / "containerd.sock"

    @property
    def host_interface(self) -> str:
        """The machine's end of the veth pair; long names are shortened by a hash."""
        plain = f"cn-{self.name}"
        if len(plain) <= _INTERFACE_CHARACTERS:
            return plain
        return f"cn-{self.name[:5]}-{hashlib.sha256(self.name.encode()).hexdigest()[:6]}"

    @property
    def cgroup(self) -> str:
        """The cluster's cgroup in every hierarchy."""
        return f"/canarium-{self.name}"

    @property
    def node_name(self) -> str:
        """The Kubernetes node."""
        return f"{self.name}-node"

    def config(self, pause_image: str) -> dict[str, Any]:
        """What the Go side needs to know, see devcluster/internal/config."""
        a = self.addresses
        return {
            "name": self.name,
            "stateDir": str(self.directory),
            "binDir": str(self.bin),
            "nodeName": self.node_name,
            "hostInterface": self.host_interface,
            "cgroup": self.cgroup,
            "slot": self.slot,
            "hostIP": a.host_ip,
            "nodeIP": a.node_ip,
            "linkPrefix": addresses.LINK_PREFIX,
            "podCIDR": str(a.pods),
            "serviceCIDR": str(a.services),
            "apiServiceIP": a.api_service_ip,
            "dnsIP": a.dns_ip,
            "pauseImage": pause_image,
        }

    def node(self) -> tuple[int, float] | None:
        """The pid of the node's PID 1 on the machine and its start time, when it runs."""
        record = self.directory / "run" / "node.json"
        try:
            known = json.loads(record.read_text())
            stat = Path(f"/proc/{known['pid']}/stat").read_text()
            started = record.stat().st_mtime
        except (OSError, ValueError):
            return None
        fields = stat.rpartition(") ")[2].split()
        if fields[0] == "Z" or fields[19] != known["startTime"]:
            return None
        return int(known["pid"]), started

    def components(self) -> dict[str, dict[str, Any]]:
        """The supervisor's status file; empty when there is none."""
        try:
            found = json.loads((self.directory / "run" / "status.json").read_text())
        except (OSError, ValueError):
            return {}
        return dict(found["components"])


def existing(state: Path) -> dict[str, Cluster]:
    """All clusters that have a directory."""
    found = {}
    for config in sorted(state.glob("*/cluster.json")):
        known = json.loads(config.read_text())
        found[known["name"]] = Cluster(
            name=known["name"], directory=config.parent, slot=known["slot"]
        )
    return found


def open_or_create(state: Path, name: str) -> Cluster:
    """The cluster of that name; a new one takes the first free slot."""
    if not _NAME.fullmatch(name):
        raise DevclusterError(
            f"'{name}' cannot name a cluster",
            "use up to 31 lower-case letters, digits and hyphens, a letter first",
        )
    state.mkdir(parents=True, exist_ok=True)
    with locked(state / ".slots.lock"):
        known = existing(state)
        if name in known:
            return known[name]
        taken = {c.slot for c in known.values()}
        slot = addresses.pick_slot(taken, addresses.machine_routes())
        cluster = Cluster(name=name, directory=state / name, slot=slot)
        if len(f"{cluster.containerd_socket}.ttrpc") > _SOCKET_PATH_CHARACTERS:
            raise DevclusterError(
                f"The path {cluster.directory} is too long for sockets",
                "set CANARIUM_STATE_DIR to a shorter one",
            )
        cluster.directory.mkdir(exist_ok=True)
        cluster.directory.chmod(0o700)  # keys and Secrets are below
        write_json(cluster.config_file, cluster.config(pause_image="none"))
        return cluster


def get(state: Path, name: str) -> Cluster:
    """The cluster of that name, which must exist."""
    known = existing(state)
    if name not in known:
        raise DevclusterError(
            f"There is no cluster '{name}'", f"start it with `canarium cluster up --name {name}`"
        )
    return known[name]


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file in one step."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    temporary.replace(path)


@contextlib.contextmanager
def locked(path: Path, patience_seconds: float = _LOCK_PATIENCE_SECONDS) -> Iterator[None]:
    """Hold a file lock, so that two commands do not work on the same thing at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        deadline = time.monotonic() + patience_seconds
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise DevclusterError(
                        "Another command has been working on this for a long time",
                        f"wait for it, or end the process that holds {path}",
                    ) from None
                time.sleep(0.1)
        yield
