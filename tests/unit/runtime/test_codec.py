"""The bodies of both protocols: what is not their shape is refused with a path, and what is comes through."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pytest

from canarium_runtime.backends.base import DTYPES
from canarium_runtime.batching.merge import Outputs, Run
from canarium_runtime.errors import ErrorKind, ServingError
from canarium_runtime.rest.codec import Call, Identity, MakeCodec
from canarium_runtime.rest.plain import PredictCodec
from canarium_runtime.rest.v2 import V2Codec
from canarium_runtime.testing import model_spec, tensor
from canarium_runtime.validation import ValidatedInputs

SPEC = model_spec(
    [tensor("x", "FP32", None, 2), tensor("t", "BYTES", None)],
    [tensor("y", "FP32", None), tensor("label", "BYTES", None), tensor("m", "FP32", None, 2)],
)
ONE = model_spec()
IDENTITY = Identity("fraud", "7", "r1")
X = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}


BOMBS = {
    "depth": b"[" * 1_000_000 + b"]" * 1_000_000,
    "depth of objects": b'{"a":' * 500_000 + b"1" + b"}" * 500_000,
    "an infinite number": b"1e999",
    "a number of a million digits": b"1" * 1_000_000,
    "NaN": b"NaN",
    "Infinity": b"-Infinity",
    "a surrogate alone": b'"\\ud800"',
    "no UTF-8": b'"\xff"',
    "a control character": b'"\x00"',
}


@pytest.mark.parametrize("codec", [V2Codec, PredictCodec])
@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_bodies_made_to_hurt_are_refused_as_no_json(codec: MakeCodec, bomb: bytes) -> None:
    """World: JSON too deep, or with a number that none can hold; event: decoded; world: 400, and nothing was built."""
    with pytest.raises(ServingError) as caught:
        codec(ONE, IDENTITY).decode(b'{"inputs": %b}' % bomb, None)
    assert caught.value.kind is ErrorKind.MALFORMED
    assert "not valid JSON" in caught.value.message


@pytest.mark.parametrize(
    ("codec", "body", "kind", "message"),
    [
        pytest.param(V2Codec, b"{", ErrorKind.MALFORMED, "not valid JSON", id="not JSON"),
        pytest.param(
            V2Codec,
            b"[]",
            ErrorKind.MALFORMED,
            "body: expected an object, got an array of 0",
            id="list",
        ),
        pytest.param(
            V2Codec,
            {},
            ErrorKind.MALFORMED,
            "inputs: expected an array of tensors, got null",
            id="none",
        ),
        pytest.param(
            V2Codec,
            {"inputs": [1]},
            ErrorKind.MALFORMED,
            r"inputs\[0\]: expected an object",
            id="number",
        ),
        pytest.param(
            V2Codec,
            {"inputs": [{}]},
            ErrorKind.MALFORMED,
            r"inputs\[0\].name: expected a string",
            id="no name",
        ),
        pytest.param(
            V2Codec,
            {"inputs": [X | {"name": "q"}]},
            ErrorKind.INVALID,
            r"inputs\[0\].name: expected one of \['x', 't'\], got a string \"q\"",
            id="unknown name",
        ),
        pytest.param(
            V2Codec,
            {"inputs": [X, X]},
            ErrorKind.INVALID,
            r"inputs\[1\].name: .*once",
            id="twice",
        ),
        pytest.param(
            V2Codec,
            {"inputs": [X | {"datatype": "FP64"}]},
            ErrorKind.INVALID,
            r"inputs\[0\].datatype: expected FP32, got FP64",
            id="another datatype",
        ),
        pytest.param(
            V2Codec,
            {"inputs": [X | {"datatype": "F"}]},
            ErrorKind.MALFORMED,
            "expected one of BOOL",
            id="no datatype",
        ),
        pytest.param(
            V2Codec,
            {"inputs": [X | {"datatype": 1}]},
            ErrorKind.MALFORMED,
            "a datatype's name",
            id="type",
        ),
        pytest.param(
            V2Codec,
            {"inputs": [X | {"shape": [True, 2]}]},
            ErrorKind.MALFORMED,
            "an array of sizes",
            id="shape",
        ),
        pytest.param(
            V2Codec,
            {"inputs": [X | {"shape": [-1, 2]}]},
            ErrorKind.MALFORMED,
            "an array of sizes",
            id="minus one",
        ),
        pytest.param(
            V2Codec,
            {"inputs": [{k: v for k, v in X.items() if k != "data"}]},
            ErrorKind.MALFORMED,
            r"inputs\[0\].data: expected an array, got null",
            id="no data",
        ),
        pytest.param(
            V2Codec,
            {"inputs": [X], "outputs": [{"name": "q"}]},
            ErrorKind.INVALID,
            r"outputs\[0\].name",
            id="output",
        ),
        pytest.param(
            V2Codec,
            {"inputs": [X], "outputs": [1]},
            ErrorKind.MALFORMED,
            r"outputs\[0\]",
            id="output type",
        ),
        pytest.param(
            V2Codec,
            {"inputs": [X], "outputs": [{"name": "y", "parameters": 3}]},
            ErrorKind.MALFORMED,
            r"outputs\[0\].parameters",
            id="output parameters",
        ),
        pytest.param(
            V2Codec,
            {"inputs": [X], "outputs": 1},
            ErrorKind.MALFORMED,
            "outputs: expected",
            id="outputs",
        ),
        pytest.param(
            V2Codec,
            {"inputs": [X], "outputs": [{"name": "y", "parameters": {"binary_data": 1}}]},
            ErrorKind.MALFORMED,
            r"outputs\[0\].parameters.binary_data: expected a boolean",
            id="binary output",
        ),
        pytest.param(
            V2Codec,
            {
                "inputs": [
                    {k: v for k, v in X.items() if k != "data"}
                    | {"parameters": {"binary_data_size": 8}}
                ]
            },
            ErrorKind.MALFORMED,
            r"inputs\[0\].data: binary data needs the header",
            id="binary without its header",
        ),
        pytest.param(
            V2Codec,
            {"inputs": [X], "id": 3},
            ErrorKind.MALFORMED,
            "id: expected a string",
            id="id",
        ),
        pytest.param(
            PredictCodec, {}, ErrorKind.MALFORMED, 'either "inputs" or "instances"', id="neither"
        ),
        pytest.param(
            PredictCodec,
            {"inputs": {}, "instances": []},
            ErrorKind.MALFORMED,
            "either",
            id="both",
        ),
        pytest.param(
            PredictCodec,
            {"inputs": []},
            ErrorKind.MALFORMED,
            "inputs: expected an object",
            id="no names",
        ),
        pytest.param(
            PredictCodec,
            {"instances": []},
            ErrorKind.MALFORMED,
            "at least one row",
            id="no instance",
        ),
        pytest.param(
            PredictCodec,
            {"instances": [[1, 2]]},
            ErrorKind.INVALID,
            r"instances\[0\]: .*\['x', 't'\]",
            id="no object",
        ),
        pytest.param(
            PredictCodec,
            {"instances": [{"x": [1, 2], "t": "a"}, {"x": [1, 2]}]},
            ErrorKind.INVALID,
            r"instances\[1\]: expected an object with \['t', 'x'\], like the first, got an object with \['x'\]",
            id="instances differ",
        ),
    ],
)
def test_a_body_of_another_shape_is_refused(
    codec: MakeCodec, body: Any, kind: ErrorKind, message: str
) -> None:
    """World: a body; world: the kind of refusal and the path in its message."""
    with pytest.raises(ServingError, match=message) as caught:
        codec(SPEC, IDENTITY).decode(body if isinstance(body, bytes) else orjson.dumps(body), None)
    assert caught.value.kind is kind


def test_a_v2_request_comes_through() -> None:
    """Tensors, wanted outputs and id are read."""
    text = {"name": "t", "shape": [1], "datatype": "BYTES", "data": ["a"]}
    call = V2Codec(SPEC, IDENTITY).decode(
        orjson.dumps({"id": "a", "inputs": [X, text], "outputs": [{"name": "label"}]}), None
    )
    assert call.inputs.arrays["x"].tolist() == [[1, 2]]
    assert call.inputs.arrays["t"].tolist() == ["a"]
    assert (call.inputs.outputs, call.id) == (("label",), "a")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param({"inputs": {"x": [[1, 2]]}}, [[1, 2]], id="by name"),
        pytest.param({"inputs": {"x": [[1, 2]]}, "id": "a"}, [[1, 2]], id="by name, with an id"),
        pytest.param(
            {"instances": [[1, 2], [3, 4]]}, [[1, 2], [3, 4]], id="rows of the only input"
        ),
        pytest.param(
            {"instances": [{"x": [1, 2]}, {"x": [3, 4]}]}, [[1, 2], [3, 4]], id="rows as objects"
        ),
    ],
)
def test_a_simple_request_comes_through(body: Any, expected: list[list[float]]) -> None:
    """All three ways to write the same inputs."""
    call = PredictCodec(ONE, IDENTITY).decode(orjson.dumps(body), None)
    assert {n: a.tolist() for n, a in call.inputs.arrays.items()} == {"x": expected}
    assert call.id == body.get("id")


ARRAYS = [
    np.array([1.5, np.nan], np.float32),
    np.array(["a", "b"], object),
    np.arange(4, dtype=np.float32).reshape(2, 2).T,
]


def call_for(outputs: Sequence[str], binary: Sequence[str] = ()) -> Call:
    """A decoded request for these outputs."""
    return Call(ValidatedInputs({}, 1, (), outputs), binary=binary)


def test_a_v2_answer_is_flat_with_shapes() -> None:
    """Outputs in row-major order whatever their memory order; NaN, which JSON lacks, is null."""
    answer = orjson.loads(
        V2Codec(SPEC, IDENTITY).encode(call_for(SPEC.output_names), Outputs(Run(ARRAYS)), "id1")[0]
    )
    assert answer == {
        "model_name": "fraud",
        "model_version": "7",
        "id": "id1",
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [2], "data": [1.5, None]},
            {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]},
            {"name": "m", "datatype": "FP32", "shape": [2, 2], "data": [0.0, 2.0, 1.0, 3.0]},
        ],
    }


def test_a_simple_answer_is_nested_by_name() -> None:
    """Outputs by name, and what answered."""
    answer = orjson.loads(
        PredictCodec(SPEC, IDENTITY).encode(
            call_for(SPEC.output_names), Outputs(Run(ARRAYS)), "id1"
        )[0]
    )
    assert answer == {
        "outputs": {"y": [1.5, None], "label": ["a", "b"], "m": [[0.0, 2.0], [1.0, 3.0]]},
        "model_name": "fraud",
        "model_version": "7",
        "revision": "r1",
        "id": "id1",
    }


@pytest.mark.parametrize(("value", "expected"), [(2.5, 2.5), (np.nan, None)])
def test_a_scalar_output_is_written(value: float, expected: float | None) -> None:
    """A model without axes has an answer too."""
    spec = model_spec(outputs=[tensor("y", "FP32")], batchable=False)
    array = np.array(value, np.float32)
    call = call_for(["y"])
    plain, _ = PredictCodec(spec, IDENTITY).encode(call, Outputs(Run([array])), "")
    assert orjson.loads(plain)["outputs"] == {"y": expected}
    v2, _ = V2Codec(spec, IDENTITY).encode(call, Outputs(Run([array])), "")
    assert orjson.loads(v2)["outputs"][0]["data"] == [expected]


def test_brain_floats_are_written_as_numbers() -> None:
    """JSON has no 16-bit floats, so they are written as what they are."""
    spec = model_spec(outputs=[tensor("y", "BF16", None)])
    array = np.array([1.5, -0.25, np.nan], DTYPES["BF16"])
    for make in (V2Codec, PredictCodec):
        text, _ = make(spec, IDENTITY).encode(call_for(["y"]), Outputs(Run([array])), "")
        outputs = orjson.loads(text)["outputs"]
        written = outputs["y"] if isinstance(outputs, dict) else outputs[0]["data"]
        assert written == [1.5, -0.25, None]


def binary_request(rows: Any, *, want_binary: bool = True, **more: Any) -> tuple[bytes, int]:
    """A V2 request for ONE with binary data: the body and how much of it is JSON."""
    blob = np.asarray(rows, "<f4").tobytes()
    shape = list(np.shape(rows))
    tensor_ = {"name": "x", "shape": shape, "datatype": "FP32"}
    tensor_["parameters"] = {"binary_data_size": len(blob)}
    document = {"inputs": [tensor_], "parameters": {"binary_data_output": want_binary}, **more}
    head = orjson.dumps(document)
    return head + blob, len(head)


def test_a_binary_request_is_read_alike_the_second_time() -> None:
    """What its head says is remembered; its numbers are not."""
    codec = V2Codec(ONE, IDENTITY)
    first = codec.decode(*binary_request([[1, 2]]))
    second = codec.decode(*binary_request([[3, 4]]))
    assert len(codec._frames._frames) == 1
    assert first.inputs.arrays["x"].tolist() == [[1, 2]]
    assert second.inputs.arrays["x"].tolist() == [[3, 4]]
    assert (second.inputs.rows, second.inputs.key) == (first.inputs.rows, first.inputs.key)
    assert list(second.binary) == list(first.binary) == ["y"]


@pytest.mark.parametrize("cut", [-1, -4, 1])
def test_a_known_head_with_other_bytes_is_read_the_careful_way(cut: int) -> None:
    """Too few or too many: refused, as without the memory."""
    codec = V2Codec(ONE, IDENTITY)
    body, size = binary_request([[1, 2]])
    codec.decode(body, size)
    with pytest.raises(ServingError) as caught:
        codec.decode(body[:cut] if cut < 0 else body + b"x", size)
    assert caught.value.kind is ErrorKind.MALFORMED


def test_what_is_remembered_is_bounded() -> None:
    """In number and in bytes: a client cannot fill the memory with heads."""
    codec = V2Codec(ONE, IDENTITY)
    for number in range(200):
        codec.decode(*binary_request([[1, 2]], extra=str(number)))
        codec.decode(
            b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}]%b}'
            % (b" " * number),
            None,
        )
    assert len(codec._frames._frames) <= 64
    assert len(codec._fast._frames) <= 64
    for padding in (5000, 6000):
        codec = V2Codec(ONE, IDENTITY)
        codec.decode(*binary_request([[1, 2]], extra="x" * padding))
        codec.decode(
            b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}]%b}'
            % (b" " * padding),
            None,
        )
        assert (len(codec._frames._frames), len(codec._fast._frames)) == (0, 0)


def test_a_binary_answer_says_how_long_each_output_is() -> None:
    """JSON first, then the bytes in its order; BYTES with their lengths."""
    codec = V2Codec(SPEC, IDENTITY)
    for _ in range(2):
        body, size = codec.encode(
            call_for(SPEC.output_names, SPEC.output_names), Outputs(Run(ARRAYS)), "id1"
        )
        assert size is not None
        document = orjson.loads(body[:size])
        sizes = [o["parameters"]["binary_data_size"] for o in document["outputs"]]
        assert (document["id"], sizes, sum(sizes)) == ("id1", [8, 10, 16], len(body) - size)
        assert body[size + 8 : size + 18] == b"\x01\0\0\0a\x01\0\0\0b"
        assert np.frombuffer(body[size + 18 :], "<f4").tolist() == [0, 2, 1, 3]


def test_binary_and_json_outputs_can_be_mixed() -> None:
    """Each as it was asked for."""
    codec = V2Codec(SPEC, IDENTITY)
    body, size = codec.encode(call_for(SPEC.output_names, ["y"]), Outputs(Run(ARRAYS)), "id1")
    assert size is not None
    first, second, third = orjson.loads(body[:size])["outputs"]
    assert (first["parameters"], second["data"]) == ({"binary_data_size": 8}, ["a", "b"])
    assert third["data"] == [0.0, 2.0, 1.0, 3.0]
    assert len(body) == size + 8


def test_a_huge_shape_of_strings_takes_no_memory() -> None:
    """Refused by what the bytes can hold, before anything is made for them."""
    one = {
        "name": "t",
        "shape": [10**12],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": 5},
    }
    head = orjson.dumps({"inputs": [X, one]})
    with pytest.raises(ServingError, match=r"1000000000000 strings.*only 5 bytes") as caught:
        V2Codec(SPEC, IDENTITY).decode(head + b"\x01\0\0\0a", len(head))
    assert caught.value.kind is ErrorKind.INVALID


WHOLE_RUNS = {
    "numbers": ["FP32", np.array([1.5, np.nan, -0.0], np.float32)],
    "rows of numbers": ["FP64", np.arange(6.0).reshape(3, 2)],
    "in another order": ["FP32", np.asfortranarray(np.arange(6, dtype=np.float32).reshape(3, 2))],
    "matrices": ["INT64", np.arange(12).reshape(3, 2, 2)],
    "nothing": ["FP32", np.empty((3, 0), np.float32)],
    "texts": ["BYTES", np.array(["a", "bcd", ""], object)],
    "brain floats": ["BF16", np.array([1.5, -0.25, 3], DTYPES["BF16"])],
    "large rows": ["FP32", np.arange(6000, dtype=np.float32).reshape(3, 2000)],
}


@pytest.mark.parametrize("binary", [[], ["y"], ["y", "z"]], ids=["JSON", "mixed", "binary"])
@pytest.mark.parametrize("kind", WHOLE_RUNS)
def test_a_row_of_a_shared_run_is_written_as_if_it_had_run_alone(
    kind: str, binary: list[str]
) -> None:
    """Writing all rows at once is another way to the same bytes, whoever asks first and second."""
    datatype, array = WHOLE_RUNS[kind]
    labels = np.array([7, 8, 9])
    spec = model_spec(
        outputs=[
            tensor("y", datatype, None, *[None] * (array.ndim - 1)),
            tensor("z", "INT64", None),
        ]
    )
    codec = V2Codec(spec, IDENTITY)
    run = Run([array, labels])
    for row in (0, 2, 1, 1):
        call = call_for(("y", "z"), binary)
        shared = codec.encode(call, Outputs(run, row, row + 1), f"id{row}")
        alone = Outputs(Run([array[row : row + 1], labels[row : row + 1]]))
        assert shared == codec.encode(call, alone, f"id{row}")
