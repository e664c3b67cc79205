"""A server as a tree of processes: its CPU time and memory from /proc, and how to start, hold and end it.

Found are the descendants of what was started, and also those that left it (daemons), by a mark in their environment.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
_MARK = "CANARIUM_BENCH_MARK"
_STOP_SECONDS = 15
_POLL_SECONDS = 0.05


class Tree:
    """A command that runs, with all processes that come of it.

    Args:
        command: the program and its arguments.
        env: added to this process's environment.
        log: file for all that it prints.
        folder: where it runs.
    """

    def __init__(
        self, command: list[str | Path], env: dict[str, str], log: Path, folder: Path
    ) -> None:
        self._mark = f"{_MARK}={token_hex(8)}".encode()
        name, _, value = self._mark.decode().partition("=")
        self.log = log
        self.started_at = time.monotonic()
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                env={**os.environ, **env, name: value},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=folder,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process that was started."""
        return self.process.pid

    def ended(self) -> str | None:
        """Tell how it ended, with the last line of its log; None while it runs."""
        if (code := self.process.poll()) is None:
            return None
        return f"it ended with {code}: {self.last_words()}"

    def last_words(self) -> str:
        """Give the last line of its log that says something."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1].strip()[:300] if lines else "it said nothing"

    def cpu_seconds(self) -> float:
        """User and system time of all its processes, with those that ended and were waited for."""
        return sum(ticks for _, ticks in self._members().values()) / CLOCK_TICKS

    def memory_mb(self) -> float:
        """Memory in MB (10**6 bytes); pages that several processes share count once (PSS)."""
        total = 0
        for pid in self._members():
            with suppress(OSError):
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
                total += next(
                    int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")
                )
        return total * 1024 / 1e6

    def hold(self) -> None:
        """Stop all its processes where they are: a server that waits must not disturb the one that is measured."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let them run again."""
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it: politely, and after some seconds by force."""
        self.go_on()
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        ends = time.monotonic() + _STOP_SECONDS
        while self._members() and time.monotonic() < ends:
            self.process.poll()
            time.sleep(_POLL_SECONDS)
        self._signal(signal.SIGKILL)
        self.process.wait()

    def _signal(self, number: signal.Signals) -> None:
        for pid in self._members():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _members(self) -> dict[int, tuple[int, int]]:
        """Parent and ticks of CPU time by process."""
        table = dict(_processes())
        children: dict[int, list[int]] = {}
        for pid, (parent, _) in table.items():
            children.setdefault(parent, []).append(pid)
        todo = [self.pid, *(pid for pid in table if self._is_marked(pid))]
        found: dict[int, tuple[int, int]] = {}
        while todo:
            pid = todo.pop()
            if pid in table and pid not in found:
                found[pid] = table[pid]
                todo += children.get(pid, [])
        return found

    def _is_marked(self, pid: int) -> bool:
        try:
            return self._mark in Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False


def _processes() -> Iterator[tuple[int, tuple[int, int]]]:
    """Parent and ticks of each process that is no zombie."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            yield int(path.parent.name), (int(fields[1]), sum(map(int, fields[11:15])))
