"""The application: FastAPI with the fast front before its routes."""

from typing import Any

from fastapi import FastAPI

from canarium_api.runtime_config import RuntimeConfig
from canarium_runtime.rest import routes
from canarium_runtime.rest.endpoints import Predictor
from canarium_runtime.rest.front import Front
from canarium_runtime.service import InferenceService
from canarium_runtime.version import server_version


def create_app(config: RuntimeConfig, service: InferenceService) -> FastAPI:
    """Make the ASGI application for one model.

    Args:
        config: settings.
        service: the model; it may still be loading.
    """
    version = server_version()
    app = FastAPI(
        title=f"Canarium: {config.model_name}",
        version=version,
        description="Predictions by plain JSON and by the Open Inference Protocol V2.",
        redoc_url=None,
    )
    predictor = Predictor(service)
    app.include_router(routes.make_router(predictor, version))
    routes.add_error_handlers(app, predictor)
    app.add_middleware(Front, predictor=predictor)

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = routes.openapi_of(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's documented way to extend the schema
    return app
