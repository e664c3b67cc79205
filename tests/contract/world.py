"""The two worlds of the contract suite: the same hands on the fake cluster and on a real one.

A world has the port under test (`cluster`), and what a user and time do to it. The real one works in a namespace of
its own for each test, which is deleted at the end.
"""

import asyncio
import json
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from kubernetes.aio.client import ApiClient

from canarium_api import API_VERSION, KIND
from canarium_operator.adapters.kubernetes_cluster import KubernetesCluster
from canarium_operator.core.manifests import Manifest
from canarium_operator.core.naming import ObjectRef
from canarium_operator.errors import RejectedError
from canarium_operator.ports import Cluster
from canarium_operator.testing.clock import FakeClock
from canarium_operator.testing.cluster import FakeCluster
from canarium_operator.testing.objects import model_deployment

ROOT = Path(__file__).parents[2]
COLLECTIONS = {
    "ModelDeployment": "/apis/canarium.dev/v1alpha1/namespaces/{ns}/modeldeployments",
    "ConfigMap": "/api/v1/namespaces/{ns}/configmaps",
    "Event": "/api/v1/namespaces/{ns}/events",
    "Deployment": "/apis/apps/v1/namespaces/{ns}/deployments",
    "HTTPRoute": "/apis/gateway.networking.k8s.io/v1/namespaces/{ns}/httproutes",
}


class World(Protocol):
    """What the tests need."""

    cluster: Cluster
    namespace: str

    async def put(self, manifest: Manifest) -> ObjectRef:
        """Create or update a ModelDeployment as a user; raises RejectedError when its schema refuses it."""

    async def annotate(self, ref: ObjectRef, name: str, value: str) -> None:
        """Annotate a ModelDeployment as a user."""

    async def make(self, manifest: Manifest) -> None:
        """Create an object that is not the operator's."""

    async def read(self, kind: str, name: str) -> Manifest | None:
        """Read any object."""

    async def remove(self, kind: str, name: str) -> None:
        """Delete any object, as a user."""

    async def events(self, ref: ObjectRef) -> list[tuple[str, str]]:
        """List the Events of a ModelDeployment: (reason, message)."""

    async def eventually(self, what: str, look: Callable[[], Any]) -> Any:
        """Let time pass until an awaited look gives something true."""


def object_of(world: World, name: str = "fraud", **spec: Any) -> Manifest:
    """Build a ModelDeployment for a world's namespace."""
    return model_deployment(name, namespace=world.namespace, **spec)


class FakeWorld:
    """The fake."""

    def __init__(self) -> None:
        self.namespace = "ml"
        self.fake = FakeCluster()
        self.cluster: Cluster = self.fake
        self._clock = FakeClock()

    async def put(self, manifest: Manifest) -> ObjectRef:
        stored = self.fake.put(manifest)["metadata"]
        return ObjectRef(namespace=stored["namespace"], name=stored["name"], uid=stored["uid"])

    async def annotate(self, ref: ObjectRef, name: str, value: str) -> None:
        self.fake.annotate(ref, name, value)

    async def make(self, manifest: Manifest) -> None:
        self.fake.store(manifest)

    async def read(self, kind: str, name: str) -> Manifest | None:
        return self.fake.find(kind, self.namespace, name)

    async def remove(self, kind: str, name: str) -> None:
        self.fake.remove(kind, self.namespace, name)

    async def events(self, ref: ObjectRef) -> list[tuple[str, str]]:
        return [
            (event.reason, event.message) for name, event in self.fake.events if name == str(ref)
        ]

    async def eventually(self, what: str, look: Callable[[], Any]) -> Any:
        for _ in range(60):
            if found := await look():
                return found
            self.fake.tick(self._clock.advance(timedelta(seconds=1)))
        msg = f"never happened: {what}"
        raise AssertionError(msg)


class RealWorld:
    """A real cluster."""

    def __init__(self, api: ApiClient, namespace: str) -> None:
        self.api = api
        self.namespace = namespace
        self.cluster: Cluster = KubernetesCluster(api)

    async def put(self, manifest: Manifest) -> ObjectRef:
        path = self._path(KIND, manifest["metadata"]["name"])
        status, body = await call(
            self.api, "PATCH", path + "?fieldManager=user&force=true", manifest
        )
        if status >= 300:
            raise RejectedError(body.get("message", ""))
        meta = body["metadata"]
        return ObjectRef(namespace=self.namespace, name=meta["name"], uid=meta["uid"])

    async def annotate(self, ref: ObjectRef, name: str, value: str) -> None:
        manifest = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"annotations": {name: value}},
        }
        path = self._path(KIND, ref.name) + "?fieldManager=annotator"
        status, body = await call(self.api, "PATCH", path, manifest)
        assert status == 200, body

    async def make(self, manifest: Manifest) -> None:
        path = self._path(manifest["kind"], manifest["metadata"]["name"]) + "?fieldManager=somebody"
        status, body = await call(self.api, "PATCH", path, manifest)
        assert status < 300, body

    async def read(self, kind: str, name: str) -> Manifest | None:
        status, body = await call(self.api, "GET", self._path(kind, name))
        assert status in (200, 404), body
        return body if status == 200 else None

    async def remove(self, kind: str, name: str) -> None:
        status, body = await call(self.api, "DELETE", self._path(kind, name))
        assert status < 300, body

    async def events(self, ref: ObjectRef) -> list[tuple[str, str]]:
        _, body = await call(self.api, "GET", self._path("Event"))
        found = [item for item in body["items"] if item["involvedObject"].get("uid") == ref.uid]
        return [(item["reason"], item["message"]) for item in found]

    async def eventually(self, what: str, look: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if found := await look():
                return found
            await asyncio.sleep(0.1)
        msg = f"not within 30 s: {what}"
        raise AssertionError(msg)

    def _path(self, kind: str, name: str | None = None) -> str:
        path = COLLECTIONS[kind].format(ns=self.namespace)
        return path if name is None else f"{path}/{name}"


async def call(
    api: ApiClient, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, Any]:
    """Make one raw call of the API: status and decoded body. PATCH is a server-side apply."""
    content = "application/apply-patch+yaml" if method == "PATCH" else "application/json"
    serialized = await api.param_serialize(
        method,
        path,
        header_params={"Accept": "application/json", "Content-Type": content, **(headers or {})},
        body=body,
        auth_settings=["BearerToken"],
    )
    response = await api.call_api(*serialized, _request_timeout=20)
    text = await response.read()
    return response.status, json.loads(text)
