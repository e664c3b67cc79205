"""`python -m canarium_runtime.shadow`: compare the answers of stable and shadow, as the environment says.

Settings are `canarium_api.shadow_config.ShadowConfig`. It serves on one port:

    /metrics        Prometheus' text format
    /health/live    503 when no round was finished for a minute
    /health/ready   503 while pods of one side cannot be reached
    /health         both, with the reason
"""

import asyncio
import logging
import signal
import sys

import httpx
import orjson
from starlette.types import Receive, Scope, Send

from canarium_api.shadow_config import ShadowConfig
from canarium_runtime import process
from canarium_runtime.listening import listening
from canarium_runtime.metrics import CONTENT_TYPE
from canarium_runtime.rest import http
from canarium_runtime.shadow.comparer import Comparer
from canarium_runtime.shadow.targets import MAX_TARGETS

_log = logging.getLogger(__name__)


class StatusApp:
    """ASGI application with metrics and health of a comparer."""

    def __init__(self, comparer: Comparer) -> None:
        self._comparer = comparer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            await http.send_answer(send, self.answer(scope["path"]))

    def answer(self, path: str) -> http.Answer:
        """Answer one path."""
        comparer = self._comparer
        match path:
            case "/metrics":
                media = (b"content-type", CONTENT_TYPE.encode())
                return http.Answer(200, comparer.report.render(), media=media)
            case "/health/live":
                healthy = comparer.alive
            case "/health/ready":
                healthy = comparer.ready
            case "/health":
                healthy = comparer.alive and comparer.ready
            case _:
                body = {"error": f"nothing at {path}; there are /metrics and /health"}
                return http.Answer(404, orjson.dumps(body))
        document = {
            "live": comparer.alive,
            "ready": comparer.ready,
            "reason": comparer.problem,
        }
        return http.Answer(200 if healthy else 503, orjson.dumps(document))


async def serve(config: ShadowConfig) -> int:
    """Compare until told to stop; the exit code: 0, or 1 when the port cannot be had or the comparer fails."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    limits = httpx.Limits(max_connections=2 * MAX_TARGETS)
    async with httpx.AsyncClient(trust_env=False, follow_redirects=False, limits=limits) as client:
        comparer = Comparer(config, client)
        try:
            async with listening(StatusApp(comparer), config.host, config.port):
                rounds = asyncio.create_task(comparer.run())
                waiting = asyncio.create_task(stop.wait())
                await asyncio.wait({rounds, waiting}, return_when=asyncio.FIRST_COMPLETED)
                failed = rounds.done()
                rounds.cancel()
                waiting.cancel()
                results = await asyncio.gather(rounds, waiting, return_exceptions=True)
        except OSError as error:
            _log.error("the port cannot be had", extra={"port": config.port, "cause": str(error)})
            return 1
        if failed:
            _log.error("the comparer failed", exc_info=results[0])
            return 1
    return 0


def main() -> int:
    """Run the comparer; the exit code."""
    return process.run(ShadowConfig, serve)


if __name__ == "__main__":
    sys.exit(main())
