"""ModelDeployments as they were last seen: what a watch told, and what this process read or wrote itself."""

from canarium_operator.core.manifests import Manifest
from canarium_operator.core.naming import ObjectRef

_READ = ("name", "namespace", "uid", "resourceVersion", "generation", "annotations")
"""Metadata that somebody reads, besides the mark of a deletion; `managedFields` would be as large as the status."""


class ObjectMemory:
    """By namespace and name; of two copies of one object, the newer stays."""

    def __init__(self) -> None:
        self._objects: dict[tuple[str, str], Manifest] = {}

    def get(self, ref: ObjectRef) -> Manifest | None:
        """Give the latest copy; None: it was never seen, or is gone. Not to be changed."""
        return self._objects.get((ref.namespace, ref.name))

    def put(self, body: Manifest) -> None:
        """Take a copy as the API server gave it."""
        meta = body["metadata"]
        key = (meta["namespace"], meta["name"])
        known = self._objects.get(key)
        before = known["metadata"] if known is not None else {"uid": "", "resourceVersion": "0"}
        same = before["uid"] == meta["uid"]
        # Versions of one kind are numbers that grow (KEP-5504 makes official what has always been so).
        if same and int(meta["resourceVersion"]) < int(before["resourceVersion"]):
            return
        kept = {name: meta[name] for name in (*_READ, "deletionTimestamp") if name in meta}
        self._objects[key] = {**body, "metadata": kept}

    def drop(self, ref: ObjectRef) -> None:
        """Forget an object: it is gone, or what is known of it is behind."""
        self._objects.pop((ref.namespace, ref.name), None)
