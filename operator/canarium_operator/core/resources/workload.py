"""The Deployment of a revision.

Its pod template follows from the revision alone, never from autoscaling, traffic or rollout settings: if it did, an
edit of a pause would restart the pods that serve. `spec.replicas` is left out: with server-side apply that leaves it
to the HPA.
"""

import math
from typing import Any, Final

from canarium_api import GROUP
from canarium_api.rollout import RolloutSpec
from canarium_api.runtime_config import GRPC_PORT, HTTP_PORT, TERMINATION_LOG
from canarium_api.v1alpha1 import ServingSpec
from canarium_operator.core import naming
from canarium_operator.core.manifests import Manifest
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.resources import (
    jobs_source,
    metadata,
    model_source,
    securing,
    several,
)
from canarium_operator.core.resources.cache import cache_environment
from canarium_operator.core.resources.configmap import DRAIN_DELAY
from canarium_operator.core.resources.tracing import tracing_environment
from canarium_operator.core.revision import Revision

CONTAINER: Final = "server"
_USER: Final = 65532
_GRACE_SECONDS: Final = 5
"""Between the end of the drain and SIGKILL."""
_STARTUP_SECONDS: Final = 3600
"""How long a server may load before the kubelet restarts it. Generous: giving a revision up is the operator's decision
(`rollout.progressDeadline`), and a restart in the middle of a long download would only start it again."""


def make_workload(ref: ObjectRef, revision: Revision, rollout: RolloutSpec) -> Manifest:
    """Make the Deployment of a revision."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata.revision_metadata(ref, revision),
        "spec": {
            "revisionHistoryLimit": 1,
            "progressDeadlineSeconds": max(1, math.ceil(rollout.progress_deadline.total_seconds())),
            "selector": {"matchLabels": naming.revision_selector(ref, revision.name)},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"},
            },
            "template": {
                "metadata": _pod_metadata(ref, revision),
                "spec": _pod_spec(ref, revision),
            },
        },
    }


def _pod_metadata(ref: ObjectRef, revision: Revision) -> Manifest:
    serving = revision.serving
    # The user's come first and ours win: a label of ours in other hands would break the selectors.
    theirs = {
        name: value
        for name, value in serving.pod_labels.items()
        if not name.startswith(f"{GROUP}/")
    }
    return {
        "labels": {**theirs, **metadata.revision_labels(ref, revision)},
        "annotations": {
            **serving.pod_annotations,
            **scraped(HTTP_PORT, "https" if serving.speaks_tls else "http"),
        },
    }


def _pod_spec(ref: ObjectRef, revision: Revision) -> Manifest:
    serving = revision.serving
    drain = DRAIN_DELAY.total_seconds() + serving.drain_timeout.total_seconds()
    source = model_source.locate(revision.model.uri)
    volumes, mounts = list(source.volumes), list(source.mounts)
    if serving.jobs is not None:
        volume, mount = jobs_source.redis_volume(serving.jobs)
        volumes.append(volume)
        mounts.append(mount)
    secured = securing.secure(serving)
    security = pod_security()
    if secured.writes_volume:
        security |= {"fsGroup": _USER, "fsGroupChangePolicy": "OnRootMismatch"}
    return {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": math.ceil(drain) + _GRACE_SECONDS,
        "securityContext": security,
        "containers": [_container(ref, revision, [*mounts, *several.mounts(serving)], secured)],
        "volumes": [
            {"name": "tmp", "emptyDir": {}},
            *volumes,
            *several.volumes(serving),
            *secured.volumes,
        ],
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": naming.revision_selector(ref, revision.name)},
            }
        ],
        **scheduling(serving),
    }


def pod_security() -> Manifest:
    """Give what all our pods have: no root, no system calls beyond the runtime's defaults."""
    return {
        "runAsNonRoot": True,
        "runAsUser": _USER,
        "runAsGroup": _USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Manifest:
    """Give what all our containers have."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def scheduling(serving: ServingSpec) -> Manifest:
    """What the user said of where pods run; what was not said is absent."""
    fields: dict[str, Any] = {
        "serviceAccountName": serving.service_account_name,
        "imagePullSecrets": [{"name": name} for name in serving.image_pull_secrets],
        "nodeSelector": serving.node_selector,
        "tolerations": serving.tolerations,
        "affinity": serving.affinity,
    }
    return {name: value for name, value in fields.items() if value}


def _container(
    ref: ObjectRef, revision: Revision, mounts: list[Manifest], secured: securing.Securing
) -> Manifest:
    serving = revision.serving
    environment = [
        *cache_environment(serving.cache),
        *tracing_environment(serving.tracing),
        *secured.env,
    ]
    scheme = "HTTPS" if serving.speaks_tls else "HTTP"
    return {
        "name": CONTAINER,
        "image": revision.image,
        # Only where there is something: an empty list would be another template, and restart all pods.
        **({"env": environment} if environment else {}),
        "envFrom": [{"configMapRef": {"name": naming.child_name(ref.name, revision.name)}}],
        "ports": _ports(serving),
        "resources": {
            "requests": dict(serving.resources.requests),
            "limits": dict(serving.resources.limits),
        },
        "securityContext": container_security(),
        # The server writes there why it cannot serve; the status of the ModelDeployment quotes it.
        "terminationMessagePath": TERMINATION_LOG,
        "terminationMessagePolicy": "File",
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - an emptyDir
            *mounts,
            *secured.mounts,
        ],
        "startupProbe": probe(
            "/v2/health/ready", "http", period=1, failures=_STARTUP_SECONDS, scheme=scheme
        ),
        "readinessProbe": probe("/v2/health/ready", "http", period=2, failures=3, scheme=scheme),
        # Slow to judge: a server that computes at its CPU limit answers late and must not be killed for it.
        "livenessProbe": probe(
            "/v2/health/live", "http", period=10, timeout=5, failures=6, scheme=scheme
        ),
    }


def _ports(serving: ServingSpec) -> list[Manifest]:
    ports = [{"name": "http", "containerPort": HTTP_PORT, "protocol": "TCP"}]
    if serving.grpc:
        ports.append({"name": "grpc", "containerPort": GRPC_PORT, "protocol": "TCP"})
    return ports


def scraped(port: int, scheme: str = "http") -> dict[str, str]:
    """Give the annotations by which Prometheus finds the metrics of a pod."""
    found = {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(port),
        "prometheus.io/path": "/metrics",
    }
    return found if scheme == "http" else {**found, "prometheus.io/scheme": scheme}


def probe(
    path: str, port: str, *, period: int, failures: int, timeout: int = 2, scheme: str = "HTTP"
) -> Manifest:
    """Make a probe; times in seconds. The kubelet does not check certificates, and shows none."""
    asked = {"path": path, "port": port}
    return {
        "httpGet": asked if scheme == "HTTP" else {**asked, "scheme": scheme},
        "periodSeconds": period,
        "timeoutSeconds": timeout,
        "failureThreshold": failures,
    }
