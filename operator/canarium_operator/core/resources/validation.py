"""The Job that runs a canary's model over golden data, with image, settings and resources of its servers."""

import json
import math
from typing import Final

from canarium_api.golden import GoldenConfig
from canarium_api.runtime_config import TERMINATION_LOG
from canarium_operator.core import naming
from canarium_operator.core.golden import GoldenPlan
from canarium_operator.core.manifests import Manifest
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.resources import configmap, metadata, model_source, workload
from canarium_operator.core.resources.model_source import ModelSource

CONTAINER: Final = "validate"
RETRIES: Final = 2
"""Of a pod that was lost with its node, say; one that has said something is not run again."""
_DATA, _REFERENCE, _AGAINST = 101, 102, 103
"""Numbers of the volumes, beyond those of `serving.models`."""


def make_job(ref: ObjectRef, plan: GoldenPlan) -> Manifest:
    """Make the Job."""
    labels = {
        **naming.object_labels(ref),
        # Another application name than that of the servers: no selector of theirs may take its pods for one.
        "app.kubernetes.io/name": "canarium-validation",
        naming.VALIDATION_LABEL: plan.job,
        naming.VALIDATION_REVISION_LABEL: plan.revision.name,
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {**metadata.object_metadata(ref), "name": plan.job, "labels": labels},
        "spec": {
            "backoffLimit": RETRIES,
            "activeDeadlineSeconds": max(1, math.ceil(plan.spec.timeout.total_seconds())),
            # The program ends with 1 to 3 where it has said what is wrong (see canarium_runtime.golden.__main__).
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "FailJob",
                        "onExitCodes": {
                            "containerName": CONTAINER,
                            "operator": "In",
                            "values": [1, 2, 3],
                        },
                    }
                ]
            },
            "template": {"metadata": {"labels": labels}, "spec": _pod_spec(ref, plan)},
        },
    }


def _pod_spec(ref: ObjectRef, plan: GoldenPlan) -> Manifest:
    serving, asked = plan.revision.serving, plan.spec
    sources = [
        model_source.locate(plan.revision.model.uri),
        model_source.locate(asked.data.uri, _DATA),
    ]
    if asked.reference is not None:
        sources.append(model_source.locate(asked.reference.uri, _REFERENCE))
    if plan.against is not None:
        sources.append(model_source.locate(plan.against.model.uri, _AGAINST))
    config = _config(ref, plan)
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": workload.pod_security(),
        "containers": [
            {
                "name": CONTAINER,
                "image": plan.revision.image,
                "command": ["python3", "-m", "canarium_runtime.golden"],
                "envFrom": [
                    {"configMapRef": {"name": naming.child_name(ref.name, plan.revision.name)}}
                ],
                "env": [{"name": name, "value": value} for name, value in config.to_env().items()],
                "resources": {
                    "requests": dict(serving.resources.requests),
                    "limits": dict(serving.resources.limits),
                },
                "securityContext": workload.container_security(),
                "terminationMessagePath": TERMINATION_LOG,
                "terminationMessagePolicy": "File",
                "volumeMounts": [
                    {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - an emptyDir
                    *_mounts(sources),
                ],
            }
        ],
        "volumes": [
            {"name": "tmp", "emptyDir": {}},
            *(volume for source in sources for volume in source.volumes),
        ],
        **workload.scheduling(serving),
    }


def _mounts(sources: list[ModelSource]) -> list[Manifest]:
    return [mount for source in sources for mount in source.mounts]


def _config(ref: ObjectRef, plan: GoldenPlan) -> GoldenConfig:
    asked = plan.spec
    thresholds = asked.thresholds.model_dump(mode="json", by_alias=True, exclude_none=True)
    against = ""
    if plan.against is not None:
        uri = model_source.locate(plan.against.model.uri, _AGAINST).uri
        settings = configmap.runtime_config(ref, plan.against).model_copy(update={"model_uri": uri})
        against = json.dumps(settings.to_env(), sort_keys=True)
    reference = asked.reference
    return GoldenConfig(
        data_uri=model_source.locate(asked.data.uri, _DATA).uri,
        data_sha256=asked.data.sha256,
        reference_uri=model_source.locate(reference.uri, _REFERENCE).uri if reference else None,
        reference_sha256=reference.sha256 if reference else None,
        thresholds=json.dumps(thresholds, sort_keys=True),
        against=against,
    )
