"""What the services share: free ports, users without rights, and what happens where a program is missing."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import pytest

UNPRIVILEGED: Final = 65534
"""`nobody`: PostgreSQL refuses to run as root."""
_START_SECONDS: Final = 30.0


def program(name: str, package: str, *, places: Sequence[str] = ()) -> str:
    """Find a program.

    Where it is missing the test is skipped, and fails in CI: there, nothing may be left out in silence.
    """
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", *places])
    found = shutil.which(name, path=path)
    if found is None:
        message = f"{name} is not installed: apt-get install {package} (make system does so)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def accepts(port: int) -> bool:
    """Whether somebody listens."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def children_of(parent: int) -> list[int]:
    """Find the processes that another one has started, and that still run."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # pid (name) state ppid ...; the name may hold anything.
            if int(status.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(status.parent.name))
    return found


class Service:
    """One process that can be killed, stalled and started again.

    Args:
        command: program and arguments.
        folder: where it runs; its output goes to `log` there.
        ready: whether it answers.
        user: as whom it runs, if this process may choose.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        ready: Callable[[], bool],
        user: int | None = None,
    ) -> None:
        self._command = command
        self._folder = folder
        self._ready = ready
        self._user = user if os.getuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                user=self._user,
                group=self._user,
                extra_groups=[] if self._user is not None else None,
            )
        ends = time.monotonic() + _START_SECONDS
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > ends:
                self.stop()
                pytest.fail(f"{self._command[0]}: {(self._folder / 'log').read_text()[-2000:]}")
            time.sleep(0.01)

    def ensure(self) -> None:
        """Start it if a test has left it dead."""
        if self._process is None or self._process.poll() is not None:
            self.start()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it and to all processes that it has started; PostgreSQL's have groups of their own."""
        assert self._process is not None
        for process in (self._process.pid, *children_of(self._process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)

    def kill(self) -> None:
        """End it without warning."""
        self.signal(signal.SIGKILL)
        self.wait()

    def stall(self) -> None:
        """Let it hang: connections stay, and nothing answers."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on, if it runs."""
        if self._process is not None:
            self.signal(signal.SIGCONT)

    def wait(self) -> None:
        """Wait for its end."""
        assert self._process is not None
        self._process.wait(30)
        self._process = None

    def stop(self) -> None:
        """End it, whatever state it is in."""
        if self._process is not None and self._process.poll() is None:
            self.signal(signal.SIGCONT)
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self.signal(signal.SIGKILL)
                self._process.wait(10)
        self._process = None
