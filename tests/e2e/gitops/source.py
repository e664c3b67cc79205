"""What Flux's source-controller does, as far as these tests need it: a repository's content for Kustomizations.

It looks for new commits with git, over HTTP, offers the tree of the newest one as a tar.gz, and writes that into the
status of each GitRepository of that URL. No credentials, no signatures, no ignore rules, one branch.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from tests.e2e.gitops.git_server import git, served
from tests.e2e.kube import Kubectl

POLL_SECONDS = 0.5
KEEP = 4
"""Archives; Flux fetches the latest one alone."""
_KIND = "gitrepositories.source.toolkit.fluxcd.io"


class Source:
    """One repository."""

    def __init__(self, kubectl: Kubectl, url: str, mirror: Path) -> None:
        self._kubectl = kubectl
        self._url = url
        self._mirror = mirror
        self._archives: dict[str, bytes] = {}
        self._stop = threading.Event()
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
                heads = git("for-each-ref", "--format=%(objectname)", "refs/heads/main", cwd=mirror)
                if heads:
                    self._offer(heads.decode().strip(), address)
        except Exception as problem:
            self.problem = problem
            raise

    def stop(self) -> None:
        """End `run`."""
        self._stop.set()

    def _offer(self, commit: str, address: str) -> None:
        name = f"{commit}.tar.gz"
        if name not in self._archives:
            self._archives[name] = git("archive", "--format=tar.gz", commit, cwd=self._mirror)
            for old in list(self._archives)[:-KEEP]:
                del self._archives[old]
        revision = f"main@sha1:{commit}"
        listed = json.loads(self._kubectl.run("get", _KIND, "-A", "-o", "json"))["items"]
        for repository in listed:
            known = (repository.get("status") or {}).get("artifact") or {}
            meta = repository["metadata"]
            wanted = repository["spec"]["url"] == self._url and "deletionTimestamp" not in meta
            if wanted and known.get("revision") != revision:
                self._tell(repository, revision, f"{address}/{name}", self._archives[name])

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
        where = (meta["name"], "-n", meta["namespace"])
        patch = ("--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))
        # Not checked: it may have been deleted meanwhile, and if it is there the next look tries again.
        self._kubectl.run("patch", _KIND, *where, *patch, check=False)


@contextmanager
def source(kubectl: Kubectl, url: str, mirror: Path) -> Iterator[Source]:
    """Offer a repository's content to Flux."""
    offered = Source(kubectl, url, mirror)

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
