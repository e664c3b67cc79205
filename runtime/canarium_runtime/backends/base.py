"""What every backend offers: tensor specs, and one function from arrays to arrays.

Shapes use `None` for a dimension of any size and a string for a named one: two dimensions with the same name in one
request must have the same size.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Dimension = int | str | None

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(object),
}
"""Datatypes of the Open Inference Protocol and their arrays. BYTES are arrays of `str` objects. BF16 has a dtype of
kind "V" to numpy: ask `is_floating`, not the kind."""
FLOATING = frozenset({"FP16", "BF16", "FP32", "FP64"})
"""Datatypes that hold fractions."""


def is_floating(dtype: np.dtype[Any]) -> bool:
    """Whether the elements are floating-point numbers, bfloat16 among them."""
    return dtype.kind == "f" or dtype == DTYPES["BF16"]


class BackendError(Exception):
    """The model failed on an input; the message is the library's, for the log and not for the client."""


class InputError(BackendError):
    """The model refuses an input, and says so to the client.

    Args:
        message: one sentence for the client.
        field: name of the input, when it is about one.
    """

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """Name, datatype and shape of one input or output."""

    name: str
    datatype: str
    """Key of DTYPES."""
    shape: tuple[Dimension, ...]

    @property
    def wire_shape(self) -> list[int]:
        """Shape as the protocol writes it: -1 for any size."""
        return [d if isinstance(d, int) else -1 for d in self.shape]


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Inputs and outputs of a model, as it declares them."""

    platform: str
    """Name of the platform in the Open Inference Protocol."""
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batchable: bool
    """The first axis of every input and output counts rows, so requests can be joined along it."""
    streams: bool = False
    """The backend is a `StreamingBackend`, whose answers can be had in pieces."""

    @cached_property
    def output_names(self) -> tuple[str, ...]:
        """All outputs, in the model's order."""
        return tuple(o.name for o in self.outputs)

    @cached_property
    def has_tied_axes(self) -> bool:
        """Whether axes of the inputs must agree: rows of several inputs, or a name that occurs twice."""
        skipped = 1 if self.batchable else 0
        names = [d for t in self.inputs for d in t.shape[skipped:] if isinstance(d, str)]
        return len(self.inputs) > 1 or len(names) != len(set(names))

    @cached_property
    def output_datatypes(self) -> dict[str, str]:
        """Datatype of each output by name."""
        return {o.name: o.datatype for o in self.outputs}


class Backend(Protocol):
    """A model that is loaded. `infer` may be called by several threads at a time."""

    @property
    def spec(self) -> ModelSpec:
        """Inputs and outputs."""
        ...

    @property
    def compute_bound(self) -> bool:
        """Whether a run keeps the calling thread busy all the time, with no wait for a device, a lock or the network:
        only then may a quick model run on the event loop.
        """
        ...

    @property
    def device(self) -> str:
        """What it runs on: `cpu`, `cuda:0`."""
        ...

    @property
    def memory_bytes(self) -> int:
        """Estimate of what it holds while it is loaded, in bytes: the weights, not what a run takes on top."""
        ...

    def infer(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> Sequence[Array]:
        """Run the model once.

        Args:
            inputs: an array for each input, of its datatype and a shape that fits its spec.
            outputs: names of the wanted outputs.

        Returns:
            One array for each wanted output, in that order.

        Raises:
            InputError: the model refuses this input, with words for the client.
            BackendError: the model failed on this input.
        """
        ...

    def close(self) -> None:
        """Free what the model holds; `infer` is not called again."""
        ...


@runtime_checkable
class StreamingBackend(Backend, Protocol):
    """A backend that can give its answer in pieces; `spec.streams` says so of one that has the method."""

    def stream(
        self, inputs: Mapping[str, Array], outputs: Sequence[str]
    ) -> Iterator[Sequence[Array]]:
        """Run the model once, and give each piece as it comes. Take the pieces in one thread, and close the iterator.

        Args:
            inputs: as for `infer`; rows of several requests are not joined.
            outputs: names of the wanted outputs.

        Raises:
            BackendError: see `infer`; it may come after some pieces.
        """
        ...


def is_batchable(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> bool:
    """Whether the first axis of every tensor may be any number of rows, the same for all.

    A fixed first axis, or two differently named ones (`rows` and `tokens`), means no. An output without a declared
    shape says nothing, and the warm-up finds out.
    """
    if not inputs or any(not t.shape for t in inputs):
        return False
    first = [t.shape[0] for t in (*inputs, *outputs) if t.shape]
    names = {d for d in first if isinstance(d, str)}
    return not any(isinstance(d, int) for d in first) and len(names) <= 1
