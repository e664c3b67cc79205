"""Fixtures of the contract suite: every test that takes `world` runs against the fake and against a real cluster.

The real cluster is the one of $CANARIUM_TEST_KUBECONFIG (`make test` brings one up and sets it). Where that is
unset, the real half is skipped, and says so.
"""

import asyncio
import contextlib
import os
import uuid
from collections.abc import AsyncIterator

import pytest
import yaml
from kubernetes.aio.client import ApiClient

from canarium_operator.adapters.kubernetes_cluster import CHILD_RESOURCES, KubernetesCluster
from canarium_operator.adapters.kubernetes_connection import connect
from canarium_operator.adapters.kubernetes_watch import ChildCache

from .world import ROOT, FakeWorld, RealWorld, World, call

CRD = ROOT / "crds/canarium.dev_modeldeployments.yaml"
_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_with_crd: set[str] = set()
"""Kubeconfigs whose cluster has been given the CRD: once for all tests, though each test has its own event loop."""


@pytest.fixture
async def api() -> AsyncIterator[ApiClient]:
    """A client of the real cluster, with our CRD installed."""
    kubeconfig = os.environ.get("CANARIUM_TEST_KUBECONFIG")
    if not kubeconfig:
        pytest.skip("CANARIUM_TEST_KUBECONFIG is not set: no real cluster to test against")
    async with connect(kubeconfig) as client:
        if kubeconfig not in _with_crd:
            await _install_crd(client)
            _with_crd.add(kubeconfig)
        yield client


async def _install_crd(client: ApiClient) -> None:
    manifest = yaml.safe_load(CRD.read_text(encoding="utf-8"))
    path = f"{_CRDS}/{manifest['metadata']['name']}"
    status, body = await call(client, "PATCH", f"{path}?fieldManager=tests&force=true", manifest)
    assert status < 300, body
    await _established(client, path)


async def _established(client: ApiClient, path: str) -> None:
    async def look() -> bool:
        _, body = await call(client, "GET", path)
        conditions = body.get("status", {}).get("conditions") or []
        return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)

    await RealWorld(client, "").eventually("the CRD is established", look)


@pytest.fixture
async def namespace(api: ApiClient) -> AsyncIterator[str]:
    """A namespace that enforces restricted pod security, for one test."""
    name = f"contract-{uuid.uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    manifest = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": labels},
    }
    status, body = await call(api, "POST", "/api/v1/namespaces", manifest)
    assert status == 201, body
    yield name
    await call(api, "DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture
async def real(api: ApiClient, namespace: str) -> RealWorld:
    """The real world."""
    return RealWorld(api, namespace)


@pytest.fixture
async def cached(real: RealWorld) -> AsyncIterator[RealWorld]:
    """The real world, whose children are read from memory, as in the operator."""
    cache = ChildCache(real.api, CHILD_RESOURCES, [real.namespace])
    running = asyncio.create_task(cache.run())
    real.cluster = KubernetesCluster(real.api, cache=cache)
    yield real
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


@pytest.fixture(
    params=[
        "fake",
        pytest.param("real", marks=pytest.mark.cluster),
        pytest.param("cached", marks=pytest.mark.cluster),
    ]
)
def world(request: pytest.FixtureRequest) -> World:
    """Each world in turn."""
    if request.param == "fake":
        return FakeWorld()
    found: RealWorld = request.getfixturevalue(request.param)
    return found
