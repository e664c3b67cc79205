"""FastAPI's routes: everything but the hot paths, and the document that describes both."""

from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response, WebSocket
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse

from canarium_runtime import health, metrics
from canarium_runtime.errors import ErrorKind, ServingError
from canarium_runtime.rest import http, repository, schemas, websocket
from canarium_runtime.rest.endpoints import PREDICT, STREAM, Predictor
from canarium_runtime.rest.errors import STATUS_OF_KIND
from canarium_runtime.rest.events import EventStream
from canarium_runtime.rest.exchange import Route, refusal
from canarium_runtime.rest.repository import reply

_NO_SUM = "the metrics of all processes cannot be had just now: they are starting or overloaded"
_UNHEALTHY: dict[int | str, dict[str, Any]] = {
    503: {"description": "Not ready, with the reason.", "content": {"application/json": {}}}
}


def response(answer: http.Answer) -> Response:
    """Put an answer into FastAPI's form."""
    made = Response(answer.body, answer.status)
    made.raw_headers.extend([answer.media, *answer.headers])
    return made


def make_router(predictor: Predictor, version: str) -> APIRouter:
    """Make all routes.

    Args:
        predictor: answers predictions.
        version: of this server.
    """
    router = APIRouter()
    _add_health(router, predictor)
    router.include_router(repository.make_router(predictor, version))
    _add_predictions(router, predictor)
    _add_streams(router, predictor)
    return router


def _add_health(router: APIRouter, predictor: Predictor) -> None:
    service = predictor.service

    @router.get("/health/live", tags=["health"])
    @router.get("/v2/health/live", tags=["health"])
    async def live() -> Response:
        """Tell whether the process answers."""
        return reply({"live": True})

    @router.get("/health/ready", tags=["health"], responses=_UNHEALTHY)
    @router.get("/v2/health/ready", tags=["health"], responses=_UNHEALTHY)
    async def ready() -> Response:
        """Tell whether traffic should be sent here: 503 while loading, warming up and draining."""
        state = service.lifecycle.state.value
        others = predictor.fleet.unready() if service.ready else ""
        document = {
            "live": True,
            "ready": service.ready and not others,
            "state": state,
            "reason": others or service.lifecycle.reason,
        }
        return reply(document, 200 if document["ready"] else 503)

    @router.get("/health", tags=["health"], responses=_UNHEALTHY)
    async def report() -> Response:
        """Give each check with its status and reason."""
        problems = {} if predictor.protection is None else predictor.protection.problems()
        healthy, document = predictor.fleet.complete(*health.report(predictor.models, problems))
        return reply(document, 200 if healthy else 503)

    @router.get("/metrics", tags=["health"], response_class=PlainTextResponse, responses=_UNHEALTHY)
    async def prometheus() -> Response:
        """Metrics in Prometheus' text format."""
        text = await predictor.fleet.metrics()
        if text is None:  # never a part of them: a sum that falls looks like a restart
            raise ServingError(ErrorKind.NOT_READY, _NO_SUM, retry_after_seconds=1)
        return Response(text, headers={"content-type": metrics.CONTENT_TYPE})


def _add_predictions(router: APIRouter, predictor: Predictor) -> None:
    async def run(route: Route, request: Request) -> Response:
        return response(await predictor.answer(route, request.scope, request.receive))

    routes = predictor.routes

    @router.post(
        PREDICT,
        tags=["predict"],
        **schemas.predicts(schemas.PredictRequest, schemas.PredictResponse),
    )
    async def predict(request: Request) -> Response:
        """Predict from plain JSON."""
        return await run(routes[PREDICT], request)

    v2 = schemas.predicts(schemas.InferRequest, schemas.InferResponse)

    @router.post("/v2/models/{name}/infer", tags=["v2"], **v2)
    @router.post("/v2/models/{name}/versions/{model_version}/infer", tags=["v2"], **v2)
    async def infer(request: Request, name: str, model_version: str | None = None) -> Response:
        """Predict by the Open Inference Protocol V2."""
        return await run(predictor.v2_route(name, model_version), request)

    @router.post(
        "/v1/models/{name}:predict",
        tags=["v1"],
        **schemas.predicts(schemas.PredictRequest, schemas.V1Response),
    )
    async def v1_predict(request: Request, name: str) -> Response:
        """Predict by KServe's protocol V1."""
        predictor.models.get(name)
        return await run(routes[f"/v1/models/{name}:predict"], request)


def _add_streams(router: APIRouter, predictor: Predictor) -> None:
    routes = predictor.routes

    @router.post(STREAM, tags=["predict"], **schemas.streams(schemas.PredictRequest))
    async def stream() -> Response:
        """Predict from plain JSON; the answer comes in pieces, as server-sent events."""
        return EventStream(predictor, routes[PREDICT])

    v2 = schemas.streams(schemas.InferRequest)

    @router.post("/v2/models/{name}/infer_stream", tags=["v2"], **v2)
    @router.post("/v2/models/{name}/versions/{model_version}/infer_stream", tags=["v2"], **v2)
    async def infer_stream(name: str, model_version: str | None = None) -> Response:
        """Predict by the Open Inference Protocol V2; the answer comes in pieces, as server-sent events."""
        return EventStream(predictor, predictor.v2_route(name, model_version))

    @router.websocket(STREAM)
    async def socket(connection: WebSocket) -> None:
        """Answer many requests over one connection."""
        idle_seconds = predictor.service.config.stream_idle_timeout.total_seconds()
        route = routes[PREDICT]
        await websocket.Session(connection, route, predictor.revision, idle_seconds).run()


def add_error_handlers(app: FastAPI, predictor: Predictor) -> None:
    """Give every failure the same JSON body."""

    def refuse(error: ServingError, request: Request) -> Response:
        request_id = getattr(request.state, "request_id", None) or http.new_request_id()
        return response(refusal(error, request_id).answer(predictor.stamps(request_id)))

    @app.exception_handler(ServingError)
    async def serving(request: Request, error: ServingError) -> Response:
        return refuse(error, request)

    @app.exception_handler(HTTPException)
    async def routing(request: Request, error: HTTPException) -> Response:
        model = f"/v2/models/{predictor.identity.model_name}"
        paths = f"/predict, /v2, {model}, {model}/infer, /health, /metrics, /docs"
        kind, message = ErrorKind.NOT_FOUND, f"nothing at {request.url.path}; there are {paths}"
        if error.status_code == STATUS_OF_KIND[ErrorKind.METHOD_NOT_ALLOWED]:
            kind = ErrorKind.METHOD_NOT_ALLOWED
            message = f"{request.method} is not possible at {request.url.path}"
        refused = refuse(ServingError(kind, message), request)
        refused.headers.update(error.headers or {})
        return refused

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> Response:
        return refuse(ServingError(ErrorKind.INTERNAL, "internal error"), request)


def openapi_of(app: FastAPI, predictor: Predictor) -> dict[str, Any]:
    """Make the OpenAPI document, with the bodies that FastAPI does not see, and the models that there are."""
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    document.setdefault("components", {}).setdefault("schemas", {}).update(schemas.components())
    names = predictor.models.names()
    examples = {"name": list(names), "model_version": next(iter(names.values()))}
    for operations in document["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                if (known := examples.get(parameter["name"])) is not None:
                    parameter["schema"]["examples"] = known
    return document
