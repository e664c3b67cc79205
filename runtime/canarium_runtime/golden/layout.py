"""Which columns of a table are the model's inputs, and how their cells become its arrays."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from canarium_api.golden import Thresholds
from canarium_runtime.backends.base import DTYPES, Array, ModelSpec, TensorSpec, is_floating
from canarium_runtime.golden.table import Chunk, DataError, Table

LABELS: Final = ("label", "target", "y")
"""Names that a column of right answers has by custom."""
_LISTED: Final = 12
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Columns by what they are for."""

    label: str | None
    """Column of the right answer; None: the table has none."""
    inputs: dict[str, tuple[str, ...]]
    """Columns of each input of the model; a single column may hold lists."""

    @property
    def features(self) -> tuple[str, ...]:
        """All columns that the model gets."""
        return tuple(column for columns in self.inputs.values() for column in columns)


def make_layout(
    table: Table, spec: ModelSpec, wishes: Thresholds, *, labelled: bool = True
) -> Layout:
    """Fit the columns of a table to a model.

    Args:
        table: of golden data, or of a reference.
        spec: of the model.
        wishes: names label and features, where custom does not tell.
        labelled: the right answers must be there.

    Raises:
        DataError: they do not fit; names the columns and the remedy.
    """
    label = _label(table, wishes, labelled=labelled)
    for name in (*wishes.features, *wishes.ignore):
        if name not in table.columns and (labelled or name in wishes.features):
            raise DataError(f"{table.name}: has no column {name!r}; it has {_some(table.columns)}")
    if len(spec.inputs) == 1:
        return Layout(label=label, inputs=_one_input(table, spec.inputs[0], wishes, label))
    missing = [tensor.name for tensor in spec.inputs if tensor.name not in table.columns]
    if missing:
        raise DataError(
            f"{table.name}: has no column {missing[0]!r}, which is an input of the model; it has {_some(table.columns)}"
        )
    return Layout(label=label, inputs={t.name: (t.name,) for t in spec.inputs})


def _label(table: Table, wishes: Thresholds, *, labelled: bool) -> str | None:
    if wishes.label is not None:
        if wishes.label in table.columns:
            return wishes.label
        if labelled:
            raise DataError(
                f"{table.name}: has no column {wishes.label!r} with the right answers; it has {_some(table.columns)}"
            )
        return None
    found = next((name for name in LABELS if name in table.columns), None)
    if found is None and labelled:
        raise DataError(
            f"{table.name}: which column has the right answers? Name it by --label; it has {_some(table.columns)}"
        )
    return found


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _one_input(
    table: Table, tensor: TensorSpec, wishes: Thresholds, label: str | None
) -> dict[str, tuple[str, ...]]:
    others = [c for c in table.columns if c != label and c not in wishes.ignore]
    if wishes.features:
        others = list(wishes.features)
    elif tensor.name in others:
        others = [tensor.name]
    width = _width(tensor)
    # One column may hold the whole row as a list.
    if width is not None and len(others) not in (width, 1):
        raise DataError(
            f"{table.name}: input {tensor.name!r} of the model takes {width} numbers a row, and there are "
            f"{len(others)} columns besides the label: {_some(others)}. Leave some out by --ignore, or name "
            "them by --features"
        )
    if not others:
        raise DataError(f"{table.name}: has no column for the input {tensor.name!r} of the model")
    return {tensor.name: tuple(others)}


def _width(tensor: TensorSpec) -> int | None:
    """How many values a row of an input has; None: any number."""
    sizes = tensor.shape[1:]
    return math.prod(sizes) if all(isinstance(d, int) for d in sizes) else None  # type: ignore[arg-type]


def arrays_of(table: Table, chunk: Chunk, layout: Layout, spec: ModelSpec) -> dict[str, Array]:
    """Make the model's inputs of a chunk.

    Raises:
        DataError: a cell is not what the input takes; names row and column.
    """
    return {
        tensor.name: _array(table, chunk, layout.inputs[tensor.name], tensor)
        for tensor in spec.inputs
    }


def _array(table: Table, chunk: Chunk, columns: Sequence[str], tensor: TensorSpec) -> Array:
    dtype = DTYPES[tensor.datatype]
    first = chunk.columns[columns[0]]
    if len(columns) == 1 and first and isinstance(first[0], list):
        return _lists(table, chunk, columns[0], tensor)
    parts = [_column(table, chunk, name, dtype) for name in columns]
    joined = np.stack(parts, axis=1) if parts else np.empty((chunk.rows, 0), dtype)
    return joined.reshape(_shape(table, chunk.rows, len(columns), tensor))


def _shape(table: Table, rows: int, width: int, tensor: TensorSpec) -> tuple[int, ...]:
    """Give the shape of some rows of an input, whose one open size is what is left of the width."""
    sizes = list(tensor.shape[1:])
    open_at = [i for i, size in enumerate(sizes) if not isinstance(size, int)]
    known = math.prod(size for size in sizes if isinstance(size, int))
    wanted = _width(tensor)
    if wanted is not None and wanted != width:
        raise DataError(
            f"{table.name}: input {tensor.name!r} of the model takes {wanted} numbers a row, and there are {width}"
        )
    if len(open_at) > 1 or (known and width % known):
        raise DataError(
            f"{table.name}: {width} values a row do not make shape {tensor.wire_shape} of input {tensor.name!r}: give "
            "one column with lists"
        )
    return (rows, *(size if isinstance(size, int) else width // known for size in sizes))


def _lists(table: Table, chunk: Chunk, column: str, tensor: TensorSpec) -> Array:
    dtype = DTYPES[tensor.datatype]
    for index, value in enumerate(chunk.columns[column]):
        if not isinstance(value, list):
            raise DataError(
                f"{table.where(chunk.first + index, column)}: a list is expected, as in the first row"
            )
    sizes = {_size(value) for value in chunk.columns[column]}
    if len(sizes) > 1:
        raise DataError(
            f"{table.name}, column {column!r}: lists of different lengths {sorted(sizes)[:3]} cannot share a run: "
            "pad them"
        )
    try:
        array = np.array(chunk.columns[column], dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(
            f"{table.name}, column {column!r}, rows {chunk.first} to {chunk.first + chunk.rows - 1}: {error}"
        ) from error
    wanted = _width(tensor)
    if array.ndim != len(tensor.shape) or (wanted is not None and array[0].size != wanted):
        shape = _shape(table, chunk.rows, int(array[0].size), tensor)
        return array.reshape(shape)
    return array


def _size(value: Any) -> int:
    return sum(_size(item) for item in value) if isinstance(value, list) else 1


def _column(table: Table, chunk: Chunk, name: str, dtype: np.dtype[Any]) -> Array:
    values = chunk.columns[name]
    if dtype.kind == "O":
        return np.array(["" if value is None else str(value) for value in values], object)
    numbers = to_floats(table, chunk, name)
    if is_floating(dtype):
        with np.errstate(over="ignore"):
            cast = numbers.astype(dtype)
        lost = np.isfinite(numbers) & ~np.isfinite(cast.astype(np.float64))
        _refuse(table, chunk, name, lost, f"is too large for {dtype}")
        return cast
    _refuse(table, chunk, name, np.isnan(numbers), "is missing, and the model takes integers here")
    _refuse(table, chunk, name, numbers != np.floor(numbers), "is no integer")
    _refuse(
        table,
        chunk,
        name,
        np.abs(numbers) > _EXACT,
        "is beyond 2^53, where integers are not read exactly",
    )
    if dtype.kind == "b":
        _refuse(table, chunk, name, (numbers != 0) & (numbers != 1), "is neither true nor false")
    else:
        limits = np.iinfo(dtype)
        outside = (numbers < float(limits.min)) | (numbers > float(limits.max))
        _refuse(table, chunk, name, outside, f"does not fit {dtype}")
    return numbers.astype(dtype)


def _refuse(table: Table, chunk: Chunk, name: str, wrong: NDArray[np.bool_], why: str) -> None:
    if wrong.any():
        at = int(np.argmax(wrong))
        value = chunk.columns[name][at]
        raise DataError(f"{table.where(chunk.first + at, name)}: {value!r} {why}")


_EXACT: Final = 2.0**53
_WORDS: Final = {"true": 1.0, "false": 0.0}
_MISSING: Final = frozenset({"", "nan", "na", "null", "none"})


def to_floats(table: Table, chunk: Chunk, name: str) -> Floats:
    """Read a column as numbers; what is missing is NaN.

    Raises:
        DataError: a cell is no number.
    """
    values = chunk.columns[name]
    try:
        return np.array([_number(value) for value in values], np.float64)
    except (ValueError, TypeError):
        for index, value in enumerate(values):
            try:
                _number(value)
            except (ValueError, TypeError) as error:
                shown = value if len(str(value)) <= 40 else f"{str(value)[:40]}..."
                raise DataError(
                    f"{table.where(chunk.first + index, name)}: {shown!r} is no number, which the model takes here"
                ) from error
        raise


def _number(value: Any) -> float:
    if value is None:
        return math.nan
    if isinstance(value, str):
        text = value.strip()
        if text.lower() in _MISSING:
            return math.nan
        return _WORDS[text.lower()] if text.lower() in _WORDS else float(text)
    return float(value)
