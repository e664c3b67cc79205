"""What the latest rows of one output say together: how far the distribution moved, and whether the ranking held.

Both are computed when somebody asks, from two rings of the latest rows, one for each side, row by row of the same
requests. Memory is bounded by rows, columns and outputs.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from canarium_runtime.backends.base import Array

Floats = NDArray[np.float64]

WINDOW_ROWS = 4096
"""Latest rows that are looked at."""
REFERENCE_ROWS = 200
"""Rows of stable that fix the bins, and fewest rows for any result."""
MAX_COLUMNS = 16
"""Columns that are looked at; of more, as many at even distances."""
ROWS_PER_ANSWER = 64
"""Rows of one answer that enter: one large request must not push out all others."""
BINS = 10
_MOST_CATEGORIES = 31
_MOST_CODES = 1024
"""Different labels that are told apart; all others are one."""


class OutputWindow:
    """The latest rows of one output.

    Args:
        columns: columns of the output.
        labels: the values are labels and no floats.
        window_rows: latest rows that are kept.
        reference_rows: see REFERENCE_ROWS.
    """

    def __init__(
        self,
        columns: int,
        *,
        labels: bool,
        window_rows: int = WINDOW_ROWS,
        reference_rows: int = REFERENCE_ROWS,
    ) -> None:
        count = min(columns, MAX_COLUMNS)
        self.columns = columns
        self.labels = labels
        self._chosen = np.linspace(0, columns - 1, count).round().astype(np.intp)
        self._stable: Floats = np.zeros((window_rows, count))
        self._shadow: Floats = np.zeros((window_rows, count))
        self._row_correlations: Floats = np.full(window_rows, np.nan)
        self._rows = 0
        self._reference_rows = reference_rows
        self._bins: list[Bins] | None = None
        self._codes: dict[object, int] = {}

    def add(self, stable: Array, shadow: Array) -> None:
        """Take the rows of one pair, both of shape (rows, columns)."""
        for a, b in zip(stable[:ROWS_PER_ANSWER], shadow[:ROWS_PER_ANSWER], strict=True):
            at = self._rows % len(self._stable)
            self._stable[at] = self._numbers(a[self._chosen])
            self._shadow[at] = self._numbers(b[self._chosen])
            if not self.labels and self.columns > 2:
                self._row_correlations[at] = spearman(a, b)
            self._rows += 1
            if self._rows == self._reference_rows:
                reference = self._stable[: self._rows]
                self._bins = [Bins.of(column, labels=self.labels) for column in reference.T]

    def psi(self) -> float | None:
        """Population stability index of the shadow against stable; the largest of all columns. None: too few rows."""
        if self._bins is None:
            return None
        size = min(self._rows, len(self._stable))
        return max(
            psi(bins.count(self._stable[:size, i]), bins.count(self._shadow[:size, i]))
            for i, bins in enumerate(self._bins)
        )

    def rank_correlation(self) -> float | None:
        """Spearman's rank correlation of the two sides. None: too few rows, labels, or not defined.

        With three columns or more: the mean over the rows of the correlation within a row, which asks whether the
        classes keep their order. With fewer: the correlation over the rows of the last column, which asks whether the
        requests keep theirs.
        """
        if self.labels or self._rows < self._reference_rows:
            return None
        size = min(self._rows, len(self._stable))
        if self.columns <= 2:
            a, b = self._stable[:size, -1], self._shadow[:size, -1]
            known = ~(np.isnan(a) | np.isnan(b))
            value = spearman(a[known], b[known])
            return None if np.isnan(value) else value
        values = self._row_correlations[:size]
        defined = values[~np.isnan(values)]
        return float(defined.mean()) if len(defined) else None

    def _numbers(self, values: Array) -> Array:
        if not self.labels:
            return values
        codes = self._codes
        for value in values.tolist():
            if value not in codes and len(codes) < _MOST_CODES:
                codes[value] = len(codes)
        return np.array([codes.get(value, _MOST_CODES) for value in values.tolist()], np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bins:
    """Bins of one column, fixed by a reference sample.

    Few values (labels, or at most BINS different ones): a bin for each, and one for the rest. Else BINS bins between
    the reference's quantiles, the outer ones open, fewer where quantiles coincide, and one for NaN.
    """

    values: Floats
    """Values with a bin of their own, in rising order, or inner edges (a value belongs to the first edge that is not
    below it)."""
    are_edges: bool

    @classmethod
    def of(cls, reference: Floats, *, labels: bool) -> "Bins":
        """Fix the bins by a sample of at least one value."""
        known = reference[~np.isnan(reference)]
        different = np.unique(known)
        if labels or len(different) <= BINS:
            common = [v for v, _ in Counter(known.tolist()).most_common(_MOST_CATEGORIES)]
            return cls(values=np.sort(np.array(common, np.float64)), are_edges=False)
        # An existing value as the quantile, so that infinities are never interpolated.
        inner = np.quantile(known, np.arange(1, BINS) / BINS, method="inverted_cdf")
        return cls(values=np.unique(inner), are_edges=True)

    def count(self, sample: Floats) -> NDArray[np.intp]:
        """Count the values of a sample by bin."""
        missing = np.isnan(sample)
        known = sample[~missing]
        index = np.searchsorted(self.values, known)
        size = len(self.values) + 1
        if not self.are_edges:
            index[index == len(self.values)] = 0
            own = self.values[index] == known if len(self.values) else np.zeros(len(known), bool)
            index = np.where(own, index, len(self.values))
        return np.append(np.bincount(index, minlength=size), np.count_nonzero(missing))


def psi(expected: NDArray[np.intp], actual: NDArray[np.intp]) -> float:
    """Population stability index of counts by bin: the sum over the bins of (q - p) * ln(q / p).

    p and q are the shares of the expected and the actual sample. It is the symmetrised Kullback-Leibler divergence
    (S. Kullback and R. A. Leibler, On Information and Sufficiency, Annals of Mathematical Statistics 22, 1951; as an
    index of stability: N. Siddiqi, Credit Risk Scorecards, Wiley 2006). Half a case is added to each bin, so that an
    empty one does not make it infinite.

    For two independent samples of n and m of one population it is about (1/n + 1/m) times a chi-square variable with
    one degree of freedom less than bins (B. Yurdakul, Statistical Properties of Population Stability Index, Western
    Michigan University 2018). Samples of the same requests, as here, differ by less: equal models give exactly 0.

    Example without the half cases: 50 % and 50 % against 60 % and 40 % is 0.1 * ln 1.2 + 0.1 * ln 1.25 = 0.0405.
    """
    p = (expected + 0.5) / (expected.sum() + 0.5 * len(expected))
    q = (actual + 0.5) / (actual.sum() + 0.5 * len(actual))
    return float(((q - p) * np.log(q / p)).sum())


def spearman(a: Array, b: Array) -> float:
    """Spearman's rank correlation of two sequences of the same length: Pearson's correlation of their ranks.

    Equal values share the mean of their ranks (C. Spearman, The Proof and Measurement of Association between Two
    Things, American Journal of Psychology 15, 1904; ties as in M. G. Kendall, Rank Correlation Methods, 1948).

    Returns:
        -1 to 1; 1 where neither side prefers anything, 0 where only one does; NaN with fewer than two values or any
        that is NaN.
    """
    if len(a) < 2 or np.isnan(a).any() or np.isnan(b).any():
        return float("nan")
    x, y = ranks(a), ranks(b)
    x, y = x - x.mean(), y - y.mean()
    spread = float(np.sqrt((x @ x) * (y @ y)))
    if spread == 0.0:
        return float(not x.any() and not y.any())
    return float(np.clip(x @ y / spread, -1.0, 1.0))


def ranks(values: Array) -> Floats:
    """Rank values from 1; equal ones share the mean of their ranks. Example: 3, 1, 3 gives 2.5, 1, 2.5."""
    in_order = np.sort(values)
    below = np.searchsorted(in_order, values, "left")
    not_above = np.searchsorted(in_order, values, "right")
    return (below + not_above + 1) / 2
