"""`ports.GitWriter`: a process for each outcome, killed when its time is over.

A git server that accepts a connection and says nothing, or one byte a minute, can hold a thread for ever; a process
can be ended. It is safe to end it at any moment: see `writing`.
"""

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import canarium_api
import canarium_operator
from canarium_operator.core.outcomes.jobs import GitAccess, GitAnswer, GitJob, to_json

log = logging.getLogger(__name__)

DEADLINE_SECONDS: Final = 120.0
"""For one outcome, from start to end."""
_MODULE: Final = "canarium_operator.adapters.git.child"
_PASSED_ON: Final = (
    "PATH",
    "LD_LIBRARY_PATH",
    "TZ",
    "LANG",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "https_proxy",
    "HTTPS_PROXY",
    "no_proxy",
    "NO_PROXY",
)
"""Environment variables that the process gets; nothing else of the operator's is its business."""


class GitProcess:
    """Starts the processes."""

    def __init__(
        self,
        command: Sequence[str] = (sys.executable, "-m", _MODULE),
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        self._command = command
        self._deadline = deadline_seconds

    async def write(self, job: GitJob, access: GitAccess) -> GitAnswer:
        """Write an outcome, unless it is there already."""
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(),
        )
        try:
            async with asyncio.timeout(self._deadline):
                told, said = await process.communicate(to_json(job, access).encode())
        except TimeoutError:
            message = f"no end within {self._deadline:g} s"
            return GitAnswer(problem="GitUnreachable", message=message)
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        try:
            return GitAnswer.from_json(told.decode())
        except (ValueError, TypeError):
            # A defect of ours, or the kernel ended it: its last line says more.
            last = said.decode("utf-8", "replace").strip().splitlines()[-1:]
            log.error("git process ended with %s: %s", process.returncode, " ".join(last)[:300])
            message = (
                f"the git process ended with {process.returncode}; the operator's log has more"
            )
            return GitAnswer(problem="GitUnreachable", message=message)


def _environment() -> dict[str, str]:
    here = {
        str(Path(package.__file__ or "").parents[1])
        for package in (canarium_api, canarium_operator)
    }
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    path = [*sorted(here), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**passed, "PYTHONPATH": os.pathsep.join(path), "PYTHONDONTWRITEBYTECODE": "1"}
