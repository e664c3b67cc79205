"""`FakeCluster`: the Kubernetes API in memory, with the semantics that the operator depends on.

What it has of the real one: resource versions and generations, pruning, defaults and checks by the CRD's schema,
server-side apply with one owner of fields, optimistic locking of status, uids, owner references and their garbage
collection, Events by name. The contract suite (tests/contract) runs against this class and against a real cluster.

A test drives it from three sides: as the user (`put`, `annotate`, `remove`), as time (`tick`, see `controllers`), and
as trouble (`before` and `after`, which may raise: before the effect nothing has happened, after it the answer is lost).
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from canarium_api import KIND
from canarium_api.status import SignatureStatus, TensorStatus
from canarium_operator.core import manifests, naming, pods
from canarium_operator.core.manifests import Manifest
from canarium_operator.core.memory import COPY, is_memory
from canarium_operator.core.naming import ObjectRef
from canarium_operator.errors import (
    ConflictError,
    NotFoundError,
    ProbeError,
    RejectedError,
    TransientClusterError,
)
from canarium_operator.ports import EventRecord
from canarium_operator.testing.api_server import FakeApiServer, copied, owner_uids, read_copy
from canarium_operator.testing.controllers import Controllers

CHILD_KINDS: Final = (
    "ConfigMap", "Service", "Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget", "HTTPRoute", "Pod",
    "EndpointSlice", "Job",
)  # fmt: skip


SIGNATURE: Final = SignatureStatus(
    inputs=[TensorStatus(name="input", datatype="FP32", shape=[-1, 4])],
    outputs=[TensorStatus(name="score", datatype="FP32", shape=[-1, 1])],
)
"""What a model takes and gives, unless it is said otherwise."""


@dataclass(frozen=True)
class Call:
    """One call of a port method: `Call("apply", "Deployment", "fraud-1a2b3c4d5e")`."""

    method: str
    kind: str
    name: str


Hook = Callable[[Call], None]


class FakeCluster(FakeApiServer):
    """`ports.Cluster` in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.before: Hook = lambda _call: None
        """Called before each effect; raise here and nothing has happened."""
        self.after: Hook = lambda _call: None
        """Called after each effect; raise here and it has happened, but the operator does not learn of it."""
        self.refuse: Callable[[Manifest], str | None] = lambda _manifest: None
        """An admission plugin: gives the reason to refuse an applied object, or None."""
        self.behind: Callable[[], bool] = lambda: False
        """Whether the operator's memory is behind: a look gives what the last one gave, besides what was written by
        this port since."""
        self._seen: dict[tuple[str, str], dict[tuple[str, str], Manifest]] = {}
        self._read: dict[tuple[str, str], Manifest | None] = {}
        self.calls: list[Call] = []
        self.events: list[tuple[str, EventRecord]] = []
        """(`namespace/name`, Event), each once, in order."""
        self.controllers = Controllers(self)
        self._applied: dict[str, Manifest] = {}
        self._posted: set[str] = set()
        self.signatures: dict[str, SignatureStatus] = {}
        """Inputs and outputs of the models of revisions; others have SIGNATURE."""
        self.silent: set[str] = set()
        """Revisions whose pods do not tell theirs."""
        self.templates: dict[tuple[str | None, str], Manifest] = {}
        """AnalysisTemplates by namespace and name; namespace None: those of the whole cluster."""
        self.gateway_classes: dict[tuple[str, str], Manifest] = {}
        """By namespace and name of the Gateway."""
        self.secrets: dict[tuple[str, str], dict[str, str]] = {}
        """By namespace and name."""

    def tick(self, now: datetime) -> None:
        """Let the controllers of the cluster work: pods, autoscalers, the gateway."""
        self.controllers.tick(now)

    async def get(self, ref: ObjectRef, *, fresh: bool = False) -> Manifest | None:
        """Read a ModelDeployment."""
        await self._enter(call := Call("get" if fresh else "recall", KIND, ref.name))
        key = (ref.namespace, ref.name)
        if fresh or key not in self._read or not self.behind():
            self._remember(key)
        self.after(call)
        return self._read[key]

    async def reread(self, manifest: Manifest) -> Manifest | None:
        """Read a child."""
        kind, meta = manifest["kind"], manifest["metadata"]
        await self._enter(call := Call("reread", kind, meta["name"]))
        found = self.find(kind, meta["namespace"], meta["name"])
        self.after(call)
        return found

    def _remember(self, key: tuple[str, str]) -> None:
        """Put a ModelDeployment into the operator's memory as it is now."""
        self._read[key] = self.find(KIND, *key)

    async def children(self, ref: ObjectRef) -> Sequence[Manifest]:
        """List the children."""
        await self._enter(call := Call("children", KIND, ref.name))
        key = (ref.namespace, ref.name)
        if key not in self._seen or not self.behind():
            self._seen[key] = {
                manifests.key(child): child
                for kind in CHILD_KINDS
                for child in self.each(kind)
                if _is_child(child, ref)
            }
        found = [read_copy(child) for child in self._seen[key].values()]
        self.after(call)
        return found

    def forget_seen(self) -> None:
        """Begin with an empty memory, as a process that has just started does."""
        self._seen.clear()
        self._read.clear()

    def _wrote(self, kind: str, namespace: str, name: str) -> None:
        """Put what was written through the port into the memory of the children."""
        live = self.live(kind, namespace, name)
        for (owner_namespace, owner), seen in self._seen.items():
            if owner_namespace != namespace:
                continue
            if live is None:
                seen.pop((kind, name), None)
            elif manifests.labels(live).get(naming.DEPLOYMENT_LABEL) == owner:
                seen[kind, name] = live

    async def apply(self, manifest: Manifest) -> Manifest:
        """Apply an object."""
        kind, meta = manifest["kind"], manifest["metadata"]
        await self._enter(call := Call("apply", kind, meta["name"]))
        live = self.live(kind, meta["namespace"], meta["name"])
        if (
            live is not None
            and "ownerReferences" in meta
            and not set(owner_uids(manifest)) & set(owner_uids(live))
        ):
            _refuse_stranger(live)
        if live is not None and is_memory(manifest) and not is_memory(live):
            _refuse_stranger(live)
        if (reason := self.refuse(manifest)) is not None:
            raise RejectedError(reason)
        applied_before = self._applied.get(live["metadata"]["uid"], {}) if live is not None else {}
        merged = _merge(live or {}, copied(manifest), applied_before)
        if live is not None and live.get("immutable") and live.get("data") != merged.get("data"):
            msg = f"apply {_title(manifest)}: 422 data: field is immutable when `immutable` is set"
            raise RejectedError(msg)
        if kind == "Deployment":
            merged["spec"].setdefault("replicas", 1)
        stored = self.store(merged)
        self._applied[stored["metadata"]["uid"]] = copied(manifest)
        self._wrote(kind, meta["namespace"], meta["name"])
        self.after(call)
        return read_copy(stored)

    async def apply_status(self, manifest: Manifest) -> Manifest:
        """Apply a status."""
        kind, meta = manifest["kind"], manifest["metadata"]
        await self._enter(call := Call("apply_status", kind, meta["name"]))
        live = self.live(kind, meta["namespace"], meta["name"])
        if live is None:
            self._read.pop((meta["namespace"], meta["name"]), None)
            msg = f"apply {_title(manifest)}: 404 not found"
            raise NotFoundError(msg)
        for name in ("resourceVersion", "uid"):
            if name in meta and meta[name] != live["metadata"][name]:
                self._read.pop((meta["namespace"], meta["name"]), None)
                msg = f"apply {_title(manifest)}: 409 the object has been modified"
                raise ConflictError(msg)
        stored = self.store(self.admitted({**live, "status": copied(manifest["status"])}))
        self._remember((meta["namespace"], meta["name"]))
        self.after(call)
        return read_copy(stored)

    async def scale(self, manifest: Manifest, replicas: int) -> None:
        """Raise replicas."""
        kind, meta = manifest["kind"], manifest["metadata"]
        await self._enter(call := Call("scale", kind, meta["name"]))
        live = self.live(kind, meta["namespace"], meta["name"])
        if live is None:
            msg = f"scale {_title(manifest)}: 404 not found"
            raise NotFoundError(msg)
        self.store(
            {**live, "spec": {**live["spec"], "replicas": max(replicas, live["spec"]["replicas"])}}
        )
        self._wrote(kind, meta["namespace"], meta["name"])
        self.after(call)

    async def resize(self, manifest: Manifest, replicas: int) -> None:
        """Set replicas."""
        kind, meta = manifest["kind"], manifest["metadata"]
        await self._enter(call := Call("resize", kind, meta["name"]))
        live = self.live(kind, meta["namespace"], meta["name"])
        if live is not None:
            self.store({**live, "spec": {**live["spec"], "replicas": replicas}})
            self._wrote(kind, meta["namespace"], meta["name"])
        self.after(call)

    async def objects_of_jobs(self) -> Sequence[Manifest]:
        """List what has to do with batch jobs."""
        await self._enter(call := Call("objects_of_jobs", "Deployment", ""))
        found = [
            read_copy(child)
            for kind in ("Deployment", "ConfigMap")
            for child in self.each(kind)
            if naming.JOBS_LABEL in manifests.labels(child)
        ]
        self.after(call)
        return found

    async def copies(self, namespace: str) -> Sequence[Manifest]:
        """List copies of memories."""
        await self._enter(call := Call("copies", "ConfigMap", ""))
        found = [
            read_copy(child)
            for child in self.each("ConfigMap")
            if child["metadata"]["namespace"] == namespace
            and manifests.labels(child).get(naming.MEMORY_LABEL) == COPY
        ]
        self.after(call)
        return found

    async def delete(self, manifest: Manifest) -> None:
        """Delete an object of the same uid."""
        kind, meta = manifest["kind"], manifest["metadata"]
        await self._enter(call := Call("delete", kind, meta["name"]))
        live = self.live(kind, meta["namespace"], meta["name"])
        if live is not None and live["metadata"]["uid"] == meta["uid"]:
            self.remove(kind, meta["namespace"], meta["name"])
        self._wrote(kind, meta["namespace"], meta["name"])
        self.after(call)

    async def template(self, namespace: str | None, name: str) -> Manifest | None:
        """Give what `templates` holds."""
        await self._enter(call := Call("template", "AnalysisTemplate", name))
        found = self.templates.get((namespace, name))
        self.after(call)
        return found

    async def gateway_class(self, namespace: str, name: str) -> Manifest | None:
        """Give what `gateway_classes` holds."""
        await self._enter(call := Call("gateway_class", "GatewayClass", name))
        found = self.gateway_classes.get((namespace, name))
        self.after(call)
        return found

    async def secret(self, namespace: str, name: str) -> Mapping[str, str] | None:
        """Give what `secrets` holds."""
        await self._enter(call := Call("secret", "Secret", name))
        found = self.secrets.get((namespace, name))
        self.after(call)
        return found

    async def signature(
        self, ref: ObjectRef, revision: str, model: str, *, tls: bool = False
    ) -> SignatureStatus:
        """Give what `signatures` holds, if a pod is ready."""
        await self._enter(
            call := Call("signature", "Service", naming.child_name(ref.name, revision))
        )
        ready = any(
            pods.is_ready(pod)
            for pod in self.each("Pod")
            if naming.revision_selector(ref, revision).items() <= manifests.labels(pod).items()
        )
        if not ready or revision in self.silent:
            msg = f"no endpoints available for service {naming.child_name(ref.name, revision)}"
            raise ProbeError(msg)
        self.after(call)
        return self.signatures.get(revision, SIGNATURE)

    async def record_event(self, ref: ObjectRef, event: EventRecord) -> None:
        """Post an Event, once for each name."""
        await self._enter(call := Call("record_event", "Event", ref.name))
        name = f"{ref.namespace}/{naming.event_name(ref, event.epoch, event.about)}"
        if name not in self._posted:
            self._posted.add(name)
            self.events.append((str(ref), event))
        self.after(call)

    async def _enter(self, call: Call) -> None:
        # Real calls take time, in which other tasks run.
        await asyncio.sleep(0)
        self.calls.append(call)
        self.before(call)


def _title(manifest: Manifest) -> str:
    meta = manifest["metadata"]
    return f"{manifest['kind']} {meta['namespace']}/{meta['name']}"


def _is_child(body: Manifest, ref: ObjectRef) -> bool:
    labels = {**naming.MANAGED_BY, naming.DEPLOYMENT_LABEL: ref.name}
    return (
        body["metadata"]["namespace"] == ref.namespace
        and labels.items() <= manifests.labels(body).items()
        and (
            body["kind"] in ("Pod", "EndpointSlice")
            or is_memory(body)
            or not ref.uid
            or ref.uid in owner_uids(body)
        )
    )


def _refuse_stranger(live: Manifest) -> None:
    if any(owner["kind"] == KIND for owner in live["metadata"].get("ownerReferences") or []):
        msg = f"{_title(live)} belongs to another {KIND}; waiting for it to go"
        raise TransientClusterError(msg)
    msg = f"{_title(live)} exists already and is not Canarium's: delete it, or rename the {KIND}"
    raise RejectedError(msg)


def _merge(live: Manifest, wanted: Manifest, before: Manifest) -> Manifest:
    """Server-side apply of one owner: set what is wanted, remove what was applied before and is wanted no more."""
    merged = {name: value for name, value in live.items() if name in wanted or name not in before}
    for name, value in before.items():
        if name not in wanted and isinstance(value, dict) and isinstance(live.get(name), dict):
            left = _merge(live[name], {}, value)
            if left:
                merged[name] = left
    for name, value in wanted.items():
        known = live.get(name)
        if isinstance(value, dict) and isinstance(known, dict):
            past = before.get(name)
            merged[name] = _merge(known, value, past if isinstance(past, dict) else {})
        else:
            merged[name] = value
    return merged
