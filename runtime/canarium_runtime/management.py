"""What a server says of its models, and does with them, in the words of the Open Inference Protocol: documents that
REST writes as JSON and gRPC as messages of the same fields.
"""

from collections.abc import Iterable
from typing import Any, Final

from canarium_runtime.backends.base import TensorSpec
from canarium_runtime.errors import ErrorKind, ServingError, invalid
from canarium_runtime.lifecycle import ModelState
from canarium_runtime.metrics import RunCount
from canarium_runtime.models import Models
from canarium_runtime.service import InferenceService
from canarium_runtime.streaming import can_stream

Document = dict[str, Any]
EXTENSIONS: Final = (
    "binary_tensor_data",
    "schedule_policy",
    "model_repository",
    "model_configuration",
    "statistics",
)
"""What is offered beyond the protocol's core, by the names that clients know."""
SERVER_NAME: Final = "canarium"
_NANOSECONDS: Final = 1e9
_CONFIG_NAMES: Final = {"BYTES": "STRING"}


def server(version: str) -> Document:
    """Describe the server."""
    return {"name": SERVER_NAME, "version": version, "extensions": list(EXTENSIONS)}


def metadata(models: Models, name: str, version: str | None) -> Document:
    """Describe a model's inputs and outputs, as the model itself declares them.

    Raises:
        ServingError: NOT_FOUND, or NOT_READY while it is not loaded.
    """
    service = models.get(name, version)
    spec = service.spec
    versions = models.names()[name]
    return {
        "name": name,
        "versions": versions if version is None else [version],
        "platform": spec.platform,
        "inputs": [_tensor(t) for t in spec.inputs],
        "outputs": [_tensor(t) for t in spec.outputs],
    }


def _tensor(spec: TensorSpec) -> Document:
    return {"name": spec.name, "datatype": spec.datatype, "shape": spec.wire_shape}


def config(service: InferenceService) -> Document:
    """Describe how a model is served.

    Raises:
        ServingError: NOT_READY while it is not loaded.
    """
    spec = service.spec
    batched = service.batching
    return {
        "name": service.config.model_name,
        "platform": spec.platform,
        "backend": service.config.model_format.value,
        "max_batch_size": service.config.max_batch_size if batched else 0,
        "input": [_config_tensor(t, batched) for t in spec.inputs],
        "output": [_config_tensor(t, batched) for t in spec.outputs],
        "model_transaction_policy": {"decoupled": can_stream(service.backend)},
    }


def _config_tensor(spec: TensorSpec, batched: bool) -> Document:
    return {
        "name": spec.name,
        "data_type": f"TYPE_{_CONFIG_NAMES.get(spec.datatype, spec.datatype)}",
        "dims": spec.wire_shape[1:] if batched else spec.wire_shape,
    }


def index(models: Models, *, ready_only: bool) -> list[Document]:
    """List all versions of all models."""
    return [
        {
            "name": m.name,
            "version": m.version,
            "state": "READY" if m.state is ModelState.READY else "UNAVAILABLE",
            "reason": "" if m.state is ModelState.READY else f"{m.state.value}: {m.reason}",
        }
        for m in models.index()
        if not ready_only or m.state is ModelState.READY
    ]


async def load(models: Models, name: str, parameters: Iterable[str]) -> None:
    """Make all versions of a model ready; those that are stay so.

    Args:
        models: the server's.
        name: of the model.
        parameters: names of what the client said about it.

    Raises:
        ServingError: NOT_FOUND; INVALID for a parameter; NOT_READY with the reason why it cannot be loaded;
            METHOD_NOT_ALLOWED where the settings do not allow it.
    """
    _check_allowed(models)
    _refuse_parameters(parameters)
    models.get(name)
    for version in models.names()[name]:
        await models.load(name, version)


async def unload(models: Models, name: str, parameters: Iterable[str]) -> None:
    """Stop serving all versions of a model, and free what they hold.

    Raises:
        ServingError: NOT_FOUND; INVALID for a parameter; METHOD_NOT_ALLOWED for the server's first model, and where the
            settings do not allow it.
    """
    _check_allowed(models)
    # There are no dependents here, so that it is the same whether they are to go, too.
    _refuse_parameters(p for p in parameters if p != "unload_dependents")
    models.get(name)
    if name == models.config.model_name:
        message = f"model {name!r} cannot be unloaded: it is the server's own, without which it is not ready"
        raise ServingError(ErrorKind.METHOD_NOT_ALLOWED, message)
    for version in models.names()[name]:
        await models.unload(name, version)


def _check_allowed(models: Models) -> None:
    if not models.config.model_control:
        message = "clients may not load and unload models here: set CANARIUM_MODEL_CONTROL to true to let them"
        raise ServingError(ErrorKind.METHOD_NOT_ALLOWED, message)


def _refuse_parameters(parameters: Iterable[str]) -> None:
    if unknown := sorted(parameters):
        expected = "none, as models are configured by the ModelDeployment"
        raise invalid("parameters", expected, ", ".join(unknown))


def statistics(models: Models, name: str | None, version: str | None) -> Document:
    """Count what models did since the server began.

    Args:
        models: the server's.
        name: of one model; None: all.
        version: of that model; None: all of its versions.

    Raises:
        ServingError: NOT_FOUND.
    """
    if name is not None:
        models.get(name, version)
    chosen = [
        service
        for service in models
        if name in {None, service.config.model_name}
        and version in {None, service.config.model_version}
    ]
    return {"model_stats": [_statistics(service) for service in chosen]}


def _statistics(service: InferenceService) -> Document:
    """Count one model. `compute_input` and `compute_output` are 0: reading and writing bodies is not measured."""
    metrics = service.metrics
    runs = metrics.inference_duration
    nothing = _duration(0, 0.0)
    return {
        "name": service.config.model_name,
        "version": service.config.model_version,
        "last_inference": int(metrics.last_run_at * 1000),
        "inference_count": int(metrics.batch_size.total),
        "execution_count": runs.count,
        "inference_stats": {
            "success": _duration(
                metrics.succeeded, metrics.duration.total - metrics.failed_seconds
            ),
            "fail": _duration(sum(metrics.failed.values()), metrics.failed_seconds),
            "queue": _duration(metrics.queue_duration.count, metrics.queue_duration.total),
            "compute_input": nothing,
            "compute_infer": _duration(runs.count, runs.total),
            "compute_output": nothing,
            "cache_hit": nothing,
            "cache_miss": nothing,
        },
        "batch_stats": [_batch(rows, run) for rows, run in sorted(metrics.runs_by_rows.items())],
    }


def _batch(rows: int, run: RunCount) -> Document:
    nothing = _duration(0, 0.0)
    infer = _duration(run.runs, run.seconds)
    return {
        "batch_size": rows,
        "compute_input": nothing,
        "compute_infer": infer,
        "compute_output": nothing,
    }


def _duration(count: int, seconds: float) -> Document:
    return {"count": count, "ns": max(0, round(seconds * _NANOSECONDS))}
