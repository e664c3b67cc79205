"""One prediction over HTTP, from the head of a request to its answer; every HTTP door drives one of these.

    exchange = Exchange(predictor, route, head, reply)
    exchange.open()            a place in the server; False: refused, and answered already
    exchange.receive(body)     decode, run, encode
    exchange.fail(error)       instead, when the body does not come
    exchange.abandon()         the client has gone

`reply` is called exactly once with the answer, unless the exchange is abandoned. It may be called before `open` or
`receive` return.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from canarium_api.metric_names import PredictionStatus
from canarium_runtime.audit.log import AuditLog
from canarium_runtime.backends.base import Array, ModelSpec
from canarium_runtime.batching.merge import Outputs
from canarium_runtime.errors import ErrorKind, ServingError
from canarium_runtime.fallback.chain import FALLBACK
from canarium_runtime.protection import Protection
from canarium_runtime.rest.codec import Call, Codec, Identity, MakeCodec
from canarium_runtime.rest.errors import STATUS_OF_KIND, error_body, error_headers
from canarium_runtime.rest.http import BINARY, JSON_BYTES, Answer, Head
from canarium_runtime.rest.wishes import Wishes
from canarium_runtime.security import Credentials, Guard
from canarium_runtime.service import InferenceService, Prediction, status_of
from canarium_runtime.tracing.trace import Door, Trace, Tracer

_log = logging.getLogger(__name__)
_SERVER_ERRORS = 500
_LOGGED_PER_SECOND = 10
"""Failures logged in detail; a model that fails on everything must not fill the node's disk."""


@dataclass(slots=True)
class Reply:
    """What a prediction's client is told, before it has the form of one door."""

    status: int
    body: bytes
    request_id: str
    json_bytes: int | None = None
    """How much of the body is JSON, where V2 binary tensors follow; None: all of it."""
    headers: Sequence[tuple[bytes, bytes]] = ()
    """Of this answer alone."""
    error: ServingError | None = None
    """Why there is no prediction, for doors that say it otherwise than by HTTP's status; None: `body` is one."""

    def answer(self, stamps: Iterable[tuple[bytes, bytes]]) -> Answer:
        """Give it the form of a response; `stamps` are the headers that every response has."""
        headers = [*stamps, *self.headers]
        if self.json_bytes is None:
            return Answer(self.status, self.body, headers)
        headers.append((JSON_BYTES, b"%d" % self.json_bytes))
        return Answer(self.status, self.body, headers, BINARY)


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection."""

    address: str = ""
    """Without its port."""
    certificate: str = ""
    """Subject of its certificate, checked by the transport; "": it showed none."""


NOBODY = Peer()


class Route:
    """One of the paths that predictions come to: a model, and the protocol of the bodies.

    Args:
        service: the model.
        identity: what answers say about it.
        make_codec: the protocol.
        protection: who may ask, and what is recorded; None: everybody, nothing.
        door: how traces show what comes here; None: nothing is traced.
        gathers: whether requests that come together are read together; see `Codec.decode_together`.
    """

    def __init__(
        self,
        service: InferenceService,
        identity: Identity,
        make_codec: MakeCodec,
        protection: Protection | None = None,
        door: Door | None = None,
        *,
        gathers: bool = False,
    ) -> None:
        self.service = service
        self.identity = identity
        self.guard = None if protection is None else protection.guard
        self.audit = None if protection is None else protection.audit
        self._make_codec = make_codec
        self._codec: Codec | None = None
        self.door = door
        self.model_attributes = {
            "canarium.model.name": identity.model_name,
            "canarium.model.version": identity.model_version,
            "canarium.revision": identity.revision,
        }
        self._spec: ModelSpec | None = None
        self.gathers = gathers
        self._gathered: list[Exchange] = []
        """Requests that came in this turn of the event loop, and are not read."""

    @property
    def codec(self) -> Codec:
        """The protocol's codec for the model.

        Raises:
            ServingError: NOT_READY while no model is loaded.
        """
        spec = self.service.spec
        if self._codec is None or self._spec is not spec:
            # For the first time, or because another model came when it was loaded again.
            self._spec = spec
            self._codec = self._make_codec(spec, self.identity, self.service.rules.reader)
        return self._codec

    def gather(self, exchange: "Exchange") -> None:
        """Read a request when all that came with it are here, which is at the end of this turn of the event loop."""
        if not self._gathered:
            asyncio.get_running_loop().call_soon(self._read_gathered)
        self._gathered.append(exchange)

    def part(self, exchange: "Exchange") -> None:
        """Undo `gather` for a request that nobody waits for."""
        if exchange in self._gathered:
            self._gathered.remove(exchange)

    def _read_gathered(self) -> None:
        gathered, self._gathered = self._gathered, []
        calls: Sequence[Call | None] = ()
        if len(gathered) > 1 and self.service.answering:
            calls = self.codec.decode_together([exchange.body for exchange in gathered])
        for exchange, call in zip_longest(gathered, calls):
            exchange.run(call)
        # Now: in another turn, those that came in between would be too late for this batch and early for the next, and
        # clients would fall into two groups that take turns.
        self.service.flush()


class Exchange:
    """See the module.

    Args:
        route: where it came to.
        head: what its headers say.
        request_id: the client's, or one of this server's own.
        reply: takes the answer.
        peer: who is at the other end.
    """

    __slots__ = (
        "_body",
        "_call",
        "_client",
        "_head",
        "_identifying",
        "_peer",
        "_prediction",
        "_reply",
        "_request_id",
        "_route",
        "_trace",
    )

    def __init__(
        self,
        route: Route,
        head: Head,
        request_id: str,
        reply: Callable[[Reply], None],
        peer: Peer = NOBODY,
    ) -> None:
        self._route = route
        self._head = head
        self._request_id = request_id
        self._reply = reply
        self._prediction: Prediction | None = None
        self._call: Call | None = None
        self._body: bytes | None = None
        self._peer = peer
        self._client = ""
        self._identifying: asyncio.Task[None] | None = None
        self._trace: Trace | None = None

    @property
    def deadline(self) -> float:
        """Instant of `time.monotonic()` after which nobody wants the answer. Only of an open exchange."""
        assert self._prediction is not None  # noqa: S101 - for the type checker
        return self._prediction.deadline

    def open(self, timeout_seconds: float | None = None) -> bool:
        """Take a place in the server; False: there is none, or not for this client, and it was told.

        Args:
            timeout_seconds: how long the client waits, where its protocol says so.
        """
        route = self._route
        if route.service.tracer is not None and route.door is not None:
            self._begin_trace(route.service.tracer, route.door)
        try:
            if route.audit is not None:
                route.audit.check()
            self._prediction = route.service.admit(self._request_id, timeout_seconds)
        except ServingError as error:
            if self._trace is not None:
                self._trace.end(error, "", time.monotonic())
            if route.service.answers.recording:
                self._record(0.0, status_of(error), None)
            self._reply(refusal(error, self._request_id))
            return False
        if self._trace is not None:
            self._prediction.trace = self._trace
        if route.guard is not None and not self._identify(route.guard):
            return False
        return self._head.wishes is None or self._grant(self._head.wishes)

    def _grant(self, wishes: Wishes | ServingError) -> bool:
        """Take what the headers say about the request's turn; False: they are wrong."""
        assert self._prediction is not None  # noqa: S101 - for the type checker
        try:
            if isinstance(wishes, ServingError):
                self.fail(wishes)
                return False
            self._prediction.want(wishes.priority, wishes.timeout_seconds)
        except ServingError as error:
            self.fail(error)
            return False
        return True

    def _begin_trace(self, tracer: Tracer, door: Door) -> None:
        head = self._head
        now = time.monotonic()
        trace = tracer.begin(door, head.traceparent, head.tracestate, now)
        if trace is not None:
            self._trace = trace
            trace.request_id = self._request_id
            trace.model = self._route.model_attributes

    def _identify(self, guard: Guard) -> bool:
        """Find out who asks; False: nobody who may."""
        head, peer = self._head, self._peer
        given = Credentials(head.authorization, head.api_key, peer.address, peer.certificate)
        try:
            client = guard.admit(given)
        except ServingError as error:
            self.fail(error)
            return False
        if client is None:
            self._identifying = asyncio.create_task(self._identify_later(guard, given))
        else:
            self._client = client.name
        return True

    async def _identify_later(self, guard: Guard, given: Credentials) -> None:
        try:
            client = await guard.admit_later(given)
        except ServingError as error:
            self._identifying = None
            self.fail(error)
            return
        self._identifying = None
        self._client = client.name
        if self._body is not None:
            self.receive(self._body)

    @property
    def body(self) -> bytes:
        """The whole body. Only of an exchange that has received it."""
        assert self._body is not None  # noqa: S101 - for the type checker
        return self._body

    def receive(self, body: bytes) -> None:
        """Answer the request, now that its body is complete."""
        prediction = self._prediction
        assert prediction is not None  # noqa: S101 - for the type checker
        self._body = body
        if self._identifying is not None:
            return
        route = self._route
        if not route.service.answering:
            route.service.when_ready(prediction, self._resume)
        elif route.gathers and self._head.json_bytes is None:
            route.gather(self)
        else:
            self.run()

    def _resume(self, error: ServingError | None) -> None:
        if error is None:
            self.run()
        else:
            self.fail(error)

    def run(self, call: Call | None = None) -> None:
        """Run the model on what was received.

        Args:
            call: the body as the codec reads it; None: it is not read yet.
        """
        prediction = self._prediction
        assert prediction is not None  # noqa: S101 - for the type checker
        try:
            if call is None:
                call = self._route.codec.decode(self.body, self._head.json_bytes)
            self._call = call
            if call.wishes is not None:
                prediction.want(call.wishes.priority, call.wishes.timeout_seconds)
            prediction.run(call.inputs, self._settled)
        except Exception as failure:  # noqa: BLE001 - a client never sees a stack trace
            self.fail(failure)

    def fail(self, error: Exception) -> None:
        """Answer with the reason why there is no prediction."""
        if self._identifying is not None:
            self._identifying.cancel()
            self._identifying = None
        self._close(error)
        if not isinstance(error, ServingError):
            note_failure(ErrorKind.INTERNAL, error, self._request_id, self._trace)
            error = ServingError(ErrorKind.INTERNAL, "internal error")
        made = refusal(error, self._request_id, self._trace)
        if self._client and self._route.audit is not None:
            self._audit(self._route.audit, status_of(error), made)
        self._reply(made)

    def abandon(self, error: ServingError | None = None) -> None:
        """Give up: nobody waits for the answer any more.

        Args:
            error: why; default: the client closed the connection.
        """
        if self._identifying is not None:
            self._identifying.cancel()
        if self._prediction is not None:
            self._prediction.cancel()
            self._route.service.forget(self._resume)
            self._route.part(self)
            self._close(error or client_gone())

    def _settled(self, outcome: Outputs | ServingError) -> None:
        if isinstance(outcome, ServingError):
            self.fail(outcome)
            return
        request_id = self._request_id
        call, prediction = self._call, self._prediction
        assert call is not None and prediction is not None  # noqa: S101, PT018 - for the type checker
        try:
            payload, json_bytes = self._route.codec.encode(
                call, outcome, request_id, prediction.marks
            )
        except Exception as error:  # noqa: BLE001 - a client never sees a stack trace
            self.fail(error)
            return
        prediction.close()
        if self._route.service.answers.recording:
            outputs = zip(call.inputs.outputs, outcome.arrays, strict=True)
            self._record(prediction.age(), PredictionStatus.SUCCESS, call.id, outputs)
        made = Reply(200, payload, request_id, json_bytes)
        if self._route.audit is not None:
            status = PredictionStatus.SUCCESS
            if prediction.marks is not None and FALLBACK in prediction.marks:
                status = PredictionStatus.FALLBACK
            self._audit(self._route.audit, status, made)
        self._reply(made)

    def _audit(self, audit: AuditLog, status: PredictionStatus, reply: Reply) -> None:
        """Leave a record of who got which answer to what."""
        prediction = self._prediction
        audit.record(
            self._client,
            self._request_id,
            status.value,
            self._route.service.fragment,
            self._body or b"",
            reply.body,
            0.0 if prediction is None else prediction.age(),
            reply.json_bytes is None,
        )

    def _close(self, error: Exception) -> None:
        prediction = self._prediction
        if prediction is None:
            return
        prediction.close(error)
        if self._route.service.answers.recording:
            client_id = getattr(error, "client_id", None) if self._call is None else self._call.id
            self._record(prediction.age(), status_of(error), client_id)

    def _record(
        self,
        seconds: float,
        status: PredictionStatus,
        client_id: str | None,
        outputs: Iterable[tuple[str, Array]] = (),
    ) -> None:
        """Leave an answer for the comparer of a shadow rollout.

        A gateway gives both copies of a request the same header. The body's id is the second choice: clients that
        number their requests may well begin at 1 each.
        """
        service = self._route.service
        request_id = self._request_id if self._head.has_id else client_id or ""
        if not service.answers.wants(request_id):
            return
        datatypes = service.spec.output_datatypes if status is PredictionStatus.SUCCESS else {}
        service.answers.record(request_id, self._body, status, seconds, outputs, datatypes)


def client_gone() -> ServingError:
    """Make the error of a client that nobody can tell it to."""
    return ServingError(ErrorKind.CLIENT_GONE, "the client closed the connection")


def refusal(error: ServingError, request_id: str, trace: Trace | None = None) -> Reply:
    """Make the answer for a failure."""
    if error.kind is ErrorKind.MODEL_FAILED:
        note_failure(error.kind, error, request_id, trace)
    return Reply(
        STATUS_OF_KIND[error.kind],
        error_body(error, request_id),
        request_id,
        headers=error_headers(error),
        error=error,
    )


class _Notes:
    """How many failures were logged in this second."""

    second = 0
    logged = 0


def http_door(template: str) -> Door:
    """Say how traces show requests to a path."""
    return Door(
        name=f"POST {template}",
        attributes={"http.request.method": "POST", "http.route": template},
        status_attribute="http.response.status_code",
        statuses=STATUS_OF_KIND,
        success=200,
        server_errors=lambda status: status >= _SERVER_ERRORS,
    )


def note_failure(
    kind: ErrorKind, error: BaseException, request_id: str, trace: Trace | None = None
) -> None:
    """Log a failure of the server or the model, at most a few each second."""
    second = int(time.monotonic())
    if second != _Notes.second:
        _Notes.second, _Notes.logged = second, 0
    _Notes.logged += 1
    if _Notes.logged > _LOGGED_PER_SECOND:
        return
    _log.error(
        "a prediction failed",
        extra={
            "request_id": request_id,
            **({} if trace is None else {"trace_id": trace.id}),
            "code": kind.value,
            "cause": str(error.__cause__ or error),
        },
        exc_info=error if kind is ErrorKind.INTERNAL else None,
    )
