"""Storage of the fake cluster: objects with uids, resource versions and generations, admitted by the CRD's schema.

Stored objects are never changed in place, only replaced, so that the controllers and a simulation may read them
without copying; what leaves towards the operator is copied.
"""

import functools
import itertools
import json
import marshal
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Final

from canarium_api import API_VERSION, KIND, structural
from canarium_api.crdgen import make_crd
from canarium_operator.core import manifests, naming
from canarium_operator.core.manifests import Manifest
from canarium_operator.core.naming import ObjectRef
from canarium_operator.errors import RejectedError

_WITHOUT_GENERATION: Final = ("ConfigMap", "Service", "Pod", "HorizontalPodAutoscaler")
_WATCHED: Final = (KIND, "Deployment", "Pod", "HTTPRoute", "EndpointSlice")


@functools.cache
def _crd_schema() -> dict[str, Any]:
    """Give the schema of ModelDeployments; made once, since it takes longer than a whole simulated rollout."""
    schema: dict[str, Any] = make_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


class FakeApiServer:
    """Objects, and the user's side of them."""

    def __init__(self) -> None:
        self.on_change: Callable[[ObjectRef], None] = lambda _ref: None
        """Told the ModelDeployment that a change of a watched object belongs to, as the operator's watches are."""
        self._objects: dict[str, dict[tuple[str, str], Manifest]] = defaultdict(dict)
        self._numbers = itertools.count(1)
        self._schema = _crd_schema()

    def put(self, manifest: Manifest) -> Manifest:
        """Create or update a ModelDeployment, as `kubectl apply` does; raises RejectedError where the schema refuses
        it.
        """
        meta = copied(manifest["metadata"])
        existing = self.live(KIND, meta["namespace"], meta["name"]) or {"metadata": {}}
        body = {
            **existing,
            "apiVersion": API_VERSION,
            "kind": KIND,
            "spec": copied(manifest["spec"]),
        }
        body["metadata"] = {**existing["metadata"], **meta}
        return copied(self.store(self.admitted(body)))

    def annotate(self, ref: ObjectRef, name: str, value: str) -> None:
        """Set an annotation of a ModelDeployment."""
        body = self._objects[KIND][ref.namespace, ref.name]
        annotations = {**manifests.annotations(body), name: value}
        self.store({**body, "metadata": {**body["metadata"], "annotations": annotations}})

    def remove(self, kind: str, namespace: str, name: str) -> None:
        """Delete an object, with everything that it owns."""
        removed = self._objects[kind].pop((namespace, name), None)
        if removed is None:
            return
        self._changed(removed)
        uid = removed["metadata"]["uid"]
        for owned in [
            o for kind_ in list(self._objects) for o in self.each(kind_) if uid in owner_uids(o)
        ]:
            self.remove(owned["kind"], owned["metadata"]["namespace"], owned["metadata"]["name"])

    def find(self, kind: str, namespace: str, name: str) -> Manifest | None:
        """Give a copy of an object."""
        found = self.live(kind, namespace, name)
        return read_copy(found) if found is not None else None

    def all(self, kind: str) -> list[Manifest]:
        """Give copies of all objects of a kind, by name."""
        return [read_copy(body) for body in self.each(kind)]

    # --- without copies, for controllers and simulations: read, and never change in place

    def live(self, kind: str, namespace: str, name: str) -> Manifest | None:
        """Give an object itself."""
        return self._objects[kind].get((namespace, name))

    def each(self, kind: str) -> Iterable[Manifest]:
        """Give all objects of a kind themselves, by namespace and name."""
        found = self._objects[kind]
        return [found[key] for key in sorted(found)]

    def store(self, body: Manifest) -> Manifest:
        """Store an object, with a new resource version if it differs, and a new generation if its spec does."""
        kind, meta = body["kind"], {**body["metadata"]}
        key = (meta["namespace"], meta["name"])
        live = self._objects[kind].get(key)
        if "uid" not in meta:
            meta["uid"] = f"{next(self._numbers):08x}-0000-4000-8000-000000000000"
        if kind not in _WITHOUT_GENERATION:
            before = live["metadata"]["generation"] if live is not None else 0
            same = live is not None and live.get("spec") == body.get("spec")
            meta["generation"] = before if same else before + 1
        body = {**body, "metadata": meta}
        if live == body:
            return live
        only_status = live is not None and {**live, "status": None} == {**body, "status": None}
        meta["resourceVersion"] = str(next(self._numbers))
        self._objects[kind][key] = body
        if not (kind == KIND and only_status):
            self._changed(body)
        return body

    def admitted(self, body: Manifest) -> Manifest:
        """Prune, default and check a ModelDeployment."""
        fields = self._schema["properties"]
        body = {
            name: structural.prune(value, fields[name]) if name in ("spec", "status") else value
            for name, value in body.items()
            if value is not None
        }
        body = structural.fill_in(
            body, {"properties": {part: fields[part] for part in ("spec", "status")}}
        )
        broken = list(map(str, structural.violations(body, self._schema, "")))
        if broken:
            msg = f"{KIND} {body['metadata']['name']} is invalid: {'; '.join(broken)}"
            raise RejectedError(msg)
        return body

    def _changed(self, body: Manifest) -> None:
        meta = body["metadata"]
        owner = (
            meta["name"]
            if body["kind"] == KIND
            else manifests.labels(body).get(naming.DEPLOYMENT_LABEL)
        )
        if body["kind"] in _WATCHED and owner is not None:
            self.on_change(ObjectRef(namespace=meta["namespace"], name=owner))


def copied(value: Manifest) -> Manifest:
    """Copy by way of JSON, which also proves that it is JSON: no NaN, no infinity, no Python objects."""
    copy: Manifest = json.loads(json.dumps(value, allow_nan=False))
    return copy


def read_copy(value: Manifest) -> Manifest:
    """Copy what is stored already, which is JSON for sure: ten times faster, and most of what a simulation does."""
    copy: Manifest = marshal.loads(marshal.dumps(value))  # noqa: S302 - our own objects
    return copy


def owner_uids(body: Manifest) -> list[str]:
    """Give the uids of an object's owners."""
    return [owner["uid"] for owner in body["metadata"].get("ownerReferences") or []]
