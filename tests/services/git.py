"""Git servers on loopback: a bare repository on disk, behind `git http-backend` with TLS and a password, or sshd."""

import base64
import getpass
import os
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import trustme

from .processes import Service, accepts, free_port, program

USER, PASSWORD = "robot", "hunter2"
_BLOCK = 65536


class Repository:
    """A bare repository, and a working copy through which other people push."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "models.git"
        self._work = folder / "work"
        _git(folder, "init", "-q", "--bare", "-b", "main", str(self.path))
        # What a push may do is the server's own business; http-backend asks for leave.
        _git(self.path, "config", "http.receivepack", "true")
        _git(folder, "clone", "-q", str(self.path), str(self._work))
        _git(self._work, "checkout", "-q", "-b", "main")

    def push(self, files: dict[str, str], message: str) -> str:
        """Have somebody else push a commit; gives its name."""
        git = self._work
        if _git(self.path, "branch", "--list", "main"):
            _git(git, "fetch", "-q", "origin", "main")
            _git(git, "reset", "-q", "--hard", "FETCH_HEAD")
        for name, text in files.items():
            (git / name).parent.mkdir(parents=True, exist_ok=True)
            (git / name).write_text(text, encoding="utf-8")
        _git(git, "add", ".")
        _git(git, "commit", "-q", "--allow-empty", "-m", message)
        _git(git, "push", "-q", "origin", "HEAD:main")
        return _git(git, "rev-parse", "HEAD")

    def git(self, *arguments: str) -> str:
        """Ask the repository itself."""
        return _git(self.path, *arguments)

    def messages(self, branch: str = "main") -> list[str]:
        """Give the messages of all commits, latest first."""
        return [part for part in self.git("log", "--format=%B%x00", branch).split("\0\n") if part]

    def outcomes(self, *branches: str) -> list[str]:
        """Give the trailers of all commits of all branches, or of some."""
        where = branches or ("--all",)
        found = self.git(
            "log", "--format=%(trailers:key=Canarium-Outcome,valueonly,separator=%x2C)", *where
        )
        return [line for line in found.splitlines() if line]

    def file(self, path: str, branch: str = "main") -> str | None:
        """Give a file as it is now; None: there is none."""
        if not self.git("ls-tree", "--name-only", branch, path):
            return None
        return _git(self.path, "show", f"{branch}:{path}", strip=False)

    def hook(self, name: str, script: str) -> None:
        """Put a hook in place."""
        path = self.path / "hooks" / name
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(0o755)

    @property
    def url(self) -> str:
        """Where it is on disk."""
        return f"file://{self.path}"


def _git(folder: Path, *arguments: str, strip: bool = True) -> str:
    done = subprocess.run(
        ["git", "-c", "user.name=somebody", "-c", "user.email=somebody@example.com", *arguments],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"},
    )
    assert done.returncode == 0, f"git {' '.join(arguments)}: {done.stderr}"
    return done.stdout.strip() if strip else done.stdout


class HttpsServer:
    """`git http-backend` behind a few lines of CGI, TLS, and a user with a password."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.forbidden: set[str] = set()
        """Services that are answered 403."""
        self.requests: list[str] = []
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
        self.authority = authority.cert_pem.bytes().decode()
        owner = self

        class Handler(_Backend):
            server_of = owner

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def url(self, repository: Repository) -> str:
        """Where a repository is."""
        return f"https://127.0.0.1:{self._server.server_port}/{repository.path.name}"

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Backend(BaseHTTPRequestHandler):
    server_of: HttpsServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        self._serve(self._body())

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _serve(self, body: bytes) -> None:
        path, _, query = self.path.partition("?")
        self.server_of.requests.append(self.path)
        if path.startswith("/renamed.git/"):
            self._answer(301, [("Location", self.path.replace("renamed", "models", 1))], b"")
            return
        wanted = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.headers.get("Authorization") != f"Basic {wanted}":
            self._answer(401, [("WWW-Authenticate", 'Basic realm="git"')], b"who are you?")
            return
        if any(service in self.path for service in self.server_of.forbidden):
            self._answer(403, [], b"not you")
            return
        done = subprocess.run(
            ["git", "http-backend"],
            input=body,
            capture_output=True,
            check=True,
            env={
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(self.server_of.root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "GIT_CONFIG_NOSYSTEM": "1",
                "REMOTE_USER": USER,
                "REMOTE_ADDR": "127.0.0.1",
                "REQUEST_METHOD": self.command,
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "CONTENT_LENGTH": str(len(body)),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            },
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        pairs = [line.decode().split(": ", 1) for line in head.split(b"\r\n")]
        status = next((int(value[:3]) for name, value in pairs if name == "Status"), 200)
        self._answer(status, [(n, v) for n, v in pairs if n != "Status"], content)

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class SshServer:
    """OpenSSH's server, which lets one key in."""

    def __init__(self, folder: Path) -> None:
        sshd = program("sshd", "openssh-server")
        self.port = free_port()
        self.identity = make_key(folder / "client")
        make_key(folder / "host")
        (folder / "authorized").write_text((folder / "client.pub").read_text())
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # where sshd locks itself in
        config = folder / "config"
        config.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\n"
            f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nUsePAM no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        )
        key = " ".join((folder / "host.pub").read_text().split()[:2])
        self.known_hosts = f"[127.0.0.1]:{self.port} {key}\n"
        self.service = Service(
            [sshd, "-D", "-e", "-f", str(config)], folder, lambda: accepts(self.port)
        )
        self.service.start()

    def url(self, repository: Repository) -> str:
        """Where a repository is."""
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}{repository.path}"

    def close(self) -> None:
        """End it."""
        self.service.kill()


def make_key(path: Path, kind: str = "ed25519", passphrase: str = "") -> str:
    """Make a key pair with ssh-keygen; gives the private half."""
    size = ["-b", "2048"] if kind == "rsa" else []
    command = ["ssh-keygen", "-q", "-t", kind, *size, "-N", passphrase, "-C", "test", "-f", path]
    subprocess.run(command, check=True)
    return path.read_text()


@contextmanager
def https_server(root: Path) -> Iterator[HttpsServer]:
    """Run one for a while."""
    server = HttpsServer(root)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def ssh_server(folder: Path) -> Iterator[SshServer]:
    """Run one for a while."""
    folder.mkdir(exist_ok=True)
    server = SshServer(folder)
    try:
        yield server
    finally:
        server.close()
