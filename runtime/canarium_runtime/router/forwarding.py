"""One request to one version: streamed both ways, retried only where nothing can have happened.

A connection that a server closes just as a request goes out on it is no answer. Such a request is sent once more if it
was small enough to keep; model servers do not mind being asked twice. Everything else that goes wrong is the client's
to see: 502 where a version cannot be reached, 504 where it does not answer in time.
"""

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Final

from starlette.types import Message, Receive, Scope, Send

from canarium_api.split import HEADER
from canarium_runtime.router.upstream import (
    ClosedEarlyError,
    Connection,
    Pool,
    UpstreamError,
    request_head,
)

KEPT_BYTES: Final = 256 * 1024
"""Of a body, so much is kept for a second try."""
CONNECT_SECONDS: Final = 3.0
"""Within a cluster, a connection takes milliseconds."""
CONNECT_TRIES: Final = 3
"""A Service may still lead to a pod that is gone; the next try mostly meets another."""
CONNECT_PAUSE_SECONDS: Final = 0.1
_HOP_BY_HOP: Final = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer",
        b"transfer-encoding", b"upgrade", b"proxy-connection", b"expect", HEADER.encode(),
    }
)  # fmt: skip
"""Headers of one connection, not of the request (RFC 9110, section 7.6.1), and the one that is for us."""


class ClientGoneError(Exception):
    """The client closed its connection before its request was complete."""


class BodyTooLargeError(Exception):
    """The body is larger than any server takes."""


class UnreachableError(Exception):
    """No answer began."""

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


@dataclass
class Body:
    """The body of a request: its beginning, and how to get the rest."""

    receive: Receive
    max_bytes: int
    size: int = 0
    first: bytes = b""
    """All of it, or at least KEPT_BYTES."""
    complete: bool = False
    """All of it has come."""

    async def start(self) -> None:
        """Read the beginning, which mostly is all of it."""
        pieces: list[bytes] = []
        while not self.complete and self.size < KEPT_BYTES:
            pieces.append(await self.next())
        self.first = pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def next(self) -> bytes:
        """Read a piece.

        Raises:
            ClientGoneError: the client closed its connection.
            BodyTooLargeError: it is larger than any server takes.
        """
        message = await self.receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        piece: bytes = message.get("body", b"")
        self.size += len(piece)
        if self.size > self.max_bytes:
            raise BodyTooLargeError
        self.complete = not message.get("more_body", False)
        return piece


class Forwarder:
    """Connections to the versions.

    Args:
        timeout_seconds: longest wait for the beginning, or the next piece, of an answer.
        max_connections: kept to all versions together.
        max_body_bytes: largest body.
    """

    def __init__(self, timeout_seconds: float, max_connections: int, max_body_bytes: int) -> None:
        self._max_body_bytes = max_body_bytes
        self._timeout_seconds = timeout_seconds
        self._pool = Pool(max_connections, CONNECT_SECONDS)

    def close(self) -> None:
        """Close all connections that nobody uses."""
        self._pool.close()

    async def forward(self, base: str, scope: Scope, receive: Receive, send: Send) -> int:
        """Ask a version, and pass its answer on.

        Args:
            base: `http://HOST:PORT`.
            scope: of the request.
            receive: of the request.
            send: of the request.

        Returns:
            The status of the answer.

        Raises:
            UnreachableError: there is no answer; nothing was sent to the client.
            ClientGoneError: nobody waits for an answer.
            BodyTooLargeError: the request is too large.
        """
        body = Body(receive, self._max_body_bytes)
        await body.start()
        repeatable, fresh = body.complete, False
        while True:
            connection = await self._connect(base, fresh=fresh)
            try:
                return await self._exchange(connection, scope, body, send)
            except ClosedEarlyError as error:
                if fresh or not repeatable:
                    raise UnreachableError(str(error)) from error
                fresh = True
            finally:
                self._pool.give_back(base, connection)

    async def _connect(self, base: str, *, fresh: bool) -> Connection:
        tries = 1
        while True:
            try:
                return await self._pool.take(base, fresh=fresh)
            except UpstreamError as error:
                if tries == CONNECT_TRIES:
                    raise UnreachableError(str(error)) from error
            tries += 1
            await asyncio.sleep(CONNECT_PAUSE_SECONDS)

    async def _exchange(self, connection: Connection, scope: Scope, body: Body, send: Send) -> int:
        connection.expect(head_only=scope["method"] == "HEAD")
        head, is_chunked = _head(scope, body)
        sending: asyncio.Task[None] | None = None
        if body.complete:
            with contextlib.suppress(OSError):  # the answer, or that there is none, says more
                await connection.send(head + body.first)
        else:
            # Beside reading: a server may answer before it has read everything.
            sending = asyncio.create_task(_send_body(connection, head, body, is_chunked=is_chunked))
        try:
            await self._await_head(connection, sending)
            await self._pass_on(connection, send)
        finally:
            if sending is not None:
                if not sending.done():
                    connection.close()  # half a request was sent: nothing else may follow on it
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
        return connection.status

    async def _await_head(
        self, connection: Connection, sending: "asyncio.Task[None] | None"
    ) -> None:
        """Wait for the answer to begin; with a body under way, its time counts from its end."""
        waiting = asyncio.ensure_future(connection.head(None if sending else self._timeout_seconds))
        try:
            if sending is not None:
                await asyncio.wait({waiting, sending}, return_when=asyncio.FIRST_COMPLETED)
                error = sending.exception() if sending.done() else None
                if error is not None and not isinstance(error, OSError):
                    raise error
            async with asyncio.timeout(self._timeout_seconds):
                await waiting
        except TimeoutError as error:
            raise UnreachableError("no answer in time", timed_out=True) from error
        except ClosedEarlyError:
            raise
        except UpstreamError as error:
            raise UnreachableError(str(error)) from error
        finally:
            waiting.cancel()

    async def _pass_on(self, connection: Connection, send: Send) -> None:
        """Pass the answer on.

        One that breaks off must not look complete: the server closes the connection to the client on an exception.
        """
        headers = [(n, v) for n, v in connection.headers if n not in _HOP_BY_HOP]
        start: Message = {
            "type": "http.response.start",
            "status": connection.status,
            "headers": headers,
        }
        await send(start)
        async for piece in connection.pieces(self._timeout_seconds):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def _head(scope: Scope, body: Body) -> tuple[bytes, bool]:
    """Write the head of the request; tell whether the body follows in chunks, as its length is not known."""
    headers = [(n, v) for n, v in scope["headers"] if n not in _HOP_BY_HOP]
    is_chunked = False
    if not any(name == b"content-length" for name, _ in headers):
        if not body.complete:
            is_chunked = True
            headers.append((b"transfer-encoding", b"chunked"))
        elif body.first:
            headers.append((b"content-length", b"%d" % len(body.first)))
    query = scope["query_string"]
    target = (scope["raw_path"] or b"/") + (b"?" + query if query else b"")
    return request_head(scope["method"], target, headers), is_chunked


async def _send_body(connection: Connection, head: bytes, body: Body, *, is_chunked: bool) -> None:
    """Send a body as it comes."""
    await connection.send(head)
    piece = body.first
    while True:
        if piece:
            await connection.send(b"%x\r\n%s\r\n" % (len(piece), piece) if is_chunked else piece)
        if body.complete:
            break
        piece = await body.next()
    if is_chunked:
        await connection.send(b"0\r\n\r\n")
