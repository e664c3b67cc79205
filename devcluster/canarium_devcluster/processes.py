"""Runs external programs: output to a log file, its last lines in the error."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from canarium_devcluster.errors import DevclusterError

_LAST_LINES = 15


def run_logged(
    command: Sequence[str],
    log: Path,
    *,
    what: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] = lambda _line: None,
    remedy: str = "",
) -> None:
    """Run to the end; ``on_line`` sees each line of output as it comes.

    An interruption ends the program's whole process group: a build has many children.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        output.write(f"$ {' '.join(command)}\n")
        output.flush()
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:
            try:
                for line in process.stdout or ():
                    output.write(line)
                    output.flush()
                    on_line(line.rstrip())
            except BaseException:
                os.killpg(process.pid, signal.SIGTERM)
                raise
    if process.returncode != 0:
        lines = log.read_text(errors="replace").splitlines()
        raise DevclusterError(
            f"{what} failed (exit status {process.returncode})",
            f"{remedy + '; ' if remedy else ''}the whole log is {log}",
            details="\n".join(lines[-_LAST_LINES:]),
        )


def answer(
    command: Sequence[str], *, timeout_seconds: float, cwd: Path | None = None
) -> str | None:
    """The standard output of a quick question, or None when it fails or takes too long."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_seconds, cwd=cwd, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
