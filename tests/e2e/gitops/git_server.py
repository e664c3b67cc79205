"""A real git server for tests: git's own `http-backend`, behind the few lines of HTTP and CGI that it needs.

It serves bare repositories of one folder on loopback, to everybody who asks, for reading and for pushing.
"""

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MAX_BODY_BYTES = 32 * 1024 * 1024
_IDENTITY = {
    "GIT_AUTHOR_NAME": "Alice",
    "GIT_AUTHOR_EMAIL": "alice@example.com",
    "GIT_COMMITTER_NAME": "Alice",
    "GIT_COMMITTER_EMAIL": "alice@example.com",
}


def git(*arguments: str, cwd: Path) -> bytes:
    """Run git without the settings of this machine and this user; a failure shows what it wrote."""
    done = subprocess.run(
        ["git", *arguments],
        cwd=cwd,
        capture_output=True,
        check=False,
        timeout=60,
        env={**_bare_environment(), **_IDENTITY},
    )
    if done.returncode != 0:
        msg = f"git {' '.join(arguments)}: {done.stderr.decode()}"
        raise AssertionError(msg)
    return done.stdout


def _bare_environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {
        **kept,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    root: Path

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path, _, query = self.path.partition("?")
        size = int(self.headers.get("Content-Length") or 0)
        if size > MAX_BODY_BYTES or self.headers.get("Transfer-Encoding"):
            self.send_error(413)
            return
        variables = {
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "REMOTE_ADDR": self.client_address[0],
            "CONTENT_LENGTH": str(size),
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        done = subprocess.run(
            ["git", "http-backend"],
            input=self.rfile.read(size),
            capture_output=True,
            check=False,
            timeout=60,
            env={**_bare_environment(), **variables},
        )
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if line)
        self.send_response(int(headers.pop("Status", "200 OK").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@contextmanager
def served(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve on a free port of loopback, and give the URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def git_server(root: Path) -> Iterator[str]:
    """Serve the bare repositories below a folder, and give the URL."""
    with served(type("Handler", (_Handler,), {"root": root})) as url:
        yield url


class Checkout:
    """A person's clone of a new repository on a server."""

    def __init__(self, root: Path, server: str, name: str, folder: Path) -> None:
        """Make a bare repository and clone it.

        Args:
            root: the server's folder.
            server: its URL.
            name: of the repository.
            folder: for the clone.
        """
        self.url = f"{server}/{name}.git"
        self.folder = folder
        git("init", "--quiet", "--bare", "--initial-branch=main", f"{name}.git", cwd=root)
        git("config", "http.receivepack", "true", cwd=root / f"{name}.git")
        folder.mkdir(parents=True)
        git("init", "--quiet", "--initial-branch=main", cwd=folder)
        git("remote", "add", "origin", self.url, cwd=folder)

    def push(self, message: str) -> str:
        """Commit all that changed, push it, and give the commit's id."""
        git("add", "--all", cwd=self.folder)
        git("commit", "--quiet", "--message", message, cwd=self.folder)
        return self._pushed()

    def revert(self, commit: str) -> str:
        """Revert a commit, push that, and give the new commit's id."""
        git("revert", "--no-edit", commit, cwd=self.folder)
        return self._pushed()

    def _pushed(self) -> str:
        # Bodies above postBuffer would come in chunks.
        options = ("-c", f"http.postBuffer={MAX_BODY_BYTES}")
        git(*options, "push", "--quiet", "origin", "main", cwd=self.folder)
        return git("rev-parse", "HEAD", cwd=self.folder).decode().strip()
