"""The comparer of a shadow: a Deployment of one pod, its targets, and a headless Service for the pods of each side.

It lives as long as the shadow's step. Nobody waits for it: it fetches answers from the pods, and Prometheus fetches its
counts.
"""

from collections.abc import Sequence
from typing import Final

from canarium_api.runtime_config import ANSWERS_PORT
from canarium_api.shadow_config import METRICS_PORT, TARGETS_FILE, ShadowConfig, Targets
from canarium_operator.core import naming
from canarium_operator.core.manifests import Manifest, labels
from canarium_operator.core.mirroring import ComparerPlan
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.resources import metadata, workload

_FOLDER, _, _FILE = TARGETS_FILE.rpartition("/")
_SIDES: Final = ("stable", "shadow")


def make_comparer(ref: ObjectRef, plan: ComparerPlan) -> Sequence[Manifest]:
    """Make all objects of the comparer."""
    meta = _metadata(ref, naming.comparer_name(ref.name))
    revisions = dict(zip(_SIDES, (plan.stable, plan.shadow), strict=True))
    urls = {side: [f"http://{_host(ref, side)}:{ANSWERS_PORT}"] for side in _SIDES}
    return (
        *(_service(ref, side, revision) for side, revision in revisions.items()),
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": meta,
            "data": {_FILE: Targets(**urls).model_dump_json()},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": meta,
            "spec": {
                "revisionHistoryLimit": 1,
                "replicas": 1,
                # Two at once would count everything twice.
                "strategy": {"type": "Recreate"},
                "selector": {"matchLabels": {naming.SHADOW_LABEL: ref.name}},
                "template": {"metadata": _pod_metadata(ref), "spec": _pod_spec(ref, plan)},
            },
        },
    )


def is_of_comparer(child: Manifest) -> bool:
    """Tell whether an object belongs to the comparer."""
    return naming.SHADOW_LABEL in labels(child)


def _service(ref: ObjectRef, side: str, revision: str) -> Manifest:
    """Make the name that stands for the pods of one side, on the port of their answers and no other."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(ref, naming.answers_name(ref.name, side)),
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "None",
            "selector": naming.revision_selector(ref, revision),
            "ports": [
                {
                    "name": "answers",
                    "port": ANSWERS_PORT,
                    "targetPort": ANSWERS_PORT,
                    "protocol": "TCP",
                }
            ],
        },
    }


def _host(ref: ObjectRef, side: str) -> str:
    return f"{naming.answers_name(ref.name, side)}.{ref.namespace}.svc"


def _labels(ref: ObjectRef) -> dict[str, str]:
    # Another application name than that of the servers: no selector of theirs may take it for one.
    return {
        **naming.object_labels(ref),
        "app.kubernetes.io/name": "canarium-comparer",
        naming.SHADOW_LABEL: ref.name,
    }


def _metadata(ref: ObjectRef, name: str) -> Manifest:
    return {**metadata.object_metadata(ref), "name": name, "labels": _labels(ref)}


def _pod_metadata(ref: ObjectRef) -> Manifest:
    return {
        "labels": _labels(ref),
        "annotations": workload.scraped(METRICS_PORT),
    }


def _pod_spec(ref: ObjectRef, plan: ComparerPlan) -> Manifest:
    config = ShadowConfig(
        deployment=str(ref),
        revision=plan.shadow,
        absolute_tolerance=plan.tolerance.absolute,
        relative_tolerance=plan.tolerance.relative,
    )
    return {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 5,
        "securityContext": workload.pod_security(),
        "containers": [
            {
                "name": "comparer",
                "image": plan.image,
                "command": ["python3", "-m", "canarium_runtime.shadow"],
                "env": [{"name": name, "value": value} for name, value in config.to_env().items()],
                "ports": [{"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"}],
                "resources": {
                    "requests": {"cpu": "50m", "memory": "128Mi"},
                    "limits": {"memory": "512Mi"},
                },
                "securityContext": workload.container_security(),
                "readinessProbe": workload.probe("/health/ready", "metrics", period=2, failures=3),
                "livenessProbe": workload.probe("/health/live", "metrics", period=10, failures=6),
                "volumeMounts": [{"name": "targets", "mountPath": _FOLDER, "readOnly": True}],
            }
        ],
        "volumes": [
            {"name": "targets", "configMap": {"name": naming.comparer_name(ref.name)}},
        ],
        **workload.scheduling(plan.serving),
    }
