"""The little of HTTP that the hot routes need, on bare ASGI: headers, a bounded body, one answer."""

import asyncio
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count
from secrets import token_hex

from starlette.types import Message, Receive, Send

from canarium_runtime.errors import ErrorKind, ServingError

REQUEST_ID = b"x-request-id"
REVISION = b"x-canarium-revision"
JSON = (b"content-type", b"application/json")
_SAFE_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_prefix = token_hex(6)
_numbers = count(1)


@dataclass(slots=True)
class Head:
    """What the server looks at in a request's headers."""

    request_id: str
    content_length: int | None = None
    encoding: bytes = b""
    is_binary: bool = False
    """The body holds V2 binary tensors."""


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
    for name, value in headers:
        if name == b"content-length":
            head.content_length = int(value) if value.isdigit() else None
        elif name == REQUEST_ID:
            if _SAFE_ID.fullmatch(value):
                head.request_id = value.decode("ascii")
        elif name == b"content-encoding":
            head.encoding = value
        elif name == b"inference-header-content-length":
            head.is_binary = True
    if not head.request_id:
        head.request_id = new_request_id()
    return head


async def read_body(
    receive: Receive, head: Head, max_bytes: int, timeout: asyncio.Timeout
) -> bytes:
    """Read the whole body, but never more than `max_bytes`.

    Raises:
        ServingError: BODY_TOO_LARGE, BODY_TOO_SLOW, CLIENT_GONE or UNSUPPORTED_ENCODING.
    """
    if head.encoding and head.encoding.lower() != b"identity":
        raise ServingError(
            ErrorKind.UNSUPPORTED_ENCODING, "compressed bodies are not supported: send plain JSON"
        )
    if head.is_binary:
        raise ServingError(
            ErrorKind.UNSUPPORTED_ENCODING, "binary tensor data is not supported: use JSON"
        )
    if head.content_length is not None and head.content_length > max_bytes:
        raise _too_large(max_bytes, f"{head.content_length} bytes")
    chunks: list[bytes] = []
    size = 0
    try:
        async with timeout:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ServingError(ErrorKind.CLIENT_GONE, "the client closed the connection")
                chunk: bytes = message.get("body", b"")
                size += len(chunk)
                if size > max_bytes:
                    raise _too_large(max_bytes, "more")
                chunks.append(chunk)
                if not message.get("more_body", False):
                    return chunk if len(chunks) == 1 else b"".join(chunks)
    except TimeoutError:
        text = "the body did not arrive within the request timeout"
        raise ServingError(ErrorKind.BODY_TOO_SLOW, text) from None


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
