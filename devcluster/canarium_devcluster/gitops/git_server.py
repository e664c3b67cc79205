"""A real git server: git's own `http-backend`, behind the few lines of HTTP and CGI that it needs.

It serves bare repositories of one folder, on loopback unless told otherwise, to everybody who reaches it, for reading
and for pushing.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from canarium_devcluster.errors import DevclusterError

LOOPBACK: Final = "127.0.0.1"
MAX_BODY_BYTES = 64 * 1024 * 1024
GIT_SECONDS = 60.0
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class GitError(Exception):
    """git failed; the message is what it wrote."""


def git(*arguments: str, cwd: Path, env: Mapping[str, str] | None = None) -> bytes:
    """Run git without the settings of this machine and this user.

    Raises:
        GitError: it failed.
    """
    done = subprocess.run(
        ["git", *arguments],
        cwd=cwd,
        capture_output=True,
        check=False,
        timeout=GIT_SECONDS,
        env={**_bare_environment(), **(env or {})},
    )
    if done.returncode != 0:
        raise GitError(f"git {' '.join(arguments)}: {done.stderr.decode(errors='replace')}")
    return done.stdout


def _bare_environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {
        **kept,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
    }


def make_repository(root: Path, name: str) -> Path:
    """Make a bare repository that may be pushed to, unless it is there, and give its folder."""
    if not _NAME.fullmatch(name) or name.endswith(".git"):
        raise DevclusterError(
            f"'{name}' cannot name a repository",
            "use lower-case letters, digits, hyphens, dots and underscores, without `.git`",
        )
    folder = root / f"{name}.git"
    if not (folder / "HEAD").exists():
        git("init", "--quiet", "--bare", "--initial-branch=main", folder.name, cwd=root)
    git("config", "http.receivepack", "true", cwd=folder)
    return folder


class _TooLargeError(Exception):
    """A request's body is over the limit, or is not what its headers say."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    root: Path

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path, _, query = self.path.partition("?")
        try:
            content = self._body()
        except (_TooLargeError, ValueError):
            self.close_connection = True
            self.send_error(413, f"at most {MAX_BODY_BYTES} bytes")
            return
        variables = {
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "REMOTE_ADDR": self.client_address[0],
            "CONTENT_LENGTH": str(len(content)),
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        done = subprocess.run(
            ["git", "http-backend"],
            input=content,
            capture_output=True,
            check=False,
            timeout=GIT_SECONDS,
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

    def _body(self) -> bytes:
        """Read the body, which comes in chunks where a push is larger than git's `http.postBuffer`, 1 MiB."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            size = int(self.headers.get("Content-Length") or 0)
            if not 0 <= size <= MAX_BODY_BYTES:
                raise _TooLargeError
            return self.rfile.read(size)
        content = bytearray()
        while size := int(self.rfile.readline(64).partition(b";")[0], 16):
            if size < 0 or len(content) + size > MAX_BODY_BYTES:
                raise _TooLargeError
            content += self.rfile.read(size)
            self.rfile.readline(64)
        while self.rfile.readline(1024).strip():
            pass  # trailers
        return bytes(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@contextmanager
def served(
    handler: type[BaseHTTPRequestHandler], port: int = 0, address: str = LOOPBACK
) -> Iterator[str]:
    """Serve on an address of this machine, and give the URL; port 0 is any free one."""
    server = ThreadingHTTPServer((address, port), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://{address}:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def git_server(root: Path, port: int = 0, address: str = LOOPBACK) -> Iterator[str]:
    """Serve the bare repositories below a folder, and give the URL.

    Args:
        root: the folder.
        port: 0 is any free one.
        address: of this machine; another one than loopback is for what runs in a cluster's network.
    """
    with served(type("Handler", (_Handler,), {"root": root}), port, address) as url:
        yield url
