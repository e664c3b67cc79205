"""Which Python all servers run on.

Builds of the same version differ by more than most servers do: one without profile-guided optimisation takes nearly
twice the time for the same byte code. Images of servers have optimised ones (python:3.11-slim is), so the quickest that
is here is taken, for all servers alike, and the report says how quick it is.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_SYSTEM = Path("/usr/bin/python3")
_ASK = """
import json, sys, time, venv
def rounds():
    x, began = 0, time.process_time()
    for i in range(1_000_000):
        x += i * i % 7
    return time.process_time() - began
print(json.dumps([sys.version, min(rounds() for _ in range(5)) * 1000]))
"""


@dataclass(frozen=True)
class Interpreter:
    """A Python."""

    path: Path
    version: str
    """As `sys.version` says it."""
    loop_ms: float
    """CPU time of a loop of a million rounds, quickest of five."""

    @property
    def number(self) -> str:
        """Its version alone: `3.11.2`."""
        return self.version.split()[0]


def ask(path: Path) -> Interpreter | None:
    """Find out about an interpreter; None: it is not there, or makes no environments."""
    try:
        done = subprocess.run([path, "-c", _ASK], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    version, loop_ms = json.loads(done.stdout)
    return Interpreter(path, version, loop_ms)


def choose(path: Path | None) -> Interpreter:
    """Take the one that is asked for, or else the quickest: the running one, or the system's of the same minor version.

    Raises:
        SystemExit: the one that is asked for cannot be used.
    """
    if path is not None:
        asked = ask(path)
        if asked is None:
            sys.exit(f"--python {path}: it does not run, or lacks the module venv")
        return asked
    running = ask(Path(sys.executable))
    assert running is not None
    system = ask(_SYSTEM)
    minor = ".".join(running.number.split(".")[:2]) + "."
    if system is None or not system.number.startswith(minor) or system.loop_ms > running.loop_ms:
        return running
    return system
