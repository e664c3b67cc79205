"""Backends run tensors through a model; each file imports its own library, and only when it is chosen."""

from importlib import import_module
from pathlib import Path
from typing import cast

from canarium_api.v1alpha1 import ModelFormat
from canarium_runtime.backends import base

_OPENERS = {ModelFormat.ONNX: ("canarium_runtime.backends.onnx", "open_onnx")}


def open_backend(model_format: ModelFormat, path: Path, threads: int) -> base.Backend:
    """Open a verified artefact with the backend for its format.

    Args:
        model_format: format of the artefact.
        path: the file.
        threads: threads for one run of the model.

    Raises:
        LoadError: the file cannot be read as that format, or needs what the backend does not support.
    """
    module, function = _OPENERS[model_format]
    return cast("base.Backend", getattr(import_module(module), function)(path, threads))
