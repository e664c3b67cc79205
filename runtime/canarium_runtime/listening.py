"""uvicorn as all our processes set it up, and a small server on a port of its own beside other things."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Generator
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp

_KEEP_ALIVE_SECONDS: Final = 75
GATEWAY_KEEP_ALIVE_SECONDS: Final = 3700
"""Longer than gateways keep idle connections (Envoy: an hour). Whoever closes first can hit a request on its way, so it
must not be us."""


def uvicorn_config(app: ASGIApp, **more: Any) -> uvicorn.Config:
    """Make the settings of a server: plain HTTP without WebSockets, logs of our own, nothing said about itself.

    Args:
        app: what it serves.
        more: what differs, as `uvicorn.Config` takes it.
    """
    settings: dict[str, Any] = {"http": "httptools", "ws": "none", **more}
    return uvicorn.Config(
        app,
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        **settings,
    )


class QuietServer(uvicorn.Server):
    """A server that leaves signals to the program around it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Do nothing."""
        yield


@contextlib.asynccontextmanager
async def listening(app: ASGIApp, host: str, port: int) -> AsyncIterator[int]:
    """Serve an application until the block ends; gives the port.

    Raises:
        OSError: the port cannot be had. (Left to uvicorn, it would end the process.)
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family)
    config = uvicorn_config(app, timeout_keep_alive=_KEEP_ALIVE_SECONDS)
    server = QuietServer(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield int(listener.getsockname()[1])
    finally:
        server.should_exit = server.force_exit = True
        await asyncio.gather(serving, return_exceptions=True)
        listener.close()
