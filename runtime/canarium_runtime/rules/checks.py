"""What all checks of one input have in common, and the check of allowed values."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from canarium_api.input_rules import FeatureRules
from canarium_api.metric_names import RuleKind
from canarium_runtime.backends.base import Array, TensorSpec

Mask = NDArray[np.bool_]
_MAX_SHOWN = 5


class RuleError(ValueError):
    """A rule cannot be used with this model; the message names the field and the remedy."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Values of one input that broke one kind of rule."""

    kind: RuleKind
    mask: Mask
    """True for each such value; of the input's shape, with a last axis of columns."""
    expected: Callable[[int], str]
    """What a column's values should be."""


class Check(Protocol):
    """Rules of one kind for one input. Arrays have a last axis of columns."""

    def holds(self, array: Array) -> bool:
        """Whether surely nothing is wrong. Quick; False means that `faults` must look."""
        ...

    def faults(self, array: Array) -> list[Fault]:
        """What is wrong, exactly."""
        ...

    def repair(self, array: Array) -> None:
        """Put right, in place, what has one evident right value."""
        ...


@dataclass(frozen=True, slots=True)
class Column:
    """A feature and where it is."""

    index: int
    rules: FeatureRules
    nullable: bool
    field: str
    """Path in the spec, for errors."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of one input."""

    spec: TensorSpec
    has_columns: bool
    """Whether the last axis of the tensor is one of columns; otherwise all values are of one column."""
    width: int | None
    """Number of columns; None: of any number."""
    columns: tuple[Column, ...]
    """Those with rules of their own."""
    each: Column | None
    """Rules for all the others; its index means nothing."""
    nullable: bool
    """Whether a value in a column without rules may be missing."""
    infinity: bool
    """Whether infinities are values."""

    @property
    def rank(self) -> int:
        """Axes, the one of columns included."""
        return len(self.spec.shape) + (not self.has_columns)

    def at(self, index: int) -> Column | None:
        """Give the rules for a column."""
        return next((c for c in self.columns if c.index == index), self.each)

    def all_rules(self) -> Sequence[Column]:
        """Give all rules, each once."""
        return self.columns if self.each is None else (*self.columns, self.each)


def path(layout: Layout, place: Sequence[int]) -> str:
    """Write where a value is: `inputs.x[0][3]`. `place` has an index for each axis, that of columns included."""
    axes = place if layout.has_columns else place[:-1]
    return f"inputs.{layout.spec.name}" + "".join(f"[{index}]" for index in axes)


class EnumCheck:
    """Allowed values of some columns.

    Sets, since for the few values of one request they are several times quicker than numpy, and no slower for many.

    Args:
        allowed: values by column, None where any is allowed; the column None stands for all that are not named.
        numbers: whether NaN may occur.
    """

    def __init__(
        self, allowed: dict[int | None, frozenset[object] | None], *, numbers: bool
    ) -> None:
        self._all = {c: values for c, values in allowed.items() if c is not None}
        self._named = [(c, values) for c, values in self._all.items() if values is not None]
        self._others = allowed.get(None)
        self._taken = [*self._all]
        self._numbers = numbers

    def holds(self, array: Array) -> bool:
        """See `Check`."""
        for column, values in self._named:
            if not values.issuperset(array[..., column].ravel().tolist()):
                return False
        if self._others is None:
            return True
        rest = np.delete(array, self._taken, axis=-1) if self._taken else array
        return self._others.issuperset(rest.ravel().tolist())

    def faults(self, array: Array) -> list[Fault]:
        """See `Check`. A missing value is no matter of this check."""
        mask = np.zeros(array.shape, bool)
        if self._others is not None:
            mask[...] = self._wrong(array, self._others)
        for column, values in self._all.items():
            if column < array.shape[-1]:
                part = array[..., column]
                mask[..., column] = False if values is None else self._wrong(part, values)
        return [Fault(RuleKind.ENUM, mask, self._expected)] if mask.any() else []

    def repair(self, array: Array) -> None:
        """See `Check`: no allowed value is more right than another."""

    def _wrong(self, array: Array, values: frozenset[object]) -> Mask:
        numbers = self._numbers
        wrong = [v not in values and not (numbers and v != v) for v in array.ravel().tolist()]
        return np.array(wrong, bool).reshape(array.shape)

    def _values(self, column: int) -> frozenset[object] | None:
        return self._all.get(column, self._others)

    def _expected(self, column: int) -> str:
        values = sorted(self._values(column) or (), key=str)
        shown = ", ".join(map(repr, values[:_MAX_SHOWN]))
        return f"one of {shown}{', ...' if len(values) > _MAX_SHOWN else ''}"
