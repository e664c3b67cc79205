"""`ModelInfer` and `ModelStreamInfer`: exchanges, as every other door drives them."""

import asyncio
import contextlib
import time
from typing import Any, Final

from grpc import StatusCode, aio

from canarium_runtime.errors import ErrorKind, ServingError
from canarium_runtime.models import Models
from canarium_runtime.protection import Protection
from canarium_runtime.rest import http
from canarium_runtime.rest.codec import Identity
from canarium_runtime.rest.conversation import Conversation
from canarium_runtime.rest.events import Recording, failed
from canarium_runtime.rest.exchange import Exchange, Reply, Route, client_gone, refusal
from canarium_runtime.rpc import open_inference_pb2 as pb
from canarium_runtime.rpc.calls import CallHead, Context, Trailers, admit
from canarium_runtime.rpc.codec import GrpcCodec, model_of, parse
from canarium_runtime.rpc.statuses import STATUS_OF_KIND
from canarium_runtime.streaming import Streams, can_stream, until_ready
from canarium_runtime.tracing.trace import Door

_UNDER_WAY: Final = 32
"""Requests of one stream that are not answered; above it nothing more is read."""
_EMPTY_FINAL: Final = "triton_enable_empty_final_response"
_FINAL: Final = "triton_final_response"
"""Names of parameters that clients of streams know."""
_MORE: Final = 0x80
"""Bit of a byte of a number behind which there are more."""


_SERVER_ERRORS: Final = frozenset({2, 4, 12, 13, 14, 15})
"""Codes of statuses that are the server's mistake, as OpenTelemetry's semantic conventions have it."""
_DOOR: Final = Door(
    name="inference.GRPCInferenceService/ModelInfer",
    attributes={
        "rpc.system": "grpc",
        "rpc.service": "inference.GRPCInferenceService",
        "rpc.method": "ModelInfer",
    },
    status_attribute="rpc.grpc.status_code",
    statuses={kind: STATUS_OF_KIND.get(kind, StatusCode.UNKNOWN).value[0] for kind in ErrorKind},
    success=0,
    server_errors=_SERVER_ERRORS.__contains__,
)


class Inference:
    """Answers predictions.

    Args:
        models: which there are.
        streams: of the server, shared with its other doors.
        leaving: set when streams are to end.
        idle_seconds: longest time of a stream without a request.
        protection: who may ask, and what is recorded.
    """

    def __init__(
        self,
        models: Models,
        streams: Streams,
        leaving: asyncio.Event,
        idle_seconds: float,
        protection: Protection | None = None,
    ) -> None:
        self._models = models
        self._streams = streams
        self._leaving = leaving
        self._idle_seconds = idle_seconds
        self._guard = None if protection is None else protection.guard
        self._trailers = Trailers(models.config.revision)
        self._routes: dict[tuple[str, str | None], Route] = {}
        for name, versions in models.names().items():
            for version in versions:
                identity = Identity(name, version, models.config.revision)
                route = Route(models.get(name, version), identity, GrpcCodec, protection, _DOOR)
                self._routes[name, version] = route
                self._routes.setdefault((name, None), route)

    def _route(self, body: bytes) -> Route:
        """Find the model of a request.

        Raises:
            ServingError: MALFORMED or NOT_FOUND.
        """
        name, version = model_of(body)
        route = self._routes.get((name, version))
        if route is None:
            self._models.get(name, version)  # says what there is
            raise ServingError(ErrorKind.NOT_FOUND, f"no model {name!r} here")
        return route

    async def infer(self, body: bytes, context: Context) -> bytes:
        """Answer one `ModelInfer`."""
        call = CallHead(context)
        try:
            route = self._route(body)
        except ServingError as error:
            await self._refuse_strangers(context, call)
            await self._trailers.abort(context, refusal(error, call.request_id), error)
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def reply(made: Reply) -> None:
            if not future.done():
                future.set_result(made)

        exchange = Exchange(route, call.head, call.request_id, reply, call.peer)
        try:
            if exchange.open(call.timeout_seconds):
                exchange.receive(body)
            made = await future
        except asyncio.CancelledError:
            exchange.abandon(call.given_up())
            raise
        if made.error is not None:
            await self._trailers.abort(context, made, made.error)
        context.set_trailing_metadata(self._trailers.of(made.request_id))
        return made.body

    async def _refuse_strangers(self, context: Context, call: CallHead) -> None:
        """End a call of somebody who may not ask, before it learns which models there are."""
        if self._guard is None:
            return
        try:
            await admit(self._guard, call)
        except ServingError as error:
            await self._trailers.abort(context, refusal(error, call.request_id), error)

    async def stream_infer(self, _: object, context: Context) -> None:
        """Answer the requests of one `ModelStreamInfer`, in the order in which they are done.

        It ends when the client sends no more, or nothing for too long, or the server leaves.
        """
        call = CallHead(context)
        await self._refuse_strangers(context, call)
        context.set_trailing_metadata(self._trailers.of(call.request_id))
        conversation: Conversation[bytes] = Conversation(context.write, _UNDER_WAY)
        left = asyncio.ensure_future(self._leaving.wait())
        try:
            while (body := await self._next(conversation, context, left)) is not None:
                self._begin(conversation, call, body)
            await conversation.finished()
        finally:
            left.cancel()
            await conversation.close(call.given_up())

    async def _next(
        self, conversation: Conversation[bytes], context: Context, left: asyncio.Future[Any]
    ) -> bytes | None:
        await conversation.room()
        reading: asyncio.Future[Any] = asyncio.ensure_future(context.read())
        try:
            while not reading.done() and not left.done():
                await asyncio.wait(
                    {reading, left},
                    timeout=self._idle_seconds,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if not reading.done() and not conversation.busy:
                    return None
            return reading.result() if reading.done() and reading.result() is not aio.EOF else None
        finally:
            reading.cancel()

    def _begin(self, conversation: Conversation[bytes], call: CallHead, body: bytes) -> None:
        request_id = http.new_request_id()
        try:
            route = self._route(body)
            streams = can_stream(route.service.backend) if route.service.ready else False
        except ServingError as error:
            conversation.say(_stream_error(refusal(error, request_id), body))
            return
        if streams:
            conversation.run(self._pieces(conversation, route, call, request_id, body))
            return
        conversation.begin(
            lambda reply: Exchange(route, call.head, request_id, reply, call.peer),
            body,
            lambda made: _stream_answer(made, body),
            _left_of(call),
        )

    async def _pieces(
        self,
        conversation: Conversation[bytes],
        route: Route,
        head: CallHead,
        request_id: str,
        body: bytes,
    ) -> None:
        """Answer a request to a model that yields."""
        service = route.service
        try:
            prediction = service.admit(request_id)
        except ServingError as error:
            await conversation.write(_stream_error(refusal(error, request_id), body))
            return
        record = Recording(route, prediction, body)
        try:
            await record.identify(head.credentials())
            await until_ready(service, prediction)
            codec = route.codec
            assert isinstance(codec, GrpcCodec)  # noqa: S101 - all routes here are made with it
            call = codec.decode(body, None)
            pieces = self._streams.pieces(service, prediction, call.inputs)
            async with contextlib.aclosing(pieces):
                async for outputs in pieces:
                    message = codec.response(call, outputs, request_id, prediction.marks)
                    message.parameters[_FINAL].bool_param = False
                    await conversation.write(_answer(message))
            prediction.close()
            record.end(None)
            if parse(body).parameters[_EMPTY_FINAL].bool_param:
                identity = route.identity
                last = pb.ModelInferResponse(
                    model_name=identity.model_name,
                    model_version=identity.model_version,
                    id=call.id or request_id,
                )
                last.parameters[_FINAL].bool_param = True
                await conversation.write(_answer(last))
        except asyncio.CancelledError:
            prediction.close(client_gone())
            record.end(client_gone())
            raise
        except Exception as error:  # noqa: BLE001 - a client never sees a stack trace
            record.end(error)
            await conversation.write(_stream_error(failed(prediction, error), body))


def _left_of(call: CallHead) -> float | None:
    return None if call.ends_at is None else max(0.0, call.ends_at - time.monotonic())


def _answer(message: pb.ModelInferResponse) -> bytes:
    return pb.ModelStreamInferResponse(infer_response=message).SerializeToString()


def _stream_answer(reply: Reply, body: bytes) -> bytes:
    if reply.error is not None:
        return _stream_error(reply, body)
    # The response is written already: it becomes field 2 of the message around it.
    return b"\x12%b%b" % (_varint(len(reply.body)), reply.body)


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number >= _MORE:
        digits.append(number % _MORE | _MORE)
        number //= _MORE
    digits.append(number)
    return bytes(digits)


def _stream_error(reply: Reply, body: bytes) -> bytes:
    """Make the message of an error, with the id of its request where that can be read."""
    message = pb.ModelStreamInferResponse(error_message=reply.error.message if reply.error else "")
    with contextlib.suppress(ServingError):
        request = parse(body)
        message.infer_response.model_name = request.model_name
        message.infer_response.model_version = request.model_version
        message.infer_response.id = request.id or reply.request_id
    return message.SerializeToString()
