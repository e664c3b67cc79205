"""What REST says of models: metadata, readiness, configuration and statistics, by V2 and KServe V1; the repository."""

import time
from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from canarium_runtime import management
from canarium_runtime.errors import ErrorKind, ServingError
from canarium_runtime.rest import http, schemas
from canarium_runtime.rest.codec import load_object
from canarium_runtime.rest.endpoints import Predictor
from canarium_runtime.validation import malformed


def reply(document: Mapping[str, Any], status: int = 200) -> Response:
    """Make a JSON response."""
    return Response(orjson.dumps(document), status, media_type="application/json")


def make_router(predictor: Predictor, version: str) -> APIRouter:
    """Make the routes.

    Args:
        predictor: knows the models.
        version: of this server.
    """
    router = APIRouter()
    _add_server(router, predictor, version)
    _add_models(router, predictor)
    _add_repository(router, predictor)
    _add_v1(router, predictor)
    return router


def _add_server(router: APIRouter, predictor: Predictor, version: str) -> None:
    models = predictor.models

    @router.get("/v2", tags=["v2"], **schemas.answers(schemas.ServerMetadata))
    async def server() -> Response:
        """Server metadata."""
        return reply(management.server(version))

    # Before the models' own routes, which would take "stats" for a name.
    @router.get("/v2/models/stats", tags=["v2"], **schemas.answers(schemas.Statistics))
    async def all_statistics() -> Response:
        """Statistics of all models."""
        return reply(management.statistics(models, None, None))


def _add_models(router: APIRouter, predictor: Predictor) -> None:
    models = predictor.models
    one, each = "/v2/models/{name}", "/v2/models/{name}/versions/{model_version}"

    metadata = {"tags": ["v2"], **schemas.answers(schemas.ModelMetadata, 404, 503)}

    @router.get(one, **metadata)
    @router.get(each, **metadata)
    async def model(name: str, model_version: str | None = None) -> Response:
        """Model metadata, as the model itself declares it."""
        return reply(management.metadata(models, name, model_version))

    readiness = {"tags": ["v2"], **schemas.answers(schemas.ModelReady, 404)}
    readiness["responses"][503] = {
        "description": "Not ready.",
        "content": schemas.reference(schemas.ModelReady),
    }

    @router.get(f"{one}/ready", **readiness)
    @router.get(f"{each}/ready", **readiness)
    async def model_ready(name: str, model_version: str | None = None) -> Response:
        """Tell whether the model is ready."""
        ready = models.get(name, model_version).ready
        return reply({"name": name, "ready": ready}, 200 if ready else 503)

    config = {"tags": ["v2"], **schemas.answers(schemas.ModelConfig, 404, 503)}

    @router.get(f"{one}/config", **config)
    @router.get(f"{each}/config", **config)
    async def model_config(name: str, model_version: str | None = None) -> Response:
        """How the model is served, in the form that Triton's clients read."""
        return reply(management.config(models.get(name, model_version)))

    counts = {"tags": ["v2"], **schemas.answers(schemas.Statistics, 404)}

    @router.get(f"{one}/stats", **counts)
    @router.get(f"{each}/stats", **counts)
    async def statistics(name: str, model_version: str | None = None) -> Response:
        """What the model did since the server began."""
        return reply(management.statistics(models, name, model_version))


def _add_repository(router: APIRouter, predictor: Predictor) -> None:
    models = predictor.models

    async def read(request: Request) -> dict[str, Any]:
        head = http.read_head(request.scope["headers"])
        patience = predictor.service.request_timeout_seconds
        body = await predictor.read_body(request.receive, head, time.monotonic() + patience)
        return load_object(body) if body.strip() else {}

    @router.post(
        "/v2/repository/index",
        tags=["repository"],
        **schemas.takes(schemas.IndexRequest, schemas.Index, required=False),
    )
    async def index(request: Request) -> Response:
        """List the models."""
        ready = (await read(request)).get("ready", False)
        if type(ready) is not bool:
            raise malformed("ready", "a boolean", ready)
        listed = management.index(models, ready_only=ready)
        return Response(orjson.dumps(listed), media_type="application/json")

    moves = schemas.takes(
        schemas.RepositoryRequest, schemas.Nothing, 404, 405, 422, 503, required=False
    )

    @router.post("/v2/repository/models/{name}/load", tags=["repository"], **moves)
    async def load(request: Request, name: str) -> Response:
        """Make a model ready."""
        await management.load(models, name, _parameters(await read(request)))
        return reply({})

    @router.post("/v2/repository/models/{name}/unload", tags=["repository"], **moves)
    async def unload(request: Request, name: str) -> Response:
        """Stop serving a model."""
        await management.unload(models, name, _parameters(await read(request)))
        return reply({})


def _parameters(document: dict[str, Any]) -> dict[str, Any]:
    parameters = document.get("parameters")
    if parameters is None:
        return {}
    if type(parameters) is not dict:
        raise malformed("parameters", "an object", parameters)
    return parameters


def _add_v1(router: APIRouter, predictor: Predictor) -> None:
    models = predictor.models

    @router.get("/v1/models", tags=["v1"], **schemas.answers(schemas.V1Models))
    async def names() -> Response:
        """Names of the models that are ready."""
        return reply({"models": sorted({s.config.model_name for s in models if s.ready})})

    ready = schemas.answers(schemas.ModelReady, 404, 503)

    @router.get("/v1/models/{name}", tags=["v1"], **ready)
    async def v1_model(name: str) -> Response:
        """Tell whether the model is ready."""
        service = models.get(name)
        if not service.ready:
            message = f"the model is not ready: {service.lifecycle.reason}"
            raise ServingError(ErrorKind.NOT_READY, message, retry_after_seconds=1)
        return reply({"name": name, "ready": True})
