"""What kopf watches for us: anything that happens to a ModelDeployment wakes its worker. Its children are watched by
`adapters.kubernetes_watch`, which keeps them.

The only module that imports kopf. No handler decides anything or passes anything on: a lost or doubled event
changes nothing but the moment of the next look. Only event handlers are used, so kopf writes no annotation
and no finalizer to any object.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import kopf

from canarium_api import GROUP, PLURAL, VERSION
from canarium_operator.core.naming import ObjectRef
from canarium_operator.settings import OperatorSettings

Wake = Callable[[ObjectRef], None]


def make_registry(wake: Wake) -> kopf.OperatorRegistry:
    """Register the watches.

    Args:
        wake: called for every event, from the event loop's thread.
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
        kind, uid, meta = event["type"], event["uid"], event["body"]["metadata"]
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
        wake(ObjectRef(namespace=event["namespace"], name=event["name"]))

    return registry


async def watch(
    settings: OperatorSettings, wake: Wake, stop: asyncio.Event, ready: asyncio.Event | None = None
) -> None:
    """Run kopf's watches until stopped.

    Args:
        settings: namespaces and the port of the liveness probe.
        wake: see `make_registry`.
        stop: ends the watches when set.
        ready: set when the watches have begun.
    """
    options = kopf.OperatorSettings()
    options.posting.enabled = False  # kopf would post log lines as Events
    options.scanning.disabled = True  # would need permission to watch namespaces and CRDs
    options.persistence.finalizer = f"{GROUP}/operator"  # unused, since no handler needs one
    options.networking.request_timeout = settings.kube_timeout.total_seconds()
    await kopf.operator(
        registry=make_registry(wake),
        settings=options,
        standalone=True,
        clusterwide=not settings.namespaces,
        namespaces=settings.namespaces,
        liveness_endpoint=f"http://0.0.0.0:{settings.health_port}/healthz",
        stop_flag=stop,
        ready_flag=ready,
    )
