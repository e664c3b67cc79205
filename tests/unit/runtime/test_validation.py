"""What fits a model and what does not, and how a refusal names the field."""

from typing import Any

import numpy as np
import pytest

from canarium_runtime.backends.base import DTYPES, TensorSpec
from canarium_runtime.errors import ErrorKind, ServingError
from canarium_runtime.testing import model_spec, tensor
from canarium_runtime.validation import RawTensor, to_array, validate

FP32 = tensor("x", "FP32", None, 2)


def raw(values: Any, shape: tuple[int, ...] | None = None) -> RawTensor:
    return RawTensor("inputs[0].data", values, shape)


@pytest.mark.parametrize(
    ("spec", "tensor_in", "expected"),
    [
        pytest.param(FP32, raw([1, 2.5, 3, 4], (2, 2)), [[1, 2.5], [3, 4]], id="flat with a shape"),
        pytest.param(
            FP32, raw([[1, 2.5], [3, 4]], (2, 2)), [[1, 2.5], [3, 4]], id="nested with a shape"
        ),
        pytest.param(FP32, raw([[1, 2.5], [3, 4]]), [[1, 2.5], [3, 4]], id="nested alone"),
        pytest.param(
            tensor("x", "INT8", None), raw([-128, 127]), [-128, 127], id="integers to the bounds"
        ),
        pytest.param(
            tensor("x", "UINT64", None), raw([2**64 - 1]), [2**64 - 1], id="the largest integer"
        ),
        pytest.param(tensor("x", "BOOL", None), raw([True, False]), [True, False], id="booleans"),
        pytest.param(
            tensor("x", "BYTES", None), raw(["a", "ü\u0000"]), ["a", "ü\u0000"], id="strings"
        ),
        pytest.param(
            tensor("x", "BF16", 2),
            raw([1.5, 3.39e38]),
            [1.5, 3.3895313892515355e38],
            id="brain floats",
        ),
        pytest.param(tensor("x", "FP16", 2), raw([1.5, 65504.0]), [1.5, 65504.0], id="half floats"),
        pytest.param(tensor("x", "FP64"), raw([3.5], ()), 3.5, id="a scalar"),
    ],
)
def test_values_that_fit_become_an_array(
    spec: TensorSpec, tensor_in: RawTensor, expected: Any
) -> None:
    """World: JSON values; world: an array of the model's datatype and the declared shape."""
    array = to_array(spec, tensor_in)
    assert array.dtype == DTYPES[spec.datatype]
    assert array.tolist() == expected


@pytest.mark.parametrize(
    ("spec", "tensor_in", "field", "expected", "got"),
    [
        pytest.param(
            FP32, raw([1, "1.5"], (1, 2)), "[1]", "a number (FP32)", 'a string "1.5"', id="a string"
        ),
        pytest.param(
            FP32, raw([1, True], (1, 2)), "[1]", "a number (FP32)", "a boolean true", id="a boolean"
        ),
        pytest.param(
            FP32, raw([[1, None]]), "[0][1]", "a number (FP32)", "null", id="null in nested arrays"
        ),
        pytest.param(
            FP32,
            raw([[1, 2], [3, {}]]),
            "[1][1]",
            "a number (FP32)",
            "an object of 0",
            id="an object",
        ),
        pytest.param(
            FP32, raw([[1, 2], [3]]), "[1]", "an array of 2", "an array of 1", id="ragged"
        ),
        pytest.param(
            FP32, raw([[1, 2], 3]), "[1]", "an array of 2", "a number 3", id="ragged in depth"
        ),
        pytest.param(
            FP32, raw([1, 2, 3], (1, 2)), "", "2 values for shape [1, 2]", "3 values", id="too many"
        ),
        pytest.param(
            FP32,
            raw([[1], [2]], (1, 2)),
            "",
            "values of shape [1, 2]",
            "shape [2, 1]",
            id="other nesting",
        ),
        pytest.param(
            FP32,
            raw([1e39, 1], (1, 2)),
            "[0]",
            "fits FP32",
            "a number 1e+39",
            id="too large a float",
        ),
        pytest.param(FP32, raw("abc"), "", "an array", 'a string "abc"', id="no array at all"),
        pytest.param(
            FP32,
            raw([1, 2]),
            "",
            "one row is an array in an array",
            "shape [2]",
            id="a row not nested",
        ),
        pytest.param(FP32, raw([]), "", "shape [-1, 2]", "shape [0]", id="empty"),
        pytest.param(FP32, raw([], (0, 2)), "", "at least one row", "shape [0, 2]", id="no rows"),
        pytest.param(
            tensor("x", "INT8", None),
            raw([1, 300]),
            "[1]",
            "fits INT8",
            "a number 300",
            id="overflow",
        ),
        pytest.param(
            tensor("x", "UINT8", None), raw([-1]), "[0]", "fits UINT8", "a number -1", id="negative"
        ),
        pytest.param(
            tensor("x", "INT64", None),
            raw([1.5]),
            "[0]",
            "an integer (INT64)",
            "1.5",
            id="a fraction",
        ),
        pytest.param(
            tensor("x", "BOOL", None),
            raw([1]),
            "[0]",
            "a boolean (BOOL)",
            "a number 1",
            id="0 or 1",
        ),
        pytest.param(
            tensor("x", "BYTES", None),
            raw([1]),
            "[0]",
            "a string (BYTES)",
            "a number 1",
            id="no string",
        ),
        pytest.param(
            tensor("x", "BF16", None),
            raw([1, 3.4e38]),
            "[1]",
            "fits BF16",
            "3.4e+38",
            id="brain overflow",
        ),
        pytest.param(
            tensor("x", "BF16", None),
            raw([3.3961775292304957e38]),
            "[0]",
            "fits BF16",
            "3.39617752923",
            id="brain overflow by rounding",
        ),
        pytest.param(
            tensor("x", "BF16", None),
            raw([1, 10**400]),
            "[1]",
            "fits BF16",
            "1000",
            id="brain overflow beyond floats",
        ),
        pytest.param(
            tensor("x", "BF16", None),
            raw(["1"]),
            "[0]",
            "a number (BF16)",
            'a string "1"',
            id="no brain float",
        ),
        pytest.param(
            tensor("x", "FP16", None),
            raw([70000.0]),
            "[0]",
            "fits FP16",
            "70000.0",
            id="half overflow",
        ),
    ],
)
def test_values_that_do_not_fit_are_refused_by_their_path(
    spec: TensorSpec, tensor_in: RawTensor, field: str, expected: str, got: str
) -> None:
    """World: JSON values; world: a refusal with the path, what was expected and what came."""
    with pytest.raises(ServingError) as caught:
        to_array(spec, tensor_in)
    error = caught.value
    assert error.kind is ErrorKind.INVALID
    assert error.field == "inputs[0].data" + field
    assert expected in str(error.expected)
    assert got in str(error.got)


def test_a_wrong_declared_shape_is_blamed_on_the_shape() -> None:
    """The path of a shape that the client wrote is that of the shape, not of the data."""
    with pytest.raises(ServingError, match=r"inputs\[0\]\.shape: expected shape \[-1, 2\]"):
        to_array(FP32, raw([1, 2, 3], (1, 3)))


def test_too_deep_nesting_is_refused() -> None:
    """Nesting has a bound, so that a small body cannot cost much."""
    values: Any = [1]
    for _ in range(40):
        values = [values]
    with pytest.raises(ServingError, match="at most 32 dimensions"):
        to_array(FP32, raw(values))


TWO = model_spec([tensor("a", "FP32", "N", "S"), tensor("b", "FP32", "N", "S")])


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        pytest.param({"a": raw([[1]])}, "the input 'b'", id="one is missing"),
        pytest.param(
            {"a": raw([[1]]), "c": raw([[1]])}, "the input 'b'", id="one has another name"
        ),
        pytest.param({n: raw([[1]]) for n in "abc"}, r"also \['c'\]", id="one too many"),
        pytest.param(
            {"a": raw([[1]]), "b": raw([[1], [2]])},
            r"1 in axis 0 \(rows\)",
            id="other numbers of rows",
        ),
        pytest.param(
            {"a": raw([[1, 2]]), "b": raw([[1]])},
            r"2 in axis 1 \(S\)",
            id="other sizes of one name",
        ),
    ],
)
def test_inputs_must_agree_with_the_model_and_each_other(
    tensors: dict[str, RawTensor], message: str
) -> None:
    """World: a model with two inputs; event: inputs; world: a refusal."""
    with pytest.raises(ServingError, match=message):
        validate(TWO, tensors, None)


def test_a_name_that_occurs_twice_in_one_input_ties_its_axes() -> None:
    """A square is a square, also when it is the only input."""
    spec = model_spec([tensor("x", "FP32", "N", "S", "S")])
    assert validate(spec, {"x": raw([[[1, 2], [3, 4]]])}, None).rows == 1
    with pytest.raises(ServingError, match=r"2 in axis 2 \(S\)|1 in axis 2 \(S\)"):
        validate(spec, {"x": raw([[[1, 2]]])}, None)


def test_equal_keys_mean_that_requests_can_share_a_run() -> None:
    """Trailing shapes and wanted outputs make the key; rows do not."""
    spec = model_spec(
        [tensor("x", "FP32", None, None)], [tensor("y", "FP32", None), tensor("z", "FP32", None)]
    )
    first = validate(spec, {"x": raw([[1, 2]])}, None)
    assert first.rows == 1
    assert first.key == validate(spec, {"x": raw([[1, 2], [3, 4]])}, None).key
    assert first.key != validate(spec, {"x": raw([[1]])}, None).key
    assert first.key != validate(spec, {"x": raw([[1, 2]])}, ["y"]).key


def test_without_a_batch_axis_a_request_is_one_row() -> None:
    """The first axis of a model that cannot be batched is not a number of rows."""
    spec = model_spec([tensor("x", "FP32", 3)], [tensor("y", "FP32")], batchable=False)
    assert validate(spec, {"x": raw([1, 2, 3])}, None).rows == 1


@pytest.mark.parametrize("datatype", sorted(DTYPES))
def test_every_datatype_has_an_array(datatype: str) -> None:
    """Each datatype of the protocol can be sent."""
    value: Any = {"BOOL": True, "BYTES": "s"}.get(datatype, 1)
    array = to_array(tensor("x", datatype, 1), raw([value]))
    assert array.dtype == DTYPES[datatype]
    np.testing.assert_array_equal(array, np.array([value], array.dtype))
