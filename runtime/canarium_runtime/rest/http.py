"""The little of HTTP that the hot routes need, on bare ASGI: headers, a bounded body, one answer."""

import asyncio
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count
from secrets import token_hex
from typing import Any

from starlette.types import Message, Receive, Send

from canarium_runtime.errors import ErrorKind, ServingError, invalid
from canarium_runtime.rest import bodies
from canarium_runtime.rest.wishes import PRIORITY, TIMEOUT, Wishes, wishes_of_headers

REQUEST_ID = b"x-request-id"
REVISION = b"x-canarium-revision"
TRACEPARENT = b"traceparent"
TRACESTATE = b"tracestate"
JSON_BYTES = b"inference-header-content-length"
JSON = (b"content-type", b"application/json")
BINARY = (b"content-type", b"application/octet-stream")
_SWEEP_SECONDS = 1.0
_SAFE_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_MAX_DIGITS = 18
_prefix = token_hex(6)
_numbers = count(1)


@dataclass(slots=True, repr=False)
class Head:
    """What the server looks at in a request's headers. It has no repr that tells: it holds secrets."""

    request_id: str
    content_length: int | None = None
    encoding: bytes = b""
    json_bytes: int | None = None
    """How much of the body is JSON, where V2 binary tensors follow; None: all of it."""
    authorization: bytes = b""
    api_key: bytes = b""
    has_id: bool = False
    """The request id came with the request; else it is this server's own."""
    traceparent: bytes = b""
    """W3C trace context; two such headers, which are none, stand one behind the other."""
    tracestate: bytes = b""
    wishes: Wishes | ServingError | None = None
    """About its turn; or what is wrong with them."""


@dataclass(slots=True)
class Answer:
    """A complete response."""

    status: int
    body: bytes
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    media: tuple[bytes, bytes] = JSON


def new_request_id() -> str:
    """Make an id that is unique among all servers: a random start, and a number."""
    return f"{_prefix}-{next(_numbers):x}"


def read_head(headers: Iterable[tuple[bytes, bytes]]) -> Head:
    """Pick the headers that matter. A request id of the client is kept if it is 1 to 128 visible characters."""
    head = Head("")
    priority = timeout = b""
    for name, value in headers:
        if name == b"content-length":
            head.content_length = _size(value)
        elif name == REQUEST_ID:
            if _SAFE_ID.fullmatch(value):
                head.request_id = value.decode("ascii")
                head.has_id = True
        elif name == b"authorization":
            head.authorization = value
        elif name == b"x-api-key":
            head.api_key = value
        elif name == b"content-encoding":
            head.encoding = value.lower()
        elif name == TRACEPARENT:
            head.traceparent += value
        elif name == TRACESTATE:
            head.tracestate += b"," + value if head.tracestate else value
        elif name == PRIORITY:
            priority = value
        elif name == TIMEOUT:
            timeout = value
        elif name == JSON_BYTES:
            size = _size(value)
            head.json_bytes = -1 if size is None else size
    if priority or timeout:
        head.wishes = wishes_of_headers(priority, timeout)
    if not head.request_id:
        head.request_id = new_request_id()
    return head


def _size(value: bytes) -> int | None:
    return int(value) if value.isdigit() and len(value) <= _MAX_DIGITS else None


class BodyReader:
    """Reads bodies within bounds of size and time.

    One timer looks at all bodies that are being read: a timeout for each would cost every request more than reading
    its body, which has nearly always arrived.

    Args:
        max_bytes: largest body.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._reading: dict[asyncio.Task[Any], float] = {}
        self._expired: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def read(self, receive: Receive, head: Head, deadline: float) -> bytes:
        """Read the whole body.

        Args:
            receive: of the ASGI connection.
            head: headers of the request.
            deadline: instant of `time.monotonic()`; up to a second more is given.

        Raises:
            ServingError: BODY_TOO_LARGE, BODY_TOO_SLOW, CLIENT_GONE or UNSUPPORTED_ENCODING.
        """
        check_head(head, self._max_bytes)
        body = await self._read_in_time(receive, deadline)
        if head.encoding in bodies.WINDOWS:
            return await asyncio.to_thread(bodies.decompress, body, head.encoding, self._max_bytes)
        return body

    async def _read_in_time(self, receive: Receive, deadline: float) -> bytes:
        task = asyncio.current_task()
        if task is None:
            return await self._read(receive)
        self._reading[task] = deadline
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep)
        try:
            return await self._read(receive)
        except asyncio.CancelledError:
            if task not in self._expired:
                raise
            task.uncancel()
            text = "the body did not arrive within the request timeout"
            raise ServingError(ErrorKind.BODY_TOO_SLOW, text) from None
        finally:
            del self._reading[task]
            self._expired.discard(task)

    async def _read(self, receive: Receive) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ServingError(ErrorKind.CLIENT_GONE, "the client closed the connection")
            chunk: bytes = message.get("body", b"")
            size += len(chunk)
            if size > self._max_bytes:
                raise _too_large(self._max_bytes, "more")
            chunks.append(chunk)
            if not message.get("more_body", False):
                return chunk if len(chunks) == 1 else b"".join(chunks)

    def _sweep(self) -> None:
        now = time.monotonic()
        for task, deadline in self._reading.items():
            if deadline <= now and task not in self._expired:
                self._expired.add(task)
                task.cancel()
        running = asyncio.get_running_loop()
        self._timer = running.call_later(_SWEEP_SECONDS, self._sweep) if self._reading else None


def check_head(head: Head, max_bytes: int) -> None:
    """Refuse a request whose headers say that its body cannot be read.

    Raises:
        ServingError: UNSUPPORTED_ENCODING, MALFORMED or BODY_TOO_LARGE.
    """
    if head.encoding and head.encoding != b"identity" and head.encoding not in bodies.WINDOWS:
        known = ", ".join(name.decode() for name in bodies.WINDOWS)
        raise ServingError(
            ErrorKind.UNSUPPORTED_ENCODING,
            f"Content-Encoding is none that is read here: send the body plain, or as one of {known}",
        )
    if head.json_bytes is not None and head.json_bytes < 0:
        raise invalid(
            "Inference-Header-Content-Length",
            "a number of bytes",
            "something else",
            kind=ErrorKind.MALFORMED,
        )
    if head.content_length is not None and head.content_length > max_bytes:
        raise _too_large(max_bytes, f"{head.content_length} bytes")


def _too_large(max_bytes: int, got: str) -> ServingError:
    expected = f"at most {max_bytes} bytes"
    return ServingError(
        ErrorKind.BODY_TOO_LARGE,
        f"the body is too large: {expected}, got {got}",
        field="body",
        expected=expected,
        got=got,
    )


async def send_answer(send: Send, answer: Answer) -> None:
    """Send a complete response."""
    start: Message = {
        "type": "http.response.start",
        "status": answer.status,
        "headers": [answer.media, (b"content-length", b"%d" % len(answer.body)), *answer.headers],
    }
    await send(start)
    await send({"type": "http.response.body", "body": answer.body})
