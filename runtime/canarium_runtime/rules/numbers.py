"""Ranges, missing values, infinities and whole numbers: whole arrays against vectors of bounds.

Bounds are held in the input's own datatype: a client that sends 0.1 to a 32-bit input meets a `max` of 0.1.
"""

import math
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from canarium_api.metric_names import RuleKind
from canarium_runtime.backends.base import DTYPES, Array, is_floating
from canarium_runtime.rules.checks import Column, Fault, Layout, Mask, RuleError
from canarium_runtime.validation import ONE_THREAD

_MAX_WIDTHS = 8
"""Widths of an input of any width whose bounds are kept."""
_QUICK_DOT = frozenset({"FP32", "FP64"})


@dataclass(frozen=True, slots=True)
class _Bounds:
    """Of all columns; each vector has the rank of the input, since comparing equal shapes takes half the time."""

    lower: Array
    upper: Array
    """Inclusive. Where nothing is said: the largest finite number, or infinity where that is a value."""
    clamps_low: Mask
    clamps_high: Mask
    """Where a value beyond the bound has a nearest right one."""
    required: Mask
    default: Array
    """NaN where there is none."""


class BoundsCheck:
    """`min`, `max`, NaN and infinity of one input of numbers.

    Args:
        layout: of the input.

    Raises:
        RuleError: a bound that no value of the datatype meets.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._dtype = DTYPES[layout.spec.datatype]
        self._float = is_floating(self._dtype)
        self._kept: dict[int, _Bounds] = {}
        widest = max((c.index for c in layout.columns), default=0) + 1
        bounds = self._bounds(layout.width or widest)
        self._fixed = bounds if layout.width is not None else None
        some = bool(layout.all_rules())
        bounded = some and any(
            c.rules.lower is not None or c.rules.upper is not None for c in layout.all_rules()
        )
        nullable = [c.nullable for c in layout.all_rules()]
        if layout.each is None and not (
            layout.width is not None and layout.width == len(layout.columns)
        ):
            nullable.append(layout.nullable)
        self._all_nullable = self._float and all(nullable)
        self._none_nullable = not (self._float and any(nullable))
        self._only_finite = (
            not bounded and not layout.infinity and self._none_nullable and self._float
        )
        self.idle = not bounded and (not self._float or (layout.infinity and self._all_nullable))
        """Whether there is nothing to check."""
        if self._only_finite and layout.spec.datatype in _QUICK_DOT:
            self.holds = self._finite  # type: ignore[method-assign]

    def _finite(self, array: Array) -> bool:
        """Squares never cancel, so their sum is finite only if all numbers are: half the time of a comparison. (A sum
        that overflows is looked at closely.) Not of long ones: see `ONE_THREAD`.
        """
        if array.size > ONE_THREAD:
            return bool(np.isfinite(array).all())
        return math.isfinite(np.vdot(array, array))

    def holds(self, array: Array) -> bool:
        """See `Check`."""
        bounds = self._fixed or self._bounds(array.shape[-1])
        # Looking for a byte is several times quicker than `all` on an array of a few values.
        if self._none_nullable:
            right = (array >= bounds.lower) & (array <= bounds.upper)
            return b"\0" not in right.tobytes()
        wrong = (array < bounds.lower) | (array > bounds.upper)
        if not self._all_nullable:
            wrong |= np.isnan(array) & bounds.required
        return b"\1" not in wrong.tobytes()

    def faults(self, array: Array) -> list[Fault]:
        """See `Check`."""
        bounds = self._bounds(array.shape[-1])
        beyond = (array < bounds.lower) | (array > bounds.upper)
        found: list[Fault] = []
        if self._float:
            missing = np.isnan(array) & bounds.required
            if missing.any():
                hint = "a number, not NaN (allowNan, or nullable of the feature, makes it a value)"
                found.append(Fault(RuleKind.MISSING, missing, lambda _: hint))
            infinite = beyond & np.isinf(array)
            if infinite.any():
                hint = "a finite number (allowInfinity makes infinities values)"
                found.append(Fault(RuleKind.INFINITY, infinite, lambda _: hint))
            beyond &= ~infinite
        if beyond.any():
            found.append(Fault(RuleKind.RANGE, beyond, self._expected))
        return found

    def repair(self, array: Array) -> None:
        """Give missing values their defaults and move others to the nearest bound.

        A bound that is itself excluded has no nearest neighbour among real numbers, and infinity none where there is no
        bound: they stay wrong.
        """
        bounds = self._bounds(array.shape[-1])
        if self._float:
            np.copyto(array, bounds.default, where=np.isnan(array) & ~np.isnan(bounds.default))
        np.copyto(array, bounds.lower, where=(array < bounds.lower) & bounds.clamps_low)
        np.copyto(array, bounds.upper, where=(array > bounds.upper) & bounds.clamps_high)

    def _bounds(self, width: int) -> _Bounds:
        known = self._kept.get(width)
        if known is None:
            if len(self._kept) >= _MAX_WIDTHS:
                self._kept.clear()
            known = self._kept[width] = self._make(width)
        return known

    def _make(self, width: int) -> _Bounds:
        layout = self._layout
        shape = (1,) * (layout.rank - 1) + (width,)
        least, most = _extremes(self._dtype, infinity=layout.infinity)
        lower, upper = np.full(shape, least, self._dtype), np.full(shape, most, self._dtype)
        clamps_low, clamps_high = np.zeros(shape, bool), np.zeros(shape, bool)
        required = np.full(shape, not layout.nullable)
        default = np.full(shape, np.nan if self._float else 0, self._dtype)

        def put(column: Column, at: Any) -> None:
            rules = column.rules
            low, high = limits(column, self._dtype)
            if low is not None:
                lower[at] = low
                clamps_low[at] = rules.exclusive_min is None or not self._float
            if high is not None:
                upper[at] = high
                clamps_high[at] = rules.exclusive_max is None or not self._float
            required[at] = not column.nullable
            if rules.default is not None and self._float:
                default[at] = number(column, rules.default, self._dtype, "default")

        if layout.each is not None:
            put(layout.each, ...)
        for column in layout.columns:
            at = (..., column.index)
            if (
                layout.each is not None
            ):  # whole: a column's own rules stand instead of those for each
                lower[at], upper[at] = least, most
                clamps_low[at] = clamps_high[at] = False
                default[at] = np.nan if self._float else 0
            put(column, at)
        return _Bounds(lower, upper, clamps_low, clamps_high, required, default)

    def _expected(self, index: int) -> str:
        column = self._layout.at(index)
        return "a finite number" if column is None else _range(column)


class WholeCheck:
    """`integer` in an input of floats.

    Args:
        indexes: columns that hold whole numbers only.
        others: whether all other columns do, too.
    """

    def __init__(self, indexes: dict[int, bool], *, others: bool) -> None:
        self._indexes = indexes
        self._others = others
        self._chosen = np.array([i for i, wanted in indexes.items() if wanted], np.intp)
        self._everywhere = others and all(indexes.values())

    def holds(self, array: Array) -> bool:
        """See `Check`. NaN and infinities are no matter of this check."""
        if self._others and not self._everywhere:
            return not self._wrong(array).any()
        part = array if self._everywhere else array[..., self._chosen]
        return b"\1" not in (np.floor(part) < part).tobytes()

    def faults(self, array: Array) -> list[Fault]:
        """See `Check`."""
        wrong = self._wrong(array)
        return [Fault(RuleKind.INTEGER, wrong, lambda _: "a whole number")] if wrong.any() else []

    def repair(self, array: Array) -> None:
        """See `Check`: whether to round up or down is not evident."""

    def _wrong(self, array: Array) -> Mask:
        chosen = np.full(array.shape[-1], self._others)
        for column, wanted in self._indexes.items():
            chosen[column] = wanted
        wrong: Mask = (np.floor(array) < array) & chosen
        return wrong


def _extremes(dtype: np.dtype[Any], *, infinity: bool) -> tuple[Any, Any]:
    if is_floating(dtype):
        most = np.inf if infinity else ml_dtypes.finfo(dtype).max
        return -most, most
    info = np.iinfo(dtype)
    return info.min, info.max


def limits(column: Column, dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """Give the least and the largest value of a column, in its datatype; None: not bounded.

    Raises:
        RuleError: there is no value between them.
    """
    rules = column.rules
    low: Any = None
    high: Any = None
    if is_floating(dtype):
        kind = dtype.type
        with np.errstate(over="ignore"):
            if rules.lower is not None:
                low = kind(rules.lower)
                if rules.exclusive_min is not None:
                    low = np.nextafter(low, kind(np.inf))
            if rules.upper is not None:
                high = kind(rules.upper)
                if rules.exclusive_max is not None:
                    high = np.nextafter(high, kind(-np.inf))
    else:
        info = np.iinfo(dtype)
        if rules.lower is not None:
            first = math.ceil(rules.lower)
            low = first + (rules.exclusive_min is not None and first == rules.lower)
        if rules.upper is not None:
            last = math.floor(rules.upper)
            high = last - (rules.exclusive_max is not None and last == rules.upper)
        if (low is not None and low > info.max) or (high is not None and high < info.min):
            text = f"{column.field}: no {dtype} is {_range(column)}: correct the bounds"
            raise RuleError(text)
        low = None if low is None else max(low, info.min)
        high = None if high is None else min(high, info.max)
    if low is not None and high is not None and low > high:
        raise RuleError(f"{column.field}: no {dtype} is {_range(column)}: correct the bounds")
    return low, high


def number(column: Column, text: str, dtype: np.dtype[Any], what: str) -> Any:
    """Read a number that a spec has as text.

    Raises:
        RuleError: it is none of the datatype.
    """
    try:
        if not is_floating(dtype):
            value = int(text)
            info = np.iinfo(dtype)
            if not info.min <= value <= info.max:
                raise ValueError
            return dtype.type(value)
        with np.errstate(over="ignore"):
            real = dtype.type(float(text))
        if not np.isfinite(real):
            raise ValueError
    except ValueError:
        raise RuleError(f"{column.field}.{what}: {text!r} is no {dtype}: correct it") from None
    return real


def _range(column: Column) -> str:
    rules = column.rules
    parts = []
    if rules.lower is not None:
        parts.append(f"{'above' if rules.min is None else 'at least'} {rules.lower:g}")
    if rules.upper is not None:
        parts.append(f"{'below' if rules.max is None else 'at most'} {rules.upper:g}")
    return " and ".join(parts) or "a finite number"
