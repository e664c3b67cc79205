"""The gRPC server: opening it beside the HTTP server, its health, and leaving without losing a request."""

import asyncio
import logging
from typing import Any, Final

import grpc
from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from canarium_runtime.errors import LoadError
from canarium_runtime.lifecycle import ModelState
from canarium_runtime.models import Models
from canarium_runtime.protection import Protection
from canarium_runtime.rpc import tls
from canarium_runtime.rpc.control import Control
from canarium_runtime.rpc.inference import Inference
from canarium_runtime.streaming import Streams
from canarium_runtime.version import server_version

_log = logging.getLogger(__name__)
SERVICE: Final = "inference.GRPCInferenceService"
_MAX_CALLS: Final = 4096
"""Calls and streams that are open at the same time; above it RESOURCE_EXHAUSTED."""
_ENVELOPE_BYTES: Final = 64 * 1024
"""What a message may have around its tensors."""
_KEEPALIVE_SECONDS: Final = 60
_NO_LIMIT: Final = -1


class Door:
    """Answers gRPC on a port of its own.

    Args:
        models: which there are.
        streams: of the server, shared with its other doors.
        protection: who may ask, and what is recorded; None: everybody, nothing.
        shares_port: other processes of this server listen on the same port.
    """

    def __init__(
        self,
        models: Models,
        streams: Streams,
        protection: Protection | None = None,
        *,
        shares_port: bool = False,
    ) -> None:
        self._models = models
        self._leaving = asyncio.Event()
        self._health = health.aio.HealthServicer()
        self._tasks: set[asyncio.Task[None]] = set()
        config = models.config
        idle_seconds = config.stream_idle_timeout.total_seconds()
        inference = Inference(models, streams, self._leaving, idle_seconds, protection)
        self._server: aio.Server | None
        self._server = server = aio.server(
            options=_options(config.max_body_bytes, shares_port), maximum_concurrent_rpcs=_MAX_CALLS
        )
        control = Control(models, server_version(), protection)
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "ModelInfer": grpc.unary_unary_rpc_method_handler(inference.infer),
            "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(inference.stream_infer),
        }
        for name, (request, method) in control.methods().items():
            handlers[name] = grpc.unary_unary_rpc_method_handler(
                method,
                request_deserializer=request.FromString,
                response_serializer=lambda message: message.SerializeToString(),
            )
        generic = grpc.method_handlers_generic_handler(SERVICE, handlers)
        server.add_generic_rpc_handlers((generic,))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)

    async def open(self, host: str, port: int) -> int:
        """Begin to answer; gives the port.

        Raises:
            LoadError: InvalidConfig, when the port cannot be had.
        """
        server = self._server
        assert server is not None  # noqa: S101 - it is opened before it is closed
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if self._models.config.tls_certificate_file is None:
                bound = server.add_insecure_port(address)
            else:
                bound = server.add_secure_port(address, tls.credentials_of(self._models.config))
        except RuntimeError as error:
            message = f"the port {port} for gRPC cannot be had: is it used by another process?"
            raise LoadError("InvalidConfig", message) from error
        await server.start()
        lifecycle = self._models.primary.lifecycle
        lifecycle.watch(self._state_changed)
        await self._say(lifecycle.state)
        return bound

    async def close(self, drain_seconds: float) -> None:
        """Take no more calls, and give those under way the time to end."""
        self._leaving.set()
        if self._server is None:
            return
        await self._server.stop(drain_seconds)
        # It needs the event loop once more when it is freed.
        self._server = None
        self._models.primary.lifecycle.unwatch(self._state_changed)

    def _state_changed(self, state: ModelState) -> None:
        task = asyncio.get_running_loop().create_task(self._say(state))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _say(self, state: ModelState) -> None:
        statuses = health_pb2.HealthCheckResponse
        status = statuses.SERVING if state is ModelState.READY else statuses.NOT_SERVING
        for name in ("", SERVICE):
            await self._health.set(name, status)


def _options(max_body_bytes: int, shares_port: bool) -> list[tuple[str, int]]:
    """Give the settings of the server: bounds of messages, and connections that are noticed when they die."""
    return [
        ("grpc.max_receive_message_length", max_body_bytes + _ENVELOPE_BYTES),
        ("grpc.max_send_message_length", _NO_LIMIT),
        # Else a strange process on the port would go unnoticed.
        ("grpc.so_reuseport", int(shares_port)),
        ("grpc.keepalive_time_ms", _KEEPALIVE_SECONDS * 1000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Clients may ping idle connections, too, and not be sent away for it.
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.http2.max_ping_strikes", 0),
    ]
