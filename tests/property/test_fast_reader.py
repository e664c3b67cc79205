"""The fast way to read a body is the careful way: whatever it takes, it takes with equal results."""

import json
from itertools import zip_longest
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canarium_runtime.backends.base import ModelSpec
from canarium_runtime.errors import ServingError
from canarium_runtime.rest.codec import Call, Codec, Identity
from canarium_runtime.rest.plain import PredictCodec
from canarium_runtime.rest.v2 import V2Codec
from canarium_runtime.testing import model_spec, tensor

IDENTITY = Identity("m", "1", "r")
SPECS: dict[str, ModelSpec] = {
    "floats": model_spec([tensor("x", "FP32", None, 3)]),
    "any width": model_spec([tensor("x", "FP32", None, None)]),
    "doubles": model_spec([tensor("x", "FP64", None, 2)]),
    "integers": model_spec([tensor("x", "INT64", None, 2)]),
    "small integers": model_spec([tensor("x", "INT32", None)]),
    "two inputs": model_spec([tensor("x", "FP32", None, 2), tensor("z", "INT64", None)]),
    "tied": model_spec([tensor("x", "FP32", "n", "k"), tensor("z", "FP32", "n", "k")]),
    "fixed": model_spec([tensor("x", "FP32", 2, 2)], batchable=False),
}

numbers = st.one_of(
    st.integers(-3, 3),
    st.floats(-10, 10),
    st.sampled_from(
        [
            1e39,
            -1e39,
            3.4028235e38,
            3.4028236e38,
            1e-50,
            2**31,
            2**31 - 1,
            -(2**31),
            2**53 + 1,
            2**63,
            2**64,
            0.1,
            -0.0,
            1.5,
        ]
    ),
)
odd = st.sampled_from([None, True, "1", "a]b", "[", [], [1], {}, {"a": 1}])
elements = st.one_of(numbers, numbers, numbers, numbers, odd)
sizes = st.one_of(st.integers(0, 4), st.sampled_from([-1, True, 1.0, "1", None]))


@st.composite
def tensors(draw: st.DrawFn, name: str, datatype: str) -> dict[str, Any]:
    """A tensor that is mostly right, and now and then wrong in any way."""
    rows, width = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    right = draw(st.booleans())
    shape: list[Any] = [rows, width] if draw(st.integers(0, 3)) else [rows]
    count = rows * width if len(shape) == 2 else rows
    pool = numbers if right else elements
    data: Any = draw(st.lists(pool, min_size=count, max_size=count if right else count + 1))
    if not right and draw(st.booleans()):
        shape = draw(st.lists(sizes, max_size=3))
    if not right and draw(st.integers(0, 5)) == 0:
        data = [data]
    made = {"name": name, "shape": shape, "datatype": datatype, "data": data}
    if not right and draw(st.integers(0, 4)) == 0:
        made[draw(st.sampled_from(["name", "shape", "datatype", "data", "parameters"]))] = draw(odd)
    items = list(made.items())
    return dict(draw(st.permutations(items)))


@st.composite
def v2_bodies(draw: st.DrawFn) -> tuple[str, bytes]:
    which = draw(st.sampled_from(sorted(SPECS)))
    spec = SPECS[which]
    inputs = [draw(tensors(t.name, t.datatype)) for t in spec.inputs]
    if draw(st.integers(0, 7)) == 0:
        inputs = inputs[:-1] if draw(st.booleans()) else [*inputs, inputs[0]]
    document: dict[str, Any] = {"inputs": inputs}
    if draw(st.booleans()):
        document["id"] = draw(st.one_of(st.text(max_size=5), st.sampled_from([1, None, "x" * 300])))
    if draw(st.integers(0, 7)) == 0:
        document["parameters"] = draw(odd)
    return which, _text(draw, document)


@st.composite
def plain_bodies(draw: st.DrawFn) -> tuple[str, bytes]:
    which = draw(st.sampled_from(sorted(SPECS)))
    width = draw(st.integers(1, 3))
    right = draw(st.booleans())
    row = st.lists(
        numbers if right else elements, min_size=width, max_size=width if right else width + 1
    )
    rows: Any = draw(st.lists(row if right else st.one_of(row, row, odd), max_size=3))
    document: dict[str, Any] = draw(
        st.sampled_from([{"instances": rows}, {"inputs": {"x": rows}}, {"inputs": {"q": rows}}])
    )
    if draw(st.integers(0, 4)) == 0:
        document = {**document, "id": "a"}
    return which, _text(draw, document)


def _text(draw: st.DrawFn, document: Any) -> bytes:
    """Write JSON as clients do, or not quite."""
    text = json.dumps(
        document, separators=draw(st.sampled_from([(",", ":"), (", ", ": "), (" , ", "\n:")]))
    )
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, len(text)))
        text = (
            text[:at]
            + draw(st.sampled_from(["", ",", "[", "]", "1", '"', "e", " "]))
            + text[at + 1 :]
        )
    return text.encode()


def outcome(codec: Codec, body: bytes) -> Any:
    """What a codec makes of a body, in a form that can be compared."""
    try:
        return described(codec.decode(body, None))
    except ServingError as error:
        return error.kind, error.message, error.field, error.client_id


def described(call: Call) -> Any:
    arrays = {n: (a.dtype.str, a.shape, a.tobytes()) for n, a in call.inputs.arrays.items()}
    return arrays, list(arrays), call.inputs.rows, call.inputs.key, call.inputs.outputs, call.id


def careful(codec: Any) -> Codec:
    """Make a codec read the careful way alone."""
    codec._fast.read_v2 = codec._fast.read_plain = lambda _: None
    return codec  # type: ignore[no-any-return]


@settings(max_examples=150, deadline=None)
@given(st.lists(v2_bodies(), min_size=1, max_size=4))
def test_v2_bodies_are_read_alike(bodies: list[tuple[str, bytes]]) -> None:
    """The first and the second time, as what was seen before shortens the way."""
    codecs = {w: (V2Codec(s, IDENTITY), careful(V2Codec(s, IDENTITY))) for w, s in SPECS.items()}
    for which, body in [*bodies, *bodies]:
        fast, slow = codecs[which]
        assert outcome(fast, body) == outcome(slow, body)


@settings(max_examples=120, deadline=None)
@given(st.lists(plain_bodies(), min_size=1, max_size=4))
def test_plain_bodies_are_read_alike(bodies: list[tuple[str, bytes]]) -> None:
    """Rows and columns."""
    for which, body in bodies:
        spec = SPECS[which]
        fast, slow = PredictCodec(spec, IDENTITY), careful(PredictCodec(spec, IDENTITY))
        assert outcome(fast, body) == outcome(slow, body)


@settings(max_examples=120, deadline=None)
@given(
    st.lists(st.floats(-5, 5, width=32), min_size=3, max_size=3),
    st.lists(st.one_of(numbers, odd), min_size=2, max_size=4),
    st.sampled_from(["", " ", "]", "[1]", '"a"', "1,"]),
)
def test_a_remembered_frame_is_no_way_around_the_checks(
    first: list[float], second: list[Any], junk: str
) -> None:
    """World: a good request; event: another with the same frame and any numbers; world: as if it came alone."""
    spec = SPECS["floats"]
    fast, slow = V2Codec(spec, IDENTITY), careful(V2Codec(spec, IDENTITY))
    frame = '{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":%s%s}]}'
    fast.decode((frame % (json.dumps(first), "")).encode(), None)
    assert len(fast._fast._frames) == 1
    body = (frame % (json.dumps(second), junk)).encode()
    assert outcome(fast, body) == outcome(slow, body)


FRAME = '{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":%s}]}'
arrays = st.lists(st.floats(-5, 5, width=32), min_size=3, max_size=3).map(json.dumps)
wrong_arrays = st.one_of(
    st.lists(st.one_of(numbers, odd), min_size=2, max_size=4).map(json.dumps),
    # Texts that would fit together, were they not held to numbers one by one.
    st.sampled_from(
        ["[1,2,3", "1,2,3]", "[1,2]", '[1,"]', '["],["]', "[1,2,3],[4,5,6]", "[]", "[1,{]"]
    ),
    st.tuples(st.sampled_from(["[1,", "[", '[1,2,"', "[1,2,3e"]), arrays).map("".join),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(arrays, arrays, arrays, wrong_arrays), min_size=2, max_size=6))
def test_what_is_read_together_is_what_each_is_by_itself(texts: list[str]) -> None:
    """World: a known frame; event: several requests at once, some of them wrong; world: as if each came alone."""
    spec = SPECS["floats"]
    fast, slow = V2Codec(spec, IDENTITY), careful(V2Codec(spec, IDENTITY))
    bodies = [(FRAME % text).encode() for text in texts]
    fast.decode((FRAME % "[1,2,3]").encode(), None)
    together = fast.decode_together(bodies)
    for body, call in zip_longest(bodies, together):
        if call is not None:
            assert described(call) == outcome(slow, body)


@settings(max_examples=60, deadline=None)
@given(st.lists(v2_bodies(), min_size=2, max_size=5))
def test_bodies_of_any_kind_can_be_offered_to_be_read_together(
    bodies: list[tuple[str, bytes]],
) -> None:
    """Those that are not taken are left; those that are have the careful way's results."""
    for which, spec in SPECS.items():
        fast, slow = V2Codec(spec, IDENTITY), careful(V2Codec(spec, IDENTITY))
        mine = [body for name, body in bodies if name == which] * 2
        for body in mine:
            outcome(fast, body)
        for body, call in zip_longest(mine, fast.decode_together(mine)):
            if call is not None:
                assert described(call) == outcome(slow, body)


def test_common_bodies_are_read_together() -> None:
    """All of an equal few; the one with another frame is left, and one that is wrong leaves all to themselves."""
    codec = V2Codec(SPECS["floats"], IDENTITY)
    good = [(FRAME % f"[{n},2,3]").encode() for n in range(4)]
    other = good[0].replace(b"[1,3]", b"[1, 3]")
    codec.decode(good[0], None)
    read = codec.decode_together([*good, other])
    assert [None if c is None else c.inputs.arrays["x"].tolist() for c in read] == [
        *([[float(n), 2.0, 3.0]] for n in range(4)),
        None,
    ]
    assert not codec.decode_together([*good, (FRAME % '["1",2,3]').encode()])
    assert not codec.decode_together(good[:1])


@pytest.mark.parametrize("size", [8192, 8193, 20_000])
@pytest.mark.parametrize("odd_one", ["0", "1e36", "1e39", "-1e39", "1e400", '"1"', "null"])
def test_long_arrays_are_read_alike(size: int, odd_one: str) -> None:
    """Above a bound the numbers are held to 32 bits in another way."""
    spec = model_spec([tensor("x", "FP32", None, size)])
    fast, slow = V2Codec(spec, IDENTITY), careful(V2Codec(spec, IDENTITY))
    frame = '{"inputs":[{"name":"x","shape":[1,%d],"datatype":"FP32","data":[%s]}]}'
    numbers_ = ["1.5"] * size
    for _ in range(2):
        body = (frame % (size, ",".join(numbers_))).encode()
        assert outcome(fast, body) == outcome(slow, body)
        numbers_[size // 2] = odd_one


def test_common_bodies_do_take_the_fast_way() -> None:
    """Else the laws above would hold for nothing."""
    codec = V2Codec(SPECS["two inputs"], IDENTITY)
    body = {
        "id": "a",
        "inputs": [
            {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2.5]},
            {"name": "z", "shape": [1], "datatype": "INT64", "data": [3]},
        ],
    }
    read = codec._fast.read_v2(json.dumps(body).encode())
    assert read is not None
    np.testing.assert_array_equal(read[0].arrays["x"], np.array([[1, 2.5]], np.float32))
    plain = PredictCodec(SPECS["floats"], IDENTITY)._fast
    assert plain.read_plain(b'{"instances": [[1, 2, 3]]}') is not None
    assert plain.read_plain(b'{"inputs": {"x": [[1, 2, 3], [4, 5, 6]]}}') is not None
