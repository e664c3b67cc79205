"""One of several serving processes: `python -m canarium_runtime.processes.child`, started by `parent.py` alone."""

import argparse
import asyncio
import logging
import os
import socket
import sys
from collections.abc import Callable
from typing import Any, Final

from canarium_api.jobs_config import JobsConfig
from canarium_api.runtime_config import RuntimeConfig
from canarium_runtime import logs, server
from canarium_runtime.fleet import Fleet
from canarium_runtime.lifecycle import Lifecycle, ModelState
from canarium_runtime.processes import wire

_log = logging.getLogger(__name__)
_SCRAPE_SECONDS: Final = 3.0
"""Longest wait for the parent's sum. It waits a shorter time itself for those that do not answer."""
_MAX_SCRAPES: Final = 64
"""At the same time."""
_ORPHANED: Final = 70


class Member(Fleet):
    """The line from a serving process to its parent.

    Args:
        control: the line.
        listener: what to listen on; its port is shared with the other processes.
        number: of this process, from 1.
        listens_when_ready: see `Fleet`.
    """

    def __init__(
        self,
        control: socket.socket,
        listener: socket.socket,
        *,
        number: int,
        listens_when_ready: bool,
    ) -> None:
        super().__init__()
        self.sockets = [listener]
        self.listens_when_ready = listens_when_ready
        self._control = control
        self._number = number
        self._fleet: list[dict[str, Any]] = []
        self._writer: asyncio.StreamWriter | None = None
        self._scrapes: dict[int, asyncio.Future[bytes]] = {}
        self._next_scrape = 0
        self._lifecycle: Lifecycle | None = None

    def join(self, lifecycle: Lifecycle, render: Callable[[], bytes]) -> None:
        """See `Fleet.join`."""
        super().join(lifecycle, render)
        self._lifecycle = lifecycle
        lifecycle.watch(self._tell)

    async def attend(self) -> None:
        """Talk with the parent. When that is gone, leave at once: nobody is left to start or stop this process."""
        reader, self._writer = await asyncio.open_unix_connection(
            sock=self._control, limit=wire.MAX_BYTES
        )
        if self._lifecycle is not None:
            self._tell(self._lifecycle.state)
        while (message := await wire.read(reader)) is not None:
            self._take(message)
        _log.error("the parent process is gone")
        logging.shutdown()
        os._exit(_ORPHANED)

    def unready(self) -> str:
        """See `Fleet.unready`."""
        waiting = [
            f"process {p['number']} is {p['state']}"
            for p in self._fleet
            if p["state"] != ModelState.READY and p["number"] != self._number
        ]
        return "; ".join(waiting) if self._fleet else "the parent process has not answered yet"

    def complete(self, healthy: bool, document: dict[str, Any]) -> tuple[bool, dict[str, Any]]:
        """See `Fleet.complete`."""
        reason = self.unready()
        check = {"status": "fail" if reason else "pass", "reason": reason or "all are ready"}
        checks = {**document["checks"], "processes": check}
        whole = {**document, "checks": checks, "process": self._number, "processes": self._fleet}
        if reason:
            whole["status"] = "fail"
        return healthy and not reason, whole

    async def metrics(self) -> bytes | None:
        """See `Fleet.metrics`."""
        if self._writer is None or len(self._scrapes) >= _MAX_SCRAPES:
            return None
        self._next_scrape += 1
        number = self._next_scrape
        self._scrapes[number] = answer = asyncio.get_running_loop().create_future()
        try:
            if not wire.write(self._writer, {"scrape": number}):
                return None
            return await asyncio.wait_for(answer, _SCRAPE_SECONDS)
        except TimeoutError:
            return None
        finally:
            del self._scrapes[number]

    def _take(self, message: wire.Message) -> None:
        if "ask" in message and self._writer is not None:
            text = self._render().decode()
            wire.write(self._writer, {"metrics": text, "round": message["ask"]})
        elif "scraped" in message:
            answer = self._scrapes.get(message["scraped"])
            if answer is not None and not answer.done():
                answer.set_result(message["metrics"].encode())
        elif "fleet" in message:
            self._fleet = message["fleet"]

    def _tell(self, state: ModelState) -> None:
        if self._writer is not None and self._lifecycle is not None:
            reason = self._lifecycle.reason
            wire.write(self._writer, {"state": state.value, "reason": reason})


def main() -> int:
    """Serve as one of several; the exit code."""
    parser = argparse.ArgumentParser(prog="canarium_runtime.processes.child", description=__doc__)
    for name in ("--control", "--listener", "--number"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--listens-when-ready", action="store_true")
    words = parser.parse_args()
    config = RuntimeConfig.from_env(os.environ)
    logs.configure(config.log_level)
    for descriptor in (words.control, words.listener):
        os.set_inheritable(descriptor, False)
    member = Member(
        socket.socket(fileno=words.control),
        socket.socket(fileno=words.listener),
        number=words.number,
        listens_when_ready=words.listens_when_ready,
    )
    return server.run(config, JobsConfig.from_env(os.environ), member)


if __name__ == "__main__":
    sys.exit(main())
