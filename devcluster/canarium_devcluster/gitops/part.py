"""A program as a process of this machine, beside a cluster: started until it works, and ended in order."""

from __future__ import annotations

import dataclasses
import subprocess
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from canarium_devcluster.errors import DevclusterError
from canarium_devcluster.kube import wait_for

START_SECONDS: Final = 60.0


@dataclasses.dataclass
class Part:
    """One process; it can be ended and started again."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    health: str = ""
    """`host:port/path` that answers 200 when it works; empty: nobody can ask from here."""
    says: str = ""
    """What its log has in it when it works, where nobody can ask."""
    stop_seconds: float = 20.0
    """How long it may take to end when it is asked to."""
    process: subprocess.Popen[bytes] | None = None
    _begin: int = 0

    def start(self) -> None:
        """Start it, and wait until it works.

        Raises:
            DevclusterError: it has ended, or did not work in a minute.
        """
        with self.log.open("ab") as log:
            # What an earlier process has said is nothing that this one says.
            self._begin = log.tell()
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                # A Ctrl-C at the terminal is for whoever runs it, who then ends it in order.
                start_new_session=True,
            )
        wait_for(self.name, self._lacking, seconds=START_SECONDS, remedy=f"its log is {self.log}")

    def check(self) -> None:
        """Look whether it runs.

        Raises:
            DevclusterError: it has ended.
        """
        if self.process is None or self.process.poll() is not None:
            raise DevclusterError(f"{self.name} has ended", f"its log is {self.log}")

    def _lacking(self) -> str | None:
        self.check()
        if not self.health:
            said = self.log.read_bytes()[self._begin :].decode(errors="replace")
            return None if self.says in said else f"it has not said '{self.says}'"
        try:
            with urllib.request.urlopen(f"http://{self.health}", timeout=2) as told:
                return None if told.status == 200 else f"its answer is {told.status}"
        except OSError as problem:
            return str(problem)

    def kill(self) -> None:
        """End it without warning."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """End it."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout=self.stop_seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None
