"""The application: FastAPI with the fast front before its routes."""

from typing import Any

from fastapi import FastAPI
from starlette.routing import Route

from canarium_api.jobs_config import JobsConfig
from canarium_api.runtime_config import RuntimeConfig
from canarium_runtime.jobs.mount import mount
from canarium_runtime.rest import routes
from canarium_runtime.rest.endpoints import Answering, Predictor
from canarium_runtime.rest.front import Front
from canarium_runtime.version import server_version


def create_app(
    config: RuntimeConfig, predictor: Predictor, jobs: JobsConfig | None = None
) -> Front:
    """Make the ASGI application for one model: FastAPI behind the front that answers predictions.

    The front is outside of FastAPI and not one of its middlewares, because what FastAPI does before its first
    middleware costs as much as the rest of a prediction.

    Args:
        config: settings.
        predictor: answers predictions; its model may still be loading.
        jobs: settings of batch jobs; default: none are taken.
    """
    version = server_version()
    app = FastAPI(
        title=f"Canarium: {config.model_name}",
        version=version,
        description="Predictions by plain JSON and by the Open Inference Protocol V2.",
        redoc_url=None,
    )
    # Before all others: a router asks its routes one after the other, and FastAPI's own kind costs several times more.
    for path, route in predictor.routes.items():
        answer = Answering(predictor, route)
        app.router.routes.insert(0, Route(path, answer, methods=["POST"], include_in_schema=False))
    app.include_router(routes.make_router(predictor, version))
    routes.add_error_handlers(app, predictor)
    mount(app, predictor.service, jobs or JobsConfig())

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = routes.openapi_of(app, predictor)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's documented way to extend the schema
    return Front(app, predictor, answers=config.hot_lane)
