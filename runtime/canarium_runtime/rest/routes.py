"""FastAPI's routes: everything but the hot paths, and the document that describes both."""

from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException

from canarium_runtime import health, metrics
from canarium_runtime.errors import ErrorKind, ServingError
from canarium_runtime.rest import http, schemas
from canarium_runtime.rest.endpoints import Predictor
from canarium_runtime.rest.errors import STATUS_OF_KIND
from canarium_runtime.rest.exchange import Route, refusal

SERVER_NAME = "canarium"
_NO_SUM = "the metrics of all processes cannot be had just now: they are starting or overloaded"
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": schemas.reference(schemas.ErrorResponse)}
    for status, text in (
        (400, "Not JSON, or not the protocol's shape."),
        (401, "No credentials, or wrong ones; see WWW-Authenticate."),
        (403, "Good credentials that do not allow this."),
        (404, "No such model or version."),
        (413, "The body is too large."),
        (415, "A compressed or binary body."),
        (422, "The inputs do not fit the model."),
        (429, "Too much waits, or this client asks too often; see Retry-After."),
        (500, "The model failed on this input."),
        (503, "Loading, warming up or stopping; see Retry-After."),
        (504, "No answer in time."),
    )
}


def reply(document: Mapping[str, Any], status: int = 200) -> Response:
    """Make a JSON response."""
    return Response(orjson.dumps(document), status, media_type="application/json")


def response(answer: http.Answer) -> Response:
    """Put an answer into FastAPI's form."""
    made = Response(answer.body, answer.status)
    made.raw_headers.extend([answer.media, *answer.headers])
    return made


def _body_of(request: type[Any], answer: type[Any]) -> dict[str, Any]:
    return {
        "openapi_extra": {"requestBody": {"required": True, "content": schemas.reference(request)}},
        "responses": {
            200: {"description": "Answer.", "content": schemas.reference(answer)},
            **_REFUSALS,
        },
        "response_class": Response,
    }


def make_router(predictor: Predictor, version: str) -> APIRouter:
    """Make all routes.

    Args:
        predictor: answers predictions.
        version: of this server.
    """
    router = APIRouter()
    _add_health(router, predictor)
    _add_models(router, predictor, version)
    _add_predictions(router, predictor)
    return router


def _add_health(router: APIRouter, predictor: Predictor) -> None:
    service = predictor.service

    @router.get("/health/live", tags=["health"])
    @router.get("/v2/health/live", tags=["health"])
    async def live() -> Response:
        """Tell whether the process answers."""
        return reply({"live": True})

    @router.get("/health/ready", tags=["health"])
    @router.get("/v2/health/ready", tags=["health"])
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

    @router.get("/health", tags=["health"])
    async def report() -> Response:
        """Give each check with its status and reason."""
        problems = {} if predictor.protection is None else predictor.protection.problems()
        healthy, document = predictor.fleet.complete(*health.report(predictor.models, problems))
        return reply(document, 200 if healthy else 503)

    @router.get("/metrics", tags=["health"])
    async def prometheus() -> Response:
        """Metrics in Prometheus' text format."""
        text = await predictor.fleet.metrics()
        if text is None:  # never a part of them: a sum that falls looks like a restart
            raise ServingError(ErrorKind.NOT_READY, _NO_SUM, retry_after_seconds=1)
        return Response(text, headers={"content-type": metrics.CONTENT_TYPE})


def _add_models(router: APIRouter, predictor: Predictor, version: str) -> None:
    models = predictor.models

    @router.get("/v2", tags=["v2"])
    async def server() -> Response:
        """Server metadata."""
        extensions = ["binary_tensor_data"]
        return reply({"name": SERVER_NAME, "version": version, "extensions": extensions})

    @router.get("/v2/models/{name}", tags=["v2"], responses=_REFUSALS)
    @router.get("/v2/models/{name}/versions/{model_version}", tags=["v2"], responses=_REFUSALS)
    async def model(name: str, model_version: str | None = None) -> Response:
        """Model metadata, as the model itself declares it."""
        service = models.get(name, model_version)
        spec = service.spec
        return reply(
            {
                "name": name,
                "versions": models.names()[name],
                "platform": spec.platform,
                "inputs": [
                    {"name": t.name, "datatype": t.datatype, "shape": t.wire_shape}
                    for t in spec.inputs
                ],
                "outputs": [
                    {"name": t.name, "datatype": t.datatype, "shape": t.wire_shape}
                    for t in spec.outputs
                ],
            }
        )

    @router.get("/v2/models/{name}/ready", tags=["v2"], responses=_REFUSALS)
    @router.get(
        "/v2/models/{name}/versions/{model_version}/ready", tags=["v2"], responses=_REFUSALS
    )
    async def model_ready(name: str, model_version: str | None = None) -> Response:
        """Tell whether the model is ready."""
        ready = models.get(name, model_version).ready
        return reply({"name": name, "ready": ready}, 200 if ready else 503)


def _add_predictions(router: APIRouter, predictor: Predictor) -> None:
    async def run(route: Route, request: Request) -> Response:
        return response(await predictor.answer(route, request.scope, request.receive))

    predict_route = predictor.routes["/predict"]

    @router.post(
        "/predict", tags=["predict"], **_body_of(schemas.PredictRequest, schemas.PredictResponse)
    )
    async def predict(request: Request) -> Response:
        """Predict from plain JSON."""
        return await run(predict_route, request)

    v2 = _body_of(schemas.InferRequest, schemas.InferResponse)

    @router.post("/v2/models/{name}/infer", tags=["v2"], **v2)
    @router.post("/v2/models/{name}/versions/{model_version}/infer", tags=["v2"], **v2)
    async def infer(request: Request, name: str, model_version: str | None = None) -> Response:
        """Predict by the Open Inference Protocol V2."""
        predictor.models.get(name, model_version)
        versions = f"/versions/{model_version}" if model_version else ""
        return await run(predictor.routes[f"/v2/models/{name}{versions}/infer"], request)


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


def openapi_of(app: FastAPI) -> dict[str, Any]:
    """Make the OpenAPI document, with the bodies that FastAPI does not see."""
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    document.setdefault("components", {}).setdefault("schemas", {}).update(schemas.components())
    return document
