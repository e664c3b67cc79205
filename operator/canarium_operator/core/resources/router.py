"""The router of a sticky A/B test: a Deployment with Service, budget and autoscaler, which live as long as the test.

The Gateway API can split by weight and by the value of a header, not by a hash of one. What the split is stands in the
route (`canarium_api.split`), so these objects do not change when the share does, and no pod restarts.
"""

from collections.abc import Sequence
from typing import Final

from canarium_api.quantity import parse_quantity
from canarium_api.router_config import ADMIN_PORT, PROXY_PORT, RouterConfig
from canarium_operator.core import naming
from canarium_operator.core.manifests import Manifest, labels
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.resources import metadata, service, workload
from canarium_operator.core.routing import ROUTERS, RouterPlan

MOST: Final = 10
"""Pods of the router."""
_CPU_PERCENT: Final = 70
"""Of the request, at which its autoscaler adds pods."""
_GRACE_SECONDS: Final = 5
"""Between the end of the drain and SIGKILL."""


def make_router(ref: ObjectRef, plan: RouterPlan) -> Sequence[Manifest]:
    """Make all objects of the router."""
    meta = _metadata(ref)
    selector = _selector(ref)
    return (
        service.make(meta, selector),
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": meta,
            "spec": {
                "revisionHistoryLimit": 1,
                "selector": {"matchLabels": selector},
                "strategy": {
                    "type": "RollingUpdate",
                    "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
                },
                "template": {"metadata": _pod_metadata(ref), "spec": _pod_spec(ref, plan)},
            },
        },
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": meta,
            "spec": {
                "maxUnavailable": 1,
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
                "selector": {"matchLabels": selector},
            },
        },
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": meta,
            "spec": {
                "scaleTargetRef": {
                    "apiVersion": "apps/v1",
                    "kind": "Deployment",
                    "name": meta["name"],
                },
                "minReplicas": ROUTERS,
                "maxReplicas": MOST,
                "metrics": [
                    {
                        "type": "Resource",
                        "resource": {
                            "name": "cpu",
                            "target": {"type": "Utilization", "averageUtilization": _CPU_PERCENT},
                        },
                    }
                ],
            },
        },
    )


def is_router(child: Manifest) -> bool:
    """Tell whether an object belongs to the router."""
    return naming.ROUTER_LABEL in labels(child)


def _labels(ref: ObjectRef) -> dict[str, str]:
    # Another application name than that of the servers: no selector of theirs may take the router for one.
    return {
        **naming.object_labels(ref),
        "app.kubernetes.io/name": "canarium-router",
        naming.ROUTER_LABEL: ref.name,
    }


def _selector(ref: ObjectRef) -> dict[str, str]:
    return {naming.ROUTER_LABEL: ref.name}


def _metadata(ref: ObjectRef) -> Manifest:
    return {
        **metadata.object_metadata(ref),
        "name": naming.router_name(ref.name),
        "labels": _labels(ref),
    }


def _pod_metadata(ref: ObjectRef) -> Manifest:
    return {
        "labels": _labels(ref),
        "annotations": workload.scraped(ADMIN_PORT),
    }


def _pod_spec(ref: ObjectRef, plan: RouterPlan) -> Manifest:
    serving = plan.serving
    config = RouterConfig(
        deployment=str(ref),
        timeout=serving.request_timeout,
        max_body_bytes=int(parse_quantity(serving.max_body_size)),
        drain_timeout=serving.drain_timeout,
    )
    drain = config.drain_delay.total_seconds() + config.drain_timeout.total_seconds()
    return {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": round(drain) + _GRACE_SECONDS,
        "securityContext": workload.pod_security(),
        "containers": [
            {
                "name": "router",
                "image": plan.image,
                "command": ["python3", "-m", "canarium_runtime.router"],
                "env": [{"name": name, "value": value} for name, value in config.to_env().items()],
                "ports": [
                    {"name": "http", "containerPort": PROXY_PORT, "protocol": "TCP"},
                    {"name": "admin", "containerPort": ADMIN_PORT, "protocol": "TCP"},
                ],
                "resources": {
                    "requests": {"cpu": "100m", "memory": "96Mi"},
                    "limits": {"memory": "384Mi"},
                },
                "securityContext": workload.container_security(),
                "readinessProbe": workload.probe("/health/ready", "admin", period=1, failures=2),
                "livenessProbe": workload.probe("/health/live", "admin", period=10, failures=6),
            }
        ],
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": _selector(ref)},
            }
        ],
        **workload.scheduling(serving),
    }
