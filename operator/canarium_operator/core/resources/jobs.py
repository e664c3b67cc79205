"""Batch jobs: what servers and workers are told of them, and the workers' own objects.

Workers run the image, the model and the settings of a revision, but no traffic finds them: they have none of the labels
of its servers. Their settings are in the pod itself, since a revision's ConfigMap goes with its servers, and its
workers may be needed for longer. `spec.replicas` is left out: `core.workers` sizes them.
"""

from collections.abc import Sequence
from typing import Final

from canarium_api.jobs_config import STABLE_FILE, WORKER_PORT, JobsConfig
from canarium_api.runtime_config import PREFIX, TERMINATION_LOG
from canarium_api.v1alpha1 import JobsSpec
from canarium_operator.core import naming
from canarium_operator.core.manifests import Manifest, labels
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.resources import (
    configmap,
    jobs_source,
    metadata,
    model_source,
    workload,
)
from canarium_operator.core.revision import Revision
from canarium_operator.core.workers import JobsPlan, bounds_of

_GRACE_SECONDS: Final = 10
"""Between the end of a worker's drain and SIGKILL."""
_CACHE: Final = f"{PREFIX}CACHE_"
_STABLE_FOLDER, _, _STABLE_NAME = STABLE_FILE.rpartition("/")


def is_of_jobs(child: Manifest) -> bool:
    """Tell whether an object belongs to the workers of batch jobs."""
    return naming.JOBS_LABEL in labels(child)


def make_jobs(ref: ObjectRef, plan: JobsPlan) -> Sequence[Manifest]:
    """Make all objects of the workers of the revision that begins jobs."""
    jobs = plan.revision.serving.jobs
    assert jobs is not None  # noqa: S101 - the plan is for a revision that takes jobs
    meta = _metadata(ref, naming.workers_name(ref.name, plan.revision.name))
    selector = _selector(ref, plan.revision.name)
    annotations = {naming.WORKERS_ANNOTATION: bounds_of(plan.workers)}
    return (
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": _metadata(ref, naming.jobs_name(ref.name)),
            "data": {_STABLE_NAME: plan.revision.name},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {
                **meta,
                "labels": {**meta["labels"], **selector},
                "annotations": annotations,
            },
            "spec": {
                "revisionHistoryLimit": 1,
                "selector": {"matchLabels": selector},
                "strategy": {
                    "type": "RollingUpdate",
                    "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"},
                },
                "template": {
                    "metadata": {
                        "labels": {**_labels(ref), **selector},
                        "annotations": workload.scraped(WORKER_PORT),
                    },
                    "spec": _pod_spec(ref, plan, jobs),
                },
            },
        },
    )


def _labels(ref: ObjectRef) -> dict[str, str]:
    # Another application name than that of the servers: no selector of theirs may take a worker for one.
    return {
        **naming.object_labels(ref),
        "app.kubernetes.io/name": "canarium-worker",
        naming.JOBS_LABEL: ref.name,
    }


def _selector(ref: ObjectRef, revision: str) -> dict[str, str]:
    return {naming.JOBS_LABEL: ref.name, naming.JOBS_REVISION_LABEL: revision}


def _metadata(ref: ObjectRef, name: str) -> Manifest:
    return {**metadata.object_metadata(ref), "name": name, "labels": _labels(ref)}


def _pod_spec(ref: ObjectRef, plan: JobsPlan, jobs: JobsSpec) -> Manifest:
    revision = plan.revision
    config = jobs_source.server_config(jobs).model_copy(update={"stable_file": STABLE_FILE})
    source = model_source.locate(revision.model.uri)
    secrets = [jobs_source.redis_volume(jobs)]
    if jobs.webhook_secret is not None:
        secrets.append(jobs_source.webhook_volume(jobs.webhook_secret))
    # Gone when jobs are turned off: then nobody begins one.
    told = {"name": naming.jobs_name(ref.name), "optional": True}
    stable = {"name": "jobs-stable", "configMap": told}
    return {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": round(config.drain_timeout.total_seconds())
        + _GRACE_SECONDS,
        "securityContext": workload.pod_security(),
        "containers": [
            {
                **_container(ref, plan, config),
                "volumeMounts": [
                    {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - an emptyDir
                    {"name": "jobs-stable", "mountPath": _STABLE_FOLDER, "readOnly": True},
                    *(mount for _, mount in secrets),
                    *source.mounts,
                ],
            }
        ],
        "volumes": [
            {"name": "tmp", "emptyDir": {}},
            stable,
            *(volume for volume, _ in secrets),
            *source.volumes,
        ],
        **workload.scheduling(revision.serving),
    }


def _container(ref: ObjectRef, plan: JobsPlan, config: JobsConfig) -> Manifest:
    revision: Revision = plan.revision
    resources = plan.workers.resources or revision.serving.resources
    served = configmap.runtime_config(ref, revision).to_env()
    # Rows of a job are asked for once: a cache would only lose for them what users ask for again.
    environment = {n: v for n, v in served.items() if not n.startswith(_CACHE)} | config.to_env()
    return {
        "name": "worker",
        "image": revision.image,
        "command": ["python3", "-m", "canarium_runtime.jobs"],
        "env": [{"name": name, "value": value} for name, value in environment.items()],
        "ports": [{"name": "metrics", "containerPort": WORKER_PORT, "protocol": "TCP"}],
        "resources": {"requests": dict(resources.requests), "limits": dict(resources.limits)},
        "securityContext": workload.container_security(),
        "terminationMessagePath": TERMINATION_LOG,
        "terminationMessagePolicy": "File",
        "readinessProbe": workload.probe("/health/ready", "metrics", period=5, failures=3),
        # Slow to judge: a worker that computes at its CPU limit answers late and must not be killed for it.
        "livenessProbe": workload.probe(
            "/health/live", "metrics", period=10, timeout=5, failures=6
        ),
    }
