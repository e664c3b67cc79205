"""The routes of batch jobs: HTTP only; everything else is in `api`."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from canarium_runtime.errors import ErrorKind, ServingError
from canarium_runtime.jobs.api import MAX_LISTED, Jobs
from canarium_runtime.jobs.errors import StoreError
from canarium_runtime.jobs.record import Job
from canarium_runtime.jobs.requests import JobRequest
from canarium_runtime.jobs.results import MEDIA_TYPE, ResultFormat
from canarium_runtime.rest.http import BodyReader, read_head

ClientOf = Callable[[Request], str]
"""Names the client of a request; clients see their own jobs only."""
_BODY_SECONDS = 60.0
"""For a body to arrive."""


def named(request: Request) -> str:
    """Name the client as the guard has; where nobody must say who he is, all are one."""
    return str(getattr(request.state, "client", ""))


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        raise ServingError(ErrorKind.UNAVAILABLE, str(error), retry_after_seconds=5) from error


def _reply(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(document), status, headers, media_type="application/json")


def make_router(jobs: Jobs, client_of: ClientOf = named) -> APIRouter:
    """Make all routes of batch jobs.

    Args:
        jobs: takes jobs and tells of them.
        client_of: names the client of a request, or raises ServingError.
    """
    router = APIRouter(prefix="/jobs", tags=["jobs"])
    bodies = BodyReader(jobs.max_body_bytes)
    body_schema = {"schema": JobRequest.model_json_schema()}
    _add_submit(router, jobs, client_of, bodies, body_schema)
    _add_reads(router, jobs, client_of)
    _add_changes(router, jobs, client_of)
    return router


def _location(request: Request, job: Job) -> dict[str, str]:
    return {"location": f"{request.scope.get('root_path', '')}/jobs/{job.id}"}


def _add_submit(
    router: APIRouter,
    jobs: Jobs,
    client_of: ClientOf,
    bodies: BodyReader,
    body_schema: dict[str, Any],
) -> None:
    @router.post(
        "",
        status_code=202,
        response_class=Response,
        openapi_extra={
            "requestBody": {"required": True, "content": {"application/json": body_schema}}
        },
    )
    async def submit(
        request: Request, idempotency_key: Annotated[str | None, Header()] = None
    ) -> Response:
        """Take a job: rows in the body, or a file with rows. 202 with its address; the answer comes later."""
        client = client_of(request)
        head = read_head(request.scope["headers"])
        deadline = time.monotonic() + _BODY_SECONDS
        body = await bodies.read(request.receive, head, deadline)
        with _translated():
            job, is_new = await jobs.submit(body, client, idempotency_key)
        return _reply(job.view(), 202 if is_new else 200, _location(request, job))


def _add_reads(router: APIRouter, jobs: Jobs, client_of: ClientOf) -> None:
    @router.get("", response_class=Response)
    async def newest(
        request: Request, limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = 20
    ) -> Response:
        """List the newest jobs, newest first."""
        with _translated():
            found = await jobs.newest(client_of(request), limit)
        return _reply({"jobs": [job.view() for job in found]})

    @router.get("/{job_id}", response_class=Response)
    async def one(request: Request, job_id: str) -> Response:
        """Tell of a job: state, progress, the first rows that failed."""
        with _translated():
            job = await jobs.get(job_id, client_of(request))
        return _reply(job.view())

    @router.get("/{job_id}/results", response_class=Response)
    async def results(
        request: Request,
        job_id: str,
        form: Annotated[ResultFormat, Query(alias="format")] = ResultFormat.JSONL,
        partial: bool = False,
    ) -> Response:
        """Download results, in the order of the rows; with `partial`, what there is."""
        with _translated():
            job, stream = await jobs.results(job_id, client_of(request), form, partial=partial)
        headers = {
            "content-disposition": f'attachment; filename="{job.id}.{form.value}"',
            "x-canarium-job-state": job.state.value,
        }
        return StreamingResponse(stream, headers=headers, media_type=MEDIA_TYPE[form])


def _add_changes(router: APIRouter, jobs: Jobs, client_of: ClientOf) -> None:
    @router.post("/{job_id}/cancel", response_class=Response)
    async def cancel(request: Request, job_id: str) -> Response:
        """End a job; what is done of it stays."""
        with _translated():
            return _reply((await jobs.cancel(job_id, client_of(request))).view())

    @router.post("/{job_id}/retry", status_code=202, response_class=Response)
    async def retry(request: Request, job_id: str) -> Response:
        """Do again what failed of a job that has ended, and what was not done."""
        with _translated():
            job = await jobs.retry(job_id, client_of(request))
        return _reply(job.view(), 202, _location(request, job))

    @router.delete("/{job_id}", status_code=204, response_class=Response)
    async def delete(request: Request, job_id: str) -> Response:
        """Forget a job that has ended, with its results."""
        with _translated():
            await jobs.delete(job_id, client_of(request))
        return Response(status_code=204)
