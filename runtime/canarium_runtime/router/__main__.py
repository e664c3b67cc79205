"""`python -m canarium_runtime.router`: the router of a sticky A/B test, as the environment says.

Settings are `canarium_api.router_config.RouterConfig`. Leaving: SIGTERM makes it unready and lets it ask clients to
connect anew; for `drain_delay` it still accepts; then it closes the door and gives requests under way `drain_timeout`.
"""

import asyncio
import contextlib
import logging
import signal
import sys

import uvicorn

from canarium_api.router_config import RouterConfig
from canarium_runtime import process
from canarium_runtime.listening import (
    GATEWAY_KEEP_ALIVE_SECONDS,
    QuietServer,
    listening,
    uvicorn_config,
)
from canarium_runtime.router.app import AdminApp, RouterApp
from canarium_runtime.router.forwarding import Forwarder

_log = logging.getLogger(__name__)


async def serve(config: RouterConfig) -> int:
    """Route until told to stop; the exit code: 0, or 1 when a port cannot be had."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    forwarder = Forwarder(
        config.timeout.total_seconds(), config.max_connections, config.max_body_bytes
    )
    app = RouterApp(config, forwarder)
    server = QuietServer(
        uvicorn_config(
            app,
            host=config.host,
            port=config.port,
            date_header=False,
            timeout_keep_alive=GATEWAY_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=max(1, round(config.drain_timeout.total_seconds())),
        )
    )
    leaving = asyncio.create_task(_leave(app, server, stop, config.drain_delay.total_seconds()))
    try:
        async with listening(AdminApp(app), config.host, config.admin_port):
            await server.serve()
    except OSError as error:
        _log.error("a port cannot be had", extra={"cause": str(error)})
        return 1
    finally:
        leaving.cancel()
        forwarder.close()
    return 0 if server.started else 1


async def _leave(
    app: RouterApp, server: uvicorn.Server, stop: asyncio.Event, delay_seconds: float
) -> None:
    await stop.wait()
    stop.clear()
    _log.info("told to stop", extra={"drain_delay_seconds": delay_seconds})
    app.draining = True
    # A second signal skips the waiting.
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), delay_seconds)
    server.should_exit = True


def main() -> int:
    """Run the router; the exit code."""
    return process.run(RouterConfig, serve)


if __name__ == "__main__":
    sys.exit(main())
