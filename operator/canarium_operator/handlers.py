"""What kopf watches for us: anything that happens to a ModelDeployment is remembered and wakes its worker. Its children
are watched by `adapters.kubernetes_watch`.

The only module that imports kopf. No handler decides anything: a lost or doubled event changes nothing but the moment
of the next look, since what is remembered is checked before anything is done by it (`reconciler`). Only event handlers
are used, so kopf writes no annotation and no finalizer to any object.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import kopf

from canarium_api import GROUP, PLURAL, VERSION
from canarium_operator.adapters.object_memory import ObjectMemory
from canarium_operator.core.naming import ObjectRef
from canarium_operator.settings import OperatorSettings

Wake = Callable[[ObjectRef], None]


class _NoDiffBase(kopf.DiffBaseStorage):
    """Spares kopf what only handlers of changes need: it would copy each object several times for each event."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        """Compare nothing."""
        return kopf.BodyEssence({})

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        """Remember nothing."""
        return None

    def store(self, **_: Any) -> None:
        """Write nothing."""


class _NoProgress(kopf.StatusProgressStorage):
    """The same for the progress of handlers."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        """Leave nothing out."""
        return essence


def make_registry(wake: Wake, objects: ObjectMemory | None = None) -> kopf.OperatorRegistry:
    """Register the watches.

    Args:
        wake: called for every event, from the event loop's thread.
        objects: where ModelDeployments are remembered.
    """
    registry = kopf.OperatorRegistry()
    seen: dict[str, object] = {}
    kopf.on.login(registry=registry)(kopf.login_with_service_account)
    kopf.on.login(registry=registry)(
        kopf.login_with_kubeconfig
    )  # reads $KUBECONFIG when it is called

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def object_changed(**event: Any) -> None:
        """Wake for everything but the operator's own status writes."""
        kind, uid, body = event["type"], event["uid"], event["event"]["object"]
        meta, ref = body["metadata"], ObjectRef(namespace=event["namespace"], name=event["name"])
        if objects is not None and kind == "DELETED":
            objects.drop(ref)
        elif objects is not None:
            objects.put(body)
        signature = (
            meta.get("generation"),
            dict(meta.get("annotations", {})),
            meta.get("deletionTimestamp"),
        )
        if kind == "DELETED":
            seen.pop(uid, None)
        elif kind == "MODIFIED" and seen.get(uid) == signature:
            return
        else:
            seen[uid] = signature
        wake(ref)

    return registry


async def watch(
    settings: OperatorSettings,
    wake: Wake,
    stop: asyncio.Event,
    ready: asyncio.Event | None = None,
    objects: ObjectMemory | None = None,
) -> None:
    """Run kopf's watches until stopped.

    Args:
        settings: namespaces and the port of the liveness probe.
        wake: see `make_registry`.
        stop: ends the watches when set.
        ready: set when the watches have begun.
        objects: see `make_registry`.
    """
    options = kopf.OperatorSettings()
    options.posting.enabled = False  # kopf would post log lines as Events
    options.scanning.disabled = True  # would need permission to watch namespaces and CRDs
    options.persistence.finalizer = f"{GROUP}/operator"  # unused, since no handler needs one
    options.persistence.diffbase_storage = _NoDiffBase()
    options.persistence.progress_storage = _NoProgress()
    options.networking.request_timeout = settings.kube_timeout.total_seconds()
    await kopf.operator(
        registry=make_registry(wake, objects),
        settings=options,
        standalone=True,
        clusterwide=not settings.namespaces,
        namespaces=settings.namespaces,
        liveness_endpoint=f"http://0.0.0.0:{settings.health_port}/healthz",
        stop_flag=stop,
        ready_flag=ready,
    )
