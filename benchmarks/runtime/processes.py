"""A server as a tree of processes: its CPU time and memory from /proc, and how to start, hold and end it.

Found are the descendants of what was started, and also those that left it (daemons), by a mark in their environment.
"""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
_MARK = "CANARIUM_BENCH_MARK"
_STOP_SECONDS = 5
_POLL_SECONDS = 0.05
_ERROR = re.compile(r"\s*[\w.]*(Error|Exception)\b")


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
        """Give the last line of its log that names an error, else the last one at all."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        errors = [line for line in lines if _ERROR.match(line)]
        return (errors or lines or ["it said nothing"])[-1].strip()[:300]

    def cpu_seconds(self) -> float:
        """User and system time of all its processes, with those that ended and were waited for."""
        return sum(ticks for _, ticks in self._members().values()) / CLOCK_TICKS

    def memory_mb(self) -> float:
        """Resident memory in MB (10**6 bytes): what each process has alone, and the most that one of them shares.

        For one process that is its resident size. Proportional sizes (PSS) would shrink with every other server that
        happens to use the same libraries.
        """
        alone, shared = 0, 0
        for pid in self._members():
            with suppress(OSError):
                sizes = _sizes(Path(f"/proc/{pid}/smaps_rollup").read_text())
                mine = sizes["Private_Clean"] + sizes["Private_Dirty"]
                alone += mine
                shared = max(shared, sizes["Rss"] - mine)
        return (alone + shared) * 1024 / 1e6

    def hold(self) -> None:
        """Stop all its processes where they are: a server that waits must not disturb the one that is measured."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let them run again."""
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it: politely, and after some seconds by force."""
        stop_all([self])

    def is_there(self) -> bool:
        """Tell whether any of its processes is left."""
        self.process.poll()
        return bool(self._members())

    def kill(self) -> None:
        """End all its processes by force."""
        self._signal(signal.SIGKILL)

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


def stop_all(trees: Sequence[Tree]) -> None:
    """End several at once: politely, and after some seconds by force."""
    for tree in trees:
        tree.go_on()
        with suppress(ProcessLookupError):
            tree.process.send_signal(signal.SIGTERM)
    ends = time.monotonic() + _STOP_SECONDS
    left = [tree for tree in trees if tree.is_there()]
    while left and time.monotonic() < ends:
        time.sleep(_POLL_SECONDS)
        left = [tree for tree in left if tree.is_there()]
    for tree in left:
        tree.kill()
    for tree in trees:
        tree.process.wait()


def _processes() -> Iterator[tuple[int, tuple[int, int]]]:
    """Parent and ticks of each process that is no zombie."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            yield int(path.parent.name), (int(fields[1]), sum(map(int, fields[11:15])))


def _sizes(rollup: str) -> dict[str, int]:
    """Sizes in KiB by name."""
    lines = (line.split() for line in rollup.splitlines()[1:])
    return {name.rstrip(":"): int(size) for name, size, *_ in lines}
