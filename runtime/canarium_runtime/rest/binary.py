"""Tensors as bytes: little-endian, in row-major order; each element of BYTES after its length in four bytes."""

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from canarium_runtime.backends.base import DTYPES, Array
from canarium_runtime.errors import ErrorKind, invalid
from canarium_runtime.validation import ValidatedInputs

_LENGTH = struct.Struct("<I")


class Tail:
    """The bytes behind a request's JSON, taken tensor by tensor."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._taken = 0

    def take(self, field: str, size: int) -> memoryview:
        """Give the next `size` bytes.

        Raises:
            ServingError: MALFORMED, when there are fewer.
        """
        left = len(self._data) - self._taken
        if size > left:
            raise invalid(
                field, f"{size} bytes of binary data", f"{left}", kind=ErrorKind.MALFORMED
            )
        piece = self._data[self._taken : self._taken + size]
        self._taken += size
        return piece

    def check_end(self) -> None:
        """Refuse bytes that belong to no tensor.

        Raises:
            ServingError: MALFORMED.
        """
        left = len(self._data) - self._taken
        if left:
            raise invalid(
                "body", "no bytes behind the last tensor", f"{left} more", kind=ErrorKind.MALFORMED
            )


def read(data: memoryview, datatype: str, shape: tuple[int, ...], field: str) -> Array:
    """Make the array of one tensor.

    Args:
        data: its bytes.
        datatype: key of DTYPES.
        shape: as declared.
        field: its path, for errors.

    Returns:
        A read-only array of that shape, over `data` where no conversion is needed.

    Raises:
        ServingError: INVALID, when the bytes do not make such a tensor.
    """
    count = math.prod(shape)
    if datatype == "BYTES":
        if count * _LENGTH.size > len(data):  # before memory is taken for them
            raise invalid(
                field, f"{count} strings for shape {list(shape)}", f"only {len(data)} bytes"
            )
        values = np.empty(count, object)
        values[:] = list(_strings(data, count, field))
        return values.reshape(shape)
    dtype = DTYPES[datatype]
    if len(data) != count * dtype.itemsize:
        raise invalid(
            field,
            f"{count * dtype.itemsize} bytes for shape {list(shape)} of {datatype}",
            f"{len(data)} bytes",
        )
    if datatype == "BOOL":
        if len(data) and np.frombuffer(data, np.uint8).max() > 1:
            raise invalid(field, "bytes of 0 and 1 (BOOL)", "another byte")
    elif dtype.byteorder == ">":  # pragma: no cover - no such machine here
        return np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype).reshape(shape)
    array = np.frombuffer(data, dtype)
    # What lies at an odd address is slow at best, and not taken by every library.
    return (array if array.flags.aligned else array.copy()).reshape(shape)


class Frames:
    """Heads of binary requests that came before, and where the tensors are behind them.

    A client's requests mostly have the same JSON and other bytes behind it. What the JSON says is then known, and what
    is left to check is the number of bytes. Not for BYTES and BOOL, whose bytes are checked one by one.
    """

    def __init__(self) -> None:
        self._frames: dict[bytes, _Frame] = {}

    def read(self, body: bytes, json_bytes: int) -> tuple[ValidatedInputs, Sequence[str]] | None:
        """Read a request whose head is known: the inputs, and the outputs that are wanted as binary data."""
        frame = self._frames.get(body[:json_bytes])
        if frame is None or len(body) != frame.size:
            return None
        arrays: dict[str, Array] = {}
        for name, dtype, count, offset, shape in frame.tensors:
            array = np.frombuffer(body, dtype, count, offset)
            arrays[name] = (array if array.flags.aligned else array.copy()).reshape(shape)
        known = frame.inputs
        return ValidatedInputs(arrays, known.rows, known.key, known.outputs), frame.as_binary

    def remember(
        self,
        body: bytes,
        json_bytes: int,
        sent: Sequence[str],
        inputs: ValidatedInputs,
        as_binary: Sequence[str],
    ) -> None:
        """Note a request that was read the careful way.

        Args:
            body: all of it.
            json_bytes: how much of it is JSON.
            sent: names of the inputs in the order of their bytes.
            inputs: what was read.
            as_binary: outputs that are wanted as binary data.
        """
        tensors: list[_Place] = []
        offset = json_bytes
        for name in sent:
            array = inputs.arrays[name]
            if array.dtype.kind in "Ob":
                return
            tensors.append((name, array.dtype, array.size, offset, array.shape))
            offset += array.nbytes
        if offset != len(body) or json_bytes > _MAX_HEAD_BYTES:
            return  # some came as JSON, or it is not worth the memory
        if len(self._frames) >= _MAX_FRAMES:
            self._frames.clear()
        ordered = [t for name in inputs.arrays for t in tensors if t[0] == name]
        rest = ValidatedInputs({}, inputs.rows, inputs.key, inputs.outputs)
        self._frames[body[:json_bytes]] = _Frame(offset, ordered, rest, as_binary)


_Place = tuple[str, "np.dtype[Any]", int, int, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class _Frame:
    """What a head says."""

    size: int
    """Of the whole body."""
    tensors: Sequence[_Place]
    """Name, datatype, count, place in the body and shape of each input, in the model's order."""
    inputs: ValidatedInputs
    """Those of the request that it was read with, without its arrays: the rest holds for others too."""
    as_binary: Sequence[str]


_MAX_FRAMES = 64
_MAX_HEAD_BYTES = 4096


def _strings(data: memoryview, count: int, field: str) -> Iterator[str]:
    at = 0
    for index in range(count):
        if at + _LENGTH.size > len(data):
            raise invalid(field, f"{count} strings", f"{index}")
        (size,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if at + size > len(data):
            raise invalid(f"{field}[{index}]", f"{size} bytes", f"{len(data) - at}")
        try:
            yield str(data[at : at + size], "utf-8")
        except UnicodeDecodeError:
            raise invalid(f"{field}[{index}]", "UTF-8 text (BYTES)", "other bytes") from None
        at += size
    if at != len(data):
        raise invalid(field, f"{at} bytes for {count} strings", f"{len(data)} bytes")


def write(datatype: str, array: Array) -> bytes:
    """Make the bytes of one tensor."""
    if datatype == "BYTES":
        pieces: list[bytes] = []
        for value in array.ravel().tolist():
            text = value.encode() if isinstance(value, str) else bytes(value)
            pieces += (_LENGTH.pack(len(text)), text)
        return b"".join(pieces)
    return array.tobytes()
