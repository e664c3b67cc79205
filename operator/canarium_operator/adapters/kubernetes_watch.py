"""The children of all ModelDeployments in memory, kept current by one list and one watch for each kind.

A pass reads its children from here, so that it costs the API server nothing. What this process wrote itself is put in
at once, so a pass never sees an older copy of an object than the one that it wrote; what others write is seen as soon
as the watch tells. A decision that rests on a copy that is behind does no harm: the status is written on condition of
the version that was read, and nothing is deleted before the live route was asked (`reconciler`).

What somebody else changed in an object that this process applied has its stamp taken off, so that the next pass sees
that it is not what was asked for, and applies it anew.

Only children are kept here; the ModelDeployments themselves are in `object_memory`.
"""

import asyncio
import json
import logging
import random
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from kubernetes.aio.client import ApiClient

from canarium_operator.adapters.kubernetes_errors import error_of, translated
from canarium_operator.core import manifests
from canarium_operator.core.manifests import Manifest
from canarium_operator.core.naming import DEPLOYMENT_LABEL, HASH_ANNOTATION, MANAGED_BY, ObjectRef
from canarium_operator.errors import ClusterError, NotFoundError

log = logging.getLogger(__name__)

AWAITED: Final = ("Deployment", "Pod", "HTTPRoute", "EndpointSlice")
"""Kinds whose changes a rollout waits for: they wake the owner. The others are repaired at the next resync."""
PAGE: Final = 500
"""Objects in one page of a list."""
WATCH_SECONDS: Final = (240, 360)
"""How long one watch lasts before the next, drawn by chance so that they do not all end together."""
SILENCE_SECONDS: Final = 90.0
"""A watch that says nothing for so long is given up: the API server sends a bookmark every minute."""
FIRST_BACKOFF, MAX_BACKOFF = 0.5, 30.0
"""Seconds between two attempts after an error."""
ABSENT_RETRY: Final = 60.0
"""Seconds until a kind that the cluster does not serve is looked for again."""
REPAIR_SECONDS: Final = 60.0
"""Least time between two repairs of an object: somebody who insists is not fought at the speed of a watch."""
_GONE: Final = 410
_KEPT: Final = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "labels",
    "annotations",
    "ownerReferences",
    "deletionTimestamp",
)
"""Metadata that somebody reads; `managedFields` alone may be larger than the rest of an object."""


@dataclass(frozen=True, kw_only=True)
class Resource:
    """One kind, as the API server serves it."""

    kind: str
    api_version: str
    prefix: str
    """Of its paths: `/apis/apps/v1`."""
    plural: str

    def path(self, namespace: str | None) -> str:
        """Path of the collection; of all namespaces without one."""
        within = f"/namespaces/{namespace}" if namespace is not None else ""
        return f"{self.prefix}{within}/{self.plural}"


@dataclass(frozen=True, kw_only=True)
class _Applied:
    """What this process applied last."""

    content: int
    at: float
    """Seconds of the monotonic clock."""


class _WatchEndedError(Exception):
    """The watch cannot go on from where it was: everything is listed anew."""


class ChildCache:
    """All labelled children, by the ModelDeployment that their label names."""

    def __init__(
        self,
        api: ApiClient,
        resources: Sequence[Resource],
        namespaces: Sequence[str] = (),
        on_change: Callable[[ObjectRef], None] = lambda _ref: None,
    ) -> None:
        """Prepare; nothing is sent before `run`.

        Args:
            api: closed by the caller.
            resources: the kinds to keep.
            namespaces: to look at; none: all.
            on_change: told the owner of each change that this process did not make, of the kinds in AWAITED.
        """
        self._api = api
        self._resources = {resource.kind: resource for resource in resources}
        self._scopes: tuple[str | None, ...] = tuple(namespaces) or (None,)
        self._on_change = on_change
        self._objects: dict[tuple[str, str], dict[tuple[str, str], Manifest]] = defaultdict(dict)
        self._waiting = {(kind, scope) for kind in self._resources for scope in self._scopes}
        self._ready = asyncio.Event()
        self._applied: dict[tuple[str, str, str], _Applied] = {}

    async def run(self) -> None:
        """List and watch until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for resource in self._resources.values():
                for scope in self._scopes:
                    tasks.create_task(self._keep(resource, scope), name=f"watch {resource.plural}")

    async def ready(self) -> None:
        """Wait until every kind was listed once."""
        await self._ready.wait()

    def children(self, ref: ObjectRef) -> list[Manifest]:
        """Give all objects that carry the labels of a ModelDeployment, whoever owns them. Not to be changed."""
        return list(self._objects.get((ref.namespace, ref.name), {}).values())

    def labelled(self, label: str, kinds: Sequence[str]) -> list[Manifest]:
        """Give the children of all ModelDeployments that are of some kinds and have a label; not to be changed."""
        return [
            child
            for owned in self._objects.values()
            for child in owned.values()
            if child["kind"] in kinds and label in manifests.labels(child)
        ]

    def replicas(self, manifest: Manifest) -> int | None:
        """Give the size that a Deployment asks for; None where it is not known."""
        found = self.find(manifest)
        size: int | None = found.get("spec", {}).get("replicas") if found is not None else None
        return size

    # --- what this process did itself

    def put(self, manifest: Manifest) -> None:
        """Take an object as the API server answered it."""
        if manifest["kind"] in self._resources and _owner(manifest) is not None:
            made = _Applied(content=_content(manifest), at=time.monotonic())
            self._applied[_place(manifest)] = made
            self._store(_trimmed(manifest))

    def scaled(self, manifest: Manifest, replicas: int) -> None:
        """Take note of a Deployment's new size; its watch tells the rest."""
        found = self.find(manifest)
        if found is not None:
            self._replace({**found, "spec": {**found.get("spec", {}), "replicas": replicas}})

    def deleted(self, manifest: Manifest) -> None:
        """Take note that an object was told to go; its watch tells when it is gone."""
        found = self.find(manifest)
        if found is not None and found["metadata"]["uid"] == manifest["metadata"]["uid"]:
            meta = {**found["metadata"], "deletionTimestamp": "now"}
            self._replace({**found, "metadata": meta})

    # --- what the API server says

    async def _keep(self, resource: Resource, scope: str | None) -> None:
        """Keep one kind current; an error costs a pause and a new list."""
        backoff = FIRST_BACKOFF
        while True:
            try:
                version = await self._list(resource, scope)
                self._heard(resource, scope)
                backoff = FIRST_BACKOFF
                while True:
                    version = await self._watch(resource, scope, version)
            except NotFoundError:
                # The kind is not served here (no Gateway API): nothing can be there.
                self._heard(resource, scope)
                await asyncio.sleep(ABSENT_RETRY)
            except _WatchEndedError as ended:
                log.debug("watch of %s: %s; listing anew", resource.plural, ended)
            except ClusterError as error:
                log.warning("watch of %s: %s; again in %.1f s", resource.plural, error, backoff)
                await asyncio.sleep(backoff * random.uniform(0.5, 1.5))  # noqa: S311 - spreads load
                backoff = min(backoff * 2, MAX_BACKOFF)

    def _heard(self, resource: Resource, scope: str | None) -> None:
        self._waiting.discard((resource.kind, scope))
        if not self._waiting:
            self._ready.set()

    async def _list(self, resource: Resource, scope: str | None) -> str:
        """List everything, forget what is no longer there, and give the version that a watch goes on from."""
        found: list[Manifest] = []
        query = {"limit": str(PAGE)}
        while True:
            page = await self._read(resource, scope, query)
            found += [
                {**item, "apiVersion": resource.api_version, "kind": resource.kind}
                for item in page.get("items") or []
            ]
            more = page["metadata"].get("continue")
            if not more:
                break
            query = {"limit": str(PAGE), "continue": more}
        version: str = page["metadata"]["resourceVersion"]
        listed = {(m["metadata"]["namespace"], m["metadata"]["name"]) for m in found}
        for owned in list(self._objects.values()):
            for known in list(owned.values()):
                meta = known["metadata"]
                gone = (meta["namespace"], meta["name"]) not in listed
                in_scope = scope is None or meta["namespace"] == scope
                # What this process wrote after the list was made is not in it; the watch from here tells of it.
                older = int(meta["resourceVersion"]) <= int(version)
                if known["kind"] == resource.kind and in_scope and gone and older:
                    self._remove(known)
        for manifest in found:
            self._take(manifest)
        return version

    async def _read(
        self, resource: Resource, scope: str | None, query: Mapping[str, str]
    ) -> dict[str, Any]:
        action = f"list {resource.plural}"
        with translated(action):
            response = await self._request(
                resource, scope, query, aiohttp.ClientTimeout(total=SILENCE_SECONDS)
            )
            content = await response.read()
            if response.status == _GONE:
                msg = "the list took too long"
                raise _WatchEndedError(msg)
            if response.status < 300:
                answer: dict[str, Any] = json.loads(content)
                return answer
        raise error_of(action, response.status, response.headers, content)

    async def _watch(self, resource: Resource, scope: str | None, version: str) -> str:
        """Follow the changes since a version until the watch ends, and give the version to go on from."""
        action = f"watch {resource.plural}"
        seconds = random.randint(*WATCH_SECONDS)  # noqa: S311 - spreads load
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(seconds),
        }
        timeout = aiohttp.ClientTimeout(total=None, connect=15, sock_read=SILENCE_SECONDS)
        with translated(action):
            response = await self._request(resource, scope, query, timeout)
            try:
                if response.status >= 300:
                    content = await response.read()
                    if response.status == _GONE:
                        msg = "the version is too old"
                        raise _WatchEndedError(msg)
                    raise error_of(action, response.status, response.headers, content)
                async for line in response.content:
                    version = self._told(resource, json.loads(line), version)
            finally:
                response.close()
        return version

    def _told(self, resource: Resource, event: dict[str, Any], version: str) -> str:
        kind, body = event["type"], event["object"]
        if kind == "ERROR":
            raise _WatchEndedError(str(body.get("message", body)))
        version = body["metadata"]["resourceVersion"]
        if kind == "BOOKMARK":
            return version
        manifest = {**body, "apiVersion": resource.api_version, "kind": resource.kind}
        if kind == "DELETED":
            self._remove(manifest)
        else:
            self._take(manifest)
        return version

    async def _request(
        self,
        resource: Resource,
        scope: str | None,
        query: Mapping[str, str],
        timeout: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        selector = ",".join(f"{name}={value}" for name, value in MANAGED_BY.items())
        serialized = await self._api.param_serialize(
            "GET",
            resource.path(scope),
            query_params=[("labelSelector", f"{selector},{DEPLOYMENT_LABEL}"), *query.items()],
            header_params={"Accept": "application/json"},
            auth_settings=["BearerToken"],
        )
        answer = await self._api.call_api(*serialized, _request_timeout=timeout)
        response: aiohttp.ClientResponse = answer.response
        return response

    # --- the store

    def _take(self, manifest: Manifest) -> None:
        """Take a change that the API server tells of, and wake its owner if it is news."""
        if _owner(manifest) is None:
            return
        trimmed, foreign = _trimmed(manifest), self._is_foreign(manifest)
        if foreign:
            notes = {**manifests.annotations(trimmed)}
            notes.pop(HASH_ANNOTATION, None)
            trimmed["metadata"]["annotations"] = notes
        if self._store(trimmed):
            self._tell(manifest, foreign=foreign)

    def _is_foreign(self, manifest: Manifest) -> bool:
        """Tell whether somebody else has changed what this process applied, and it is time to repair that."""
        made = self._applied.get(_place(manifest))
        if made is None or time.monotonic() < made.at + REPAIR_SECONDS:
            return False
        return _content(manifest) != made.content

    def _store(self, manifest: Manifest) -> bool:
        """Keep an object, unless a newer copy is there; gives whether it is news."""
        known = self.find(manifest)
        if known is not None and known["metadata"]["uid"] == manifest["metadata"]["uid"]:
            # Versions of one kind are numbers that grow (KEP-5504 makes official what has always been so).
            old, new = (int(m["metadata"]["resourceVersion"]) for m in (known, manifest))
            if new <= old:
                return False
        self._replace(manifest)
        return True

    def find(self, manifest: Manifest) -> Manifest | None:
        """Give an object's latest copy by kind and name; None where there is none. Not to be changed."""
        return self._objects.get(_key(manifest), {}).get(manifests.key(manifest))

    def _replace(self, manifest: Manifest) -> None:
        self._objects[_key(manifest)][manifests.key(manifest)] = manifest

    def _remove(self, manifest: Manifest) -> None:
        known = self.find(manifest)
        if known is None or known["metadata"]["uid"] != manifest["metadata"]["uid"]:
            return
        self._applied.pop(_place(manifest), None)
        owned = self._objects[_key(manifest)]
        del owned[manifests.key(manifest)]
        if not owned:
            del self._objects[_key(manifest)]
        self._tell(manifest)

    def _tell(self, manifest: Manifest, *, foreign: bool = False) -> None:
        if manifest["kind"] in AWAITED or foreign:
            namespace, name = _key(manifest)
            self._on_change(ObjectRef(namespace=namespace, name=name))


def _owner(manifest: Manifest) -> str | None:
    return manifests.labels(manifest).get(DEPLOYMENT_LABEL)


def _key(manifest: Manifest) -> tuple[str, str]:
    return manifest["metadata"]["namespace"], manifests.labels(manifest).get(DEPLOYMENT_LABEL, "")


def _place(manifest: Manifest) -> tuple[str, str, str]:
    meta = manifest["metadata"]
    return manifest["kind"], meta["namespace"], meta["name"]


def _content(manifest: Manifest) -> int:
    """Give a hash of what applying an object decides, with the defaults of the API server: all but status, versions,
    others' annotations, and the size, which is the autoscaler's.
    """
    meta = manifest["metadata"]
    content = {k: v for k, v in manifest.items() if k not in ("metadata", "status", "apiVersion")}
    if manifest["kind"] == "Deployment":
        content["spec"] = {k: v for k, v in content["spec"].items() if k != "replicas"}
    shown = (meta.get("labels"), meta.get("ownerReferences"), content)
    return hash(json.dumps(shown, sort_keys=True))


def _trimmed(manifest: Manifest) -> Manifest:
    """Leave out what nobody reads: most of an object's size."""
    meta = {name: manifest["metadata"][name] for name in _KEPT if name in manifest["metadata"]}
    trimmed = {**manifest, "metadata": meta}
    if manifest["kind"] == "Pod":
        trimmed.pop("spec", None)
    return trimmed
