"""The ASGI application in front of FastAPI: answers the hot paths itself, and stamps every other answer.

A prediction by a FastAPI route passes routers, exit stacks and a request object, which together cost more than
decoding, running a small model and encoding. FastAPI has the same routes (rest/routes.py) for the schema and for
unusual paths.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from canarium_runtime.errors import ServingError
from canarium_runtime.rest import http
from canarium_runtime.rest.endpoints import STREAM, Predictor, peer_of
from canarium_runtime.rest.exchange import Reply, refusal
from canarium_runtime.security import Credentials


class Front:
    """See the module.

    Args:
        app: the application behind.
        predictor: answers predictions.
        answers: whether predictions are answered here; else FastAPI has them too.
    """

    def __init__(self, app: ASGIApp, predictor: Predictor, *, answers: bool) -> None:
        self._app = app
        self._predictor = predictor
        self._routes = predictor.routes if answers else {}
        # Like predictions, they find out by themselves who asks.
        self._streams = {STREAM} | {
            f"{path}_stream" for path in predictor.routes if path.endswith("/infer")
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or pass on one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "POST" and (route := self._routes.get(scope["path"])) is not None:
            await http.send_answer(send, await self._predictor.answer(route, scope, receive))
            return
        refused = await self._refusal(scope)
        if refused is not None:
            await http.send_answer(send, refused.answer(self._predictor.stamps(refused.request_id)))
            return
        await self._pass_on(scope, receive, send)

    async def _refusal(self, scope: Scope) -> Reply | None:
        """What a client is told that may not ask for this; None: it may. Predictions are asked for by themselves."""
        protection = self._predictor.protection
        if protection is None or protection.guard is None:
            return None
        guard = protection.guard
        path = scope["path"]
        if path in self._predictor.routes or guard.is_open(scope["method"], path):
            return None
        if path in self._streams:
            return None
        head = http.read_head(scope["headers"])
        peer = peer_of(scope)
        given = Credentials(head.authorization, head.api_key, peer.address, peer.certificate)
        try:
            client = guard.admit(given) or await guard.admit_later(given)
        except ServingError as error:
            return refusal(error, head.request_id)
        scope.setdefault("state", {})["client"] = client.name  # batch jobs are their client's
        return None

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = http.read_head(scope["headers"]).request_id
        scope.setdefault("state", {})["request_id"] = request_id
        stamps = self._predictor.stamps(request_id)

        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", []))
                present = {name for name, _ in headers}
                message = {
                    **message,
                    "headers": headers + [h for h in stamps if h[0] not in present],
                }
            await send(message)

        await self._app(scope, receive, stamped)
