"""The git server and the source that the Flux tests rest on, without a cluster: they do what the real ones do."""

import hashlib
import http.client
import io
import tarfile
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.gitops.checkout import Checkout
from tests.e2e.kube import wait_for

from canarium_devcluster.errors import DevclusterError
from canarium_devcluster.gitops.git_server import MAX_BODY_BYTES, git, git_server, make_repository
from canarium_devcluster.gitops.source import source


@dataclass
class Repositories:
    """The API server, as far as the source uses it: GitRepositories by name."""

    url: str
    status: dict[str, dict[str, Any]] = field(default_factory=dict)

    def get(self, path: str) -> Any:
        assert path == "/apis/source.toolkit.fluxcd.io/v1/gitrepositories"
        urls = {"mine": self.url.removesuffix(".git"), "theirs": f"{self.url}/other"}
        items = [
            {
                "metadata": {"name": name, "namespace": "ml", "generation": 3},
                "spec": {"url": url},
                "status": self.status.get(name, {}),
            }
            for name, url in urls.items()
        ]
        return {"items": items}

    def merge_status(self, path: str, status: dict[str, Any]) -> None:
        self.status[path.rpartition("/")[2]] = status


@pytest.fixture
def checkout(tmp_path: Path):
    """A clone of a repository behind the server."""
    root = tmp_path / "server"
    root.mkdir()
    with git_server(root) as server:
        yield Checkout(root, server, "fraud", tmp_path / "checkout")


def test_what_is_pushed_can_be_cloned(checkout: Checkout, tmp_path: Path) -> None:
    """Also a file of 2 MiB, which git sends in chunks."""
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
    told: list[tuple[str, str]] = []
    offer = source(known, checkout.url, tmp_path / "mirror", lambda *words: told.append(words))
    with offer:
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
    assert [subject for _, subject in told] == ["first", "second"]


def test_a_new_start_offers_the_same_commit_at_its_own_address(
    checkout: Checkout, tmp_path: Path
) -> None:
    """The archive's old address answers no more, and Flux waits for it for minutes."""
    (checkout.folder / "a.yaml").write_text("version: 1\n")
    checkout.push("first")
    known = Repositories(checkout.url)
    urls = []
    for start in ("one", "two"):
        with source(known, checkout.url, tmp_path / start) as offered:
            assert offered.looked.wait(10)
            url = known.status["mine"]["artifact"]["url"]
            urllib.request.urlopen(url).close()
        urls.append(url)
    assert urls[0] != urls[1]


def test_a_body_beyond_the_bound_is_refused(checkout: Checkout) -> None:
    """Whether it says its size or comes in chunks, and nothing of it is kept."""
    host, _, port = checkout.url.removeprefix("http://").partition("/")[0].partition(":")
    for headers, body in (
        ({"Content-Length": str(MAX_BODY_BYTES + 1)}, b""),
        ({"Transfer-Encoding": "chunked"}, f"{MAX_BODY_BYTES + 1:x}\r\n".encode()),
        ({"Transfer-Encoding": "chunked"}, b"many\r\n"),
    ):
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
        connection.putrequest("POST", "/fraud.git/git-receive-pack")
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        connection.send(body)
        assert connection.getresponse().status == 413
        connection.close()


def test_a_repository_is_made_once_and_kept(checkout: Checkout, tmp_path: Path) -> None:
    """Its content is there when the server starts anew; a name that would leave the folder is refused."""
    (checkout.folder / "a").write_text("a")
    commit = checkout.push("first")
    folder = make_repository(tmp_path / "server", "fraud")
    assert git("rev-parse", "main", cwd=folder).decode().strip() == commit
    for name in ("../fraud", "", "fraud.git", "Fraud"):
        with pytest.raises(DevclusterError, match="cannot name a repository"):
            make_repository(tmp_path / "server", name)
