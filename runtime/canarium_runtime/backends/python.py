"""A Python class as a backend: hooks over whole batches (`canarium_runtime.model` says which).

Errors of its code stay in the log; only what it raises as `InvalidInput` is said to the client. Runs are one at a time
unless the class says `concurrent = True`, since most classes keep something while they compute.
"""

import contextlib
import inspect
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from canarium_runtime.backends import archives, python_code
from canarium_runtime.backends.base import (
    DTYPES,
    Array,
    BackendError,
    InputError,
    ModelSpec,
    TensorSpec,
    is_batchable,
)
from canarium_runtime.backends.options import Options
from canarium_runtime.errors import LoadError
from canarium_runtime.model import InvalidInput

PLATFORM: Final = "python"
MAX_PIECES: Final = 65_536
"""Most pieces of one answer that are kept for a `join`."""


class PythonBackend:
    """An instance of a model's class."""

    def __init__(self, model: Any, spec: ModelSpec, folder: Path) -> None:
        self.spec = spec
        self.compute_bound = bool(getattr(model, "compute_bound", False))
        self.device = str(getattr(model, "device", "cpu"))
        self.memory_bytes = _bytes_of(model, folder)
        self._folder = folder
        self._model = model
        self._pre = getattr(model, "preprocess", None)
        self._post = getattr(model, "postprocess", None)
        self._join = getattr(model, "join", None)
        self._one_at_a_time: contextlib.AbstractContextManager[Any] = (
            contextlib.nullcontext() if getattr(model, "concurrent", False) else threading.Lock()
        )
        self._outputs = {t.name: (t, DTYPES[t.datatype]) for t in spec.outputs}
        self._first = spec.inputs[0].name if spec.batchable else None

    def infer(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> Sequence[Array]:
        """Run the hooks once; of a model that yields, the joined pieces, or without `join` the last one."""
        rows = None if self._first is None else inputs[self._first].shape[0]
        try:
            with self._one_at_a_time:
                if self._pre is not None:
                    inputs = self._pre(inputs)
                if self.spec.streams:
                    result = self._joined(self._model.predict(inputs))
                else:
                    result = self._model.predict(inputs)
                    if self._post is not None:
                        result = self._post(result)
        except BackendError:
            raise
        except Exception as error:
            raise _translated(error) from error
        return [self._checked(result, name, rows) for name in outputs]

    def stream(
        self, inputs: Mapping[str, Array], outputs: Sequence[str]
    ) -> Iterator[Sequence[Array]]:
        """Run the hooks once and give each piece; see `StreamingBackend.stream`."""
        try:
            with self._one_at_a_time:
                if self._pre is not None:
                    inputs = self._pre(inputs)
                with contextlib.closing(self._model.predict(inputs)) as pieces:
                    for piece in pieces:
                        given = piece if self._post is None else self._post(piece)
                        yield [self._checked(given, name, None) for name in outputs]
        except BackendError:
            raise
        except Exception as error:
            raise _translated(error) from error

    def close(self) -> None:
        """Let the model go, and its modules; its own `close` may fail without harm."""
        close = getattr(self._model, "close", None)
        if close is not None:
            with contextlib.suppress(Exception):
                close()
        python_code.forget(sys.modules.get(type(self._model).__module__))
        archives.remove(self._folder)
        self._model = self._pre = self._post = self._join = None

    def _joined(self, pieces: Generator[Any]) -> Any:
        kept: list[Any] = []
        count = 0
        with contextlib.closing(pieces):
            for piece in pieces:
                given = piece if self._post is None else self._post(piece)
                count += 1
                if self._join is None:
                    kept = [given]
                elif count > MAX_PIECES:
                    msg = f"predict gave more than {MAX_PIECES} pieces"
                    raise BackendError(msg)
                else:
                    kept.append(given)
        if not kept:
            msg = "predict yielded nothing"
            raise BackendError(msg)
        return self._join(kept) if self._join is not None else kept[-1]

    def _checked(self, result: Any, name: str, rows: int | None) -> Array:
        """Hold an output to its declaration, since what is declared is what clients are told.

        Raises:
            BackendError: it is missing, or of another kind, number of axes, size or number of rows.
        """
        spec, dtype = self._outputs[name]
        try:
            value = result[name]
        except (KeyError, TypeError, IndexError) as error:
            raise BackendError(
                f"predict gave no output {name!r}, but {type(result).__name__}"
            ) from error
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise BackendError(f"output {name!r} is no array: {error}") from error
        if array.dtype != dtype:
            array = _converted(array, dtype, name, spec.datatype)
        sizes = zip(array.shape, spec.shape, strict=False)
        if array.ndim != len(spec.shape) or any(
            isinstance(want, int) and want != got for got, want in sizes
        ):
            raise BackendError(
                f"output {name!r} has shape {list(array.shape)}, declared is {spec.wire_shape}"
            )
        if rows is not None and array.shape[0] != rows:
            raise BackendError(f"output {name!r} has {array.shape[0]} rows for {rows} of the input")
        return array


def _converted(array: Array, dtype: np.dtype[Any], name: str, datatype: str) -> Array:
    """float64 for FP32 is what numpy gives of itself; a fraction for an integer is a mistake."""
    if datatype == "BYTES" and array.dtype.kind in "UO":
        return array.astype(object)
    # numpy has no rule for bfloat16, which is a number like the others.
    if datatype == "BF16" and array.dtype.kind in "fiu":
        return array.astype(dtype)
    if datatype == "BYTES" or not np.can_cast(array.dtype, dtype, "same_kind"):
        raise BackendError(f"output {name!r} is {array.dtype}, declared is {datatype}")
    return array.astype(dtype)


def _translated(error: Exception) -> BackendError:
    """What an error of the model's code is to the server."""
    if isinstance(error, InvalidInput):
        return InputError(error.message, error.input)
    return BackendError(f"{type(error).__name__}: {error}")


def open_python(path: Path, options: Options) -> PythonBackend:
    """Import a model's class, make an instance and load it.

    Raises:
        LoadError: CodeNotAllowed, ModelUnreadable, ModelUnsupported (what it declares cannot be served), or
            WarmupFailed.
    """
    model_class, folder = python_code.import_class(path, options)
    try:
        return _instance(model_class, folder, options)
    except LoadError:
        python_code.forget(sys.modules.get(model_class.__module__))
        archives.remove(folder)
        raise


def _instance(model_class: Any, folder: Path, options: Options) -> PythonBackend:
    model = _hook("load", "ModelUnreadable", lambda: _loaded(model_class, folder))
    if not callable(getattr(model, "predict", None)):
        msg = f"class {model_class.__name__} has no predict(inputs): add it"
        raise LoadError("ModelUnreadable", msg, permanent=True)
    backend = PythonBackend(model, spec_of(model, options), folder)
    if hasattr(model, "warm_up"):
        _hook("warm_up", "WarmupFailed", model.warm_up)
    return backend


def _loaded(model_class: Any, folder: Path) -> Any:
    model = model_class()
    if hasattr(model, "load"):
        model.load(folder)
    return model


def _hook(name: str, reason: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:
        what = f"{type(error).__name__}: {error}".rstrip(".")
        msg = f"the model's {name} failed: {what}. Check the archive and the image it runs in."
        raise LoadError(reason, msg, permanent=True) from error


def spec_of(model: Any, options: Options) -> ModelSpec:
    """Read what a model declares; what the spec declares wins.

    Raises:
        LoadError: ModelUnsupported, when neither declares it, or when it is no declaration.
    """
    inputs = options.inputs or _declared(model, "inputs")
    outputs = options.outputs or _declared(model, "outputs")
    batchable = getattr(model, "batchable", True) and is_batchable(inputs, outputs)
    return ModelSpec(
        platform=PLATFORM,
        inputs=inputs,
        outputs=outputs,
        batchable=batchable,
        streams=inspect.isgeneratorfunction(model.predict),
    )


def _declared(model: Any, field: str) -> tuple[TensorSpec, ...]:
    given = getattr(model, field, None)
    try:
        tensors = tuple(
            TensorSpec(
                name=str(tensor.name),
                datatype=str(tensor.datatype),
                shape=tuple(None if int(size) < 0 else int(size) for size in tensor.shape),
            )
            for tensor in given or ()
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise _undeclared(type(model).__name__, field, f"{error}") from error
    if not tensors:
        raise _undeclared(type(model).__name__, field, "there is none")
    for tensor in tensors:
        if tensor.datatype not in DTYPES:
            why = f"{tensor.datatype!r} is none of {', '.join(DTYPES)}"
            raise _undeclared(type(model).__name__, field, why)
    if len({t.name for t in tensors}) != len(tensors):
        raise _undeclared(type(model).__name__, field, "two have the same name")
    return tensors


def _undeclared(class_name: str, field: str, why: str) -> LoadError:
    msg = (
        f"{class_name}.{field} must be a list of Tensor(name, datatype, shape), -1 for any size: {why}. Declare them "
        f"in the class, or as model.{field}."
    )
    return LoadError("ModelUnsupported", msg, permanent=True)


def _bytes_of(model: Any, folder: Path) -> int:
    stated = getattr(model, "memory_bytes", None)
    if isinstance(stated, int):
        return stated
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
