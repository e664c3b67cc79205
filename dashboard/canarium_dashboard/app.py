"""The web server: pages and assets for anybody, data for who shows a token."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from canarium_dashboard import guard, settings
from canarium_dashboard.commands import Asked
from canarium_dashboard.desk import Desk
from canarium_dashboard.errors import BadRequestError, DashboardError, MissingError
from canarium_dashboard.streams import Seats, failure, stream
from canarium_dashboard.views.detail import Detail
from canarium_dashboard.views.listing import Listing
from canarium_dashboard.watching import User

_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_NAME: Final = re.compile(r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")
"""Of a namespace or a ModelDeployment."""
_UNBUFFERED: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def assets() -> dict[str, bytes]:
    """Read all assets, by name; a few dozen kilobytes."""
    folder = resources.files("canarium_dashboard") / "assets"
    return {entry.name: entry.read_bytes() for entry in folder.iterdir() if entry.is_file()}


def make_app(desk: Desk, seats: Seats) -> FastAPI:
    """Make the server; `desk` is used from the moment that it runs."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        beginning = asyncio.create_task(desk.begin(), name="begin")
        yield
        beginning.cancel()
        await asyncio.gather(beginning, return_exceptions=True)
        await desk.watchers.close()

    app = FastAPI(lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None)
    _add_pages(app, desk)
    _add_data(app, desk, seats)
    _add_errors(app)
    app.add_middleware(Guarded, hosts=desk.settings.hosts)
    return app


def _add_pages(app: FastAPI, desk: Desk) -> None:
    files = assets()

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/assets/{name}")
    async def asset(name: str) -> Response:
        if name not in files:
            msg = "there is no such file"
            raise MissingError(msg)
        kind = _TYPES.get(name[name.rfind(".") :], "application/octet-stream")
        return Response(files[name], media_type=kind, headers={"Cache-Control": "no-cache"})

    @app.get("/")
    @app.get("/d/{namespace}/{name}")
    async def page() -> Response:
        return Response(
            files["index.html"], media_type=_TYPES[".html"], headers={"Cache-Control": "no-cache"}
        )

    @app.get("/api/about")
    async def about() -> dict[str, Any]:
        """Tell how one signs in; nothing else is said to who has not."""
        return {"signIn": desk.settings.sign_in.value}


def _add_data(app: FastAPI, desk: Desk, seats: Seats) -> None:
    async def user_of(request: Request) -> User:
        guard.check_page(request.headers)
        return await desk.user(guard.token_of(request.headers))

    @app.get("/api/session")
    async def session(request: Request) -> dict[str, Any]:
        return await desk.session(await user_of(request))

    @app.get("/api/deployments")
    async def listing(request: Request, namespace: str = "", follow: bool = False) -> Response:
        user = await user_of(request)
        if namespace:
            _check_name(namespace)
        watcher = desk.list_watcher(user, namespace)

        async def make() -> Listing:
            return await desk.listing(watcher)

        if not follow:
            return JSONResponse((await make()).to_manifest(), headers=_UNBUFFERED)
        seats.check(user.identity)
        return _streamed(stream(watcher, seats, user.identity, make))

    @app.get("/api/deployments/{namespace}/{name}")
    async def detail(request: Request, namespace: str, name: str, follow: bool = False) -> Response:
        user = await user_of(request)
        key = (_check_name(namespace), _check_name(name))
        watcher = desk.watchers.covering(user, *key)

        async def make() -> Detail:
            return await desk.detail(user, watcher, key)

        if not follow:
            return JSONResponse((await make()).to_manifest(), headers=_UNBUFFERED)
        seats.check(user.identity)
        return _streamed(stream(watcher, seats, user.identity, make))

    @app.post("/api/deployments/{namespace}/{name}/commands")
    async def command(request: Request, namespace: str, name: str, asked: Asked) -> dict[str, str]:
        user = await user_of(request)
        answer = await desk.command(user, (_check_name(namespace), _check_name(name)), asked)
        return {"outcome": answer.outcome, "message": answer.message}


def _streamed(content: AsyncIterator[bytes]) -> Response:
    return StreamingResponse(content, media_type="text/event-stream", headers=_UNBUFFERED)


def _check_name(name: str) -> str:
    if not _NAME.match(name):
        msg = f"{name[:80]!r} is no name of a Kubernetes object"
        raise BadRequestError(msg)
    return name


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(DashboardError)
    async def told(_: Request, error: DashboardError) -> Response:
        return JSONResponse(failure(error), status_code=error.status)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        problem = BadRequestError(f"{where or 'the body'}: {first['msg']}")
        return JSONResponse(failure(problem), status_code=400)


class Guarded:
    """Checks what each request must pass, bounds its body, and adds the headers of `guard`."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self.app = app
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                extra = [(k.lower().encode(), v.encode()) for k, v in guard.HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        try:
            if scope["path"] != "/healthz":
                # The kubelet asks by the pod's address.
                guard.check_host(headers.get("host", ""), self.hosts)
            _check_length(scope["method"], headers)
        except DashboardError as error:
            answer = JSONResponse(failure(error), status_code=error.status)
            await answer(scope, receive, guarded)
            return
        await self.app(scope, receive, guarded)


def _check_length(method: str, headers: dict[str, str]) -> None:
    """Refuse a body that is too large, or does not say how large it is."""
    if method in ("GET", "HEAD"):
        return
    length = headers.get("content-length", "")
    if not length.isdecimal() or int(length) > settings.MAX_BODY_BYTES:
        msg = f"the body must say its length, of at most {settings.MAX_BODY_BYTES} bytes"
        raise BadRequestError(msg)
