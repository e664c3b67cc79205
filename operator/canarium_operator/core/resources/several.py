"""More models in the pods of one, and who stands in for it: the settings of the servers, and the volumes."""

from typing import Any

from canarium_api.quantity import parse_quantity
from canarium_api.runtime_config import FallbackEntry, ModelEntry
from canarium_api.v1alpha1 import ServingSpec
from canarium_operator.core.manifests import Manifest
from canarium_operator.core.resources import model_source


def settings(serving: ServingSpec) -> dict[str, Any]:
    """Give the fields of `RuntimeConfig`; those that the spec leaves at their defaults are the runtime's own."""
    failures = serving.breaker_failures
    memory = serving.model_memory
    return {
        **({} if failures is None else {"breaker_failures": failures}),
        "models": tuple(
            ModelEntry(
                name=model.name,
                version=model.version,
                uri=source.uri,
                sha256=model.sha256,
                format=model.format,
                inputs=tuple(model.inputs),
                outputs=tuple(model.outputs),
            )
            for model, source in zip(serving.models or (), _sources(serving), strict=True)
        ),
        "model_memory_bytes": int(parse_quantity(memory)) if memory is not None else 0,
        "fallbacks": tuple(
            FallbackEntry(
                model=fallback.model,
                version=fallback.version,
                url=fallback.url,
                timeout=fallback.timeout,
                outputs=fallback.outputs,
            )
            for fallback in serving.fallbacks or ()
        ),
        "backend_timeout": serving.backend_timeout,
    }


def volumes(serving: ServingSpec) -> list[Manifest]:
    """Give the volumes of the pods that hold more models."""
    return [volume for source in _sources(serving) for volume in source.volumes]


def mounts(serving: ServingSpec) -> list[Manifest]:
    """Give where those are mounted."""
    return [mount for source in _sources(serving) for mount in source.mounts]


def _sources(serving: ServingSpec) -> list[model_source.ModelSource]:
    models = serving.models or ()
    return [model_source.locate(model.uri, number) for number, model in enumerate(models, start=1)]
