"""Argo CD's parts as processes of this machine, beside a cluster and in its network.

They run in the node's network namespace, where nobody else's ports are, so that all have the ports that they are known
by; the application-controller would answer on every address of the machine otherwise, and cannot be told not to. From
outside they are reached by the node's address, as the API server is. What nobody else needs listens on loopback there.

What an installation has and this has not: TLS between the parts, a sign-in, dex, and an ApplicationSet controller. Pods
of the cluster reach argocd-server, which lets everybody do everything: it is for tests alone.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from canarium_devcluster.cluster import Cluster
from canarium_devcluster.errors import DevclusterError
from canarium_devcluster.gitops.argocd import NAMESPACE, Programs
from canarium_devcluster.gitops.part import Part

LOOK_SECONDS: Final = 5
"""How often the controller looks for commits; 120 and up to 60 more by default, or at once by a webhook."""
COMMAND_SECONDS: Final = 150.0
_PARTS: Final = ("argocd-application-controller", "argocd-repo-server", "argocd-server")
_REDIS: Final = "127.0.0.1:6379"
_REPO_SERVER: Final = "127.0.0.1:8081"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArgoCd:
    """The running parts."""

    controller: Part
    address: str
    """Of argocd-server, `host:port`; HTTP without a sign-in."""
    folder: Path
    environment: Mapping[str, str]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run Argo CD's command line to its end, and give what it wrote."""
        return subprocess.run(
            [self.folder / "bin" / "argocd", *words, "--server", self.address, "--plaintext"],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_SECONDS,
        )

    def get(self, path: str) -> Any:
        """Read a JSON document of argocd-server's API."""
        with urllib.request.urlopen(f"http://{self.address}/api/v1/{path}", timeout=10) as told:
            return json.load(told)


@contextmanager
def argocd(mine: Cluster, programs: Programs, folder: Path) -> Iterator[ArgoCd]:
    """Run Argo CD for a cluster, from when all parts work.

    Its CRDs, settings and namespace must be there (`argocd.crds`, `argocd.settings`).

    Args:
        mine: the cluster, which must run.
        programs: as built.
        folder: a new one, for logs and for what the parts keep.

    Raises:
        DevclusterError: a program is missing, or a part has ended or did not work in a minute.
    """
    node = mine.node()
    if node is None:
        raise DevclusterError(f"The cluster '{mine.name}' does not run")
    tools = {
        **dict.fromkeys(("argocd", *_PARTS), programs.argocd),
        "kustomize": programs.kustomize,
        programs.verify.name: programs.verify,
        "redis-server": _tool("redis-server", "redis-server"),
    }
    inside = (str(_tool("nsenter", "util-linux")), f"--net=/proc/{node[0]}/ns/net", "--")
    host = mine.addresses.node_ip
    environment = _environment(mine, tools, folder)

    def part(name: str, *words: str, health: str = "", says: str = "") -> Part:
        return Part(
            name=name,
            command=[*inside, str(folder / "bin" / name), *words],
            environment=environment,
            log=folder / f"{name}.log",
            health=health and f"{host}:{health}",
            says=says,
        )

    ours = ("--redis", _REDIS)
    asks = (*ours, "--repo-server", _REPO_SERVER, "--repo-server-plaintext")
    knows = ("--kubeconfig", str(mine.kubeconfig), "--namespace", NAMESPACE)
    controller = part(
        "argocd-application-controller",
        *(*knows, *asks),
        health="8082/healthz",
    )
    parts = [
        part(
            "redis-server",
            *("--bind", "127.0.0.1", "--save", "", "--dir", str(folder)),
            says="Ready to accept connections",
        ),
        part(
            "argocd-repo-server",
            *(*ours, "--address", "127.0.0.1", "--metrics-address", host),
            *("--disable-tls", "--client-ca-path="),
            health="8084/healthz?full=true",
        ),
        controller,
        part(
            "argocd-server",
            # It asks itself by localhost, so it listens on all addresses of the node.
            *(*knows, *asks, "--address", "0.0.0.0", "--metrics-address", host),  # noqa: S104
            *("--insecure", "--disable-auth"),
            health="8080/healthz",
        ),
    ]
    with ExitStack() as running:
        for each in parts:
            running.callback(each.stop)
            each.start()
        yield ArgoCd(
            controller=controller,
            address=f"{host}:8080",
            folder=folder,
            environment=environment,
        )


def _tool(name: str, package: str) -> Path:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin")
    if found is None:
        raise DevclusterError(f"{name} is not installed", f"apt-get install {package}")
    return Path(found)


def _environment(mine: Cluster, tools: Mapping[str, Path], folder: Path) -> dict[str, str]:
    """Nothing of the user's own but the PATH; where an image of Argo CD has /app, a folder."""
    places = {name: folder / name.lower() for name in ("HOME", "TMPDIR")}
    for kind in ("TLS", "SSH"):
        places[f"ARGOCD_{kind}_DATA_PATH"] = folder / kind.lower()
    places["ARGOCD_PLUGINSOCKFILEPATH"] = folder / "plugins"
    for place in (*places.values(), folder / "bin"):
        place.mkdir(parents=True)
    (folder / "ssh" / "ssh_known_hosts").touch()
    for name, program in tools.items():
        (folder / "bin" / name).symlink_to(program)
    return {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "KUBECONFIG": str(mine.kubeconfig),
        # The cluster of KUBECONFIG is the one that applications name https://kubernetes.default.svc.
        "ARGOCD_FAKE_IN_CLUSTER": "true",
        "ARGOCD_GPG_ENABLED": "false",
        # What `timeout.reconciliation` in argocd-cm becomes, for the controller's looks and the repo-server's memory.
        "ARGOCD_RECONCILIATION_TIMEOUT": f"{LOOK_SECONDS}s",
        "ARGOCD_RECONCILIATION_JITTER": "0s",
        # No name server can be reached from the node's network, and none is needed but for this.
        "GRPC_ENABLE_TXT_SERVICE_CONFIG": "false",
        "ARGOCD_ASK_PASS_SOCK": str(folder / "ask-pass.sock"),
        **{name: str(place) for name, place in places.items()},
    }
