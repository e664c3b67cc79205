"""From decoded JSON to arrays that fit the model, or an error that names the field.

Everything is as strict as numpy is lenient: `"1.5"`, `true`, `null` and 1.5 for an integer would all be converted
without a word. The checks run over whole lists in C (`set(map(type, ...))`), and the one wrong element is only looked
for when there is one.
"""

import math
import struct
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NoReturn, Protocol, cast

import numpy as np

from canarium_runtime.backends.base import DTYPES, FLOATING, Array, ModelSpec, TensorSpec
from canarium_runtime.errors import ErrorKind, ServingError, invalid
from canarium_runtime.notes import NO_NOTES, Note, Notes

_MAX_DIMENSIONS = 32
ONE_THREAD = 8192
"""For longer vectors OpenBLAS's dot product wakes threads, which then spin on all cores (from 10,000 elements on)."""
_MAX_SHOWN = 40
_NUMBER = frozenset({int, float})
_ACCEPTED: dict[str, frozenset[type]] = {
    name: frozenset({bool})
    if name == "BOOL"
    else frozenset({str})
    if name == "BYTES"
    else _NUMBER
    if name in FLOATING
    else frozenset({int})
    for name in DTYPES
}
_PACKED = {"FP16": "e", "FP32": "f"}
"""Formats of the `struct` module, of standard size, which alone refuses what overflows. JSON's numbers are 64-bit
floats, so these two can."""
_FAR_TOO_LARGE = 1e300
"""JSON's integers have no bound, floats have."""
_KINDS = {
    dict: "an object",
    list: "an array",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    type(None): "null",
}


@dataclass(slots=True)
class ValidatedInputs:
    """Arrays that the backend can run; not to be changed. (Frozen ones take a microsecond longer to make.)"""

    arrays: dict[str, Array]
    rows: int
    """Rows in the first axis; 1 for a model that cannot be batched."""
    key: Hashable
    """Requests with equal keys may share a run."""
    outputs: Sequence[str]
    """Names of the wanted outputs."""
    notes: Notes = NO_NOTES
    """What the answer tells about how they were read."""
    finite: bool = False
    """Known to hold no NaN and no infinity, as JSON has none."""


class Converter(Protocol):
    """Takes JSON values of another type than the model's, where the rules of validation allow it."""

    def read(
        self, spec: TensorSpec, flat: list[Any], shape: tuple[int, ...], notes: list[Note]
    ) -> list[Any]:
        """Give the values with those converted that can be; each conversion may leave a note."""
        ...


@dataclass(frozen=True, slots=True)
class RawTensor:
    """One input as the client sent it."""

    field: str
    """Path of the values, such as `inputs[0].data`."""
    values: Any
    """Nested lists, or one flat list when `shape` is given; or an array of that shape, from binary data."""
    shape: tuple[int, ...] | None = None
    """Declared shape; None: that of the nesting."""


def describe(value: Any) -> str:
    """Say what a JSON value is, shortened: `a string "abc"`, `an array of 3`."""
    kind = _KINDS.get(type(value), "a value")
    if value is None:
        return kind
    if isinstance(value, (dict, list)):
        return f"{kind} of {len(value)}"
    text = (
        f'"{value}"'
        if isinstance(value, str)
        else str(value).lower()
        if isinstance(value, bool)
        else repr(value)
    )
    return f"{kind} {text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + '...'}"


def validate(
    model: ModelSpec,
    tensors: dict[str, RawTensor],
    outputs: Sequence[str] | None,
    converter: Converter | None = None,
) -> ValidatedInputs:
    """Check a request against the model's specs.

    Args:
        model: what the model takes and gives.
        tensors: inputs by name.
        outputs: names of the wanted outputs, already known to exist; None: all.
        converter: is asked before a value is refused for its JSON type; None: such values are refused.

    Raises:
        ServingError: INVALID, with the field's path, what was expected and what came.
    """
    if len(tensors) != len(model.inputs):
        _refuse_names(model, tensors)
    arrays: dict[str, Array] = {}
    notes: list[Note] = []
    for spec in model.inputs:
        tensor = tensors.get(spec.name)
        if tensor is None:
            _refuse_names(model, tensors)
        arrays[spec.name] = to_array(spec, tensor, converter, notes)
    if model.has_tied_axes:
        _check_sizes(model, tensors, arrays)
    rows = arrays[model.inputs[0].name].shape[0] if model.batchable else 1
    names = model.output_names if outputs is None else tuple(outputs)
    key = (names, *[a.shape[1:] for a in arrays.values()])
    return ValidatedInputs(arrays, rows, key, names, tuple(notes))


def _refuse_names(model: ModelSpec, tensors: dict[str, RawTensor]) -> NoReturn:
    known = [s.name for s in model.inputs]
    for name in known:
        if name not in tensors:
            raise invalid("inputs", f"the input {name!r}", f"the inputs {sorted(tensors)}")
    extra = sorted(set(tensors) - set(known))
    raise invalid("inputs", f"only the model's inputs {known}", f"also {extra}")


def _check_sizes(model: ModelSpec, tensors: dict[str, RawTensor], arrays: dict[str, Array]) -> None:
    """Hold every input to the same number of rows, and equal names of dimensions to equal sizes."""
    for found in _mismatches(model, arrays):
        raise invalid(
            tensors[found.input].field,
            f"{found.wanted} in axis {found.axis} ({found.name}), as input {found.other!r} has",
            str(found.size),
        )


def sizes_agree(model: ModelSpec, arrays: dict[str, Array]) -> bool:
    """Whether all inputs have the same number of rows, and dimensions of the same name the same size."""
    return not model.has_tied_axes or next(_mismatches(model, arrays), None) is None


@dataclass(frozen=True, slots=True)
class _Mismatch:
    """An axis of one input whose size is not that of another input's."""

    input: str
    axis: int
    name: str
    size: int
    wanted: int
    other: str


def _mismatches(model: ModelSpec, arrays: dict[str, Array]) -> Iterator[_Mismatch]:
    seen: dict[str, tuple[int, str]] = {}
    for spec in model.inputs:
        array = arrays[spec.name]
        for axis, dimension in enumerate(spec.shape):
            name = "rows" if axis == 0 and model.batchable else dimension
            if not isinstance(name, str):
                continue
            wanted, other = seen.setdefault(name, (array.shape[axis], spec.name))
            if array.shape[axis] != wanted:
                yield _Mismatch(spec.name, axis, name, array.shape[axis], wanted, other)


def to_array(
    spec: TensorSpec,
    tensor: RawTensor,
    converter: Converter | None = None,
    notes: list[Note] | None = None,
) -> Array:
    """Make the array of one input.

    Args:
        spec: of the input.
        tensor: as it was sent.
        converter: see `validate`.
        notes: gets what the converter has to say.

    Raises:
        ServingError: INVALID.
    """
    values = tensor.values
    if isinstance(values, np.ndarray):
        _check_shape(spec, tensor, values.shape)
        return values
    if type(values) is not list:
        raise invalid(tensor.field, "an array", describe(values))
    flat, nested = _flatten(tensor.field, values)
    shape = tensor.shape
    if shape is None:
        shape = nested
    elif len(nested) > 1 and nested != shape:
        raise invalid(
            tensor.field, f"values of shape {list(shape)}", f"nested arrays of shape {list(nested)}"
        )
    elif math.prod(shape) != len(flat):
        raise invalid(
            tensor.field,
            f"{math.prod(shape)} values for shape {list(shape)}",
            f"{len(flat)} values",
        )
    _check_shape(spec, tensor, shape)
    accepted = _ACCEPTED[spec.datatype]
    fits = accepted.issuperset(map(type, flat))
    if not fits and converter is not None:
        flat = converter.read(spec, flat, shape, [] if notes is None else notes)
        fits = accepted.issuperset(map(type, flat))
    if not fits:
        raise _wrong_element(spec, tensor, nested, flat, accepted)
    return _convert(spec, tensor, nested, flat).reshape(shape)


def _flatten(field: str, values: list[Any]) -> tuple[list[Any], tuple[int, ...]]:
    """Undo nesting: the elements in row-major order, and the shape. Ragged arrays are refused."""
    shape = [len(values)]
    level = values
    while level and type(level[0]) is list:
        if len(shape) == _MAX_DIMENSIONS:
            raise invalid(field, f"at most {_MAX_DIMENSIONS} dimensions", "more")
        size = len(level[0])
        if set(map(type, level)) != {list} or set(map(len, level)) != {size}:
            at = next(i for i, v in enumerate(level) if type(v) is not list or len(v) != size)
            expected = f"an array of {size}, like its neighbours"
            raise invalid(field + _path(at, shape), expected, describe(level[at]))
        level = list(chain.from_iterable(level))
        shape.append(size)
    return level, tuple(shape)


def _path(index: int, shape: Sequence[int]) -> str:
    """Write a row-major index as the path in nested arrays: 5 in [2, 3] is `[1][2]`."""
    steps: list[int] = []
    for size in reversed(shape):
        index, step = divmod(index, size)
        steps.append(step)
    return "".join(f"[{s}]" for s in reversed(steps))


def _check_shape(spec: TensorSpec, tensor: RawTensor, shape: tuple[int, ...]) -> None:
    expected = spec.shape
    fits = len(shape) == len(expected)
    if fits:
        for size, wanted in zip(shape, expected, strict=True):
            if size != wanted and isinstance(wanted, int):
                fits = False
    if not fits:
        field = (
            tensor.field if tensor.shape is None else tensor.field.removesuffix("data") + "shape"
        )
        hint = ""
        if len(shape) == len(expected) - 1:
            hint = " (one row is an array in an array)"
        raise invalid(
            field, f"shape {spec.wire_shape} for input {spec.name!r}{hint}", f"shape {list(shape)}"
        )
    if expected and 0 in shape:
        raise invalid(tensor.field, "at least one row and one value", f"shape {list(shape)}")


def _wrong_element(
    spec: TensorSpec,
    tensor: RawTensor,
    nested: tuple[int, ...],
    flat: list[Any],
    accepted: frozenset[type],
) -> ServingError:
    at = next(i for i, v in enumerate(flat) if type(v) not in accepted)
    return invalid(
        tensor.field + _path(at, nested),
        f"{_wanted(spec.datatype)} ({spec.datatype})",
        describe(flat[at]),
    )


def _wanted(datatype: str) -> str:
    if datatype == "BOOL":
        return "a boolean"
    if datatype == "BYTES":
        return "a string"
    return "a number" if datatype in FLOATING else "an integer"


def _convert(
    spec: TensorSpec, tensor: RawTensor, nested: tuple[int, ...], flat: list[Any]
) -> Array:
    """Make a flat array; a number that the datatype cannot hold is refused rather than wrapped or made infinite."""
    dtype = DTYPES[spec.datatype]
    try:
        if packed := _PACKED.get(spec.datatype):
            # Refuses what numpy would make infinite, and is quicker.
            return np.frombuffer(struct.pack(f"={len(flat)}{packed}", *flat), dtype)
        if spec.datatype != "BF16":
            return np.array(flat, dtype)
        array = np.array(flat, np.float64).astype(dtype)
        if np.isfinite(array).all():  # what overflows is an infinity to it
            return array
    except OverflowError:
        pass
    at = next(i for i, v in enumerate(flat) if not _fits(dtype, v))
    raise invalid(
        tensor.field + _path(at, nested), f"a number that fits {spec.datatype}", describe(flat[at])
    )


def _fits(dtype: np.dtype[Any], value: Any) -> bool:
    if dtype == DTYPES["BF16"]:
        return abs(value) < _FAR_TOO_LARGE and bool(np.isfinite(np.array(float(value), dtype)))
    if dtype.kind == "f":
        return bool(abs(value) <= float(np.finfo(dtype).max))
    info = np.iinfo(cast("Any", dtype))
    return bool(info.min <= value <= info.max)


def malformed(field: str, expected: str, value: Any) -> ServingError:
    """Make the error for a request that is not the protocol's shape."""
    return invalid(field, expected, describe(value), kind=ErrorKind.MALFORMED)
