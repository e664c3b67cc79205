"""Laws of the cache's keys and values, for all datatypes and shapes."""

import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canarium_runtime.backends.base import DTYPES, Array
from canarium_runtime.caching import codec
from canarium_runtime.caching.keys import KEY_BYTES, Keys
from canarium_runtime.validation import ValidatedInputs

SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)
TEXTS = st.text(st.characters(), max_size=6) | st.binary(max_size=6) | st.just("\ud800")


@st.composite
def arrays(draw: st.DrawFn, shapes: st.SearchStrategy[tuple[int, ...]] = SHAPES) -> Array:
    """An array of any datatype of the protocol; numbers are any bytes, so NaN, infinity and -0.0 come, too."""
    dtype = draw(st.sampled_from(sorted(DTYPES.values(), key=str)))
    shape = draw(shapes)
    count = math.prod(shape)
    if dtype.hasobject:
        array: Array = np.empty(count, object)
        array[:] = draw(st.lists(TEXTS, min_size=count, max_size=count))
        return array.reshape(shape)
    size = count * dtype.itemsize
    content = draw(st.binary(min_size=size, max_size=size))
    if dtype == np.bool_:
        content = bytes(byte & 1 for byte in content)
    return np.frombuffer(content, dtype).reshape(shape)


def canonical(array: Array) -> Any:
    """What makes two arrays the same to the cache."""
    content = (
        [(type(e), e) for e in array.ravel().tolist()] if array.dtype.hasobject else array.tobytes()
    )
    return array.dtype, array.shape, content


@given(outputs=st.lists(arrays(), max_size=3), key=st.binary(min_size=20, max_size=20))
def test_what_was_written_reads_back_equal(outputs: list[Array], key: bytes) -> None:
    """Datatype, shape and every bit come back, read-only, with the end of their time."""
    answer = codec.decode(key, codec.encode(key, outputs, 1234.5))
    assert list(map(canonical, outputs)) == list(map(canonical, answer.outputs))
    assert answer.expires_at == 1234.5
    for array in answer.outputs:
        assert array.dtype.isnative
        assert not array.flags.writeable


@given(outputs=st.lists(arrays(), max_size=2), data=st.data())
def test_damage_is_noticed(outputs: list[Array], data: st.DataObject) -> None:
    """One changed byte, a cut, or more at the end: no answer comes of it, and no other error."""
    value = codec.encode(b"key", outputs, 1.0)
    at = data.draw(st.integers(0, len(value) - 1))
    changed = bytearray(value)
    changed[at] ^= data.draw(st.integers(1, 255))
    for wrong in (bytes(changed), value[:at], value + b"\0"):
        with pytest.raises(codec.CodecError):
            codec.decode(b"key", wrong)


@given(value=st.binary(max_size=200))
def test_any_bytes_are_refused_without_another_error(value: bytes) -> None:
    """Whatever lies in a shared store, reading it cannot crash a server."""
    with pytest.raises(codec.CodecError):
        codec.decode(b"key", value)


@given(body=st.binary(max_size=120), count=st.integers(0, 3))
def test_a_body_with_a_right_checksum_and_wrong_content_is_refused_or_read(
    body: bytes, count: int
) -> None:
    """Even what somebody made on purpose is at worst refused: lengths are checked before anything is made of them."""
    check = codec._checksum(b"key", count, 1.0, body)
    value = struct.pack("<4sHHd16s", b"CNRA", codec.FORMAT_VERSION, count, 1.0, check) + body
    try:
        answer = codec.decode(b"key", value)
    except codec.CodecError:
        return
    assert len(answer.outputs) == count


@given(outputs=st.lists(arrays(), min_size=1, max_size=2))
def test_a_value_under_another_key_is_no_answer(outputs: list[Array]) -> None:
    """Who swaps values in a store does not make one request get another's answer."""
    with pytest.raises(codec.CodecError, match="another key"):
        codec.decode(b"other", codec.encode(b"key", outputs, 1.0))


INPUTS = st.tuples(
    st.dictionaries(st.sampled_from("ab"), arrays(), min_size=1, max_size=2),
    st.lists(st.sampled_from(["y", "z", "yz"]), max_size=3).map(tuple),
)


def validated(inputs: tuple[dict[str, Array], tuple[str, ...]]) -> ValidatedInputs:
    return ValidatedInputs(dict(sorted(inputs[0].items())), 1, "k", inputs[1])


def identity_of(inputs: tuple[dict[str, Array], tuple[str, ...]]) -> Any:
    # Names of inputs follow from the model, which is in the key: their order is the model's.
    return [canonical(a) for _, a in sorted(inputs[0].items())], inputs[1]


@given(one=INPUTS, other=INPUTS)
def test_keys_are_equal_for_equal_inputs_alone(
    one: tuple[dict[str, Array], tuple[str, ...]], other: tuple[dict[str, Array], tuple[str, ...]]
) -> None:
    """Datatype, shape, bytes and wanted outputs decide, and nothing can be read in two ways."""
    keys = Keys(("digest",))
    first, second = keys.of(validated(one)), Keys(("digest",)).of(validated(other))
    assert (first == second) == (identity_of(one) == identity_of(other))
    assert len(first) == KEY_BYTES
    copied = ({name: array.copy() for name, array in one[0].items()}, one[1])
    assert keys.of(validated(copied)) == first


@given(
    inputs=INPUTS,
    identities=st.lists(st.lists(st.text(max_size=3), max_size=3), min_size=2, max_size=2),
)
def test_another_identity_is_another_key(
    inputs: tuple[dict[str, Array], tuple[str, ...]], identities: list[list[str]]
) -> None:
    """A new version, revision or program shares no key with the old one, whatever their names are."""
    one, other = (Keys(identity).of(validated(inputs)) for identity in identities)
    assert (one == other) == (identities[0] == identities[1])
