"""Tensors as bytes: little-endian, in row-major order; each element of BYTES after its length in four bytes."""

import math
import struct
from collections.abc import Iterator

import numpy as np

from canarium_runtime.backends.base import DTYPES, Array
from canarium_runtime.errors import ErrorKind, invalid

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
        values = np.empty(count, object)
        # A count far above the data ends at the first missing element, not with memory.
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
    return np.frombuffer(data, dtype).reshape(shape)


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
