"""`/predict/stream` as a WebSocket: predictions without a request's head for each.

Each text message is a body of `/predict`, and is answered by one message: the body of the answer, or that of the error
with the request's `id`. Answers come in the order in which they are ready, so clients tell them apart by `id`. An error
leaves the connection open.

Bounds: `_UNDER_WAY` requests of one connection; above it nothing more is read. Messages have the limit of bodies (the
server closes with 1009). A connection without a message for `stream_idle_timeout` is closed with 1000; one whose client
does not answer pings, by uvicorn.

Leaving: from SIGTERM on, what arrives within `_LINGER_SECONDS` is still answered; then the connection is closed with
1012, which asks the client to connect anew.
"""

import asyncio
from typing import Final

import orjson
from starlette.websockets import WebSocket, WebSocketDisconnect

from canarium_runtime.errors import ErrorKind, ServingError
from canarium_runtime.lifecycle import ModelState
from canarium_runtime.rest import http
from canarium_runtime.rest.codec import load_object, read_id
from canarium_runtime.rest.conversation import Conversation
from canarium_runtime.rest.endpoints import peer_of
from canarium_runtime.rest.exchange import Exchange, Reply, Route, refusal

_UNDER_WAY: Final = 32
_LINGER_SECONDS: Final = 0.5
_IDLE: Final = 1000
_GOING_AWAY: Final = 1012


class Session:
    """One connection; see the module.

    Args:
        socket: not accepted yet.
        route: answers the messages.
        revision: header that says who answers.
        idle_seconds: longest time without a message.
    """

    def __init__(
        self,
        socket: WebSocket,
        route: Route,
        revision: tuple[bytes, bytes],
        idle_seconds: float,
    ) -> None:
        self._socket = socket
        self._route = route
        self._revision = revision
        self._idle_seconds = idle_seconds
        self._head = http.read_head(socket.scope["headers"])
        """What the handshake said; credentials of all its messages are in it."""
        self._peer = peer_of(socket.scope)
        self._leaving = asyncio.Event()

    async def run(self) -> None:
        """Answer until either side ends the connection."""
        lifecycle = self._route.service.lifecycle
        lifecycle.watch(self._state_changed)
        self._state_changed(lifecycle.state)
        try:
            request_id = (http.REQUEST_ID, self._head.request_id.encode())
            await self._socket.accept(headers=[self._revision, request_id])
            conversation = Conversation(self._socket.send_text, _UNDER_WAY)
            try:
                await self._talk(conversation)
            finally:
                await conversation.close()
        except WebSocketDisconnect:
            pass
        finally:
            lifecycle.unwatch(self._state_changed)

    def _state_changed(self, state: ModelState) -> None:
        if state in {ModelState.DRAINING, ModelState.STOPPING}:
            self._leaving.set()

    async def _talk(self, conversation: Conversation[str]) -> None:
        reading = _Reading(self._socket, self._leaving)
        try:
            while True:
                await conversation.room()
                message = await reading.next(self._idle_seconds)
                if message is None:
                    if self._leaving.is_set():
                        await conversation.finished()
                        await self._socket.close(_GOING_AWAY, "the server is leaving: connect anew")
                        return
                    if not conversation.busy:
                        await self._socket.close(_IDLE, "no message for too long")
                        return
                elif isinstance(message, str):
                    self._begin(conversation, message.encode())
                else:
                    conversation.say(self._binary())
        finally:
            reading.cancel()

    def _begin(self, conversation: Conversation[str], body: bytes) -> None:
        request_id = http.new_request_id()
        conversation.begin(
            lambda reply: Exchange(self._route, self._head, request_id, reply, self._peer),
            body,
            lambda made: message_of(made, body),
        )

    def _binary(self) -> str:
        error = ServingError(
            ErrorKind.UNSUPPORTED_ENCODING,
            "binary messages are not read here: send the request as JSON in a text message",
        )
        return refusal(error, http.new_request_id()).body.decode()


class _Reading:
    """The next message of a connection, or that there is none: a read that was begun is never given up."""

    def __init__(self, socket: WebSocket, leaving: asyncio.Event) -> None:
        self._socket = socket
        self._leaving = leaving
        self._read: asyncio.Task[str | bytes] | None = None
        self._left = asyncio.create_task(leaving.wait())
        self._ends: float | None = None

    async def next(self, idle_seconds: float) -> str | bytes | None:
        """Give the next message; None: none came in time, or the server leaves.

        Raises:
            WebSocketDisconnect: the connection has ended.
        """
        if self._read is None:
            self._read = asyncio.create_task(self._message())
        await asyncio.wait(
            {self._read, self._left}, timeout=idle_seconds, return_when=asyncio.FIRST_COMPLETED
        )
        if self._left.done() and not self._read.done():
            loop = asyncio.get_running_loop()
            self._ends = self._ends or loop.time() + _LINGER_SECONDS
            await asyncio.wait({self._read}, timeout=max(0.0, self._ends - loop.time()))
        if not self._read.done():
            return None
        message, self._read = self._read.result(), None
        return message

    async def _message(self) -> str | bytes:
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        text: str | None = message.get("text")
        return message["bytes"] if text is None else text

    def cancel(self) -> None:
        """Read no more."""
        self._left.cancel()
        if self._read is not None:
            self._read.cancel()


def message_of(reply: Reply, body: bytes) -> str:
    """Make the answering message; an error gets the id of its request, where that can be read."""
    if reply.error is None:
        return reply.body.decode()
    try:
        client_id = read_id(load_object(body))
    except ServingError:
        client_id = None
    document = orjson.loads(reply.body)
    return orjson.dumps({"id": client_id or reply.request_id, **document}).decode()
