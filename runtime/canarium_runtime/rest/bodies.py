"""Compressed bodies, within bounds: a few kilobytes may claim to be gigabytes."""

import zlib
from typing import Final

from canarium_runtime.errors import ErrorKind, ServingError

WINDOWS: Final[dict[bytes, int]] = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}
"""What zlib calls the encodings that are read."""


def decompress(body: bytes, encoding: bytes, max_bytes: int) -> bytes:
    """Undo a content encoding.

    Args:
        body: compressed.
        encoding: key of WINDOWS.
        max_bytes: longest result.

    Raises:
        ServingError: MALFORMED or BODY_TOO_LARGE.
    """
    inflater = zlib.decompressobj(WINDOWS[encoding])
    try:
        plain = inflater.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise _broken(encoding) from error
    if len(plain) > max_bytes:
        expected = f"at most {max_bytes} bytes when decompressed"
        raise ServingError(
            ErrorKind.BODY_TOO_LARGE,
            f"the body is too large: {expected}, got more",
            field="body",
            expected=expected,
            got="more",
        )
    if not inflater.eof or inflater.unused_data:
        raise _broken(encoding)
    return plain


def _broken(encoding: bytes) -> ServingError:
    name = encoding.decode()
    message = (
        f"body: expected one complete {name} stream, as Content-Encoding says, got something else"
    )
    return ServingError(ErrorKind.MALFORMED, message, field="body")
