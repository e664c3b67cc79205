"""Bring a model's class in: only where the spec allows code, and only after its digest was verified.

The artefact is a file, or a zip archive whose modules find one another by `from . import helpers`: each model is a
package of its own, so two in one server cannot take each other's modules, nor hide a library's.

Limitation: what the code does then is not confined: it runs in the server's process, with the pod's rights.
"""

import importlib.util
import itertools
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

from canarium_runtime.backends import archives
from canarium_runtime.backends.options import Options
from canarium_runtime.errors import LoadError

_numbers = itertools.count()


def import_class(path: Path, options: Options) -> tuple[Any, Path]:
    """Import the class that a Python model is.

    Args:
        path: a verified file, or zip archive.
        options: whether code is allowed, which class, and where to unpack.

    Returns:
        The class, and the folder of its files.

    Raises:
        LoadError: CodeNotAllowed; ModelUnreadable, when it cannot be imported or has no such class.
    """
    if not options.allow_code:
        msg = (
            "this model is Python code, which runs with the rights of the pod: set model.allowCode to true if you "
            "trust its source, or export the model to ONNX or with torch.export"
        )
        raise LoadError("CodeNotAllowed", msg, permanent=True)
    module_name, _, class_name = options.entrypoint.partition(":")
    folder = _folder_of(path, module_name, options)
    try:
        return _class_in(_import(folder, module_name), class_name), folder
    except LoadError:
        archives.remove(folder)
        raise


def _class_in(module: ModuleType, class_name: str) -> type[Any]:
    found = getattr(module, class_name, None)
    if not isinstance(found, type):
        forget(module)
        module_name = module.__name__.partition(".")[2]
        msg = f"{module_name}.py has no class {class_name}: name it Model, or set model.entrypoint to module:Class"
        raise LoadError("ModelUnreadable", msg, permanent=True)
    return found


def _folder_of(path: Path, module_name: str, options: Options) -> Path:
    parent = options.directory / "code"
    if zipfile.is_zipfile(path):
        return archives.unpack(path, parent, options.max_bytes)
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="model-", dir=parent))
    shutil.copyfile(path, folder / f"{module_name}.py")
    return folder


def _import(folder: Path, module_name: str) -> ModuleType:
    file = folder / f"{module_name}.py"
    if not file.is_file():
        msg = f"the archive has no {module_name}.py at its top: add it, or set model.entrypoint to module:Class"
        raise LoadError("ModelUnreadable", msg, permanent=True)
    package_name = f"canarium_model_{next(_numbers)}"
    package = ModuleType(package_name)
    package.__path__ = [str(folder)]
    sys.modules[package_name] = package
    name = f"{package_name}.{module_name}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None  # noqa: S101 - it is a .py file, for which there is a loader
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        forget(module)
        raise _failed(folder, error) from error
    return module


def forget(module: ModuleType | None) -> None:
    """Let go of a model's modules."""
    package = module.__name__.partition(".")[0] if module is not None else ""
    for name in [n for n in sys.modules if package and n.partition(".")[0] == package]:
        del sys.modules[name]


def _failed(folder: Path, error: Exception) -> LoadError:
    remedy = "Run it once by itself to see where."
    if isinstance(error, ModuleNotFoundError) and error.name:
        beside = (folder / f"{error.name.partition('.')[0]}.py").exists()
        remedy = (
            f"It is in the archive: write `from . import {error.name}`."
            if beside
            else "Name an image that has it in serving.image."
        )
    msg = f"the model's code cannot be imported: {type(error).__name__}: {error}. {remedy}"
    return LoadError("ModelUnreadable", msg, permanent=True)
