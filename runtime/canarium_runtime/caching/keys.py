"""`Keys`: what makes two requests equal.

A key is a hash of the identity of what answers (model digest, revision, version of the server) and of the canonical
input: datatype, shape and bytes of each input in the model's order, and the names of the wanted outputs in their order.
Equal bytes alone are equal: 0.0 and -0.0 are two inputs, and so are two kinds of NaN. Two identities never share a key,
so a new version cannot answer from what an old one has left.
"""

import struct
from collections.abc import Sequence
from hashlib import blake2b
from itertools import chain
from typing import Any, Final

from canarium_runtime.backends.base import Array
from canarium_runtime.caching.codec import FORMAT_VERSION
from canarium_runtime.validation import ValidatedInputs

KEY_BYTES: Final = 20
"""80 bits against somebody who looks for two inputs with one key."""
_MAX_LAYOUTS: Final = 1024


class Keys:
    """Makes keys.

    Args:
        identity: everything that decides an answer but the input.
    """

    def __init__(self, identity: Sequence[str]) -> None:
        self._prefix = _texts((f"canarium answers {FORMAT_VERSION}", *identity))
        self._heads: dict[tuple[Any, ...], bytes] = {}

    def of(self, inputs: ValidatedInputs) -> bytes:
        """Give the key of a request: KEY_BYTES bytes. About a microsecond for small inputs."""
        layout: list[Any] = [
            inputs.outputs if type(inputs.outputs) is tuple else tuple(inputs.outputs)
        ]
        parts = [b""]
        for array in inputs.arrays.values():
            layout.append(array.dtype.char)
            layout.append(array.shape)
            parts.append(array.tobytes() if not array.dtype.hasobject else _strings(array))
        known = tuple(layout)
        parts[0] = self._heads.get(known) or self._head(known)
        return blake2b(b"".join(parts), digest_size=KEY_BYTES).digest()

    def _head(self, layout: tuple[Any, ...]) -> bytes:
        """Write what does not depend on values. Lengths are all in it, so nothing can be read in two ways."""
        outputs, *tensors = layout
        parts = [self._prefix, _texts(outputs), struct.pack("<I", len(tensors) // 2)]
        for datatype, shape in zip(tensors[::2], tensors[1::2], strict=True):
            parts.append(datatype.encode())
            parts.append(struct.pack(f"<I{len(shape)}Q", len(shape), *shape))
        if (
            len(self._heads) >= _MAX_LAYOUTS
        ):  # whoever sends a new shape each time must not fill the memory
            self._heads.clear()
        head = self._heads[layout] = b"".join(parts)
        return head


def _texts(texts: Sequence[str]) -> bytes:
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    lengths = struct.pack(f"<I{len(encoded)}I", len(encoded), *map(len, encoded))
    return lengths + b"".join(encoded)


def _strings(array: Array) -> bytes:
    """Write the elements of a BYTES tensor, each with its length and kind."""
    elements = array.ravel().tolist()
    encoded = [e if isinstance(e, bytes) else e.encode("utf-8", "surrogatepass") for e in elements]
    kinds = bytes(isinstance(e, bytes) for e in elements)
    lengths = struct.pack(f"<{len(encoded)}Q", *map(len, encoded))
    return b"".join(chain((kinds, lengths), encoded))
