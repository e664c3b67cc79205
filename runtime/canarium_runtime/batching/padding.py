"""Requests of different lengths in one run: inputs are padded to the longest, outputs cut back to each own length.

Only for axes that the model's owner declares, since only the owner knows that the model gives a padded row the same
answer (it masks the padding, or sums zeros). Pure: arrays in, arrays out.

Example: axis 1 of `x`, value 0, multiple 4. Requests of shapes (1, 3) and (2, 5) run as one input of shape (3, 8); an
output of shape (3, 8) whose axis has the same name becomes (1, 3) and (2, 5) again.
"""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from canarium_api.padding import PaddingSpec
from canarium_runtime.backends.base import (
    DTYPES,
    FLOATING,
    Array,
    BackendError,
    ModelSpec,
    TensorSpec,
)
from canarium_runtime.batching.merge import Inputs, Outputs, Run
from canarium_runtime.errors import LoadError

MAX_VALUES = 1 << 22
"""Values of one padded input. One long request among many short ones must not cost memory without bound: what would be
larger is run request by request."""


@dataclass(frozen=True, slots=True)
class _Axis:
    """A padded axis of an input."""

    axis: int
    dimension: str
    """Axes with the same one have the same length within a request."""
    value: Any
    multiple: int


@dataclass(slots=True)
class Padded:
    """Inputs of several requests, joined."""

    inputs: Inputs
    counts: list[int]
    """Rows of each request."""
    lengths: list[dict[str, int]]
    """Of each request, by dimension, before padding."""
    length: dict[str, int]
    """Of all together, by dimension."""


class Padding:
    """What is declared of one model.

    Args:
        axes: padded axes by input.
        cuts: axes of outputs that are cut back: (axis, dimension) by output.
    """

    def __init__(
        self,
        axes: Mapping[str, Sequence[_Axis]],
        cuts: Mapping[str, Sequence[tuple[int, str]]],
    ) -> None:
        self._axes = axes
        self._cuts = cuts

    def key(self, inputs: Inputs, outputs: Sequence[str]) -> Hashable:
        """Give what is equal for requests that may share a run: all but the lengths of padded axes."""
        return (outputs, *[self._shape(name, array) for name, array in inputs.items()])

    def _shape(self, name: str, array: Array) -> tuple[int, ...]:
        shape = array.shape[1:]
        axes = self._axes.get(name)
        if axes is None:
            return shape
        padded = {a.axis - 1 for a in axes}
        return tuple(-1 if index in padded else size for index, size in enumerate(shape))

    def join(self, requests: Sequence[Inputs]) -> Padded | None:
        """Join requests along the first axis; None: their lengths are as they should be, nothing is to be padded.

        Raises:
            TooLarge: the result would be.
        """
        lengths = [dict(self._lengths(inputs)) for inputs in requests]
        longest: dict[str, int] = {}
        for axes in self._axes.values():
            for a in axes:
                most = max(found[a.dimension] for found in lengths)
                longest[a.dimension] = math.ceil(most / a.multiple) * a.multiple
        if all(found == longest for found in lengths):
            return None
        counts = [next(iter(inputs.values())).shape[0] for inputs in requests]
        joined = {name: self._join(name, requests, counts, longest) for name in requests[0]}
        return Padded(joined, counts, lengths, longest)

    def _lengths(self, inputs: Inputs) -> Iterator[tuple[str, int]]:
        return (
            (a.dimension, inputs[name].shape[a.axis])
            for name, axes in self._axes.items()
            for a in axes
        )

    def _join(
        self,
        name: str,
        requests: Sequence[Inputs],
        counts: Sequence[int],
        longest: Mapping[str, int],
    ) -> Array:
        axes = self._axes.get(name)
        if axes is None:
            return np.concatenate([inputs[name] for inputs in requests])
        first = requests[0][name]
        shape = [sum(counts), *first.shape[1:]]
        for a in axes:
            shape[a.axis] = longest[a.dimension]
        if len(requests) > 1 and math.prod(shape) > MAX_VALUES:
            raise TooLarge
        # One value for an input: where two of its axes are padded, both have the same.
        joined = np.full(shape, axes[0].value, first.dtype)
        start = 0
        for inputs, count in zip(requests, counts, strict=True):
            array = inputs[name]
            joined[(slice(start, start + count), *map(slice, array.shape[1:]))] = array
            start += count
        return joined

    def split(
        self, outputs: Sequence[Array], names: Sequence[str], padded: Padded
    ) -> list[Outputs]:
        """Give each request its rows of a run's outputs, in its own lengths.

        Raises:
            BackendError: an output is not as long as the padded inputs, or has not as many rows.
        """
        rows = sum(padded.counts)
        for name, array in zip(names, outputs, strict=True):
            if array.ndim == 0 or array.shape[0] != rows:
                msg = f"output {name!r} has shape {list(array.shape)} for a batch of {rows} rows"
                raise BackendError(msg)
            for axis, dimension in self._cuts.get(name, ()):
                if array.ndim <= axis or array.shape[axis] != padded.length[dimension]:
                    msg = (
                        f"output {name!r} has shape {list(array.shape)} where axis {axis} was to be "
                        f"{padded.length[dimension]}, as padded inputs are"
                    )
                    raise BackendError(msg)
        pieces: list[Outputs] = []
        start = 0
        for count, lengths in zip(padded.counts, padded.lengths, strict=True):
            pieces.append(
                Outputs(
                    Run(
                        [
                            array[self._part(name, array.ndim, start, start + count, lengths)]
                            for name, array in zip(names, outputs, strict=True)
                        ]
                    )
                )
            )
            start += count
        return pieces

    def _part(
        self, name: str, dimensions: int, start: int, stop: int, lengths: Mapping[str, int]
    ) -> tuple[slice, ...]:
        part = [slice(start, stop), *[slice(None)] * (dimensions - 1)]
        for axis, dimension in self._cuts.get(name, ()):
            part[axis] = slice(lengths[dimension])
        return tuple(part)


class TooLarge(Exception):  # noqa: N818 - no error: the requests are run one by one
    """Joined and padded, the requests would take too much memory."""


def plan(declared: Sequence[PaddingSpec], model: ModelSpec) -> Padding | None:
    """Match what is declared with the model; None: nothing is.

    Raises:
        LoadError: InvalidConfig: it does not fit the model.
    """
    if not declared:
        return None
    if not model.batchable:
        raise _wrong("pads nothing for a model whose requests cannot be joined: remove it")
    inputs = {t.name: t for t in model.inputs}
    axes: dict[str, list[_Axis]] = {}
    for entry in declared:
        axes.setdefault(entry.input, []).append(_axis(entry, inputs))
    for name, found in axes.items():
        if len({a.value for a in found}) > 1:
            raise _wrong(f"has two values for the input {name!r}: use one")
    multiples: dict[str, int] = {}
    for found in axes.values():
        for a in found:
            if multiples.setdefault(a.dimension, a.multiple) != a.multiple:
                raise _wrong(f"has two multiples for the dimension {a.dimension!r}: use one")
    _check_tied(model, axes)
    return Padding(axes, dict(_cuts(declared, model, axes)))


def _axis(entry: PaddingSpec, inputs: Mapping[str, TensorSpec]) -> _Axis:
    spec = inputs.get(entry.input)
    if spec is None:
        raise _wrong(f"names the input {entry.input!r}: the model has {sorted(inputs)}")
    if entry.axis >= len(spec.shape) or isinstance(spec.shape[entry.axis], int):
        raise _wrong(
            f"names axis {entry.axis} of the input {entry.input!r}, whose shape is {spec.wire_shape}: "
            "name one that is -1"
        )
    if spec.datatype in {"BYTES", "BOOL"}:
        raise _wrong(
            f"names the input {entry.input!r} of {spec.datatype}: only numbers can be padded"
        )
    whole = spec.datatype not in FLOATING
    if whole:
        info = np.iinfo(DTYPES[spec.datatype])
        if not entry.value.is_integer() or not info.min <= entry.value <= info.max:
            raise _wrong(
                f"pads {entry.input!r} of {spec.datatype} with {entry.value}: use a value that fits"
            )
    dimension = spec.shape[entry.axis]
    name = dimension if isinstance(dimension, str) else _unnamed(entry.input, entry.axis)
    return _Axis(entry.axis, name, int(entry.value) if whole else entry.value, entry.multiple)


def _unnamed(name: str, axis: int) -> str:
    return f"axis {axis} of {name}"


def _check_tied(model: ModelSpec, axes: Mapping[str, Sequence[_Axis]]) -> None:
    """Hold all inputs of one dimension to being padded: the model expects them equally long."""
    padded = {a.dimension for found in axes.values() for a in found}
    for spec in model.inputs:
        known = {a.axis for a in axes.get(spec.name, ())}
        for axis, dimension in enumerate(spec.shape):
            if axis and dimension in padded and axis not in known:
                raise _wrong(
                    f"leaves out axis {axis} of the input {spec.name!r}, which is as long as padded ones "
                    f"({dimension}): declare it, too"
                )


def _cuts(
    declared: Sequence[PaddingSpec], model: ModelSpec, axes: Mapping[str, Sequence[_Axis]]
) -> Iterator[tuple[str, list[tuple[int, str]]]]:
    padded = {a.dimension for found in axes.values() for a in found}
    explicit: dict[str, list[tuple[int, str]]] = {}
    for entry in declared:
        (dimension,) = {a.dimension for a in axes[entry.input] if a.axis == entry.axis}
        for name, axis in (entry.outputs or {}).items():
            explicit.setdefault(name, []).append((axis, dimension))
    said = any(entry.outputs is not None for entry in declared)
    for name in explicit:
        if name not in model.output_names:
            raise _wrong(f"names the output {name!r}: the model has {list(model.output_names)}")
    for spec in model.outputs:
        found = [
            (k, d) for k, d in enumerate(spec.shape) if k and isinstance(d, str) and d in padded
        ]
        found += [cut for cut in explicit.get(spec.name, []) if cut not in found]
        if not said and any(d is None for d in spec.shape[1:]):
            raise _wrong(
                f"does not say which axis of the output {spec.name!r}, of shape {spec.wire_shape}, grows with the "
                "input: list it in outputs, or write outputs: {} where none does"
            )
        if found:
            yield spec.name, found


def _wrong(what: str) -> LoadError:
    return LoadError("InvalidConfig", f"model.padding {what}", permanent=True)
