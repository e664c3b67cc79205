"""The memory of children: what a list, a watch and this process's own writes make of it, in every order."""

from collections.abc import Mapping
from typing import Any

import pytest

from canarium_operator.adapters import kubernetes_watch
from canarium_operator.adapters.kubernetes_watch import ChildCache, Resource
from canarium_operator.adapters.object_memory import ObjectMemory
from canarium_operator.core import manifests, naming
from canarium_operator.core.manifests import Manifest
from canarium_operator.core.naming import ObjectRef

REF = ObjectRef(namespace="ml", name="fraud")
CONFIGMAPS = Resource(kind="ConfigMap", api_version="v1", prefix="/api/v1", plural="configmaps")
DEPLOYMENTS = Resource(
    kind="Deployment", api_version="apps/v1", prefix="/apis/apps/v1", plural="deployments"
)
PODS = Resource(kind="Pod", api_version="v1", prefix="/api/v1", plural="pods")


def child(name: str = "a", version: int = 1, kind: str = "ConfigMap", **parts: Any) -> Manifest:
    """A child as the API server answers it."""
    meta = {
        "name": name,
        "namespace": REF.namespace,
        "uid": f"uid-of-{name}",
        "resourceVersion": str(version),
        "labels": naming.object_labels(REF),
        "managedFields": [{"manager": "somebody"}],
    }
    return {"apiVersion": "v1", "kind": kind, "metadata": meta, **parts}


class Listed(ChildCache):
    """A memory whose lists are given instead of asked for."""

    def __init__(self) -> None:
        self.woken: list[ObjectRef] = []
        super().__init__(None, [CONFIGMAPS, PODS], on_change=self.woken.append)  # type: ignore[arg-type]
        self.page: dict[str, Any] = {}

    async def _read(
        self, resource: Resource, scope: str | None, query: Mapping[str, str]
    ) -> dict[str, Any]:
        return self.page

    async def lists(self, version: int, *items: Manifest, of: Resource = CONFIGMAPS) -> None:
        """Take a list of that version."""
        self.page = {"items": list(items), "metadata": {"resourceVersion": str(version)}}
        await self._list(of, None)

    def tell(self, kind: str, body: Manifest, of: Resource = CONFIGMAPS) -> None:
        """Take an event of a watch."""
        self._told(of, {"type": kind, "object": body}, "0")

    def names(self) -> list[str]:
        return sorted(body["metadata"]["name"] for body in self.children(REF))


async def test_what_was_written_after_a_list_was_made_outlives_it() -> None:
    """The list shows an earlier state; the watch that follows it tells of the write."""
    cache = Listed()
    await cache.lists(5, child("a", 3))
    cache.put(child("b", 9))
    await cache.lists(8, child("a", 3))
    assert cache.names() == ["a", "b"]
    await cache.lists(12, child("a", 3))
    assert cache.names() == ["a"], "gone meanwhile"


async def test_an_older_copy_never_replaces_a_newer_one() -> None:
    """Neither by a list nor by an event that was on its way."""
    cache = Listed()
    cache.put(child("a", 7, data={"weight": "20"}))
    cache.tell("MODIFIED", child("a", 6, data={"weight": "10"}))
    await cache.lists(6, child("a", 6, data={"weight": "10"}))
    [found] = cache.children(REF)
    assert found["data"] == {"weight": "20"}
    assert "managedFields" not in found["metadata"]


def test_only_the_news_of_others_wakes() -> None:
    """The echo of an own write tells nothing; kinds that nobody waits for do not wake."""
    cache = Listed()
    cache.put(child("p", 3, "Pod"))
    cache.tell("ADDED", child("p", 3, "Pod"), of=PODS)
    cache.tell("ADDED", child("c", 4))
    assert cache.woken == []
    cache.tell("MODIFIED", child("p", 5, "Pod"), of=PODS)
    cache.tell("DELETED", child("p", 6, "Pod"), of=PODS)
    assert cache.woken == [REF, REF]
    assert cache.names() == ["c"]


def test_what_was_told_to_go_is_on_its_way_until_the_watch_says_that_it_is_gone() -> None:
    """So that it is not deleted twice; another object of the same name is not touched."""
    cache = Listed()
    cache.put(child("a", 3))
    cache.deleted({**child("a"), "metadata": {**child("a")["metadata"], "uid": "another"}})
    assert not manifests.is_being_deleted(cache.children(REF)[0])
    cache.deleted(child("a", 3))
    assert manifests.is_being_deleted(cache.children(REF)[0])
    cache.tell("DELETED", child("a", 4))
    assert cache.names() == []


def stamped(version: int, uri: str) -> Manifest:
    """A child that carries our stamp."""
    made = child("a", version, data={"uri": uri})
    made["metadata"]["annotations"] = {naming.HASH_ANNOTATION: "1234"}
    return made


def stamp(cache: ChildCache) -> str | None:
    (found,) = cache.children(REF)
    return manifests.annotations(found).get(naming.HASH_ANNOTATION)


def test_what_somebody_else_changed_loses_its_stamp_and_wakes_its_owner(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next pass applies it anew; its answer is what is asked for from then on. At most once a minute."""
    now = 1000.0
    monkeypatch.setattr(kubernetes_watch.time, "monotonic", lambda: now)
    cache = Listed()
    cache.put(stamped(1, "ours"))
    cache.tell("MODIFIED", stamped(2, "theirs"))
    assert stamp(cache) == "1234", "a moment ago we wrote it ourselves"
    now += 61
    cache.tell("MODIFIED", stamped(3, "theirs"))
    assert stamp(cache) is None
    assert cache.woken == [REF]
    cache.put(stamped(4, "ours"))
    now += 61
    cache.tell("MODIFIED", stamped(5, "ours"))
    assert stamp(cache) == "1234"
    assert cache.woken == [REF]


def test_an_autoscalers_size_is_no_change_of_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is a status."""
    now = 1000.0
    monkeypatch.setattr(kubernetes_watch.time, "monotonic", lambda: now)
    cache = ChildCache(None, [DEPLOYMENTS])  # type: ignore[arg-type]

    def deployment(version: int, replicas: int) -> Manifest:
        made = child(
            "a", version, kind="Deployment", spec={"replicas": replicas}, status={"n": version}
        )
        made["metadata"]["annotations"] = {naming.HASH_ANNOTATION: "1234"}
        return made

    cache.put(deployment(1, 2))
    now += 61
    cache._told(DEPLOYMENTS, {"type": "MODIFIED", "object": deployment(2, 5)}, "0")
    assert stamp(cache) == "1234"
    assert cache.replicas(deployment(2, 5)) == 5


def test_of_two_copies_of_an_object_the_newer_stays() -> None:
    """A watch may tell late what this process has written since."""

    def body(version: int, uid: str = "u") -> Manifest:
        meta = {"namespace": "ml", "name": "fraud", "uid": uid, "resourceVersion": str(version)}
        return {"kind": "ModelDeployment", "metadata": meta, "status": {"epoch": version}}

    objects = ObjectMemory()
    assert objects.get(REF) is None
    objects.put(body(9))
    objects.put(body(10))
    objects.put(body(9))
    assert (objects.get(REF) or {})["status"] == {"epoch": 10}
    objects.put(body(3, uid="another"))
    assert (objects.get(REF) or {})["status"] == {"epoch": 3}, "made anew"
    objects.drop(REF)
    assert objects.get(REF) is None
