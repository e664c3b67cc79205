"""What the doors ask about the server as a whole, where it may have several processes (`canarium_runtime.processes`).

With one process the answers are its own: `Fleet`. A process among several is a `processes.child.Member`.
"""

import socket
from collections.abc import Callable
from typing import Any

from canarium_runtime.lifecycle import Lifecycle


class Fleet:
    """A server of one process."""

    sockets: list[socket.socket] | None = None
    """What to listen on; None: on the port of the settings."""
    listens_when_ready = False
    """Connections are taken only once the model is ready, because other processes take them meanwhile."""

    def __init__(self) -> None:
        self._render: Callable[[], bytes] = lambda: b""

    def join(self, lifecycle: Lifecycle, render: Callable[[], bytes]) -> None:
        """Come to know this process.

        Args:
            lifecycle: of the model that decides whether it is ready.
            render: gives its metrics.
        """
        self._render = render

    async def attend(self) -> None:
        """Do what has to be done beside serving, until cancelled."""

    def unready(self) -> str:
        """Why the other processes keep the server from being ready; empty: they do not."""
        return ""

    def complete(self, healthy: bool, document: dict[str, Any]) -> tuple[bool, dict[str, Any]]:
        """Add the other processes to what `/health` reports."""
        return healthy, document

    async def metrics(self) -> bytes | None:
        """Metrics of the whole server; None: they cannot be had now."""
        return self._render()
