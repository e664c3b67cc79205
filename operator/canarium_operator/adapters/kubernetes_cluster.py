"""`ports.Cluster` over the Kubernetes API, with the asyncio client of the `kubernetes` package.

Paths are written out instead of discovered: the operator knows its kinds, and discovery would be one more thing
to fail and to keep fresh. All writes of manifests are server-side applies under one field manager.
"""

import asyncio
import base64
import contextlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, timedelta
from typing import Final

import aiohttp
from kubernetes.aio.client import ApiClient

from canarium_api import API_VERSION, GROUP, KIND, PLURAL, VERSION
from canarium_api.status import SignatureStatus
from canarium_operator.adapters.kubernetes_connection import connect
from canarium_operator.adapters.kubernetes_errors import error_of, translated
from canarium_operator.adapters.kubernetes_watch import ChildCache, Resource
from canarium_operator.adapters.model_probe import read_signature
from canarium_operator.adapters.object_memory import ObjectMemory
from canarium_operator.core.manifests import Manifest
from canarium_operator.core.memory import COPY, is_memory
from canarium_operator.core.naming import (
    DEPLOYMENT_LABEL,
    FIELD_MANAGER,
    JOBS_LABEL,
    MANAGED_BY,
    MEMORY_LABEL,
    REVISION_LABEL,
    ObjectRef,
    event_name,
)
from canarium_operator.errors import (
    ConflictError,
    ForbiddenError,
    NotFoundError,
    RejectedError,
    TransientClusterError,
)
from canarium_operator.ports import EventRecord

__all__ = ["CHILD_KINDS", "CHILD_RESOURCES", "NO_GATEWAY_API", "KubernetesCluster", "connect"]

_GATEWAY: Final = "/apis/gateway.networking.k8s.io/v1"
_COLLECTIONS: Final[Mapping[str, tuple[str, str, str]]] = {
    KIND: (API_VERSION, f"/apis/{GROUP}/{VERSION}", PLURAL),
    "ConfigMap": ("v1", "/api/v1", "configmaps"),
    "Service": ("v1", "/api/v1", "services"),
    "Pod": ("v1", "/api/v1", "pods"),
    "Event": ("v1", "/api/v1", "events"),
    "Secret": ("v1", "/api/v1", "secrets"),
    "EndpointSlice": ("discovery.k8s.io/v1", "/apis/discovery.k8s.io/v1", "endpointslices"),
    "Deployment": ("apps/v1", "/apis/apps/v1", "deployments"),
    "HorizontalPodAutoscaler": (
        "autoscaling/v2",
        "/apis/autoscaling/v2",
        "horizontalpodautoscalers",
    ),
    "Job": ("batch/v1", "/apis/batch/v1", "jobs"),
    "PodDisruptionBudget": ("policy/v1", "/apis/policy/v1", "poddisruptionbudgets"),
    "HTTPRoute": ("gateway.networking.k8s.io/v1", _GATEWAY, "httproutes"),
}
"""Kind to apiVersion, prefix of the path, and plural."""
CHILD_KINDS: Final = (
    "ConfigMap", "Service", "Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget", "HTTPRoute", "Pod",
    "EndpointSlice", "Job",
)  # fmt: skip
CHILD_RESOURCES: Final = tuple(
    Resource(kind=kind, api_version=version, prefix=prefix, plural=plural)
    for kind, (version, prefix, plural) in _COLLECTIONS.items()
    if kind in CHILD_KINDS
)
"""What a `ChildCache` keeps."""
NO_GATEWAY_API: Final = (
    "the cluster has no Gateway API (httproutes.gateway.networking.k8s.io): install its CRDs and a gateway controller "
    "(gateway-api.sigs.k8s.io/guides)"
)
_APPLY: Final = "application/apply-patch+yaml"
_MAX_EVENT_MESSAGE: Final = 1024
"""Characters; the API server refuses more."""
_SCALE_ATTEMPTS: Final = 5
_MAX_REMEMBERED_OWNERS: Final = 10_000


class KubernetesCluster:
    """The real cluster."""

    def __init__(
        self,
        api: ApiClient,
        timeout: timedelta = timedelta(seconds=15),
        cache: ChildCache | None = None,
        objects: ObjectMemory | None = None,
    ) -> None:
        """Wrap a client.

        Args:
            api: from `kubernetes_connection.connect`; closed by the caller.
            timeout: for one call, from connecting to the last byte.
            cache: where children are read from, while somebody runs it; None: from the API server.
            objects: where ModelDeployments are read from, while somebody fills it; None: from the API server.
        """
        self._api = api
        self._cache = cache
        self._objects = objects
        self._timeout = aiohttp.ClientTimeout(total=timeout.total_seconds())
        self._known: dict[str, set[tuple[str, str]]] = {}

    async def get(self, ref: ObjectRef, *, fresh: bool = False) -> Manifest | None:
        """Read a ModelDeployment; None where there is none."""
        if self._objects is not None and not fresh:
            known = self._objects.get(ref)
            if known is not None:
                return known
        try:
            found = await self._call(
                "GET", _path(KIND, ref.namespace, ref.name), f"read {KIND} {ref}"
            )
        except NotFoundError:
            if self._objects is not None:
                self._objects.drop(ref)
            return None
        if self._objects is not None:
            self._objects.put(found)
        return found

    async def children(self, ref: ObjectRef) -> Sequence[Manifest]:
        """Give the children from memory, or list those of every kind, in parallel.

        Objects that carry the labels but belong to another owner are left out: a ModelDeployment that was deleted
        and created again has no part in what its predecessor leaves to the garbage collector.
        """
        if self._cache is not None:
            await self._cache.ready()
            labelled = self._cache.children(ref)
        else:
            lists = await asyncio.gather(*(self._list(kind, ref) for kind in CHILD_KINDS))
            labelled = [child for children in lists for child in children]
        found = [child for child in labelled if _belongs(child, ref)]
        self._remember(ref.uid, {(child["kind"], child["metadata"]["name"]) for child in found})
        return found

    async def reread(self, manifest: Manifest) -> Manifest | None:
        """Read a child from the API server itself."""
        meta, kind = manifest["metadata"], manifest["kind"]
        path = _path(kind, meta["namespace"], meta["name"])
        try:
            found = await self._call("GET", path, f"read {_title(manifest)}")
        except NotFoundError:
            return None
        return {**found, "apiVersion": _COLLECTIONS[kind][0], "kind": kind}

    async def _list(self, kind: str, ref: ObjectRef) -> list[Manifest]:
        labels = {**MANAGED_BY, DEPLOYMENT_LABEL: ref.name}
        selector = ",".join(f"{name}={value}" for name, value in labels.items())
        try:
            listed = await self._call(
                "GET",
                _path(kind, ref.namespace),
                f"list the {_COLLECTIONS[kind][2]} of {ref}",
                query={"labelSelector": selector},
            )
        except NotFoundError:
            return []  # the kind is not served here; applying one says what to do about it
        # Items of a list carry no type.
        return [
            {**item, "apiVersion": _COLLECTIONS[kind][0], "kind": kind}
            for item in listed.get("items") or []
        ]

    async def apply(self, manifest: Manifest) -> Manifest:
        """Apply with force; an object of the same name that is not ours is left alone."""
        await self._refuse_strangers(manifest)
        meta = manifest["metadata"]
        path = _path(manifest["kind"], meta["namespace"], meta["name"])
        applied = await self._apply(path, manifest)
        self._known.setdefault(_owner_uid(manifest) or _title(manifest), set()).add(
            (manifest["kind"], meta["name"])
        )
        if self._cache is not None:
            self._cache.put(applied)
        return applied

    async def apply_status(self, manifest: Manifest) -> Manifest:
        """Apply `.status` if nobody wrote to the object since it was read."""
        meta = manifest["metadata"]
        body = {
            "apiVersion": manifest["apiVersion"],
            "kind": manifest["kind"],
            "metadata": {
                name: meta[name]
                for name in ("name", "namespace", "uid", "resourceVersion")
                if name in meta
            },
            "status": manifest["status"],
        }
        path = _path(manifest["kind"], meta["namespace"], meta["name"]) + "/status"
        try:
            written = await self._apply(path, body)
        except (ConflictError, NotFoundError):
            if self._objects is not None:
                # What was read is behind: the next pass looks at the real thing.
                ref = ObjectRef(namespace=meta["namespace"], name=meta["name"])
                self._objects.drop(ref)
            raise
        if self._objects is not None:
            self._objects.put(written)
        return written

    async def _apply(self, path: str, manifest: Manifest) -> Manifest:
        action = f"apply {_title(manifest)}"
        try:
            return await self._call(
                "PATCH",
                path,
                action,
                query={"fieldManager": FIELD_MANAGER, "force": "true"},
                body=manifest,
                content_type=_APPLY,
            )
        except NotFoundError as error:
            if manifest["kind"] == "HTTPRoute":
                raise RejectedError(NO_GATEWAY_API) from error
            raise

    async def scale(self, manifest: Manifest, replicas: int) -> None:
        """Raise a Deployment's replicas; what its HPA has set higher in the meantime stays."""
        meta = manifest["metadata"]
        path = _path(manifest["kind"], meta["namespace"], meta["name"]) + "/scale"
        action = f"scale {_title(manifest)} to {replicas}"
        known = self._cache.replicas(manifest) if self._cache is not None else None
        for attempt in range(1, _SCALE_ATTEMPTS + 1):
            if known is None:
                scale = await self._call("GET", path, action)
                known = (scale.get("spec") or {}).get("replicas", 0)
            if known >= replicas:
                return
            # The test keeps what an HPA has set since; all else that changes meanwhile does not matter.
            body = [
                {"op": "test", "path": "/spec/replicas", "value": known},
                {"op": "replace", "path": "/spec/replicas", "value": replicas},
            ]
            try:
                await self._call(
                    "PATCH", path, action, query={"fieldManager": FIELD_MANAGER}, body=body,
                    content_type="application/json-patch+json",
                )  # fmt: skip
            except (ConflictError, RejectedError):
                if attempt == _SCALE_ATTEMPTS:
                    raise
                known = None
            else:
                if self._cache is not None:
                    self._cache.scaled(manifest, replicas)
                return

    async def resize(self, manifest: Manifest, replicas: int) -> None:
        """Set a Deployment's replicas."""
        meta = manifest["metadata"]
        path = _path(manifest["kind"], meta["namespace"], meta["name"]) + "/scale"
        body = [{"op": "replace", "path": "/spec/replicas", "value": replicas}]
        with contextlib.suppress(NotFoundError):
            await self._call(
                "PATCH", path, f"scale {_title(manifest)} to {replicas}",
                query={"fieldManager": FIELD_MANAGER}, body=body, content_type="application/json-patch+json",
            )  # fmt: skip
            if self._cache is not None:
                self._cache.scaled(manifest, replicas)

    async def objects_of_jobs(self) -> Sequence[Manifest]:
        """Give them from memory, or list them in all namespaces."""
        if self._cache is not None:
            await self._cache.ready()
            return self._cache.labelled(JOBS_LABEL, ("Deployment", "ConfigMap"))
        found: list[Manifest] = []
        for kind in ("Deployment", "ConfigMap"):
            version, prefix, plural = _COLLECTIONS[kind]
            answer = await self._call(
                "GET", f"{prefix}/{plural}", f"list {plural}", query={"labelSelector": JOBS_LABEL}
            )
            found += [{"apiVersion": version, "kind": kind, **i} for i in answer["items"]]
        return found

    async def copies(self, namespace: str) -> Sequence[Manifest]:
        """List them in one answer: there are as many as there were ModelDeployments lately, some KiB each."""
        listed = await self._call(
            "GET", _path("ConfigMap", namespace), f"list the copies of memories in {namespace}",
            query={"labelSelector": f"{MEMORY_LABEL}={COPY}"},
        )  # fmt: skip
        return [{"apiVersion": "v1", "kind": "ConfigMap", **item} for item in listed["items"]]

    async def delete(self, manifest: Manifest) -> None:
        """Delete, with a precondition on the uid."""
        meta = manifest["metadata"]
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": meta["uid"]},
        }
        path = _path(manifest["kind"], meta["namespace"], meta["name"])
        # Gone already, or another object has taken the name: as good as done.
        with contextlib.suppress(NotFoundError, ConflictError):
            await self._call("DELETE", path, f"delete {_title(manifest)}", body=options)
        if self._cache is not None:
            self._cache.deleted(manifest)

    async def template(self, namespace: str | None, name: str) -> Manifest | None:
        """Read an AnalysisTemplate, or without a namespace a ClusterAnalysisTemplate; None where there is none."""
        prefix = f"/apis/{GROUP}/{VERSION}"
        path = f"{prefix}/clusteranalysistemplates/{name}"
        if namespace is not None:
            path = f"{prefix}/namespaces/{namespace}/analysistemplates/{name}"
        try:
            return await self._call("GET", path, f"read the analysis template {name}")
        except NotFoundError:
            return None

    async def gateway_class(self, namespace: str, name: str) -> Manifest | None:
        """Read the GatewayClass of a Gateway; None where either of the two is not there, or may not be read."""
        try:
            path = f"{_GATEWAY}/namespaces/{namespace}/gateways/{name}"
            gateway = await self._call("GET", path, f"read Gateway {namespace}/{name}")
            of = gateway.get("spec", {}).get("gatewayClassName", "")
            path = f"{_GATEWAY}/gatewayclasses/{of}"
            return await self._call("GET", path, f"read GatewayClass {of}")
        except (NotFoundError, ForbiddenError):
            return None

    async def secret(self, namespace: str, name: str) -> Mapping[str, str] | None:
        """Read a Secret's texts; None where there is none. Values that are no text are left out."""
        try:
            found = await self._call(
                "GET", _path("Secret", namespace, name), f"read Secret {namespace}/{name}"
            )
        except NotFoundError:
            return None
        texts = {}
        for key, value in (found.get("data") or {}).items():
            with contextlib.suppress(ValueError):
                texts[key] = base64.b64decode(value).decode()
        return texts

    async def signature(
        self, ref: ObjectRef, revision: str, model: str, *, tls: bool = False
    ) -> SignatureStatus:
        """Ask a pod for its model's inputs and outputs."""
        return await read_signature(self._api, ref, revision, model, tls=tls)

    async def record_event(self, ref: ObjectRef, event: EventRecord) -> None:
        """Post an Event under a name made of the object and the epoch."""
        at = event.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": event_name(ref, event.epoch, event.about),
                "namespace": ref.namespace,
            },
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": ref.name,
                "namespace": ref.namespace,
                "uid": ref.uid,
            },
            "type": "Warning" if event.warning else "Normal",
            "reason": event.reason,
            "message": event.message[:_MAX_EVENT_MESSAGE],
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
            "source": {"component": FIELD_MANAGER},
            "reportingComponent": FIELD_MANAGER,
            "reportingInstance": FIELD_MANAGER,
        }
        try:
            await self._call(
                "POST",
                _path("Event", ref.namespace),
                f"record event {event.reason} of {ref}",
                body=body,
            )
        except ConflictError:
            return  # posted before

    async def _refuse_strangers(self, manifest: Manifest) -> None:
        """Look before the first apply of an object: a forced apply would take over what somebody else made under its
        name.
        """
        # The memory of a ModelDeployment has no owner; it is known by its own name.
        owner = _title(manifest) if is_memory(manifest) else _owner_uid(manifest)
        name = (manifest["kind"], manifest["metadata"]["name"])
        known = self._known.get(owner or "", ())
        if owner is None or name in known:
            return
        of_revision = REVISION_LABEL in manifest["metadata"].get("labels", {})
        if of_revision and ("ConfigMap", name[1]) in known and not self._is_cached(manifest):
            # All objects of a revision have one name, with a hash in it. Nobody else's ConfigMap had it, and of those
            # that another ModelDeployment of this name left behind we know.
            return
        found = await self.reread(manifest)
        if found is None:
            return
        if is_memory(manifest) and is_memory(found):
            self._remember(owner, {name})
            return
        owners = found["metadata"].get("ownerReferences") or []
        if any(entry.get("uid") == owner for entry in owners):
            return
        if any(entry.get("kind") == KIND for entry in owners):
            msg = f"{_title(manifest)} belongs to another {KIND}; waiting for it to go"
            raise TransientClusterError(msg)
        msg = f"{_title(manifest)} exists already and is not Canarium's: delete it, or rename the {KIND}"
        raise RejectedError(msg)

    def _is_cached(self, manifest: Manifest) -> bool:
        """Tell whether there is an object of this kind and name, as far as is known; True where nothing is known."""
        return self._cache is None or self._cache.find(manifest) is not None

    def _remember(self, owner: str, names: set[tuple[str, str]]) -> None:
        if len(self._known) >= _MAX_REMEMBERED_OWNERS:
            self._known.clear()  # costs one look for each object that is applied next
        self._known[owner] = names

    async def _call(
        self,
        method: str,
        path: str,
        action: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Manifest | list[Manifest] | None = None,
        content_type: str = "application/json",
    ) -> Manifest:
        with translated(action):
            serialized = await self._api.param_serialize(
                method,
                path,
                query_params=list((query or {}).items()),
                header_params={"Accept": "application/json", "Content-Type": content_type},
                body=body,
                auth_settings=["BearerToken"],
            )
            response = await self._api.call_api(*serialized, _request_timeout=self._timeout)
            content = await response.read()
            if 200 <= response.status < 300:
                answer: Manifest = json.loads(content)
                return answer
        raise error_of(action, response.status, response.headers, content)


def _path(kind: str, namespace: str, name: str | None = None) -> str:
    _, prefix, plural = _COLLECTIONS[kind]
    path = f"{prefix}/namespaces/{namespace}/{plural}"
    return path if name is None else f"{path}/{name}"


def _title(manifest: Manifest) -> str:
    meta = manifest["metadata"]
    return f"{manifest['kind']} {meta['namespace']}/{meta['name']}"


def _owner_uid(manifest: Manifest) -> str | None:
    owners = manifest["metadata"].get("ownerReferences") or []
    return owners[0]["uid"] if owners else None


def _belongs(child: Manifest, ref: ObjectRef) -> bool:
    """Pods are owned by a ReplicaSet and EndpointSlices by a Service, so for them the labels must do."""
    owners = child["metadata"].get("ownerReferences") or []
    return (
        child["kind"] in ("Pod", "EndpointSlice")
        or not ref.uid
        or is_memory(child)
        or any(owner.get("uid") == ref.uid for owner in owners)
    )
