"""How an answer is written for the levels outside of this process: a versioned binary form that runs no code when read.

    head      magic, version, number of tensors, instant from which the answer must not be used, checksum
    tensor    datatype, number of dimensions, dimensions, length of the data; then the data, padded to 8 bytes

All numbers are little-endian. The checksum covers everything else and the key, so that neither damage nor a value under
another's key is taken for an answer. It is no signature: whoever may write to the cache may write answers.
Every length is checked against what is there before anything is made of it.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import numpy as np

from canarium_runtime.backends.base import DTYPES, Array

FORMAT_VERSION: Final = 1
_MAGIC: Final = b"CNRA"
_HEAD: Final = struct.Struct("<4sHHd16s")
_TENSOR: Final = struct.Struct("<BBxxxxxxQ")
_MAX_TENSORS: Final = 4096
_MAX_DIMENSIONS: Final = 32
_CODES: Final = {name: code for code, name in enumerate(DTYPES, start=1)}
_NAMES: Final = {code: name for name, code in _CODES.items()}
_CODE_OF: Final = {dtype: _CODES[name] for name, dtype in DTYPES.items()}
_WIRE: Final = {
    _CODES[name]: dtype.newbyteorder("<") for name, dtype in DTYPES.items() if name != "BYTES"
}
_STRINGS: Final = _CODES["BYTES"]


class CodecError(Exception):
    """Not a value of this form, damaged, or for another key."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was read back."""

    outputs: tuple[Array, ...]
    """Read-only."""
    expires_at: float
    """Seconds since 1970."""
    value: bytes
    """As it was written, for another level."""


def encode(key: bytes, outputs: Sequence[Array], expires_at: float) -> bytes:
    """Write an answer.

    Args:
        key: under which it will lie.
        outputs: in the order of the wanted outputs.
        expires_at: seconds since 1970 from which it must not be used.

    Raises:
        CodecError: an array is of a datatype that the protocol does not have.
    """
    if len(outputs) > _MAX_TENSORS:
        msg = f"{len(outputs)} tensors, of at most {_MAX_TENSORS}"
        raise CodecError(msg)
    body = b"".join([part for array in outputs for part in _tensor(array)])
    check = _checksum(key, len(outputs), expires_at, body)
    return _HEAD.pack(_MAGIC, FORMAT_VERSION, len(outputs), expires_at, check) + body


def decode(key: bytes, value: bytes) -> Answer:
    """Read an answer back. The arrays are views of `value`: nothing is copied.

    Raises:
        CodecError: `value` is not what `encode` writes for this key.
    """
    if type(value) is not bytes or len(value) < _HEAD.size:
        msg = "too short"
        raise CodecError(msg)
    magic, version, count, expires_at, check = _HEAD.unpack_from(value)
    if magic != _MAGIC or version != FORMAT_VERSION:
        msg = "of another form or version"
        raise CodecError(msg)
    body = memoryview(value)[_HEAD.size :]
    if check != _checksum(key, count, expires_at, body):
        msg = "damaged, or of another key"
        raise CodecError(msg)
    try:
        return Answer(_tensors(value, count), expires_at, value)
    except (ValueError, OverflowError, struct.error, KeyError) as error:
        msg = f"not readable: {type(error).__name__}"
        raise CodecError(msg) from error


def _checksum(key: bytes, count: int, expires_at: float, body: bytes | memoryview) -> bytes:
    check = blake2b(struct.pack("<Hd", count, expires_at), key=key, digest_size=16)
    check.update(body)
    return check.digest()


def _tensor(array: Array) -> tuple[bytes, bytes, bytes, bytes]:
    code = _CODE_OF.get(array.dtype)
    if code is None:
        msg = f"datatype {array.dtype} has no form"
        raise CodecError(msg)
    if array.ndim > _MAX_DIMENSIONS:
        msg = f"{array.ndim} dimensions, of at most {_MAX_DIMENSIONS}"
        raise CodecError(msg)
    data = (
        _write_strings(array)
        if code == _STRINGS
        else array.astype(_WIRE[code], copy=False).tobytes()
    )
    head = _TENSOR.pack(code, array.ndim, len(data))
    return head, struct.pack(f"<{array.ndim}Q", *array.shape), data, bytes(-len(data) % 8)


def _write_strings(array: Array) -> bytes:
    """Write each element as twice its length, plus 1 for `bytes`, and then all of them."""
    sizes: list[int] = []
    encoded: list[bytes] = []
    for element in array.ravel().tolist():
        if type(element) is str:
            encoded.append(element.encode("utf-8", "surrogatepass"))
            sizes.append(len(encoded[-1]) << 1)
        elif type(element) is bytes:
            encoded.append(element)
            sizes.append(len(element) << 1 | 1)
        else:
            msg = f"an element of type {type(element).__name__} in a BYTES tensor"
            raise CodecError(msg)
    return struct.pack(f"<{len(sizes)}Q", *sizes) + b"".join(encoded)


def _tensors(value: bytes, count: int) -> tuple[Array, ...]:
    at = _HEAD.size
    arrays = []
    for _ in range(count):
        code, ndim, size = _TENSOR.unpack_from(value, at)
        at += _TENSOR.size
        if ndim > _MAX_DIMENSIONS:
            msg = "too many dimensions"
            raise ValueError(msg)
        shape = struct.unpack_from(f"<{ndim}Q", value, at)
        at += 8 * ndim
        if size > len(value) - at:
            msg = "data ends early"
            raise ValueError(msg)
        arrays.append(_read(value, at, size, code, shape))
        at += size + -size % 8
    if at != len(value):
        msg = "more than the tensors"
        raise ValueError(msg)
    return tuple(arrays)


def _read(value: bytes, at: int, size: int, code: int, shape: tuple[int, ...]) -> Array:
    elements = math.prod(shape)
    if code == _STRINGS:
        return _read_strings(value[at : at + size], elements, shape)
    wire = _WIRE[code]
    if elements * wire.itemsize != size:
        msg = "shape and data differ"
        raise ValueError(msg)
    array: Array = np.frombuffer(value, wire, elements, at) if elements else np.empty(0, wire)
    array = array.astype(DTYPES[_NAMES[code]], copy=False).reshape(shape)
    array.setflags(write=False)
    return array


def _read_strings(data: bytes, elements: int, shape: tuple[int, ...]) -> Array:
    if elements * 8 > len(data):
        msg = "fewer strings than the shape says"
        raise ValueError(msg)
    array = np.empty(elements, object)
    at = elements * 8
    for index, tagged in enumerate(struct.unpack_from(f"<{elements}Q", data)):
        size = tagged >> 1
        piece = data[at : at + size]
        if len(piece) != size:
            msg = "a string ends early"
            raise ValueError(msg)
        array[index] = piece if tagged & 1 else piece.decode("utf-8", "surrogatepass")
        at += size
    if at != len(data):
        msg = "more than the strings"
        raise ValueError(msg)
    array = array.reshape(shape)
    array.setflags(write=False)
    return array
