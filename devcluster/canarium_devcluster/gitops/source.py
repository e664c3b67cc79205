"""What Flux's source-controller does, as far as a cluster on this machine needs it: a repository's content for Flux.

It looks for new commits with git, over HTTP, offers the tree of the newest one as a tar.gz, and writes that into the
status of each GitRepository of that URL. No credentials, no signatures, no ignore rules, one branch.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Final, Protocol

from canarium_devcluster.gitops.git_server import git, served
from canarium_devcluster.kube import ApiError

POLL_SECONDS: Final = 0.5
KEEP: Final = 4
"""Archives; Flux fetches the latest one alone."""
BRANCH: Final = "main"
_GROUP: Final = "/apis/source.toolkit.fluxcd.io/v1"


class Api(Protocol):
    """What is needed of `kube.Api`."""

    def get(self, path: str) -> Any:
        """Read a JSON document."""

    def merge_status(self, path: str, status: dict[str, Any]) -> None:
        """Merge something into an object's status."""


class Source:
    """One repository."""

    def __init__(
        self,
        api: Api,
        url: str,
        mirror: Path,
        on_commit: Callable[[str, str], None] = lambda _commit, _subject: None,
    ) -> None:
        self._api = api
        self._url = url
        self._mirror = mirror
        self._on_commit = on_commit
        self._archives: dict[str, bytes] = {}
        self._stop = threading.Event()
        self.looked = threading.Event()
        """Set when the first look is over: from then on no GitRepository has an address that answers no more."""
        self.problem: Exception | None = None
        """What ended it."""

    def archive(self, name: str) -> bytes | None:
        """Give an archive by the name in its URL."""
        return self._archives.get(name)

    def run(self, address: str) -> None:
        """Look for commits and tell of them until stopped."""
        mirror = self._mirror
        try:
            git("clone", "--quiet", "--mirror", self._url, str(mirror), cwd=mirror.parent)
            while not self._stop.wait(POLL_SECONDS):
                git("fetch", "--quiet", "--prune", cwd=mirror)
                # The next look tries again what the API server did not take.
                with suppress(ApiError):
                    self._look(address)
                    self.looked.set()
        except Exception as problem:
            self.problem = problem
            raise
        finally:
            self.looked.set()

    def stop(self) -> None:
        """End `run`."""
        self._stop.set()

    def _look(self, address: str) -> None:
        told = "--format=%(objectname) %(contents:subject)"
        heads = git("for-each-ref", told, f"refs/heads/{BRANCH}", cwd=self._mirror)
        if heads:
            commit, _, subject = heads.decode(errors="replace").strip().partition(" ")
            self._offer(commit, subject, address)

    def _offer(self, commit: str, subject: str, address: str) -> None:
        name = f"{commit}.tar.gz"
        if name not in self._archives:
            self._archives[name] = git("archive", "--format=tar.gz", commit, cwd=self._mirror)
            for old in list(self._archives)[:-KEEP]:
                del self._archives[old]
            self._on_commit(commit, subject)
        revision, url = f"{BRANCH}@sha1:{commit}", f"{address}/{name}"
        for repository in self._api.get(f"{_GROUP}/gitrepositories")["items"]:
            known = (repository.get("status") or {}).get("artifact") or {}
            meta = repository["metadata"]
            mine = _plain(repository["spec"]["url"]) == _plain(self._url)
            if mine and "deletionTimestamp" not in meta and known.get("url") != url:
                self._tell(repository, revision, url, self._archives[name])

    def _tell(self, repository: dict[str, Any], revision: str, url: str, content: bytes) -> None:
        meta, now = repository["metadata"], datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        status = {
            "observedGeneration": meta["generation"],
            "artifact": {
                "path": url.rpartition("/")[2],
                "url": url,
                "revision": revision,
                "digest": f"sha256:{hashlib.sha256(content).hexdigest()}",
                "size": len(content),
                "lastUpdateTime": now,
            },
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True",
                    "reason": "Succeeded",
                    "message": f"stored artifact for revision '{revision}'",
                    "observedGeneration": meta["generation"],
                    "lastTransitionTime": now,
                }
            ],
        }
        path = f"{_GROUP}/namespaces/{meta['namespace']}/gitrepositories/{meta['name']}"
        self._api.merge_status(path, status)


def _plain(url: str) -> str:
    return url.removesuffix("/").removesuffix(".git")


@contextmanager
def source(
    api: Api,
    url: str,
    mirror: Path,
    on_commit: Callable[[str, str], None] = lambda _commit, _subject: None,
) -> Iterator[Source]:
    """Offer a repository's content to Flux.

    Args:
        api: of the cluster that Flux works for.
        url: of the repository, as GitRepositories name it.
        mirror: a folder for a copy of it, which is made.
        on_commit: told of each commit that is offered: its id, and the first line of its message.
    """
    offered = Source(api, url, mirror, on_commit)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = offered.archive(self.path.lstrip("/"))
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

    with served(Handler) as address:
        thread = threading.Thread(target=offered.run, args=(address,), name="source")
        thread.start()
        try:
            yield offered
        finally:
            offered.stop()
            thread.join(timeout=30)
