"""Compressed bodies: read whole, and never larger than allowed."""

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canarium_runtime.errors import ErrorKind, ServingError
from canarium_runtime.rest.bodies import WINDOWS, decompress

WRITERS = {b"gzip": gzip.compress, b"deflate": zlib.compress}


@pytest.mark.parametrize("encoding", sorted(WINDOWS))
@given(st.binary(max_size=2000))
def test_what_is_compressed_is_read(encoding: bytes, body: bytes) -> None:
    """Bytes in, the same bytes out, up to the limit exactly."""
    assert decompress(WRITERS[encoding](body), encoding, len(body)) == body


@pytest.mark.parametrize("encoding", sorted(WINDOWS))
def test_a_bomb_is_refused_without_being_unpacked(encoding: bytes) -> None:
    """100 MB in 100 kB, with a limit of 1 kB."""
    bomb = WRITERS[encoding](bytes(100_000_000))
    with pytest.raises(ServingError) as refused:
        decompress(bomb, encoding, 1000)
    assert refused.value.kind is ErrorKind.BODY_TOO_LARGE


@pytest.mark.parametrize("encoding", sorted(WINDOWS))
@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda body: body[:-3], id="cut"),
        pytest.param(lambda body: body + b"x", id="more behind it"),
        pytest.param(lambda body: b"{}", id="not compressed"),
        pytest.param(lambda body: b"", id="empty"),
        pytest.param(lambda body: body[:-1] + bytes([body[-1] ^ 1]), id="wrong checksum"),
    ],
)
def test_a_broken_stream_is_malformed(encoding: bytes, spoil: object) -> None:
    """Cut, spoilt, or none at all."""
    body = spoil(WRITERS[encoding](b"x" * 100))  # type: ignore[operator]
    with pytest.raises(ServingError) as refused:
        decompress(body, encoding, 1000)
    assert refused.value.kind is ErrorKind.MALFORMED
