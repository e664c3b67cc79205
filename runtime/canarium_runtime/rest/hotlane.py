"""The hot lane: predictions answered in the connection's own protocol, without an ASGI scope, a task or an event.

Theory of operation. A uvicorn connection looks at what arrives before its parser does. Bytes that begin with the
request line of a prediction route, and hold a whole, ordinary head, are taken here: the body is gathered, an `Exchange`
answers, and the response is written. Everything else goes the ordinary way, through uvicorn's parser to the
application, which has the same routes: other paths and methods, heads in pieces, chunked or compressed bodies, Expect,
Upgrade, HTTP/1.0, a second request behind the first. Both ways drive the same exchanges, so answers, errors and counts
are the same (tests/integration/runtime/test_doors.py).

The head is parsed by httptools, like any other; one that came before, byte for byte, is remembered, as clients that
keep their connection and add no request id send the same head each time.

Two rules keep the two ways apart. A request is taken only where the parser stands between two requests and nothing is
being answered; and while one is being answered here, whatever else the client sends waits (`_backlog`), with reading
paused, so that it is bounded by what one read brings.
"""

import asyncio
import re
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from canarium_runtime.errors import ErrorKind, ServingError
from canarium_runtime.rest import http
from canarium_runtime.rest.endpoints import CERTIFICATE, ON_LOST, Predictor
from canarium_runtime.rest.exchange import NOBODY, Exchange, Peer, Reply, Route

_END = b"\r\n\r\n"
_MAX_HEAD_BYTES = 16 * 1024
_REMEMBERED_HEADS = 512
_SWEEP_SECONDS = 1.0
_EACH_OWN = re.compile(rb"\r\n(?:x-request-id|traceparent):", re.IGNORECASE)
"""Headers that differ from request to request: such heads are not worth remembering."""


class _Head:
    """A parsed head that the hot lane can serve."""

    __slots__ = ("head", "keep_alive", "length", "route")

    def __init__(
        self,
        route: Route,
        headers: list[tuple[bytes, bytes]],
        length: int,
        keep_alive: bool,
    ) -> None:
        self.route = route
        self.length = length
        self.keep_alive = keep_alive
        self.head = http.read_head(headers)
        """What the headers say; its request id is not to be used again where the client sent none."""


class _Collector:
    """Takes the parser's callbacks for one head."""

    __slots__ = ("complete", "headers")

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.complete = True


class HotLane:
    """What the connections of one server share.

    Args:
        predictor: knows the routes.
        answers: whether predictions are answered here; else all go the ordinary way.
    """

    def __init__(self, predictor: Predictor, *, answers: bool = True) -> None:
        self.predictor = predictor
        self._routes = {
            b"POST %b HTTP/1.1\r\n" % path.encode(): route
            for path, route in (predictor.routes.items() if answers else ())
        }
        self.request_lines = tuple(self._routes)
        self._heads: dict[bytes, _Head | None] = {}
        self._default_headers: Any = None
        self._prefixes: dict[int, bytes] = {}
        self.reading: set[HotLaneProtocol] = set()
        """Connections whose body is not complete."""
        self.connections: set[HotLaneProtocol] = set()
        self._timer: asyncio.TimerHandle | None = None

    def head(self, raw: bytes) -> _Head | None:
        """Parse a head, or remember it; None: it must go the ordinary way.

        Args:
            raw: from the request line to the empty line.
        """
        known = self._heads
        if raw in known:
            return known[raw]
        head = self._parse(raw)
        if _EACH_OWN.search(raw) is None:
            if len(known) >= _REMEMBERED_HEADS:
                known.clear()
            known[raw] = head
        return head

    def _parse(self, raw: bytes) -> _Head | None:
        collector = _Collector()
        parser = httptools.HttpRequestParser(collector)
        try:
            parser.feed_data(raw)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return None
        lengths = [value for name, value in collector.headers if name == b"content-length"]
        unusual = {name for name, _ in collector.headers} & _UNUSUAL
        if not collector.complete or unusual or len(lengths) != 1 or parser.should_upgrade():
            return None
        route = self._routes[raw[: raw.index(b"\r\n") + 2]]
        return _Head(route, collector.headers, int(lengths[0]), parser.should_keep_alive())

    def prefix(self, status: int, default_headers: list[tuple[bytes, bytes]]) -> bytes:
        """Give the beginning of a response, which is the same for a second (it holds the date)."""
        if default_headers is not self._default_headers:
            self._default_headers = default_headers
            self._prefixes.clear()
        made = self._prefixes.get(status)
        if made is None:
            lines = [b"HTTP/1.1 %d %b" % (status, HTTPStatus(status).phrase.encode())]
            headers = [*default_headers, self.predictor.revision]
            lines += [b"%b: %b" % header for header in headers]
            made = self._prefixes[status] = b"\r\n".join((*lines, b"x-request-id: "))
        return made

    def watch(self) -> None:
        """Begin to look at slow bodies and idle connections, unless that goes on already."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """One timer for all connections: a timeout for each request would cost more than parsing its head."""
        self._timer = None
        now = time.monotonic()
        for connection in [*self.reading]:
            connection.give_up_reading(now)
        for connection in [*self.connections]:
            connection.close_if_idle(now)
        if self.connections:
            self.watch()


_UNUSUAL = frozenset(
    {b"transfer-encoding", b"content-encoding", b"expect", b"upgrade", b"trailer", b"te"}
)


class HotLaneProtocol(HttpToolsProtocol):
    """One connection; see the module. Made by `protocol_class`, which says whose lane it is."""

    lane: HotLane

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._between = True
        """The ordinary parser stands between two requests."""
        self._exchange: Exchange | None = None
        self._keep_alive = True
        self._chunks: list[bytes] = []
        self._missing = 0
        self._backlog = b""
        self._idle_since = 0.0
        self._peer = NOBODY

    def data_received(self, data: bytes) -> None:
        """Take a prediction, or leave the bytes to the ordinary parser."""
        if self._missing:
            self._more_body(data)
            return
        if self._exchange is not None:
            self._hold(data)
            return
        if data.startswith(self.lane.request_lines) and self._is_free() and self._take(data):
            return
        self._idle_since = 0.0  # from here on uvicorn's own timer looks after it
        super().data_received(data)

    def _is_free(self) -> bool:
        return (
            self._between
            and (self.cycle is None or self.cycle.response_complete)
            and not self.flow.write_paused
            and not self.transport.is_closing()
        )

    def _take(self, data: bytes) -> bool:
        """Begin to answer a prediction here; False: it must go the ordinary way."""
        end = data.find(_END, 0, _MAX_HEAD_BYTES) + len(_END)
        if end < len(_END):
            return False
        parsed = self.lane.head(data[:end])
        if parsed is None:
            return False
        missing = parsed.length - (len(data) - end)
        if missing < 0:  # another request behind it
            return False
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        self._keep_alive = parsed.keep_alive
        self._missing = missing
        head = parsed.head
        request_id = head.request_id if head.has_id else http.new_request_id()
        exchange = self._exchange = Exchange(
            parsed.route, head, request_id, self._reply, self._peer
        )
        if not exchange.open():
            return True
        try:
            http.check_head(head, self.lane.predictor.max_body_bytes)
        except ServingError as error:
            exchange.fail(error)
            return True
        if missing:
            self._chunks.append(data[end:])
            self.lane.reading.add(self)
        else:
            exchange.receive(data[end:])
        return True

    def _more_body(self, data: bytes) -> None:
        """Take the next bytes of a body, also of one whose request is answered already."""
        missing = self._missing
        if len(data) > missing:
            data, rest = data[:missing], data[missing:]
            self._hold(rest)
        self._missing = missing = missing - len(data)
        exchange = self._exchange
        if exchange is not None:
            self._chunks.append(data)
        if missing:
            return
        if exchange is None:
            self._next()
            return
        self.lane.reading.discard(self)
        body = b"".join(self._chunks)
        self._chunks.clear()
        exchange.receive(body)

    def _hold(self, data: bytes) -> None:
        self._backlog += data
        self.flow.pause_reading()

    def _reply(self, reply: Reply) -> None:
        """Write a response."""
        lane = self.lane
        self._exchange = None
        closing = lane.predictor.leaving or not self._keep_alive
        if self._missing:
            # Refused while its body was on its way. The rest is read and dropped, as closing the connection on a
            # client that still sends would lose it the answer; but not without bound.
            self._chunks.clear()
            lane.reading.discard(self)
            closing |= self._missing > lane.predictor.max_body_bytes
        body = reply.body
        parts = [
            lane.prefix(reply.status, self.server_state.default_headers),
            reply.request_id.encode(),
            b"\r\nconnection: close" if closing else b"",
        ]
        if reply.headers:
            parts += [b"\r\n%b: %b" % header for header in reply.headers]
        if reply.json_bytes is None:
            parts.append(b"\r\ncontent-type: application/json\r\ncontent-length: ")
        else:
            parts.append(
                b"\r\ncontent-type: application/octet-stream"
                b"\r\ninference-header-content-length: %d\r\ncontent-length: " % reply.json_bytes
            )
        parts += (b"%d" % len(body), _END, body)
        self.transport.write(b"".join(parts))
        self.server_state.total_requests += 1
        if closing:
            self.transport.close()
            return
        self._next()

    def _next(self) -> None:
        """Be ready for the next request."""
        self._idle_since = time.monotonic()
        if self._backlog:
            self.loop.call_soon(self._read_backlog)

    def _read_backlog(self) -> None:
        if self._exchange is None and not self.flow.write_paused and self._backlog:
            data, self._backlog = self._backlog, b""
            self.flow.resume_reading()
            if self.parser is not None:  # None: the connection is lost
                self.data_received(data)

    def give_up_reading(self, now: float) -> None:
        """Answer a request whose body has not arrived in time."""
        exchange = self._exchange
        if exchange is not None and self._missing and exchange.deadline <= now:
            text = "the body did not arrive within the request timeout"
            self._keep_alive = False
            exchange.fail(ServingError(ErrorKind.BODY_TOO_SLOW, text))

    def close_if_idle(self, now: float) -> None:
        """Close a connection that has been idle since its last prediction for longer than it may."""
        if (
            self._idle_since
            and self._exchange is None
            and now - self._idle_since > self.timeout_keep_alive
        ):
            self.transport.close()

    # --- what uvicorn tells

    def connection_made(self, transport: Any) -> None:
        """Note a connection."""
        super().connection_made(transport)
        address = self.client[0] if self.client else ""
        certificate = ""
        if shown := transport.get_extra_info("peercert"):
            from canarium_runtime.security.tls import subject_of  # with TLS only

            certificate = subject_of(shown)
        self._peer = Peer(address, certificate)
        self.lane.connections.add(self)
        self.lane.watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give up what is being answered, on either way."""
        self.lane.connections.discard(self)
        self.lane.reading.discard(self)
        self._backlog = b""
        if self._exchange is not None:
            self._exchange.abandon()
            self._exchange = None
        if self.cycle is not None:
            scope: dict[str, Any] = {**self.cycle.scope}
            if (abandon := scope.get(ON_LOST)) is not None:
                abandon()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        """Leave the connection to the protocol of WebSockets, which is told of its end from then on."""
        self.lane.connections.discard(self)
        super().handle_websocket_upgrade()

    def shutdown(self) -> None:
        """Close, after what is being answered."""
        if self._exchange is None:
            super().shutdown()
        else:
            self._keep_alive = False

    def resume_writing(self) -> None:
        """Go on, now that the client has read its answers."""
        super().resume_writing()
        if self._backlog:
            self.loop.call_soon(self._read_backlog)

    def on_message_begin(self) -> None:
        """Note where the parser stands."""
        self._between = False
        super().on_message_begin()
        if self._peer.certificate:
            scope: dict[str, Any] = self.scope  # type: ignore[assignment] # with an entry of our own
            scope[CERTIFICATE] = self._peer.certificate

    def on_message_complete(self) -> None:
        """Note where the parser stands."""
        self._between = True
        super().on_message_complete()


def protocol_class(predictor: Predictor, *, answers: bool = True) -> Callable[..., HotLaneProtocol]:
    """Make the class of a server's connections, as `uvicorn.Config(http=...)` takes it; see `HotLane`."""
    return type("Connection", (HotLaneProtocol,), {"lane": HotLane(predictor, answers=answers)})
