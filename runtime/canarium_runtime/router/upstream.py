"""Connections to servers: HTTP/1.1 on asyncio streams, just what a router needs, at a tenth of a client library's cost.

A connection carries one exchange at a time and is then kept for the next one. Whoever closes it may hit a request that
is on its way; `ClosedEarlyError` says that this has happened to a connection that had been used before and has given
not one byte of an answer, which is when a request may be sent again.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from typing import Final
from urllib.parse import urlsplit

import httptools

READ_BYTES: Final = 64 * 1024
IDLE_SECONDS: Final = 60.0
"""Model servers keep idle connections for longer than an hour."""
MAX_HEAD_BYTES: Final = 64 * 1024
"""Of an answer's headers."""
Headers = list[tuple[bytes, bytes]]


class UpstreamError(Exception):
    """A server could not be reached, or broke off."""


class ClosedEarlyError(UpstreamError):
    """A used connection was closed before a byte of an answer came."""


class Connection:
    """One connection to a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._head_done = self._done = False
        self._head_bytes = 0
        self._bodiless = False
        self._to_the_end = True
        self.used = False
        self.idle_since = 0.0
        self.status = 0
        self.headers: Headers = []

    # --- callbacks of the parser

    def on_message_begin(self) -> None:
        """Begin an answer, also one of those before the final one (100 Continue)."""
        self.headers = []
        self._to_the_end = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        name = name.lower()
        self._head_bytes += len(name) + len(value)
        if name in (b"content-length", b"transfer-encoding"):
            self._to_the_end = False
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Take the status."""
        self.status = self._parser.get_status_code()
        self._head_done = self.status >= 200
        if self._head_done and self._bodiless:
            self._done = True

    def on_body(self, body: bytes) -> None:
        """Take a piece."""
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        """End an answer."""
        if self._head_done:
            self._done = True

    # --- one exchange

    @property
    def is_alive(self) -> bool:
        """Whether it may be used again, as far as this side knows."""
        fresh = time.monotonic() < self.idle_since + IDLE_SECONDS
        return fresh and not self._reader.at_eof() and not self._writer.is_closing()

    async def send(self, data: bytes) -> None:
        """Send bytes, at the pace of the server.

        Raises:
            OSError: the connection is broken.
        """
        self._writer.write(data)
        await self._writer.drain()

    def expect(self, *, head_only: bool) -> None:
        """Make ready for an answer.

        Args:
            head_only: it has no body whatever its headers say (HEAD).
        """
        # A parser that has seen the end of a connection cannot go on; a new one costs a microsecond.
        self._parser = httptools.HttpResponseParser(self)
        self._pieces = []
        self._head_done = self._done = False
        self._head_bytes = 0
        self._bodiless = head_only

    async def head(self, timeout_seconds: float | None) -> None:
        """Wait for status and headers.

        Args:
            timeout_seconds: None: for as long as it takes.

        Raises:
            ClosedEarlyError: see above.
            UpstreamError: the server broke off, or does not speak HTTP.
            TimeoutError: nothing came in time.
        """
        any_byte = False
        async with asyncio.timeout(timeout_seconds):
            while not self._head_done:
                try:
                    data = await self._reader.read(READ_BYTES)
                except OSError as error:
                    data, cause = b"", repr(error)
                else:
                    cause = "connection closed"
                if not data:
                    early = self.used and not any_byte
                    raise (ClosedEarlyError if early else UpstreamError)(cause)
                any_byte = True
                self._feed(data)
                if self._head_bytes > MAX_HEAD_BYTES:
                    msg = f"headers of more than {MAX_HEAD_BYTES} bytes"
                    raise UpstreamError(msg)

    async def pieces(self, timeout_seconds: float) -> AsyncIterator[bytes]:
        """Give the body as it comes.

        Raises:
            UpstreamError: it broke off.
            TimeoutError: nothing came in time.
        """
        while True:
            ready, self._pieces = self._pieces, []
            if ready:
                yield ready[0] if len(ready) == 1 else b"".join(ready)
            if self._done:
                return
            async with asyncio.timeout(timeout_seconds):
                try:
                    data = await self._reader.read(READ_BYTES)
                except OSError as error:
                    raise UpstreamError(repr(error)) from error
            if data:
                self._feed(data)
            elif self._to_the_end:
                self._done = True
            else:
                msg = "connection closed within an answer"
                raise UpstreamError(msg)

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise UpstreamError(repr(error)) from error

    @property
    def is_reusable(self) -> bool:
        """Whether the exchange is over, and the server keeps the connection."""
        return self._done and not self._to_the_end and bool(self._parser.should_keep_alive())

    def close(self) -> None:
        """Close it, without waiting."""
        self._writer.close()


class Pool:
    """Connections by server.

    Args:
        max_idle: kept connections, of all servers together.
        connect_seconds: longest wait for a connection.
    """

    def __init__(self, max_idle: int, connect_seconds: float) -> None:
        self._idle: dict[str, list[Connection]] = defaultdict(list)
        self._max_idle = max_idle
        self._connect_seconds = connect_seconds

    async def take(self, base: str, *, fresh: bool = False) -> Connection:
        """Give a connection: the one that was used last, or a new one.

        Args:
            base: `http://HOST:PORT`.
            fresh: not one that was used before.

        Raises:
            UpstreamError: the server cannot be reached.
        """
        while not fresh and self._idle[base]:
            connection = self._idle[base].pop()
            if connection.is_alive:
                connection.used = True
                return connection
            connection.close()
        address = urlsplit(base)
        try:
            async with asyncio.timeout(self._connect_seconds):
                streams = await asyncio.open_connection(
                    address.hostname, address.port, limit=READ_BYTES
                )
        except (OSError, TimeoutError) as error:
            raise UpstreamError(repr(error)) from error
        return Connection(*streams)

    def give_back(self, base: str, connection: Connection) -> None:
        """Keep a connection for the next request, if it may be used again."""
        room = sum(map(len, self._idle.values())) < self._max_idle
        if not room or not connection.is_reusable:
            connection.close()
            return
        connection.idle_since = time.monotonic()
        self._idle[base].append(connection)

    def close(self) -> None:
        """Close what is kept."""
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()


def request_head(method: str, target: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Write the head of a request."""
    lines = [b"%s %s HTTP/1.1" % (method.encode(), target)]
    lines += [b"%s: %s" % header for header in headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"
