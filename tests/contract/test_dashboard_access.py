"""What the dashboard asks of the Kubernetes API: one suite against the API server of its tests and a real one.

Two users with tokens: `looker` may get, list and watch ModelDeployments and list Events in one namespace, `actor` may
patch ModelDeployments besides.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
import yaml
from kubernetes.aio.client import ApiClient
from tests.services.api_server import ACTS, LOOKS, ApiServer, Rights, running_api_server

from canarium_dashboard.access import Access, Scope, StaleError
from canarium_dashboard.connecting import connect
from canarium_dashboard.errors import ForbiddenError, MissingError, SignedOutError
from canarium_operator.testing.objects import model_deployment

from .world import call

Manifest = dict[str, Any]
SECONDS = 20.0


class Place(Protocol):
    """An API server with a namespace of this test's own."""

    namespace: str

    async def access(self, user: str) -> Access:
        """Give the access of `looker` or `actor`, or of a token that nobody has."""

    async def put(self, name: str, version: str) -> None:
        """Create or change a ModelDeployment."""

    async def remove(self, name: str) -> None:
        """Delete one."""


@dataclass
class FakePlace:
    """The API server of the dashboard's tests."""

    server: ApiServer
    client: ApiClient
    namespace: str = "contract"

    async def access(self, user: str) -> Access:
        return Access(api=self.client, token=user)

    async def put(self, name: str, version: str) -> None:
        self.server.put(model_deployment(name, namespace=self.namespace, version=version))

    async def remove(self, name: str) -> None:
        self.server.remove((self.namespace, name))


@dataclass
class RealPlace:
    """A real one; users are accounts of the namespace."""

    admin: ApiClient
    client: ApiClient
    """Without credentials."""
    namespace: str

    async def access(self, user: str) -> Access:
        if user not in ("looker", "actor"):
            return Access(api=self.client, token=user)
        path = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/{user}/token"
        spec = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        status, body = await call(self.admin, "POST", path, spec)
        assert status == 201, body
        return Access(api=self.client, token=body["status"]["token"])

    async def prepare(self) -> None:
        """Make the users and their roles."""
        looks = [
            {
                "apiGroups": ["canarium.dev"],
                "resources": ["modeldeployments"],
                "verbs": sorted(LOOKS),
            },
            {"apiGroups": [""], "resources": ["events"], "verbs": ["list"]},
        ]
        acts = [{**looks[0], "verbs": sorted(ACTS)}, looks[1]]
        rbac, core = "/apis/rbac.authorization.k8s.io/v1", "/api/v1"
        within = f"namespaces/{self.namespace}"
        for user, rules in (("looker", looks), ("actor", acts)):
            meta = {"metadata": {"name": user, "namespace": self.namespace}}
            role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": user}
            subject = {"kind": "ServiceAccount", "name": user, "namespace": self.namespace}
            for path, body in (
                (f"{core}/{within}/serviceaccounts", meta),
                (f"{rbac}/{within}/roles", {**meta, "rules": rules}),
                (f"{rbac}/{within}/rolebindings", {**meta, "roleRef": role, "subjects": [subject]}),
            ):
                status, answer = await call(self.admin, "POST", path, body)
                assert status == 201, answer

    async def put(self, name: str, version: str) -> None:
        body = model_deployment(name, namespace=self.namespace, version=version)
        path = f"/apis/canarium.dev/v1alpha1/namespaces/{self.namespace}/modeldeployments/{name}"
        status, answer = await call(self.admin, "PATCH", f"{path}?fieldManager=tests", body)
        assert status < 300, answer

    async def remove(self, name: str) -> None:
        path = f"/apis/canarium.dev/v1alpha1/namespaces/{self.namespace}/modeldeployments/{name}"
        await call(self.admin, "DELETE", path)


@pytest.fixture
async def fake_place(tmp_path: Path) -> AsyncIterator[FakePlace]:
    """The fake."""
    with running_api_server() as server:
        server.users = {
            "looker": Rights("looker", {"contract": LOOKS}),
            "actor": Rights("actor", {"contract": ACTS}),
        }
        config = tmp_path / "config"
        config.write_text(yaml.safe_dump(server.kubeconfig("actor")))
        async with connect(str(config), None, anonymous=True) as client:
            yield FakePlace(server, client)


@pytest.fixture
async def real_place(api: ApiClient, namespace: str) -> AsyncIterator[RealPlace]:
    """A namespace of the real cluster."""
    kubeconfig = os.environ["CANARIUM_TEST_KUBECONFIG"]
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(connect(kubeconfig, None, anonymous=True))
        place = RealPlace(api, client, namespace)
        await place.prepare()
        yield place


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.cluster)])
def place(request: pytest.FixtureRequest) -> Place:
    """Each in turn."""
    found: Place = request.getfixturevalue(f"{request.param}_place")
    return found


async def eventually(look: Callable[[], Awaitable[object]]) -> None:
    """Wait until something is so: a real API server takes a moment to learn of new roles."""
    async with asyncio.timeout(SECONDS):
        while not await look():  # noqa: ASYNC110 - there is nothing that would tell
            await asyncio.sleep(0.05)


async def test_lists_reads_and_watches_tell_the_same(place: Place) -> None:
    """A watch goes on from the version of the list, and tells what is added, changed and deleted."""
    looker = await place.access("looker")
    await eventually(lambda: looker.may("list", place.namespace))
    await place.put("one", "1")
    await place.put("two", "1")
    scope = Scope(namespace=place.namespace)
    found = await looker.find(scope)
    assert sorted(body["metadata"]["name"] for body in found.items) == ["one", "two"]
    assert not found.truncated
    (only,) = (await looker.find(Scope(namespace=place.namespace, name="two"))).items
    assert only["metadata"]["uid"] if "uid" in only["metadata"] else only["spec"]
    assert (await looker.read(place.namespace, "one"))["spec"]["model"]["version"] == "1"
    await place.put("one", "2")
    await place.put("three", "1")
    await place.remove("two")
    told: list[tuple[str, str]] = []
    async with asyncio.timeout(SECONDS):
        async for change in looker.watch(scope, found.version):
            if change.kind != "BOOKMARK":
                told.append((change.kind, change.body["metadata"]["name"]))
            if len(told) == 3:
                break
    assert told == [("MODIFIED", "one"), ("ADDED", "three"), ("DELETED", "two")]


async def test_a_watch_of_one_object_tells_of_it_alone(place: Place) -> None:
    """Which RBAC grants to who may read that object only."""
    looker = await place.access("looker")
    await eventually(lambda: looker.may("watch", place.namespace))
    scope = Scope(namespace=place.namespace, name="one")
    version = (await looker.find(scope)).version
    await place.put("other", "1")
    await place.put("one", "1")
    async with asyncio.timeout(SECONDS):
        async for change in looker.watch(scope, version):
            assert change.body["metadata"]["name"] == "one"
            break


async def test_a_version_that_is_too_old_is_told(place: Place) -> None:
    """Everything is listed anew then."""
    looker = await place.access("looker")
    await eventually(lambda: looker.may("watch", place.namespace))
    scope = Scope(namespace=place.namespace)
    watch = looker.watch(scope, "1")
    with pytest.raises(StaleError):
        await asyncio.wait_for(anext(watch), SECONDS)


async def test_rights_are_asked_and_kept(place: Place) -> None:
    """The review says what the API server then does."""
    looker, actor = await place.access("looker"), await place.access("actor")
    await place.put("one", "1")
    await eventually(lambda: looker.may("get", place.namespace, "one"))
    await eventually(lambda: actor.may("patch", place.namespace, "one"))
    assert not await looker.may("patch", place.namespace, "one")
    assert not await actor.may("list", None)
    assert (await looker.user()).endswith("looker")
    with pytest.raises(ForbiddenError, match='cannot patch resource "modeldeployments"'):
        await looker.annotate(place.namespace, "one", "canarium.dev/abort", "looker 1")
    with pytest.raises(ForbiddenError, match="at the cluster scope"):
        await actor.find(Scope())
    await actor.annotate(place.namespace, "one", "canarium.dev/abort", "actor 1")
    await actor.annotate(place.namespace, "one", "canarium.dev/pause", "actor 2")
    body = await looker.read(place.namespace, "one")
    assert body["metadata"]["annotations"]["canarium.dev/abort"] == "actor 1"
    assert body["metadata"]["annotations"]["canarium.dev/pause"] == "actor 2"
    assert body["spec"]["model"]["version"] == "1"


async def test_what_is_not_there_and_who_is_not_known_are_told_apart(place: Place) -> None:
    """A page says either in its own way."""
    looker, stranger = await place.access("looker"), await place.access("nobody")
    await eventually(lambda: looker.may("get", place.namespace))
    with pytest.raises(MissingError):
        await looker.read(place.namespace, "none")
    assert await looker.events(place.namespace, "none") == []
    with pytest.raises(SignedOutError):
        await stranger.read(place.namespace, "none")
