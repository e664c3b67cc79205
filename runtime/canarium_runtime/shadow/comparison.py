"""How the two answers of a pair differ.

Outputs are compared by name. An output that only the shadow has is no difference: clients of stable do not know it.

Rows. An output is a matrix of rows and columns: its last axis is columns, all others together are rows; with one axis
it is a column. A row is one prediction, and its columns are the scores of the classes, or one value.

Flip. The class of a row is the column of its largest score (the first of equals) for floats with two columns or more,
and the row itself for all other datatypes, which hold labels. Floats with one column have no class.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canarium_api.metric_names import PredictionStatus, ShadowMismatch, ShadowOutcome
from canarium_runtime.backends.base import Array
from canarium_runtime.shadow import wire
from canarium_runtime.shadow.pairing import Pair
from canarium_runtime.shadow.records import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """Numbers a (stable) and b (shadow) count as the same when |b - a| <= absolute + relative * |a|.

    This is the rule of `numpy.isclose` with stable as its reference value. Example: absolute 0.1 and relative 0.01 let
    10 be 9.8 to 10.2.
    """

    absolute: float
    relative: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputComparison:
    """How one output differs."""

    name: str
    mismatches: frozenset[ShadowMismatch]
    compared: bool = True
    """False: too large, so that a difference other than SHAPE and EXACT would not have been seen."""
    flipped_rows: int = 0
    max_absolute: float = 0.0
    """Largest |b - a|; infinite where only one of them is a finite number. 0 for labels."""
    max_relative: float = 0.0
    """Largest |b - a| / |a| over a other than 0; infinite as above."""
    stable: Array | None = None
    """Stable's rows and columns, where elements were compared."""
    shadow: Array | None = None
    """The shadow's."""

    @property
    def rows(self) -> int:
        """Rows that were compared."""
        return 0 if self.stable is None else int(self.stable.shape[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class PairComparison:
    """How a pair differs."""

    outcome: ShadowOutcome
    mismatches: frozenset[ShadowMismatch]
    outputs: Sequence[OutputComparison] = ()

    @property
    def is_mismatch(self) -> bool:
        """Whether a client of the shadow would have got another answer than stable's, beyond the tolerance."""
        if self.outcome is ShadowOutcome.SHADOW_FAILED:
            return True
        return self.outcome is ShadowOutcome.COMPARED and bool(
            self.mismatches - {ShadowMismatch.EXACT}
        )


def compare(pair: Pair, tolerance: Tolerance) -> PairComparison:
    """Compare the answers of a pair."""
    stable, shadow = pair.stable.status, pair.shadow.status
    if stable is shadow is PredictionStatus.SUCCESS:
        theirs = {t.name: t for t in pair.shadow.outputs}
        outputs = [compare_output(t, theirs.get(t.name), tolerance) for t in pair.stable.outputs]
        found = frozenset[ShadowMismatch]().union(*(o.mismatches for o in outputs))
        seen = any(o.compared for o in outputs) or not outputs
        outcome = ShadowOutcome.COMPARED if seen else ShadowOutcome.UNCOMPARED
        return PairComparison(outcome=outcome, mismatches=found, outputs=outputs)
    if stable is PredictionStatus.SUCCESS:
        outcome = ShadowOutcome.SHADOW_FAILED
    elif shadow is PredictionStatus.SUCCESS:
        outcome = ShadowOutcome.STABLE_FAILED
    else:
        outcome = ShadowOutcome.BOTH_FAILED
    mismatches = frozenset({ShadowMismatch.STATUS} if stable is not shadow else ())
    return PairComparison(outcome=outcome, mismatches=mismatches)


def compare_output(stable: Tensor, shadow: Tensor | None, tolerance: Tolerance) -> OutputComparison:
    """Compare one output; `shadow` is None where the shadow has no output of this name."""
    name = stable.name
    if shadow is None or (stable.datatype, stable.shape) != (shadow.datatype, shadow.shape):
        return OutputComparison(name=name, mismatches=frozenset({ShadowMismatch.SHAPE}))
    if stable.data is None or shadow.data is None:
        return _compare_digests(stable, shadow)
    a, b = _matrix(wire.array_of(stable)), _matrix(wire.array_of(shadow))
    if a.dtype.kind == "f":
        return _compare_floats(name, a, b, tolerance)
    flipped = int(np.count_nonzero((a != b).any(axis=1)))
    labels = {ShadowMismatch.EXACT, ShadowMismatch.TOLERANCE, ShadowMismatch.FLIP}
    return OutputComparison(
        name=name,
        mismatches=frozenset(labels if flipped else ()),
        flipped_rows=flipped,
        stable=a,
        shadow=b,
    )


def _compare_digests(stable: Tensor, shadow: Tensor) -> OutputComparison:
    """Compare what was too large to record: equal digests are equal elements, others may be within the tolerance."""
    known = stable.digest is not None and shadow.digest is not None
    equal = known and stable.digest == shadow.digest
    mismatches = frozenset({ShadowMismatch.EXACT} if known and not equal else ())
    return OutputComparison(name=stable.name, mismatches=mismatches, compared=equal)


def _compare_floats(
    name: str, stable: Array, shadow: Array, tolerance: Tolerance
) -> OutputComparison:
    a, b = stable.astype(np.float64), shadow.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    mismatches = set()
    absolute = relative = 0.0
    if not same.all():
        mismatches.add(ShadowMismatch.EXACT)
        finite = np.isfinite(a) & np.isfinite(b)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            difference = np.where(same, 0.0, np.where(finite, np.abs(b - a), np.inf))
            # An infinite a would tolerate everything.
            allowed = np.where(finite, tolerance.absolute + tolerance.relative * np.abs(a), 0.0)
            ratio = np.where(same | (a == 0), 0.0, difference / np.abs(a))
            ratio = np.where(finite | same, ratio, np.inf)
        if (difference > allowed).any():
            mismatches.add(ShadowMismatch.TOLERANCE)
        absolute, relative = float(difference.max()), float(ratio.max())
    flipped = 0
    if a.shape[1] > 1:
        flipped = int(np.count_nonzero(a.argmax(axis=1) != b.argmax(axis=1)))
    if flipped:
        mismatches.add(ShadowMismatch.FLIP)
    return OutputComparison(
        name=name,
        mismatches=frozenset(mismatches),
        flipped_rows=flipped,
        max_absolute=absolute,
        max_relative=relative,
        stable=a,
        shadow=b,
    )


def _matrix(array: NDArray[Any]) -> Array:
    """Make rows and columns of an array of any shape."""
    if array.size == 0:
        return array.reshape(0, 1)
    return array.reshape(-1, 1) if array.ndim < 2 else array.reshape(-1, array.shape[-1])
