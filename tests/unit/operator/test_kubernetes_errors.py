"""The Kubernetes adapter's errors: whatever an API server, a proxy or a network does, only ours come out."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio import client

from canarium_operator.adapters.kubernetes_cluster import NO_GATEWAY_API, KubernetesCluster, connect
from canarium_operator.adapters.kubernetes_errors import error_of
from canarium_operator.core.naming import ObjectRef
from canarium_operator.errors import (
    ClusterError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    RejectedError,
    TransientClusterError,
)
from canarium_operator.ports import EventRecord

REF = ObjectRef(namespace="ml", name="fraud", uid="0123456789")
RBAC = 'pods is forbidden: User "system:serviceaccount:a:b" cannot list resource "pods" in API group ""'
QUOTA = 'pods "p" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1'
TERMINATING = 'configmaps "c" is forbidden: unable to create new content in namespace ml because it is being terminated'


def status(message: str, reason: str = "", **details: Any) -> bytes:
    return json.dumps(
        {"kind": "Status", "message": message, "reason": reason, "details": details}
    ).encode()


@pytest.mark.parametrize(
    ("code", "body", "kind"),
    [
        (400, status("bad"), RejectedError),
        (401, b"Unauthorized", ForbiddenError),
        (403, status(RBAC, "Forbidden"), ForbiddenError),
        (403, status(QUOTA, "Forbidden"), RejectedError),
        (403, status(TERMINATING, "Forbidden"), TransientClusterError),
        (403, status('admission webhook "x" denied the request: no'), RejectedError),
        (404, status("not found", "NotFound"), NotFoundError),
        (404, b"404 page not found", NotFoundError),
        (408, b"", TransientClusterError),
        (409, status("the object has been modified", "Conflict"), ConflictError),
        (410, status("too old", "Expired"), NotFoundError),
        (413, b"", RejectedError),
        (415, b"", RejectedError),
        (422, status("spec.x: Invalid value", "Invalid"), RejectedError),
        (429, status("slow down"), TransientClusterError),
        (500, status("etcd is unwell"), TransientClusterError),
        (
            500,
            status("failed to create typed patch object (ml/x): .spec.y: field not declared"),
            RejectedError,
        ),
        (502, b"<html>bad gateway</html>", TransientClusterError),
        (503, b"\xff\x00", TransientClusterError),
        (504, b"[]", TransientClusterError),
    ],
)
def test_an_answer_becomes_an_error_of_ours(
    code: int, body: bytes, kind: type[ClusterError]
) -> None:
    """By what can be done about it: wait, look again, change the spec, or call the administrator."""
    error = error_of("apply Deployment ml/x", code, {}, body)
    assert type(error) is kind
    assert str(error).startswith(f"apply Deployment ml/x: {code}")


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({"Retry-After": "7"}, b"", 7.0),
        ({}, status("busy", retryAfterSeconds=3), 3.0),
        (
            {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"},
            status("busy", retryAfterSeconds=2),
            2.0,
        ),
        ({"Retry-After": "-1"}, b"", None),
        ({"Retry-After": "inf"}, b"", None),
        ({}, b"", None),
    ],
)
def test_a_wait_that_is_asked_for_is_passed_on(
    headers: dict[str, str], body: bytes, seconds: float | None
) -> None:
    """From the header, else from the Status."""
    error = error_of("list", 429, headers, body)
    assert isinstance(error, TransientClusterError)
    assert error.retry_after == seconds


def test_a_long_refusal_is_cut() -> None:
    """A schema's refusal can quote a whole object."""
    assert len(str(error_of("apply", 422, {}, status("x" * 100_000)))) < 1100


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Api:
    """An API server that does what the test says."""

    def __init__(self) -> None:
        self.handler: Handler = self._not_found
        self.requests: list[str] = []
        self.url = ""

    async def _not_found(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(status=404, text="404 page not found")

    async def dispatch(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path}")
        return await self.handler(request)


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    found = Api()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", found.dispatch)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield found
    await runner.cleanup()


@pytest.fixture
async def cluster(api: Api) -> AsyncIterator[KubernetesCluster]:
    configuration = client.Configuration(host=api.url)
    async with client.ApiClient(configuration) as opened:
        yield KubernetesCluster(opened, timeout=timedelta(seconds=30))


@pytest.fixture
async def impatient(api: Api) -> AsyncIterator[KubernetesCluster]:
    """The same with a timeout that no answer of a busy machine need meet: for servers that never answer."""
    configuration = client.Configuration(host=api.url)
    async with client.ApiClient(configuration) as opened:
        yield KubernetesCluster(opened, timeout=timedelta(seconds=0.2))


MANIFEST = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "d", "namespace": "ml", "uid": "u", "resourceVersion": "1"},
    "spec": {},
    "status": {},
}
EVENT = EventRecord(
    epoch=1, reason="R", message="m", warning=True, at=datetime(2026, 1, 1, tzinfo=UTC)
)
CALLS: dict[str, Callable[[KubernetesCluster], Awaitable[Any]]] = {
    "get": lambda cluster: cluster.get(REF),
    "children": lambda cluster: cluster.children(REF),
    "apply": lambda cluster: cluster.apply(MANIFEST),
    "apply_status": lambda cluster: cluster.apply_status(MANIFEST),
    "scale": lambda cluster: cluster.scale(MANIFEST, 3),
    "delete": lambda cluster: cluster.delete(MANIFEST),
    "record_event": lambda cluster: cluster.record_event(REF, EVENT),
}


async def hangs(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


async def hangs_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def talks_nonsense(request: web.Request) -> web.StreamResponse:
    return web.Response(text="<html>welcome to the hotel's wifi</html>")


async def breaks_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"kind":')
    assert request.transport is not None
    request.transport.close()
    return response


async def is_busy(request: web.Request) -> web.StreamResponse:
    return web.Response(status=429, headers={"Retry-After": "4"})


@pytest.mark.parametrize("trouble", [hangs, hangs_up, talks_nonsense, breaks_off, is_busy])
@pytest.mark.parametrize("name", CALLS)
async def test_no_error_of_a_library_gets_out(
    cluster: KubernetesCluster,
    impatient: KubernetesCluster,
    api: Api,
    trouble: Handler,
    name: str,
) -> None:
    """Whatever goes wrong on the way is transient, and every call says what it was about."""
    api.handler = trouble
    with pytest.raises(TransientClusterError, match=r"fraud|Deployment ml/d") as caught:
        await CALLS[name](impatient if trouble is hangs else cluster)
    if trouble is is_busy:
        assert caught.value.retry_after == 4.0


@pytest.mark.parametrize("name", CALLS)
async def test_a_server_that_is_not_there_is_transient(name: str) -> None:
    """It comes back, as a rule."""
    async with client.ApiClient(client.Configuration(host="http://127.0.0.1:1")) as opened:
        with pytest.raises(TransientClusterError):
            await CALLS[name](KubernetesCluster(opened))


async def test_kinds_that_a_cluster_does_not_serve_have_no_objects(
    cluster: KubernetesCluster,
) -> None:
    """Without the Gateway API there are no routes to be listed."""
    assert await cluster.children(REF) == []


async def test_a_missing_gateway_api_is_named_with_its_remedy(cluster: KubernetesCluster) -> None:
    """The status of the ModelDeployment then says what to install."""
    with pytest.raises(RejectedError, match="install its CRDs") as caught:
        await cluster.apply({**MANIFEST, "kind": "HTTPRoute"})
    assert str(caught.value) == NO_GATEWAY_API


async def test_scaling_gives_up_on_endless_conflicts(cluster: KubernetesCluster, api: Api) -> None:
    """After a few tries the pass ends, and the next one looks again."""

    async def conflicts(request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            return web.json_response({"kind": "Scale", "spec": {"replicas": 1}})
        return web.Response(status=409)

    api.handler = conflicts
    with pytest.raises(ConflictError):
        await cluster.scale(MANIFEST, 3)
    assert api.requests.count("PATCH /apis/apps/v1/namespaces/ml/deployments/d/scale") == 5


@pytest.mark.parametrize("content", ["", "nonsense: [", "apiVersion: v1\nkind: Config\n"])
async def test_an_unusable_kubeconfig_is_named(tmp_path: Path, content: str) -> None:
    """With the way out."""
    file = tmp_path / "kubeconfig"
    file.write_text(content)
    with pytest.raises(ClusterError, match=r"kubeconfig.*--kubeconfig FILE"):
        async with connect(str(file)):
            pass


async def test_a_missing_kubeconfig_is_named(tmp_path: Path) -> None:
    """A path that was mistyped is not an empty configuration."""
    with pytest.raises(ClusterError, match="nowhere"):
        async with connect(str(tmp_path / "nowhere")):
            pass
