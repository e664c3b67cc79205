"""`canarium cluster gitops` as a user runs it: a repository that is pushed to, and Flux that applies it."""

import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from canarium_devcluster.gitops.git_server import git
from tests.e2e.conftest import ClusterInfo, free_port
from tests.e2e.kube import Kubectl, Manifest, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.flux, pytest.mark.timeout(240)]

ME = {
    "GIT_AUTHOR_NAME": "Alice",
    "GIT_AUTHOR_EMAIL": "alice@example.com",
    "GIT_COMMITTER_NAME": "Alice",
    "GIT_COMMITTER_EMAIL": "alice@example.com",
}


class Session:
    """The running command."""

    def __init__(self, cluster: ClusterInfo, name: str, port: int, log: Path) -> None:
        words = ("gitops", name, "--port", str(port), "--name", cluster.name)
        self._log = log
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "canarium_devcluster", *words],
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def said(self) -> str:
        return self._log.read_text()

    def wait_said(self, words: str) -> None:
        wait_for(f"{words!r} in {self.said()!r}", lambda: words in self.said(), 90)

    def children(self) -> list[str]:
        """Give the ids of the processes that it has started."""
        ours = ["pgrep", "--parent", str(self.process.pid)]
        return subprocess.run(ours, check=True, capture_output=True, text=True).stdout.split()

    def interrupt(self) -> int:
        """Press Ctrl-C, and give the exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=90)


@pytest.fixture
def namespace(cluster: ClusterInfo) -> Iterator[str]:
    name = f"e2e-gitops-{uuid.uuid4().hex[:6]}"
    cluster.kubectl.run("create", "namespace", name)
    yield name
    cluster.kubectl.run("delete", "namespace", name, "--wait=false")


def set_up(kubectl: Kubectl, namespace: str, url: str) -> None:
    """Have Flux apply a repository into a namespace, with the rights that it needs there."""
    kubectl.run("create", "serviceaccount", "flux", "-n", namespace)
    rights = ("--clusterrole=edit", f"--serviceaccount={namespace}:flux")
    kubectl.run("create", "rolebinding", "flux", "-n", namespace, *rights)
    where = {"name": "settings", "namespace": namespace}
    repository: Manifest = {
        "apiVersion": "source.toolkit.fluxcd.io/v1",
        "kind": "GitRepository",
        "metadata": where,
        "spec": {"url": url, "ref": {"branch": "main"}, "interval": "1m"},
    }
    applied: Manifest = {
        "apiVersion": "kustomize.toolkit.fluxcd.io/v1",
        "kind": "Kustomization",
        "metadata": where,
        "spec": {
            "serviceAccountName": "flux",
            "sourceRef": {"kind": "GitRepository", "name": "settings"},
            "path": "./",
            "prune": True,
            "interval": "1m",
        },
    }
    kubectl.apply(repository, applied)


def push(folder: Path, namespace: str, value: str) -> None:
    """Commit a ConfigMap with a value, and push it."""
    lines = f"metadata: {{name: mine, namespace: {namespace}}}\ndata: {{value: {value}}}\n"
    (folder / "mine.yaml").write_text(f"apiVersion: v1\nkind: ConfigMap\n{lines}")
    git("add", "--all", cwd=folder)
    git("commit", "--quiet", "--message", f"Value {value}", cwd=folder, env=ME)
    git("push", "--quiet", "origin", "main", cwd=folder)


def test_what_is_pushed_is_applied_until_ctrl_c_and_again_after_a_new_start(
    cluster: ClusterInfo, namespace: str, tmp_path: Path
) -> None:
    """A second session for the same cluster is refused; the repository outlives the first."""
    name, port = namespace, free_port()
    url = f"http://127.0.0.1:{port}/{name}.git"
    session = Session(cluster, name, port, tmp_path / "first.log")
    try:
        session.wait_said("Ctrl-C ends this")
        second = Session(cluster, "other", free_port(), tmp_path / "second.log")
        assert second.process.wait(timeout=60) == 1
        assert "runs already" in second.said()

        folder = tmp_path / "clone"
        git("clone", "--quiet", url, str(folder), cwd=tmp_path)
        git("checkout", "-B", "main", cwd=folder)
        set_up(cluster.kubectl, namespace, url)

        def has(value: str) -> bool:
            found = cluster.kubectl.get("configmap", "mine", namespace)
            return found is not None and found["data"] == {"value": value}

        push(folder, namespace, "one")
        wait_for("the first commit applied", lambda: has("one"), 60)
        session.wait_said("Value one")
        assert session.interrupt() == 0
        assert "Flux has ended" in session.said()

        session = Session(cluster, name, port, tmp_path / "third.log")
        session.wait_said("Ctrl-C ends this")
        push(folder, namespace, "two")
        wait_for("the second commit applied", lambda: has("two"), 60)
        # A Kustomization waits for Flux to take its objects away.
        cluster.kubectl.run("delete", "kustomization", "settings", "-n", namespace, "--timeout=60s")
        assert cluster.kubectl.get("configmap", "mine", namespace) is None
        children = session.children()
        assert session.interrupt() == 0
        assert [child for child in children if Path(f"/proc/{child}").exists()] == []
    finally:
        session.interrupt()
