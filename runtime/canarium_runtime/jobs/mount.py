"""Offer batch jobs in the server, where the settings name a Redis; else nothing of it is imported."""

from typing import TYPE_CHECKING

from fastapi import FastAPI

from canarium_api.jobs_config import JobsConfig
from canarium_runtime.service import InferenceService

if TYPE_CHECKING:
    from canarium_runtime.jobs.api import Jobs
    from canarium_runtime.jobs.routes import ClientOf


def mount(
    app: FastAPI, service: InferenceService, config: JobsConfig, client_of: "ClientOf | None" = None
) -> "Jobs | None":
    """Add the routes below `/jobs`, and the metrics of jobs to those of the server.

    Args:
        app: gets the routes.
        service: for its settings and metrics. Its model is not asked: workers have their own.
        config: settings of jobs.
        client_of: names the client of a request; default: as the guard has named it.

    Returns:
        What to close at the end; None: jobs are off.

    Raises:
        canarium_runtime.jobs.errors.StoreError: the file with the URL of Redis cannot be read.
    """
    if config.redis_url_file is None:
        return None
    from canarium_runtime.jobs.api import Jobs
    from canarium_runtime.jobs.routes import make_router, named

    jobs = Jobs.from_config(service.config, config)
    if jobs is not None:
        app.include_router(make_router(jobs, client_of or named))
        counts = jobs.metrics
        service.metrics.more.append(lambda _identity: counts.collect())
    return jobs
