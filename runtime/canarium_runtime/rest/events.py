"""Server-sent events: an answer in pieces, for models that yield; one piece for all others.

    data: {...}                     each piece, as the route's protocol writes an answer
    event: error, data: {...}       instead of the rest, with the body of an error
    event: end, data: {"id", "pieces"}

What fails before the first piece is refused as on every other route, with its status. A client that goes ends the
model's iteration at its next piece.
"""

import asyncio
import contextlib

import orjson
from fastapi import Response
from starlette.types import Receive, Scope, Send

from canarium_api.metric_names import PredictionStatus
from canarium_runtime.errors import ErrorKind, ServingError, invalid
from canarium_runtime.rest import http
from canarium_runtime.rest.codec import Call
from canarium_runtime.rest.endpoints import Predictor, peer_of
from canarium_runtime.rest.exchange import Reply, Route, client_gone, note_failure, refusal
from canarium_runtime.security import Credentials
from canarium_runtime.service import Prediction, status_of
from canarium_runtime.streaming import until_ready

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # proxies are not to wait for the end
]


class EventStream(Response):
    """The response to one request, from its body on.

    Args:
        predictor: the server's.
        route: where it came to.
    """

    def __init__(self, predictor: Predictor, route: Route) -> None:
        super().__init__()
        self._predictor = predictor
        self._route = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        head = http.read_head(scope["headers"])
        # The front knows the request by an id of its own where the client sent none.
        request_id = scope.get("state", {}).get("request_id", head.request_id)
        try:
            prediction = self._route.service.admit(request_id)
        except ServingError as error:
            await self._send_reply(send, refusal(error, request_id))
            return
        record = Recording(self._route, prediction, b"")
        try:
            await record.identify(credentials_of(head, scope))
            record.body = body = await self._predictor.read_body(receive, head, prediction.deadline)
            await until_ready(self._route.service, prediction)
            call = self._decode(body, head)
        except Exception as error:  # noqa: BLE001 - a client never sees a stack trace
            record.end(error)
            await self._send_reply(send, failed(prediction, error))
            return
        work = asyncio.create_task(self._send_answer(prediction, call, send, record))
        gone = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)
            # Nothing, where it was answered.
            prediction.close(client_gone())
            record.end(client_gone())

    def _decode(self, body: bytes, head: http.Head) -> Call:
        call = self._route.codec.decode(body, head.json_bytes)
        if call.binary:
            raise invalid("outputs", "no binary data, as events are text", "binary_data")
        return call

    async def _send_answer(
        self, prediction: Prediction, call: Call, send: Send, record: "Recording"
    ) -> None:
        count = 0
        request_id = prediction.request_id
        pieces = self._predictor.streams.pieces(self._route.service, prediction, call.inputs)
        try:
            async with contextlib.aclosing(pieces):
                async for outputs in pieces:
                    payload, _ = self._route.codec.encode(
                        call, outputs, request_id, prediction.marks
                    )
                    if not count:
                        await _start(send)
                    count += 1
                    await _send_event(send, b"", payload)
        except Exception as error:  # noqa: BLE001 - a client never sees a stack trace
            record.end(error)
            reply = failed(prediction, error)
            if count:
                await _send_event(send, b"event: error\n", reply.body, last=True)
            else:
                await self._send_reply(send, reply)
            return
        prediction.close()
        record.end(None)
        if not count:
            await _start(send)
        end = orjson.dumps({"id": call.id or request_id, "pieces": count})
        await _send_event(send, b"event: end\n", end, last=True)

    async def _send_reply(self, send: Send, reply: Reply) -> None:
        await http.send_answer(send, reply.answer(self._predictor.stamps(reply.request_id)))


class Recording:
    """Who asked for a stream, and its entry in the audit log: one for the stream, without the pieces.

    Args:
        route: of the request.
        prediction: admitted.
        body: of the request.
    """

    def __init__(self, route: Route, prediction: Prediction, body: bytes) -> None:
        self._route = route
        self._prediction = prediction
        self.body = body
        self._client = ""

    async def identify(self, credentials: Credentials) -> None:
        """Find out who asks.

        Raises:
            ServingError: nobody who may; or the audit log is full.
        """
        if self._route.audit is not None:
            self._route.audit.check()
        guard = self._route.guard
        if guard is not None:
            client = guard.admit(credentials) or await guard.admit_later(credentials)
            self._client = client.name

    def end(self, error: BaseException | None) -> None:
        """Record how it ended. A second call does nothing, nor does one for a client that is not known."""
        client, self._client = self._client, ""
        audit = self._route.audit
        if audit is None or not client:
            return
        status = PredictionStatus.SUCCESS if error is None else status_of(error)
        prediction = self._prediction
        fragment = self._route.service.fragment
        age = prediction.age()
        audit.record(
            client, prediction.request_id, status.value, fragment, self.body, b"", age, False
        )


def credentials_of(head: http.Head, scope: Scope) -> Credentials:
    """What a request says of who asks."""
    peer = peer_of(scope)
    return Credentials(head.authorization, head.api_key, peer.address, peer.certificate)


def failed(prediction: Prediction, error: Exception) -> Reply:
    """End a prediction by a failure, and make the answer."""
    if not isinstance(error, ServingError):
        note_failure(ErrorKind.INTERNAL, error, prediction.request_id)
        error = ServingError(ErrorKind.INTERNAL, "internal error")
    prediction.close(error)
    return refusal(error, prediction.request_id)


async def _start(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})


async def _send_event(send: Send, name: bytes, data: bytes, *, last: bool = False) -> None:
    """Send one event; `data` has no line breaks."""
    body = b"%bdata: %b\n\n" % (name, data)
    await send({"type": "http.response.body", "body": body, "more_body": not last})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
