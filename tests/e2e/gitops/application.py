"""An environment of the example's repository in the hands of Argo CD, by the example's project and application."""

import json
from dataclasses import dataclass, field
from typing import Any

import yaml

from canarium_devcluster.gitops.argocd import NAMESPACE
from canarium_devcluster.gitops.argocd_processes import ArgoCd
from tests.e2e.conftest import COPIES
from tests.e2e.gitops.environment import EXAMPLE, Environment
from tests.e2e.gitops.witness import Seen, Witness
from tests.e2e.kube import Manifest

APPLICATION = "applications.argoproj.io"
PROJECT = "appprojects.argoproj.io"
MANAGER = "argocd-controller"
"""Argo CD's field manager."""


@dataclass
class Application(Environment):
    """An environment that Argo CD applies, in the namespace that the example names."""

    argocd: ArgoCd = field(kw_only=True)

    @property
    def application(self) -> str:
        """The Application's name."""
        return f"fraud-{self.environment}"

    def set_up(self) -> None:
        """Apply the example's project and application; the address of the repository alone is another one."""
        project = _read("project.yaml")
        project["spec"]["sourceRepos"] = [self.checkout.url]
        application = _read(f"applications/{self.environment}.yaml")
        application["spec"]["source"]["repoURL"] = self.checkout.url
        self.kubectl.apply(project, application)

    def patch_application(self, spec: dict[str, Any]) -> None:
        """Change its spec (RFC 7386)."""
        where = ("-n", NAMESPACE, "--type=merge", "--patch", json.dumps({"spec": spec}))
        self.kubectl.run("patch", APPLICATION, self.application, *where)

    def delete_application(self) -> None:
        """Delete it, and what it has deployed."""
        where = ("-n", NAMESPACE, "--ignore-not-found", "--timeout=60s")
        self.kubectl.run("delete", APPLICATION, self.application, *where, timeout=70)

    def take_down(self) -> None:
        """Leave nothing behind, so that the same names can be used again."""
        # One that goes on would hold the deletion up.
        self.argocd.run("app", "terminate-op", self.application)
        self.delete_application()
        self.kubectl.run("delete", PROJECT, "fraud", "-n", NAMESPACE, "--ignore-not-found")
        where = ("--ignore-not-found", "--timeout=90s")
        self.kubectl.run("delete", "namespace", self.namespace, *where, timeout=100)
        mine = f"canarium.dev/memory-of-namespace={self.namespace}"
        self.kubectl.run("delete", "configmaps", "-n", COPIES, "-l", mine)

    def watch_application(self) -> Witness:
        """Record the versions of the Application."""
        return Witness(self.kubectl, APPLICATION, self.application, NAMESPACE)

    def command(self, *words: str) -> str:
        """Run Argo CD's command line, and give what it says; it must succeed."""
        done = self.argocd.run(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def actions(self) -> set[str]:
        """Name the actions that Argo CD offers for the ModelDeployment now."""
        text = self.command(
            *("app", "actions", "list", self.application, "--kind", "ModelDeployment")
        )
        rows = [line.split() for line in text.splitlines()[1:]]
        return {row[3] for row in rows if row[4] == "false"}

    def act(self, action: str) -> None:
        """Run an action of the ModelDeployment, as its menu in the page does."""
        self.command(
            *("app", "actions", "run", self.application, action, "--kind", "ModelDeployment")
        )

    def tree(self) -> list[dict[str, Any]]:
        """List what the page shows: what is in git, and what is made of it."""
        nodes: list[dict[str, Any]] = self.argocd.get(
            f"applications/{self.application}/resource-tree"
        )["nodes"]
        return nodes

    def model_health(self) -> dict[str, str]:
        """Give the ModelDeployment's health as Argo CD shows it: status and message."""
        found: dict[str, str] = next(
            node["health"] for node in self.tree() if node["kind"] == "ModelDeployment"
        )
        return found


def _read(name: str) -> Manifest:
    manifest: Manifest = yaml.safe_load((EXAMPLE / "argocd" / name).read_text())
    return manifest


def sync_of(seen: Seen) -> tuple[str, str]:
    """Give the commit that was compared, and whether the cluster is as it says."""
    sync = seen.status.get("sync") or {}
    return sync.get("revision", ""), sync.get("status", "")


def health_of(seen: Seen) -> str:
    """Give the application's health."""
    word: str = (seen.status.get("health") or {}).get("status", "")
    return word


def applied(seen: Seen) -> list[str]:
    """List the commits of all that Argo CD has applied, oldest first, each time that it did."""
    return [entry["revision"] for entry in seen.status.get("history") or []]
