"""What the CRD's schema cannot say of `spec.serving.models` and `fallbacks`, and what it says, for those who come
without it.
"""

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from canarium_api.duration import format_duration
from canarium_api.patterns import MAX_PORT, port_of
from canarium_api.quantity import parse_quantity
from canarium_api.v1alpha1 import ModelDeploymentSpec, ModelFormat, MoreModelSpec, ServingSpec
from canarium_operator.core.problems import Problem

MAX_OUTPUTS_BYTES: Final = 64 * 1024
"""Most bytes of the fixed answers, which travel in an environment variable."""
_FIELD: Final = "spec.serving"


def validate_several(spec: ModelDeploymentSpec, name: str | None) -> list[Problem]:
    """Check the models beside the first, and who stands in for it.

    Args:
        spec: what is asked for.
        name: of the object, where there is one: the model's name where the spec gives none.
    """
    serving = spec.serving
    return [
        *_twice(serving, spec.model.name or name),
        *(problem for place, m in _placed(serving) for problem in _model(spec, place, m)),
        *_memory(serving),
        *_fallbacks(serving),
        *_times(serving),
    ]


def _placed(serving: ServingSpec) -> Iterator[tuple[str, MoreModelSpec]]:
    for index, model in enumerate(serving.models or ()):
        yield f"{_FIELD}.models[{index}]", model


def _twice(serving: ServingSpec, own: str | None) -> Iterator[Problem]:
    known: set[tuple[str, str]] = set()
    for place, model in _placed(serving):
        if model.name == own:
            message = f"{own} is the model's own name, whose versions are the rollout's: give this one another name"
            yield Problem(field=f"{place}.name", message=message)
        if (model.name, model.version) in known:
            message = f"{model.name} {model.version} is listed already: give it another name or version, or remove it"
            yield Problem(field=f"{place}.name", message=message)
        known.add((model.name, model.version))


def _model(spec: ModelDeploymentSpec, place: str, model: MoreModelSpec) -> Iterator[Problem]:
    scheme, _, rest = model.uri.partition("://")
    if scheme in ("pvc", "file") and ".." in rest.split("/"):
        yield Problem(field=f"{place}.uri", message="'..' is not allowed: write the plain path")
    code = spec.model.allow_code
    if model.sha256 is None and (scheme == "http" or (code and scheme == "https")):
        why = "model.allowCode is true" if code else "an http:// URI proves nothing"
        message = f"is required where {why}: add the digest (sha256sum FILE)"
        yield Problem(field=f"{place}.sha256", message=message)
    if model.format is ModelFormat.PYTHON and not code:
        message = (
            "python runs the artefact's code in the pod: set model.allowCode to true if you trust its source, or use "
            "onnx or torch"
        )
        yield Problem(field=f"{place}.format", message=message)


def _memory(serving: ServingSpec) -> Iterator[Problem]:
    memory, limit = serving.model_memory, serving.resources.limits.get("memory")
    if memory is None:
        return
    field = f"{_FIELD}.modelMemory"
    if not serving.models:
        yield Problem(field=field, message="bounds serving.models: list models, or remove it")
    if parse_quantity(memory) < 1:
        yield Problem(field=field, message="must be above 0: write a size such as 2Gi")
    elif limit is not None and parse_quantity(memory) > parse_quantity(limit):
        message = (
            f"{memory} is above the memory limit of {limit}: lower it, or raise "
            "serving.resources.limits.memory"
        )
        yield Problem(field=field, message=message)


def _fallbacks(serving: ServingSpec) -> Iterator[Problem]:
    for index, fallback in enumerate(serving.fallbacks or ()):
        field = f"{_FIELD}.fallbacks[{index}]"
        kinds = (fallback.model, fallback.url, fallback.outputs)
        if sum(kind is not None for kind in kinds) != 1:
            message = "is exactly one of model, url and outputs: set one, remove the others"
            yield Problem(field=field, message=message)
        if fallback.version is not None and fallback.model is None:
            message = "is that of a model: set model, or remove version"
            yield Problem(field=f"{field}.version", message=message)
        elif fallback.model is not None and not any(
            m.name == fallback.model and fallback.version in (None, m.version)
            for m in serving.models or ()
        ):
            named = " ".join(filter(None, (fallback.model, fallback.version)))
            message = f"{named} is none of serving.models: list it there, or name one that is"
            yield Problem(field=f"{field}.model", message=message)
        if fallback.url is not None and (port := port_of(fallback.url)) > MAX_PORT:
            message = f"port {port} does not exist: use one of 1 to {MAX_PORT}"
            yield Problem(field=f"{field}.url", message=message)
    outputs = [f.outputs for f in serving.fallbacks or () if f.outputs is not None]
    size = len(json.dumps(outputs)) if outputs else 0
    if size > MAX_OUTPUTS_BYTES:
        message = (
            f"the fixed answers have {size} bytes, more than {MAX_OUTPUTS_BYTES}: make them smaller"
        )
        yield Problem(field=f"{_FIELD}.fallbacks", message=message)


def _times(serving: ServingSpec) -> Iterator[Problem]:
    times = {f"fallbacks[{i}].timeout": f.timeout for i, f in enumerate(serving.fallbacks or ())}
    if (timeout := serving.backend_timeout) is not None:
        times["backendTimeout"] = timeout
        if timeout >= serving.request_timeout:
            longest = format_duration(serving.request_timeout)
            message = (
                f"{format_duration(timeout)} is not below requestTimeout ({longest}), so nothing would be left for who "
                "stands in: lower it, or raise requestTimeout"
            )
            yield Problem(field=f"{_FIELD}.backendTimeout", message=message)
    for name, value in times.items():
        if value <= timedelta(0):
            message = "must be above 0: write a duration such as 200ms"
            yield Problem(field=f"{_FIELD}.{name}", message=message)
