"""uvicorn with our way of starting and leaving.

Starting: the port is open at once, so that liveness answers while a large model is fetched; the model is loaded in a
thread, and the process leaves with the reason when that fails.

Leaving, so that no request is lost:
1. SIGTERM: readiness is false at once, and every answer asks its client to connect anew (`Connection: close`).
2. For `drain_delay` connections are still accepted and answered, while endpoints and gateways take the pod out.
3. The listening socket is closed. Connections that are idle stay for a moment longer, for a request that is on its
   way, and are answered too. Requests under way have `drain_timeout`.
4. Exit with 0. A second signal skips the waiting.
"""

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import Generator
from typing import TYPE_CHECKING

import uvicorn
import uvloop

from canarium_api.jobs_config import JobsConfig
from canarium_api.runtime_config import PREFIX, LoadFailure, RuntimeConfig
from canarium_runtime import termination
from canarium_runtime.app import create_app
from canarium_runtime.errors import LoadError
from canarium_runtime.fleet import Fleet
from canarium_runtime.lifecycle import Event
from canarium_runtime.listening import GATEWAY_KEEP_ALIVE_SECONDS, uvicorn_config
from canarium_runtime.models import Models
from canarium_runtime.protection import Protection
from canarium_runtime.repository import Stopped
from canarium_runtime.rest import hotlane
from canarium_runtime.rest.endpoints import Predictor
from canarium_runtime.service import InferenceService
from canarium_runtime.shadow import endpoint

if TYPE_CHECKING:
    from canarium_runtime.rpc.door import Door

_log = logging.getLogger(__name__)
_LINGER_SECONDS = 0.5
"""How long idle connections outlive the listening socket."""
_POLL_SECONDS = 0.02


class DrainingServer(uvicorn.Server):
    """A server whose signals and shutdown are ours."""

    def __init__(self, config: uvicorn.Config, models: Models, drain_seconds: float) -> None:
        super().__init__(config)
        self._models = models
        self._drain_seconds = drain_seconds
        self.door: Door | None = None
        """The gRPC server, which leaves at the same time."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals to `serve`: uvicorn would raise them again at the end and spoil the exit code."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the door, let idle connections linger, then do as uvicorn does."""
        await asyncio.sleep(0)  # take what is in the accept queue
        for listener in self.servers:
            listener.close()
        for listening in sockets or []:
            listening.close()
        if self.door is not None:
            leaving = asyncio.create_task(self.door.close(self._drain_seconds))
        ends = time.monotonic() + min(_LINGER_SECONDS, self._drain_seconds)
        while self.server_state.connections and time.monotonic() < ends and not self.force_exit:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_SECONDS)
        self._models.refuse()
        await super().shutdown(sockets)
        if self.door is not None:
            while not leaving.done() and not self.force_exit:
                await asyncio.wait({leaving}, timeout=_POLL_SECONDS)
            await self.door.close(0)


def run(config: RuntimeConfig, jobs: JobsConfig, fleet: Fleet | None = None) -> int:
    """Serve until told to stop; the exit code.

    Args:
        config: settings.
        jobs: settings of batch jobs.
        fleet: the processes that this one is among; None: it is the only one.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve(config, jobs, fleet or Fleet()))


async def serve(config: RuntimeConfig, jobs: JobsConfig, fleet: Fleet) -> int:
    """Serve until told to stop; the exit code: 0, or 1 when the model cannot be served."""
    models = Models(config)
    service = models.primary
    try:
        protection = Protection(config, service.metrics, service.max_inflight)
        await protection.start()
    except LoadError as error:
        return _give_up(error, service)
    predictor = Predictor(models, protection, fleet)
    server = _make_server(config, models, predictor, jobs)
    loop = asyncio.get_running_loop()
    terminating = asyncio.Event()

    def on_signal() -> None:
        models.stop.set()
        if terminating.is_set():
            server.force_exit = True
            server.should_exit = True
        terminating.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    background = [
        asyncio.create_task(
            _leave(server, models, terminating, config.drain_delay.total_seconds())
        ),
        asyncio.create_task(
            endpoint.offer(
                service.answers, config.host, config.answers_port, config.answers_token_file
            )
        ),
        asyncio.create_task(fleet.attend()),
        loading := asyncio.create_task(models.start()),
    ]
    exit_code = 0

    def loaded(task: asyncio.Task[None]) -> None:
        nonlocal exit_code
        if not task.cancelled() and (error := task.exception()) is not None:
            exit_code = _give_up(error, service)
            server.should_exit = True

    loading.add_done_callback(loaded)
    try:
        if fleet.listens_when_ready:
            await _either(loading, terminating)
        if config.grpc_port is not None:
            server.door = await _open_door(config, predictor, shared=fleet.sockets is not None)
        await server.serve(fleet.sockets)
    except LoadError as error:
        exit_code = _give_up(error, service)
    finally:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await models.close()
        await protection.close()
    return exit_code


async def _either(loading: asyncio.Task[None], terminating: asyncio.Event) -> None:
    told = asyncio.create_task(terminating.wait())
    await asyncio.wait((loading, told), return_when=asyncio.FIRST_COMPLETED)
    told.cancel()


async def _open_door(config: RuntimeConfig, predictor: Predictor, *, shared: bool) -> "Door":
    """Begin to answer gRPC; `shared` with other processes of this server.

    Raises:
        LoadError: InvalidConfig.
    """
    try:
        from canarium_runtime.rpc import door
    except ImportError as error:
        message = (
            f"{PREFIX}GRPC_PORT is set, but gRPC is not installed here: install canarium[grpc]"
        )
        raise LoadError("InvalidConfig", message, permanent=True) from error
    opened = door.Door(
        predictor.models, predictor.streams, predictor.protection, shares_port=shared
    )
    await opened.open(config.host, config.grpc_port or 0)
    return opened


def _make_server(
    config: RuntimeConfig, models: Models, predictor: Predictor, jobs: JobsConfig
) -> DrainingServer:
    drain_seconds = config.drain_timeout.total_seconds()
    protection = predictor.protection
    settings = uvicorn_config(
        create_app(config, predictor, jobs),
        http=hotlane.protocol_class(predictor, answers=config.hot_lane),
        ws="websockets-sansio",
        ws_max_size=config.max_body_bytes,
        ws_per_message_deflate=False,  # tensors gain little, and cost much
        host=config.host,
        port=config.port,
        timeout_keep_alive=GATEWAY_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(drain_seconds)),
    )
    if protection is not None and protection.tls is not None:
        settings.load()
        settings.ssl = protection.tls.context
    return DrainingServer(settings, models, drain_seconds)


async def _leave(
    server: DrainingServer,
    models: Models,
    terminating: asyncio.Event,
    delay_seconds: float,
) -> None:
    await terminating.wait()
    _log.info("told to stop", extra={"drain_delay_seconds": delay_seconds})
    was_ready = models.primary.ready
    models.terminate()
    if was_ready:  # else nobody was sent here yet
        await asyncio.sleep(delay_seconds)
    server.should_exit = True


def _give_up(error: BaseException, service: InferenceService) -> int:
    """Leave the reason for a failed start behind; the exit code."""
    if isinstance(error, Stopped):
        return 0
    if isinstance(error, LoadError):
        failure = error.failure
        _log.error("the model cannot be served", extra={"failure": failure.model_dump()})
    else:
        failure = LoadFailure(
            reason="ModelUnreadable", message=f"loading failed: {type(error).__name__}"
        )
        _log.error("loading the model failed in this server itself", exc_info=error)
    termination.write(failure)
    if service.lifecycle.allows(Event.FAILED):
        service.lifecycle.advance(Event.FAILED, failure.message)
    return 1
