"""The router's ASGI applications: one for requests, one for its own health and metrics."""

import logging
from typing import Final

import orjson
from prometheus_client import CollectorRegistry, Counter, ProcessCollector, generate_latest
from starlette.types import Message, Receive, Scope, Send

from canarium_api.metric_names import (
    DEPLOYMENT_LABEL,
    ROUTER_REQUESTS_TOTAL,
    VARIANT_LABEL,
    RouterVariant,
)
from canarium_api.router_config import RouterConfig
from canarium_api.split import HEADER, Split
from canarium_runtime.metrics import CONTENT_TYPE
from canarium_runtime.rest import http
from canarium_runtime.router import assignment
from canarium_runtime.router.forwarding import (
    BodyTooLargeError,
    ClientGoneError,
    Forwarder,
    UnreachableError,
)

_log = logging.getLogger(__name__)
_HEADER: Final = HEADER.encode()
_KNOWN_SPLITS: Final = 64
"""Splits that are kept parsed; there are two at most while a share changes."""


class RouterApp:
    """Sends each request to the version that its user gets.

    Args:
        config: settings.
        forwarder: connections.
    """

    def __init__(self, config: RouterConfig, forwarder: Forwarder) -> None:
        self._config = config
        self._forwarder = forwarder
        self._namespace, _, self._name = config.deployment.partition("/")
        self._splits: dict[bytes, Split] = {}
        self.busy = 0
        """Requests under way."""
        self.draining = False
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        counter = Counter(
            ROUTER_REQUESTS_TOTAL.removesuffix("_total"),
            "Requests by the version that they were sent to.",
            (DEPLOYMENT_LABEL, VARIANT_LABEL),
            registry=self.registry,
        )
        self._counts = {
            variant: counter.labels(config.deployment, variant.value) for variant in RouterVariant
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        self.busy += 1
        try:
            await self._answer(scope, receive, self._closing(send))
        finally:
            self.busy -= 1

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.busy > self._config.max_connections:
            self._counts[RouterVariant.REFUSED].inc()
            await _refuse(
                send, 503, "the router has too many requests under way", (b"retry-after", b"1")
            )
            return
        split = self._split_of(scope)
        if split is None:
            self._counts[RouterVariant.REFUSED].inc()
            await _refuse(
                send, 421, f"the router is for requests of its route, which sets {HEADER}"
            )
            return
        key = assignment.key_of(scope["headers"], split)
        canary = assignment.gets_canary(self._config.deployment, split, key)
        variant = RouterVariant.UNKEYED if key is None else RouterVariant.STABLE
        self._counts[RouterVariant.CANARY if canary else variant].inc()
        revision = split.canary if canary else split.stable
        base = self._config.upstream.format(
            namespace=self._namespace, name=self._name, revision=revision
        )
        try:
            await self._forwarder.forward(base, scope, receive, send)
        except UnreachableError as error:
            _log.warning("no answer", extra={"upstream": base, "cause": str(error)})
            status, what = (
                (504, "did not answer in time") if error.timed_out else (502, "cannot be reached")
            )
            await _refuse(send, status, f"revision {revision} {what}")
        except BodyTooLargeError:
            limit = self._config.max_body_bytes
            await _refuse(send, 413, f"the body is too large: expected at most {limit} bytes")
        except ClientGoneError:
            pass

    def _split_of(self, scope: Scope) -> Split | None:
        for name, value in scope["headers"]:
            if name != _HEADER:
                continue
            known = self._splits.get(value)
            if known is None:
                try:
                    known = Split.parse(value.decode("latin-1"))
                except ValueError:
                    return None
                if len(self._splits) >= _KNOWN_SPLITS:
                    self._splits.clear()
                self._splits[value] = known
            return known
        return None

    def _closing(self, send: Send) -> Send:
        """While the router drains, ask clients to connect anew."""
        if not self.draining:
            return send

        async def closing(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message["headers"], (b"connection", b"close")]
                message = {**message, "headers": headers}
            await send(message)

        return closing


async def _refuse(send: Send, status: int, message: str, *headers: tuple[bytes, bytes]) -> None:
    body = orjson.dumps({"error": message})
    await http.send_answer(send, http.Answer(status, body, headers=list(headers)))


class AdminApp:
    """Health and metrics, on a port of their own: all paths of the other port are the model's."""

    def __init__(self, router: RouterApp) -> None:
        self._router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            await http.send_answer(send, self.answer(scope["path"]))

    def answer(self, path: str) -> http.Answer:
        """Answer one path."""
        match path:
            case "/metrics":
                media = (b"content-type", CONTENT_TYPE.encode())
                return http.Answer(200, generate_latest(self._router.registry), media=media)
            case "/health/live":
                return http.Answer(200, b'{"live":true}')
            case "/health/ready":
                ready = not self._router.draining
                return http.Answer(200 if ready else 503, orjson.dumps({"ready": ready}))
            case _:
                body = {"error": f"nothing at {path}; there are /metrics and /health"}
                return http.Answer(404, orjson.dumps(body))
