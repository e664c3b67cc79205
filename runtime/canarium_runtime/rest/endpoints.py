"""The paths of predictions, and answering them from a coroutine."""

import asyncio

from starlette.types import Receive, Scope, Send

from canarium_runtime.fleet import Fleet
from canarium_runtime.models import Models
from canarium_runtime.protection import Protection
from canarium_runtime.rest import http
from canarium_runtime.rest.codec import Identity
from canarium_runtime.rest.exchange import (
    Exchange,
    Peer,
    Reply,
    Route,
    client_gone,
    http_door,
    refusal,
)
from canarium_runtime.rest.plain import PredictCodec
from canarium_runtime.rest.v1 import V1Codec
from canarium_runtime.rest.v2 import V2Codec
from canarium_runtime.streaming import Streams

CERTIFICATE = "canarium.certificate"
"""Key of an ASGI scope: subject of the client's certificate. An extension of our own server's, too."""
PREDICT = "/predict"
STREAM = "/predict/stream"
ON_LOST = "canarium.on_lost"
"""Key of an ASGI scope: what to call when the connection is lost. An extension of our own server's, as ASGI tells an
application of that only while it waits for a message."""


class Predictor:
    """Answers prediction requests of both protocols, for all models of the server.

    Args:
        models: which there are.
        protection: who may ask, and what is recorded; None: everybody, nothing.
        fleet: the server as a whole; None: this process is all of it.
    """

    def __init__(
        self, models: Models, protection: Protection | None = None, fleet: Fleet | None = None
    ) -> None:
        self.models = models
        self.protection = protection
        self.service = models.primary
        self.fleet = fleet or Fleet()
        self.fleet.join(models.primary.lifecycle, models.render)
        config = models.config
        self.identity = Identity(config.model_name, config.model_version, config.revision)
        self.routes: dict[str, Route] = {
            PREDICT: Route(
                models.primary, self.identity, PredictCodec, protection, http_door(PREDICT)
            ),
        }
        """Route by path: the hot paths."""
        for name, versions in models.names().items():
            for version in versions:
                service = models.get(name, version)
                identity = Identity(name, version, config.revision)
                template = "/v2/models/{name}[/versions/{version}]/infer"
                door = http_door(template)
                route = Route(service, identity, V2Codec, protection, door, gathers=True)
                self.routes[f"/v2/models/{name}/versions/{version}/infer"] = route
                if self.routes.setdefault(f"/v2/models/{name}/infer", route) is route:
                    template = "/v1/models/{name}:predict"
                    v1 = Route(service, identity, V1Codec, protection, http_door(template))
                    self.routes[f"/v1/models/{name}:predict"] = v1
        self.streams = Streams(config.max_streams)
        self.max_body_bytes = config.max_body_bytes
        self.revision = (http.REVISION, config.revision.encode())
        self._bodies = http.BodyReader(config.max_body_bytes)

    @property
    def leaving(self) -> bool:
        """Whether clients are asked to connect anew, elsewhere."""
        return self.service.leaving

    def v2_route(self, name: str, version: str | None) -> Route:
        """Find the route of a model.

        Raises:
            ServingError: NOT_FOUND.
        """
        self.models.get(name, version)
        versions = "" if version is None else f"/versions/{version}"
        return self.routes[f"/v2/models/{name}{versions}/infer"]

    async def answer(self, route: Route, scope: Scope, receive: Receive) -> http.Answer:
        """Read, run and encode one request; failures become answers too."""
        head = http.read_head(scope["headers"])
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def reply(made: Reply) -> None:
            if not future.done():
                future.set_result(made)

        def abandon() -> None:
            exchange.abandon()
            reply(refusal(client_gone(), head.request_id))

        exchange = Exchange(route, head, head.request_id, reply, peer_of(scope))
        try:
            if exchange.open():
                await self._receive(exchange, head, receive)
            if not future.done():
                scope[ON_LOST] = abandon
            made = await future
        except asyncio.CancelledError:
            exchange.abandon()
            raise
        finally:
            scope.pop(ON_LOST, None)
        return made.answer(self.stamps(made.request_id))

    async def read_body(self, receive: Receive, head: http.Head, deadline: float) -> bytes:
        """Read a request's body; see `http.BodyReader.read`."""
        return await self._bodies.read(receive, head, deadline)

    async def _receive(self, exchange: Exchange, head: http.Head, receive: Receive) -> None:
        try:
            body = await self.read_body(receive, head, exchange.deadline)
        except Exception as error:  # noqa: BLE001 - a client never sees a stack trace
            exchange.fail(error)
            return
        exchange.receive(body)

    def stamps(self, request_id: str) -> list[tuple[bytes, bytes]]:
        """Headers of every answer. While the server drains they ask the client to connect anew, elsewhere."""
        headers = [self.revision, (http.REQUEST_ID, request_id.encode())]
        if self.leaving:
            headers.append((b"connection", b"close"))
        return headers


def peer_of(scope: Scope) -> Peer:
    """Who is at the other end of an ASGI connection."""
    client = scope.get("client")
    return Peer(client[0] if client else "", scope.get(CERTIFICATE, ""))


class Answering:
    """A prediction route as an ASGI application.

    Args:
        predictor: answers.
        route: the model and the protocol.
    """

    def __init__(self, predictor: Predictor, route: Route) -> None:
        self._predictor = predictor
        self._route = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        answer = await self._predictor.answer(self._route, scope, receive)
        await http.send_answer(send, answer)
