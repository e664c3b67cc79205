"""What every backend offers: tensor specs, and one function from arrays to arrays.

Shapes use `None` for a dimension of any size and a string for a named one: two dimensions with the same name in one
request must have the same size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

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
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(object),
}
"""Datatypes of the Open Inference Protocol and their arrays. BYTES are arrays of `str` objects."""


class BackendError(Exception):
    """The model failed on an input; the message is the library's, for the log and not for the client."""


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
    def memory_bytes(self) -> int:
        """About how much memory the model takes, as far as the backend can tell."""
        ...

    def infer(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> Sequence[Array]:
        """Run the model once.

        Args:
            inputs: an array for each input, of its datatype and a shape that fits its spec.
            outputs: names of the wanted outputs.

        Returns:
            One array for each wanted output, in that order.

        Raises:
            BackendError: the model failed on this input.
        """
        ...

    def close(self) -> None:
        """Free what the model holds; `infer` is not called again."""
        ...
