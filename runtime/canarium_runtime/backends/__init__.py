"""Backends run tensors through a model; each file imports its own library, and only when it is chosen."""

from importlib import import_module
from pathlib import Path
from typing import cast

from canarium_api.model_types import ModelFormat
from canarium_runtime.backends import base
from canarium_runtime.backends.options import Options
from canarium_runtime.errors import LoadError

_OPENERS = {
    ModelFormat.ONNX: ("canarium_runtime.backends.onnx", "open_onnx"),
    ModelFormat.TORCH: ("canarium_runtime.backends.torch", "open_torch"),
    ModelFormat.PYTHON: ("canarium_runtime.backends.python", "open_python"),
    ModelFormat.CHAIN: ("canarium_runtime.backends.chain", "open_chain"),
}


def open_backend(model_format: ModelFormat, path: Path, options: Options) -> base.Backend:
    """Open a verified artefact with the backend for its format.

    Args:
        model_format: format of the artefact.
        path: the file.
        options: how to run it.

    Raises:
        LoadError: the file cannot be read as that format, or needs what the backend does not support.
    """
    module, function = _OPENERS[model_format]
    try:
        opener = getattr(import_module(module), function)
    except ModuleNotFoundError as error:
        msg = (
            f"this runtime image has no {error.name}, which models of format {model_format} need: name an image that "
            "has it in serving.image (runtime/Dockerfile, --build-arg BACKENDS=...)"
        )
        raise LoadError("ModelUnsupported", msg, permanent=True) from error
    return cast("base.Backend", opener(path, options))
