"""One request to one version: streamed both ways, retried only where nothing can have happened.

A connection that a server closes just as a request goes out on it is no answer. Such a request is sent once more if it
was small enough to keep; model servers do not mind being asked twice. Everything else that goes wrong is the client's
to see: 502 where a version cannot be reached, 504 where it does not answer in time.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import httpx
from starlette.types import Message, Receive, Scope, Send

from canarium_api.split import HEADER

KEPT_BYTES: Final = 256 * 1024
"""Of a body, so much is kept for a second try."""
CONNECT_SECONDS: Final = 3.0
"""Within a cluster, a connection takes milliseconds."""
IDLE_SECONDS: Final = 60.0
"""Servers keep idle connections longer."""
_HOP_BY_HOP: Final = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer",
        b"transfer-encoding", b"upgrade", b"proxy-connection", HEADER.encode(),
    }
)  # fmt: skip
"""Headers of one connection, not of the request (RFC 9110, section 7.6.1), and the one that is for us."""
_RETRIED: Final = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)


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
    """The body of a request: what has come so far, and how to get the rest."""

    receive: Receive
    max_bytes: int
    size: int = 0
    kept: bytes | None = b""
    """All of it so far; None: more than is kept, so there is no second try."""
    complete: bool = False

    async def start(self) -> None:
        """Read the first piece, which mostly is all of it."""
        await self._next()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Give what was read so far, and then the rest as it comes."""
        if self.kept:
            yield self.kept
        while not self.complete:
            piece = await self._next()
            if piece:
                yield piece

    async def _next(self) -> bytes:
        message = await self.receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        piece: bytes = message.get("body", b"")
        self.size += len(piece)
        if self.size > self.max_bytes:
            raise BodyTooLargeError
        self.complete = not message.get("more_body", False)
        if self.kept is not None:
            within = len(self.kept) + len(piece) <= KEPT_BYTES
            self.kept = self.kept + piece if within else None
        return piece


class Forwarder:
    """Connections to the versions.

    Args:
        timeout_seconds: longest wait for the beginning, or the next piece, of an answer.
        max_connections: to all versions together.
        max_body_bytes: largest body.
    """

    def __init__(self, timeout_seconds: float, max_connections: int, max_body_bytes: int) -> None:
        self._max_body_bytes = max_body_bytes
        self._timeout = {
            "connect": CONNECT_SECONDS,
            "read": timeout_seconds,
            "write": timeout_seconds,
            "pool": timeout_seconds,
        }
        # The transport alone: what a client adds (cookies, redirects, its own headers) is not wanted, and costs.
        self._transport = httpx.AsyncHTTPTransport(
            retries=2,
            trust_env=False,
            limits=httpx.Limits(
                max_connections=max_connections,
                max_keepalive_connections=max_connections,
                keepalive_expiry=IDLE_SECONDS,
            ),
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.aclose()

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
        answer = await self._ask(base, scope, body)
        began = False
        try:
            headers = [(n.lower(), v) for n, v in answer.headers.raw]
            start: Message = {
                "type": "http.response.start",
                "status": answer.status_code,
                "headers": [(n, v) for n, v in headers if n not in _HOP_BY_HOP],
            }
            await send(start)
            began = True
            async for piece in answer.stream:  # type: ignore[union-attr]
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except httpx.HTTPError as error:
            # An answer that broke off must not look complete: the server closes the connection on an exception.
            raise RuntimeError(f"the answer broke off: {error!r}") from error
        finally:
            await answer.aclose()
        assert began  # noqa: S101
        return answer.status_code

    async def _ask(self, base: str, scope: Scope, body: Body) -> httpx.Response:
        path = scope["raw_path"] or b"/"
        query = scope["query_string"]
        url = httpx.URL(base).copy_with(raw_path=path + (b"?" + query if query else b""))
        headers = [(n, v) for n, v in scope["headers"] if n not in _HOP_BY_HOP]
        has_length = any(name == b"content-length" for name, _ in headers)
        if not has_length and not (body.complete and not body.kept):
            headers.append((b"transfer-encoding", b"chunked"))
        tries = 0
        while True:
            tries += 1
            whole = body.complete and body.kept is not None
            request = httpx.Request(
                scope["method"],
                url,
                headers=headers,
                stream=_Bytes(body.kept or b"") if whole else _Stream(body),
                extensions={"timeout": self._timeout},
            )
            try:
                return await self._transport.handle_async_request(request)
            except _RETRIED as error:
                if tries == 1 and whole:
                    continue
                raise UnreachableError(repr(error)) from error
            except httpx.TimeoutException as error:
                slow = not isinstance(error, httpx.ConnectTimeout)
                raise UnreachableError(repr(error), timed_out=slow) from error
            except httpx.HTTPError as error:
                raise UnreachableError(repr(error)) from error


class _Bytes(httpx.AsyncByteStream):
    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._content:
            yield self._content


class _Stream(httpx.AsyncByteStream):
    def __init__(self, body: Body) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._body.chunks():
            yield piece
