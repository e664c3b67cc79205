"""The git server and the source that the Flux tests rest on, without a cluster: they do what the real ones do."""

import hashlib
import io
import json
import tarfile
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.gitops.git_server import Checkout, git, git_server
from tests.e2e.gitops.source import source
from tests.e2e.kube import wait_for


@dataclass
class Repositories:
    """kubectl, as far as the source uses it: GitRepositories by name."""

    url: str
    status: dict[str, dict[str, Any]] = field(default_factory=dict)

    def run(self, *words: str, check: bool = True) -> str:
        if words[0] == "patch":
            self.status[words[2]] = json.loads(words[-1])["status"]
            return ""
        urls = {"mine": self.url, "theirs": f"{self.url}/other"}
        items = [
            {
                "metadata": {"name": name, "namespace": "ml", "generation": 3},
                "spec": {"url": url},
                "status": self.status.get(name, {}),
            }
            for name, url in urls.items()
        ]
        return json.dumps({"items": items})


@pytest.fixture
def checkout(tmp_path: Path):
    """A clone of a repository behind the server."""
    root = tmp_path / "server"
    root.mkdir()
    with git_server(root) as server:
        yield Checkout(root, server, "fraud", tmp_path / "checkout")


def test_what_is_pushed_can_be_cloned(checkout: Checkout, tmp_path: Path) -> None:
    """Also a file of 2 MiB, which git would send in chunks."""
    (checkout.folder / "large").write_bytes(bytes(range(256)) * 8192)
    commit = checkout.push("first")
    git("clone", "--quiet", checkout.url, "copy", cwd=tmp_path)
    assert git("rev-parse", "HEAD", cwd=tmp_path / "copy").decode().strip() == commit
    assert (tmp_path / "copy" / "large").stat().st_size == 2 * 1024 * 1024


def test_each_new_commit_is_offered_as_an_archive_to_those_who_name_the_repository(
    checkout: Checkout, tmp_path: Path
) -> None:
    """Its revision, digest and content are the commit's; others' GitRepositories are left alone."""
    (checkout.folder / "a.yaml").write_text("version: 1\n")
    checkout.push("first")
    known = Repositories(checkout.url)
    with source(known, checkout.url, tmp_path / "mirror"):  # type: ignore[arg-type]
        wait_for("the first commit", lambda: "mine" in known.status, 10)
        (checkout.folder / "a.yaml").write_text("version: 2\n")
        commit = checkout.push("second")
        revision = f"main@sha1:{commit}"
        wait_for("it", lambda: known.status["mine"]["artifact"]["revision"] == revision, 10)
        artifact = known.status["mine"]["artifact"]
        with urllib.request.urlopen(artifact["url"]) as answer:
            content = answer.read()
    assert known.status["mine"]["observedGeneration"] == 3
    assert f"sha256:{hashlib.sha256(content).hexdigest()}" == artifact["digest"]
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        found = tar.extractfile("a.yaml")
        assert found is not None
        assert found.read() == b"version: 2\n"
    assert list(known.status) == ["mine"]
