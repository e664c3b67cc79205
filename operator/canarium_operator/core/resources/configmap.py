"""The ConfigMap of a revision: the server's settings, and the template that lets the revision outlive its spec.

It is not marked immutable. A model with a digest may move to another URI without becoming another revision, and pods
that start from then on must fetch it from there; an immutable ConfigMap could not tell them. Pods that run already
keep what they have loaded.
"""

import json
from datetime import timedelta
from typing import Final

from canarium_api import quantity
from canarium_api.runtime_config import ANSWERS_PORT, GRPC_PORT, RuntimeConfig
from canarium_api.v1alpha1 import Accelerator, ServingSpec
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
from canarium_operator.core.resources.cache import cache_settings
from canarium_operator.core.resources.tracing import tracing_settings
from canarium_operator.core.revision import Revision

DRAIN_DELAY: Final = timedelta(seconds=5)
"""How long a pod that is to stop goes on accepting: the endpoints, and then the gateway, learn of it only after the
pod does."""

GPU_RESOURCES: Final = ("nvidia.com/gpu", "nvidia.com/mig-")
"""What the names of GPUs, whole, shared or sliced, begin with among a pod's resources."""


def accelerator_of(serving: ServingSpec) -> Accelerator:
    """Say what a pod runs its model on. `auto` is decided by what it asks for: with a GPU among its resources the GPU
    is what was paid for, so nothing but it will do; without one, a GPU that the pod can see is not its own.
    """
    if serving.execution.accelerator is not Accelerator.AUTO:
        return serving.execution.accelerator
    asked = {**serving.resources.requests, **serving.resources.limits}
    gpus = (name for name in asked if name.startswith(GPU_RESOURCES))
    return Accelerator.GPU if any(asked[name] != "0" for name in gpus) else Accelerator.NONE


def runtime_config(ref: ObjectRef, revision: Revision) -> RuntimeConfig:
    """Translate a revision to the settings of its servers."""
    model, serving = revision.model, revision.serving
    execution = serving.execution
    gpu_memory = execution.gpu_memory
    return RuntimeConfig(
        model_uri=model_source.locate(model.uri).uri,
        model_sha256=model.sha256,
        model_name=model.name or ref.name,
        model_version=revision.model_version,
        model_format=model.format,
        model_inputs=tuple(model.inputs),
        model_outputs=tuple(model.outputs),
        model_padding=tuple(model.padding),
        model_entrypoint=model.entrypoint or "model:Model",
        allow_code=model.allow_code,
        accelerator=accelerator_of(serving),
        execution_provider=execution.provider,
        precision=execution.precision,
        compile_model=execution.compile,
        intra_op_threads=execution.threads or 0,
        gpu_memory_bytes=int(quantity.parse_quantity(gpu_memory)) if gpu_memory else None,
        deployment=str(ref),
        revision=revision.name,
        max_batch_size=serving.max_batch_size,
        max_delay=serving.max_delay,
        preferred_batch_sizes=tuple(serving.preferred_batch_sizes),
        allow_high_priority=serving.allow_high_priority,
        queue_size=serving.queue_size,
        request_timeout=serving.request_timeout,
        max_body_bytes=int(quantity.parse_quantity(serving.max_body_size)),
        validation=serving.validation.to_json(),
        drain_timeout=serving.drain_timeout,
        drain_delay=DRAIN_DELAY,
        warmup_requests=model.warmup.requests,
        warmup_samples=tuple(model.warmup.samples),
        warmup_uri=model.warmup.uri,
        warmup_sha256=model.warmup.sha256,
        processes=serving.processes,
        # Whether there is a shadow or not: it must not restart the pods of the revision that it is compared with.
        answers_port=ANSWERS_PORT if serving.processes == 1 else None,
        grpc_port=GRPC_PORT if serving.grpc else None,
        **several.settings(serving),
        **cache_settings(serving.cache),
        **tracing_settings(serving.tracing),
        **securing.secure(serving).settings,
    )


def settings(ref: ObjectRef, revision: Revision) -> dict[str, str]:
    """Give the environment of the servers."""
    jobs = revision.serving.jobs
    of_jobs = jobs_source.server_config(jobs).to_env() if jobs is not None else {}
    return {**runtime_config(ref, revision).to_env(), **of_jobs}


def make_configmap(ref: ObjectRef, revision: Revision) -> Manifest:
    """Make the ConfigMap of a revision."""
    template = json.dumps(revision.to_template(), sort_keys=True, separators=(",", ":"))
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            **metadata.revision_metadata(ref, revision),
            "annotations": {naming.TEMPLATE_ANNOTATION: template},
        },
        "data": settings(ref, revision),
    }
